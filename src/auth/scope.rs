//! The proof that a user may read rows of a kind, and where. The store gives rows only against it.
//!
//! Only this room makes one, with a single exception that a test holds to its place: `answered`.

use std::collections::BTreeSet;
use std::sync::Arc;

use compact_str::CompactString;

use crate::kinds::KindDef;
use crate::upstream::Failure;

#[derive(Clone)]
pub struct Scope {
    kind: &'static KindDef,
    reach: Reach,
    /// Why it does not reach further, where more was asked for.
    rest: Option<Arc<Failure>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Everything,
    Namespaces(BTreeSet<CompactString>),
}

impl Reach {
    /// Whether it reaches wherever the other one does.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) => true,
            (Self::Namespaces(_), Self::Everything) => false,
            (Self::Namespaces(ours), Self::Namespaces(theirs)) => theirs.is_subset(ours),
        }
    }
}

/// Equal when they open the same rows of the same kind.
impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.kind.name == other.kind.name && self.reach == other.reach
    }
}

impl Scope {
    pub(super) fn everything(kind: &'static KindDef) -> Self {
        Self { kind, reach: Reach::Everything, rest: None }
    }

    pub(super) fn within(
        kind: &'static KindDef,
        namespaces: BTreeSet<CompactString>,
        rest: Option<Arc<Failure>>,
    ) -> Self {
        Self { kind, reach: Reach::Namespaces(namespaces), rest }
    }

    /// For rows that the API server itself has just returned to this very caller. Only
    /// `cache::pager`, which lists as the caller, may call it (`tests/it/tidy.rs`).
    pub(crate) fn answered(kind: &'static KindDef, namespaces: &[CompactString]) -> Self {
        if namespaces.is_empty() {
            Self::everything(kind)
        } else {
            Self::within(kind, namespaces.iter().cloned().collect(), None)
        }
    }

    pub fn kind(&self) -> &'static KindDef {
        self.kind
    }

    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Why it does not reach further, where more was asked for: a denial in the API server's own
    /// words, or why it could not be asked.
    pub fn rest(&self) -> Option<&Failure> {
        self.rest.as_deref()
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
            Some(names) => {
                Self::within(kind, names.iter().map(|name| (*name).into()).collect(), None)
            }
        }
    }
}
