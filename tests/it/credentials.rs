//! Credentials of the kubeconfig's own that a plugin or files give, at the real API server:
//! certificates that end are made anew, and callers are told when there are none.
//!
//! When a plugin runs or a file is read again, and how often, is proven beside
//! `src/upstream/own.rs`.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};

/// Gives what the file of this run has, or fails without one.
const PLUGIN: &str = r#"
    echo >> "$0/runs"
    cat "$0/$(wc -l < "$0/runs" | tr -d ' ')"
"#;
/// What ends then is over when it is given.
const OVER: &str = "2020-01-01T00:00:00Z";

/// What a run of the plugin gives.
fn gives(folder: &Path, run: usize, status: &Value) {
    fs::write(folder.join(run.to_string()), json!({"status": status}).to_string()).unwrap();
}

/// A client certificate of the cluster's and its key.
fn pair(cluster: &Cluster, user: &str) -> [String; 2] {
    let text = fs::read_to_string(cluster.kubeconfig(user)).unwrap();
    let config: Value = serde_saphyr::from_str(&text).unwrap();
    ["client-certificate-data", "client-key-data"].map(|name| {
        let data = config["users"][0]["user"][name].as_str().unwrap();
        String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
    })
}

/// The same, as a plugin gives it.
fn certificate(cluster: &Cluster, user: &str, until: Option<&str>) -> Value {
    let [certificate, key] = pair(cluster, user);
    json!({
        "clientCertificateData": certificate,
        "clientKeyData": key,
        "expirationTimestamp": until,
    })
}

/// The user of a kubeconfig that asks the plugin in the folder.
fn plugin(folder: &Path) -> Value {
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "sh", "args": ["-c", PLUGIN, folder],
    }})
}

/// A gateway whose kubeconfig, in this folder, has this user. It watches nothing, so that tests
/// alone ask for credentials.
async fn gateway(cluster: &'static Cluster, folder: &Path, user: Value) -> Gateway {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": cluster.server,
            "certificate-authority-data": STANDARD.encode(cluster.ca_pem()),
        }}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    let path = folder.join("config");
    fs::write(&path, config.to_string()).unwrap();
    let options = Options { shared_cache: false, ..Options::default() };
    gateway::start_with(&path, options, cluster).await
}

/// Whom the API server takes the kubeconfig's user for.
async fn who_am_i(gateway: &Gateway) -> Answer {
    let path = "/clusters/test/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let bearer = format!("Bearer {}", gateway.local_token.as_deref().unwrap());
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    gateway.request(Method::POST, None, path, &headers, review.to_string().into()).await
}

#[tokio::test]
async fn a_plugins_certificate_that_has_ended_is_replaced_by_its_next_one() {
    let cluster = cluster::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    gives(folder, 1, &certificate(cluster, "cert-user", Some(OVER)));
    gives(folder, 2, &certificate(cluster, "cert-admin", None));
    let gateway = gateway(cluster, folder, plugin(folder)).await;
    let replaced = || async {
        let review = who_am_i(&gateway).await.json();
        let name = &review["status"]["userInfo"]["username"];
        assert!(name == "cert-user" || name == "cert-admin", "{name}");
        name == "cert-admin"
    };
    Cluster::eventually("the next certificate is sent", replaced).await;
    assert_eq!(fs::read_to_string(folder.join("runs")).unwrap().lines().count(), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_certificate_in_files_beside_the_kubeconfig_is_shown() {
    let cluster = cluster::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [certificate, key] = pair(cluster, "cert-user");
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
    // Relative to the kubeconfig, as kubectl has it.
    let user = json!({"client-certificate": "tls.crt", "client-key": "tls.key"});
    let gateway = gateway(cluster, folder, user).await;
    let review = who_am_i(&gateway).await.json();
    assert_eq!(review["status"]["userInfo"]["username"], "cert-user", "{review}");
    gateway.stop().await;
}

#[tokio::test]
async fn callers_are_told_that_the_servers_own_credentials_are_missing_and_not_why() {
    let cluster = cluster::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    gives(folder, 1, &json!({"token": cluster.token("admin"), "expirationTimestamp": OVER}));
    let gateway = gateway(cluster, folder, plugin(folder)).await;
    let missing = || async { who_am_i(&gateway).await.status == 503 };
    Cluster::eventually("the plugin has failed", missing).await;
    let answer = who_am_i(&gateway).await;
    let words = "The server's own credentials for the cluster cannot be had.";
    assert_eq!((answer.status, answer.json()["message"].as_str()), (503, Some(words)));
    // Those who bring their own need none of ours.
    assert_eq!(gateway.get("admin", "/clusters/test/api/v1/nodes").await.status, 200);
    gateway.stop().await;
}
