//! A shell script in the place of helm, and another in that of the guard: the real guard is tested
//! where there is a binary (`tests/it/helm_guard.rs`).

use std::fs;

use tempfile::TempDir;

use super::*;

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs what follows the two dashes, and ends it when stdin is closed.
const GUARD: &str = r#"#!/bin/sh
shift 4
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{ cat <&3; kill "$child"; } >/dev/null 2>&1 &
watch=$!
wait "$child"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
"#;

struct Place {
    folder: TempDir,
    helm: PathBuf,
    engine: Arc<Engine>,
}

/// Written by a process of its own: a file that one of our threads still has open for writing
/// while another starts a child cannot be executed.
fn script(path: &Path, text: &str) {
    let write = r#"printf '%s' "$2" > "$1" && chmod 755 "$1""#;
    let mut command = std::process::Command::new("/bin/sh");
    let status = command.args(["-c", write, "sh"]).arg(path).arg(text).status().unwrap();
    assert!(status.success());
}

fn helm(version: &str, body: &str) -> String {
    let asked = format!("echo asked >> \"$0.asked\"; printf '%s' '{version}'; exit");
    format!("#!/bin/sh\nif [ \"$1\" = version ]; then {asked}; fi\n{body}\n")
}

fn place(version: &str, body: &str) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let (path, guard) = (folder.path().join("helm"), folder.path().join("guard"));
    script(&path, &helm(version, body));
    script(&guard, GUARD);
    let engine = Engine::new(Some(path.clone()), guard, folder.path().join("state"));
    Place { folder, helm: path, engine: Arc::new(engine) }
}

fn job() -> Job {
    let url = "https://127.0.0.1:1".to_owned();
    Job {
        args: vec!["list".into()],
        door: DoorKey { url, ca: "PEM".to_owned(), token: "t0ken".to_owned() },
        namespace: "shop".to_owned(),
        files: Vec::new(),
        time: DEADLINE,
        cancel: CancellationToken::new(),
        stdout_limit: 1 << 20,
    }
}

async fn run(engine: &Engine, job: Job) -> (Ended, Vec<String>) {
    let found = engine.found().await.unwrap();
    let mut lines = Vec::new();
    let ended = engine.run(&found, job, |line: &str| lines.push(line.to_owned())).await.unwrap();
    (ended, lines)
}

