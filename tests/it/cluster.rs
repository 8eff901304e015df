//! The real control plane for tests: builds `tests/cluster` with Go once (kept in the user's cache
//! folder), starts one cluster for the whole test process on first use, and talks to it as any of
//! its users. The cluster ends when this process does, however it ends: the supervisor watches the
//! pipe to its stdin.
//!
//! It is NOT a Kubernetes client library, and it never reads the person's own kubeconfig.
#![allow(clippy::expect_used, clippy::panic)] // test support fails by a panic that says what

use std::collections::HashMap;
use std::fs::{self, File};
use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::spawned::tied;

/// How long anything may take that a test waits for: a machine that compiles meanwhile is slow.
const EVENTUALLY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Between two words about the build, which takes minutes the first time.
const BUILD_NEWS: Duration = Duration::from_secs(15);
/// Builds kept in the cache folder, 290 MB each: some branches, not the whole past.
const BUILDS_KEPT: usize = 4;
/// In the folder of a cluster that runs: locked by the test process whose it is.
const OWNER: &str = "owner";
/// Links beside the program: it is the component by whose name it is called.
const COMPONENTS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// Where Go works while it builds, in the folder of a build: hundreds of MB, left there by one that is
/// killed.
const WORK: &str = "work";
/// The Helm engines built beside it: `helm4` and `helm3`, of the versions in go.mod.
const HELMS: [u32; 2] = [4, 3];

/// The cluster shared by all tests of this process; the first caller waits for build and start.
pub async fn shared() -> &'static Cluster {
    // With the supervisor, the other end of whose stdin it holds: it closes with this process.
    static CLUSTER: OnceLock<Result<(Cluster, Child)>> = OnceLock::new();
    // Every test has a runtime of its own, so nothing in here may belong to one: plain processes
    // and blocking reads.
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_init(|| start(&[]))).await;
    match cluster.expect("starting the test cluster does not panic") {
        Ok((cluster, _)) => cluster,
        Err(why) => panic!("no test cluster: {why:#}"),
    }
}

/// A cluster of the caller's own, with further flags of `up`, and its supervisor: stdin takes
/// orders and ends all when it closes, stdout answers them (`tests/cluster/README.md`).
pub async fn own(flags: &'static [&'static str]) -> (Cluster, Child) {
    let started = tokio::task::spawn_blocking(|| start(flags)).await;
    let started = started.expect("starting a cluster does not panic");
    started.unwrap_or_else(|why| panic!("no cluster of its own: {why:#}"))
}

pub struct Cluster {
    /// `https://127.0.0.1:PORT` of the API server.
    pub server: String,
    /// Keys, data and logs; removed by the supervisor at its end.
    pub dir: PathBuf,
    kubeconfigs: PathBuf,
    tokens: HashMap<String, String>,
    ca_pem: String,
    tls: ClientConfig,
    kubectl: PathBuf,
    namespaces: AtomicU32,
    /// Of each component, whether it runs or not.
    pub ports: HashMap<String, u16>,
    /// Of the supervisor and of each component that it started.
    pub pids: HashMap<String, u32>,
    _owner: File,
}

/// What the supervisor prints when the cluster is up.
#[derive(Deserialize)]
struct FirstLine {
    server: String,
    dir: PathBuf,
    ca: PathBuf,
    kubeconfigs: PathBuf,
    tokens: HashMap<String, String>,
    ports: HashMap<String, u16>,
    pids: HashMap<String, u32>,
}

