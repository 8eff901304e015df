//! Actions, scales and the small create forms on the real control plane, as they are meant: what is
//! asked for happens, nothing beside it changes, and rights are those of the caller.
//!
//! It is NOT where odd paths and broken bodies are tested (`bad_requests.rs`), nor deploy forms
//! (`deploys.rs`).

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, create, grant, rule, workload};
use crate::reads::POLL;

const KINDS_WITH_SCALE: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tanks.writes.example.org}
spec:
  group: writes.example.org
  scope: Namespaced
  names: {plural: tanks, singular: tank, kind: Tank, listKind: TankList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources:
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.writes.example.org}
spec:
  group: writes.example.org
  scope: Cluster
  names: {plural: fleets, singular: fleet, kind: Fleet, listKind: FleetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources:
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
";

/// A request with a JSON body and this bearer token; a POST has the token against forgery, too.
pub async fn send(
    gateway: &Gateway,
    token: &str,
    method: Method,
    path: &str,
    body: &Value,
) -> Answer {
    let bearer = format!("Bearer {token}");
    let mut headers =
        vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    let csrf = match path.strip_prefix("/api/v1/").filter(|_| method == Method::POST) {
        Some(rest) => {
            let action = rest.split('/').next().unwrap();
            let path = format!("/api/v1/csrftoken/{action}");
            let answer = gateway.request(Method::GET, None, &path, &[], Vec::new()).await;
            answer.json()["token"].as_str().unwrap().to_owned()
        }
        None => String::new(),
    };
    if !csrf.is_empty() {
        headers.push(("x-csrf-token", csrf.as_str()));
    }
    gateway.request(method, None, path, &headers, body.to_string().into_bytes()).await
}

/// What the API server has at the path now; `None` when it has nothing.
pub async fn live(cluster: &Cluster, path: &str) -> Option<Value> {
    loop {
        let (status, _, body) = cluster.get(cluster.token("admin"), path).await;
        match status {
            200 => return Some(serde_json::from_slice(&body).unwrap()),
            404 => return None,
            // A custom kind's storage is being made.
            429 => tokio::time::sleep(POLL).await,
            other => panic!("{path}: {other}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

async fn put(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let body = body.to_string().into_bytes();
    let headers = [("content-type", "application/json")];
    gateway.request(Method::PUT, Some("admin"), path, &headers, body).await
}

pub async fn patch(cluster: &Cluster, path: &str, patch: Value) {
    let headers = [("content-type", "application/merge-patch+json")];
    let (admin, sent) = (cluster.token("admin"), patch.to_string());
    let (status, _, body) = cluster.request(Method::PATCH, admin, path, &headers, sent).await;
    assert_eq!(status, 200, "patching {path}: {}", String::from_utf8_lossy(&body));
}

fn deployment(namespace: &str, name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
}

/// Waits until the deployment controller has given it this revision.
async fn has_revision(cluster: &Cluster, path: &str, revision: &str) {
    let is_there = || async {
        let object = live(cluster, path).await.unwrap();
        object["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == revision
    };
    Cluster::eventually(&format!("{path} is at revision {revision}"), is_there).await;
}

#[tokio::test]
async fn a_restart_stamps_the_template_and_keeps_all_else_whatever_the_body_is() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-restart").await;
    workload(cluster, &namespace, "web", 0, "none").await;
    let web = deployment(&namespace, "web");
    has_revision(cluster, &web, "1").await;
    let before = live(cluster, &web).await.unwrap()["spec"].take();
    let gateway = gateway::start(Options::default()).await;

    let path = format!("/api/v1/deployment/{namespace}/web/restart");
    let text = [("content-type", "text/plain")];
    let body = b"{\"responseType\":\"text\"}".to_vec();
    let answer = gateway.request(Method::PUT, Some("admin"), &path, &text, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json(), json!({"revision": "1"}));
    let mut object = live(cluster, &web).await.unwrap();
    let mut managers = object["metadata"]["managedFields"].as_array().unwrap().iter();
    let ours = managers.find(|entry| entry["manager"] == "binnacle-api").unwrap().to_string();
    assert!(ours.contains("f:kubectl.kubernetes.io/restartedAt"), "{ours}");
    let mut spec = object["spec"].take();
    let annotations = spec["template"]["metadata"]["annotations"].as_object_mut().unwrap();
    let at = annotations.remove("kubectl.kubernetes.io/restartedAt").unwrap();
    at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(spec, before, "nothing else has changed");

    let labels = json!({"app": "set"});
    let containers = json!([{"name": "main", "image": "example.invalid/main"}]);
    let nowhere = json!({"containers": containers, "nodeSelector": {"nosuch": "node"}});
    let template = json!({"metadata": {"labels": labels}, "spec": nowhere});
    for (kind, plural, kubernetes) in
        [("statefulset", "statefulsets", "StatefulSet"), ("daemonset", "daemonsets", "DaemonSet")]
    {
        let mut spec = json!({"selector": {"matchLabels": labels}, "template": template});
        if kind == "statefulset" {
            spec["replicas"] = json!(0);
            spec["serviceName"] = json!("set");
        }
        let object = json!({"apiVersion": "apps/v1", "kind": kubernetes,
            "metadata": {"name": "set"}, "spec": spec});
        let collection = format!("/apis/apps/v1/namespaces/{namespace}/{plural}");
        let before = create(cluster, &collection, object).await;
        let path = format!("/api/v1/{kind}/{namespace}/set/restart");
        let answer = gateway.request(Method::PUT, Some("admin"), &path, &[], Vec::new()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut object = answer.json();
        assert_eq!(object["kind"], kubernetes, "{object}");
        assert_eq!(object["metadata"]["name"], "set", "{object}");
        let metadata = object["spec"]["template"]["metadata"].as_object_mut().unwrap();
        let annotations = metadata.remove("annotations").unwrap();
        assert!(annotations["kubectl.kubernetes.io/restartedAt"].is_string(), "{annotations}");
        assert_eq!(object["spec"], before["spec"], "nothing else has changed");
    }
}

#[tokio::test]
async fn a_deployment_is_paused_and_resumed_once_each() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-pause").await;
    workload(cluster, &namespace, "web", 0, "none").await;
    let web = deployment(&namespace, "web");
    has_revision(cluster, &web, "1").await;
    let before = live(cluster, &web).await.unwrap()["spec"].take();
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/deployment/{namespace}/web");
    let act = async |action: &str| put(&gateway, &format!("{path}/{action}"), &json!({})).await;

    let answer = act("pause").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["spec"]["paused"], true);
    let answer = act("pause").await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("web"), "{}", answer.text());
    // The controller notes the pause in the status, which may come between read and write.
    let answer = act("resume").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = act("resume").await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("not paused"), "{}", answer.text());
    assert_eq!(live(cluster, &web).await.unwrap()["spec"], before, "nothing else has changed");
}

/// Two revisions of a deployment that differ in image, template labels and annotations.
async fn two_revisions(cluster: &Cluster, namespace: &str, name: &str) -> String {
    workload(cluster, namespace, name, 0, "none").await;
    let path = deployment(namespace, name);
    has_revision(cluster, &path, "1").await;
    let container = json!({"name": "main", "image": "example.invalid/main:2"});
    let template = json!({"metadata": {"labels": {"track": "second"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5}});
    let metadata = json!({"annotations": {"note": "second"}});
    patch(cluster, &path, json!({"metadata": metadata, "spec": {"template": template}})).await;
    has_revision(cluster, &path, "2").await;
    path
}

#[tokio::test]
async fn a_rollback_makes_what_kubectl_rollout_undo_makes() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-rollback").await;
    let ours = two_revisions(cluster, &namespace, "ours").await;
    let theirs = two_revisions(cluster, &namespace, "kubectls").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/deployment/{namespace}/ours/rollback");

    let answer = put(&gateway, &path, &json!({"revision": "2"})).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("ours"), "{}", answer.text());
    let answer = put(&gateway, &path, &json!({"revision": "9"})).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains("1, 2"), "{}", answer.text());

    // The controller may write between read and patch: then it says so, and nothing was done.
    let is_rolled_back = || async {
        let answer = put(&gateway, &path, &json!({"revision": "1"})).await;
        answer.status == 200 && answer.json() == json!({"revision": "1"})
    };
    Cluster::eventually("ours is rolled back", is_rolled_back).await;
    let undo = ["-n", &namespace, "rollout", "undo", "deployment/kubectls", "--to-revision=1"];
    let output = cluster.kubectl("admin", &undo);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    has_revision(cluster, &ours, "3").await;
    has_revision(cluster, &theirs, "3").await;
    let shape = async |path: &str| {
        let object = live(cluster, path).await.unwrap();
        let all = json!([object["metadata"]["annotations"], object["spec"]]);
        all.to_string().replace("kubectls", "ours")
    };
    assert_eq!(shape(&ours).await, shape(&theirs).await);
    assert!(!shape(&ours).await.contains("pod-template-hash"));

    // The set of the first revision is that of the third one now.
    let answer = put(&gateway, &path, &json!({"revision": "1"})).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains("2, 3"), "{}", answer.text());
}

