//! A followed log on its way to one reader: lines out of the kubelet's bytes, the place in the log
//! that each has, and the bounded queue between a log and a reader that may be slow.
//!
//! Pure but for the queue's waiting. It opens nothing and knows no rights: that is `logs::follow`.
//! Which lines are left out says `logs::source_filter`.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use compact_str::CompactString;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Longest line, with its time, in bytes. What nobody reads on a screen is cut: some JSON of a
/// program fits, a file that was printed does not.
const LONGEST: usize = 64 << 10;
/// Lines and bytes that wait for a reader: some seconds of a busy log.
pub const QUEUE: (usize, usize) = (1_000, 256 << 10);
/// Bytes that wait for all readers; with more, as many of them may wait for one as an event has.
const IN_ALL: usize = 64 << 20;
/// Bytes of an event, whose last line may be longer: some events lie between us and a connection
/// that takes nothing.
const PIECE: usize = 64 << 10;
/// Lines of one event, and how long a line may wait for others: less than people notice.
const BATCH: (usize, Duration) = (64, Duration::from_millis(100));

/// A place in a log: a time, and how many lines have been read since the first one of that time.
/// It is the newest time: lines of two streams may be out of order. Those of an earlier second are
/// not counted, since who reads on from this second is not given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub at: Timestamp,
    pub lines: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.at, self.lines)
    }
}

impl FromStr for Mark {
    type Err = ();

    /// `TIME#LINES`, or a time alone for behind all of its lines.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, lines) = match text.split_once('#') {
            Some((at, lines)) => (at, lines.parse().map_err(|_| ())?),
            None => (text, u64::MAX),
        };
        if lines == 0 {
            return Err(());
        }
        Ok(Self { at: at.parse().map_err(|_| ())?, lines })
    }
}

impl Mark {
    /// The second that it is in: as fine as Kubernetes' `sinceTime` is.
    pub fn second(&self) -> Timestamp {
        Timestamp::from_second(self.at.as_second()).unwrap_or(self.at)
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `None` for a word of the kubelet's own in place of a line.
    pub at: Option<Timestamp>,
    /// The time as it stood there; empty without one.
    pub stamp: CompactString,
    pub text: String,
    /// Bytes that were left out at its end.
    pub cut: u64,
    /// The place behind it, if any line before had a time.
    pub mark: Option<Mark>,
}

impl Line {
    fn of(mut raw: &[u8], mut cut: u64) -> Self {
        if cut > 0
            && let Err(error) = std::str::from_utf8(raw)
            && error.error_len().is_none()
        {
            cut += (raw.len() - error.valid_up_to()) as u64;
            raw = &raw[..error.valid_up_to()];
        }
        let text = String::from_utf8_lossy(raw);
        if let Some((stamp, content)) = text.split_once(' ')
            && let Ok(at) = stamp.parse::<Timestamp>()
        {
            let (stamp, text) = (stamp.into(), content.into());
            return Self { at: Some(at), stamp, text, cut, mark: None };
        }
        let stamp = CompactString::default();
        Self { at: None, stamp, text: text.into_owned(), cut, mark: None }
    }
}

/// Makes lines of bytes, and passes over those that were read before.
#[derive(Debug, Default)]
pub struct Reader {
    /// The line under way, and how much of it did not fit.
    part: Vec<u8>,
    cut: u64,
    place: Option<Mark>,
    known: Option<Known>,
    /// Whether there was any line, be it a word of the kubelet's own.
    pub spoken: bool,
}

/// Lines still to be passed over.
#[derive(Debug)]
struct Known {
    until: Mark,
    seen: u64,
}

impl Reader {
    /// Of a log from its beginning, or from behind a place in it.
    pub fn new(from: Option<Mark>) -> Self {
        let mut reader = Self { place: from, ..Self::default() };
        reader.again();
        reader
    }

    /// The place up to which lines have been read.
    pub fn place(&self) -> Option<Mark> {
        self.place
    }

    /// The log is opened anew: what is read up to now will come again, from [`Mark::second`] on.
    pub fn again(&mut self) {
        self.part.clear();
        self.cut = 0;
        self.known = self.place.map(|until| Known { until, seen: 0 });
    }

    /// The next whole line that is new; what is used of the chunk is taken off it.
    pub fn next(&mut self, chunk: &mut &[u8]) -> Option<Line> {
        while let Some(feed) = chunk.iter().position(|byte| *byte == b'\n') {
            self.hold(&chunk[..feed]);
            *chunk = &chunk[feed + 1..];
            if let Some(line) = self.whole() {
                return Some(line);
            }
        }
        self.hold(chunk);
        *chunk = &[];
        None
    }

    /// The rest of a log that has ended well; of one that broke the rest will come again.
    pub fn rest(&mut self) -> Option<Line> {
        self.whole()
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.part.len()).min(bytes.len());
        self.part.extend_from_slice(&bytes[..room]);
        self.cut += (bytes.len() - room) as u64;
    }

    fn whole(&mut self) -> Option<Line> {
        let line = (!self.part.is_empty()).then(|| Line::of(&self.part, self.cut));
        self.part.clear();
        self.cut = 0;
        let mut line = line?;
        self.spoken = true;
        if !self.is_new(line.at) {
            return None;
        }
        line.mark = self.place;
        Some(line)
    }

    fn is_new(&mut self, at: Option<Timestamp>) -> bool {
        let Some(at) = at else { return self.known.is_none() };
        if let Some(known) = &mut self.known {
            let Known { until, seen } = known;
            if at <= until.at {
                let begins = *seen > 0 || at == until.at;
                *seen += u64::from(begins && at >= until.second());
                if *seen == until.lines {
                    self.known = None;
                }
                return false;
            }
            self.known = None;
        }
        match &mut self.place {
            Some(place) if at <= place.at => place.lines += u64::from(at >= place.second()),
            place => *place = Some(Mark { at, lines: 1 }),
        }
        true
    }
}

