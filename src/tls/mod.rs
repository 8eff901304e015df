//! TLS of the listeners: where the certificate comes from, how it is kept, and how a new one takes the
//! place of the old without a restart. Three sources: given files, the state directory of a machine,
//! a Secret in a cluster; in the latter two we are our own authority. Nothing here listens or accepts,
//! and certificates of API servers are the business of `upstream`.

mod authority;
mod error;
mod files;
mod names;
mod pair;
mod rotate;
mod secret;
mod state;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use error::TlsError;
pub use names::{Wanted, wanted_names};
pub use rotate::{Keeper, stand_in};
pub use secret::read_ca_of;
pub use state::read_ca;

/// Where the certificate is kept.
#[derive(Clone)]
pub enum Source {
    /// Made and renewed by somebody else: a PEM chain (leaf first) and its PEM key.
    Files { cert: PathBuf, key: PathBuf },
    /// Made and renewed by us on a machine.
    StateDir(PathBuf),
    /// Made and renewed by us in a cluster, shared by all replicas. The client acts as ourselves.
    Secret { client: kube::Client, namespace: String, name: String },
}

/// The one crypto provider, named explicitly: the process-wide default is set by whoever comes first.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}
