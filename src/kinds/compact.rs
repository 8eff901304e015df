//! What every row has, in as little memory as it takes: uids and labels.
//!
//! Both tell exactly the text that they were made of. They check nothing: a uid may be any text.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// `metadata.uid`. A UUID as Kubernetes writes it takes 16 bytes and no memory of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uid(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Uuid([u8; 16]),
    /// Whatever else: upper-case letters as well, which would come back as lower-case ones.
    Text(Box<str>),
}

impl Uid {
    pub fn starts_with(&self, text: &str) -> bool {
        match &self.0 {
            Form::Uuid(bytes) => {
                let mut letters = letters(bytes);
                text.bytes().all(|letter| letters.next() == Some(letter))
            }
            Form::Text(own) => own.starts_with(text),
        }
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(uuid(text.as_bytes()).map_or_else(|| Form::Text(text.into()), Form::Uuid))
    }
}

impl PartialEq<str> for Uid {
    fn eq(&self, other: &str) -> bool {
        match &self.0 {
            Form::Uuid(bytes) => letters(bytes).eq(other.bytes()),
            Form::Text(own) => **own == *other,
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match &self.0 {
            Form::Uuid(bytes) => {
                letters(bytes).try_for_each(|letter| formatter.write_char(letter.into()))
            }
            Form::Text(own) => formatter.write_str(own),
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

/// The bytes of a UUID of lower-case letters in groups of 8, 4, 4, 4 and 12.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let (mut bytes, mut digits) = ([0_u8; 16], 0);
    for (at, letter) in text.iter().enumerate() {
        let digit = match letter {
            b'-' if matches!(at, 8 | 13 | 18 | 23) => continue,
            b'0'..=b'9' => letter - b'0',
            b'a'..=b'f' => letter - b'a' + 10,
            _ => return None,
        };
        // None where a hyphen is missing: there are more digits than bytes for them.
        let byte = bytes.get_mut(digits / 2)?;
        *byte = *byte << 4 | digit;
        digits += 1;
    }
    Some(bytes)
}

fn letters(uuid: &[u8; 16]) -> impl Iterator<Item = u8> {
    let letter = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
    uuid.iter().enumerate().flat_map(move |(at, byte)| {
        let hyphen = matches!(at, 4 | 6 | 8 | 10).then_some(b'-');
        hyphen.into_iter().chain([byte >> 4, byte & 15].map(letter))
    })
}

/// `metadata.labels`, in the order given: each key and each value with a NUL behind it. Those of
/// objects read one behind the other are the same memory where they are equal, as replicas' are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Option<Arc<str>>);

const END: char = '\0';

/// Most bytes of labels for which the memory they were written in is kept for the next.
const SCRATCH: usize = 16 << 10;

impl Labels {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut parts = self.text().split_terminator(END);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    fn text(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    /// Kubernetes takes no label with a NUL; one that has it is left out.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        thread_local! {
            static LAST: Cell<(String, Labels)> =
                const { Cell::new((String::new(), Labels(None))) };
        }
        let fits = |(key, value): &(&str, &str)| !key.contains(END) && !value.contains(END);
        let (mut text, last) = LAST.take();
        text.clear();
        for (key, value) in pairs.into_iter().filter(fits) {
            for part in [key, value] {
                text.push_str(part);
                text.push(END);
            }
        }
        let labels = if last.text() == text {
            last
        } else {
            Self((!text.is_empty()).then(|| Arc::from(text.as_str())))
        };
        if text.capacity() <= SCRATCH {
            LAST.set((text, labels.clone()));
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0d9f6f0e-52b1-4c0e-8b5d-00000000a1ff";

    #[test]
    fn a_uid_tells_the_text_it_was_made_of() {
        assert!(matches!(Uid::from(UUID).0, Form::Uuid(_)));
        assert_eq!(size_of::<Uid>(), 24);
        let odd = [
            "",
            "u1",
            "0D9F6F0E-52B1-4C0E-8B5D-00000000A1FF",
            "0d9f6f0e052b1-4c0e-8b5d-00000000a1ff",
            "0d9f6f0e-52b1-4c0e-8b5d-00000000a1f-",
            "0d9f6f0e-52b1-4c0e-8b5d-00000000a1fg",
            "0d9f6f0e-52b1-4c0e-8b5d-00000000a1ff0",
        ];
        for text in odd {
            assert!(matches!(Uid::from(text).0, Form::Text(_)), "{text}");
        }
        for text in odd.into_iter().chain([UUID]) {
            let uid = Uid::from(text);
            assert_eq!(uid.to_string(), text);
            assert_eq!(format!("{uid:?}"), format!("{text:?}"));
            assert!(uid == *text && uid != *"other");
            assert_eq!(uid, Uid::from(text));
            assert!(text.char_indices().all(|(at, _)| uid.starts_with(&text[..at])));
            assert!(uid.starts_with(text) && !uid.starts_with(&format!("{text}0")));
        }
        assert_ne!(Uid::from(UUID), Uid::from(UUID.to_uppercase().as_str()));
        assert!(!Uid::from(UUID).starts_with("0d9f6f0f"));
    }

    #[test]
    fn labels_tell_their_pairs_and_leave_out_what_is_no_label() {
        let pairs = [("app", "web"), ("empty", ""), ("", "odd"), ("", ""), ("app", "second")];
        let labels: Labels = pairs.into_iter().collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), pairs);
        assert_eq!((labels.get("app"), labels.get("empty")), (Some("web"), Some("")));
        assert_eq!(labels.get("web"), None);
        assert_eq!(Labels::default().iter().next(), None);
        let labels: Labels = [("a\0b", "c"), ("d", "e\0f"), ("g", "h")].into_iter().collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("g", "h")]);
    }

    #[test]
    fn equal_labels_one_behind_the_other_are_the_same_memory() {
        let made = |value: &str| [("app", value)].into_iter().collect::<Labels>();
        let [first, second, other] = [made("web"), made("web"), made("db")];
        assert!(Arc::ptr_eq(first.0.as_ref().unwrap(), second.0.as_ref().unwrap()));
        assert_eq!((first, other.get("app")), (made("web"), Some("db")));
        assert_eq!([("", ""); 0].into_iter().collect::<Labels>(), Labels(None));
    }
}
