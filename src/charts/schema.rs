//! What the schemas of a chart's values refer to, before helm reads them: helm fetches every
//! document that a schema names, from any host and from the disk, past our own policy of addresses.
//!
//! It is no validator, and fetches nothing. A schema may refer to what `#…` leads to and to the
//! drafts that helm has in itself; anything else is refused, and so is `#…` where an id may lead it
//! away. That is more than what helm would fetch (github.com/santhosh-tekuri/jsonschema/v6 in helm
//! 3.18 and later, github.com/xeipuuv/gojsonschema in 3.17), but nothing that readers differ on.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tokio::sync::SemaphorePermit;
use tokio::task::{JoinError, spawn_blocking};

use super::archive::{self, BadArchive};

const FILE: &str = "values.schema.json";
/// Bytes that all packed charts in a chart have unpacked: as the chart itself.
const UNPACKED: usize = 100 << 20;
/// Charts that are packed into each other: real ones are two or three.
const DEPTH: usize = 8;
/// Helm strips it from the start of every file.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Below json-schema.org, as the library has them in itself (`draft.go`).
const DRAFTS: [&str; 6] = [
    "schema",
    "draft/2020-12/schema",
    "draft/2019-09/schema",
    "draft-07/schema",
    "draft-06/schema",
    "draft-04/schema",
];

/// Why a chart's schemas are not given to helm.
#[derive(Debug, thiserror::Error)]
pub enum BadSchema {
    #[error("a chart in it: {0}")]
    Archive(BadArchive),
    #[error("{0} cannot be read: {1}")]
    Unread(String, String),
    /// The file, and what it refers to.
    #[error("{0} refers to {1:?}, which is not within it")]
    Elsewhere(String, String),
    #[error("it could not be looked through: {0}")]
    BrokenOff(#[from] JoinError),
}

/// An error unless all that the schemas refer to is in them: those of the chart, which was looked
/// through before, and of the charts within it.
pub async fn closed(bytes: &Bytes, place: SemaphorePermit<'static>) -> Result<(), BadSchema> {
    let bytes = bytes.clone();
    // It goes on when nobody waits for it any more, so it has its place until it ends.
    spawn_blocking(move || {
        let _place = place;
        within(&bytes, "", DEPTH, &mut { UNPACKED })
    })
    .await?
}

/// All schemas of an archive, whose files are told as in `folder`. `left`: bytes that may still be
/// unpacked.
fn within(bytes: &[u8], folder: &str, depth: usize, left: &mut usize) -> Result<(), BadSchema> {
    if depth == 0 {
        let why = format!("more than {DEPTH} charts are packed into each other");
        return Err(BadSchema::Archive(BadArchive::Broken(why)));
    }
    let (most, mut found) = (*left, Ok(()));
    let walked = archive::walk_within(bytes, most, |path, size, content| {
        if found.is_ok() {
            let file = format!("{folder}{path}");
            found = match Part::of(path) {
                Part::Schema => read(&file, &archive::whole(content, size)?),
                Part::Chart => {
                    let packed = archive::whole(content, size)?;
                    let packed = packed.strip_prefix(MARK).unwrap_or(&packed);
                    within(packed, &format!("{file}/"), depth - 1, left)
                }
                Part::Other => Ok(()),
            };
        }
        Ok(())
    });
    found?;
    match walked {
        Ok((_, rest)) => *left = left.saturating_sub(most - rest),
        // Helm takes it for no chart, either.
        Err(BadArchive::NotGzip) if !folder.is_empty() => {}
        Err(BadArchive::Unpacked(_)) => {
            return Err(BadSchema::Archive(BadArchive::Unpacked(UNPACKED)));
        }
        Err(error) => return Err(BadSchema::Archive(error)),
    }
    Ok(())
}

/// What helm's loader takes a file of a chart for (`LoadFiles` of pkg/chart/v2/loader/load.go).
enum Part {
    Schema,
    Chart,
    Other,
}

impl Part {
    /// The path is that within the chart.
    fn of(path: &str) -> Self {
        let mut rest = path;
        while let Some(inner) = rest.strip_prefix("charts/") {
            match inner.split_once('/') {
                _ if inner.starts_with(['_', '.']) => return Self::Other,
                Some((_, below)) => rest = below,
                None if inner.ends_with(".tgz") => return Self::Chart,
                None => return Self::Other,
            }
        }
        if rest == FILE { Self::Schema } else { Self::Other }
    }
}

fn read(file: &str, text: &[u8]) -> Result<(), BadSchema> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    // It refers to nothing, and helm says itself what is wrong with it.
    if text.is_empty() {
        return Ok(());
    }
    match elsewhere(text) {
        Ok(None) => Ok(()),
        Ok(Some(reference)) => Err(BadSchema::Elsewhere(cut(file), cut(&reference))),
        Err(error) => Err(BadSchema::Unread(cut(file), error.to_string())),
    }
}

