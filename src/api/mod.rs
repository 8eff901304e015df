//! HTTP in, HTTP out: the route table on one screen, and what every handler shares.
//!
//! Rooms below know nothing of HTTP; what needs two of them is joined here.

mod actions;
mod body;
mod caller;
mod chart;
mod chart_upload;
mod charts;
mod child;
mod config_page;
mod controller;
mod cookie_path;
mod crd;
mod create;
mod csrf;
mod deploy;
mod deploy_file;
mod detail;
mod drain;
mod drain_pods;
mod error;
mod exec;
mod forward;
mod front;
mod gateways;
pub mod helm_door;
mod join;
mod kept;
mod list;
mod listing;
mod live;
mod live_diff;
mod live_held;
mod live_hub;
mod log_follow;
pub(crate) mod log_lines;
mod log_merge;
mod log_source;
mod log_source_end;
mod log_source_filter;
pub(crate) mod log_stream;
mod logs;
mod metrics;
mod openapi;
mod openapi_charts;
mod openapi_releases;
mod openapi_routes;
mod openapi_streams;
mod openapi_types;
mod operation;
mod overview;
mod own_namespaces;
mod passthrough;
mod pinned;
mod probes;
pub mod proxy_listen;
mod raw;
mod related;
mod release;
mod release_dry;
mod release_plan;
mod release_preview;
mod release_protect;
mod release_resources;
mod release_run;
mod release_unlock;
mod release_urls;
mod release_write;
mod releases;
mod repositories;
mod repository_write;
mod respond;
mod scale;
mod search;
mod session;
mod sets;
mod settings;
mod shell;
mod shell_session;
mod shell_talk;
mod sockjs;
pub(crate) mod sockjs_frames;
mod sockjs_polling;
mod statics;
mod stream;
mod target;
mod terminal;
mod terminal_record;
mod usage;
mod validate;
mod view;
mod websocket;
mod written;

use caller::Asked;
pub use caller::Callers;
pub use config_page::{Banner, Severity};
pub use csrf::Csrf;
pub use error::{ApiError, Fault};
pub use front::Front;
pub use kept::Kept;
pub use live_held::Answers;
use live_hub::Live;
pub use live_hub::{Pace, Streams};
pub use log_follow::{Follows, Limits as FollowLimits};
pub use openapi::openapi;
pub use probes::Readiness;
pub use respond::Tags;
pub use session::Names;
pub use settings::SettingsMap;
pub use shell::Shells;
pub use statics::Statics;
pub use terminal::Limits as TerminalLimits;
pub use view::LiveLists;
pub use written::Writes;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, delete, get, post, put};
use compact_str::CompactString;
use http::{StatusCode, Uri};

use crate::auth::Authorizer;
use crate::cache::{Cache, Usage};
use crate::charts::Policy;
use crate::charts::refresh::Refresher;
use crate::charts::repositories::Repositories;
use crate::charts::store::Store;
use crate::helm::Helm;
use crate::i18n::Locale;
use crate::kinds::KindDef;
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
    pub writes: Writes,
    pub live: LiveLists,
    /// Pages that need not be made again.
    pub kept: Kept,
    /// Long answers that are not taken yet.
    pub answers: Answers,
    /// Live answers: their places and what they share.
    pub streams: Streams,
    pub terminals: TerminalLimits,
    /// Shells that are open.
    pub shells: Shells,
    /// Logs that are followed.
    pub follows: Follows,
    pub usage: Arc<Usage>,
    pub helm: Helm,
    /// Where charts may be fetched from.
    pub charts: Policy,
    /// Repositories of charts and what is in them.
    pub catalogues: Repositories,
    pub refresher: Refresher,
    /// Archives and icons of charts.
    pub store: Store,
    pub csrf: Csrf,
    pub names: Names,
    pub settings: SettingsMap,
    pub banner: Banner,
    /// The web frontend's files, if there are any.
    pub statics: Option<Statics>,
    /// Brings the metrics up to date with what rooms count for themselves.
    pub gauges: Box<dyn Fn(&Metrics) + Send + Sync>,
}

type Shared = State<Arc<Gateway>>;

/// The caller of one of our own routes; taking it answers 401 by itself.
#[derive(Clone)]
pub struct Caller(pub User);

impl FromRequestParts<Arc<Gateway>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, ApiError> {
        // Ours alone: no request from outside brings extensions.
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        Self::of(gateway, &Asked::of_parts(parts))
    }
}

impl Caller {
    fn of(gateway: &Gateway, asked: &Asked<'_>) -> Result<Self, ApiError> {
        let user = gateway.callers.user(asked)?;
        gateway.writes.hear(&user, asked.headers);
        Ok(Self(user))
    }
}

/// Where the contract's routes stand, behind the base path.
const CONTRACT: &str = "/api/v1";

