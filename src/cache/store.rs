//! The rows of one kind, in the orders that lists ask for, and the inverse of what they link to.
//!
//! Reading takes a scope; nothing here decides who may have one. Choosing a page: `select`.

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ahash::RandomState;
use compact_str::CompactString;

use crate::auth::{Reach, Scope};
use crate::kinds::{Allocated, Facts, KindDef, Link, Phase, Row, Uid};

/// Rows of a list that are put in order before others have their turn: some 3 ms.
const STEP: usize = 1_000;

pub struct Store {
    kind: &'static KindDef,
    shelf: RwLock<Shelf>,
    /// Counts the changes; it moves before anybody can read a changed row.
    revision: AtomicU64,
}

#[derive(Default)]
pub(super) struct Shelf {
    pub(super) spaces: BTreeMap<CompactString, Space>,
    uids: HashSet<ByUid, RandomState>,
    links: Links,
}

/// Rows by the hash of what they point to, or of what has the same hash: who looks compares. A copy
/// of the link would take more than all of this. Most links have one row; those stand in a map of
/// their own, since room for a list in each of its places would be most of it.
#[derive(Default)]
struct Links {
    one: HashMap<u64, Arc<Row>, RandomState>,
    /// What once had more than one row; never in both maps.
    many: HashMap<u64, Vec<Arc<Row>>, RandomState>,
}

impl Links {
    /// The same for both ways in which an event in this namespace may name its object.
    fn hash(&self, namespace: &str, link: &Link) -> u64 {
        let hasher = self.one.hasher();
        match link.involved(namespace) {
            Some(place) => hasher.hash_one(place),
            None => hasher.hash_one(link),
        }
    }

    fn rows(&self, hash: u64) -> &[Arc<Row>] {
        match self.one.get(&hash) {
            Some(row) => std::slice::from_ref(row),
            None => self.many.get(&hash).map(Vec::as_slice).unwrap_or_default(),
        }
    }

    fn add(&mut self, hash: u64, row: Arc<Row>) {
        if let Some(rows) = self.many.get_mut(&hash) {
            rows.push(row);
        } else if let Some(first) = self.one.remove(&hash) {
            self.many.insert(hash, vec![first, row]);
        } else {
            self.one.insert(hash, row);
        }
    }

    fn remove(&mut self, hash: u64, row: &Arc<Row>) {
        if let Some(rows) = self.many.get_mut(&hash) {
            rows.retain(|other| !Arc::ptr_eq(other, row));
            if rows.is_empty() {
                self.many.remove(&hash);
            }
        } else if self.one.get(&hash).is_some_and(|only| Arc::ptr_eq(only, row)) {
            self.one.remove(&hash);
        }
    }
}

/// The rows of one namespace (of the empty one for cluster-scoped kinds).
#[derive(Default)]
pub(super) struct Space {
    pub(super) names: BTreeSet<ByName>,
    pub(super) created: BTreeSet<ByCreated>,
    /// Pods that count as running and as succeeded.
    up: usize,
    succeeded: usize,
    /// Pods that have not ended, and what they ask for.
    alive: usize,
    allocated: Allocated,
    /// Pods whose state depends on more than themselves (warnings), and failed ones; of events the
    /// warnings.
    troubled: BTreeSet<ByName>,
}

#[derive(Clone)]
pub(super) struct ByName(pub(super) Arc<Row>);
/// Oldest last: the order that every list page asks for first.
#[derive(Clone)]
pub(super) struct ByCreated(pub(super) Arc<Row>);
struct ByUid(Arc<Row>);

/// Sums of pods over a scope; the troubled ones are visited one by one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PodSums {
    pub up: usize,
    pub succeeded: usize,
    pub alive: usize,
    pub allocated: Allocated,
}

impl Store {
    pub fn new(kind: &'static KindDef) -> Self {
        Self { kind, shelf: RwLock::default(), revision: AtomicU64::new(0) }
    }

    /// A store of its own for rows of one answer.
    pub fn of(kind: &'static KindDef, rows: impl IntoIterator<Item: Into<Arc<Row>>>) -> Self {
        let store = Self::new(kind);
        store.replace(rows);
        store
    }

