//! The OpenAPI document of all routes.

pub mod charts;
pub mod document;
pub mod releases;
pub mod routes;
pub mod streams;
pub mod types;