/// The first that may lead out of the document: a reference, or the id that makes it uncertain.
fn elsewhere(text: &[u8]) -> serde_json::Result<Option<String>> {
    let mut refused = None;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let look = Look { refused: &mut refused, is_root: true };
    let looked = look.deserialize(&mut reader).and_then(|_| reader.end());
    if refused.is_some() { Ok(refused) } else { looked.map(|()| None) }
}

/// Looks at a value while it is read. Of a key that stands twice both count, and every string that
/// could be a reference or an id is taken for one, wherever it stands. Depth is bounded by the
/// parser.
struct Look<'a> {
    refused: &'a mut Option<String>,
    is_root: bool,
}

/// What whoever stands above a value has to know of it.
#[derive(Default)]
struct Seen {
    /// It refers to `#…`, which starts from the ids above.
    refers: bool,
    /// It is this text.
    text: Option<String>,
}

impl Look<'_> {
    fn below(&mut self) -> Look<'_> {
        Look { refused: self.refused, is_root: false }
    }

    /// Ends the reading.
    fn refuse<E: Error>(self, what: String) -> Result<Seen, E> {
        *self.refused = Some(what);
        Err(E::custom("refused"))
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Seen, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Seen;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Seen, E> {
        Ok(Seen::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Seen, E> {
        Ok(Seen::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::default())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seen, E> {
        Ok(Seen { text: Some(text.to_owned()), refers: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Seen, A::Error> {
        let mut refers = false;
        while let Some(item) = items.next_element_seed(self.below())? {
            refers |= item.refers;
        }
        Ok(Seen { refers, text: None })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Seen, A::Error> {
        let (mut refers, mut id) = (false, None);
        while let Some(key) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(self.below())?;
            refers |= value.refers;
            let Some(text) = value.text else { continue };
            match key.as_str() {
                "$schema" if !is_draft(&text) => return self.refuse(text),
                "$ref" | "$dynamicRef" | "$recursiveRef" => {
                    let (address, _) = split(&text);
                    if !is_known(address) {
                        return self.refuse(text);
                    }
                    refers |= address.is_empty();
                }
                "$id" | "id" if leads_away(&text, self.is_root) => id = Some(text),
                _ => {}
            }
        }
        match id {
            Some(id) if refers => self.refuse(id),
            _ => Ok(Seen { refers, text: None }),
        }
    }
}

/// Address and fragment.
fn split(reference: &str) -> (&str, &str) {
    reference.split_once('#').unwrap_or((reference, ""))
}

/// Whether a `$schema` is one that helm need not fetch (`draftFromURL`).
fn is_draft(schema: &str) -> bool {
    let (address, fragment) = split(schema);
    let bare = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    let path = bare.unwrap_or(address).strip_prefix("json-schema.org/");
    schema.is_empty() || fragment.is_empty() && path.is_some_and(|path| DRAFTS.contains(&path))
}

/// Whether a reference to it asks nobody: it is the document itself, helm has it (`openMeta`), or it
/// is a name, of which helm fetches nothing (`urnLoader`).
fn is_known(address: &str) -> bool {
    let mut sites = ["http://json-schema.org/", "https://json-schema.org/"].into_iter();
    let path = sites.find_map(|site| address.strip_prefix(site));
    let is_draft = path.is_some_and(|path| DRAFTS.contains(&path));
    address.is_empty() || is_draft || address.starts_with("urn:")
}

/// Whether `#…` below this id may be somewhere else than in the document: helm looks for what it
/// found under its id, and it finds the ids of some places only. That of the document itself it
/// finds, but not where an address is not its own normal form (`http://host/a?` in Go).
fn leads_away(id: &str, is_root: bool) -> bool {
    let (address, fragment) = split(id);
    let is_plain = || fragment.is_empty() && (is_absolute(address) || is_path(address));
    !(address.is_empty() || is_root && is_plain())
}

/// Whether it is an address that everybody reads the same way, and that is its own normal form.
fn is_absolute(address: &str) -> bool {
    if let Some(name) = address.strip_prefix("urn:") {
        return !name.is_empty() && name.bytes().all(|byte| is_plain(byte) || byte == b':');
    }
    let schemes = ["http://", "https://", "file://"];
    let Some(rest) = schemes.iter().find_map(|scheme| address.strip_prefix(*scheme)) else {
        return false;
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    !rest.is_empty() && host.bytes().all(is_host) && is_path(path)
}

/// Whether it is a path, and nothing in it changes what is before.
fn is_path(path: &str) -> bool {
    path.bytes().all(|byte| is_plain(byte) || b"/@+ ".contains(&byte))
        && !path.contains("//")
        && path.split('/').all(|part| part != "." && part != "..")
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
