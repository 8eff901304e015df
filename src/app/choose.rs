//! Which cluster we stand in front of: said outright, else the one that we run in, else the
//! person's kubeconfig, else the demo.
//!
//! Nothing is sent to it here.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::refused;
use crate::config::{ClusterChoice, Effective};
use crate::demo::{Demo, DemoOptions};

/// Where a pod finds what its service account is; the file's presence means that we are in a cluster.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The cluster to stand in front of.
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) config: kube::Config,
    pub(super) why: String,
    pub(super) demo: Option<Demo>,
    /// A person's kubeconfig: the local token may stand for its user.
    pub(super) personal: bool,
    pub(super) in_cluster: bool,
}

/// Whether there is a service account of a pod.
pub(super) fn is_in_pod() -> bool {
    std::path::Path::new(SERVICE_ACCOUNT).join("token").exists()
}

/// Said outright, else the cluster that we run in, else the person's kubeconfig, else the demo.
pub(super) async fn choose(
    choice: &ClusterChoice,
    effective: &Effective,
) -> anyhow::Result<Chosen> {
    let demo_pods = choice.demo_pods.unwrap_or(0);
    if choice.demo {
        return start_demo(demo_pods, "it was asked for").await;
    }
    if let Some(chosen) = asked(choice, effective).await? {
        return Ok(chosen);
    }
    if is_in_pod() {
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
        return personal("$KUBECONFIG is set").await;
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    if home.is_some_and(|home| home.join(".kube/config").exists()) {
        return personal("~/.kube/config exists").await;
    }
    start_demo(demo_pods, "no cluster is configured").await
}

/// The one that settings name outright, unless that is the demo.
///
/// # Errors
/// What of them cannot be used, by the setting's name.
pub(super) async fn asked(
    choice: &ClusterChoice,
    effective: &Effective,
) -> anyhow::Result<Option<Chosen>> {
    let ClusterChoice { kubeconfig, context, demo, .. } = choice;
    if *demo || (kubeconfig.is_none() && context.is_none()) {
        return Ok(None);
    }
    let key = if kubeconfig.is_some() { "kubeconfig" } else { "context" };
    let bad = |error: KubeconfigError| refused(effective, key, &error);
    let read = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let read = read.map_err(bad)?;
    if let Some(name) = context
        && !read.contexts.iter().any(|one| one.name == *name)
    {
        let known: Vec<_> = read.contexts.iter().map(|one| one.name.as_str()).collect();
        let reason = format!("the kubeconfig has no such context, but {known:?}");
        return Err(refused(effective, "context", &reason));
    }
    let chosen = from_kubeconfig(read, context.clone(), "it was asked for").await;
    Ok(Some(chosen.map_err(bad)?))
}

async fn personal(why: &str) -> anyhow::Result<Chosen> {
    let read = Kubeconfig::read().context("the kubeconfig cannot be read")?;
    let name = read.current_context.clone().unwrap_or_default();
    let chosen = from_kubeconfig(read, None, why).await;
    chosen.with_context(|| format!("kubeconfig context {name:?}"))
}

async fn from_kubeconfig(
    read: Kubeconfig,
    context: Option<String>,
    why: &str,
) -> Result<Chosen, KubeconfigError> {
    let name = context.clone().or_else(|| read.current_context.clone()).unwrap_or_default();
    let options = KubeConfigOptions { context, ..Default::default() };
    let config = kube::Config::from_custom_kubeconfig(read, &options).await?;
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
