//! Previews of installs, upgrades and rollbacks on the real control plane: what would happen to
//! which object and what would stand in the way, and that nothing has happened afterwards.
//!
//! It is NOT where the acts themselves are done (`release_writes.rs`).

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway;
use crate::helm_charts::{BOTH, Hand, archive, broken, chart, crd, options, small, web};
use crate::people::{Person, create, delete, grant};
use crate::release_bad_input::{NUMBER, typed};
use crate::writes::live;

const SECRET: &str = "what-nobody-may-read";

async fn preview(hand: &Hand<'_>, act: &str, mut body: Value) -> Value {
    body["act"] = act.into();
    let path = format!("{}/preview", hand.at("web"));
    let answer = hand.send(Method::POST, &path, &[], &body).await;
    assert_eq!(answer.status, 200, "preview of {act}: {}", answer.text());
    let text = answer.text();
    for secret in [SECRET, "d2hhdC1ub2JvZHktbWF5LXJlYW", "password-of-the-chart"] {
        assert!(!text.contains(secret), "a secret value is in the preview: {text}");
    }
    answer.json()
}

fn with(values: Value) -> Value {
    json!({"chart": archive(&web()), "values": values})
}

/// What is said of the object of this kind.
fn of<'a>(preview: &'a Value, kind: &str) -> &'a Value {
    let objects = preview["objects"].as_array().unwrap_or_else(|| panic!("{preview}"));
    let found = objects.iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {preview}"))
}

/// Each kind and what becomes of it, sorted.
fn outcome(preview: &Value) -> Vec<String> {
    let objects = preview["objects"].as_array().unwrap_or_else(|| panic!("{preview}"));
    let one = |object: &Value| {
        format!("{} {}", object["kind"].as_str().unwrap(), object["change"].as_str().unwrap())
    };
    let mut all: Vec<_> = objects.iter().map(one).collect();
    all.sort();
    all
}

/// The names of the Secrets that are in the namespace: records, locks and those of charts.
async fn secrets(cluster: &Cluster, namespace: &str) -> Vec<(String, String)> {
    let list = live(cluster, &format!("/api/v1/namespaces/{namespace}/secrets")).await.unwrap();
    let of = |secret: &Value| {
        let part = |key: &str| secret["metadata"][key].as_str().unwrap().to_owned();
        (part("name"), part("resourceVersion"))
    };
    list["items"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn a_preview_shows_what_would_be_made_changed_and_deleted_and_changes_nothing() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("preview{major}")).await;
        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        let shown = preview(&hand, "install", with(json!({"password": SECRET}))).await;
        let kinds = ["ConfigMap", "Deployment", "Ingress", "Secret", "Service"];
        assert_eq!(outcome(&shown), kinds.map(|kind| format!("{kind} create")), "{shown}");
        assert_eq!(shown["hooks"].as_array().map(Vec::len), Some(1), "the test: {shown}");
        assert!(shown["notes"].as_str().unwrap().contains("Say hello to web"), "{shown}");
        assert_eq!((&shown["problem"], &shown["schemaErrors"]), (&Value::Null, &json!([])));
        assert!(secrets(cluster, &namespace).await.is_empty());

        hand.succeeds("install", "web", with(json!({"password": "first"}))).await;
        let before = secrets(cluster, &namespace).await;
        let deployment = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
        let was = live(cluster, &deployment).await.unwrap();
        let values = json!({"replicas": 3, "service": false, "password": SECRET});
        let shown = preview(&hand, "upgrade", with(values.clone())).await;
        let changes = ["none", "change", "none", "change", "delete"].into_iter().zip(kinds);
        let changes: Vec<_> = changes.map(|(change, kind)| format!("{kind} {change}")).collect();
        assert_eq!(outcome(&shown), changes, "{shown}");
        let diff = of(&shown, "Deployment")["diff"].as_array().unwrap();
        let replicas = diff.iter().find(|one| one["path"] == "spec.replicas").unwrap();
        assert_eq!((&replicas["from"], &replicas["to"]), (&json!(1), &json!(3)), "{shown}");
        let diff = of(&shown, "Secret")["diff"].as_array().unwrap();
        let password = |one: &&Value| one["path"].as_str().unwrap().ends_with("password");
        let password = diff.iter().find(password).unwrap();
        assert_ne!(password["from"], password["to"], "that it changes shows: {shown}");
        assert_eq!(secrets(cluster, &namespace).await, before);
        let now = live(cluster, &deployment).await.unwrap();
        assert_eq!(now["metadata"]["generation"], was["metadata"]["generation"]);

        hand.succeeds("upgrade", "web", with(values)).await;
        let before = secrets(cluster, &namespace).await;
        let shown = preview(&hand, "rollback", json!({"revision": 1})).await;
        assert_eq!(of(&shown, "Service")["change"], "create", "{shown}");
        assert_eq!(of(&shown, "Deployment")["change"], "change", "{shown}");
        assert_eq!(secrets(cluster, &namespace).await, before);
        gateway.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn a_preview_says_who_owns_what_an_upgrade_would_change() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("preview-conflict").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    hand.succeeds("install", "web", with(json!({"message": "one"}))).await;
    let args = ["scale", "-n", &namespace, "deployment/web", "--replicas", "5"];
    let scaled = cluster.kubectl("admin", &args);
    assert!(scaled.status.success(), "{}", String::from_utf8_lossy(&scaled.stderr));
    let shown = preview(&hand, "upgrade", with(json!({"replicas": 3}))).await;
    let problem = &of(&shown, "Deployment")["problem"];
    assert_eq!(problem["class"], "conflict", "{shown}");
    assert!(problem["message"].as_str().unwrap().contains("kubectl"), "{shown}");
    let mut forced = with(json!({"replicas": 3}));
    forced["forceConflicts"] = true.into();
    let shown = preview(&hand, "upgrade", forced).await;
    assert_eq!(of(&shown, "Deployment")["problem"], Value::Null, "{shown}");
    assert_eq!(of(&shown, "Deployment")["change"], "change", "{shown}");
}

