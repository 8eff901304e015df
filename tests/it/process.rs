//! The process and what it is given: output that nobody reads any more, a log that is collected, the
//! limit of open files, connections that outlast a drain; and what its operator reads of an API
//! server that does not answer.
//!
//! It is NOT where a start and an end in good order are tested (`lifecycle.rs`).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use binnacle::demo::{Demo, DemoOptions};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::lifecycle::{anybody, bearer, closed_port, connect, get, in_time, kubeconfig, open};
use crate::spawned::{Binary, Spoken, command, signal, urls};

/// Starts it, and goes away as soon as it has said that it listens: nobody reads its stderr then.
async fn unheard(folder: &Path, args: &[&str]) -> (Child, String) {
    let mut spoken = Spoken::start(command(folder), folder, args);
    let line = spoken.says("listening on http://").await;
    // A line of words, or an object with them.
    let words = match serde_json::from_str::<Value>(&line) {
        Ok(event) => event["message"].as_str().unwrap().to_owned(),
        Err(_) => line,
    };
    (spoken.child, urls(&words).remove(0))
}

#[tokio::test]
async fn a_json_log_is_nothing_else_from_start_to_end_and_lets_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    let args = ["--kubeconfig", &path, "--drain-delay", "0", "--log-format", "json"];
    let mut spoken = Spoken::start(command(folder.path()), folder.path(), &args);
    spoken.says("listening on http://").await;
    signal("-TERM", &[spoken.child.id().unwrap()]);
    spoken.says("draining").await;
    let ended = in_time("it ends", spoken.child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    let told = |words: &str| spoken.said.iter().any(|line| line.contains(words));
    for words in ["cluster ", "nowhere", "the link that signs in", "listening on https://"] {
        assert!(told(words), "{words}: {:#?}", spoken.said);
    }
    assert!(!told("token=") && !told("Bearer"), "{:#?}", spoken.said);
    for line in &spoken.said {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(event["level"].is_string() && event["message"].is_string(), "{line}");
    }

    let nothing = folder.path().join("nothing");
    std::fs::write(&nothing, "current-context: gone\n").unwrap();
    let mut refused = command(folder.path());
    refused.arg("--kubeconfig").arg(nothing).args(["--listen", "127.0.0.1:0"]);
    refused.args(["--log-format", "json"]);
    let output = in_time("it ends", refused.output()).await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    let event: Value = serde_json::from_str(&words).unwrap_or_else(|_| panic!("{words}"));
    assert_eq!((output.status.code(), &event["level"]), (Some(64), &Value::from("ERROR")));
    assert!(event["message"].as_str().unwrap().contains("--kubeconfig"), "{event}");
}

#[tokio::test]
async fn why_the_api_server_cannot_be_reached_is_in_the_log_and_that_it_answers_again() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "demo-admin-token");
    let mut spoken = Spoken::start(command(folder.path()), folder.path(), &["--kubeconfig", &path]);
    let (_, http) = spoken.listens().await;
    let words = "no answer from the API server";
    let told = spoken.said.iter().find(|line| line.contains(words)).cloned();
    let line = match told {
        Some(line) => line,
        None => spoken.says(words).await,
    };
    assert!(line.contains("WARN") && line.contains("Connection refused"), "{line}");
    let (tls, url) = (anybody(), format!("{http}/api/v1/pod"));
    for _ in 0..3 {
        let answer = get(&tls, &url, &bearer("anything")).await.unwrap();
        assert!(matches!(answer.status, 503 | 504), "{}: {}", answer.status, answer.text());
    }
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = DemoOptions { listen, pods: 0, simulate: false };
    let demo = Demo::start(options).await.unwrap();
    open(closed, &demo);
    assert_eq!(get(&tls, &url, &bearer("anything")).await.unwrap().status, 401);
    let line = spoken.says("the API server answers again").await;
    assert!(line.contains("INFO"), "{line}");
    let told = spoken.said.iter().filter(|line| line.contains("Connection refused")).count();
    assert_eq!(told, 1, "{:#?}", spoken.said);
}

#[tokio::test]
async fn an_authority_that_did_not_issue_the_api_servers_certificate_is_named_as_the_cause() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [other, own] = folders.each_ref().map(|folder| folder.path());
    // Anything that speaks TLS under a certificate of its own.
    let other = Binary::start(other, &["--demo"]).await;
    let ca = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
    std::fs::write(own.join("ca.crt"), ca).unwrap();
    let cluster = json!({"server": other.https, "certificate-authority": "ca.crt"});
    let kubeconfig = json!({
        "current-context": "c", "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
    });
    let path = own.join("kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let args = ["--kubeconfig", path.to_str().unwrap()];
    let mut spoken = Spoken::start(command(own), own, &args);
    let line = spoken.says("no answer from the API server").await;
    assert!(line.contains("WARN") && line.contains("UnknownIssuer"), "{line}");
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