/// The run's folders that are left.
fn sandboxes(place: &Place) -> usize {
    let root = place.folder.path().join("state/helm");
    let processes = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let folders = processes.filter(|path| path.is_dir()).flat_map(|dir| fs::read_dir(dir).unwrap());
    folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

#[tokio::test]
async fn the_version_is_asked_once_of_each_file_that_stands_there() {
    let place = place("v4.2.4", "");
    assert_eq!(place.engine.known(), None);
    for _ in 0..2 {
        let found = place.engine.found().await.unwrap();
        assert_eq!((found.version.as_str(), found.major), ("v4.2.4", 4));
    }
    let asked = place.helm.with_file_name("helm.asked");
    assert_eq!(fs::read_to_string(&asked).unwrap(), "asked\n");
    script(&place.helm, &helm("v3.21.4+g1a2b3c", ""));
    assert_eq!(place.engine.found().await.unwrap().major, 3);
    assert_eq!(fs::read_to_string(&asked).unwrap(), "asked\nasked\n");
    assert_eq!(place.engine.known().unwrap().version, "v3.21.4+g1a2b3c");
    fs::remove_file(&place.helm).unwrap();
    assert!(matches!(place.engine.found().await, Err(NoEngine::Absent(_))));
    assert_eq!(place.engine.known(), None);
}

#[tokio::test]
async fn what_is_neither_helm_3_nor_helm_4_is_refused_with_what_it_said() {
    for said in ["v2.17.0", "v3.16.4", "v5.0.0", "hello", "", "v4", "v4.x", "v4.2.4; rm"] {
        let place = place(said, "");
        let error = place.engine.found().await.unwrap_err();
        let wanted =
            NoEngine::Version { path: place.helm.display().to_string(), said: said.to_owned() };
        assert_eq!(error, wanted);
    }
    let place = place("v4.2.4", "");
    script(&place.helm, "#!/bin/sh\necho 'it is broken' >&2\nexit 3\n");
    let error = place.engine.found().await.unwrap_err().to_string();
    assert!(error.contains("ended with 3: it is broken"), "{error}");
}

#[test]
fn of_helm_3_the_oldest_is_3_17() {
    assert_eq!((major("v3.17.0"), major("v3.16.4"), major("v4.0.0")), (Some(3), None, Some(4)));
}

#[tokio::test]
async fn what_took_the_engines_place_after_it_was_found_is_not_run() {
    let place = place("v4.2.4", "");
    let found = place.engine.found().await.unwrap();
    script(&place.helm, "#!/bin/sh\ntouch \"$0.ran\"\n");
    let refused = place.engine.run(&found, job(), |_: &str| {}).await.err();
    assert!(matches!(refused, Some(RunError::Replaced(_))));
    assert!(!place.helm.with_file_name("helm.ran").exists());
    assert_eq!(place.engine.outcomes()[5], ("not_started", 1));
}

#[tokio::test]
async fn a_child_has_its_own_folder_and_no_credential_in_arguments_or_environment() {
    let body = "pwd; cat values.json; echo; echo \"args: $*\"; echo environment; env";
    let place = place("v4.2.4", body);
    let files = vec![("values.json", Bytes::from_static(b"{\"a\":1}"))];
    let (ended, lines) = run(&place.engine, Job { files, ..job() }).await;
    assert_eq!((ended.code, ended.why), (Some(0), Why::Itself));
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(!text.contains("t0ken"), "{text}");
    assert_eq!(lines[1..4], ["{\"a\":1}", "args: list", "environment"]);
    let own = Path::new(&lines[0]);
    assert!(own.starts_with(fs::canonicalize(place.folder.path()).unwrap()));
    let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
    for (name, value) in NOWHERE {
        assert!(lines[4..].contains(&format!("{name}={value}")), "{text}");
    }
    for line in &lines[4..] {
        let (name, value) = line.split_once('=').unwrap();
        let given = name.starts_with("HELM_")
            || NOWHERE.iter().any(|(proxy, _)| *proxy == name)
            || ["HOME", "TMPDIR", "KUBECONFIG", "NO_COLOR", "GOMEMLIMIT", "GOTRACEBACK"]
                .contains(&name);
        assert!(given || shells.contains(&name), "{line}");
        assert!(name != "HELM_NO_PLUGINS" || value == "1");
    }
    assert_eq!(sandboxes(&place), 0);
}

#[tokio::test]
async fn how_a_child_ended_is_told_with_its_last_words() {
    let place = place("v4.2.4", "echo out; echo 'Error: no' >&2; exit 3");
    let (ended, mut lines) = run(&place.engine, job()).await;
    assert_eq!((ended.code, ended.why), (Some(3), Why::Itself));
    assert_eq!((ended.stdout.as_slice(), ended.stderr.as_str()), (&b"out\n"[..], "Error: no\n"));
    lines.sort();
    assert_eq!(lines, ["Error: no", "out"]);
    assert_eq!(place.engine.outcomes()[..2], [("succeeded", 0), ("failed", 1)]);
}

#[tokio::test]
async fn a_child_that_says_too_much_is_cut_and_ended() {
    // Long lines: short ones would be millions.
    for to in ["1", "2"] {
        let body = &format!("exec yes \"$(printf '%5000s' x)\" >&{to}");
        let place = place("v4.2.4", body);
        let (ended, _) = run(&place.engine, Job { stdout_limit: 1000, ..job() }).await;
        assert_eq!((ended.code, ended.why), (Some(143), Why::TooMuchOutput), "{body}");
        assert!(ended.stdout.len() <= 1000 && ended.stderr.len() <= 64 << 10);
    }
}

#[tokio::test]
async fn a_child_is_ended_when_it_is_cancelled_and_when_its_time_is_over() {
    let place = place("v4.2.4", "echo begun; exec sleep 600");
    let found = place.engine.found().await.unwrap();
    let cancel = CancellationToken::new();
    let job = || Job { cancel: cancel.clone(), ..job() };
    let ended = place.engine.run(&found, job(), |_: &str| cancel.cancel()).await.unwrap();
    assert_eq!((ended.code, ended.why), (Some(143), Why::Cancelled));
    let ended = place.engine.run(&found, job(), |_: &str| {}).await.unwrap();
    assert_eq!((ended.code, ended.why), (None, Why::Cancelled), "it was cancelled before it began");
    let short = Job { time: Duration::from_millis(10), cancel: CancellationToken::new(), ..job() };
    let ended = place.engine.run(&found, short, |_: &str| {}).await.unwrap();
    assert_eq!((ended.code, ended.why), (Some(143), Why::TimedOut));
    assert_eq!(place.engine.outcomes()[2..4], [("cancelled", 2), ("timed_out", 1)]);
    assert_eq!(sandboxes(&place), 0);
}

#[tokio::test]
async fn of_one_caller_so_many_run_and_another_does_not_wait_for_them() {
    let place = place("v4.2.4", "while [ ! -e \"$0.go\" ]; do sleep 0.05; done");
    let found = place.engine.found().await.unwrap();
    let run = |caller: &'static str, cancel: &CancellationToken| {
        let (engine, found) = (Arc::clone(&place.engine), found.clone());
        let job = Job { cancel: cancel.clone(), ..job() };
        let nobody = std::future::ready(None);
        tokio::spawn(async move {
            engine.run_unless(Some(caller), nobody, &found, job, |_: &str| {}).await
        })
    };
    let is_so = async |children: usize, waiting: usize| {
        while (place.engine.children(), place.engine.waiting()) != (children, waiting) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (none, leaves) = (CancellationToken::new(), CancellationToken::new());
    let mut runs: Vec<_> = (0..OF_ONE).map(|_| run("jane", &none)).collect();
    tokio::time::timeout(DEADLINE, is_so(OF_ONE, 0)).await.unwrap();
    let left = run("jane", &leaves);
    tokio::time::timeout(DEADLINE, is_so(OF_ONE, 1)).await.unwrap();
    runs.push(run("joe", &none));
    tokio::time::timeout(DEADLINE, is_so(OF_ONE + 1, 1)).await.unwrap();
    leaves.cancel();
    let left = left.await.unwrap().unwrap();
    assert_eq!((left.code, left.why), (None, Why::Cancelled), "who waits can be cancelled");
    fs::write(place.helm.with_file_name("helm.go"), "").unwrap();
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap().code, Some(0));
    }
}

