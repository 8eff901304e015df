//! kubectl cannot tell us from the API server: each command, run directly and through us, prints
//! the same and ends alike.
//!
//! What the requests look like on the wire is in `passthrough.rs`; `--proxy-listen` in
//! `proxy_port.rs`.

use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::spawned;

/// Until a command is given up; never how long it should take.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a comparison is repeated: the cluster lives, and may change between the two runs.
const ATTEMPTS: usize = 6;

/// `kubectl` twice: straight to the API server, and through us.
pub struct Pair {
    pub cluster: &'static Cluster,
    pub gateway: Gateway,
    pub namespace: String,
    /// Through `--proxy-listen` in place of `/clusters/test`.
    pub at_root: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Through,
}

const BOTH: [Way; 2] = [Way::Direct, Way::Through];

#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub words: String,
}

impl Pair {
    async fn start(namespace: &str) -> Pair {
        Pair::of(namespace, Options::default()).await
    }

    pub async fn of(namespace: &str, options: Options) -> Pair {
        let (cluster, at_root) = (cluster::shared().await, options.proxy_listen);
        let gateway = gateway::start(options).await;
        Pair { cluster, gateway, namespace: cluster.namespace(namespace).await, at_root }
    }

    pub fn command(&self, way: Way, namespace: &str, args: &[&str]) -> Command {
        let mut command = Command::from(self.cluster.kubectl_command("admin"));
        match way {
            Way::Direct => {}
            Way::Through if self.at_root => {
                command.env("KUBECONFIG", "/dev/null");
                command.args(["--server", self.gateway.proxy_url.as_str()]);
            }
            Way::Through => {
                command.env("KUBECONFIG", self.gateway.kubeconfig("admin"));
            }
        }
        command.args(["--namespace", namespace]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    pub async fn run(&self, way: Way, namespace: &str, args: &[&str], input: &str) -> Ran {
        finish(self.command(way, namespace, args), input).await
    }

    /// Runs a command that only reads both ways, until both say the same. Returns what they said.
    pub async fn same(&self, args: &[&str]) -> Ran {
        self.same_as(args, |ran| Ran { out: without_ages(&ran.out), ..ran }).await
    }

    /// The same for output in which only this part is comparable.
    async fn same_as(&self, args: &[&str], part: impl Fn(Ran) -> Ran) -> Ran {
        let mut seen = None;
        for _ in 0..ATTEMPTS {
            let direct = part(self.run(Way::Direct, &self.namespace, args, "").await);
            let through = part(self.run(Way::Through, &self.namespace, args, "").await);
            if direct == through {
                return through;
            }
            seen = Some((direct, through));
        }
        let (direct, through) = seen.unwrap();
        panic!("kubectl {args:?}: directly\n{direct:#?}\nbut through us\n{through:#?}");
    }

    /// Runs a command that changes something: directly in one namespace, through us in another;
    /// they must say the same but for the namespace's name.
    pub async fn same_change(&self, other: &str, args: &[&str], input: &str) -> Ran {
        let direct = self.run(Way::Direct, other, args, input).await.renamed(other);
        let through = self.run(Way::Through, &self.namespace, args, input).await;
        let through = through.renamed(&self.namespace);
        assert_eq!(through, direct, "kubectl {args:?}");
        through
    }

    /// A running pod called `web`.
    pub async fn pod(&self) {
        let namespace = &self.namespace;
        self.cluster
            .apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: {namespace}\n  \
                 labels: {{app: web}}\nspec:\n  containers:\n  \
                 - {{name: main, image: example.invalid/main}}\n"
            ))
            .await;
        let args = ["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"];
        let ran = self.run(Way::Direct, namespace, &args, "").await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

impl Ran {
    fn renamed(self, namespace: &str) -> Ran {
        let rename = |text: String| text.replace(namespace, "NAMESPACE");
        Ran { out: rename(self.out), words: rename(self.words), ..self }
    }

    pub fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

pub async fn finish(mut command: Command, input: &str) -> Ran {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that does not read its input may be gone before it is written.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("no end of {command:?}")).unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        words: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Ages differ from second to second, and columns are as wide as they are.
fn without_ages(text: &str) -> String {
    static AGES: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b\d+(s|m|h|d)(\d+(s|m|h))?\b").unwrap());
    static SPACES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[ \t]+").unwrap());
    SPACES.replace_all(&AGES.replace_all(text, "AGE"), " ").into_owned()
}

/// Reads this many lines of what a command prints, then ends it.
pub async fn first_lines(child: &mut Child, count: usize) -> Vec<String> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = Vec::new();
    while read.len() < count {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("only {read:?} came")).unwrap();
        read.push(line.unwrap_or_else(|| panic!("it ended after {read:?}")));
    }
    child.kill().await.unwrap();
    read
}

pub const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: main, image: example.invalid/shop}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
";

