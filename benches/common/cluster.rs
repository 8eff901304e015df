//! Which cluster a bench stands before: a demo of its own, or a real one that `BENCH_KUBECONFIG`
//! names; where its API server is, and `kubectl get --raw` as somebody to compare with.
//!
//! Only the named kubeconfig is read, and nothing is written to a real cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use super::load::Target;
use super::process::DemoServer;

/// A list of a large cluster, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, and its API server as the kubeconfig's user.
pub struct Cluster {
    pub kubeconfig: PathBuf,
    pub api: Api,
    /// For headlines.
    pub name: &'static str,
    _demo: Option<DemoServer>,
}

impl Cluster {
    /// A demo with the standard lively set and load up to `pods`.
    pub fn demo(pods: usize) -> Self {
        let demo = DemoServer::start(pods);
        let kubeconfig = demo.kubeconfig.clone();
        let api = Api::of(&kubeconfig);
        Self { kubeconfig, api, name: "demo", _demo: Some(demo) }
    }

    /// The one that `BENCH_KUBECONFIG` names, if it names one.
    pub fn real() -> Option<Self> {
        let path = std::env::var_os("BENCH_KUBECONFIG").filter(|path| !path.is_empty())?;
        let kubeconfig = PathBuf::from(path);
        let api = Api::of(&kubeconfig);
        Some(Self { kubeconfig, api, name: "BENCH_KUBECONFIG", _demo: None })
    }
}

/// The API server of a kubeconfig's current context.
pub struct Api {
    /// `http://127.0.0.1:6443`, without a slash at its end.
    pub server: String,
    /// The user's bearer token, if the user has one.
    pub token: Option<String>,
    /// As the user; `None` where the load generator cannot go: it knows loopback and tokens only.
    pub target: Option<Target>,
}

impl Api {
    fn of(kubeconfig: &Path) -> Self {
        let text = std::fs::read_to_string(kubeconfig)
            .unwrap_or_else(|error| panic!("{}: {error}", kubeconfig.display()));
        let config: Value = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", kubeconfig.display()));
        let named = |list: &str, name: &Value, part: &str| {
            let mut all = config[list].as_array().into_iter().flatten();
            let found = all.find(|one| one["name"] == *name);
            found.map(|one| one[part].clone()).unwrap_or_default()
        };
        let context = named("contexts", &config["current-context"], "context");
        let cluster = named("clusters", &context["cluster"], "cluster");
        let user = named("users", &context["user"], "user");
        let server = cluster["server"].as_str().unwrap_or_default();
        let server = server.trim_end_matches('/').to_owned();
        let token = user["token"].as_str().map(str::to_owned);
        let target =
            token.as_deref().and_then(|token| Some(target(&server, &cluster)?.with_token(token)));
        Self { server, token, target }
    }

    pub fn is_tls(&self) -> bool {
        self.server.starts_with("https:")
    }
}

/// `None` for a server that is not on this machine or behind a path, or without a CA in reach.
fn target(server: &str, cluster: &Value) -> Option<Target> {
    let url = url::Url::parse(server).ok().filter(|url| url.path() == "/")?;
    let addresses = url.socket_addrs(|| None).ok()?;
    let address = addresses.into_iter().find(|address| address.ip().is_loopback())?;
    if url.scheme() == "http" {
        return Some(Target::plain(address));
    }
    let ca = match cluster["certificate-authority-data"].as_str() {
        Some(data) => STANDARD.decode(data).ok()?,
        None => std::fs::read(cluster["certificate-authority"].as_str()?).ok()?,
    };
    Some(Target::tls(address, &ca))
}

/// `kubectl get --raw PATH`, from before its process is made until it has ended; the answer is
/// thrown away. `None` without a kubectl in `PATH`, or when it failed.
pub async fn kubectl_get(kubeconfig: &Path, path: &str) -> Option<Duration> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(["get", "--raw", path]);
    command.env_remove("KUBECONFIG").env("KUBERC", "off");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.kill_on_drop(true).spawn().ok()?;
    let status = timeout(PATIENCE, child.wait()).await.ok()?.ok()?;
    status.success().then(|| begun.elapsed())
}
