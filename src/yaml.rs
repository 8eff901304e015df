//! What other people's YAML is read with where it is to mean what it means to Helm and kubectl:
//! they read it with Go's goyaml, our reader is serde-saphyr. Keys stay as they are written: `on`,
//! `1.10` and `0400`, a boolean and numbers for them, are text here, as the quoted ones are.
//!
//! It knows no charts, releases or objects, and bounds nothing: options and budgets are the
//! caller's.

use serde_saphyr::Error;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// Reads a text, once more where a number in it is beyond all numbers: `12e4567`, a commit's id, is
/// text for goyaml and an error for our reader, so the second time it stands in quotes.
pub fn read<T>(text: &str, read: impl Fn(&str) -> Result<T, Error>) -> Result<T, Error> {
    match read(text) {
        Err(error) if is_number(&error) => match quoted(text) {
            Some(text) => read(&text),
            None => Err(error),
        },
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

fn is_number(error: &Error) -> bool {
    match error.without_snippet() {
        Error::NonFiniteFloat { .. } => true,
        Error::AliasError { error, .. } => is_number(error),
        _ => false,
    }
}

/// The text with quotes around all numbers that are beyond those of 64 bits; `None` where there are
/// none. One that is tagged as a number stays as it is: goyaml takes it for an error as well.
fn quoted(text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut quoted, mut done) = (String::new(), 0);
    for next in Parser::new_from_str(text) {
        // What is broken from here on is told by who reads the result.
        let Ok((event, span)) = next else { break };
        let Event::Scalar(scalar, ScalarStyle::Plain, _, None) = &event else { continue };
        let Some(range) = span.byte_range().filter(|_| is_beyond(scalar)) else { continue };
        if text.get(range.clone()) != Some(&**scalar) {
            continue;
        }
        quoted.push_str(text.get(done..range.start).unwrap_or_default());
        quoted.push('"');
        quoted.push_str(scalar);
        quoted.push('"');
        done = range.end;
    }
    if done == 0 {
        return None;
    }
    quoted.push_str(text.get(done..).unwrap_or_default());
    Some(quoted)
}

fn is_beyond(scalar: &str) -> bool {
    let digits = scalar.strip_prefix(['+', '-']).unwrap_or(scalar);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && scalar.parse::<f64>().is_ok_and(f64::is_infinite)
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
    fn keys_stay_as_they_are_written() {
        let read = value("y: a\non: b\n1.10: c\n0400: d\n\"0400 \": e\n").unwrap();
        let wanted = json!({"y": "a", "on": "b", "1.10": "c", "0400": "d", "0400 ": "e"});
        assert_eq!(read, wanted);
    }

    #[test]
    fn several_documents_are_read_as_one_is() {
        let documents = read("a: 1e999\n---\nb: 2e999\n", |text| {
            serde_saphyr::from_multiple_with_options(text, Options::default())
        });
        let documents: Vec<Value> = documents.unwrap();
        assert_eq!(documents, [json!({"a": "1e999"}), json!({"b": "2e999"})]);
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
