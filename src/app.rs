//! The composition root: from configuration to running listeners, top to bottom, and back down.
//!
//! Every room gets its own part of the configuration here; no request is handled here.

mod certificate;
mod choose;
mod extras;
mod keepers;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::response::Response;
use compact_str::CompactString;
use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

pub use self::certificate::ca;
use self::choose::choose;
use self::extras::{Extras, extras};
pub use self::keepers::keep_thread;
use self::keepers::kept;
use crate::api::proxy_listen::{self, ProxyFilter};
use crate::api::releases::door;
use crate::api::{
    self, Answers, Callers, FollowLimits, Follows, Gateway, Kept, LiveLists, Names, Readiness,
    Shells, Streams, Tags, TerminalLimits, Writes,
};
use crate::auth::{self, Authorizer};
use crate::cache::{Cache, State, Usage};
use crate::charts::refresh::{self, Refresher};
use crate::charts::repositories::Repositories;
use crate::config::{Config, Drain, Effective, Front, Listeners, ProxyRules, Reads};
use crate::demo::Demo;
use crate::serve::{self, Server};
use crate::telemetry::Metrics;
use crate::tls::Keeper;
use crate::upstream::{Cluster, Discovery, Tunnels};

/// From the kill of a drain until listeners and shells must have ended.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A gateway that serves.
pub struct Running {
    pub https: SocketAddr,
    pub http: Option<SocketAddr>,
    pub proxy: Option<SocketAddr>,
    pub cluster: String,
    /// Why this cluster: one sentence for the log.
    pub why: String,
    pub local_token: Option<String>,
    pub ca_pem: Option<String>,
    pub gateway: Arc<Gateway>,
    listeners: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    drain: serve::Drain,
    /// The listener that children of the engine come back to: it ends after them.
    door: (JoinHandle<()>, serve::Drain),
    times: Drain,
    demo: Option<Demo>,
}

/// What we listen on, before anybody is asked for anything, a kubeconfig's plugin too: a port in use
/// is told at once.
struct Bound {
    https: TcpListener,
    http: Option<TcpListener>,
    proxy: Option<TcpListener>,
}

impl Bound {
    async fn to(listeners: &Listeners) -> anyhow::Result<Self> {
        Ok(Self {
            https: bind(listeners.https).await?,
            http: bind_if(listeners.http).await?,
            proxy: bind_if(listeners.proxy).await?,
        })
    }
}

/// Where a person finds us, for the log.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |one: &TcpListener| one.local_addr().map_err(|_| fmt::Error);
        write!(f, "https://{}", address(&self.https)?)?;
        match &self.http {
            Some(http) => write!(f, " and http://{}", address(http)?),
            None => Ok(()),
        }
    }
}

/// Looks into the files that settings name, and into the person's own kubeconfig where a start would.
/// Nothing is started, and no host is asked.
///
/// # Errors
/// An `Exit` that names the setting or the file.
pub async fn check(config: &Config) -> anyhow::Result<()> {
    let Config { web, front, charts, cluster, certificate, effective, .. } = config;
    extras::local((web, front, charts), effective)?;
    choose::asked(cluster, effective).await?;
    certificate::check(certificate, effective).await
}

/// A setting whose value only a look into what it names finds wrong: one line, and exit code 64.
fn refused(effective: &Effective, key: &str, reason: &dyn fmt::Display) -> anyhow::Error {
    effective.refuse(key, reason).into()
}

