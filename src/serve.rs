//! Listeners: accepts connections within limits, speaks TLS, HTTP/1.1 and HTTP/2, hands each request to one
//! service, and drains without losing an accepted request. It knows no route but those of probes and no
//! credential; what a request means, and how large its body may be, is decided behind the service.

mod limits;
mod seats;
mod stream;
mod streams;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

pub use limits::Limits;
use seats::Seats;
use stream::{Asked, Stream};
use streams::Streams;

/// After an accept error that lasts (out of file descriptors), the first and the longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// At a drain the kernel may hold connections that were made but not accepted: each is waited for this
/// long, and there are at most 1024 of them (tokio's backlog).
const BACKLOG_WAIT: Duration = Duration::from_millis(10);
const BACKLOG: usize = 1024;

/// How long a drain leaves an idle HTTP/1 connection open. A request that is under way to us when we begin
/// to drain is answered with `Connection: close`; closing at once would lose it.
const IDLE_LINGER: Duration = Duration::from_secs(1);

/// After `kill`, how long tunnels get to end themselves.
const ENDING: Duration = Duration::from_secs(2);

/// hyper's own bound on a head, as a multiple of ours. Heads between the two are read and answered with a
/// proper 431; at hyper's bound the connection is closed with part of the head unread, and the client
/// may see a reset in place of the answer.
const HARD_HEADER_FACTOR: usize = 4;

/// What an HTTP/2 client may send on one stream before we have read it. On the connection it may send that
/// for each of its streams (31 MiB; the API server: twice that): shells that read nothing, however many,
/// hold up nothing that shares their connection.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Of a connection (RFC 9113, 6.9.1); h2 takes no larger one.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Smallest buffer that hyper accepts.
const MIN_BUFFER: usize = 8192;

/// How listeners are told to end; clones are one and the same. `app` has the order of SIGTERM.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Accept no more, finish what was accepted, then close.
    pub stop: CancellationToken,
    /// Close now. Tunnels have to watch it themselves: after an HTTP/1 upgrade their bytes are not ours.
    pub kill: CancellationToken,
}

/// What listeners count, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections open now, tunnels included.
    pub open: AtomicUsize,
    /// Connections accepted since start.
    pub accepted: AtomicU64,
    /// Accepts that failed, since start.
    pub accept_errors: AtomicU64,
    /// TLS handshakes that failed or took too long, since start.
    pub handshake_errors: AtomicU64,
}

/// Whom a request came from, in its extensions: the other end of the connection, which may be a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What several listeners share.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Each listener has these limits for itself.
    pub limits: Limits,
    pub drain: Drain,
    pub counts: Arc<Counts>,
}

/// What ends a connection from outside of it.
enum Event {
    Kill,
    Stop,
    /// Since `Stop`, as long as an idle connection lingers.
    LastCall,
    /// The time for the first request is over.
    First,
    /// Time to see whether anything was asked since the last look.
    Look,
}

/// One connection as its requests see it, which share it: to clone a token takes a lock that all
/// connections have in common.
struct Line {
    peer: Peer,
    header_bytes: usize,
    asked: Arc<Asked>,
    stop: CancellationToken,
    /// Answers probes alone, and ends with the first request.
    is_spare: bool,
}

