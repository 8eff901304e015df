//! The web frontend's files: one build folder a locale below `--static-dir`, chosen for each
//! request, or a single build without languages.
//!
//! It serves files that are there, compressed ones as they lie there; it makes none, and it follows
//! no path or link out of the directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use bytes::Bytes;
use compact_str::CompactString;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use moka::future::Cache;
use unic_langid::LanguageIdentifier;

use crate::api::body;
use crate::api::caller::cookie;
use crate::api::error::ApiError;
use crate::api::probes;
use crate::api::target::segment;
use crate::api::{Shared, not_found};
use crate::i18n;

/// The cookie in which the UI keeps the person's choice.
const COOKIE: &str = "lang";
const INDEX: &str = "index.html";
/// A frontend speaks a dozen languages; a directory with more folders is not one.
const MOST_LOCALES: usize = 64;
/// The largest file of the stock frontend has 6 MB (its editor's TypeScript worker).
const LARGEST_FILE: u64 = 32 << 20;
/// Contents kept, in bytes: one locale of the stock frontend, and the differing files of others.
const KEPT: u64 = 64 << 20;
/// All that decides which file an address gets.
const VARY: &str = "Accept-Encoding, Accept-Language, Cookie";
/// First elements of our own routes: what is not found there is no page of the UI.
const OURS: [&str; 6] = ["api", "apis", "clusters", "config", "settings", "systembanner"];

/// The directory, and what was read of it.
pub struct Statics {
    /// Without links, so that what leaves it can be told.
    root: PathBuf,
    folders: Vec<Folder>,
    /// Before what the browser asks for.
    wanted: Option<LanguageIdentifier>,
    /// Index into `folders`.
    default: usize,
    kept: Cache<PathBuf, Arc<File>>,
}

/// One build.
struct Folder {
    path: PathBuf,
    /// The folder's name; empty for a build without languages.
    tag: String,
    language: Option<LanguageIdentifier>,
}

/// A file's content as of its time and size.
struct File {
    content: Bytes,
    /// Of the content: equal on all replicas and after a restart.
    hash: String,
    stamp: (u64, Option<SystemTime>),
}

/// A file to be sent.
struct Found<'a> {
    file: Arc<File>,
    folder: &'a Folder,
    name: &'a str,
    coding: Option<&'static str>,
}

