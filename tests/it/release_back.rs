//! Acts that take themselves back when they fail, with helm 4 and helm 3.
//!
//! What else becomes of failures is in `release_writes.rs` and `release_denials.rs`.

use futures::future::join_all;
use serde_json::json;

use crate::cluster;
use crate::gateway;
use crate::helm_charts::{BOTH, Hand, archive, hookfail, listed_by_helm, options, slow};
use crate::release_writes::{waiting, with};

#[tokio::test]
async fn what_waits_or_fails_may_take_itself_back_and_nothing_of_it_stays() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let gateway = gateway::start(options(major)).await;
        let namespace = cluster.namespace(&format!("helm{major}-back")).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        let slow = async {
            let mut body = json!({"chart": archive(&slow()), "rollbackOnFailure": true});
            body["timeout"] = "1s".into();
            let ended = hand.done("install", "slow", body).await;
            assert_eq!(ended["state"], "failed", "{ended}");
            assert_eq!(ended["error"]["class"], "timeout", "{ended}");
            assert_eq!(hand.status("slow").await, "");
        };
        let web = async {
            hand.succeeds("install", "web", with(json!({"message": "one"}))).await;
            // The way back has as long, and has to succeed: pods come and go meanwhile.
            let mut body = waiting(major, "8s", json!({"message": "two", "fate": "pending"}));
            body["rollbackOnFailure"] = true.into();
            let ended = hand.done("upgrade", "web", body).await;
            assert_eq!(ended["error"]["class"], "timeout", "{ended}");
            let rows = listed_by_helm(major, hand.token, &namespace).await;
            assert_eq!(rows["web"][..2], ["3".to_owned(), "deployed".to_owned()]);
        };
        let hooked = async {
            let body = json!({"chart": archive(&hookfail()), "rollbackOnFailure": true});
            let ended = hand.done("install", "hooked", body).await;
            assert_eq!(ended["error"]["class"], "hook-failed", "{ended}");
            assert_eq!(hand.status("hooked").await, "");
        };
        // The long one goes on while the others are over soon.
        tokio::join!(web, slow, hooked);
        hand.agrees_with_helm(major, "taken back").await;
        gateway.stop().await;
    }))
    .await;
}
