//! One container's log, from where a reader wants it until nobody writes it any more: a connection
//! that breaks is opened anew and goes on where it was, and so it is with a container that is
//! started again.
//!
//! Everything is read as the caller. Who reads it, and how fast, is `logs::follow`'s part.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::follow::Taken;
use super::lines::parameter;
use super::source_end::is_over;
use super::source_filter::Filter;
use super::stream::{End, Entry, Line, Mark, Reader, Reason};
use super::window::{file_options, log_path, open};
use crate::api::Gateway;
use crate::api::body;
use crate::api::error::ApiError;
use crate::api::read::view;
use crate::api::standing::Doubt;
use crate::upstream::{Answer, Failure, UpstreamError, User};

/// How long an answer waits for the API server's word. A kubelet may answer with the first line
/// only, so the log of a quiet container is still being opened when the stream begins.
const OPENING: Duration = Duration::from_secs(2);
/// Messages between a connection and what reads from it, of lines that came together: what lies
/// there is not counted among what waits for readers, so it is less than what waits for one.
pub const HAND_OVER: usize = 1;
/// Pauses before a log is opened anew: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// The longest one for a container that has not begun: somebody waits for its first lines, and
/// who comes back to a merged stream may lack those that came late.
const UNBORN: Duration = Duration::from_secs(4);
/// Attempts at a log that nobody writes any more, or whose pod the reader may not look at.
const TRIES: u32 = 5;
/// Filtering may take this long, and a quarter of the time that the log has been followed.
const FILTERING: Duration = Duration::from_secs(1);
/// Lines of one message, and bytes after which no more are added. They are filtered together, too:
/// the way to the filters' thread costs more than most lines.
const TOGETHER: (usize, usize) = (64, 16 << 10);
/// So long lines are read without a pause; then it is the turn of others, who may be a thousand.
const TURN: Duration = Duration::from_millis(1);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a follower asks for.
pub struct Wanted {
    /// Kubernetes' own options of where to begin.
    upstream: Vec<(&'static str, String)>,
    previous: bool,
    timestamps: bool,
    from: Option<Mark>,
}

impl Wanted {
    /// Of query and headers; an event's id comes back as a header, or as `from`.
    pub fn of(query: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let given = |name: &str| parameter(query, name).filter(|value| !value.is_empty());
        let mut upstream = file_options(query)?;
        upstream.retain(|(name, _)| !matches!(*name, "timestamps" | "follow"));
        let sent = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
        let sent = sent.filter(|id| !id.is_empty()).map(str::to_owned);
        let from = sent.or_else(|| given("from").map(Into::into));
        let from = from.map(|id| {
            let id: String = id.chars().take(80).collect();
            let bad = |()| ApiError::bad_request("error-bad-log-place", &[("value", &id)]);
            id.parse::<Mark>().map_err(bad)
        });
        Ok(Self {
            previous: upstream.iter().any(|(name, _)| *name == "previous"),
            timestamps: given("timestamps").is_none_or(|value| value != "false"),
            upstream,
            from: from.transpose()?,
        })
    }

    /// The time of the place to go on from.
    pub fn begins(&self) -> Option<Timestamp> {
        self.from.map(|mark| mark.at)
    }

    /// Begins with the last lines, if nobody has said where to begin.
    pub fn or_tail(mut self, lines: usize) -> Self {
        if self.upstream.iter().all(|(name, _)| *name == "previous") {
            self.upstream.push(("tailLines", lines.to_string()));
        }
        self
    }

    /// The same for what began after the reader: all of it.
    pub fn whole(&self) -> Self {
        let upstream = self.upstream.iter().filter(|(name, _)| *name == "previous").cloned();
        Self { upstream: upstream.collect(), from: None, ..*self }
    }

