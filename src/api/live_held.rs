//! The bodies that live answers hold, to tell what changed in them: so many bytes for all callers
//! together and for each. They are free again when the last who keeps a body drops it.
//!
//! It chooses none to let go: who gets no room is told so, and keeps what it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::StatusCode;

use super::error::ApiError;
use super::live_hub::lock;
use crate::upstream::{Fingerprint, User};

/// Bytes of all bodies; a page of ten rows has some 15 KB, a whole list of 5,000 pods 7.5 MB.
const IN_ALL: usize = 256 << 20;
/// Of those, of one caller: four of the largest, and no caller takes what is for others.
const OF_ONE: usize = IN_ALL / 8;

/// What is held.
#[derive(Default)]
pub struct Held(Arc<Mutex<Sums>>);

#[derive(Default)]
struct Sums {
    all: usize,
    each: HashMap<Fingerprint, usize>,
}

/// The body of a plain answer, on one line, and its ETag.
pub struct Whole {
    pub tag: String,
    pub body: Bytes,
    who: Fingerprint,
    sums: Arc<Mutex<Sums>>,
}

impl Held {
    /// A body to keep for this caller.
    ///
    /// # Errors
    /// 429 where the caller holds too much, 503 where all do.
    pub fn hold(&self, user: &User, tag: String, body: Bytes) -> Result<Arc<Whole>, ApiError> {
        let who = user.fingerprint();
        let mut sums = lock(&self.0);
        let own = sums.each.get(&who).copied().unwrap_or_default() + body.len();
        if own > OF_ONE {
            let (busy, most) = (StatusCode::TOO_MANY_REQUESTS, (OF_ONE >> 20).to_string());
            let args = [("most", most.as_str())];
            return Err(ApiError::with_status(busy, "error-live-too-much-of-one", &args));
        }
        if sums.all + body.len() > IN_ALL {
            let busy = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::with_status(busy, "error-live-too-much", &[]));
        }
        sums.all += body.len();
        sums.each.insert(who, own);
        Ok(Arc::new(Whole { tag, body, who, sums: self.0.clone() }))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let mut sums = lock(&self.sums);
        sums.all = sums.all.saturating_sub(self.body.len());
        let own = sums.each.get(&self.who).copied().unwrap_or_default();
        match own.saturating_sub(self.body.len()) {
            0 => sums.each.remove(&self.who),
            left => sums.each.insert(self.who, left),
        };
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
        assert_eq!(hold(&held, "one more", 1).err(), Some(503));
        all.pop();
        assert!(hold(&held, "one more", OF_ONE).is_ok());
    }
}