/// Every route but the passthrough, which is `front`'s. Lists and details follow from the kind table.
fn router(gateway: Arc<Gateway>) -> Router {
    let Reads { router: reads, templates } = reads();
    let live = Live::new(gateway.clone(), reads.clone().with_state(gateway.clone()), templates);
    let ours = Router::new()
        .nest(CONTRACT, contract(&gateway, reads, live.clone()))
        .merge(web(&gateway))
        .route(sockjs::PREFIX, any(sockjs::serve))
        .route("/api/sockjs/{*rest}", any(sockjs::serve))
        .route("/livez", get(probes::livez))
        .route("/healthz", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .route("/", get(statics::serve))
        .fallback(statics::serve)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::new(live), respond::observe));
    let based = match gateway.base_path.as_str() {
        "" => ours,
        // Probes of the Service come without the base path. The frontend's own probe needs a 404
        // everywhere outside of it.
        base => Router::new()
            .nest(base, ours)
            // Nesting serves the base path without a slash alone.
            .route(&format!("{base}/"), get(statics::serve))
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

/// `/api/v1`: the contract's routes and what goes beyond it in the same way.
fn contract(
    gateway: &Arc<Gateway>,
    reads: Router<Arc<Gateway>>,
    live: Live,
) -> Router<Arc<Gateway>> {
    let guard = from_fn_with_state(gateway.clone(), csrf::guard);
    let items = from_fn_with_state(gateway.clone(), session::as_items);
    let stream = move |caller: Caller, request: Request| stream::serve(live, caller, request);
    reads
        .route("/stream", get(stream.clone()).connect(stream))
        .route("/csrftoken/{action}", get(csrf::issue))
        .route("/login", post(session::login).route_layer(guard.clone()).layer(items.clone()))
        .route("/me", get(session::me).layer(items))
        .route("/appdeployment", post(deploy::deploy).route_layer(guard.clone()))
        .route("/appdeployment/protocols", get(validate::protocols))
        .route("/appdeployment/validate/name", post(validate::name))
        .route("/appdeployment/validate/imagereference", post(validate::reference))
        .route("/appdeployment/validate/protocol", post(validate::protocol))
        .route("/appdeploymentfromfile", post(deploy_file::deploy).route_layer(guard.clone()))
        .route("/namespace", post(create::namespace).route_layer(guard.clone()))
        .route("/secret", post(create::pull_secret).route_layer(guard.clone()))
        .route(
            "/replicationcontroller/{namespace}/{name}/update/pod",
            post(actions::update_pods).route_layer(guard),
        )
        .route("/node/{name}/cordon", put(drain::cordon))
        .route("/node/{name}/uncordon", put(drain::cordon))
        .route("/node/{name}/drain", put(drain::drain))
        .route("/pod/{namespace}/{name}/shell/{container}", get(shell::open))
        .route("/pod/{namespace}/{name}/exec", get(exec::exec).connect(exec::exec))
        .route("/pod/{namespace}/{name}/attach", get(exec::attach).connect(exec::attach))
        .route(
            "/pod/{namespace}/{name}/portforward/{port}",
            get(forward::forward).connect(forward::forward),
        )
        .route("/log/source/{namespace}/{name}/{kind}", get(logs::sources))
        .route("/log/file/{namespace}/{pod}/{container}", get(logs::file))
        .route(
            "/log/follow/{kind}/{namespace}/{name}",
            get(log_merge::follow).connect(log_merge::follow),
        )
        .route(
            "/log/{namespace}/{pod}/{container}/follow",
            get(log_follow::follow).connect(log_follow::follow),
        )
        .route("/log/{namespace}/{pod}", get(logs::window))
        .route("/log/{namespace}/{pod}/{container}", get(logs::window))
        .route("/integration/{name}/state", get(metrics::state))
        .merge(releases())
        .merge(catalogue())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
}

/// Releases and what changes them.
fn releases() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/release/{namespace}", post(release_write::install))
        .route(
            "/release/{namespace}/{name}",
            get(release::detail).put(release_write::upgrade).delete(release_write::uninstall),
        )
        .route("/release/{namespace}/{name}/history", get(release::history))
        .route("/release/{namespace}/{name}/values", get(release::values))
        .route("/release/{namespace}/{name}/manifest", get(release::manifest))
        .route("/release/{namespace}/{name}/notes", get(release::notes))
        .route("/release/{namespace}/{name}/hooks", get(release::hooks))
        .route("/release/{namespace}/{name}/chart", get(release::chart))
        .route("/release/{namespace}/{name}/resource", get(release_resources::resources))
        .route("/release/{namespace}/{name}/pod", get(release_resources::pods))
        .route("/release/{namespace}/{name}/rollback", post(release_write::rollback))
        .route("/release/{namespace}/{name}/test", post(release_write::test))
        .route("/release/{namespace}/{name}/preview", post(release_preview::preview))
        .route("/release/{namespace}/{name}/unlock", post(release_unlock::unlock))
        .route("/release/{namespace}/{name}/protect", put(release_protect::protect))
        .route("/release/{namespace}/{name}/unprotect", put(release_protect::unprotect))
        .route("/operation/{namespace}/{id}", get(operation::read).delete(operation::cancel))
}

