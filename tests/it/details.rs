//! Details and child lists as their reader gets them, on the real control plane: what is gathered
//! around an object, for somebody who may see all of it and for somebody who may not.
//! It is NOT where lists are tested (`reads.rs`), nor keys against recorded ones (`contract.rs`).

use std::time::Instant;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::people::{Person, ask, create, grant, rule, workload};
use crate::reads::{DEADLINE, Names, POLL, rows};

const TILES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {LEVEL: debug}
---
apiVersion: v1
kind: Secret
metadata: {name: api-key}
stringData: {key: s3cr3t}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: tiles}
spec:
  serviceName: tiles
  selector: {matchLabels: {app: tiles}}
  template:
    metadata: {labels: {app: tiles}}
    spec:
      containers:
      - name: main
        image: example.invalid/tiles:1
        env:
        - {name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: LEVEL}}}
        - {name: KEY, valueFrom: {secretKeyRef: {name: api-key, key: key}}}
        - {name: GONE, valueFrom: {configMapKeyRef: {name: gone, key: x, optional: true}}}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#;

/// An old controller with a service of its own, and one of somebody else.
const LEGACY: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: legacy}
spec:
  selector: {app: legacy, tier: old}
  template:
    metadata: {labels: {app: legacy, tier: old}}
    spec: {containers: [{name: main, image: "example.invalid/old:0"}]}
---
apiVersion: v1
kind: Service
metadata: {name: legacy}
spec: {selector: {app: legacy}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {selector: {app: legacy, tier: new}, ports: [{port: 80}]}
"#;

/// A custom kind of one test.
const PARCELS: &str = "parcels.details.example.org";
const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: parcels.details.example.org}
spec:
  group: details.example.org
  scope: Namespaced
  names: {plural: parcels, kind: Parcel}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";

/// Applies documents that name no namespace.
async fn apply(cluster: &Cluster, namespace: &str, yaml: &str) {
    let metadata = format!("metadata: {{namespace: {namespace}, name:");
    cluster.apply(&yaml.replace("\nmetadata: {name:", &format!("\n{metadata}"))).await;
}

/// Waits until the admin's answer is as wanted.
pub async fn until(gateway: &Gateway, path: &str, ready: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = gateway.get("admin", path).await;
        let text = answer.text();
        if answer.status == 200 && ready(&answer.json()) {
            return answer.json();
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain, {path}: {} {text}", answer.status);
        tokio::time::sleep(POLL).await;
    }
}

fn names(list: &Value, items: &str) -> Vec<String> {
    let all = list[items].as_array().unwrap_or_else(|| panic!("no {items}: {list}"));
    all.iter().map(|row| row["objectMeta"]["name"].as_str().unwrap().to_owned()).collect()
}

