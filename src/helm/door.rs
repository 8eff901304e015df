//! The door by which one `helm` reaches the API server: a token for one operation, behind which
//! stands its user. It opens when the operation begins and is shut when it ends.
//!
//! The user's credentials stay here; the child only has the token. Answering what comes through
//! the door is `api`'s part.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::CertifiedKey;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::time::Instant;

use crate::upstream::User;

/// The doors of this process; clones are one and the same.
#[derive(Clone, Default)]
pub struct Doors(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By the SHA-256 of the token: memory that is read tells no token that still opens.
    open: Mutex<HashMap<[u8; 32], Behind>>,
    place: OnceLock<Place>,
}

/// What stands behind a door.
struct Behind {
    user: User,
    /// The API server's words about the last thing that this user may not do: helm keeps some of
    /// them to itself.
    denial: Option<String>,
    /// When it is not sure any more that the operation's lock is still ours.
    until: Option<Instant>,
    /// Since when the API server refuses the user's credentials.
    refused: Option<Instant>,
}

/// Where the doors are.
struct Place {
    authority: String,
    ca: String,
}

/// One door; dropping it shuts it.
pub struct Door {
    inner: Arc<Inner>,
    hash: [u8; 32],
    token: String,
}

/// What a kubeconfig needs to come through one door.
#[derive(Clone)]
pub struct DoorKey {
    /// `https://127.0.0.1:port`.
    pub url: String,
    /// The certificate to trust, and no other: PEM.
    pub ca: String,
    pub token: String,
}

/// Why there are no doors: no certificate could be made, or there are some already.
#[derive(Debug, thiserror::Error)]
pub enum NoDoors {
    #[error("the certificate of the engine's own listener cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the engine's own listener cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the engine's own listener is there already")]
    Twice,
}

impl Doors {
    /// Says once where the doors are, and makes their certificate. TLS although it is loopback:
    /// client-go sends no token over plain HTTP (`rest.IsConfigTransportTLS` in clientcmd), and a
    /// token in the address would stand in its error messages.
    pub fn listen(&self, address: SocketAddr) -> Result<Arc<ServerConfig>, NoDoors> {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec![address.ip().to_string()])?;
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let place = Place { authority: address.to_string(), ca: cert.pem() };
        self.0.place.set(place).map_err(|_| NoDoors::Twice)?;
        Ok(Arc::new(config))
    }

    /// `host:port` by which a client calls the doors; empty before `listen`.
    pub fn authority(&self) -> &str {
        self.0.place.get().map_or("", |place| &place.authority)
    }

    /// A door for this user, with 256 bits of its own.
    pub fn open(&self, user: User) -> Door {
        let mut bytes = [0; 32];
        let random = rand::fill(&mut bytes).is_ok();
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let door = Door { inner: Arc::clone(&self.0), hash: hash(&token), token };
        // Without randomness the token could be guessed: such a door stays shut.
        if random {
            door.renew(user);
        }
        door
    }

    /// Who stands behind a token.
    pub fn user(&self, token: &str) -> Option<User> {
        self.0.doors().get(&hash(token)).map(|behind| behind.user.clone())
    }

    /// Whether the lock of this door's operation was not renewed in time.
    pub fn is_late(&self, token: &str) -> bool {
        let until = self.0.doors().get(&hash(token)).and_then(|behind| behind.until);
        until.is_some_and(|until| Instant::now() >= until)
    }

    /// Since when the credentials behind this door are refused, and no newer ones have come.
    pub fn refused_since(&self, token: &str) -> Option<Instant> {
        self.0.doors().get(&hash(token)).and_then(|behind| behind.refused)
    }

    /// What came through this door as this user was refused: since when that is so. `None` where no
    /// newer credentials will come, as for what has no lock that is renewed.
    pub fn refuse(&self, token: &str, user: &User) -> Option<Instant> {
        let mut doors = self.0.doors();
        let behind = doors.get_mut(&hash(token)).filter(|behind| behind.until.is_some())?;
        if behind.user.fingerprint() != user.fingerprint() {
            // They came while it was on its way.
            return Some(Instant::now());
        }
        Some(*behind.refused.get_or_insert_with(Instant::now))
    }

    /// What came through this door as this user was answered.
    pub fn taken(&self, token: &str, user: &User) {
        if let Some(behind) = self.0.doors().get_mut(&hash(token))
            && behind.user.fingerprint() == user.fingerprint()
        {
            behind.refused = None;
        }
    }

    /// What came through this door was denied, in these words.
    pub fn denied(&self, token: &str, words: String) {
        if let Some(behind) = self.0.doors().get_mut(&hash(token)) {
            behind.denial = Some(words);
        }
    }

    /// The last denial of what came through this door.
    pub fn denial(&self, token: &str) -> Option<String> {
        self.0.doors().get(&hash(token)).and_then(|behind| behind.denial.clone())
    }
}

