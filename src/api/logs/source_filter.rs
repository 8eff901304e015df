//! Which lines of a followed log its reader is told: a regular expression of somebody else's.
//!
//! All filters work on one thread of their own. Whatever a pattern costs, no request waits for it;
//! a filter has the tables of one thread and not of each; and one caller's filters work in turn, so
//! that everybody gets on. How long one follower may take of that is `logs::source`'s part.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use http::StatusCode;
use regex::{Regex, RegexBuilder};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::follow::{Seat, Taken};
use super::stream::Line;
use crate::api::body::{TURN, too_many};
use crate::api::error::ApiError;
use crate::upstream::{Turns, User};

/// Longest filter, in bytes; people type them.
const LENGTH: usize = 1_000;
/// A compiled filter in bytes: words, alternatives and classes of ASCII fit the small one, five
/// Unicode classes the large one, a bomb neither.
const SMALL: usize = 8 << 10;
const LARGE: usize = 256 << 10;
/// Tables of a small filter while it searches, in bytes; a large one's are as large as itself.
const TABLES: usize = 64 << 10;
/// Groups of a filter: the slowest way to search has two places for each in each of its states.
const GROUPS: usize = 10;
/// What of a line a filter looks at, in bytes: with the sizes above, a line costs a fifth of a
/// second at worst, and a small filter some milliseconds.
const FILTERED: usize = 2 << 10;
/// So long a filter works before it is another one's turn.
const PART: Duration = Duration::from_millis(5);
/// Places of filters, of all callers and of one: a MiB each at worst, most take a tenth of it.
const FILTERS: (usize, usize) = (256, 64);
/// Places of a large filter: 32 of them at once, 8 of one caller.
const PLACES: usize = 8;

static TURNS: LazyLock<Turns> = LazyLock::new(|| Turns::new(1));

type Job = Box<dyn FnOnce() + Send>;

/// What takes jobs to the filters' thread. Each caller has one there, so there are as many as
/// callers at most.
type Jobs = mpsc::UnboundedSender<Job>;

/// The filters' thread, once there was a filter.
static THREAD: Mutex<Option<Jobs>> = Mutex::new(None);

/// The thread of this place. Where none can be made filters are refused, and the next one tries.
fn thread_of(
    place: &Mutex<Option<Jobs>>,
    begin: impl FnOnce() -> io::Result<Jobs>,
) -> Option<Jobs> {
    let mut thread = place.lock().unwrap_or_else(PoisonError::into_inner);
    if thread.is_none() {
        let told = |error: &io::Error| tracing::error!(%error, "no thread for the filters of logs");
        *thread = begin().inspect_err(told).ok();
    }
    thread.clone()
}

/// A thread that lasts for as long as somebody may bring it jobs, whatever becomes of one.
fn begun() -> io::Result<Jobs> {
    let (to, mut jobs) = mpsc::unbounded_channel::<Job>();
    let work = move || {
        while let Some(job) = jobs.blocking_recv() {
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    };
    thread::Builder::new().name("log-filters".to_owned()).spawn(work)?;
    Ok(to)
}

/// What comes of `work` on the filters' thread. Who stops waiting before it begins saves it.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let job = move || {
        if !tell.is_closed() {
            let _ = tell.send(work());
        }
    };
    thread_of(&THREAD, begun)?.send(Box::new(job)).ok()?;
    told.await.ok()
}

/// A regular expression that lines must match.
pub struct Filter {
    regex: Regex,
    /// The caller's.
    turn: Arc<Semaphore>,
    _seat: Seat,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
enum BadFilter {
    #[error("it has {0} bytes, and {most} is the most", most = LENGTH)]
    TooLong(usize),
    #[error("it has {0} groups, and {most} is the most: (?:…) is none", most = GROUPS)]
    Groups(usize),
    #[error(transparent)]
    Refused(#[from] regex::Error),
}

/// The lines that are left, those that match, and the time that it took.
pub type Judged = (VecDeque<Line>, Vec<Line>, Duration);

impl Filter {
    /// # Errors
    /// 400 for what is no pattern, or one too large; 429 when there are too many.
    pub async fn of(kept: &Taken, user: &User, pattern: &str) -> Result<Arc<Self>, ApiError> {
        let (turn, pattern) = (TURNS.of(user), pattern.to_owned());
        let compiling = async {
            let _turn = turn.acquire().await.ok()?;
            apart(move || compiled(&pattern)).await
        };
        let compiled = timeout(TURN, compiling).await.ok().flatten().ok_or_else(too_many)?;
        let (regex, places) = compiled.map_err(|error| {
            ApiError::bad_request("error-bad-log-filter", &[("reason", &error.to_string())])
        })?;
        let seat = kept.take(user, places, FILTERS).ok_or_else(|| {
            let busy = StatusCode::TOO_MANY_REQUESTS;
            ApiError::with_status(busy, "error-too-many-followed-logs", &[])
        })?;
        Ok(Arc::new(Self { regex, turn, _seat: seat }))
    }

    /// Judges lines for a while, from the first one on; at least that one. `None` only when there
    /// is no thread to do it.
    pub async fn judge(self: &Arc<Self>, lines: VecDeque<Line>) -> Option<Judged> {
        let _turn = self.turn.acquire().await.ok()?;
        let filter = self.clone();
        apart(move || filter.part(lines)).await
    }

