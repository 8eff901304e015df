//! Tests of the store and of choosing pages: what a kept order gives equals what sorting gives,
//! and nothing leaves without a scope.

use proptest::prelude::*;

use super::*;
use crate::kinds::{Facts, KindDef, Labels, Link, Uid, by_name};
use crate::query::Filter;

fn pods() -> &'static KindDef {
    by_name("pod").unwrap()
}

fn row(namespace: &str, name: &str, created: i64) -> Row {
    Row {
        namespace: namespace.into(),
        name: name.into(),
        uid: Uid::from(format!("{namespace}/{name}").as_str()),
        created,
        version: 1,
        labels: Labels::default(),
        cells: [crate::kinds::Cell::Text("Running".into())].into(),
        links: Box::default(),
        facts: Facts::None,
        json: bytes::Bytes::from_static(b"{}"),
    }
}

fn names(page: &Page) -> Vec<String> {
    page.rows.iter().map(|row| format!("{}/{}", row.namespace, row.name)).collect()
}

fn page(size: usize, index: usize) -> Option<query::Page> {
    Some(query::Page { size, index })
}

fn by(key: Key, descending: bool) -> Vec<Sort> {
    vec![Sort { key, descending }]
}

fn three() -> Store {
    Store::of(pods(), [row("a", "x", 1), row("b", "y", 3), row("a", "z", 2)])
}

#[test]
fn the_newest_come_first_across_namespaces() {
    let scope = Scope::for_tests(pods(), None);
    let query = ListQuery { sort: by(Key::Created, true), page: page(2, 0), ..Default::default() };
    let page = three().select(&scope, &query);
    assert_eq!(names(&page), ["b/y", "a/z"]);
    assert_eq!(page.total, 3);
}

#[test]
fn a_page_behind_the_end_is_empty_but_keeps_the_total() {
    let scope = Scope::for_tests(pods(), None);
    let query = ListQuery { page: page(2, 7), ..Default::default() };
    let page = three().select(&scope, &query);
    assert_eq!((page.rows.len(), page.total), (0, 3));
}

#[test]
fn rows_outside_the_scope_are_neither_shown_nor_counted_nor_found() {
    let store = three();
    let scope = Scope::for_tests(pods(), Some(&["a"]));
    assert_eq!(names(&store.select(&scope, &ListQuery::default())), ["a/x", "a/z"]);
    assert_eq!(store.count(&scope), 2);
    assert!(store.get(&scope, "b", "y").is_none());
    assert!(store.by_uid(&scope, &"b/y".into()).is_none());
    let nowhere = Scope::for_tests(pods(), Some(&[]));
    assert_eq!(store.select(&nowhere, &ListQuery::default()).total, 0);
}

#[test]
fn a_scope_of_another_kind_opens_nothing() {
    let scope = Scope::for_tests(by_name("event").unwrap(), None);
    let store = three();
    assert_eq!(store.select(&scope, &ListQuery::default()).total, 0);
    assert!(store.get(&scope, "a", "x").is_none());
}

#[test]
fn a_deleted_row_is_gone_from_every_order() {
    let store = three();
    store.delete("a", "x");
    store.delete("a", "x");
    let scope = Scope::for_tests(pods(), None);
    let query = ListQuery { sort: by(Key::Created, true), ..Default::default() };
    assert_eq!(names(&store.select(&scope, &query)), ["b/y", "a/z"]);
    assert_eq!(store.len(), 2);
    assert!(store.by_uid(&scope, &"a/x".into()).is_none());
}