#[tokio::test]
async fn a_preview_says_which_quota_and_which_right_would_bite() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("preview-quota").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let object = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"},
        "spec": {"hard": {"services": "0"}},
    });
    let quotas = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    create(cluster, &quotas, object).await;
    let path = format!("{quotas}/tight");
    let holds = || async {
        live(cluster, &path).await.is_some_and(|quota| quota["status"]["hard"]["services"] == "0")
    };
    Cluster::eventually("the quota is counted", holds).await;
    let shown = preview(&hand, "install", with(json!({"message": "one"}))).await;
    let problem = &of(&shown, "Service")["problem"];
    assert_eq!(problem["class"], "quota", "{shown}");
    assert!(problem["message"].as_str().unwrap().contains("tight"), "{shown}");
    assert_eq!(of(&shown, "ConfigMap")["problem"], Value::Null, "{shown}");

    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([
        {"apiGroups": [""], "verbs": ["*"], "resources": ["secrets", "configmaps", "services"]},
        {"apiGroups": ["networking.k8s.io"], "verbs": ["*"], "resources": ["ingresses"]},
    ]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let shown = preview(&Hand { token: &person.token, ..hand }, "install", with(json!({}))).await;
    // Helm itself looks at each object before it shows any.
    let whole = &shown["problem"];
    let problem = if whole.is_null() { &of(&shown, "Deployment")["problem"] } else { whole };
    assert_eq!(problem["class"], "forbidden", "{shown}");
    assert!(problem.to_string().contains("deployments"), "{shown}");
    assert!(secrets(cluster, &namespace).await.is_empty());
}

#[tokio::test]
async fn a_preview_counts_the_pods_that_a_deployment_would_make_against_quotas() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("preview-pods").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "cores"},
        "spec": {"hard": {"requests.cpu": "100m"}},
    });
    let quotas = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    create(cluster, &quotas, quota).await;
    let path = format!("{quotas}/cores");
    let holds = || async {
        let quota = live(cluster, &path).await;
        quota.is_some_and(|quota| quota["status"]["hard"]["requests.cpu"] == "100m")
    };
    Cluster::eventually("the quota is counted", holds).await;
    let text = "apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers: [{name: a, image: a, resources: {requests: {cpu: 40m}}}]
