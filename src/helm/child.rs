//! One child from its start to its end: its output, its time, and its orderly end.
//!
//! It starts none, and knows nothing of helm but that it heeds SIGTERM.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Between SIGTERM and SIGKILL: a cancelled install or upgrade still marks its release as failed.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// After the grace, until we end the guard itself.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// After the child's end, for what is still in its pipes. Something it left behind may hold them.
const PIPES: Duration = Duration::from_secs(2);
/// Bytes kept of a line that is told.
const LINE: usize = 4 << 10;
/// Bytes kept of stderr, its last ones: helm's own words about an error are there.
pub(super) const STDERR_KEPT: usize = 64 << 10;
/// Bytes of stderr after which a child is ended: no run has so much to say.
const STDERR_LIMIT: usize = 16 << 20;
/// Bytes read at once: a pipe's size.
const CHUNK: usize = 64 << 10;

/// A child that is no more.
pub struct Ended {
    /// `None` when nothing is known of its end; a signal's number after 128.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    /// Its last 64 KiB.
    pub stderr: String,
    pub why: Why,
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Itself,
    Cancelled,
    TimedOut,
    TooMuchOutput,
}

impl Ended {
    /// One that was cancelled before it began.
    pub(super) fn unborn() -> Self {
        Self { code: None, stdout: Vec::new(), stderr: String::new(), why: Why::Cancelled }
    }
}

/// A child from its start to its end.
pub(super) struct Watch {
    child: Child,
    kept: Kept,
    why: Why,
    status: Option<ExitStatus>,
    /// The job's time, then the grace, then the time for what is left in the pipes.
    deadline: Instant,
}

impl Watch {
    pub(super) fn new(child: Child, time: Duration, limit: usize) -> Self {
        let kept = Kept { limit, ..Kept::default() };
        Self { child, kept, why: Why::Itself, status: None, deadline: Instant::now() + time }
    }

    pub(super) async fn run(
        mut self,
        cancel: &CancellationToken,
        tell: &mut (impl FnMut(&str) + Send),
    ) -> io::Result<Ended> {
        // The guard's stdin: to let go is to end the child.
        let mut leash = self.child.stdin.take();
        let (mut stdout, mut stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (mut out, mut err) = (vec![0u8; CHUNK], vec![0u8; CHUNK]);
        while self.status.is_none() || stdout.is_some() || stderr.is_some() {
            let cause = tokio::select! {
                read = next(&mut stdout, &mut out), if stdout.is_some() => {
                    let fits = self.kept.stdout(&out[..read], tell);
                    stdout = stdout.filter(|_| read > 0);
                    (!fits).then_some(Why::TooMuchOutput)
                }
                read = next(&mut stderr, &mut err), if stderr.is_some() => {
                    let fits = self.kept.stderr(&err[..read], tell);
                    stderr = stderr.filter(|_| read > 0);
                    (!fits).then_some(Why::TooMuchOutput)
                }
                status = self.child.wait(), if self.status.is_none() => {
                    let status = status?;
                    // Without a code it was the guard that was killed, and helm may be at it still.
                    let rest = if status.code().is_some() { PIPES } else { GRACE };
                    self.deadline = Instant::now() + rest;
                    self.status = Some(status);
                    None
                }
                () = cancel.cancelled(), if leash.is_some() && self.status.is_none() => {
                    Some(Why::Cancelled)
                }
                () = sleep_until(self.deadline) => {
                    if leash.is_none() || self.status.is_some() {
                        break;
                    }
                    Some(Why::TimedOut)
                }
            };
            if let Some(cause) = cause
                && leash.take().is_some()
            {
                self.why = cause;
                if self.status.is_none() {
                    self.deadline = Instant::now() + GRACE + LAST_WAIT;
                }
            }
        }
        if self.status.is_none() {
            // The guard is stopped, or something else is in its place.
            self.child.kill().await?;
        }
        Ok(self.ended(tell))
    }

    fn ended(mut self, tell: &mut impl FnMut(&str)) -> Ended {
        self.kept.flush(tell);
        let code = self.status.and_then(|status| status.code());
        // It was done when we ended it.
        let why = match (self.why, code) {
            (Why::Cancelled | Why::TimedOut, Some(0)) => Why::Itself,
            (why, _) => why,
        };
        let Kept { stdout, stderr, .. } = self.kept;
        let last = &stderr[stderr.len().saturating_sub(STDERR_KEPT)..];
        Ended { code, stdout, stderr: String::from_utf8_lossy(last).into_owned(), why }
    }
}

/// Bytes read; 0 at the end, which an error is, too.
async fn next(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}

/// What is kept of what a child says.
#[derive(Default)]
struct Kept {
    limit: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Bytes of stderr, kept or not.
    errors: usize,
    /// There was too much: nothing more is kept or told.
    full: bool,
    out_line: Line,
    err_line: Line,
}

impl Kept {
    /// `false` once there is too much.
    fn stdout(&mut self, bytes: &[u8], tell: &mut impl FnMut(&str)) -> bool {
        if !self.full {
            let room = self.limit.saturating_sub(self.stdout.len());
            self.full = bytes.len() > room;
            let bytes = &bytes[..bytes.len().min(room)];
            self.stdout.extend_from_slice(bytes);
            self.out_line.feed(bytes, tell);
        }
        !self.full
    }

