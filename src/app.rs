//! The composition root: from configuration to running listeners, top to bottom, and back down.
//!
//! Every room gets its own part of the configuration here; no request is handled here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use compact_str::CompactString;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::proxy_listen::{self, ProxyFilter};
use crate::api::{
    self, Banner, Callers, Csrf, FollowLimits, Follows, Gateway, Kept, LiveLists, Names, Readiness,
    SettingsMap, Severity, Shells, Statics, Streams, Tags, TerminalLimits, Writes,
};
use crate::auth::{self, Authorizer};
use crate::cache::{Cache, State, Usage};
use crate::config::{ClusterChoice, Config, Drain, Front, ProxyRules, Reads, Web};
use crate::demo::{Demo, DemoOptions};
use crate::serve::{self, Server};
use crate::telemetry::Metrics;
use crate::tls::{self, Keeper, TlsError, Wanted};
use crate::upstream::{Cluster, Discovery, Tunnels};

/// Where a pod finds what its service account is; the file's presence means that we are in a cluster.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Our Service, and the Secret that the first replica makes beside it.
const IN_CLUSTER_NAME: &str = "binnacle";
const IN_CLUSTER_SECRET: &str = "binnacle-tls";
const IN_CLUSTER_CSRF: &str = "binnacle-csrf";
/// Between attempts to read our certificate while the API server is away at start.
const CERTIFICATE_RETRY: Duration = Duration::from_secs(2);
/// From the kill of a drain until listeners must have returned.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A gateway that serves.
pub struct Running {
    pub https: SocketAddr,
    pub http: Option<SocketAddr>,
    pub proxy: Option<SocketAddr>,
    pub cluster: String,
    /// Why this cluster: one sentence for the first line of the log.
    pub why: String,
    pub local_token: Option<String>,
    pub ca_pem: Option<String>,
    pub gateway: Arc<Gateway>,
    listeners: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    drain: serve::Drain,
    times: Drain,
    demo: Option<Demo>,
}

/// The cluster to stand in front of.
struct Chosen {
    name: String,
    config: kube::Config,
    why: String,
    demo: Option<Demo>,
    /// A person's kubeconfig: the local token may stand for its user.
    personal: bool,
    in_cluster: bool,
}

/// What the gateway takes besides its rooms.
struct Extras {
    usage: Arc<Usage>,
    csrf: Csrf,
    settings: SettingsMap,
    banner: Banner,
    statics: Option<Statics>,
}

/// Brings everything up: cluster, certificate, listeners, cache. Serves when it returns.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    install_provider();
    let Config {
        listeners, cluster, state_dir, front, web, certificate, reads, proxy, drain, ..
    } = config;
    let filter = proxy_filter(&proxy)?;
    let chosen = choose(&cluster).await?;
    let upstream = Cluster::new(&chosen.name, chosen.config.clone())?;
    let (source, wanted) =
        certificate_source(&certificate, &state_dir, listeners.https, &chosen, &upstream)?;
    let keeper = Arc::new(open_certificate(source, wanted).await?);

    let https = bind(listeners.https).await?;
    let http = bind_if(listeners.http).await?;
    let proxied = bind_if(listeners.proxy).await?;

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let cache =
        if reads.shared_cache { Cache::start(&upstream, &tasks, &stop) } else { Cache::idle() };
    let on_loopback = |listener: &TcpListener| Ok(listener.local_addr()?.ip().is_loopback());
    let all = std::iter::once(&https).chain(&http).map(on_loopback);
    let all: Result<Vec<bool>, std::io::Error> = all.collect();
    let personal = chosen.personal && all?.into_iter().all(|is| is);
    let local_token = personal.then(random_token).transpose()?;
    let callers = Callers {
        local_token: local_token.clone(),
        demo_admin: chosen.demo.as_ref().map(|_| Demo::users()[0].token.to_owned()),
    };
    let usage = match reads.shared_cache {
        true => Usage::start(&upstream, &tasks, &stop),
        false => Usage::idle(),
    };
    let extras = extras(web, &front, &chosen, usage)?;
    let server = Server::default();
    let mut gateway = gateway(upstream, cache, callers, &reads, front, extras);
    gateway.gauges = gauges(&gateway, keeper.clone(), server.counts.clone());
    let gateway = Arc::new(gateway);

    tasks.spawn(keeper.clone().keep(stop.clone()));
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
        times: drain,
        demo: chosen.demo,
    };
    let front = api::router(gateway.clone());
    running.listen(&server, https, tls, front.clone());
    if let Some(listener) = http {
        running.listen(&server, listener, None, front);
    }
    if let Some(listener) = proxied {
        running.listen(&server, listener, None, proxy_listen::router(gateway, filter));
    }
    Ok(running)
}

