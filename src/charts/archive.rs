//! A chart's archive (`.tgz`), looked through before anything else sees it: one folder with the
//! chart's name, a sound `Chart.yaml`, nothing that is a weapon. In memory, and in bounds.
//!
//! It reads what a person wants to see of a chart and no more: values, templates and the charts
//! within it are the engine's to judge. Its checks are those of helm's
//! pkg/chart/loader/archive/archive.go, a little stricter.

use std::io::{self, Read};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;
use tar::{EntryType, Header, PaxExtensions};

use super::{PACKED, hex, versions};
use crate::yaml::{read, reason};

/// `MaxDecompressedChartSize` and `MaxDecompressedFileSize` of helm.
const LIMITS: Limits = Limits { unpacked: 100 << 20, file: 5 << 20, entries: 10_000 };
/// The longest path. Names in a tar have 256 bytes at most, or an extension of any length.
const PATH: usize = 1024;
/// The largest extension, which holds a path and some times.
const EXTENSION: u64 = 16 << 10;
/// What entries of a tar are padded to, in bytes.
const BLOCK: u64 = 512;
/// The largest Chart.yaml. Those with a whole change log in their annotations have some 20 KiB.
pub(super) const CHART_YAML: u64 = 256 << 10;
/// What aliases may make of it: four times the largest in text, and more nodes than anybody writes.
pub const CHART_TEXT: usize = 1 << 20;
pub const CHART_NODES: usize = 50_000;

struct Limits {
    /// Bytes of the whole tar.
    unpacked: usize,
    /// Bytes of one file.
    file: u64,
    entries: usize,
}

/// What an archive holds. Paths are those within the chart, such as `templates/service.yaml`.
#[derive(Debug, Clone)]
pub struct Archive {
    pub name: String,
    pub version: String,
    /// Empty when the chart tells none.
    pub app_version: String,
    /// Chart.yaml: an object.
    pub metadata: Value,
    /// SHA-256 of the archive itself, in hexadecimal.
    pub digest: String,
    pub readme: Option<String>,
    pub values: Option<String>,
    pub schema: Option<String>,
    pub crds: Vec<String>,
    pub templates: Vec<String>,
}

/// Why an archive is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArchive {
    #[error("the archive has more than {} MiB", PACKED >> 20)]
    Packed,
    #[error("the archive has more than {} MiB unpacked", .0 >> 20)]
    Unpacked(usize),
    #[error("{0:?} in the archive has more than {1} bytes")]
    File(String, u64),
    #[error("the archive has more than {0} entries")]
    Entries(usize),
    #[error("this is no archive of a chart: that is a gzipped tar, as `helm package` makes it")]
    NotGzip,
    #[error("the archive cannot be read: {0}")]
    Broken(String),
    #[error("the archive has the path {0:?}, {1}")]
    Path(String, &'static str),
    #[error("{0:?} in the archive is {1}; a chart has files and folders alone")]
    Kind(String, &'static str),
    #[error("{0:?} in the archive is in no folder; all of a chart is in one with its name")]
    Outside(String),
    #[error("the archive has the folders {0:?} and {1:?}; all of a chart is in one")]
    Folders(String, String),
    #[error("{0:?} is in the archive twice")]
    Twice(String),
    #[error("there is no Chart.yaml in the archive's folder")]
    NoChart,
    #[error("Chart.yaml cannot be read: {0}")]
    Chart(String),
    #[error("the archive's folder is {folder:?} and the chart's name {name:?}; they are the same")]
    Name { folder: String, name: String },
    #[error("the chart's version {0:?} is no semantic version, such as 1.2.3")]
    Version(String),
}

/// Looks through an archive. Takes up to a second of computing: not for a thread that others
/// wait for.
pub fn inspect(bytes: &Bytes) -> Result<Archive, BadArchive> {
    inspect_within(bytes, &LIMITS)
}

fn inspect_within(bytes: &[u8], limits: &Limits) -> Result<Archive, BadArchive> {
    let mut found = Found::default();
    through(bytes, limits, |path, kind, size, content| {
        found.add(path, kind, size, content, limits)
    })?;
    let chart = found.chart.ok_or(BadArchive::NoChart)?;
    let metadata = metadata(&chart)?;
    let (name, version) = (scalar(&metadata, "name"), scalar(&metadata, "version"));
    if found.folder.as_deref() != Some(name.as_str()) {
        return Err(BadArchive::Name { folder: found.folder.unwrap_or_default(), name });
    }
    // As helm takes it, and as the catalogue does.
    if versions::order(&version).is_none() {
        return Err(BadArchive::Version(shown(&version)));
    }
    Ok(Archive {
        name,
        version,
        app_version: scalar(&metadata, "appVersion"),
        metadata,
        digest: hex(digest(&SHA256, bytes).as_ref()),
        readme: found.readme.as_deref().map(text),
        values: found.values.as_deref().map(text),
        schema: found.schema.as_deref().map(text),
        crds: found.crds,
        templates: found.templates,
    })
}

/// Hands over each file of an archive: its path within the chart, its size and its content. Where
/// the last one ends, in bytes of the tar.
pub(super) fn walk(
    bytes: &[u8],
    visit: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), BadArchive>,
) -> Result<u64, BadArchive> {
    Ok(walk_within(bytes, LIMITS.unpacked, visit)?.0)
}

