//! Tests of live lists: what is no list fails instead of being empty, and lists side by side share
//! the room of one answer. The API server is played by a few lines here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::IntoResponse as _;
use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::kinds::by_name;

/// An API server that answers everything with this, and counts.
async fn server(body: String) -> (Cluster, Arc<AtomicUsize>) {
    let (body, asked) = (bytes::Bytes::from(body), Arc::<AtomicUsize>::default());
    let count = asked.clone();
    let answer = move || async move {
        count.fetch_add(1, Ordering::SeqCst);
        body.into_response()
    };
    (Cluster::played(axum::Router::new().fallback(answer)).await, asked)
}

async fn listed(cluster: &Cluster, reach: &Reach) -> Result<Listing, ListError> {
    let user = User::bearer("somebody", &HeaderMap::new()).unwrap();
    let kind = by_name("configmap").unwrap();
    let at = |namespace: Option<&str>| kind.resource.collection(namespace);
    list_as(cluster, &user, kind, &at, reach).await
}

#[tokio::test]
async fn no_namespace_at_all_is_no_row_and_no_question() {
    let (cluster, asked) = server(r#"{"kind":"List","items":[]}"#.to_owned()).await;
    let user = User::bearer("somebody", &HeaderMap::new()).unwrap();
    let nowhere = Reach::Namespaces(Arc::default());
    for kind in ["configmap", "node"] {
        let kind = by_name(kind).unwrap();
        let at = |namespace: Option<&str>| kind.resource.collection(namespace);
        let listing = list_as(&cluster, &user, kind, &at, &nowhere).await.unwrap();
        assert_eq!((listing.store.len(), listing.refused.is_some()), (0, false), "{}", kind.name);
        assert_eq!(listing.scope.reach(), &nowhere, "{}", kind.name);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_no_list_is_a_failure_and_not_an_empty_cluster() {
    for body in ["{}", "null", "[]", "", r#"{"items":[]}"#, r#"{"kind":"Status","code":200}"#] {
        let (cluster, _) = server(body.to_owned()).await;
        let error = listed(&cluster, &Reach::Everything).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("not a list"), "{body}: {error}");
    }
    let (cluster, _) = server(r#"{"kind":"ConfigMapList","items":null}"#.to_owned()).await;
    assert!(listed(&cluster, &Reach::Everything).await.is_ok());
}

#[tokio::test]
async fn each_page_may_be_refused_by_a_busy_api_server_and_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let answer = move || {
        let turn = counter.fetch_add(1, Ordering::SeqCst);
        // Five pages; each but the first is refused once.
        std::future::ready(if turn % 2 == 1 {
            (StatusCode::TOO_MANY_REQUESTS, "too many").into_response()
        } else {
            let token = if turn < 2 * (TURNS + 1) { "more" } else { "" };
            let page = json!({"kind": "ConfigMapList", "metadata": {"continue": token}});
            page.to_string().into_response()
        })
    };
    let cluster = Cluster::played(axum::Router::new().fallback(answer)).await;
    listed(&cluster, &Reach::Everything).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2 * (TURNS + 1) + 1);
}

#[tokio::test]
async fn lists_side_by_side_share_the_room_of_one_answer() {
    let item = json!({"metadata": {"name": "a", "namespace": "n"}});
    let page = json!({
        "kind": "ConfigMapList", "metadata": {"continue": "more"}, "items": vec![item; PAGE],
    });
    let (cluster, asked) = server(page.to_string()).await;
    let namespaces: Reach =
        (0..LISTS_AT_ONCE).map(|at| CompactString::from(format!("n-{at}"))).collect();
    let error = listed(&cluster, &namespaces).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ListError::TooMany("configmaps")), "{error}");
    // One page too many, and those that the other lists had asked for meanwhile.
    let pages = asked.load(Ordering::SeqCst);
    assert!(pages <= LIVE_ROWS / PAGE + LISTS_AT_ONCE, "{pages} pages");
}

#[tokio::test]
async fn a_list_that_is_too_long_is_refused_after_its_first_page_if_that_tells_so() {
    let item = json!({"metadata": {"name": "a", "namespace": "n"}});
    let page = |left: usize| {
        json!({
            "kind": "ConfigMapList", "items": vec![&item; PAGE],
            "metadata": {"continue": "more", "remainingItemCount": left},
        })
    };
    for (left, pages) in [(59_500, 1), (LIVE_ROWS - PAGE + 1, 1), (0, LIVE_ROWS / PAGE + 1)] {
        let (cluster, asked) = server(page(left).to_string()).await;
        let error = listed(&cluster, &Reach::Everything).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, ListError::TooMany("configmaps")), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), pages, "{left}");
    }
}

