//! Archives and icons of charts: fetched once for everybody who waits for them, checked, and kept
//! on disk. Whose repository one is from is part of its name there: nobody gets by its digest what
//! only another repository would give.
//!
//! Who may read a repository was decided before. Nothing is unpacked to disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use url::Url;

pub use super::places::{Busy, FetchPlace};

use super::archive::{Archive, BadArchive};
use super::catalogue::Version;
use super::client::{Client, FetchError, Limits};
use super::disk::{self, Disk};
use super::icon::{self, BadIcon, Icon};
use super::oci::{self, BadPull};
use super::places::{Flights, Permit, Places, Rule};
use super::repository::{NoClient, Repository};
use super::wanted::{Address, Wanted, resolved};
use super::{PACKED, Policy, provenance};

/// Bytes of all archives and icons on disk: thousands of charts, and half of what containers
/// commonly get.
const BUDGET: u64 = 512 << 20;
/// Archives that are looked through at once: each holds up to 20 MiB, and computes.
const LOOKS: usize = 4;
/// Archives that are fetched at once, each in memory until it is on disk: 160 MiB at the very
/// worst. They have a place of their own, so that who is slow keeps nobody from what is on disk.
/// Nearly all are there within a second.
const FETCHES: Rule = Rule { quick: 5, slow: 3, each: 2, soon: Duration::from_secs(4) };
/// Charts that installs name by `oci://`, of all callers and of each of them: they are in memory
/// until the install begins, 120 MiB at the very worst.
const PULLS: Rule = Rule { quick: 3, slow: 3, each: 2, soon: Duration::from_secs(4) };
/// Provenance files, of up to 320 KiB. Who waits for a place does so within the time for the file.
const SIGNATURES: Rule = Rule { quick: 48, slow: 16, each: 4, soon: Duration::from_secs(2) };
/// Icons, of up to 1 MiB; pages show dozens.
const ICONS: Rule = Rule { quick: 12, slow: 4, each: 4, soon: Duration::from_secs(2) };
/// The longest wait for a place: who waits longer shall rather hear that there is none.
const TURN: Duration = Duration::from_secs(30);
/// How long somebody who looks at a chart waits for its provenance file.
const SIGNED_TIME: Duration = Duration::from_secs(5);
/// How long it is remembered, or that there is none: somebody may sign later.
const SIGNED_AGE: Duration = Duration::from_secs(60);
/// Bytes of all that are remembered. Most are some 2 KiB.
const SIGNED: u64 = 8 << 20;
/// How long an icon is taken for what is still there: nobody tells its digest.
const ICON_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// An icon that cannot be had is not asked for again so soon: pages show it again and again.
const NO_ICON: Duration = Duration::from_secs(5 * 60);
/// So many of them are remembered.
const NO_ICONS: u64 = 2_000;

/// One archive: 20 MiB at 1.4 Mbit/s.
const ARCHIVE: Limits = Limits {
    head: Duration::from_secs(15),
    idle: Duration::from_secs(15),
    total: Duration::from_secs(120),
    bytes: PACKED as u64,
    least_rate: 1 << 10,
};
/// What stands beside an archive. Somebody waits for the page.
const SMALL: Limits = Limits {
    head: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    total: Duration::from_secs(10),
    bytes: icon::LONGEST as u64,
    least_rate: 1 << 10,
};

