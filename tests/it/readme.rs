//! Runs the curl lines of README and docs/ against the demo cluster, as a newcomer would, and follows
//! the links of what people read.
//!
//! The commands `cargo run` and `cargo test` themselves are what runs this test.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use binnacle::app;
use binnacle::config::{self, Command as Parsed};

use crate::debian;

/// What stands beside README and links to docs/.
const BESIDE: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// All that people read, with the README first.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut docs: Vec<PathBuf> = docs.collect();
    docs.sort();
    let all = BESIDE.iter().map(|name| root.join(name)).chain(docs);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    all.map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_lines_of_the_readme_and_the_docs_work_on_the_demo_cluster() {
    debian::installed("curl", "curl");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let args = ["binnacle", "--demo", "--listen", "127.0.0.1:0", "--drain-delay", "0"];
    let args = args.map(String::from).into_iter().chain(["--state-dir".into(), state]);
    let Ok(Parsed::Serve(config)) = config::parse(args.map(Into::into)) else {
        panic!("bad arguments")
    };
    let running = app::start(config).await.unwrap();
    let pages = pages();
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("curl ")).map(String::from).collect()
    };
    assert!(lines(&pages[0].1).len() >= 5, "the README has lost its examples");
    for line in pages.iter().flat_map(|(_, text)| lines(text)) {
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

/// The lines that are no example.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut within = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        within ^= is_fence;
        !within && !is_fence
    })
}

/// Where its links lead; what is written as code links nowhere.
fn links(text: &str) -> Vec<String> {
    let text = prose(text).collect::<Vec<_>>().join("\n");
    let text: String = text.split('`').step_by(2).collect();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// Its headings as GitHub names them in addresses.
fn anchors(text: &str) -> HashSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let named = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let kept = |name: String| -> String {
        let letters = name.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        letters.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    named.map(kept).collect()
}

#[test]
fn every_link_of_what_people_read_leads_to_a_file_and_a_heading_of_it() {
    let (mut problems, mut followed) = (Vec::new(), 0);
    for (path, text) in pages() {
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let leads = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            let is_there = match anchor {
                "" => leads.exists(),
                anchor => {
                    fs::read_to_string(&leads).is_ok_and(|text| anchors(&text).contains(anchor))
                }
            };
            if !is_there {
                problems.push(format!("{}: {link} leads nowhere", path.display()));
            }
        }
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    assert!(followed > 30, "only {followed} links were found");
}

#[test]
fn a_link_is_told_from_code_and_a_heading_is_named_as_github_names_it() {
    let text =
        "# One, `two` & 3\nsee [`a`](b.md#c) and `[x](y)`\n```sh\n[z](w)\n# no heading\n```\n";
    assert_eq!(links(text), ["b.md#c"]);
    assert_eq!(anchors(text), HashSet::from(["one-two--3".to_owned()]));
}
