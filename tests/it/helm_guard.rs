//! The guard between us and helm, as the real binary: what ends its child, and what the child may
//! take.
//!
//! No cluster and no helm: shell scripts stand in its place.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use binnacle::helm::door::Doors;
use binnacle::helm::engine::{Engine, Job, Why};
use binnacle::upstream::User;
use http::HeaderMap;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
const BINARY: &str = env!("CARGO_BIN_EXE_binnacle");

/// Says its number, then how it was asked to end; what it started is to end with it.
const HEEDS: &str = r#"
trap 'echo asked > asked; exit 7' TERM
sleep 600 &
echo "$$ $!" > began.new; mv began.new began
wait
"#;
/// Does not listen.
const IGNORES: &str = r#"
trap '' TERM
echo "$$ $$" > began.new; mv began.new began
while :; do sleep 0.05; done
"#;

fn wait_for(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there and no zombie.
pub fn lives(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The numbers that a script has said.
fn began(folder: &Path) -> Vec<String> {
    let path = folder.join("began");
    wait_for("the child begins", || path.exists());
    fs::read_to_string(path).unwrap().split_whitespace().map(str::to_owned).collect()
}

fn guard(folder: &Path, grace: &str, script: &str) -> Child {
    let mut command = Command::new(BINARY);
    command.args(["helm-guard", "--grace", grace, "--", "/bin/sh", "-c", script]);
    command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn the_child_is_asked_to_end_when_the_leash_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut guard = guard(folder.path(), "60000", HEEDS);
    let ids = began(folder.path());
    assert!(ids.iter().all(|id| lives(id)));
    drop(guard.stdin.take());
    assert_eq!(guard.wait().unwrap().code(), Some(7), "the child's own code");
    assert!(folder.path().join("asked").exists());
    wait_for("all is gone", || !ids.iter().any(|id| lives(id)));
}

#[test]
fn the_child_is_asked_to_end_when_whoever_holds_the_leash_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let holder = r#"
        mkfifo leash
        "$1" helm-guard --grace 60000 -- /bin/sh -c "$2" < leash > said 2>&1 &
        exec 9> leash
        read -r until_the_test_ends
    "#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", holder, "sh", BINARY, HEEDS]).current_dir(folder.path());
    let mut holder = command.stdin(Stdio::piped()).spawn().unwrap();
    let ids = began(folder.path());
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_for("the child heard it", || folder.path().join("asked").exists());
    wait_for("all is gone", || !ids.iter().any(|id| lives(id)));
}

#[test]
fn a_child_that_does_not_listen_is_killed_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let mut guard = guard(folder.path(), "50", IGNORES);
    let ids = began(folder.path());
    drop(guard.stdin.take());
    assert_eq!(guard.wait().unwrap().code(), Some(128 + 9));
    wait_for("it is gone", || !ids.iter().any(|id| lives(id)));
}

#[test]
fn a_childs_own_code_and_its_limits_are_those_that_the_guard_gives_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut guard = guard(folder.path(), "60000", "cat /proc/$$/limits; umask; exit 42");
    let mut said = String::new();
    guard.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(guard.wait().unwrap().code(), Some(42));
    for (name, limit) in [
        ("Max core file size", 0_u64),
        ("Max address space", 4 << 30),
        ("Max data size", 1 << 30),
        ("Max file size", 256 << 20),
        ("Max open files", 1024),
    ] {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let soft_and_hard: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(soft_and_hard, [limit.to_string(), limit.to_string()], "{name} in {said}");
    }
    assert_eq!(said.lines().last(), Some("0077"));
}

#[test]
fn what_cannot_be_run_is_told() {
    for (args, code, words) in [
        ("--grace 1 -- /not/there", 127, "/not/there cannot be run"),
        ("--grace soon -- /bin/true", 64, "wanted: --grace"),
        ("", 64, "wanted: --grace"),
    ] {
        let args: Vec<&str> = args.split_whitespace().collect();
        let mut command = Command::new(BINARY);
        let output = command.arg("helm-guard").args(&args).stdin(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(words), "{said}");
    }
}