fn gateway(
    cluster: Cluster,
    cache: Cache,
    callers: Callers,
    reads: &Reads,
    front: Front,
    extras: Extras,
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
        streams: Streams::default(),
        shells: Shells::default(),
        terminals: TerminalLimits {
            idle: reads.terminal_idle,
            total: reads.terminal_total,
            recheck: reads.stream_recheck,
        },
        follows: Follows::new(FollowLimits { recheck: reads.stream_recheck, ..Default::default() }),
        usage: extras.usage,
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
    let usage = gateway.usage.clone();
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
        metrics.usage(usage.series(), report.connected, read(&usage.polls), read(&usage.failures));
        let (answered, failed) = cluster.counts();
        metrics.upstream(answered, failed);
        let auth::Counts { allowed, denied, failed } = &*reviews;
        metrics.access_reviews(read(allowed), read(denied), read(failed));
        metrics.connections(counts.open.load(Ordering::Relaxed), tunnels.count());
        metrics.certificate(keeper.not_after().as_second(), keeper.failures());
    })
}

impl Running {
    fn listen(
        &mut self,
        server: &Server,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        router: Router,
    ) {
        self.listeners.push(tokio::spawn(server.clone().serve(listener, tls, router)));
    }

    /// Ends in good order: not ready, accepting a while longer, draining, then ending tunnels.
    pub async fn drain(self) {
        let Drain { delay, grace } = self.times;
        self.gateway.readiness.drain();
        let all = futures::future::join_all(self.listeners);
        let tunnels = &self.gateway.tunnels;
        let ordered = async {
            tokio::time::sleep(delay).await;
            self.drain.stop.cancel();
            // Told at once and to come back elsewhere: they would last beyond any grace.
            self.gateway.streams.end();
            self.gateway.follows.end();
            // The listeners return with their last connection, and a tunnel is one: an upgrade that
            // was accepted before the drain has its grace, too.
            tokio::select! {
                _ = futures::future::join(all, self.gateway.shells.end()) => {}
                () = tokio::time::sleep(grace) => {}
            }
            tunnels.end().await;
        };
        let killed = async {
            tokio::time::sleep(delay + grace).await;
            self.drain.kill.cancel();
            tokio::time::sleep(LAST_WAIT).await;
        };
        tokio::select! {
            _ = ordered => {}
            () = killed => tracing::warn!("connections were left after the grace; ended them"),
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(demo) = self.demo {
            demo.stop().await;
        }
    }
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

/// Said outright, else the cluster that we run in, else the person's kubeconfig, else the demo.
async fn choose(choice: &ClusterChoice) -> anyhow::Result<Chosen> {
    let ClusterChoice { kubeconfig, context, demo, demo_pods } = choice;
    if *demo {
        return start_demo(demo_pods.unwrap_or(0), "it was asked for").await;
    }
    if kubeconfig.is_some() || context.is_some() {
        return from_kubeconfig(kubeconfig.clone(), context.clone(), "it was asked for").await;
    }
    if std::path::Path::new(SERVICE_ACCOUNT).join("token").exists() {
        let config = kube::Config::incluster().context("the pod's own cluster cannot be read")?;
        return Ok(Chosen {
            name: "main".into(),
            config,
            why: "the cluster that we run in".into(),
            demo: None,
            personal: false,
            in_cluster: true,
        });
    }
    if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
        return from_kubeconfig(None, None, "$KUBECONFIG is set").await;
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    if home.is_some_and(|home| home.join(".kube/config").exists()) {
        return from_kubeconfig(None, None, "~/.kube/config exists").await;
    }
    start_demo(demo_pods.unwrap_or(0), "no cluster is configured").await
}

async fn from_kubeconfig(
    file: Option<PathBuf>,
    context: Option<String>,
    why: &str,
) -> anyhow::Result<Chosen> {
    let read = match &file {
        Some(path) => kube::config::Kubeconfig::read_from(path)
            .with_context(|| format!("--kubeconfig {}", path.display()))?,
        None => kube::config::Kubeconfig::read().context("the kubeconfig cannot be read")?,
    };
    let name = context.clone().or_else(|| read.current_context.clone()).unwrap_or_default();
    let options = kube::config::KubeConfigOptions { context, ..Default::default() };
    let config = kube::Config::from_custom_kubeconfig(read, &options)
        .await
        .with_context(|| format!("kubeconfig context {name:?}"))?;
    Ok(Chosen {
        why: format!("{why}; for the demo cluster use --demo"),
        name,
        config,
        demo: None,
        personal: true,
        in_cluster: false,
    })
}

async fn start_demo(pods: usize, why: &str) -> anyhow::Result<Chosen> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let demo = Demo::start(DemoOptions { listen, pods, simulate: true }).await?;
    let config = kube::Config::new(demo.url().parse().context("the demo's address")?);
    let mut config = config;
    config.auth_info.token = Some(Demo::users()[0].token.to_owned().into());
    Ok(Chosen {
        name: "demo".into(),
        config,
        why: format!("{why}; for a real one use --kubeconfig FILE"),
        demo: Some(demo),
        personal: false,
        in_cluster: false,
    })
}

/// kube's own client needs a process-wide provider; a second call is harmless.
fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The certificate of our own authority as PEM, from where it is kept: a Secret (configured, or in
/// a cluster), else the state directory. Nothing is started or made.
pub async fn ca(config: &Config) -> anyhow::Result<String> {
    let Config { certificate, cluster, state_dir, .. } = config;
    anyhow::ensure!(
        certificate.files.is_none(),
        "--tls-cert is served as it is: there is no authority of our own"
    );
    let asked = cluster.demo || cluster.kubeconfig.is_some() || cluster.context.is_some();
    let in_pod = !asked && std::path::Path::new(SERVICE_ACCOUNT).join("token").exists();
    if certificate.secret.is_none() && !in_pod {
        return Ok(tls::read_ca(state_dir)?);
    }
    install_provider();
    let chosen = choose(cluster).await?;
    let own = || (chosen.config.default_namespace.clone(), IN_CLUSTER_SECRET.to_owned());
    let (namespace, name) = certificate.secret.clone().unwrap_or_else(own);
    let upstream = Cluster::new(&chosen.name, chosen.config.clone())?;
    Ok(tls::read_ca_of(upstream.server_client(), &namespace, &name).await?)
}

/// Given files, else a Secret (configured, or in a cluster), else the state directory.
fn certificate_source(
    certificate: &crate::config::Certificate,
    state_dir: &std::path::Path,
    listen: SocketAddr,
    chosen: &Chosen,
    upstream: &Cluster,
) -> anyhow::Result<(tls::Source, Wanted)> {
    let crate::config::Certificate { files, names, secret } = certificate;
    let own_namespace = chosen.config.default_namespace.as_str();
    let service = chosen.in_cluster.then_some((own_namespace, IN_CLUSTER_NAME));
    let wanted = tls::wanted_names(names, listen.ip(), service)?;
    let in_cluster = || (own_namespace.to_owned(), IN_CLUSTER_SECRET.to_owned());
    let secret = secret.clone().or_else(|| chosen.in_cluster.then(in_cluster));
    let source = match (files.clone(), secret) {
        (Some((cert, key)), _) => tls::Source::Files { cert, key },
        (None, Some((namespace, name))) => {
            tls::Source::Secret { client: upstream.server_client(), namespace, name }
        }
        (None, None) => tls::Source::StateDir(state_dir.to_owned()),
    };
    Ok((source, wanted))
}

fn extras(web: Web, front: &Front, chosen: &Chosen, usage: Arc<Usage>) -> anyhow::Result<Extras> {
    let (csrf, statics) = (csrf(&web, chosen)?, statics(front, web.locale.as_deref())?);
    let own = || chosen.config.default_namespace.clone();
    let namespace = web.settings_namespace.unwrap_or_else(own);
    let severity = Severity::parse(&web.banner_severity).unwrap_or_default();
    Ok(Extras {
        usage,
        csrf,
        settings: SettingsMap::new(namespace, web.settings_name),
        banner: Banner::new(web.banner, severity),
        statics,
    })
}

/// The key of CSRF tokens: from a file, else from a Secret that all replicas share, else our own.
fn csrf(web: &Web, chosen: &Chosen) -> anyhow::Result<Csrf> {
    let own = || (chosen.config.default_namespace.clone(), IN_CLUSTER_CSRF.to_owned());
    let secret = web.csrf_secret.clone().or_else(|| chosen.in_cluster.then(own));
    let csrf = match (&web.csrf_key_file, secret) {
        (Some(file), _) => {
            let refused = || format!("--csrf-key-file {}", file.display());
            let text = std::fs::read_to_string(file).with_context(refused)?;
            Csrf::with_key(&text).map_err(anyhow::Error::msg).with_context(refused)?
        }
        (None, Some((namespace, name))) => Csrf::shared(namespace, name),
        (None, None) => Csrf::random(),
    };
    Ok(if web.csrf_protection { csrf } else { csrf.off() })
}

fn statics(front: &Front, locale: Option<&str>) -> anyhow::Result<Option<Statics>> {
    let Some(dir) = &front.static_dir else { return Ok(None) };
    let opened = Statics::open(dir, locale, front.default_locale.tag());
    let opened = opened.with_context(|| format!("--static-dir {}", dir.display()))?;
    Ok(Some(opened))
}

/// Opens the certificate; while the API server that keeps it is away, we wait for it and say so.
async fn open_certificate(source: tls::Source, wanted: Wanted) -> anyhow::Result<Keeper> {
    loop {
        match Keeper::open(source.clone(), wanted.clone()).await {
            Err(error @ TlsError::Away { .. }) => {
                tracing::warn!(%error, "the certificate cannot be read yet");
                tokio::time::sleep(CERTIFICATE_RETRY).await;
            }
            other => return Ok(other?),
        }
    }
}

/// 256 random bits, as text.
fn random_token() -> anyhow::Result<String> {
    use base64::Engine as _;
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("there is no randomness"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}