    /// The same for a log that has ended so before a line of it was read: what is written until it
    /// is opened again is not passed over. All is new of a container that has not begun, and of a
    /// log in which the last lines were looked for and there were none. Else "from now on" and "for
    /// so long" are counted from when the reader `begun`.
    fn again(&self, begun: Timestamp, outcome: &Result<(), Failure>, spoken: bool) -> Self {
        let mut again = self.whole();
        if outcome.as_ref().is_err_and(is_unborn) {
            return again;
        }
        let value = |name: &str| {
            let found = self.upstream.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| value.as_str())
        };
        let number = |name: &str| value(name)?.parse::<i64>().ok();
        let before = |seconds: i64| {
            let second = begun.as_second().saturating_sub(seconds).max(0);
            Timestamp::from_second(second).ok()
        };
        let tail = number("tailLines");
        let own = value("sinceTime").and_then(|time| time.parse::<Timestamp>().ok());
        let since = match (tail, number("sinceSeconds")) {
            (Some(0), _) => own.max(before(0)),
            (_, Some(seconds)) => before(seconds),
            _ => own,
        };
        let tail = tail.filter(|lines| *lines > 0 && (outcome.is_err() || spoken));
        again.upstream.extend(tail.map(|lines| ("tailLines", lines.to_string())));
        again.upstream.extend(since.map(|time| ("sinceTime", time.to_string())));
        again
    }

    /// The API server's options, to begin or to go on from a place.
    fn options(&self, place: Option<Mark>) -> Vec<(&'static str, String)> {
        let mut options = vec![("timestamps", "true".to_owned()), ("follow", "true".to_owned())];
        let all = self.upstream.iter();
        let kept = |name: &str| place.is_none() || name == "previous";
        options.extend(all.filter(|(name, _)| kept(name)).cloned());
        options.extend(place.map(|place| ("sinceTime", place.second().to_string())));
        options
    }

    /// A line as it is told; of several pods with its names.
    pub fn entry(&self, line: &Line, names: Option<&Names>, id: Option<String>) -> Entry {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            timestamp: Option<&'a str>,
            content: &'a str,
            /// Bytes that were left out at the end.
            #[serde(skip_serializing_if = "Option::is_none")]
            cut: Option<u64>,
            #[serde(flatten)]
            names: Option<&'a Names>,
        }
        let timestamp = self.timestamps.then_some(&*line.stamp);
        let cut = (line.cut > 0).then_some(line.cut);
        let shown = Shown { timestamp, content: &line.text, cut, names };
        Entry { json: serde_json::to_string(&shown).unwrap_or_default(), id }
    }
}

/// Which lines to tell, if not all. A pattern takes time and memory: nothing for callers whom
/// nobody knows yet.
pub async fn filter(
    kept: &Taken,
    user: &User,
    query: &str,
) -> Result<Option<Arc<Filter>>, ApiError> {
    match parameter(query, "filter").filter(|pattern| !pattern.is_empty()) {
        Some(pattern) => Filter::of(kept, user, &pattern).await.map(Some),
        None => Ok(None),
    }
}

/// Whose line it is.
#[derive(Debug, Clone, Serialize)]
pub struct Names {
    pub pod: CompactString,
    pub container: CompactString,
}

/// A line and whose it is.
pub struct Said {
    pub names: Arc<Names>,
    pub line: Line,
}

/// A log that is being opened.
pub type Opening = BoxFuture<'static, Result<Answer, Failure>>;

/// Opens the log that the API server has at `path`, in its own time.
pub fn opening(gateway: &Arc<Gateway>, user: &User, path: String) -> Opening {
    let (gateway, user) = (gateway.clone(), user.clone());
    async move { open(&gateway, &user, &path).await }.boxed()
}

/// A log that is there, or one that takes its time, of a caller whom the API server knows.
///
/// # Errors
/// What the API server refuses at once, and its silence.
pub async fn begun(gateway: &Gateway, user: &User, opening: Opening) -> Result<Opening, ApiError> {
    within(OPENING, opening, view::verified(gateway, user)).await
}

async fn within(
    patience: Duration,
    mut opening: Opening,
    verified: impl Future<Output = Result<(), ApiError>>,
) -> Result<Opening, ApiError> {
    match timeout(patience, &mut opening).await {
        Ok(opened) => Ok(std::future::ready(Ok(opened?)).boxed()),
        Err(_) => verified.await.map(|()| opening),
    }
}

/// One container's log, from where a reader wants it to the container's end.
pub struct Source {
    pub gateway: Arc<Gateway>,
    pub user: User,
    /// Where the API server has the pod.
    pub path: String,
    pub names: Arc<Names>,
    pub wanted: Arc<Wanted>,
    pub filter: Option<Arc<Filter>>,
    /// Of the pod, where another of its name must not be taken for it.
    pub uid: Option<CompactString>,
}

