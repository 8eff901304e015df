//! Charts as they come from outside: an archive that somebody uploads, or one out of an OCI
//! registry. Both are strangers' bytes and strangers' addresses.
//!
//! Nothing is unpacked to disk and nothing is rendered: that a chart is well made is the engine's
//! to find out, that it is no weapon is ours. Credentials of a repository leave their Secret or
//! file only inside of its client, for its own host alone.

pub mod access;
mod address;
pub mod archive;
mod body;
pub mod catalogue;
pub mod client;
pub mod definition;
pub mod dependencies;
mod disk;
pub mod file;
mod harbor;
pub mod icon;
pub mod index;
mod index_yaml;
pub mod museum;
pub mod oci;
mod places;
pub mod provenance;
pub mod push;
pub mod readme;
pub mod refresh;
mod registry;
pub mod renew;
pub mod repositories;
pub mod repository;
pub mod schema;
pub mod search;
mod session;
pub mod snapshot;
pub mod store;
mod subcharts;
mod tls;
pub mod versions;
mod wanted;

pub use address::{BadAllowed, Policy, Refused};

/// The largest archive, in bytes: ChartMuseum takes no larger ones, and the largest chart of the
/// well-known repositories has a tenth of it.
pub const PACKED: usize = 20 << 20;

/// A digest as hexadecimal text.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
