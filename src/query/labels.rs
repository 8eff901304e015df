//! Label selectors as kubectl takes them (`app=web,tier in (a,b),!canary`), matched against rows.
//!
//! Field selectors are something else; columns have `filterBy`.

use compact_str::CompactString;

use crate::kinds::Labels;

/// Terms of one selector: each costs a look at every row.
const TERMS: usize = 32;

/// All terms must hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: CompactString,
    wants: Wants,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wants {
    /// One of these values; negated, rows without the label count as well.
    Value {
        among: Vec<CompactString>,
        negated: bool,
    },
    Key {
        present: bool,
    },
}

impl Selector {
    /// Parses a selector; the error is a sentence that says what is wrong where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if terms.len() == TERMS {
                return Err(format!("more than {TERMS} terms"));
            }
            let (term, after) = term(rest)?;
            terms.push(term);
            rest = after;
        }
        Ok(Self(terms))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| {
            let label = labels.get(&term.key);
            match &term.wants {
                Wants::Key { present } => label.is_some() == *present,
                Wants::Value { among, negated } => {
                    label.is_some_and(|value| among.iter().any(|one| one == value)) != *negated
                }
            }
        })
    }
}

/// The first term, and the text behind its comma.
fn term(text: &str) -> Result<(Term, &str), String> {
    let (head, rest) = split(text)?;
    let head = head.trim();
    let made = |key: &str, wants: Wants| -> Result<Term, String> {
        Ok(Term { key: key_of(key, head)?, wants })
    };
    let term = if let Some(key) = head.strip_prefix('!') {
        made(key, Wants::Key { present: false })?
    } else if let Some(open) = head.find('(') {
        let inner = head.get(open + 1..).and_then(|inner| inner.strip_suffix(')'));
        let inner = inner.ok_or_else(|| format!("no closing bracket in {head:?}"))?;
        let mut words = head.get(..open).unwrap_or_default().split_whitespace();
        let (key, operator) = (words.next().unwrap_or_default(), words.next());
        let negated = match operator {
            Some("in") => false,
            Some("notin") => true,
            _ => return Err(format!("{head:?} has neither in nor notin")),
        };
        let among =
            inner.split(',').map(|value| value_of(value, head)).collect::<Result<_, _>>()?;
        made(key, Wants::Value { among, negated })?
    } else if let Some((key, value)) = head.split_once("!=") {
        made(key, Wants::Value { among: vec![value_of(value, head)?], negated: true })?
    } else if let Some((key, value)) = head.split_once("==").or_else(|| head.split_once('=')) {
        made(key, Wants::Value { among: vec![value_of(value, head)?], negated: false })?
    } else {
        made(head, Wants::Key { present: true })?
    };
    Ok((term, rest))
}

/// Up to the comma that is not within brackets.
fn split(text: &str) -> Result<(&str, &str), String> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth =
                    depth.checked_sub(1).ok_or_else(|| format!("no bracket open in {text:?}"))?;
            }
            ',' if depth == 0 => {
                let (head, rest) = text.split_at(at);
                return Ok((head, rest.get(1..).unwrap_or_default().trim_start()));
            }
            _ => {}
        }
    }
    Ok((text, ""))
}

fn key_of(key: &str, term: &str) -> Result<CompactString, String> {
    let key = key.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if key.is_empty() || !key.chars().all(fits) {
        return Err(format!("{key:?} in {term:?} is no label"));
    }
    Ok(key.into())
}

fn value_of(value: &str, term: &str) -> Result<CompactString, String> {
    let value = value.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !value.chars().all(fits) {
        return Err(format!("{value:?} in {term:?} is no label's value"));
    }
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(selector: &str, labels: &[(&str, &str)]) -> bool {
        Selector::parse(selector).unwrap().matches(&labels.iter().copied().collect())
    }

    #[test]
    fn terms_are_those_of_kubectl_and_all_must_hold() {
        let web = [("app", "web"), ("tier", "a")];
        for selector in [
            "",
            "app",
            "!canary",
            "app=web",
            "app==web",
            "app!=db",
            "other!=x",
            "tier in (a, b)",
            "tier notin (b,c)",
            "other notin (x)",
            "app=web,tier in (a,b),!canary",
            "tier=a , app",
        ] {
            assert!(picks(selector, &web), "{selector}");
        }
        for selector in
            ["canary", "!app", "app=db", "app!=web", "tier in (b)", "tier notin (a)", "app,app=x"]
        {
            assert!(!picks(selector, &web), "{selector}");
        }
        assert!(picks("app=", &[("app", "")]));
    }

    #[test]
    fn what_is_no_selector_is_named() {
        for bad in
            ["=x", "a=b=c", "a in b", "a in (b", "a in b)", "a,,b", "a%b", "a=ü", "a near (b)", ","]
        {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
        assert!(Selector::parse(&vec!["a"; TERMS + 1].join(",")).is_err());
    }
}