impl Source {
    fn open(&self, wanted: &Wanted, place: Option<Mark>) -> Opening {
        let path = log_path(&self.path, &self.names.container, &wanted.options(place));
        opening(&self.gateway, &self.user, path)
    }

    /// What [`Self::run`] begins with.
    pub async fn first(&self) -> Result<Opening, ApiError> {
        begun(&self.gateway, &self.user, self.open(&self.wanted, self.wanted.from)).await
    }

    /// Hands over all lines whatever happens to connection and container.
    pub async fn run(&self, first: Option<Opening>, to: mpsc::Sender<Vec<Said>>) -> End {
        let (begun, mut wanted) = (Timestamp::now(), self.wanted.clone());
        let mut reader = Reader::new(wanted.from);
        let mut opening = first.unwrap_or_else(|| self.open(&wanted, wanted.from));
        let (mut tries, mut pause) = (0, PAUSES.0);
        let mut filtering = Filtering::default();
        let mut doubt = Doubt::default();
        loop {
            let before = reader.place();
            let outcome = match opening.await {
                Ok(log) => {
                    doubt.allowed();
                    match self.copy(log, &mut reader, &mut filtering, &to).await {
                        Ok(outcome) => outcome,
                        Err(end) => return end,
                    }
                }
                Err(failure) => Err(failure),
            };
            let has_read = reader.place() != before;
            if has_read {
                pause = PAUSES.0;
            }
            tries = failures(tries, has_read, &outcome);
            let asked = outcome.as_ref().err().and_then(Failure::retry_after);
            if outcome.as_ref().is_err_and(is_unborn) {
                pause = pause.min(UNBORN);
            }
            if reader.place().is_none() {
                wanted = Arc::new(wanted.again(begun, &outcome, reader.spoken));
            }
            // An API server that has just begun denies what its roles allow: it is asked again.
            let is_denied = outcome.as_ref().is_err_and(|why| code(why) == Some(403));
            if !(is_denied && doubt.excuses_now(&self.gateway))
                && let Some(end) = self.after(outcome, tries).await
            {
                return end;
            }
            sleep(spread(pause.max(asked.unwrap_or_default().min(PAUSES.1)))).await;
            pause = (pause * 2).min(PAUSES.1);
            reader.again();
            opening = self.open(&wanted, reader.place());
        }
    }

