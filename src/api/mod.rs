//! HTTP in, HTTP out: the route table on one screen, and what every handler shares.
//!
//! Rooms below know nothing of HTTP; what needs two of them is joined here.

mod body;
mod caller;
mod charts;
mod error;
mod front;
mod live;
pub(crate) mod logs;
mod openapi;
mod passthrough;
mod probes;
pub mod proxy_listen;
mod read;
pub mod releases;
mod respond;
pub(crate) mod shells;
mod standing;
mod target;
mod web;
mod websocket;
mod write;
mod written;

use caller::Asked;
pub use caller::Callers;
pub use error::{ApiError, Fault};
pub use front::Front;
pub use live::held::Answers;
use live::hub::Live;
pub use live::hub::Streams;
pub use live::pace::Pace;
pub use logs::follow::{Follows, Limits as FollowLimits};
pub use openapi::document::openapi;
pub use probes::Readiness;
pub use read::kept::Kept;
pub use read::view::LiveLists;
pub use respond::Tags;
pub use shells::shell::Shells;
pub use shells::terminal::Limits as TerminalLimits;
pub use web::config_page::{Banner, Severity};
pub use web::csrf::Csrf;
pub use web::session::Names;
pub use web::settings::SettingsMap;
pub use web::statics::Statics;
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
    let observe = from_fn_with_state(Arc::new(live.clone()), respond::observe);
    let ours = Router::new()
        .nest(CONTRACT, contract(&gateway, reads, live))
        .merge(web(&gateway))
        .route(shells::sockjs::PREFIX, any(shells::sockjs::serve))
        .route("/api/sockjs/{*rest}", any(shells::sockjs::serve))
        .route("/livez", get(probes::livez))
        .route("/healthz", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .route("/", get(web::statics::serve))
        .fallback(web::statics::serve)
        .method_not_allowed_fallback(wrong_method)
        .layer(observe.clone());
    let root = get(web::statics::serve).fallback(wrong_method);
    let based = match gateway.base_path.as_str() {
        "" => ours,
        // Probes of the Service come without the base path. The frontend's own probe needs a 404
        // everywhere outside of it.
        base => Router::new()
            .nest(base, ours)
            // Nesting serves the base path without a slash alone.
            .route(&format!("{base}/"), root.layer(observe))
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
    let guard = from_fn_with_state(gateway.clone(), web::csrf::guard);
    let items = from_fn_with_state(gateway.clone(), web::session::as_items);
    let stream = move |caller: Caller, request: Request| live::socket::serve(live, caller, request);
    reads
        .route("/stream", get(stream.clone()).connect(stream))
        .route("/csrftoken/{action}", get(web::csrf::issue))
        .route("/login", post(web::session::login).route_layer(guard.clone()).layer(items.clone()))
        .route("/me", get(web::session::me).layer(items))
        .route("/appdeployment", post(write::deploy::deploy).route_layer(guard.clone()))
        .route("/appdeployment/protocols", get(write::validate::protocols))
        .route("/appdeployment/validate/name", post(write::validate::name))
        .route("/appdeployment/validate/imagereference", post(write::validate::reference))
        .route("/appdeployment/validate/protocol", post(write::validate::protocol))
        .route(
            "/appdeploymentfromfile",
            post(write::deploy_file::deploy).route_layer(guard.clone()),
        )
        .route("/namespace", post(write::create::namespace).route_layer(guard.clone()))
        .route("/secret", post(write::create::pull_secret).route_layer(guard.clone()))
        .route(
            "/replicationcontroller/{namespace}/{name}/update/pod",
            post(write::actions::update_pods).route_layer(guard),
        )
        .route("/node/{name}/cordon", put(write::drain::cordon))
        .route("/node/{name}/uncordon", put(write::drain::cordon))
        .route("/node/{name}/drain", put(write::drain::drain))
        .route("/pod/{namespace}/{name}/shell/{container}", get(shells::shell::open))
        .route("/pod/{namespace}/{name}/exec", get(shells::exec::exec).connect(shells::exec::exec))
        .route(
            "/pod/{namespace}/{name}/attach",
            get(shells::exec::attach).connect(shells::exec::attach),
        )
        .route(
            "/pod/{namespace}/{name}/portforward/{port}",
            get(shells::forward::forward).connect(shells::forward::forward),
        )
        .route("/log/source/{namespace}/{name}/{kind}", get(logs::window::sources))
        .route("/log/file/{namespace}/{pod}/{container}", get(logs::window::file))
        .route(
            "/log/follow/{kind}/{namespace}/{name}",
            get(logs::merge::follow).connect(logs::merge::follow),
        )
        .route(
            "/log/{namespace}/{pod}/{container}/follow",
            get(logs::follow::follow).connect(logs::follow::follow),
        )
        .route("/log/{namespace}/{pod}", get(logs::window::window))
        .route("/log/{namespace}/{pod}/{container}", get(logs::window::window))
        .route("/integration/{name}/state", get(read::metrics::state))
        .merge(releases())
        .merge(catalogue())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
}

/// Releases and what changes them.
fn releases() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/release/{namespace}", post(releases::write::install))
        .route(
            "/release/{namespace}/{name}",
            get(releases::detail::detail)
                .put(releases::write::upgrade)
                .delete(releases::write::uninstall),
        )
        .route("/release/{namespace}/{name}/history", get(releases::detail::history))
        .route("/release/{namespace}/{name}/values", get(releases::detail::values))
        .route("/release/{namespace}/{name}/manifest", get(releases::detail::manifest))
        .route("/release/{namespace}/{name}/notes", get(releases::detail::notes))
        .route("/release/{namespace}/{name}/hooks", get(releases::detail::hooks))
        .route("/release/{namespace}/{name}/chart", get(releases::detail::chart))
        .route("/release/{namespace}/{name}/resource", get(releases::resources::resources))
        .route("/release/{namespace}/{name}/pod", get(releases::resources::pods))
        .route("/release/{namespace}/{name}/rollback", post(releases::write::rollback))
        .route("/release/{namespace}/{name}/test", post(releases::write::test))
        .route("/release/{namespace}/{name}/preview", post(releases::preview::preview))
        .route("/release/{namespace}/{name}/unlock", post(releases::unlock::unlock))
        .route("/release/{namespace}/{name}/protect", put(releases::protect::protect))
        .route("/release/{namespace}/{name}/unprotect", put(releases::protect::unprotect))
        .route(
            "/operation/{namespace}/{id}",
            get(releases::operation::read).delete(releases::operation::cancel),
        )
}

