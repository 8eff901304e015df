//! The bodies that live answers hold, to tell what changed in them, and what did: so many bytes for
//! all callers together and for each. They are free again when the last who keeps a body drops it.
//! The same of long plain answers, until they are taken.
//!
//! It chooses none to let go: who gets no room is told so, and keeps what it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::HttpBody as _;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::diff::{Change, change};
use super::events::{self, WRITE};
use super::hub::lock;
use crate::api::error::ApiError;
use crate::upstream::{Fingerprint, User};

/// Bytes of all bodies; a page of ten rows has some 15 KB, a whole list of 5,000 pods 7.5 MB.
const IN_ALL: usize = 256 << 20;
/// Of those, of one caller: four of the largest, and no caller takes what is for others.
const OF_ONE: usize = IN_ALL / 8;
/// Bytes of long plain answers that are not taken yet, and of those, of one caller: four lists of all
/// 10,000 pods. A list without pages has no longest length, and who asks for it must get it, if he
/// takes it within ten minutes: the first answer of a caller may be longer, as may the one that is
/// the last to find room.
const PLAIN_IN_ALL: usize = 256 << 20;
const PLAIN_OF_ONE: usize = PLAIN_IN_ALL / 4;
/// Two bodies of together so many bytes are compared where they are, in less than a millisecond;
/// longer ones by a thread of their own, for which others do not wait.
const LONG: usize = 256 << 10;
/// Long ones that are compared at once: the machine has others to serve.
static AT_ONCE: Semaphore = Semaphore::const_new(2);
/// Bodies of which one is told the difference, each once however many readers have it. Readers who
/// are behind in more different ways get the whole: that is made already.
const PREDECESSORS: usize = 4;

/// What is held.
#[derive(Default)]
pub struct Held(Arc<Mutex<Sums>>);

/// Long plain answers that are not taken yet.
#[derive(Default)]
pub struct Answers(Arc<Mutex<Sums>>);

#[derive(Default)]
struct Sums {
    all: usize,
    each: HashMap<Fingerprint, usize>,
}

/// Some bytes of what a caller may hold; free again when it is dropped.
struct Room {
    bytes: usize,
    who: Fingerprint,
    sums: Arc<Mutex<Sums>>,
}

/// A change, and the room that it takes.
type Told = (Change, Option<Arc<Room>>);
type Telling = Shared<BoxFuture<'static, Told>>;

/// The body of a plain answer, on one line, and its ETag.
pub struct Whole {
    pub tag: String,
    pub body: Bytes,
    room: Room,
    /// What changed since other bodies, by their tags.
    since: Mutex<Vec<(String, Telling)>>,
}

impl Held {
    /// A body to keep for this caller.
    ///
    /// # Errors
    /// 429 where the caller holds too much, 503 where all do.
    pub fn hold(&self, user: &User, tag: String, body: Bytes) -> Result<Arc<Whole>, ApiError> {
        let room = Room::of(&self.0, user.fingerprint(), body.len())?;
        Ok(Arc::new(Whole { tag, body, room, since: Mutex::default() }))
    }
}

impl Answers {
    /// Whether an answer of at least so many bytes would have room now: asked before it is made.
    ///
    /// # Errors
    /// Those that [`Self::hold`] answers with.
    pub(crate) fn has_room(&self, who: Fingerprint, least: usize) -> Result<(), ApiError> {
        let held = lock(&self.0);
        let own = held.each.get(&who).copied().unwrap_or_default();
        no_plain_room(held.all, own, least).map_or(Ok(()), Err)
    }

    /// The answer, whose bytes have room until they are taken or given up; 429 where the caller has
    /// left too many of his, 503 where all have. One of no known length is bounded by what it
    /// comes from.
    pub(crate) fn hold(&self, who: Fingerprint, answer: Response) -> Response {
        let length = answer.body().size_hint().exact();
        let Some(bytes) = length.and_then(|length| usize::try_from(length).ok()) else {
            return answer;
        };
        match Room::of_plain(&self.0, who, bytes) {
            Ok(room) => events::held(answer, room, WRITE),
            Err(error) => error.into_response(),
        }
    }
}

impl Room {
    fn of(sums: &Arc<Mutex<Sums>>, who: Fingerprint, bytes: usize) -> Result<Self, ApiError> {
        Self::take(sums, who, bytes, |all, own| {
            if own + bytes > OF_ONE {
                Some(of_one("error-live-too-much-of-one", OF_ONE))
            } else if all + bytes > IN_ALL {
                Some(in_all("error-live-too-much"))
            } else {
                None
            }
        })
    }

    fn of_plain(sums: &Arc<Mutex<Sums>>, who: Fingerprint, bytes: usize) -> Result<Self, ApiError> {
        Self::take(sums, who, bytes, |all, own| no_plain_room(all, own, bytes))
    }