fn messages(detail: &Value) -> String {
    let errors = detail["errors"].as_array().unwrap().iter();
    let texts = errors.map(|error| error["ErrStatus"]["message"].as_str().unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

/// The first pod of a workload, once it is in the gateway's cache and counted as running.
async fn running_pod(gateway: &Gateway, namespace: &str, app: &str) -> String {
    let path = format!("/api/v1/pod/{namespace}?filterBy=name,{app}");
    let list = until(gateway, &path, |list| list["pods"][0]["status"] == "Running").await;
    names(&list, "pods").remove(0)
}

#[tokio::test]
async fn a_pod_shows_its_values_its_controller_its_events_and_its_claims() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("pod-detail").await;
    apply(cluster, &namespace, TILES).await;
    let gateway = gateway::start(Options::default()).await;
    // Its claim is never bound, so the pod stays pending; it is shown all the same.
    let path = format!("/api/v1/pod/{namespace}/tiles-0");
    let pod = until(&gateway, &path, |pod| {
        pod["eventList"]["events"] != json!([]) && pod["controller"]["pods"]["pending"] == 1
    })
    .await;

    let values: Vec<&Value> =
        pod["containers"][0]["env"].as_array().unwrap().iter().map(|one| &one["value"]).collect();
    assert_eq!(values, ["debug", "czNjcjN0", ""]);
    assert_eq!(pod["controller"]["objectMeta"]["name"], "tiles");
    let type_meta = json!({"kind": "statefulset", "scalable": true, "restartable": true});
    assert_eq!(pod["controller"]["typeMeta"], type_meta);
    assert_eq!(pod["controller"]["containerImages"], json!(["example.invalid/tiles:1"]));
    assert_eq!(names(&pod["persistentVolumeClaimList"], "items"), ["data"]);
    assert_eq!(pod["errors"], json!([]), "{pod}");

    let claims = until(&gateway, &format!("{path}/persistentvolumeclaim"), |_| true).await;
    assert_eq!(claims["items"][0]["status"], "Pending");
    let containers = until(&gateway, &format!("{path}/container"), |_| true).await;
    assert_eq!(containers, json!({"containers": ["main"]}));
    let events = until(&gateway, &format!("{path}/event?itemsPerPage=1&page=1"), |_| true).await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pod_that_names_more_than_is_read_shows_the_first_values_and_says_so() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("many-values").await;
    let names: Vec<String> = (0..33).map(|number| format!("map-{number:02}")).collect();
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let map = |name: &str| json!({"metadata": {"name": name}, "data": {"x": "y"}});
    join_all(names.iter().map(|name| create(cluster, &maps, map(name)))).await;
    let from = |name: &str| json!({"configMapKeyRef": {"name": name, "key": "x"}});
    let env = names.iter().map(|name| json!({"name": name, "valueFrom": from(name)}));
    let main = json!({"name": "main", "image": "example.invalid/x", "env": Value::from_iter(env)});
    let object = json!({"metadata": {"name": "one"}, "spec": {"containers": [main]}});
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
    let gateway = gateway::start(Options::default()).await;
    let one_error = |pod: &Value| pod["errors"].as_array().map(Vec::len) == Some(1);
    let pod = until(&gateway, &format!("/api/v1/pod/{namespace}/one"), one_error).await;
    assert_eq!(pod["errors"][0]["ErrStatus"]["code"], 413, "{pod}");
    let env = pod["containers"][0]["env"].as_array().unwrap();
    let shown: Vec<bool> = env.iter().map(|one| one["value"] == "y").collect();
    assert!(shown.len() == 33 && shown[..32].iter().all(|shown| *shown) && !shown[32], "{pod}");
}

#[tokio::test]
async fn a_pod_without_a_controller_has_an_empty_one() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("no-owner").await;
    crate::people::pod(cluster, &namespace, "alone", "none").await;
    let gateway = gateway::start(Options::default()).await;
    let pod = until(&gateway, &format!("/api/v1/pod/{namespace}/alone"), |_| true).await;
    assert_eq!(pod["controller"]["typeMeta"], json!({}), "{pod}");
    assert_eq!(pod["controller"]["pods"]["warnings"], json!([]));
    assert_eq!(pod["persistentVolumeClaimList"]["items"], json!([]));
}

#[tokio::test]
async fn what_may_not_be_read_is_missing_and_named_and_the_rest_is_there() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("partly").await;
    apply(cluster, &namespace, TILES).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/pod/{namespace}/tiles-0");
    until(&gateway, &path, |_| true).await;
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["get"], &["pods"])]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;

    let answer = ask(&gateway, &person.token, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pod = answer.json();
    assert!(pod.get("controller").is_none(), "{pod}");
    let values = pod["containers"][0]["env"].as_array().unwrap();
    assert!(values.len() == 3 && values.iter().all(|one| one["value"] == ""), "{values:?}");
    assert_eq!(pod["eventList"]["events"], json!([]));
    assert_eq!(pod["persistentVolumeClaimList"]["items"], json!([]));
    let said = messages(&pod);
    for what in ["configmaps", "secrets", "statefulsets", "events", "persistentvolumeclaims"] {
        assert!(said.contains(what), "{what} is not named:\n{said}");
    }

    let events = ask(&gateway, &person.token, &format!("{path}/event")).await.json();
    assert_eq!(events["listMeta"]["totalItems"], 0);
    assert!(messages(&events).contains("events is forbidden"), "{events}");
}

