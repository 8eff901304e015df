//! A chart out of an OCI registry (OCI distribution specification 1.1, `/v2/`): its manifest, then
//! the one layer that is the archive, both checked against their digests; or its provenance.
//!
//! Credentials are the client's, who shows them to one host alone; where a registry asks for a
//! token, the one that it hands out is used. It neither lists nor pushes, and it does not look into
//! the archive.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::address::{Policy, Refused};
pub(super) use super::client::place;
use super::client::{BadClient, Client, FetchError};
use super::dependencies::shown;
use super::session::{self, BadListing};
use super::{PACKED, hex, provenance};

/// For one chart, all in all: 20 MiB at 2 Mbit/s.
const PULL_TIME: Duration = Duration::from_secs(90);
/// A chart's manifest has about 1 KiB; those with many annotations some more.
pub(super) const MANIFEST: usize = 256 << 10;
/// Tokens have about 5 KiB.
pub(super) const TOKEN: usize = 64 << 10;
/// The longest reference: a repository has 255 characters at most, a tag 128, a digest 71.
const REFERENCE: usize = 768;

pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
/// `ConfigMediaType`, `ChartLayerMediaType` and `ProvLayerMediaType` of helm's
/// pkg/registry/constants.go.
pub(super) const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
pub(super) const CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
pub(super) const PROVENANCE: &str = "application/vnd.cncf.helm.chart.provenance.v1.prov";

/// A chart's archive, and the digest of its manifest: what pins it (`…@sha256:…`).
#[derive(Debug, Clone)]
pub struct Pulled {
    pub bytes: Bytes,
    pub digest: String,
}

/// Why there is no chart.
#[derive(Debug, thiserror::Error)]
pub enum BadPull {
    #[error(
        "{0:?} does not name a chart in a registry: {1}; oci://registry.example/charts/web:1.2.3 \
         would"
    )]
    Reference(String, &'static str),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Client(#[from] BadClient),
    #[error("the registry at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("the registry at {0} did not answer in time")]
    Timeout(String),
    #[error("the registry at {0} wants credentials for {1}, or others than are set for it")]
    Denied(String, String),
    #[error("the registry at {0} has no {1}")]
    NotFound(String, String),
    #[error("the registry at {0} answered {1}")]
    Status(String, StatusCode),
    #[error("the registry at {0} answered what is not understood: {1}")]
    Broken(String, String),
    #[error("{0} is no Helm chart: {1}")]
    NotAChart(String, String),
    #[error("the {what} from the registry has the digest {found}, and {wanted} is right")]
    Digest { what: &'static str, found: String, wanted: String },
    #[error("the {what} from the registry is longer than {limit} bytes")]
    TooLong { what: &'static str, limit: usize },
}

impl BadPull {
    /// Why `what` could not be fetched.
    fn of(what: &'static str, host: String, error: BadListing) -> Self {
        match error {
            BadListing::Fetch(error) => Self::of_fetch(what, error),
            BadListing::Denied(host, what) => Self::Denied(host, what),
            BadListing::NotFound(host, what) => Self::NotFound(host, what),
            BadListing::Status(host, status, _) => Self::Status(host, status),
            BadListing::Broken(host, why) => Self::Broken(host, why),
            // Those are about lists.
            error => Self::Broken(host, error.to_string()),
        }
    }

    fn of_fetch(what: &'static str, error: FetchError) -> Self {
        match error {
            FetchError::Refused(refused) => Self::Refused(refused),
            FetchError::Unreachable(place, why) | FetchError::Tls(place, why) => {
                Self::Unreachable(place, why)
            }
            FetchError::TooSlow(place, _) => Self::Timeout(place),
            FetchError::TooLarge(_, limit) => {
                Self::TooLong { what, limit: usize::try_from(limit).unwrap_or(usize::MAX) }
            }
            FetchError::Redirect(place, why) => Self::Broken(place, format!("it redirects {why}")),
            FetchError::Address(place, why) => Self::Broken(place, why.to_owned()),
            FetchError::Broken(place, why) => Self::Broken(place, format!("its {what}: {why}")),
            FetchError::Status(place, status) => Self::Status(place, status),
        }
    }
}

/// The archive that `oci://host[:port]/repository[:tag][@sha256:…]` names, as anybody may have it.
/// A digest decides alone; without one there has to be a tag, which is nobody's guess. It holds up
/// to 20 MiB: how many of those there are is the store's part.
pub(super) async fn pull(reference: &str, policy: &Policy) -> Result<Pulled, BadPull> {
    pull_with(&Client::new(policy, None)?, reference, policy).await
}

/// The same with the client of a repository and its credentials.
pub(super) async fn pull_with(
    client: &Client,
    reference: &str,
    policy: &Policy,
) -> Result<Pulled, BadPull> {
    let reference = Reference::parse(reference, policy)?;
    let timed = timeout(PULL_TIME, Session::new(client, &reference).chart()).await;
    timed.unwrap_or_else(|_| Err(BadPull::Timeout(reference.host())))
}

/// The provenance file that stands beside the chart in the registry, if one does.
pub(super) async fn provenance_with(
    client: &Client,
    reference: &str,
    policy: &Policy,
) -> Result<Option<Bytes>, BadPull> {
    let reference = Reference::parse(reference, policy)?;
    let found = Session::new(client, &reference).provenance();
    let found = timeout(PULL_TIME, found).await;
    found.unwrap_or_else(|_| Err(BadPull::Timeout(reference.host())))
}

#[derive(Debug)]
struct Reference {
    /// Where the repository begins: `https://host[:port]/v2/repository/`.
    base: Url,
    repository: String,
    /// The tag as registries know it, or the digest.
    version: String,
    pinned: bool,
}

impl Reference {
    fn parse(text: &str, policy: &Policy) -> Result<Self, BadPull> {
        let bad = |why| BadPull::Reference(shown(text), why);
        if text.len() > REFERENCE {
            return Err(bad("it is too long"));
        }
        let rest = text.strip_prefix("oci://").ok_or_else(|| bad("it has to begin with oci://"))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
            Some(_) => return Err(bad("behind the @ there has to be sha256: and 64 hex digits")),
            None => (rest, None),
        };
        let slash = || bad("behind the host there has to be a repository");
        let (authority, path) = rest.split_once('/').ok_or_else(slash)?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.replace('+', "_"))),
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(bad("a repository has small letters, digits and ._- between slashes"));
        }
        if !tag.as_deref().is_none_or(is_tag) {
            return Err(bad("a tag has letters, digits and ._-+, at most 128 of them"));
        }
        let version = digest.map(str::to_owned).or(tag);
        let version = version.ok_or_else(|| bad("there has to be a tag or a digest"))?;
        let host = || bad("its host cannot be read");
        let mut base = Url::parse(&format!("https://{authority}/v2/{repository}/"))
            .ok()
            .filter(|url| is_plain_host(url, authority))
            .ok_or_else(host)?;
        let scheme = policy.scheme(base.host_str().unwrap_or_default(), base.port());
        base.set_scheme(scheme).map_err(|()| host())?;
        let repository = repository.to_owned();
        Ok(Self { base, repository, version, pinned: digest.is_some() })
    }

    /// For messages: `host[:port]`.
    fn host(&self) -> String {
        place(&self.base)
    }

    fn url(&self, rest: &str) -> Result<Url, BadPull> {
        self.base.join(rest).map_err(|error| BadPull::Broken(self.host(), error.to_string()))
    }
}

