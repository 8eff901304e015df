//! A gateway in this process, in front of the shared real cluster, and requests to it.
//!
//! It proves nothing itself; the modules beside it do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use binnacle::app::{self, Running};
use binnacle::config::{self, Command};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::cluster::{self, Cluster};

/// What differs from a plain start.
pub struct Options {
    pub proxy_listen: bool,
    /// Without it every list is live as the user.
    pub shared_cache: bool,
    /// Whose kubeconfig the gateway itself uses, for watching.
    pub server_user: &'static str,
    pub extra: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { proxy_listen: false, shared_cache: true, server_user: "admin", extra: Vec::new() }
    }
}

pub struct Gateway {
    pub url: String,
    pub proxy_url: String,
    pub ca_file: PathBuf,
    pub local_token: Option<String>,
    pub address: SocketAddr,
    /// Of `--insecure-listen`, where a test asks for it.
    pub http: Option<SocketAddr>,
    running: Option<Running>,
    folder: tempfile::TempDir,
    cluster: &'static Cluster,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}), {}: {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Starts a gateway and waits until it is ready.
pub async fn start(options: Options) -> Gateway {
    let cluster = cluster::shared().await;
    let gateway = start_with(&cluster.kubeconfig(options.server_user), options, cluster).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while gateway.request(Method::GET, None, "/readyz", &[], Vec::new()).await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "the gateway does not become ready");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    gateway
}

pub async fn start_with(
    kubeconfig: &std::path::Path,
    options: Options,
    cluster: &'static Cluster,
) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let mut args: Vec<String> = ["binnacle", "--listen", "127.0.0.1:0"].map(String::from).into();
    args.extend(["--kubeconfig".into(), kubeconfig.display().to_string()]);
    args.extend(["--state-dir".into(), folder.path().join("state").display().to_string()]);
    args.extend(["--drain-delay".into(), "0".into(), "--drain-grace".into(), "2".into()]);
    if options.proxy_listen {
        args.extend(["--proxy-listen".into(), "127.0.0.1:0".into()]);
    }
    if !options.shared_cache {
        args.push("--shared-cache=false".into());
    }
    args.extend(options.extra);
    let command = config::parse(args.into_iter().map(Into::into));
    let Ok(Command::Serve(mut config)) = command else { panic!("bad arguments: {command:?}") };
    // This process is no binnacle that could guard its helm.
    config.charts.guard = env!("CARGO_BIN_EXE_binnacle").into();
    let running = app::start(config).await.unwrap();
    let ca_file = folder.path().join("ca.crt");
    std::fs::write(&ca_file, running.ca_pem.as_deref().unwrap()).unwrap();
    let http = |address: Option<SocketAddr>| {
        address.map(|address| format!("http://{address}")).unwrap_or_default()
    };
    Gateway {
        url: format!("https://{}", running.https),
        proxy_url: http(running.proxy),
        ca_file,
        local_token: running.local_token.clone(),
        address: running.https,
        http: running.http,
        running: Some(running),
        folder,
        cluster,
    }
}

impl Gateway {
    /// A kubeconfig of `user` whose server is us.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{user}.yaml"));
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("{}/clusters/test", self.url),
                "certificate-authority": self.ca_file,
            }}],
            "users": [{"name": user, "user": {"token": self.cluster.token(user)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub async fn get(&self, user: &str, path: &str) -> Answer {
        self.request(Method::GET, Some(user), path, &[], Vec::new()).await
    }

    /// A request with the token of `user`, or with none.
    pub async fn request(
        &self,
        method: Method,
        user: Option<&str>,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(user) = user {
            let token = self.cluster.token(user);
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = self.client().request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Trusts the gateway's own authority alone.
    pub fn tls(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        let pem = std::fs::read(&self.ca_file).unwrap();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    fn client(
        &self,
    ) -> Client<
        hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>,
        Full<Bytes>,
    > {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls())
            .https_or_http()
            .enable_http1()
            .build();
        Client::builder(TokioExecutor::new()).build(connector)
    }

    pub async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            running.drain().await;
        }
    }
}
