//! Places for connections: ordinary ones, and for when all of those are taken a few spare ones, on which
//! probes are answered and all else is told to come back. Who is full is alive: a kubelet that hears
//! nothing would end all that is served.
//!
//! The kernel hands out connections as they came, and what one wants is known when it has said so, over
//! TLS after the handshake. So none may wait, or a probe would wait behind it: each is taken in at
//! once, and for one too many the oldest on a spare seat is closed. To keep probes out one has to come
//! more than a hundred times while a single one is answered; to be slow, or many, is not enough. An
//! ordinary request is not served here, however short: it would be closed in the middle.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::header::UPGRADE;
use http::{Method, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Spare seats, of a listener. As many as come at once when a full replica is shown in many browsers: each
/// of them shall hear why it is refused, some 0.3 s from far away.
const SPARE: usize = 128;

/// How long one is held, from accept to close: what a handshake, an answer and the rest of a refused body
/// take on a bad network.
const SPARE_TIME: Duration = Duration::from_secs(5);

/// Between two words to the log that all seats are taken.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What probes ask for: answered at once, and there whatever the base path is.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/healthz"];

/// The seats of one listener.
pub(super) struct Seats {
    ordinary: Arc<Semaphore>,
    connections: u32,
    /// As they came.
    spare: VecDeque<JoinHandle<()>>,
    told: Option<Instant>,
}

impl Seats {
    pub(super) fn new(connections: u32) -> Seats {
        let seats = usize::try_from(connections).unwrap_or(Semaphore::MAX_PERMITS);
        let ordinary = Arc::new(Semaphore::new(seats));
        Seats { ordinary, connections, spare: VecDeque::new(), told: None }
    }

    /// An ordinary seat, if one is free.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.ordinary).try_acquire_owned().ok()
    }

    /// Runs a connection on a spare seat, to its end, or for as long as it may last there.
    pub(super) fn spare(&mut self, connection: BoxFuture<'static, ()>) {
        if self.told.is_none_or(|then| then.elapsed() > TELL_EVERY) {
            let all = self.connections;
            tracing::warn!("all {all} connections are taken: others than probes get a 503");
            self.told = Some(Instant::now());
        }
        self.spare.retain(|one| !one.is_finished());
        if self.spare.len() >= SPARE
            && let Some(oldest) = self.spare.pop_front()
        {
            oldest.abort();
        }
        self.spare.push_back(tokio::spawn(async move {
            let _ = timeout(SPARE_TIME, connection).await;
        }));
    }

    /// Returns when all seats are free. May be called again where it was not waited for.
    pub(super) async fn emptied(&mut self) {
        while let Some(one) = self.spare.front_mut() {
            let _ = one.await;
            self.spare.pop_front();
        }
        let _ = self.ordinary.acquire_many(self.connections).await;
    }
}

/// One that asks to become something else is none: a tunnel outlives its task, and would have no seat.
pub(super) fn is_probe<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && PROBES.contains(&request.uri().path())
        && !request.headers().contains_key(UPGRADE)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http::HeaderValue;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    /// A connection on a spare seat that says nothing; what is returned hears of its end.
    fn silent(seats: &mut Seats) -> oneshot::Receiver<()> {
        let (held, ended) = oneshot::channel::<()>();
        let connection = async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        seats.spare(connection.boxed());
        ended
    }

    #[tokio::test]
    async fn for_one_too_many_the_oldest_on_a_spare_seat_goes() {
        let mut seats = Seats::new(0);
        assert!(seats.take().is_none());
        let oldest = silent(&mut seats);
        let mut others = Vec::new();
        for _ in 0..SPARE {
            others.push(silent(&mut seats));
        }
        assert!(oldest.await.is_err());
        assert!(others.iter_mut().all(|one| one.try_recv() == Err(TryRecvError::Empty)));
    }

    #[tokio::test]
    async fn who_has_ended_is_not_in_the_way_of_the_next() {
        let mut seats = Seats::new(0);
        let mut oldest = silent(&mut seats);
        for _ in 0..2 * SPARE {
            seats.spare(std::future::ready(()).boxed());
            // Lets it run: it has ended by then.
            while !seats.spare.back().unwrap().is_finished() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(oldest.try_recv(), Err(TryRecvError::Empty));
    }

    #[tokio::test]
    async fn the_end_is_that_of_ordinary_and_of_spare_connections() {
        let mut seats = Seats::new(1);
        let seat = seats.take().unwrap();
        let (go, wait) = oneshot::channel::<()>();
        seats.spare(wait.map(|_| ()).boxed());
        assert!(seats.emptied().now_or_never().is_none());
        drop(seat);
        assert!(seats.emptied().now_or_never().is_none(), "the spare one is still there");
        drop(go);
        seats.emptied().await;

        let seat = seats.take().unwrap();
        assert!(seats.emptied().now_or_never().is_none(), "the ordinary one is still there");
        drop(seat);
        seats.emptied().await;
    }

    #[test]
    fn a_probe_is_what_a_kubelet_asks_for_and_never_becomes_a_tunnel() {
        let asked = |method: Method, target: &str| {
            Request::builder().method(method).uri(target).body(()).unwrap()
        };
        for target in ["/livez", "/readyz?verbose", "/healthz", "https://host/livez"] {
            assert!(is_probe(&asked(Method::GET, target)), "{target}");
            assert!(is_probe(&asked(Method::HEAD, target)), "{target}");
            assert!(!is_probe(&asked(Method::POST, target)), "{target}");
            assert!(!is_probe(&asked(Method::CONNECT, target)), "{target}");
        }
        for target in ["/", "/livez/", "/metrics", "/api/v1/pod", "/clusters/a/livez"] {
            assert!(!is_probe(&asked(Method::GET, target)), "{target}");
        }
        let mut upgrade = asked(Method::GET, "/livez");
        upgrade.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert!(!is_probe(&upgrade));
    }
}
