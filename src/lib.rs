//! Binnacle: the backend-for-frontend and API gateway that Kubernetes dashboards stand on.
//!
//! The rooms and who may use whom: ARCHITECTURE.md.

pub mod api;
pub mod app;
pub mod auth;
pub mod cache;
pub mod charts;
pub mod config;
pub mod demo;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod helm;
pub mod i18n;
pub mod kinds;
pub mod query;
pub mod serve;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod yaml;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What work gives, and how often somebody else at its worker had a turn meanwhile.
    pub async fn beside<T>(work: impl Future<Output = T>) -> (T, usize) {
        let turns = Arc::<AtomicUsize>::default();
        let counted = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let done = work.await;
        other.abort();
        (done, turns.load(Ordering::Relaxed))
    }
}
