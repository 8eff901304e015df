//! What a deploy file may cost before anything is made of it: nothing for somebody made up, and not
//! more than its own text where aliases repeat one.
//!
//! It is NOT where files are tested otherwise (`deploys.rs`).

use crate::cluster;
use crate::deploys::file;
use crate::gateway::{self, Options};
use crate::writes::live;

#[tokio::test]
async fn a_file_is_read_for_known_callers_and_a_text_over_and_over_is_refused() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploy-bounds").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    for (token, status) in [("no-such-token", 401), (admin, 400)] {
        let answer = file(&gateway, token, &namespace, "a: [\n").await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }

    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\ndata:\n";
    let big = |bytes: usize, times: usize| {
        let again: String = (0..times).map(|number| format!("  b{number}: *x\n")).collect();
        format!("{head}  a: &x {}\n{again}", "x".repeat(bytes))
    };
    let answer = file(&gateway, admin, &namespace, &big(1 << 20, 40)).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/big");
    assert_eq!(live(cluster, &path).await, None);
    // Lists of nine lists of nine: some 300 bytes, and 70,000 values.
    let mut short = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..5 {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        short.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    let answer = file(&gateway, admin, &namespace, &short).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("Nodes"), "{}", answer.text());
    let answer = file(&gateway, admin, &namespace, &big(1 << 10, 40)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let made = live(cluster, &path).await.unwrap();
    assert_eq!(made["data"]["b39"].as_str().map(str::len), Some(1 << 10));
}
