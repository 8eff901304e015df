//! What a web frontend asks of its own server: sign-in, CSRF tokens, settings, pins, its files.

pub mod config_page;
pub mod cookie_path;
pub mod csrf;
pub mod pinned;
pub mod session;
pub mod settings;
pub mod statics;
