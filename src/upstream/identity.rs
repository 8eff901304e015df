//! On whose behalf a request goes to the API server.
//!
//! Credentials are carried, never interpreted: what a user may do is the API server's to say.
//! Finding the credentials in an HTTP request is `api::caller`'s part, not ours.

use std::sync::{LazyLock, OnceLock};

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
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

/// base64url as the API server reads it in JSON web tokens: what a last character has beyond the
/// last byte is overlooked, whatever it is.
static LENIENT: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

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
    /// `None` when the token cannot stand in a header, or not as the API server reads one: up to a
    /// blank, so that one token with more behind it would be many callers.
    pub fn bearer(token: &str, headers: &HeaderMap) -> Option<Self> {
        let is_text = token.bytes().all(|byte| byte.is_ascii_graphic());
        // A copy: a part of the request's own bytes would keep all of them for as long as the user.
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
            .filter(|(name, _)| is_known_impersonation(name))
            .map(|(name, value)| (name.clone(), trimmed(value)))
            .collect();
        let (fingerprint, expires) = (OnceLock::new(), OnceLock::new());
        Self { credentials, impersonation, fingerprint, expires }
    }

    /// The fingerprint under another key, which replicas may share: names this caller on each.
    pub fn fingerprint_under(&self, key: &hmac::Key) -> [u8; 32] {
        let mut context = hmac::Context::with_key(key);
        match &self.credentials {
            Credentials::Bearer(value) => {
                context.update(BEARER);
                update_with(&mut context, token(value));
            }
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
        *self.expires.get_or_init(|| token_expiry(token(value)))
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

    /// Something to impersonate without the one user whom all of it needs. The API server refuses
    /// groups without a user as well. An empty name it overlooks, and whoever sends it stays who he
    /// is; of several it reads the first. Clients write neither, and who does hears of it.
    pub fn impersonates_without_user(&self) -> bool {
        let mut users = self.impersonation.iter().filter(|(name, _)| name == "impersonate-user");
        // Without blanks, which HTTP/1.1 takes off and HTTP/2 does not.
        let first = users.next().filter(|(_, name)| !name.as_bytes().trim_ascii().is_empty());
        !self.impersonation.is_empty() && (first.is_none() || users.next().is_some())
    }
}

/// Without the blanks around it, which HTTP/1.1 takes off on the way to the API server: with them one
/// name would be many callers.
fn trimmed(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes().trim_ascii()).unwrap_or_else(|_| value.clone())
}

/// `Impersonate-User`, `-Group`, `-Uid` and `-Extra-…`, and whatever else is named like them.
pub fn is_impersonation(name: &HeaderName) -> bool {
    name.as_str().starts_with("impersonate-")
}

/// Those that the API server knows. Others mean nothing to it: they make nobody another caller, and
/// do not go on.
fn is_known_impersonation(name: &HeaderName) -> bool {
    let what = name.as_str().strip_prefix("impersonate-");
    what.is_some_and(|what| matches!(what, "user" | "group" | "uid") || what.starts_with("extra-"))
}

/// Headers that carry somebody's identity; none of them passes on as it came.
pub fn is_identity(name: &HeaderName) -> bool {
    name == header::AUTHORIZATION
        || is_impersonation(name)
        || name.as_str().starts_with("x-remote-")
}

/// What stands behind `Bearer`.
fn token(value: &HeaderValue) -> &[u8] {
    value.as_bytes().strip_prefix(BEARER).unwrap_or_default()
}

/// Hashes a token; a JSON web token as encoders write it. Each part of one may end in bits that are
/// not read (RFC 4648, 3.5), so the API server takes hundreds of spellings. Whoever has one has
/// all: they are one caller. It goes on as it came.
fn update_with(context: &mut hmac::Context, token: &[u8]) {
    // An object in front and two dots: other tokens may differ in those very bits.
    let is_web = token.starts_with(b"eyJ");
    if !is_web || token.iter().filter(|byte| **byte == b'.').count() != 2 {
        return context.update(token);
    }
    for (index, part) in token.split(|byte| *byte == b'.').enumerate() {
        if index > 0 {
            context.update(b".");
        }
        let (whole, end) = part.split_at(part.len() - part.len() % 4);
        context.update(whole);
        match LENIENT.decode(end) {
            Ok(bytes) => context.update(LENIENT.encode(bytes).as_bytes()),
            Err(_) => context.update(end),
        }
    }
}

