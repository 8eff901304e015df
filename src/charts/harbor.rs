//! Which charts a Harbor has, asked of its own API (v2.0): it has given no index since 2.8, it
//! tells the list of its repositories to administrators alone, and it knows what each chart says
//! of itself without its manifests.
//!
//! Archives come out of it as out of any other registry, which is not done here.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::catalogue::Entry;
use super::client::Client;
use super::oci::{is_repository, is_tag};
use super::registry::{CHARTS, Found, Listed, Metadata, REPOSITORIES, seconds};
use super::session::{BadListing, PAGES, Session, TAGS};
use super::versions;

/// What Harbor calls an artifact that is a chart (src/controller/artifact/processor/chart).
const CHART: &str = "CHART";
/// Harbor's largest page.
const SIZE: usize = 100;

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Artifact {
    #[serde(rename = "type")]
    kind: Option<String>,
    push_time: Option<String>,
    /// `null` where it has none any more.
    tags: Option<Vec<Named>>,
    /// Of other artifacts it has other fields.
    extra_attrs: Option<Value>,
}

/// The charts of the project that the address names, or of all projects that can be seen.
pub async fn list(client: &Client, base: &Url) -> Result<Listed, BadListing> {
    let session = Session::new(client, base);
    let path = base.path().trim_matches('/');
    let projects = match path.split('/').next().filter(|project| !project.is_empty()) {
        Some(project) => vec![project.to_owned()],
        None => names(&session, &format!("/api/v2.0/projects?page_size={SIZE}")).await?,
    };
    let mut repositories = Vec::new();
    for project in projects {
        let at = format!("/api/v2.0/projects/{project}/repositories?page_size={SIZE}");
        let names = names(&session, &at).await?.into_iter();
        // A path may lead deeper than to its project.
        repositories.extend(names.filter(|name| is_below(path, name)));
        if repositories.len() > CHARTS {
            return Err(BadListing::TooMany(session.host(), CHARTS, REPOSITORIES));
        }
    }
    let mut found = Found::default();
    for repository in repositories {
        let chart = chart(&session, &repository).await;
        found.take(chart)?;
    }
    found.end(base).await
}

fn is_below(path: &str, name: &str) -> bool {
    let rest = name.strip_prefix(path);
    path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The names on all pages of a list.
async fn names(session: &Session<'_>, path: &str) -> Result<Vec<String>, BadListing> {
    let mut names = Vec::new();
    let mut at = Some(session.url(path)?);
    for _ in 0..PAGES {
        let Some(url) = at else { return Ok(names) };
        let (page, next) = session.page::<Vec<Named>>(&url, "", path).await?;
        names.extend(page.into_iter().map(|one| one.name).filter(|name| is_repository(name)));
        if names.len() > CHARTS {
            return Err(BadListing::TooMany(session.host(), CHARTS, REPOSITORIES));
        }
        at = next;
    }
    Err(BadListing::TooMany(session.host(), PAGES, "pages of projects or repositories"))
}

/// All versions of a chart; none where the repository holds something else.
async fn chart(session: &Session<'_>, repository: &str) -> Result<Vec<Entry>, BadListing> {
    let (project, inner) = repository.split_once('/').unwrap_or_default();
    // Encoded twice, as its API wants it: its proxy decodes once.
    let inner = inner.replace('/', "%252F");
    let path = format!(
        "/api/v2.0/projects/{project}/repositories/{inner}/artifacts?page_size={SIZE}&with_tag=true"
    );
    let mut entries = Vec::new();
    let mut at = Some(session.url(&path)?);
    for _ in 0..PAGES {
        let Some(url) = at else { return Ok(entries) };
        let (page, next) = session.page::<Vec<Artifact>>(&url, "", repository).await?;
        // Images lie in repositories of their own, and some have ten thousand of them.
        if !page.iter().any(|one| one.kind.as_deref() == Some(CHART)) {
            return Ok(entries);
        }
        for artifact in page.into_iter().filter(|one| one.kind.as_deref() == Some(CHART)) {
            entries.extend(versions_of(session, repository, artifact));
            if entries.len() > TAGS {
                let host = session.host();
                return Err(BadListing::TooMany(host, TAGS, "tags in one repository"));
            }
        }
        at = next;
    }
    Err(BadListing::TooMany(session.host(), PAGES, "pages of artifacts in one repository"))
}

/// One for each tag that is a version, but no more than are too many. The archive's digest is not
/// among what Harbor tells.
fn versions_of(session: &Session<'_>, repository: &str, artifact: Artifact) -> Vec<Entry> {
    let mut told = Entry {
        name: repository.to_owned(),
        created: artifact.push_time.as_deref().and_then(seconds),
        ..Entry::default()
    };
    let attributes = artifact.extra_attrs.unwrap_or_default();
    if let Ok(metadata) = serde_json::from_value::<Metadata>(attributes) {
        metadata.tell(&mut told);
    }
    let host = session.host();
    let tags = artifact.tags.unwrap_or_default().into_iter().filter(|tag| is_tag(&tag.name));
    let tagged = tags.map(|tag| (tag.name.replace('_', "+"), tag.name));
    let tagged = tagged.filter(|(version, _)| versions::order(version).is_some());
    let entry = |(version, tag): (String, String)| Entry {
        version,
        urls: vec![format!("oci://{host}/{repository}:{tag}")],
        ..told.clone()
    };
    tagged.take(TAGS + 1).map(entry).collect()
}

#[cfg(test)]
#[path = "harbor_tests.rs"]
mod tests;
