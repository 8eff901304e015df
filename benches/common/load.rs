//! A load generator over loopback: HTTP/1.1 connections that are kept, plain or TLS, each with one
//! request after the other, bounded in number and in time.
//!
//! It shares the machine with what it measures, so that ratios of requests/s lean towards 1; the
//! CPU time of the measured process does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::process::Process;

/// A connection, and a single request outside of a load: whoever needs longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on loopback.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    token: Option<HeaderValue>,
}

impl Target {
    pub fn plain(address: SocketAddr) -> Self {
        assert!(address.ip().is_loopback(), "{address} is not on this machine");
        Self { address, tls: None, token: None }
    }

    /// With certificates that one of `ca_pem` has signed.
    pub fn tls(address: SocketAddr, ca_pem: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: Some(TlsConnector::from(Arc::new(config))), ..Self::plain(address) }
    }

    /// The same server, reached by way of `relay`.
    pub fn by_way_of(&self, relay: &Self) -> Self {
        Self { address: relay.address, ..self.clone() }
    }

    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        self
    }
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// One connection.
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
    host: HeaderValue,
    token: Option<HeaderValue>,
}

impl Client {
    pub async fn open(target: &Target) -> Self {
        let opened = timeout(PATIENCE, async {
            let tcp = TcpStream::connect(target.address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            match &target.tls {
                None => handshake(tcp).await,
                Some(connector) => {
                    let name = ServerName::from(target.address.ip());
                    handshake(connector.connect(name, tcp).await.unwrap()).await
                }
            }
        });
        let sender = opened.await.unwrap_or_else(|_| panic!("{}: no connection", target.address));
        let host = HeaderValue::from_str(&target.address.to_string()).unwrap();
        Self { sender, host, token: target.token.clone() }
    }

    /// GET with the whole body.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.whole(path, Request::new(Empty::new())).await
    }

    /// POST of nothing, with a token against forgery.
    pub async fn post(&mut self, path: &str, forgery: &str) -> Answer {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::POST;
        request.headers_mut().insert("x-csrf-token", HeaderValue::from_str(forgery).unwrap());
        self.whole(path, request).await
    }

    async fn whole(&mut self, path: &str, request: Request<Empty<Bytes>>) -> Answer {
        let uri: Uri = path.parse().unwrap();
        let answer = timeout(PATIENCE, async {
            let response = self.send(&uri, request).await.unwrap();
            let status = response.status().as_u16();
            Answer { status, body: response.into_body().collect().await.unwrap().to_bytes() }
        });
        answer.await.unwrap_or_else(|_| panic!("{path}: no answer in time"))
    }

    /// GET whose body is counted and thrown away: status and bytes.
    async fn count(&mut self, uri: &Uri) -> hyper::Result<(u16, u64)> {
        let response = self.send(uri, Request::new(Empty::new())).await?;
        let status = response.status().as_u16();
        let (mut body, mut bytes) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok((status, bytes))
    }

    async fn send(
        &mut self,
        uri: &Uri,
        mut request: Request<Empty<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

async fn handshake<S>(stream: S) -> SendRequest<Empty<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    // It ends when the sender is dropped; errors reach the requests.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

/// How much to ask.
#[derive(Clone, Copy)]
pub struct Load {
    pub connections: usize,
    /// Over all connections, at most.
    pub requests: usize,
    /// Then it ends, however many were answered.
    pub longest: Duration,
    /// Requests a second over all connections; as fast as answers come when `None`.
    pub rate: Option<f64>,
}

/// What came of a load.
pub struct Outcome {
    pub answered: usize,
    /// Not 200, or no whole answer.
    pub failed: usize,
    pub bytes: u64,
    pub elapsed: Duration,
    /// CPU time of the measured process for one answer.
    pub cpu: Duration,
    /// Microseconds from sending to the last byte, in order.
    latencies: Vec<u32>,
}

impl Outcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency that `share` (0.99) of all answers kept.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        Duration::from_micros(self.latencies.get(index).copied().unwrap_or_default().into())
    }
}

#[derive(Default)]
struct Lane {
    latencies: Vec<u32>,
    bytes: u64,
    failed: usize,
}

/// When the requests of one connection are due.
#[derive(Clone, Copy)]
struct Pace {
    first: Instant,
    every: Duration,
}

/// Asks `path` of `target` and tells what `process`, which answers, spent on it. `{n}` in the path is
/// another number each time: nothing of an answer can be that of the one before.
pub async fn load(process: &Process, target: &Target, path: &str, load: Load) -> Outcome {
    let path: Arc<str> = path.into();
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        clients.push(Client::open(target).await);
    }
    let (begun, before) = (Instant::now(), process.cpu());
    let end = begun + load.longest;
    let each = load.requests.div_ceil(load.connections);
    let lanes = clients.into_iter().enumerate().map(|(number, mut client)| {
        let path = path.clone();
        let pace = load.rate.map(|rate| Pace {
            // Side by side, not all at once.
            first: begun + Duration::from_secs_f64(number as f64 / rate),
            every: Duration::from_secs_f64(load.connections as f64 / rate),
        });
        tokio::spawn(async move {
            let mut lane = Lane::default();
            let _ =
                timeout_at(end, drive(&mut lane, &mut client, (&path, number * each), each, pace))
                    .await;
            lane
        })
    });
    let lanes: Vec<_> = lanes.collect();
    let mut all = Lane::default();
    for lane in lanes {
        let lane = lane.await.unwrap();
        all.latencies.extend(lane.latencies);
        all.bytes += lane.bytes;
        all.failed += lane.failed;
    }
    let (elapsed, spent) = (begun.elapsed(), process.cpu().saturating_sub(before));
    all.latencies.sort_unstable();
    let answered = all.latencies.len();
    if all.failed > 0 {
        println!("  {path}: {} requests FAILED, {answered} were answered", all.failed);
    }
    let cpu = spent.div_f64(answered.max(1) as f64);
    let Lane { latencies, bytes, failed } = all;
    Outcome { answered, failed, bytes, elapsed, cpu, latencies }
}

async fn drive(
    lane: &mut Lane,
    client: &mut Client,
    (path, offset): (&str, usize),
    each: usize,
    pace: Option<Pace>,
) {
    let is_one = !path.contains("{n}");
    let uri = |number: usize| path.replace("{n}", &number.to_string()).parse::<Uri>().unwrap();
    let mut uri_now = uri(offset);
    for number in 0..each {
        if let Some(Pace { first, every }) = pace {
            // The timer's grain is a millisecond; what became due meanwhile follows at once.
            sleep_until(first + every.mul_f64(number as f64)).await;
        }
        if !is_one {
            uri_now = uri(offset + number);
        }
        let sent = Instant::now();
        match client.count(&uri_now).await {
            Ok((200, bytes)) => {
                let micros = sent.elapsed().as_micros();
                lane.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
                lane.bytes += bytes;
            }
            Ok(_) => lane.failed += 1,
            Err(_) => {
                lane.failed += 1;
                return;
            }
        }
    }
}
