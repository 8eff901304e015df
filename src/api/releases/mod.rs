//! Releases of Helm: read from their records, and changed by the real `helm`, which comes back to us
//! by its door (`door`).
//!
//! What a record or a command line looks like, the room `helm` knows.

pub mod detail;
pub mod door;
pub mod dry;
pub mod list;
pub mod operation;
pub mod plan;
pub mod preview;
pub mod protect;
pub mod resources;
pub mod run;
pub mod unlock;
pub mod urls;
pub mod write;
