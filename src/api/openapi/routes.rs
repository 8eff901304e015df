//! The routes that do not follow from the kind table, as the OpenAPI document tells of them.
//!
//! It routes nothing: that is `mod.rs`, and a test holds one to the other. Types are expressions in
//! the grammar of `types.txt`.

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub id: &'static str,
    pub summary: &'static str,
    pub query: &'static [Parameter],
    /// Type of the request's body, or the content type of what is no JSON; empty: it has none.
    pub takes: &'static str,
    pub status: u16,
    pub gives: Gives,
    /// Answers besides that one and what every route may refuse.
    pub also: &'static [Answer],
    pub refuses: Refuses,
    /// Needs no credentials.
    pub is_open: bool,
    /// Made anew each time: it has no ETag.
    pub is_untagged: bool,
    /// Takes an Idempotency-Key.
    pub is_repeatable: bool,
}

/// Name, type and meaning of a query parameter.
pub type Parameter = (&'static str, &'static str, &'static str);

/// Status and meaning.
pub type Answer = (u16, &'static str);

/// What a successful answer holds.
#[derive(Debug, Clone, Copy)]
pub enum Gives {
    Nothing,
    /// JSON of this type.
    Json(&'static str),
    /// Text of this content type.
    Text(&'static str),
    /// The list of a kind, with the query that lists take.
    List(&'static str),
    /// The detail of one of a kind.
    Detail(&'static str),
}

/// How errors are worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuses {
    /// Never refused.
    Never,
    /// A sentence as text.
    Text,
    /// A `K8sError`: routes of sign-in and of the web frontend.
    Item,
    /// Kubernetes' own `Status`.
    Status,
}

const fn route(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        id,
        summary,
        query: &[],
        takes: "",
        status: 200,
        gives: Gives::Nothing,
        also: &[],
        refuses: Refuses::Text,
        is_open: false,
        is_untagged: false,
        is_repeatable: false,
    }
}

pub(crate) const fn get(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    route("get", path, id, summary)
}

pub(crate) const fn post(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    route("post", path, id, summary)
}

pub(crate) const fn put(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    route("put", path, id, summary)
}

pub(crate) const fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    route("delete", path, id, summary)
}

/// What the kind table's own routes are made of.
pub const READ: Route = get("", "", "");
pub const CHANGE: Route = put("", "", "");
pub const JOBS: &[Parameter] =
    &[("active", "bool", "Jobs with pods at work, or with false those without.")];

impl Route {
    pub(crate) const fn json(self, of: &'static str) -> Self {
        Self { gives: Gives::Json(of), ..self }
    }

    pub(crate) const fn text(self, content: &'static str) -> Self {
        Self { gives: Gives::Text(content), ..self }
    }

    pub(crate) const fn list(self, kind: &'static str) -> Self {
        Self { gives: Gives::List(kind), ..self }
    }

    const fn detail(self, kind: &'static str) -> Self {
        Self { gives: Gives::Detail(kind), ..self }
    }

    pub(crate) const fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(crate) const fn takes(self, of: &'static str) -> Self {
        Self { takes: of, ..self }
    }

    pub(crate) const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    pub(crate) const fn also(self, also: &'static [Answer]) -> Self {
        Self { also, ..self }
    }

    pub(crate) const fn untagged(self) -> Self {
        Self { is_untagged: true, ..self }
    }

    pub(crate) const fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    const fn refuses(self, refuses: Refuses) -> Self {
        Self { refuses, ..self }
    }

    const fn open(self) -> Self {
        Self { is_open: true, ..self }
    }
}

const SCALE: &[Parameter] = &[("scaleBy", "int", "The number of replicas that is wanted.")];
const DELETE: &[Parameter] = &[
    (
        "propagation",
        "\"Background\"|\"Foreground\"|\"Orphan\"",
        "What becomes of dependents; Foreground without it.",
    ),
    ("deleteNow", "bool", "Leaves a second of grace."),
];
const SEARCH: &[Parameter] = &[
    ("q", "string", "From 2 to 253 bytes of a name, a label, an image, or 8 of a uid."),
    ("namespace", "string", "One namespace, or several separated by commas."),
    ("kinds", "string", "Kinds, separated by commas; all that are kept without it."),
    ("limit", "int", "Hits in the answer, from 1 to 500; 50 without it."),
];
const VERBOSE: &[Parameter] = &[("verbose", "string", "Tells how each kind stands.")];

pub(crate) const NO_UPGRADE: Answer =
    (426, "No WebSocket is asked for, or one of another version than 13");
const HOME: &[Answer] = &[
    (303, "The token of a sign-in link is good: its cookie is set"),
    (304, "Nothing changed since the ETag sent."),
    (401, "The token of a sign-in link is not good"),
];
const UPGRADED: Answer = (101, "The API server has taken an upgrade");
const CREATED: Answer = (201, "An object was made");
const ACCEPTED: Answer = (202, "It is not done yet");
const NO_METHOD: Answer = (405, "What the path names does not take the method");
const NO_FORM: Answer = (406, "The API server has none of the forms that are accepted");
const EXPIRED: Answer = (410, "The version or the rest of a list that is asked for is gone");

/// By who offers them. The kinds' own are not here, nor those with files of their own: logs and
/// shells, releases, charts.
pub const ROUTES: &[&[Route]] =
    &[SERVER, SESSION, OBJECTS, FORMS, CUSTOM, USAGE, FRONTEND, PASSTHROUGH];

const SERVER: &[Route] = &[
    get("/", "home", "The web frontend's page; what this is where there is no frontend")
        .text("text/html")
        .also(HOME)
        .refuses(Refuses::Never)
        .open(),
    get("/livez", "livez", "Whether the process answers")
        .text("text/plain")
        .refuses(Refuses::Never)
        .open(),
    get("/healthz", "healthz", "The same as /livez")
        .text("text/plain")
        .refuses(Refuses::Never)
        .open(),
    get("/readyz", "readyz", "Whether to send requests here; 503 when not")
        .query(VERBOSE)
        .text("text/plain")
        .also(&[(503, "Not now")])
        .refuses(Refuses::Never)
        .open(),
    get(
        "/metrics",
        "metrics",
        "OpenMetrics text; needs the right to get the non-resource URL /metrics",
    )
    .text("application/openmetrics-text"),
];

const SESSION: &[Route] = &[
    get("/api/v1/csrftoken/{action}", "csrfToken", "A token for POSTs below /api/v1/{action}")
        .json("CsrfToken")
        .untagged()
        .open(),
    post("/api/v1/login", "login", "The token back when the API server knows it")
        .takes("LoginRequest")
        .json("LoginResponse")
        .refuses(Refuses::Item)
        .open(),
    get("/api/v1/me", "me", "Who the caller is").json("User").untagged().refuses(Refuses::Item),
];

const OBJECTS: &[Route] = &[
    get(
        "/api/v1/_raw/{kind}/namespace/{namespace}/name/{name}",
        "readRaw",
        "Any object as the API server has it",
    )
    .json("KubernetesObject")
    .also(&[NO_METHOD]),
    put(
        "/api/v1/_raw/{kind}/namespace/{namespace}/name/{name}",
        "replaceRaw",
        "Replaces an object; with a resourceVersion only the one of that version",
    )
    .takes("KubernetesObject")
    .status(204)
    .also(&[NO_METHOD]),
    delete(
        "/api/v1/_raw/{kind}/namespace/{namespace}/name/{name}",
        "deleteRaw",
        "Deletes an object",
    )
    .query(DELETE)
    .status(204)
    .also(&[NO_METHOD]),
    get("/api/v1/_raw/{kind}/name/{name}", "readClusterRaw", "The same without a namespace")
        .json("KubernetesObject")
        .also(&[NO_METHOD]),
    put("/api/v1/_raw/{kind}/name/{name}", "replaceClusterRaw", "The same without a namespace")
        .takes("KubernetesObject")
        .status(204)
        .also(&[NO_METHOD]),
    delete("/api/v1/_raw/{kind}/name/{name}", "deleteClusterRaw", "The same without a namespace")
        .query(DELETE)
        .status(204)
        .also(&[NO_METHOD]),
    get("/api/v1/scale/{kind}/{namespace}/{name}", "readScale", "Replicas wanted and there")
        .json("ReplicaCounts"),
    put("/api/v1/scale/{kind}/{namespace}/{name}", "setScale", "Sets the replicas wanted")
        .query(SCALE)
        .json("ReplicaCounts"),
    get("/api/v1/scale/{kind}/{name}", "readClusterScale", "The same without a namespace")
        .json("ReplicaCounts"),
    put("/api/v1/scale/{kind}/{name}", "setClusterScale", "The same without a namespace")
        .query(SCALE)
        .json("ReplicaCounts"),
    post(
        "/api/v1/replicationcontroller/{namespace}/{name}/update/pod",
        "updateReplicationControllerPods",
        "Sets the replicas of a replication controller",
    )
    .takes("ReplicationControllerSpec")
    .status(202),
    get(
        "/api/v1/persistentvolume/namespace/{namespace}/name/{name}",
        "getPersistentVolumeByNamespace",
        "One of the persistentvolumes; the namespace means nothing",
    )
    .detail("persistentvolume"),
    put("/api/v1/node/{name}/drain", "drainNode", "Cordons a node and evicts its pods")
        .takes("NodeDrainSpec")
        .status(202),
    put("/api/v1/node/{name}/cordon", "cordonNode", "No new pods for a node").status(204),
    put("/api/v1/node/{name}/uncordon", "uncordonNode", "New pods for a node again").status(204),
    get("/api/v1/stream", "stream", "Many live answers over one WebSocket, each by an id")
        .status(101)
        .also(&[NO_UPGRADE]),
    get("/api/v1/overview", "overview", "The start page in one answer").json("Overview"),
    get("/api/v1/overview/{namespace}", "overviewIn", "The start page of some namespaces")
        .json("Overview"),
    get("/api/v1/search", "search", "Objects of all kinds by name, label, image and uid")
        .query(SEARCH)
        .json("SearchResult"),
];

const FORMS: &[Route] = &[
    post("/api/v1/appdeployment", "deploy", "A deployment and, with ports, a service")
        .takes("AppDeploymentSpec")
        .status(201)
        .json("AppDeploymentSpec"),
    post("/api/v1/appdeploymentfromfile", "deployFromFile", "All objects of a file, or none")
        .takes("AppDeploymentFromFileSpec")
        .status(201)
        .json("AppDeploymentFromFileResponse"),
    get("/api/v1/appdeployment/protocols", "protocols", "Protocols of ports")
        .json("Protocols")
        .untagged()
        .refuses(Refuses::Never)
        .open(),
    post("/api/v1/appdeployment/validate/name", "validateName", "Whether a name is free")
        .takes("AppNameSpec")
        .json("Validity"),
    post(
        "/api/v1/appdeployment/validate/imagereference",
        "validateImageReference",
        "Whether this is the reference of an image",
    )
    .takes("ImageReferenceSpec")
    .json("ImageReferenceValidity")
    .open(),
    post(
        "/api/v1/appdeployment/validate/protocol",
        "validateProtocol",
        "Whether a service can have this protocol",
    )
    .takes("ProtocolSpec")
    .json("Validity")
    .open(),
    post("/api/v1/namespace", "createNamespace", "Creates a namespace")
        .takes("NamespaceSpec")
        .status(201)
        .json("NamespaceSpec"),
    post("/api/v1/secret", "createPullSecret", "Creates a secret for pulling images")
        .takes("ImagePullSecretSpec")
        .status(201)
        .json("Secret"),
];

const CUSTOM: &[Route] = &[
    get(
        "/api/v1/crd/{namespace}/{crd}/object",
        "listCustomObject",
        "The objects of a custom kind, with the columns that the API server prints",
    )
    .list("customobject"),
    get("/api/v1/crd/{namespace}/{crd}/{name}", "getCustomObject", "One object of a custom kind")
        .json("CustomResourceObjectDetail"),
    get("/api/v1/crd/{namespace}/{crd}/{name}/event", "listCustomObjectEvent", "Events about it")
        .list("event"),
];

const USAGE: &[Route] = &[
    get("/api/v1/metrics/pod/{namespace}/{name}", "podUsage", "Usage of a pod").json("Usage"),
    get("/api/v1/metrics/node/{name}", "nodeUsage", "Usage of a node").json("Usage"),
    get("/api/v1/metrics/namespace/{namespace}", "namespaceUsage", "Usage of a namespace's pods")
        .json("Usage"),
    get(
        "/api/v1/integration/{name}/state",
        "integrationState",
        "Whether the source of usage answers",
    )
    .json("IntegrationState"),
];

const FRONTEND: &[Route] = &[
    get("/config", "config", "The server's clock and version")
        .json("AppConfig")
        .untagged()
        .refuses(Refuses::Never)
        .open(),
    get("/systembanner", "systemBanner", "A message for every page; an empty one is none")
        .json("SystemBanner")
        .untagged()
        .refuses(Refuses::Never)
        .open(),
    get("/settings", "settings", "The settings of all users")
        .json("Settings")
        .refuses(Refuses::Item)
        .open(),
    put("/settings", "changeSettings", "409 when the caller has not seen the latest ones")
        .takes("SettingsChange")
        .status(204)
        .refuses(Refuses::Item),
    get("/settings/cani", "maySettings", "Whether the caller may read the settings' ConfigMap")
        .json("CanIResponse")
        .untagged()
        .refuses(Refuses::Item)
        .open(),
    get("/settings/pinnedresources", "pinnedResources", "What the frontend's menu shows")
        .json("PinnedResource[]")
        .refuses(Refuses::Item)
        .open(),
    put("/settings/pinnedresources", "pinResource", "One more in the frontend's menu")
        .takes("PinnedResourceSpec")
        .status(204)
        .refuses(Refuses::Item),
    get("/settings/pinnedresources/cani", "mayPinnedResources", "The same as /settings/cani")
        .json("CanIResponse")
        .untagged()
        .refuses(Refuses::Item)
        .open(),
    delete("/settings/pinnedresources/{kind}/{name}", "unpinClusterResource", "One less")
        .status(204)
        .refuses(Refuses::Item),
    delete("/settings/pinnedresources/{kind}/{namespace}/{name}", "unpinResource", "One less")
        .status(204)
        .refuses(Refuses::Item),
];

const AS_CALLER: &str = "The Kubernetes API itself, as the caller, upgrades included";

const PASSTHROUGH: &[Route] = &[
    get("/clusters/{cluster}/{path}", "passGet", AS_CALLER)
        .json("KubernetesObject")
        .also(&[UPGRADED, NO_METHOD, NO_FORM, EXPIRED])
        .untagged()
        .refuses(Refuses::Status),
    post("/clusters/{cluster}/{path}", "passPost", AS_CALLER)
        .takes("KubernetesObject")
        .json("KubernetesObject")
        .also(&[UPGRADED, CREATED, ACCEPTED, NO_METHOD, NO_FORM])
        .refuses(Refuses::Status),
    put("/clusters/{cluster}/{path}", "passPut", AS_CALLER)
        .takes("KubernetesObject")
        .json("KubernetesObject")
        .also(&[CREATED, NO_METHOD, NO_FORM])
        .refuses(Refuses::Status),
    route("patch", "/clusters/{cluster}/{path}", "passPatch", AS_CALLER)
        .takes("any")
        .json("KubernetesObject")
        .also(&[CREATED, NO_METHOD, NO_FORM])
        .refuses(Refuses::Status),
    delete("/clusters/{cluster}/{path}", "passDelete", AS_CALLER)
        .json("KubernetesObject")
        .also(&[ACCEPTED, NO_METHOD, NO_FORM, EXPIRED])
        .refuses(Refuses::Status),
];
