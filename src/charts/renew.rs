//! One refresh of one repository: what it has now, read with its own client, takes the place of
//! what was known at once and as a whole, and a snapshot of it is written. What cannot be read
//! leaves all as it is, but for the status, which says why.
//!
//! When that is done is decided elsewhere, and so is how an index, a registry and Harbor are read.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout};
use url::Url;

use super::catalogue::{Builder, Catalogue};
use super::client::{Client, FetchError, Limits};
use super::definition::Kind;
use super::index::{self, BadIndex};
use super::registry::{self, Listed};
use super::repositories::Repositories;
use super::repository::{Loaded, NoClient, Repository, State, Status};
use super::search::Search;
use super::session::BadListing;
use super::snapshot::{self, Etags};
use super::{harbor, hex};

/// For one refresh: a registry with thousands of charts takes long.
const TIME: Duration = Duration::from_secs(30 * 60);
/// Of an index. Its reader counts what is unpacked, too, and stops earlier.
const INDEX: Limits = Limits {
    head: Duration::from_secs(60),
    idle: Duration::from_secs(30),
    total: Duration::from_secs(5 * 60),
    bytes: 256 << 20,
    least_rate: 64 << 10,
};
/// The longest ETag that is kept; servers write some sixty letters.
const ETAG: usize = 1024;
/// The longest date of last change that is kept: RFC 9110 has 29 letters for it.
const LAST_MODIFIED: usize = 64;
/// Versions of charts of all repositories: some 100 MiB of memory with what finds them.
const ALL_VERSIONS: usize = 400_000;
/// Bytes of text of all repositories: four that are as large as one may be.
const ALL_TEXT: usize = 192 << 20;
/// Repositories that are tried at once, by people: more wait within their time.
const TRIALS: usize = 2;
/// For a trial: the browser does not wait for longer.
const TRIAL_TIME: Duration = Duration::from_secs(60);

static PLACES: Semaphore = Semaphore::const_new(TRIALS);
/// One catalogue at a time takes its place: two that fit, each by itself, may not fit together.
static TAKING: Mutex<()> = Mutex::new(());

/// Why a refresh has failed.
#[derive(Debug, thiserror::Error)]
pub enum BadRefresh {
    #[error(transparent)]
    Client(#[from] NoClient),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Index(#[from] BadIndex),
    #[error(transparent)]
    Listing(#[from] BadListing),
    #[error("its address cannot be used: {0}")]
    Address(#[from] url::ParseError),
    #[error("it took more than {} minutes", .0.as_secs() / 60)]
    Time(Duration),
    #[error("it was broken off: {0}")]
    Broken(#[from] JoinError),
    #[error(
        "with it all repositories together would have more than {} versions of charts, or more \
         than {} MiB of text about them; remove a repository, or let one have fewer charts",
        ALL_VERSIONS,
        ALL_TEXT >> 20
    )]
    Total,
}

/// What was read of a repository that is only tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub charts: usize,
    pub versions: usize,
    /// Entries that were left out.
    pub skipped: usize,
    /// Why the first of them was.
    pub first: Option<String>,
}

/// How a refresh has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Changed,
    Unchanged,
    /// Something was put into the catalogue meanwhile: what was read may not have it yet.
    Overtaken,
    Badly,
}

/// What came of reading a repository.
enum Answer {
    /// It has nothing new.
    Same(Etags),
    New(Box<New>),
}

struct New {
    catalogue: Arc<Catalogue>,
    etags: Etags,
    /// Why the first entry was left out.
    first: Option<String>,
}

/// Reads a repository once, and keeps nothing of it.
pub async fn once(repository: &Repository) -> Result<Tried, BadRefresh> {
    let tried = async {
        let _place = PLACES.acquire().await;
        read(repository, &Loaded::default()).await
    };
    let tried = timeout(TRIAL_TIME, tried).await;
    match tried.unwrap_or(Err(BadRefresh::Time(TRIAL_TIME)))? {
        Answer::Same(_) => Ok(Tried { charts: 0, versions: 0, skipped: 0, first: None }),
        // To let go of a large catalogue takes a while.
        Answer::New(new) => Ok(spawn_blocking(move || Tried {
            charts: new.catalogue.charts.len(),
            versions: new.catalogue.versions(),
            skipped: new.etags.skipped,
            first: new.first.clone(),
        })
        .await?),
    }
}

/// Lets a snapshot answer where nothing is known yet. It blocks.
pub(super) fn restore(all: &Repositories, repository: &Repository, snapshots: &Path) {
    if repository.loaded.load().status.last_success.is_some() {
        return;
    }
    let Some((catalogue, etags)) = snapshot::load(snapshots, &repository.key()) else { return };
    let success = etags.success.and_then(|at| Timestamp::from_second(at).ok());
    let new = New { catalogue: Arc::new(catalogue), etags, first: None };
    let status = |status: &mut Status| {
        status.state = State::Ok;
        status.last_success = success;
    };
    if let Err(error) = take(all, repository, &repository.loaded.load_full(), status, &new) {
        let name = repository.name();
        tracing::warn!(repository = name, %error, "a snapshot of charts was not loaded");
    }
}

