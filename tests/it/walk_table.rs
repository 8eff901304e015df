//! What `walk.rs` puts into the requests of each operation, and which operations answer people
//! without rights, with the reason. A new operation is a line here.
//!
//! `NAMESPACE`, `NODE`, `CRD` and `OPERATION` in a value stand for names of this run, `ARCHIVE` for
//! a packed chart.

use serde_json::{Value, json};

use crate::schema_table::{CHART, RELEASE, REPOSITORY, VERSION};

/// The name of every object that the walk makes: rows differ in kind and namespace.
pub const NAME: &str = "walk";

/// Method, path, reason. Who has no credentials gets an answer, too.
pub const PUBLIC: &[(&str, &str, &str)] = &[
    ("get", "/", "the frontend's page"),
    ("get", "/livez", "a probe of the kubelet"),
    ("get", "/healthz", "a probe"),
    ("get", "/readyz", "a probe of the kubelet"),
    ("get", "/config", "the frontend asks before anybody has signed in"),
    ("get", "/systembanner", "the frontend shows it on the login page"),
    ("get", "/settings", "the frontend asks before anybody has signed in"),
    ("get", "/settings/pinnedresources", "part of the settings"),
    ("get", "/settings/cani", "false for nobody in particular, as the contract has it"),
    ("get", "/settings/pinnedresources/cani", "the same"),
    ("get", "/api/v1/csrftoken/{action}", "proves a page of ours, not a person"),
    ("get", "/api/v1/appdeployment/protocols", "a constant"),
    ("post", "/api/v1/login", "the credentials are in the body"),
    ("post", "/api/v1/appdeployment/validate/imagereference", "pure"),
    ("post", "/api/v1/appdeployment/validate/protocol", "pure"),
];

/// Method, path, reason. Who may nothing gets a 200 without rows of anybody's.
pub const HARMLESS: &[(&str, &str, &str)] = &[
    ("get", "/api/v1/me", "one's own name"),
    ("get", "/api/v1/stream", "it shows nothing before it is asked as any route is"),
    (
        "get",
        "/api/v1/pod/{namespace}/{name}/shell/{container}",
        "an id opens nothing: the right is asked for when it is bound",
    ),
    ("get", "/api/v1/pod/{namespace}/{name}/exec", "426: asked without an upgrade"),
    ("get", "/api/v1/pod/{namespace}/{name}/attach", "426: asked without an upgrade"),
    ("get", "/api/v1/pod/{namespace}/{name}/portforward/{port}", "426: asked without an upgrade"),
    ("get", "/api/v1/integration/{name}/state", "whether the usage source answers"),
    ("post", "/api/v1/appdeployment/validate/name", "a name that may not be read counts as free"),
    ("get", "/api/v1/repository", "those whose ConfigMap the caller may read: none"),
    ("get", "/api/v1/chart", "charts of repositories that the caller may read: none"),
];

/// Start of the path, parameter, value. The first line that fits is taken; a `name` beneath a kind
/// of the table comes from [`OBJECTS`], [`OF_CLUSTER`] or [`ABSENT`].
pub const VALUES: &[(&str, &str, &str)] = &[
    ("/clusters/", "cluster", "test"),
    ("/clusters/", "path", "api/v1/namespaces/NAMESPACE/configmaps"),
    ("/api/v1/csrftoken/", "action", "login"),
    ("/api/v1/integration/", "name", "sidecar"),
    ("/api/v1/_raw/{kind}/namespace/", "kind", "configmap"),
    ("/api/v1/_raw/{kind}/namespace/", "name", NAME),
    ("/api/v1/_raw/", "kind", "node"),
    ("/api/v1/_raw/", "name", "NODE"),
    ("/api/v1/scale/", "kind", "deployment"),
    ("/api/v1/scale/", "name", NAME),
    ("/api/v1/log/follow/", "kind", "pod"),
    ("/api/v1/log/follow/", "name", NAME),
    ("/api/v1/log/source/", "kind", "pod"),
    ("/api/v1/log/source/", "type", "pod"),
    ("/api/v1/log/source/", "resourceType", "pod"),
    ("/api/v1/log/source/", "resourceName", NAME),
    ("/api/v1/log/source/", "name", NAME),
    ("/api/v1/log/", "pod", NAME),
    ("/api/v1/log/", "container", "main"),
    ("/api/v1/metrics/node/", "name", "NODE"),
    ("/api/v1/metrics/pod/", "name", NAME),
    ("/api/v1/crd/{namespace}/{crd}/", "crd", "CRD"),
    ("/api/v1/crd/{namespace}/{crd}/", "name", NAME),
    ("/api/v1/crd/{namespace}/{crd}/", "object", NAME),
    ("/api/v1/crd/", "crd", "CRD"),
    ("/api/v1/persistentvolume/namespace/", "name", NAME),
    ("/api/v1/persistentvolume/namespace/", "persistentvolume", NAME),
    ("/api/v1/{kind}/", "kind", "deployment"),
    ("/api/v1/{kind}/", "name", NAME),
    ("/settings/pinnedresources/", "kind", "deployment"),
    ("/settings/pinnedresources/", "name", NAME),
    ("/api/v1/pod/", "container", "main"),
    ("/api/v1/pod/", "port", "80"),
    ("/api/v1/release/", "name", RELEASE),
    ("/api/v1/operation/", "id", "OPERATION"),
    ("/api/v1/repository/", "name", REPOSITORY),
    ("/api/v1/chart/", "repository", REPOSITORY),
    ("/api/v1/chart/", "name", CHART),
    ("/api/v1/chart/", "version", VERSION),
];

