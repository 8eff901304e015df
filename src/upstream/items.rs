//! A list read as it arrives: each item is handed out as soon as it is whole, so that a page of
//! hundreds of objects costs the memory of one.
//!
//! It only finds where items begin and end; whether one is good JSON, its reader finds out.

use super::UpstreamError;

/// The members of a list that hold its items: `rows` are those of a `Table`.
const MEMBERS: [&[u8]; 2] = [b"\"items\":", b"\"rows\":"];
/// No object is larger in etcd than 1.5 MiB; JSON may be several times that.
const ITEM_BYTES: usize = 16 << 20;
/// What a list says of itself beside its items: metadata, and the columns of a table.
const REST_BYTES: usize = 4 << 20;

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
    in_string: bool,
    is_escaped: bool,
}

impl Items {
    /// Takes the next bytes and hands out the items that end in them, without white space around.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        visit: &mut impl FnMut(&str),
    ) -> Result<(), UpstreamError> {
        let mut kept = 0;
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            if self.in_string {
                self.string(byte);
                at += 1;
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if byte == b'[' && self.depth == 2 {
                        self.keep(chunk.get(kept..=at).unwrap_or_default())?;
                        kept = at + 1;
                        self.is_inside = MEMBERS.iter().any(|member| self.ends_with(member));
                    }
                }
                b'}' | b']' => {
                    if self.is_inside && self.depth == 2 {
                        self.item.extend_from_slice(chunk.get(kept..at).unwrap_or_default());
                        self.hand_out(visit)?;
                        (kept, self.is_inside) = (at, false);
                    }
                    let less = self.depth.checked_sub(1);
                    self.depth = less.ok_or_else(|| broken("it closes what it has not opened"))?;
                }
                b',' if self.is_inside && self.depth == 2 => {
                    self.item.extend_from_slice(chunk.get(kept..at).unwrap_or_default());
                    self.hand_out(visit)?;
                    kept = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        self.keep(chunk.get(kept..).unwrap_or_default())
    }

    /// The document without its items.
    pub fn end(self) -> Result<Vec<u8>, UpstreamError> {
        if self.depth > 0 || self.in_string {
            return Err(broken("it ends in the middle"));
        }
        Ok(self.rest)
    }

    fn string(&mut self, byte: u8) {
        if self.is_escaped {
            self.is_escaped = false;
        } else if byte == b'\\' {
            self.is_escaped = true;
        } else if byte == b'"' {
            self.in_string = false;
        }
    }

    /// Whether the bracket that has just been kept opens this member.
    fn ends_with(&self, member: &[u8]) -> bool {
        let mut known = self.rest.iter().rev().skip(1).filter(|byte| !byte.is_ascii_whitespace());
        member.iter().rev().all(|wanted| known.next() == Some(wanted))
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

    fn hand_out(&mut self, visit: &mut impl FnMut(&str)) -> Result<(), UpstreamError> {
        let text = str::from_utf8(&self.item).map_err(|_| broken("an item is not UTF-8"))?;
        match text.trim_ascii() {
            "" => {}
            text => visit(text),
        }
        self.item.clear();
        Ok(())
    }
}

fn broken(why: &str) -> UpstreamError {
    UpstreamError::Broken(format!("a list cannot be read: {why}"))
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
    fn rows_of_a_table_are_items_too_and_null_is_none() {
        let (found, rest) = read(r#"{"rows":[{"cells":[]}],"items":null}"#, 5).unwrap();
        assert_eq!(found, [r#"{"cells":[]}"#]);
        assert_eq!(rest, br#"{"rows":[],"items":null}"#);
        assert_eq!(read("{}", 1).unwrap(), (vec![], b"{}".to_vec()));
        assert_eq!(read(r#"{"items":[]}"#, 3).unwrap().0, Vec::<String>::new());
    }

    #[test]
    fn a_document_that_is_cut_off_or_malformed_is_an_error() {
        let text = r#"{"items":[{"a":1},{"b":"2"}]}"#;
        for end in 1..text.len() {
            assert!(read(&text[..end], 4).is_err(), "{end}");
        }
        assert!(read("}", 1).is_err());
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
