//! What a repository has: its charts by name, each with its versions, newest first. Compact,
//! because it is kept for as long as the repository is: some 200 bytes a version.
//!
//! It fetches nothing and reads no format. Whoever reads one hands over entries; here they are
//! checked, cut to bounded lengths, brought into order and counted.

use std::cmp::Reverse;

use ahash::AHashMap;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::versions;

/// Versions of all charts of one repository. The largest known one, with everything that it ever
/// had, has some 40,000.
pub const VERSIONS: usize = 100_000;
/// Versions of one chart: the newest. One that is made anew with every commit has thousands, and
/// nobody goes back so far.
const CHART_VERSIONS: usize = 5_000;
/// Bytes of text of one repository. The largest known one takes a fifth of it.
const TEXT: usize = 48 << 20;
/// The longest name: helm's linter refuses longer ones.
const NAME: usize = 250;
/// Bytes kept of an app version, a keyword or a maintainer's name: a line.
const WORD: usize = 128;
/// Bytes kept of a description: a paragraph.
const DESCRIPTION: usize = 1024;
/// The longest address. A longer one is left out: half an address is none. Icons that are written
/// into the index as `data:` are much longer.
const ADDRESS: usize = 2048;
/// Keywords or maintainers of a chart.
const WORDS: usize = 32;
/// Addresses of a version: helm takes the first, the others are mirrors.
const ADDRESSES: usize = 4;

/// The charts of one repository, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    pub charts: Vec<Chart>,
}

/// A chart. What it says of itself is what its newest stable version says (the newest one, where
/// none is stable), as in `helm search`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chart {
    pub name: CompactString,
    /// Empty where there is none.
    pub description: Box<str>,
    pub home: Option<Box<str>>,
    pub icon: Option<Box<str>>,
    pub keywords: Box<[Box<str>]>,
    /// Names.
    pub maintainers: Box<[Box<str>]>,
    pub deprecated: bool,
    /// Newest first, and never empty.
    pub versions: Box<[Version]>,
}

/// A version of a chart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// As it is written, which may be `v1.2`.
    pub version: CompactString,
    /// Empty where there is none.
    pub app_version: CompactString,
    /// Seconds since 1970.
    pub created: Option<i64>,
    /// SHA-256 of the archive.
    #[serde(with = "hexadecimal")]
    pub digest: Option<[u8; 32]>,
    /// Where the archive is. Relative ones are relative to the repository's address.
    pub urls: Urls,
    pub deprecated: bool,
}

/// Some addresses, one a line in one piece of memory: nearly always there is one, and a list of them
/// would be a piece more for each version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls(Box<str>);

/// One version as its repository tells of it, unchecked and of any length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub version: String,
    pub app_version: String,
    pub description: String,
    pub home: String,
    pub icon: String,
    pub keywords: Vec<String>,
    pub maintainers: Vec<String>,
    pub created: Option<i64>,
    pub digest: Option<[u8; 32]>,
    pub urls: Vec<String>,
    pub deprecated: bool,
}

/// Why an entry is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("{0:?} is no name of a chart")]
    Name(String),
    #[error("the version {1:?} of chart {0:?} is no semantic version, such as 1.2.3")]
    Version(String, String),
    #[error(
        "the repository has more than {} versions of charts, or more than {} MiB of text about \
         them",
        VERSIONS,
        TEXT >> 20
    )]
    Full,
}

impl Catalogue {
    /// The chart of this name.
    pub fn find(&self, name: &str) -> Option<&Chart> {
        let found = self.charts.binary_search_by(|chart| chart.name.as_str().cmp(name));
        found.ok().and_then(|index| self.charts.get(index))
    }

    /// The version that is written so, or else one that means the same: `1.2.3` is `v1.2.3`.
    pub fn version(&self, name: &str, text: &str) -> Option<&Version> {
        self.find(name)?.version(text)
    }

    /// Versions of all charts.
    pub fn versions(&self) -> usize {
        self.charts.iter().map(|chart| chart.versions.len()).sum()
    }

    /// Bytes of text, about. All charts are gone through for it.
    pub fn text(&self) -> usize {
        let chart = |chart: &Chart| {
            let versions = chart.versions.iter().map(Version::text).sum::<usize>();
            chart.name.len() + chart.text() + versions
        };
        self.charts.iter().map(chart).sum()
    }

