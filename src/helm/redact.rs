//! Values taken out of what Helm and the API server say: both repeat what was wrong, which may be a
//! password, in errors, logs and the description of a revision.
//!
//! What kind of error it is, `classify` tells. A text that a chart's author quotes a value in is left
//! as it is: nobody can tell the value there.

use std::borrow::Cow;

/// What stands before a value that is repeated, and what is told instead: of a wrong type
/// (structured-merge-diff, `typed`), of what is not allowed, which of a patch is the whole object
/// (apimachinery, `field.Error`), and of what has no key (sigs.k8s.io/yaml).
const REPEATS: [(&str, &str); 6] = [
    (", got &", ", which the value is not"),
    ("Invalid value: ", "Invalid value"),
    ("Unsupported value: ", "Unsupported value"),
    ("Duplicate value: ", "Duplicate value"),
    (OF_TYPE, ""),
    (", value: ", ""),
];
/// Of a wrong format, whose name comes before the value (kube-openapi, `errors.InvalidType`).
const OF_TYPE: &str = " must be of type ";
/// The first where it is printed with `%v`: without quotes, over several lines.
const RAW: &str = ", got &{";
/// What was wanted then. Of other texts and numbers the value is quoted, or its type alone told.
const WANTED: [&str; 4] = ["map", "list", "boolean", "any scalar"];

/// A text without the values that it repeats.
pub fn without_values(text: &str) -> String {
    let mut lines = Lines::default();
    let told = text.lines().filter_map(|line| lines.without_value(line));
    told.collect::<Vec<_>>().join("\n")
}

/// Lines that are told one after the other; whether a value goes on whose end nobody can tell.
#[derive(Default)]
pub struct Lines(bool);

impl Lines {
    /// `None` of a line that may be part of a value.
    pub fn without_value<'a>(&mut self, line: &'a str) -> Option<Cow<'a, str>> {
        // One of several errors about types stands below another.
        let is_item = line.starts_with("  .") && line.contains(": expected ");
        let is_own = is_item || is_log(line) || is_crash(line) || line.starts_with("Error: ");
        let is_hidden = self.0 && !is_own;
        // In the log line breaks are escaped.
        self.0 = is_hidden || (is_raw(line) && !is_log(line));
        (!is_hidden).then(|| without_value(line))
    }
}

/// A line without the values that it repeats, which may be passwords. In a violation of a schema
/// they stand in single quotes, their own escaped (`quote` in jsonschema's `kind/kind.go`), but of
/// one that ends in a backslash nobody can tell the end: then, and where it was cut off, what is
/// told of it goes, too.
pub(super) fn without_value(line: &str) -> Cow<'_, str> {
    let Some(message) = line.trim_start().strip_prefix("- at '").and_then(behind_quote) else {
        return without_repeats(line);
    };
    if !message.starts_with(": ") {
        return "- the value is not allowed".into();
    }
    let Some(value) = message.strip_prefix(": '") else { return line.into() };
    let head = line.strip_suffix(value).and_then(|head| head.strip_suffix('\''));
    let head = head.unwrap_or_default();
    let rest = behind_quote(value).unwrap_or_default();
    let word = value.strip_suffix(rest).unwrap_or_default();
    if rest.starts_with(" does not match pattern ") {
        format!("{head}the value{rest}").into()
    } else if let Some(format) = rest.strip_prefix(" is not valid ") {
        // The reason behind the colon may repeat parts of it.
        let format = format.split(':').next().unwrap_or_default();
        format!("{head}the value is not valid {format}").into()
    } else if rest.starts_with(" failed") && !word.contains('\\') {
        // `'allOf' failed`: a word of schemas.
        line.into()
    } else {
        format!("{head}the value is not allowed").into()
    }
}

/// What follows the first quote that is not escaped.
fn behind_quote(text: &str) -> Option<&str> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'\'' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    text.get(end? + 1..)
}

/// Whether a value begins that may go on in the next line.
fn is_raw(line: &str) -> bool {
    let before = line.match_indices(RAW).map(|(at, _)| &line[..at]);
    let mut wanted = before.filter_map(|text| text.rsplit_once(": expected "));
    wanted.any(|(_, wanted)| WANTED.contains(&wanted))
}

