//! Search in one catalogue: by name, keywords, description and maintainers, ranked, forgiving of
//! typos. Registries have none of their own, and index files are no help.
//!
//! One pass over copies of the texts in plain letters, made once for each catalogue; no index, no
//! stemming. Scores say how well a chart fits whatever else there is, so that those of several
//! catalogues merge.

use std::cmp::Reverse;

use super::catalogue::{Catalogue, Chart};

/// How well a text fits: a better place is worth more than any number of worse ones.
const EXACT: u32 = 1_000;
const PREFIX: u32 = 800;
/// The beginning of a word within the name.
const PART: u32 = 700;
const INNER: u32 = 600;
const KEYWORD: u32 = 400;
const IN_KEYWORD: u32 = 300;
const TEXT: u32 = 200;
/// A word that was meant, in the name or among the keywords.
const MEANT: u32 = 100;
const MEANT_KEYWORD: u32 = 50;
/// What a score is counted in, so that of two charts that fit as well the shorter name wins.
const NEARER: u32 = 100;

/// Characters of one field that are searched: an entry costs a few hundred bytes, whatever an index
/// says of it.
const SEARCHED: usize = 500;
/// Characters and words of a question: nobody types more, and each word costs a pass.
const ASKED: usize = 200;
const WORDS: usize = 8;
/// Letters from which one typo, and two, are forgiven: with fewer, most words are near each other.
const ONE_TYPO: usize = 4;
const TWO_TYPOS: usize = 8;

/// What can be found of a catalogue, in the order of its charts.
#[derive(Debug, Default)]
pub struct Search(Box<[Entry]>);

/// The texts of a chart as [`plain`] has them.
#[derive(Debug)]
struct Entry {
    name: Box<str>,
    /// One a line.
    keywords: Box<str>,
    /// Description and maintainers.
    rest: Box<str>,
}

/// A word of the question, with what is needed to look for its like.
struct Wanted<'w> {
    text: &'w str,
    letters: Vec<char>,
    typos: usize,
    mask: u32,
}

impl Search {
    pub fn new(catalogue: &Catalogue) -> Self {
        Self(catalogue.charts.iter().map(Entry::of_chart).collect())
    }

    /// Positions of the charts that fit all the words, and their scores; the best comes first.
    pub fn find(&self, words: &str) -> Vec<(usize, u32)> {
        let phrase = plain(words, ASKED);
        let wanted: Vec<&str> = phrase.split(' ').filter(|word| !word.is_empty()).collect();
        let wanted = wanted.get(..WORDS).unwrap_or(&wanted);
        if wanted.is_empty() {
            return Vec::new();
        }
        let fits: Vec<Vec<u32>> = wanted.iter().map(|word| self.fits(word)).collect();
        let count = u32::try_from(wanted.len()).unwrap_or(1);
        let score = |index: usize, entry: &Entry| {
            let each = || fits.iter().filter_map(move |fits| fits.get(index).copied());
            if each().any(|fit| fit == 0) {
                return 0;
            }
            (each().sum::<u32>() / count).max(entry.fit(&phrase))
        };
        let mut found: Vec<(usize, u32)> = Vec::new();
        for (index, entry) in self.0.iter().enumerate() {
            let score = score(index, entry);
            if score > 0 {
                found.push((index, score * NEARER + entry.nearness()));
            }
        }
        found.sort_by_key(|&(index, score)| (Reverse(score), index));
        found
    }

    /// How well each chart fits a word; 0 for not at all. Typos are looked for only where nothing
    /// is called so.
    fn fits(&self, word: &str) -> Vec<u32> {
        let mut fits: Vec<u32> = self.0.iter().map(|entry| entry.fit(word)).collect();
        let wanted = Wanted::of(word);
        if wanted.typos > 0 && fits.iter().all(|fit| *fit < IN_KEYWORD) {
            for (fit, entry) in fits.iter_mut().zip(&self.0) {
                *fit = (*fit).max(entry.meant(&wanted));
            }
        }
        fits
    }
}

impl Entry {
    fn of_chart(chart: &Chart) -> Self {
        let keywords = chart.keywords.iter().map(|word| &**word);
        let maintainers = chart.maintainers.iter().map(|name| &**name);
        Self::of(&chart.name, keywords, &chart.description, maintainers)
    }