/// Brings everything up: cluster, listeners, certificate, cache. Serves when it returns.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    install_provider();
    let Config {
        listeners,
        cluster,
        state_dir,
        front,
        web,
        certificate,
        reads,
        proxy,
        charts,
        drain,
        effective,
        ..
    } = config;
    let filter = proxy_filter(&proxy)?;
    let local = extras::local((&web, &front, &charts), &effective)?;
    let bound = Bound::to(&listeners).await?;
    let chosen = choose(&cluster, &effective).await?;
    let upstream = Cluster::new(&chosen.name, chosen.config.clone())?;
    let from = certificate::source(&certificate, &state_dir, &listeners, &chosen, &upstream)?;
    let opened = certificate::open(from, &bound, &front.base_path, &effective).await?;
    let (keeper, Bound { https, http, proxy: proxied }) = (Arc::new(opened), bound);

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (cache, usage) = shared(&reads, &upstream, &tasks, &stop);
    let personal = chosen.personal && all_on_loopback(std::iter::once(&https).chain(&http))?;
    let local_token = personal.then(random_token).transpose()?;
    let (snapshots, trusted) = (state_dir.join("charts/catalogues"), front.trusted_origins.clone());
    let demo_admin = chosen.demo.as_ref().map(|_| Demo::users()[0].token.to_owned());
    let callers = Callers { local_token: local_token.clone(), demo_admin, trusted };
    let extras = extras((web, local, charts, state_dir), &effective, &chosen, &upstream, usage)?;
    let refresher = refresh::start(&extras.catalogues, &snapshots, &tasks, &stop);
    tasks.spawn(kept("repositories", extras.catalogues.clone(), stop.clone(), Repositories::keep));
    let server = Server::default();
    let mut gateway = gateway(upstream, cache, callers, &reads, front, (extras, refresher));
    gateway.gauges = gauges(&gateway, keeper.clone(), server.counts.clone());
    let gateway = Arc::new(gateway);

    let door = open_door(&gateway, &tasks).await?;
    tasks.spawn(kept("certificate", keeper.clone(), stop.clone(), Keeper::keep));
    let tls = Some(keeper.server_config());
    let mut running = Running {
        https: https.local_addr()?,
        http: http.as_ref().map(TcpListener::local_addr).transpose()?,
        proxy: proxied.as_ref().map(TcpListener::local_addr).transpose()?,
        cluster: chosen.name,
        why: chosen.why,
        local_token,
        ca_pem: keeper.ca_pem(),
        gateway: gateway.clone(),
        listeners: Vec::new(),
        tasks,
        stop,
        drain: server.drain.clone(),
        door,
        times: drain,
        demo: chosen.demo,
    };
    let front = api::Front::new(gateway.clone());
    running.listen(&server, https, tls, front.clone());
    if let Some(listener) = http {
        running.listen(&server, listener, None, front);
    }
    if let Some(listener) = proxied {
        running.listen(&server, listener, None, proxy_listen::router(gateway, filter));
    }
    Ok(running)
}

