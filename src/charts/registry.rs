//! Which charts an OCI registry has (OCI distribution specification 1.1): its repositories, their
//! tags, and what the newest versions say of themselves. Registries have no index and no search.
//!
//! No archive is fetched here (`oci` does that), and what is known of a version that still has the
//! same digest is not asked for again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use compact_str::CompactString;
use futures::future::try_join_all;
use serde::Deserialize;
use tokio::task::spawn_blocking;
use url::Url;

use super::catalogue::{Builder, Catalogue, Chart, Entry, Rejected, Version, sha256};
use super::client::Client;
use super::definition::Oci;
pub(super) use super::index::seconds;
use super::oci::{ACCEPT, CONFIG, MANIFEST, Manifest, is_digest, is_repository, is_tag};
use super::session::{BadListing, PAGES, Session, TAGS};
use super::versions;

/// Versions of a chart whose manifests are looked at: people choose among the newest ones.
const LOOKED_AT: usize = 5;
/// Charts that are looked at at once: registries limit clients, and it is done in the background.
const WORKERS: usize = 4;
/// Charts of one registry. More are as many requests a refresh; a prefix makes them fewer.
pub(super) const CHARTS: usize = 5_000;
/// What a list that is too long is told as.
pub(super) const REPOSITORIES: &str = "repositories; a longer path or prefix makes them fewer";
/// A Chart.yaml as JSON. Those with a whole change log in their annotations have some 20 KiB.
const CONFIG_BLOB: u64 = 256 << 10;
/// Bytes kept of a description or an address, bytes of a word, and words of a list, until the
/// catalogue cuts them to its own lengths, which are not greater: Harbor has them for each version.
const TEXT: usize = 3 << 10;
const WORD: usize = 128;
const WORDS: usize = 32;
/// The scope of a token for the list of repositories.
const CATALOG: &str = "registry:catalog:*";
/// What helm writes into a manifest at every push since 3.10.
const CREATED: &str = "org.opencontainers.image.created";

/// What was found.
#[derive(Debug, Default)]
pub struct Listed {
    pub catalogue: Catalogue,
    /// Charts and versions that were left out.
    pub skipped: usize,
    /// Why the first of them was.
    pub first: Option<String>,
}

/// Charts as they come.
#[derive(Debug, Default)]
pub(super) struct Found {
    builder: Builder,
    skipped: usize,
    first: Option<String>,
    failed: Option<BadListing>,
}

impl Found {
    /// All versions of one chart. What concerns it alone leaves the others as they are.
    pub(super) fn take(&mut self, chart: Result<Vec<Entry>, BadListing>) -> Result<(), BadListing> {
        let entries = match chart {
            Ok(entries) => entries,
            Err(why) if why.is_of_one() => {
                self.skip(&why);
                self.failed.get_or_insert(why);
                return Ok(());
            }
            Err(why) => return Err(why),
        };
        for entry in &entries {
            match self.builder.add(entry) {
                Ok(()) => {}
                Err(Rejected::Full) => return Err(Rejected::Full.into()),
                Err(why) => self.skip(&why),
            }
        }
        Ok(())
    }

    fn skip(&mut self, why: &dyn std::fmt::Display) {
        self.skipped += 1;
        self.first.get_or_insert_with(|| why.to_string());
    }

    /// Where there is nothing at all, what failed is an error: the old catalogue is a better one.
    /// Until here charts have the names of their repositories, which all begin with the path.
    /// It sorts up to 100,000 versions, which is not for a thread that others wait for.
    pub(super) async fn end(self, base: &Url) -> Result<Listed, BadListing> {
        let path = base.path().trim_start_matches('/').to_owned();
        spawn_blocking(move || self.sorted(&path)).await?
    }

    fn sorted(self, path: &str) -> Result<Listed, BadListing> {
        let (mut catalogue, left_out) = self.builder.finish_counted();
        name(&mut catalogue, path);
        match self.failed {
            Some(why) if catalogue.charts.is_empty() => Err(why),
            _ => Ok(Listed { catalogue, skipped: self.skipped + left_out, first: self.first }),
        }
    }
}

