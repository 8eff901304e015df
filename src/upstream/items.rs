//! A list read as it arrives: each item is handed out as soon as it is whole, so that a page of
//! hundreds of objects costs the memory of one.
//!
//! It only finds where items begin and end; whether one is good JSON, its reader finds out. Kinds
//! of brackets are not told apart: where they do not match, either an item is no JSON, which costs
//! that item, or the rest is none, and the list fails.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::UpstreamError;

/// The members of a list that hold its items: `rows` are those of a `Table`.
const MEMBERS: [&[u8]; 2] = [b"\"items\"", b"\"rows\""];
/// No object is larger in etcd than 1.5 MiB; JSON may be several times that.
const ITEM_BYTES: usize = 16 << 20;
/// What a list says of itself beside its items: metadata, and the columns of a table.
const REST_BYTES: usize = 4 << 20;
/// So much of what came in place of a list is repeated in the error.
const SHOWN: usize = 60;

/// The items of one JSON document, chunk by chunk.
#[derive(Default)]
pub(super) struct Items {
    /// The document so far with its items left out: JSON of its own at the end.
    rest: Vec<u8>,
    /// The item that has begun.
    item: Vec<u8>,
    /// Open braces and brackets.
    depth: usize,
    /// Whether the depth of 2 is the array of items.
    is_inside: bool,
    /// Whether no comma came in it yet.
    is_first: bool,
    in_string: bool,
    is_escaped: bool,
    /// Whether anything but white space came.
    has_begun: bool,
}

/// What is left of a list: its items are handed out, and stand there as an empty array.
#[derive(Deserialize)]
struct Rest {
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "items")]
    _items: Option<[IgnoredAny; 0]>,
    #[serde(default, rename = "rows")]
    _rows: Option<[IgnoredAny; 0]>,
}

impl Items {
    /// Takes the next bytes and hands out the items that end in them, without white space around.
    /// Where commas have nothing between them an empty item is handed out: a malformed one.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        visit: &mut impl FnMut(&str),
    ) -> Result<(), UpstreamError> {
        if !self.has_begun {
            let text = chunk.trim_ascii_start();
            if text.first().is_some_and(|first| *first != b'{') {
                let text = String::from_utf8_lossy(text.get(..SHOWN).unwrap_or(text));
                return Err(broken(&format!("it begins with {text:?}")));
            }
            self.has_begun = !text.is_empty();
        }
        let mut kept = 0;
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            if self.in_string {
                at = self.string(chunk, at);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if byte == b'[' && self.depth == 2 {
                        self.keep(chunk.get(kept..=at).unwrap_or_default())?;
                        kept = at + 1;
                        (self.is_inside, self.is_first) = (self.opens_items(), true);
                    }
                }
                b'}' | b']' => {
                    if self.is_inside && self.depth == 2 {
                        self.hand_out(chunk.get(kept..at).unwrap_or_default(), visit)?;
                        (kept, self.is_inside) = (at, false);
                    }
                    let less = self.depth.checked_sub(1);
                    self.depth = less.ok_or_else(|| broken("it closes what it has not opened"))?;
                }
                b',' if self.is_inside && self.depth == 2 => {
                    self.is_first = false;
                    self.hand_out(chunk.get(kept..at).unwrap_or_default(), visit)?;
                    kept = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        self.keep(chunk.get(kept..).unwrap_or_default())
    }

    /// The document without its items: JSON of a kind that is a list or a `Table`. Anything else
    /// that was sent in its place is an error, not a list without items.
    pub fn end(self) -> Result<Vec<u8>, UpstreamError> {
        if !self.has_begun {
            return Err(broken("it is empty"));
        }
        if self.depth > 0 || self.in_string {
            return Err(broken("it ends in the middle"));
        }
        let Rest { kind, .. } = serde_json::from_slice(&self.rest)
            .map_err(|error| broken(&format!("it is malformed: {error}")))?;
        match kind.as_str() {
            "" => Err(broken("it is an object without a kind")),
            kind if kind == "Table" || kind.ends_with("List") => Ok(self.rest),
            kind => {
                let kind: String = kind.chars().take(SHOWN).collect();
                Err(broken(&format!("it is of kind {kind}, which is none")))
            }
        }
    }

    /// Goes on in a string at `at` and answers where to go on: behind its end, or behind the chunk.
    fn string(&mut self, chunk: &[u8], mut at: usize) -> usize {
        if self.is_escaped {
            self.is_escaped = false;
            at += 1;
        }
        while let Some(found) = chunk.get(at..).and_then(special) {
            at += found + 1;
            if chunk.get(at - 1) == Some(&b'"') {
                self.in_string = false;
                return at;
            }
            if at == chunk.len() {
                self.is_escaped = true;
                return at;
            }
            // What stands behind a backslash is never the end.
            at += 1;
        }
        chunk.len()
    }

    /// Whether the bracket that has just been kept opens the items.
    fn opens_items(&self) -> bool {
        let name = before(&self.rest, b"[").and_then(|text| before(text, b":"));
        let mut rest = MEMBERS.iter().filter_map(|member| before(name?, member));
        // Another name that ends so has a backslash there.
        rest.any(|text| matches!(text.trim_ascii_end().last(), Some(b'{' | b',')))
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        let (whole, most) = match self.is_inside {
            true => (&mut self.item, ITEM_BYTES),
            false => (&mut self.rest, REST_BYTES),
        };
        if whole.len() + bytes.len() > most {
            return Err(UpstreamError::TooLarge(most));
        }
        whole.extend_from_slice(bytes);
        Ok(())
    }

    /// Hands out the item that ends with `tail`, from where it lies if all of it is there.
    fn hand_out(&mut self, tail: &[u8], visit: &mut impl FnMut(&str)) -> Result<(), UpstreamError> {
        let item: &[u8] = if self.item.is_empty() {
            tail
        } else {
            self.item.extend_from_slice(tail);
            &self.item
        };
        let text = str::from_utf8(item).map_err(|_| broken("an item is not UTF-8"))?;
        let text = text.trim_ascii();
        if !(text.is_empty() && self.is_first) {
            visit(text);
        }
        self.item.clear();
        Ok(())
    }
}

