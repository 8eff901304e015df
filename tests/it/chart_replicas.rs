//! Two gateways with the same repositories of a ChartMuseum, which neither would read again within
//! the hour: what one of them uploads, signs, deletes or is asked to read shows at the other soon,
//! and so does what somebody marks by hand.
//!
//! It is NOT where uploads are judged (`chart_uploads.rs`), nor where definitions get around
//! (`chart_repos.rs`).

use http::Method;
use serde_json::{Value, json};

use crate::chart_repos::Shelf;
use crate::chart_uploads::{provenance, push};
use crate::cluster::{self, Cluster};
use crate::museum_server::{Museum, Pack, Rules};
use crate::people::{Person, grant};
use crate::writes::live;

const MARK: &str = "binnacle.dev/changed";
/// Repositories, and what their chart has in the end.
const ENDS: [(&str, &[&str]); 6] = [
    // Nobody tells of what is new there, so nobody looks.
    ("untold", &["1.0.0"]),
    ("uploaded", &["1.1.0", "1.0.0"]),
    ("signed", &["1.0.0"]),
    ("deleted", &[]),
    ("asked", &["1.1.0", "1.0.0"]),
    ("by-hand", &["1.1.0", "1.0.0"]),
];

/// The ConfigMap of a repository, and its mark.
async fn marked(shelf: &Shelf, short: &str) -> (String, Value) {
    let name = shelf.name(short);
    let maps = format!("/api/v1/namespaces/{}/configmaps", shelf.namespace);
    let path = format!("{maps}/binnacle.repository.{name}");
    let map = live(cluster::shared().await, &path).await.unwrap();
    (path, map["metadata"]["annotations"][MARK].clone())
}

/// What is known of the signature of the version that all of them begin with.
async fn signature(shelf: &Shelf, repository: &str) -> Value {
    let detail = shelf.read(&format!("chart/{repository}/web/1.0.0")).await;
    detail["signature"]["state"].clone()
}

#[tokio::test]
async fn what_one_replica_changes_shows_at_the_other_long_before_the_interval_is_over() {
    let museum = Museum::start(None, Rules { depth: 1, ..Rules::default() }).await;
    let (old, new) = (Pack::new("web", "1.0.0", &[]), Pack::new("web", "1.1.0", &[]));
    let one = Shelf::open("replicas", &[&museum.site]).await;
    let other = Shelf::within(&one.namespace, &[&museum.site], &[]).await;
    let (cluster, home) = (cluster::shared().await, one.namespace.clone());
    for (short, _) in ENDS {
        museum.put(short, &old);
        let url = museum.site.url(&format!("/{short}"));
        one.create(short, json!({"type": "museum", "url": url, "interval": "1h"})).await;
        assert_eq!(marked(&one, short).await.1, Value::Null);
    }
    for (short, _) in ENDS {
        let name = one.name(short);
        let is_read = || async { other.versions(&name, "web").await == ["1.0.0"] };
        Cluster::eventually(&format!("the other gateway has read {short}"), is_read).await;
    }

    // The right that the API asks for is enough to tell of it, too.
    let keeper = Person::new(cluster, &home, "keeper").await;
    let verbs = ["get", "update"];
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]);
    grant(cluster, Some(&home), "keeper", keeper.subject.clone(), rules).await;
    let hand = one.by(&keeper.token);
    let path = format!("chart/{}", one.name("uploaded"));
    let answer = push(&hand, Method::POST, &path, &new.bytes).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let path = format!("chart/{}/web/1.0.0", one.name("deleted"));
    let answer = hand.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(signature(&other, &one.name("signed")).await, "none");
    let path = format!("chart/{}/web/1.0.0/provenance", one.name("signed"));
    let answer = push(&hand, Method::PUT, &path, provenance(&old).as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(signature(&one, &one.name("signed")).await, "present");
    // Behind our back, as another client would.
    for short in ["asked", "by-hand", "untold"] {
        museum.put(short, &new);
    }
    let path = format!("repository/{}/refresh", one.name("asked"));
    let answer = hand.send(Method::POST, &path, &[], &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let mut marks = Vec::new();
    for short in ["uploaded", "signed", "deleted", "asked"] {
        let (path, mark) = marked(&one, short).await;
        assert!(mark.as_str().is_some_and(|mark| mark.ends_with('Z')), "{short}: {mark}");
        marks.push((path, mark));
    }
    let (path, _) = marked(&one, "by-hand").await;
    let patch = json!({"metadata": {"annotations": {MARK: "by hand"}}}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let admin = cluster.token("admin");
    let answer = cluster.request(Method::PATCH, admin, &path, &headers, patch).await;
    assert_eq!(answer.0, 200, "{}", String::from_utf8_lossy(&answer.2));

    let is_signed = || async { signature(&other, &one.name("signed")).await == "present" };
    Cluster::eventually("the other gateway shows that one has signed", is_signed).await;
    for (short, versions) in ENDS.into_iter().rev() {
        for (which, shelf) in [("one", &one), ("other", &other)] {
            let name = one.name(short);
            let is_so = || async { shelf.versions(&name, "web").await == versions };
            Cluster::eventually(&format!("the {which} gateway shows {short}"), is_so).await;
        }
    }
    // Who has read it because of a mark makes none: it would go on for ever.
    for (path, mark) in marks {
        let map = live(cluster, &path).await.unwrap();
        assert_eq!(map["metadata"]["annotations"][MARK], mark, "{path}");
    }
    one.close().await;
    other.close().await;
}