impl Statics {
    /// Looks once which builds there are. `wanted` is the language of those who chose none in the UI;
    /// `default` that of those for whom nothing fits.
    ///
    /// # Errors
    /// The directory cannot be read, or there is no build in it.
    pub fn open(root: &Path, wanted: Option<&str>, default: &str) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&root)?.take(MOST_LOCALES) {
            let entry = entry?;
            let tag = entry.file_name().to_string_lossy().into_owned();
            let (path, language) = (entry.path(), tag.parse().ok());
            if language.is_some() && path.join(INDEX).is_file() {
                folders.push(Folder { path, tag, language });
            }
        }
        folders.sort_by(|a, b| a.tag.cmp(&b.tag));
        if folders.is_empty() && root.join(INDEX).is_file() {
            folders.push(Folder { path: root.clone(), tag: String::new(), language: None });
        }
        if folders.is_empty() {
            let why = format!(
                "no {INDEX} in {0} and none in a folder for a language, such as {0}/en",
                root.display()
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let weigher =
            |_: &PathBuf, file: &Arc<File>| u32::try_from(file.content.len()).unwrap_or(u32::MAX);
        let kept = Cache::builder().max_capacity(KEPT).weigher(weigher).build();
        let wanted = wanted.and_then(|tag| tag.parse().ok());
        let mut statics = Self { root, folders, wanted, default: 0, kept };
        let default = statics.nearest_to(default).or_else(|| statics.nearest_to("en"));
        statics.default = default.unwrap_or_default();
        Ok(statics)
    }

    /// The person's choice, else the configured language, else what the browser asks for.
    fn choose(&self, headers: &HeaderMap) -> &Folder {
        let asked = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let chosen = cookie(headers, COOKIE).and_then(|tag| self.nearest_to(tag));
        let chosen = chosen.or_else(|| self.nearest(self.wanted.as_ref()?));
        let chosen = chosen.or_else(|| {
            i18n::wishes(asked.unwrap_or_default()).into_iter().find_map(|range| match range {
                "*" => Some(self.default),
                range => self.nearest_to(range),
            })
        });
        // Some folder is always there: `open` sees to it.
        &self.folders[chosen.unwrap_or(self.default)]
    }

    fn nearest_to(&self, tag: &str) -> Option<usize> {
        self.nearest(&tag.parse().ok()?)
    }

    /// The same language in the same script; rather of the same region, or else of none.
    fn nearest(&self, asked: &LanguageIdentifier) -> Option<usize> {
        let fitting = self.folders.iter().enumerate().filter_map(|(at, folder)| {
            let ours = folder.language.as_ref()?;
            let far = match (&ours.region, &asked.region) {
                (ours, asked) if ours == asked => 0,
                (None, _) => 1,
                _ => 2,
            };
            is_read_alike(asked, ours).then_some((far, at))
        });
        fitting.min().map(|(_, at)| at)
    }

    /// The file of these names as the client can best read it; `None` when there is none.
    async fn find<'a>(
        &'a self,
        folder: &'a Folder,
        names: &[CompactString],
        name: &'a str,
        codings: &[(&'static str, &'static str)],
    ) -> io::Result<Option<Found<'a>>> {
        let mut plain = folder.path.clone();
        plain.extend(names.iter().map(CompactString::as_str));
        for &(coding, suffix) in codings {
            let mut compressed = plain.clone().into_os_string();
            compressed.push(suffix);
            if let Some(file) = self.read(Path::new(&compressed)).await? {
                return Ok(Some(Found { file, folder, name, coding: Some(coding) }));
            }
        }
        let file = self.read(&plain).await?;
        Ok(file.map(|file| Found { file, folder, name, coding: None }))
    }

    async fn read(&self, path: &Path) -> io::Result<Option<Arc<File>>> {
        let Some(path) = present(tokio::fs::canonicalize(path).await)? else { return Ok(None) };
        if !path.starts_with(&self.root) {
            tracing::debug!(path = %path.display(), "a link leaves the static directory");
            return Ok(None);
        }
        let Some(about) = present(tokio::fs::metadata(&path).await)? else { return Ok(None) };
        if !about.is_file() {
            return Ok(None);
        }
        if about.len() > LARGEST_FILE {
            let why = format!("{} is larger than {LARGEST_FILE} bytes", path.display());
            return Err(io::Error::other(why));
        }
        let stamp = (about.len(), about.modified().ok());
        if let Some(file) = self.kept.get(&path).await
            && file.stamp == stamp
        {
            return Ok(Some(file));
        }
        let Some(content) = present(tokio::fs::read(&path).await)? else { return Ok(None) };
        let file = Arc::new(File { hash: hash(&content), content: content.into(), stamp });
        self.kept.insert(path, Arc::clone(&file)).await;
        Ok(Some(file))
    }
}

/// Chinese is compared by script, which people name by the place; others mind it when both name one.
fn is_read_alike(asked: &LanguageIdentifier, ours: &LanguageIdentifier) -> bool {
    if asked.language != ours.language {
        return false;
    }
    if ours.language.as_str() == "zh" {
        return i18n::script(asked) == i18n::script(ours);
    }
    asked.script.is_none() || ours.script.is_none() || asked.script == ours.script
}

/// `None` for what is not there.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.kind() {
            NotFound | NotADirectory | InvalidFilename => Ok(None),
            _ => Err(error),
        },
    }
}

/// Half a SHA-256, in hex: enough for a strong ETag.
fn hash(content: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, content);
    let half = digest.as_ref().iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}

