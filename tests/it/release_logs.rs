//! What we log ourselves while releases are made, at the level where most is said: what was done
//! and refused, by name, and no secret of values, templates, repositories or callers.
//!
//! It is NOT where the answers (`release_bad_input.rs`, `release_preview.rs`) and the processes of
//! helm (`release_bad_input.rs`) are searched.

use std::fs::File;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::helm_charts::{BOTH, archive, chart, web};
use crate::lifecycle::{Answer, POLL, in_time};
use crate::museum_server::{Pack, Pages, Site, Wants};
use crate::release_bad_input::typed;
use crate::release_kills::settings;
use crate::spawned::{Binary, authority, command};

/// Of all our own words, and of what other crates say short of whole frames.
const LEVEL: &str = "debug,binnacle=trace";
/// The secrets, each where its name says.
const VALUE: &str = "mark-of-a-value";
const SET: &str = "mark-of-a-set";
const STRING: &str = "mark-of-a-set-string";
const YAML: &str = "mark-of-yaml";
const NUMBER: &str = "mark-where-a-number-belongs";
const TYPE: &str = "mark-of-a-wrong-type";
const BROKEN: &str = "mark-of-values-that-are-broken";
const PIECE: &str = "mark-of-a-set-with-a-comma";
const ADDRESS: &str = "mark-of-an-address";
const PAIR: &str = "reader:mark-of-a-repository";
const PASSWORD: &str = "mark-of-a-repository";
const WRONG: &str = "mark-of-a-wrong-password";
const TOKEN: &str = "mark-of-a-token";
const MARKS: [&str; 13] =
    [VALUE, SET, STRING, YAML, NUMBER, TYPE, BROKEN, PIECE, ADDRESS, PAIR, PASSWORD, WRONG, TOKEN];

/// A binary whose words all go to a file.
struct Talker {
    binary: Binary,
    log: PathBuf,
    token: &'static str,
    namespace: String,
}

impl Talker {
    async fn start(folder: &Path, major: u32, site: &Site) -> Talker {
        let cluster = cluster::shared().await;
        let namespace = cluster.namespace(&format!("logs{major}")).await;
        let log = folder.join("log");
        let file = File::create(&log).unwrap();
        let mut command = command(folder);
        command.args(["--listen", "127.0.0.1:0", "--log-level", LEVEL]).env("NO_COLOR", "1");
        command.arg("--state-dir").arg(folder.join("state")).args(settings(major, cluster));
        command.args(["--settings-namespace", &namespace, "--chart-hosts", &site.host()]);
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Cluster::eventually("it says where it listens", || async { address(&log).is_some() }).await;
        let tls = trusting(&authority(folder).await);
        let https = address(&log).unwrap();
        let binary = Binary { child, said: Vec::new(), https, http: String::new(), tls };
        Talker { binary, log, token: cluster.token("admin"), namespace }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        self.binary.send(method, path, self.token, "", sent).await.unwrap()
    }

