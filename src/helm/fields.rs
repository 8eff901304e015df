//! The fields of a request's body, taken out one by one: each with its type, its bounds and its
//! own error.
//!
//! Which fields there are, and what they mean together, is in `act`.

use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use super::act::BadAct;
use super::room::nodes;

/// What one operation of Kubernetes may take, at least and at most.
const TIME: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Helm's default.
const DEFAULT_TIME: Duration = Duration::from_secs(300);
/// Entries of a list of texts: far more than anybody types, few enough to look at each.
const TEXTS: usize = 1000;
/// Fields, items, objects and lists of a body, in which a chart and values in YAML are but texts: far
/// more than values of 1 MiB have, and 70 MiB of trees where they are made up for it.
const NODES: usize = 300_000;

pub struct Fields(Map<String, Value>);

impl Fields {
    /// The body's object, if it has no keys but the known ones.
    pub fn of_json(body: &[u8], known: &[&str]) -> Result<Self, BadAct> {
        // An empty body is one without fields.
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Map::new()));
        }
        Self::known(object(body)?, known)
    }

    /// The same out of a query: `true` and `false` are booleans.
    pub fn of_query(query: &str, known: &[&str]) -> Result<Self, BadAct> {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let object = pairs.map(|(key, value)| {
            let value = match &*value {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                text => Value::from(text),
            };
            (key.into_owned(), value)
        });
        Self::known(object.collect(), known)
    }

    fn known(object: Map<String, Value>, known: &[&str]) -> Result<Self, BadAct> {
        if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
            let bad = BadAct::new(key, "error-release-unknown-field");
            return Err(bad.with("known", known.join(", ")));
        }
        Ok(Self(object))
    }

    /// The field as it came; null is as good as absent.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    pub fn flag(&mut self, field: &str, default: bool) -> Result<bool, BadAct> {
        match self.take(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(BadAct::new(field, "error-release-not-boolean")),
        }
    }

    /// A text of at most `most` bytes without control characters; the empty one is none.
    pub fn text(&mut self, field: &str, most: usize) -> Result<Option<String>, BadAct> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if text.len() > most => {
                Err(BadAct::new(field, "error-release-text-long").with("most", most))
            }
            Some(Value::String(text)) if text.chars().any(char::is_control) => {
                Err(BadAct::new(field, "error-release-text-control"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(BadAct::new(field, "error-release-not-text")),
        }
    }

    pub fn texts(&mut self, field: &str) -> Result<Vec<String>, BadAct> {
        let wrong = || BadAct::new(field, "error-release-not-texts").with("most", TEXTS);
        match self.take(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) if list.len() <= TEXTS => {
                let texts = list.into_iter().map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(wrong()),
                });
                texts.collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    pub fn number(&mut self, field: &str, least: u32, most: u32) -> Result<Option<u32>, BadAct> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let bad = BadAct::new(field, "error-release-not-number");
                Err(bad.with("found", shown(&value)).with("least", least).with("most", most))
            }
        }
    }

    pub fn choice<T: Copy>(
        &mut self,
        field: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, BadAct> {
        let Some(value) = self.take(field) else { return Ok(None) };
        // `true` without quotes is meant as the text: JSON knows both.
        let name = match &value {
            Value::String(name) => name.as_str(),
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            _ => "",
        };
        match choices.iter().find(|(known, _)| *known == name) {
            Some((_, chosen)) => Ok(Some(*chosen)),
            None => {
                let known: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                let bad = BadAct::new(field, "error-release-not-one-of");
                Err(bad.with("found", shown(&value)).with("known", known.join(", ")))
            }
        }
    }

    /// A duration as Go writes them (`90s`, `5m`, `1h`, `1m30s`).
    pub fn timeout(&mut self, field: &str) -> Result<Duration, BadAct> {
        let Some(value) = self.take(field) else { return Ok(DEFAULT_TIME) };
        let time = value.as_str().and_then(duration);
        match time.filter(|time| (TIME.0..=TIME.1).contains(time)) {
            Some(time) => Ok(time),
            None => {
                let bad = BadAct::new(field, "error-release-timeout");
                Err(bad.with("found", shown(&value)))
            }
        }
    }
}

/// The object that a body is, unless it has more in it than anybody needs.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, BadAct> {
    let malformed =
        |reason: &dyn Display| BadAct::new("", "error-malformed-body").with("reason", reason);
    if nodes(body) > NODES {
        return Err(malformed(&"it has too many fields"));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(BadAct::new("", "error-release-body-object")),
        Err(error) => Err(malformed(&error)),
    }
}

/// What was sent, for a person to see.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) => "[…]".to_owned(),
        Value::Object(_) => "{…}".to_owned(),
        other => other.to_string(),
    }
}