    /// Reads a log to its end: a good one, or a break. An error ends it all.
    async fn copy(
        &self,
        mut log: Answer,
        reader: &mut Reader,
        filtering: &mut Filtering,
        to: &mpsc::Sender<Vec<Said>>,
    ) -> Result<Result<(), Failure>, End> {
        match self.is_replaced().await {
            Ok(true) => return Err(Reason::Gone.into()),
            Ok(false) => {}
            Err(failure) => return Ok(Err(failure)),
        }
        let mut turn = Instant::now();
        while let Some(frame) = log.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Ok(Err(broken(&error))),
            };
            let Ok(data) = frame.into_data() else { continue };
            let mut chunk = &data[..];
            while !chunk.is_empty() {
                self.say(at_hand(reader, &mut chunk), filtering, to).await?;
                if turn.elapsed() > TURN {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
            }
        }
        if let Some(line) = reader.rest() {
            self.say(vec![line], filtering, to).await?;
        }
        Ok(Ok(()))
    }

    async fn say(
        &self,
        mut lines: Vec<Line>,
        filtering: &mut Filtering,
        to: &mpsc::Sender<Vec<Said>>,
    ) -> Result<(), End> {
        if let Some(filter) = &self.filter {
            lines = filtering.kept(filter, lines).await?;
        }
        if lines.is_empty() {
            return Ok(());
        }
        let said = lines.into_iter().map(|line| Said { names: self.names.clone(), line }).collect();
        to.send(said).await.map_err(|_| Reason::Completed.into())
    }

    /// Whether a log that was opened by the pod's name is that of another pod, which has a source
    /// of its own. Asked after the opening: a uid that is there now has been there before. Without
    /// an answer nobody knows whose log it is, and it is opened again.
    async fn is_replaced(&self) -> Result<bool, Failure> {
        if self.uid.is_none() {
            return Ok(false);
        }
        match body::get(&self.gateway, &self.user, &self.path).await {
            Ok(pod) => Ok(self.is_another(&pod)),
            // Who may read logs may not see pods. Where there is none by now, none has come after.
            Err(failure) if matches!(code(&failure), Some(403 | 404)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn is_another(&self, pod: &Value) -> bool {
        let found = pod.pointer("/metadata/uid").and_then(Value::as_str);
        self.uid.as_deref().is_some_and(|uid| found != Some(uid))
    }

    /// Whether there will be more after a log has ended, or could not be had.
    async fn after(&self, outcome: Result<(), Failure>, tries: u32) -> Option<End> {
        match outcome.as_ref().err().and_then(code) {
            Some(401) => return Some(Reason::Unauthorized.into()),
            Some(403) => return outcome.err().map(|why| End::of(Reason::Denied, &why)),
            // There was no such run, and a later one is not what was asked for.
            Some(400) if self.wanted.previous => {
                return outcome.err().map(|why| End::of(Reason::Failed, &why));
            }
            _ if outcome.is_ok() && self.wanted.previous => return Some(Reason::Completed.into()),
            _ => {}
        }
        match body::get(&self.gateway, &self.user, &self.path).await {
            Ok(pod) if self.is_another(&pod) => return Some(Reason::Gone.into()),
            Ok(pod) if !is_over(&pod, &self.names.container) => return None,
            Ok(_) => {}
            Err(failure) => match code(&failure) {
                Some(404) => return Some(Reason::Gone.into()),
                Some(401) => return Some(Reason::Unauthorized.into()),
                // Who may read logs may not see pods.
                Some(403) => {}
                _ => return None,
            },
        }
        match outcome {
            Ok(()) => Some(Reason::Completed.into()),
            Err(why) => (tries >= TRIES).then(|| End::of(Reason::Failed, &why)),
        }
    }
}

fn code(failure: &Failure) -> Option<u16> {
    failure.code().map(|code| code.as_u16())
}

/// Whether it is what kubelets say of a container that has not begun.
fn is_unborn(failure: &Failure) -> bool {
    code(failure) == Some(400)
}

/// The next lines of a chunk, as many as are handed over together.
fn at_hand(reader: &mut Reader, chunk: &mut &[u8]) -> Vec<Line> {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while lines.len() < TOGETHER.0 && bytes < TOGETHER.1 {
        let Some(line) = reader.next(chunk) else { break };
        bytes += line.text.len();
        lines.push(line);
    }
    lines
}

/// Between three and five quarters of a wait, so that the readers of a log that broke do not come
/// back as one.
fn spread(wait: Duration) -> Duration {
    let mut byte = [0u8; 1];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    wait.mul_f64(0.75 + f64::from(byte[0]) / 510.0)
}

/// Errors in a row, without a new line. A quiet log that ends well is none.
fn failures(before: u32, has_read: bool, outcome: &Result<(), Failure>) -> u32 {
    match outcome {
        Ok(()) => 0,
        Err(_) if has_read => 1,
        Err(_) => before + 1,
    }
}

fn broken(error: &hyper::Error) -> Failure {
    UpstreamError::Broken(error.to_string()).into()
}

/// The time that a filter has worked, without its waiting.
struct Filtering {
    begun: Instant,
    spent: Duration,
}

impl Default for Filtering {
    fn default() -> Self {
        Self { begun: Instant::now(), spent: Duration::ZERO }
    }
}

impl Filtering {
    /// The lines that match.
    async fn kept(&mut self, filter: &Arc<Filter>, lines: Vec<Line>) -> Result<Vec<Line>, End> {
        let (mut left, mut kept) = (VecDeque::from(lines), Vec::new());
        while !left.is_empty() {
            let judged = filter.judge(left).await;
            let (rest, more, time) = judged.ok_or_else(|| End::from(Reason::Failed))?;
            left = rest;
            kept.extend(more);
            self.spent += time;
            if self.spent > FILTERING + self.begun.elapsed() / 4 {
                return Err(Reason::Filter.into());
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