    /// `refused`: by what all hold, and of that this caller.
    fn take(
        sums: &Arc<Mutex<Sums>>,
        who: Fingerprint,
        bytes: usize,
        refused: impl FnOnce(usize, usize) -> Option<ApiError>,
    ) -> Result<Self, ApiError> {
        let mut held = lock(sums);
        let own = held.each.get(&who).copied().unwrap_or_default();
        if let Some(error) = refused(held.all, own) {
            return Err(error);
        }
        held.all += bytes;
        held.each.insert(who, own + bytes);
        Ok(Self { bytes, who, sums: sums.clone() })
    }
}

/// Why there is no room for a plain answer, by what all hold and of that its caller.
fn no_plain_room(all: usize, own: usize, bytes: usize) -> Option<ApiError> {
    if own > 0 && own + bytes > PLAIN_OF_ONE {
        Some(of_one("error-answers-too-much-of-one", PLAIN_OF_ONE))
    } else if all >= PLAIN_IN_ALL {
        Some(ApiError::passing("error-answers-too-much", &[]))
    } else {
        None
    }
}

fn of_one(message: &'static str, most: usize) -> ApiError {
    let most = (most >> 20).to_string();
    ApiError::with_status(StatusCode::TOO_MANY_REQUESTS, message, &[("most", &most)])
}

fn in_all(message: &'static str) -> ApiError {
    ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, message, &[])
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut sums = lock(&self.sums);
        sums.all = sums.all.saturating_sub(self.bytes);
        let own = sums.each.get(&self.who).copied().unwrap_or_default();
        match own.saturating_sub(self.bytes) {
            0 => sums.each.remove(&self.who),
            left => sums.each.insert(self.who, left),
        };
    }
}

impl Whole {
    /// What changed since a reader was sent another body: found once for all who were sent that
    /// one. Where there is no room for it, the whole is.
    pub async fn since(&self, sent: &Self) -> Change {
        let told = {
            let mut since = lock(&self.since);
            let known = since.iter().find(|(tag, _)| *tag == sent.tag).map(|(_, told)| told);
            match known.cloned() {
                Some(told) => told,
                None if since.len() >= PREDECESSORS => return Change::Whole,
                None => {
                    let told = self.compare(sent).shared();
                    since.push((sent.tag.clone(), told.clone()));
                    told
                }
            }
        };
        told.await.0
    }

    /// It holds neither of the two, but their bytes until they are compared.
    fn compare(&self, sent: &Self) -> BoxFuture<'static, Told> {
        let (old, new) = (sent.body.clone(), self.body.clone());
        let (who, sums) = (self.room.who, self.room.sums.clone());
        let is_long = old.len() + new.len() > LONG;
        let compare = move || change(&old, &new);
        let comparing = async move {
            let change = if is_long {
                // A task: a reader who is slow, or has left, must not keep the turn.
                let apart = async move {
                    let turn = AT_ONCE.acquire().await;
                    let compare = move || {
                        let _turn = turn;
                        compare()
                    };
                    spawn_blocking(compare).await.unwrap_or(Change::Whole)
                };
                AbortOnDropHandle::new(tokio::spawn(apart)).await.unwrap_or(Change::Whole)
            } else {
                compare()
            };
            let Change::Members(data) = &change else { return (change, None) };
            match Room::of(&sums, who, data.len()) {
                Ok(room) => (change, Some(Arc::new(room))),
                Err(_) => (Change::Whole, None),
            }
        };
        comparing.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(held: &Held, token: &str, bytes: usize) -> Result<Arc<Whole>, u16> {
        let user = User::bearer(token, &http::HeaderMap::new()).unwrap();
        let whole = held.hold(&user, "1".to_owned(), Bytes::from(vec![0; bytes]));
        whole.map_err(|error| error.status.as_u16())
    }

    #[test]
    fn no_caller_holds_what_is_for_others_and_what_is_dropped_is_free_again() {
        let held = Held::default();
        let most = hold(&held, "a", OF_ONE).unwrap();
        assert_eq!(hold(&held, "a", 1).err(), Some(429));
        assert!(hold(&held, "b", OF_ONE).is_ok());
        drop(most);
        assert_eq!(hold(&held, "a", OF_ONE + 1).err(), Some(429));
        assert!(hold(&held, "a", OF_ONE).is_ok());
        let sums = lock(&held.0);
        assert_eq!((sums.all, sums.each.len()), (0, 0));
    }

    #[test]
    fn all_callers_together_hold_so_much() {
        let held = Held::default();
        let each = (0..8).map(|at| hold(&held, &at.to_string(), OF_ONE).unwrap());
        let mut all: Vec<Arc<Whole>> = each.collect();
        assert_eq!(hold(&held, "another", 1).err(), Some(503));
        all.pop();
        assert!(hold(&held, "another", OF_ONE).is_ok());
    }

