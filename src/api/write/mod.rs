//! What changes objects as the caller: `_raw`, scale, actions, new objects, drains.
//!
//! Releases of Helm are not among them (`releases`).

pub mod actions;
pub mod create;
pub mod deploy;
pub mod deploy_file;
pub mod drain;
pub mod drain_pods;
pub mod raw;
pub mod scale;
pub mod validate;
