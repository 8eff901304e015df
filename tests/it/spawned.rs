//! The real binary as a child of a test, with a state directory and ports of its own, for what a
//! gateway within the test's process (`gateway.rs`) cannot show: signals, kills, restarts.
//!
//! It proves little itself; the modules beside it do. What is asked of it goes over TLS, on a
//! connection for each request.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::certificate::trusting;
use crate::lifecycle::{Answer, GetError, bearer, get, in_time};

const PROGRAM: &str = env!("CARGO_BIN_EXE_binnacle");
/// Has the kernel kill what follows when the thread that started it ends, and becomes it
/// (util-linux 2.33 and later, which every Debian and Ubuntu has).
const TIED: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// Where a person's environment names proxies, through which nobody reaches a test's servers.
const PROXIES: [&str; 8] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// The binary with nobody's settings; its home is `folder`. It dies with the test and, but for
/// machines without setpriv, with a test process that is killed. To be started on the test's own
/// thread and not on one of `spawn_blocking`, which ends before.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::from(tied(PROGRAM));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BINNACLE_") {
            command.env_remove(name);
        }
    }
    for name in PROXIES {
        command.env_remove(name);
    }
    command.env("HOME", folder).env_remove("KUBECONFIG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A program that is killed when the thread that starts it ends, and so with a test process that is
/// killed; but for machines without setpriv.
pub fn tied(program: impl AsRef<OsStr>) -> std::process::Command {
    if !can_tie() {
        return std::process::Command::new(program);
    }
    let mut command = std::process::Command::new(TIED[0]);
    command.args(&TIED[1..]).arg(program);
    command
}

/// Whether there is a setpriv that knows how.
fn can_tie() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let mut command = std::process::Command::new(TIED[0]);
        command.args(&TIED[1..]).arg("true").stdin(Stdio::null());
        let tried = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    })
}

/// The certificate of the binary's own authority, as `binnacle ca` prints it.
pub async fn authority(folder: &Path) -> String {
    let mut command = command(folder);
    command.args(["ca", "--state-dir"]).arg(folder.join("state"));
    let output = in_time("binnacle ca ends", command.output()).await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    String::from_utf8(output.stdout).unwrap()
}

/// A signal to processes that are all there, one after the other.
pub fn signal(name: &str, ids: &[u32]) {
    let signal = match name {
        "-TERM" => Signal::TERM,
        "-KILL" => Signal::KILL,
        other => panic!("{other} is sent by no test so far"),
    };
    for id in ids {
        let process = i32::try_from(*id).ok().and_then(Pid::from_raw).unwrap();
        kill_process(process, signal).unwrap_or_else(|error| panic!("{name} to {id}: {error}"));
    }
}

/// A child that was started, and what it says on stderr when it is asked for.
pub struct Spoken {
    pub child: Child,
    /// What was read of it.
    pub said: Vec<String>,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Spoken {
    /// Starts it on two free ports with its state in `folder/state`.
    pub fn start(mut command: Command, folder: &Path, args: &[&str]) -> Spoken {
        command.args(["--listen", "127.0.0.1:0", "--insecure-listen", "127.0.0.1:0"]);
        command.arg("--state-dir").arg(folder.join("state")).args(args);
        Spoken::of(command)
    }

    pub fn of(mut command: Command) -> Spoken {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Spoken { child, said: Vec::new(), lines }
    }

    /// The next line with these words.
    pub async fn says(&mut self, words: &str) -> String {
        let what = format!("it says {words:?}");
        loop {
            let line = in_time(&what, self.lines.next_line()).await.unwrap();
            let Some(line) = line else { panic!("it ended, and had said {:#?}", self.said) };
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Where it listens, with TLS and without, without a slash at their ends.
    pub async fn listens(&mut self) -> (String, String) {
        let https = self.says("listening on https://").await;
        let http = self.says("listening on http://").await;
        (urls(&https).remove(0), urls(&http).remove(0))
    }
}

/// The addresses in a line.
pub fn urls(line: &str) -> Vec<String> {
    let words = line.split_whitespace().filter(|word| word.starts_with("http"));
    words.map(str::to_owned).collect()
}

/// A running binary.
pub struct Binary {
    pub child: Child,
    /// What it wrote to stderr until it listened.
    pub said: Vec<String>,
    /// Without a slash at its end, as `http`.
    pub https: String,
    pub http: String,
    pub tls: ClientConfig,
}

impl Binary {
    /// Starts it with its state in `folder/state` and waits until it has said where it listens.
    pub async fn start(folder: &Path, args: &[&str]) -> Binary {
        Self::of(command(folder), folder, args).await
    }

    /// The same of a command that was told more, as of its environment.
    pub async fn of(command: Command, folder: &Path, args: &[&str]) -> Binary {
        let mut spoken = Spoken::start(command, folder, args);
        let (https, http) = spoken.listens().await;
        let Spoken { child, said, mut lines } = spoken;
        // A full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let tls = trusting(&authority(folder).await);
        Binary { child, said, https, http, tls }
    }

    /// A path from its slash on; without a token for the empty one.
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        get(&self.tls, &format!("{}{path}", self.https), &bearer(token)).await.unwrap()
    }

    /// A request to what is below `/api/v1/`, with a CSRF token where it is a POST. The body's
    /// type is JSON unless `kind` says another. An error where there was no whole answer, as when
    /// it is killed meanwhile.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, GetError> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_only()
            .enable_http1()
            .build();
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let mut request = Request::builder().uri(format!("{}/api/v1/{path}", self.https));
        request = request.header("authorization", format!("Bearer {token}"));
        if method == Method::POST {
            let action = path.split(['/', '?']).next().unwrap_or_default();
            let path = format!("{}/api/v1/csrftoken/{action}", self.https);
            let found = get(&self.tls, &path, &bearer(token)).await?.json();
            request = request.header("x-csrf-token", found["token"].as_str().ok_or("no token")?);
        }
        let kind = if kind.is_empty() { "application/json" } else { kind };
        let request = request.header("content-type", kind).method(method);
        let exchange = async {
            let request = request.body(Full::new(body.into()))?;
            let (head, body) = client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, GetError>(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        in_time(&format!("an answer to {path}"), exchange).await
    }

    pub fn terminate(&self) {
        signal("-TERM", &[self.child.id().unwrap()]);
    }

    /// `None` after a signal that it did not heed.
    pub async fn exit_code(&mut self) -> Option<i32> {
        in_time("it ends", self.child.wait()).await.unwrap().code()
    }

    /// As `kill -9`, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

#[test]
fn what_is_tied_is_killed_when_the_thread_that_started_it_ends() {
    if !can_tie() {
        return;
    }
    let start = || {
        let mut command = tied("sh");
        command.args(["-c", "echo; exec sleep 60"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Whoever says something is tied already.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    };
    let mut child = std::thread::spawn(start).join().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
}
