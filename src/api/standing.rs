//! Whether a right still stands by which something lasts: a terminal, a forwarded port, a followed
//! log. The API server is asked again and again as the caller, and what it says is judged here.
//!
//! It ends nothing itself. Live answers are asked for anew as plain ones and share the doubt alone
//! (`live::hub`); the stream of an operation asks by reading what it shows (`releases::operation`).

use std::pin::pin;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Gateway;
use crate::auth::Attributes;
use crate::upstream::{Failure, UpstreamError, User};

/// Looks at a right that may bring neither yes nor no from an API server that does answer: a
/// minute, as looks come by default. Whoever lost the right may bring about a 429 himself.
pub const UNJUDGED: u32 = 6;
/// For so long after an API server was away its denials are no verdict: one that has just begun
/// denies what its roles allow until it has read them, which takes seconds. A right that ended
/// meanwhile ends so much later at most, and nothing is shown by it in that time.
pub const YOUNG: Duration = Duration::from_secs(10);

/// Why what was opened by a right has to end.
#[derive(Debug)]
pub enum Lost {
    /// The credentials are refused, or over.
    Unauthorized,
    /// With the API server's words, if it has said any.
    Denied(Option<Failure>),
    /// The API server is there and does not judge.
    Unconfirmed(Failure),
}

/// Whether denials may be those of an API server that has just begun.
#[derive(Debug, Default)]
pub struct Doubt {
    /// When it was away last.
    away: Option<Instant>,
    /// Of the first denial since the last yes: until when it is no verdict.
    until: Option<Instant>,
}

impl Doubt {
    /// The API server was away then, if at all. No caller may bring that about.
    pub fn was_away(&mut self, at: Option<Instant>) {
        self.away = self.away.max(at);
    }

    pub fn allowed(&mut self) {
        self.until = None;
    }

    /// Whether a denial is no verdict yet. The first one says until when: what fails after it does
    /// not put the end off.
    pub fn excuses(&mut self, now: Instant) -> bool {
        let until = self.away.map_or(now, |at| at + YOUNG);
        *self.until.get_or_insert(until) > now
    }

    /// The same of a denial just now.
    pub fn excuses_now(&mut self, gateway: &Gateway) -> bool {
        self.was_away(gateway.cluster.away());
        self.excuses(Instant::now())
    }

    /// Whether the last verdict was a denial.
    fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// How long a denial is no verdict from now on, if at all.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until.map(|until| until.saturating_duration_since(now));
        left.filter(|left| !left.is_zero())
    }
}

/// What was said of a right, again and again.
#[derive(Default)]
struct Standing {
    /// Answers since the last yes that were no verdict.
    unjudged: u32,
    doubt: Doubt,
}

impl Standing {
    /// Why the right is gone, if it is. An API server that is away takes none; one that is there
    /// and does not judge takes it in the end.
    fn hear(&mut self, answer: Result<bool, Failure>, now: Instant) -> Option<Lost> {
        let words = match answer {
            Ok(true) => {
                self.unjudged = 0;
                self.doubt.allowed();
                return None;
            }
            Ok(false) => None,
            Err(failure) => match failure.code() {
                Some(StatusCode::UNAUTHORIZED) => return Some(Lost::Unauthorized),
                // Impersonation is no longer allowed, for one.
                Some(StatusCode::FORBIDDEN) => Some(failure),
                Some(code) if code.is_client_error() => {
                    self.unjudged += 1;
                    return (self.unjudged >= UNJUDGED).then_some(Lost::Unconfirmed(failure));
                }
                _ => {
                    self.doubt.was_away(is_away(&failure).then_some(now));
                    return None;
                }
            },
        };
        (!self.doubt.excuses(now)).then_some(Lost::Denied(words))
    }

    /// How long to wait before the next look: no longer than the doubt has left.
    fn wait(&self, every: Duration, now: Instant) -> Duration {
        self.doubt.left(now).map_or(every, |left| left.min(every))
    }
}

/// Whether nobody took the question, or who stands before an API server says that it is away. Late
/// answers tell nothing: a caller may have so many questions there that the next one waits.
fn is_away(failure: &Failure) -> bool {
    match failure {
        Failure::Upstream(error) => {
            matches!(error, UpstreamError::Unreachable(_) | UpstreamError::Broken(_))
        }
        Failure::Status { code, .. } => {
            code.is_server_error() && *code != StatusCode::GATEWAY_TIMEOUT
        }
    }
}

/// Returns when the right is gone. `doubt` is told whether the last verdict was a denial: from then
/// on nothing may be shown by the right, until there is another one.
pub async fn lost(
    gateway: &Gateway,
    user: &User,
    right: &Attributes,
    every: Duration,
    doubt: &watch::Sender<bool>,
) -> Lost {
    let (mut standing, was_over) = (Standing::default(), user.is_over());
    loop {
        sleep(standing.wait(every, Instant::now())).await;
        if user.is_over() && !was_over {
            return Lost::Unauthorized;
        }
        let answer = gateway.authorizer.review(&gateway.cluster, user, right).await;
        standing.doubt.was_away(gateway.cluster.away());
        let lost = standing.hear(answer, Instant::now());
        doubt.send_replace(standing.doubt.is_open());
        if let Some(lost) = lost {
            return lost;
        }
    }
}

