//! What changed between two answers to one question, as a client applies it to the first of them.
//!
//! Pure: two JSON bodies in, the difference out. It knows no kinds: a list is an array whose
//! elements all have an `objectMeta.uid`, whatever its member is called. It is no general diff of
//! JSON: a member that is no list is sent again as a whole.
//!
//! How a client applies a change, member by member of its object:
//! - a member that is not named stays as it is;
//! - an object with `set` where the client has an array changes its rows: those of `removed` go,
//!   those of `set` are put in or in place of the row with their uid, and then all stand in the
//!   order of `order`, or without one in the order that they had;
//! - anything else takes the member's place.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What became of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Both say the same.
    Nothing,
    /// The members that changed, as one JSON object.
    Members(Bytes),
    /// It is to be sent again: a change would be no shorter, or there is no word for it.
    Whole,
}

/// What of `old` changed on the way to `new`.
pub fn change(old: &[u8], new: &[u8]) -> Change {
    if old == new {
        return Change::Nothing;
    }
    match members(old, new) {
        Some(out) if out == b"{}" => Change::Nothing,
        Some(out) if out.len() < new.len() => Change::Members(out.into()),
        _ => Change::Whole,
    }
}

/// The changed members; `None` where no change says it.
fn members(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let old: Members = serde_json::from_slice(old).ok()?;
    let new: Members = serde_json::from_slice(new).ok()?;
    let before: HashMap<&str, &str> = old.texts().collect();
    let after: HashSet<&str> = new.texts().map(|(name, _)| name).collect();
    if before.keys().any(|name| !after.contains(name)) {
        return None;
    }
    let mut out = vec![b'{'];
    for (name, value) in new.texts() {
        let known = before.get(name).copied();
        if known == Some(value) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, name).ok()?;
        out.push(b':');
        match known.and_then(|known| rows(known, value)) {
            Some(rows) => serde_json::to_writer(&mut out, &rows).ok()?,
            // It would be read as a change of the array's rows.
            None if value.starts_with('{') && known.is_some_and(|text| text.starts_with('[')) => {
                return None;
            }
            None => out.extend_from_slice(value.as_bytes()),
        }
    }
    out.push(b'}');
    Some(out)
}

/// How the rows of a list changed.
#[derive(Serialize)]
struct Rows<'a> {
    /// All uids in their new order, unless that follows from the old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<Vec<Cow<'a, str>>>,
    set: Vec<&'a RawValue>,
    removed: Vec<Cow<'a, str>>,
}

/// `None` where these are no lists, or where two rows share a uid.
fn rows<'a>(old: &'a str, new: &'a str) -> Option<Rows<'a>> {
    let (old, new) = (keyed(old)?, keyed(new)?);
    let before: HashMap<&str, &str> = old.iter().map(|(uid, row)| (&**uid, row.get())).collect();
    let after: HashSet<&str> = new.iter().map(|(uid, _)| &**uid).collect();
    if before.len() != old.len() || after.len() != new.len() {
        return None;
    }
    let changed = |(uid, row): &&(Cow<'a, str>, &'a RawValue)| {
        before.get(&**uid).is_none_or(|known| *known != row.get())
    };
    let left = old.iter().map(|(uid, _)| uid).filter(|uid| after.contains(&***uid));
    let follows = left.eq(new.iter().map(|(uid, _)| uid));
    let removed = old.iter().filter(|(uid, _)| !after.contains(&**uid));
    Some(Rows {
        order: (!follows).then(|| new.iter().map(|(uid, _)| uid.clone()).collect()),
        set: new.iter().filter(changed).map(|(_, row)| *row).collect(),
        removed: removed.map(|(uid, _)| uid.clone()).collect(),
    })
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, rename = "objectMeta")]
    meta: Meta<'a>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
}

/// The elements of an array by their uid; `None` where one has none.
fn keyed(text: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let all: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let keyed = all.into_iter().map(|raw| {
        let row: Row = serde_json::from_str(raw.get()).ok()?;
        (!row.meta.uid.is_empty()).then_some((row.meta.uid, raw))
    });
    keyed.collect()
}

/// The members of a JSON object in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl Members<'_> {
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get()))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