fn start(flags: &[&str]) -> Result<(Cluster, Child)> {
    let folder = built()?;
    remove_left();
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty());
    let assets = assets.map(std::path::absolute).transpose().context("the folder of assets")?;
    let mut command = Command::new(folder.join("cluster"));
    command.arg("up").stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(assets) = &assets {
        command.arg("--assets").arg(assets);
    }
    // The last of two is taken.
    command.args(flags);
    let mut supervisor = command.spawn().context("running the test cluster's supervisor")?;
    // It says nothing more until it is ordered to.
    let stdout = supervisor.stdout.as_mut().context("the supervisor's stdout is not piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("reading the supervisor's first line")?;
    if line.is_empty() {
        bail!("the supervisor ended with {}; its reason is on stderr", supervisor.wait()?);
    }
    let first: FirstLine = serde_json::from_str(&line)
        .with_context(|| format!("the supervisor's first line is no JSON: {line}"))?;
    let ca_pem = fs::read_to_string(&first.ca).context("reading the cluster's CA certificate")?;
    let owner = own_folder(&first.dir).context("taking the cluster's folder")?;
    fs::create_dir(first.dir.join("kubectl-home")).context("making kubectl's home")?;
    let kubectl = match assets.map(|assets| assets.join("kubectl")) {
        Some(kubectl) if kubectl.exists() => kubectl,
        _ => folder.join("kubectl"),
    };
    let cluster = Cluster {
        server: first.server,
        dir: first.dir,
        kubeconfigs: first.kubeconfigs,
        tokens: first.tokens,
        tls: trusting(&ca_pem)?,
        ca_pem,
        kubectl,
        namespaces: AtomicU32::new(0),
        ports: first.ports,
        pids: first.pids,
        _owner: owner,
    };
    Ok((cluster, supervisor))
}

/// Takes a cluster's folder for as long as this process has the file.
fn own_folder(dir: &Path) -> std::io::Result<File> {
    let made = dir.join("owner.new");
    let file = File::create(&made)?;
    file.lock()?;
    // By this name nobody finds it without its lock.
    fs::rename(made, dir.join(OWNER))?;
    Ok(file)
}

/// Removes the folders of clusters whose supervisor was killed and whose test process is gone, too.
pub fn remove_left() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("test-cluster-") {
            continue;
        }
        let Ok(owner) = File::open(folder.join(OWNER)) else { continue };
        if owner.try_lock().is_ok() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