#[tokio::test]
async fn who_may_only_read_is_refused_the_write_itself_and_changes_nothing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-reader").await;
    let web = two_revisions(cluster, &namespace, "web").await;
    let before = live(cluster, &web).await.unwrap()["spec"].take();
    let reader = Person::new(cluster, &namespace, "reader").await;
    let rules = json!([rule(&["get", "list"], &["deployments", "replicasets"])]);
    grant(cluster, Some(&namespace), "reader", reader.subject.clone(), rules).await;
    let gateway = gateway::start(Options::default()).await;
    for (place, body) in [
        (format!("deployment/{namespace}/web/pause"), json!({})),
        (format!("deployment/{namespace}/web/restart"), json!({})),
        (format!("deployment/{namespace}/web/rollback"), json!({"revision": "1"})),
        (format!("scale/deployment/{namespace}/web?scaleBy=5"), json!({})),
    ] {
        let path = format!("/api/v1/{place}");
        // The right to read arrives a moment later; until then the read is what is refused.
        let is_refused = || async {
            let answer = send(&gateway, &reader.token, Method::PUT, &path, &body).await;
            assert_eq!(answer.status, 403, "{place}: {}", answer.text());
            answer.text().contains("cannot patch resource")
        };
        Cluster::eventually(&format!("the write {place} is refused"), is_refused).await;
    }
    assert_eq!(live(cluster, &web).await.unwrap()["spec"], before);
}

