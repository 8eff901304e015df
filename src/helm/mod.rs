//! Helm releases: read natively from their Secrets, changed by the real Helm engine alone.
//!
//! It asks the API server only as the user, knows no HTTP of ours, and judges no right; what needs
//! other rooms (kinds, access reviews, charts) is joined in `api`.

pub mod act;
pub mod argv;
pub mod blob;
mod child;
pub mod classify;
pub mod diff;
pub mod door;
pub mod engine;
pub mod facts;
mod fields;
pub mod guard;
pub mod legacy;
pub mod lock;
mod lock_ask;
pub mod manifest;
pub mod names;
pub mod operation;
pub mod protect;
pub mod quota;
pub mod record;
pub mod redact;
pub mod rendered;
pub mod room;
mod sandbox;
mod strvals;
pub mod stuck;
pub mod values;
pub mod words;

use std::sync::Arc;

use door::Doors;
use engine::Engine;
use facts::Facts;
use operation::Operations;
use protect::Protection;

/// What the gateway has of Helm.
pub struct Helm {
    pub engine: Arc<Engine>,
    /// By which children of the engine come back to us.
    pub doors: Doors,
    pub operations: Operations,
    pub facts: Facts,
    pub protection: Protection,
    /// Seconds after which an operation of ours that gives no sign of life is taken for interrupted.
    pub silence: u32,
}