/// A chart has the last part of its repository's name; where several charts end in the same, they
/// have the whole of it, but for what all have.
fn name(catalogue: &mut Catalogue, path: &str) {
    let mut same: HashMap<CompactString, usize> = HashMap::new();
    for chart in &catalogue.charts {
        *same.entry(last(&chart.name).into()).or_default() += 1;
    }
    for chart in &mut catalogue.charts {
        chart.name = match same.get(last(&chart.name)) {
            Some(1) => last(&chart.name).into(),
            _ => chart.name.strip_prefix(path).unwrap_or(&chart.name).into(),
        };
    }
    catalogue.charts.sort_unstable_by(|one, other| one.name.cmp(&other.name));
}

/// The last part of a repository's name.
fn last(repository: &str) -> &str {
    repository.rsplit('/').next().unwrap_or_default()
}

/// The repository of `oci://host/repository:tag`.
pub(super) fn repository_of(version: &Version) -> Option<&str> {
    let (_, path) = version.urls.first()?.strip_prefix("oci://")?.split_once('/')?;
    Some(path.rsplit_once(':')?.0)
}

/// The charts of the registry at this address, with what is known of them from before. Named
/// repositories that are not there are skipped; where nothing at all is left, that is an error.
pub async fn list(
    client: &Client,
    base: &Url,
    oci: Option<&Oci>,
    before: &Catalogue,
) -> Result<Listed, BadListing> {
    let registry = Registry { session: Session::new(client, base) };
    let names = registry.names(oci).await?;
    let known = before.charts.iter().filter_map(|chart| {
        let repository = repository_of(chart.versions.first()?)?;
        Some((repository, chart))
    });
    let work = Work {
        registry,
        known: known.collect(),
        repositories: names,
        next: AtomicUsize::new(0),
        found: Mutex::default(),
    };
    try_join_all((0..WORKERS).map(|_| work.run())).await?;
    let found = work.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.end(base).await
}

/// What several workers share.
struct Work<'a> {
    registry: Registry<'a>,
    /// Charts from before, by their repositories.
    known: HashMap<&'a str, &'a Chart>,
    repositories: Vec<String>,
    /// The repository that is looked at next.
    next: AtomicUsize,
    found: Mutex<Found>,
}

impl Work<'_> {
    async fn run(&self) -> Result<(), BadListing> {
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(repository) = self.repositories.get(next) else { return Ok(()) };
            let known = self.known.get(repository.as_str()).copied();
            let chart = self.registry.chart(repository, known).await;
            self.found().take(chart)?;
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a registry is asked.
struct Registry<'a> {
    session: Session<'a>,
}

