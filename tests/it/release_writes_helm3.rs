//! The table of `release_writes.rs` with helm 3, apart from that with helm 4: each takes the machine
//! for ten seconds.
//!
//! What the cluster is against is in `release_denials_helm3.rs`.

use crate::release_writes::table;

#[tokio::test]
async fn acts_end_as_they_are_said_to_and_as_helm_3_lists_them() {
    table(3).await;
}
