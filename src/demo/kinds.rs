//! The one table of kinds that the demo API serves: discovery, paths, selectors and the store
//! follow from it.
//!
//! It holds no schemas: an object is any JSON with a name.

/// How requests for a kind are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serve {
    /// From the store, all verbs.
    Stored,
    /// Answered when posted, never kept.
    Review,
    /// Made up from the stored pods and nodes when read.
    Metrics,
}

/// One kind of the API.
#[derive(Debug)]
pub(super) struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub short: &'static [&'static str],
    pub namespaced: bool,
    pub serve: Serve,
    /// JSON paths a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub fields: &'static [&'static str],
    /// Subresources that discovery shows.
    pub subresources: &'static [&'static str],
}

impl Kind {
    const fn new(
        api: (&'static str, &'static str),
        kind: &'static str,
        plural: &'static str,
        short: &'static [&'static str],
    ) -> Kind {
        Kind {
            group: api.0,
            version: api.1,
            kind,
            plural,
            short,
            namespaced: true,
            serve: Serve::Stored,
            fields: &[],
            subresources: &[],
        }
    }

    const fn cluster(mut self) -> Kind {
        self.namespaced = false;
        self
    }

    const fn served(mut self, serve: Serve) -> Kind {
        self.serve = serve;
        self
    }

    const fn fields(mut self, fields: &'static [&'static str]) -> Kind {
        self.fields = fields;
        self
    }

    const fn subresources(mut self, subresources: &'static [&'static str]) -> Kind {
        self.subresources = subresources;
        self
    }

    /// `v1`, or `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The name in messages: `pods`, or `deployments.apps`.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The verbs discovery shows.
    pub(super) fn verbs(&self) -> &'static [&'static str] {
        match self.serve {
            Serve::Stored => {
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            }
            Serve::Review => &["create"],
            Serve::Metrics => &["get", "list"],
        }
    }

    pub(super) fn has_subresource(&self, name: &str) -> bool {
        self.subresources.contains(&name)
    }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
const STORAGE: (&str, &str) = ("storage.k8s.io", "v1");
const ADMISSION: (&str, &str) = ("admissionregistration.k8s.io", "v1");
const GATEWAYS: (&str, &str) = ("gateway.networking.k8s.io", "v1");
const AUTHORIZATION: (&str, &str) = ("authorization.k8s.io", "v1");
const METRICS: (&str, &str) = ("metrics.k8s.io", "v1beta1");

macro_rules! kinds {
    ($($id:ident = $kind:expr;)*) => {
        $(pub(super) static $id: Kind = $kind;)*
        /// Every kind, in the order of discovery.
        pub(super) static KINDS: &[&Kind] = &[$(&$id),*];
    };
}

