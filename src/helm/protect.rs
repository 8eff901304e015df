//! Which releases nobody changes until somebody lifts that: by a label on the newest record's
//! Secret, or by patterns of the configuration.
//!
//! It only says so: refusing, and who may lift it, is `api::release_protect`'s part. Who writes
//! Secrets past us is not held by any of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// `true` protects a release, `false` lifts what a pattern protects.
pub const LABEL: &str = "binnacle.dev/protected";

/// The configured patterns.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    namespace: String,
    name: String,
}

/// How a release stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guarded {
    pub protected: bool,
    /// `label`, `pattern:kube-system/*`, or empty.
    pub by: String,
    /// A pattern protects it, and its label says no.
    pub lifted: bool,
}

impl Guarded {
    /// `{protected, by, lifted}`, as answers have it.
    pub fn shown(&self) -> Value {
        json!({ "protected": self.protected, "by": self.by, "lifted": self.lifted })
    }
}

impl Protection {
    /// Patterns are `namespace/name`, in each of which `*` stands for any letters; one without a
    /// slash is a namespace.
    pub fn new(patterns: &[String]) -> Self {
        let patterns = patterns.iter().map(|pattern| {
            let (namespace, name) = pattern.split_once('/').unwrap_or((pattern.as_str(), "*"));
            Pattern { namespace: namespace.to_owned(), name: name.to_owned() }
        });
        Self { patterns: patterns.collect() }
    }

    /// How the release stands whose newest record has these labels.
    pub fn of(&self, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> Guarded {
        let label = labels.get(LABEL).map(String::as_str);
        if label == Some("true") {
            return Guarded { protected: true, by: "label".into(), lifted: false };
        }
        let mut patterns = self.patterns.iter();
        let found = patterns
            .find(|one| is_like(&one.namespace, namespace) && is_like(&one.name, name))
            .map(|one| format!("pattern:{}/{}", one.namespace, one.name));
        match found {
            None => Guarded::default(),
            Some(by) if label == Some("false") => Guarded { protected: false, by, lifted: true },
            Some(by) => Guarded { protected: true, by, lifted: false },
        }
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    // The earliest place of each piece leaves most for those behind it.
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protection() -> Protection {
        let core = ["kube-system/*", "*/vault", "prod-*/web-*-db"];
        Protection::new(&core.map(String::from))
    }

    fn of(namespace: &str, name: &str, label: Option<&str>) -> (bool, String, bool) {
        let labels = label.map(|value| (LABEL.to_owned(), value.to_owned())).into_iter().collect();
        let Guarded { protected, by, lifted } = protection().of(namespace, name, &labels);
        (protected, by, lifted)
    }

    #[test]
    fn a_pattern_protects_and_says_which_it_is() {
        let by = |pattern: &str| (true, format!("pattern:{pattern}"), false);
        assert_eq!(of("kube-system", "coredns", None), by("kube-system/*"));
        assert_eq!(of("atlas", "vault", None), by("*/vault"));
        assert_eq!(of("prod-eu", "web-shop-db", None), by("prod-*/web-*-db"));
        for (namespace, name) in [("kube-systems", "a"), ("atlas", "vaults"), ("prod-eu", "web-db")]
        {
            assert_eq!(of(namespace, name, None), (false, String::new(), false));
        }
    }

    #[test]
    fn a_label_protects_by_itself_and_lifts_what_a_pattern_protects() {
        assert_eq!(of("atlas", "web", Some("true")), (true, "label".into(), false));
        assert_eq!(of("atlas", "web", Some("false")), (false, String::new(), false));
        let lifted = (false, "pattern:kube-system/*".to_owned(), true);
        assert_eq!(of("kube-system", "coredns", Some("false")), lifted);
        // What is neither is nobody's word.
        assert!(of("kube-system", "coredns", Some("no")).0);
    }

    #[test]
    fn a_star_stands_for_anything_and_the_rest_for_itself() {
        for (pattern, text) in
            [("*", ""), ("*", "a"), ("a*", "a"), ("*a", "ba"), ("a*b*c", "abbc"), ("**", "x")]
        {
            assert!(is_like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("a", "ab"), ("a*a", "a"), ("a*b*c", "acb"), ("*ab*ab", "ab"), ("a*", "ba")]
        {
            assert!(!is_like(pattern, text), "{pattern} {text}");
        }
    }
}
