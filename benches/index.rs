//! A large repository's index, 2,000 charts with 20 versions each and some 50 MB: time and memory
//! of reading it, its snapshot on disk, and search in what came of it. Beside it the same file read
//! by a helm in `PATH`, if there is one.
//!
//! No network and no cluster: what a refresh costs those who are answered meanwhile is not in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use binnacle::charts::catalogue::{Builder, Catalogue};
use binnacle::charts::search::Search;
use binnacle::charts::{index, snapshot};
use common::{figure, median, mib, millis, section};

const CHARTS: usize = 2_000;
const VERSIONS: usize = 20;
const ROUNDS: usize = 3;
const SEARCHES: usize = 5_000;
const WORDS: [&str; 12] = [
    "proxy", "queue", "cache", "store", "mesh", "gate", "mail", "forge", "index", "vault", "graph",
    "relay",
];

fn main() {
    common::run(bench);
}

async fn bench() {
    let dir = tempfile::tempdir().unwrap();
    let (yaml, json) = (dir.path().join("index.yaml"), dir.path().join("index.json"));
    write(&yaml, "apiVersion: v1\nentries:\n", yaml_chart, "generated: \"2026-01-01T00:00:00Z\"\n");
    write(&json, "{\"apiVersion\":\"v1\",\"entries\":{", json_chart, "\"none\":[]}}\n");
    let catalogue = reading("YAML", &yaml, "<= 64 MiB");
    drop(reading("JSON", &json, "<= 64 MiB"));
    helm(dir.path(), &yaml);
    snapshots(dir.path(), &catalogue);
    searches(&catalogue);
}

/// Reads a file some times; the first time tells the memory.
fn reading(what: &str, path: &Path, goal: &str) -> Catalogue {
    let size = fs::metadata(path).unwrap().len();
    section(format_args!("{what}: {CHARTS} charts x {VERSIONS} versions, {}", mib(size)));
    forget_peak();
    let before = memory("VmRSS:");
    let begun = Instant::now();
    let catalogue = read(path);
    let mut times = vec![begun.elapsed()];
    figure("peak growth while reading", mib(memory("VmHWM:").saturating_sub(before)), goal);
    let kept = memory("VmRSS:").saturating_sub(before);
    figure("growth that stays: the catalogue", mib(kept), "<= 16 MiB");
    times.extend((1..ROUNDS).map(|_| {
        let begun = Instant::now();
        drop(read(path));
        begun.elapsed()
    }));
    figure("time", millis(median(times)), "");
    catalogue
}

fn read(path: &Path) -> Catalogue {
    let mut builder = Builder::new();
    let summary = index::read(File::open(path).unwrap(), &mut builder).unwrap();
    assert_eq!((summary.versions, summary.skipped), (CHARTS * VERSIONS, 0));
    builder.finish()
}

fn snapshots(dir: &Path, catalogue: &Catalogue) {
    section("snapshot");
    let etags = snapshot::Etags::default();
    let timed = |act: &dyn Fn()| {
        let begun = Instant::now();
        act();
        begun.elapsed()
    };
    let save = || snapshot::save(dir, "ab", catalogue, &etags).unwrap();
    let load = || assert!(snapshot::load(dir, "ab").unwrap().0 == *catalogue);
    figure("save", millis(median((0..ROUNDS).map(|_| timed(&save)).collect())), "");
    let loaded = median((0..ROUNDS).map(|_| timed(&load)).collect());
    figure("load", millis(loaded), "< 300 ms, from the start of a process");
    figure("size", mib(fs::metadata(dir.join("ab.snapshot")).unwrap().len()), "");
}

