//! `deploy/rbac.yaml` on the real API server: a gateway with these rights and no others watches all
//! that it keeps, has its two Secrets, reads settings and repositories, and polls usage.
//!
//! It is NOT where the rights of callers are tested (`rights.rs`).

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::chart_repos::{PAIR, PASSWORD};
use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::helm_charts::Hand;
use crate::museum_server::{Pack, Pages, Site, Wants};
use crate::people::{Person, bindings, create, delete};
use crate::writes::live;

const RBAC: &str = include_str!("../../deploy/rbac.yaml");
/// How both of its roles are called.
const NAME: &str = "  name: binnacle\n";
const GROUP: &str = "rbac.authorization.k8s.io";
const USAGE: &str = "/apis/metrics.k8s.io/v1beta1/nodes";

/// Somebody with both of the shipped roles; they and their bindings are called as the namespace.
async fn granted(cluster: &Cluster, namespace: &str) -> Person {
    let ours = Person::new(cluster, namespace, "binnacle").await;
    let (wide, own) = RBAC.split_once("---\n").unwrap();
    let in_namespace = format!("  name: {namespace}\n  namespace: {namespace}\n");
    let everywhere = format!("  name: {namespace}\n");
    for (role, name, at) in [(wide, everywhere, None), (own, in_namespace, Some(namespace))] {
        assert_eq!(role.matches(NAME).count(), 1, "{role}");
        cluster.apply(&role.replace(NAME, &name)).await;
        let kind = if at.is_some() { "Role" } else { "ClusterRole" };
        let binding = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": format!("{kind}Binding"),
            "metadata": {"name": namespace}, "subjects": [ours.subject],
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": namespace},
        });
        create(cluster, &bindings(at), binding).await;
    }
    // What is refused at the start is not asked for again so soon.
    let secret = format!("/api/v1/namespaces/{namespace}/secrets/binnacle-tls");
    let are_heeded = || async {
        let wide = cluster.get(&ours.token, "/api/v1/pods?limit=1").await.0;
        (wide, cluster.get(&ours.token, &secret).await.0) == (200, 404)
    };
    Cluster::eventually("the API server heeds the roles", are_heeded).await;
    ours
}

/// A gateway whose own identity this is, and which may reach this host.
async fn start(folder: &Path, namespace: &str, ours: &Person, host: &str) -> Gateway {
    let cluster = cluster::shared().await;
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": cluster.server,
            "certificate-authority-data": STANDARD.encode(cluster.ca_pem()),
        }}],
        "users": [{"name": "ours", "user": {"token": ours.token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "ours"}}],
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let extra = vec![
        "--tls-secret".to_owned(),
        format!("{namespace}/binnacle-tls"),
        "--csrf-secret".to_owned(),
        format!("{namespace}/binnacle-csrf"),
        "--settings-namespace".to_owned(),
        namespace.to_owned(),
        "--chart-hosts".to_owned(),
        host.to_owned(),
    ];
    gateway::start_with(&path, Options { extra, ..Options::default() }, cluster).await
}

async fn nobodys(gateway: &Gateway, path: &str) -> gateway::Answer {
    gateway.request(Method::GET, None, path, &[], Vec::new()).await
}

/// A repository that wants a password: its definition and its Secret are the admin's, and are read
/// as the gateway itself.
async fn reads_a_repository(hand: &Hand<'_>, site: &Site) {
    let definition = json!({
        "name": "private", "type": "index", "url": site.url("/"),
        "credentials": {"username": "reader", "password": PASSWORD},
    });
    let made = hand.send(Method::POST, "repository", &[], &definition).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let is_read = || async {
        let status = hand.get("repository/private").await.json()["status"].clone();
        // Shown where it is waited for in vain.
        println!("{status}");
        status["state"] == "ok"
    };
    Cluster::eventually("the repository is read", is_read).await;
}

#[tokio::test]
async fn with_the_shipped_roles_and_no_other_rights_a_gateway_has_all_that_it_needs() {
    let cluster = cluster::shared().await;
    let (admin, namespace) = (cluster.token("admin"), cluster.namespace("shipped").await);
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    let ours = granted(cluster, &namespace).await;
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kubernetes-dashboard-settings"},
        "data": {"settings": json!({"clusterName": "ours"}).to_string()},
    });
    create(cluster, &maps, settings).await;
    let is_measured = || async {
        let (status, _, body) = cluster.get(admin, USAGE).await;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        status == 200 && list["items"].as_array().is_some_and(|items| !items.is_empty())
    };
    Cluster::eventually("metrics-server has measured nodes", is_measured).await;
    let pages = Pages::of("", &[Pack::new("web", "1.0.0", &[])]);
    let site = Site::of(None, Wants::Basic(PAIR), &pages).await;

    let folder = tempfile::tempdir().unwrap();
    let gateway = start(folder.path(), &namespace, &ours, &site.host()).await;
    assert!(live(cluster, &format!("{secrets}/binnacle-tls")).await.is_some());
    let states = async || nobodys(&gateway, "/readyz?verbose").await.text();
    let is_over = || async {
        let text = states().await;
        !text.contains("syncing") && !text.contains("stale for")
    };
    Cluster::eventually("all kinds were listed, or refused", is_over).await;
    let states = states().await;
    assert!(states.contains("[pod] ") && !states.contains("may not be watched"), "{states}");

    let shown = nobodys(&gateway, "/settings").await;
    assert_eq!(shown.json()["clusterName"], "ours", "{}", shown.text());
    reads_a_repository(&Hand { gateway: &gateway, token: admin, namespace: &namespace }, &site)
        .await;
    // The repository came with a token, for which the key was needed.
    assert!(live(cluster, &format!("{secrets}/binnacle-csrf")).await.is_some());
    let is_polled = || async {
        let text = gateway.get("admin", "/metrics").await.text();
        text.contains("\nbinnacle_usage_connected 1\n")
            && !text.contains("\nbinnacle_usage_series 0\n")
    };
    Cluster::eventually("there is a history of usage", is_polled).await;

    gateway.stop().await;
    delete(cluster, &format!("{}/{namespace}", bindings(None))).await;
    delete(cluster, &format!("/apis/{GROUP}/v1/clusterroles/{namespace}")).await;
}
