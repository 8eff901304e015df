//! The objects of a release's manifest: YAML documents as Helm stores them, each with the template
//! that it came from, and secret values hidden for those who compare objects.
//!
//! It asks nobody and judges no schema; a document that is no object costs itself alone.

use std::sync::LazyLock;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use super::room::weight;
use crate::yaml;

/// Objects of one manifest; a release of more has its record split into charts long before, since
/// all of it must fit into one Secret of a MiB.
const OBJECTS: usize = 2_000;
/// Bytes of one manifest that are read, and of the JSON that is kept of it: a record takes a MiB
/// packed, and manifests shrink to a tenth.
const TEXT: usize = 8 << 20;
/// Keys, values, lists and maps of one document once its aliases are followed, as is usual with the
/// parser: its tree takes 60 MiB at worst. The largest definitions of kinds have some 60,000. Short
/// documents have fewer, or many of them would be read for minutes.
const NODES: usize = 250_000;
/// Documents that are told to be unreadable; after so many the rest will not be better.
const UNREADABLE: usize = 50;
/// Bytes of a digest that are shown: enough to tell values apart.
const SHOWN: usize = 6;

/// For digests of secret values: random, so that nobody can try out what they are of.
static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    let mut seed = [0; 32];
    // It fails only where nothing random can be had, and then TLS does not start either.
    let _ = rand::fill(&mut seed);
    hmac::Key::new(hmac::HMAC_SHA256, &seed)
});

/// One object of a manifest, kept as text: trees are made one at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub api_version: String,
    pub kind: String,
    /// As written; of a namespaced kind `None` means the release's own.
    pub namespace: Option<String>,
    pub name: String,
    /// Path of the template within its chart (`# Source:`).
    pub source: Option<String>,
    json: Box<str>,
    weight: usize,
}

impl Object {
    /// # Errors
    /// The field that is missing.
    fn of(value: &Value, source: Option<&str>) -> Result<Self, &'static str> {
        let field = |pointer: &str| {
            let text = value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Ok(Self {
            api_version: field("/apiVersion").ok_or("apiVersion")?,
            kind: field("/kind").ok_or("kind")?,
            name: field("/metadata/name").ok_or("metadata.name")?,
            namespace: field("/metadata/namespace"),
            source: source.map(str::to_owned),
            json: value.to_string().into(),
            weight: weight(value),
        })
    }

    /// Its tree; null where it nests so deep that no API server would take it.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap_or_default()
    }

    /// Bytes that its tree takes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(self.api_version.as_str(), |(_, version)| version)
    }
}

/// The manifest's objects in its order, those of lists one by one, and a sentence for each document
/// that is none. The sentences hold nothing of what the documents say. Each document's tree is
/// dropped before the next one is read.
pub fn objects(manifest: &str) -> (Vec<Object>, Vec<String>) {
    let (mut objects, mut unreadable) = (Vec::new(), Vec::new());
    let (mut text, mut json) = (TEXT, TEXT);
    let documents = documents(manifest).filter(|(_, document)| !is_blank(document));
    'all: for (read, (line, document)) in documents.enumerate() {
        let is_full = read == OBJECTS || objects.len() >= OBJECTS || document.len() > text;
        if is_full || unreadable.len() >= UNREADABLE {
            unreadable.push(left_out(line));
            break;
        }
        text -= document.len();
        let source = source(document);
        let at = source.map_or_else(|| format!("line {line}"), |of| format!("line {line}, {of}"));
        match values(document) {
            Err(Unread::Line(within)) => {
                let line = line + within.saturating_sub(1);
                unreadable.push(format!("the document at {at} is not YAML: see line {line}"));
            }
            Err(Unread::Large) => unreadable.push(format!(
                "the document at {at} is left out: one has at most {NODES} keys and values (a short \
                 one fewer, whatever its aliases repeat), {} MiB of text and 64 levels",
                TEXT >> 20
            )),
            Ok(values) => {
                for value in values {
                    if objects.len() >= OBJECTS {
                        unreadable.push(format!("of the list at {at} a part is left out"));
                        break;
                    }
                    match Object::of(&value, source) {
                        Ok(object) if object.json.len() > json => {
                            unreadable.push(left_out(line));
                            break 'all;
                        }
                        Ok(object) => {
                            json -= object.json.len();
                            objects.push(object);
                        }
                        Err(field) if unreadable.len() < UNREADABLE => {
                            unreadable.push(format!("the document at {at} has no {field}"));
                        }
                        Err(_) => break,
                    }
                }
            }
        }
    }
    (objects, unreadable)
}

