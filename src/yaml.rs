//! What other people's YAML is read with where it is to mean what it means to Helm and kubectl:
//! they read it with Go's goyaml and sigs.k8s.io/yaml, our reader is serde-saphyr. Where these differ
//! the text is changed first: keys that are no text to goyaml (`yaml/key.rs`) and numbers that
//! are none (`12e4567`).
//!
//! It knows no charts, releases or objects; options and budgets are the caller's.

mod key;

use serde_saphyr::Error;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// Nodes that any text may have, and how many more for each of its bytes. Without aliases it has
/// three in two bytes at most (`[:,:,`).
const FEW: usize = 10_000;
const OF_BYTE: usize = 8;

/// Keys, values, lists and maps that a text may have once its aliases are followed, if it is not to
/// have more than `most`: a short one is short work.
pub fn nodes(text: &str, most: usize) -> usize {
    most.min(FEW + OF_BYTE * text.len())
}

/// Reads a text: keys are what they are to goyaml. Once more where a number in it is beyond all
/// numbers: `12e4567`, a commit's id, is text for goyaml and an error for our reader, so the second
/// time it stands in quotes.
pub fn read<T>(text: &str, read: impl Fn(&str) -> Result<T, Error>) -> Result<T, Error> {
    let meant = |word: &str, is_key: bool| if is_key { key::meant(word) } else { None };
    let with_keys = if key::may_be_in(text) { with_words(text, meant) } else { None };
    let text = with_keys.as_deref().unwrap_or(text);
    match read(text) {
        Err(error) if is_number(&error) => {
            match with_words(text, |word, _| is_beyond(word).then(|| format!("\"{word}\""))) {
                Some(text) => read(&text),
                None => Err(error),
            }
        }
        done => done,
    }
}

/// In which line a text is broken, and how, without the value that is to blame.
pub fn reason(error: &Error) -> String {
    let line = error.location().map_or(1, |at| at.line());
    if is_number(error) {
        // The reader's own words repeat it, and it may be a PIN.
        return format!("line {line}: a number is not finite");
    }
    let words = error.without_snippet().to_string();
    format!("line {line}: {}", words.lines().next().unwrap_or_default())
}

/// Whether it is the caller's budget that is used up.
pub fn is_too_large(error: &Error) -> bool {
    match error.without_snippet() {
        Error::Budget { .. } => true,
        Error::AliasError { error, .. } => is_too_large(error),
        _ => false,
    }
}

fn is_number(error: &Error) -> bool {
    match error.without_snippet() {
        Error::NonFiniteFloat { .. } => true,
        Error::AliasError { error, .. } => is_number(error),
        _ => false,
    }
}

/// The text with what is said of some of its plain words in their places; `None` where nothing is
/// said of any. A tagged one stays as it is: `!!float 1e999` is an error to goyaml as well.
/// `instead` is also told whether the word is a key.
fn with_words(text: &str, instead: impl Fn(&str, bool) -> Option<String>) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut changed, mut done) = (String::new(), 0);
    let mut open = Vec::new();
    for next in Parser::new_from_str(text) {
        // What is broken from here on is told by who reads the result.
        let Ok((event, span)) = next else { break };
        let is_key = begins_key(&event, &mut open);
        let Event::Scalar(word, ScalarStyle::Plain, _, None) = &event else { continue };
        let word: &str = word;
        let (Some(range), Some(other)) = (span.byte_range(), instead(word, is_key)) else {
            continue;
        };
        if text.get(range.clone()) != Some(word) {
            continue;
        }
        changed.push_str(text.get(done..range.start).unwrap_or_default());
        changed.push_str(&other);
        done = range.end;
    }
    if done == 0 {
        return None;
    }
    changed.push_str(text.get(done..).unwrap_or_default());
    Some(changed)
}

/// Whether a key begins with this event. Of each map that is open it is kept whether its next node
/// is one; of a list `None`.
fn begins_key(event: &Event<'_>, open: &mut Vec<Option<bool>>) -> bool {
    let inner = match event {
        Event::Scalar(..) | Event::Alias(..) => None,
        Event::SequenceStart(..) => Some(None),
        Event::MappingStart(..) => Some(Some(true)),
        Event::SequenceEnd | Event::MappingEnd => {
            open.pop();
            return false;
        }
        _ => return false,
    };
    let mut is_key = false;
    if let Some(Some(next)) = open.last_mut() {
        is_key = *next;
        *next = !is_key;
    }
    open.extend(inner);
    is_key
}

