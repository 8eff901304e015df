//! What `schemas.rs` puts into the path of each GET operation, what it makes for them to show, and
//! what is left out with which reason. A new operation is a line here.

/// The release, the repository and the chart in it that the tests make.
pub const RELEASE: &str = "bloom";
pub const REPOSITORY: &str = "garden";
pub const CHART: &str = "rose";
pub const VERSION: &str = "1.0.0";

/// Start of the path, parameter, value; the first line that fits is taken. A `name` beneath a kind
/// comes from [`OBJECTS`]. `SPACE`, `POD`, `SET`, `EVENT`, `NODE` and `OPERATION` are names of this
/// run.
pub const VALUES: &[(&str, &str, &str)] = &[
    ("/", "namespace", "SPACE"),
    ("/api/v1/csrftoken/", "action", "namespace"),
    ("/api/v1/_raw/{kind}/namespace/", "kind", "configmap"),
    ("/api/v1/_raw/{kind}/namespace/", "name", "settings"),
    ("/api/v1/_raw/", "kind", "node"),
    ("/api/v1/_raw/", "name", "NODE"),
    ("/api/v1/scale/{kind}/{namespace}/", "kind", "deployment"),
    ("/api/v1/scale/{kind}/{namespace}/", "name", "tiles"),
    ("/api/v1/scale/", "kind", "node"),
    ("/api/v1/scale/", "name", "NODE"),
    ("/api/v1/crd/{namespace}/", "crd", "widgets.SPACE.example.com"),
    ("/api/v1/crd/{namespace}/", "name", "big-one"),
    ("/api/v1/log/follow/", "kind", "deployment"),
    ("/api/v1/log/follow/", "name", "tiles"),
    ("/api/v1/log/source/", "kind", "deployment"),
    ("/api/v1/log/source/", "name", "tiles"),
    ("/api/v1/log/", "pod", "POD"),
    ("/api/v1/log/", "container", "main"),
    ("/api/v1/pod/{namespace}/{name}/shell/", "container", "main"),
    ("/api/v1/pod/{namespace}/{name}/portforward/", "port", "80"),
    ("/api/v1/metrics/pod/", "name", "POD"),
    ("/api/v1/metrics/node/", "name", "NODE"),
    ("/api/v1/integration/", "name", "sidecar"),
    ("/api/v1/release/", "name", RELEASE),
    ("/api/v1/operation/", "id", "OPERATION"),
    ("/api/v1/repository/", "name", REPOSITORY),
    ("/api/v1/chart/", "repository", REPOSITORY),
    ("/api/v1/chart/", "name", CHART),
    ("/api/v1/chart/", "version", VERSION),
    ("/settings/pinnedresources/", "kind", "deployment"),
    ("/settings/pinnedresources/", "name", "tiles"),
    ("/clusters/", "cluster", "test"),
    ("/clusters/", "path", "api/v1/namespaces/SPACE/configmaps"),
];

/// Contract name of a kind, and an object of it that there is.
pub const OBJECTS: &[(&str, &str)] = &[
    ("apiservice", "v1.apps"),
    ("clusterrole", "SPACE-viewer"),
    ("clusterrolebinding", "SPACE-viewers"),
    ("configmap", "settings"),
    ("crd", "widgets.SPACE.example.com"),
    ("cronjob", "nightly"),
    ("csidriver", "SPACE.csi.test"),
    ("csinode", "SPACE-node"),
    ("csistoragecapacity", "capacity"),
    ("daemonset", "agent"),
    ("deployment", "tiles"),
    ("endpointslice", "slice"),
    ("event", "EVENT"),
    ("gateway", "front"),
    ("gatewayclass", "SPACE"),
    ("grpcroute", "rpc"),
    ("horizontalpodautoscaler", "tiles"),
    ("httproute", "shop"),
    ("ingress", "tiles"),
    ("ingressclass", "SPACE-edge"),
    ("job", "import"),
    ("lease", "lease"),
    ("limitrange", "limits"),
    ("mutatingwebhookconfiguration", "SPACE-inject"),
    ("namespace", "SPACE"),
    ("networkpolicy", "deny"),
    ("node", "NODE"),
    ("persistentvolume", "SPACE-vol-1"),
    ("persistentvolumeclaim", "data"),
    ("pod", "POD"),
    ("poddisruptionbudget", "tiles"),
    ("priorityclass", "SPACE-high"),
    ("referencegrant", "grant"),
    ("replicaset", "SET"),
    ("replicationcontroller", "legacy"),
    ("resourcequota", "quota"),
    ("role", "reader"),
    ("rolebinding", "readers"),
    ("runtimeclass", "SPACE-kata"),
    ("secret", "api-key"),
    ("service", "tiles"),
    ("serviceaccount", "tiles"),
    ("statefulset", "store"),
    ("storageclass", "SPACE-fast"),
    ("tlsroute", "db"),
    ("validatingwebhookconfiguration", "SPACE-guard"),
    ("volumeattachment", "SPACE-attachment"),
];