/// Charts and where they come from.
fn catalogue() -> Router<Arc<Gateway>> {
    let repository =
        get(repositories::one).put(repository_write::replace).delete(repository_write::remove);
    Router::new()
        .route("/repository", get(repositories::list).post(repository_write::create))
        // A repository may be called so.
        .route("/repository/test", repository.clone().post(repository_write::test))
        .route("/repository/{name}", repository)
        .route("/repository/{name}/refresh", post(repositories::refresh))
        .route("/chart", get(charts::list))
        .route("/chart/{repository}", post(chart_upload::upload))
        .route("/chart/{repository}/{name}", get(charts::one))
        .route(
            "/chart/{repository}/{name}/{version}",
            get(chart::detail).delete(chart_upload::delete),
        )
        .route("/chart/{repository}/{name}/{version}/icon", get(chart::icon))
        .route("/chart/{repository}/{name}/{version}/archive", get(chart::archive))
        .route("/chart/{repository}/{name}/{version}/provenance", put(chart_upload::sign))
}

/// Those of them that merge or show objects: their GETs may be live.
#[derive(Default)]
struct Reads {
    router: Router<Arc<Gateway>>,
    templates: HashSet<String>,
}

impl Reads {
    fn route(mut self, template: &str, answers: MethodRouter<Arc<Gateway>>) -> Self {
        self.templates.insert(template.to_owned());
        self.router = self.router.route(template, answers);
        self
    }
}

fn reads() -> Reads {
    let mut reads = Reads::default();
    for kind in openapi::shown() {
        reads = kind_routes(reads, kind);
    }
    let object = get(raw::read).put(raw::replace).delete(raw::remove);
    let scale = get(scale::read).put(scale::replace);
    reads
        .route("/_raw/{kind}/namespace/{namespace}/name/{name}", object.clone())
        .route("/_raw/{kind}/name/{name}", object)
        .route("/scale/{kind}/{namespace}/{name}", scale.clone())
        .route("/scale/{kind}/{name}", scale)
        .route("/persistentvolume/namespace/{namespace}/name/{name}", get(volume_by_odd_path))
        .route("/release", get(releases::list))
        .route("/release/{namespace}", get(releases::list))
        .route("/overview", get(overview::overview))
        .route("/overview/{namespace}", get(overview::overview))
        .route("/search", get(search::search))
        .route("/crd/{namespace}/{crd}/object", get(crd::list))
        .route("/crd/{namespace}/{crd}/{name}", get(crd::detail))
        .route("/crd/{namespace}/{crd}/{name}/event", get(crd::events))
        .route("/metrics/pod/{namespace}/{name}", get(metrics::pod))
        .route("/metrics/node/{name}", get(metrics::node))
        .route("/metrics/namespace/{namespace}", get(metrics::namespace))
}

/// What the web frontend asks of its own server; errors as JSON.
fn web(gateway: &Arc<Gateway>) -> Router<Arc<Gateway>> {
    Router::new()
        .route("/config", get(config_page::config))
        .route("/systembanner", get(config_page::system_banner))
        .route("/settings", get(settings::read).put(settings::replace))
        .route("/settings/cani", get(settings::can_i))
        .route("/settings/pinnedresources", get(pinned::read).put(pinned::pin))
        .route("/settings/pinnedresources/cani", get(settings::can_i))
        .route("/settings/pinnedresources/{kind}/{name}", delete(pinned::unpin))
        .route("/settings/pinnedresources/{kind}/{namespace}/{name}", delete(pinned::unpin))
        .layer(from_fn_with_state(gateway.clone(), session::as_items))
}

fn kind_routes(reads: Reads, kind: &'static KindDef) -> Reads {
    let name = kind.name;
    let list = get(move |state: Shared, caller: Caller, request: Request| {
        list::list(state, caller, kind, request)
    });
    let detail = get(move |state: Shared, caller: Caller, request: Request| {
        detail::detail(state, caller, kind, request)
    });
    let reads = reads.route(&format!("/{name}"), list.clone());
    let (list_path, object_path) = if kind.resource.namespaced {
        (format!("/{name}/{{namespace}}"), format!("/{name}/{{namespace}}/{{name}}"))
    } else {
        (format!("/{name}"), format!("/{name}/{{name}}"))
    };
    let mut reads = reads.route(&object_path, detail);
    if kind.resource.namespaced {
        reads = reads.route(&list_path, list);
    }
    for &action in kind.actions {
        let handler = put(move |state: Shared, caller: Caller, request: Request| {
            actions::act(state, caller, kind, action, request)
        });
        reads = reads.route(&format!("{object_path}/{}", action.segment()), handler);
    }
    for &(segment, child) in kind.children {
        let handler = get(move |state: Shared, caller: Caller, request: Request| {
            child::child(state, caller, kind, child, request)
        });
        reads = reads.route(&format!("{object_path}/{segment}"), handler);
    }
    reads
}

/// The contract's second path of a volume: the namespace means nothing.
async fn volume_by_odd_path(
    state: Shared,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    detail::detail(state, caller, related::known("persistentvolume")?, request).await
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