/// `exp` of a JSON web token; `None` for opaque tokens.
fn token_expiry(token: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: i64,
    }
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    let json = LENIENT.decode(payload).ok()?;
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
    fn a_header_that_the_api_server_does_not_know_makes_nobody_another_caller() {
        let none = HeaderMap::new();
        for name in ["impersonate-foo", "impersonate-users", "impersonate-", "impersonate-extra"] {
            let odd = headers(&[(name, "x")]);
            assert!(is_impersonation(&HeaderName::from_static(name)), "{name} passes nowhere");
            let user = User::bearer("a", &odd).unwrap();
            assert!(user.impersonation.is_empty() && !user.impersonates_without_user(), "{name}");
            assert_eq!(user.fingerprint(), User::bearer("a", &none).unwrap().fingerprint());
            assert_eq!(User::kubeconfig(&odd).fingerprint(), User::kubeconfig(&none).fingerprint());
        }
        let jane = ("impersonate-user", "jane");
        for name in ["impersonate-group", "impersonate-uid", "impersonate-extra-scopes"] {
            let user = User::bearer("a", &headers(&[jane, (name, "x")])).unwrap();
            assert_eq!(user.impersonation.len(), 2, "{name}");
        }
    }

    #[test]
    fn impersonation_without_exactly_one_user_with_a_name_is_noticed() {
        let without = |pairs: &[(&'static str, &'static str)]| {
            let headers = headers(pairs);
            let user = User::bearer("a", &headers).unwrap();
            assert_eq!(
                User::kubeconfig(&headers).impersonates_without_user(),
                user.impersonates_without_user()
            );
            user.impersonates_without_user()
        };
        let (jane, admins) = (("impersonate-user", "jane"), ("impersonate-group", "admins"));
        assert!(!without(&[]) && !without(&[jane]) && !without(&[admins, jane]));
        assert!(!without(&[jane, admins, ("impersonate-group", "others")]));
        assert!(without(&[admins]));
        for empty in ["", " ", "\t "] {
            assert!(without(&[("impersonate-user", empty)]));
            assert!(without(&[("impersonate-user", empty), jane]));
        }
        assert!(without(&[jane, ("impersonate-user", "")]) && without(&[jane, jane]));
    }

    #[test]
    fn a_json_web_token_is_one_caller_in_each_of_its_spellings_and_other_tokens_are_not() {
        let user = |token: &str| User::bearer(token, &HeaderMap::new()).unwrap();
        // {"alg":"none"} . {"exp":1767323045 } . sign
        let token = "eyJhbGciOiJub25lIn0.eyJleHAiOjE3NjczMjMwNDUgfQ.c2lnbg";
        for (as_written, respelt) in [("In0.", "In3."), ("gfQ.", "gff."), ("nbg", "nbv")] {
            let other = token.replace(as_written, respelt);
            assert_ne!(other, token);
            assert_eq!(user(&other).fingerprint(), user(token).fingerprint(), "{other}");
            assert_eq!(user(&other).expires(), Some(1_767_323_045), "{other}");
            // It goes on as it came.
            let Credentials::Bearer(sent) = user(&other).credentials else { panic!("a token") };
            assert_eq!(sent, format!("Bearer {other}").as_str());
        }
        let others = [
            token.replace("nbg", "nbw"),
            token.replace("gfQ.", "gfg."),
            format!("{token}."),
            format!("{token}A"),
            format!("{token}AA"),
            token.replace("In0.", "In0=."),
        ];
        for other in others {
            assert_ne!(user(&other).fingerprint(), user(token).fingerprint(), "{other}");
        }
        // Some tokens are no web tokens: their last bits may be all that tells two people apart.
        let pairs = [("token-a", "token-b"), ("ya29.c.b0Ab", "ya29.c.b0Ac"), ("eyJa", "eyJb")];
        for (one, two) in pairs {
            assert_ne!(user(one).fingerprint(), user(two).fingerprint(), "{one}");
        }
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
    fn a_token_that_cannot_stand_in_a_header_or_has_more_behind_it_is_no_token() {
        for token in ["a\nb", "a b", "a\tb", " a", "a ", "\u{e4}", "a\u{7f}"] {
            assert!(User::bearer(token, &HeaderMap::new()).is_none(), "{token:?}");
        }
    }
}
