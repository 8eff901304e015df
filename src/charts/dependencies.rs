//! Charts that a chart needs and does not hold: which they are, in which of the caller's
//! repositories each of them is, and the archive with all of them packed into `charts/`, as
//! `helm dependency build` would make it.
//!
//! Who may read which repository was decided before. Conditions, tags and aliases are helm's part,
//! and so is what is packed already, whatever its version: helm compares names alone, and only the
//! chart's own (`CheckDependencies` of pkg/action/install.go). Of a chart that is fetched the same
//! is asked as `helm package` asks: that it holds what it needs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use url::Url;

use super::archive::{self, Archive, BadArchive, scalar};
use super::catalogue::{Chart, Version};
use super::client::place;
use super::definition::Kind;
use super::repository::{Repository, State};
use super::store::{BadChart, Store};
use super::subcharts::{Held, pack};
use super::{PACKED, versions};

/// Dependencies of a chart: the largest known ones, which gather whole platforms, have some forty.
const MOST: usize = 64;
/// Those that are fetched at once.
const AT_ONCE: usize = 4;
/// For all of them, and for the place where they are packed: somebody waits for it, and others
/// behind him.
const FETCH_TIME: Duration = Duration::from_secs(60);
/// Archives whose charts are looked for at once: each is in memory, and computes for seconds.
const LOOKS: usize = 4;
/// Archives that are packed at once: each is in memory twice, and is packed for seconds.
const PACKS: usize = 2;
/// The longest name of a chart: helm's linter refuses longer ones.
const NAME: usize = 250;
/// Versions that a message names.
const SHOWN: usize = 20;

static LOOKING: Semaphore = Semaphore::const_new(LOOKS);
static PACKING: Semaphore = Semaphore::const_new(PACKS);

/// A chart that another one needs, as its Chart.yaml says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependency {
    name: String,
    /// A range.
    version: String,
    repository: String,
    /// The version that Chart.lock tells.
    locked: Option<String>,
}

/// Why a chart is not complete, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BadDependency {
    #[error(transparent)]
    Archive(#[from] BadArchive),
    #[error("its list of dependencies is none: each has a name, a version and a repository")]
    List,
    #[error("it has more than {} dependencies that are not packed into it", MOST)]
    TooMany,
    #[error("{0:?} is no name of a chart")]
    Name(String),
    #[error(
        "{0} is not packed into it, and no repository of it is named: pack it with `helm \
         dependency build`"
    )]
    Unpacked(String),
    #[error(
        "{0} is not packed into it, and its repository {1:?} is on the disk of whoever made the \
         chart: pack it with `helm dependency build`"
    )]
    Local(String, String),
    #[error(
        "the repository of {0}, {1:?}, is none: https://charts.example.com/stable, \
         oci://registry.example.com/charts and @name would be"
    )]
    Address(String, String),
    #[error(
        "{0} is wanted from {1}, and no configured repository that you may read has this {2}: \
         configure one, or pack {0} into the chart with `helm dependency build`"
    )]
    Unknown(String, String, &'static str),
    #[error("the repository {1} has no chart {0}{2}")]
    /// The last: why it may have one all the same, or nothing.
    NoChart(String, String, String),
    #[error("the version of {0}: {1}")]
    Range(String, String),
    #[error("no version of {0} in the repository {1} is in the range {2:?}; there are {3}")]
    NoVersion(String, String, String, String),
    #[error(
        "the version {2} of {0} that Chart.lock tells is not in the repository {1}; there are {3}"
    )]
    NotLocked(String, String, String, String),
    #[error("version {1} of {0} cannot be had from the repository {2}: {3}")]
    Fetch(String, String, String, Arc<BadChart>),
    #[error("the charts that it needs were not fetched within {} seconds", .0.as_secs())]
    Slow(Duration),
    #[error("with the charts that it needs it has more than {} MiB", PACKED >> 20)]
    TooLarge,
    #[error(
        "version {1} of {0}, which it needs, needs {2} itself and does not hold it: it has to be \
         made anew with `helm package --dependency-update`"
    )]
    Incomplete(String, String, String),
    #[error("with the charts that it needs: {0}")]
    Packed(BadArchive),
    #[error("it could not be packed: {0}")]
    BrokenOff(#[from] JoinError),
}

impl BadDependency {
    /// Whether it is a repository's doing, which may be another one later.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Fetch(..) | Self::Slow(_) => true,
            Self::NoChart(.., why) => !why.is_empty(),
            _ => false,
        }
    }

    /// Whether it only waited for a place to fetch, in vain.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Fetch(.., error) if matches!(**error, BadChart::Busy(_)))
    }
}

