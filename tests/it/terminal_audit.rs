//! What our own log, at the level where most is said, tells of sessions on the real control plane:
//! who began and ended which, and who was refused; nothing that was run, typed or shown, and no
//! session id.
//!
//! It is NOT where sessions themselves are tested (`terminals.rs`, `shells.rs`).

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::process::Child;
use tokio_tungstenite::tungstenite::Message;

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::lifecycle::{bearer, get};
use crate::people::{Person, grant, rule};
use crate::shells::{Shell, WEBSOCKET, bind, stdin};
use crate::spawned::{authority, command};
use crate::terminals::{Client, UPGRADE, sh, web};

/// Of all our own words, and of what other crates say short of whole frames.
const LEVEL: &str = "debug,binnacle=trace";
/// What must not be logged, each where its name says.
const COMMAND: &str = "mark-of-a-command";
const OUTPUT: &str = "mark-of-an-output";
const TYPED: &str = "mark-of-what-was-typed";
const FRAME: &str = "mark-of-a-frame";
/// The cluster's name for the holder of `admin`'s token.
const ADMIN: &str = "token-admin";

/// A binary whose words all go to a file; it is killed with us.
struct Talker {
    _child: Child,
    log: PathBuf,
    address: SocketAddr,
    tls: ClientConfig,
}

impl Talker {
    async fn start(folder: &Path, cluster: &Cluster) -> Talker {
        let log = folder.join("log");
        let file = File::create(&log).unwrap();
        let mut command = command(folder);
        command.args(["--listen", "127.0.0.1:0", "--log-level", LEVEL, "--log-format", "json"]);
        command.arg("--state-dir").arg(folder.join("state"));
        command.arg("--kubeconfig").arg(cluster.kubeconfig("admin"));
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Cluster::eventually("it says where it listens", || async { address(&log).is_some() }).await;
        let tls = trusting(&authority(folder).await);
        let address = address(&log).unwrap();
        Talker { _child: child, log, address, tls }
    }

    /// The audit log's lines of an event.
    fn lines(&self, event: &str) -> Vec<Value> {
        let words = std::fs::read_to_string(&self.log).unwrap();
        let lines = words.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "audit" && line["event"] == event).collect()
    }

    /// The only line of an event.
    fn line(&self, event: &str) -> Value {
        let mut lines = self.lines(event);
        assert_eq!(lines.len(), 1, "{event}: {lines:#?}");
        lines.remove(0)
    }

    async fn exec(&self, token: &str, path: &str) -> Client {
        let bearer = format!("Bearer {token}");
        Client::at(self.address, self.tls.clone(), path, &[("authorization", &bearer)]).await
    }
}

/// Where a binary says that it listens.
fn address(log: &Path) -> Option<SocketAddr> {
    let words = std::fs::read_to_string(log).unwrap();
    let (_, rest) = words.split_once("listening on https://")?;
    // A line that is not yet written to its end says half of it.
    let (line, _) = rest.split_once('\n')?;
    line.split(|end: char| end == '"' || end.is_whitespace()).next()?.parse().ok()
}