    /// This catalogue with one version more, or with that version replaced: after an upload, until
    /// the repository is read anew.
    pub fn with(&self, entry: &Entry) -> Result<Self, Rejected> {
        let (version, order) = checked(entry)?;
        if self.versions() >= VERSIONS {
            return Err(Rejected::Full);
        }
        let mut catalogue = self.clone();
        let name = entry.name.as_str();
        let found = catalogue.charts.binary_search_by(|chart| chart.name.as_str().cmp(name));
        let index = match found {
            Ok(index) => index,
            Err(index) => {
                let chart = Chart { name: name.into(), ..Chart::default() };
                catalogue.charts.insert(index, chart);
                index
            }
        };
        let Some(chart) = catalogue.charts.get_mut(index) else { return Ok(catalogue) };
        let mut versions = std::mem::take(&mut chart.versions).into_vec();
        versions.retain(|known| known.version != version.version);
        let newer = |known: &Version| versions::order(&known.version).is_some_and(|v| v > order);
        let place = versions.partition_point(newer);
        versions.insert(place, version);
        versions.truncate(CHART_VERSIONS);
        chart.versions = versions.into();
        if chart.best().is_some_and(|best| best.version == entry.version) {
            chart.tell(entry);
        }
        Ok(catalogue)
    }

    /// This catalogue without a version: after a deletion, until the repository is read anew.
    pub fn without(&self, name: &str, version: &str) -> Self {
        let mut catalogue = self.clone();
        if let Some(chart) = catalogue.charts.iter_mut().find(|chart| chart.name == name) {
            let mut versions = std::mem::take(&mut chart.versions).into_vec();
            versions.retain(|known| known.version != version);
            chart.versions = versions.into();
        }
        catalogue.charts.retain(|chart| !chart.versions.is_empty());
        catalogue
    }
}

impl Chart {
    pub fn latest(&self) -> Option<&Version> {
        self.versions.first()
    }

    /// The newest version that is no prerelease.
    pub fn latest_stable(&self) -> Option<&Version> {
        self.versions.iter().find(|version| versions::is_stable(&version.version))
    }

    /// The newest stable version, or the newest where none is stable.
    pub fn best(&self) -> Option<&Version> {
        self.latest_stable().or_else(|| self.latest())
    }

    /// The version that is written just so.
    pub fn written(&self, text: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.version == text)
    }

    /// The version that is written so, or else one that means the same. Builds have no say in the
    /// order of versions, but another build is another archive.
    pub fn version(&self, text: &str) -> Option<&Version> {
        self.written(text).or_else(|| {
            let wanted = (versions::order(text)?, build(text));
            let same = |version: &&Version| {
                let text = version.version.as_str();
                versions::order(text).is_some_and(|order| (order, build(text)) == wanted)
            };
            self.versions.iter().find(same)
        })
    }

    /// Takes over what an entry says of its chart.
    fn tell(&mut self, entry: &Entry) {
        self.description = cut(&entry.description, DESCRIPTION).into();
        self.home = address(&entry.home).map(Into::into);
        self.icon = address(&entry.icon).map(Into::into);
        self.keywords = words(&entry.keywords);
        self.maintainers = words(&entry.maintainers);
        self.deprecated = entry.deprecated;
    }

    /// Bytes of what `tell` takes over.
    fn text(&self) -> usize {
        let lists = self.keywords.iter().chain(self.maintainers.iter()).map(|word| word.len() + 16);
        let addresses = self.home.iter().chain(&self.icon).map(|address| address.len());
        self.description.len() + addresses.sum::<usize>() + lists.sum::<usize>()
    }
}

impl Version {
    fn text(&self) -> usize {
        let urls = self.urls.iter().map(|url| url.len() + 16).sum::<usize>();
        self.version.len() + self.app_version.len() + urls
    }
}

impl Urls {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split('\n').filter(|url| !url.is_empty())
    }

    /// The one that helm takes; the others are mirrors.
    pub fn first(&self) -> Option<&str> {
        self.iter().next()
    }
}

/// Line breaks within an address are left out, as whoever resolves one does.
impl<S: AsRef<str>> FromIterator<S> for Urls {
    fn from_iter<I: IntoIterator<Item = S>>(urls: I) -> Self {
        let mut text = String::new();
        for url in urls {
            if !text.is_empty() {
                text.push('\n');
            }
            text.extend(url.as_ref().split('\n'));
        }
        Self(text.into())
    }
}

/// Takes entries in any order and makes a catalogue of them.
#[derive(Debug, Default)]
pub struct Builder {
    /// Where in `charts` the chart of a name is.
    places: AHashMap<CompactString, usize>,
    charts: Vec<Building>,
    versions: usize,
    text: usize,
}

#[derive(Debug)]
struct Building {
    /// Without versions until the end.
    chart: Chart,
    /// Whether the version that `chart` tells of is stable, and its precedence.
    told: Option<(bool, semver::Version)>,
    versions: Vec<Version>,
}