/// What a chart needs and does not hold; mostly nothing.
pub async fn missing(archive: &Archive, bytes: &Bytes) -> Result<Vec<Dependency>, BadDependency> {
    let (listed, bytes) = (archive.metadata["dependencies"].clone(), bytes.clone());
    let place = LOOKING.acquire().await.ok();
    // It goes on when nobody waits for it any more, so it has its place until it ends.
    spawn_blocking(move || {
        let _place = place;
        lacks(listed, &bytes)
    })
    .await?
}

/// Adds to each dependency, as Chart.yaml has it, whether it is packed into the archive. To be
/// called where blocking is allowed.
pub fn mark(dependencies: &mut [Value], bytes: &Bytes) {
    if dependencies.is_empty() {
        return;
    }
    let packed = Held::of(bytes).map(|held| held.packed).unwrap_or_default();
    for one in dependencies.iter_mut() {
        let is_packed = packed.contains(&scalar(one, "name"));
        if let Some(fields) = one.as_object_mut() {
            fields.insert("packed".into(), is_packed.into());
        }
    }
}

/// The chart of this name with those in it that are missing, out of these repositories.
pub async fn complete(
    store: &Store,
    readable: &[Arc<Repository>],
    (name, bytes): (&str, Bytes),
    missing: &[Dependency],
) -> Result<(Archive, Bytes), BadDependency> {
    let mut wanted: Vec<Chosen> = Vec::new();
    for dependency in missing {
        let chosen = dependency.chosen(readable)?;
        // One chart under two aliases is one archive.
        if !wanted.iter().any(|one| one.file == chosen.file) {
            wanted.push(chosen);
        }
    }
    let fetched = timeout(FETCH_TIME, fetch(store, &wanted, bytes.len())).await;
    let (fetched, place) = fetched.unwrap_or(Err(BadDependency::Slow(FETCH_TIME)))?;
    let name = name.to_owned();
    // As above.
    spawn_blocking(move || {
        let _place = place;
        packed(&name, &bytes, &fetched)
    })
    .await?
}

/// Whether an `oci://` reference leads into one of these repositories.
pub fn is_within(repositories: &[Arc<Repository>], reference: &str) -> bool {
    let Some(rest) = reference.strip_prefix("oci://") else { return false };
    let rest = rest.split_once('@').map_or(rest, |(rest, _)| rest);
    let rest = match rest.rsplit_once(':') {
        // Not the port.
        Some((before, tag)) if !tag.contains('/') => before,
        _ => rest,
    };
    repositories.iter().any(|one| path_in(one, rest).is_some())
}

/// What a chart lists and does not hold. `listed` is of Chart.yaml.
fn lacks(listed: Value, bytes: &[u8]) -> Result<Vec<Dependency>, BadDependency> {
    let held = Held::of(bytes)?;
    let listed = match held.listed(listed) {
        Value::Null => Vec::new(),
        Value::Array(all) => all,
        _ => return Err(BadDependency::List),
    };
    let mut missing = Vec::new();
    for (at, one) in listed.into_iter().enumerate() {
        if !one.is_object() {
            return Err(BadDependency::List);
        }
        let [name, version, repository] =
            ["name", "version", "repository"].map(|key| scalar(&one, key));
        if held.packed.contains(&name) {
            continue;
        }
        if !is_name(&name) {
            return Err(BadDependency::Name(cut(&name)));
        }
        // Before each of them is looked for in a lock file of any length.
        if missing.len() == MOST {
            return Err(BadDependency::TooMany);
        }
        let locked = held.locked(at, &name);
        missing.push(Dependency { name, version, repository, locked });
    }
    // One that is older than the list is none.
    if !missing.iter().all(Dependency::is_locked) {
        missing.iter_mut().for_each(|one| one.locked = None);
    }
    Ok(missing)
}

/// Whether a file in `charts/` may be called so: helm passes over what begins with `_` or a dot.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (1..=NAME).contains(&name.len()) && !name.starts_with(['_', '.']) && name.chars().all(plain)
}

/// One version of a chart of a repository.
struct Chosen {
    repository: Arc<Repository>,
    /// As the repository calls it.
    chart: CompactString,
    version: Version,
    /// In `charts/`.
    file: String,
}

impl Dependency {
    /// Whether the lock file tells a version that fits.
    fn is_locked(&self) -> bool {
        let fits = |version: &String| {
            let range = versions::Range::parse(&self.version);
            *version == self.version || range.is_ok_and(|range| range.contains(version))
        };
        self.locked.as_ref().is_some_and(fits)
    }

