//! Label and field selectors, as list and watch requests carry them.
//!
//! The numeric operators of label selectors (`>`, `<`) are not understood and are refused.

use super::kinds::Kind;
use super::reply::Fail;
use super::store::Stored;

/// What a selector asks of one label.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    /// The label is there with one of these values.
    In(String, Vec<String>),
    /// The label is absent or has another value.
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// What a selector asks of one field.
#[derive(Debug)]
struct FieldNeed {
    path: String,
    value: String,
    equal: bool,
}

/// Both selectors of one request; the default one matches everything.
#[derive(Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Need>,
    fields: Vec<FieldNeed>,
}

impl Selector {
    /// 400 on what cannot be read and on fields this kind is not selected by.
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Selector, Fail> {
        let labels = split(labels).into_iter().map(need).collect::<Result<_, _>>()?;
        let mut wanted = Vec::new();
        for part in fields.split(',').filter(|part| !part.is_empty()) {
            let field = field_need(part)?;
            let known = matches!(field.path.as_str(), "metadata.name" | "metadata.namespace")
                || kind.fields.contains(&field.path.as_str());
            if !known {
                return Err(unknown_field(kind, &field.path));
            }
            wanted.push(field);
        }
        Ok(Selector { labels, fields: wanted })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Stored) -> bool {
        self.matches_labels(|name| object.label(name))
            && self.fields.iter().all(|field| {
                let actual = match field.path.as_str() {
                    "metadata.name" => &*object.name,
                    "metadata.namespace" => &*object.namespace,
                    path => object.field(path),
                };
                (actual == field.value) == field.equal
            })
    }

    /// The label part alone, for what is made up and not stored.
    pub(super) fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.labels.iter().all(|need| match need {
            Need::In(name, values) => label(name).is_some_and(|is| values.iter().any(|v| v == is)),
            Need::NotIn(name, values) => {
                label(name).is_none_or(|is| !values.iter().any(|v| v == is))
            }
            Need::Exists(name) => label(name).is_some(),
            Need::Missing(name) => label(name).is_none(),
        })
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn need(part: &str) -> Result<Need, Fail> {
    if let Some(name) = part.strip_prefix('!') {
        return label_name(name).map(Need::Missing);
    }
    if let Some((name, values)) = set(part, " notin ") {
        return Ok(Need::NotIn(label_name(name)?, values));
    }
    if let Some((name, values)) = set(part, " in ") {
        return Ok(Need::In(label_name(name)?, values));
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Ok(Need::NotIn(label_name(name)?, vec![label_value(value)?]));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Need::In(label_name(name)?, vec![label_value(value)?]));
    }
    label_name(part).map(Need::Exists)
}

/// `name in (a,b)`, with or without a blank before the parenthesis.
fn set<'a>(part: &'a str, operator: &str) -> Option<(&'a str, Vec<String>)> {
    let values = part.strip_suffix(')')?;
    let (head, values) = values.split_once('(')?;
    let head = format!("{} ", head.trim_end());
    let name_end = head.strip_suffix(operator)?.len();
    let values = values.split(',').map(|value| value.trim().to_owned()).collect();
    Some((&part[..name_end], values))
}

fn label_name(name: &str) -> Result<String, Fail> {
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(Fail::bad_request(format!(
            "unable to parse requirement: <nil>: Invalid value: \"{name}\": name part must \
             consist of alphanumeric characters, '-', '_' or '.'"
        )));
    }
    Ok(name.to_owned())
}

fn label_value(value: &str) -> Result<String, Fail> {
    let value = value.trim();
    if let Some(odd) = value.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        let message = format!("unable to parse requirement: found '{odd}', expected: identifier");
        return Err(Fail::bad_request(message));
    }
    Ok(value.to_owned())
}

fn unknown_field(kind: &Kind, path: &str) -> Fail {
    // Kinds with fields of their own have a sentence of their own, too.
    Fail::bad_request(match kind.fields {
        [] => format!(
            "\"{path}\" is not a known field selector: only \"metadata.name\", \
             \"metadata.namespace\""
        ),
        _ => format!("field label not supported: {path}"),
    })
}

fn field_need(part: &str) -> Result<FieldNeed, Fail> {
    let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (path, value, true)
    } else {
        let message = format!("invalid selector: '{part}'; can't understand '{part}'");
        return Err(Fail::bad_request(message));
    };
    Ok(FieldNeed { path: path.trim().to_owned(), value: value.trim().to_owned(), equal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector = Selector::parse(&super::super::kinds::POD, selector, "").unwrap();
        selector.matches_labels(|name| labels.iter().find(|l| l.0 == name).map(|l| l.1))
    }

    #[test]
    fn every_form_of_label_selector_is_understood() {
        let labels = [("app", "web"), ("tier", "front")];
        for yes in ["app=web", "app==web", "app in (api,web)", "app,!other", "tier notin(back)"] {
            assert!(picks(yes, &labels), "{yes}");
        }
        for no in ["app!=web", "!app", "app in (api)", "app=web,tier=back", "other"] {
            assert!(!picks(no, &labels), "{no}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_400() {
        for (labels, fields) in [("a b", ""), ("x>1", ""), ("", "spec.foo=1"), ("", "nonsense")] {
            let fail = Selector::parse(&super::super::kinds::POD, labels, fields).unwrap_err();
            assert_eq!(fail.code, 400);
        }
    }
}
