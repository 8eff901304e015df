//! The one integration crate: a module for each surface, against the real control plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod away;
mod bad_input;
mod both;
mod certificate;
mod cluster;
mod config;
mod contract;
mod demo;
mod details;
mod gateway;
mod generated;
mod kubectl;
mod languages;
mod lifecycle;
mod listeners;
mod passthrough;
mod people;
mod raw;
mod readme;
mod reads;
mod rights;
mod tidy;
