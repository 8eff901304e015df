//! YAML of any length as a stream that serde reads: one scalar in memory at a time.
//!
//! Not serde-saphyr's own reader: it streams too, but remembers every key of a mapping and every
//! anchored value, and ends at the first value of another type than was asked for. Here every
//! scalar is its text as it is written, and an alias is null.

use std::fmt;
use std::io::{ErrorKind, Read};

use serde::de::{self, DeserializeSeed, Visitor};
use serde::forward_to_deserialize_any;
use serde_saphyr::granit_parser::{self, BufferedInput, Event, Parser, ScalarStyle};

/// Collections within collections. An index has six.
const DEPTH: usize = 32;
/// Anchors, whose names are remembered. Index files have none.
const ANCHORS: usize = 1_000;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// What is wrong with the text, and in which line.
#[derive(Debug)]
pub(super) struct BadYaml {
    pub(super) line: usize,
    pub(super) words: String,
}

impl fmt::Display for BadYaml {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}", self.line, self.words)
    }
}

impl std::error::Error for BadYaml {}

impl de::Error for BadYaml {
    fn custom<T: fmt::Display>(words: T) -> Self {
        Self { line: 1, words: words.to_string() }
    }
}

/// The first document of a stream; what follows it is not read.
pub(super) struct Yaml<R: Read> {
    parser: Parser<'static, BufferedInput<Characters<R>>>,
    /// Looked at, and not taken yet.
    ahead: Option<Event<'static>>,
    line: usize,
}

impl<R: Read> Yaml<R> {
    /// A stream ends where reading fails: whoever owns the reader knows why.
    pub(super) fn new(reader: R) -> Self {
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: DEPTH,
            block_nesting_limit: DEPTH,
        };
        let characters = Characters { reader, buffer: vec![0; CHUNK].into(), at: 0, end: 0 };
        let parser = Parser::new_from_iter_with_options(characters, options);
        Self { parser, ahead: None, line: 1 }
    }

    fn bad(&self, words: &str) -> BadYaml {
        BadYaml { line: self.line, words: words.to_owned() }
    }

    fn next(&mut self) -> Result<Event<'static>, BadYaml> {
        if let Some(event) = self.ahead.take() {
            return Ok(event);
        }
        loop {
            let (event, span) = match self.parser.next_event() {
                Some(Ok(found)) => found,
                Some(Err(error)) => {
                    let line = error.marker().line();
                    return Err(BadYaml { line, words: error.info() });
                }
                None => return Err(self.bad("it ends too early")),
            };
            self.line = span.start.line();
            if event.anchor_id().is_some_and(|id| id > ANCHORS) {
                return Err(self.bad("it has too many anchors"));
            }
            if !matches!(event, Event::StreamStart | Event::DocumentStart(..)) {
                return Ok(event);
            }
        }
    }

    /// Whether the collection ends here; if so, its end is taken.
    fn at_end(&mut self) -> Result<bool, BadYaml> {
        let event = self.next()?;
        if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            return Ok(true);
        }
        self.ahead = Some(event);
        Ok(false)
    }
}

impl<'de, R: Read> de::Deserializer<'de> for &mut Yaml<R> {
    type Error = BadYaml;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadYaml> {
        let line = self.line;
        let read = match self.next()? {
            Event::Scalar(text, ScalarStyle::Plain, ..) if is_null(&text) => visitor.visit_unit(),
            Event::Scalar(text, ..) => visitor.visit_str(&text),
            Event::SequenceStart(..) => visitor.visit_seq(Within(self)),
            Event::MappingStart(..) => visitor.visit_map(Within(self)),
            // An alias, or nothing at all.
            _ => visitor.visit_unit(),
        };
        // What a visitor dislikes, it dislikes without a line.
        read.map_err(|error: BadYaml| BadYaml { line: error.line.max(line), ..error })
    }

    /// Without a visitor for each part of it.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadYaml> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                Event::StreamEnd => return Err(self.bad("it ends too early")),
                _ => {}
            }
            if depth == 0 {
                return visitor.visit_unit();
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// The parts of a collection.
struct Within<'y, R: Read>(&'y mut Yaml<R>);

