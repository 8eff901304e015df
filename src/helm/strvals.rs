//! The language of `helm --set` and `--set-string`: `a.b=c,list[0]={x,y},gone=null`.
//!
//! A port of Helm's `pkg/strvals/parser.go`, its oddities included, so that a line means the same
//! here as on a command line. It is not the place of `--set-json` or `--set-file`; and it bounds
//! what Helm leaves open: nested indexes and the size of the lists that an index makes.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

/// Helm's `MaxIndex`.
const INDEX: usize = 65_536;
/// Helm's `MaxNestedNameLevel`.
const NAMES: usize = 30;
/// Indexes in indexes (`a[0][0]…`): Helm knows no limit; ours keeps the recursion flat, and values
/// deeper than this are refused anyway.
const INDEXES: usize = 64;
/// Items that all indexes of one body together may add to lists: an index of five digits makes as
/// many nulls, and a million bytes of JSON hold 200,000 of them.
pub const ITEMS: usize = 200_000;

/// Sets what `line` says in `into`. With `strings`, every value is a string.
/// `room` counts down the items that indexes may still add; it starts at [`ITEMS`].
///
/// # Errors
/// What cannot be understood, in Helm's words without the names and numbers of the line in them,
/// which may be parts of values. `into` is then in an undefined state.
pub fn set(
    line: &str,
    into: &mut Map<String, Value>,
    strings: bool,
    room: &mut usize,
) -> Result<(), String> {
    let mut parser = Parser { rest: line.chars().peekable(), strings, room };
    loop {
        match parser.key(into, 0, 0) {
            Ok(()) => {}
            Err(Stop::End) => return Ok(()),
            Err(Stop::Bad(reason)) => return Err(reason),
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    strings: bool,
    room: &'a mut usize,
}

/// Why a step does not go on: the line is at its end (Go's `io.EOF`), or cannot be understood.
enum Stop {
    End,
    Bad(String),
}

fn bad<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Bad(reason.into()))
}

