//! A large repository's index, 2,000 charts with 20 versions each and some 50 MB: time and memory
//! of reading it, its snapshot on disk, and search in what came of it. Beside it the same file read
//! by helm: the one that `BENCH_HELM` or `BINNACLE_HELM` names, the one that the tests have built
//! last, or the one in `PATH`.
//!
//! No network and no cluster: what a refresh costs those who are answered meanwhile: `refresh`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use binnacle::charts::catalogue::{Builder, Catalogue};
use binnacle::charts::search::Search;
use binnacle::charts::{index, snapshot};
use common::charts::{CHARTS, VERSIONS, WORDS, json, name, yaml};
use common::{figure, median, mib, millis, section};

const ROUNDS: usize = 3;
const SEARCHES: usize = 5_000;

fn main() {
    common::run(bench);
}

async fn bench() {
    let dir = tempfile::tempdir().unwrap();
    let (as_yaml, as_json) = (dir.path().join("index.yaml"), dir.path().join("index.json"));
    write(&as_yaml, |file| yaml(file, 0));
    write(&as_json, json);
    let catalogue = reading("YAML", &as_yaml, "<= 64 MiB");
    drop(reading("JSON", &as_json, "<= 64 MiB"));
    helm(dir.path(), &as_yaml);
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
    figure("growth that stays: the catalogue", mib(kept), "<= 12 MiB");
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
    builder.finish_counted().0
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
    let (program, is_found) = program();
    section(format_args!("the same file: {} search repo", program.display()));
    let repositories = dir.join("repositories.yaml");
    let known = "apiVersion: v1\nrepositories:\n- name: bench\n  url: http://127.0.0.1:9\n";
    fs::write(&repositories, known).unwrap();
    fs::rename(index, dir.join("bench-index.yaml")).unwrap();
    let mut command = Command::new(&program);
    command.args(["search", "repo", "nothing-has-this-name", "--repository-cache"]).arg(dir);
    command.arg("--repository-config").arg(&repositories);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if is_found => panic!("{}: {error}", program.display()),
        Err(_) => {
            println!("  MISSING: no helm in PATH; BENCH_HELM names one, `cargo test` builds one");
            return;
        }
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

/// Which helm is asked, and whether it is known to be there. Where builds of the tests are kept:
/// `cache_folder` in tests/it/cluster.rs.
fn program() -> (PathBuf, bool) {
    let set = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    if let Some(named) = set("BENCH_HELM").or_else(|| set("BINNACLE_HELM")) {
        return (named, true);
    }
    let cache = set("BINNACLE_CACHE").or_else(|| set("XDG_CACHE_HOME"));
    let cache = cache.or_else(|| set("HOME").map(|home| home.join(".cache")));
    let builds = cache.and_then(|cache| fs::read_dir(cache.join("binnacle/cluster")).ok());
    let programs = builds.into_iter().flatten().flatten().map(|build| build.path().join("helm4"));
    let built = programs.filter_map(|path| {
        let at = fs::metadata(&path).ok()?.modified().ok()?;
        Some((at, path))
    });
    built.max().map_or_else(|| ("helm".into(), false), |(_, path)| (path, true))
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

fn write(path: &Path, index: impl FnOnce(&mut BufWriter<File>)) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    index(&mut file);
    file.into_inner().unwrap().sync_all().unwrap();
}
