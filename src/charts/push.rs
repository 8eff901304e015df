//! Charts into an OCI registry and out of it again, laid out as `helm push` does it: a blob with
//! Chart.yaml, one with the archive, perhaps one with its provenance, and a manifest under the
//! version's tag (OCI distribution specification 1.1, "Push").
//!
//! It looks into no archive and keeps no catalogue: what may be pushed was decided before.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use url::Url;

use super::PACKED;
use super::archive::Archive;
use super::catalogue::{Catalogue, Entry, Version, sha256};
use super::client::{Client, Fetched, place};
use super::definition::{Definition, Kind};
use super::museum::{BadPush, LIMITS, WRITE_TIME, words};
use super::oci::{
    ACCEPT, CONFIG, CONTENT, PROVENANCE, digest_of, is_followed, is_repository, is_tag, told_digest,
};
use super::registry::{Metadata, repository_of};
use super::session::Session as Tokens;

/// What is sent at once to a registry that takes no whole blob: nginx, which often stands before
/// one, takes 1 MiB where nobody has told it otherwise (`client_max_body_size`).
const PIECE: usize = 1 << 20;
/// The largest piece that a registry may insist on (`OCI-Chunk-Min-Length`); more than any chart.
const LONGEST_PIECE: usize = PACKED;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BLOB: &str = "application/octet-stream";
const LEAST_PIECE: &str = "oci-chunk-min-length";

/// One version of a chart in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Where the repository begins: `https://host[:port]/v2/repository/`.
    base: Url,
    repository: String,
    tag: String,
}

impl Tag {
    /// Where a version of this chart is, or belongs, in the registry at `base`: where the chart's
    /// other versions are, else where `registry::list` finds it.
    pub fn of(
        (definition, base): (&Definition, &Url),
        catalogue: &Catalogue,
        chart: &str,
        version: &str,
    ) -> Result<Self, BadPush> {
        let bad = |why| BadPush::Place(chart.to_owned(), why);
        let known = catalogue.find(chart).and_then(|chart| chart.versions.first());
        let repository = match known.and_then(repository_of) {
            Some(repository) => repository.to_owned(),
            None => new_repository(definition, base, catalogue, chart).map_err(bad)?,
        };
        if !is_repository(&repository) {
            return Err(bad("names in a registry have small letters, digits and ._- alone"));
        }
        // Tags have no plus: helm writes an underscore.
        let tag = version.replace('+', "_");
        if !is_tag(&tag) {
            return Err(bad("its version is too long for a tag, which has 128 letters at most"));
        }
        let base = base.join(&format!("/v2/{repository}/"));
        let base = base.map_err(|_| bad("it makes no address"))?;
        Ok(Self { base, repository, tag })
    }

    /// How catalogues have it.
    pub fn address(&self) -> String {
        format!("oci://{}/{}", place(&self.base), self.shown())
    }

    fn shown(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    fn url(&self, rest: &str) -> Result<Url, BadPush> {
        let url = self.base.join(rest);
        url.map_err(|error| BadPush::Broken(place(&self.base), error.to_string()))
    }
}

/// Where a chart goes of which there is no version yet.
fn new_repository(
    definition: &Definition,
    base: &Url,
    catalogue: &Catalogue,
    chart: &str,
) -> Result<String, &'static str> {
    let path = base.path().trim_matches('/');
    let last = |repository: &str| repository.rsplit('/').next() == Some(chart);
    // They have longer names in the catalogue, of which an archive knows nothing.
    if catalogue.charts.iter().any(|known| known.name != chart && last(&known.name)) {
        return Err("several charts of it end in this name");
    }
    let below = |parts: &[&str]| {
        let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    };
    if definition.kind == Kind::Harbor && path.is_empty() {
        return Err("its address names no project of Harbor, and a new chart has to be in one");
    }
    let oci = definition.oci.as_ref();
    if let Some(oci) = oci.filter(|oci| !oci.repositories.is_empty()) {
        let named = oci.repositories.iter().find(|name| last(name));
        let named = named.ok_or("its charts are named one by one, and this one is not named")?;
        return Ok(below(&[path, named]));
    }
    if let Some(prefix) = oci.and_then(|oci| oci.prefix.as_deref()) {
        return Ok(below(&[path, prefix.trim_end_matches('/'), chart]));
    }
    let is_one = |version: &Version| repository_of(version) == Some(path);
    let mut newest = catalogue.charts.iter().filter_map(|chart| chart.versions.first());
    if newest.any(is_one) {
        return Err("its address is that of one single chart");
    }
    // The address of a single chart that has no version yet.
    Ok(if last(path) { path.to_owned() } else { below(&[path, chart]) })
}