fn searches(catalogue: &Catalogue) {
    section(format_args!("search, {SEARCHES} questions"));
    let begun = Instant::now();
    let search = Search::new(catalogue);
    figure("making it", millis(begun.elapsed()), "");
    let mut times: Vec<Duration> = (0..SEARCHES)
        .map(|number| {
            let word = WORDS[number % WORDS.len()];
            let question = match number % 5 {
                0 => name(number * 7 % CHARTS),
                1 => word.to_owned(),
                // A typo, and words that are nowhere in a name.
                2 => format!("{}x{}", &word[..2], &word[3..]),
                3 => format!("{word} maintainer{}", number % 50),
                _ => format!("replicated {word} with metrics"),
            };
            let begun = Instant::now();
            std::hint::black_box(search.find(&question));
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    figure("p50", millis(times[times.len() / 2]), "");
    figure("p99", millis(times[times.len() * 99 / 100]), "< 10 ms");
}

/// `helm search repo`, which reads the index of each repository in its cache.
fn helm(dir: &Path, index: &Path) {
    section("the same file: helm search repo");
    let repositories = dir.join("repositories.yaml");
    let known = "apiVersion: v1\nrepositories:\n- name: bench\n  url: http://127.0.0.1:9\n";
    fs::write(&repositories, known).unwrap();
    fs::rename(index, dir.join("bench-index.yaml")).unwrap();
    let mut command = Command::new("helm");
    command.args(["search", "repo", "nothing-has-this-name", "--repository-cache"]).arg(dir);
    command.arg("--repository-config").arg(&repositories);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let Ok(mut child) = command.spawn() else {
        println!("  no helm in PATH");
        return;
    };
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        peak = peak.max(line(&fs::read_to_string(&status).unwrap_or_default(), "VmHWM:"));
        thread::sleep(Duration::from_millis(5));
    };
    assert!(ended.success(), "helm: {ended}");
    figure("time", millis(begun.elapsed()), "");
    figure("peak of the process", mib(peak), "");
}

/// Makes the kernel count the peak anew (proc(5), `clear_refs`).
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn memory(what: &str) -> u64 {
    line(&fs::read_to_string("/proc/self/status").unwrap(), what)
}

/// Bytes. Zero when there is no such line: a process that has just ended.
fn line(status: &str, what: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() * 1024
}

fn write(path: &Path, start: &str, chart: fn(usize) -> String, end: &str) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(start.as_bytes()).unwrap();
    for number in 0..CHARTS {
        file.write_all(chart(number).as_bytes()).unwrap();
    }
    file.write_all(end.as_bytes()).unwrap();
    file.into_inner().unwrap().sync_all().unwrap();
}

fn name(number: usize) -> String {
    let (first, second) = (WORDS[number % 12], WORDS[number / 12 % 12]);
    format!("{first}-{second}-{number}")
}

fn digest(number: usize, version: usize) -> String {
    format!("{:064x}", (number * VERSIONS + version + 1) as u128 * 0x9e37_79b9_7f4a_7c15)
}

fn version(number: usize) -> String {
    format!("{}.{}.{}", number / 8, number % 8, number % 3)
}

/// As `helm repo index` writes it, with the annotations that Artifact Hub asks for.
fn yaml_chart(number: usize) -> String {
    let (name, word) = (name(number), WORDS[number % 12]);
    let mut text = format!("  {name}:\n");
    for release in (0..VERSIONS).rev() {
        let (version, digest) = (version(release), digest(number, release));
        let maintainer = number % 50;
        write!(
            text,
            "  - annotations:
      artifacthub.io/changes: |
        - kind: changed
          description: Settings of the {word} are checked before it starts, see its documentation
        - kind: fixed
          description: \"A replica that was away too long is filled anew: {release}\"
      artifacthub.io/license: Apache-2.0
    apiVersion: v2
    appVersion: \"{version}\"
    created: \"2025-{:02}-{:02}T03:04:05.678901234Z\"
    dependencies:
    - condition: database.enabled
      name: database
      repository: https://charts.example.com/stable
      version: 12.x.x
    - name: common
      repository: oci://registry.example.com/charts
      version: 2.x.x
    description: A replicated {word} with metrics, backups and a small web page of its own
    digest: {digest}
    home: https://example.com/{name}
    icon: https://example.com/icons/{name}.svg
    keywords:
    - {word}
    - replicated
    - metrics
    maintainers:
    - email: maintainer{maintainer}@example.com
      name: maintainer{maintainer}
    name: {name}
    sources:
    - https://git.example.com/{name}
    type: application
    urls:
    - https://charts.example.com/archives/{name}-{version}.tgz
    version: {version}
",
            release % 12 + 1,
            release % 28 + 1,
        )
        .unwrap();
    }
    text
}

/// The same in one line.
fn json_chart(number: usize) -> String {
    let (name, word) = (name(number), WORDS[number % 12]);
    let entry = |release: usize| {
        let (version, digest) = (version(release), digest(number, release));
        let maintainer = format!("maintainer{}", number % 50);
        serde_json::json!({
            "annotations": {"changes": format!("- kind: changed\n{word}").repeat(12)},
            "apiVersion": "v2",
            "appVersion": version,
            "created": "2025-01-02T03:04:05.678901234Z",
            "dependencies": [{"name": "common", "repository": "oci://registry.example.com/charts"}],
            "description": format!("A replicated {word} with metrics, backups and a web page"),
            "digest": digest,
            "home": format!("https://example.com/{name}"),
            "icon": format!("https://example.com/icons/{name}.svg"),
            "keywords": [word, "replicated", "metrics"],
            "maintainers": [{"name": maintainer, "email": "somebody@example.com"}],
            "name": name,
            "sources": [format!("https://git.example.com/{name}")],
            "urls": [format!("https://charts.example.com/archives/{name}-{version}.tgz")],
            "version": version,
        })
    };
    let entries: Vec<serde_json::Value> = (0..VERSIONS).rev().map(entry).collect();
    format!("{}:{},", serde_json::Value::from(name.as_str()), serde_json::Value::from(entries))
}
