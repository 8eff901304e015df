//! Which cluster we stand in front of: said outright, else the one that we run in, else the
//! person's kubeconfig, else the demo.
//!
//! Nothing is sent to it here.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::refused;
use crate::config::{ClusterChoice, Effective};
use crate::demo::{Demo, DemoOptions};

/// Where a pod finds what its service account is; the file's presence means that we are in a cluster.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Of the environment, the first that says something: as Go reads them.
const PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

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
        None => read(),
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
    let read = read().context("the kubeconfig cannot be read")?;
    let name = read.current_context.clone().unwrap_or_default();
    let chosen = from_kubeconfig(read, None, why).await;
    chosen.with_context(|| format!("kubeconfig context {name:?}"))
}

/// The files of `$KUBECONFIG`, else the person's own.
fn read() -> Result<Kubeconfig, KubeconfigError> {
    let list = std::env::var_os("KUBECONFIG").unwrap_or_default();
    match read_all(std::env::split_paths(&list))? {
        Some(read) => Ok(read),
        None => Kubeconfig::read(),
    }
}

/// Files made one; as kubectl has it, some may not be there. `None` if none is named.
///
/// # Errors
/// One that cannot be read, or the first where none is there.
fn read_all(
    files: impl IntoIterator<Item = PathBuf>,
) -> Result<Option<Kubeconfig>, KubeconfigError> {
    let (mut all, mut missing): (Option<Kubeconfig>, Option<KubeconfigError>) = (None, None);
    for file in files.into_iter().filter(|file| !file.as_os_str().is_empty()) {
        match Kubeconfig::read_from(file) {
            Err(error) if is_missing(&error) => missing = missing.or(Some(error)),
            read => all = Some(all.unwrap_or_default().merge(read?)?),
        }
    }
    match (all, missing) {
        (None, Some(error)) => Err(error),
        (all, _) => Ok(all),
    }
}

fn is_missing(error: &KubeconfigError) -> bool {
    let KubeconfigError::ReadConfig(error, _) = error else { return false };
    error.kind() == ErrorKind::NotFound
}

async fn from_kubeconfig(
    read: Kubeconfig,
    context: Option<String>,
    why: &str,
) -> Result<Chosen, KubeconfigError> {
    let name = context.clone().or_else(|| read.current_context.clone()).unwrap_or_default();
    let named = named_proxy(&read, &name);
    let options = KubeConfigOptions { context, ..Default::default() };
    let mut config = kube::Config::from_custom_kubeconfig(read, &options).await?;
    // Not kube's: with its features for proxies, which we leave off, it would look for the proxy's
    // own address among the exceptions, and end where one of them is empty.
    config.proxy_url = match named {
        Some(named) => Some(named.parse().map_err(KubeconfigError::ParseProxyUrl)?),
        None => proxy_of(&config.cluster_url, &said(PROXY), &said(NO_PROXY)),
    };
    Ok(Chosen {
        why: format!("{why}; for the demo cluster use --demo"),
        name,
        config,
        demo: None,
        personal: true,
        in_cluster: false,
    })
}

/// What the context's cluster has as `proxy-url`: for all that goes there, without exceptions.
fn named_proxy(read: &Kubeconfig, context: &str) -> Option<String> {
    let context = read.contexts.iter().find(|one| one.name == context)?.context.as_ref()?;
    let named = read.clusters.iter().find(|one| one.name == context.cluster)?;
    named.cluster.as_ref()?.proxy_url.clone().filter(|proxy| !proxy.is_empty())
}

fn said(names: [&str; 2]) -> String {
    let mut values = names.into_iter().filter_map(|name| std::env::var(name).ok());
    values.find(|value| !value.is_empty()).unwrap_or_default()
}

/// The environment's proxy for an API server as Go has it (golang.org/x/net/http/httpproxy), so
/// that kubectl and we go the same way: for https, but not to this machine nor to what `no` names.
fn proxy_of(server: &Uri, proxy: &str, no: &str) -> Option<Uri> {
    if proxy.is_empty() || server.scheme_str() != Some("https") || is_excepted(server, no) {
        return None;
    }
    match proxy.contains("://") {
        true => proxy.parse().ok(),
        false => format!("http://{proxy}").parse().ok(),
    }
}

fn is_excepted(server: &Uri, no: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    if is_here || host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let port = server.port_u16().unwrap_or(443).to_string();
    let entries: Vec<&str> = no.split(',').filter_map(|entry| exception(entry, &port)).collect();
    // The proxy does not matter: any will do to hear whether the server is kept from it.
    let matcher = Matcher::builder().all("http://proxy").no(entries.join(",")).build();
    entries.contains(&"*") || matcher.intercept(server).is_none()
}

/// An entry of the exceptions in hyper's words, which have no ports and no `*.`, if it is for this
/// port.
fn exception<'a>(entry: &'a str, port: &str) -> Option<&'a str> {
    let entry = entry.trim();
    let entry = match entry.rsplit_once(':') {
        // Not within an IPv6 address.
        Some((name, own)) if !name.contains(':') || name.ends_with(']') => {
            (own.is_empty() || own == port).then_some(name.trim_matches(['[', ']']))?
        }
        _ => entry,
    };
    Some(entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry))
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