/// Without all values that follow one of [`REPEATS`]. Each is looked for once: what a record holds
/// may have megabytes of them.
fn without_repeats(line: &str) -> Cow<'_, str> {
    let (mut told, mut from) = (String::new(), 0);
    let mut all = REPEATS.map(|(mark, instead)| {
        let found = line.match_indices(mark).filter_map(move |(at, _)| value_at(line, mark, at));
        found.map(move |(at, value)| (at, value, instead)).peekable()
    });
    loop {
        let next = all.iter_mut().filter_map(|found| {
            while found.next_if(|(at, ..)| *at < from).is_some() {}
            found.peek().copied()
        });
        let Some((at, value, instead)) = next.min() else { break };
        told += &line[from..at];
        told += instead;
        let rest = if line[at..].starts_with(RAW) { "" } else { behind_value(&line[value..]) };
        from = line.len() - rest.len();
    }
    if from == 0 { line.into() } else { (told + &line[from..]).into() }
}

/// Where what is told before a value ends and where the value begins, if one follows: a text or a
/// structure, no number, nor words of a chart's author.
fn value_at(line: &str, mark: &str, at: usize) -> Option<(usize, usize)> {
    let (mut at, mut value) = (at, at + mark.len());
    if mark == OF_TYPE {
        let is_type = |c: char| c.is_alphanumeric() || "-,".contains(c);
        at = line.len() - line[value..].trim_start_matches(is_type).len();
        value = at + line[at..].starts_with(": ").then_some(2)?;
    }
    // A quote may be escaped; a structure may begin with its type.
    let is_before = |c: char| c.is_alphanumeric() || "\\.*&_".contains(c);
    let is_value = line[value..].trim_start_matches(is_before).starts_with(['"', '{', '[']);
    is_value.then_some((at, value))
}

/// What follows a value as JSON and Go (`%q`, `%#v`) write it: texts are quoted, brackets are in
/// pairs. In a line of Helm's log all is escaped once more: the first quote tells.
fn behind_value(text: &str) -> &str {
    let (mut depth, mut slashes, mut is_quoted, mut own) = (0_usize, 0, false, None);
    for (at, byte) in text.bytes().enumerate() {
        let before: usize = std::mem::take(&mut slashes);
        match byte {
            b'\\' => slashes = before + 1,
            b'"' => {
                let own = *own.get_or_insert(before);
                if before < own {
                    return &text[at..];
                }
                is_quoted ^= ((before - own) / (own + 1)).is_multiple_of(2);
            }
            _ if is_quoted => {}
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            b'}' | b']' | b')' | b',' | b':' => return &text[at..],
            // `interface {}` is a type.
            b' ' if !text[at + 1..].starts_with('{') => return &text[at..],
            // An escaped line break.
            _ if before > 0 => return &text[at - before..],
            _ => {}
        }
    }
    ""
}

/// Lines of Helm's and the Kubernetes client's logs (`level=WARN …`, `W1121 16:40:34.505437 …`).
pub(super) fn is_log(line: &str) -> bool {
    let mut bytes = line.bytes();
    let is_klog = bytes.next().is_some_and(|byte| b"IWEF".contains(&byte))
        && bytes.by_ref().take(4).filter(u8::is_ascii_digit).count() == 4
        && bytes.next() == Some(b' ');
    is_klog || line.starts_with("level=") || line.starts_with("WARNING: ")
}

pub(super) fn is_crash(line: &str) -> bool {
    line.starts_with("panic: ") || line.starts_with("fatal error: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_validations_of_custom_resources_repeat_is_not_told() {
        let told = [
            (
                r#"spec.token: Invalid value: "hunter2": spec.token in body must be of type byte: "hunter2""#,
                "spec.token: Invalid value: spec.token in body must be of type byte",
            ),
            (
                r#"spec.mode: Unsupported value: "hunter2": supported values: "a", "b""#,
                r#"spec.mode: Unsupported value: supported values: "a", "b""#,
            ),
            (
                r#"spec.keys[1]: Duplicate value: {"key":"hunter2"}"#,
                "spec.keys[1]: Duplicate value",
            ),
            ("x must be of type integer: 5", "x must be of type integer: 5"),
        ];
        for (line, wanted) in told {
            assert_eq!(without_value(line), wanted);
        }
    }

    #[test]
    fn what_a_test_says_it_got_hides_nothing_after_it() {
        let text = "x_test.go:12: want &{a}, got &{b}\nnext";
        assert_eq!(without_values(text), "x_test.go:12: want &{a}, which the value is not\nnext");
        let raw = "Error: .data.a: expected map, got &{{hunter\n2}}\nmore";
        assert!(!without_values(raw).contains('2'), "{}", without_values(raw));
    }

    /// It would take minutes if each value were looked for from the start.
    #[test]
    fn megabytes_of_values_are_gone_through_once() {
        let text = "Invalid value: \"\" ".repeat(1 << 17);
        assert_eq!(without_values(&text), "Invalid value ".repeat(1 << 17));
    }
}