fn left_out(line: usize) -> String {
    format!(
        "what follows line {line} is left out: of a manifest, {OBJECTS} objects and {} MiB are \
         read, and no more behind {UNREADABLE} documents that cannot be read",
        TEXT >> 20
    )
}

/// Each document with its first line's number. `---` at the start of a line ends a document
/// whatever stands around it (YAML 1.2, 9.1.2): a broken one does not take the others along.
fn documents(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut rest, mut line) = (manifest, 1);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (mut end, mut lines) = (0, 0);
        for one in rest.split_inclusive('\n') {
            if end > 0 && is_separator(one) {
                break;
            }
            end += one.len();
            lines += 1;
        }
        let (document, more) = rest.split_at(end);
        let first = line;
        (rest, line) = (more, line + lines);
        Some((first, document))
    })
}

fn is_separator(line: &str) -> bool {
    let after = line.strip_prefix("---");
    after.is_some_and(|after| after.is_empty() || after.starts_with(char::is_whitespace))
}

/// Nothing but separators, comments and space.
fn is_blank(document: &str) -> bool {
    document.lines().all(|line| {
        let text = if is_separator(line) { &line[3..] } else { line };
        let text = text.trim_start();
        text.is_empty() || text.starts_with('#')
    })
}

/// Helm writes it as the first line of each document.
fn source(document: &str) -> Option<&str> {
    let mut head = document.lines().take_while(|line| {
        is_separator(line) || line.starts_with('#') || line.trim_start().is_empty()
    });
    head.find_map(|line| line.strip_prefix("# Source: ")).map(str::trim_end)
}

/// Why a document is none; the parser's words may repeat what it holds.
enum Unread {
    /// Within the document, from 1.
    Line(usize),
    Large,
}

/// What a document holds: one value, those of a list, or nothing.
fn values(document: &str) -> Result<Vec<Value>, Unread> {
    // As the engine reads it: of a key that stands twice the last one counts, 0400 is octal, and the
    // key `on` is `true`.
    // Depth is bounded by the parser's own budget.
    let options = || {
        serde_saphyr::options! {
            legacy_octal_numbers: true,
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            with_snippet: false,
            budget: serde_saphyr::budget! {
                max_nodes: yaml::nodes(document, NODES),
                max_total_scalar_bytes: TEXT,
            },
        }
    };
    let documents = yaml::read(document, |document| {
        serde_saphyr::from_multiple_with_options(document, options())
    });
    let documents: Vec<Value> = documents.map_err(|error| {
        if yaml::is_too_large(&error) {
            return Unread::Large;
        }
        let line = error.location().map(|at| usize::try_from(at.line()).unwrap_or(1));
        Unread::Line(line.unwrap_or(1))
    })?;
    let mut all = Vec::new();
    for mut document in documents.into_iter().filter(|document| !document.is_null()) {
        let kind = document.get("kind").and_then(Value::as_str);
        let is_list = kind.is_some_and(|kind| kind.ends_with("List"));
        match document.get_mut("items") {
            Some(Value::Array(items)) if is_list => all.append(items),
            _ => all.push(document),
        }
    }
    Ok(all)
}

/// The object, but of a Secret each value is `***` with a digest that differs when the value does.
/// The digest is the same for `data` and `stringData`, and another after a restart. The copy of the
/// object that kubectl keeps in an annotation is for [`super::diff::comparable`] to take away.
pub fn masked(object: &Value) -> Value {
    let mut object = object.clone();
    if object.get("kind").and_then(Value::as_str) != Some("Secret") {
        return object;
    }
    for (part, is_encoded) in [("data", true), ("stringData", false)] {
        match object.get_mut(part) {
            None | Some(Value::Null) => {}
            Some(Value::Object(fields)) => {
                for (name, value) in fields.iter_mut() {
                    *value = hidden(name, value, is_encoded);
                }
            }
            Some(other) => *other = hidden(part, other, false),
        }
    }
    object
}

fn hidden(name: &str, value: &Value, is_encoded: bool) -> Value {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain = if is_encoded { STANDARD.decode(&text).ok() } else { None };
    let plain = plain.unwrap_or_else(|| text.into_bytes());
    let tag = hmac::sign(&KEY, &[name.as_bytes(), &[0], &plain].concat());
    let digest = tag.as_ref().iter().take(SHOWN);
    let digest: String = digest.map(|byte| format!("{byte:02x}")).collect();
    Value::String(format!("*** {digest}"))
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