    /// Where it is, of several repositories in the first one that has it.
    fn chosen(&self, readable: &[Arc<Repository>]) -> Result<Chosen, BadDependency> {
        let (repositories, mut failed) = (self.repositories(readable)?, None);
        if self.version.trim().is_empty() {
            let why = "Chart.yaml tells none, and helm wants one, or a range of them such as ^1";
            return Err(BadDependency::Range(self.name.clone(), why.to_owned()));
        }
        for repository in repositories {
            match self.within(&repository) {
                Ok(chosen) => return Ok(chosen),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| self.unknown()))
    }

    /// Those of the repositories that it means.
    fn repositories(
        &self,
        readable: &[Arc<Repository>],
    ) -> Result<Vec<Arc<Repository>>, BadDependency> {
        let all = readable.iter().cloned();
        if self.repository.is_empty() {
            return Err(BadDependency::Unpacked(self.name.clone()));
        }
        if self.repository.starts_with("file:") {
            return Err(BadDependency::Local(self.name.clone(), cut(&self.repository)));
        }
        if let Some(name) = self.named() {
            return Ok(all.filter(|one| one.name() == name).collect());
        }
        if let Some(path) = self.in_registry() {
            return Ok(all.filter(|one| path_in(one, &path).is_some()).collect());
        }
        let url = Url::parse(&self.repository).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let bad = || BadDependency::Address(self.name.clone(), shown(&self.repository));
        let url = url.ok_or_else(bad)?;
        let is_index = |one: &Repository| {
            matches!(one.definition.kind, Kind::Index | Kind::Museum) && is_same(&one.base, &url)
        };
        Ok(all.filter(|one| is_index(one)).collect())
    }

    /// Of `@name` and `alias:name`.
    fn named(&self) -> Option<&str> {
        let text = self.repository.as_str();
        text.strip_prefix('@').or_else(|| text.strip_prefix("alias:"))
    }

    /// Of `oci://host/path`: the host with the path of the chart itself.
    fn in_registry(&self) -> Option<String> {
        let rest = self.repository.strip_prefix("oci://")?;
        Some(format!("{}/{}", rest.trim_end_matches('/'), self.name))
    }

    fn within(&self, repository: &Arc<Repository>) -> Result<Chosen, BadDependency> {
        let (name, of) = (|| self.name.clone(), || repository.name().to_owned());
        let loaded = repository.loaded.load();
        let catalogue = &loaded.catalogue;
        let found = match self.in_registry() {
            Some(rest) => {
                let path = path_in(repository, &rest).unwrap_or_default();
                // A chart has the last part of its path for a name, or else all of it.
                let inner = path.strip_prefix(base_path(repository)).unwrap_or_default();
                let named = [inner, self.name.as_str()].into_iter();
                named.filter_map(|name| catalogue.find(name)).find(|chart| is_at(chart, &path))
            }
            None => catalogue.find(&self.name),
        };
        let chart = found.ok_or_else(|| {
            let is_new = catalogue.charts.is_empty() && loaded.status.state != State::Ok;
            let why = match &loaded.status.error {
                Some(error) => format!("; when it was last read: {error}"),
                None if is_new => ", or it was not read yet".to_owned(),
                None => String::new(),
            };
            BadDependency::NoChart(name(), of(), why)
        })?;
        let version = match &self.locked {
            Some(locked) => chart
                .version(locked)
                .ok_or_else(|| BadDependency::NotLocked(name(), of(), cut(locked), known(chart)))?,
            None => versions::newest(&chart.versions, &self.version).ok_or_else(|| {
                match versions::Range::parse(&self.version) {
                    Err(error) => BadDependency::Range(name(), error.to_string()),
                    Ok(_) => {
                        BadDependency::NoVersion(name(), of(), cut(&self.version), known(chart))
                    }
                }
            })?,
        };
        Ok(Chosen {
            repository: repository.clone(),
            chart: chart.name.clone(),
            version: version.clone(),
            file: format!("{}-{}.tgz", self.name, version.version),
        })
    }

    fn unknown(&self) -> BadDependency {
        let what = if self.named().is_some() { "name" } else { "address" };
        BadDependency::Unknown(self.name.clone(), shown(&self.repository), what)
    }
}

/// The path of `host/path` if it is within this repository of a registry.
fn path_in(repository: &Repository, rest: &str) -> Option<String> {
    let definition = &repository.definition;
    if !matches!(definition.kind, Kind::Oci | Kind::Harbor) {
        return None;
    }
    let base = &repository.base;
    let url = Url::parse(&format!("{}://{rest}", base.scheme())).ok()?;
    if url.origin() != base.origin() || url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let path = url.path().trim_matches('/');
    // The address may be that of the one chart itself.
    let inner = format!("{path}/");
    let inner = inner.strip_prefix(base_path(repository))?.trim_end_matches('/');
    let counts = match &definition.oci {
        None => true,
        Some(oci) if oci.repositories.is_empty() => {
            oci.prefix.as_deref().is_none_or(|prefix| inner.starts_with(prefix))
        }
        Some(oci) => oci.repositories.iter().any(|one| one == inner),
    };
    counts.then(|| path.to_owned())
}

