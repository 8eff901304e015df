//! On whose behalf a request goes to the API server.
//!
//! Credentials are carried, never interpreted: what a user may do is the API server's to say.
//! Finding the credentials in an HTTP request is `api::caller`'s part, not ours.

use std::sync::{LazyLock, OnceLock};

use aws_lc_rs::{hmac, rand};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// On whose behalf. There is no third way.
#[derive(Clone, Copy)]
pub enum Identity<'a> {
    User(&'a User),
    /// Our own rights: for watching and for our own objects, never to answer a user's request.
    Server,
}

/// Before a token in `Authorization`.
const BEARER: &[u8] = b"Bearer ";

/// A caller: credentials and impersonation as they came.
#[derive(Clone)]
pub struct User {
    pub(super) credentials: Credentials,
    pub(super) impersonation: Vec<(HeaderName, HeaderValue)>,
    /// Made when it is asked for, as what the token says of itself: most of the passthrough does not.
    fingerprint: OnceLock<Fingerprint>,
    expires: OnceLock<Option<i64>>,
}

#[derive(Clone)]
pub(super) enum Credentials {
    /// The whole `Authorization` value.
    Bearer(HeaderValue),
    /// The kubeconfig's user, for whom a local token or the local proxy port stands.
    Kubeconfig,
}

/// A keyed hash of credentials and impersonation: names a caller in tables without holding a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// One of so many places, evenly by caller.
    pub fn spread(&self, places: usize) -> usize {
        let [first, second, ..] = self.0;
        usize::from(u16::from_be_bytes([first, second])) % places.max(1)
    }
}

static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    let mut seed = [0u8; 32];
    // Without randomness no TLS works either; a zero key only makes fingerprints guessable to
    // those who can already read our memory.
    let _ = rand::fill(&mut seed);
    hmac::Key::new(hmac::HMAC_SHA256, &seed)
});