impl Builder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a version. One that is rejected leaves all as it was; of one that comes twice the
    /// first counts.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Rejected> {
        let (version, order) = checked(entry)?;
        let text = version.text();
        // What a chart tells is counted when it is told; until then there is room for one.
        if self.versions >= VERSIONS || self.text + text > TEXT {
            return Err(Rejected::Full);
        }
        let place = match self.places.get(entry.name.as_str()) {
            Some(place) => *place,
            None => {
                let name = CompactString::from(entry.name.as_str());
                self.text += name.len();
                self.places.insert(name.clone(), self.charts.len());
                // In an index all of a chart stand together: what their list has grown too large
                // is given back while the next chart can use it. Once for each, at most.
                if let Some(before) = self.charts.last_mut() {
                    before.versions.shrink_to_fit();
                }
                let chart = Chart { name, ..Chart::default() };
                self.charts.push(Building { chart, told: None, versions: Vec::new() });
                self.charts.len() - 1
            }
        };
        let Some(building) = self.charts.get_mut(place) else { return Ok(()) };
        let rank = (order.pre.is_empty(), order);
        if building.told.as_ref().is_none_or(|told| rank > *told) {
            self.text -= building.chart.text();
            building.chart.tell(entry);
            self.text += building.chart.text();
            building.told = Some(rank);
        }
        building.versions.push(version);
        self.versions += 1;
        self.text += text;
        Ok(())
    }

    /// Brings all into order. With how many versions were left out: the oldest of charts that have
    /// too many.
    pub fn finish_counted(self) -> (Catalogue, usize) {
        drop(self.places);
        let mut left_out = 0;
        let finish = |building: Building| building.finish(&mut left_out);
        let mut charts: Vec<Chart> = self.charts.into_iter().map(finish).collect();
        charts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        charts.shrink_to_fit();
        (Catalogue { charts }, left_out)
    }
}

impl Building {
    fn finish(mut self, left_out: &mut usize) -> Chart {
        // Of those that are equal the first stays the first.
        let key = |one: &Version| Reverse((versions::order(&one.version), one.version.clone()));
        self.versions.sort_by_cached_key(key);
        self.versions.dedup_by(|second, first| second.version == first.version);
        *left_out += self.versions.len().saturating_sub(CHART_VERSIONS);
        self.versions.truncate(CHART_VERSIONS);
        self.chart.versions = self.versions.into();
        self.chart
    }
}

/// The build metadata of a version, if it has any.
fn build(version: &str) -> Option<&str> {
    version.split_once('+').map(|(_, build)| build)
}

/// What is kept of an entry for its version, and that version's precedence.
fn checked(entry: &Entry) -> Result<(Version, semver::Version), Rejected> {
    if !is_name(&entry.name) {
        return Err(Rejected::Name(cut(&entry.name, WORD).to_owned()));
    }
    let order = versions::order(&entry.version).ok_or_else(|| {
        Rejected::Version(entry.name.clone(), cut(&entry.version, WORD).to_owned())
    })?;
    let version = Version {
        version: entry.version.as_str().into(),
        app_version: cut(&entry.app_version, WORD).into(),
        created: entry.created,
        digest: entry.digest,
        urls: entry.urls.iter().filter_map(|url| address(url)).take(ADDRESSES).collect(),
        deprecated: entry.deprecated,
    };
    Ok((version, order))
}

/// Letters, digits, `.`, `_` and `-`, as helm's linter wants it; and, in a registry, several such
/// parts with slashes between them.
fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(letter);
    name.len() <= NAME && name.split('/').all(part)
}

/// The beginning of a text, whole characters.
fn cut(text: &str, most: usize) -> &str {
    let text = text.trim();
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

fn address(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= ADDRESS).then_some(text)
}

fn words(all: &[String]) -> Box<[Box<str>]> {
    let words = all.iter().map(|word| cut(word, WORD)).filter(|word| !word.is_empty());
    words.take(WORDS).map(Into::into).collect()
}

/// A SHA-256 as index files have it: 64 hexadecimal digits, in a few with `sha256:` before them.
pub fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim();
    let digits = digits.strip_prefix("sha256:").unwrap_or(digits).as_bytes();
    let mut digest = [0; 32];
    if digits.len() != 2 * digest.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// A digest as hexadecimal text, or null.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::super::hex;
    use super::sha256;

    pub fn serialize<S: Serializer>(
        digest: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        digest.map(|digest| hex(&digest)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.and_then(|text| sha256(&text)))
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