/// Path, query. What an operation does not answer without, or with what others make.
pub const QUERIES: &[(&str, &str)] = &[
    ("/api/v1/search", "q=tiles"),
    ("/api/v1/release", "filterBy=namespace,SPACE"),
    ("/api/v1/pod/{namespace}/{name}/exec", "container=main&command=true"),
];

/// Path, status, reason. What cannot be answered with 200 here.
pub const STATUSES: &[(&str, u16, &str)] = &[
    ("/api/v1/scale/{kind}/{name}", 404, "every kind with a scale has namespaces"),
    ("/api/v1/repository/test", 404, "no repository is called so"),
    ("/api/v1/stream", 426, "a WebSocket; live.rs speaks it"),
    ("/api/v1/pod/{namespace}/{name}/exec", 426, "a WebSocket; terminals.rs speaks it"),
    ("/api/v1/pod/{namespace}/{name}/attach", 426, "the same"),
    ("/api/v1/pod/{namespace}/{name}/portforward/{port}", 426, "the same"),
];

/// Path, content type, reason. What is answered with another content type here.
pub const CONTENTS: &[(&str, &str, &str)] = &[
    ("/", "text/plain", "no frontend is installed"),
    ("/api/v1/chart/{repository}/{name}/{version}/icon", "image/svg+xml", "what this one is"),
];

/// Paths of the router that the document has no use for, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("/api/sockjs", "SockJS has a protocol of its own; shells.rs speaks it"),
    ("/api/sockjs/{rest}", "the same"),
];

/// Reads without an end: `log_streams.rs` reads them.
pub const ENDLESS: &[&str] = &[
    "/api/v1/log/{namespace}/{pod}/{container}/follow",
    "/api/v1/log/follow/{kind}/{namespace}/{name}",
];

/// What `tests/contract` has no object of.
pub const FURTHER: &str = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: slice, namespace: SPACE, labels: {kubernetes.io/service-name: tiles}}
addressType: IPv4
ports: [{name: http, port: 80, protocol: TCP}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, nodeName: node-0}]
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
  clientConfig: {url: "https://inject.example.com"}
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [none]}]
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: SPACE-kata}
handler: kata
overhead: {podFixed: {cpu: 250m}}
scheduling: {nodeSelector: {disk: none}, tolerations: [{key: kata, operator: Exists}]}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: SPACE-attachment}
spec: {attacher: csi.example.com, nodeName: none, source: {persistentVolumeName: none}}
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: SPACE.csi.test}
spec: {attachRequired: false, storageCapacity: true, tokenRequests: [{audience: vault}]}
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
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: SPACE}
spec: {controllerName: example.com/c, description: for tests}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: SPACE}
spec: {gatewayClassName: SPACE, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: SPACE}
spec:
  hostnames: [shop.example.com]
  parentRefs: [{name: front, sectionName: http}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: public, port: 80}}}]
    backendRefs: [{name: tiles, port: 80, weight: 9}, {name: gone, namespace: default, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc, namespace: SPACE}
spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: tiles, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: db, namespace: SPACE}
spec:
  hostnames: [db.example.com]
  parentRefs: [{name: front}]
  rules: [{backendRefs: [{name: tiles, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: SPACE}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service}]
"#;
