//! Pages that are still right: who asks for the same query under the same scopes, while none of the
//! rows and figures behind it has changed, gets the body that was made a moment ago, whoever it was
//! made for. A dashboard's watchers ask for little else.
//!
//! It opens nothing: the scopes of this very request are compared, not remembered rights. Stale
//! rows, live ones and answers with `errors` never get here.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use bytes::Bytes;
use compact_str::CompactString;
use http::HeaderMap;

use super::join::Joins;
use super::usage::Usages;
use super::view::View;
use crate::api::respond::Freshness;
use crate::auth::{Reach, Scope};
use crate::kinds::KindDef;

/// Pages kept: the lists of some dozen dashboards. A page takes the place of another one.
const PAGES: usize = 64;
/// The longest one: a page of a hundred pods. With [`PAGES`] at most 8 MiB.
const LONGEST: usize = 128 << 10;
/// The list's own rows, the three kinds that are joined, and usage.
const SOURCES: usize = 5;

/// What a page is made of.
pub struct Recipe<'a> {
    kind: &'static KindDef,
    /// As it came, percent signs and all.
    query: &'a str,
    scopes: [Option<&'a Scope>; SOURCES],
    /// Of the rows and figures, before anything of them is read.
    revisions: [u64; SOURCES],
}

impl<'a> Recipe<'a> {
    /// `None` where something of it is nobody else's, or out of date.
    pub fn of(
        kind: &'static KindDef,
        query: Option<&'a str>,
        rows: &'a View,
        joins: &'a Joins,
    ) -> Option<Self> {
        let mut recipe = Self {
            kind,
            query: query.unwrap_or_default(),
            scopes: [None; SOURCES],
            revisions: [0; SOURCES],
        };
        let views = [Some(rows), joins.events.as_ref(), joins.pods.as_ref()];
        let views = views.into_iter().chain([joins.replica_sets.as_ref()]).enumerate();
        for (place, view) in views.filter_map(|(place, view)| Some((place, view?))) {
            recipe.scopes[place] = Some(&view.scope);
            recipe.revisions[place] = view.revision()?;
        }
        if let Some(usage) = &joins.usage {
            let Usages::Shared { usage, scope } = usage else { return None };
            recipe.scopes[SOURCES - 1] = Some(scope);
            recipe.revisions[SOURCES - 1] = usage.revision();
        }
        Some(recipe)
    }
}

/// A body and all headers that speak of it, its ETag too: it is kept only if and while it is current,
/// so that they stay true.
pub struct Baked {
    pub body: Bytes,
    pub head: HeaderMap,
    /// The same as the headers say of it.
    pub freshness: Arc<Freshness>,
}

struct Entry {
    kind: &'static str,
    query: CompactString,
    scopes: [Option<Scope>; SOURCES],
    revisions: [u64; SOURCES],
    baked: Arc<Baked>,
}

impl Entry {
    fn is_of(&self, recipe: &Recipe<'_>) -> bool {
        let mut scopes = self.scopes.iter().zip(&recipe.scopes);
        self.revisions == recipe.revisions
            && self.kind == recipe.kind.name
            && self.query == recipe.query
            && scopes.all(|(ours, theirs)| ours.as_ref() == *theirs)
    }
}

pub struct Kept {
    pages: Box<[Mutex<Option<Entry>>]>,
    hasher: RandomState,
}

impl Default for Kept {
    fn default() -> Self {
        let pages = (0..PAGES).map(|_| Mutex::default()).collect();
        Self { pages, hasher: RandomState::new() }
    }
}

impl Kept {
    pub fn get(&self, recipe: &Recipe<'_>) -> Option<Arc<Baked>> {
        let page = self.place(recipe)?.lock().unwrap_or_else(PoisonError::into_inner);
        page.as_ref().filter(|entry| entry.is_of(recipe)).map(|entry| entry.baked.clone())
    }

    /// Keeps what was made by a recipe whose revisions were read before.
    pub fn put(&self, recipe: &Recipe<'_>, baked: &Arc<Baked>) {
        if baked.body.len() > LONGEST {
            return;
        }
        let Some(place) = self.place(recipe) else { return };
        let entry = Entry {
            kind: recipe.kind.name,
            query: recipe.query.into(),
            scopes: recipe.scopes.map(|scope| scope.cloned()),
            revisions: recipe.revisions,
            baked: baked.clone(),
        };
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
    }

    /// Where a page of this kind, query and about these scopes has its place, whatever is in it.
    fn place(&self, recipe: &Recipe<'_>) -> Option<&Mutex<Option<Entry>>> {
        let mut hasher = self.hasher.build_hasher();
        (recipe.kind.name, recipe.query).hash(&mut hasher);
        for scope in recipe.scopes.iter().flatten() {
            match scope.reach() {
                Reach::Everything => 0.hash(&mut hasher),
                Reach::Namespaces(names) => (names.len(), names.first()).hash(&mut hasher),
            }
        }
        let place = hasher.finish() % PAGES as u64;
        self.pages.get(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_name;

    fn recipe<'a>(query: &'a str, scopes: [&'a Scope; 2], revisions: [u64; 2]) -> Recipe<'a> {
        let [rows, joined] = scopes.map(Some);
        let [first, second] = revisions;
        Recipe {
            kind: by_name("pod").unwrap(),
            query,
            scopes: [rows, joined, None, None, None],
            revisions: [first, second, 0, 0, 0],
        }
    }

    fn baked(body: impl Into<Bytes>) -> Arc<Baked> {
        let (head, freshness) = (HeaderMap::new(), Arc::default());
        Arc::new(Baked { body: body.into(), head, freshness })
    }

    #[test]
    fn a_page_is_given_only_for_the_same_query_scopes_and_revisions() {
        let (pod, event) = (by_name("pod").unwrap(), by_name("event").unwrap());
        let all = [Scope::for_tests(pod, None), Scope::for_tests(event, None)];
        let some = [&["a", "b"][..], &["a", "c"]].map(|names| Scope::for_tests(pod, Some(names)));
        let kept = Kept::default();
        let baked = baked("{}");
        let same = || recipe("page=1", [&all[0], &all[1]], [7, 9]);
        assert!(kept.get(&same()).is_none());
        kept.put(&same(), &baked);
        assert_eq!(kept.get(&same()).unwrap().body, baked.body);
        for other in [
            recipe("page=2", [&all[0], &all[1]], [7, 9]),
            recipe("page=1", [&some[0], &all[1]], [7, 9]),
            recipe("page=1", [&all[0], &some[0]], [7, 9]),
            recipe("page=1", [&all[0], &all[1]], [8, 9]),
            recipe("page=1", [&all[0], &all[1]], [7, 10]),
        ] {
            assert!(kept.get(&other).is_none());
        }
        // Equal but for one namespace: the same place, and never the other's page.
        kept.put(&recipe("", [&some[0], &all[1]], [1, 1]), &baked);
        assert!(kept.get(&recipe("", [&some[1], &all[1]], [1, 1])).is_none());
    }

    #[test]
    fn a_long_page_is_not_kept() {
        let scope = Scope::for_tests(by_name("pod").unwrap(), None);
        let kept = Kept::default();
        let baked = baked(vec![b' '; LONGEST + 1]);
        kept.put(&recipe("", [&scope, &scope], [1, 1]), &baked);
        assert!(kept.get(&recipe("", [&scope, &scope], [1, 1])).is_none());
    }
}