/// Pushes a chart under its version. Of two that push the same version at one moment the later one
/// wins: a registry cannot be asked to take the first alone.
pub async fn push(
    client: &Client,
    to: &Tag,
    chart: &Archive,
    archive: Bytes,
    force: bool,
) -> Result<(), BadPush> {
    let work = async {
        let mut session = Session { client, to, actions: "pull,push", token: None };
        if !force && session.exists().await? {
            return Err(BadPush::Exists(place(&to.base), to.shown()));
        }
        let config = session.blob(CONFIG, Bytes::from(config(chart).to_string())).await?;
        let layer = session.blob(CONTENT, archive).await?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
            "annotations": annotations(chart),
        });
        session.tag(&manifest).await
    };
    in_time(to, work).await
}

/// Adds a provenance file to a version that is there.
pub async fn sign(
    client: &Client,
    to: &Tag,
    provenance: Bytes,
    force: bool,
) -> Result<(), BadPush> {
    let work = async {
        let mut session = Session { client, to, actions: "pull,push", token: None };
        let bytes = session.manifest().await?.bytes().await?;
        let broken = |why: &str| BadPush::Broken(place(&to.base), why.to_owned());
        let mut manifest: Value =
            serde_json::from_slice(&bytes).map_err(|_| broken("its manifest is no JSON"))?;
        let layers = manifest.get_mut("layers").and_then(Value::as_array_mut);
        let layers = layers.ok_or_else(|| broken("its manifest has no layers"))?;
        let is_provenance = |layer: &Value| layer["mediaType"] == PROVENANCE;
        if !force && layers.iter().any(is_provenance) {
            let what = format!("a provenance file of {}", to.shown());
            return Err(BadPush::Exists(place(&to.base), what));
        }
        layers.retain(|layer| !is_provenance(layer));
        layers.push(session.blob(PROVENANCE, provenance).await?);
        session.tag(&manifest).await
    };
    in_time(to, work).await
}

/// Deletes a version: its manifest, which is what registries delete, and so every tag of it.
pub async fn delete(client: &Client, to: &Tag) -> Result<(), BadPush> {
    let work = async {
        let mut session = Session { client, to, actions: "pull,delete", token: None };
        let manifest = session.manifest().await?;
        let digest = match told_digest(&manifest.headers).map(str::to_owned) {
            Some(digest) => digest,
            None => digest_of(&manifest.bytes().await?),
        };
        let at = to.url(&format!("manifests/{digest}"))?;
        let answer = session.ask(Method::DELETE, &at, HeaderMap::new(), Bytes::new()).await?;
        let status = answer.status;
        if status.is_success() {
            return Ok(());
        }
        let words = words(answer).await;
        Err(match status {
            StatusCode::NOT_FOUND => BadPush::NotFound(place(&at), to.shown()),
            StatusCode::METHOD_NOT_ALLOWED => BadPush::NoDelete(place(&at)),
            // Older registries say so in words alone.
            StatusCode::BAD_REQUEST if words.contains("unsupported") => {
                BadPush::NoDelete(place(&at))
            }
            status => BadPush::of(place(&at), status, words),
        })
    };
    in_time(to, work).await
}

async fn in_time(to: &Tag, work: impl Future<Output = Result<(), BadPush>>) -> Result<(), BadPush> {
    let done = timeout(WRITE_TIME, work).await;
    done.unwrap_or_else(|_| Err(BadPush::Timeout(place(&to.base))))
}

