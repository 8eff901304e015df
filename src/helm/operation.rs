//! Operations: what an act of Helm on a release was asked to do and how far it is, and the registry
//! of those that this process runs or has run lately.
//!
//! It runs nothing (`api::release_run` does), and what must outlive this process is `lock`'s part.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::words::{Progress, Verb, Word};
use crate::upstream::{Fingerprint, Turns, User};

/// Operations at once in this process: no more than the engine lets run and wait.
const RUNNING: usize = 32;
/// Of those, of one caller.
const OF_ONE: usize = 16;
/// Finished ones that are remembered, and how long; their locks in the cluster tell it for longer.
const FINISHED: (usize, Duration) = (256, Duration::from_secs(3600));
/// The end of a log that is kept: lines and bytes. A person reads no more of it.
const LOG: (usize, usize) = (200, 64 << 10);
/// Bytes of it that go into the cluster with each heartbeat.
const TAIL: usize = 16 << 10;
/// After the grace, for children that were told to end, and for what is written of them.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// Credentials remembered for one operation, so that each is asked about once.
const ASKED: usize = 64;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters behind an id's last dot.
const SUFFIX: usize = 8;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    #[default]
    Queued,
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
    /// Its process is gone, or has lost the lock.
    Interrupted,
    /// Only ever shown, never written: another process is at it.
    Elsewhere,
}

impl State {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Interrupted)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// `<release>.<8 characters>`: the last dot splits it.
    pub id: String,
    pub namespace: String,
    pub release: String,
    pub act: Word<Verb>,
    pub state: State,
    pub steps: Vec<Step>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub holder: Holder,
    /// The release's newest revision before it began; 0 without one.
    pub before: u32,
    /// The release's newest revision afterwards, and its status.
    pub revision: Option<u32>,
    pub status: Option<String>,
    pub exit_code: Option<i32>,
    pub error: Option<Problem>,
    pub log: Vec<String>,
    pub log_dropped: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    pub name: String,
    pub state: Word<Progress>,
    pub at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    pub user: String,
    pub instance: String,
}

/// What went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub class: String,
    /// For a person, in his language: empty until somebody reads it.
    pub message: String,
    /// The engine's own words.
    pub detail: String,
}

impl Operation {
    /// The same without its log.
    pub fn bare(&self) -> Self {
        Self { log: Vec::new(), ..self.clone() }
    }
}

/// A new operation's id.
pub fn new_id(release: &str, verb: Verb) -> String {
    let mut bytes = [0u8; SUFFIX - 1];
    // Without randomness no TLS works either; ids that are equal are refused by the lock.
    let _ = rand::fill(&mut bytes);
    format!("{release}.{}{}", verb.letter(), letters(&bytes))
}

/// One of 32 letters and digits for each byte.
pub fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// The release and the act of an id; `None` when it is none.
pub fn read_id(id: &str) -> Option<(&str, Verb)> {
    let (release, suffix) = id.rsplit_once('.')?;
    let is_suffix = suffix.len() == SUFFIX && suffix.bytes().all(|byte| ALPHABET.contains(&byte));
    let verb = Verb::of_letter(suffix.chars().next()?)?;
    (is_suffix && !release.is_empty()).then_some((release, verb))
}

/// What an idempotent request is known by: caller, key and all that was asked.
pub fn key_of(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

/// Why this process takes no further operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSeat {
    Full,
    Ending,
}

/// A place among those that run; given back when dropped.
pub struct Seat {
    _permits: [OwnedSemaphorePermit; 2],
}

type Key = (String, String);

/// The operations of this process.
pub struct Operations {
    instance: String,
    all: Mutex<HashMap<Key, Arc<Live>>>,
    seats: Arc<Semaphore>,
    own: Turns<String>,
    ending: CancellationToken,
}