#[tokio::test]
async fn reading_prints_the_same() {
    let pair = Pair::start("kubectl-reads").await;
    pair.pod().await;
    let out = pair.same(&["get", "pods"]).await.ok().out;
    assert!(out.contains("web 1/1 Running"), "{out}");
    for args in [
        &["get", "pods", "-o", "wide"][..],
        &["get", "pod", "web", "-o", "json"],
        &["get", "pod", "web", "-o", "yaml", "--show-managed-fields"],
        &["get", "pods,serviceaccounts", "--show-labels"],
        &["get", "pods", "-l", "app=web", "-o", "name"],
        &["get", "pods", "--field-selector=metadata.name=web", "-o", "jsonpath={.items[*].spec}"],
        &["get", "namespaces", "default", "kube-system", "-o", "yaml"],
        &["get", "serviceaccounts", "--all-namespaces", "-l", "no=such"],
        &["get", "--chunk-size=20", "clusterroles", "-o", "name"],
        &["describe", "pod", "web"],
        &["describe", "serviceaccount", "default"],
        &["events"],
        &["get", "events", "--sort-by", "metadata.name"],
        &["explain", "pod.spec.containers", "--recursive"],
    ] {
        pair.same(args).await.ok();
    }
    let missing = pair.same(&["get", "pod", "missing"]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.words.contains("(NotFound)"), "{missing:?}");
    assert_eq!(pair.same(&["get", "unicorns"]).await.code, Some(1));
}

#[tokio::test]
async fn discovery_version_and_who_i_am_are_the_same() {
    let pair = Pair::start("kubectl-about").await;
    for args in [
        &["api-resources", "-o", "wide"][..],
        &["api-versions"],
        &["version"],
        &["version", "-o", "json"],
        &["auth", "whoami", "-o", "yaml"],
        &["auth", "can-i", "create", "pods"],
        &["auth", "can-i", "--list"],
    ] {
        pair.same_as(args, without_times).await.ok();
    }
    let no = pair.same(&["auth", "can-i", "create", "pods", "--as", "nobody"]).await;
    assert_eq!((no.code, no.out.as_str()), (Some(1), "no\n"));
    let denied = pair.same(&["get", "pods", "--as", "nobody"]).await;
    assert!(denied.words.contains("(Forbidden)"), "{denied:?}");
}

/// `auth whoami` prints when the question was asked.
fn without_times(ran: Ran) -> Ran {
    let lines = ran.out.lines().filter(|line| !line.contains("creationTimestamp"));
    Ran { out: lines.collect::<Vec<_>>().join("\n"), ..ran }
}