    fn of<'a>(
        name: &str,
        keywords: impl Iterator<Item = &'a str>,
        description: &str,
        maintainers: impl Iterator<Item = &'a str>,
    ) -> Self {
        let rest = plain(description, SEARCHED) + "\n" + &lines(maintainers);
        Self {
            name: plain(name, SEARCHED).into(),
            keywords: lines(keywords).into(),
            rest: rest.into(),
        }
    }

    /// How well it fits a text as it stands; 0 for not at all.
    fn fit(&self, text: &str) -> u32 {
        match self.name.find(text) {
            Some(0) if self.name.len() == text.len() => return EXACT,
            Some(0) => return PREFIX,
            Some(_) if self.name.match_indices(text).any(|(at, _)| self.begins_word(at)) => {
                return PART;
            }
            Some(_) => return INNER,
            None => {}
        }
        if self.keywords.lines().any(|line| line == text) {
            KEYWORD
        } else if self.keywords.contains(text) {
            IN_KEYWORD
        } else if self.rest.contains(text) {
            TEXT
        } else {
            0
        }
    }

    /// The shorter the name, the nearer it is to what was typed.
    fn nearness(&self) -> u32 {
        u32::try_from(self.name.len()).map_or(0, |length| (NEARER - 1).saturating_sub(length))
    }

    fn begins_word(&self, at: usize) -> bool {
        at.checked_sub(1).is_some_and(|before| self.name.as_bytes().get(before) == Some(&b' '))
    }

    /// How well it fits what may have been meant by a word; 0 for not at all.
    fn meant(&self, wanted: &Wanted) -> u32 {
        if self.name.split(' ').any(|word| wanted.is_like(word)) {
            MEANT
        } else if self.keywords.split([' ', '\n']).any(|word| wanted.is_like(word)) {
            MEANT_KEYWORD
        } else {
            0
        }
    }
}

impl<'w> Wanted<'w> {
    fn of(text: &'w str) -> Self {
        let letters: Vec<char> = text.chars().collect();
        let typos = match letters.len() {
            TWO_TYPOS.. => 2,
            ONE_TYPO.. => 1,
            _ => 0,
        };
        Self { text, letters, typos, mask: mask(text) }
    }

    /// Whether no more typos than are forgiven lie between them.
    fn is_like(&self, word: &str) -> bool {
        // A letter has four bytes at most, and a typo changes two letters of the alphabet at most:
        // nearly all words end here.
        let far = word.len().abs_diff(self.text.len()) > 4 * self.typos
            || (mask(word) ^ self.mask).count_ones() as usize > 2 * self.typos;
        !far && is_near(&self.letters, &word.chars().collect::<Vec<_>>(), self.typos)
    }
}

/// Which letters a word has, 32 of the alphabet told apart.
fn mask(word: &str) -> u32 {
    word.chars().fold(0, |mask, letter| mask | (1u32 << (u32::from(letter) % 32)))
}

/// Whether `most` typos lie between two words: a letter too many, too few or wrong, or two
/// neighbours exchanged (optimal string alignment).
fn is_near(a: &[char], b: &[char], most: usize) -> bool {
    if a.len().abs_diff(b.len()) > most {
        return false;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let wrong = last[j] + usize::from(x != y);
            let mut least = wrong.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        if row.iter().all(|typos| *typos > most) {
            return false;
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().is_some_and(|typos| *typos <= most)
}

/// Each of them as [`plain`] has it, until there is enough.
fn lines<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut lines = String::new();
    for text in texts {
        if lines.len() >= SEARCHED {
            break;
        }
        lines.push_str(&plain(text, ASKED));
        lines.push('\n');
    }
    lines
}

/// Letters and digits in lower case, words one blank apart, of the first `most` characters.
fn plain(text: &str, most: usize) -> String {
    let mut plain = String::with_capacity(text.len().min(most));
    for letter in text.chars().take(most) {
        if letter.is_alphanumeric() {
            plain.extend(letter.to_lowercase());
        } else if !plain.is_empty() && !plain.ends_with(' ') {
            plain.push(' ');
        }
    }
    plain.truncate(plain.trim_end().len());
    plain
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