#[tokio::test]
async fn a_rollback_takes_no_set_that_only_carries_the_labels() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-foreign").await;
    let web = two_revisions(cluster, &namespace, "web").await;
    let labels = json!({"app": "web", "pod-template-hash": "foreign"});
    let containers = json!([{"name": "main", "image": "example.invalid/foreign"}]);
    // The owner keeps the deployment's controller from adopting it.
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner(cluster, &namespace).await, "controller": true});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "foreign", "labels": labels, "ownerReferences": [owner],
            "annotations": {"deployment.kubernetes.io/revision": "7"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}});
    create(cluster, &format!("/apis/apps/v1/namespaces/{namespace}/replicasets"), set).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/deployment/{namespace}/web/rollback");
    let answer = put(&gateway, &path, &json!({"revision": "7"})).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    let spec = live(cluster, &web).await.unwrap()["spec"].take();
    assert!(!spec.to_string().contains("foreign"), "{spec}");
}

/// The uid of a config map called `owner`.
async fn owner(cluster: &Cluster, namespace: &str) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    create(cluster, &path, object).await["metadata"]["uid"].take()
}

#[tokio::test]
async fn a_triggered_cron_job_makes_a_job_of_its_own_and_only_for_who_may_make_jobs() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-trigger").await;
    let name = format!("nightly-{}", "x".repeat(42));
    let template = json!({"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "example.invalid/job"}]}});
    let object = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "0 3 * * *", "suspend": true, "jobTemplate": {
            "metadata": {"labels": {"team": "maps"}, "annotations": {"note": "kept"}},
            "spec": {"backoffLimit": 2, "template": template}}}});
    let cron_jobs = format!("/apis/batch/v1/namespaces/{namespace}/cronjobs");
    let cron_job = create(cluster, &cron_jobs, object).await;
    let jobs = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/cronjob/{namespace}/{name}/trigger");

    let reader = Person::new(cluster, &namespace, "reader").await;
    let rules = json!([{"apiGroups": ["batch"], "verbs": ["get"], "resources": ["cronjobs"]}]);
    grant(cluster, Some(&namespace), "reader", reader.subject.clone(), rules).await;
    let is_refused = || async {
        let answer = send(&gateway, &reader.token, Method::PUT, &path, &json!({})).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        answer.text().contains("cannot create resource \"jobs\"")
    };
    Cluster::eventually("the reader is refused the job, not the cron job", is_refused).await;
    assert_eq!(live(cluster, &jobs).await.unwrap()["items"], json!([]));

    let answer = put(&gateway, &path, &json!({})).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
    // Who triggered it sees it at once.
    let list = gateway.get("admin", &format!("/api/v1/job/{namespace}")).await.json();
    assert_eq!(list["listMeta"]["totalItems"], 1, "{list}");
    let made = live(cluster, &jobs).await.unwrap()["items"][0].take();
    let metadata = &made["metadata"];
    let (prefix, letters) = metadata["name"].as_str().unwrap().rsplit_once('-').unwrap();
    assert_eq!(prefix, format!("{}-manual", &name[..41]));
    assert_eq!(letters.len(), 3, "{letters}");
    assert_eq!(metadata["labels"], json!({"team": "maps"}));
    assert_eq!(metadata["annotations"]["note"], "kept");
    assert_eq!(metadata["annotations"]["cronjob.kubernetes.io/instantiate"], "manual");
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": name,
        "uid": cron_job["metadata"]["uid"], "controller": true}]);
    assert_eq!(metadata["ownerReferences"], owner);
    assert_eq!(made["spec"]["backoffLimit"], 2);
    // A second one is another job.
    assert_eq!(put(&gateway, &path, &json!({})).await.status, 200);
    assert_eq!(live(cluster, &jobs).await.unwrap()["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_scale_sets_the_count_of_built_in_and_custom_kinds() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-scale").await;
    workload(cluster, &namespace, "web", 0, "none").await;
    replication_controller(cluster, &namespace).await;
    for (kind, plural) in [("ReplicaSet", "replicasets"), ("StatefulSet", "statefulsets")] {
        let labels = json!({"app": kind});
        let containers = json!([{"name": "main", "image": "example.invalid/main"}]);
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
        let selector = json!({"matchLabels": labels});
        let object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "one"},
            "spec": {"replicas": 0, "selector": selector, "template": template}});
        create(cluster, &format!("/apis/apps/v1/namespaces/{namespace}/{plural}"), object).await;
    }
    cluster.apply(KINDS_WITH_SCALE).await;
    let group = "/apis/writes.example.org/v1";
    for (kind, collection) in [
        ("Tank", format!("{group}/namespaces/{namespace}/tanks")),
        ("Fleet", format!("{group}/fleets")),
    ] {
        let is_served = || async { live(cluster, &collection).await.is_some() };
        Cluster::eventually(&format!("{kind} is served"), is_served).await;
        let object = json!({"apiVersion": "writes.example.org/v1", "kind": kind,
            "metadata": {"name": "one"}, "spec": {"replicas": 1, "size": "big"}});
        create(cluster, &collection, object).await;
    }
    let gateway = gateway::start(Options::default()).await;
    for (place, before) in [
        (format!("deployment/{namespace}/web"), 0),
        (format!("replicationcontroller/{namespace}/old"), 0),
        (format!("replicaset/{namespace}/one"), 0),
        (format!("statefulset/{namespace}/one"), 0),
        (format!("tanks.writes.example.org/{namespace}/one"), 1),
        ("fleets.writes.example.org/one".to_owned(), 1),
    ] {
        let path = format!("/api/v1/scale/{place}");
        let is_known = || async { gateway.get("admin", &path).await.status == 200 };
        Cluster::eventually(&format!("{place} can be scaled"), is_known).await;
        let counts = gateway.get("admin", &path).await.json();
        assert_eq!(counts, json!({"desiredReplicas": before, "actualReplicas": 0}), "{place}");
        let answer = put(&gateway, &format!("{path}?scaleBy=2"), &json!({"scaleBy": 9})).await;
        assert_eq!(answer.status, 200, "{place}: {}", answer.text());
        assert_eq!(answer.json()["desiredReplicas"], 2, "{place}");
        assert_eq!(gateway.get("admin", &path).await.json()["desiredReplicas"], 2, "{place}");
    }
    let tank = live(cluster, &format!("{group}/namespaces/{namespace}/tanks/one")).await.unwrap();
    assert_eq!(tank["spec"], json!({"replicas": 2, "size": "big"}));

    // The right to the scale is enough, and is no right to anything else.
    let scaler = Person::new(cluster, &namespace, "scaler").await;
    let rules = json!([rule(&["get", "patch"], &["deployments/scale"])]);
    grant(cluster, Some(&namespace), "scaler", scaler.subject.clone(), rules).await;
    let web = format!("/api/v1/scale/deployment/{namespace}/web?scaleBy=1");
    let is_allowed = || async {
        send(&gateway, &scaler.token, Method::PUT, &web, &json!({})).await.status == 200
    };
    Cluster::eventually("the scaler may scale", is_allowed).await;
    let restart = format!("/api/v1/deployment/{namespace}/web/restart");
    let answer = send(&gateway, &scaler.token, Method::PUT, &restart, &json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
}