    /// An act to its end, which is this state.
    async fn ends(&self, method: Method, path: &str, body: Value, state: &str) -> Value {
        let answer = self.send(method, path, &body).await;
        assert_eq!(answer.status, 202, "{path}: {}", answer.text());
        let begun = answer.json();
        let path = format!("operation/{}/{}", self.namespace, begun["id"].as_str().unwrap());
        let end = async {
            loop {
                let now = self.send(Method::GET, &path, &Value::Null).await.json();
                if !now["finishedAt"].is_null() {
                    return now;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let ended = in_time(&format!("the end of {begun}"), end).await;
        assert_eq!(ended["state"], state, "{ended}");
        ended
    }

    /// A request that is refused with this status.
    async fn refused(&self, method: Method, path: &str, body: Value, status: u16) {
        let answer = self.send(method, path, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}

/// Where a binary says that it listens.
fn address(log: &Path) -> Option<String> {
    let words = std::fs::read_to_string(log).unwrap();
    let (_, rest) = words.split_once("listening on https://")?;
    // A line that is not yet written to its end says half of it.
    let (line, _) = rest.split_once('\n')?;
    Some(format!("https://{}", line.split_whitespace().next()?))
}

/// A chart whose template fails, and says the password that it has got.
fn quoting() -> Vec<u8> {
    let text = "{{ fail (printf \"%s is a wrong password\" .Values.password) }}\n";
    chart("quoting", "0.1.0", &[("templates/quoting.yaml", text)])
}

/// Acts that end well, and one whose template quotes a value; their operations.
async fn acts(talker: &Talker) -> Vec<Value> {
    let all = format!("release/{}", talker.namespace);
    let one = format!("{all}/web");
    let values = json!({"password": VALUE, "message": VALUE});
    let secret = json!({
        "name": "web", "chart": archive(&web()), "values": values,
        "set": [format!("more.password={SET}")], "setString": [format!("other={STRING}")],
    });
    let yaml = format!("password: {YAML}\nmessage: {YAML}\n");
    let upgrade = json!({"chart": archive(&web()), "values": yaml});
    let mut preview = upgrade.clone();
    preview["act"] = "upgrade".into();
    let mut ended = vec![talker.ends(Method::POST, &all, secret, "succeeded").await];
    let answer = talker.send(Method::POST, &format!("{one}/preview"), &preview).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    ended.push(talker.ends(Method::PUT, &one, upgrade, "succeeded").await);
    for part in ["", "/values", "/manifest", "/history"] {
        let answer = talker.send(Method::GET, &format!("{one}{part}"), &Value::Null).await;
        assert_eq!(answer.status, 200, "{part}: {}", answer.text());
    }
    let back = format!("{one}/rollback");
    ended.push(talker.ends(Method::POST, &back, json!({"revision": 1}), "succeeded").await);
    let quoting = json!({
        "name": "quoting", "chart": archive(&quoting()), "values": {"password": VALUE},
    });
    let failed = talker.ends(Method::POST, &all, quoting, "failed").await;
    assert_eq!(failed["error"]["class"], "render-failed", "{failed}");
    assert!(failed.to_string().contains(VALUE), "the template quotes it: {failed}");
    ended.push(failed);
    ended
}

/// What is refused, or fails since it is not what it should be.
async fn refusals(talker: &Talker) {
    let all = format!("release/{}", talker.namespace);
    let with = |key: &str, value: Value| {
        let mut body = json!({"name": "bad", "chart": archive(&web())});
        body[key] = value;
        body
    };
    let number = with("values", json!({"replicas": NUMBER}));
    let failed = talker.ends(Method::POST, &all, number, "failed").await;
    assert_eq!(failed["error"]["class"], "values-invalid", "{failed}");
    let values = json!({"secret": format!("{TYPE}\nand {TYPE}\n")});
    let typed = json!({"name": "typed", "chart": archive(&typed()), "values": values});
    let failed = talker.ends(Method::POST, &all, typed, "failed").await;
    assert_eq!(failed["error"]["class"], "invalid-object", "{failed}");
    for (key, value) in [
        ("values", json!(format!("password: [{BROKEN}\nb: }}"))),
        ("values", json!(format!("password: {BROKEN}: {BROKEN}"))),
        ("set", json!([format!("password=a,{PIECE}")])),
        ("setString", json!([format!("password={PIECE},a")])),
        ("chart", json!({"oci": format!("oci://reader:{ADDRESS}@127.0.0.1/charts/web:1")})),
    ] {
        talker.refused(Method::POST, &all, with(key, value), 400).await;
    }
    let stranger = talker.binary.get(&format!("/api/v1/{all}"), TOKEN).await;
    assert_eq!(stranger.status, 401, "{}", stranger.text());
}

/// A repository behind a password, and a release out of it.
async fn repository(talker: &Talker, site: &Site) -> Value {
    let (namespace, name) = (&talker.namespace, format!("{}-marks", talker.namespace));
    let mut definition = json!({"name": name, "type": "index", "url": site.url("/")});
    definition["credentials"] = json!({"username": "reader", "password": WRONG});
    let tried = talker.send(Method::POST, "repository/test", &definition).await;
    assert!(matches!(tried.status, 200 | 429), "{}: {}", tried.status, tried.text());
    let mut hidden = definition.clone();
    hidden["url"] = format!("http://reader:{ADDRESS}@{}/", site.address).into();
    talker.refused(Method::POST, "repository", hidden, 400).await;
    let answer = talker.send(Method::POST, "repository", &definition).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let path = format!("repository/{name}");
    let is = |state: &'static str| {
        let path = &path;
        move || async move {
            let now = talker.send(Method::GET, path, &Value::Null).await.json();
            now["status"]["state"] == state
        }
    };
    Cluster::eventually("the password is wrong", is("failing")).await;
    definition["credentials"]["password"] = PASSWORD.into();
    let answer = talker.send(Method::PUT, &path, &definition).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Cluster::eventually("the repository is read", is("ok")).await;
    let body = json!({"name": "marked", "chart": {"repository": name, "name": "marked"}});
    let all = format!("release/{namespace}");
    let ended = talker.ends(Method::POST, &all, body, "succeeded").await;
    let answer = talker.send(Method::DELETE, &path, &Value::Null).await;
    assert!(matches!(answer.status, 200..=204), "{}", answer.text());
    ended
}

/// A mark's base64 as far as it is the same in every longer text, such as `reader:` and a password:
/// once for each place among three bytes where the mark may begin.
fn encoded(mark: &str) -> [String; 3] {
    let forms = [(0, 0), (1, 2), (2, 3)].map(|(before, mixed)| {
        let bytes = [&[0; 2][..before], mark.as_bytes()].concat();
        // Letters of six bits, of which the first and the last may have bits of what is around.
        STANDARD_NO_PAD.encode(&bytes)[mixed..bytes.len() * 4 / 3].to_owned()
    });
    for (before, form) in forms.iter().enumerate() {
        let longer = STANDARD.encode(format!("{}{mark}:more", &"reader"[..before + 3]));
        assert!(longer.contains(form), "{mark}: {form} is not found in {longer}");
    }
    forms
}

async fn told(major: u32) {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n";
    let packs = [Pack::new("marked", "1.0.0", &[("templates/map.yaml", map)])];
    let site = Site::of(None, Wants::Basic(PAIR), &Pages::of("", &packs)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut talker = Talker::start(folder.path(), major, &site).await;
    let (mut ended, marked, ()) =
        tokio::join!(acts(&talker), repository(&talker, &site), refusals(&talker));
    ended.push(marked);
    talker.binary.terminate();
    assert_eq!(talker.binary.exit_code().await, Some(0));

    let log = std::fs::read_to_string(&talker.log).unwrap();
    for operation in ended {
        let id = operation["id"].as_str().unwrap();
        let over = |line: &str| line.contains(id) && line.contains("an operation is over");
        assert!(log.lines().any(over), "helm {major}: {operation} is in the log:\n{log}");
    }
    // So much is said that what a refusal says would be there.
    let refused = log.lines().filter(|line| line.contains("DEBUG") && line.contains("refused"));
    assert!(refused.count() >= 7, "helm {major}: refusals are in the log:\n{log}");
    for mark in MARKS.into_iter().chain([talker.token]) {
        for form in encoded(mark).into_iter().chain([mark.to_owned()]) {
            let line = log.lines().find(|line| line.contains(&form));
            assert_eq!(line, None, "helm {major}: {mark} is in the log");
        }
    }
}

#[tokio::test]
async fn our_log_names_what_is_done_to_releases_and_has_no_secret_of_anybody() {
    join_all(BOTH.map(told)).await;
}
