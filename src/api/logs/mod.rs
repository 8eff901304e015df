//! Logs of containers: windows and files (`window`), and followed ones, of one container (`follow`)
//! or of a workload (`merge`).
//!
//! Every byte is read as the caller; nothing is kept.

pub mod follow;
pub mod lines;
pub mod merge;
pub mod source;
pub mod source_end;
pub mod source_filter;
pub mod stream;
pub mod window;
