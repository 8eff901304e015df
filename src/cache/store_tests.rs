//! Tests of the store alone: what is kept apart, and that neither readers nor other tasks wait
//! while a whole list is put in place. Orders, links and scopes: `select`.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, Weak};

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::kinds::{Labels, by_name};

fn pods() -> &'static KindDef {
    by_name("pod").unwrap()
}

fn row(name: &str) -> Row {
    Row {
        namespace: "n".into(),
        name: name.into(),
        uid: Uid::from(name),
        created: 1,
        version: 1,
        labels: Labels::default(),
        cells: Box::default(),
        links: Box::default(),
        facts: Facts::None,
        json: Bytes::from_static(b"{}"),
    }
}

fn event(namespace: &str, name: &str, kind: &str) -> Row {
    let uid = format!("{namespace}/{name}");
    let event = json!({
        "metadata": {"namespace": namespace, "name": name, "uid": uid},
        "type": kind, "reason": "Scheduled",
    });
    (by_name("event").unwrap().row)(&event.to_string()).unwrap()
}

#[test]
fn warnings_are_found_under_a_scope_until_they_are_none_or_gone() {
    let kind = by_name("event").unwrap();
    let scope = Scope::for_tests(kind, Some(&["a"]));
    let store = Store::of(
        kind,
        [event("a", "bad", "Warning"), event("a", "good", "Normal"), event("b", "bad", "Warning")],
    );
    let names = |scope: &Scope| -> Vec<String> {
        store.troubled(scope).iter().map(|row| row.name.to_string()).collect()
    };
    assert_eq!(names(&scope), ["bad"]);
    assert_eq!(names(&Scope::for_tests(pods(), None)), [""; 0]);
    store.apply(event("a", "good", "Warning"));
    assert_eq!(names(&scope), ["bad", "good"]);
    store.apply(event("a", "bad", "Normal"));
    assert_eq!(names(&scope), ["good"]);
    store.delete("a", "good");
    assert_eq!(names(&scope), [""; 0]);
    assert_eq!(names(&Scope::for_tests(kind, None)), ["bad"]);
}

/// The bytes of a row, which tell whether the rows could be read when they were freed.
struct Freed {
    store: Weak<Store>,
    was_open: Arc<AtomicBool>,
}

impl AsRef<[u8]> for Freed {
    fn as_ref(&self) -> &[u8] {
        b"{}"
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        let store = self.store.upgrade();
        let is_open = store.is_some_and(|store| store.shelf.try_read().is_ok());
        self.was_open.store(is_open, atomic::Ordering::Relaxed);
    }
}

#[test]
fn rows_can_be_read_while_those_of_the_old_list_are_freed() {
    let (store, was_open) = (Arc::new(Store::new(pods())), Arc::<AtomicBool>::default());
    let freed = Freed { store: Arc::downgrade(&store), was_open: was_open.clone() };
    store.apply(Row { json: Bytes::from_owner(freed), ..row("old") });
    store.replace([row("new")]);
    assert!(was_open.load(atomic::Ordering::Relaxed));
}

#[tokio::test]
async fn others_have_their_turn_while_a_long_list_is_put_in_place_and_see_all_of_it_or_nothing() {
    let store = Arc::new(Store::of(pods(), [row("old")]));
    let (seen, others) = (Arc::<Mutex<BTreeSet<usize>>>::default(), store.clone());
    let counts = seen.clone();
    let other = tokio::spawn(async move {
        loop {
            counts.lock().unwrap().insert(others.len());
            tokio::task::yield_now().await;
        }
    });
    let rows = (0..2 * STEP).map(|number| Arc::new(row(&number.to_string())));
    store.renew(rows.collect()).await;
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([1]));
    assert_eq!(store.len(), 2 * STEP);
    other.abort();
    let scope = Scope::for_tests(pods(), None);
    let kept = store.get(&scope, "n", "7").unwrap();
    store.renew(vec![Arc::new(row("7"))]).await;
    assert!(Arc::ptr_eq(&kept, &store.get(&scope, "n", "7").unwrap()));
    assert_eq!(store.len(), 1);
}
