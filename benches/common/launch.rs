//! A gateway whose start is timed: from before its process is made until it has answered.
//!
//! `process::Binnacle` is for what comes later; it runs a second process before it returns.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::{Client, Target};
use super::process::{Heard, Process};

/// A first answer that takes longer will not come.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two attempts: far below what is measured.
const POLL: Duration = Duration::from_millis(1);

/// A started `binnacle` with a TLS and a plain listener.
pub struct Launch {
    begun: Instant,
    https: SocketAddr,
    http: SocketAddr,
    /// Stands for the kubeconfig's user; before a demo of its own none is needed.
    token: Option<String>,
    state: PathBuf,
    pub process: Process,
}

impl Launch {
    /// In front of the kubeconfig's cluster, or of a demo in the same process (`--demo`). What is
    /// kept, the certificate first of all, is in `state`.
    pub fn start(kubeconfig: Option<&Path>, state: &Path) -> Self {
        Self::with(kubeconfig, state, &[])
    }

    /// The same with some arguments more.
    pub fn with(kubeconfig: Option<&Path>, state: &Path, extra: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_binnacle"));
        command.args(["--listen", "127.0.0.1:0", "--insecure-listen", "127.0.0.1:0"]);
        command.args(["--log-level", "warn"]).args(extra).arg("--state-dir").arg(state);
        match kubeconfig {
            Some(path) => command.arg("--kubeconfig").arg(path),
            None => command.arg("--demo"),
        };
        let begun = Instant::now();
        let process = Process::start("binnacle", &mut command, Heard::Stderr);
        // Said before the listeners.
        let link = kubeconfig.map(|_| process.line_after("open "));
        let token = link.map(|link| {
            let (_, token) = link.rsplit_once("token=").unwrap();
            token.trim().to_owned()
        });
        let https = process.address_after("listening on https://");
        let http = process.address_after("listening on http://");
        Self { begun, https, http, token, state: state.to_owned(), process }
    }

    pub fn plain(&self) -> Target {
        self.with_token(Target::plain(self.http))
    }

    pub fn tls(&self) -> Target {
        let ca = binnacle::tls::read_ca(&self.state).unwrap();
        self.with_token(Target::tls(self.https, ca.as_bytes()))
    }

    fn with_token(&self, target: Target) -> Target {
        match &self.token {
            Some(token) => target.with_token(token),
            None => target,
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Asks until the answer is 200; the time from the start until then.
    pub async fn until(&self, client: &mut Client, path: &str) -> Duration {
        loop {
            let answer = client.get(path).await;
            if answer.status == 200 {
                return self.elapsed();
            }
            let text = String::from_utf8_lossy(&answer.body);
            assert!(self.elapsed() < LONGEST, "{path} still answers {}: {text}", answer.status);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks until what `/readyz?verbose` says of the kinds `suits`; the time from the start until
    /// then. Before all of them are there its status is 503.
    pub async fn until_kinds(&self, client: &mut Client, suits: impl Fn(&str) -> bool) -> Duration {
        loop {
            let answer = client.get("/readyz?verbose").await;
            let text = String::from_utf8_lossy(&answer.body);
            if suits(&text) {
                return self.elapsed();
            }
            assert!(self.elapsed() < LONGEST, "no sync: {text}");
            tokio::time::sleep(POLL).await;
        }
    }
}