impl Operations {
    /// `host` names this replica to people.
    pub fn new(host: &str) -> Self {
        let mut bytes = [0u8; 4];
        let _ = rand::fill(&mut bytes);
        // The same host after a restart is another process.
        Self {
            instance: format!("{host}-{}", letters(&bytes)),
            all: Mutex::default(),
            seats: Arc::new(Semaphore::new(RUNNING)),
            own: Turns::new(OF_ONE),
            ending: CancellationToken::new(),
        }
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Operations that run now.
    pub fn running(&self) -> usize {
        RUNNING - self.seats.available_permits().min(RUNNING)
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// A place for one more of the caller of this name.
    pub fn seat(&self, caller: &str) -> Result<Seat, NoSeat> {
        if self.is_ending() {
            return Err(NoSeat::Ending);
        }
        let full = |_| NoSeat::Full;
        let own = self.own.at(caller.to_owned()).try_acquire_owned().map_err(full)?;
        let seat = self.seats.clone().try_acquire_owned().map_err(full)?;
        Ok(Seat { _permits: [own, seat] })
    }

    /// Registers an operation whose lock is held; it is over when what is returned is dropped.
    pub fn begin(&self, seat: Seat, operation: Operation, key: Option<String>, by: User) -> Begun {
        let id = (operation.namespace.clone(), operation.id.clone());
        let live = Arc::new(Live {
            now: Mutex::new(Now { operation, ..Now::default() }),
            told: watch::Sender::new(0),
            cancel: CancellationToken::new(),
            key,
            asked: Mutex::new(VecDeque::from([by.fingerprint()])),
            owner: watch::Sender::new(by),
        });
        let mut all = locked(&self.all);
        sweep(&mut all);
        all.insert(id, live.clone());
        Begun { live, _seat: seat }
    }

    pub fn find(&self, namespace: &str, id: &str) -> Option<Arc<Live>> {
        let mut all = locked(&self.all);
        sweep(&mut all);
        all.get(&(namespace.to_owned(), id.to_owned())).cloned()
    }

    /// The operation that is at work on this release.
    pub fn at(&self, namespace: &str, release: &str) -> Option<Arc<Live>> {
        let of = |(place, id): &Key| {
            place == namespace && read_id(id).is_some_and(|(of, _)| of == release)
        };
        let all = locked(&self.all);
        let mut found = all.iter().filter(|(key, _)| of(key)).map(|(_, live)| live);
        found.find(|live| !live.state().is_over()).cloned()
    }

    /// The operation that this request has begun already.
    pub fn by_key(&self, namespace: &str, key: &str) -> Option<Arc<Live>> {
        let all = locked(&self.all);
        let mut found = all.iter().filter(|((place, _), _)| place == namespace);
        found.find(|(_, live)| live.key.as_deref() == Some(key)).map(|(_, live)| live.clone())
    }

    /// Takes no more operations; those that run have this long, and are cancelled then. Returns
    /// when all are over, or a while after that.
    pub async fn end(&self, grace: Duration) {
        self.ending.cancel();
        let all = u32::try_from(RUNNING).unwrap_or(u32::MAX);
        if timeout(grace, self.seats.acquire_many(all)).await.is_ok() {
            return;
        }
        let running: Vec<Arc<Live>> = locked(&self.all).values().cloned().collect();
        for live in running {
            live.cancel();
        }
        if timeout(LAST_WAIT, self.seats.acquire_many(all)).await.is_err() {
            tracing::warn!("operations were left at the end; they will be found as interrupted");
        }
    }
}

/// Forgets what is over and old, or too much.
fn sweep(all: &mut HashMap<Key, Arc<Live>>) {
    all.retain(|_, live| live.ended().is_none_or(|at| at.elapsed() < FINISHED.1));
    let mut over: Vec<(Instant, Key)> =
        all.iter().filter_map(|(key, live)| Some((live.ended()?, key.clone()))).collect();
    if over.len() > FINISHED.0 {
        over.sort_by_key(|(at, _)| *at);
        for (_, key) in over.drain(..over.len() - FINISHED.0) {
            all.remove(&key);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An operation at work. Dropped before it was finished, it is told as interrupted.
pub struct Begun {
    pub live: Arc<Live>,
    _seat: Seat,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.live.finish(|operation| operation.state = State::Interrupted);
    }
}

/// One operation of this process, as those see it who run it and those who look on.
pub struct Live {
    now: Mutex<Now>,
    /// Counts what has changed.
    told: watch::Sender<u64>,
    cancel: CancellationToken,
    key: Option<String>,
    /// The credentials to go on with: the newest of the person who began it.
    owner: watch::Sender<User>,
    /// Strangers, and all that he has had: what is in an older window of his is not newer again.
    asked: Mutex<VecDeque<Fingerprint>>,
}

#[derive(Default)]
struct Now {
    /// Its log is here instead.
    operation: Operation,
    log: VecDeque<String>,
    bytes: usize,
    ended: Option<Instant>,
}

impl Live {
    fn ended(&self) -> Option<Instant> {
        locked(&self.now).ended
    }

    /// As it is now, with its log.
    pub fn operation(&self) -> Operation {
        let now = locked(&self.now);
        Operation { log: now.log.iter().cloned().collect(), ..now.operation.clone() }
    }

    pub fn state(&self) -> State {
        locked(&self.now).operation.state
    }

    /// The same for the cluster: no more of the log than a heartbeat may carry.
    pub fn record(&self) -> Operation {
        let mut operation = self.operation();
        let mut room = TAIL;
        let fits = |line: &&String| {
            let fits = line.len() < room;
            room = room.saturating_sub(line.len() + 1);
            fits
        };
        let kept = operation.log.iter().rev().take_while(fits).count();
        let cut = operation.log.len() - kept;
        operation.log.drain(..cut);
        operation.log_dropped += cut as u64;
        operation
    }

    /// Lines from this one on, counted from the first, with the number of the first that there is.
    pub fn lines(&self, from: u64) -> (u64, Vec<String>) {
        let now = locked(&self.now);
        let dropped = now.operation.log_dropped;
        let skip = usize::try_from(from.saturating_sub(dropped)).unwrap_or(usize::MAX);
        (from.max(dropped), now.log.iter().skip(skip).cloned().collect())
    }

    /// What changes when anything does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    fn tell(&self) {
        self.told.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub fn line(&self, line: &str) {
        {
            let mut now = locked(&self.now);
            now.bytes += line.len();
            now.log.push_back(line.to_owned());
            while now.log.len() > LOG.0 || now.bytes > LOG.1 {
                let Some(gone) = now.log.pop_front() else { break };
                now.bytes -= gone.len();
                now.operation.log_dropped += 1;
            }
        }
        self.tell();
    }

    /// A step that begins; the one before it is done.
    pub fn step(&self, name: &str) {
        {
            let mut now = locked(&self.now);
            close_step(&mut now.operation, Progress::Done);
            let at = Some(Timestamp::now());
            let step = Step { name: name.to_owned(), state: Progress::Running.into(), at };
            now.operation.steps.push(step);
            if now.operation.state == State::Queued {
                now.operation.state = State::Running;
            }
        }
        self.tell();
    }

    /// What has become of the step that runs; what follows it is not to blame.
    pub fn over(&self, done: bool) {
        let state = if done { Progress::Done } else { Progress::Failed };
        close_step(&mut locked(&self.now).operation, state);
    }

    /// Tells the engine's child to end, if there is one.
    pub fn cancel(&self) {
        {
            let mut now = locked(&self.now);
            if now.operation.state.is_over() {
                return;
            }
            now.operation.state = State::Cancelling;
        }
        self.cancel.cancel();
        self.tell();
    }

    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Its last word; a second one is not heard.
    pub fn finish(&self, result: impl FnOnce(&mut Operation)) {
        {
            let mut now = locked(&self.now);
            if now.ended.is_some() {
                return;
            }
            now.ended = Some(Instant::now());
            conclude(&mut now.operation, result);
        }
        self.tell();
    }

    /// Whose credentials it goes on with.
    pub fn owner(&self) -> watch::Receiver<User> {
        self.owner.subscribe()
    }

    pub fn is_owner(&self, user: &User) -> bool {
        self.owner.borrow().fingerprint() == user.fingerprint()
    }

    /// Whether to ask who this is: other credentials, which may be newer ones of the same person.
    /// Nobody is the same where his name was not told.
    pub fn is_unknown(&self, user: &User) -> bool {
        !self.is_owner(user)
            && !locked(&self.asked).contains(&user.fingerprint())
            && !locked(&self.now).operation.holder.user.is_empty()
    }

    /// Credentials of the same person, if `name` is his and he asks for the same impersonation:
    /// gone on with unless they end earlier, or may. Without a name they are asked about again.
    pub fn renew(&self, user: &User, name: &str) {
        if name.is_empty() {
            return;
        }
        let mut asked = locked(&self.asked);
        asked.truncate(ASKED - 1);
        asked.push_front(user.fingerprint());
        drop(asked);
        if locked(&self.now).operation.holder.user != name {
            return;
        }
        self.owner.send_if_modified(|owner| {
            let is_later = |new: i64| owner.expires().is_some_and(|known| new > known);
            let is_newer = owner.impersonates_like(user) && user.expires().is_none_or(is_later);
            if is_newer {
                *owner = user.clone();
            }
            is_newer
        });
    }
}

/// Makes an operation one that is over.
pub fn conclude(operation: &mut Operation, result: impl FnOnce(&mut Operation)) {
    result(operation);
    // Where a step has failed before, the last one has not.
    let is_told = operation.steps.iter().any(|step| step.state.is(Progress::Failed));
    let is_fine = is_told || matches!(operation.state, State::Succeeded | State::Cancelled);
    close_step(operation, if is_fine { Progress::Done } else { Progress::Failed });
    operation.finished_at.get_or_insert_with(Timestamp::now);
}

fn close_step(operation: &mut Operation, state: Progress) {
    let last = operation.steps.last_mut();
    if let Some(step) = last.filter(|step| step.state.is(Progress::Running)) {
        step.state = state.into();
    }
}

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