#[tokio::test]
async fn an_object_that_is_missing_or_forbidden_is_404_or_403_with_its_children() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("missing").await;
    let gateway = gateway::start(Options::default()).await;
    for path in [format!("pod/{namespace}/gone"), format!("deployment/{namespace}/gone/event")] {
        let answer = gateway.get("admin", &format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("\"gone\" not found"), "{}", answer.text());
        let answer = gateway.get("nobody", &format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().starts_with("forbidden: "), "{}", answer.text());
    }
    for path in ["pod/a/%2e%2e", "pod/a/b%2Fc", "pod/a/b%00c/event"] {
        let answer = gateway.get("admin", &format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_deployment_tells_its_new_replica_set_from_the_old_ones() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("rollout").await;
    workload(cluster, &namespace, "web", 2, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/deployment/{namespace}/web");
    let is_up = |set: &Value| set["podInfo"]["running"] == 2;
    let first = until(&gateway, &format!("{path}/newreplicaset"), is_up).await;
    assert_eq!(first["typeMeta"], json!({"kind": "replicaset", "scalable": true}));

    // Pods of the second template never become ready, so the first set keeps its own.
    let patch = json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0}}, "template": {
        "metadata": {"annotations": {"test.binnacle/fate": "pending"}}}}});
    let object = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
    let headers = [("content-type", "application/merge-patch+json")];
    let admin = cluster.token("admin");
    let answer = cluster.request(Method::PATCH, admin, &object, &headers, patch.to_string()).await;
    assert_eq!(answer.0, 200);
    let first = first["objectMeta"]["name"].clone();
    let is_other =
        |set: &Value| set["objectMeta"]["name"].is_string() && set["objectMeta"]["name"] != first;
    until(&gateway, &format!("{path}/newreplicaset"), is_other).await;
    let old = format!("{path}/oldreplicaset?itemsPerPage=10&page=1");
    let old = until(&gateway, &old, |list| list["replicaSets"] != json!([])).await;
    assert_eq!(names(&old, "replicaSets"), [first.as_str().unwrap()]);

    let detail = until(&gateway, &path, |one| one["pods"]["running"] == 2).await;
    assert!(detail.get("eventList").is_none());
    let events =
        until(&gateway, &format!("{path}/event"), |list| list["events"] != json!([])).await;
    assert_eq!(events["events"][0]["objectName"], "web");
}

#[tokio::test]
async fn a_replica_set_and_a_service_find_their_pods_each_other_and_their_autoscalers() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("relatives").await;
    workload(cluster, &namespace, "web", 1, "none").await;
    for (name, kind, target) in [("web", "Deployment", "web"), ("other", "Deployment", "else")] {
        let spec = json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": target},
            "minReplicas": 1, "maxReplicas": 2,
        });
        let object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name}, "spec": spec});
        let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
        create(cluster, &path, object).await;
    }
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "edge"}, "spec": {"defaultBackend": backend}});
    create(
        cluster,
        &format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses"),
        object,
    )
    .await;
    let gateway = gateway::start(Options::default()).await;
    let pod = running_pod(&gateway, &namespace, "web").await;

    let path = format!("/api/v1/deployment/{namespace}/web/horizontalpodautoscaler");
    let scalers = until(&gateway, &path, |_| true).await;
    assert_eq!(names(&scalers, "horizontalpodautoscalers"), ["web"]);

    let sets = format!("/api/v1/replicaset/{namespace}");
    let set = until(&gateway, &sets, |list| list["replicaSets"] != json!([])).await;
    let set = format!("/api/v1/replicaset/{namespace}/{}", names(&set, "replicaSets")[0]);
    let detail = until(&gateway, &set, |set| set["podInfo"]["running"] == 1).await;
    assert_eq!(detail["horizontalPodAutoscalerList"]["listMeta"]["totalItems"], 0);
    let pods = until(&gateway, &format!("{set}/pod"), |_| true).await;
    assert_eq!(names(&pods, "pods"), [pod.as_str()]);
    assert_eq!(pods["status"]["running"], 0, "child lists of pods count nothing");
    let services = format!("{set}/service");
    let services = until(&gateway, &services, |list| list["services"] != json!([])).await;
    assert_eq!(names(&services, "services"), ["web"]);

    let service = format!("/api/v1/service/{namespace}/web");
    let detail =
        until(&gateway, &service, |one| one["endpointList"]["endpoints"] != json!([])).await;
    assert_eq!(detail["endpointList"]["listMeta"]["totalItems"], 1);
    assert_eq!(detail["endpointList"]["endpoints"][0]["ready"], true);
    let pods = until(&gateway, &format!("{service}/pod"), |_| true).await;
    assert_eq!(names(&pods, "pods"), [pod.as_str()]);
    let ingresses = until(&gateway, &format!("{service}/ingress"), |_| true).await;
    assert_eq!(names(&ingresses, "items"), ["edge"]);
}