impl User {
    /// The caller with this bearer token; `headers` gives the impersonation asked for.
    /// `None` when the token cannot stand in a header.
    pub fn bearer(token: &str, headers: &HeaderMap) -> Option<Self> {
        // A copy: a part of the request's own bytes would keep all of them for as long as the user.
        let is_text = token.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte));
        let bytes = is_text.then(|| Bytes::from([BEARER, token.as_bytes()].concat()))?;
        let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
        value.set_sensitive(true);
        Some(Self::new(Credentials::Bearer(value), headers))
    }

    /// The kubeconfig's own user.
    pub fn kubeconfig(headers: &HeaderMap) -> Self {
        Self::new(Credentials::Kubeconfig, headers)
    }

    fn new(credentials: Credentials, headers: &HeaderMap) -> Self {
        let impersonation: Vec<_> = headers
            .iter()
            .filter(|(name, _)| is_impersonation(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let (fingerprint, expires) = (OnceLock::new(), OnceLock::new());
        Self { credentials, impersonation, fingerprint, expires }
    }

    /// The fingerprint under another key, which replicas may share: names this caller on each.
    pub fn fingerprint_under(&self, key: &hmac::Key) -> [u8; 32] {
        let mut context = hmac::Context::with_key(key);
        match &self.credentials {
            Credentials::Bearer(value) => context.update(value.as_bytes()),
            Credentials::Kubeconfig => context.update(b"\0kubeconfig"),
        }
        for (name, value) in &self.impersonation {
            context.update(b"\n");
            context.update(name.as_str().as_bytes());
            context.update(b":");
            context.update(value.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    pub fn fingerprint(&self) -> Fingerprint {
        *self.fingerprint.get_or_init(|| Fingerprint(self.fingerprint_under(&KEY)))
    }

    /// Unix seconds of the token's own `exp`, read without checking it: only ever used to trust a
    /// verdict for less long.
    pub fn expires(&self) -> Option<i64> {
        let Credentials::Bearer(value) = &self.credentials else { return None };
        let token = || value.as_bytes().strip_prefix(BEARER).unwrap_or_default();
        *self.expires.get_or_init(|| token_expiry(token()))
    }

    /// Whether the token is over by our clock. That may be ahead: who comes with such a token is asked
    /// about, each time; one that becomes it while we serve him is.
    pub fn is_over(&self) -> bool {
        self.expires().is_some_and(|at| at <= jiff::Timestamp::now().as_second())
    }

    /// Whether both ask to be taken for the same: with other groups a name is another caller.
    pub fn impersonates_like(&self, other: &Self) -> bool {
        self.impersonation == other.impersonation
    }

    /// Groups, uid or extras without a user to impersonate: the API server refuses it, so do we.
    pub fn impersonates_without_user(&self) -> bool {
        !self.impersonation.is_empty()
            && !self.impersonation.iter().any(|(name, _)| name == "impersonate-user")
    }
}

/// `Impersonate-User`, `-Group`, `-Uid` and `-Extra-…`.
pub fn is_impersonation(name: &HeaderName) -> bool {
    name.as_str().starts_with("impersonate-")
}

/// Headers that carry somebody's identity; none of them passes on as it came.
pub fn is_identity(name: &HeaderName) -> bool {
    name == header::AUTHORIZATION
        || is_impersonation(name)
        || name.as_str().starts_with("x-remote-")
}

/// `exp` of a JSON web token; `None` for opaque tokens.
fn token_expiry(token: &[u8]) -> Option<i64> {
    use base64::Engine as _;
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: i64,
    }
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Claims>(&json).ok().map(|claims| claims.exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn callers_differ_by_token_and_by_whom_they_impersonate() {
        let none = HeaderMap::new();
        let a = User::bearer("a", &none).unwrap();
        assert_eq!(a.fingerprint(), User::bearer("a", &none).unwrap().fingerprint());
        assert_ne!(a.fingerprint(), User::bearer("b", &none).unwrap().fingerprint());
        let jane = headers(&[("impersonate-user", "jane")]);
        assert_ne!(a.fingerprint(), User::bearer("a", &jane).unwrap().fingerprint());
        assert_ne!(a.fingerprint(), User::kubeconfig(&none).fingerprint());
    }

    #[test]
    fn groups_without_a_user_are_noticed() {
        let user = User::bearer("a", &headers(&[("impersonate-group", "admins")])).unwrap();
        assert!(user.impersonates_without_user());
        let user = User::bearer("a", &headers(&[("impersonate-user", "jane")])).unwrap();
        assert!(!user.impersonates_without_user());
    }

    #[test]
    fn whom_two_callers_impersonate_is_compared_with_groups_and_all() {
        let like = |one: &[(&'static str, &'static str)], two: &[(&'static str, &'static str)]| {
            let (one, two) = (User::bearer("a", &headers(one)), User::bearer("b", &headers(two)));
            one.unwrap().impersonates_like(&two.unwrap())
        };
        let jane = ("impersonate-user", "jane");
        assert!(like(&[], &[]) && like(&[jane], &[jane]));
        assert!(!like(&[], &[jane]));
        assert!(!like(&[jane, ("impersonate-group", "admins")], &[jane]));
    }

    #[test]
    fn a_tokens_own_expiry_is_read_and_an_opaque_token_has_none() {
        // {"alg":"none"} . {"exp":1767323045}
        let token = "eyJhbGciOiJub25lIn0.eyJleHAiOjE3NjczMjMwNDV9.x";
        let user = User::bearer(token, &HeaderMap::new()).unwrap();
        assert_eq!(user.expires(), Some(1_767_323_045));
        assert_eq!(User::bearer("opaque", &HeaderMap::new()).unwrap().expires(), None);
    }

    #[test]
    fn a_token_that_cannot_stand_in_a_header_is_no_token() {
        assert!(User::bearer("a\nb", &HeaderMap::new()).is_none());
    }
}
