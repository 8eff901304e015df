//! A real OCI registry (Debian's docker-registry) as a repository of charts: behind TLS of a
//! private authority with a password, and without either. What helm pushes we list, what we push
//! helm pulls, and releases are made of what an `oci://` reference names.
//!
//! It is NOT where other servers are written to (`chart_uploads.rs`), nor where registries lie
//! (`chart_hostile.rs` and the unit tests of `src/charts`).

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::chart_repos::{Shelf, says};
use crate::chart_uploads::{provenance, push, uploaded};
use crate::cluster::{self, Cluster};
use crate::debian;
use crate::gateway::{self, Gateway};
use crate::helm_charts::{BOTH, Hand, helm, options, small, web};
use crate::museum_server::{Authority, Pack};
use crate::writes::live;

/// Until it is given up; never how long it should take.
const DEADLINE: Duration = Duration::from_secs(30);
const USER: &str = "keeper";
const PASSWORD: &str = "battery staple";
/// The registry knows bcrypt alone: of the password above, with the least work.
const HASH: &str = "$2b$04$oZ6euXz1rIpGjSQDpUlfRuCw16wgWFUArkyy/QcbC7JqKdXwwGFCO";

/// A running registry, which ends when this is dropped, or when the thread that started it ends.
struct Registry {
    child: Child,
    port: u16,
    authority: Option<Authority>,
    folder: tempfile::TempDir,
}

impl Registry {
    /// With `guarded` it has TLS and a password, and lets tags be deleted.
    async fn start(guarded: bool) -> Registry {
        let program = debian::installed("docker-registry", "docker-registry");
        let folder = tempfile::tempdir().unwrap();
        let authority = guarded.then(Authority::new);
        let config = config(folder.path(), authority.as_ref());
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config.to_string()).unwrap();
        let words = File::create(folder.path().join("stderr")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).arg("serve").arg(path).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words);
        let child = command.spawn().expect("setpriv of util-linux can be run");
        let mut registry = Registry { child, port: 0, authority, folder };
        let begun = Instant::now();
        while registry.port == 0 {
            let words = registry.words();
            let ended = registry.child.try_wait().unwrap();
            assert!(ended.is_none(), "docker-registry ended with {ended:?}: {words}");
            assert!(begun.elapsed() < DEADLINE, "docker-registry does not start: {words}");
            registry.port = port(&words).unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        registry
    }

    fn words(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// `127.0.0.1:PORT` and what follows.
    fn at(&self, path: &str) -> String {
        format!("127.0.0.1:{}{path}", self.port)
    }

    /// As the configuration allows it.
    fn host(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.at(""))
    }

    fn definition(&self, path: &str) -> Value {
        let mut definition = json!({"type": "oci", "url": format!("oci://{}", self.at(path))});
        if let Some(authority) = &self.authority {
            definition["credentials"] =
                json!({"username": USER, "password": PASSWORD, "ca": authority.pem});
        }
        definition
    }

    async fn shelf(&self, prefix: &str) -> Shelf {
        let namespace = cluster::shared().await.namespace(prefix).await;
        Shelf::allowing(&namespace, &[self.host()], &[]).await
    }

    /// helm at this registry: what it says.
    async fn helm(&self, major: u32, chart: &[u8], args: &[&str]) -> String {
        let ca = self.folder.path().join("ca.pem").display().to_string();
        let mut args = args.to_vec();
        if self.authority.is_some() {
            args.extend(["--username", USER, "--password", PASSWORD, "--ca-file", &ca]);
        } else {
            args.push("--plain-http");
        }
        let output = helm(major, "nobody's", chart, &args).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "helm {major} {args:?}: {said}");
        said
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("docker-registry's stderr:\n{}", self.words());
        }
    }
}