/// As `walk`, with so many bytes of the tar at most; and how many of them are left.
pub(super) fn walk_within(
    bytes: &[u8],
    unpacked: usize,
    mut visit: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), BadArchive>,
) -> Result<(u64, usize), BadArchive> {
    through(bytes, &Limits { unpacked, ..LIMITS }, |path, kind, size, content| {
        let path = checked(path, kind)?;
        if size > LIMITS.file {
            return Err(BadArchive::File(shown(path), LIMITS.file));
        }
        match path.split_once('/') {
            Some((_, rest)) if kind == EntryType::Regular => visit(rest, size, content),
            _ => Ok(()),
        }
    })
}

/// All entries of an archive within its limits; where the last one ends, and what is left of the
/// bytes that it may have.
fn through(
    bytes: &[u8],
    limits: &Limits,
    visit: impl FnMut(&[u8], EntryType, u64, &mut dyn Read) -> Result<(), BadArchive>,
) -> Result<(u64, usize), BadArchive> {
    if bytes.len() > PACKED {
        return Err(BadArchive::Packed);
    }
    // Of gzip (RFC 1952, 2.3.1), with the one method of compression that there is.
    if !bytes.starts_with(&[0x1f, 0x8b, 0x08]) {
        return Err(BadArchive::NotGzip);
    }
    let unzipped = MultiGzDecoder::new(bytes);
    let mut reader = Bounded { inner: unzipped, left: limits.unpacked, over: false };
    let end = scan(&mut reader, limits, visit);
    if reader.over {
        return Err(BadArchive::Unpacked(limits.unpacked));
    }
    Ok((end?, reader.left))
}

/// Ends with an error where more comes than may.
struct Bounded<R> {
    inner: R,
    left: usize,
    over: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.left);
        if most == 0 && !into.is_empty() {
            self.over = true;
            return Err(io::Error::other("it is too large"));
        }
        let read = self.inner.read(&mut into[..most])?;
        self.left -= read;
        Ok(read)
    }
}

#[derive(Default)]
struct Found {
    folder: Option<String>,
    chart: Option<Vec<u8>>,
    readme: Option<Vec<u8>>,
    values: Option<Vec<u8>>,
    schema: Option<Vec<u8>>,
    crds: Vec<String>,
    templates: Vec<String>,
}