/// The first ten objects of a custom kind.
async fn first(cluster: &Cluster) -> Option<Listing> {
    let user = User::bearer("somebody", &HeaderMap::new()).unwrap();
    let all = "/apis/example.com/v1/widgets";
    Listing::first(cluster, &user, &CUSTOM, all, 10).await.unwrap()
}

#[tokio::test]
async fn the_first_objects_of_any_number_cost_one_page_that_tells_how_many_there_are() {
    let names = (0..10).map(|at| json!({"object": {"metadata": {"name": format!("w-{at}")}}}));
    let rows: Vec<_> = names.collect();
    let page = |metadata: Value| json!({"kind": "Table", "metadata": metadata, "rows": rows});
    let many = page(json!({"continue": "more", "remainingItemCount": 59_990}));
    let (cluster, asked) = server(many.to_string()).await;
    let listing = first(&cluster).await.unwrap();
    assert_eq!((listing.store.count(&listing.scope), listing.remaining), (10, 59_990));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let (cluster, _) = server(page(json!({})).to_string()).await;
    assert_eq!(first(&cluster).await.unwrap().remaining, 0);
    let (cluster, _) = server(page(json!({"continue": "more"})).to_string()).await;
    assert!(first(&cluster).await.is_none(), "nobody knows how many");
}

#[tokio::test]
async fn custom_objects_of_a_server_without_tables_are_rows_and_secrets_come_as_tables_alone() {
    // It heeds what is accepted, and has no tables.
    let answer = |headers: HeaderMap| async move {
        let accepted = headers["accept"].to_str().unwrap().split(',');
        if accepted.map(str::trim).all(|range| range != "application/json") {
            return StatusCode::NOT_ACCEPTABLE.into_response();
        }
        let item = json!({"kind": "Widget", "metadata": {"name": "a", "namespace": "n"}});
        json!({"kind": "WidgetList", "metadata": {}, "items": [item]}).to_string().into_response()
    };
    let cluster = Cluster::played(axum::Router::new().fallback(answer)).await;
    let listing = first(&cluster).await.unwrap();
    assert_eq!((listing.store.count(&listing.scope), listing.malformed), (1, 0));
    assert_eq!(accept(by_name("secret").unwrap()), "application/json;as=Table;g=meta.k8s.io;v=v1");
}

#[tokio::test]
async fn a_namespace_that_is_refused_costs_its_own_rows_and_all_of_them_the_list() {
    let answer = |uri: http::Uri| async move {
        if uri.path().contains("/theirs") {
            return (StatusCode::FORBIDDEN, "configmaps is forbidden").into_response();
        }
        let item = json!({"metadata": {"name": "a", "namespace": "mine"}});
        json!({"kind": "ConfigMapList", "items": [item]}).to_string().into_response()
    };
    let cluster = Cluster::played(axum::Router::new().fallback(answer)).await;
    let names =
        |names: &[&str]| -> Reach { names.iter().map(|name| CompactString::from(*name)).collect() };
    let some = listed(&cluster, &names(&["theirs", "mine", "theirs-too"])).await.unwrap();
    assert_eq!(some.refused.unwrap().code(), Some(StatusCode::FORBIDDEN));
    assert_eq!((some.store.len(), some.store.count(&some.scope)), (1, 1));
    assert!(some.scope.covers("mine") && !some.scope.covers("theirs"));
    for refused in [&["theirs"][..], &["theirs", "theirs-too"]] {
        let error = listed(&cluster, &names(refused)).await.map(|_| ()).unwrap_err();
        assert!(matches!(&error, ListError::Failed(failure) if is_denial(failure)), "{error}");
    }
    let whole = listed(&cluster, &names(&["mine"])).await.unwrap();
    assert!(whole.refused.is_none() && whole.scope.covers("mine"));
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let refuse = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::ready((StatusCode::FORBIDDEN, "configmaps is forbidden"))
    };
    let cluster = Cluster::played(axum::Router::new().fallback(refuse)).await;
    let many: Reach = (0..200).map(|at| CompactString::from(format!("theirs-{at}"))).collect();
    assert!(listed(&cluster, &many).await.is_err());
    assert!(asked.load(Ordering::Relaxed) <= REFUSALS + 1 + LISTS_AT_ONCE, "{asked:?}");
}