/// What comes of the work while the right stands; it rests while that is in doubt.
///
/// # Errors
/// Why the right is gone.
pub async fn during<T>(
    gateway: &Gateway,
    user: &User,
    right: &Attributes,
    every: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Lost> {
    let (doubt, mut doubted) = watch::channel(false);
    tokio::select! {
        biased;
        why = lost(gateway, user, right, every, &doubt) => Err(why),
        done = unless(&mut doubted, work) => Ok(done),
    }
}

/// What comes of the work, which rests while there is doubt, and for good when nobody looks at the
/// right any more. Nothing is lost of work that may be dropped at any time.
pub async fn unless<T>(doubted: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        let is_over = doubted.wait_for(|doubted| !*doubted).await.is_err();
        if is_over {
            return std::future::pending().await;
        }
        tokio::select! {
            biased;
            changed = doubted.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            done = &mut work => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn code(code: u16) -> Failure {
        Failure::status(StatusCode::from_u16(code).unwrap(), b"so")
    }

    fn away() -> Failure {
        UpstreamError::Unreachable("refused".into()).into()
    }

    fn late() -> Failure {
        UpstreamError::Timeout.into()
    }

    #[test]
    fn a_right_stands_while_nobody_can_be_asked_but_not_for_ever_without_a_verdict() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let mut hear = |answer| standing.hear(answer, now);
        for _ in 0..2 * UNJUDGED {
            for failure in [code(503), code(500), late(), away()] {
                assert!(hear(Err(failure)).is_none());
            }
        }
        for _ in 1..UNJUDGED {
            assert!(hear(Err(code(429))).is_none());
        }
        assert!(hear(Ok(true)).is_none());
        for _ in 1..UNJUDGED {
            assert!(hear(Err(code(429))).is_none(), "a verdict came between");
            assert!(hear(Err(code(500))).is_none());
        }
        let end = hear(Err(code(429)));
        assert!(matches!(&end, Some(Lost::Unconfirmed(words)) if words.to_string() == "so"));
        assert!(matches!(hear(Err(code(401))), Some(Lost::Unauthorized)), "whoever was away");
    }

    #[test]
    fn a_denial_ends_it_at_once_unless_the_api_server_was_away() {
        // What a caller may bring about himself excuses nothing.
        let before = [None, Some(Ok(true)), Some(Err(code(429))), Some(Err(late()))];
        for before in before.into_iter().chain([Some(Err(code(504)))]) {
            let (mut standing, now) = (Standing::default(), Instant::now());
            let words = format!("{before:?}");
            assert!(before.is_none_or(|answer| standing.hear(answer, now).is_none()));
            let denied = standing.hear(Ok(false), now);
            assert!(matches!(denied, Some(Lost::Denied(None))), "{words}");
        }
        let denied = Standing::default().hear(Err(code(403)), Instant::now());
        assert!(matches!(denied, Some(Lost::Denied(Some(_)))));
    }

    #[test]
    fn a_denial_just_after_the_api_server_was_away_is_looked_at_again() {
        let every = YOUNG * 3;
        for failure in [away(), code(503), UpstreamError::Broken("reset".into()).into()] {
            let (mut standing, begun) = (Standing::default(), Instant::now());
            let at = |seconds: u64| begun + Duration::from_secs(seconds);
            assert!(standing.hear(Err(failure), begun).is_none());
            assert_eq!(standing.wait(every, at(1)), every, "nothing was denied");
            assert!(standing.hear(Ok(false), at(2)).is_none());
            assert_eq!(standing.wait(every, at(2)), Duration::from_secs(8));
            assert!(standing.doubt.is_open());
            assert!(standing.hear(Err(code(403)), at(9)).is_none());
            assert!(standing.hear(Ok(true), at(9)).is_none());
            assert!(!standing.doubt.is_open());
            // By then its roles are read.
            assert!(matches!(standing.hear(Ok(false), at(10)), Some(Lost::Denied(None))));
        }
    }

    #[test]
    fn a_right_that_ended_while_the_api_server_was_away_ends_whatever_fails_after() {
        let (mut standing, begun) = (Standing::default(), Instant::now());
        standing.hear(Err(away()), begun);
        assert!(standing.hear(Ok(false), begun).is_none());
        for second in 1..YOUNG.as_secs() {
            let now = begun + Duration::from_secs(second);
            assert!(standing.hear(Err(away()), now).is_none());
            assert!(standing.hear(Ok(false), now).is_none());
        }
        let now = begun + YOUNG;
        standing.hear(Err(away()), now);
        assert_eq!(standing.wait(YOUNG, now), YOUNG, "not without a pause");
        assert!(matches!(standing.hear(Ok(false), now), Some(Lost::Denied(None))));
    }

    #[tokio::test]
    async fn work_rests_while_there_is_doubt_and_when_nobody_looks_any_more() {
        let (doubt, mut doubted) = watch::channel(true);
        assert_eq!(unless(&mut doubted, async { 1 }).now_or_never(), None);
        doubt.send_replace(false);
        assert_eq!(unless(&mut doubted, async { 1 }).now_or_never(), Some(1));
        doubt.send_replace(false);
        assert_eq!(unless(&mut doubted, async { 1 }).now_or_never(), Some(1), "nothing new");
        let mut work = Box::pin(unless(&mut doubted, tokio::task::yield_now()));
        assert_eq!(work.as_mut().now_or_never(), None, "it has begun");
        doubt.send_replace(true);
        assert_eq!(work.as_mut().now_or_never(), None, "it would be done");
        doubt.send_replace(false);
        work.await;
        drop(doubt);
        assert_eq!(unless(&mut doubted, async { 1 }).now_or_never(), None);
    }
}
