//! Kinds beyond the contract, on the real control plane: one object of each is listed and shown
//! with its own facts, and names in Gateway API objects lead to what stands behind them. What
//! nobody can be asked about is tested on the demo, where questions can be made to fail.
//! It is NOT where rights on lists are tested (`rights.rs`), nor the query grammar (`reads.rs`).

use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::fault_proxy::Front;
use crate::gateway::{self, Gateway, Options};
use crate::gateway_api;
use crate::people::{Person, ask, bindings, create, grant, user};
use crate::reads::{DEADLINE, POLL};

/// `SPACE` is the namespace, and the beginning of the names of what has none.
const OBJECTS: &str = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: slice, namespace: SPACE, labels: {kubernetes.io/service-name: tiles}}
addressType: IPv4
ports: [{name: http, port: 80, protocol: TCP}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, nodeName: node-0}
- {addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota, namespace: SPACE}
spec: {hard: {pods: "5"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits, namespace: SPACE}
spec: {limits: [{type: Container, max: {cpu: "2"}, default: {cpu: "1"}, defaultRequest: {cpu: 500m}}]}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: lease, namespace: SPACE}
spec: {holderIdentity: me, leaseDurationSeconds: 15, renewTime: "2026-01-02T03:04:05.000000Z"}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: SPACE-high}
value: 1000
preemptionPolicy: Never
description: for queues
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: SPACE-guard}
webhooks:
- name: guard.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  clientConfig: {url: "https://guard.example.com"}
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [none]}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: SPACE-inject}
webhooks:
- name: inject.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  reinvocationPolicy: IfNeeded
  clientConfig: {url: "https://inject.example.com"}
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [none]}]
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: SPACE-kata}
handler: kata
overhead: {podFixed: {cpu: 250m}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: SPACE-attachment}
spec: {attacher: csi.example.com, nodeName: none, source: {persistentVolumeName: none}}
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: SPACE.example.com}
spec: {attachRequired: false, storageCapacity: true, fsGroupPolicy: File}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: SPACE-node}
spec: {drivers: [{name: csi.example.com, nodeID: i-1, topologyKeys: [zone], allocatable: {count: 25}}]}
---
apiVersion: storage.k8s.io/v1
kind: CSIStorageCapacity
metadata: {name: capacity, namespace: SPACE}
storageClassName: fast
capacity: 5Gi
nodeTopology: {matchLabels: {zone: a}}
"#;

/// Of each object: kind, path of its namespace, name, what both list and detail show, and what the
/// detail alone does. The API server makes `v1.apps` for itself: an API service of ours would stand
/// in the way of discovery.
const FACTS: &str = r#"[
["endpointslice", "/SPACE", "slice",
 {"addressType": "IPv4", "service": "tiles", "readyEndpoints": 1, "totalEndpoints": 2,
  "addresses": ["10.0.0.1", "10.0.0.2"], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
 {"endpoints": [
  {"addresses": ["10.0.0.1"], "ready": true, "serving": true, "terminating": false,
   "hostname": null, "nodeName": "node-0", "zone": null, "targetRef": null},
  {"addresses": ["10.0.0.2"], "ready": false, "serving": true, "terminating": true,
   "hostname": null, "nodeName": null, "zone": null, "targetRef": null}]}],
["resourcequota", "/SPACE", "quota",
 {"statusList": {"pods": {"used": "0", "hard": "5"}}}, {"hard": {"pods": "5"}}],
["limitrange", "/SPACE", "limits",
 {"resourceLimits": [{"resourceName": "cpu", "resourceType": "Container", "max": "2",
  "default": "1", "defaultRequest": "500m"}]}, {}],
["lease", "/SPACE", "lease",
 {"holder": "me", "durationSeconds": 15, "renewTime": "2026-01-02T03:04:05.000000Z"},
 {"acquireTime": null, "transitions": null}],
["csistoragecapacity", "/SPACE", "capacity", {"storageClass": "fast", "capacity": "5Gi"},
 {"nodeTopology": {"matchLabels": {"zone": "a"}}}],
["priorityclass", "", "SPACE-high",
 {"value": 1000, "globalDefault": false, "preemptionPolicy": "Never"},
 {"description": "for queues"}],
["validatingwebhookconfiguration", "", "SPACE-guard",
 {"webhookCount": 1, "webhookNames": ["guard.example.com"]}, {}],
["mutatingwebhookconfiguration", "", "SPACE-inject",
 {"webhookCount": 1, "webhookNames": ["inject.example.com"]}, {}],
["runtimeclass", "", "SPACE-kata", {"handler": "kata"},
 {"overhead": {"cpu": "250m"}, "tolerations": []}],
["volumeattachment", "", "SPACE-attachment",
 {"attacher": "csi.example.com", "volume": "none", "node": "none", "attached": false},
 {"attachError": null}],
["csidriver", "", "SPACE.example.com",
 {"attachRequired": false, "podInfoOnMount": false, "storageCapacity": true, "modes": ["Persistent"]},
 {"fsGroupPolicy": "File"}],
["csinode", "", "SPACE-node", {"driverCount": 1, "driverNames": ["csi.example.com"]},
 {"drivers": [{"name": "csi.example.com", "nodeID": "i-1", "topologyKeys": ["zone"],
  "allocatable": {"count": 25}}]}],
["apiservice", "", "v1.apps",
 {"group": "apps", "version": "v1", "service": "Local", "available": "True", "reason": "Local"},
 {"port": null, "insecureSkipTLSVerify": false}]
]"#;

