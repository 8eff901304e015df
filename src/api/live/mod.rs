//! Live answers: a read told again whenever its answer changes, as event streams (`events`) or many
//! over one WebSocket (`socket`), out of evaluations that are shared (`hub`).
//!
//! They show nothing that the plain answer would not: each evaluation is one.

pub mod diff;
pub mod events;
pub mod held;
pub mod hub;
pub mod pace;
pub mod socket;
