//! Child processes: the demo API server, binnacle in front of a cluster, anything with a command.
//! Each ends with its handle; what it used of CPU and memory is read from `/proc`.
//!
//! No setting of the caller's environment reaches them: no BINNACLE_ variable, no proxy, no
//! kubeconfig.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::load::{Client, Target};

/// Seeding 150,000 pods, or a sync of them, on a machine that is busy with something else.
const START: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);
/// Lines of a child that wait to be looked at; more are read and dropped.
const LINES: usize = 256;
/// `USER_HZ`, the unit of times in `/proc/<pid>/stat`: 100 on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);
/// The demo's admin (`binnacle::demo`).
pub const ADMIN: &str = "demo-admin-token";

/// On which pipe a child says that it listens.
pub enum Heard {
    Stdout,
    Stderr,
}

/// A running child. Dropping it kills it and waits for its end.
pub struct Process {
    what: &'static str,
    child: Child,
    lines: Receiver<String>,
}

/// Bytes in RAM.
#[derive(Clone, Copy)]
pub struct Memory {
    pub resident: u64,
    /// The most there ever was since start, or since it was forgotten.
    pub peak: u64,
}

impl Process {
    /// Starts `command`. Its stdin is a pipe that closes with us, so that a child may end then.
    pub fn start(what: &'static str, command: &mut Command, heard: Heard) -> Self {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            if text.starts_with("BINNACLE_") || text.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command.env_remove("KUBECONFIG").stdin(Stdio::piped());
        match heard {
            Heard::Stdout => command.stdout(Stdio::piped()),
            Heard::Stderr => command.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let pipe: Box<dyn Read + Send> = match heard {
            Heard::Stdout => Box::new(child.stdout.take().unwrap()),
            Heard::Stderr => Box::new(child.stderr.take().unwrap()),
        };
        let (sender, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            // Read on when nobody looks any more: a full pipe would stop the child.
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        Self { what, child, lines }
    }

    /// What the next line that begins with `prefix` says behind it.
    pub fn line_after(&self, prefix: &str) -> String {
        let deadline = Instant::now() + START;
        let mut seen = Vec::new();
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            match line.strip_prefix(prefix) {
                Some(rest) => return rest.to_owned(),
                None => seen.push(line),
            }
        }
        panic!("{} never said {prefix:?}; it said {seen:?}", self.what);
    }

    /// The address in the next line that begins with `prefix`.
    pub fn address_after(&self, prefix: &str) -> SocketAddr {
        let rest = self.line_after(prefix);
        rest.trim().parse().unwrap_or_else(|_| panic!("{}: {rest:?} is no address", self.what))
    }

    /// CPU time since start, user and system, of all threads; to 10 ms.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // The name in brackets may hold blanks. Behind it utime and stime are the 12th and 13th.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u32 =
            fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u32>().unwrap()).sum();
        TICK * ticks
    }

    pub fn memory(&self) -> Memory {
        let status = self.proc("status");
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
        };
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// Makes the kernel count the peak anew (proc(5), `clear_refs`).
    pub fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(&path, "5").unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} has ended? {path}: {error}", self.what))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `binnacle demo` as a process of its own.
pub struct DemoServer {
    pub kubeconfig: PathBuf,
    _process: Process,
    _folder: TempDir,
}

impl DemoServer {
    /// With the standard lively set and load up to `pods`.
    pub fn start(pods: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let mut command = Command::new(env!("CARGO_BIN_EXE_binnacle"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--pods", &pods.to_string()]);
        command.arg("--kubeconfig-out").arg(&kubeconfig);
        let process = Process::start("binnacle demo", &mut command, Heard::Stderr);
        process.line_after("listening on ");
        Self { kubeconfig, _process: process, _folder: folder }
    }
}

/// `binnacle` as a process of its own, with a TLS and a plain listener.
pub struct Binnacle {
    pub process: Process,
    pub tls: Target,
    pub plain: Target,
    _folder: TempDir,
}

impl Binnacle {
    /// In front of the kubeconfig's cluster; requests carry `token`.
    pub fn start(kubeconfig: &Path, token: &str, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut command = Command::new(env!("CARGO_BIN_EXE_binnacle"));
        command.args(["--listen", "127.0.0.1:0", "--insecure-listen", "127.0.0.1:0"]);
        command.args(["--log-level", "warn"]).args(extra);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--state-dir").arg(&state);
        let process = Process::start("binnacle", &mut command, Heard::Stderr);
        let https = process.address_after("listening on https://");
        let http = process.address_after("listening on http://");
        let mut ca = Command::new(env!("CARGO_BIN_EXE_binnacle"));
        let ca = ca.arg("ca").arg("--state-dir").arg(&state).output().unwrap();
        assert!(ca.status.success(), "binnacle ca: {}", String::from_utf8_lossy(&ca.stderr));
        Self {
            process,
            tls: Target::tls(https, &ca.stdout).with_token(token),
            plain: Target::plain(http).with_token(token),
            _folder: folder,
        }
    }

    /// Waits until every kind is in the cache (or may not be watched), and says how long it took.
    pub async fn synced(&self) -> Duration {
        let begun = Instant::now();
        let mut client = Client::open(&self.plain).await;
        loop {
            let answer = client.get("/readyz?verbose").await;
            let text = String::from_utf8_lossy(&answer.body);
            if answer.status == 200 && !text.contains("syncing") {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < START, "no sync in {} s: {text}", START.as_secs());
            tokio::time::sleep(POLL).await;
        }
    }

    /// The metrics as text. Asking costs one request to the API server: may this caller see them?
    pub async fn metrics(&self) -> String {
        let answer = Client::open(&self.plain).await.get("/metrics").await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 200, "/metrics: {text}");
        text
    }
}

/// The sum of a metric over all its labels, or of those samples whose labels contain `label`.
pub fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name));
    samples
        .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}