#[tokio::test]
async fn an_old_controller_has_services_and_a_deployment_the_pods_of_its_sets() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("legacy").await;
    apply(cluster, &namespace, LEGACY).await;
    workload(cluster, &namespace, "web", 2, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let legacy = format!("/api/v1/replicationcontroller/{namespace}/legacy");
    let has = |total: usize| move |list: &Value| list["listMeta"]["totalItems"] == total;
    until(&gateway, &format!("/api/v1/service/{namespace}"), has(3)).await;
    let services = until(&gateway, &format!("{legacy}/service"), |_| true).await;
    assert_eq!(names(&services, "services"), ["legacy"]);
    until(&gateway, &format!("{legacy}/pod"), has(1)).await;

    let pods = format!("/api/v1/deployment/{namespace}/web/pod");
    let page = format!("{pods}?itemsPerPage=1&page=2&sortBy=a,name");
    let list = until(&gateway, &page, has(2)).await;
    assert!(matches!(names(&list, "pods").as_slice(), [one] if one.starts_with("web-")), "{list}");
    assert_eq!(list["errors"], json!([]), "{list}");

    // Without the right to list what leads to them there are none, and it is said why.
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["get"], &["deployments"]), rule(&["list"], &["pods"])]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let may = || async { ask(&gateway, &person.token, &pods).await.status == 200 };
    Cluster::eventually("the person may get the deployment", may).await;
    let list = ask(&gateway, &person.token, &pods).await.json();
    assert_eq!(list["pods"], json!([]));
    assert!(messages(&list).contains("replicasets.apps is forbidden"), "{list}");
}

#[tokio::test]
async fn custom_objects_of_several_namespaces_are_those_of_the_permitted_ones() {
    let cluster = cluster::shared().await;
    let (mine, other) = (cluster.namespace("parcels").await, cluster.namespace("parcels").await);
    cluster.apply(DEFINITION).await;
    let parcels = |space: &str| format!("/apis/details.example.org/v1/namespaces/{space}/parcels");
    let admin = cluster.token("admin");
    let is_served = || async { cluster.get(admin, &parcels(&mine)).await.0 == 200 };
    Cluster::eventually("the custom kind is served", is_served).await;
    for space in [&mine, &other] {
        let object = json!({"apiVersion": "details.example.org/v1", "kind": "Parcel",
            "metadata": {"name": "one"}});
        create(cluster, &parcels(space), object).await;
    }
    let person = Person::new(cluster, &mine, "person").await;
    let rules = json!([{"apiGroups": ["details.example.org"], "resources": ["parcels"],
        "verbs": ["list"]}]);
    grant(cluster, Some(&mine), "person", person.subject.clone(), rules).await;
    let rules = json!([{"apiGroups": ["apiextensions.k8s.io"], "verbs": ["get"],
        "resources": ["customresourcedefinitions"]}]);
    grant(cluster, None, &format!("{mine}-definitions"), person.subject.clone(), rules).await;
    let stranger = Person::new(cluster, &other, "stranger").await;
    let gateway = gateway::start(Options::default()).await;

    let address = |spaces: &str| format!("/api/v1/crd/{spaces}/{PARCELS}/object");
    let (all, both) = (address("%20"), address(&format!("{mine},{other}")));
    let detail = format!("/api/v1/crd/{PARCELS}");
    for (path, key) in [(&all, ""), (&both, ""), (&address(&mine), ""), (&detail, "/objects")] {
        let shown = async || {
            let answer = ask(&gateway, &person.token, path).await;
            let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            body.pointer(key).cloned().unwrap_or_default()
        };
        let has_one = || async { shown().await["items"][0]["objectMeta"]["name"] == "one" };
        Cluster::eventually(&format!("{path} shows an object"), has_one).await;
        let list = shown().await;
        assert_eq!(rows(&list, "items"), Names::from([(mine.clone(), "one".to_owned())]), "{path}");
        assert_eq!(list["listMeta"]["totalItems"], 1, "{path}");
        assert_eq!(list["errors"].as_array().unwrap().len(), usize::from(path == &both), "{path}");
    }
    for (who, path) in [(&person, &address(&other)), (&stranger, &all), (&stranger, &both)] {
        let list = ask(&gateway, &who.token, path).await.json();
        assert_eq!((&list["items"], &list["listMeta"]["totalItems"]), (&json!([]), &json!(0)));
        assert_eq!(list["errors"][0]["ErrStatus"]["code"], 403, "{path}: {list}");
    }
}

