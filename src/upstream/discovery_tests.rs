//! Discovery: what its documents say, and how often they are read. The API server is played by a
//! few lines here.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, StatusCode, Uri};

use super::*;

const CLUSTER: &str = r#"
    {"metadata": {"name": "example.com"}, "versions": [{"version": "v1", "resources": [
        {"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced", "verbs": ["get"]},
        {"resource": "processedtemplates", "responseKind": {"kind": "Template"}, "scope": "Namespaced", "verbs": ["create"]},
        {"resource": "templates", "responseKind": {"kind": "Template"}, "scope": "Namespaced", "verbs": ["create", "get"]},
        {"resource": "widgets", "responseKind": {"kind": "Widget"}, "scope": "Cluster", "verbs": ["get"]}]}]},
    {"metadata": {"name": "custom.metrics.k8s.io"}, "versions": [{"version": "v1beta1", "resources": [
        {"resource": "pods", "responseKind": {"group": "", "version": "", "kind": ""},
            "scope": "Namespaced", "singularResource": "", "verbs": null,
            "subresources": [{"subresource": "http_requests", "verbs": ["get"],
                "responseKind": {"group": "", "version": "", "kind": "MetricValueList"}}]}]}]},
    {"metadata": {"name": "autoscaling"}, "versions": [
        {"version": "v2", "resources": [{"resource": "horizontalpodautoscalers",
            "responseKind": {"kind": "HorizontalPodAutoscaler"}, "scope": "Namespaced", "verbs": ["get"]}]},
        {"version": "v1", "resources": [{"resource": "horizontalpodautoscalers",
            "responseKind": {"kind": "HorizontalPodAutoscaler"}, "scope": "Namespaced", "verbs": ["get"]}]}]},
    {"metadata": {"creationTimestamp": null}, "versions": [{"version": "v1", "resources": [
        {"resource": "bindings", "responseKind": {"kind": "Binding"}, "scope": "Namespaced", "verbs": ["create"]},
        {"resource": "odd", "scope": "Namespaced", "verbs": ["get"]},
        {"resource": "listed", "responseKind": {"kind": "Listed"}, "scope": "Namespaced", "verbs": ["list"]},
        {"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced", "verbs": ["get", "list"]}]}]}"#;

