//! The contract's talk after its beginning: tries the shells until the container has one, and
//! translates between the client's messages and the process.
//!
//! It knows no transport, and no ids: who may take one is decided before (`shell`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::frames::{self as frames, Close, Command};
use super::session::{Shell, Ticket};
use super::shell::{Client, QUEUE, Told};
use super::terminal::{self, End, Session, Shown, Typed, Verb};
use crate::api::Gateway;
use crate::i18n::{self, Locale};
use crate::upstream::User;

/// The contract's codes: the process ended well, and everything else.
const ENDED: u16 = 1;
pub(crate) const FAILED: u16 = 2;
/// What is typed before a shell has shown that it started is kept for the next one to try; past
/// so many messages, or bytes, it is taken for started.
const EARLY: usize = 32;
const EARLY_BYTES: usize = 64 << 10;
/// Longest output that is looked at for a runtime's "there is no such shell".
const LONGEST_EXCUSE: usize = 1024;
/// How runtimes say that a command does not exist: Go's os/exec, runc, crun, hcsshim.
const EXCUSES: [&str; 4] = [
    "executable file not found",
    "no such file or directory",
    "not found in $PATH",
    "cannot find the file specified",
];
/// Some runtimes say it in the terminal itself, where programs say such things, too: runc, crun.
const RUNTIMES: [&str; 2] = ["exec failed", "executable file `"];

/// A talk after its beginning.
pub(crate) struct Talk<'t> {
    pub gateway: &'t Arc<Gateway>,
    pub client: &'t Client,
    pub user: User,
    pub ticket: Ticket,
}

/// How one try of a shell ended.
enum Outcome {
    Gone,
    Closed(Close),
    /// The container has no such shell; in the runtime's words.
    Missing(String),
    /// It ended well and has shown nothing. So ends, too, what the API server takes for success
    /// because its connection to the node broke before the status came.
    Silent(Close),
}

impl Talk<'_> {
    /// Tries the shells; `None`: the client has gone.
    pub async fn through(
        &self,
        said: &mut mpsc::Receiver<String>,
        told: &mpsc::Sender<Told>,
    ) -> Option<Close> {
        let all = &Shell::ALL;
        let shells = self.ticket.shell.as_ref().map_or(all.as_slice(), std::slice::from_ref);
        let (mut early, mut last) = (Vec::new(), String::new());
        for shell in shells {
            let mut outcome = self.attempt(*shell, &mut early, said, told).await;
            let is_typed = early.iter().any(|one| matches!(one, Command::Stdin(_)));
            if matches!(outcome, Outcome::Silent(_)) && !is_typed {
                // It may have run, and what it showed be lost, too: nothing is typed twice.
                outcome = self.attempt(*shell, &mut early, said, told).await;
            }
            match outcome {
                Outcome::Gone => return None,
                Outcome::Closed(close) | Outcome::Silent(close) => return Some(close),
                Outcome::Missing(words) => last = words,
            }
        }
        let names: Vec<&str> = shells.iter().map(|shell| shell.command()).collect();
        let names = names.join(", ");
        let args = [("shells", names.as_str()), ("reason", last.trim())];
        Some(Close::new(FAILED, i18n::message(self.client.locale, "error-shell-missing", &args)))
    }

    async fn attempt(
        &self,
        shell: Shell,
        early: &mut Vec<Command>,
        said: &mut mpsc::Receiver<String>,
        told: &mpsc::Sender<Told>,
    ) -> Outcome {
        let (types, typed) = mpsc::channel(QUEUE);
        let (shows, shown) = mpsc::channel(QUEUE);
        let session = Session {
            namespace: self.ticket.namespace.clone(),
            pod: self.ticket.pod.clone(),
            container: self.ticket.container.clone(),
            command: vec![shell.command().to_owned()],
            tty: true,
            stdin: true,
            verb: Verb::Exec,
            transport: self.client.transport,
        };
        let (gateway, user) = (self.gateway.clone(), self.user.clone());
        let running = terminal::run(gateway, user, session, self.client.locale, typed, shows);
        self.gateway.shells.tasks.spawn(running);
        let started = AtomicBool::new(false);
        tokio::select! {
            outcome = self.input(&types, early, &started, said, told) => outcome,
            outcome = self.output(shown, &started, told) => outcome,
        }
    }

    /// What the client says, to the process; ends when the client goes or has to.
    async fn input(
        &self,
        types: &mpsc::Sender<Typed>,
        early: &mut Vec<Command>,
        started: &AtomicBool,
        said: &mut mpsc::Receiver<String>,
        told: &mpsc::Sender<Told>,
    ) -> Outcome {
        let locale = self.client.locale;
        for typed in early.iter().filter_map(typed_by) {
            if !pass(types, typed, told).await {
                return Outcome::Gone;
            }
        }
        while let Some(message) = said.recv().await {
            let command = match frames::command(&message) {
                Ok(Command::Bind(_)) => {
                    return Outcome::Closed(self.refuse("error-shell-bound", &[]).await);
                }
                Ok(Command::OddSize) => {
                    let text = i18n::message(locale, "error-shell-size", &[]);
                    if told.send(Told::Message(frames::toast(&text))).await.is_err() {
                        return Outcome::Gone;
                    }
                    continue;
                }
                Ok(command) => command,
                Err(wrong) => {
                    let reason = wrong.to_string();
                    let args = [("reason", reason.as_str())];
                    return Outcome::Closed(self.refuse("error-shell-message", &args).await);
                }
            };
            let Some(typed) = typed_by(&command) else { continue };
            if !started.load(Ordering::Relaxed) {
                early.push(command);
                if early.len() >= EARLY || early.iter().map(size).sum::<usize>() > EARLY_BYTES {
                    started.store(true, Ordering::Relaxed);
                }
            }
            if !pass(types, typed, told).await {
                return Outcome::Gone;
            }
        }
        Outcome::Gone
    }

    /// What the process shows, to the client; ends with the process, or when the client is gone.
    async fn output(
        &self,
        mut shown: mpsc::Receiver<Shown>,
        started: &AtomicBool,
        told: &mpsc::Sender<Told>,
    ) -> Outcome {
        let mut held = String::new();
        loop {
            let next = shown.recv().await;
            let end = match next {
                Some(Shown::Output(text) | Shown::Error(text)) => {
                    held.push_str(&text);
                    if is_runtimes(&held) && !started.load(Ordering::Relaxed) {
                        continue;
                    }
                    started.store(true, Ordering::Relaxed);
                    let text = std::mem::take(&mut held);
                    if told.send(Told::Message(frames::stdout(&text))).await.is_err() {
                        return Outcome::Gone;
                    }
                    continue;
                }
                Some(Shown::End(end)) => end,
                None => End { code: None, reason: String::new() },
            };
            let outcome = ended(end, &held, started.load(Ordering::Relaxed), self.client.locale);
            if matches!(outcome, Outcome::Closed(_)) && !held.is_empty() {
                let _ = told.send(Told::Message(frames::stdout(&held))).await;
            }
            return outcome;
        }
    }

    async fn refuse(&self, message: &'static str, args: &[(&str, &str)]) -> Close {
        self.client.refuse(self.gateway, Some(&self.ticket), message, args).await
    }
}