/// What of `wanted` is otherwise in `found`.
fn differences(wanted: &Value, found: &Value) -> Vec<String> {
    let wanted = wanted.as_object().unwrap().iter();
    let other = wanted.filter(|(key, value)| found[key.as_str()] != **value);
    other.map(|(key, value)| format!("{key}: {} for {value}", found[key.as_str()])).collect()
}

/// Waits until the admin's answer is as wanted.
async fn until(gateway: &Gateway, path: &str, wrong: impl Fn(&Value) -> Vec<String>) -> Value {
    let begun = Instant::now();
    loop {
        let answer = gateway.get("admin", path).await;
        let wrong = match answer.status {
            200 => wrong(&answer.json()),
            status => vec![format!("status {status}")],
        };
        if wrong.is_empty() {
            return answer.json();
        }
        let (wrong, text) = (wrong.join("\n"), answer.text());
        assert!(begun.elapsed() < DEADLINE, "waited in vain, {path}:\n{wrong}\n{text}");
        tokio::time::sleep(POLL).await;
    }
}

fn is(wanted: bool, what: &str) -> Vec<String> {
    if wanted { Vec::new() } else { vec![what.to_owned()] }
}

fn row<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list["items"].as_array()?.iter().find(|row| row["objectMeta"]["name"] == name)
}

fn messages(answer: &Value) -> String {
    let errors = answer["errors"].as_array().unwrap().iter();
    let texts = errors.map(|error| error["ErrStatus"]["message"].as_str().unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn each_further_kind_is_listed_and_shown_with_its_facts() {
    let cluster = cluster::shared().await;
    let space = cluster.namespace("beyond").await;
    cluster.apply(&OBJECTS.replace("SPACE", &space)).await;
    let gateway = gateway::start(Options::default()).await;
    let facts: Value = serde_json::from_str(&FACTS.replace("SPACE", &space)).unwrap();
    for fact in facts.as_array().unwrap() {
        let [kind, place, name] = [0_usize, 1, 2].map(|at| fact[at].as_str().unwrap());
        let (both, detail) = (&fact[3], &fact[4]);
        let path = format!("/api/v1/{kind}{place}");
        // The quota's status comes from its controller; all else is there at once.
        let list = until(&gateway, &path, |list| match row(list, name) {
            Some(row) => differences(both, row),
            None => vec![format!("{name} is not listed")],
        })
        .await;
        assert_eq!(list["errors"], json!([]), "{path}");
        assert_eq!(row(&list, name).unwrap()["typeMeta"], json!({"kind": kind}), "{path}");
        assert_eq!(list["listMeta"]["totalItems"], list["items"].as_array().unwrap().len());

        let path = format!("{path}/{name}");
        let shown = until(&gateway, &path, |_| Vec::new()).await;
        assert_eq!(differences(both, &shown), [""; 0], "{path}");
        assert_eq!(differences(detail, &shown), [""; 0], "{path}");
        assert_eq!(shown["errors"], json!([]), "{path}");
        let events = until(&gateway, &format!("{path}/event"), |_| Vec::new()).await;
        assert_eq!(events["errors"], json!([]), "{path}");
    }
    let webhook = format!("/api/v1/mutatingwebhookconfiguration/{space}-inject");
    let webhook = until(&gateway, &webhook, |_| Vec::new()).await;
    assert_eq!(webhook["webhooks"][0]["reinvocationPolicy"], "IfNeeded");
    let filtered = format!("/api/v1/lease/{space}?filterBy=holder,nobody");
    let filtered = until(&gateway, &filtered, |_| Vec::new()).await;
    assert_eq!(filtered["listMeta"]["totalItems"], 0, "{filtered}");
    let answer = gateway.get("admin", &format!("/api/v1/lease/{space}")).await;
    assert_eq!(answer.header("binnacle-source"), "live");
}

const GATEWAY_API: &str = gateway_api::GROUP;

/// Creates an object of the Gateway API. `at` is the version and, if it has one, the namespace.
async fn made(cluster: &Cluster, at: (&str, &str), kind: &str, name: &str, spec: Value) {
    let (version, namespace) = at;
    let plural = match kind {
        "GatewayClass" => "gatewayclasses".to_owned(),
        _ => format!("{}s", kind.to_lowercase()),
    };
    let place = match namespace {
        "" => String::new(),
        _ => format!("namespaces/{namespace}/"),
    };
    let object = json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    });
    create(cluster, &format!("{GATEWAY_API}/{version}/{place}{plural}"), object).await;
}

