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

/// Where something may be listed, or is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Everything,
    /// None of them is nowhere, never everything. Shared: a request has it in several scopes.
    Namespaces(Arc<BTreeSet<CompactString>>),
}

/// No namespace at all is nowhere.
impl FromIterator<CompactString> for Reach {
    fn from_iter<T: IntoIterator<Item = CompactString>>(names: T) -> Self {
        Self::Namespaces(Arc::new(names.into_iter().collect()))
    }
}

impl Reach {
    /// As requests have it: these namespaces, or everything where none is named. Only for what a
    /// request itself has said: what is left of a set says nothing of the rest.
    pub fn named(names: Vec<CompactString>) -> Self {
        if names.is_empty() { Self::Everything } else { names.into_iter().collect() }
    }

    pub fn one(namespace: &CompactString) -> Self {
        Self::Namespaces(Arc::new(BTreeSet::from([namespace.clone()])))
    }

    /// The one namespace that it is, if it is one alone.
    pub fn only(&self) -> Option<&CompactString> {
        match self {
            Self::Namespaces(names) if names.len() == 1 => names.first(),
            _ => None,
        }
    }

    /// The namespaces that it names; everything names none.
    pub fn names(&self) -> impl Iterator<Item = &CompactString> {
        let names = match self {
            Self::Everything => None,
            Self::Namespaces(names) => Some(names.iter()),
        };
        names.into_iter().flatten()
    }

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
        namespaces: Arc<BTreeSet<CompactString>>,
        rest: Option<Arc<Failure>>,
    ) -> Self {
        Self { kind, reach: Reach::Namespaces(namespaces), rest }
    }

    /// For rows that the API server itself has just returned to this very caller. Only
    /// `cache::pager`, which lists as the caller, may call it (`tests/it/tidy.rs`).
    pub(crate) fn answered(kind: &'static KindDef, reach: Reach) -> Self {
        Self { kind, reach, rest: None }
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
                let names: BTreeSet<_> = names.iter().map(|name| (*name).into()).collect();
                Self::within(kind, Arc::new(names), None)
            }
        }
    }
}
