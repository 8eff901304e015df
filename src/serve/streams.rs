//! What is under way on one HTTP/2 connection. hyper hands each stream to an executor: an answer until
//! its body is sent, an upgraded one (a WebSocket, RFC 8441) until our side of it has ended.
//!
//! It counts them and ends none: that is done by those who serve them.

use hyper::rt::Executor;
use tokio_util::task::TaskTracker;

/// The streams of a connection; clones are one and the same.
#[derive(Clone, Default)]
pub(super) struct Streams(TaskTracker);

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_stream_counts_until_it_has_ended() {
        let streams = Streams::default();
        assert!(streams.is_empty());
        let (go, wait) = oneshot::channel::<()>();
        streams.execute(async move { drop(wait.await) });
        assert!(!streams.is_empty());
        drop(go);
        streams.0.close();
        streams.0.wait().await;
        assert!(streams.is_empty());
    }
}
