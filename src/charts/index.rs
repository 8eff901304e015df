//! A repository's `index.yaml` (or the same as JSON), read as a stream into a catalogue's builder:
//! one entry in memory at a time, however long the document is.
//!
//! It fetches nothing and judges no chart. As in helm (pkg/repo/v1/index.go, `loadIndex`) an entry
//! that is broken is left out, and a document that is broken is refused as a whole.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};

use jiff::Timestamp;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::catalogue::{Builder, Entry, Rejected, sha256};
use super::index_yaml::Yaml;

/// Bytes of an index. The largest known one, with everything that was ever in it, has 140 MB.
const DOCUMENT: u64 = 256 << 20;
/// Bytes from one key or value that is kept to the next. All of a chart's annotations, its change
/// log among them, have some 100 KiB.
const APART: u64 = 4 << 20;
/// Bytes in which the first two signs of a JSON document are.
const SNIFFED: u64 = 512;
/// Bytes kept of one text until the catalogue cuts it to its own length.
const TEXT: usize = 4096;
/// Texts kept of one list until the catalogue takes the first few.
const TEXTS: usize = 64;

/// What came of an index that could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries that were taken.
    pub versions: usize,
    /// Entries that were left out.
    pub skipped: usize,
    /// Why the first of them was.
    pub reason: Option<String>,
}

/// Why an index is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadIndex {
    #[error("the index cannot be read to its end: {0}")]
    Unreadable(#[source] io::Error),
    #[error("the index has more than {} MiB", DOCUMENT >> 20)]
    TooLarge,
    #[error("the index has a value of more than {} MiB", APART >> 20)]
    LongValue,
    #[error("the index is broken in line {line}: {words}")]
    Broken { line: usize, words: String },
    #[error("this is no index of charts: it has no `apiVersion`, as `helm repo index` writes it")]
    NoApiVersion,
    #[error(transparent)]
    Full(Rejected),
}

/// Reads an index to its end. What it adds to the builder is of use only if the whole was read.
pub fn read(reader: impl Read, sink: &mut Builder) -> Result<Summary, BadIndex> {
    let progress = Progress::default();
    let mut guard = Guard { inner: reader, progress: &progress };
    let mut reading =
        Reading { sink, progress: &progress, summary: Summary::default(), versioned: false };
    let read = document(&mut guard, &mut reading);
    let (summary, versioned) = (reading.summary, reading.versioned);
    // Whoever counts or hashes the bytes wants them all, and a body that breaks off wants to be
    // noticed though the document in it was over.
    if read.is_ok() && progress.failure.borrow().is_none() {
        drain(&mut guard);
    }
    if let Some(failure) = progress.failure.take() {
        return Err(failure);
    }
    read?;
    if versioned { Ok(summary) } else { Err(BadIndex::NoApiVersion) }
}

fn document(mut reader: impl Read, reading: &mut Reading<'_>) -> Result<(), BadIndex> {
    let mut start = Vec::new();
    // An error is remembered by the guard.
    let _ = reader.by_ref().take(SNIFFED).read_to_end(&mut start);
    if start.starts_with(b"\xef\xbb\xbf") {
        start.drain(..3);
    }
    let json = is_json(&start);
    let whole = Cursor::new(start).chain(reader);
    if json {
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(whole));
        let read = Document(reading).deserialize(&mut json).and_then(|()| json.end());
        return read.map_err(|error| {
            let words = error.to_string();
            let words = words.split(" at line ").next().unwrap_or_default().to_owned();
            BadIndex::Broken { line: error.line(), words }
        });
    }
    let read = Document(reading).deserialize(&mut Yaml::new(whole));
    read.map_err(|error| BadIndex::Broken { line: error.line, words: error.words })
}

/// YAML can begin with a brace, too, but not with the quote of a key after it.
fn is_json(start: &[u8]) -> bool {
    let mut signs = start.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
    signs.next() == Some(b'{') && matches!(signs.next(), Some(b'"' | b'}'))
}

fn drain(guard: &mut Guard<'_, impl Read>) {
    let mut buffer = [0; 4096];
    loop {
        guard.progress.since.set(0);
        match guard.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// How far reading has come, known to the reader below a parser and to the visitors above it.
#[derive(Default)]
struct Progress {
    /// Bytes in all.
    total: Cell<u64>,
    /// Bytes since something was kept.
    since: Cell<u64>,
    /// What ended it before its time. A parser would tell it in words of its own.
    failure: RefCell<Option<BadIndex>>,
}

/// Counts what a parser reads, and ends it where there is too much.
struct Guard<'p, R> {
    inner: R,
    progress: &'p Progress,
}

impl<R: Read> Read for Guard<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let progress = self.progress;
        let failure = match self.inner.read(into) {
            Ok(read) => {
                let read_now = u64::try_from(read).unwrap_or(u64::MAX);
                progress.total.set(progress.total.get().saturating_add(read_now));
                progress.since.set(progress.since.get().saturating_add(read_now));
                if progress.total.get() > DOCUMENT {
                    BadIndex::TooLarge
                } else if progress.since.get() > APART {
                    BadIndex::LongValue
                } else {
                    return Ok(read);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => BadIndex::Unreadable(error),
        };
        progress.failure.borrow_mut().get_or_insert(failure);
        Err(io::Error::other("it ends here"))
    }
}

/// What the visitors share.
struct Reading<'r> {
    sink: &'r mut Builder,
    progress: &'r Progress,
    summary: Summary,
    /// Whether the document has an apiVersion.
    versioned: bool,
}

