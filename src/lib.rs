//! Binnacle: the backend-for-frontend and API gateway that Kubernetes dashboards stand on.
//!
//! The rooms and who may use whom: ARCHITECTURE.md.

pub mod api;
pub mod app;
pub mod auth;
pub mod cache;
pub mod charts;
pub mod config;
pub mod demo;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod helm;
pub mod i18n;
pub mod kinds;
pub mod query;
pub mod serve;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod yaml;