/// Says what a controller would.
async fn say(cluster: &Cluster, object: &str, status: Value) {
    let path = format!("{GATEWAY_API}/v1/{object}/status");
    let headers = [("content-type", "application/merge-patch+json")];
    let patch = json!({ "status": status }).to_string();
    let answer = cluster.request(Method::PATCH, cluster.token("admin"), &path, &headers, patch);
    let (status, _, body) = answer.await;
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
}

async fn service(cluster: &Cluster, namespace: &str, name: &str) -> Value {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}]},
    });
    let made = create(cluster, &format!("/api/v1/namespaces/{namespace}/services"), object).await;
    made["spec"]["clusterIP"].clone()
}

/// A gateway in `shop` with routes in `shop` and `core`, and what their controller says.
async fn prepare(cluster: &Cluster, shop: &str, core: &str) {
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"},
            {"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}]);
    let spec = json!({"controllerName": "example.com/c"});
    made(cluster, ("v1", ""), "GatewayClass", shop, spec).await;
    let spec = json!({"gatewayClassName": shop, "listeners": listeners});
    made(cluster, ("v1", shop), "Gateway", "edge", spec).await;
    let spec = json!({
        "hostnames": ["shop.example.com"], "parentRefs": [{"name": "edge"}],
        "rules": [{"backendRefs": [{"name": "web", "port": 80, "weight": 9},
            {"name": "gone", "port": 80}, {"name": "api", "namespace": core, "port": 80}]}],
    });
    made(cluster, ("v1", shop), "HTTPRoute", "shop", spec).await;
    let spec = json!({"parentRefs": [{"name": "edge", "namespace": shop, "sectionName": "tls"}]});
    made(cluster, ("v1", core), "HTTPRoute", "core", spec.clone()).await;
    let mut secure = spec;
    secure["hostnames"] = json!(["db.example.com"]);
    secure["rules"] = json!([{"backendRefs": [{"name": "api", "port": 80}]}]);
    made(cluster, ("v1alpha2", core), "TLSRoute", "db", secure).await;
    let other = json!({"parentRefs": [{"name": "edge"}]});
    made(cluster, ("v1", core), "HTTPRoute", "other", other).await;

    let says = |of: &str, status: &str, reason: &str| {
        json!({"type": of, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z"})
    };
    let yes = |of: &str| says(of, "True", of);
    let attached = json!({"name": "http", "attachedRoutes": 1, "supportedKinds": [],
        "conditions": [yes("Accepted")]});
    let addresses = json!([{"type": "IPAddress", "value": "192.0.2.1"}]);
    let status = json!({
        "addresses": addresses, "conditions": [yes("Programmed")], "listeners": [attached],
    });
    say(cluster, &format!("namespaces/{shop}/gateways/edge"), status).await;
    let unresolved = says("ResolvedRefs", "False", "RefNotPermitted");
    let status = json!({"parents": [{"parentRef": {"name": "edge"},
        "controllerName": "example.com/c", "conditions": [yes("Accepted"), unresolved]}]});
    say(cluster, &format!("namespaces/{shop}/httproutes/shop"), status).await;
}

/// Kind, namespace and name of what a gateway's detail shows.
fn attached(gateway: &Value) -> Vec<[&str; 3]> {
    let all = gateway["routes"].as_array().unwrap().iter();
    all.map(|route| ["kind", "namespace", "name"].map(|key| route[key].as_str().unwrap())).collect()
}

#[tokio::test]
async fn names_in_gateway_api_objects_lead_to_what_stands_behind_them_as_permitted() {
    let cluster = cluster::shared().await;
    let (shop, core) = (cluster.namespace("shop").await, cluster.namespace("core").await);
    let (grpc, first): (Vec<&str>, Vec<&str>) =
        gateway_api::COLLECTIONS.into_iter().partition(|at| at.ends_with("grpcroutes"));
    gateway_api::define(cluster, &first).await;
    let web = service(cluster, &shop, "web").await;
    let api = service(cluster, &core, "api").await;
    prepare(cluster, &shop, &core).await;
    let gateway = gateway::start(Options::default()).await;
    let route = format!("/api/v1/httproute/{shop}/shop");
    let edge = format!("/api/v1/gateway/{shop}/edge");

    shows_a_route(&gateway, &route, (&core, &api), (&shop, &web)).await;
    shows_a_gateway(&gateway, &edge, &shop, &core).await;
    // The API server's discovery may tell of a new kind a little later than it serves it.
    let grants = |list: &Value| is(list["items"] == json!([]), "there are grants");
    until(&gateway, &format!("/api/v1/referencegrant/{core}"), grants).await;
    a_grant_permits(&gateway, cluster, &route, &shop, &core).await;
    a_stranger_to_services_knows_of_none(&gateway, cluster, &shop, &core).await;

    // A kind that was not served before is there once it is.
    gateway_api::define(cluster, &grpc).await;
    let spec = json!({"parentRefs": [{"name": "edge"}]});
    made(cluster, ("v1", &shop), "GRPCRoute", "rpc", spec).await;
    let detail = until(&gateway, &edge, |edge| is(edge["routeCount"] == 4, "not all routes")).await;
    assert!(attached(&detail).contains(&["grpcroute", shop.as_str(), "rpc"]), "{detail}");
    assert_eq!(detail["errors"], json!([]), "{detail}");
}

async fn shows_a_route(
    gateway: &Gateway,
    path: &str,
    (core, api): (&str, &Value),
    (shop, web): (&str, &Value),
) {
    let backend = |namespace: &str, name: &str, address: &Value| {
        json!({
            "group": "", "kind": "Service", "namespace": namespace, "name": name, "port": 80,
            "found": !address.is_null(), "clusterIP": address, "permitted": namespace == shop,
        })
    };
    let wanted =
        [backend(core, "api", api), backend(shop, "gone", &Value::Null), backend(shop, "web", web)];
    let route = until(gateway, path, |route| {
        let found = route["backends"].as_array().unwrap();
        let found = found.iter().zip(&wanted).map(|(found, wanted)| differences(wanted, found));
        found.flatten().chain(is(route["errors"] == json!([]), "errors")).collect()
    })
    .await;
    assert_eq!(route["backends"].as_array().unwrap().len(), wanted.len(), "{route}");
    assert_eq!(route["backends"][0]["ports"][0]["port"], 80, "{route}");
    assert_eq!(route["rules"][0]["backends"][0]["weight"], 9, "{route}");
    let parent = &route["parents"][0];
    assert_eq!((&parent["name"], &parent["namespace"]), (&json!("edge"), &json!(shop)));
    assert_eq!((&parent["accepted"], &parent["resolvedRefs"]), (&json!("True"), &json!("False")));
    assert_eq!(parent["conditions"][1]["reason"], "RefNotPermitted", "{route}");

    let list = until(gateway, &format!("/api/v1/httproute/{shop}"), |_| Vec::new()).await;
    let item = row(&list, "shop").unwrap();
    let facts = json!({"hostnames": ["shop.example.com"], "accepted": "True"});
    assert_eq!(differences(&facts, item), [""; 0], "{item}");
    assert_eq!(item["parents"][0]["name"], "edge", "{item}");
}

async fn shows_a_gateway(gateway: &Gateway, path: &str, shop: &str, core: &str) {
    let routes =
        [["httproute", core, "core"], ["httproute", shop, "shop"], ["tlsroute", core, "db"]];
    let detail = until(gateway, path, |edge| is(attached(edge) == routes, "other routes")).await;
    assert_eq!(detail["routeCount"], 3, "{detail}");
    // Routes of a kind that is not served are none, and no error.
    assert_eq!(detail["errors"], json!([]), "{detail}");
    assert_eq!(detail["routes"][0]["accepted"], "Unknown", "{detail}");
    assert_eq!(detail["routes"][1]["accepted"], "True", "{detail}");
    assert_eq!(detail["routes"][1]["hostnames"], json!(["shop.example.com"]), "{detail}");
    let facts = json!({"attachedRoutes": 1, "accepted": "True", "programmed": "Unknown"});
    assert_eq!(differences(&facts, &detail["listeners"][0]), [""; 0], "{detail}");
    assert_eq!(detail["listeners"][1]["accepted"], "Unknown", "{detail}");

    let facts = json!({"class": shop, "programmed": "True", "attachedRoutes": 1,
        "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]});
    let list = until(gateway, &format!("/api/v1/gateway/{shop}"), |_| Vec::new()).await;
    assert_eq!(differences(&facts, row(&list, "edge").unwrap()), [""; 0], "{list}");
    let class = until(gateway, &format!("/api/v1/gatewayclass/{shop}"), |_| Vec::new()).await;
    let facts = json!({"controller": "example.com/c", "accepted": "Unknown", "gatewayCount": 1});
    assert_eq!(differences(&facts, &class), [""; 0], "{class}");
    let facts = json!({"namespace": shop, "name": "edge", "programmed": "True"});
    assert_eq!(differences(&facts, &class["gateways"][0]), [""; 0], "{class}");
}

async fn a_grant_permits(
    gateway: &Gateway,
    cluster: &Cluster,
    route: &str,
    shop: &str,
    core: &str,
) {
    let from = |kind: &str| json!([{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": shop}]);
    let to = json!([{"group": "", "kind": "Service"}]);
    let spec = json!({"from": from("GRPCRoute"), "to": to});
    made(cluster, ("v1beta1", core), "ReferenceGrant", "for-others", spec).await;
    let shown = gateway.get("admin", route).await.json();
    assert_eq!(shown["backends"][0]["permitted"], false, "{shown}");
    let spec = json!({"from": from("HTTPRoute"), "to": to});
    made(cluster, ("v1beta1", core), "ReferenceGrant", "for-shop", spec.clone()).await;
    let shown = gateway.get("admin", route).await.json();
    assert_eq!(shown["backends"][0]["permitted"], true, "{shown}");
    let path = format!("/api/v1/referencegrant/{core}/for-shop");
    let shown = gateway.get("admin", &path).await.json();
    assert_eq!(differences(&spec, &shown), [""; 0], "{shown}");
}

async fn a_stranger_to_services_knows_of_none(
    gateway: &Gateway,
    cluster: &Cluster,
    shop: &str,
    core: &str,
) {
    let person = Person::new(cluster, shop, "person").await;
    let rules = json!([{"apiGroups": ["gateway.networking.k8s.io"], "verbs": ["get", "list"],
        "resources": ["gateways", "httproutes"]}]);
    grant(cluster, Some(shop), "person", person.subject.clone(), rules).await;
    let object = format!("{GATEWAY_API}/v1/namespaces/{shop}/httproutes/shop");
    let may = || async { cluster.get(&person.token, &object).await.0 == 200 };
    Cluster::eventually("the rights count", may).await;
    let path = format!("/api/v1/httproute/{shop}/shop");
    let answer = ask(gateway, &person.token, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let route = answer.json();
    for (backend, permitted) in [(0_usize, Value::Null), (1, json!(true)), (2, json!(true))] {
        let backend = &route["backends"][backend];
        let facts =
            json!({"found": null, "clusterIP": null, "ports": null, "permitted": permitted});
        assert_eq!(differences(&facts, backend), [""; 0], "{route}");
    }
    let said = messages(&route);
    for what in ["services is forbidden", "referencegrants", core] {
        assert!(said.contains(what), "{what} is not named:\n{said}");
    }

    let path = format!("/api/v1/gateway/{shop}/edge");
    let edge = ask(gateway, &person.token, &path).await.json();
    assert_eq!(attached(&edge), [["httproute", shop, "shop"]], "{edge}");
    assert!(messages(&edge).contains("tlsroutes"), "{edge}");
}

#[tokio::test]
async fn a_gateway_says_that_nobody_could_be_asked_about_routes_of_other_namespaces() {
    let (front, demo) = Front::demo(0).await;
    let binding = json!({
        "metadata": {"name": "team"}, "subjects": [user("demo-team")],
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
    });
    front.api.create(&bindings(Some("orchard")), &binding).await;
    let get = async |path: &str| {
        let answer = front.get_as("demo-team-token", path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    // Rights that stand for a while, though nobody can be asked any more.
    for kind in ["httproute", "grpcroute", "tlsroute"] {
        let list = get(&format!("/api/v1/{kind}/orchard")).await;
        assert_eq!((&list["listMeta"]["totalItems"], &list["errors"]), (&json!(1), &json!([])));
    }
    demo.faults().respond("/apis/authorization.k8s.io", 503, u32::MAX);
    let gate = get("/api/v1/gateway/orchard/gate").await;
    // The one in the shop is missing.
    assert_eq!(gate["routeCount"], 3, "{gate}");
    assert_ne!(gate["errors"], json!([]), "{gate}");
}
