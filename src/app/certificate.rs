//! Our certificate at start: where it is kept, and what is served while the API server that keeps it
//! is away: probes alone, since no restart would end the outage.
//!
//! How it is read, made and renewed is the business of `tls`.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::choose::{Chosen, choose, is_in_pod};
use super::{Bound, install_provider, refused};
use crate::config::{self, Config, Effective, Listeners};
use crate::serve::Server;
use crate::tls::{self, Keeper, Source, TlsError, Wanted};
use crate::upstream::Cluster;

/// Our Service, and the Secret that the first replica makes beside it.
const IN_CLUSTER_NAME: &str = "binnacle";
const IN_CLUSTER_SECRET: &str = "binnacle-tls";
/// What every container has in its environment, also one without a service account.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";
/// Between attempts to read our certificate while the API server is away at start.
const RETRY: Duration = Duration::from_secs(2);
/// From the first attempt until probes are answered without it: sooner than any probe gives up, and
/// later than an API server that is there needs.
const SOON: Duration = Duration::from_secs(1);
/// What connections of that time have to end; they never become others.
const GOODBYE: Duration = Duration::from_secs(2);

const NOT_READY: &str = "not ready: the API server that keeps our certificate has not answered yet";

/// The certificate of our own authority as PEM, from where it is kept: a Secret (configured, or in
/// a cluster), else the state directory. Nothing is started or made.
pub async fn ca(config: &Config) -> anyhow::Result<String> {
    let Config { certificate, cluster, state_dir, effective, .. } = config;
    anyhow::ensure!(
        certificate.files.is_none(),
        "--tls-cert is served as it is: there is no authority of our own"
    );
    let asked = cluster.demo || cluster.kubeconfig.is_some() || cluster.context.is_some();
    let in_pod = !asked && is_in_pod();
    if certificate.secret.is_none() && !in_pod {
        return Ok(tls::read_ca(state_dir)?);
    }
    install_provider();
    let chosen = choose(cluster, effective).await?;
    let own = || (chosen.config.default_namespace.clone(), IN_CLUSTER_SECRET.to_owned());
    let (namespace, name) = certificate.secret.clone().unwrap_or_else(own);
    let upstream = Cluster::new(&chosen.name, chosen.config.clone())?;
    Ok(tls::read_ca_of(upstream.server_client(), &namespace, &name).await?)
}

/// Given files, else a Secret (configured, or in a cluster), else the state directory.
pub(super) fn source(
    certificate: &config::Certificate,
    state_dir: &Path,
    listeners: &Listeners,
    chosen: &Chosen,
    upstream: &Cluster,
) -> anyhow::Result<(Source, Wanted)> {
    let config::Certificate { files, names, secret } = certificate;
    let own_namespace = chosen.config.default_namespace.as_str();
    let service = chosen.in_cluster.then_some((own_namespace, IN_CLUSTER_NAME));
    let in_cluster = || (own_namespace.to_owned(), IN_CLUSTER_SECRET.to_owned());
    let secret = secret.clone().or_else(|| chosen.in_cluster.then(in_cluster));
    // A pod's own names go with it, and what replicas share would keep those of all of them.
    let is_pod = is_in_pod() || std::env::var_os(IN_POD).is_some();
    let is_own = secret.is_none() || !is_pod;
    let wanted = tls::wanted_names(names, is_own.then_some(listeners.https.ip()), service)?;
    let source = match (files.clone(), secret) {
        (Some((cert, key)), _) => Source::Files { cert, key },
        (None, Some((namespace, name))) => {
            Source::Secret { client: upstream.server_client(), namespace, name }
        }
        (None, None) => Source::StateDir(state_dir.to_owned()),
    };
    Ok((source, wanted))
}

/// Whether given files can be served; `None` has none.
pub(super) async fn check(
    certificate: &config::Certificate,
    effective: &Effective,
) -> anyhow::Result<()> {
    let Some((cert, key)) = certificate.files.clone() else { return Ok(()) };
    let opened = Keeper::open(Source::Files { cert, key }, Wanted { names: Vec::new() }).await;
    opened.map(drop).map_err(|error| refused(effective, "tls-cert", &error))
}

/// Opens the certificate. While that takes long the listeners answer probes alone, on connections
/// that end with it: nobody gets content under a certificate that is not the kept one.
pub(super) async fn open(
    (source, wanted): (Source, Wanted),
    bound: &Bound,
    base: &str,
    effective: &Effective,
) -> anyhow::Result<Keeper> {
    let (server, tasks) = (Server::default(), TaskTracker::new());
    let is_given = matches!(source, Source::Files { .. });
    let probing = async {
        match probes(bound, base, &server, &tasks).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let opened = tokio::select! {
        opened = kept(source, wanted, bound) => opened.map_err(|error| match is_given {
            true => refused(effective, "tls-cert", &error),
            false => error.into(),
        }),
        error = probing => Err(error),
    };
    server.drain.stop.cancel();
    tasks.close();
    let _ = timeout(GOODBYE, tasks.wait()).await;
    server.drain.kill.cancel();
    // Soon: what is killed ends at once. Until then it might take connections that are ours.
    tasks.wait().await;
    opened
}

/// While the API server that keeps it is away, we wait for it and say so.
async fn kept(source: Source, wanted: Wanted, bound: &Bound) -> Result<Keeper, TlsError> {
    let mut told = String::new();
    loop {
        let error = match Keeper::open(source.clone(), wanted.clone()).await {
            Err(error @ TlsError::Away { .. }) => error.to_string(),
            other => return other,
        };
        if error != told {
            tracing::warn!(%error, "no certificate yet; until then {bound} answers probes alone");
            told = error;
        }
        sleep(RETRY).await;
    }
}

/// Serves what needs no certificate of ours.
async fn probes(
    bound: &Bound,
    base: &str,
    server: &Server,
    tasks: &TaskTracker,
) -> anyhow::Result<()> {
    sleep(SOON).await;
    let mut front: Router = Router::new().fallback(not_ready);
    // As later: with the base path and without it.
    for base in BTreeSet::from(["", base]) {
        front = front.route(&format!("{base}/livez"), get(live));
        front = front.route(&format!("{base}/healthz"), get(live));
    }
    let tls = Some(tls::stand_in()?);
    tasks.spawn(server.clone().serve(again(&bound.https)?, tls, front.clone()));
    if let Some(http) = &bound.http {
        tasks.spawn(server.clone().serve(again(http)?, None, front));
    }
    if let Some(proxy) = &bound.proxy {
        // Probes there are the API server's own.
        let none: Router = Router::new().fallback(not_ready);
        tasks.spawn(server.clone().serve(again(proxy)?, None, none));
    }
    Ok(())
}

async fn live() -> &'static str {
    "ok"
}

async fn not_ready() -> (StatusCode, &'static str) {
    (StatusCode::SERVICE_UNAVAILABLE, NOT_READY)
}

/// The same socket once more: each connection to it is accepted by one of both.
fn again(listener: &TcpListener) -> std::io::Result<TcpListener> {
    let socket = listener.as_fd().try_clone_to_owned()?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}
