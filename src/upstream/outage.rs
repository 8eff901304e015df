//! Whether the API server answers, for whoever runs us: why not, and when it does again.
//!
//! Callers are told by their own answers that it does not, and not why. When it was last so is
//! known, too: one that has just begun denies what its roles allow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::UpstreamError;

/// Between two words about the same cause: every request and every watch would have one.
const WORDS: Duration = Duration::from_secs(60);
/// Causes told within that time. There are few at a time; what changes with each request fills no
/// log either.
const CAUSES: usize = 8;

#[derive(Default)]
pub(super) struct Outage {
    /// Something was told, and no answer came since.
    is_told: AtomicBool,
    causes: Mutex<Vec<(String, Instant)>>,
    last: Mutex<Option<Instant>>,
}

impl Outage {
    pub fn answered(&self) {
        // Looked at before it is written to: every answer comes by here.
        let is_told = self.is_told.load(Ordering::Relaxed);
        if is_told && self.is_told.swap(false, Ordering::Relaxed) {
            tracing::info!("the API server answers again");
        }
    }

    /// No answer came to a request of ours, or of a caller. Callers choose who answers them (the
    /// API server leads to services, too): what breaks theirs, or lasts, need not be its fault.
    pub fn failed(&self, error: &UpstreamError, is_ours: bool) {
        let is_its_own = match error {
            UpstreamError::Unreachable(_) => true,
            UpstreamError::Broken(_) | UpstreamError::Timeout => is_ours,
            _ => false,
        };
        if !is_its_own {
            return;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if self.is_news(&error.to_string(), Instant::now()) {
            tracing::warn!(%error, "no answer from the API server");
            self.is_told.store(true, Ordering::Relaxed);
        }
    }

    /// When it was away last, as far as no caller brings that about.
    pub fn last(&self) -> Option<Instant> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_news(&self, why: &str, now: Instant) -> bool {
        // Without numbers: since when a certificate is over is another one each second.
        let cause: String = why.chars().filter(|one| !one.is_ascii_digit()).collect();
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        causes.retain(|(_, at)| now.saturating_duration_since(*at) < WORDS);
        if causes.len() >= CAUSES || causes.iter().any(|(known, _)| *known == cause) {
            return false;
        }
        causes.push((cause, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_cause_is_told_once_a_minute_another_one_at_once_and_not_all_that_there_may_be() {
        let (outage, now) = (Outage::default(), Instant::now());
        let told = |seconds, why: &str| outage.is_news(why, now + Duration::from_secs(seconds));
        assert!(told(0, "refused"));
        assert!(!told(1, "refused"));
        assert!(told(1, "expired 3 seconds ago"), "another one");
        assert!(!told(2, "expired 14 seconds ago"), "the same one");
        assert!(!told(59, "refused"), "by turns, too");
        assert!(told(60, "refused"));
        assert!(!told(60, "expired 72 seconds ago"));
        assert!(told(61, "expired 73 seconds ago"));
        let many = (0..100).filter(|at| told(62, &"x".repeat(*at + 1))).count();
        assert_eq!(many, CAUSES - 2);
        assert!(told(200, "something new"));
    }

    #[test]
    fn when_it_was_away_is_nothing_that_a_caller_brings_about() {
        let outage = Outage::default();
        outage.failed(&UpstreamError::Broken("reset".to_owned()), false);
        outage.failed(&UpstreamError::Timeout, false);
        assert_eq!(outage.last(), None);
        outage.failed(&UpstreamError::Unreachable("refused".to_owned()), false);
        assert!(outage.last().is_some());
    }

    #[test]
    fn it_is_told_with_its_cause_and_that_it_is_over_and_what_a_caller_caused_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = Arc::new(File::create(&path).unwrap());
        let logged = tracing_subscriber::fmt().with_writer(file).finish();
        let outage = Outage::default();
        let broken = || UpstreamError::Broken("too many headers".to_owned());
        tracing::subscriber::with_default(logged, || {
            outage.answered();
            outage.failed(&broken(), false);
            outage.failed(&UpstreamError::Timeout, false);
            outage.failed(&UpstreamError::Cut("gone".to_owned()), true);
            for _ in 0..3 {
                outage.failed(&UpstreamError::Unreachable("refused".to_owned()), false);
            }
            outage.failed(&broken(), true);
            outage.answered();
            outage.answered();
        });
        let log = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 3, "{log}");
        for (line, words) in lines.iter().zip(["refused", "too many headers", "answers again"]) {
            assert!(line.contains(words), "{log}");
        }
        assert!(lines[0].contains("WARN") && lines[1].contains("WARN"), "{log}");
    }
}
