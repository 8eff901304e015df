//! Keys of mappings that are no text to YAML 1.1, as the text that JSON has for them: `on` is `true`,
//! `0400` is `256` and `1.10` is `1.1`. What they are is told by goyaml (`resolve.go`), the text by
//! sigs.k8s.io/yaml (`convertToJSONableObject`).
//!
//! It is NOT where keys are refused: our reader takes null for one as little as they do. Nor are
//! tagged keys and aliases looked at.

/// Whether such a key may be in a text. Nearly all texts have none: they cost this one look at what
/// stands before all that may end a key, and no key is missed by it.
pub fn may_be_in(text: &str) -> bool {
    // Of `? on` the colon may stand anywhere.
    let is_explicit = text.split('?').skip(1).any(|rest| rest.starts_with(char::is_whitespace));
    let mut ended = text.split([':', ',', '}', '#']);
    is_explicit
        || ended.any(|part| {
            let last = part.trim_end().rsplit(|letter: char| !is_of_word(letter)).next();
            last.and_then(meant).is_some()
        })
}

fn is_of_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '+' | '-' | '.')
}

/// The text that a plain key is to Helm and kubectl, where it is not the one that is written.
pub fn meant(word: &str) -> Option<String> {
    let meant = match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "True" | "TRUE" => {
            "true".to_owned()
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "False" | "FALSE" => {
            "false".to_owned()
        }
        ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => ".inf".to_owned(),
        "-.Inf" | "-.INF" => "-.inf".to_owned(),
        ".NaN" | ".NAN" => ".nan".to_owned(),
        _ => number(word)?,
    };
    (meant != word).then_some(meant)
}

fn number(word: &str) -> Option<String> {
    match word.chars().next()? {
        '.' => float(word),
        '0'..='9' | '+' | '-' => {
            let plain = word.replace('_', "");
            let Some(value) = integer(&plain) else { return float(&plain) };
            match i64::try_from(value) {
                Ok(value) => Some(value.to_string()),
                // No key to them at all, and so the text that it is here.
                Err(_) if u64::try_from(value).is_ok() => None,
                Err(_) => float(&plain),
            }
        }
        _ => None,
    }
}

/// An integer of any base, as Go reads it (`strconv.ParseInt` with base 0).
fn integer(plain: &str) -> Option<i128> {
    let digits = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', _, ..] => (8, digits),
        _ => (10, digits),
    };
    // Rust would take a sign here.
    if !digits.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if plain.starts_with('-') { -value } else { value })
}

/// A float as Go writes it that is rounded to 32 bits (`strconv.FormatFloat` with `'g', -1, 32`).
fn float(plain: &str) -> Option<String> {
    let digits = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    // Rust would take `+inf` and `-nan` as well.
    if !digits.starts_with(|first: char| first == '.' || first.is_ascii_digit()) {
        return None;
    }
    // Beyond all numbers it is text.
    if !plain.parse::<f64>().ok()?.is_finite() {
        return None;
    }
    let value: f32 = plain.parse().ok()?;
    if value.is_infinite() {
        return Some(if value > 0.0 { ".inf" } else { "-.inf" }.to_owned());
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    Some(match exponent {
        -4..=5 => value.to_string(),
        6.. => format!("{digits}e+{exponent:02}"),
        _ => format!("{digits}e-{:02}", exponent.abs()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written, and what `sigs.k8s.io/yaml` makes of it.
    const OTHERS: [(&str, &str); 44] = [
        ("y", "true"),
        ("On", "true"),
        ("TRUE", "true"),
        ("N", "false"),
        ("off", "false"),
        ("False", "false"),
        ("0400", "256"),
        ("0o400", "256"),
        ("-0O17", "-15"),
        ("0x1F", "31"),
        ("-0X10", "-16"),
        ("0b11", "3"),
        ("1_000", "1000"),
        ("1__0_", "10"),
        ("0_7", "7"),
        ("+5", "5"),
        ("-0", "0"),
        ("00", "0"),
        ("-0x8000000000000000", "-9223372036854775808"),
        // Neither octal nor, with so many digits, an integer.
        ("08", "8"),
        ("-0019", "-19"),
        ("18446744073709551616", "1.8446744e+19"),
        ("-9223372036854775809", "-9.223372e+18"),
        ("1.10", "1.1"),
        ("1.0", "1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("-.50", "-0.5"),
        ("+1_0.25", "10.25"),
        ("-0.0", "-0"),
        ("1e3", "1000"),
        ("1E+5", "100000"),
        ("1e6", "1e+06"),
        ("1234567.5", "1.2345675e+06"),
        ("16777217.0", "1.6777216e+07"),
        ("0.10", "0.1"),
        ("0.00010", "0.0001"),
        ("0.000012", "1.2e-05"),
        ("1e-50", "0"),
        ("1e40", ".inf"),
        ("-1e40", "-.inf"),
        ("+.Inf", ".inf"),
        ("-.INF", "-.inf"),
        (".NaN", ".nan"),
    ];

    #[test]
    fn booleans_and_numbers_are_the_text_that_go_writes_for_them() {
        for (written, meaning) in OTHERS {
            assert_eq!(meant(written).as_deref(), Some(meaning), "{written}");
        }
    }

    #[test]
    fn what_is_text_or_written_as_it_is_meant_stays() {
        for word in [
            "",
            "name",
            "true",
            "false",
            "yEs",
            "oN",
            "~",
            "null",
            "9000",
            "-5",
            "0",
            "1.1",
            ".inf",
            "-.inf",
            ".nan",
            "+inf",
            "-nan",
            "nan",
            "inf",
            "+",
            "-",
            ".",
            "0x",
            "0b",
            "0x-1",
            "0b2",
            "_1",
            "1.2.3",
            "1.10 of them",
            "10:30",
            "2001-01-01",
            "12e4567",
            "1e",
            "0x1p-2",
            "9223372036854775808",
        ] {
            assert_eq!(meant(word), None, "{word}");
        }
    }

    #[test]
    fn no_place_where_such_a_key_may_stand_is_missed() {
        for text in [
            "on: a",
            "a:\n  - 1.10 : b",
            "0400:\r\n  - b",
            "&a y: b",
            "{y}",
            "{a, y, b}",
            "{a: b, y\n}",
            "{y # why\n}",
            "{y\n  # why\n: b}",
            "[y: b]",
            "? y\n: b",
            "? y # why\n: b",
            "? y",
            "? y\na: b",
            "a: b\n?\ty",
        ] {
            assert!(may_be_in(text), "{text}");
        }
        for text in [
            "",
            "a: b\nc: {d: e, f: [1, 2]}\n",
            "replicas: 3 # of them\nmode: 0400\nis: yes\nlast: word\n",
            "{\"on\": \"0400\", \"a\": [1.5, true, null]}",
            "9000: a\n'on': b\ntrue: c\nhost: a.example.org:8080/?b=c\n",
        ] {
            assert!(!may_be_in(text), "{text}");
        }
    }
}
