//! What the gateway takes besides its rooms' own parts: what the web interface wants, the engine of
//! releases, and the repositories of charts.
//!
//! Nothing is started here.

use std::path::PathBuf;
use std::sync::Arc;

use super::choose::Chosen;
use super::{host_name, refused};
use crate::api::{Banner, Csrf, SettingsMap, Severity, Statics};
use crate::cache::Usage;
use crate::charts::Policy;
use crate::charts::definition::Definition;
use crate::charts::file::{self, Files};
use crate::charts::repositories::{Repositories, judge};
use crate::charts::store::Store;
use crate::config::{Charts, Effective, Front, Web};
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

/// What files of this machine hold that settings name.
pub struct Local {
    csrf: Option<Csrf>,
    statics: Option<Statics>,
    policy: Policy,
    listed: Vec<(Definition, Files)>,
}

/// Reads it; nobody is asked for anything.
///
/// # Errors
/// What cannot be used, by the setting that names it.
pub fn local(
    (web, front, charts): (&Web, &Front, &Charts),
    effective: &Effective,
) -> anyhow::Result<Local> {
    let key = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        Csrf::with_key(&text)
    };
    let csrf = web.csrf_key_file.as_ref().map(key).transpose();
    let tag = front.default_locale.tag();
    let open = |dir: &PathBuf| Statics::open(dir, web.locale.as_deref(), tag);
    let statics = front.static_dir.as_ref().map(open).transpose();
    let listed = charts.repositories.as_deref().map(file::read).transpose();
    let policy = Policy::new(&charts.hosts);
    let policy = policy.map_err(|error| refused(effective, "chart-hosts", &error))?;
    let listed = listed.map_err(|error| refused(effective, "repositories", &error))?;
    let listed = listed.unwrap_or_default();
    judge(&listed, &policy).map_err(|error| refused(effective, "repositories", &error))?;
    Ok(Local {
        csrf: csrf.map_err(|error| refused(effective, "csrf-key-file", &error))?,
        statics: statics.map_err(|error| refused(effective, "static-dir", &error))?,
        policy,
        listed,
    })
}

pub fn extras(
    (web, local, charts, state_dir): (Web, Local, Charts, PathBuf),
    effective: &Effective,
    chosen: &Chosen,
    upstream: &Cluster,
    usage: Arc<Usage>,
) -> anyhow::Result<Extras> {
    let Local { csrf: given, statics, policy, listed } = local;
    let csrf = csrf(&web, given, chosen);
    let own = || chosen.config.default_namespace.clone();
    let namespace = web.settings_namespace.unwrap_or_else(own);
    let severity = Severity::parse(&web.banner_severity).unwrap_or_default();
    let policy = if chosen.demo.is_some() { policy.with_loopback() } else { policy };
    let policy = if charts.air_gapped { policy.with_air_gap() } else { policy };
    let catalogues = Repositories::new(upstream.clone(), namespace.clone(), policy.clone(), listed)
        .map_err(|error| refused(effective, "repositories", &error))?;
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
fn csrf(web: &Web, given: Option<Csrf>, chosen: &Chosen) -> Csrf {
    let own = || (chosen.config.default_namespace.clone(), IN_CLUSTER_CSRF.to_owned());
    let secret = web.csrf_secret.clone().or_else(|| chosen.in_cluster.then(own));
    let csrf = match (given, secret) {
        (Some(csrf), _) => csrf,
        (None, Some((namespace, name))) => Csrf::shared(namespace, name),
        (None, None) => Csrf::random(),
    };
    if web.csrf_protection { csrf } else { csrf.off() }
}