/// Charts and where they come from.
fn catalogue() -> Router<Arc<Gateway>> {
    let repository = get(charts::repositories::one)
        .put(charts::repository_write::replace)
        .delete(charts::repository_write::remove);
    Router::new()
        .route(
            "/repository",
            get(charts::repositories::list).post(charts::repository_write::create),
        )
        // A repository may be called so.
        .route("/repository/test", repository.clone().post(charts::repository_write::test))
        .route("/repository/{name}", repository)
        .route("/repository/{name}/refresh", post(charts::repositories::refresh))
        .route("/chart", get(charts::list::list))
        .route("/chart/{repository}", post(charts::upload::upload))
        .route("/chart/{repository}/{name}", get(charts::list::one))
        .route(
            "/chart/{repository}/{name}/{version}",
            get(charts::version::detail).delete(charts::upload::delete),
        )
        .route("/chart/{repository}/{name}/{version}/icon", get(charts::version::icon))
        .route("/chart/{repository}/{name}/{version}/archive", get(charts::version::archive))
        .route("/chart/{repository}/{name}/{version}/provenance", put(charts::upload::sign))
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
    for kind in openapi::document::shown() {
        reads = kind_routes(reads, kind);
    }
    let object = get(write::raw::read).put(write::raw::replace).delete(write::raw::remove);
    let scale = get(write::scale::read).put(write::scale::replace);
    reads
        .route("/_raw/{kind}/namespace/{namespace}/name/{name}", object.clone())
        .route("/_raw/{kind}/name/{name}", object)
        .route("/scale/{kind}/{namespace}/{name}", scale.clone())
        .route("/scale/{kind}/{name}", scale)
        .route("/persistentvolume/namespace/{namespace}/name/{name}", get(volume_by_odd_path))
        .route("/release", get(releases::list::list))
        .route("/release/{namespace}", get(releases::list::list))
        .route("/overview", get(read::overview::overview))
        .route("/overview/{namespace}", get(read::overview::overview))
        .route("/search", get(read::search::search))
        .route("/crd/{namespace}/{crd}/object", get(read::crd::list))
        .route("/crd/{namespace}/{crd}/{name}", get(read::crd::detail))
        .route("/crd/{namespace}/{crd}/{name}/event", get(read::crd::events))
        .route("/metrics/pod/{namespace}/{name}", get(read::metrics::pod))
        .route("/metrics/node/{name}", get(read::metrics::node))
        .route("/metrics/namespace/{namespace}", get(read::metrics::namespace))
}

/// What the web frontend asks of its own server; errors as JSON.
fn web(gateway: &Arc<Gateway>) -> Router<Arc<Gateway>> {
    Router::new()
        .route("/config", get(web::config_page::config))
        .route("/systembanner", get(web::config_page::system_banner))
        .route("/settings", get(web::settings::read).put(web::settings::replace))
        .route("/settings/cani", get(web::settings::can_i))
        .route("/settings/pinnedresources", get(web::pinned::read).put(web::pinned::pin))
        .route("/settings/pinnedresources/cani", get(web::settings::can_i))
        .route("/settings/pinnedresources/{kind}/{name}", delete(web::pinned::unpin))
        .route("/settings/pinnedresources/{kind}/{namespace}/{name}", delete(web::pinned::unpin))
        .layer(from_fn_with_state(gateway.clone(), web::session::as_items))
}

fn kind_routes(reads: Reads, kind: &'static KindDef) -> Reads {
    let name = kind.name;
    let list = get(move |state: Shared, caller: Caller, request: Request| {
        read::list::list(state, caller, kind, request)
    });
    let detail = get(move |state: Shared, caller: Caller, request: Request| {
        read::detail::detail(state, caller, kind, request)
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
            write::actions::act(state, caller, kind, action, request)
        });
        reads = reads.route(&format!("{object_path}/{}", action.segment()), handler);
    }
    for &(segment, child) in kind.children {
        let handler = get(move |state: Shared, caller: Caller, request: Request| {
            read::child::child(state, caller, kind, child, request)
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
    read::detail::detail(state, caller, read::related::known("persistentvolume")?, request).await
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