impl Server {
    /// Accepts and serves until `drain.stop`, finishes what was accepted, and returns when all connections
    /// are closed, or shortly after `drain.kill`. Without `tls` it speaks HTTP/1.1 only, with it what
    /// ALPN says.
    pub async fn serve<S>(
        self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        service: S,
    ) where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let tls = tls.map(TlsAcceptor::from);
        let mut seats = Seats::new(self.limits.connections);
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.drain.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    pause = FIRST_PAUSE;
                    self.start(accepted, &mut seats, &tls, &service);
                }
                Err(e) if only_this_one(&e) => {}
                Err(e) => {
                    self.counts.accept_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("cannot accept connections, trying again in {pause:?}: {e}");
                    // Whatever it is (mostly: no file descriptor left), the end of us would not mend it.
                    let _ = timeout(pause, self.drain.stop.cancelled()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        for _ in 0..BACKLOG {
            if self.drain.kill.is_cancelled() {
                break;
            }
            match timeout(BACKLOG_WAIT, listener.accept()).await {
                Ok(Ok(accepted)) => self.start(accepted, &mut seats, &tls, &service),
                Ok(Err(_)) => {}
                Err(_) => break,
            }
        }
        drop(listener);
        self.emptied(&mut seats).await;
    }

    /// Serves on an ordinary seat if one is free, else on a spare one.
    fn start<S>(
        &self,
        (tcp, peer): (TcpStream, SocketAddr),
        seats: &mut Seats,
        tls: &Option<TlsAcceptor>,
        service: &S,
    ) where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let (mut server, tls, service) = (self.clone(), tls.clone(), service.clone());
        let seat = seats.take();
        if seat.is_some() {
            tokio::spawn(server.connection(tcp, peer, seat, tls, service));
            return;
        }
        // Of its own, below ours: its first request begins the drain of this connection.
        server.drain.stop = self.drain.stop.child_token();
        seats.spare(server.connection(tcp, peer, None, tls, service).boxed());
    }

    /// Returns when every connection has given its seat back, or soon after the kill.
    async fn emptied(&self, seats: &mut Seats) {
        tokio::select! {
            () = seats.emptied() => return,
            () = self.drain.kill.cancelled() => {}
        }
        let _ = timeout(ENDING, seats.emptied()).await;
    }

    async fn connection<S>(
        self,
        tcp: TcpStream,
        peer: SocketAddr,
        seat: Option<OwnedSemaphorePermit>,
        tls: Option<TlsAcceptor>,
        service: S,
    ) where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        // Answers are small and written whole: waiting to fill a packet only delays them.
        if let Err(e) = tcp.set_nodelay(true) {
            tracing::debug!(%peer, "cannot set TCP_NODELAY: {e}");
        }
        let (asked, is_spare) = (Arc::<Asked>::default(), seat.is_none());
        let counts = Arc::clone(&self.counts);
        let opened = Stream::open(tcp, tls, seat, counts, Arc::clone(&asked));
        let stream = tokio::select! {
            biased;
            () = self.drain.kill.cancelled() => return,
            opened = timeout(self.limits.handshake, opened) => match opened {
                Ok(Ok(Some(stream))) => stream,
                Ok(Ok(None)) => return,
                Ok(Err(e)) => return self.handshake_failed(peer, &e.to_string()),
                Err(_) => return self.handshake_failed(peer, "it took too long"),
            },
        };
        let line = Arc::new(Line {
            peer: Peer(peer),
            header_bytes: self.limits.header_bytes,
            asked: Arc::clone(&asked),
            stop: self.drain.stop.clone(),
            is_spare,
        });
        let http2 = stream.is_http2();
        let io = TokioIo::new(stream);
        let requests =
            service_fn(move |request| answer(service.clone(), Arc::clone(&line), request));
        if http2 {
            let streams = Streams::default();
            let connection = self.http2(streams.clone()).serve_connection(io, requests);
            // GOAWAY lets requests finish that are under way, so it can be said at once.
            let idle = Some((self.limits.idle, streams));
            self.drive(connection, |c| c.graceful_shutdown(), (Duration::ZERO, idle), &asked).await;
        } else {
            let connection = self.http1().serve_connection(io, requests);
            let connection = connection.with_upgrades();
            self.drive(connection, |c| c.graceful_shutdown(), (IDLE_LINGER, None), &asked).await;
        }
    }

    /// Runs a connection to its end: its own, that of a drain, of a client that never asks anything, or of
    /// one (HTTP/2, where hyper has no such timer) that has asked nothing for `idle` and has no stream
    /// open, be it a watch or a WebSocket: the client's next request opens another connection.
    async fn drive<C>(
        &self,
        connection: C,
        finish: impl Fn(Pin<&mut C>),
        (linger, idle): (Duration, Option<(Duration, Streams)>),
        asked: &Asked,
    ) where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let mut connection = pin!(connection);
        // Polled when one of them has something to say, not whenever a request wakes us: tokens and
        // timers have locks that all connections share.
        let mut events = FuturesUnordered::<BoxFuture<'_, Event>>::new();
        let after = |time, event| sleep(time).map(|()| event).boxed();
        events.push(self.drain.kill.cancelled().map(|()| Event::Kill).boxed());
        events.push(self.drain.stop.cancelled().map(|()| Event::Stop).boxed());
        events.push(after(self.limits.header_time, Event::First));
        if let Some((period, _)) = &idle {
            events.push(after(*period, Event::Look));
        }
        let mut before = Some(0);
        let mut finishing = false;
        loop {
            let event = tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(e) = ended {
                        tracing::debug!("connection ended: {e}");
                    }
                    return;
                }
                Some(event) = events.next() => event,
            };
            let mut is_over = false;
            match (event, &idle) {
                (Event::Kill, _) => return,
                (Event::First, _) if asked.requests() == 0 => {
                    tracing::debug!("connection closed: no request came in time");
                    return;
                }
                (Event::Stop, _) => events.push(after(linger, Event::LastCall)),
                (Event::LastCall, _) => is_over = true,
                (Event::Look, Some((period, streams))) => {
                    let now = streams.is_empty().then(|| asked.requests());
                    is_over = now.is_some() && now == before;
                    before = now;
                    events.push(after(*period, Event::Look));
                }
                (Event::First | Event::Look, _) => {}
            }
            if is_over && !finishing {
                finishing = true;
                finish(connection.as_mut());
            }
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.keep)
            .max_headers(self.limits.headers)
            .max_buf_size(self.hard_header_bytes());
        builder
    }

    fn http2(&self, streams: Streams) -> http2::Builder<Streams> {
        let header_list = u32::try_from(self.hard_header_bytes()).unwrap_or(u32::MAX);
        let window = STREAM_WINDOW.saturating_mul(self.limits.streams).min(LARGEST_WINDOW);
        let mut builder = http2::Builder::new(streams);
        builder
            .timer(TokioTimer::new())
            // WebSockets (RFC 8441): browsers open them on the connection that they have.
            .enable_connect_protocol()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(header_list)
            .keep_alive_interval(self.limits.ping)
            .keep_alive_timeout(self.limits.ping);
        builder
    }

    fn hard_header_bytes(&self) -> usize {
        let bytes = self.limits.header_bytes;
        bytes.saturating_mul(HARD_HEADER_FACTOR).max(MIN_BUFFER)
    }

    fn handshake_failed(&self, peer: SocketAddr, why: &str) {
        self.counts.handshake_errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%peer, "TLS handshake failed: {why}");
    }
}