/// Why an archive or an icon cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BadChart {
    #[error("the repository tells no address of version {1} of the chart {0}")]
    NoAddress(String, String),
    #[error("the address {0:?} cannot be fetched: only http, https and oci are spoken")]
    Address(String),
    #[error(transparent)]
    Client(#[from] NoClient),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Pull(#[from] BadPull),
    #[error(
        "the archive has the SHA-256 digest {found}, and the repository says {wanted}: it was \
         changed on its way or behind the repository's back"
    )]
    Digest { found: String, wanted: String },
    #[error("the archive is one of the chart {0} {1}, which is not what the repository says")]
    Other(String, String),
    #[error(transparent)]
    Archive(#[from] BadArchive),
    #[error(transparent)]
    Icon(#[from] BadIcon),
    #[error("the repository did not give its provenance file within {} seconds", .0.as_secs())]
    Slow(Duration),
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error("it could not be looked at: {0}")]
    Look(#[from] JoinError),
}

type Failed = Arc<BadChart>;
/// What an archive holds, and the archive.
pub(super) type Found = (Arc<Archive>, Bytes);
/// A provenance file, if there is one.
type Signed = Result<Option<Arc<str>>, Failed>;

/// All archives and icons; clones share them.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    disk: Disk,
    policy: Policy,
    archives: Flights<Result<Found, Failed>>,
    icons: Flights<Result<Icon, Failed>>,
    /// Of icons.
    failed: Cache<String, Failed>,
    signed: Cache<String, Signed>,
    looks: Arc<Semaphore>,
    fetches: Places,
    pulls: Places,
    signatures: Places,
    icon_places: Places,
    /// Archives that were on disk when they were asked for, and those that had to be fetched.
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Store {
    /// Keeps its files below `state`.
    pub fn new(state: &Path, policy: Policy) -> Self {
        let failed = Cache::builder().max_capacity(NO_ICONS).time_to_live(NO_ICON).build();
        let signed = Cache::builder().max_capacity(SIGNED).time_to_live(SIGNED_AGE);
        let signed = signed.weigher(|_: &String, signed: &Signed| {
            let text = signed.as_ref().ok().and_then(Option::as_ref).map_or(0, |text| text.len());
            // A name and what holds it take some hundred bytes.
            u32::try_from(text + 512).unwrap_or(u32::MAX)
        });
        Self(Arc::new(Inner {
            disk: Disk::new(state.join("charts").join("archives"), BUDGET),
            policy,
            archives: Flights::new(),
            icons: Flights::new(),
            failed,
            signed: signed.build(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            fetches: Places::new(FETCHES),
            pulls: Places::new(PULLS),
            signatures: Places::new(SIGNATURES),
            icon_places: Places::new(ICONS),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }))
    }

    /// Sees to it that the archive of this version is on disk, and keeps nothing of it in memory.
    /// Who makes something of archives does this before he takes one of the places that bound his
    /// memory: with one he would wait for a slow repository, and others for him. With it he asks
    /// `kept`, and begins anew without it if that finds nothing.
    pub async fn fetch(
        &self,
        repository: &Arc<Repository>,
        chart: &str,
        version: &Version,
    ) -> Result<(), Failed> {
        self.fetch_of(Wanted::of(repository, chart, version), client_of(repository)).await
    }

    async fn fetch_of(&self, wanted: Wanted, client: GivesClient) -> Result<(), Failed> {
        let (store, name, most) = (self.clone(), wanted.name(), wanted.most());
        let has = spawn_blocking(move || store.0.disk.has(&name, most)).await;
        if has.map_err(BadChart::from)? {
            self.0.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.archive_of(wanted, client).await.map(|_| ())
    }

    /// What `archive` gives, if it is on disk: no repository is asked. What was fetched may be gone
    /// or too old by now, or was damaged; without a disk there is nothing ever.
    pub async fn kept(
        &self,
        repository: &Repository,
        chart: &str,
        version: &Version,
    ) -> Result<Option<Found>, Failed> {
        let wanted = Wanted::of(repository, chart, version);
        Ok(self.found(&wanted, &wanted.name()).await?)
    }

    /// Bytes on disk, archives that were there when they were asked for, and those that were not.
    pub fn counts(&self) -> (u64, u64, u64) {
        let Inner { disk, hits, misses, .. } = &*self.0;
        (disk.bytes(), hits.load(Ordering::Relaxed), misses.load(Ordering::Relaxed))
    }

    /// What the archive of this version holds, and the archive itself.
    pub async fn archive(
        &self,
        repository: &Arc<Repository>,
        chart: &str,
        version: &Version,
    ) -> Result<Found, Failed> {
        self.archive_of(Wanted::of(repository, chart, version), client_of(repository)).await
    }

    /// The archive that `oci://…` names in any registry, as anybody may have it, for this caller.
    /// It is in memory: the place is to be kept until something else bounds that.
    pub async fn pull(&self, who: &str, reference: &str) -> Result<(Bytes, FetchPlace), BadChart> {
        let Inner { policy, pulls, .. } = &*self.0;
        let mut place = pulls.place(who, TURN).await?;
        let pulled = pulls.run(who, &mut place, oci::pull(reference, policy)).await??;
        Ok((pulled.bytes, place))
    }

    /// The provenance file that stands beside an archive, if one does. It is not kept on disk:
    /// somebody may sign later.
    pub async fn provenance(
        &self,
        repository: &Arc<Repository>,
        chart: &str,
        version: &Version,
    ) -> Signed {
        let wanted = Wanted::of(repository, chart, version);
        self.signed(wanted, client_of(repository), SIGNED_TIME).await
    }

    /// Somebody has signed this version.
    pub async fn forget_provenance(&self, repository: &Repository, chart: &str, version: &Version) {
        self.0.signed.invalidate(&Wanted::of(repository, chart, version).signed_name()).await;
    }

    /// Somebody has written or deleted this version. Where no digest of it is told, what is on disk
    /// would be taken for it until there is another mark, and repositories of the configuration's
    /// file have none.
    pub async fn forget_archive(&self, repository: &Repository, chart: &str, version: &Version) {
        let untold = Version { digest: None, ..version.clone() };
        self.forget(Wanted::of(repository, chart, &untold).name()).await;
    }

    async fn signed(&self, wanted: Wanted, client: GivesClient, time: Duration) -> Signed {
        let fetched = async {
            let (end, places, scope) = (Instant::now() + time, &self.0.signatures, &wanted.scope);
            // Who only waited has learnt nothing: that is not remembered.
            let mut place = places.place(scope, time).await.map_err(|_| BadChart::Slow(time))?;
            let fetched = self.fetched_provenance(&wanted, client);
            let fetched = match timeout_at(end, places.run(scope, &mut place, fetched)).await {
                Ok(fetched) => fetched?,
                Err(_) => Err(BadChart::Slow(time)),
            };
            Ok::<Signed, BadChart>(fetched.map_err(Failed::from))
        };
        self.0.signed.try_get_with(wanted.signed_name(), fetched).await?
    }

    async fn fetched_provenance(
        &self,
        wanted: &Wanted,
        client: GivesClient,
    ) -> Result<Option<Arc<str>>, BadChart> {
        let address = wanted.address()?;
        let client = client.await?;
        let bytes = match address {
            Address::Registry(reference) => {
                oci::provenance_with(&client, &reference, &self.0.policy).await?
            }
            Address::Server(mut url) => {
                url.set_path(&format!("{}.prov", url.path()));
                let limits = Limits { bytes: provenance::LONGEST as u64, ..SMALL };
                let answer = client.get(&url, &HeaderMap::new(), &limits).await?;
                // Object stores deny what is not there.
                let absent = [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN, StatusCode::GONE];
                match absent.contains(&answer.status) {
                    true => None,
                    false => Some(answer.success()?.bytes().await?),
                }
            }
        };
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into()))
    }

    /// The icon at an address that a chart of this repository tells.
    pub async fn icon(&self, repository: &Arc<Repository>, address: &str) -> Result<Icon, Failed> {
        if address.starts_with("data:") {
            let bytes = icon::inline(address).map_err(BadChart::from)?;
            return checked(bytes).await.map_err(Failed::from);
        }
        let url = match resolved(&repository.base, address)? {
            Address::Server(url) => url,
            Address::Registry(text) => return Err(BadChart::Address(text).into()),
        };
        self.icon_at(&repository.key(), url, client_of(repository)).await
    }

    async fn archive_of(&self, wanted: Wanted, client: GivesClient) -> Result<Found, Failed> {
        let (store, name) = (self.clone(), wanted.name());
        let begin =
            || async move { store.fetched(wanted, client).await.map_err(Failed::from) }.boxed();
        self.0.archives.join(name, begin).await
    }

    async fn fetched(&self, wanted: Wanted, client: GivesClient) -> Result<Found, BadChart> {
        let Inner { policy, fetches, .. } = &*self.0;
        let name = wanted.name();
        if let Some(found) = self.found(&wanted, &name).await? {
            self.0.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(found);
        }
        self.0.misses.fetch_add(1, Ordering::Relaxed);
        let address = wanted.address()?;
        // Until it is looked through: what was fetched is in memory as long.
        let mut place = fetches.place(&wanted.scope, TURN).await?;
        let bytes = async {
            let client = client.await?;
            Ok::<_, BadChart>(match address {
                Address::Registry(reference) => {
                    oci::pull_with(&client, &reference, policy).await?.bytes
                }
                Address::Server(url) => {
                    let answer = client.get(&url, &as_it_is(), &ARCHIVE).await?;
                    answer.success()?.bytes().await?
                }
            })
        };
        let bytes = fetches.run(&wanted.scope, &mut place, bytes).await??;
        let found = wanted.look(bytes, self.look_place().await).await?;
        self.keep(name, found.1.clone()).await?;
        Ok(found)
    }

    /// What is on disk, if it is the one that is wanted.
    async fn found(&self, wanted: &Wanted, name: &str) -> Result<Option<Found>, BadChart> {
        let place = self.look_place().await;
        let Some(kept) = self.read(name, wanted.most()).await? else { return Ok(None) };
        let found = wanted.look(kept, place).await.ok();
        if found.is_none() {
            self.forget(name.to_owned()).await;
        }
        Ok(found)
    }

    /// Lets go of what is on disk under this name.
    async fn forget(&self, name: String) {
        let store = self.clone();
        // What has no thread any more is about to end.
        let _ = spawn_blocking(move || store.0.disk.remove(&name)).await;
    }

    async fn look_place(&self) -> Permit {
        self.0.looks.clone().acquire_owned().await.ok()
    }

    async fn icon_at(&self, scope: &str, url: Url, client: GivesClient) -> Result<Icon, Failed> {
        let name = disk::name(&["icon", scope, url.as_str()]);
        if let Some(failed) = self.0.failed.get(&name).await {
            return Err(failed);
        }
        let (store, known, scope) = (self.clone(), name.clone(), scope.to_owned());
        let begin = || {
            async move {
                let icon = store.fetched_icon(&known, &scope, &url, client).await.map_err(Arc::new);
                // Who only waited has learnt nothing.
                if let Err(failed) = &icon
                    && !matches!(**failed, BadChart::Busy(_))
                {
                    store.0.failed.insert(known, failed.clone()).await;
                }
                icon
            }
            .boxed()
        };
        self.0.icons.join(name, begin).await
    }

    async fn fetched_icon(
        &self,
        name: &str,
        scope: &str,
        url: &Url,
        client: GivesClient,
    ) -> Result<Icon, BadChart> {
        if let Some(kept) = self.read(name, Some(ICON_AGE)).await?
            && let Ok(icon) = checked(kept).await
        {
            return Ok(icon);
        }
        let places = &self.0.icon_places;
        let mut place = places.place(scope, TURN).await?;
        let bytes = async {
            let answer = client.await?.get(url, &HeaderMap::new(), &SMALL).await?;
            Ok::<_, BadChart>(answer.success()?.bytes().await?)
        };
        let icon = checked(places.run(scope, &mut place, bytes).await??).await?;
        self.keep(name.to_owned(), icon.bytes.clone()).await?;
        Ok(icon)
    }

    async fn read(&self, name: &str, most: Option<Duration>) -> Result<Option<Bytes>, JoinError> {
        let (store, name) = (self.clone(), name.to_owned());
        let kept = spawn_blocking(move || store.0.disk.get(&name, most)).await?;
        Ok(kept.map(Bytes::from))
    }

    async fn keep(&self, name: String, bytes: Bytes) -> Result<(), JoinError> {
        let store = self.clone();
        spawn_blocking(move || store.0.disk.put(&name, &bytes)).await
    }
}

/// The client of a repository, once something has to be fetched: its credentials are read for it.
type GivesClient = BoxFuture<'static, Result<Client, NoClient>>;

fn client_of(repository: &Arc<Repository>) -> GivesClient {
    let repository = repository.clone();
    async move { repository.client().await }.boxed()
}

/// The icon that these bytes are. An SVG of 1 MiB takes a while: too long for a thread that others
/// wait for.
async fn checked(bytes: Bytes) -> Result<Icon, BadChart> {
    Ok(spawn_blocking(move || icon::checked(bytes)).await??)
}

/// An archive is packed already; what a server calls its encoding is often that.
fn as_it_is() -> HeaderMap {
    let identity = HeaderValue::from_static("identity");
    HeaderMap::from_iter([(header::ACCEPT_ENCODING, identity)])
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