/// Why a follower is told no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The container has ended and will not be started again.
    Completed,
    /// The pod, or the workload, is deleted.
    Gone,
    /// The right to read the log is gone.
    Denied,
    /// The credentials are refused, or over.
    Unauthorized,
    /// The filter takes more time than one reader gets.
    Filter,
    /// This server ends; another, or the next one, goes on.
    Shutdown,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub reason: Reason,
    /// The API server's own words, if there are any.
    pub message: String,
    /// When to come again.
    pub retry: Option<Duration>,
}

impl From<Reason> for End {
    fn from(reason: Reason) -> Self {
        Self { reason, message: String::new(), retry: None }
    }
}

impl End {
    /// With somebody's words.
    pub fn of(reason: Reason, words: &dyn fmt::Display) -> Self {
        Self { message: words.to_string(), ..reason.into() }
    }

    pub fn data(&self) -> Value {
        let mut data = json!({ "reason": self.reason });
        if !self.message.is_empty() {
            data["message"] = self.message.as_str().into();
        }
        if let Some(retry) = self.retry {
            data["retry"] = (retry.as_millis() as u64).into();
        }
        data
    }
}

/// A line as it is told.
#[derive(Debug)]
pub struct Entry {
    /// One JSON object.
    pub json: String,
    /// What to send back to go on behind it.
    pub id: Option<String>,
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// A JSON array, and the id of its last line.
    Lines {
        id: Option<String>,
        data: String,
    },
    /// So many lines were dropped here: the reader was too slow for them.
    Missed(u64),
    /// Which pods are followed; only the latest is told.
    Pods(Value),
    End(End),
}

/// What waits for one reader. One writes, one reads.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    taken: Notify,
}

/// Bytes that wait for one reader, and among those of all until they are let go.
#[derive(Debug)]
pub struct Held {
    bytes: usize,
    all: &'static AtomicUsize,
}

impl Default for Held {
    fn default() -> Self {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        Self { bytes: 0, all: &ALL }
    }
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn sub(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        if self.all.load(Ordering::Relaxed) > IN_ALL { PIECE } else { QUEUE.1 }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sub(self.bytes);
    }
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Entry>,
    bytes: Held,
    missed: u64,
    pods: Option<Value>,
    end: Option<End>,
    /// When the first of the lines came.
    since: Option<Instant>,
}

impl Queue {
    /// Adds a line; in a full queue the oldest make room for it, or, if it `may_wait`, the reader.
    pub async fn put(&self, entry: Entry, may_wait: bool) {
        while may_wait && !self.lock().has_room(&entry) {
            self.taken.notified().await;
        }
        self.lock().push(entry, Instant::now());
        self.filled.notify_one();
    }

    pub fn pods(&self, pods: Value) {
        self.lock().pods = Some(pods);
        self.filled.notify_one();
    }

    /// The last word, told behind all lines; who may not read the log gets none of those either.
    pub fn end(&self, end: End) {
        self.lock().end(end);
        self.filled.notify_one();
    }

    /// What the reader gets next, as soon as it is due. Nothing is lost when it is given up.
    pub async fn next(&self) -> News {
        loop {
            let due = self.lock().next(Instant::now());
            match due {
                Ok(news) => {
                    self.taken.notify_one();
                    return news;
                }
                Err(None) => self.filled.notified().await,
                Err(Some(due)) => tokio::select! {
                    () = self.filled.notified() => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn has_room(&self, entry: &Entry) -> bool {
        let is_long = self.bytes.bytes() + entry.json.len() > self.bytes.most();
        self.lines.is_empty() || (self.lines.len() < QUEUE.0 && !is_long)
    }

    fn push(&mut self, entry: Entry, now: Instant) {
        while !self.has_room(&entry) {
            self.pop();
            self.missed += 1;
        }
        self.since.get_or_insert(now);
        self.bytes.add(entry.json.len());
        self.lines.push_back(entry);
    }

    fn end(&mut self, end: End) {
        if matches!(end.reason, Reason::Denied | Reason::Unauthorized) {
            *self = Self::default();
        }
        self.end.get_or_insert(end);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.lines.pop_front()?;
        self.bytes.sub(entry.json.len());
        Some(entry)
    }

    /// What is due now; else when something will be, if it is known.
    fn next(&mut self, now: Instant) -> Result<News, Option<Instant>> {
        if self.missed > 0 {
            return Ok(News::Missed(std::mem::take(&mut self.missed)));
        }
        if let Some(pods) = self.pods.take() {
            return Ok(News::Pods(pods));
        }
        let (most, wait) = BATCH;
        let Some(since) = self.since else {
            return self.end.take().map(News::End).ok_or(None);
        };
        let due = since + wait;
        let is_event = self.lines.len() >= most || self.bytes.bytes() >= PIECE;
        if !is_event && self.end.is_none() && now < due {
            return Err(Some(due));
        }
        let (mut id, mut data) = (None, String::from("["));
        for _ in 0..most {
            if data.len() >= PIECE {
                break;
            }
            let Some(entry) = self.pop() else { break };
            if data.len() > 1 {
                data.push(',');
            }
            data.push_str(&entry.json);
            id = entry.id.or(id);
        }
        data.push(']');
        if self.lines.is_empty() {
            self.since = None;
        }
        Ok(News::Lines { id, data })
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