#[tokio::test]
async fn a_node_lists_its_pods_and_events_by_the_requests_query() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("node-detail").await;
    workload(cluster, &namespace, "web", 3, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let pods = format!("/api/v1/pod/{namespace}");
    until(&gateway, &pods, |list| list["status"]["running"] == 3).await;
    let pod = running_pod(&gateway, &namespace, "web").await;
    let pod = until(&gateway, &format!("{pods}/{pod}"), |_| true).await;
    let node = format!("/api/v1/node/{}", pod["nodeName"].as_str().unwrap());

    let one = format!("{node}?itemsPerPage=1&page=1&sortBy=a,name&filterBy=namespace,{namespace}");
    let detail = until(&gateway, &one, |node| node["podList"]["pods"] != json!([])).await;
    assert_eq!(detail["podList"]["pods"].as_array().unwrap().len(), 1);
    assert_eq!(detail["podList"]["pods"][0]["objectMeta"]["namespace"], namespace.as_str());
    assert_eq!(detail["podList"]["status"]["running"], 0);
    assert_eq!(detail["eventList"]["events"][0]["objectKind"], "Node");
    assert!(detail["allocatedResources"]["allocatedPods"].as_i64().unwrap() >= 1);
    // A filter by a column that events have not.
    let running = until(&gateway, &format!("{node}?filterBy=status,Running"), |_| true).await;
    assert_ne!(running["eventList"]["events"], json!([]));

    let pods = format!("{node}/pod?filterBy=namespace,{namespace}");
    let pods = until(&gateway, &pods, |_| true).await;
    assert_eq!(pods["listMeta"], detail["podList"]["listMeta"]);
    // An event that somebody made in a namespace of theirs, as if it were about the node.
    let name = pod["nodeName"].as_str().unwrap();
    let forged = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "forged"}, "reason": "Forged",
        "involvedObject": {"kind": "Node", "name": name, "uid": name, "namespace": namespace},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/events"), forged).await;
    let known = |list: &Value| list["events"].to_string().contains("Forged");
    until(&gateway, &format!("/api/v1/event/{namespace}"), known).await;
    let events = until(&gateway, &format!("{node}/event"), |_| true).await;
    assert_eq!(events["events"][0]["objectKind"], "Node");
    assert!(!known(&events), "{events}");
    let bad = gateway.get("admin", &format!("{node}?filterBy=colour,red")).await;
    assert_eq!(bad.status, 400, "{}", bad.text());
}

#[tokio::test]
async fn a_namespace_shows_its_quotas_limits_and_events() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("quotas").await;
    cluster
        .apply(&format!(
            "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: q, namespace: {namespace}}}\n\
             spec: {{hard: {{pods: \"5\"}}}}\n---\n\
             apiVersion: v1\nkind: LimitRange\nmetadata: {{name: l, namespace: {namespace}}}\n\
             spec: {{limits: [{{type: Container, max: {{cpu: \"2\"}}}}]}}\n"
        ))
        .await;
    workload(cluster, &namespace, "web", 1, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/namespace/{namespace}");
    let detail = until(&gateway, &path, |detail| {
        detail["resourceQuotaList"]["items"][0]["statusList"]["pods"]["used"] == "1"
    })
    .await;
    assert_eq!(detail["resourceQuotaList"]["items"][0]["statusList"]["pods"]["hard"], "5");
    assert_eq!(detail["resourceLimits"][0]["resourceName"], "cpu");
    assert_eq!(detail["resourceLimits"][0]["max"], "2");
    assert_eq!(detail["errors"], json!([]));
    let events =
        until(&gateway, &format!("{path}/event"), |list| list["events"] != json!([])).await;
    assert_eq!(events["events"][0]["objectMeta"]["namespace"], namespace.as_str());
}

#[tokio::test]
async fn without_a_cache_details_and_children_are_the_same() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("live-detail").await;
    workload(cluster, &namespace, "web", 1, "none").await;
    let cached = gateway::start(Options::default()).await;
    let live = gateway::start(Options { shared_cache: false, ..Options::default() }).await;
    let pod = running_pod(&cached, &namespace, "web").await;
    for path in [
        format!("pod/{namespace}/{pod}"),
        format!("service/{namespace}/web/pod"),
        format!("deployment/{namespace}/web"),
        format!("deployment/{namespace}/web/newreplicaset"),
    ] {
        let path = format!("/api/v1/{path}");
        let begun = Instant::now();
        loop {
            let (a, b) = (cached.get("admin", &path).await, live.get("admin", &path).await);
            if a.status == 200 && a.json() == b.json() {
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "{path}\n{}\n{}", a.text(), b.text());
            tokio::time::sleep(POLL).await;
        }
    }
}