impl Registry<'_> {
    /// The repositories that may be charts, in the order of their names.
    async fn names(&self, oci: Option<&Oci>) -> Result<Vec<String>, BadListing> {
        let path = self.session.base.path().trim_start_matches('/');
        if let Some(oci) = oci.filter(|oci| !oci.repositories.is_empty()) {
            let mut names: Vec<String> =
                oci.repositories.iter().map(|name| format!("{path}{name}")).collect();
            names.sort_unstable();
            names.dedup();
            return Ok(names);
        }
        let prefix = oci.and_then(|oci| oci.prefix.as_deref());
        let one = path.trim_end_matches('/');
        let mut denied = None;
        if prefix.is_none() && !one.is_empty() {
            // The address may be that of a single chart: of those no list is needed, and the large
            // public registries give none.
            match self.tags(one).await {
                Ok(tags) if !tags.is_empty() => return Ok(vec![one.to_owned()]),
                Ok(_) | Err(BadListing::NotFound(..)) => {}
                Err(why @ BadListing::Denied(..)) => denied = Some(why),
                Err(why) => return Err(why),
            }
        }
        let prefix = format!("{path}{}", prefix.unwrap_or_default());
        match self.catalog(&prefix).await {
            Err(BadListing::NoCatalog(host)) => Err(denied.unwrap_or(BadListing::NoCatalog(host))),
            names => names,
        }
    }

    /// The repositories that begin so.
    async fn catalog(&self, prefix: &str) -> Result<Vec<String>, BadListing> {
        let mut names = Vec::new();
        let mut at = Some(self.session.url("/v2/_catalog?n=100")?);
        for _ in 0..PAGES {
            let Some(url) = at else {
                names.sort_unstable();
                names.dedup();
                return Ok(names);
            };
            let page = self.session.page::<Repositories>(&url, CATALOG, "its list").await;
            let (page, next) = page.map_err(|why| match why {
                BadListing::Denied(..) | BadListing::NotFound(..) | BadListing::Status(..) => {
                    BadListing::NoCatalog(self.session.host())
                }
                why => why,
            })?;
            let here = page.repositories.unwrap_or_default().into_iter();
            names.extend(here.filter(|name| name.starts_with(prefix) && is_repository(name)));
            if names.len() > CHARTS {
                return Err(BadListing::TooMany(self.session.host(), CHARTS, REPOSITORIES));
            }
            at = next;
        }
        Err(BadListing::TooMany(self.session.host(), PAGES, "pages of repositories"))
    }

    async fn tags(&self, repository: &str) -> Result<Vec<String>, BadListing> {
        let mut tags = Vec::new();
        let mut at = Some(self.session.url(&format!("/v2/{repository}/tags/list?n=100"))?);
        for _ in 0..PAGES {
            let Some(url) = at else { return Ok(tags) };
            let scope = format!("repository:{repository}:pull");
            let (page, next) = self.session.page::<Tags>(&url, &scope, repository).await?;
            tags.extend(page.tags.unwrap_or_default().into_iter().filter(|tag| is_tag(tag)));
            if tags.len() > TAGS {
                let host = self.session.host();
                return Err(BadListing::TooMany(host, TAGS, "tags in one repository"));
            }
            at = next;
        }
        Err(BadListing::TooMany(self.session.host(), PAGES, "pages of tags in one repository"))
    }

    /// All versions of a chart; none where the repository holds something else.
    async fn chart(
        &self,
        repository: &str,
        before: Option<&Chart>,
    ) -> Result<Vec<Entry>, BadListing> {
        let mut entries = self.entries(repository, before).await?;
        let best = entries.iter().position(|entry| versions::is_stable(&entry.version));
        let best = best.unwrap_or_default();
        let mut looked_at: Vec<usize> = (0..entries.len().min(LOOKED_AT)).collect();
        if best >= LOOKED_AT {
            looked_at.pop();
            looked_at.push(best);
        }
        let mut others = Vec::new();
        for index in &looked_at {
            let Some(entry) = entries.get_mut(*index) else { continue };
            match self.look(repository, entry, before, *index == best).await {
                Ok(true) => {}
                Ok(false) => others.push(entry.version.clone()),
                // It has been deleted since the list was made, or is no manifest at all.
                Err(BadListing::NotFound(..)) => others.push(entry.version.clone()),
                Err(why) => return Err(why),
            }
        }
        if others.len() == looked_at.len() {
            return Ok(Vec::new());
        }
        entries.retain(|entry| !others.contains(&entry.version));
        Ok(entries)
    }

    /// What the tags say, with what was known of older versions, newest first.
    async fn entries(
        &self,
        repository: &str,
        before: Option<&Chart>,
    ) -> Result<Vec<Entry>, BadListing> {
        let host = self.session.host();
        let known = before.map(|chart| &*chart.versions).unwrap_or_default().iter();
        let known: HashMap<&str, &Version> =
            known.map(|version| (version.version.as_str(), version)).collect();
        let mut entries = Vec::new();
        for tag in self.tags(repository).await? {
            // Tags have no plus: helm writes an underscore.
            let version = tag.replace('_', "+");
            let Some(order) = versions::order(&version) else { continue };
            let known = known.get(version.as_str());
            let entry = Entry {
                name: repository.to_owned(),
                app_version: known.map(|known| known.app_version.to_string()).unwrap_or_default(),
                created: known.and_then(|known| known.created),
                deprecated: known.is_some_and(|known| known.deprecated),
                urls: vec![format!("oci://{host}/{repository}:{tag}")],
                version,
                ..Entry::default()
            };
            entries.push((order, entry));
        }
        entries.sort_by(|(one, _), (other, _)| other.cmp(one));
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Fills in what the version says of itself; whether it is a chart. What stands for the whole
    /// chart is needed of its best version alone.
    async fn look(
        &self,
        repository: &str,
        entry: &mut Entry,
        before: Option<&Chart>,
        best: bool,
    ) -> Result<bool, BadListing> {
        let scope = format!("repository:{repository}:pull");
        let tag = entry.version.replace('+', "_");
        let what = format!("{repository}:{tag}");
        let url = self.session.url(&format!("/v2/{repository}/manifests/{tag}"))?;
        let limit = u64::try_from(MANIFEST).unwrap_or(u64::MAX);
        let (_, bytes) = self.session.read(&url, ACCEPT, &scope, &what, limit).await?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(false) };
        let Some(config) = manifest.config.as_ref().filter(|one| one.media_type == CONFIG) else {
            return Ok(false);
        };
        let config = config.digest.clone();
        let Ok(archive) = manifest.chart() else { return Ok(false) };
        entry.digest = sha256(&archive.digest);
        let annotated: Annotated = serde_json::from_slice(&bytes).unwrap_or_default();
        let created = annotated.annotations.get(CREATED).and_then(|at| seconds(at));
        entry.created = created.or(entry.created);
        if let Some(chart) = before.filter(|chart| is_known(chart, entry, best)) {
            if best {
                recall(chart, entry);
            }
            return Ok(true);
        }
        if !is_digest(&config) {
            return Ok(false);
        }
        let url = self.session.url(&format!("/v2/{repository}/blobs/{config}"))?;
        let (_, bytes) = self.session.read(&url, "*/*", &scope, &what, CONFIG_BLOB).await?;
        match serde_json::from_slice::<Metadata>(&bytes) {
            Ok(metadata) => metadata.tell(entry),
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}

/// Whether all that is wanted of a version is known: it has the same archive, and where it stands
/// for its chart it did so before.
fn is_known(chart: &Chart, entry: &Entry, best: bool) -> bool {
    let known = exactly(chart, &entry.version);
    let same = known.is_some_and(|known| known.digest.is_some() && known.digest == entry.digest);
    let told = chart.best().is_some_and(|known| known.version.as_str() == entry.version);
    same && (told || !best)
}

/// The version that is written so.
fn exactly<'a>(chart: &'a Chart, version: &str) -> Option<&'a Version> {
    chart.versions.iter().find(|known| known.version.as_str() == version)
}