/// All entries, one after the other. Their extensions are read here and not by `tar`, which would
/// take any length of them into memory; one that nothing follows does not count.
fn scan(
    reader: impl Read,
    limits: &Limits,
    mut visit: impl FnMut(&[u8], EntryType, u64, &mut dyn Read) -> Result<(), BadArchive>,
) -> Result<u64, BadArchive> {
    let mut archive = tar::Archive::new(reader);
    let (mut end, mut long, mut is_extended, mut count) = (0, None, false, 0);
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        count += 1;
        if count > limits.entries {
            return Err(BadArchive::Entries(limits.entries));
        }
        let (kind, size) = (entry.header().entry_type(), entry.size());
        let is_odd = match kind {
            // Go takes no content of a folder, and forgets a name before a global header.
            EntryType::Directory => size > 0,
            EntryType::XGlobalHeader => long.is_some(),
            // Of two it forgets the first.
            EntryType::XHeader => std::mem::replace(&mut is_extended, true),
            _ => false,
        };
        if is_odd || is_ambiguous(entry.header()) {
            return Err(BadArchive::Broken("readers differ on what an entry of it is".into()));
        }
        let name = match kind {
            // `git archive` begins with one: it says the commit.
            EntryType::XGlobalHeader => continue,
            EntryType::GNULongName => Some(gnu_name(&extension(&mut entry, size)?)),
            EntryType::XHeader => pax_name(&extension(&mut entry, size)?)?,
            _ => {
                let path = long.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
                is_extended = false;
                // `tar` has seen to it that this is a number.
                end = entry.raw_file_position() + size.next_multiple_of(BLOCK);
                visit(&path, kind, size, &mut entry)?;
                continue;
            }
        };
        if let Some(name) = name
            && long.replace(name).is_some()
        {
            return Err(BadArchive::Broken("an entry has two long names".into()));
        }
    }
    Ok(end)
}

impl Found {
    fn add(
        &mut self,
        path: &[u8],
        kind: EntryType,
        size: u64,
        content: &mut dyn Read,
        limits: &Limits,
    ) -> Result<(), BadArchive> {
        let path = checked(path, kind)?;
        let (folder, rest) = path.split_once('/').unwrap_or((path, ""));
        if kind == EntryType::Regular && rest.is_empty() {
            return Err(BadArchive::Outside(shown(path)));
        }
        let known = self.folder.get_or_insert_with(|| folder.to_owned());
        if known.as_str() != folder {
            return Err(BadArchive::Folders(shown(known), shown(folder)));
        }
        if kind != EntryType::Regular {
            return Ok(());
        }
        let limit = if rest == "Chart.yaml" { CHART_YAML } else { limits.file };
        if size > limit {
            return Err(BadArchive::File(shown(path), limit));
        }
        let kept = match rest {
            "Chart.yaml" => &mut self.chart,
            "values.yaml" => &mut self.values,
            "values.schema.json" => &mut self.schema,
            _ if is_readme(rest) && self.readme.is_none() => &mut self.readme,
            _ => {
                if rest.starts_with("templates/") {
                    self.templates.push(rest.to_owned());
                } else if rest.starts_with("crds/") && is_manifest(rest) {
                    self.crds.push(rest.to_owned());
                }
                return Ok(());
            }
        };
        match kept.replace(whole(content, size)?) {
            Some(_) => Err(BadArchive::Twice(shown(path))),
            None => Ok(()),
        }
    }
}

/// The path of a file or folder, without a folder's slash, if it leads to nowhere else.
fn checked(path: &[u8], kind: EntryType) -> Result<&str, BadArchive> {
    let lossy = || shown(&String::from_utf8_lossy(path));
    let bad = |why| Err(BadArchive::Path(lossy(), why));
    match kind {
        EntryType::Regular | EntryType::Directory => {}
        EntryType::Symlink => return Err(BadArchive::Kind(lossy(), "a symbolic link")),
        EntryType::Link => return Err(BadArchive::Kind(lossy(), "a hard link")),
        EntryType::Char | EntryType::Block => return Err(BadArchive::Kind(lossy(), "a device")),
        EntryType::Fifo => return Err(BadArchive::Kind(lossy(), "a pipe")),
        _ => return Err(BadArchive::Kind(lossy(), "of an uncommon type")),
    }
    let Ok(text) = str::from_utf8(path) else { return bad("which is no UTF-8") };
    if text.starts_with('/') {
        return bad("which is absolute");
    }
    if text.len() > PATH {
        return bad("which is too long");
    }
    if text.contains(|c: char| c == '\\' || c.is_control()) {
        return bad("which has a backslash or a control character");
    }
    let folder = text.strip_suffix('/').filter(|_| kind == EntryType::Directory);
    let text = folder.unwrap_or(text);
    for part in text.split('/') {
        match part {
            ".." => return bad("which leads out of it"),
            "" | "." => return bad("which has an empty part"),
            part if part.len() == 2 && part.ends_with(':') => return bad("which names a drive"),
            _ => {}
        }
    }
    Ok(text)
}

