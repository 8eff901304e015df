//! Connections to the API server, kept while they are idle, and what an answer's body needs of its own.
//!
//! A request takes the connection that was used last, or makes one. It is not queued behind others: how many
//! are under way at once is bounded where requests come in. What is sent is as it came; a request of
//! which nothing was sent, because a kept connection had ended meanwhile, goes over another one.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, select};
use http::{Request, Response, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tower::{BoxError, Service, ServiceExt as _};

use super::dial::InTime;
use super::link::Link;

/// Idle connections kept: enough for a burst of dashboards, few enough to be polite.
const IDLE_CONNECTIONS: usize = 64;
/// Less than the API server's own 90 s (its `IdleTimeout`), so that no request is sent into a
/// connection that is just being closed: a POST would not be tried again.
const IDLE_TIME: Duration = Duration::from_secs(50);
/// A connection that has carried a long list keeps its grown buffer, and then a quiet watch for
/// minutes: some fifty of them. TLS gives 16 KiB at a time anyway.
const READ_BUFFER: usize = 64 << 10;
/// Headers of an answer. Each warning is one: the API server bounds their text (4,096 characters), and
/// up to 120 of them fit, besides a dozen others. What was written must not look as if it had failed.
const HEADERS: usize = 256;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error(transparent)]
    Connecting(BoxError),
    #[error(transparent)]
    Asking(hyper::Error),
}

/// Clones are one and the same.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    connector: InTime,
    server: Uri,
    http: Builder,
    /// How long one is kept that nobody uses.
    keep: Duration,
    idle: Mutex<Idle>,
    /// One has come back, while somebody may be making one.
    freed: Notify,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is the last, with the time since when it has been idle.
    links: VecDeque<(Instant, Box<Link>)>,
    /// Somebody closes those that nobody uses.
    is_swept: bool,
}

impl Pool {
    /// Of connections to the host of `server`.
    pub fn new(connector: InTime, server: Uri) -> Self {
        Self::keeping(connector, server, IDLE_TIME)
    }

    fn keeping(connector: InTime, server: Uri, keep: Duration) -> Self {
        let mut http = Builder::new();
        http.max_buf_size(READ_BUFFER).max_headers(HEADERS);
        Self(Arc::new(Inner {
            connector,
            server,
            http,
            keep,
            idle: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Sends a request whose URI is path and query alone.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Answer>, Lost> {
        let (mut request, mut sent) = (request, None);
        if !request.body().is_end_stream() {
            let noted = sent.insert(Arc::<AtomicBool>::default()).clone();
            request = request.map(|body| Body::new(Upload { body, sent: noted }));
        }
        let (link, head) = loop {
            let (mut link, is_kept) = self.link().await?;
            request = match link.ask(request).await {
                Ok(head) => break (link, head),
                Err(mut error) => match error.take_message().filter(|_| is_kept) {
                    Some(request) => request,
                    None => return Err(Lost::Asking(error.into_error())),
                },
            };
        };
        let is_upgrade = head.status() == StatusCode::SWITCHING_PROTOCOLS;
        // Both ways at once: who reads what comes may wait for what he sends to have gone.
        let is_double = sent.is_some_and(|sent| !sent.load(Ordering::Relaxed));
        let mut lent = Lent(None);
        if is_upgrade || is_double {
            link.let_go();
        } else {
            lent.0 = Some((link, Arc::downgrade(&self.0)));
        }
        if head.body().is_end_stream() {
            lent.give_back();
        }
        Ok(head.map(|body| Answer { body, lent }))
    }

    /// One that is kept, else whichever is there first: a new one, or one that comes back meanwhile.
    async fn link(&self) -> Result<(Box<Link>, bool), Lost> {
        if let Some(link) = self.0.take() {
            return Ok((link, true));
        }
        let pool = self.clone();
        let mut making = async move { pool.connect().await }.boxed();
        let link = loop {
            match select(&mut making, pin!(self.0.freed.notified())).await {
                Either::Left((made, _)) => return made.map(|link| (link, false)),
                Either::Right(_) => {}
            }
            if let Some(link) = self.0.take() {
                break link;
            }
        };
        let pool = self.0.clone();
        // What was begun is finished, and kept.
        tokio::spawn(async move {
            if let Ok(link) = making.await {
                pool.put(link);
            }
        });
        Ok((link, true))
    }

    async fn connect(&self) -> Result<Box<Link>, Lost> {
        let mut connector = self.0.connector.clone();
        let connector = connector.ready().await.map_err(Lost::Connecting)?;
        let io = connector.call(self.0.server.clone()).await.map_err(Lost::Connecting)?;
        Link::open(&self.0.http, io).await.map(Box::new).map_err(Lost::Asking)
    }
}

impl Service<Request<Body>> for Pool {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let pool = self.clone();
        async move { pool.send(request).await.map_err(BoxError::from) }.boxed()
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Box<Link>> {
        let (since, link) = self.idle().links.pop_back()?;
        // All others are older still; the sweep takes them.
        (since.elapsed() < self.keep).then_some(link)
    }

    /// Takes back one whose answer has been read, if it can carry another.
    fn put(self: &Arc<Self>, mut link: Box<Link>) {
        if !link.is_free() {
            // What it has still to send goes out by itself.
            if Handle::try_current().is_ok() {
                link.let_go();
            }
            return;
        }
        let mut idle = self.idle();
        if idle.links.len() >= IDLE_CONNECTIONS {
            return;
        }
        idle.links.push_back((Instant::now(), link));
        self.freed.notify_one();
        // An answer may be dropped anywhere, also when all ends.
        let runtime = Handle::try_current().ok().filter(|_| !idle.is_swept);
        if let Some(runtime) = runtime {
            idle.is_swept = true;
            runtime.spawn(sweep(Arc::downgrade(self), self.keep));
        }
    }
}

/// Closes what has been idle for long, until nothing is.
async fn sweep(pool: Weak<Inner>, keep: Duration) {
    loop {
        tokio::time::sleep(keep / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        let old = idle.links.partition_point(|(since, _)| since.elapsed() >= keep);
        let closed: Vec<_> = idle.links.drain(..old).collect();
        idle.is_swept = !idle.links.is_empty();
        let is_over = !idle.is_swept;
        drop(idle);
        for (_, link) in closed {
            // It says goodbye, as TLS has it.
            link.let_go();
        }
        if is_over {
            return;
        }
    }
}

/// A request's body: hyper lets go of it once it takes nothing more of it.
struct Upload {
    body: Body,
    sent: Arc<AtomicBool>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.sent.store(true, Ordering::Relaxed);
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer: it drives the connection on which it comes, and gives it back at its end.
pub struct Answer {
    /// Dropped first: hyper skips the little that is left of it.
    body: Incoming,
    lent: Lent,
}

#[cfg(test)]
impl From<Incoming> for Answer {
    /// Of a connection that somebody else drives.
    fn from(body: Incoming) -> Self {
        Self { body, lent: Lent(None) }
    }
}

/// Until it is given back.
struct Lent(Option<(Box<Link>, Weak<Inner>)>);

impl Lent {
    fn give_back(&mut self) {
        let Some((link, pool)) = self.0.take() else { return };
        if let Some(pool) = pool.upgrade() {
            pool.put(link);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let answer = self.get_mut();
        let body = &mut answer.body;
        let Some((link, _)) = &mut answer.lent.0 else { return Pin::new(body).poll_frame(context) };
        let frame = ready!(link.drive(context, |context| Pin::new(&mut *body).poll_frame(context)));
        if frame.is_none() || answer.body.is_end_stream() {
            answer.lent.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