/// Where the next quote or backslash is. Most of a list is in strings: eight bytes at a time, whose
/// differences to each of the two are looked through for a zero.
fn special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest bit that it sets is right; one above it need not be.
    let equal = |word: u64, byte: u8| {
        let word = word ^ u64::from_ne_bytes([byte; 8]);
        word.wrapping_sub(ONES) & !word & TOPS
    };
    let (words, rest) = text.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = equal(word, b'"') | equal(word, b'\\');
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + found)
}

/// What stands before `end`, which white space may follow.
fn before<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    text.trim_ascii_end().strip_suffix(end)
}

fn broken(why: &str) -> UpstreamError {
    UpstreamError::Broken(format!("what came is not a list that can be read: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str, size: usize) -> Result<(Vec<String>, Vec<u8>), UpstreamError> {
        let (mut items, mut found) = (Items::default(), Vec::new());
        for chunk in text.as_bytes().chunks(size) {
            items.feed(chunk, &mut |item| found.push(item.to_owned()))?;
        }
        Ok((found, items.end()?))
    }

    #[test]
    fn items_come_whole_however_the_document_is_cut_and_the_rest_stays_json() {
        let text = r#" {"kind":"PodList", "metadata":{"continue":"a]}\"","items":[1]},
            "items" : [ {"a":"},{\\","b":[1,[2]]} ,{"c":{"items":[3]}}, 7 , null ], "x":["y"]} "#;
        for size in 1..text.len() {
            let (found, rest) = read(text, size).unwrap();
            let first = r#"{"a":"},{\\","b":[1,[2]]}"#;
            assert_eq!(found, [first, r#"{"c":{"items":[3]}}"#, "7", "null"], "{size}");
            let rest: Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!(rest["metadata"], json!({"continue": "a]}\"", "items": [1]}));
            assert_eq!((&rest["items"], &rest["x"]), (&json!([]), &json!(["y"])));
        }
    }

    #[test]
    fn a_quote_or_a_backslash_is_found_wherever_it_stands() {
        for plain in 0..40 {
            // Bytes next to the two in value, and above ASCII, are neither.
            let others = b"!#[]\xa2\xdc\0\xff".iter().copied().cycle();
            let before: Vec<u8> = others.take(plain).collect();
            assert_eq!(special(&before), None, "{plain}");
            for end in [&b"\""[..], b"\\", b"\"\\######", b"\\\"!!!!!!!"] {
                assert_eq!(special(&[before.as_slice(), end].concat()), Some(plain), "{plain}");
            }
        }
    }

    #[test]
    fn rows_of_a_table_are_items_too_and_null_is_none() {
        let text = r#"{"kind":"Table","rows":[{"cells":[]}],"items":null}"#;
        let (found, rest) = read(text, 5).unwrap();
        assert_eq!(found, [r#"{"cells":[]}"#]);
        assert_eq!(rest, br#"{"kind":"Table","rows":[],"items":null}"#);
        for items in ["", r#","items":[]"#, r#","items": [ ]"#] {
            let text = format!(r#"{{"kind":"PodList"{items}}}"#);
            assert_eq!(read(&text, 3).unwrap().0, Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_list_is_an_error_that_names_what_came_instead() {
        let pairs = [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("null", "begins with \"null\""),
            (" 7", "begins with \"7\""),
            ("[\"PodList\"]", "begins with \"[\\\"PodList\\\"]\""),
            ("<html><script>f({[}", "begins with \"<html><script>f({[}\""),
            ("{}", "an object without a kind"),
            (r#"{"items":[]}"#, "an object without a kind"),
            (r#"{"kind":"Pod","metadata":{}}"#, "of kind Pod"),
            (r#"{"kind":"Status","status":"Failure"}"#, "of kind Status"),
            (r#"{"kind":"PodList","items":{"a":1}}"#, "malformed"),
            (r#"{"kind":"PodList","\u0069tems":[{}]}"#, "malformed"),
            (r#"{"kind":"PodList","items":[]}{"kind":"PodList","items":[]}"#, "malformed"),
        ];
        for (text, why) in pairs {
            let error = read(text, 1000).unwrap_err().to_string();
            assert!(error.contains("not a list") && error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_between_commas_is_a_malformed_item() {
        for (items, wanted) in [
            ("{},,{}", vec!["{}", "", "{}"]),
            ("{}, ", vec!["{}", ""]),
            (",", vec!["", ""]),
            (" ", vec![]),
        ] {
            let text = format!(r#"{{"kind":"PodList","items":[{items}]}}"#);
            assert_eq!(read(&text, 2).unwrap().0, wanted, "{items}");
        }
    }

    #[test]
    fn brackets_that_do_not_match_cost_their_item_or_the_list() {
        let list = |items: &str| read(&format!(r#"{{"kind":"PodList","items":[{items}}}"#), 7);
        let (found, _) = list(r#"{"a":[1}},{"b":2}]"#).unwrap();
        assert_eq!(found, [r#"{"a":[1}}"#, r#"{"b":2}"#]);
        assert!(list(r#"{"a":1}}"#).is_err());
        assert!(list(r#"{"a":1]},{"b":2}]"#).is_err());
    }

    #[test]
    fn a_member_whose_name_only_looks_like_items_holds_none() {
        for name in [r#"it ems"#, r#"x\"items"#, r#"x,\"items"#, "Items"] {
            let text = format!(r#"{{"kind":"PodList","{name}":["a"]}}"#);
            let (found, rest) = read(&text, 4).unwrap();
            assert_eq!((found, rest), (vec![], text.into_bytes()), "{name}");
        }
    }

    #[test]
    fn a_document_that_is_cut_off_or_malformed_is_an_error() {
        let text = r#"{"kind":"PodList","items":[{"a":1},{"b":"2"}]}"#;
        for end in 1..text.len() {
            assert!(read(&text[..end], 4).is_err(), "{end}");
        }
        assert!(read("{}}", 1).is_err());
        let mut items = Items::default();
        assert!(items.feed(b"{\"items\":[\"\xff\",", &mut |_| ()).is_err());
    }

    #[test]
    fn an_item_that_has_no_end_is_an_error_before_it_fills_the_memory() {
        let mut items = Items::default();
        items.feed(b"{\"items\":[\"", &mut |_| ()).unwrap();
        let chunk = vec![b'a'; 1 << 20];
        let fed = (0..17).try_for_each(|_| items.feed(&chunk, &mut |_| ()));
        assert!(matches!(fed, Err(UpstreamError::TooLarge(ITEM_BYTES))), "{fed:?}");
    }
}