#[test]
fn rows_are_found_by_what_they_point_to_until_they_are_gone() {
    let of = |namespace: &str, name: &str, link: Link| Row {
        links: [link].into(),
        ..row(namespace, name, 1)
    };
    let near = |name: &str, about: &str| of("a", name, Link::InvolvedName(about.into()));
    let about = |name: &str| Link::InvolvedAt(Box::new(("a".into(), name.into())));
    let elsewhere = of("b", "4", Link::InvolvedName("x".into()));
    let rows = [near("1", "x"), near("2", "x"), near("3", "y"), elsewhere];
    let store = Store::of(pods(), rows.into_iter().chain([of("b", "far", about("x"))]));
    let scope = Scope::for_tests(pods(), None);
    let found = |name: &str| {
        let mut names = Vec::new();
        store.linked(&scope, &about(name), |row| names.push(row.name.to_string()));
        names
    };
    assert_eq!((found("x").join(" "), found("y").join(" ")), ("1 2 far".into(), "3".into()));
    store.delete("a", "1");
    store.apply(near("3", "x"));
    assert_eq!((found("x").join(" "), found("y").join(" ")), ("2 far 3".into(), String::new()));
    for (namespace, name) in [("a", "2"), ("b", "far"), ("a", "3")] {
        store.delete(namespace, name);
    }
    assert_eq!(found("x"), [""; 0]);
    let twice = [Link::InvolvedName("x".into()), Link::InvolvedName("x".into())];
    store.apply(Row { links: twice.into(), ..row("a", "5", 1) });
    store.apply(near("6", "x"));
    store.delete("a", "5");
    assert_eq!(found("x"), ["6"]);
}

#[test]
fn a_relist_keeps_rows_that_did_not_change() {
    let store = three();
    let scope = Scope::for_tests(pods(), None);
    let before = store.get(&scope, "a", "x").unwrap();
    store.replace(vec![row("a", "x", 1), row("c", "new", 9)]);
    assert!(Arc::ptr_eq(&before, &store.get(&scope, "a", "x").unwrap()));
    assert_eq!(store.len(), 2);
}

#[test]
fn filters_are_substrings_and_the_total_counts_what_is_left() {
    let scope = Scope::for_tests(pods(), None);
    let filters = vec![Filter { key: Key::Namespace, text: "a".into(), how: Default::default() }];
    let query = ListQuery { filters, page: page(1, 0), ..Default::default() };
    let page = three().select(&scope, &query);
    assert_eq!((names(&page), page.total), (vec!["a/x".to_owned()], 2));
}

#[test]
fn what_a_filter_leaves_is_what_it_leaves_on_all_pages() {
    let rows = [row("a", "x", 1), row("b", "y", 3), row("a", "z", 2)].map(Arc::new).to_vec();
    let filters = vec![Filter { key: Key::Namespace, text: "a".into(), how: Default::default() }];
    let query = ListQuery { filters, page: page(1, 0), ..Default::default() };
    let left = Page::left(rows.clone(), &query);
    let kept: Vec<_> = left.iter().map(|row| row.name.as_str()).collect();
    assert_eq!((kept, Page::of(&rows, &query).total), (vec!["x", "z"], 2));
    assert_eq!(Page::left(rows, &ListQuery::default()).len(), 3);
}

proptest! {
    /// Walking a kept order gives the very page that sorting all rows gives, filtered or not.
    #[test]
    fn a_kept_order_equals_sorting(
        rows in proptest::collection::vec(("[a-c]", "[a-z]{1,2}", 0i64..5), 0..40),
        size in 0usize..6, index in 0usize..6, created in any::<bool>(), descending in any::<bool>(),
        some in any::<bool>(), text in proptest::option::of("[a-e]"),
    ) {
        let store = Store::of(pods(), rows.iter().map(|(ns, name, at)| row(ns, name, *at)));
        let scope = Scope::for_tests(pods(), some.then_some(&["a", "c"]));
        let key = if created { Key::Created } else { Key::Name };
        let filter = |text: &String| Filter {
            key: Key::Name,
            text: text.as_str().into(),
            how: Default::default(),
        };
        let query = ListQuery {
            sort: by(key, descending),
            page: page(size, index),
            filters: text.iter().map(filter).collect(),
            ..Default::default()
        };
        let shelf = store.read();
        let kept = store.page_in_order(&shelf, &scope, &query, (key, descending), None);
        let sorted = store.page_of_all(&shelf, &scope, &query);
        prop_assert_eq!(kept.total, sorted.total);
        prop_assert_eq!(names(&kept), names(&sorted));
        // A total that is known changes nothing; nor does it how many rows the filter leaves.
        let total = Some(kept.total);
        let known = store.page_in_order(&shelf, &scope, &query, (key, descending), total);
        prop_assert_eq!((known.total, names(&known)), (kept.total, names(&kept)));
        drop(shelf);
        let (page, left) = store.select_and_filter(&scope, &query);
        prop_assert_eq!((page.total, left.len()), (kept.total, kept.total));
        prop_assert_eq!(names(&page), names(&kept));
    }
}
