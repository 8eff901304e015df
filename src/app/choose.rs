//! Which cluster we stand in front of: said outright, else the one that we run in, else the
//! person's kubeconfig, else the demo.
//!
//! Nothing is sent to it here.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{AuthProviderConfig, Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::{install_provider, refused};
use crate::config::{ClusterChoice, Effective, Exit};
use crate::demo::{Demo, DemoOptions};
use crate::upstream::{self, UpstreamError};

/// Where a pod finds what its service account is; the file's presence means that we are in a cluster.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Of the environment, the first that says something: as Go reads them.
const PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// So many of a kubeconfig's contexts are named to whoever has to choose one: it is one line.
const NAMED: usize = 5;

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
    let why = match own().files.iter().any(|file| file.exists()) {
        true => "no cluster is configured: ~/.kube/config has no contexts",
        false => "no cluster is configured",
    };
    start_demo(demo_pods, why).await
}

/// The one that a kubeconfig names: one that settings ask for, else, outside of a pod, the person's
/// own. None where there is nothing to choose, and where the demo is asked for.
///
/// # Errors
/// What cannot be used, in one line: by the setting's name, else by that of the file.
pub(super) async fn asked(
    choice: &ClusterChoice,
    effective: &Effective,
) -> anyhow::Result<Option<Chosen>> {
    let ClusterChoice { kubeconfig, context, demo, .. } = choice;
    let is_asked = kubeconfig.is_some() || context.is_some();
    if *demo || (!is_asked && is_in_pod()) {
        return Ok(None);
    }
    let Own { files, is_named } = match kubeconfig {
        Some(path) => Own { files: vec![path.clone()], is_named: true },
        None => own(),
    };
    // What is in its usual place may be left over from something else.
    let may_be_empty = !is_asked && !is_named;
    if may_be_empty && !files.iter().any(|file| file.exists()) {
        return Ok(None);
    }
    let by_file = kubeconfig.as_ref().map(|_| "kubeconfig");
    let by_context = context.as_ref().map(|_| "context");
    let bad = |setting, reason: &str| unusable(effective, setting, &files, reason);
    let read = read_all(&files)
        .map_err(|error| bad(by_file.or(by_context), &first_line(&error.to_string())))?;
    if may_be_empty && read.contexts.is_empty() {
        return Ok(None);
    }
    let why = match (is_asked, is_named) {
        (true, _) => "it was asked for",
        (false, true) => "$KUBECONFIG is set",
        (false, false) => "~/.kube/config exists",
    };
    let chosen = in_context(read, context.as_deref(), why).await;
    Ok(Some(chosen.map_err(|reason| bad(by_context.or(by_file), &reason))?))
}

/// Where a kubeconfig is.
struct Own {
    files: Vec<PathBuf>,
    /// Somebody said so, else it is in its usual place, if at all.
    is_named: bool,
}

/// The person's own: the files of `$KUBECONFIG`, else that of the home directory.
fn own() -> Own {
    let list = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let files = named(&list);
    if !files.is_empty() {
        return Own { files, is_named: true };
    }
    let file = std::env::home_dir().map(|home| home.join(".kube/config"));
    Own { files: file.into_iter().collect(), is_named: false }
}

/// The files in a list, which may have empty entries.
fn named(list: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(list).filter(|file| !file.as_os_str().is_empty()).collect()
}

/// By the setting that leads to it, where one does.
fn unusable(
    effective: &Effective,
    setting: Option<&str>,
    files: &[PathBuf],
    reason: &str,
) -> anyhow::Error {
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let reason =
        format!("the kubeconfig {}: {reason}; for the demo cluster use --demo", files.join(", "));
    match setting {
        Some(key) => refused(effective, key, &reason),
        None => Exit::usage(reason).into(),
    }
}

/// All that may be told of what is wrong with a file: below it the reader of YAML shows the lines
/// around, and a token may be in them.
fn first_line(words: &str) -> String {
    words.lines().next().unwrap_or_default().to_owned()
}

/// Files made one, as kubectl has it: some may not be there, and who names no context leaves it to
/// those behind.
///
/// # Errors
/// One that cannot be read, or the first where none is there.
fn read_all(files: &[PathBuf]) -> Result<Kubeconfig, KubeconfigError> {
    let (mut all, mut missing): (Option<Kubeconfig>, Option<KubeconfigError>) = (None, None);
    for file in files {
        match Kubeconfig::read_from(file) {
            Err(error) if is_missing(&error) => missing = missing.or(Some(error)),
            read => {
                let mut read = read?;
                // `kubectl config unset current-context` leaves an empty one, which would win.
                read.current_context = read.current_context.filter(|name| !name.is_empty());
                all = Some(all.unwrap_or_default().merge(read)?);
            }
        }
    }
    all.ok_or_else(|| missing.unwrap_or(KubeconfigError::FindPath))
}

fn is_missing(error: &KubeconfigError) -> bool {
    let KubeconfigError::ReadConfig(error, _) = error else { return false };
    error.kind() == ErrorKind::NotFound
}

