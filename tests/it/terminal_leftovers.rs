//! What is left in a container of a session that its process did not end, on the real control
//! plane: nothing. Whoever goes, is cut off or loses the right takes a process with him that has
//! neither a terminal nor anything to read; and so do we when we end.
//!
//! It is NOT where it is tested what people are told of an end (`terminals.rs`).

use http::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::people::{self, Person};
use crate::terminals::{Client, UPGRADE, runs, sh, web};

/// A process that never ends by itself, and writes its number to a file of this name.
fn endless(namespace: &str, file: &str) -> String {
    sh(namespace, &format!("echo $$ > {file}; while sleep 0.2; do echo tick; done"))
}

/// Waits until the process with the number in the file is gone.
async fn is_gone(cluster: &Cluster, gateway: &Gateway, namespace: &str, file: &str) {
    let look = sh(namespace, &format!("kill -0 $(cat {file})"));
    let is_gone = || async {
        let mut client = Client::open(gateway, cluster.token("admin"), &look).await;
        client.closed().await;
        client.code() == Some(1)
    };
    Cluster::eventually(&format!("the process of {file} is gone"), is_gone).await;
}

#[tokio::test]
async fn a_process_whose_client_goes_or_is_cut_off_goes_too() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-gone").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    for (file, flags, says_goodbye) in
        [("goodbye", "", true), ("cut", "", false), ("input", "stdin=true", true)]
    {
        let path = format!("{}{flags}", endless(&namespace, file));
        let mut client = Client::open(&gateway, admin, &path).await;
        client.shows("tick").await;
        if says_goodbye {
            client.put(Message::Close(None)).await;
        }
        drop(client);
        is_gone(cluster, &gateway, &namespace, file).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_process_goes_with_the_right_to_it_and_with_the_server() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-over").await;
    let person = Person::new(cluster, &namespace, "runner").await;
    let rules = json!([people::rule(&["get", "create"], &["pods/exec"])]);
    people::grant(cluster, Some(&namespace), "runner", person.subject.clone(), rules).await;
    let extra = ["--stream-recheck", "1"].map(String::from).to_vec();
    let gateway = gateway::start(Options { extra, ..Options::default() }).await;
    let bearer = format!("Bearer {}", person.token);
    let mut headers = UPGRADE.to_vec();
    headers.push(("authorization", bearer.as_str()));
    let quick = sh(&namespace, "true");
    let may = || async {
        gateway.request(Method::GET, None, &quick, &headers, Vec::new()).await.status == 101
    };
    Cluster::eventually("the right is there", may).await;

    let mut client = Client::open(&gateway, &person.token, &endless(&namespace, "right")).await;
    client.shows("tick").await;
    let bindings = people::bindings(Some(&namespace));
    people::delete(cluster, &format!("{bindings}/runner")).await;
    assert_eq!(client.closed().await, 1008);
    is_gone(cluster, &gateway, &namespace, "right").await;

    let (ending, admin) = (gateway::start(Options::default()).await, cluster.token("admin"));
    let mut client = Client::open(&ending, admin, &endless(&namespace, "server")).await;
    client.shows("tick").await;
    let ((), code) = tokio::join!(ending.stop(), client.closed());
    assert_eq!(code, 1001);
    is_gone(cluster, &gateway, &namespace, "server").await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_attached_to_goes_on_whoever_leaves() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("terminal-attached").await;
    let main = "{name: main, image: example.invalid/main, stdin: true}";
    let metadata = format!("{{name: web, namespace: {namespace}}}");
    let pod = format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n");
    cluster.apply(&format!("{pod}spec: {{containers: [{main}]}}\n")).await;
    runs(cluster, &namespace, "web").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/pod/{namespace}/web/attach?stdin=true");
    let attached = async |word: &str| {
        let mut client = Client::open(&gateway, cluster.token("admin"), &path).await;
        client.put(Message::binary(format!("{word}\n").into_bytes())).await;
        client.shows(word).await;
        client
    };
    let mut stays = attached("stays").await;
    let mut goes = attached("goes").await;
    goes.put(Message::Close(None)).await;
    drop(goes);
    drop(attached("is cut off").await);
    stays.put(Message::binary(b"still there\n".to_vec())).await;
    stays.shows("still there").await;
    drop(attached("another").await);
    gateway.stop().await;
}
