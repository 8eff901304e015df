//! Versions and ranges as helm takes them: semantic versions with a forgiven `v` and forgiven
//! missing parts, and the constraints of github.com/Masterminds/semver/v3, operator by operator.
//!
//! Pure, and not the ranges of crates or npm: those differ in prereleases, `~1` and `^0`.

use semver::{BuildMetadata, Prerelease};

use super::catalogue::Version;

/// The longest version, as in Masterminds' `MaxVersionLen`.
const VERSION: usize = 256;
/// The longest range. People write some twenty letters.
const RANGE: usize = 1024;

/// The range is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version and no range of versions, such as 1.2.3, ~1.2, ^1 or >=1.2, <2")]
pub struct BadRange(String);

/// Where a version stands among others: without its build metadata, which has no say in that.
pub fn order(text: &str) -> Option<semver::Version> {
    let (parts, rest) = split(text)?;
    let mut numbers = [0; 3];
    let mut count = 0;
    for (number, part) in numbers.iter_mut().zip(parts.split('.')) {
        *number = digits(part)?;
        count += 1;
    }
    if parts.split('.').count() != count {
        return None;
    }
    let [major, minor, patch] = numbers;
    let (pre, build) = (prerelease(rest)?, BuildMetadata::EMPTY);
    Some(semver::Version { major, minor, patch, pre, build })
}

/// Whether this is a version, and no prerelease.
pub fn is_stable(text: &str) -> bool {
    order(text).is_some_and(|version| version.pre.is_empty())
}

/// The newest version in a range; `versions` has the newest first. A version that is written just
/// like the range goes before all, and an empty range is that of all stable versions, as in helm.
pub fn newest<'a>(versions: &'a [Version], range: &str) -> Option<&'a Version> {
    let range = range.trim();
    if let Some(exact) = versions.iter().find(|version| version.version == range) {
        return Some(exact);
    }
    let range = Range::parse(range).ok()?;
    versions.iter().find(|version| range.contains(&version.version))
}

/// A range of versions: one of several groups has to hold, and all of a group.
#[derive(Debug, Clone)]
pub struct Range(Vec<Vec<Comparator>>);

#[derive(Debug, Clone)]
struct Comparator {
    operator: Operator,
    /// With zeros for what is not told.
    than: semver::Version,
    told: Told,
}

/// Which parts a version in a range has. What is told after a part that is not, does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// `*`
    Nothing,
    /// `1`, `1.x`
    Major,
    /// `1.2`, `1.2.*`
    Minor,
    All,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Tilde,
    Caret,
}

/// Those that begin others stand behind them.
const OPERATORS: [(&str, Operator); 11] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterEqual),
    ("=>", Operator::GreaterEqual),
    ("<=", Operator::LessEqual),
    ("=<", Operator::LessEqual),
    ("~>", Operator::Tilde),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
];

impl Range {
    pub fn parse(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange(text.chars().take(100).collect());
        if text.len() > RANGE {
            return Err(bad());
        }
        let text = if text.trim().is_empty() { "*" } else { text };
        let groups: Option<Vec<_>> = text.split("||").map(group).collect();
        groups.map(Self).ok_or_else(bad)
    }

    /// Whether a version is in the range. A prerelease is only in a group that names one.
    pub fn contains(&self, version: &str) -> bool {
        let Some(version) = order(version) else { return false };
        self.0.iter().any(|group| {
            let prereleases = group.iter().any(|one| !one.than.pre.is_empty());
            (prereleases || version.pre.is_empty()) && group.iter().all(|one| one.holds(&version))
        })
    }
}

/// Comparators with spaces or commas between them; `1.2 - 1.4` is two of them.
fn group(text: &str) -> Option<Vec<Comparator>> {
    let mut group = Vec::new();
    let mut rest = text.trim();
    loop {
        let found = OPERATORS.iter().find(|(word, _)| rest.starts_with(word));
        let (word, operator) = found.copied().unwrap_or(("", Operator::Equal));
        let (version, after) = word_of(rest.strip_prefix(word)?.trim_start());
        let second = after.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace));
        rest = match second {
            Some(second) if word.is_empty() => {
                let (upper, after) = word_of(second.trim_start());
                group.push(comparator(Operator::GreaterEqual, version)?);
                group.push(comparator(Operator::LessEqual, upper)?);
                after
            }
            _ => {
                group.push(comparator(operator, version)?);
                after
            }
        };
        if rest.is_empty() {
            return Some(group);
        }
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