/// A shell of the contract from its id to its end, and once more with the same id. Returns the id
/// and the sealed credentials.
async fn shell(talker: &Talker, token: &str, namespace: &str) -> [String; 2] {
    let path = format!("/api/v1/pod/{namespace}/web/shell/main?shell=sh");
    let url = format!("https://{}{path}", talker.address);
    let answer = get(&talker.tls, &url, &bearer(token)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let path = format!("{WEBSOCKET}?{id}");
    let open = async || {
        let headers = [("cookie", cookie.as_str())];
        let mut shell = Shell::at(talker.address, talker.tls.clone(), &path, &headers).await;
        shell.say(&[bind(&id)]).await;
        shell
    };
    let mut shell = open().await;
    shell.say(&[stdin(&format!("echo {TYPED}\n")), stdin("exit\n")]).await;
    assert_eq!(shell.end().await.close, Some((1, "Process exited".to_owned())));
    let mut again = open().await;
    assert!(again.end().await.refusal().contains("used already"));
    let (_, sealed) = cookie.split_once('=').unwrap();
    [id, sealed.to_owned()]
}

#[tokio::test]
async fn who_did_what_is_in_the_audit_log_and_what_was_said_is_in_none() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-audit").await;
    let folder = tempfile::tempdir().unwrap();
    let talker = Talker::start(folder.path(), cluster).await;
    let admin = cluster.token("admin");

    let script = format!(": {COMMAND}; echo {OUTPUT}");
    let mut client = talker.exec(admin, &sh(&namespace, &script)).await;
    assert_eq!(client.closed().await, 1000);
    assert_eq!((client.out.as_str(), client.code()), (format!("{OUTPUT}\n").as_str(), Some(0)));
    let cat = format!("/api/v1/pod/{namespace}/web/exec?container=main&command=cat&stdin=true");
    let mut client = talker.exec(admin, &cat).await;
    let frame = json!({"type": "exit", "data": FRAME}).to_string();
    client.put(Message::text(frame)).await;
    assert_eq!(client.closed().await, 1008);
    let mut headers = bearer(cluster.token("nobody"));
    headers.extend(UPGRADE.map(|(name, value)| (name, value.as_bytes().to_vec())));
    let url = format!("https://{}{cat}", talker.address);
    assert_eq!(get(&talker.tls, &url, &headers).await.unwrap().status, 403);
    // The API server takes a WebSocket for a `get`: who may only create begins nothing.
    let person = Person::new(cluster, &namespace, "maker").await;
    let rules = json!([rule(&["create"], &["pods/exec"])]);
    grant(cluster, Some(&namespace), "maker", person.subject.clone(), rules).await;
    let mut headers = bearer(&person.token);
    headers.extend(UPGRADE.map(|(name, value)| (name, value.as_bytes().to_vec())));
    let cannot_get = || async {
        let answer = get(&talker.tls, &url, &headers).await.unwrap();
        assert_eq!(answer.status, 403, "{}", answer.text());
        answer.text().contains("cannot get resource \"pods/exec\"")
    };
    Cluster::eventually("the right to create has arrived", cannot_get).await;
    let secrets = shell(&talker, admin, &namespace).await;

    let all = || async {
        talker.lines("terminal-ended").len() == 3 && !talker.lines("shell-refused").is_empty()
    };
    Cluster::eventually("all is written", all).await;
    let (begun, ended) = (talker.lines("terminal-begun"), talker.lines("terminal-ended"));
    assert_eq!(begun.len(), 3, "{begun:#?}");
    for line in begun.iter().chain(&ended) {
        assert_eq!((&line["user"], &line["verb"]), (&json!(ADMIN), &json!("Exec")), "{line}");
        // Quoted: what comes from a path must not make a line of its own.
        assert_eq!(line["namespace"], format!("{namespace:?}"), "{line}");
        assert_eq!((&line["pod"], &line["container"]), (&json!("\"web\""), &json!("\"main\"")));
    }
    let of = |transport: &str, cause: &str| {
        let is = |line: &&Value| line["transport"] == transport && line["cause"] == cause;
        let found = ended.iter().find(is);
        found.unwrap_or_else(|| panic!("no {transport}, {cause}: {ended:#?}"))
    };
    let process = of("websocket", "Process");
    assert_eq!((&process["bytes_in"], &process["code"]), (&json!(0), &json!(0)), "{process}");
    assert_eq!(process["bytes_out"], OUTPUT.len() + 1, "{process}");
    assert!(process["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{process}");
    let shell = of("sockjs-websocket", "Process");
    assert_eq!(shell["bytes_in"], format!("echo {TYPED}\nexit\n").len(), "{shell}");
    assert!(shell["bytes_out"].as_u64().is_some_and(|bytes| bytes > 0), "{shell}");

    let refused = talker.lines("terminal-refused");
    let nobodys = refused.iter().filter(|line| line["user"] == "nobody");
    assert_eq!(nobodys.count(), 1, "{refused:#?}");
    assert!(refused.iter().all(|line| line["status"] == 403), "{refused:#?}");
    let frame = talker.line("terminal-frame-refused");
    assert_eq!((&frame["user"], &frame["code"]), (&json!(ADMIN), &json!(1008)));
    let again = talker.line("shell-refused");
    assert_eq!((&again["user"], &again["pod"]), (&json!(ADMIN), &json!("web")), "{again}");
    assert!(again["reason"].as_str().unwrap().contains("used already"), "{again}");

    let words = std::fs::read_to_string(&talker.log).unwrap();
    let secrets = secrets.iter().map(String::as_str);
    for secret in secrets.chain([COMMAND, OUTPUT, TYPED, FRAME, admin]) {
        assert!(!secret.is_empty() && !words.contains(secret), "{secret} is in the log");
    }
}