/// The configuration, which may be JSON since that is YAML; what it names is made in the folder.
fn config(folder: &Path, authority: Option<&Authority>) -> Value {
    let place = |name: &str| folder.join(name).display().to_string();
    let storage = json!({"rootdirectory": place("data")});
    let mut config = json!({
        "version": 0.1, "log": {"level": "info"},
        "storage": {"filesystem": storage, "delete": {"enabled": authority.is_some()}},
        "http": {"addr": "127.0.0.1:0", "secret": "none that matters"},
    });
    if let Some(authority) = authority {
        let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"]);
        for (name, text) in [
            ("tls.pem", certificate),
            ("tls.key", key),
            ("ca.pem", authority.pem.clone()),
            ("htpasswd", format!("{USER}:{HASH}\n")),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        config["http"]["tls"] = json!({"certificate": place("tls.pem"), "key": place("tls.key")});
        config["auth"] = json!({"htpasswd": {"realm": "test", "path": place("htpasswd")}});
    }
    config
}

/// The port that it says it listens at.
fn port(words: &str) -> Option<u16> {
    let (_, rest) = words.split_once("listening on 127.0.0.1:")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

fn pack(version: &str, message: &str) -> Pack {
    packed("poppy", version, message)
}

/// No release is made of it: its versions can be deleted.
fn lily(version: &str, message: &str) -> Pack {
    packed("lily", version, message)
}

fn packed(name: &str, version: &str, message: &str) -> Pack {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n\
                data: {message: {{ .Values.message | quote }}}\n";
    let values = format!("message: {message}\n");
    let files = [("templates/map.yaml", text), ("values.yaml", values.as_str())];
    Pack::new(name, version, &files)
}

#[tokio::test]
async fn what_helm_pushes_is_listed_and_what_we_push_helm_pulls() {
    let registry = Registry::start(true).await;
    let charts = format!("oci://{}", registry.at("/charts"));
    registry.helm(4, &web(), &["push", "chart.tgz", &charts]).await;
    registry.helm(3, &small(), &["push", "chart.tgz", &charts]).await;
    let shelf = registry.shelf("registry").await;
    let name = shelf.create("all", registry.definition("/charts")).await;
    assert_eq!(shelf.charts(&name).await, ["small 0.1.0", "web 1.2.0"]);
    let found = shelf.read(&format!("chart?repository={name}&q=says%20something")).await;
    assert_eq!(found["listMeta"]["totalItems"], 2, "the description is known: {found}");
    let detail = shelf.read(&format!("chart/{name}/web/1.2.0")).await;
    assert!(detail["values"].as_str().unwrap().contains("password-of-the-chart"), "{detail}");
    let answer = shelf.get(&format!("chart/{name}/web/1.2.0/archive")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &web()[..]));

    let one = lily("1.0.0", "one");
    for pack in [&one, &lily("1.1.0+build.5", "two"), &lily("1.10.0", "ten")] {
        uploaded(&shelf, &name, pack).await;
        assert!(shelf.versions(&name, "lily").await.contains(&pack.version), "{}", pack.file());
    }
    let versions = ["1.10.0", "1.1.0+build.5", "1.0.0"];
    assert_eq!(shelf.versions(&name, "lily").await, versions);
    pulled(&registry, &lily("1.1.0+build.5", "two")).await;
    replaced_and_deleted(&shelf, &name, &registry, &one).await;
    let path = format!("repository/{name}/refresh");
    let before = shelf.status(&name).await["lastAttempt"].clone();
    assert_eq!(shelf.send(Method::POST, &path, &json!({})).await.status, 202);
    let is_read = || async {
        let status = shelf.status(&name).await;
        status["state"] == "ok" && status["lastAttempt"] != before
    };
    Cluster::eventually("the registry is listed anew", is_read).await;
    assert_eq!(shelf.versions(&name, "lily").await, ["1.10.0", "1.1.0+build.5"]);
    shelf.close().await;
}

/// Both versions of helm pull just what we have pushed.
async fn pulled(registry: &Registry, pack: &Pack) {
    for major in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().display().to_string();
        let from = format!("oci://{}", registry.at(&format!("/charts/{}", pack.name)));
        let args = ["pull", &from, "--version", &pack.version, "-d", &into];
        registry.helm(major, &[], &args).await;
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), pack.bytes, "helm {major}");
    }
}