    fn stderr(&mut self, bytes: &[u8], tell: &mut impl FnMut(&str)) -> bool {
        if !self.full {
            self.errors += bytes.len();
            self.full = self.errors > STDERR_LIMIT;
            self.stderr.extend_from_slice(bytes);
            // Now and then, not for each piece.
            if self.stderr.len() > 2 * STDERR_KEPT {
                self.stderr.drain(..self.stderr.len() - STDERR_KEPT);
            }
            self.err_line.feed(bytes, tell);
        }
        !self.full
    }

    fn flush(&mut self, tell: &mut impl FnMut(&str)) {
        for line in [&mut self.out_line, &mut self.err_line] {
            if !line.kept.is_empty() {
                line.end(tell);
            }
        }
    }
}

/// The line that is not yet whole.
#[derive(Default)]
struct Line {
    kept: Vec<u8>,
    cut: bool,
}

impl Line {
    fn feed(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end]);
            self.end(tell);
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LINE - self.kept.len();
        self.cut |= bytes.len() > room;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self, tell: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.kept);
        match self.cut {
            true => tell(&format!("{} …", text.trim_end())),
            false => tell(text.trim_end()),
        }
        self.kept.clear();
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[&[u8]]) -> Vec<String> {
        let (mut kept, mut lines) = (Kept { limit: usize::MAX, ..Kept::default() }, Vec::new());
        let mut tell = |line: &str| lines.push(line.to_owned());
        for piece in pieces {
            assert!(kept.stdout(piece, &mut tell));
        }
        kept.flush(&mut tell);
        lines
    }

    #[test]
    fn lines_are_told_whole_however_they_come() {
        assert_eq!(told(&[b"one\ntw", b"o\r\n", b"\nthree"]), ["one", "two", "", "three"]);
        assert!(told(&[b""]).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; 3 * LINE];
        let lines = told(&[&long, b"\nnext\n"]);
        assert_eq!(lines[0], format!("{} …", "x".repeat(LINE)));
        assert_eq!(lines[1..], ["next"]);
    }

    #[test]
    fn stdout_is_kept_up_to_its_limit_and_stderr_by_its_end() {
        let mut kept = Kept { limit: 5, ..Kept::default() };
        assert!(kept.stdout(b"12345", &mut |_: &str| {}));
        assert!(!kept.stdout(b"6", &mut |_: &str| {}));
        assert_eq!(kept.stdout, b"12345");
        let mut kept = Kept::default();
        let piece = vec![b'e'; CHUNK];
        let all = (0..=STDERR_LIMIT / CHUNK).all(|_| kept.stderr(&piece, &mut |_: &str| {}));
        assert!(!all, "it has an end");
        assert!(kept.stderr.len() <= 2 * STDERR_KEPT);
    }
}
