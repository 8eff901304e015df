//! Label selectors as kubectl takes them (`app=web,tier in (a,b),!canary,generation>3`), matched
//! against rows.
//!
//! They are read token by token as the API server reads them (apimachinery, `labels.Parse`), odd
//! forms too: what it refuses is refused, what it picks is picked, but for very many terms. Of
//! several selectors the last counts, as of all parameters. Field selectors are something else;
//! columns have `filterBy`.

use compact_str::CompactString;

use crate::kinds::Labels;

/// Terms of one selector: each costs a look at every row.
const TERMS: usize = 32;
/// Longest value, and longest name in a key, in bytes.
const LONGEST: usize = 63;
/// Longest prefix of a key: a DNS subdomain.
const LONGEST_PREFIX: usize = 253;
/// As much as a message repeats of what is wrong, in characters.
const SHOWN: usize = 80;

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
    /// One of these values, which are in order; negated, rows without the label count as well.
    Value {
        among: Vec<CompactString>,
        negated: bool,
    },
    Key {
        present: bool,
    },
    /// A whole number above or below this one.
    Number {
        bound: i64,
        above: bool,
    },
}

impl Selector {
    /// Parses a selector; the error is a sentence that says what is wrong where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens { text, at: 0 };
        let mut terms = Vec::new();
        if tokens.peek() == Token::End {
            return Ok(Self(terms));
        }
        loop {
            if terms.len() == TERMS {
                return Err(format!("more than {TERMS} terms"));
            }
            terms.push(tokens.term()?);
            match tokens.take() {
                Token::End => return Ok(Self(terms)),
                Token::Comma => {}
                other => return Err(unexpected(other, "a comma or the end")),
            }
        }
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
                    let is_among =
                        |value: &str| among.binary_search_by(|one| one.as_str().cmp(value)).is_ok();
                    label.is_some_and(is_among) != *negated
                }
                Wants::Number { bound, above } => {
                    let number = label.and_then(|value| value.parse::<i64>().ok());
                    number.is_some_and(
                        |number| if *above { number > *bound } else { number < *bound },
                    )
                }
            }
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    End,
    Comma,
    Open,
    Close,
    Not,
    /// `=` or `==`.
    Equal,
    Unequal,
    Above,
    Below,
    /// A key, a value, or one of the words `in` and `notin`: which, its place says.
    Word(&'a str),
}

/// What of a text is still to be read.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The byte here; 0 at the end.
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn take(&mut self) -> Token<'a> {
        while is_blank(self.byte()) {
            self.at += 1;
        }
        let token = match self.byte() {
            0 => return Token::End,
            b',' => Token::Comma,
            b'(' => Token::Open,
            b')' => Token::Close,
            b'!' => Token::Not,
            b'=' => Token::Equal,
            b'>' => Token::Above,
            b'<' => Token::Below,
            _ => self.word(),
        };
        if !matches!(token, Token::Word(_)) {
            self.at += 1;
        }
        let token = match (token, self.byte()) {
            (Token::Not, b'=') => Token::Unequal,
            (token, _) => token,
        };
        if matches!(token, Token::Equal | Token::Unequal) && self.byte() == b'=' {
            self.at += 1;
        }
        // To the API server a NUL ends a token, and elsewhere the text.
        if self.byte() == 0 {
            self.at += 1;
        }
        token
    }

    fn word(&mut self) -> Token<'a> {
        let begin = self.at;
        while !is_end_of_word(self.byte()) {
            self.at += 1;
        }
        Token::Word(self.text.get(begin..self.at).unwrap_or_default())
    }

    fn peek(&self) -> Token<'a> {
        Tokens { text: self.text, at: self.at }.take()
    }

    fn term(&mut self) -> Result<Term, String> {
        let (present, first) = match self.take() {
            Token::Not => (false, self.take()),
            first => (true, first),
        };
        let Token::Word(word) = first else { return Err(unexpected(first, "a label")) };
        let key = key_of(word)?;
        if !present || matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(Term { key, wants: Wants::Key { present } });
        }
        let wants = match self.take() {
            Token::Word("in") => Wants::Value { among: self.values()?, negated: false },
            Token::Word("notin") => Wants::Value { among: self.values()?, negated: true },
            Token::Equal => Wants::Value { among: vec![self.value()?], negated: false },
            Token::Unequal => Wants::Value { among: vec![self.value()?], negated: true },
            Token::Above => Wants::Number { bound: self.number()?, above: true },
            Token::Below => Wants::Number { bound: self.number()?, above: false },
            other => return Err(unexpected(other, "one of in, notin, =, ==, !=, > and <")),
        };
        Ok(Term { key, wants })
    }

    /// The value behind an operator; there may be none, which is the empty one.
    fn value(&mut self) -> Result<CompactString, String> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(CompactString::default());
        }
        match self.take() {
            Token::Word(word) => value_of(word),
            other => Err(unexpected(other, "a value")),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.value()?;
        value.parse().map_err(|_| format!("{value:?} is no whole number"))
    }

    /// Values in brackets; between commas, or beside one, may be the empty one.
    fn values(&mut self) -> Result<Vec<CompactString>, String> {
        match self.take() {
            Token::Open => {}
            other => return Err(unexpected(other, "an opening bracket")),
        }
        let mut among = Vec::new();
        loop {
            match self.peek() {
                Token::Word(word) => {
                    self.take();
                    among.push(value_of(word)?);
                }
                Token::Comma | Token::Close => among.push(CompactString::default()),
                other => return Err(unexpected(other, "a value")),
            }
            match self.take() {
                Token::Comma => {}
                Token::Close => {
                    among.sort_unstable();
                    among.dedup();
                    return Ok(among);
                }
                other => return Err(unexpected(other, "a comma or a closing bracket")),
            }
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_end_of_word(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, 0 | b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

/// `[DNS subdomain/]name`.
fn key_of(key: &str) -> Result<CompactString, String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if !name.is_empty() && is_name(name) && prefix.is_none_or(is_subdomain) {
        return Ok(key.into());
    }
    Err(format!(
        "{:?} is no label: at most {LONGEST} letters, digits, '-', '_' and '.', with a letter or \
         digit at both ends, and before them perhaps a DNS name and '/'",
        shown(key)
    ))
}

fn value_of(value: &str) -> Result<CompactString, String> {
    if is_name(value) {
        return Ok(value.into());
    }
    Err(format!(
        "{:?} is no label's value: at most {LONGEST} letters, digits, '-', '_' and '.', with a \
         letter or digit at both ends",
        shown(value)
    ))
}

/// Whether this is a label's value: the empty one is.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST
        && bytes.iter().copied().all(inner)
        && edge(bytes.first())
        && edge(bytes.last())
}

fn is_subdomain(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(is_part)
}

fn unexpected(token: Token<'_>, wanted: &str) -> String {
    let found = match token {
        Token::End => return format!("it ends where there should be {wanted}"),
        Token::Comma => ",",
        Token::Open => "(",
        Token::Close => ")",
        Token::Not => "!",
        Token::Equal => "=",
        Token::Unequal => "!=",
        Token::Above => ">",
        Token::Below => "<",
        Token::Word(word) => word,
    };
    format!("{:?} where there should be {wanted}", shown(found))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
