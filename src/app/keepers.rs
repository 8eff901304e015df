//! What goes on for as long as the process does: tasks that a panic does not end, and a thread for
//! work that blocks.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Until what panicked is begun again.
const AGAIN: Duration = Duration::from_secs(1);
/// So long the kept thread waits before it is free for what is queued: that is what such work may
/// wait where the system gives no other thread.
const TURN: Duration = Duration::from_secs(1);

/// Keeps `one` up until `keep` returns, which it does with `stop`. What panics is told of and begun
/// again: nobody else would notice, and what it keeps would stay as it is.
pub(super) async fn kept<T, F>(
    what: &'static str,
    one: T,
    stop: CancellationToken,
    keep: impl Fn(T, CancellationToken) -> F,
) where
    T: Clone,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let running = tokio::spawn(keep(one.clone(), stop.clone()));
        match AbortOnDropHandle::new(running).await {
            Err(error) if error.is_panic() => tracing::error!(what, %error, "is begun again"),
            _ => return,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Keeps one thread for work that blocks alive until what it returns is dropped. Where the system
/// gives no further thread (a limit of processes, or no memory), such work then waits for that one;
/// while there is none at all, tokio panics in whoever brings it.
pub fn keep_thread(runtime: &Runtime) -> Sender<()> {
    let (lives, ended) = mpsc::channel();
    runtime.spawn_blocking(move || wait(ended));
    lives
}

/// Queues itself again behind what is queued, so that this thread, or a new one, does that first.
fn wait(ended: Receiver<()>) {
    if ended.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
        spawn_blocking(move || wait(ended));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_panics_is_begun_again_and_what_returns_is_not() {
        let begun = Arc::new(AtomicUsize::new(0));
        let keep = |begun: Arc<AtomicUsize>, _: CancellationToken| async move {
            assert!(begun.fetch_add(1, Ordering::Relaxed) > 0, "the first time");
        };
        let keeping = kept("a test", begun.clone(), CancellationToken::new(), keep);
        timeout(GENEROUS, keeping).await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn where_no_other_thread_can_be_made_the_one_that_is_kept_does_what_waits() {
        let threads = Arc::new(AtomicUsize::new(0));
        let mut builder = Builder::new_multi_thread();
        builder.enable_time().worker_threads(1).max_blocking_threads(1);
        // Whatever is idle ends at once.
        builder.thread_keep_alive(Duration::from_millis(1));
        let counted = threads.clone();
        builder.on_thread_start(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let runtime = builder.build().unwrap();
        let lives = keep_thread(&runtime);
        for round in 0..2 {
            let work = runtime.spawn_blocking(move || round);
            let done = runtime.block_on(async { timeout(GENEROUS, work).await });
            assert_eq!(done.unwrap().unwrap(), round);
            // An idle one would be gone when the next round begins.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(threads.load(Ordering::Relaxed) <= 2, "the runtime's own and one, all the time");
        let begun = Instant::now();
        drop(lives);
        runtime.shutdown_timeout(GENEROUS);
        assert!(begun.elapsed() < GENEROUS / 2, "it holds up no exit");
    }
}