impl<'de, R: Read> de::SeqAccess<'de> for Within<'_, R> {
    type Error = BadYaml;

    fn next_element_seed<T>(&mut self, seed: T) -> Result<Option<T::Value>, BadYaml>
    where
        T: DeserializeSeed<'de>,
    {
        if self.0.at_end()? { Ok(None) } else { seed.deserialize(&mut *self.0).map(Some) }
    }
}

impl<'de, R: Read> de::MapAccess<'de> for Within<'_, R> {
    type Error = BadYaml;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, BadYaml>
    where
        K: DeserializeSeed<'de>,
    {
        if self.0.at_end()? { Ok(None) } else { seed.deserialize(&mut *self.0).map(Some) }
    }

    fn next_value_seed<V>(&mut self, seed: V) -> Result<V::Value, BadYaml>
    where
        V: DeserializeSeed<'de>,
    {
        seed.deserialize(&mut *self.0)
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// UTF-8 as characters. What is none becomes U+FFFD: a chart with a broken description is better
/// than no repository.
struct Characters<R> {
    reader: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<R: Read> Characters<R> {
    /// Reads until a whole character is there, if the stream has one.
    fn fill(&mut self) {
        self.buffer.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        while self.end < 4 {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => return,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl<R: Read> Iterator for Characters<R> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        if self.end - self.at < 4 {
            self.fill();
        }
        let left = self.buffer.get(self.at..self.end)?;
        let first = *left.first()?;
        if first.is_ascii() {
            self.at += 1;
            return Some(first.into());
        }
        let length = match first {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        let whole = left.get(..length).and_then(|bytes| str::from_utf8(bytes).ok());
        let character = whole.and_then(|text| text.chars().next());
        self.at += if character.is_some() { length } else { 1 };
        Some(character.unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    /// Gives one byte at a time.
    struct Slowly<'b>(&'b [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let most = into.len().min(1);
            self.0.read(&mut into[..most])
        }
    }

    fn read<'de, T: Deserialize<'de>>(text: &[u8]) -> Result<T, BadYaml> {
        T::deserialize(&mut Yaml::new(Slowly(text)))
    }

    #[test]
    fn characters_of_several_bytes_arrive_whole_from_a_reader_that_gives_one_at_a_time() {
        let map: BTreeMap<String, String> = read("a: é€𝄞 x\nb: \"ü\"\n".as_bytes()).unwrap();
        assert_eq!(map["a"], "é€𝄞 x");
        assert_eq!(map["b"], "ü");
    }

    #[test]
    fn what_is_no_utf8_becomes_a_replacement_and_costs_nothing_else() {
        let map: BTreeMap<String, String> = read(b"a: x\xffy\nb: \xc3\n").unwrap();
        assert_eq!(map["a"], "x\u{fffd}y");
        assert_eq!(map["b"], "\u{fffd}");
    }

    #[test]
    fn a_scalar_is_its_text_as_it_is_written() {
        let list: Vec<String> = read(b"[1.10, 'yes', 0x1F, \"a\\tb\"]").unwrap();
        assert_eq!(list, ["1.10", "yes", "0x1F", "a\tb"]);
    }

    #[test]
    fn an_alias_is_null_and_never_expanded() {
        let text = b"a: &a [x, x, x]\nb: *a\n";
        let map: BTreeMap<String, Value> = read(text).unwrap();
        assert_eq!(map["b"], Value::Null);
    }

    #[test]
    fn a_text_that_is_broken_says_in_which_line() {
        let error = read::<Value>(b"a: 1\nb: [1,\nc: 2\n").unwrap_err();
        assert!(error.line >= 2, "{error}");
        assert!(!error.words.is_empty());
    }

    #[test]
    fn deep_collections_are_refused_and_deep_ignored_ones_too() {
        let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(read::<Value>(deep.as_bytes()).is_err());
        assert!(read::<de::IgnoredAny>(deep.as_bytes()).is_err());
    }

    #[test]
    fn many_anchors_are_refused() {
        let many: String = (0..2_000).map(|number| format!("- &a{number} x\n")).collect();
        assert!(read::<Vec<String>>(many.as_bytes()).unwrap_err().words.contains("anchors"));
    }

    #[test]
    fn an_empty_text_is_null() {
        assert_eq!(read::<Value>(b"").unwrap(), Value::Null);
    }
}