kinds! {
    POD = Kind::new(CORE, "Pod", "pods", &["po"])
        .fields(&["spec.nodeName", "spec.serviceAccountName", "status.phase", "status.podIP"])
        .subresources(&["status", "log", "exec", "eviction"]);
    NAMESPACE = Kind::new(CORE, "Namespace", "namespaces", &["ns"])
        .cluster()
        .fields(&["status.phase"])
        .subresources(&["status"]);
    NODE = Kind::new(CORE, "Node", "nodes", &["no"])
        .cluster()
        .fields(&["spec.unschedulable"])
        .subresources(&["status"]);
    EVENT = Kind::new(CORE, "Event", "events", &["ev"]).fields(&[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "reason",
        "type",
    ]);
    SERVICE = Kind::new(CORE, "Service", "services", &["svc"]).subresources(&["status"]);
    CONFIG_MAP = Kind::new(CORE, "ConfigMap", "configmaps", &["cm"]);
    SECRET = Kind::new(CORE, "Secret", "secrets", &[]).fields(&["type"]);
    ENDPOINTS = Kind::new(CORE, "Endpoints", "endpoints", &["ep"]);
    SERVICE_ACCOUNT = Kind::new(CORE, "ServiceAccount", "serviceaccounts", &["sa"]);
    VOLUME = Kind::new(CORE, "PersistentVolume", "persistentvolumes", &["pv"])
        .cluster()
        .subresources(&["status"]);
    CLAIM = Kind::new(CORE, "PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"])
        .subresources(&["status"]);
    REPLICATION_CONTROLLER =
        Kind::new(CORE, "ReplicationController", "replicationcontrollers", &["rc"])
            .subresources(&["status", "scale"]);
    LIMIT_RANGE = Kind::new(CORE, "LimitRange", "limitranges", &["limits"]);
    RESOURCE_QUOTA = Kind::new(CORE, "ResourceQuota", "resourcequotas", &["quota"])
        .subresources(&["status"]);
    DEPLOYMENT = Kind::new(APPS, "Deployment", "deployments", &["deploy"])
        .subresources(&["status", "scale"]);
    REPLICA_SET = Kind::new(APPS, "ReplicaSet", "replicasets", &["rs"])
        .subresources(&["status", "scale"]);
    DAEMON_SET = Kind::new(APPS, "DaemonSet", "daemonsets", &["ds"]).subresources(&["status"]);
    STATEFUL_SET = Kind::new(APPS, "StatefulSet", "statefulsets", &["sts"])
        .subresources(&["status", "scale"]);
    JOB = Kind::new(BATCH, "Job", "jobs", &[]).subresources(&["status"]);
    CRON_JOB = Kind::new(BATCH, "CronJob", "cronjobs", &["cj"]).subresources(&["status"]);
    INGRESS = Kind::new(NETWORKING, "Ingress", "ingresses", &["ing"]).subresources(&["status"]);
    INGRESS_CLASS = Kind::new(NETWORKING, "IngressClass", "ingressclasses", &[]).cluster();
    NETWORK_POLICY = Kind::new(NETWORKING, "NetworkPolicy", "networkpolicies", &["netpol"]);
    ROLE = Kind::new(RBAC, "Role", "roles", &[]);
    ROLE_BINDING = Kind::new(RBAC, "RoleBinding", "rolebindings", &[]);
    CLUSTER_ROLE = Kind::new(RBAC, "ClusterRole", "clusterroles", &[]).cluster();
    CLUSTER_ROLE_BINDING =
        Kind::new(RBAC, "ClusterRoleBinding", "clusterrolebindings", &[]).cluster();
    STORAGE_CLASS = Kind::new(STORAGE, "StorageClass", "storageclasses", &["sc"]).cluster();
    CSI_DRIVER = Kind::new(STORAGE, "CSIDriver", "csidrivers", &[]).cluster();
    CSI_NODE = Kind::new(STORAGE, "CSINode", "csinodes", &[]).cluster();
    CSI_CAPACITY = Kind::new(STORAGE, "CSIStorageCapacity", "csistoragecapacities", &[]);
    ATTACHMENT = Kind::new(STORAGE, "VolumeAttachment", "volumeattachments", &[])
        .cluster()
        .subresources(&["status"]);
    AUTOSCALER = Kind::new(
        ("autoscaling", "v2"),
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        &["hpa"],
    )
    .subresources(&["status"]);
    DISRUPTION_BUDGET =
        Kind::new(("policy", "v1"), "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"])
            .subresources(&["status"]);
    ENDPOINT_SLICE = Kind::new(("discovery.k8s.io", "v1"), "EndpointSlice", "endpointslices", &[]);
    CUSTOM_RESOURCE = Kind::new(
        ("apiextensions.k8s.io", "v1"),
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd"],
    )
    .cluster();
    API_SERVICE =
        Kind::new(("apiregistration.k8s.io", "v1"), "APIService", "apiservices", &[]).cluster();
    MUTATING = Kind::new(
        ADMISSION,
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        &[],
    )
    .cluster();
    VALIDATING = Kind::new(
        ADMISSION,
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        &[],
    )
    .cluster();
    LEASE = Kind::new(("coordination.k8s.io", "v1"), "Lease", "leases", &[]);
    PRIORITY_CLASS =
        Kind::new(("scheduling.k8s.io", "v1"), "PriorityClass", "priorityclasses", &["pc"])
            .cluster();
    RUNTIME_CLASS =
        Kind::new(("node.k8s.io", "v1"), "RuntimeClass", "runtimeclasses", &[]).cluster();
    // What definitions make: these must stand here as well as in `orchard.yaml`.
    GATEWAY_CLASS = Kind::new(GATEWAYS, "GatewayClass", "gatewayclasses", &["gc"])
        .cluster()
        .subresources(&["status"]);
    GATEWAY = Kind::new(GATEWAYS, "Gateway", "gateways", &["gtw"]).subresources(&["status"]);
    HTTP_ROUTE = Kind::new(GATEWAYS, "HTTPRoute", "httproutes", &[]).subresources(&["status"]);
    GRPC_ROUTE = Kind::new(GATEWAYS, "GRPCRoute", "grpcroutes", &[]).subresources(&["status"]);
    TLS_ROUTE = Kind::new(GATEWAYS, "TLSRoute", "tlsroutes", &[]).subresources(&["status"]);
    REFERENCE_GRANT = Kind::new(GATEWAYS, "ReferenceGrant", "referencegrants", &["refgrant"]);
    TREE = Kind::new(("orchard.example.com", "v1"), "Tree", "trees", &[])
        .subresources(&["status"]);
    ACCESS_REVIEW =
        Kind::new(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews", &[])
            .cluster()
            .served(Serve::Review);
    RULES_REVIEW =
        Kind::new(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews", &[])
            .cluster()
            .served(Serve::Review);
    SUBJECT_REVIEW = Kind::new(
        ("authentication.k8s.io", "v1"),
        "SelfSubjectReview",
        "selfsubjectreviews",
        &[],
    )
    .cluster()
    .served(Serve::Review);
    NODE_METRICS =
        Kind::new(METRICS, "NodeMetrics", "nodes", &[]).cluster().served(Serve::Metrics);
    POD_METRICS = Kind::new(METRICS, "PodMetrics", "pods", &[]).served(Serve::Metrics);
}

/// The kind at `/apis/{group}/{version}/{plural}`; the core group is empty.
pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .copied()
        .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The first stored kind of this plural name, whatever its group.
pub(super) fn stored(plural: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.serve == Serve::Stored && kind.plural == plural)
}
