//! Words of closed sets in records of operations and in what is told of them, and how those are
//! read that a newer version of us has written.

use serde::{Deserialize, Serialize};

/// What is done to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Install,
    Upgrade,
    Rollback,
    Uninstall,
    Test,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    Running,
    Done,
    Failed,
}

/// A word of a set, or one that is none of ours: that is kept, told and written again as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word<T> {
    Known(T),
    Other(String),
}

impl Verb {
    pub const ALL: [Self; 5] =
        [Self::Install, Self::Upgrade, Self::Rollback, Self::Uninstall, Self::Test];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
            Self::Uninstall => "uninstall",
            Self::Test => "test",
        }
    }

    /// What an operation's id has for it behind the dot: so it is known of an operation that has
    /// left nothing but its id.
    pub const fn letter(self) -> char {
        match self {
            Self::Install => 'i',
            Self::Upgrade => 'g',
            Self::Rollback => 'b',
            Self::Uninstall => 'u',
            Self::Test => 't',
        }
    }

    pub fn of_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.letter() == letter)
    }
}

impl<T: PartialEq> Word<T> {
    pub fn is(&self, word: T) -> bool {
        matches!(self, Self::Known(known) if *known == word)
    }
}

impl Word<Verb> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(verb) => verb.as_str(),
            Self::Other(word) => word,
        }
    }
}

impl<T> From<T> for Word<T> {
    fn from(word: T) -> Self {
        Self::Known(word)
    }
}

/// Where a record does not say it.
impl<T> Default for Word<T> {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    fn again(word: &Value) -> Value {
        to_value(from_value::<Word<Verb>>(word.clone()).unwrap()).unwrap()
    }

    #[test]
    fn a_verb_is_written_as_it_is_called_and_has_a_letter_of_its_own() {
        for verb in Verb::ALL {
            assert_eq!(to_value(Word::Known(verb)).unwrap(), verb.as_str());
            let read: Word<Verb> = from_value(verb.as_str().into()).unwrap();
            assert!(read.is(verb) && read.as_str() == verb.as_str(), "{read:?}");
            assert_eq!(Verb::of_letter(verb.letter()), Some(verb));
        }
        assert_eq!(Verb::of_letter('x'), None);
    }

    #[test]
    fn a_word_that_is_none_of_ours_is_taken_for_no_other_and_stays_as_it_is() {
        for word in ["migrate", "Install", "install ", ""] {
            let read: Word<Verb> = from_value(word.into()).unwrap();
            assert!(Verb::ALL.iter().all(|verb| !read.is(*verb)), "{word}");
            assert_eq!((read.as_str(), again(&word.into())), (word, json!(word)));
        }
        assert_eq!(to_value(Word::<Progress>::default()).unwrap(), "");
        assert!(from_value::<Word<Verb>>(json!(1)).is_err());
    }
}