/// Whether helm's reader may see another path in it: that is Go's (`readHeader` in archive/tar).
fn is_ambiguous(header: &Header) -> bool {
    let raw = header.as_bytes();
    let is_number = |field: &[u8]| {
        let digits = field.iter().take_while(|byte| (b'0'..=b'7').contains(*byte)).count();
        field[digits..].iter().all(|byte| matches!(byte, 0 | b' '))
    };
    match &raw[257..265] {
        // One of star has a shorter prefix.
        b"ustar\x0000" => raw[508..] == *b"tar\0",
        // What is no time there is a prefix.
        b"ustar  \0" => !is_number(&raw[345..357]) || !is_number(&raw[357..369]),
        other => other.starts_with(b"ustar\0"),
    }
}

fn extension(entry: &mut dyn Read, size: u64) -> Result<Vec<u8>, BadArchive> {
    if size > EXTENSION {
        return Err(BadArchive::Broken("an entry's extension is too large".into()));
    }
    whole(entry, size)
}

pub(super) fn whole(entry: &mut dyn Read, size: u64) -> Result<Vec<u8>, BadArchive> {
    let mut data = Vec::new();
    entry.take(size).read_to_end(&mut data).map_err(broken)?;
    if data.len() as u64 != size {
        return Err(BadArchive::Broken("it is cut off".into()));
    }
    Ok(data)
}

/// GNU's extension ends with a zero.
fn gnu_name(data: &[u8]) -> Vec<u8> {
    data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// The path in an extended header (POSIX pax). One that changes what the entry's content is, is
/// refused: readers differ there, and no chart needs it.
fn pax_name(data: &[u8]) -> Result<Option<Vec<u8>>, BadArchive> {
    let mut name = None;
    for record in PaxExtensions::new(data) {
        let record = record.map_err(broken)?;
        match record.key_bytes() {
            b"path" => name = Some(record.value_bytes().to_vec()),
            key if key == b"size" || key.starts_with(b"GNU.sparse.") => {
                return Err(BadArchive::Broken("an entry's extension changes its size".into()));
            }
            _ => {}
        }
    }
    Ok(name)
}

pub(super) fn metadata(chart: &[u8]) -> Result<Value, BadArchive> {
    metadata_within(chart, CHART_NODES, CHART_TEXT)
}

/// With so many nodes and bytes of text at most, once its aliases are followed.
pub(super) fn metadata_within(
    chart: &[u8],
    nodes: usize,
    letters: usize,
) -> Result<Value, BadArchive> {
    let metadata = yaml(&text(chart), nodes, letters).map_err(BadArchive::Chart)?;
    if !metadata.is_object() {
        return Err(BadArchive::Chart("it is no mapping with name and version".into()));
    }
    match scalar(&metadata, "apiVersion").as_str() {
        // Charts made for Helm 2 have none.
        "" | "v1" | "v2" => Ok(metadata),
        other => Err(BadArchive::Chart(format!(
            "its apiVersion is {:?}; v1 and v2 are known",
            shown(other)
        ))),
    }
}

/// YAML as helm reads it, where of a key that stands twice the last one counts; with so many nodes
/// and bytes of text at most, once its aliases are followed. Else in which line it is broken, and
/// how.
pub fn yaml(text: &str, nodes: usize, letters: usize) -> Result<Value, String> {
    // Depth is bounded by the parser's own budget.
    let options = || {
        serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            budget: serde_saphyr::budget! {
                max_total_scalar_bytes: letters,
                max_nodes: nodes,
            },
        }
    };
    let value = read(text, |text| serde_saphyr::from_str_with_options(text, options()));
    value.map_err(|error| reason(&error))
}

/// A value that is meant as text, though `1.10` without quotes is a number.
pub(super) fn scalar(metadata: &Value, key: &str) -> String {
    match metadata.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => String::new(),
    }
}

fn is_readme(path: &str) -> bool {
    ["readme.md", "readme.txt", "readme"].iter().any(|name| path.eq_ignore_ascii_case(name))
}

fn is_manifest(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|known| matches!(known.as_str(), "yaml" | "yml" | "json"))
}

/// A file's text, without a byte order mark.
fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data)).into_owned()
}

/// Somebody's name in a message.
fn shown(name: &str) -> String {
    name.chars().take(200).collect()
}

fn broken(error: io::Error) -> BadArchive {
    BadArchive::Broken(error.to_string())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
