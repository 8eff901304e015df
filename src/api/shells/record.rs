//! A session in the audit log: who, where, by what, how long, how many bytes, and whose doing its
//! end was. A line when it begins, before anything can run, and one when it ends, however it does.
//!
//! NOT what was asked to run, typed or shown: others' words about an end may repeat it, and so only
//! our own are written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep_until};

use super::shell::Shells;
use super::terminal::{Cause, Ended, Session, gone};
use crate::api::error::ApiError;
use crate::i18n::Locale;

/// Writes down what did not begin. What a stranger put into the path or the query is quoted: it
/// must not make a line of its own. Of those whom the API server does not know there are few lines.
pub(crate) fn refused(shells: &Shells, user: &str, session: &Session, error: &ApiError) {
    if error.status == StatusCode::UNAUTHORIZED && !shells.may_log() {
        return;
    }
    let Session { namespace, pod, container, verb, transport, .. } = session;
    tracing::warn!(
        target: "audit", event = "terminal-refused", user, ?namespace, ?pod, ?container, ?verb,
        transport, status = error.status.as_u16(), reason = ?error.text(Locale::EN),
        "a session was refused"
    );
}

/// A session that begins; its end is written when it is dropped.
pub(crate) struct Record {
    pub user: String,
    pub session: Session,
    pub meter: Meter,
    pub end: Option<Ended>,
    /// The API server's answer, when it did not let the session begin.
    pub refused: Option<StatusCode>,
}

impl Record {
    pub fn begin(user: String, session: Session) -> Self {
        let Session { namespace, pod, container, verb, transport, .. } = &session;
        tracing::info!(
            target: "audit", event = "terminal-begun", user, ?namespace, ?pod, ?container, ?verb,
            transport, "a session begins"
        );
        Self { user, session, meter: Meter::new(), end: None, refused: None }
    }

    /// A message that was none, and ends the session. Not what it said: it may be what was typed.
    pub fn frame_refused(user: &str, session: &Session, code: u16) {
        let Session { namespace, pod, container, verb, transport, .. } = session;
        tracing::warn!(
            target: "audit", event = "terminal-frame-refused", user, ?namespace, ?pod, ?container,
            ?verb, transport, code, "a frame was refused"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let user = self.user.as_str();
        let Session { namespace, pod, container, verb, transport, .. } = &self.session;
        if let Some(status) = self.refused {
            tracing::warn!(
                target: "audit", event = "terminal-refused", user, ?namespace, ?pod, ?container,
                ?verb, transport, status = status.as_u16(), "a session was refused"
            );
            return;
        }
        let (cause, end) = self.end.take().unwrap_or_else(gone);
        let Meter { begun, typed, shown, .. } = &self.meter;
        tracing::info!(
            target: "audit", event = "terminal-ended", user, ?namespace, ?pod, ?container, ?verb,
            transport, seconds = begun.elapsed().as_secs_f64(),
            bytes_in = typed.load(Ordering::Relaxed), bytes_out = shown.load(Ordering::Relaxed),
            code = end.code, ?cause, reason = ?words(cause, &end.reason), "a session ended"
        );
    }
}

/// The words about an end that are ours alone, and say more than its cause.
fn words(cause: Cause, reason: &str) -> &str {
    if cause == Cause::Broken { reason } else { "" }
}

/// Counts a session's bytes, and knows when the last one passed.
pub(crate) struct Meter {
    pub begun: Instant,
    typed: AtomicU64,
    shown: AtomicU64,
    /// Milliseconds from the beginning.
    last: AtomicU64,
}

impl Meter {
    fn new() -> Self {
        let zero = AtomicU64::default;
        Self { begun: Instant::now(), typed: zero(), shown: zero(), last: zero() }
    }

    pub fn typed(&self, bytes: &[u8]) {
        self.count(&self.typed, bytes);
    }

    pub fn showed<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        self.count(&self.shown, bytes);
        bytes
    }

    /// An empty message is nobody's doing: it keeps no session.
    fn count(&self, counter: &AtomicU64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.last.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has passed for so long.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let due = self.begun + last + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_session_is_idle_when_nothing_passed_for_so_long() {
        let limit = Duration::from_secs(60);
        let begun = Instant::now().checked_sub(limit).unwrap();
        let meter = Meter { begun, ..Meter::new() };
        meter.typed(b"");
        meter.showed(b"");
        assert_eq!(meter.idle(limit).now_or_never(), Some(()), "empty messages are none");
        assert_eq!(meter.showed(b"abc"), b"abc");
        assert_eq!(meter.idle(limit).now_or_never(), None);
        assert_eq!(meter.shown.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn of_an_end_only_our_own_words_are_written() {
        let theirs = "exec: \"mysql -psecret\": executable file not found in $PATH";
        for cause in [Cause::Process, Cause::Frame, Cause::Policy("id"), Cause::Gone] {
            assert_eq!(words(cause, theirs), "", "{cause:?}");
        }
        assert_eq!(words(Cause::Broken, "no answer"), "no answer");
    }
}
