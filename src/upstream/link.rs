//! One connection to the API server, driven by whoever waits for what comes on it.
//!
//! hyper's client has a task for each connection, which hands every head and every piece of a body over
//! to the request's own task: two threads and their wake-ups for what one can do. Here the request polls
//! the connection itself. What hyper reads and writes is hyper's; which connection carries what, and
//! for how long one is kept, is `pool`'s.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use axum::body::Body;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use tokio::task::unconstrained;

/// A connection that asks to be polled again each time it was is given so many turns before others on its
/// thread have theirs.
const TURNS: usize = 8;

/// Dropped, it is closed, and what it carries is broken off.
pub(super) struct Link {
    sender: SendRequest<Body>,
    /// The connection itself; none once it is closed.
    driver: Option<BoxFuture<'static, hyper::Result<()>>>,
    nudge: Arc<Nudge>,
    /// Of `nudge`.
    waker: Waker,
}

impl Link {
    pub async fn open<T>(builder: &Builder, io: T) -> hyper::Result<Self>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, connection) = builder.handshake(io).await?;
        let nudge = Arc::new(Nudge::default());
        let waker = Waker::from(nudge.clone());
        Ok(Self { sender, driver: Some(connection.with_upgrades().boxed()), nudge, waker })
    }

    /// Sends a request and waits for the answer's head. A request of which nothing was sent comes back
    /// with the error.
    pub async fn ask(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        // What it waits for comes of our own polling: it has no turn to give to others.
        let mut head = pin!(unconstrained(self.sender.try_send_request(request)));
        poll_fn(|context| self.drive(context, |context| head.as_mut().poll(context))).await
    }

    /// Whether it can carry another request now.
    pub fn is_free(&mut self) -> bool {
        // Whoever waited last is not kept with it.
        drop(self.nudge.outer.take());
        if !self.sender.is_ready() {
            // hyper's last step of an answer, for which it waits for nobody.
            let _ = self.drive(&mut Context::from_waker(Waker::noop()), |_| Poll::<()>::Pending);
        }
        self.driver.is_some() && self.sender.is_ready()
    }

    /// It goes on by itself: what it carries is no longer read by one alone.
    pub fn let_go(self) {
        if let Some(driver) = self.driver {
            tokio::spawn(driver);
        }
    }

    /// Polls what is waited for and the connection that brings it, until there is nothing to do.
    pub fn drive<T>(
        &mut self,
        context: &mut Context<'_>,
        mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.nudge.outer.register(context.waker());
        let mut inner = Context::from_waker(&self.waker);
        for _ in 0..TURNS {
            self.nudge.begin();
            if let Poll::Ready(wanted) = wanted(&mut inner) {
                return Poll::Ready(wanted);
            }
            // Only the connection brings it on: what it was nudged for is done now.
            self.nudge.begin();
            let is_over = |driver: &mut BoxFuture<'_, _>| driver.poll_unpin(&mut inner).is_ready();
            if self.driver.as_mut().is_some_and(is_over) {
                // Whatever still waits in it is told so.
                self.driver = None;
            }
            if self.nudge.rest() {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Wakes who polls a link, but not while he does: the two ends of hyper's channels wake each other with
/// each piece, and both are his.
#[derive(Default)]
struct Nudge {
    state: AtomicU8,
    outer: AtomicWaker,
}

/// Nobody polls: to be nudged is to be woken.
const RESTING: u8 = 0;
const POLLED: u8 = 1;
const NUDGED: u8 = 2;

impl Nudge {
    fn begin(&self) {
        self.state.store(POLLED, Ordering::SeqCst);
    }

    /// Whether nothing came since `begin`.
    fn rest(&self) -> bool {
        let (from, to) = (POLLED, RESTING);
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(NUDGED, Ordering::SeqCst) == RESTING {
            self.outer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_polls_is_woken_when_he_rests_and_once() {
        let count = Arc::new(Count::default());
        let nudge = Arc::new(Nudge::default());
        let wake = || Waker::from(nudge.clone()).wake();
        nudge.outer.register(&Waker::from(count.clone()));
        nudge.begin();
        wake();
        assert!(!nudge.rest(), "he has something to do");
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        nudge.begin();
        assert!(nudge.rest());
        wake();
        wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