/// Go's `time.ParseDuration` for positive durations, to the millisecond.
fn duration(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let tail = rest.get(digits..)?;
        let end = tail.find(|letter: char| letter.is_ascii_digit() || letter == '.');
        let (unit, after) = tail.split_at_checked(end.unwrap_or(tail.len()))?;
        let millis = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            _ => return None,
        };
        sum += number * millis;
        rest = after;
    }
    // Fails for a number too large to be a duration.
    let time = Duration::try_from_secs_f64(sum / 1000.0).ok()?;
    Some(Duration::from_millis(u64::try_from(time.as_millis()).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of_json(value.to_string().as_bytes(), &["a", "b"]).unwrap()
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("5m", Some(300_000)),
            ("90s", Some(90_000)),
            ("1h", Some(3_600_000)),
            ("1m30s", Some(90_000)),
            ("1.5m", Some(90_000)),
            ("1500ms", Some(1500)),
            ("1h1ms", Some(3_600_001)),
            ("", None),
            ("5", None),
            ("m", None),
            ("5 m", None),
            ("-5m", None),
            ("5d", None),
            ("1.2.3s", None),
            ("é", None),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_timeout_is_between_a_second_and_an_hour() {
        assert_eq!(fields(json!({})).timeout("a"), Ok(DEFAULT_TIME));
        assert_eq!(fields(json!({"a": "1s"})).timeout("a"), Ok(Duration::from_secs(1)));
        assert_eq!(fields(json!({"a": "60m"})).timeout("a"), Ok(Duration::from_secs(3600)));
        let huge = format!("{}h", "9".repeat(400));
        for wrong in [json!("0s"), json!("999ms"), json!("1h1s"), json!(300), json!(huge)] {
            let bad = fields(json!({"a": wrong})).timeout("a").unwrap_err();
            assert_eq!((&*bad.field, bad.what), ("a", "error-release-timeout"));
        }
    }

    #[test]
    fn an_unknown_field_is_told_with_the_known_ones() {
        let bad = Fields::of_json(b"{\"a\":1,\"c\":2}", &["a", "b"]).err().unwrap();
        assert_eq!((&*bad.field, bad.what), ("c", "error-release-unknown-field"));
        assert!(bad.args().contains(&("known", "a, b")), "{bad:?}");
        let bad = Fields::of_query("a=1&d=2", &["a", "b"]).err().unwrap();
        assert_eq!(bad.field, "d");
    }

    #[test]
    fn a_body_is_an_object_or_empty() {
        for (body, what) in [
            ("[]", "error-release-body-object"),
            ("1", "error-release-body-object"),
            ("{", "error-malformed-body"),
            ("nonsense", "error-malformed-body"),
        ] {
            let bad = Fields::of_json(body.as_bytes(), &[]).err().unwrap();
            assert_eq!(bad.what, what, "{body}");
        }
        assert!(Fields::of_json(b" \n", &[]).is_ok());
    }

    #[test]
    fn a_body_has_not_more_fields_than_room_and_a_chart_is_one_of_them() {
        let with = |count: usize| format!("{{\"a\":[{}0]}}", r#"{"a":0},"#.repeat(count));
        let bad = Fields::of_json(with(100_000).as_bytes(), &["a"]).err().unwrap();
        assert_eq!(bad.what, "error-malformed-body");
        assert!(bad.args().contains(&("reason", "it has too many fields")), "{bad:?}");
        assert!(Fields::of_json(with(30_000).as_bytes(), &["a"]).is_ok());
        assert!(
            Fields::of_json(format!("{{\"a\":\"{}\"}}", "{[,:".repeat(100_000)).as_bytes(), &["a"])
                .is_ok()
        );
    }

    #[test]
    fn each_type_refuses_the_others() {
        let mut wrong = fields(json!({"a": "yes", "b": 5}));
        assert_eq!(wrong.flag("a", false).unwrap_err().what, "error-release-not-boolean");
        assert_eq!(wrong.text("b", 9).unwrap_err().what, "error-release-not-text");
        let mut wrong = fields(json!({"a": "0123456789", "b": "x\ny"}));
        assert_eq!(wrong.text("a", 9).unwrap_err().what, "error-release-text-long");
        assert_eq!(wrong.text("b", 9).unwrap_err().what, "error-release-text-control");
        let mut wrong = fields(json!({"a": "x", "b": ["x", 1]}));
        assert_eq!(wrong.texts("a").unwrap_err().what, "error-release-not-texts");
        assert_eq!(wrong.texts("b").unwrap_err().what, "error-release-not-texts");
        for number in [json!(-1), json!(1.5), json!(0), json!(11), json!("5")] {
            let bad = fields(json!({"a": number})).number("a", 1, 10).unwrap_err();
            assert_eq!(bad.what, "error-release-not-number");
        }
        let bad = fields(json!({"a": "z"})).choice("a", &[("x", 1), ("y", 2)]).unwrap_err();
        assert!(bad.args().contains(&("known", "x, y")), "{bad:?}");
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let mut none = fields(json!({"a": null, "b": null}));
        assert_eq!(none.flag("a", true), Ok(true));
        assert_eq!(none.text("b", 9), Ok(None));
    }
}
