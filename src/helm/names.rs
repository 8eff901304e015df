//! Names of releases and namespaces: told right or wrong before anything runs.
//!
//! Whether a name is free is not known here; the cluster tells.

use aws_lc_rs::rand;

use super::act::BadAct;

/// Helm's own limit: names of objects append to it and have 63 in all (`pkg/chart/v2/util`).
const RELEASE: usize = 53;
/// An RFC 1123 label.
const NAMESPACE: usize = 63;
/// Letters behind the chart's name in a generated one: 50 bits, so that they do not meet.
const SUFFIX: usize = 10;
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Whether a release can have this name; the error proposes one that could be meant.
pub fn release(name: &str) -> Result<(), BadAct> {
    if name.is_empty() {
        return Err(BadAct::new("name", "error-release-name-missing"));
    }
    if name.len() <= RELEASE && name.split('.').all(is_label) {
        return Ok(());
    }
    let long = name.len() > RELEASE;
    let what = if long { "error-release-name-long" } else { "error-release-name" };
    let bad = BadAct::new("name", what).with("name", name).with("length", name.len());
    Err(bad.with("most", RELEASE).with("proposal", proposal(name)))
}

/// Whether a namespace can have this name.
pub fn namespace(name: &str) -> Result<(), BadAct> {
    if name.len() <= NAMESPACE && is_label(name) {
        return Ok(());
    }
    let bad = BadAct::new("namespace", "error-release-namespace");
    Err(bad.with("name", name).with("most", NAMESPACE))
}

/// A name for a release of this chart that nobody has, such as `web-k3f9q2mzab`.
pub fn generated(chart: &str) -> String {
    let mut seed = [0; SUFFIX];
    // Without randomness the name is still valid, and one that is taken is told as such.
    let _ = rand::fill(&mut seed);
    let suffix: String = seed.iter().map(|byte| letter(*byte)).collect();
    let mut stem = cleaned(chart);
    stem.truncate(RELEASE - SUFFIX - 1);
    match stem.trim_end_matches(['-', '.']) {
        "" => format!("release-{suffix}"),
        stem => format!("{stem}-{suffix}"),
    }
}

fn letter(byte: u8) -> char {
    let at = usize::from(byte) % LETTERS.len();
    char::from(LETTERS.get(at).copied().unwrap_or(b'a'))
}

/// A valid name that is near to `name`.
fn proposal(name: &str) -> String {
    let mut near = cleaned(name);
    near.truncate(RELEASE);
    match near.trim_end_matches(['-', '.']) {
        "" => "my-release".to_owned(),
        near => near.to_owned(),
    }
}

/// The name in lower case, each run of what may not be in it as one dash, no empty part.
/// Ends on a letter or digit; ASCII only.
fn cleaned(name: &str) -> String {
    let mut clean = String::new();
    for part in name.split('.') {
        let mut label = String::new();
        for letter in part.chars().take(2 * RELEASE) {
            match letter.to_ascii_lowercase() {
                letter @ ('a'..='z' | '0'..='9') => label.push(letter),
                _ if label.ends_with('-') => {}
                _ => label.push('-'),
            }
        }
        let label = label.trim_matches('-');
        if !label.is_empty() && clean.len() < RELEASE {
            if !clean.is_empty() {
                clean.push('.');
            }
            clean.push_str(label);
        }
    }
    clean
}

/// Of DNS, of any length (RFC 1123).
pub(super) fn is_label(label: &str) -> bool {
    let inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !label.is_empty()
        && label.bytes().all(inside)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_helm_takes_are_taken() {
        let longest = "a".repeat(RELEASE);
        for name in ["a", "web", "web-1", "1web", "a.b", "a-b.c-d", &longest] {
            assert_eq!(release(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_wrong_name_is_told_with_one_that_would_be_right() {
        let long = "b".repeat(RELEASE + 1);
        let cases = [
            ("Web", "error-release-name", "web"),
            ("web_1", "error-release-name", "web-1"),
            ("-web-", "error-release-name", "web"),
            ("--help", "error-release-name", "help"),
            ("a..b", "error-release-name", "a.b"),
            ("a.-b", "error-release-name", "a.b"),
            ("my web / shop", "error-release-name", "my-web-shop"),
            ("ÄÖ", "error-release-name", "my-release"),
            (long.as_str(), "error-release-name-long", &long[..RELEASE]),
        ];
        for (name, what, proposal) in cases {
            let bad = release(name).unwrap_err();
            assert_eq!((&*bad.field, bad.what), ("name", what), "{name}");
            assert!(bad.args().contains(&("proposal", proposal)), "{name}: {bad:?}");
            assert_eq!(release(proposal), Ok(()), "{proposal}");
        }
        assert_eq!(release("").unwrap_err().what, "error-release-name-missing");
    }

    #[test]
    fn a_namespace_is_a_label_of_dns() {
        assert_eq!(namespace("kube-system"), Ok(()));
        for name in ["", "a.b", "A", "-a", "a-", &"a".repeat(64)] {
            assert_eq!(namespace(name).unwrap_err().what, "error-release-namespace", "{name}");
        }
    }

    #[test]
    fn a_generated_name_is_valid_whatever_the_chart_is_called() {
        let long = "x-".repeat(80);
        for chart in ["web", "My_Chart", "", "---", "a.b", &long] {
            let name = generated(chart);
            assert_eq!(release(&name), Ok(()), "{chart}: {name}");
            assert_ne!(name, generated(chart));
        }
        assert!(generated("web").starts_with("web-"));
        assert!(generated("--").starts_with("release-"));
    }
}