#[tokio::test]
async fn changing_something_prints_and_does_the_same() {
    let pair = Pair::start("kubectl-writes").await;
    let other = pair.cluster.namespace("kubectl-writes").await;
    let change =
        async |args: &[&str], input: &str| pair.same_change(&other, args, input).await.ok();
    let created = change(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(created.out.contains("deployment.apps/shop created"), "{created:?}");
    let unchanged = change(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(unchanged.out.contains("configmap/settings unchanged"), "{unchanged:?}");
    let red = DEPLOYMENT.replace("green", "red");
    let configured = change(&["apply", "-f", "-"], &red).await;
    assert!(configured.out.contains("configmap/settings configured"), "{configured:?}");
    let forced = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    assert!(change(&forced, DEPLOYMENT).await.out.contains("serverside-applied"));
    for (way, namespace) in [(Way::Direct, &other), (Way::Through, &pair.namespace)] {
        // How many words it has on the way depends on how far the pods are.
        let args = ["rollout", "status", "deployment/shop", "--timeout=60s"];
        let ran = pair.run(way, namespace, &args, "").await.ok();
        assert!(ran.out.ends_with("successfully rolled out\n"), "{ran:?}");
    }
    change(&["wait", "--for=condition=Available", "deployment/shop", "--timeout=60s"], "").await;
    change(&["patch", "configmap", "settings", "-p", r#"{"data":{"size":"big"}}"#], "").await;
    let json = r#"[{"op":"replace","path":"/data/size","value":"small"}]"#;
    change(&["patch", "configmap", "settings", "--type=json", "-p", json], "").await;
    change(&["label", "configmap", "settings", "tier=front"], "").await;
    change(&["annotate", "configmap", "settings", "note=a b"], "").await;
    change(&["scale", "deployment/shop", "--replicas=1"], "").await;
    change(&["create", "configmap", "dry", "--from-literal=a=b", "--dry-run=server"], "").await;
    let data = change(&["get", "configmap", "settings", "-o", "jsonpath={.data}"], "").await;
    assert!(data.out.contains("small") && data.out.contains("green"), "{data:?}");
    change(&["delete", "configmap", "settings"], "").await;
    change(&["delete", "deployment", "shop", "--wait=false"], "").await;
    let again = pair.same_change(&other, &["delete", "configmap", "settings"], "").await;
    assert_eq!(again.code, Some(1));
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: UPPER}\n";
    let invalid = pair.same_change(&other, &["create", "-f", "-"], wrong).await;
    assert!(invalid.words.contains("Invalid value"), "{invalid:?}");
}

#[tokio::test]
async fn the_line_of_the_readme_works_although_the_kubeconfig_trusts_another_authority() {
    let pair = Pair::start("kubectl-readme").await;
    // Its state is beside it.
    let folder = pair.gateway.ca_file.parent().unwrap();
    std::fs::write(folder.join("ca.crt"), spawned::authority(folder).await).unwrap();
    let (_, line) = include_str!("../../README.md").split_once("`kubectl --server ").unwrap();
    let (line, _) = line.split_once('`').unwrap();
    let line =
        line.replace("https://127.0.0.1:8443", &pair.gateway.url).replace("<context>", "test");
    let mut args = vec!["--server"];
    args.extend(line.split_whitespace());
    args.extend(["--token", pair.cluster.token("viewer"), "auth", "whoami", "-o"]);
    args.push("jsonpath={.status.userInfo.username}");
    let mut command = pair.command(Way::Direct, &pair.namespace, &args);
    command.current_dir(folder);
    assert_eq!(finish(command, "").await.ok().out, "viewer");
}

/// What a watch prints while a config map comes and goes: three lines.
pub async fn watched(pair: &Pair, way: Way) -> Vec<String> {
    let selector = "--field-selector=metadata.name=seen";
    let args = ["get", "configmaps", "--watch", "-o", "name", selector];
    let mut child = pair.command(way, &pair.namespace, &args).spawn().unwrap();
    let making = async {
        // Again and again: nobody says when the watch has begun.
        for verb in ["create", "delete"].into_iter().cycle().take(200) {
            pair.run(Way::Direct, &pair.namespace, &[verb, "configmap", "seen"], "").await;
        }
    };
    tokio::select! {
        lines = first_lines(&mut child, 3) => lines,
        () = making => panic!("{way:?}: the watch did not see what happened"),
    }
}

#[tokio::test]
async fn a_watch_prints_the_same_lines_as_they_happen() {
    let pair = Pair::start("kubectl-watch").await;
    for way in BOTH {
        assert_eq!(watched(&pair, way).await, ["configmap/seen"; 3], "{way:?}");
    }
}

#[tokio::test]
async fn logs_are_the_same_and_following_ends_with_the_container() {
    let pair = Pair::start("kubectl-logs").await;
    pair.pod().await;
    let whole = pair.run(Way::Through, &pair.namespace, &["logs", "web"], "").await.ok();
    assert!(whole.out.lines().count() > 3, "{whole:?}");
    let exact = |ran: Ran| ran;
    pair.same_as(&["logs", "web"], exact).await.ok();
    pair.same_as(&["logs", "web", "--tail=2", "--timestamps"], exact).await.ok();
    pair.same_as(&["logs", "-l", "app=web", "--prefix"], exact).await.ok();
    assert_eq!(pair.same_as(&["logs", "web", "-c", "none"], exact).await.code, Some(1));
    let args = ["logs", "web", "--follow"];
    let mut follow = pair.command(Way::Through, &pair.namespace, &args).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(first.as_deref(), whole.out.lines().next());
    let delete = ["delete", "pod", "web", "--wait=false"];
    pair.run(Way::Direct, &pair.namespace, &delete, "").await.ok();
    tokio::time::timeout(DEADLINE, follow.wait()).await.expect("the follow ends").unwrap();
}

#[tokio::test]
async fn exec_carries_input_both_outputs_and_the_exit_code_over_both_transports() {
    let pair = Pair::start("kubectl-exec").await;
    pair.pod().await;
    let script = "cat; echo problem >&2; exit 7";
    let args = ["exec", "-i", "web", "--", "sh", "-c", script];
    let input = "some input\n".repeat(5000);
    for websockets in ["true", "false"] {
        let mut ran = Vec::new();
        for way in BOTH {
            let mut command = pair.command(way, &pair.namespace, &args);
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
            ran.push(finish(command, &input).await);
        }
        assert_eq!(ran[0], ran[1], "websockets: {websockets}");
        assert_eq!(ran[1].code, Some(7));
        assert!(ran[1].out == input, "{} bytes came back", ran[1].out.len());
        assert!(ran[1].words.contains("problem"), "{}", ran[1].words);
    }
    let missing = pair.same(&["exec", "missing", "--", "true"]).await;
    assert_eq!(missing.code, Some(1));
    let denied = pair.same(&["exec", "web", "--as", "nobody", "--", "true"]).await;
    assert!(denied.words.contains("(Forbidden)"), "{denied:?}");
}

#[tokio::test]
async fn attaching_to_a_container_shows_what_it_echoes_over_both_transports() {
    let pair = Pair::start("kubectl-attach").await;
    // With `stdinOnce` the end of the input ends the container's process, and so the attachment.
    let main = "{name: main, image: example.invalid/main, stdin: true, stdinOnce: true}";
    let metadata = format!("{{name: echo, namespace: {}}}", pair.namespace);
    let pod = format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n");
    pair.cluster.apply(&format!("{pod}spec: {{containers: [{main}]}}\n")).await;
    let wait = ["wait", "--for=condition=Ready", "pod/echo", "--timeout=60s"];
    pair.run(Way::Direct, &pair.namespace, &wait, "").await.ok();
    for (way, websockets) in BOTH.into_iter().flat_map(|way| [(way, "true"), (way, "false")]) {
        let mut command = pair.command(way, &pair.namespace, &["attach", "-i", "echo"]);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
        let ran = finish(command, "one\ntwo\n").await.ok();
        assert_eq!(ran.out, "one\ntwo\n", "{way:?}, websockets: {websockets}");
    }
}

#[tokio::test]
async fn copying_a_file_there_and_back_changes_nothing() {
    let pair = Pair::start("kubectl-cp").await;
    pair.pod().await;
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(folder.path().join("there"), &content).unwrap();
    for (from, to) in [("there", "web:copied"), ("web:copied", "back")] {
        let mut command = pair.command(Way::Through, &pair.namespace, &["cp", from, to]);
        command.current_dir(folder.path());
        finish(command, "").await.ok();
    }
    assert!(std::fs::read(folder.path().join("back")).unwrap() == content, "it changed");
}

/// Forwards a port of the pod `web` and asks once through it.
pub async fn forwarded(pair: &Pair, websockets: &str) -> String {
    let args = ["port-forward", "pod/web", ":8080", "--address=127.0.0.1"];
    let mut command = pair.command(Way::Through, &pair.namespace, &args);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, reading).await.expect("the answer ends").unwrap();
    child.kill().await.unwrap();
    answer
}

#[tokio::test]
async fn a_forwarded_port_answers_over_both_transports() {
    let pair = Pair::start("kubectl-forward").await;
    pair.pod().await;
    let hello = format!("hello from {}/web port 8080", pair.namespace);
    for websockets in ["true", "false"] {
        let answer = forwarded(&pair, websockets).await;
        assert!(answer.contains(&hello), "websockets: {websockets}: {answer}");
    }
}

#[tokio::test]
async fn top_names_the_same_nodes_and_pods() {
    let pair = Pair::start("kubectl-top").await;
    let there = || async {
        let ran = pair.run(Way::Direct, "default", &["top", "nodes"], "").await;
        ran.code == Some(0) && ran.out.lines().count() > 3
    };
    Cluster::eventually("metrics-server has measured the nodes", there).await;
    // Usage goes up and down; what is used is not ours to prove.
    let names = |ran: Ran| {
        let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        Ran { out: ran.out.lines().map(first).collect::<Vec<_>>().join(" "), ..ran }
    };
    let nodes = pair.same_as(&["top", "nodes"], names).await.ok();
    assert!(nodes.out.starts_with("NAME "), "{nodes:?}");
    pair.same_as(&["top", "pods"], names).await.ok();
}
