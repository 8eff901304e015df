//! The seeds of every target, as they are and changed by chance; not guided by coverage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::*;

/// Without `BINNACLE_FUZZ_SECONDS`: some seconds of a build that is not optimized.
const CHANGED: usize = 4_000;
/// Changes of one input, at most.
const CHANGES: usize = 8;
const LONGEST: usize = 8 << 10;
/// What single bytes seldom hit upon.
const TOKENS: [&[u8]; 32] = [
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xf0\x9f\x98\x80",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"[",
    b"]",
    b"\"",
    b"\\ud83d",
    b"\\u0000",
    b"{\"Op\":\"stdin\"",
    b"\"Cols\":",
    b"4097",
    b"1e9",
    b"-1",
    b"\x03{\"status\":\"Failure\"",
    b"2026-01-02T03:04:05Z ",
    b"&offsetFrom=",
    b"&times=64",
    b"&from=2026-01-02T03:04:05Z#1",
    b"/websocket",
    b"entries:\n  web:\n",
    b"\n  - {name: web, version: 1.0.0}\n",
    b": &a [*a, *a]",
    b"|+\n",
    b"=== 0 web/templates/",
    b"=== x pax\n",
    b" || ",
    b"-rc.1+5",
];

type Target = fn(&[u8]);

/// An input under way; it is told when its target panics.
struct Input<'i>(&'i str, &'i [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: the input was b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn feed(name: &str, target: Target, data: &[u8]) {
    let _input = Input(name, data);
    target(data);
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    assert!(files.len() >= 20, "{}: {} seeds", folder.display(), files.len());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Xorshift (Marsaglia 2003): it need not be good, it must be the same everywhere.
struct Dice(u64);

impl Dice {
    /// Below `sides`, which is not zero.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    fn change(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        let at = self.roll(data.len() + 1);
        let end = (at + self.roll(16)).min(data.len());
        let part = data[at..end].to_vec();
        match self.roll(7) {
            0 if at < data.len() => data[at] ^= 1 << self.roll(8),
            1 if at < data.len() => data[at] = self.roll(256) as u8,
            2 => drop(data.drain(at..end)),
            3 => drop(data.splice(at..at, part)),
            4 => drop(data.splice(at..end, TOKENS[self.roll(TOKENS.len())].iter().copied())),
            5 => {
                let from = self.roll(other.len() + 1);
                drop(data.splice(at..end, other[from..].iter().copied()));
            }
            _ => drop(data.splice(at..at, TOKENS[self.roll(TOKENS.len())].iter().copied())),
        }
        data.truncate(LONGEST);
    }
}

/// The seeds as they are, and changed by chance.
fn run(name: &str, target: Target) {
    let seeds = seeds(name);
    for seed in &seeds {
        feed(name, target, seed);
    }
    let wanted = std::env::var("BINNACLE_FUZZ_SECONDS").ok();
    let wanted = wanted.map(|text| Duration::from_secs(text.parse().expect("whole seconds")));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut dice = Dice(wanted.map_or(0x9e37_79b9_7f4a_7c15, |_| clock | 1));
    let (begun, mut fed) = (Instant::now(), 0);
    while wanted.map_or(fed < CHANGED, |time| begun.elapsed() < time) {
        let mut data = seeds[dice.roll(seeds.len())].clone();
        for _ in 0..=dice.roll(CHANGES) {
            let other = dice.roll(seeds.len());
            dice.change(&mut data, &seeds[other]);
        }
        feed(name, target, &data);
        fed += 1;
    }
}

#[test]
fn no_bytes_of_a_browser_break_sockjs() {
    run("sockjs_frames", sockjs_frames);
}

#[test]
fn no_frames_of_an_api_server_break_a_channel() {
    run("channel_frames", channel_frames);
}

#[test]
fn no_log_breaks_its_lines_however_it_comes() {
    run("log_lines", log_lines);
}

#[test]
fn no_index_breaks_the_catalogue_that_is_made_of_it() {
    run("chart_index", chart_index);
}

#[test]
fn no_archive_breaks_who_looks_through_it() {
    run("chart_archive", chart_archive);
}

#[test]
fn no_range_breaks_the_order_of_versions() {
    run("chart_ranges", chart_ranges);
}
