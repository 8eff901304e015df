//! The proof that a user may read rows of a kind, and where. The store gives rows only against it.
//!
//! Only this room makes one, with a single exception that a test holds to its place: `answered`.

use std::collections::BTreeSet;

use compact_str::CompactString;

use crate::kinds::KindDef;

#[derive(Clone)]
pub struct Scope {
    kind: &'static KindDef,
    reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Everything,
    Namespaces(BTreeSet<CompactString>),
}

/// Equal when they open the same rows of the same kind.
impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.kind.name == other.kind.name && self.reach == other.reach
    }
}

impl Scope {
    pub(super) fn everything(kind: &'static KindDef) -> Self {
        Self { kind, reach: Reach::Everything }
    }

    pub(super) fn within(kind: &'static KindDef, namespaces: BTreeSet<CompactString>) -> Self {
        Self { kind, reach: Reach::Namespaces(namespaces) }
    }

    /// For rows that the API server itself has just returned to this very caller. Only
    /// `cache::pager`, which lists as the caller, may call it (`tests/it/tidy.rs`).
    pub(crate) fn answered(kind: &'static KindDef, namespaces: &[CompactString]) -> Self {
        if namespaces.is_empty() {
            Self::everything(kind)
        } else {
            Self::within(kind, namespaces.iter().cloned().collect())
        }
    }

    pub fn kind(&self) -> &'static KindDef {
        self.kind
    }

    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    pub fn covers(&self, namespace: &str) -> bool {
        match &self.reach {
            Reach::Everything => true,
            Reach::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// A scope for tests of rooms that only read one.
    #[cfg(test)]
    pub fn for_tests(kind: &'static KindDef, namespaces: Option<&[&str]>) -> Self {
        match namespaces {
            None => Self::everything(kind),
            Some(names) => Self::within(kind, names.iter().map(|name| (*name).into()).collect()),
        }
    }
}
