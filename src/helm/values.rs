//! The values of an install or upgrade: what a person sent, as the one object that Helm gets.
//!
//! Merged in Helm's order: the values, then each `set`, then each `setString`. Values of a chart
//! and of earlier revisions are not known here; the engine merges those. A number that `set` gives
//! reaches templates as any number of a values file does (a float), since it goes through one.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::act::BadAct;
use super::strvals;
use crate::yaml;

/// As JSON. A release with its chart and its values has to fit into one Secret of 1 MiB.
pub const LIMIT: usize = 1024 * 1024;
/// Objects and lists in one another; deeper ones cost recursion everywhere behind us.
const DEPTH: usize = 64;
/// Keys, values, objects and lists of a long text; a short one has fewer, whatever its aliases repeat.
const NODES: usize = 250_000;

/// One object of all three.
pub fn merged(
    values: Option<Value>,
    set: &[String],
    set_string: &[String],
) -> Result<Value, BadAct> {
    let mut object = match values {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(object)) => object,
        Some(Value::String(text)) => from_yaml(&text)?,
        Some(_) => return Err(BadAct::new("values", "error-release-values-object")),
    };
    let mut room = strvals::ITEMS;
    for (field, lines, strings) in [("set", set, false), ("setString", set_string, true)] {
        for (number, line) in lines.iter().enumerate() {
            let done = strvals::set(line, &mut object, strings, &mut room);
            done.map_err(|reason| {
                // Not the line itself: it may hold a password.
                let bad = BadAct::new(field, "error-release-set").with("number", number + 1);
                bad.with("reason", reason)
            })?;
        }
    }
    let values = Value::Object(object);
    if !is_flat(&values, DEPTH) {
        return Err(BadAct::new("values", "error-release-values-deep").with("most", DEPTH));
    }
    if values.to_string().len() > LIMIT {
        return Err(too_large());
    }
    Ok(values)
}

/// The values as JSON that Helm's YAML parser reads as the same: it refuses some characters that
/// JSON allows, and folds others that YAML 1.1 takes for the end of a line.
pub fn file(values: &Value) -> Vec<u8> {
    let json = values.to_string();
    let mut file = String::with_capacity(json.len());
    for letter in json.chars() {
        if is_odd(letter) {
            // Writing to a String does not fail.
            let _ = write!(file, "\\u{:04x}", u32::from(letter));
        } else {
            file.push(letter);
        }
    }
    file.into_bytes()
}

fn is_odd(letter: char) -> bool {
    matches!(u32::from(letter), 0x7f..=0x9f | 0x2028 | 0x2029 | 0xfeff | 0xfffe | 0xffff)
}

fn too_large() -> BadAct {
    BadAct::new("values", "error-release-values-large").with("most", LIMIT)
}

/// YAML as Helm reads it: `no` is false, 0400 is octal and the key `on` is `true`. One document, an
/// object.
fn from_yaml(text: &str) -> Result<Map<String, Value>, BadAct> {
    if text.len() > LIMIT {
        return Err(too_large());
    }
    let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_empty) {
        return Ok(Map::new());
    }
    // Depth is bounded by the parser's own budget. Texts that aliases repeat are not to be made at all
    // where the result would be refused.
    let options = || {
        serde_saphyr::options! {
            legacy_octal_numbers: true,
            budget: serde_saphyr::budget! {
                max_nodes: yaml::nodes(text, NODES),
                max_total_scalar_bytes: 2 * LIMIT,
            },
        }
    };
    let values = yaml::read(text, |text| serde_saphyr::from_str_with_options(text, options()));
    let values = values.map_err(|error| {
        BadAct::new("values", "error-release-values-yaml").with("reason", yaml::reason(&error))
    })?;
    match values {
        Value::Null => Ok(Map::new()),
        Value::Object(object) => Ok(object),
        _ => Err(BadAct::new("values", "error-release-values-object")),
    }
}

