//! What records, and the objects in them, take in memory while answers are made of them: a tree
//! takes ten times its text, and one that is made up for it a hundred times.
//!
//! It bounds all requests together. What one record may hold, `blob` and `manifest` say.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// KiB of all together: four of the worst records that are read at all, or thousands of ordinary
/// ones.
const ALL: u32 = 256 << 10;
/// The longest wait for room, or for a turn at reading: who waits longer shall rather hear that
/// there is none.
pub(super) const WAIT: Duration = Duration::from_secs(30);
static ROOM: Semaphore = Semaphore::const_new(ALL as usize);
/// Bytes of a map's node, which has room for 11 fields (`BTreeMap`) and is half full at least.
const MAP: usize = 16 + 11 * (size_of::<String>() + size_of::<Value>());
const HALF: usize = 6;

/// Room that is taken; given back when dropped.
#[derive(Debug)]
pub struct Room {
    _permit: SemaphorePermit<'static>,
}

impl Room {
    /// `None` when there is none in time. What is larger than a quarter counts as one:
    /// nobody takes it all.
    pub async fn of(bytes: usize) -> Option<Self> {
        taken(&ROOM, bytes, (ALL, WAIT)).await
    }
}

async fn taken(
    room: &'static Semaphore,
    bytes: usize,
    (all, wait): (u32, Duration),
) -> Option<Room> {
    let share = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1).min(all / 4);
    let permit = timeout(wait, room.acquire_many(share)).await.ok()?.ok()?;
    Some(Room { _permit: permit })
}

/// Bytes that a tree takes, rather more than less.
pub fn weight(value: &Value) -> usize {
    let within = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => {
            let within = fields.iter().map(|(key, value)| key.len() + weight(value));
            fields.len().div_ceil(HALF) * MAP + within.sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + within
}

/// Objects, lists, fields and items of a JSON text, and not many more: whoever makes a tree of it
/// takes some 230 bytes for each at worst, besides the texts.
pub fn nodes(json: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' | b',' | b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_tree_weighs_a_hundred_times_its_text_and_a_text_hardly_more_than_itself() {
        let made_up = format!("[{}0]", r#"{"a":0},"#.repeat(10_000));
        let tree = weight(&serde_json::from_str(&made_up).unwrap());
        assert!(tree > 70 * made_up.len() && tree < 120 * made_up.len(), "{tree}");
        assert!(tree < 260 * nodes(made_up.as_bytes()), "{tree}");
        let text = Value::from("a".repeat(1 << 20));
        assert!(weight(&text) < (1 << 20) + 100);
    }

    #[test]
    fn only_what_stands_outside_of_texts_is_counted() {
        let (none, some) = (r#""{[,:\"{[,:\\""#, r#"{"a{\\":[1,2,{}],"\"b":"[,"}"#);
        assert_eq!((nodes(none.as_bytes()), nodes(some.as_bytes())), (0, 8));
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_so_and_what_is_given_back_is_free() {
        static ROOMS: Semaphore = Semaphore::const_new(16);
        let limits = (16, Duration::ZERO);
        let held = taken(&ROOMS, 2 << 10, limits).await.unwrap();
        assert_eq!(ROOMS.available_permits(), 13);
        let three = [usize::MAX, 64 << 10, 4 << 10].map(|bytes| taken(&ROOMS, bytes, limits));
        let three = futures::future::join_all(three).await;
        assert!(three.iter().all(Option::is_some), "nobody takes more than a quarter");
        assert!(taken(&ROOMS, 1 << 10, limits).await.is_none());
        assert!(taken(&ROOMS, 0, limits).await.is_some());
        drop((held, three));
        assert_eq!(ROOMS.available_permits(), 16);
    }
}