/// One refresh, from the client to the snapshot.
pub(super) async fn refresh(
    all: &Repositories,
    repository: &Arc<Repository>,
    snapshots: &Path,
) -> Ended {
    let begun = Instant::now();
    note(repository, |status| {
        status.state = State::Refreshing;
        status.last_attempt = Some(Timestamp::now());
    });
    let before = repository.loaded.load_full();
    let answer = timeout(TIME, read(repository, &before)).await;
    let well = move |status: &mut Status| {
        status.state = State::Ok;
        status.last_success = Some(Timestamp::now());
        status.duration_millis = u64::try_from(begun.elapsed().as_millis()).ok();
        status.error = None;
    };
    let answer = answer.unwrap_or(Err(BadRefresh::Time(TIME)));
    let is_new = matches!(answer, Ok(Answer::New(_)));
    let taken = match answer {
        Ok(Answer::Same(etags)) => Ok(put(repository, &before, well, |loaded| {
            loaded.status.skipped = etags.skipped;
            loaded.etags = etags.clone();
        })),
        Ok(Answer::New(new)) => {
            if let Some(reason) = &new.first {
                let (name, skipped) = (repository.name(), new.etags.skipped);
                tracing::info!(repository = name, skipped, reason, "charts were left out");
            }
            let (all, one, snapshots) = (all.clone(), repository.clone(), snapshots.to_owned());
            // Both catalogues go there, too: a hundred thousand pieces of memory take a while.
            let taking = spawn_blocking(move || {
                let taken = take(&all, &one, &before, well, &new);
                if matches!(taken, Ok(true)) {
                    keep(&one, &snapshots);
                }
                taken
            });
            taking.await.unwrap_or_else(|error| Err(error.into()))
        }
        Err(error) => Err(error),
    };
    match taken {
        Ok(true) if is_new => Ended::Changed,
        Ok(true) => Ended::Unchanged,
        Ok(false) => Ended::Overtaken,
        Err(error) => {
            let name = repository.name();
            tracing::warn!(repository = name, %error, "a repository of charts was not refreshed");
            note(repository, |status| {
                status.state = State::Failing;
                status.error = Some(error.to_string());
            });
            Ended::Badly
        }
    }
}

/// Lets a new catalogue take its place if there is room for it beside those of the others. Whether
/// it does, see [`put`].
fn take(
    all: &Repositories,
    repository: &Repository,
    before: &Loaded,
    status: impl Fn(&mut Status),
    new: &New,
) -> Result<bool, BadRefresh> {
    let (own, search) = (new.catalogue.text(), Arc::new(Search::new(&new.catalogue)));
    let _turn = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut versions, mut text) = (new.catalogue.versions(), own);
    for other in all.all().iter().filter(|other| other.name() != repository.name()) {
        let loaded = other.loaded.load();
        versions += loaded.status.versions;
        text += loaded.text;
    }
    if versions > ALL_VERSIONS || text > ALL_TEXT {
        return Err(BadRefresh::Total);
    }
    Ok(put(repository, before, status, |loaded| {
        loaded.catalogue = new.catalogue.clone();
        loaded.text = own;
        loaded.search = search.clone();
        loaded.etags = new.etags.clone();
        loaded.status.charts = new.catalogue.charts.len();
        loaded.status.versions = new.catalogue.versions();
        loaded.status.skipped = new.etags.skipped;
        loaded.status.digest = new.etags.digest.clone();
    }))
}

/// Writes the snapshot of a new catalogue.
fn keep(repository: &Repository, snapshots: &Path) {
    let loaded = repository.loaded.load_full();
    let saved = snapshot::save(snapshots, &repository.key(), &loaded.catalogue, &loaded.etags);
    if let Err(error) = saved {
        let name = repository.name();
        tracing::warn!(repository = name, %error, "a snapshot of charts was not written");
    }
}

/// Changes what is known of a repository at once: what was written to it shows in the very next
/// read, while to read it anew takes its time. `None` leaves all as it is.
pub async fn change(
    repository: &Repository,
    change: impl Fn(&Catalogue) -> Option<Catalogue> + Send + 'static,
) {
    let known = repository.loaded.clone();
    // Some milliseconds for a large catalogue.
    let work = spawn_blocking(move || {
        known.rcu(|loaded| {
            let Some(catalogue) = change(&loaded.catalogue) else { return loaded.clone() };
            Arc::new(changed(loaded, catalogue))
        });
    });
    if let Err(error) = work.await {
        tracing::warn!(%error, "a catalogue was not changed");
    }
}

/// The repository's own answer is another than this, so "it has nothing new" would be wrong: its
/// tags are not kept.
fn changed(loaded: &Loaded, catalogue: Catalogue) -> Loaded {
    let status = Status {
        charts: catalogue.charts.len(),
        versions: catalogue.versions(),
        ..loaded.status.clone()
    };
    let Etags { success, skipped, .. } = loaded.etags;
    let etags = Etags { success, skipped, ..Etags::default() };
    let search = Arc::new(Search::new(&catalogue));
    let text = catalogue.text();
    Loaded { catalogue: Arc::new(catalogue), text, search, status, etags }
}