impl Inner {
    fn doors(&self) -> MutexGuard<'_, HashMap<[u8; 32], Behind>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    /// From now on the door is this user's: the same person with newer credentials.
    pub fn renew(&self, user: User) {
        let mut doors = self.inner.doors();
        let known = doors.remove(&self.hash).map(|behind| (behind.denial, behind.until));
        let (denial, until) = known.unwrap_or_default();
        doors.insert(self.hash, Behind { user, denial, until, refused: None });
    }

    /// The lock was written with these credentials: nothing goes through from then on, unless this
    /// is said again.
    pub fn until(&self, until: Instant) {
        if let Some(behind) = self.inner.doors().get_mut(&self.hash) {
            behind.until = Some(until);
            behind.refused = None;
        }
    }

    /// The lock was not written, since the user's credentials were refused.
    pub fn refused(&self) {
        if let Some(behind) = self.inner.doors().get_mut(&self.hash) {
            behind.refused.get_or_insert_with(Instant::now);
        }
    }

    pub fn key(&self) -> DoorKey {
        let (authority, ca) = match self.inner.place.get() {
            Some(place) => (place.authority.as_str(), place.ca.clone()),
            None => ("", String::new()),
        };
        DoorKey { url: format!("https://{authority}"), ca, token: self.token.clone() }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.inner.doors().remove(&self.hash);
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn user(token: &str) -> User {
        User::bearer(token, &HeaderMap::new()).unwrap()
    }

    #[test]
    fn a_door_opens_for_its_own_token_until_it_is_dropped() {
        let doors = Doors::default();
        let (one, other) = (doors.open(user("a")), doors.open(user("b")));
        let token = one.key().token;
        assert_ne!(token, other.key().token);
        let behind = doors.user(&token).unwrap();
        assert_eq!(behind.fingerprint(), user("a").fingerprint());
        drop(one);
        assert!(doors.user(&token).is_none());
        assert!(doors.user(&other.key().token).is_some());
        assert!(doors.user("").is_none());
    }

    #[test]
    fn newer_credentials_stand_behind_the_same_token() {
        let doors = Doors::default();
        let door = doors.open(user("old"));
        door.renew(user("new"));
        let behind = doors.user(&door.key().token).unwrap();
        assert_eq!(behind.fingerprint(), user("new").fingerprint());
    }

    #[test]
    fn the_last_denial_is_remembered_until_the_door_is_dropped() {
        let doors = Doors::default();
        let door = doors.open(user("a"));
        let token = door.key().token;
        assert_eq!(doors.denial(&token), None);
        doors.denied(&token, "no".into());
        door.renew(user("b"));
        assert_eq!(doors.denial(&token).as_deref(), Some("no"));
        drop(door);
        doors.denied(&token, "no".into());
        assert_eq!(doors.denial(&token), None);
    }

    #[test]
    fn a_door_is_late_when_its_time_is_over_and_newer_credentials_do_not_change_that() {
        let doors = Doors::default();
        let door = doors.open(user("a"));
        let token = door.key().token;
        assert!(!doors.is_late(&token), "it has all the time");
        door.until(Instant::now());
        door.renew(user("b"));
        assert!(doors.is_late(&token));
        door.until(Instant::now() + std::time::Duration::from_secs(3600));
        assert!(!doors.is_late(&token));
    }

    #[test]
    fn refused_credentials_are_known_until_newer_ones_come_or_the_lock_is_written_with_them() {
        let doors = Doors::default();
        let (preview, door) = (doors.open(user("a")), doors.open(user("a")));
        let later = Instant::now() + std::time::Duration::from_secs(3600);
        door.until(later);
        let token = door.key().token;
        assert_eq!(doors.refused_since(&token), None);
        let since = doors.refuse(&token, &user("a")).unwrap();
        door.refused();
        assert_eq!(doors.refuse(&token, &user("a")), Some(since), "the first time counts");
        assert_eq!(doors.refused_since(&token), Some(since));
        doors.taken(&token, &user("b"));
        assert_eq!(doors.refused_since(&token), Some(since), "another's");
        doors.taken(&token, &user("a"));
        assert_eq!(doors.refused_since(&token), None);
        door.refused();
        door.renew(user("b"));
        assert_eq!(doors.refused_since(&token), None);
        // What was on its way with the old ones says nothing of the new ones.
        assert!(doors.refuse(&token, &user("a")).is_some());
        assert_eq!(doors.refused_since(&token), None);
        door.refused();
        assert!(doors.refused_since(&token).is_some());
        door.until(later);
        assert_eq!(doors.refused_since(&token), None);
        assert_eq!(doors.refuse(&preview.key().token, &user("a")), None, "nobody renews a preview");
        assert_eq!(doors.refuse("", &user("a")), None);
    }

    #[test]
    fn the_key_names_the_listener_and_its_certificate_and_there_is_only_one() {
        let doors = Doors::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 4321));
        doors.listen(address).unwrap();
        let key = doors.open(user("a")).key();
        assert_eq!(key.url, "https://127.0.0.1:4321");
        assert!(key.ca.starts_with("-----BEGIN CERTIFICATE-----"), "{}", key.ca);
        assert_eq!(doors.authority(), "127.0.0.1:4321");
        assert!(matches!(doors.listen(address), Err(NoDoors::Twice)));
    }
}