async fn replaced_and_deleted(shelf: &Shelf, name: &str, registry: &Registry, one: &Pack) {
    let new = lily("1.0.0", "another one");
    let path = format!("chart/{name}");
    let answer = push(&shelf.hand(), Method::POST, &path, &new.bytes).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    pulled(registry, one).await;
    let forced = format!("{path}?force=true");
    let answer = push(&shelf.hand(), Method::POST, &forced, &new.bytes).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let at = format!("chart/{name}/lily/1.0.0");
    assert_eq!(shelf.read(&at).await["values"], "message: another one\n");

    let text = provenance(&new);
    let path = format!("{at}/provenance");
    let answer = push(&shelf.hand(), Method::PUT, &path, text.as_bytes()).await;
    assert!(matches!(answer.status, 200..=204), "{}: {}", answer.status, answer.text());
    let detail = shelf.read(&at).await;
    assert_eq!(detail["signature"]["state"], "present", "{detail}");
    pulled(registry, &new).await;

    let answer = shelf.send(Method::DELETE, &at, &Value::Null).await;
    assert!(matches!(answer.status, 200..=204), "{}: {}", answer.status, answer.text());
    assert_eq!(shelf.versions(name, "lily").await, ["1.10.0", "1.1.0+build.5"]);
    let answer = shelf.send(Method::DELETE, &at, &Value::Null).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

/// Until the registry is listed anew: of old versions no digest is known then.
async fn untold(shelf: &Shelf, name: &str) {
    let is_untold = || async {
        let chart = shelf.read(&format!("chart/{name}/lily")).await;
        let mut all = chart["versions"].as_array().unwrap_or_else(|| panic!("{chart}")).iter();
        all.any(|one| one["version"] == "1.0.0" && one["digest"].is_null())
    };
    Cluster::eventually("no digest of the old version is told", is_untold).await;
}

#[tokio::test]
async fn an_old_version_that_is_replaced_is_the_new_one_without_its_digest_as_well() {
    let registry = Registry::start(false).await;
    let shelf = registry.shelf("registry-old").await;
    let charts = format!("oci://{}", registry.at("/charts"));
    registry.helm(4, &small(), &["push", "chart.tgz", &charts]).await;
    let name = shelf.create("old", registry.definition("/charts")).await;
    uploaded(&shelf, &name, &lily("1.0.0", "one")).await;
    for minor in 1..=5 {
        uploaded(&shelf, &name, &lily(&format!("1.{minor}.0"), "newer")).await;
    }
    untold(&shelf, &name).await;
    let at = format!("chart/{name}/lily/1.0.0");
    assert_eq!(shelf.read(&at).await["values"], "message: one\n");
    let (forced, new) = (format!("chart/{name}?force=true"), lily("1.0.0", "another one"));
    let answer = push(&shelf.hand(), Method::POST, &forced, &new.bytes).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    untold(&shelf, &name).await;
    assert_eq!(shelf.read(&at).await["values"], "message: another one\n");
    shelf.close().await;
}

#[tokio::test]
async fn a_part_of_a_registry_is_named_or_has_a_prefix() {
    let registry = Registry::start(true).await;
    let shelf = registry.shelf("registry-parts").await;
    let all = format!("oci://{}", registry.at("/team/charts"));
    registry.helm(4, &web(), &["push", "chart.tgz", &all]).await;
    registry.helm(4, &small(), &["push", "chart.tgz", &all]).await;
    let others = format!("oci://{}", registry.at("/others"));
    registry.helm(4, &small(), &["push", "chart.tgz", &others]).await;
    for (short, path, oci, wanted) in [
        ("named", "/team/charts", json!({"repositories": ["web"]}), vec!["web"]),
        ("prefix", "", json!({"prefix": "team"}), vec!["small", "web"]),
        ("whole", "", Value::Null, vec!["others/small", "small", "web"]),
    ] {
        let mut definition = registry.definition(path);
        if !oci.is_null() {
            definition["oci"] = oci;
        }
        let name = shelf.create(short, definition).await;
        let found = shelf.charts(&name).await;
        assert_eq!(found.len(), wanted.len(), "{short}: {found:?}");
        for chart in wanted {
            let last = |one: &String| one.split(' ').next().unwrap().ends_with(chart);
            assert!(found.iter().any(last), "{short}: {chart} in {found:?}");
        }
    }
    shelf.close().await;
}

#[tokio::test]
async fn without_tls_and_password_a_registry_is_used_where_it_is_allowed_so() {
    let registry = Registry::start(false).await;
    let shelf = registry.shelf("registry-plain").await;
    let charts = format!("oci://{}", registry.at("/charts"));
    registry.helm(4, &small(), &["push", "chart.tgz", &charts]).await;
    let name = shelf.create("plain", registry.definition("/charts")).await;
    assert_eq!(shelf.charts(&name).await, ["small 0.1.0"]);
    uploaded(&shelf, &name, &pack("1.0.0", "one")).await;
    uploaded(&shelf, &name, &pack("1.2.0", "two")).await;
    assert_eq!(shelf.versions(&name, "poppy").await, ["1.2.0", "1.0.0"]);

    let namespace = cluster::shared().await.namespace("registry-using").await;
    let hand = Hand { namespace: &namespace, ..shelf.hand() };
    let chart = json!({"repository": name, "name": "poppy", "version": "~1.0"});
    hand.succeeds("install", "field", json!({"chart": chart})).await;
    let rows = hand.rows().await;
    assert_eq!(rows["field"][2], "poppy-1.0.0", "{rows:?}");
    let of = |version: &str, update: Value| {
        json!([{
            "namespace": namespace, "name": "field", "version": version, "listed": true,
            "update": update,
        }])
    };
    assert_eq!(releases(&hand, &name).await, of("1.0.0", json!("1.2.0")));
    let chart = json!({"repository": name, "name": "poppy"});
    hand.succeeds("upgrade", "field", json!({"chart": chart})).await;
    assert_eq!(hand.rows().await["field"][2], "poppy-1.2.0");
    assert_eq!(releases(&hand, &name).await, of("1.2.0", Value::Null));

    let path = format!("chart/{name}/poppy/1.2.0");
    let answer = shelf.send(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    says(&answer.text(), &[&format!("{namespace}/field")]);
    // Nothing can be deleted from this one by force either.
    let forced = format!("{path}?force=true");
    let answer = shelf.send(Method::DELETE, &forced, &Value::Null).await;
    assert_eq!(answer.status, 405, "{}", answer.text());
    says(&answer.text(), &["deletes nothing"]);
    assert_eq!(shelf.versions(&name, "poppy").await, ["1.2.0", "1.0.0"]);
    hand.agrees_with_helm(4, "from a registry").await;
    shelf.close().await;
}

/// What a chart says of our releases of it; other tests have some of this name, too.
async fn releases(hand: &Hand<'_>, repository: &str) -> Value {
    let answer = hand.get(&format!("chart/{repository}/poppy")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let chart = answer.json();
    let all = chart["releases"].as_array().unwrap_or_else(|| panic!("{chart}")).iter();
    all.filter(|one| one["namespace"] == hand.namespace).cloned().collect()
}

#[tokio::test]
async fn who_has_the_wrong_password_is_told_so() {
    let registry = Registry::start(true).await;
    let shelf = registry.shelf("registry-wrong").await;
    let good = registry.definition("/charts");
    for (what, key, value) in [
        ("a wrong password", "password", json!("a wrong one")),
        ("a token that is none", "token", json!("a-wrong-token")),
        ("no authority", "ca", Value::Null),
    ] {
        let mut definition = good.clone();
        definition["name"] = shelf.name("wrong").into();
        definition["credentials"][key] = value;
        if key == "token" {
            definition["credentials"]["username"] = Value::Null;
            definition["credentials"]["password"] = Value::Null;
        }
        let tried = shelf.tried(&definition).await;
        assert_eq!(tried["ok"], false, "{what}: {tried}");
        let error = tried["error"].as_str().unwrap_or_default();
        says(error, &["401", "credential", "unauthorized", "trust", "certificate"]);
        assert!(!error.contains("a wrong one") && !error.contains("a-wrong-token"), "{error}");
    }
    let mut definition = good;
    definition["credentials"]["password"] = "a wrong one".into();
    let name = shelf.define("locked", definition).await;
    shelf.until(&name, "failing").await;
    let bytes = pack("1.0.0", "one").bytes;
    let answer = push(&shelf.hand(), Method::POST, &format!("chart/{name}"), &bytes).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    says(&answer.text(), &["does not allow it to the credentials"]);
    shelf.close().await;
}

/// What pins a chart that helm has just pushed, as helm says it.
async fn pushed(registry: &Registry, pack: &Pack) -> String {
    let charts = format!("oci://{}", registry.at("/charts"));
    let said = registry.helm(4, &pack.bytes, &["push", "chart.tgz", &charts]).await;
    let digest = said.lines().find_map(|line| line.strip_prefix("Digest: "));
    digest.unwrap_or_else(|| panic!("no digest in {said}")).to_owned()
}

/// A body with the chart `poppy` of the registry, by a tag, a digest or both.
fn named(registry: &Registry, rest: &str) -> Value {
    json!({"chart": {"oci": format!("oci://{}{rest}", registry.at("/charts/poppy"))}})
}

/// Refused before the 202, with these words, and nothing is made of it or changed.
async fn refused(hand: &Hand<'_>, registry: &Registry, rest: &str, words: &[&str]) {
    let before = hand.rows().await;
    for (act, name) in [("install", "none"), ("upgrade", "field")] {
        let answer = hand.act(act, name, &[], named(registry, rest)).await;
        let (status, text) = (answer.status, answer.text());
        assert_eq!(status, 400, "{act} of {rest}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text}");
    }
    assert_eq!(hand.rows().await, before, "after {rest}");
    let secrets = format!("/api/v1/namespaces/{}/secrets", hand.namespace);
    let lock = live(cluster::shared().await, &format!("{secrets}/binnacle.operation.none")).await;
    assert_eq!(lock, None, "after {rest}");
}

/// By the digests of two charts, the first of which has lost its tag to another one since.
async fn pinned(gateway: &Gateway, major: u32, registry: &Registry, [one, two]: [&str; 2]) {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace(&format!("registry-pinned{major}")).await;
    let hand = Hand { gateway, token: cluster.token("admin"), namespace: &namespace };
    for (act, rest, chart, message) in [
        ("install", format!("@{one}"), "poppy-1.0.0", "one"),
        ("upgrade", format!(":1.1.0@{two}"), "poppy-1.1.0", "two"),
        ("upgrade", ":1.0.0".to_owned(), "poppy-1.0.0", "moved"),
        // A digest decides alone, whatever its tag has become.
        ("upgrade", format!(":1.0.0@{one}"), "poppy-1.0.0", "one"),
    ] {
        hand.succeeds(act, "field", named(registry, &rest)).await;
        assert_eq!(hand.rows().await["field"][2], chart, "helm {major}, {rest}");
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/field");
        let map = live(cluster, &map).await.unwrap();
        assert_eq!(map["data"]["message"], message, "helm {major}, {rest}");
    }
    hand.agrees_with_helm(major, "by digests").await;
    let nobodys = format!("sha256:{}", "0".repeat(64));
    refused(&hand, registry, &format!("@{nobodys}"), &["has no", &nobodys]).await;
    refused(&hand, registry, &format!(":1.1.0@{nobodys}"), &["has no", &nobodys]).await;
    refused(&hand, registry, "@sha256:abc", &["no OCI reference", "@sha256:"]).await;
    refused(&hand, registry, ":7.7.7", &["has no", ":7.7.7"]).await;
}

/// Changes what the registry has under a digest; it gives it out all the same.
fn forge(registry: &Registry, digest: &str, change: fn(Vec<u8>) -> Vec<u8>) {
    let blobs = registry.folder.path().join("data/docker/registry/v2/blobs/sha256");
    let file = blobs.join(&digest[..2]).join(digest).join("data");
    let before = std::fs::read(&file).unwrap();
    let after = change(before.clone());
    assert!(after != before && after.len() == before.len(), "it is another one of that length");
    std::fs::write(file, after).unwrap();
}

#[tokio::test]
async fn a_chart_pinned_by_its_digest_is_that_chart_or_nothing_is_done() {
    let registry = Registry::start(false).await;
    let packs = [pack("1.0.0", "one"), pack("1.1.0", "two")];
    let [one, two] = [pushed(&registry, &packs[0]).await, pushed(&registry, &packs[1]).await];
    let moved = pushed(&registry, &pack("1.0.0", "moved")).await;
    assert_ne!(one, moved, "the tag names another chart");
    let started = BOTH.map(|major| {
        let mut options = options(major);
        options.extra.extend(["--chart-hosts".into(), registry.host()]);
        gateway::start(options)
    });
    let gateways = join_all(started).await;
    let each = gateways.iter().zip(BOTH);
    join_all(each.map(|(gateway, major)| pinned(gateway, major, &registry, [&one, &two]))).await;

    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("registry-forged").await;
    let hand = Hand { gateway: &gateways[0], token: cluster.token("admin"), namespace: &namespace };
    hand.succeeds("install", "field", named(&registry, &format!("@{one}"))).await;
    let archive = packs[1].digest.as_str();
    forge(&registry, archive, |mut bytes| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    });
    refused(&hand, &registry, &format!("@{two}"), &["the chart from the registry", archive]).await;
    forge(&registry, one.strip_prefix("sha256:").unwrap(), |bytes| {
        String::from_utf8(bytes).unwrap().replace("\"poppy\"", "\"tulip\"").into_bytes()
    });
    refused(&hand, &registry, &format!("@{one}"), &["the manifest from the registry", &one]).await;
    hand.agrees_with_helm(4, "after what was forged").await;
    for gateway in gateways {
        gateway.stop().await;
    }
}