/// Whether the address has a host and perhaps a port, and nothing that hides in it.
fn is_plain_host(url: &Url, authority: &str) -> bool {
    let odd = |byte: u8| !byte.is_ascii_alphanumeric() && !b"-._:[]".contains(&byte);
    // Of no authority the parser would make one out of the path.
    !authority.is_empty() && !authority.bytes().any(odd) && url.has_host()
}

pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// `<name>` of the distribution specification, a little looser between letters.
pub(super) fn is_repository(text: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'_' | b'-');
    let outer = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z');
    text.len() <= 255
        && text.split('/').map(str::as_bytes).all(|part| {
            part.first().is_some_and(outer)
                && part.last().is_some_and(outer)
                && part.iter().copied().all(inner)
        })
}

/// `<reference>` as a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(super) fn is_tag(text: &str) -> bool {
    let within = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(within)
}

#[derive(Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    size: u64,
}

impl Manifest {
    /// The layer that is the chart's archive.
    pub(super) fn chart(self) -> Result<Descriptor, String> {
        let config = self.config.map(|config| config.media_type).unwrap_or_default();
        if config != CONFIG {
            let found: String = config.chars().take(100).collect();
            return Err(format!("its configuration is {found:?}; that of a chart is {CONFIG:?}"));
        }
        let mut charts = self.layers.into_iter().filter(|layer| layer.media_type == CONTENT);
        match (charts.next(), charts.next()) {
            (Some(chart), None) if is_digest(&chart.digest) && chart.size > 0 => Ok(chart),
            (Some(_), None) => Err("its layer has no SHA-256 digest or no size".into()),
            (Some(_), Some(_)) => Err(format!("it has more than one layer of {CONTENT:?}")),
            (None, _) => Err(format!("it has no layer of {CONTENT:?}")),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Granted {
    pub(super) token: String,
    pub(super) access_token: String,
}

/// The requests for one chart.
struct Session<'a> {
    requests: session::Session<'a>,
    reference: &'a Reference,
}

impl<'a> Session<'a> {
    fn new(client: &'a Client, reference: &'a Reference) -> Self {
        Self { requests: session::Session::new(client, &reference.base), reference }
    }

    async fn chart(self) -> Result<Pulled, BadPull> {
        let (manifest, digest) = self.manifest().await?;
        let not_a_chart = |why| BadPull::NotAChart(self.reference.repository.clone(), why);
        let chart = manifest.chart().map_err(not_a_chart)?;
        let bytes = self.blob("chart", &chart, PACKED).await?;
        Ok(Pulled { bytes, digest })
    }

    async fn provenance(self) -> Result<Option<Bytes>, BadPull> {
        let (manifest, _) = self.manifest().await?;
        let mut layers = manifest.layers.iter();
        let layer = layers.find(|layer| layer.media_type == PROVENANCE);
        let Some(layer) = layer.filter(|layer| is_digest(&layer.digest)) else { return Ok(None) };
        self.blob("provenance file", layer, provenance::LONGEST).await.map(Some)
    }

    /// The manifest and its digest.
    async fn manifest(&self) -> Result<(Manifest, String), BadPull> {
        let Reference { repository, version, pinned, .. } = self.reference;
        let at = format!("manifests/{version}");
        let (headers, bytes) = self.get(&at, ACCEPT, "manifest", MANIFEST).await?;
        let found = digest_of(&bytes);
        let told = told_digest(&headers);
        for wanted in told.into_iter().chain(pinned.then_some(version.as_str())) {
            is_same("manifest", &found, wanted)?;
        }
        let manifest = serde_json::from_slice(&bytes).map_err(|error| {
            let why = format!("its manifest cannot be read: {error}");
            BadPull::NotAChart(repository.clone(), why)
        })?;
        Ok((manifest, found))
    }

    async fn blob(
        &self,
        what: &'static str,
        layer: &Descriptor,
        limit: usize,
    ) -> Result<Bytes, BadPull> {
        let size = usize::try_from(layer.size).ok().filter(|size| *size <= limit);
        let size = size.ok_or(BadPull::TooLong { what, limit })?;
        // One byte more than the manifest says is too much already.
        let (_, bytes) = self.get(&format!("blobs/{}", layer.digest), "*/*", what, size).await?;
        is_same(what, &digest_of(&bytes), &layer.digest)?;
        Ok(bytes)
    }

    /// The 200 of this place in the repository, with at most `limit` bytes.
    async fn get(
        &self,
        at: &str,
        accept: &'static str,
        what: &'static str,
        limit: usize,
    ) -> Result<(HeaderMap, Bytes), BadPull> {
        let Reference { repository, version, pinned, .. } = self.reference;
        let chart = format!("{repository}{}{version}", if *pinned { '@' } else { ':' });
        let (url, scope) = (self.reference.url(at)?, format!("repository:{repository}:pull"));
        let read = self.requests.read(&url, accept, &scope, &chart, limit as u64).await;
        read.map_err(|error| BadPull::of(what, self.reference.host(), error))
    }
}

/// The digest of a blob or a manifest.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref()))
}

/// What a registry says that the digest of a manifest is.
pub(super) fn told_digest(headers: &HeaderMap) -> Option<&str> {
    let told = headers.get("docker-content-digest")?.to_str().ok()?;
    is_digest(told).then_some(told)
}

fn is_same(what: &'static str, found: &str, wanted: &str) -> Result<(), BadPull> {
    if found == wanted {
        return Ok(());
    }
    Err(BadPull::Digest { what, found: found.to_owned(), wanted: wanted.to_owned() })
}

/// Addresses that others name have no credentials in them.
pub(super) fn is_followed(url: &Url) -> bool {
    let anybody = url.username().is_empty() && url.password().is_none();
    anybody && matches!(url.scheme(), "http" | "https")
}

/// The parameters of a `Bearer` challenge.
pub(super) fn bearer(challenge: &str) -> Option<&str> {
    let (scheme, rest) = challenge.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(rest)
}

/// One of them (RFC 9110, 11.2). Nothing that registries say has an escaped quote.
pub(super) fn parameter<'a>(mut rest: &'a str, name: &str) -> Option<&'a str> {
    loop {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim_matches([',', ' ']);
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
