//! What the benches over loopback share: processes, a load generator, a bare server, printed lines.
//!
//! It measures and prints. It judges nothing: a goal stands beside a figure and never fails a run.
//! Linux only, because what a process used is read from `/proc`.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod charts;
pub mod cluster;
pub mod fill;
pub mod launch;
pub mod load;
pub mod ports;
pub mod process;
pub mod recorder;
pub mod socket;
pub mod stub;

use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

/// No bench may take longer as a whole, the full ones included.
const LONGEST_RUN: Duration = Duration::from_secs(45 * 60);

/// The argument with which a bench starts itself again, as the bare server.
pub const STUB: &str = "stub";

/// Runs a bench to its end, or the bare server when this process is one.
pub fn run<F: Future<Output = ()>>(bench: impl FnOnce() -> F) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder] = args.as_slice()
        && first == STUB
    {
        runtime().block_on(stub::serve(Path::new(folder)));
        return;
    }
    // `cargo test --benches` runs this file, too, and has no minutes to give.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("measured by `cargo bench` alone");
        return;
    }
    let timed = async { tokio::time::timeout(LONGEST_RUN, bench()).await };
    if runtime().block_on(timed).is_err() {
        println!("ended after {} minutes: figures are missing", LONGEST_RUN.as_secs() / 60);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Whether the long measurements are wanted: `BENCH_FULL=1`.
pub fn full() -> bool {
    std::env::var("BENCH_FULL").is_ok_and(|value| value == "1")
}

/// A headline above figures.
pub fn section(title: impl Display) {
    println!("\n{title}");
}

/// One figure with its goal, which is empty where there is none.
pub fn figure(what: impl Display, value: impl Display, goal: &str) {
    // Arguments of a format know no width: texts do.
    let (what, value) = (what.to_string(), value.to_string());
    let goal = if goal.is_empty() { String::new() } else { format!("  goal {goal}") };
    println!("  {what:<52} {value:>16}{goal}");
}

/// Mebibytes with one digit.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// Milliseconds with three digits.
pub fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// Of times that were taken by turns, round by round: the middle one of the ratios, and between which
/// they lie. A machine's speed changes by the minute: a round's two have the same.
pub fn ratio(ours: &[Duration], theirs: &[Duration]) -> String {
    let pairs = ours.iter().zip(theirs);
    let of =
        |(one, other): (&Duration, &Duration)| one.as_secs_f64() / other.as_secs_f64().max(1e-9);
    let mut ratios: Vec<f64> = pairs.map(of).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let [least, .., most] = &*ratios else { return "no rounds".to_owned() };
    format!("{:.2} ({least:.2}-{most:.2})", ratios[ratios.len() / 2])
}

/// The middle one; times of an odd number of rounds.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