/// The cluster of this context, else of the current one.
///
/// # Errors
/// In one line, why not, and what may be chosen instead.
async fn in_context(read: Kubeconfig, context: Option<&str>, why: &str) -> Result<Chosen, String> {
    let name = context.or(read.current_context.as_deref()).unwrap_or_default().to_owned();
    let others = others(&read, &name);
    let is_there = read.contexts.iter().any(|one| one.name == name);
    let reason = match context {
        _ if read.contexts.is_empty() => "it has no contexts".to_owned(),
        None if name.is_empty() => "it has no current context".to_owned(),
        None if !is_there => format!("its current context {name:?} is not in it"),
        Some(_) if !is_there => "it has no such context".to_owned(),
        _ => {
            let chosen = from_kubeconfig(read, context.map(str::to_owned), why).await;
            let chosen = chosen.map_err(|error| error.to_string());
            let judged = chosen.and_then(|chosen| judge(&chosen.config).map(|()| chosen));
            return judged
                .map_err(|reason| format!("context {name:?}: {}; {others}", first_line(&reason)));
        }
    };
    Err(format!("{reason}; {others}"))
}

/// Whether what it names can be used: files, keys, addresses. Commands that give credentials are
/// left for a start.
fn judge(config: &kube::Config) -> Result<(), String> {
    install_provider();
    let mut config = config.clone();
    let info = &mut config.auth_info;
    info.exec = None;
    if info.auth_provider.as_ref().is_some_and(has_command) {
        // It goes before these.
        (info.auth_provider, info.token, info.token_file) = (None, None, None);
    }
    // With none at all no server would be believed, whoever it is.
    if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
        return Err("its certificate authority holds no PEM certificate".to_owned());
    }
    // The machine's own authorities are none of its, and take their time to read.
    config.root_cert.get_or_insert_default();
    let is_somebody = info.impersonate.as_ref().is_some_and(|name| !name.is_empty());
    let is_more = info.impersonate_uid.as_ref().is_some_and(|uid| !uid.is_empty())
        || info.impersonate_groups.as_ref().is_some_and(|groups| !groups.is_empty())
        || info.impersonate_user_extra.as_ref().is_some_and(|extra| !extra.is_empty());
    if is_more && !is_somebody {
        return Err("its user has as-uid, as-groups or as-user-extra without as".to_owned());
    }
    match upstream::Cluster::new("", config) {
        Err(UpstreamError::Setup(why)) => Err(why),
        made => made.map(drop).map_err(|error| error.to_string()),
    }
}

fn has_command(provider: &AuthProviderConfig) -> bool {
    provider.config.contains_key("cmd-path")
}

/// What there is besides this context.
fn others(read: &Kubeconfig, name: &str) -> String {
    let others = read.contexts.iter().map(|one| one.name.as_str()).filter(|one| *one != name);
    let mut others: Vec<_> = others.collect();
    let more = others.len().saturating_sub(NAMED);
    others.truncate(NAMED);
    match (others.is_empty(), more) {
        (true, _) => "name another file with --kubeconfig FILE".to_owned(),
        (false, 0) => format!("choose one with --context NAME: {others:?}"),
        (false, more) => format!("choose one with --context NAME: {others:?} and {more} more"),
    }
}

async fn from_kubeconfig(
    mut read: Kubeconfig,
    context: Option<String>,
    why: &str,
) -> Result<Chosen, KubeconfigError> {
    let name = context.clone().or_else(|| read.current_context.clone()).unwrap_or_default();
    // Empty is none, as kubectl has it; kube takes it for an authority without certificates.
    for cluster in read.clusters.iter_mut().filter_map(|one| one.cluster.as_mut()) {
        for said in [&mut cluster.certificate_authority_data, &mut cluster.certificate_authority] {
            *said = said.take().filter(|text| !text.is_empty());
        }
    }
    let cluster = cluster_of(&read, &name);
    let (proxy, authority) = (cluster.and_then(named_proxy), cluster.and_then(named_authority));
    let options = KubeConfigOptions { context, ..Default::default() };
    let mut config = kube::Config::from_custom_kubeconfig(read, &options).await?;
    // Read again each minute, as kube has it in a pod: a new authority needs no restart.
    config.root_cert_file = authority;
    // Not kube's: with its features for proxies, which we leave off, it would look for the proxy's
    // own address among the exceptions, and end where one of them is empty.
    config.proxy_url = match proxy {
        Some(proxy) => Some(proxy.parse().map_err(KubeconfigError::ParseProxyUrl)?),
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

/// The cluster of a context.
fn cluster_of<'a>(read: &'a Kubeconfig, context: &str) -> Option<&'a Cluster> {
    let context = read.contexts.iter().find(|one| one.name == context)?.context.as_ref()?;
    read.clusters.iter().find(|one| one.name == context.cluster)?.cluster.as_ref()
}

/// What a cluster has as `proxy-url`: for all that goes there, without exceptions.
fn named_proxy(cluster: &Cluster) -> Option<String> {
    cluster.proxy_url.clone().filter(|proxy| !proxy.is_empty())
}

/// The file of a cluster's authority, where the kubeconfig does not hold the authority itself.
fn named_authority(cluster: &Cluster) -> Option<PathBuf> {
    let is_held = cluster.certificate_authority_data.as_ref().is_some_and(|data| !data.is_empty());
    let file = cluster.certificate_authority.as_ref().filter(|file| !is_held && !file.is_empty());
    file.map(PathBuf::from)
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
#[path = "choose_tests.rs"]
mod tests;