fn recall(chart: &Chart, entry: &mut Entry) {
    let owned = |texts: &[Box<str>]| texts.iter().map(|text| String::from(&**text)).collect();
    entry.description = chart.description.to_string();
    entry.home = chart.home.as_deref().unwrap_or_default().to_owned();
    entry.icon = chart.icon.as_deref().unwrap_or_default().to_owned();
    entry.keywords = owned(&chart.keywords);
    entry.maintainers = owned(&chart.maintainers);
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Tags {
    /// `null` where all have been deleted.
    tags: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotated {
    annotations: HashMap<String, String>,
}

/// Chart.yaml as helm writes it as JSON: into the config blob, and Harbor into an artifact's
/// attributes. What is not there is left out or `null`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    app_version: Option<String>,
    description: Option<String>,
    home: Option<String>,
    icon: Option<String>,
    keywords: Option<Vec<String>>,
    maintainers: Option<Vec<Maintainer>>,
    deprecated: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Maintainer {
    name: String,
}

impl Metadata {
    pub(super) fn tell(self, entry: &mut Entry) {
        let text = |text: Option<String>| short(text.unwrap_or_default(), TEXT);
        entry.app_version = short(self.app_version.unwrap_or_default(), WORD);
        entry.description = text(self.description);
        entry.home = text(self.home);
        entry.icon = text(self.icon);
        let keywords = self.keywords.unwrap_or_default().into_iter().take(WORDS);
        entry.keywords = keywords.map(|word| short(word, WORD)).collect();
        let maintainers = self.maintainers.unwrap_or_default().into_iter().take(WORDS);
        entry.maintainers = maintainers.map(|one| short(one.name, WORD)).collect();
        entry.deprecated = self.deprecated.unwrap_or_default();
    }
}

/// The beginning of a text, whole characters.
fn short(mut text: String, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or_default());
    text.shrink_to_fit();
    text
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