#[tokio::test]
async fn operations_that_hang_leave_places_to_dry_runs() {
    let body = "[ \"$1\" = template ] || while [ ! -e \"$0.go\" ]; do sleep 0.05; done";
    let place = place("v4.2.4", body);
    let found = place.engine.found().await.unwrap();
    let runs: Vec<_> = (0..CHILDREN)
        .map(|number| {
            let (engine, found) = (Arc::clone(&place.engine), found.clone());
            tokio::spawn(async move {
                let (caller, nobody) = (number.to_string(), std::future::ready(None));
                engine.run_unless(Some(&caller), nobody, &found, job(), |_: &str| {}).await
            })
        })
        .collect();
    let all_hang = async {
        while place.engine.children() != CHILDREN {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all_hang).await.unwrap();
    let dry = run(&place.engine, Job { args: vec!["template".into()], ..job() });
    let (ended, _) = tokio::time::timeout(DEADLINE, dry).await.unwrap();
    assert_eq!((ended.code, place.engine.children()), (Some(0), CHILDREN));
    fs::write(place.helm.with_file_name("helm.go"), "").unwrap();
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap().code, Some(0));
    }
}

#[tokio::test]
async fn so_many_run_and_so_many_wait_and_the_next_is_told_to_come_again() {
    let place = place("v4.2.4", "while [ ! -e \"$0.go\" ]; do sleep 0.05; done");
    let found = place.engine.found().await.unwrap();
    // Each of another caller, or dry.
    let runs: Vec<_> = (0..CHILDREN + TRIALS + WAITING)
        .map(|number| {
            let (engine, found) = (Arc::clone(&place.engine), found.clone());
            let caller = (number >= TRIALS).then(|| number.to_string());
            tokio::spawn(async move {
                let (caller, nobody) = (caller.as_deref(), std::future::ready(None));
                let ended = engine.run_unless(caller, nobody, &found, job(), |_: &str| {}).await;
                ended.map(|ended| ended.code)
            })
        })
        .collect();
    let full = async {
        while (place.engine.children(), place.engine.waiting()) != (CHILDREN + TRIALS, WAITING) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, full).await.unwrap();
    let refused = place.engine.run(&found, job(), |_: &str| {}).await.err();
    assert!(matches!(refused, Some(RunError::Busy)));
    fs::write(place.helm.with_file_name("helm.go"), "").unwrap();
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap(), Some(0));
    }
    assert_eq!((place.engine.children(), place.engine.waiting()), (0, 0));
}