    #[tokio::test]
    async fn plain_answers_that_nobody_takes_have_a_bound_and_the_first_of_a_caller_none() {
        let answers = Answers::default();
        let ask = |token: &str, bytes: usize| {
            let user = User::bearer(token, &http::HeaderMap::new()).unwrap();
            let answer = Response::new(axum::body::Body::from(vec![0; bytes]));
            let answer = answers.hold(user.fingerprint(), answer);
            (answer.status().as_u16(), answer)
        };
        let first = ask("a", PLAIN_OF_ONE + 1);
        assert_eq!((first.0, ask("a", 1 << 20).0), (200, 429));
        let others = ["b", "c", "d"].map(|token| ask(token, PLAIN_OF_ONE));
        assert!(others.iter().all(|other| other.0 == 200));
        let early = |token: &str| {
            let user = User::bearer(token, &http::HeaderMap::new()).unwrap();
            answers.has_room(user.fingerprint(), 1).err().map(|error| error.status.as_u16())
        };
        assert_eq!((early("b"), early("e")), (Some(429), Some(503)));
        assert_eq!((ask("b", 1).0, ask("e", 1 << 20).0), (429, 503));
        drop((first, others));
        while lock(&answers.0).all > 0 {
            tokio::task::yield_now().await;
        }
        // Taken to its end it is free again as well.
        let (_, answer) = ask("a", 1 << 20);
        assert_eq!(answer.headers()["content-length"], (1 << 20).to_string().as_str());
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        assert_eq!(body.len(), 1 << 20);
        while lock(&answers.0).all > 0 {
            tokio::task::yield_now().await;
        }
        assert!(lock(&answers.0).each.is_empty());
    }

    /// A body of one member that changes, beside `long` bytes that do not.
    fn body(held: &Held, turn: usize, long: usize) -> Arc<Whole> {
        let user = User::bearer("a", &http::HeaderMap::new()).unwrap();
        let body = format!("{{\"long\":\"{}\",\"turn\":{turn}}}", "x".repeat(long));
        held.hold(&user, turn.to_string(), body.into()).unwrap()
    }

    /// The very bytes of a change.
    async fn members(new: &Whole, old: &Whole) -> Bytes {
        let Change::Members(data) = new.since(old).await else { panic!("no change") };
        data
    }

    #[tokio::test]
    async fn readers_who_were_sent_the_same_share_one_change_and_others_have_their_own() {
        let held = Held::default();
        for long in [1_000, LONG] {
            let [older, old, new] = [1, 2, 3].map(|turn| body(&held, turn, long));
            let (one, two) = tokio::join!(members(&new, &old), members(&new, &old));
            let third = members(&new, &old).await;
            assert_eq!(one, "{\"turn\":3}");
            assert!([two, third].iter().all(|other| other.as_ptr() == one.as_ptr()), "made once");
            let late = members(&new, &older).await;
            assert!(late == one && late.as_ptr() != one.as_ptr());
            let bodies = older.body.len() + old.body.len() + new.body.len();
            assert_eq!(lock(&held.0).all, bodies + one.len() + late.len(), "both are counted");
            drop((older, old, new));
            assert_eq!(lock(&held.0).all, 0, "and free again");
        }
    }

    #[tokio::test]
    async fn who_is_behind_in_another_way_than_many_others_gets_the_whole() {
        let held = Held::default();
        let new = body(&held, 100, 1_000);
        let old: Vec<Arc<Whole>> =
            (0..=PREDECESSORS).map(|turn| body(&held, turn, 1_000)).collect();
        for old in &old[..PREDECESSORS] {
            members(&new, old).await;
        }
        assert_eq!(new.since(&old[PREDECESSORS]).await, Change::Whole);
        members(&new, &old[0]).await;
    }

    #[tokio::test]
    async fn a_change_that_there_is_no_room_for_is_the_whole() {
        let held = Held::default();
        let (old, new) = (body(&held, 1, 1_000), body(&held, 2, 1_000));
        let _rest = hold(&held, "a", OF_ONE - old.body.len() - new.body.len()).unwrap();
        assert_eq!(new.since(&old).await, Change::Whole);
    }

    #[tokio::test]
    async fn a_reader_who_leaves_meanwhile_leaves_the_comparison_to_the_others() {
        let held = Held::default();
        let [old, new, newer, last] = [1, 2, 3, 4].map(|turn| body(&held, turn, LONG));
        let turns = AT_ONCE.acquire_many(2).await.unwrap();
        for left in [&new, &newer] {
            assert_eq!(left.since(&old).now_or_never(), None);
        }
        drop(turns);
        let others = tokio::time::timeout(std::time::Duration::from_secs(60), members(&last, &old));
        assert_eq!(others.await.expect("nobody keeps a turn"), "{\"turn\":4}");
        assert_eq!(members(&new, &old).await, "{\"turn\":2}");
    }
}