#[cfg(test)]
mod tests {
    use super::*;

    const CORP: &str = "http://me:a%40b@proxy.corp.example:3128";

    #[test]
    fn an_api_server_is_excepted_by_its_own_address_and_not_by_the_proxys() {
        for (server, no, goes_through) in [
            ("https://10.0.0.1:6443", "", true),
            ("https://10.0.0.1:6443", "proxy.corp.example,192.168.0.0/16", true),
            ("https://10.0.0.1:6443", "a.example, 10.0.0.0/8", false),
            ("https://10.0.0.1:6443", "10.0.0.1", false),
            ("https://10.0.0.1:6443", "10.0.0.1:6443", false),
            ("https://10.0.0.1:6443", "10.0.0.1:443", true),
            ("https://10.0.0.1:6443", "a.example,*", false),
            ("https://[fd00::1]:6443", "fd00::/8", false),
            ("https://[fd00::1]:6443", "fd00::1", false),
            ("https://[fd00::1]:6443", "[fd00::1]:6443", false),
            ("https://[fd00::1]:6443", "[fd00::1]:443,fd00::2", true),
            ("https://api.corp.example", ",corp.example,", false),
            ("https://api.corp.example", ".CORP.example", false),
            ("https://api.corp.example", "*.corp.example", false),
            ("https://api.corp.example", "api.corp.example:443", false),
            ("https://api.corp.example", "api.corp.example:6443", true),
            ("https://api.corp.example", "orp.example,a.example,,", true),
            // This machine's own, whatever is excepted.
            ("https://127.0.0.1:38111", "", false),
            ("https://[::1]:38111", "", false),
            ("https://localhost:38111", "", false),
            // HTTPS_PROXY is for https.
            ("http://10.0.0.1:8001", "", false),
        ] {
            let found = proxy_of(&server.parse().unwrap(), CORP, no);
            let wanted: Option<Uri> = goes_through.then(|| CORP.parse().unwrap());
            assert_eq!(found, wanted, "{server} with NO_PROXY={no}");
        }
    }

    #[test]
    fn a_proxy_of_the_environment_needs_no_scheme_and_none_is_none() {
        let server = Uri::from_static("https://10.0.0.1:6443");
        let proxy = proxy_of(&server, "proxy.corp.example:3128", "");
        assert_eq!(proxy, Some(Uri::from_static("http://proxy.corp.example:3128")));
        let proxy = proxy_of(&server, "socks5://10.0.0.2:1080", "");
        assert_eq!(proxy, Some(Uri::from_static("socks5://10.0.0.2:1080")));
        assert_eq!(proxy_of(&server, "", ""), None);
    }

    #[tokio::test]
    async fn a_kubeconfigs_own_proxy_is_that_of_the_contexts_cluster() {
        let read = "current-context: two\n\
             clusters:\n\
             - {name: a, cluster: {server: 'https://[::1]:1', proxy-url: 'http://other:1'}}\n\
             - {name: b, cluster: {server: 'https://[::1]:2', proxy-url: 'socks5://[::1]:3'}}\n\
             - {name: c, cluster: {server: 'https://[::1]:4', proxy-url: ''}}\n\
             contexts:\n\
             - {name: one, context: {cluster: a}}\n\
             - {name: two, context: {cluster: b}}\n\
             - {name: three, context: {cluster: c}}\n";
        let read = Kubeconfig::from_yaml(read).unwrap();
        let chosen = from_kubeconfig(read.clone(), None, "").await.unwrap();
        assert_eq!(chosen.config.proxy_url, Some(Uri::from_static("socks5://[::1]:3")));
        let chosen = from_kubeconfig(read.clone(), Some("one".into()), "").await.unwrap();
        assert_eq!(chosen.config.proxy_url, Some(Uri::from_static("http://other:1")));
        let chosen = from_kubeconfig(read, Some("three".into()), "").await.unwrap();
        assert_eq!(chosen.config.proxy_url, None);
    }

    #[test]
    fn files_that_are_not_there_are_passed_over_and_one_must_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "current-context: one\n").unwrap();
        std::fs::write(path("b"), "current-context: two\nkind: Config\n").unwrap();
        std::fs::write(path("bad"), "clusters: 1\n").unwrap();
        let all = read_all([path("none"), PathBuf::new(), path("a"), path("b")]).unwrap().unwrap();
        assert_eq!(all.current_context.as_deref(), Some("one"));
        assert_eq!(all.kind.as_deref(), Some("Config"));
        let error = read_all([path("first"), path("second")]).unwrap_err().to_string();
        assert!(error.contains("first") && !error.contains("second"), "{error}");
        assert!(read_all([path("a"), path("bad")]).is_err());
        assert!(read_all([PathBuf::new()]).unwrap().is_none());
    }
}
