//! Runs the README's curl lines against the demo cluster, as a newcomer would.
//!
//! The commands `cargo run` and `cargo test` themselves are what runs this test.

use std::process::Command;

use binnacle::app;
use binnacle::config::{self, Command as Parsed};

use crate::debian;

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_lines_of_the_readme_work_on_the_demo_cluster() {
    debian::installed("curl", "curl");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let args = ["binnacle", "--demo", "--listen", "127.0.0.1:0", "--drain-delay", "0"];
    let args = args.map(String::from).into_iter().chain(["--state-dir".into(), state]);
    let Ok(Parsed::Serve(config)) = config::parse(args.map(Into::into)) else {
        panic!("bad arguments")
    };
    let running = app::start(config).await.unwrap();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let readme = readme.unwrap();
    let lines: Vec<_> = readme.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 5, "the README has lost its examples");
    for line in lines {
        let line = line.replace("127.0.0.1:8443", &running.https.to_string());
        let mut command = Command::new("sh");
        command.args(["-c", &line]).env("no_proxy", "*");
        let run = move || command.output().map(|out| (line, out));
        let (line, output) = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {} {error}", output.status);
        assert!(output.stdout.len() > 20, "{line}: an empty answer");
    }
    running.drain().await;
}
