//! The one integration crate: a module for each surface, against the real control plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod certificate;
mod cluster;
mod config;
mod gateway;
mod generated;
mod languages;
mod listeners;
mod people;
mod readme;
mod reads;
mod rights;
mod tidy;