fn trusting(ca_pem: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl Cluster {
    /// The kubeconfig of a user: `admin`, `viewer`, `nobody`, `cert-admin`, `cert-user`, `user-0` to
    /// `user-7`.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.kubeconfigs.join(format!("{user}.yaml"));
        assert!(path.exists(), "the test cluster has no user {user}");
        path
    }

    /// The bearer token of a user; those with a client certificate have none.
    pub fn token(&self, user: &str) -> &str {
        self.tokens.get(user).unwrap_or_else(|| panic!("the test cluster has no token of {user}"))
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Runs kubectl as a user, to its end. It blocks: for what streams take
    /// [`Self::kubectl_command`].
    pub fn kubectl(&self, user: &str, args: &[&str]) -> Output {
        let mut command = self.kubectl_command(user);
        command.args(args).stdin(Stdio::null());
        command.output().expect("kubectl can be run")
    }

    /// kubectl as a user, with a home of its own so that the person's files are never read.
    pub fn kubectl_command(&self, user: &str) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", self.kubeconfig(user)).env("HOME", self.dir.join("kubectl-home"));
        command
    }

    /// `kubectl apply -f -` as admin; panics with kubectl's words when it is refused.
    pub async fn apply(&self, yaml: &str) {
        let mut command = tokio::process::Command::from(self.kubectl_command("admin"));
        command.args(["apply", "-f", "-"]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl can be run");
        let mut stdin = child.stdin.take().expect("kubectl's stdin is piped");
        // A kubectl that ends early closes the pipe; its own words say more than the error here.
        let _ = stdin.write_all(yaml.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.expect("kubectl's output can be read");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl apply: {words}\nof:\n{yaml}");
    }

    /// Makes a namespace that no other test has, in which pods can be made at once; returns its
    /// name.
    pub async fn namespace(&self, prefix: &str) -> String {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let admin = self.token("admin");
        let headers = [("content-type", "application/json")];
        let path = "/api/v1/namespaces";
        let (status, _, answer) =
            self.request(Method::POST, admin, path, &headers, body.to_string()).await;
        assert_eq!(status, 201, "creating {name}: {}", String::from_utf8_lossy(&answer));
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        let has_account = || async { self.get(admin, &account).await.0 == 200 };
        Self::eventually("the namespace has its default service account", has_account).await;
        name
    }

    pub async fn get(&self, token: &str, path: &str) -> (u16, HeaderMap, Bytes) {
        self.request(Method::GET, token, path, &[], Bytes::new()).await
    }

    /// One request straight to the API server, anonymous when the token is empty. Each takes a
    /// connection of its own: a pooled one would die with the runtime of the test that opened it.
    pub async fn request(
        &self,
        method: Method,
        token: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (u16, HeaderMap, Bytes) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("path and headers are valid");
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_only()
            .enable_http1()
            .build();
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let exchange = async {
            let response = client.request(request).await;
            let (head, body) = response.expect("the API server answers").into_parts();
            let body = body.collect().await.expect("the answer has an end");
            (head.status.as_u16(), head.headers, body.to_bytes())
        };
        let answer = tokio::time::timeout(EVENTUALLY, exchange).await;
        answer.unwrap_or_else(|_| panic!("the API server did not answer {path} in {EVENTUALLY:?}"))
    }

    /// Waits until the check holds, asking every 50 ms; panics after 60 s, naming what did not come.
    pub async fn eventually<C, F>(what: &str, mut check: C)
    where
        C: FnMut() -> F,
        F: Future<Output = bool>,
    {
        let begun = Instant::now();
        while !check().await {
            assert!(begun.elapsed() < EVENTUALLY, "waited {EVENTUALLY:?} in vain until {what}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The folder with the built program `cluster` and links to it by component name, building it when
/// need be.
fn built() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
    let cache = cache_folder()?;
    let sources = source_hash(&source)?;
    let Some(go) = go_version(&source)? else {
        return any_build(&cache, &sources).with_context(|| {
            format!(
                "Go is not installed, and {} has no build of tests/cluster as it is now: install Go \
                 1.26 or newer (https://go.dev/dl) so that `go` is in PATH; the binaries of \
                 KUBEBUILDER_ASSETS alone are not enough",
                cache.display()
            )
        });
    };
    let folder = cache.join(format!("{sources}-{:016x}", fnv(FNV_START, go.as_bytes())));
    if folder.join("cluster").exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    // Held until the end of this function: of several test programs one builds, the others wait.
    let lock = File::create(cache.join("lock")).context("making the lock of the build")?;
    if lock.try_lock().is_err() {
        say("another process builds the test cluster; waiting for it");
        lock.lock().context("waiting for another process to build the test cluster")?;
    }
    if folder.join("cluster").exists() {
        return Ok(folder);
    }
    // What a build that was killed has left. Its last compiler may still write there: never mind.
    let _ = fs::remove_dir_all(&folder);
    let work = folder.join(WORK);
    fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let unfinished = folder.join("cluster.new");
    compile(&source, ".", &linker_flags(&source)?, &unfinished)?;
    for major in HELMS {
        let package = format!("helm.sh/helm/v{major}/cmd/helm");
        compile(&source, &package, &helm_flags(&source, major)?, &folder.join(helm_name(major)))?;
    }
    for name in COMPONENTS {
        let link = folder.join(name);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink("cluster", &link).context("linking a component's name")?;
        }
    }
    let _ = fs::remove_dir_all(work);
    fs::rename(&unfinished, folder.join("cluster")).context("putting the build in place")?;
    remove_old_builds(&cache, &folder);
    Ok(folder)
}

/// Where builds are kept; beside it may be what else takes a download.
pub fn cache_folder() -> Result<PathBuf> {
    let set = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let base = set("BINNACLE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME"))
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("no place for the built test cluster: set BINNACLE_CACHE to a folder")?;
    Ok(base.join("binnacle").join("cluster"))
}

/// The installed Go's own words, asked in the module's folder because go.mod may choose another
/// toolchain; `None` without a `go` in PATH.
fn go_version(source: &Path) -> Result<Option<String>> {
    let output = match Command::new("go").arg("version").current_dir(source).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context("running `go version`")?,
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`go version` fails; tests/cluster needs Go 1.26 or newer: {words}");
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: the same in every process, which the standard library's hashers do not promise.
fn fnv(state: u64, data: &[u8]) -> u64 {
    data.iter().fold(state, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A hash of all that the build is made from.
fn source_hash(source: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(source).with_context(|| format!("reading {}", source.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".go") || name == "go.mod" || name == "go.sum" {
            files.push((name, path));
        }
    }
    files.sort();
    let mut hash = FNV_START;
    for (name, path) in files {
        let data = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        hash = fnv(hash, name.as_bytes());
        hash = fnv(hash, &(data.len() as u64).to_le_bytes());
        hash = fnv(hash, &data);
    }
    Ok(format!("{hash:016x}"))
}

/// A build of these sources by any version of Go, for machines that have none.
fn any_build(cache: &Path, sources: &str) -> Option<PathBuf> {
    let prefix = format!("{sources}-");
    let mut folders = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
    folders.find(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && folder.join("cluster").exists()
    })
}

/// It ends with this process, however that ends: the next one builds the same.
fn compile(source: &Path, package: &str, flags: &str, output: &Path) -> Result<()> {
    let mut build = tied("go")
        .args(["build", "-trimpath", "-ldflags", flags, "-o"])
        .arg(output)
        .arg(package)
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOTMPDIR", output.with_file_name(WORK))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running `go build`")?;
    let mut stderr = build.stderr.take().context("go's stderr is not piped")?;
    let words = std::thread::spawn(move || {
        let mut data = Vec::new();
        let _ = stderr.read_to_end(&mut data); // what came until the error is enough
        data
    });
    let begun = Instant::now();
    let mut news = Duration::ZERO;
    let status = loop {
        if let Some(status) = build.try_wait().context("waiting for `go build`")? {
            break status;
        }
        if begun.elapsed() >= news {
            let minutes = begun.elapsed().as_secs_f64() / 60.0;
            say(&format!(
                "building the Kubernetes control plane and Helm with Go ({package}), \
                 {minutes:.1} minutes gone; the first time all take about 11 on two cores and \
                 download 0.8 GB"
            ));
            news += BUILD_NEWS;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let words = words.join().unwrap_or_default();
    if !status.success() {
        bail!("`go build` in {}: {status}\n{}", source.display(), String::from_utf8_lossy(&words));
    }
    Ok(())
}

/// The version of a module that go.mod requires, without its `v`.
fn required(source: &Path, module: &str) -> Result<String> {
    let text = fs::read_to_string(source.join("go.mod")).context("reading go.mod")?;
    let start = format!("{module} v");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&start));
    let version = line.and_then(|rest| rest.split_whitespace().next());
    Ok(version.with_context(|| format!("go.mod requires no {module}"))?.to_owned())
}

/// Where the engine of this major version lies in the folder of a build.
fn helm_name(major: u32) -> String {
    format!("helm{major}")
}

/// The engine's program, built like the control plane.
pub fn helm(major: u32) -> PathBuf {
    let folder = built().unwrap_or_else(|why| panic!("no helm: {why:#}"));
    folder.join(helm_name(major))
}

/// Makes the engine say the version of go.mod.
fn helm_flags(source: &Path, major: u32) -> Result<String> {
    let module = format!("helm.sh/helm/v{major}");
    let version = required(source, &module)?;
    Ok(format!("-s -w -X {module}/internal/version.version=v{version}"))
}

/// Strips the program, and makes it say its version as the Kubernetes release of go.mod does.
fn linker_flags(source: &Path) -> Result<String> {
    let version = required(source, "k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        let value = |name: &str, value: &str| format!(" -X {package}.{name}={value}");
        flags += &value("gitVersion", &format!("v{version}"));
        flags += &value("gitMajor", major);
        flags += &value("gitMinor", minor);
        flags += &value("gitTreeState", "clean");
    }
    Ok(flags)
}

/// Keeps the newest builds. A failure is no reason to fail a test: the cache only stays larger.
fn remove_old_builds(cache: &Path, current: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    let mut others: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && path != current)
        .map(|path| (fs::metadata(&path).and_then(|about| about.modified()).ok(), path))
        .collect();
    others.sort();
    let surplus = others.len().saturating_sub(BUILDS_KEPT - 1);
    for (_, folder) in others.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Writes to the real stderr: the test harness holds back what the print macros write.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("test cluster: {text}\n").as_bytes());
}

#[tokio::test]
async fn the_test_cluster_lets_each_user_do_what_its_roles_say() {
    let cluster = shared().await;
    let (status, _, nodes) =
        cluster.get(cluster.token("admin"), "/api/v1/nodes?labelSelector=type%3Dkwok").await;
    let nodes: serde_json::Value = serde_json::from_slice(&nodes).expect("a node list is JSON");
    assert_eq!((status, nodes["items"].as_array().map(Vec::len)), (200, Some(3)));
    assert_eq!(cluster.get(cluster.token("nobody"), "/api/v1/nodes").await.0, 403);
    assert_eq!(cluster.get("no-such-token", "/api/v1/nodes").await.0, 401);
    let by_certificate = cluster.kubectl("cert-admin", &["get", "nodes", "-o", "name"]);
    let words = String::from_utf8_lossy(&by_certificate.stderr);
    assert!(by_certificate.status.success(), "kubectl with a client certificate: {words}");
    assert!(!cluster.kubectl("cert-user", &["get", "nodes"]).status.success());
    assert!(cluster.ca_pem().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test]
async fn the_folder_of_other_binaries_may_be_named_from_where_the_tests_run() {
    let started = tokio::task::spawn_blocking(|| {
        // Through a folder that only the one where we are has.
        let mut folder = PathBuf::from("tests/..");
        folder.extend(std::env::current_dir()?.components().skip(1).map(|_| ".."));
        folder.push(std::path::absolute(built()?)?.strip_prefix("/")?);
        let folder = folder.to_str().context("the folder's name is no text")?;
        start(&["--bare", "--assets", folder])
    });
    let (cluster, _supervisor) = started.await.unwrap().unwrap();
    assert_eq!(cluster.get(cluster.token("admin"), "/version").await.0, 200);
}

#[tokio::test]
async fn pods_of_the_test_cluster_end_as_their_fate_says() {
    let cluster = shared().await;
    let namespace = cluster.namespace("fate").await;
    let wanted = [
        ("none", "Running", "running", ""),
        ("crash", "Running", "waiting", "CrashLoopBackOff"),
        ("fail", "Failed", "terminated", "Error"),
        ("done", "Succeeded", "terminated", "Completed"),
        ("pending", "Pending", "waiting", "ImagePullBackOff"),
    ];
    for (fate, phase, state, reason) in wanted {
        cluster
            .apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {fate}\n  namespace: {namespace}\n  \
                 annotations: {{test.binnacle/fate: {fate}}}\nspec:\n  containers:\n  \
                 - {{name: main, image: example.invalid/main}}\n"
            ))
            .await;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{fate}");
        let there = || async {
            let (_, _, body) = cluster.get(cluster.token("admin"), &path).await;
            let pod: serde_json::Value = serde_json::from_slice(&body).expect("a pod is JSON");
            let status = &pod["status"];
            let container = &status["containerStatuses"][0]["state"][state];
            status["phase"] == phase
                && container.is_object()
                && container["reason"].as_str().unwrap_or_default() == reason
        };
        Cluster::eventually(&format!("the pod of fate {fate} is {phase}"), there).await;
    }
}