/// Path, query. What an operation does not answer without.
pub const QUERIES: &[(&str, &str)] = &[
    ("/api/v1/search", "q=walk&limit=500"),
    ("/api/v1/pod/{namespace}/{name}/exec", "container=main&command=true"),
    ("/api/v1/scale/{kind}/{namespace}/{name}", "scaleBy=7"),
    ("/api/v1/scale/{kind}/{name}", "scaleBy=7"),
];

const APP: &str = r#"{"name":"walk-made","containerImage":"example.invalid/main",
"imagePullSecret":null,"containerCommand":null,"containerCommandArgs":null,"replicas":1,
"portMappings":[],"variables":[],
"isExternal":false,"description":null,"namespace":"NAMESPACE","memoryRequirement":null,
"cpuRequirement":null,"labels":[{"key":"app","value":"walk-made"}],"runAsPrivileged":false}"#;
const CONFIG_MAP: &str = r#"{"apiVersion":"v1","kind":"ConfigMap",
"metadata":{"name":"walk","namespace":"NAMESPACE"},"data":{"changed":"yes"}}"#;
const FILE: &str = r#"{"name":"made.yaml","namespace":"NAMESPACE","validate":true,
"content":"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: walk-made}\n"}"#;
const SECRET: &str = r#"{"name":"walk-made","namespace":"NAMESPACE","data":"e30="}"#;
const PINNED: &str = r#"{"kind":"deployment","name":"walk","displayName":"walk","namespaced":true,
"namespace":"NAMESPACE"}"#;
const INSTALL: &str = r#"{"name":"walk-made","chart":{"archive":"ARCHIVE"}}"#;
const UPGRADE: &str = r#"{"chart":{"archive":"ARCHIVE"},"values":{"message":"changed"}}"#;
const PREVIEW: &str = r#"{"act":"upgrade","chart":{"archive":"ARCHIVE"}}"#;
const NEW_REPOSITORY: &str =
    r#"{"name":"walk-made","type":"index","url":"https://charts.example.invalid"}"#;
const REPOSITORY_CHANGE: &str = r#"{"type":"index","url":"https://charts.example.invalid"}"#;
const NAMED: &str = r#"{"name":"walk-made","namespace":"NAMESPACE"}"#;