impl Parser<'_> {
    /// One `key=value` of the line, into `data`.
    fn key(
        &mut self,
        data: &mut Map<String, Value>,
        names: usize,
        indexes: usize,
    ) -> Result<(), Stop> {
        let (key, last) = self.until(&['=', '[', ',', '.']);
        match last {
            None if key.is_empty() => Err(Stop::End),
            None => bad("a key has no value"),
            Some('[') => {
                let index = self.index()?;
                let mut list = match data.get_mut(&key).map(Value::take) {
                    None => Vec::new(),
                    Some(Value::Array(list)) => list,
                    Some(_) => return bad("unable to parse key: it is not a list"),
                };
                let done = self.item(&mut list, index, names, indexes);
                put(data, key, Value::Array(list));
                done
            }
            Some('=') => {
                if self.rest.peek().is_none() {
                    put(data, key, Value::from(""));
                    return Err(Stop::End);
                }
                let value = self.value()?;
                put(data, key, value);
                Ok(())
            }
            Some(',') => {
                put(data, key.clone(), Value::from(""));
                bad("a key has no value (cannot end with ,)")
            }
            Some(_) => self.inner(data, key, names + 1, indexes),
        }
    }

    /// After `key.`: what stands in the map of that name.
    fn inner(
        &mut self,
        data: &mut Map<String, Value>,
        key: String,
        names: usize,
        indexes: usize,
    ) -> Result<(), Stop> {
        if names > NAMES {
            return bad(format!(
                "value name nested level is greater than maximum supported nested level of {NAMES}"
            ));
        }
        let known = data.contains_key(&key);
        let mut inner = match data.get_mut(&key).map(Value::take) {
            None => Map::new(),
            Some(Value::Object(inner)) => inner,
            Some(_) => return bad("unable to parse key: it is not a map"),
        };
        let done = self.key(&mut inner, names, indexes);
        if done.is_ok() && inner.is_empty() {
            return bad("a key map has no value");
        }
        if known || !inner.is_empty() {
            put(data, key, Value::Object(inner));
        }
        done
    }

    /// After `[index]`: the item itself, or what stands in it.
    fn item(
        &mut self,
        list: &mut Vec<Value>,
        index: i64,
        names: usize,
        indexes: usize,
    ) -> Result<(), Stop> {
        let Ok(at) = usize::try_from(index) else {
            return bad("negative index not allowed");
        };
        if indexes >= INDEXES {
            return bad(format!("more than {INDEXES} indexes in one another"));
        }
        let (key, last) = self.until(&['[', '.', '=']);
        if !key.is_empty() {
            return bad("unexpected data at end of array index");
        }
        match last {
            None => Err(Stop::End),
            Some('=') if self.rest.peek().is_none() => self.put_at(list, at, Value::from("")),
            Some('=') => {
                let value = self.value()?;
                self.put_at(list, at, value)
            }
            Some('[') => {
                let next = self.index()?;
                let mut inner = match list.get_mut(at).map(Value::take) {
                    None | Some(Value::Null) => Vec::new(),
                    Some(Value::Array(inner)) => inner,
                    Some(_) => return bad("unable to parse key: the item is not a list"),
                };
                let done = self.item(&mut inner, next, names, indexes + 1);
                // As Helm: what ended early leaves an item that was there as it is.
                if done.is_ok() || at < list.len() {
                    self.put_at(list, at, Value::Array(inner))?;
                }
                done
            }
            Some(_) => {
                let mut inner = match list.get_mut(at).map(Value::take) {
                    Some(Value::Object(inner)) => inner,
                    _ => Map::new(),
                };
                let done = self.key(&mut inner, names, indexes + 1);
                if done.is_ok() || at < list.len() {
                    self.put_at(list, at, Value::Object(inner))?;
                }
                done
            }
        }
    }

    fn put_at(&mut self, list: &mut Vec<Value>, at: usize, value: Value) -> Result<(), Stop> {
        if at > INDEX {
            return bad(format!("an index is greater than the maximum supported index of {INDEX}"));
        }
        if at >= list.len() {
            let more = at + 1 - list.len();
            let Some(left) = self.room.checked_sub(more) else {
                return bad(format!("all indexes together make more than {ITEMS} items"));
            };
            *self.room = left;
            list.resize(at + 1, Value::Null);
        }
        if let Some(item) = list.get_mut(at) {
            *item = value;
        }
        Ok(())
    }

    /// The number in an index, and its `]`.
    fn index(&mut self) -> Result<i64, Stop> {
        let (number, last) = self.until(&[']']);
        if last.is_none() {
            return bad("error parsing index: it must end with ]");
        }
        match number.parse() {
            Ok(number) => Ok(number),
            Err(_) => bad("error parsing index: it is no whole number"),
        }
    }

    /// What stands after `=`, up to the comma after it: a list in braces, or one value.
    fn value(&mut self) -> Result<Value, Stop> {
        if self.rest.next_if_eq(&'{').is_none() {
            let (text, _) = self.until(&[',']);
            return Ok(self.typed(text));
        }
        let mut list = Vec::new();
        loop {
            let (text, last) = self.until(&[',', '}']);
            match last {
                None => return bad("list must terminate with '}'"),
                Some(',') => list.push(self.typed(text)),
                Some(_) => {
                    self.rest.next_if_eq(&',');
                    list.push(self.typed(text));
                    return Ok(Value::Array(list));
                }
            }
        }
    }

    /// The text before the first of `stops`, and that one; without it, the rest of the line.
    /// A backslash takes the next character as it is.
    fn until(&mut self, stops: &[char]) -> (String, Option<char>) {
        let mut text = String::new();
        while let Some(next) = self.rest.next() {
            if stops.contains(&next) {
                return (text, Some(next));
            }
            match next {
                '\\' => text.extend(self.rest.next()),
                _ => text.push(next),
            }
        }
        (text, None)
    }

    fn typed(&self, text: String) -> Value {
        if self.strings {
            return Value::String(text);
        }
        if text.eq_ignore_ascii_case("true") {
            return Value::Bool(true);
        }
        if text.eq_ignore_ascii_case("false") {
            return Value::Bool(false);
        }
        if text.eq_ignore_ascii_case("null") {
            return Value::Null;
        }
        match text.parse::<i64>() {
            // 007 is a text: leading zeros matter to people.
            Ok(number) if text == "0" || !text.starts_with('0') => Value::from(number),
            _ => Value::String(text),
        }
    }
}

/// Helm leaves out what has no name.
fn put(data: &mut Map<String, Value>, key: String, value: Value) {
    if !key.is_empty() {
        data.insert(key, value);
    }
}

#[cfg(test)]
#[path = "strvals_tests.rs"]
mod tests;
