//! The one integration crate: a module for each surface, against the real control plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod away;
mod bad_input;
mod bad_requests;
mod beyond;
mod both;
mod browser;
mod certificate;
mod chart_catalogue;
mod chart_hostile;
mod chart_installs;
mod chart_repos;
mod chart_uploads;
mod chromium;
mod cluster;
mod config;
mod contract;
mod costs;
mod debian;
mod demo;
mod deploys;
mod details;
mod drain_turns;
mod drains;
mod fault_proxy;
mod faults;
mod freshness;
mod frontend;
mod frontend_actions;
mod frontend_table;
mod gateway;
mod gateway_api;
mod generated;
mod helm_charts;
mod helm_guard;
mod http2_streams;
mod kubectl;
mod languages;
mod lifecycle;
mod listeners;
mod live;
mod live_limits;
mod log_follow;
mod log_streams;
mod logs;
mod metrics;
mod museum_server;
mod nginx;
mod npm;
mod orchard;
mod outages;
mod overview;
mod passthrough;
mod people;
mod property;
mod property_around;
mod property_ask;
mod property_judge;
mod property_plants;
mod property_truth;
mod property_world;
mod proxied;
mod proxies;
mod raw;
mod readme;
mod reads;
mod registries;
mod release_bad_input;
mod release_kills;
mod release_preview;
mod release_rules;
mod release_streams;
mod release_writes;
mod releases;
mod restarts;
mod rights;
mod schema_check;
mod schema_table;
mod schemas;
mod shell_polling;
mod shells;
mod statics;
mod terminals;
mod tidy;
mod transfers;
mod walk;
mod walk_table;
mod web;
mod writes;
