//! The engine: finds the `helm` command, and runs one child for each operation, in a sandbox,
//! behind the guard, bounded in number, time and output.
//!
//! It knows no argument of helm but `version`, asks the API server nothing, and reads nothing of
//! what a child says.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use super::child::{Ended, Why};
use super::child::{GRACE, Watch};
use super::door::DoorKey;
use super::guard;
use super::sandbox::{Sandbox, Sandboxes};
use crate::upstream::Turns;

/// Children at once: helm needs some 100 MiB, and a core while it renders.
const CHILDREN: usize = 4;
/// Of those, operations of one caller, who says how long they may take: one is left for others.
const OF_ONE: usize = 3;
/// Dry runs at once, beside them: an operation may take hours, and who wants a preview waits a
/// minute. These two cost some 200 MiB more, and at worst what the guard allows each child.
pub const TRIALS: usize = 2;
/// Operations that wait for one of the places; who comes then is told so at once.
const WAITING: usize = 32;
/// What `helm version` may take, and say.
const VERSION_TIME: Duration = Duration::from_secs(10);
const VERSION_LIMIT: usize = 4 << 10;
const VERSION: [&str; 3] = ["version", "--template", "{{.Version}}"];
/// Helm would fetch what a schema of values refers to. Nobody listens at this proxy; Go asks none
/// for what is on this machine, so charts are looked through before (`charts::schema`).
const NOWHERE: [(&str, &str); 2] =
    [("HTTP_PROXY", "http://127.0.0.1:1"), ("HTTPS_PROXY", "http://127.0.0.1:1")];
/// The oldest minor version of Helm 3 that is taken: 3.17 is the first that knows every flag of
/// `argv` (`--take-ownership`).
const OLDEST_3: u32 = 17;
/// How long a failed `helm version` is believed: its cause may be ours (no memory, no process).
const FAILED: Duration = Duration::from_secs(10);

/// The `helm` command of this machine and the children that run it.
pub struct Engine {
    configured: Option<PathBuf>,
    guard: PathBuf,
    sandboxes: Arc<Sandboxes>,
    remembered: Mutex<Option<Remembered>>,
    /// One question for the version at a time.
    asking: tokio::sync::Mutex<()>,
    /// To run or to wait.
    places: Semaphore,
    children: Semaphore,
    trials: Semaphore,
    /// By the callers' names.
    own: Turns<String>,
    outcomes: [AtomicU64; OUTCOMES.len()],
}

/// How runs end, as metrics call it.
const OUTCOMES: [&str; 6] =
    ["succeeded", "failed", "cancelled", "timed_out", "too_much_output", "not_started"];

/// An engine that was found: where, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    /// As it says itself: `v4.2.4`.
    pub version: String,
    /// 3 or 4.
    pub major: u32,
    identity: Identity,
}

/// What changes when somebody puts another file in the place of one, or writes into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Of content or attributes, seconds and nanoseconds.
    changed: (i64, i64),
}

struct Remembered {
    path: PathBuf,
    identity: Identity,
    answer: Result<Found, NoEngine>,
    at: Instant,
}

/// Why nothing can be written: each says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEngine {
    #[error(
        "there is no helm command at {0}: install Helm 4, or 3.17 or newer, there, or configure \
         where it is"
    )]
    Absent(String),
    #[error("{path} cannot be run as helm: {why}")]
    Failed { path: String, why: String },
    #[error("{path} says that its version is {said:?}: Helm 4, or 3.17 or newer, is wanted")]
    Version { path: String, said: String },
}

/// One run of helm.
pub struct Job {
    pub args: Vec<OsString>,
    pub door: DoorKey,
    pub namespace: String,
    /// Written into the child's working directory.
    pub files: Vec<(&'static str, Bytes)>,
    /// From the start of the child; waiting for a place is not counted.
    pub time: Duration,
    pub cancel: CancellationToken,
    /// Bytes; a child that says more is ended.
    pub stdout_limit: usize,
}

/// Why no child was started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "{} operations are running and {} are waiting; ask again in a minute",
        CHILDREN,
        WAITING
    )]
    Busy,
    #[error("{0} has just been replaced by something else; ask again")]
    Replaced(String),
    #[error("the folder of the engine's run cannot be made: {0}")]
    Sandbox(String),
    #[error("the engine cannot be started: {0}")]
    Start(io::Error),
    /// By who looked last before the start, in his words.
    #[error("{0}")]
    Refused(String),
}