/// With a slash at its end alone; empty of a whole registry.
fn base_path(repository: &Repository) -> &str {
    repository.base.path().trim_start_matches('/')
}

/// Whether a chart of a registry is at this path there.
fn is_at(chart: &Chart, path: &str) -> bool {
    let url = chart.versions.first().and_then(|version| version.urls.first());
    let at = url.and_then(|url| url.strip_prefix("oci://")?.split_once('/'));
    at.and_then(|(_, at)| at.strip_prefix(path)).is_some_and(|tag| tag.starts_with(':'))
}

/// Whether two addresses of indexes are one.
fn is_same(base: &Url, other: &Url) -> bool {
    let is_plain = other.username().is_empty()
        && other.password().is_none()
        && other.query().is_none()
        && other.fragment().is_none();
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    is_plain && base.origin() == other.origin() && path(base) == path(other)
}

/// An address in a message, without what may be secret in it.
pub fn shown(address: &str) -> String {
    match Url::parse(address).ok().filter(Url::has_host) {
        Some(url) => cut(&format!("{}://{}{}", url.scheme(), place(&url), url.path())),
        // People write passwords before an @ that is not at the beginning.
        None if address.rfind('@').is_some_and(|at| at > 0) => "an odd address".to_owned(),
        None => cut(address.split(['?', '#']).next().unwrap_or_default()),
    }
}

fn known(chart: &Chart) -> String {
    let known = chart.versions.iter().take(SHOWN).map(|version| version.version.as_str());
    known.collect::<Vec<_>>().join(", ")
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

/// An archive, with its name in `charts/`.
type Added = (String, Bytes);

/// All of them, as long as they fit into an archive beside `size` bytes, and a place to pack them.
async fn fetch(
    store: &Store,
    wanted: &[Chosen],
    mut size: usize,
) -> Result<(Vec<Added>, Option<SemaphorePermit<'static>>), BadDependency> {
    // To disk: who waits for a repository has neither a place nor an archive in memory.
    let flights: Vec<_> = wanted.iter().map(|one| one.fetch(store)).collect();
    stream::iter(flights).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let place = PACKING.acquire().await.ok();
    let mut all = Vec::new();
    for one in wanted {
        let found = store.archive(&one.repository, &one.chart, &one.version).await;
        let (archive, bytes) = found.map_err(|error| one.away(error))?;
        size += bytes.len();
        if size > PACKED {
            return Err(BadDependency::TooLarge);
        }
        one.is_whole(&archive, &bytes).await?;
        all.push((one.file.clone(), bytes));
    }
    Ok((all, place))
}

impl Chosen {
    async fn fetch(&self, store: &Store) -> Result<(), BadDependency> {
        let fetched = store.fetch(&self.repository, &self.chart, &self.version).await;
        fetched.map_err(|error| self.away(error))
    }

    /// An error unless it holds what it needs itself.
    async fn is_whole(&self, archive: &Archive, bytes: &Bytes) -> Result<(), BadDependency> {
        let lacks: Vec<String> =
            missing(archive, bytes).await?.into_iter().map(|one| one.name).collect();
        if lacks.is_empty() {
            return Ok(());
        }
        let (chart, version) = (self.chart.to_string(), self.version.version.to_string());
        Err(BadDependency::Incomplete(chart, version, lacks.join(", ")))
    }

    fn away(&self, error: Arc<BadChart>) -> BadDependency {
        let (chart, version) = (self.chart.to_string(), self.version.version.to_string());
        BadDependency::Fetch(chart, version, self.repository.name().to_owned(), error)
    }
}

/// The archive of the chart of this name with these in it. What it has stays as it is, byte for
/// byte of the tar.
fn packed(name: &str, bytes: &[u8], more: &[Added]) -> Result<(Archive, Bytes), BadDependency> {
    let end = Held::of(bytes)?.end;
    let broken = |error: io::Error| BadDependency::Packed(BadArchive::Broken(error.to_string()));
    let files = more.iter().map(|(file, bytes)| (file.as_str(), bytes));
    let packed = Bytes::from(pack(name, (bytes, end), files).map_err(broken)?);
    // All limits of an archive hold for it as well.
    let archive = archive::inspect(&packed).map_err(BadDependency::Packed)?;
    Ok((archive, packed))
}

#[cfg(test)]
#[path = "dependencies_tests.rs"]
mod tests;