impl Reading<'_> {
    fn skip(&mut self, why: impl FnOnce() -> String) {
        self.summary.skipped += 1;
        self.summary.reason.get_or_insert_with(why);
    }

    /// Only a catalogue that is full is an error.
    fn add<E: Error>(&mut self, chart: &str, mut entry: Entry) -> Result<(), E> {
        self.progress.since.set(0);
        // Charts are looked up by their key, as in helm, and it wants a name beside.
        if !entry.name.is_empty() {
            entry.name.clear();
            entry.name.push_str(chart);
        }
        // Only registries have parts of a name with slashes between them.
        let added = if entry.name.contains('/') {
            Err(Rejected::Name(shown(&entry.name)))
        } else {
            self.sink.add(&entry)
        };
        match added {
            Ok(()) => self.summary.versions += 1,
            Err(full @ Rejected::Full) => {
                self.progress.failure.borrow_mut().get_or_insert(BadIndex::Full(full));
                return Err(E::custom("it is too large"));
            }
            Err(why) => self.skip(|| format!("chart {:?}: {why}", shown(chart))),
        }
        Ok(())
    }
}

/// What stands where something else was expected is read as its text.
macro_rules! scalars {
    () => {
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            self.visit_str("")
        }

        fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
            self.visit_str(if value { "true" } else { "false" })
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
            self.visit_str(&value.to_string())
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
            self.visit_str(&value.to_string())
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
            self.visit_str(&value.to_string())
        }
    };
}

/// A seed that is its own visitor, for a value of any type.
macro_rules! seed {
    ($seed:ty, $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<$value, D::Error> {
                from.deserialize_any(self)
            }
        }
    };
}

/// The whole document.
struct Document<'a, 'r>(&'a mut Reading<'r>);
/// The value of `entries`.
struct Entries<'a, 'r>(&'a mut Reading<'r>);
/// The versions of one chart.
struct Versions<'a, 'r>(&'a mut Reading<'r>, &'a str);
/// One of them.
struct OneEntry<'a, 'r>(&'a mut Reading<'r>, &'a str);
/// A text, or the name of something that has one; all else is empty.
#[derive(Clone, Copy)]
struct Text<'r>(&'r Progress);
/// Several.
struct Texts<'r>(&'r Progress);

seed!(Document<'_, '_>, ());
seed!(Entries<'_, '_>, ());
seed!(Versions<'_, '_>, ());
seed!(OneEntry<'_, '_>, ());
seed!(Text<'_>, String);
seed!(Texts<'_>, Vec<String>);

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a mapping with apiVersion and entries")
    }

    scalars!();

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom("it is no mapping with apiVersion and entries"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let text = Text(self.0.progress);
        while let Some(key) = map.next_key_seed(text)? {
            match key.as_str() {
                "apiVersion" => self.0.versioned = !map.next_value_seed(text)?.is_empty(),
                "entries" => map.next_value_seed(Entries(&mut *self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a mapping of charts to their versions")
    }

    scalars!();

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.is_empty() { Ok(()) } else { Err(E::custom("its entries are no mapping")) }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(chart) = map.next_key_seed(Text(self.0.progress))? {
            map.next_value_seed(Versions(&mut *self.0, &chart))?;
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Versions<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of a chart's versions")
    }

    scalars!();

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if !text.is_empty() {
            self.0.skip(|| format!("chart {:?} has no list of versions", shown(self.1)));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(OneEntry(&mut *self.0, self.1))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.visit_str("a mapping")
    }
}

impl<'de> Visitor<'de> for OneEntry<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a version of a chart")
    }

    scalars!();

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.0.skip(|| format!("an entry of chart {:?} is no mapping", shown(self.1)));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.visit_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let text = Text(self.0.progress);
        let texts = || Texts(text.0);
        let mut entry = Entry::default();
        while let Some(key) = map.next_key_seed(text)? {
            match key.as_str() {
                "name" => entry.name = map.next_value_seed(text)?,
                "version" => entry.version = map.next_value_seed(text)?,
                "appVersion" => entry.app_version = map.next_value_seed(text)?,
                "description" => entry.description = map.next_value_seed(text)?,
                "home" => entry.home = map.next_value_seed(text)?,
                "icon" => entry.icon = map.next_value_seed(text)?,
                "keywords" => entry.keywords = map.next_value_seed(texts())?,
                "maintainers" => entry.maintainers = map.next_value_seed(texts())?,
                "urls" => entry.urls = map.next_value_seed(texts())?,
                "created" => entry.created = seconds(&map.next_value_seed(text)?),
                "digest" => entry.digest = sha256(&map.next_value_seed(text)?),
                "deprecated" => {
                    entry.deprecated = map.next_value_seed(text)?.eq_ignore_ascii_case("true");
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.0.add(self.1, entry)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a text")
    }

    scalars!();

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        self.0.since.set(0);
        let mut end = text.len().min(TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Ok(text.get(..end).unwrap_or_default().to_owned())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<String, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(String::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let mut name = String::new();
        while let Some(key) = map.next_key_seed(self)? {
            match key.as_str() {
                "name" => name = map.next_value_seed(self)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(name)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = Vec<String>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of texts")
    }

    scalars!();

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
        let one = Text(self.0).visit_str::<E>(text)?;
        Ok(if one.is_empty() { Vec::new() } else { vec![one] })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element_seed(Text(self.0))? {
            if texts.len() < TEXTS && !text.is_empty() {
                texts.push(text);
            }
        }
        Ok(texts)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Vec::new())
    }
}

/// Seconds since 1970 of a time as in RFC 3339.
pub(super) fn seconds(text: &str) -> Option<i64> {
    text.trim().parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// Somebody's name in a message.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