/// Whether the client is still there. A process that does not read must not keep what its client
/// has left.
async fn pass(types: &mpsc::Sender<Typed>, typed: Typed, told: &mpsc::Sender<Told>) -> bool {
    let sent = tokio::select! {
        sent = types.send(typed) => sent,
        () = told.closed() => return false,
    };
    if sent.is_err() {
        // The process has ended; what it has to say still comes.
        std::future::pending::<()>().await;
    }
    true
}

fn size(command: &Command) -> usize {
    if let Command::Stdin(data) = command { data.len() } else { 0 }
}

fn typed_by(command: &Command) -> Option<Typed> {
    match command {
        Command::Stdin(data) => Some(Typed::Bytes(Bytes::from(data.clone()))),
        Command::Resize { columns, rows } => Some(Typed::Resize { columns: *columns, rows: *rows }),
        Command::Bind(_) | Command::OddSize | Command::Nothing => None,
    }
}

fn is_excuse(text: &str) -> bool {
    text.len() <= LONGEST_EXCUSE && EXCUSES.iter().any(|excuse| text.contains(excuse))
}

/// Whether what stands in the terminal are the words of a runtime that found no such shell.
fn is_runtimes(held: &str) -> bool {
    is_excuse(held) && RUNTIMES.iter().any(|words| held.contains(words))
}

/// How a try ended whose last output, if it was a runtime's excuse, was held back.
fn ended(end: End, held: &str, is_started: bool, locale: Locale) -> Outcome {
    let is_missing = end.code != Some(0) && (is_excuse(&end.reason) || !held.is_empty());
    if is_missing && !is_started {
        return Outcome::Missing(if held.is_empty() { end.reason } else { held.to_owned() });
    }
    let is_silent = end.code == Some(0) && held.is_empty() && !is_started;
    let close = closing(end, locale);
    if is_silent { Outcome::Silent(close) } else { Outcome::Closed(close) }
}

/// The contract's words, which are kubectl's for exit codes.
fn closing(end: End, locale: Locale) -> Close {
    match end.code {
        Some(0) => Close::new(ENDED, "Process exited"),
        Some(code) => Close::new(FAILED, format!("command terminated with exit code {code}")),
        None if end.reason.is_empty() => {
            Close::new(FAILED, i18n::message(locale, "error-shell-broken", &[]))
        }
        None => Close::new(FAILED, end.reason),
    }
}

#[cfg(test)]
#[path = "talk_tests.rs"]
mod tests;
