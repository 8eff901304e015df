//! Keeps a certificate current: looks at its source now and then, renews what is ours, and swaps what is
//! served. A swap touches new handshakes only; connections that are open stay as they are.
//! Whatever fails while running keeps the certificate in memory, and is logged and counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::pair::Loaded;
use super::secret::Place;
use super::{Source, TlsError, Wanted, authority, files, provider, state};

/// Between two looks at given files: a replaced certificate is served within seconds, and two small
/// reads cost nothing.
const POLL_FILES: Duration = Duration::from_secs(2);

/// Between two looks at the state directory: nobody but our own kind writes there.
const POLL_STATE: Duration = Duration::from_secs(10);

/// Between two looks at a Secret: one GET a minute and replica. A renewal leaves a third of a year's
/// life to be noticed, so this could be far longer; a minute is what a person waits for.
const POLL_SECRET: Duration = Duration::from_secs(60);

/// The one name in a stand-in: nobody's (RFC 2606).
const NOBODY: &str = "starting.binnacle.invalid";

/// Holds the current certificate and its source.
pub struct Keeper {
    source: Source,
    wanted: Wanted,
    served: Arc<Served>,
    config: Arc<ServerConfig>,
    failures: AtomicU64,
    reloads: AtomicU64,
    /// The last failure told, so that one that lasts is one line in the log.
    told: Mutex<Option<String>>,
    /// The same of the certificate that is served: how it stands to its time.
    untimely: Mutex<Option<&'static str>>,
}

/// What handshakes are answered with.
struct Served(ArcSwap<Loaded>);

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Served(until {})", self.0.load().not_after)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

impl Keeper {
    /// Reads the certificate, and makes one where that is our task.
    ///
    /// # Errors
    /// The source cannot be read or written, or holds something damaged. Nothing is overwritten then.
    pub async fn open(source: Source, wanted: Wanted) -> Result<Keeper, TlsError> {
        let loaded = load(&source, &wanted, true, Timestamp::now()).await?;
        let complaint = loaded.complaint.clone();
        let served = Arc::new(Served(ArcSwap::from_pointee(loaded)));
        let config = listening(&served)?;
        let keeper = Keeper {
            source,
            wanted,
            served,
            config,
            failures: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            told: Mutex::new(None),
            untimely: Mutex::new(None),
        };
        if let Some(complaint) = complaint {
            keeper.failed(complaint);
        }
        keeper.judge(Timestamp::now());
        Ok(keeper)
    }

    /// For listeners: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3, always with the current certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Looks at the source again and again until stopped.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let pause = match self.source {
            Source::Files { .. } => POLL_FILES,
            Source::StateDir(_) => POLL_STATE,
            Source::Secret { .. } => POLL_SECRET,
        };
        loop {
            let look = async {
                tokio::time::sleep(pause).await;
                self.check(Timestamp::now()).await;
            };
            // A renewal that is stopped half-way is repeated by the next start.
            if stop.run_until_cancelled(look).await.is_none() {
                return;
            }
        }
    }

    /// One look at the source: renews what is due at `now`, serves what has changed, and keeps what is
    /// served when that fails. Its time may be over by then.
    pub async fn check(&self, now: Timestamp) {
        self.look(now).await;
        self.judge(now);
    }

    async fn look(&self, now: Timestamp) {
        let loaded = match load(&self.source, &self.wanted, false, now).await {
            Ok(loaded) => loaded,
            Err(error) => return self.failed(error.to_string()),
        };
        match &loaded.complaint {
            Some(complaint) => self.failed(complaint.clone()),
            None => *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None,
        }
        if loaded.key.cert == self.served.0.load().key.cert {
            return;
        }
        tracing::info!(until = %loaded.not_after, "serving a new certificate");
        self.served.0.store(Arc::new(loaded));
        self.reloads.fetch_add(1, Ordering::Relaxed);
        *self.untimely.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Tells once of a certificate that no client takes by its clock. It is served all the same: a
    /// clock may be wrong, and nobody has another one.
    fn judge(&self, now: Timestamp) {
        let served = self.served.0.load();
        let (from, until) = (served.not_before, served.not_after);
        let how = match (now < from, until <= now) {
            (true, _) => Some("is not valid yet"),
            (_, true) => Some("has expired"),
            _ => None,
        };
        let mut told = self.untimely.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(how) = how.filter(|_| *told != how) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%from, %until, "the certificate that is served {how}");
        }
        *told = how;
    }

    fn failed(&self, why: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() != Some(&why) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "keeping the certificate that is served, until {}: {why}",
                self.not_after()
            );
            *told = Some(why);
        }
    }

    /// The CA certificate that people have to trust, as PEM; `None` where we do not know it.
    pub fn ca_pem(&self) -> Option<String> {
        self.served.0.load().ca_pem.clone()
    }

    /// The end of the life of the certificate that is served.
    pub fn not_after(&self) -> Timestamp {
        self.served.0.load().not_after
    }

    /// What was wrong with the source or with what is served, since start: what lasts counts once.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Certificates swapped in, since start.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }
}

/// For listeners while the kept certificate cannot be read: a leaf of this process alone, which names
/// nobody, so that no client that looks takes it for ours. Probes of a kubelet do not look.
///
/// # Errors
/// It cannot be made.
pub fn stand_in() -> Result<Arc<ServerConfig>, TlsError> {
    let wanted = Wanted { names: vec![NOBODY.to_owned()] };
    let made = authority::found(&wanted, Timestamp::now())?;
    let loaded = Loaded::parse(made.leaf.as_bytes(), made.key.as_bytes());
    listening(&Arc::new(Served(ArcSwap::from_pointee(loaded.map_err(TlsError::Make)?))))
}

fn listening(served: &Arc<Served>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(served) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets spare returning clients the signature, and us a session cache.
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

async fn load(
    source: &Source,
    wanted: &Wanted,
    at_start: bool,
    now: Timestamp,
) -> Result<Loaded, TlsError> {
    match source {
        Source::Files { cert, key } => {
            let (cert, key) = (cert.clone(), key.clone());
            blocking(move || files::load(&cert, &key)).await
        }
        Source::StateDir(dir) => {
            let (dir, wanted) = (dir.clone(), wanted.clone());
            blocking(move || state::load(&dir, &wanted, at_start, now)).await
        }
        Source::Secret { client, namespace, name } => {
            let place = Place { client, namespace, name };
            place.load(wanted, at_start, now).await
        }
    }
}

/// File work off the runtime's threads: a state directory may be on a slow disk.
async fn blocking(
    work: impl FnOnce() -> Result<Loaded, TlsError> + Send + 'static,
) -> Result<Loaded, TlsError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(TlsError::Make(e.to_string())))
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