/// The client went away before we took it in; the next accept is as good as ever.
fn only_this_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// One request: its head is measured, it learns where it came from, and the service answers it.
async fn answer<S>(
    mut service: S,
    line: Arc<Line>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let version = request.version();
    let is_head = request.method() == Method::HEAD;
    line.asked.note(version < Version::HTTP_2 && !request.body().is_end_stream());
    if line.is_spare {
        line.stop.cancel();
    }
    let mut response = if head_bytes(&request) > line.header_bytes {
        too_large(line.header_bytes)
    } else if line.is_spare && !seats::is_probe(&request) {
        full()
    } else if !is_called_once(&request) {
        let text = "A request over HTTP/1.1 needs one Host header, and none may have more.\n";
        plain(StatusCode::BAD_REQUEST, text.to_owned())
    } else {
        request.extensions_mut().insert(line.peer);
        service.ready().await?.call(request).await?
    };
    // Without a body there is nothing to measure: axum names 0, which is not the content's length.
    let without_body =
        is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if without_body && response.headers().get(CONTENT_LENGTH).is_some_and(|size| size == "0") {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    // Over HTTP/2 hyper would send it.
    if is_head {
        *response.body_mut() = Body::empty();
    }
    // An upgrade keeps its own Connection header; HTTP/2 has none.
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if version < Version::HTTP_2 && !upgraded && line.stop.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response)
}

/// As it stood on the wire in HTTP/1: method, target, and `name: value` lines.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |t| t.as_str().len());
    let headers = request.headers().iter();
    let lines: usize = headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    request.method().as_str().len() + target + lines
}

/// Whether it says once by which name it calls us (RFC 9112, 3.2): of two, who is in front of us and we
/// might each believe another. HTTP/1.0 needs none, and HTTP/2 has it in the address.
fn is_called_once<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let said = (request.version(), hosts.next(), hosts.next());
    !matches!(said, (_, _, Some(_)) | (Version::HTTP_11, None, _))
}

fn too_large(limit: usize) -> Response<Body> {
    let text = format!("The headers of this request are too large: send at most {limit} bytes.\n");
    plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text)
}

/// Clients of Kubernetes come back by themselves after that many seconds.
fn full() -> Response<Body> {
    let text = "All connections of this server are taken: try again in some seconds.\n".to_owned();
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