fn is_beyond(word: &str) -> bool {
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && word.parse::<f64>().is_ok_and(f64::is_infinite)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use serde_saphyr::Options;

    use super::*;

    fn value(text: &str) -> Result<Value, Error> {
        read(text, |text| serde_saphyr::from_str_with_options(text, Options::default()))
    }

    #[test]
    fn numbers_beyond_all_numbers_are_text_wherever_they_stand() {
        let long = "9".repeat(400);
        let text = format!(
            "\u{feff}# ü 1e999\nid: 12e4567 # why\nflow: {{a: -1e999, b: [+7E+1234,1e5]}}\n\
             anchor: &x 1e999\nalias: *x\n? 2e999\n: key\nlong: {long}\ntext: \"3e999\"\n\
             block: |\n  4e999\nplain: 5e999 of them\n"
        );
        let wanted = json!({
            "id": "12e4567", "flow": {"a": "-1e999", "b": ["+7E+1234", 1e5]},
            "anchor": "1e999", "alias": "1e999", "2e999": "key", "long": long, "text": "3e999",
            "block": "4e999\n", "plain": "5e999 of them",
        });
        assert_eq!(value(&text).unwrap(), wanted);
        assert_eq!(value("12e4567").unwrap(), json!("12e4567"));
    }

    #[test]
    fn keys_are_the_text_that_helm_and_kubectl_make_of_them() {
        let text = "\u{feff}y: a\n1.10: b\n0400 : c\n\"0400\": d\n'off': e\n!!str yes: f\n\
            list: [no, {off: [on]}, {0x10: 1.10}]\nflow: {N, 1_0: yes, &x on: 1}\n\
            ? 1e6\n: [on, {On: {}}]\nby name: *x\n";
        let wanted = json!({
            "true": "a", "1.1": "b", "256": "c", "0400": "d", "off": "e", "yes": "f",
            "list": [false, {"false": [true]}, {"16": 1.1}],
            "flow": {"false": null, "10": true, "true": 1},
            "1e+06": [true, {"true": {}}], "by name": true,
        });
        assert_eq!(value(text).unwrap(), wanted);
    }

    #[test]
    fn no_key_is_null_and_lines_stay_what_they_are() {
        for text in ["a: 1\n~: 2", "on: 1\nnull: 2", "0400: {1.10: a,\n  ~: b}"] {
            let reason = reason(&value(text).unwrap_err());
            assert!(reason.starts_with("line 2: "), "{text}: {reason}");
        }
    }

    #[test]
    fn a_short_text_has_few_nodes() {
        assert_eq!(nodes("", 250_000), FEW);
        assert_eq!(nodes(&"a".repeat(1000), 250_000), 18_000);
        assert_eq!(nodes(&"a".repeat(1 << 20), 250_000), 250_000);
    }

    #[test]
    fn several_documents_are_read_as_one_is() {
        let documents = read("a: 1e999\n---\nb: 2e999\n---\n- y: 1\n", |text| {
            serde_saphyr::from_multiple_with_options(text, Options::default())
        });
        let documents: Vec<Value> = documents.unwrap();
        let keys = json!([{"true": 1}]);
        assert_eq!(documents, [json!({"a": "1e999"}), json!({"b": "2e999"}), keys]);
    }

    #[test]
    fn what_goyaml_refuses_is_refused_and_no_reason_repeats_it() {
        let tagged = "a: 1\npin: !!float 7e1234\n";
        for (text, line) in [("a: .inf", 1), (tagged, 2), ("a: 1e999\nb: .nan", 2)] {
            let reason = reason(&value(text).unwrap_err());
            assert_eq!(reason, format!("line {line}: a number is not finite"), "{text}");
        }
        // Of what is broken as well as beyond, the former is told.
        let reason = reason(&value("pin: 7e1234\nb: [\n").unwrap_err());
        assert!(!reason.contains("7e1234") && !reason.contains("finite"), "{reason}");
    }
}