/// A whole document with these groups.
fn document(groups: &str) -> String {
    format!(r#"{{"kind": "APIGroupDiscoveryList", "items": [{groups}]}}"#)
}

/// What these groups say to who knew that before.
fn read_after(before: &[Served], groups: &str) -> Vec<Served> {
    let document: Document = serde_json::from_str(&document(groups)).unwrap();
    served(document.items.into_iter(), before)
}

/// A group of one kind, `Route`, in these versions: their names, and how fresh they are. What is
/// stale has no resources, as the aggregator writes it.
fn routes(versions: &[(&str, &str)]) -> String {
    let version = |(version, freshness): &(&str, &str)| {
        let kind = r#"{"resource": "routes", "responseKind": {"kind": "Route"},
            "scope": "Namespaced", "verbs": ["get", "create"]}"#;
        let resources = if *freshness == "Stale" { "" } else { kind };
        format!(
            r#"{{"version": "{version}", "freshness": "{freshness}", "resources": [{resources}]}}"#
        )
    };
    let versions: Vec<String> = versions.iter().map(version).collect();
    let name = r#"{"name": "route.openshift.io"}"#;
    format!(r#"{{"metadata": {name}, "versions": [{}]}}"#, versions.join(","))
}

fn called(name: &str) -> Option<Served> {
    read_after(&[], CLUSTER).into_iter().find(|served| served.is_called(name))
}

#[test]
fn an_ambiguous_kind_is_that_of_the_core_group() {
    let pod = called("pod").unwrap();
    assert_eq!(pod.collection("v1", Some("atlas")), "/api/v1/namespaces/atlas/pods");
    assert_eq!(called("pods.example.com").unwrap().group, "example.com");
}

#[test]
fn the_preferred_version_is_the_first_of_the_document_and_others_are_known() {
    let kind = called("horizontalpodautoscaler").unwrap();
    assert_eq!(kind.versions, ["v2", "v1"]);
    assert_eq!(kind.version(None), Some("v2"));
    assert_eq!(kind.version(Some("v1")), Some("v1"));
    assert_eq!(kind.version(Some("v9")), None);
    assert_eq!(kind.shown(), "horizontalpodautoscaler");
}

#[test]
fn a_custom_kind_is_shown_by_its_full_name_and_found_by_both() {
    let widget = called("widgets.example.com").unwrap();
    assert_eq!(called("widget"), Some(widget.clone()));
    assert_eq!(widget.shown(), "widgets.example.com");
    assert_eq!(widget.collection("v1", Some("atlas")), "/apis/example.com/v1/widgets");
}

#[test]
fn what_cannot_be_read_by_name_is_unknown() {
    assert_eq!(called("binding"), None);
    assert_eq!(called("odd"), None);
    assert_eq!(called("listed"), None);
    assert_eq!(called("widgets.example.org"), None);
    // Of custom metrics there are only subresources.
    assert_eq!(called("pods.custom.metrics.k8s.io"), None);
}

#[test]
fn what_can_only_be_created_is_there_for_who_asks_by_group_and_kind_and_comes_last() {
    let all = read_after(&[], CLUSTER);
    let of = |group: &str, kind: &str| {
        let mut all = all.iter();
        let found = all.find(|served| served.group == group && served.kind == kind);
        found.map(|served| (served.plural.as_str(), served.readable))
    };
    assert_eq!(of("", "Binding"), Some(("bindings", false)));
    assert_eq!(of("example.com", "Template"), Some(("templates", true)));
    assert_eq!(of("", "Listed"), None);
}

#[test]
fn what_a_server_serves_that_is_away_stays_known_until_its_group_is_gone() {
    let known = read_after(&[], &routes(&[("v1", "Current")]));
    assert!(known[0].is_called("routes.route.openshift.io"));
    let stale = routes(&[("v1", "Stale")]);
    let away = read_after(&known, &stale);
    assert_eq!(away, known);
    // However long.
    assert_eq!(read_after(&away, &stale), known);
    assert!(read_after(&away, CLUSTER).iter().all(|served| served.kind != "Route"));
    // It is back, and serves nothing.
    assert!(read_after(&away, &stale.replace("Stale", "Current")).is_empty());
    assert!(read_after(&[], &stale).is_empty());
}

#[test]
fn a_version_whose_server_is_away_comes_behind_those_that_are_served() {
    let known = read_after(&[], &routes(&[("v2", "Current"), ("v1", "Current")]));
    assert_eq!(known[0].versions, ["v2", "v1"]);
    let away = read_after(&known, &routes(&[("v2", "Stale"), ("v1", "Current")]));
    assert_eq!((away.len(), away[0].version(None)), (1, Some("v1")));
    assert_eq!(away[0].versions, ["v1", "v2"]);
    // A version that is gone is no such version.
    let away = read_after(&known, &routes(&[("v2", "Stale")]));
    assert_eq!(away[0].versions, ["v2"]);
}

#[test]
fn a_short_name_keeps_its_meaning_while_the_server_of_one_kind_is_away() {
    let other = routes(&[("v1", "Current")]).replace("route.openshift.io", "serving.example.dev");
    let known = read_after(&[], &format!("{},{other}", routes(&[("v1", "Current")])));
    let away = read_after(&known, &format!("{},{other}", routes(&[("v1", "Stale")])));
    for all in [known, away] {
        let route = all.into_iter().find(|served| served.is_called("route")).unwrap();
        assert_eq!(route.group, "route.openshift.io");
    }
}

/// An API server whose only kind has another version at each read, and how many there were.
async fn restless() -> (Cluster, Arc<AtomicUsize>) {
    let reads = Arc::<AtomicUsize>::default();
    let count = reads.clone();
    let answer = move |uri: Uri| {
        let groups = if uri.path() == "/apis" {
            let version = format!("v{}", count.fetch_add(1, Ordering::SeqCst) + 1);
            routes(&[(version.as_str(), "Current")])
        } else {
            String::new()
        };
        std::future::ready(document(&groups))
    };
    (Cluster::played(axum::Router::new().fallback(answer)).await, reads)
}

#[tokio::test]
async fn a_herd_that_finds_nothing_where_it_was_sent_has_discovery_read_once() {
    let (cluster, reads) = restless().await;
    let discovery = Discovery::default();
    let user = User::bearer("somebody", &HeaderMap::new()).unwrap();
    let is_it = |served: &Served| served.kind == "Route";
    let found = discovery.find(&cluster, &user, is_it).await.unwrap().unwrap();
    assert_eq!(found.versions, ["v1"]);
    for (older, version) in
        [(Duration::ZERO, "v1"), (ASK_AGAIN_AFTER, "v2"), (Duration::ZERO, "v2")]
    {
        discovery.known.lock().unwrap().as_mut().unwrap().at -= older;
        let herd = (0..50).map(|_| discovery.find_anew(&cluster, &user, is_it));
        for found in futures::future::join_all(herd).await {
            assert_eq!(found.unwrap().unwrap().versions, [version]);
        }
        // It is the memory of all.
        let found = discovery.find(&cluster, &user, is_it).await.unwrap().unwrap();
        assert_eq!(found.versions, [version]);
    }
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_api_server_that_is_too_old_is_told_as_that() {
    let answer = |headers: HeaderMap| async move {
        // As those before 1.27: none of the parameters is known there.
        let accept = headers[header::ACCEPT].to_str().unwrap().to_owned();
        match accept.split(',').any(|one| one.trim() == "application/json") {
            true => (StatusCode::OK, r#"{"kind": "APIVersions", "versions": ["v1"]}"#),
            false => (StatusCode::NOT_ACCEPTABLE, "only the following media types"),
        }
    };
    let cluster = Cluster::played(axum::Router::new().fallback(answer)).await;
    let user = User::bearer("somebody", &HeaderMap::new()).unwrap();
    let failure = Discovery::default().find(&cluster, &user, |_| true).await.unwrap_err();
    assert!(failure.to_string().contains("Kubernetes 1.27 or newer is needed"), "{failure}");
}