    fn part(&self, mut lines: VecDeque<Line>) -> Judged {
        let (begun, mut kept) = (Instant::now(), Vec::new());
        while let Some(line) = lines.pop_front() {
            if accepts(&self.regex, &line.text) {
                kept.push(line);
            }
            if begun.elapsed() > PART {
                break;
            }
        }
        (lines, kept, begun.elapsed())
    }
}

/// The pattern, and the places that it takes.
fn compiled(pattern: &str) -> Result<(Regex, usize), BadFilter> {
    if pattern.len() > LENGTH {
        return Err(BadFilter::TooLong(pattern.len()));
    }
    let within = |size: usize| {
        let mut builder = RegexBuilder::new(pattern);
        builder.size_limit(size).dfa_size_limit(size.max(TABLES)).build()
    };
    let (regex, places) = match within(SMALL) {
        Err(regex::Error::CompiledTooBig(_)) => (within(LARGE)?, PLACES),
        small => (small?, 1),
    };
    // The first one is the whole match.
    let groups = regex.captures_len().saturating_sub(1);
    if groups > GROUPS {
        return Err(BadFilter::Groups(groups));
    }
    Ok((regex, places))
}

/// Whether the first [`FILTERED`] bytes of a line match; in time linear to them.
fn accepts(regex: &Regex, text: &str) -> bool {
    let mut end = text.len().min(FILTERED);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    regex.is_match(&text[..end])
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http::HeaderMap;

    use super::*;

    /// Near the limit, and each byte of a line makes a state that was not there before.
    const COSTLY: &str = "[ab]*a[ab]{2000}[^ab]";

    fn user(token: &str) -> User {
        User::bearer(token, &HeaderMap::new()).unwrap()
    }

    fn line(text: &str) -> Line {
        let (text, stamp) = (text.to_owned(), Default::default());
        Line { at: None, stamp, text, cut: 0, mark: None }
    }

    #[test]
    fn a_filter_is_a_regular_expression_of_bounded_size_over_the_beginning_of_a_line() {
        let (filter, places) = compiled(r"(?i)\berror\b.*time-?out").unwrap();
        assert!(accepts(&filter, "ERROR: a timeout") && !accepts(&filter, "errors and timeouts"));
        assert_eq!(places, 1);
        let late = format!("{}error timeout", "ä".repeat(FILTERED));
        assert!(!accepts(&filter, &late));
        assert_eq!(compiled(r"\w+=\w+").unwrap().1, PLACES, "Unicode is large");
        let words = compiled("(").unwrap_err().to_string();
        assert!(words.contains("unclosed group"), "{words}");
        let bomb = compiled(r"(\w{50}){50}").unwrap_err().to_string();
        assert!(bomb.contains("size limit"), "{bomb}");
        assert!(matches!(compiled(&"a".repeat(1_001)), Err(BadFilter::TooLong(1_001))));
        // States times groups is what the slowest search has in memory.
        let groups = format!("{COSTLY}{}", "()".repeat(GROUPS + 1));
        assert!(matches!(compiled(&groups), Err(BadFilter::Groups(_))));
        assert!(compiled(&format!("{COSTLY}{}", "(a)".repeat(GROUPS))).is_ok());
    }

    #[tokio::test]
    async fn a_thread_that_could_not_be_made_is_made_later_and_no_job_ends_it() {
        let place = Mutex::default();
        assert!(thread_of(&place, || Err(io::ErrorKind::WouldBlock.into())).is_none());
        assert!(thread_of(&place, begun).is_some());
        let made_once = thread_of(&place, || Err(io::ErrorKind::WouldBlock.into()));
        assert!(made_once.is_some());
        assert_eq!(apart(|| -> u8 { panic!("a job that fails") }).await, None);
        assert_eq!(apart(|| 1).await, Some(1));
    }

    #[tokio::test]
    async fn whoever_filters_waits_for_it_elsewhere_and_costly_lines_are_judged_in_parts() {
        let places = Taken::default();
        let filter = Filter::of(&places, &user("costly"), COSTLY).await.unwrap();
        let text: String = (0..FILTERED).map(|at| if at % 7 < 3 { 'a' } else { 'b' }).collect();
        let mut left = VecDeque::from(vec![line(&text); 4]);
        let mut judging = Box::pin(filter.judge(left.clone()));
        assert!(judging.as_mut().now_or_never().is_none(), "the runtime goes on");
        assert!(judging.await.is_some());
        while !left.is_empty() {
            let before = left.len();
            let (rest, kept, _) = filter.judge(left).await.unwrap();
            assert!(kept.is_empty() && rest.len() < before, "at least one line in each part");
            left = rest;
        }
        let lines = vec![line("warning"), line("error"), line("an error")].into();
        let filter = Filter::of(&places, &user("costly"), "error").await.unwrap();
        let (_, kept, _) = filter.judge(lines).await.unwrap();
        assert_eq!(kept, [line("error"), line("an error")]);
    }

    #[tokio::test]
    async fn large_filters_are_few_and_each_caller_has_his_own() {
        let (places, a, b) = (Taken::default(), user("many"), user("few"));
        let mut held = Vec::new();
        for _ in 0..FILTERS.1 / PLACES {
            held.push(Filter::of(&places, &a, COSTLY).await.unwrap());
        }
        let refused = |answer: Result<Arc<Filter>, ApiError>| answer.err().unwrap().status.as_u16();
        assert_eq!(refused(Filter::of(&places, &a, COSTLY).await), 429);
        assert_eq!(refused(Filter::of(&places, &a, "(").await), 400);
        assert!(Filter::of(&places, &b, COSTLY).await.is_ok());
        held.pop();
        assert!(Filter::of(&places, &a, COSTLY).await.is_ok(), "given back");
    }
}