async fn replication_controller(cluster: &Cluster, namespace: &str) {
    let labels = json!({"app": "old"});
    let containers = json!([{"name": "main", "image": "example.invalid/main"}]);
    let object = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "old"}, "spec": {"replicas": 0, "selector": labels,
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}});
    let path = format!("/api/v1/namespaces/{namespace}/replicationcontrollers");
    create(cluster, &path, object).await;
}

#[tokio::test]
async fn the_pods_of_a_replication_controller_are_counted_anew() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-rc").await;
    replication_controller(cluster, &namespace).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let stranger = Person::new(cluster, &namespace, "stranger").await;
    let place = format!("/api/v1/replicationcontroller/{namespace}");
    for (token, name, replicas, status) in [
        (admin, "old", json!(-1), 400),
        (admin, "old", json!("2"), 400),
        (admin, "nosuch", json!(2), 404),
        (admin, "old", json!(2), 202),
        (stranger.token.as_str(), "old", json!(5), 403),
    ] {
        let (path, body) = (format!("{place}/{name}/update/pod"), json!({"replicas": replicas}));
        let answer = send(&gateway, token, Method::POST, &path, &body).await;
        assert_eq!(answer.status, status, "{name} {body}: {}", answer.text());
        assert_eq!(answer.body.is_empty(), status == 202, "{name} {body}: {}", answer.text());
    }
    let path = format!("/api/v1/namespaces/{namespace}/replicationcontrollers/old");
    assert_eq!(live(cluster, &path).await.unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn namespaces_and_pull_secrets_are_made_from_their_forms_and_never_without_a_token() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("writes-create").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let (new, bare) = (format!("{namespace}-new"), format!("{namespace}-bare"));
    let body = json!({"name": new});
    let answer = send(&gateway, admin, Method::POST, "/api/v1/namespace", &body).await;
    assert_eq!((answer.status, answer.json()), (201, body));
    let detail = gateway.get("admin", &format!("/api/v1/namespace/{new}")).await;
    assert_eq!(detail.status, 200, "{}", detail.text());

    let body = json!({"name": "hub", "namespace": namespace, "data": "e30="});
    // The web frontend puts a slash behind it.
    let answer = send(&gateway, admin, Method::POST, "/api/v1/secret/", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let item = answer.json();
    assert_eq!(item["objectMeta"]["name"], "hub");
    assert_eq!(item["typeMeta"]["kind"], "secret");
    assert_eq!(item["type"], "kubernetes.io/dockercfg");
    assert!(!answer.text().contains("e30="), "the content is not in the answer");
    let body = json!({"name": "hub", "namespace": namespace, "data": "eyB9"});
    let answer = send(&gateway, admin, Method::POST, "/api/v1/secret", &body).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let secret = live(cluster, &format!("/api/v1/namespaces/{namespace}/secrets/hub")).await;
    let secret = secret.unwrap();
    assert_eq!(secret["type"], "kubernetes.io/dockercfg");
    assert_eq!(secret["data"], json!({".dockercfg": "e30="}));

    let headers = [("content-type", "application/json")];
    let body = json!({"name": bare, "namespace": namespace, "data": "e30="});
    let pods = format!("replicationcontroller/{namespace}/old/update/pod");
    for path in ["namespace", "secret", "appdeployment", "appdeploymentfromfile", &pods] {
        let (path, sent) = (format!("/api/v1/{path}"), body.to_string().into_bytes());
        let answer = gateway.request(Method::POST, Some("admin"), &path, &headers, sent).await;
        let says = (answer.status, answer.text());
        assert_eq!(says, (401, "MSG_CSRF_VALIDATION_ERROR".to_owned()), "{path}");
    }
    assert_eq!(live(cluster, &format!("/api/v1/namespaces/{bare}")).await, None);
    let secret = format!("/api/v1/namespaces/{namespace}/secrets/{bare}");
    assert_eq!(live(cluster, &secret).await, None);
}