";
    let chart = chart("web", "1.0.0", &[("templates/a.yaml", text), ("values.yaml", "{}")]);
    for (replicas, fits) in [(2, true), (3, false)] {
        let body = json!({"chart": archive(&chart), "values": {"replicas": replicas}});
        let shown = preview(&hand, "install", body).await;
        assert_eq!(of(&shown, "Deployment")["problem"], Value::Null, "{shown}");
        let problem = &shown["problem"];
        assert_eq!(problem.is_null(), fits, "{replicas} pods: {shown}");
        assert!(fits || problem["class"] == "quota", "{shown}");
        assert!(fits || problem.to_string().contains("cores"), "{shown}");
    }
}

#[tokio::test]
async fn a_preview_does_not_repeat_a_value_whose_type_is_wrong() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("preview-typed{major}")).await;
        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        let body = |values: Value| json!({"chart": archive(&typed()), "values": values});
        let lines = format!("{{password: {SECRET}}}\nmore: {SECRET}\n");
        let cases = [
            ("Secret", json!({"secret": {"password": NUMBER}})),
            ("Secret", json!({"secret": {"password": {"inner": SECRET}, "list": [NUMBER]}})),
            ("Secret", json!({"secret": lines})),
            ("Deployment", json!({"word": NUMBER})),
        ];
        for act in ["install", "upgrade"] {
            for (kind, values) in &cases {
                let shown = preview(&hand, act, body(values.clone())).await;
                let object = of(&shown, kind);
                let problem = &object["problem"];
                assert_eq!(problem["class"], "invalid-object", "{act} of {values}: {object}");
                assert!(!problem.to_string().contains(&NUMBER.to_string()), "{act}: {problem}");
                let is_shown = of(&shown, "Secret").to_string().contains(&NUMBER.to_string());
                assert!(!is_shown, "{act} of {values}: {shown}");
            }
            // Applied by the client: then the API server repeats the Secret that is there.
            let mut earlier = body(json!({"secret": {"password": SECRET}}));
            if major == 4 {
                earlier["serverSideApply"] = "false".into();
            }
            if act == "install" {
                hand.succeeds("install", "web", earlier).await;
            }
        }
        gateway.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn a_preview_says_where_the_values_break_the_schema_and_what_is_wrong_with_the_chart() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("preview-schema").await;
    join_all(BOTH.map(|major| {
        let namespace = namespace.as_str();
        async move {
            let gateway = gateway::start(options(major)).await;
            let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace };
            let values = json!({"replicas": -1, "message": 3, "password": SECRET});
            let shown = preview(&hand, "install", with(values)).await;
            let errors = shown["schemaErrors"].as_array().unwrap();
            for part in ["replicas", "message"] {
                let is_at = |error: &&Value| error["path"].as_str().unwrap().contains(part);
                let error = errors.iter().find(is_at).unwrap_or_else(|| panic!("{part}: {shown}"));
                assert_eq!(error["chart"], "web", "{shown}");
                assert!(!error["message"].as_str().unwrap().is_empty(), "{shown}");
            }
            for (chart, class) in [(broken(), "render-failed"), (crd(), "crd-missing")] {
                let body = json!({"chart": archive(&chart), "values": {"password": SECRET}});
                let shown = preview(&hand, "install", body).await;
                assert_eq!(shown["problem"]["class"], class, "{shown}");
                assert!(!shown["problem"]["message"].as_str().unwrap().is_empty(), "{shown}");
            }
            assert!(secrets(cluster, namespace).await.is_empty());
        }
    }))
    .await;
}

