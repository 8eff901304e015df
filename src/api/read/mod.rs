//! Reads that merge and show objects: lists, details, child lists, the overview, the search, usage.
//!
//! `list` and `detail` begin, `view` opens the rows that a caller may see, `join` and `related` add
//! what stands beside them, `kept` remembers pages. Nothing here changes a cluster.

pub mod child;
pub mod controller;
pub mod crd;
pub mod detail;
pub mod gateways;
pub mod join;
pub mod kept;
pub mod list;
pub mod listing;
pub mod metrics;
pub mod overview;
pub mod own_namespaces;
pub mod related;
pub mod search;
pub mod sets;
pub mod usage;
pub mod view;