/// The requests for one version.
struct Session<'a> {
    client: &'a Client,
    to: &'a Tag,
    /// What a token has to allow, where the registry does not say it.
    actions: &'static str,
    token: Option<HeaderValue>,
}

impl Session<'_> {
    async fn exists(&mut self) -> Result<bool, BadPush> {
        let at = self.to.url(&format!("manifests/{}", self.to.tag))?;
        let headers = single(header::ACCEPT, ACCEPT);
        let answer = self.ask(Method::HEAD, &at, headers, Bytes::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(BadPush::of(place(&at), status, words(answer).await)),
        }
    }

    /// The answer with the version's manifest.
    async fn manifest(&mut self) -> Result<Fetched, BadPush> {
        let at = self.to.url(&format!("manifests/{}", self.to.tag))?;
        let headers = single(header::ACCEPT, ACCEPT);
        let answer = self.ask(Method::GET, &at, headers, Bytes::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(BadPush::NotFound(place(&at), self.to.shown())),
            status => Err(BadPush::of(place(&at), status, words(answer).await)),
        }
    }

    async fn tag(&mut self, manifest: &Value) -> Result<(), BadPush> {
        let at = self.to.url(&format!("manifests/{}", self.to.tag))?;
        let kind = manifest["mediaType"].as_str().unwrap_or(MANIFEST);
        let headers = single(header::CONTENT_TYPE, kind);
        let answer = self.ask(Method::PUT, &at, headers, manifest.to_string().into()).await?;
        created(&at, answer).await
    }

    /// Sees to it that the registry has this blob; its descriptor.
    async fn blob(&mut self, kind: &str, bytes: Bytes) -> Result<Value, BadPush> {
        let digest = digest_of(&bytes);
        let at = self.to.url(&format!("blobs/{digest}"))?;
        let answer = self.ask(Method::HEAD, &at, HeaderMap::new(), Bytes::new()).await?;
        if answer.status != StatusCode::OK {
            let (at, _) = self.begin().await?;
            let headers = single(header::CONTENT_TYPE, BLOB);
            let at = with_digest(at, &digest);
            let answer = self.ask(Method::PUT, &at, headers, bytes.clone()).await?;
            match answer.status {
                StatusCode::PAYLOAD_TOO_LARGE => self.pieces(&bytes, &digest).await?,
                _ => created(&at, answer).await?,
            }
        }
        Ok(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
    }

    /// Where a blob can be sent to, and the least piece in bytes that is taken there.
    async fn begin(&mut self) -> Result<(Url, usize), BadPush> {
        let at = self.to.url("blobs/uploads/")?;
        let answer = self.ask(Method::POST, &at, HeaderMap::new(), Bytes::new()).await?;
        if answer.status != StatusCode::ACCEPTED {
            let status = answer.status;
            return Err(BadPush::of(place(&at), status, words(answer).await));
        }
        let least = answer.headers.get(LEAST_PIECE).and_then(|value| value.to_str().ok());
        let least = least.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok((location(&at, &answer.headers)?, least))
    }

    /// A blob in pieces, one after the other.
    async fn pieces(&mut self, bytes: &Bytes, digest: &str) -> Result<(), BadPush> {
        let (mut at, least) = self.begin().await?;
        let (piece, mut from) = (PIECE.max(least).min(LONGEST_PIECE), 0);
        while from < bytes.len() {
            let to = bytes.len().min(from + piece);
            let mut headers = single(header::CONTENT_TYPE, BLOB);
            headers.extend(single(header::CONTENT_RANGE, &format!("{from}-{}", to - 1)));
            let answer = self.ask(Method::PATCH, &at, headers, bytes.slice(from..to)).await?;
            if answer.status != StatusCode::ACCEPTED {
                let status = answer.status;
                return Err(BadPush::of(place(&at), status, words(answer).await));
            }
            at = location(&at, &answer.headers)?;
            from = to;
        }
        let at = with_digest(at, digest);
        let answer = self.ask(Method::PUT, &at, HeaderMap::new(), Bytes::new()).await?;
        created(&at, answer).await
    }

    /// One request, and once more with a token where the registry wants one.
    async fn ask(
        &mut self,
        method: Method,
        at: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Fetched, BadPush> {
        let answer = self.send(method.clone(), at, headers.clone(), body.clone()).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !self.is_home(at) {
            return Ok(answer);
        }
        // Of what kind of access it wants a token for, each 401 tells by itself.
        let scope = format!("repository:{}:{}", self.to.repository, self.actions);
        let tokens = Tokens::new(self.client, &self.to.base);
        let Some(token) = tokens.grant(&answer.headers, &scope).await? else { return Ok(answer) };
        self.token = Some(token);
        self.send(method, at, headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        at: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Fetched, BadPush> {
        if let Some(token) = self.token.as_ref().filter(|_| self.is_home(at)) {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        Ok(self.client.send(method, at, &headers, body, &LIMITS).await?)
    }

    /// Whoever is not the registry itself does not see the token.
    fn is_home(&self, at: &Url) -> bool {
        at.origin() == self.to.base.origin()
    }
}

fn single(name: HeaderName, value: &str) -> HeaderMap {
    // What cannot stand in a header is left out; nothing that comes here is such.
    HeaderValue::from_str(value).map(|value| (name, value)).into_iter().collect()
}

async fn created(at: &Url, answer: Fetched) -> Result<(), BadPush> {
    let status = answer.status;
    if status.is_success() {
        return Ok(());
    }
    Err(BadPush::of(place(at), status, words(answer).await))
}

fn location(from: &Url, headers: &HeaderMap) -> Result<Url, BadPush> {
    let to = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let to = to.and_then(|to| from.join(to).ok()).filter(is_followed);
    to.ok_or_else(|| BadPush::Broken(place(from), "it does not say where to send a blob".into()))
}

fn with_digest(mut at: Url, digest: &str) -> Url {
    at.query_pairs_mut().append_pair("digest", digest);
    at
}

/// A chart that has just been uploaded to `url`, as the catalogue shows it until it is read anew.
pub fn entry(chart: &Archive, url: String) -> Entry {
    let mut entry = Entry {
        name: chart.name.clone(),
        version: chart.version.clone(),
        created: Some(Timestamp::now().as_second()),
        digest: sha256(&chart.digest),
        urls: vec![url],
        ..Entry::default()
    };
    // What has odd types there is left out.
    serde_json::from_value::<Metadata>(config(chart)).unwrap_or_default().tell(&mut entry);
    entry
}

/// Chart.yaml as JSON, in which the versions are text even where YAML took them for numbers.
fn config(chart: &Archive) -> Value {
    let mut config = chart.metadata.clone();
    config["name"] = chart.name.as_str().into();
    config["version"] = chart.version.as_str().into();
    if !chart.app_version.is_empty() {
        config["appVersion"] = chart.app_version.as_str().into();
    }
    config
}

/// What helm tells in a manifest (pkg/registry/chart.go): the chart's own annotations, and those of
/// the image specification.
fn annotations(chart: &Archive) -> Map<String, Value> {
    let metadata = &chart.metadata;
    let own = metadata["annotations"].as_object().into_iter().flatten();
    let own = own.filter(|(_, value)| value.is_string());
    let mut all: Map<String, Value> =
        own.map(|(key, value)| (key.clone(), value.clone())).collect();
    let created = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let created = created.to_string();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (key, value, fixed) in [
        ("title", chart.name.clone(), true),
        ("version", chart.version.clone(), true),
        ("description", text(&metadata["description"]), false),
        ("url", text(&metadata["home"]), false),
        ("source", text(&metadata["sources"][0]), false),
        ("created", created, false),
    ] {
        let key = format!("org.opencontainers.image.{key}");
        if !value.trim().is_empty() && (fixed || !all.contains_key(&key)) {
            all.insert(key, value.into());
        }
    }
    all
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
