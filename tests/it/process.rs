//! The process and what it is given: output that nobody reads any more, the limit of open files,
//! connections that outlast a drain.
//!
//! It is NOT where a start and an end in good order are tested (`lifecycle.rs`).

use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use tokio::process::{Child, Command};

use crate::lifecycle::{anybody, bearer, closed_port, connect, get, in_time, kubeconfig};
use crate::spawned::{Spoken, command, signal};

/// Starts it, and goes away as soon as it has said that it listens: nobody reads its stderr then.
async fn unheard(folder: &Path, args: &[&str]) -> (Child, String) {
    let mut spoken = Spoken::start(command(folder), folder, args);
    let (_, http) = spoken.listens().await;
    (spoken.child, http)
}

#[tokio::test]
async fn when_nobody_reads_its_words_any_more_it_answers_and_ends_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    for format in ["text", "json"] {
        let args = ["--kubeconfig", &path, "--drain-delay", "0", "--log-format", format];
        let (mut child, http) = unheard(folder.path(), &args).await;
        // Such an answer has a line in the log.
        let url = format!("{http}/api/v1/pod");
        let answer = get(&anybody(), &url, &bearer("anything")).await.unwrap();
        assert!(matches!(answer.status, 503 | 504), "{}: {}", answer.status, answer.text());
        signal("-TERM", &[child.id().unwrap()]);
        let ended = in_time("it ends", child.wait()).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{format}");
    }
}

#[tokio::test]
async fn a_reader_who_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
    let folder = tempfile::tempdir().unwrap();
    // Far more than a pipe holds.
    let mut openapi = command(folder.path());
    openapi.arg("openapi").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = openapi.spawn().unwrap();
    drop(child.stdout.take());
    let output = in_time("it ends", child.wait_with_output()).await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*words), (Some(0), ""));

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut rbac = command(folder.path());
    rbac.arg("rbac").stdout(full).stderr(Stdio::piped());
    let child = rbac.spawn().unwrap();
    let output = in_time("it ends", child.wait_with_output()).await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), words.lines().count()), (Some(1), 1), "{words}");
    assert!(words.contains("cannot write to stdout"), "{words}");
}

/// What becomes the same command with this soft limit of open files.
fn limited(limit: u32, command: &Command) -> Command {
    let (command, mut shell) = (command.as_std(), Command::new("sh"));
    shell.args(["-c", &format!("ulimit -Sn {limit}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::null()).kill_on_drop(true);
    shell
}

#[tokio::test]
async fn it_opens_as_many_files_as_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    let limited = limited(256, &command(folder.path()));
    let mut spoken = Spoken::start(limited, folder.path(), &["--kubeconfig", &path]);
    spoken.listens().await;
    let limits = format!("/proc/{}/limits", spoken.child.id().unwrap());
    let limits = std::fs::read_to_string(limits).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().collect();
    let [soft, hard, ..] = files.as_slice() else { panic!("{limits}") };
    assert!(soft == hard && *hard != "256", "{limits}");
}

#[tokio::test]
async fn a_connection_that_outlasts_the_grace_is_cut_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--demo", "--drain-delay", "0", "--drain-grace", "1"];
    let mut spoken = Spoken::start(command(folder.path()), folder.path(), &args);
    let (_, http) = spoken.listens().await;
    let address = http.trim_start_matches("http://").parse().unwrap();
    let mut sender = connect(address, None).await.unwrap();
    let watch = Request::get("/clusters/demo/api/v1/pods?watch=1").header("host", "localhost");
    let watch = watch.header("authorization", "Bearer demo-admin-token");
    let watch = watch.body(Empty::<Bytes>::new()).unwrap();
    let open = in_time("the watch opens", sender.send_request(watch)).await.unwrap();
    assert_eq!(open.status().as_u16(), 200);
    signal("-TERM", &[spoken.child.id().unwrap()]);
    spoken.says("connections were left after the grace").await;
    let ended = in_time("it ends", spoken.child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    drop(open);
}