/// Method, how the path begins and ends, body. The first line that fits is taken.
pub const BODIES: &[(&str, &str, &str, &str)] = &[
    ("post", "/api/v1/release/", "/rollback", r#"{"revision":1}"#),
    ("post", "/api/v1/release/", "/test", "{}"),
    ("post", "/api/v1/release/", "/preview", PREVIEW),
    ("post", "/api/v1/release/", "/unlock", r#"{"confirm":true}"#),
    ("post", "/api/v1/release/", "", INSTALL),
    ("put", "/api/v1/release/", "/protect", "{}"),
    ("put", "/api/v1/release/", "/unprotect", "{}"),
    ("put", "/api/v1/release/", "", UPGRADE),
    ("delete", "/api/v1/release/", "", ""),
    ("delete", "/api/v1/operation/", "", ""),
    ("post", "/api/v1/repository", "", NEW_REPOSITORY),
    ("put", "/api/v1/repository/", "", REPOSITORY_CHANGE),
    ("delete", "/api/v1/repository/", "", ""),
    ("post", "/api/v1/chart/", "", "no archive"),
    ("put", "/api/v1/chart/", "", "no provenance"),
    ("delete", "/api/v1/chart/", "", ""),
    ("put", "/api/v1/_raw/", "", CONFIG_MAP),
    ("delete", "/api/v1/_raw/", "", ""),
    ("put", "/api/v1/scale/", "", "{}"),
    ("put", "/api/v1/node/", "/drain", r#"{"force":true}"#),
    ("put", "/api/v1/node/", "", "{}"),
    ("post", "/api/v1/node/", "", "{}"),
    ("put", "/api/v1/", "/rollback", r#"{"revision":"1"}"#),
    ("put", "/api/v1/", "/restart", "{}"),
    ("put", "/api/v1/", "/pause", "{}"),
    ("put", "/api/v1/", "/resume", "{}"),
    ("put", "/api/v1/", "/trigger", "{}"),
    ("post", "/api/v1/replicationcontroller/", "/update/pod", r#"{"replicas":7}"#),
    ("post", "/api/v1/appdeployment/validate/name", "", NAMED),
    (
        "post",
        "/api/v1/appdeployment/validate/imagereference",
        "",
        r#"{"reference":"example.invalid/main"}"#,
    ),
    (
        "post",
        "/api/v1/appdeployment/validate/protocol",
        "",
        r#"{"protocol":"TCP","isExternal":false}"#,
    ),
    ("post", "/api/v1/appdeploymentfromfile", "", FILE),
    ("post", "/api/v1/appdeployment", "", APP),
    ("post", "/api/v1/namespace", "", r#"{"name":"NAMESPACE-made"}"#),
    ("post", "/api/v1/secret", "", SECRET),
    ("post", "/api/v1/login", "", r#"{"token":"no-such-token"}"#),
    ("put", "/settings/pinnedresources", "", PINNED),
    ("delete", "/settings/pinnedresources/", "", ""),
    ("put", "/settings", "", r#"{"itemsPerPage":7}"#),
    ("put", "/clusters/", "", "{}"),
    ("post", "/clusters/", "", CONFIG_MAP),
    ("patch", "/clusters/", "", "{}"),
    ("delete", "/clusters/", "", ""),
];

/// Contract name of a kind without namespaces, and an object of it that there is.
pub const OF_CLUSTER: &[(&str, &str)] = &[
    ("node", "NODE"),
    ("namespace", "NAMESPACE"),
    ("crd", "CRD"),
    ("clusterrole", "admin"),
    ("clusterrolebinding", "cluster-admin"),
    ("priorityclass", "system-node-critical"),
    ("apiservice", "v1."),
];

/// Kinds of which this cluster has no object that the walk could ask for: the name is made up, and
/// who has no rights must not learn even that.
pub const ABSENT: &[(&str, &str)] = &[
    ("csidriver", "no storage driver is installed"),
    ("csinode", "the nodes are played, no driver registers on them"),
    ("csistoragecapacity", "no storage driver is installed"),
    ("gateway", "the Gateway API is not part of Kubernetes"),
    ("gatewayclass", "the Gateway API is not part of Kubernetes"),
    ("grpcroute", "the Gateway API is not part of Kubernetes"),
    ("httproute", "the Gateway API is not part of Kubernetes"),
    ("referencegrant", "the Gateway API is not part of Kubernetes"),
    ("tlsroute", "the Gateway API is not part of Kubernetes"),
    ("ingressclass", "one of ours would be another test's default"),
    ("mutatingwebhookconfiguration", "it would stand in every other test's way"),
    ("validatingwebhookconfiguration", "it would stand in every other test's way"),
    ("persistentvolume", "another test's claim would take it"),
    ("runtimeclass", "nothing runs"),
    ("storageclass", "another test's claim would take it"),
    ("volumeattachment", "no storage driver is installed"),
];

/// Contract name, API version and kind of an object, and all of it but its metadata.
pub type Made = (&'static str, &'static str, &'static str, Value);

/// What the walk makes in each namespace; `mark` is in labels, contents and images.
pub fn objects(mark: &str) -> Vec<Made> {
    let mut all = plain(mark);
    all.extend(workloads(mark));
    // The last one: who creates while a quota is young is refused.
    let hard = json!({"hard": {"services.loadbalancers": "9"}});
    all.push(("resourcequota", "v1", "ResourceQuota", json!({"spec": hard})));
    all
}

fn plain(mark: &str) -> Vec<Made> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    const NETWORKING: &str = "networking.k8s.io/v1";
    let claim = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "volumeName": "nobody-has-it", "resources": {"requests": {"storage": "1Gi"}},
    });
    let backend = json!({"service": {"name": NAME, "port": {"number": 80}}});
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME});
    let limit = json!({"type": "PersistentVolumeClaim", "max": {"storage": "9Gi"}});
    let about = json!({"apiVersion": "v1", "kind": "Pod", "name": NAME, "namespace": "NAMESPACE"});
    let time = "2026-01-01T00:00:00Z";
    let event = json!({
        "involvedObject": about, "reason": "BackOff", "message": mark, "type": "Warning",
        "count": 1, "firstTimestamp": time, "lastTimestamp": time, "source": {"component": "test"},
    });
    let addresses = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]});
    let selector = json!({"matchLabels": {"app": "no-such-app"}});
    let spec = |spec: Value| json!({ "spec": spec });
    let budget = spec(json!({"minAvailable": 1, "selector": selector}));
    let lease = spec(json!({"holderIdentity": mark}));
    vec![
        ("configmap", "v1", "ConfigMap", json!({"data": {"a": mark}})),
        ("secret", "v1", "Secret", json!({"stringData": {"a": mark}})),
        ("serviceaccount", "v1", "ServiceAccount", json!({})),
        ("service", "v1", "Service", spec(json!({"ports": [{"port": 80}]}))),
        ("persistentvolumeclaim", "v1", "PersistentVolumeClaim", spec(claim)),
        ("limitrange", "v1", "LimitRange", spec(json!({"limits": [limit]}))),
        ("event", "v1", "Event", event),
        ("ingress", NETWORKING, "Ingress", spec(json!({"defaultBackend": backend}))),
        ("networkpolicy", NETWORKING, "NetworkPolicy", spec(json!({"podSelector": {}}))),
        ("poddisruptionbudget", "policy/v1", "PodDisruptionBudget", budget),
        ("lease", "coordination.k8s.io/v1", "Lease", lease),
        ("endpointslice", "discovery.k8s.io/v1", "EndpointSlice", addresses),
        ("role", RBAC, "Role", json!({"rules": [rule]})),
        ("rolebinding", RBAC, "RoleBinding", json!({"roleRef": role})),
    ]
}

/// A pod that is never scheduled, and controllers that make none.
fn workloads(mark: &str) -> Vec<Made> {
    let pod = json!({
        "schedulingGates": [{"name": "test.binnacle/never"}],
        "containers": [{"name": "main", "image": format!("example.invalid/{mark}")}],
    });
    let template = json!({
        "metadata": {"labels": {"app": "no-such-app", "mark": mark}}, "spec": pod,
    });
    let selector = json!({"matchLabels": {"app": "no-such-app"}});
    let none = json!({"replicas": 0, "selector": selector, "template": template});
    let mut still = none.clone();
    still["serviceName"] = NAME.into();
    let mut old = none.clone();
    old["selector"] = json!({"app": "no-such-app"});
    let mut daemons = json!({"selector": selector, "template": template});
    daemons["template"]["spec"]["nodeSelector"] = json!({"test.binnacle/none": "none"});
    let mut once = json!({"metadata": {"labels": {"mark": mark}}, "spec": pod});
    once["spec"]["restartPolicy"] = "Never".into();
    let job = json!({"suspend": true, "template": once});
    let cron = json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": job}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME});
    let scaler = json!({"scaleTargetRef": target, "maxReplicas": 3});
    let scales = "HorizontalPodAutoscaler";
    let spec = |spec: Value| json!({ "spec": spec });
    vec![
        ("pod", "v1", "Pod", spec(pod)),
        ("replicationcontroller", "v1", "ReplicationController", spec(old)),
        ("deployment", "apps/v1", "Deployment", spec(none.clone())),
        ("replicaset", "apps/v1", "ReplicaSet", spec(none)),
        ("statefulset", "apps/v1", "StatefulSet", spec(still)),
        ("daemonset", "apps/v1", "DaemonSet", spec(daemons)),
        ("job", "batch/v1", "Job", spec(job)),
        ("cronjob", "batch/v1", "CronJob", spec(cron)),
        ("horizontalpodautoscaler", "autoscaling/v2", scales, spec(scaler)),
    ]
}