/// A chart that brings the definition of what is in it.
fn odd(namespace: &str) -> Vec<u8> {
    let group = format!("{namespace}.example.org");
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("oddities.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": "Oddity", "plural": "oddities", "singular": "oddity"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let one = format!("apiVersion: {group}/v1\nkind: Oddity\nmetadata: {{name: one}}\n");
    let definition = definition.to_string();
    chart("odd", "1.0.0", &[("crds/odd.yaml", &definition), ("templates/odd.yaml", &one)])
}

#[tokio::test]
async fn a_preview_says_that_the_release_has_a_kind_which_is_not_served_any_more() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("preview-removed").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let small = json!({"chart": archive(&small())});
    hand.succeeds("install", "web", json!({"chart": archive(&odd(&namespace))})).await;
    hand.succeeds("upgrade", "web", small.clone()).await;
    hand.succeeds("rollback", "web", json!({"revision": 1})).await;

    let group = format!("{namespace}.example.org");
    let definition = format!("oddities.{group}");
    let patch = r#"[{"op": "replace", "path": "/spec/versions/0/served", "value": false}]"#;
    let args = ["patch", "crd", &definition, "--type", "json", "--patch", patch];
    let patched = cluster.kubectl("admin", &args);
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
    let is_gone = || async {
        let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let headers = [("accept", kind)];
        let asked = cluster.request(Method::GET, hand.token, "/apis", &headers, "").await;
        asked.0 == 200 && !String::from_utf8_lossy(&asked.2).contains(&group)
    };
    Cluster::eventually("the kind is not served any more", is_gone).await;
    for (act, body) in [("upgrade", small), ("rollback", json!({"revision": 2}))] {
        let shown = preview(&hand, act, body).await;
        let problem = &shown["problem"];
        let is = (&problem["class"], &problem["severity"]);
        assert_eq!(is, (&json!("api-removed"), &json!("error")), "{act}: {shown}");
        assert!(problem["detail"].as_str().unwrap().contains("Oddity"), "{act}: {shown}");
    }
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    delete(cluster, &format!("{definitions}/{definition}")).await;
}

#[tokio::test]
async fn a_preview_says_that_the_act_itself_would_be_refused() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("preview-refused").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let refused = async |act: &str, body: Value, class: &str, status: u16| {
        let shown = preview(&hand, act, body.clone()).await;
        let problem = &shown["problem"];
        let is = (&problem["class"], &problem["severity"]);
        assert_eq!(is, (&json!(class), &json!("error")), "{act}: {shown}");
        assert!(!shown["objects"].as_array().unwrap().is_empty(), "{act}: {shown}");
        let answer = hand.act(act, "web", &[], body).await;
        assert_eq!(answer.status, status, "{act}, {class}: {}", answer.text());
        problem["message"].as_str().unwrap().to_owned()
    };
    let is_now = |status: &str| {
        let status = format!("status={status}");
        let record = "sh.helm.release.v1.web.v1";
        let args = ["label", "--overwrite", "-n", &namespace, "secret", record, &status];
        let labelled = cluster.kubectl("admin", &args);
        assert!(labelled.status.success(), "{}", String::from_utf8_lossy(&labelled.stderr));
    };
    // The definitions that are to be made first are known before there is a release, too.
    let odd = json!({"chart": archive(&odd(&namespace))});
    let shown = preview(&hand, "install", odd.clone()).await;
    let is = (&shown["problem"]["class"], &shown["problem"]["severity"]);
    assert_eq!(is, (&json!("crd-missing"), &json!("info")), "{shown}");

    hand.succeeds("install", "web", with(json!({}))).await;
    refused("install", with(json!({"replicas": 2})), "name-taken", 409).await;
    is_now("uninstalled");
    refused("install", odd, "name-taken", 409).await;
    is_now("pending-upgrade");
    for (act, body) in [("install", with(json!({}))), ("rollback", json!({"revision": 1}))] {
        refused(act, body, "pending", 409).await;
    }
    is_now("deployed");
    let answer = hand.act("protect", "web", &[], json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for (act, body) in [("upgrade", with(json!({}))), ("rollback", json!({"revision": 1}))] {
        let message = refused(act, body, "forbidden", 403).await;
        assert!(message.contains("protected"), "{act}: {message}");
    }
}