/// `GET /` and everything that no route has: a file, or the UI's page for an address within it.
pub async fn serve(State(gateway): Shared, request: Request) -> Response {
    let full = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0);
    let Some(path) = full.path().strip_prefix(gateway.base_path.as_str()) else {
        return not_found().await;
    };
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if reading
        && matches!(path, "" | "/")
        && let Some(response) =
            gateway.callers.sign_in(full, &gateway.seen_at(request.headers(), "/"))
    {
        return response;
    }
    let Some(statics) = gateway.statics.as_ref().filter(|_| reading) else {
        let is_home = reading && matches!(path, "" | "/");
        if is_home {
            return probes::home(State(gateway), request).await;
        }
        return not_found().await;
    };
    let Some(names) = path.strip_prefix('/') else {
        // The UI's addresses are relative: they need the slash.
        let mut home = gateway.seen_at(request.headers(), "/");
        if let Some(query) = full.query() {
            home.push('?');
            home.push_str(query);
        }
        return Redirect::temporary(&home).into_response();
    };
    if names.ends_with('/') {
        let error = ApiError::not_found("404: Page Not Found".into());
        let item = error.as_item(gateway.locale_of(request.headers()));
        return body::answer(StatusCode::NOT_FOUND, &item);
    }
    let Some(names) = names_of(names) else { return not_found().await };
    let (head, _) = request.into_parts();
    match look_up(statics, &names, &head.headers).await {
        Ok(Some(found)) => found.respond(&head.method, &head.headers),
        Ok(None) => not_found().await,
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

async fn look_up<'a>(
    statics: &'a Statics,
    names: &'a [CompactString],
    headers: &HeaderMap,
) -> io::Result<Option<Found<'a>>> {
    let folder = statics.choose(headers);
    let codings = codings(headers);
    if let Some(name) = names.last()
        && let Some(found) = statics.find(folder, names, name, &codings).await?
    {
        return Ok(Some(found));
    }
    if !is_page(names) {
        return Ok(None);
    }
    statics.find(folder, &[INDEX.into()], INDEX, &codings).await
}

/// The elements of a path, decoded; `None` for what must not be looked for: ways out, hidden files,
/// our own routes.
fn names_of(path: &str) -> Option<Vec<CompactString>> {
    if path.is_empty() {
        return Some(Vec::new());
    }
    let names: Vec<_> = path.split('/').map(segment).collect::<Result<_, _>>().ok()?;
    let hidden = names.iter().any(|name| name.starts_with('.') || name.contains('\\'));
    let ours = names.first().is_some_and(|first| OURS.contains(&first.as_str()));
    (!hidden && !ours).then_some(names)
}

/// Whether a path without a file is an address within the UI. What looks like a file is none: its
/// index page would pass for a script, and for the `assets/config/config.json` by which the UI
/// finds its base path.
fn is_page(names: &[CompactString]) -> bool {
    let is_file = names.last().is_some_and(|name| content_type(name).is_some());
    !is_file && names.iter().all(|name| name != "assets")
}

/// Content codings that the client takes and we may have, the best first, with the file's suffix.
fn codings(headers: &HeaderMap) -> Vec<(&'static str, &'static str)> {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let accepted: Vec<(&str, f32)> = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|part| {
            let (coding, weight) = part.split_once(';').unwrap_or((part, "q=1"));
            let weight = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok());
            (coding.trim(), weight.unwrap_or(0.0))
        })
        .collect();
    let weight = |wanted: &str| {
        let of = |name: &str| accepted.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name));
        of(wanted).or_else(|| of("*")).map_or(0.0, |(_, weight)| *weight)
    };
    let mut all = vec![("br", ".br", weight("br")), ("gzip", ".gz", weight("gzip"))];
    all.retain(|(_, _, weight)| *weight > 0.0);
    // Stable: among equals brotli, which is smaller.
    all.sort_by(|a, b| b.2.total_cmp(&a.2));
    all.into_iter().map(|(coding, suffix, _)| (coding, suffix)).collect()
}

/// By the name's extension; `None` for what no frontend is made of.
fn content_type(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        _ => return None,
    })
}

impl Found<'_> {
    /// The names of files are equal in all languages, so each needs its language in the ETag, and
    /// nothing may be kept without asking again.
    fn respond(self, method: &Method, request: &HeaderMap) -> Response {
        let Found { file, folder, name, coding } = self;
        let tag = format!("\"{}-{}\"", folder.tag, file.hash);
        let known = request.get_all(header::IF_NONE_MATCH).iter();
        let known = known.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
        let mut known = known.map(str::trim);
        let same = known.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag);
        let mut response = if same {
            StatusCode::NOT_MODIFIED.into_response()
        } else if method == Method::HEAD {
            Response::new(Body::empty())
        } else {
            Response::new(Body::from(file.content.clone()))
        };
        let headers = response.headers_mut();
        let rules = if name == INDEX { "no-cache, no-store, must-revalidate" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(rules));
        headers.insert(header::VARY, HeaderValue::from_static(VARY));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        if same {
            return response;
        }
        let content = content_type(name).unwrap_or("application/octet-stream");
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(file.content.len()));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(coding) = coding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    }
}

#[cfg(test)]
#[path = "statics_tests.rs"]
mod tests;
