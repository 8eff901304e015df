//! The table of `release_denials.rs` with helm 3, apart from that with helm 4: each takes the machine
//! for ten seconds.
//!
//! Other outcomes are in `release_writes_helm3.rs`.

use crate::release_denials::table;

#[tokio::test]
async fn acts_that_the_cluster_is_against_end_as_helm_3_lists_them() {
    table(3).await;
}
