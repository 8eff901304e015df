//! What the gateway takes besides its rooms' own parts: what the web interface wants, the engine of
//! releases, and the repositories of charts.
//!
//! Nothing is started here.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::choose::Chosen;
use super::host_name;
use crate::api::{Banner, Csrf, SettingsMap, Severity, Statics};
use crate::cache::Usage;
use crate::charts::repositories::Repositories;
use crate::charts::store::Store;
use crate::charts::{Policy, file};
use crate::config::{Charts, Front, Web};
use crate::helm::Helm;
use crate::helm::door::Doors;
use crate::helm::engine::Engine;
use crate::helm::facts::Facts;
use crate::helm::operation::Operations;
use crate::helm::protect::Protection;
use crate::upstream::Cluster;

/// The key of CSRF tokens beside our certificate.
const IN_CLUSTER_CSRF: &str = "binnacle-csrf";

/// What the gateway takes besides its rooms.
pub struct Extras {
    pub usage: Arc<Usage>,
    pub csrf: Csrf,
    pub settings: SettingsMap,
    pub banner: Banner,
    pub statics: Option<Statics>,
    pub helm: Helm,
    pub charts: Policy,
    pub catalogues: Repositories,
    pub store: Store,
}

pub fn extras(
    web: Web,
    front: &Front,
    chosen: &Chosen,
    upstream: &Cluster,
    usage: Arc<Usage>,
    (charts, state_dir): (Charts, PathBuf),
) -> anyhow::Result<Extras> {
    let (csrf, statics) = (csrf(&web, chosen)?, statics(front, web.locale.as_deref())?);
    let own = || chosen.config.default_namespace.clone();
    let namespace = web.settings_namespace.unwrap_or_else(own);
    let severity = Severity::parse(&web.banner_severity).unwrap_or_default();
    let policy = Policy::new(&charts.hosts).context("--chart-hosts")?;
    let policy = if chosen.demo.is_some() { policy.with_loopback() } else { policy };
    let policy = if charts.air_gapped { policy.with_air_gap() } else { policy };
    let listed = charts.repositories.as_deref().map(file::read).transpose();
    let listed = listed.context("--repositories")?.unwrap_or_default();
    let catalogues = Repositories::new(upstream.clone(), namespace.clone(), policy.clone(), listed)
        .context("--repositories")?;
    let store = Store::new(&state_dir, policy.clone());
    let helm = Helm {
        engine: Arc::new(Engine::new(charts.helm, charts.guard, state_dir)),
        doors: Doors::default(),
        operations: Operations::new(&host_name()),
        facts: Facts::default(),
        protection: Protection::new(&charts.protected),
        silence: charts.silence,
    };
    Ok(Extras {
        usage,
        helm,
        charts: policy,
        catalogues,
        store,
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