    pub fn kind(&self) -> &'static KindDef {
        self.kind
    }

    pub fn len(&self) -> usize {
        self.read().uids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn apply(&self, row: Row) {
        let mut shelf = self.write();
        self.revision.fetch_add(1, atomic::Ordering::AcqRel);
        shelf.insert(Arc::new(row));
    }

    pub(super) fn delete(&self, namespace: &str, name: &str) {
        let mut shelf = self.write();
        self.revision.fetch_add(1, atomic::Ordering::AcqRel);
        shelf.remove(namespace, name);
    }

    /// Equal numbers, equal rows: whoever makes something of rows reads it before them.
    pub fn revision(&self) -> u64 {
        self.revision.load(atomic::Ordering::Acquire)
    }

    /// Puts a whole new list in place of the old.
    pub(super) fn replace(&self, rows: impl IntoIterator<Item: Into<Arc<Row>>>) {
        let mut shelf = Shelf::default();
        self.fill(&mut shelf, rows);
        shelf.spaces.values_mut().for_each(Space::pack);
        drop(self.exchange(shelf));
    }

    /// The same of a list of any length: others have their turn meanwhile, and see the old rows
    /// until all of the new ones are there. Nobody else may change the rows during it.
    pub(super) async fn renew(&self, rows: Vec<Arc<Row>>) {
        let (mut shelf, mut rows) = (Shelf::default(), rows.into_iter());
        while !rows.as_slice().is_empty() {
            self.fill(&mut shelf, rows.by_ref().take(STEP));
            tokio::task::yield_now().await;
        }
        let spaces: Vec<&mut Space> = shelf.spaces.values_mut().collect();
        let mut packed = 0;
        for space in spaces {
            space.pack();
            packed += space.names.len();
            if packed >= STEP {
                packed = 0;
                tokio::task::yield_now().await;
            }
        }
        let old = self.exchange(shelf);
        if old.uids.len() > STEP {
            // To free so many takes a while.
            tokio::task::spawn_blocking(move || drop(old));
        }
    }

    /// Adds rows to a shelf in the making. Those that did not change are kept, so that a relist
    /// costs no second copy of them.
    fn fill(&self, shelf: &mut Shelf, rows: impl IntoIterator<Item: Into<Arc<Row>>>) {
        let old = self.read();
        for row in rows {
            let row: Arc<Row> = row.into();
            let same = old.get(&row.namespace, &row.name).filter(|known| *known == row);
            shelf.insert(same.unwrap_or(row));
        }
    }

    /// Puts a shelf in place of the old one and gives that back: it is freed when readers and
    /// writers need not wait for it.
    fn exchange(&self, shelf: Shelf) -> Shelf {
        let mut current = self.write();
        self.revision.fetch_add(1, atomic::Ordering::AcqRel);
        std::mem::replace(&mut *current, shelf)
    }

    pub(super) fn names(&self) -> Vec<CompactString> {
        let shelf = self.read();
        shelf.spaces.values().flat_map(|space| &space.names).map(|row| row.0.name.clone()).collect()
    }

    pub fn get(&self, scope: &Scope, namespace: &str, name: &str) -> Option<Arc<Row>> {
        if !self.admits(scope, namespace) {
            return None;
        }
        self.read().get(namespace, name)
    }

    pub fn by_uid(&self, scope: &Scope, uid: &Uid) -> Option<Arc<Row>> {
        let shelf = self.read();
        let row = &shelf.uids.get(uid)?.0;
        self.admits(scope, &row.namespace).then(|| row.clone())
    }

    /// Visits the rows in scope that link to `link`.
    pub fn linked(&self, scope: &Scope, link: &Link, mut visit: impl FnMut(&Arc<Row>)) {
        let shelf = self.read();
        for row in shelf.linked(link) {
            if self.admits(scope, &row.namespace) {
                visit(row);
            }
        }
    }

    /// Visits every row in scope, by namespace and name.
    pub fn each(&self, scope: &Scope, mut visit: impl FnMut(&Arc<Row>)) {
        let shelf = self.read();
        self.spaces(&shelf, scope, |space| space.names.iter().for_each(|row| visit(&row.0)));
    }

    /// The namespaces in scope that have a row.
    pub fn namespaces(&self, scope: &Scope) -> Vec<CompactString> {
        let shelf = self.read();
        let names = shelf
            .spaces
            .iter()
            .filter(|(name, space)| self.admits(scope, name) && !space.names.is_empty());
        names.map(|(name, _)| name.clone()).collect()
    }

    pub fn count(&self, scope: &Scope) -> usize {
        let shelf = self.read();
        let mut count = 0;
        self.spaces(&shelf, scope, |space| count += space.names.len());
        count
    }

    /// Sums of the pods in scope; `troubled` is called for each of the rest.
    pub fn pod_sums(&self, scope: &Scope, mut troubled: impl FnMut(&Arc<Row>)) -> PodSums {
        let shelf = self.read();
        let mut sums = PodSums::default();
        self.spaces(&shelf, scope, |space| {
            sums.up += space.up;
            sums.succeeded += space.succeeded;
            sums.alive += space.alive;
            sums.allocated.add(&space.allocated, 1);
            space.troubled.iter().for_each(|row| troubled(&row.0));
        });
        sums
    }

    /// The warnings among the events in scope, by namespace and name; pods as [`Self::pod_sums`]
    /// visits them. What is made of them is made when the store is left.
    pub fn troubled(&self, scope: &Scope) -> Vec<Arc<Row>> {
        let shelf = self.read();
        let mut rows = Vec::new();
        self.spaces(&shelf, scope, |space| {
            rows.extend(space.troubled.iter().map(|row| row.0.clone()));
        });
        rows
    }

    fn admits(&self, scope: &Scope, namespace: &str) -> bool {
        std::ptr::eq(scope.kind(), self.kind) && scope.covers(namespace)
    }

    /// The namespaces of `scope`, each visited once. A scope of another kind opens nothing.
    pub(super) fn spaces<'a>(
        &self,
        shelf: &'a Shelf,
        scope: &Scope,
        mut visit: impl FnMut(&'a Space),
    ) {
        if !std::ptr::eq(scope.kind(), self.kind) {
            return;
        }
        match scope.reach() {
            Reach::Everything => shelf.spaces.values().for_each(visit),
            Reach::Namespaces(names) => {
                names.iter().filter_map(|name| shelf.spaces.get(name)).for_each(&mut visit);
            }
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Row>> {
        self.spaces.get(namespace)?.names.get(name).map(|row| row.0.clone())
    }

    /// The rows that point to this; events by name to [`Link::InvolvedAt`].
    fn linked(&self, link: &Link) -> impl Iterator<Item = &Arc<Row>> {
        let rows = self.links.rows(self.links.hash("", link)).iter();
        rows.filter(|row| row.links_to(link))
    }

    fn insert(&mut self, row: Arc<Row>) {
        self.remove(&row.namespace, &row.name);
        for link in &row.links {
            self.links.add(self.links.hash(&row.namespace, link), row.clone());
        }
        self.uids.insert(ByUid(row.clone()));
        let space = self.spaces.entry(row.namespace.clone()).or_default();
        space.count(&row, 1);
        if is_troubled(&row) {
            space.troubled.insert(ByName(row.clone()));
        }
        space.created.insert(ByCreated(row.clone()));
        space.names.insert(ByName(row));
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(space) = self.spaces.get_mut(namespace) else {
            return;
        };
        let Some(ByName(row)) = space.names.take(name) else {
            return;
        };
        space.count(&row, -1);
        space.troubled.remove(name);
        space.created.remove(&ByCreated(row.clone()));
        if space.names.is_empty() {
            self.spaces.remove(namespace);
        }
        self.uids.remove(&row.uid);
        for link in &row.links {
            self.links.remove(self.links.hash(namespace, link), &row);
        }
    }
}

impl Space {
    /// Builds the orders anew without the room that rows in ascending order have left in them: half
    /// of it, for every row of a list.
    fn pack(&mut self) {
        self.names = std::mem::take(&mut self.names).into_iter().collect();
        self.created = std::mem::take(&mut self.created).into_iter().collect();
        self.troubled = std::mem::take(&mut self.troubled).into_iter().collect();
    }

    fn count(&mut self, row: &Row, change: i8) {
        let Facts::Pod(pod) = &row.facts else { return };
        let step = |sum: &mut usize| *sum = sum.saturating_add_signed(change.into());
        match pod.phase {
            Phase::Succeeded => step(&mut self.succeeded),
            Phase::Running if pod.up => step(&mut self.up),
            _ => {}
        }
        if !matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
            step(&mut self.alive);
            self.allocated.add(&pod.allocated, change.into());
        }
    }
}

fn is_troubled(row: &Row) -> bool {
    match &row.facts {
        Facts::Pod(pod) => {
            pod.phase != Phase::Succeeded && !(pod.phase == Phase::Running && pod.up)
        }
        Facts::Event(event) => event.warning.is_some(),
        _ => false,
    }
}

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl Ord for ByCreated {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |row: &Arc<Row>| Reverse(row.created);
        order(&self.0).cmp(&order(&other.0)).then_with(|| self.0.name.cmp(&other.0.name))
    }
}

macro_rules! ordered {
    ($($name:ident),*) => {$(
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other) == Ordering::Equal
            }
        }
        impl Eq for $name {}
    )*};
}
ordered!(ByName, ByCreated);

impl Borrow<Uid> for ByUid {
    fn borrow(&self) -> &Uid {
        &self.0.uid
    }
}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.uid.hash(state);
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
