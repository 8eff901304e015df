//! Shells, processes and ports in containers: one session (`terminal`), whichever transport carries
//! it: a plain WebSocket (`exec`, `forward`), or the contract's SockJS (`shell`, `sockjs`).

pub mod exec;
pub mod forward;
pub mod frames;
pub mod polling;
pub mod record;
pub mod session;
pub mod shell;
pub mod sockjs;
pub mod talk;
pub mod terminal;
