//! The proof that a user may read rows of a kind, and where. The store gives rows only against it.
//!
//! Only this room makes one; it cannot be built, widened or turned to another kind elsewhere.

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

impl Scope {
    pub(super) fn everything(kind: &'static KindDef) -> Self {
        Self { kind, reach: Reach::Everything }
    }

    pub(super) fn within(kind: &'static KindDef, namespaces: BTreeSet<CompactString>) -> Self {
        Self { kind, reach: Reach::Namespaces(namespaces) }
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
