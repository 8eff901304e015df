//! A shell's session id and the cookie that is set with it: sealed, self-contained, opened by every
//! replica that has the key of the CSRF tokens. NOT a session store: all that is remembered are the
//! ids that were taken, until they expire.
//!
//! **The id** goes into addresses and so into logs of proxies. It says which container, for whom (a
//! keyed digest of the credentials) and when it was made, and is worth nothing alone: a connection
//! must bring the same credentials again, within a minute. Each replica takes it once, and knows
//! nothing of the others: behind several the same caller can use it as many times.
//!
//! **The cookie** brings them for browsers, whose websockets carry no `Authorization`. It holds the
//! caller's `Authorization` and impersonation, sealed under another key, and goes to SockJS's
//! addresses alone (HttpOnly, Secure, SameSite=Strict). It too is worth nothing alone: no id is
//! made for it, so who steals it opens no shell. Credentials are never in an address, and what a
//! page's script can read is no more than what it sent. The cookie holds what the caller said, not
//! who we took them for, and is judged like a header when it comes back.

use std::collections::HashSet;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::CompactString;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::error::ApiError;
use crate::api::web::csrf::Csrf;
use crate::upstream::{Cluster, User, is_impersonation};

pub const COOKIE: &str = "binnacle-shell";
/// How long an id waits to be bound, in milliseconds.
const LIFETIME: i64 = 60 * 1000;
/// How far the clock of the replica that made it may be ahead of ours, in milliseconds.
const AHEAD: i64 = 60 * 1000;
/// How long a cookie is good, in milliseconds: the xhr transports send it with every request, so
/// this bounds a shell over them. A working day; each new shell sets a new one.
const COOKIE_LIFETIME: i64 = 12 * 60 * 60 * 1000;
/// Names of at most 63, 253 and 63 characters, sealed and as base64, are shorter.
const LONGEST_ID: usize = 1024;
/// Browsers drop cookies of more than 4096 bytes, attributes included. A longer token than about
/// 2,700 bytes does not fit; such a caller's connection must bring its credentials itself. There is
/// no second cookie for the rest: many proxies have no more than 4 KiB for the head of an answer,
/// and those with long tokens are mostly signed in by one, which brings them each time.
const LONGEST_COOKIE: usize = 3800;
/// Ids taken that are remembered, at most twice as many: more shells in two minutes than one
/// process can open. Past it new ones are refused, since forgetting would let ids be taken again.
const MOST_TAKEN: usize = 1 << 17;

/// The shells that the contract tries, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shell {
    Bash,
    Sh,
    Powershell,
    Cmd,
}

impl Shell {
    pub const ALL: [Self; 4] = [Self::Bash, Self::Sh, Self::Powershell, Self::Cmd];

    pub fn command(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Sh => "sh",
            Self::Powershell => "powershell",
            Self::Cmd => "cmd",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shell| shell.command() == name)
    }
}

/// What a session id stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ticket {
    pub namespace: CompactString,
    pub pod: CompactString,
    pub container: CompactString,
    /// `None`: each of them in turn.
    pub shell: Option<Shell>,
    /// Milliseconds since 1970.
    made: i64,
    /// Base64 of the keyed digest of the caller's credentials.
    caller: String,
    /// No cookie came with it: the credentials are too long for one.
    #[serde(default)]
    bare: bool,
}

/// Why an id is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Forged,
    Expired,
    /// The connection brings none, or somebody else's credentials.
    Stranger,
    /// The same where we could give it none.
    TooLong,
    Taken,
    TooMany,
}

impl Refusal {
    /// Of the message that says it.
    pub fn message(self) -> &'static str {
        match self {
            Self::Forged => "error-shell-forged",
            Self::Expired => "error-shell-expired",
            Self::Stranger => "error-shell-stranger",
            Self::TooLong => "error-shell-long-credentials",
            Self::Taken => "error-shell-taken",
            Self::TooMany => "error-shell-too-many",
        }
    }
}

/// What a cookie holds: headers as the caller sent them.
#[derive(Serialize, Deserialize)]
struct Credentials {
    headers: Vec<(String, String)>,
    /// Milliseconds since 1970.
    until: i64,
}

/// What seals ids and cookies; the same on each replica that shares the key of the CSRF tokens.
pub struct Keys {
    id: RandomizedNonceKey,
    cookie: RandomizedNonceKey,
    caller: hmac::Key,
}

impl Keys {
    /// Three keys derived from the one of the CSRF tokens, each for its purpose alone.
    pub async fn derived(csrf: &Csrf, cluster: &Cluster) -> Result<Self, ApiError> {
        let id = csrf.derived(cluster, "binnacle shell id 1").await?;
        let cookie = csrf.derived(cluster, "binnacle shell cookie 1").await?;
        let caller = csrf.derived(cluster, "binnacle shell caller 1").await?;
        Self::new(&id, &cookie, &caller)
            .ok_or_else(|| ApiError::internal(&"the keys of shell sessions cannot be made"))
    }

    fn new(id: &[u8; 32], cookie: &[u8; 32], caller: &[u8; 32]) -> Option<Self> {
        Some(Self {
            id: RandomizedNonceKey::new(&AES_256_GCM, id).ok()?,
            cookie: RandomizedNonceKey::new(&AES_256_GCM, cookie).ok()?,
            caller: hmac::Key::new(hmac::HMAC_SHA256, caller),
        })
    }