/// What stands before a space or comma, and what after the space.
fn word_of(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start())
}

fn comparator(operator: Operator, text: &str) -> Option<Comparator> {
    let (parts, rest) = split(text)?;
    let mut numbers = [None; 3];
    let mut count = 0;
    for (number, part) in numbers.iter_mut().zip(parts.split('.')) {
        *number = if matches!(part, "x" | "X" | "*") { None } else { Some(digits(part)?) };
        count += 1;
    }
    if parts.split('.').count() != count {
        return None;
    }
    let (told, [major, minor, patch]) = match numbers {
        [None, ..] => (Told::Nothing, [0, 0, 0]),
        [Some(major), None, _] => (Told::Major, [major, 0, 0]),
        [Some(major), Some(minor), None] => (Told::Minor, [major, minor, 0]),
        [Some(major), Some(minor), Some(patch)] => (Told::All, [major, minor, patch]),
    };
    let (pre, build) = (prerelease(rest)?, BuildMetadata::EMPTY);
    let than = semver::Version { major, minor, patch, pre, build };
    Some(Comparator { operator, than, told })
}

impl Comparator {
    fn holds(&self, version: &semver::Version) -> bool {
        let (than, told) = (&self.than, self.told);
        match self.operator {
            Operator::Equal if told == Told::All => version == than,
            Operator::Equal | Operator::Tilde => self.tilde(version),
            Operator::NotEqual => self.not_equal(version),
            Operator::GreaterEqual => version >= than,
            Operator::Less => version < than,
            // Nothing of 1 is greater than 1, and nothing of 1.2 greater than 1.2.
            Operator::Greater => match told {
                Told::Major => version.major > than.major,
                Told::Minor => (version.major, version.minor) > (than.major, than.minor),
                Told::Nothing | Told::All => version > than,
            },
            // All of 1 is less than or equal to 1.
            Operator::LessEqual => match told {
                Told::All => version <= than,
                Told::Major => version.major <= than.major,
                Told::Nothing | Told::Minor => {
                    (version.major, version.minor) <= (than.major, than.minor)
                }
            },
            Operator::Caret => self.caret(version),
        }
    }

    fn not_equal(&self, version: &semver::Version) -> bool {
        let than = &self.than;
        match self.told {
            Told::Nothing | Told::All => version != than,
            Told::Major => version.major != than.major,
            Told::Minor => {
                (version.major, version.minor) != (than.major, than.minor)
                    || version.pre != than.pre
            }
        }
    }

    fn tilde(&self, version: &semver::Version) -> bool {
        let than = &self.than;
        let zero = (than.major, than.minor, than.patch) == (0, 0, 0);
        version >= than
            && match self.told {
                // Masterminds takes `~0.0.0` for any version, too.
                Told::Nothing | Told::All if zero => true,
                Told::Major => version.major == than.major,
                _ => (version.major, version.minor) == (than.major, than.minor),
            }
    }

    fn caret(&self, version: &semver::Version) -> bool {
        let than = &self.than;
        let same_minor = (version.major, version.minor) == (than.major, than.minor);
        version >= than
            && match self.told {
                _ if than.major > 0 => version.major == than.major,
                Told::Major => version.major == than.major,
                Told::Minor => same_minor,
                _ if than.minor > 0 => same_minor,
                _ => same_minor && version.patch == than.patch,
            }
    }
}

/// The numbers of a version, with dots between them, and what follows them.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = (text.len() <= VERSION).then_some(text)?;
    let text = text.strip_prefix('v').unwrap_or(text);
    Some(text.split_at(text.find(['-', '+']).unwrap_or(text.len())))
}

/// A number. Zeros before it are forgiven.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Of `-rc.1+build.5`, whose parts must be well made.
fn prerelease(rest: &str) -> Option<Prerelease> {
    let (pre, build) = match rest.split_once('+') {
        Some((pre, build)) => (pre, Some(build)),
        None => (rest, None),
    };
    if let Some(build) = build
        && (build.is_empty() || BuildMetadata::new(build).is_err())
    {
        return None;
    }
    match pre.strip_prefix('-') {
        Some("") => None,
        Some(pre) => Prerelease::new(pre).ok(),
        None => Some(Prerelease::EMPTY),
    }
}

#[cfg(test)]
#[path = "versions_tests.rs"]
mod tests;