/// Whether at most `left` containers stand in one another.
fn is_flat(value: &Value, left: usize) -> bool {
    match value {
        Value::Object(_) | Value::Array(_) if left == 0 => false,
        Value::Object(object) => object.values().all(|inner| is_flat(inner, left - 1)),
        Value::Array(list) => list.iter().all(|inner| is_flat(inner, left - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    fn what(values: Value) -> &'static str {
        merged(Some(values), &[], &[]).unwrap_err().what
    }

    #[test]
    fn the_later_ones_win() {
        let values = json!({"image": {"tag": "1", "name": "web"}, "replicas": 1});
        let set = texts(&["image.tag=2,replicas=3", "list[1]=x"]);
        let merged = merged(Some(values), &set, &texts(&["image.tag=3"])).unwrap();
        let image = json!({"tag": "3", "name": "web"});
        assert_eq!(merged, json!({"image": image, "replicas": 3, "list": [null, "x"]}));
    }

    #[test]
    fn yaml_is_read_as_helm_reads_it() {
        let yaml = "# mine\na: &x {b: no}\nc: *x\nmode: 0400\nday: 2001-01-01\nnone:\nbig: 1.5\n";
        let values = merged(Some(json!(yaml)), &[], &[]).unwrap();
        let wanted = json!({
            "a": {"b": false}, "c": {"b": false}, "mode": 256, "day": "2001-01-01",
            "none": null, "big": 1.5,
        });
        assert_eq!(values, wanted);
        for nothing in [json!(null), json!(""), json!("\n  \n# only words\n"), json!("{}")] {
            assert_eq!(merged(Some(nothing), &[], &[]), Ok(json!({})));
        }
        assert_eq!(merged(None, &[], &[]), Ok(json!({})));
        let keys = "yes: no\n1.10: x\nports: {0o17: a, 8_080: b, 'on': c}\n";
        let wanted =
            json!({"true": false, "1.1": "x", "ports": {"15": "a", "8080": "b", "on": "c"}});
        assert_eq!(merged(Some(json!(keys)), &[], &[]), Ok(wanted));
    }

    #[test]
    fn a_commit_that_looks_like_a_number_beyond_all_is_text_and_no_reason_repeats_it() {
        let values = json!("image: {tag: 12e4567}\npins: [7e1234]\n");
        let wanted = json!({"image": {"tag": "12e4567"}, "pins": ["7e1234"]});
        assert_eq!(merged(Some(values), &[], &[]), Ok(wanted));
        let bad = merged(Some(json!("a: 1\npin: !!float 7e1234\n")), &[], &[]).unwrap_err();
        assert_eq!(bad.what, "error-release-values-yaml");
        let told = bad.args();
        assert!(told.contains(&("reason", "line 2: a number is not finite")), "{told:?}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for values in [json!([]), json!(1), json!(true), json!("- a\n- b"), json!("just words")] {
            assert_eq!(what(values), "error-release-values-object");
        }
        for values in ["a: b: c", "a: [", "a: *b", "a: 1\na: 2", "y: 1\non: 2", "~: a"] {
            assert_eq!(what(json!(values)), "error-release-values-yaml", "{values}");
        }
    }

    /// Lists of ten, each of ten of those before.
    fn bomb(levels: usize) -> String {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..levels {
            let one = format!("*a{},", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", one.repeat(10)));
        }
        bomb
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        assert_eq!(what(json!(bomb(9))), "error-release-values-yaml");
        // One long text over and over is refused before it is made.
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(LIMIT / 2), "*a,".repeat(40));
        assert_eq!(what(json!(long)), "error-release-values-yaml");
    }

    #[test]
    fn a_short_text_is_short_work_whatever_its_aliases_repeat() {
        // Some 1,200 nodes in 132 bytes, and 12,000 in 183.
        assert!(merged(Some(json!(bomb(3))), &[], &[]).is_ok());
        let bomb = bomb(4);
        assert!(bomb.len() < 300, "{}", bomb.len());
        assert_eq!(what(json!(bomb)), "error-release-values-yaml");
        // As many are well in a text of their own length.
        let list = (0..12_000).map(|number| format!("- {number}\n"));
        let list = format!("a:\n{}", list.collect::<String>());
        assert!(merged(Some(json!(list)), &[], &[]).is_ok());
        let map: String = (0..20).map(|number| format!("key{number}: v, ")).collect();
        let again: String = (0..90).map(|number| format!("k{number}: *m\n")).collect();
        assert!(merged(Some(json!(format!("m: &m {{{map}}}\n{again}"))), &[], &[]).is_ok());
    }

    #[test]
    fn large_and_deep_values_are_refused() {
        assert_eq!(what(json!({"a": "x".repeat(LIMIT)})), "error-release-values-large");
        assert_eq!(what(json!("x".repeat(5 * LIMIT))), "error-release-values-large");
        let deep = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
        assert!(merged(Some(deep(DEPTH)), &[], &[]).is_ok());
        assert_eq!(what(deep(DEPTH + 1)), "error-release-values-deep");
        let refused = merged(None, &texts(&["a[65000]=1,b[65000]=1,c[65000]=1,d[65000]=1"]), &[]);
        assert_eq!(refused.unwrap_err().what, "error-release-set");
    }

    #[test]
    fn a_wrong_pair_is_told_by_its_number_and_the_reason() {
        let bad = merged(None, &[], &texts(&["a=b", "a.b"])).unwrap_err();
        assert_eq!((&*bad.field, bad.what), ("setString", "error-release-set"));
        assert!(bad.args().contains(&("number", "2")), "{bad:?}");
    }

    #[test]
    fn the_file_escapes_what_yaml_takes_otherwise() {
        let values = json!({"k\u{2028}": "a\u{7f}\u{85}\u{9f}\u{feff}b", "é": "\u{1f600}\n\"\\"});
        let text = String::from_utf8(file(&values)).unwrap();
        assert!(text.contains(r"a\u007f\u0085\u009f\ufeffb"), "{text}");
        assert!(text.contains("\u{1f600}"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), values);
    }
}