    /// A session id for this caller's shell in a container, made at `now` (milliseconds); `bare` when
    /// no cookie comes with it that could.
    pub fn ticket(
        &self,
        [namespace, pod, container]: [&CompactString; 3],
        shell: Option<Shell>,
        (user, bare): (&User, bool),
        now: i64,
    ) -> Result<String, ApiError> {
        let ticket = Ticket {
            namespace: namespace.clone(),
            pod: pod.clone(),
            container: container.clone(),
            shell,
            made: now,
            caller: self.digest(user),
            bare,
        };
        let id = seal(&self.id, &ticket)?;
        if id.len() > LONGEST_ID {
            return Err(ApiError::bad_path(pod));
        }
        Ok(id)
    }

    /// Which of these callers an id was made for, and what for. It is taken: never again by this
    /// replica.
    pub fn take(
        &self,
        id: &str,
        users: &[User],
        taken: &mut Taken,
        now: i64,
    ) -> Result<(User, Ticket), (Refusal, Option<Ticket>)> {
        if id.len() > LONGEST_ID {
            return Err((Refusal::Forged, None));
        }
        let Some((nonce, ticket)) = open::<Ticket>(&self.id, id) else {
            return Err((Refusal::Forged, None));
        };
        let age = now.saturating_sub(ticket.made);
        if !(-AHEAD..=LIFETIME).contains(&age) {
            return Err((Refusal::Expired, Some(ticket)));
        }
        let same = |user: &&User| {
            let digest = self.digest(user);
            let (ours, theirs) = (ticket.caller.as_bytes(), digest.as_bytes());
            constant_time::verify_slices_are_equal(ours, theirs).is_ok()
        };
        // Before it is taken: nobody else must be able to use it up.
        let Some(user) = users.iter().find(same) else {
            let refusal = if ticket.bare { Refusal::TooLong } else { Refusal::Stranger };
            return Err((refusal, Some(ticket)));
        };
        match taken.take(nonce, now) {
            Ok(()) => Ok((user.clone(), ticket)),
            Err(refusal) => Err((refusal, Some(ticket))),
        }
    }

    fn digest(&self, user: &User) -> String {
        URL_SAFE_NO_PAD.encode(user.fingerprint_under(&self.caller))
    }

    /// A cookie's value with the credentials of a request; `None` when it has no `Authorization`
    /// (what else signs a caller in comes with each connection by itself) or a longer one than a
    /// cookie holds.
    pub fn seal_credentials(&self, request: &HeaderMap, now: i64) -> Option<String> {
        request.get(header::AUTHORIZATION)?;
        let headers = request
            .iter()
            .filter(|(name, _)| is_credential(name))
            .map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect::<Option<Vec<_>>>()?;
        let until = now.saturating_add(COOKIE_LIFETIME);
        let value = seal(&self.cookie, &Credentials { headers, until }).ok()?;
        (value.len() <= LONGEST_COOKIE).then_some(value)
    }

    /// The credentials in a cookie's value, as the headers that they came in.
    pub fn open_credentials(&self, value: &str, now: i64) -> Option<HeaderMap> {
        if value.len() > LONGEST_COOKIE {
            return None;
        }
        let (_, Credentials { headers, until }) = open(&self.cookie, value)?;
        if now > until {
            return None;
        }
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            all.append(HeaderName::try_from(name).ok()?, value);
        }
        Some(all)
    }
}

fn is_credential(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION || is_impersonation(name)
}

/// Nonce, ciphertext and tag as base64.
fn seal<T: Serialize>(key: &RandomizedNonceKey, value: &T) -> Result<String, ApiError> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| ApiError::internal(&error))?;
    let nonce = key
        .seal_in_place_append_tag(Aad::empty(), &mut bytes)
        .map_err(|_| ApiError::internal(&"a shell session cannot be sealed"))?;
    let mut whole = nonce.as_ref().to_vec();
    whole.append(&mut bytes);
    Ok(URL_SAFE_NO_PAD.encode(whole))
}

fn open<T: DeserializeOwned>(key: &RandomizedNonceKey, text: &str) -> Option<([u8; NONCE_LEN], T)> {
    let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
    let nonce = *nonce;
    let plain =
        key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), sealed).ok()?;
    Some((nonce, serde_json::from_slice(plain).ok()?))
}

/// Ids that were taken here, by their nonces. They are forgotten by whole generations, each of
/// which outlives every id in it.
#[derive(Default)]
pub struct Taken {
    recent: HashSet<[u8; NONCE_LEN]>,
    older: HashSet<[u8; NONCE_LEN]>,
    /// When `recent` began, in milliseconds since 1970.
    since: i64,
}

impl Taken {
    fn take(&mut self, nonce: [u8; NONCE_LEN], now: i64) -> Result<(), Refusal> {
        if now.saturating_sub(self.since) > LIFETIME + AHEAD {
            self.older = std::mem::take(&mut self.recent);
            self.since = now;
        }
        if self.recent.contains(&nonce) || self.older.contains(&nonce) {
            return Err(Refusal::Taken);
        }
        if self.recent.len() >= MOST_TAKEN {
            return Err(Refusal::TooMany);
        }
        self.recent.insert(nonce);
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
