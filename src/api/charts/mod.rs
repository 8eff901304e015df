//! Charts and where they come from, as the caller may read them.
//!
//! What an index or an archive looks like, the room `charts` knows.

pub mod list;
pub mod repositories;
pub mod repository_write;
pub mod upload;
pub mod version;