/// Writes a script that can be executed.
pub fn script(path: &Path, text: &str) {
    // By a process of its own: what a thread of ours still has open cannot be executed.
    let write = r#"printf '%s' "$2" > "$1" && chmod 755 "$1""#;
    let mut command = Command::new("/bin/sh");
    let status = command.args(["-c", write, "sh"]).arg(path).arg(text).status().unwrap();
    assert!(status.success());
}

/// An engine whose helm runs `body`.
fn engine(body: &str) -> (TempDir, Arc<Engine>) {
    let folder = tempfile::tempdir().unwrap();
    let helm = folder.path().join("helm");
    let text = format!("#!/bin/sh\n[ \"$1\" = version ] && exec printf v4.2.4\n{body}\n");
    script(&helm, &text);
    let state = folder.path().join("state");
    (folder, Arc::new(Engine::new(Some(helm), PathBuf::from(BINARY), state)))
}

fn job(cancel: &CancellationToken) -> Job {
    let door = Doors::default().open(User::bearer("of-the-user", &HeaderMap::new()).unwrap());
    Job {
        args: vec!["list".into()],
        door: door.key(),
        namespace: "shop".into(),
        files: Vec::new(),
        time: DEADLINE,
        cancel: cancel.clone(),
        stdout_limit: 1 << 20,
    }
}

#[tokio::test]
async fn a_print_without_end_is_cut_and_ended() {
    let (_folder, engine) = engine("exec yes");
    let found = engine.found().await.unwrap();
    let ended = engine.run(&found, job(&CancellationToken::new()), |_: &str| {}).await.unwrap();
    assert_eq!((ended.why, ended.stdout.len()), (Why::TooMuchOutput, 1 << 20));
}

#[tokio::test]
async fn a_cancelled_helm_says_its_last_words_first() {
    let body = "trap 'echo cancelled >&2; exit 1' TERM\necho begun\nsleep 600 &\nwait";
    let (_folder, engine) = engine(body);
    let found = engine.found().await.unwrap();
    let cancel = CancellationToken::new();
    let ended = engine.run(&found, job(&cancel), |_: &str| cancel.cancel()).await.unwrap();
    assert_eq!((ended.code, ended.why), (Some(1), Why::Cancelled));
    assert_eq!(ended.stderr, "cancelled\n");
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_any_more_ends_its_helm() {
    let body = "echo $$ > \"$0.new\"; mv \"$0.new\" \"$0.began\"; exec sleep 600";
    let (folder, engine) = engine(body);
    let found = engine.found().await.unwrap();
    let running = tokio::spawn(async move {
        let ended = engine.run(&found, job(&CancellationToken::new()), |_: &str| {}).await;
        ended.map(|ended| ended.why)
    });
    let path = folder.path().join("helm.began");
    let waiting = tokio::task::spawn_blocking(move || {
        wait_for("helm begins", || path.exists());
        fs::read_to_string(path).unwrap().trim().to_owned()
    });
    let id = waiting.await.unwrap();
    running.abort();
    assert!(running.await.is_err());
    let gone = tokio::task::spawn_blocking(move || wait_for("helm is gone", || !lives(&id)));
    gone.await.unwrap();
}

#[tokio::test]
async fn neither_arguments_nor_environment_of_a_run_have_a_credential() {
    // Of the guard and of helm itself, as every process of this machine may see them.
    let body = "tr '\\0' '\\n' < /proc/$$/cmdline; tr '\\0' '\\n' < /proc/$PPID/cmdline; \
                tr '\\0' '\\n' < /proc/$$/environ; tr '\\0' '\\n' < /proc/$PPID/environ; \
                echo; cat \"$KUBECONFIG\"";
    let (_folder, engine) = engine(body);
    let found = engine.found().await.unwrap();
    let job = job(&CancellationToken::new());
    let token = job.door.token.clone();
    let ended = engine.run(&found, job, |_: &str| {}).await.unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    let (processes, kubeconfig) = said.split_once('{').unwrap();
    assert!(processes.contains("helm-guard") && processes.contains("HELM_NO_PLUGINS=1"), "{said}");
    assert!(!processes.contains(&token) && kubeconfig.contains(&token), "{said}");
    assert!(!said.contains("of-the-user"), "{said}");
    assert!(!processes.contains("\nPATH=") && !processes.contains("\nCARGO"), "{said}");
}