/// Changes what is said of a repository, whatever is put into its catalogue meanwhile.
fn note(repository: &Repository, change: impl Fn(&mut Status)) {
    repository.loaded.rcu(|loaded| {
        let mut loaded = Loaded::clone(loaded);
        change(&mut loaded.status);
        loaded
    });
}

/// Changes both, unless the catalogue is another one than before: what was read may not have what
/// was put into it meanwhile, and then the status alone is changed. Whether both are.
fn put(
    repository: &Repository,
    before: &Loaded,
    status: impl Fn(&mut Status),
    catalogue: impl Fn(&mut Loaded),
) -> bool {
    let mut is_same = false;
    repository.loaded.rcu(|loaded| {
        is_same = Arc::ptr_eq(&loaded.catalogue, &before.catalogue);
        let mut loaded = Loaded::clone(loaded);
        status(&mut loaded.status);
        if is_same {
            catalogue(&mut loaded);
        }
        loaded
    });
    is_same
}

async fn read(repository: &Repository, before: &Loaded) -> Result<Answer, BadRefresh> {
    let client = repository.client().await?;
    let (base, oci) = (&repository.base, repository.definition.oci.as_ref());
    let listed = match repository.definition.kind {
        Kind::Index | Kind::Museum => return read_index(&client, base, before).await,
        Kind::Oci => registry::list(&client, base, oci, &before.catalogue).await?,
        Kind::Harbor => harbor::list(&client, base).await?,
    };
    let known = before.catalogue.clone();
    Ok(spawn_blocking(move || compared(listed, &known)).await?)
}

fn compared(listed: Listed, known: &Catalogue) -> Answer {
    let Listed { catalogue, skipped, first } = listed;
    let etags = Etags { skipped, success: now(), ..Etags::default() };
    if !known.charts.is_empty() && catalogue == *known {
        return Answer::Same(etags);
    }
    Answer::New(Box::new(New { catalogue: Arc::new(catalogue), etags, first }))
}

/// An index, if it is another one than before.
async fn read_index(client: &Client, base: &Url, before: &Loaded) -> Result<Answer, BadRefresh> {
    // Without the catalogue that they belong to, an answer that nothing is new would be of no use.
    let known = !before.catalogue.charts.is_empty();
    let asked = if known { conditions(&before.etags) } else { HeaderMap::new() };
    let fetched = client.get(&base.join("index.yaml")?, &asked, &INDEX).await?;
    if fetched.status == StatusCode::NOT_MODIFIED && !asked.is_empty() {
        return Ok(Answer::Same(Etags { success: now(), ..before.etags.clone() }));
    }
    let fetched = fetched.success()?;
    let text = |name: HeaderName| fetched.headers.get(name).and_then(|value| value.to_str().ok());
    let etags = Etags {
        etag: text(header::ETAG).filter(|text| text.len() <= ETAG).map(str::to_owned),
        last_modified: text(header::LAST_MODIFIED)
            .filter(|text| text.len() <= LAST_MODIFIED)
            .map(str::to_owned),
        success: now(),
        // Of the same document the same was left out.
        skipped: before.etags.skipped,
        ..Etags::default()
    };
    let digest = before.etags.digest.clone().filter(|_| known);
    // Held for as long as somebody waits: without it the parse ends, too.
    let (reader, _feed) = fetched.reader();
    spawn_blocking(move || parsed(reader, etags, digest)).await?
}

/// Headers that let an answer be that nothing is new.
fn conditions(etags: &Etags) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let conditions =
        [(header::IF_NONE_MATCH, &etags.etag), (header::IF_MODIFIED_SINCE, &etags.last_modified)];
    for (name, value) in conditions {
        let value = value.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        headers.extend(value.map(|value| (name, value)));
    }
    headers
}

fn now() -> Option<i64> {
    Some(Timestamp::now().as_second())
}

fn parsed(
    reader: impl Read,
    mut etags: Etags,
    known: Option<String>,
) -> Result<Answer, BadRefresh> {
    let mut reader = Hashed { inner: reader, digest: Context::new(&SHA256) };
    let mut builder = Builder::new();
    let summary = index::read(&mut reader, &mut builder)?;
    etags.digest = Some(hex(reader.digest.finish().as_ref()));
    if known.is_some() && known == etags.digest {
        return Ok(Answer::Same(etags));
    }
    let (catalogue, left_out) = builder.finish_counted();
    etags.skipped = summary.skipped + left_out;
    let first = summary.reason.or_else(|| {
        (left_out > 0).then(|| "of a chart with very many versions the newest are kept".to_owned())
    });
    Ok(Answer::New(Box::new(New { catalogue: Arc::new(catalogue), etags, first })))
}

/// Takes the digest of what is read through it.
struct Hashed<R> {
    inner: R,
    digest: Context,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.digest.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
#[path = "renew_tests.rs"]
mod tests;
