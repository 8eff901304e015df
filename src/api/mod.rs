//! HTTP in, HTTP out: the route table on one screen, and what every handler shares.
//!
//! Rooms below know nothing of HTTP; what needs two of them is joined here.

mod caller;
mod child;
mod controller;
mod detail;
mod error;
mod join;
mod list;
mod listing;
mod openapi;
mod passthrough;
mod probes;
pub mod proxy_listen;
mod raw;
mod related;
mod respond;
mod sets;
mod target;
mod view;

use caller::Asked;
pub use caller::Callers;
pub use error::{ApiError, Fault};
pub use openapi::openapi;
pub use probes::Readiness;
pub use respond::Tags;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use compact_str::CompactString;
use http::{StatusCode, Uri};

use crate::auth::Authorizer;
use crate::cache::Cache;
use crate::i18n::Locale;
use crate::kinds::{KINDS, KindDef};
use crate::telemetry::Metrics;
use crate::upstream::{Cluster, Discovery, Tunnels, User};

/// All that handlers need; made once by `app`.
pub struct Gateway {
    pub cluster: Cluster,
    pub cache: Cache,
    pub authorizer: Authorizer,
    pub callers: Callers,
    pub discovery: Discovery,
    pub tunnels: Tunnels,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    /// Namespaces to ask about for users whom nobody can tell the namespaces.
    pub namespaces: Vec<CompactString>,
    /// How long rows of a broken watch are still served, marked as stale.
    pub away: Duration,
    pub locale: Locale,
    /// Largest request body, in bytes, of our own routes; the passthrough leaves it to the API server.
    pub max_body: usize,
    /// Empty, or with a leading and without a trailing slash.
    pub base_path: String,
    pub tags: Tags,
    /// Brings the metrics up to date with what rooms count for themselves.
    pub gauges: Box<dyn Fn(&Metrics) + Send + Sync>,
}

type Shared = State<Arc<Gateway>>;

/// The caller of one of our own routes; taking it answers 401 by itself.
pub struct Caller(pub User);

impl FromRequestParts<Arc<Gateway>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, ApiError> {
        gateway.callers.user(&Asked::of_parts(parts)).map(Caller)
    }
}

/// Every route. Lists and details follow from the kind table.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let mut contract = Router::new();
    for kind in KINDS {
        contract = kind_routes(contract, kind);
    }
    let object = get(raw::read).put(raw::replace).delete(raw::remove);
    let contract = contract
        .route("/_raw/{kind}/namespace/{namespace}/name/{name}", object.clone())
        .route("/_raw/{kind}/name/{name}", object)
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method);
    let ours = Router::new()
        .nest("/api/v1", contract)
        .route("/livez", get(probes::livez))
        .route("/healthz", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .route("/", get(probes::home))
        .route("/clusters/{cluster}", any(passthrough::passthrough))
        .route("/clusters/{cluster}/", any(passthrough::passthrough))
        .route("/clusters/{cluster}/{*path}", any(passthrough::passthrough))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(gateway.clone(), respond::observe));
    let based = match gateway.base_path.as_str() {
        "" => ours,
        // Probes of the Service come without the base path.
        base => Router::new()
            .nest(base, ours)
            .route("/livez", get(probes::livez))
            .route("/healthz", get(probes::livez))
            .route("/readyz", get(probes::readyz))
            .fallback(not_found),
    };
    let based = based.with_state(gateway.clone());
    // Before routing: the contract tolerates a trailing slash, the passthrough must not be touched.
    let base = gateway.base_path.clone();
    Router::new().fallback_service(
        tower::ServiceBuilder::new()
            .layer(map_request(move |request: Request| {
                std::future::ready(without_trailing_slash(request, &base))
            }))
            .service(based),
    )
}

fn kind_routes(router: Router<Arc<Gateway>>, kind: &'static KindDef) -> Router<Arc<Gateway>> {
    let name = kind.name;
    let list = get(move |state: Shared, caller: Caller, request: Request| {
        list::list(state, caller, kind, request)
    });
    let detail = get(move |state: Shared, caller: Caller, request: Request| {
        detail::detail(state, caller, kind, request)
    });
    let router = router.route(&format!("/{name}"), list.clone());
    let (list_path, object_path) = if kind.resource.namespaced {
        (format!("/{name}/{{namespace}}"), format!("/{name}/{{namespace}}/{{name}}"))
    } else {
        (format!("/{name}"), format!("/{name}/{{name}}"))
    };
    let mut router = router.route(&object_path, detail);
    if kind.resource.namespaced {
        router = router.route(&list_path, list);
    }
    for (segment, child) in child::children(kind) {
        let handler = get(move |state: Shared, caller: Caller, request: Request| {
            child::child(state, caller, kind, child, request)
        });
        router = router.route(&format!("{object_path}/{segment}"), handler);
    }
    router
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404: Page Not Found").into_response()
}

async fn wrong_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response()
}

fn without_trailing_slash(mut request: Request, base: &str) -> Request {
    let path = request.uri().path();
    let ours = path.strip_prefix(base).unwrap_or(path);
    if !ours.starts_with("/api/") || !ours.ends_with('/') {
        return request;
    }
    let trimmed = path.trim_end_matches('/');
    let target = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = target.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