/// What watches and polls keep for all callers, if that is wanted.
fn shared(
    reads: &Reads,
    upstream: &Cluster,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> (Cache, Arc<Usage>) {
    if !reads.shared_cache {
        return (Cache::idle(), Usage::idle());
    }
    (Cache::start(upstream, tasks, stop), Usage::start(upstream, tasks, stop))
}

fn gateway(
    cluster: Cluster,
    cache: Cache,
    callers: Callers,
    reads: &Reads,
    front: Front,
    (extras, refresher): (Extras, Refresher),
) -> Gateway {
    let rights = cache.clone();
    Gateway {
        cluster,
        cache,
        authorizer: Authorizer::new(reads.stale_while_away, move || rights.changes_of_rights()),
        callers,
        discovery: Discovery::default(),
        tunnels: Tunnels::default(),
        metrics: Arc::new(Metrics::default()),
        readiness: Readiness::default(),
        namespaces: reads.namespaces.iter().map(CompactString::from).collect(),
        away: reads.stale_while_away,
        locale: front.default_locale,
        max_body: front.max_body,
        base_path: front.base_path,
        tags: Tags::default(),
        writes: Writes::default(),
        live: LiveLists::default(),
        kept: Kept::default(),
        answers: Answers::default(),
        streams: Streams::default(),
        shells: Shells::default(),
        terminals: TerminalLimits {
            idle: reads.terminal_idle,
            total: reads.terminal_total,
            recheck: reads.stream_recheck,
        },
        follows: Follows::new(FollowLimits { recheck: reads.stream_recheck, ..Default::default() }),
        usage: extras.usage,
        helm: extras.helm,
        charts: extras.charts,
        catalogues: extras.catalogues,
        refresher,
        store: extras.store,
        csrf: extras.csrf,
        names: Names::default(),
        settings: extras.settings,
        banner: extras.banner,
        statics: extras.statics,
        gauges: Box::new(|_| {}),
    }
}

/// What rooms count for themselves, brought into the metrics when somebody asks for them.
fn gauges(
    gateway: &Gateway,
    keeper: Arc<Keeper>,
    counts: Arc<serve::Counts>,
) -> Box<dyn Fn(&Metrics) + Send + Sync> {
    let (cluster, cache) = (gateway.cluster.clone(), gateway.cache.clone());
    let (usage, engine) = (gateway.usage.clone(), gateway.helm.engine.clone());
    let (refresher, store) = (gateway.refresher.clone(), gateway.store.clone());
    let (reviews, tunnels) = (gateway.authorizer.counts.clone(), gateway.tunnels.clone());
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Box::new(move |metrics| {
        for feed in cache.feeds() {
            let name = feed.kind.name;
            let synced = matches!(feed.state(), State::Current | State::Stale(_));
            metrics.cache_synced(name, synced);
            metrics.cache_rows(name, feed.store.len());
            let (events, malformed) = (read(&feed.events), read(&feed.malformed));
            metrics.cache_counts(name, events, malformed, read(&feed.restarts));
        }
        let report = usage.report();
        let (answered, failed) = (read(&usage.answered), read(&usage.failures));
        metrics.usage(usage.series(), report.connected, answered, failed);
        let (answered, failed) = cluster.counts();
        metrics.upstream(answered, failed);
        let auth::Counts { allowed, denied, failed } = &*reviews;
        metrics.access_reviews(read(allowed), read(denied), read(failed));
        metrics.connections(counts.open.load(Ordering::Relaxed), tunnels.count());
        let found = engine.known();
        let version = found.as_ref().map(|found| found.version.as_str());
        metrics.helm(version, &engine.outcomes(), engine.children(), engine.waiting());
        metrics.charts(&refresher.totals());
        let (bytes, hits, misses) = store.counts();
        metrics.chart_archives(bytes, hits, misses);
        metrics.certificate(keeper.not_after().as_second(), keeper.failures());
    })
}

impl Running {
    fn listen<S>(
        &mut self,
        server: &Server,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        service: S,
    ) where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        self.listeners.push(tokio::spawn(server.clone().serve(listener, tls, service)));
    }

    /// Ends in good order: not ready, accepting a while longer, draining, then ending tunnels.
    pub async fn drain(self) {
        let Drain { delay, grace } = self.times;
        self.gateway.readiness.drain();
        let all = futures::future::join_all(self.listeners);
        let tunnels = &self.gateway.tunnels;
        let served = async {
            tokio::time::sleep(delay).await;
            self.drain.stop.cancel();
            // Told at once and to come back elsewhere: they would last beyond any grace.
            self.gateway.streams.end();
            self.gateway.follows.end();
            // The listeners return with their last connection, and a tunnel is one: an upgrade that
            // was accepted before the drain has its grace, too.
            let mut closed = pin!(futures::future::join(all, self.gateway.shells.end()));
            let are_left = tokio::select! {
                _ = &mut closed => false,
                () = tokio::time::sleep(grace) => true,
            };
            tunnels.end().await;
            if are_left {
                tracing::warn!("connections were left after the grace; ended them");
                self.drain.kill.cancel();
                let _ = tokio::time::timeout(LAST_WAIT, closed).await;
            }
        };
        // Helm marks a release that it was told to leave: that takes its own time.
        let operations = async {
            tokio::time::sleep(delay).await;
            self.gateway.helm.operations.end(grace).await;
        };
        futures::future::join(served, operations).await;
        let (door, closing) = self.door;
        closing.stop.cancel();
        closing.kill.cancel();
        let _ = door.await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(demo) = self.demo {
            demo.stop().await;
        }
    }
}

/// The loopback listener by which children of the engine reach the API server.
async fn open_door(
    gateway: &Arc<Gateway>,
    tasks: &TaskTracker,
) -> anyhow::Result<(JoinHandle<()>, serve::Drain)> {
    // Asked once at start, so that metrics tell of it.
    let engine = gateway.helm.engine.clone();
    tasks.spawn(async move { drop(engine.found().await) });
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let tls = gateway.helm.doors.listen(listener.local_addr()?)?;
    let server = Server::default();
    let drain = server.drain.clone();
    let router = door::router(gateway.clone());
    Ok((tokio::spawn(server.serve(listener, Some(tls), router)), drain))
}

fn all_on_loopback<'a>(
    mut listeners: impl Iterator<Item = &'a TcpListener>,
) -> std::io::Result<bool> {
    listeners.try_fold(true, |all, one| Ok(all && one.local_addr()?.ip().is_loopback()))
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn bind_if(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    match address {
        Some(address) => bind(address).await.map(Some),
        None => Ok(None),
    }
}

fn proxy_filter(rules: &ProxyRules) -> anyhow::Result<ProxyFilter> {
    let ProxyRules { accept_paths, reject_paths, accept_hosts, reject_methods } = rules;
    ProxyFilter::new(accept_paths, reject_paths, accept_hosts, reject_methods)
        .context("a filter of the proxy listener is no regular expression")
}

/// kube's own client needs a process-wide provider; a second call is harmless.
fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// What people call this replica: a pod's name in a cluster.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "binnacle".to_owned() } else { name.chars().take(63).collect() }
}

/// 256 random bits, as text.
fn random_token() -> anyhow::Result<String> {
    use base64::Engine as _;
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("there is no randomness"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}
