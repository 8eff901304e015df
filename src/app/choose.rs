//! Which cluster we stand in front of: said outright, else the one that we run in, else the
//! person's kubeconfig, else the demo.
//!
//! Nothing is sent to it here.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::ClusterChoice;
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
pub(super) async fn choose(choice: &ClusterChoice) -> anyhow::Result<Chosen> {
    let ClusterChoice { kubeconfig, context, demo, demo_pods } = choice;
    if *demo {
        return start_demo(demo_pods.unwrap_or(0), "it was asked for").await;
    }
    if kubeconfig.is_some() || context.is_some() {
        return from_kubeconfig(kubeconfig.clone(), context.clone(), "it was asked for").await;
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