impl Engine {
    /// `configured` is a path, or a name to look for on PATH (`helm` without it); `guard` is the
    /// executable whose first argument [`guard::SUBCOMMAND`] makes it the guard. Sandboxes are
    /// below `state_dir`; those that dead processes left there are removed.
    pub fn new(configured: Option<PathBuf>, guard: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            configured,
            guard: absolute(guard),
            sandboxes: Arc::new(Sandboxes::new(&state_dir)),
            remembered: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            places: Semaphore::new(CHILDREN + TRIALS + WAITING),
            children: Semaphore::new(CHILDREN),
            trials: Semaphore::new(TRIALS),
            own: Turns::new(OF_ONE),
            outcomes: Default::default(),
        }
    }

    /// The engine as it is now. Its version is asked once for each file that is found there.
    pub async fn found(&self) -> Result<Found, NoEngine> {
        let _asking = self.asking.lock().await;
        let (path, identity) = match look(self.configured.as_deref()).await {
            Ok(place) => place,
            Err(absent) => {
                *self.remembered() = None;
                return Err(absent);
            }
        };
        if let Some(known) = &*self.remembered() {
            let same = known.path == path && known.identity == identity;
            if same && (known.answer.is_ok() || known.at.elapsed() < FAILED) {
                return known.answer.clone();
            }
        }
        let answer = self.ask(&path, identity).await;
        let at = Instant::now();
        *self.remembered() = Some(Remembered { path, identity, answer: answer.clone(), at });
        answer
    }

    /// The engine as it was when somebody last looked: for metrics.
    pub fn known(&self) -> Option<Found> {
        self.remembered().as_ref().and_then(|known| known.answer.clone().ok())
    }

    fn remembered(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Children that run now.
    pub fn children(&self) -> usize {
        let free = self.children.available_permits() + self.trials.available_permits();
        (CHILDREN + TRIALS).saturating_sub(free)
    }

    /// Operations that wait for a place.
    pub fn waiting(&self) -> usize {
        let places = CHILDREN + TRIALS + WAITING;
        let taken = places.saturating_sub(self.places.available_permits());
        taken.saturating_sub(self.children())
    }

    /// How many runs ended how, since start.
    pub fn outcomes(&self) -> [(&'static str, u64); OUTCOMES.len()] {
        let mut outcomes = OUTCOMES.map(|name| (name, 0));
        for (outcome, count) in outcomes.iter_mut().zip(&self.outcomes) {
            outcome.1 = count.load(Ordering::Relaxed);
        }
        outcomes
    }

    async fn ask(&self, path: &Path, identity: Identity) -> Result<Found, NoEngine> {
        let failed = |why: String| NoEngine::Failed { path: path.display().to_string(), why };
        let sandboxes = Arc::clone(&self.sandboxes);
        let made = blocking(move || sandboxes.make(None, &[])).await;
        let sandbox = made.map_err(|error| failed(error.to_string()))?;
        let mut command = self.command(path, &VERSION.map(OsString::from), &sandbox);
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let cancel = CancellationToken::new();
        let watch = Watch::new(child, VERSION_TIME, VERSION_LIMIT);
        let ended = watch.run(&cancel, &mut |_: &str| {}).await;
        let ended = ended.map_err(|error| failed(error.to_string()))?;
        if ended.code != Some(0) || ended.why != Why::Itself {
            let said = ended.stderr.lines().last().unwrap_or_default().to_owned();
            let code = ended.code.unwrap_or(-1);
            return Err(failed(format!("`helm version` ended with {code}: {said}")));
        }
        let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        match major(&said) {
            Some(major @ 3..=4) => {
                Ok(Found { path: path.to_owned(), version: said, major, identity })
            }
            _ => {
                let said = said.chars().take(64).collect();
                Err(NoEngine::Version { path: path.display().to_string(), said })
            }
        }
    }

    /// Runs helm once where it changes nothing, in one of the places for that. Each line that it
    /// says is told; when this future is dropped the child is ended, too.
    pub async fn run(
        &self,
        found: &Found,
        job: Job,
        tell: impl FnMut(&str) + Send,
    ) -> Result<Ended, RunError> {
        self.run_unless(None, std::future::ready(None), found, job, tell).await
    }

    /// The same for an operation: of a caller of this name, who has few runs at once, and unless
    /// there are words against it once its turn has come. Without a name it is a dry run.
    pub async fn run_unless(
        &self,
        caller: Option<&str>,
        refused: impl Future<Output = Option<String>> + Send,
        found: &Found,
        job: Job,
        mut tell: impl FnMut(&str) + Send,
    ) -> Result<Ended, RunError> {
        let ran = self.turn(caller, refused, found, job, &mut tell).await;
        let outcome = match &ran {
            Ok(Ended { why: Why::Itself, code: Some(0), .. }) => 0,
            Ok(Ended { why: Why::Itself, .. }) => 1,
            Ok(Ended { why: Why::Cancelled, .. }) => 2,
            Ok(Ended { why: Why::TimedOut, .. }) => 3,
            Ok(Ended { why: Why::TooMuchOutput, .. }) => 4,
            Err(_) => 5,
        };
        self.outcomes[outcome].fetch_add(1, Ordering::Relaxed);
        ran
    }

    async fn turn(
        &self,
        caller: Option<&str>,
        refused: impl Future<Output = Option<String>> + Send,
        found: &Found,
        job: Job,
        tell: &mut (impl FnMut(&str) + Send),
    ) -> Result<Ended, RunError> {
        let Job { args, door, namespace, files, time, cancel, stdout_limit } = job;
        let _place = self.places.try_acquire().map_err(|_| RunError::Busy)?;
        let turns = async {
            // First: who waits for his own holds nothing that others wait for.
            let own = match caller {
                Some(caller) => self.own.at(caller.to_owned()).acquire_owned().await.ok()?,
                None => return Some((None, self.trials.acquire().await.ok()?)),
            };
            Some((Some(own), self.children.acquire().await.ok()?))
        };
        let _turns = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(Ended::unborn()),
            turns = turns => turns.ok_or(RunError::Busy)?,
        };
        let words = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(Ended::unborn()),
            words = refused => words,
        };
        if let Some(words) = words {
            return Err(RunError::Refused(words));
        }
        // Here and not before the wait: what is run is what the version was asked of.
        if identity(&found.path).await != Some(found.identity) {
            return Err(RunError::Replaced(found.path.display().to_string()));
        }
        let sandboxes = Arc::clone(&self.sandboxes);
        let made = move || sandboxes.make(Some((&door, namespace.as_str())), &files);
        let made = blocking(made).await;
        let sandbox = made.map_err(|error| RunError::Sandbox(error.to_string()))?;
        let mut command = self.command(&found.path, &args, &sandbox);
        let child = command.spawn().map_err(RunError::Start)?;
        let ended = Watch::new(child, time, stdout_limit).run(&cancel, tell).await;
        let removed = blocking(move || {
            drop(sandbox);
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::debug!(%error, "a sandbox was not removed");
        }
        ended.map_err(RunError::Start)
    }

    /// In a group of its own: Ctrl-C in our terminal is for us, and we end the child in order.
    fn command(&self, program: &Path, args: &[OsString], sandbox: &Sandbox) -> Command {
        let mut command = Command::new(&self.guard);
        command
            .args([guard::SUBCOMMAND, guard::GRACE, &GRACE.as_millis().to_string(), "--"])
            .arg(program)
            .args(args)
            .env_clear()
            .envs(sandbox.env())
            .envs(NOWHERE)
            .current_dir(sandbox.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }
}

/// The first candidate that can be executed.
async fn look(configured: Option<&Path>) -> Result<(PathBuf, Identity), NoEngine> {
    let wanted = configured.unwrap_or(Path::new("helm"));
    let candidates = if wanted.components().count() > 1 {
        vec![absolute(wanted.to_owned())]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // A relative entry would mean another file in each working directory.
        let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
        dirs.map(|dir| dir.join(wanted)).collect()
    };
    for path in &candidates {
        if let Some(identity) = identity(path).await {
            return Ok((path.clone(), identity));
        }
    }
    Err(NoEngine::Absent(match candidates.as_slice() {
        [path] => path.display().to_string(),
        _ => format!("{} on PATH", wanted.display()),
    }))
}

/// `None` for what is no executable file.
async fn identity(path: &Path) -> Option<Identity> {
    let file = tokio::fs::metadata(path).await.ok()?;
    let runnable = file.is_file() && file.mode() & 0o111 != 0;
    runnable.then(|| Identity {
        device: file.dev(),
        inode: file.ino(),
        size: file.size(),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

/// `4` of `v4.2.4`; none of what is no version, or too old a Helm 3.
fn major(version: &str) -> Option<u32> {
    let (major, rest) = version.strip_prefix('v')?.split_once('.')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let whole = rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(plain);
    let minor: u32 = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let new = |major: &u32| *major != 3 || minor >= OLDEST_3;
    major.parse().ok().filter(new).filter(|_| whole && version.len() <= 64)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Work on the disk, where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
