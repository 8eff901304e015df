//! Repositories as people make, change and remove them: what is wrong with them, from a file, and
//! at two gateways. Also how other tests of charts get a gateway with repositories (`Shelf`).
//!
//! It is NOT where their credentials are tested (`chart_credentials.rs`), nor where catalogues are
//! read (`chart_catalogue.rs`), changed (`chart_uploads.rs`), or lie (`chart_hostile.rs`).

use std::sync::Mutex;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway};
use crate::helm_charts::{Hand, options};
use crate::museum_server::{Pack, Pages, Site, Wants, index};
use crate::writes::live;

/// A gateway that may reach these servers, and whose repositories are in a namespace of their own.
pub struct Shelf {
    pub gateway: Gateway,
    pub token: &'static str,
    pub namespace: String,
    made: Mutex<Vec<String>>,
}

impl Shelf {
    pub async fn open(prefix: &str, sites: &[&Site]) -> Shelf {
        let namespace = cluster::shared().await.namespace(prefix).await;
        Shelf::within(&namespace, sites, &[]).await
    }

    /// One more gateway for the same repositories.
    pub async fn within(namespace: &str, sites: &[&Site], more: &[&str]) -> Shelf {
        let hosts: Vec<_> = sites.iter().map(|site| site.host()).collect();
        Shelf::allowing(namespace, &hosts, more).await
    }

    pub async fn allowing(namespace: &str, hosts: &[String], more: &[&str]) -> Shelf {
        let mut options = options(4);
        options.extra.extend(["--settings-namespace".into(), namespace.to_owned()]);
        if !hosts.is_empty() {
            options.extra.extend(["--chart-hosts".into(), hosts.join(",")]);
        }
        options.extra.extend(more.iter().map(|arg| (*arg).to_owned()));
        let gateway = gateway::start(options).await;
        let token = cluster::shared().await.token("admin");
        Shelf { gateway, token, namespace: namespace.to_owned(), made: Mutex::default() }
    }

    pub fn hand(&self) -> Hand<'_> {
        Hand { gateway: &self.gateway, token: self.token, namespace: &self.namespace }
    }

    /// Somebody else at the same gateway.
    pub fn by<'a>(&'a self, token: &'a str) -> Hand<'a> {
        Hand { token, ..self.hand() }
    }

    /// A repository's name that no other test has.
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.namespace)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.hand().get(path).await
    }

    /// The JSON of a 200.
    pub async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.hand().send(method, path, &[], body).await
    }

    /// Makes a repository, whatever comes of it; its name.
    pub async fn define(&self, short: &str, mut definition: Value) -> String {
        let name = self.name(short);
        definition["name"] = name.as_str().into();
        let answer = self.send(Method::POST, "repository", &definition).await;
        assert_eq!(answer.status, 201, "{definition}: {}", answer.text());
        self.made.lock().unwrap().push(name.clone());
        name
    }

    /// Makes a repository and waits until it has been read.
    pub async fn create(&self, short: &str, definition: Value) -> String {
        let name = self.define(short, definition).await;
        self.until(&name, "ok").await;
        name
    }

    pub async fn status(&self, name: &str) -> Value {
        self.read(&format!("repository/{name}")).await["status"].clone()
    }

    /// Until a repository is in this state: its status.
    pub async fn until(&self, name: &str, state: &str) -> Value {
        self.waited(name, &|status: &Value| status["state"] == state, &|| true).await
    }

    /// Until something is so, and then the status is as wanted: that status.
    async fn waited(
        &self,
        name: &str,
        wanted: &dyn Fn(&Value) -> bool,
        first: &dyn Fn() -> bool,
    ) -> Value {
        let last = Mutex::new(Value::Null);
        let is_so = || async {
            let may = first();
            let status = self.status(name).await;
            // Shown where it is waited for in vain.
            println!("{name}: {} {}", status["state"], status["error"]);
            let found = may && wanted(&status);
            *last.lock().unwrap() = status;
            found
        };
        Cluster::eventually(&format!("{name} is as it should be"), is_so).await;
        last.into_inner().unwrap()
    }

    /// Has a repository read anew, and waits until that is over: its status.
    pub async fn refresh(&self, name: &str, site: &Site) -> Value {
        let before = site.count(&Method::GET, "/");
        let path = format!("repository/{name}/refresh");
        let answer = self.send(Method::POST, &path, &json!({})).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let is_asked = || site.count(&Method::GET, "/") > before;
        self.waited(name, &|status: &Value| status["state"] != "refreshing", &is_asked).await
    }

    /// The version that the list tells of each chart of this repository, by name.
    pub async fn charts(&self, name: &str) -> Vec<String> {
        let list = self.read(&format!("chart?repository={name}&sortBy=a,name")).await;
        let row = |row: &Value| {
            let part = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{list}")).to_owned();
            format!("{} {}", part("name"), part("version"))
        };
        list["charts"].as_array().unwrap_or_else(|| panic!("{list}")).iter().map(row).collect()
    }

    /// The versions of a chart, as they are told.
    pub async fn versions(&self, repository: &str, chart: &str) -> Vec<String> {
        let answer = self.get(&format!("chart/{repository}/{chart}")).await;
        // Not there, or not read yet.
        if matches!(answer.status, 404 | 502) {
            return Vec::new();
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let all = answer["versions"].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
        all.map(|one| one["version"].as_str().unwrap().to_owned()).collect()
    }

    /// Removes what was made here.
    pub async fn close(self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        for name in made {
            let path = format!("repository/{name}");
            let answer = self.send(Method::DELETE, &path, &Value::Null).await;
            assert!(matches!(answer.status, 200..=204 | 404), "{name}: {}", answer.text());
        }
        self.gateway.stop().await;
    }

    /// What trying a definition says.
    pub async fn tried(&self, definition: &Value) -> Value {
        let answer = tried_by(&self.hand(), definition).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// An object of the namespace as the API server has it.
    pub async fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let at = format!("/api/v1/namespaces/{}/{kind}", self.namespace);
        live(cluster::shared().await, &format!("{at}/binnacle.repository.{name}")).await
    }
}

/// One of these words is in the text.
pub fn says(text: &str, words: &[&str]) {
    let small = text.to_lowercase();
    assert!(words.iter().any(|word| small.contains(word)), "none of {words:?} in: {text}");
}

/// The answer to who tries a definition. Few are tried at once, and other tests do it, too.
pub async fn tried_by(hand: &Hand<'_>, definition: &Value) -> Answer {
    let said = Mutex::new(None);
    let is_tried = || async {
        let answer = hand.send(Method::POST, "repository/test", &[], definition).await;
        let is_told = answer.status != 429;
        *said.lock().unwrap() = Some(answer);
        is_told
    };
    Cluster::eventually("the definition is tried", is_tried).await;
    said.into_inner().unwrap().unwrap()
}

/// The password of a repository, and how a server wants it with its user's name.
pub const PASSWORD: &str = "pw-nobody-may-read";
pub const PAIR: &str = "reader:pw-nobody-may-read";

#[tokio::test]
async fn what_is_wrong_with_a_repository_is_said_and_nothing_is_made_of_it() {
    let site = Site::of(None, Wants::Nothing, &Pages::of("", &[])).await;
    let shelf = Shelf::open("charts-bad", &[&site]).await;
    let good = site.url("/");
    let long = "a".repeat(64);
    let mut half = json!({"name": "b", "type": "index", "url": good});
    half["credentials"] = json!({"username": "reader"});
    for (what, body) in [
        ("no object", json!([])),
        ("no name", json!({"type": "index", "url": good})),
        ("a name with capitals", json!({"name": "Bad", "type": "index", "url": good})),
        ("a long name", json!({"name": long, "type": "index", "url": good})),
        ("no address", json!({"name": "bad", "type": "index"})),
        ("no type", json!({"name": "bad", "url": good})),
        ("an unknown type", json!({"name": "bad", "type": "nexus", "url": good})),
        ("a file", json!({"name": "bad", "type": "index", "url": "file:///etc/passwd"})),
        ("ftp", json!({"name": "bad", "type": "index", "url": "ftp://example.org/"})),
        ("oci as an index", json!({"name": "bad", "type": "index", "url": "oci://example.org/a"})),
        ("a password in it", json!({"name": "bad", "type": "index", "url": "https://a:b@c.org"})),
        ("a strange interval", json!({"name": "b", "type": "index", "url": good, "interval": "x"})),
        ("an unknown field", json!({"name": "b", "type": "index", "url": good, "colour": "red"})),
        ("half credentials", half),
    ] {
        let answer = shelf.send(Method::POST, "repository", &body).await;
        assert!(matches!(answer.status, 400 | 422), "{what}: {}: {}", answer.status, answer.text());
        assert!(answer.text().contains(' '), "{what}: {}", answer.text());
    }
    let maps = format!("/api/v1/namespaces/{}/configmaps", shelf.namespace);
    let maps = live(cluster::shared().await, &maps).await.unwrap().to_string();
    assert!(!maps.contains("binnacle.repository."), "{maps}");
    for (method, path) in [
        (Method::GET, "repository/nowhere"),
        (Method::DELETE, "repository/nowhere"),
        (Method::POST, "repository/nowhere/refresh"),
        (Method::GET, "chart/nowhere/web"),
    ] {
        let answer = shelf.send(method, path, &Value::Null).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }

    let name = shelf.create("twice", json!({"type": "index", "url": good})).await;
    let again = json!({"name": name, "type": "index", "url": good});
    let answer = shelf.send(Method::POST, "repository", &again).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let answer = shelf.send(Method::DELETE, &format!("repository/{name}"), &Value::Null).await;
    assert!(matches!(answer.status, 200..=204), "{}", answer.text());
    assert_eq!(shelf.get(&format!("repository/{name}")).await.status, 404);
    for kind in ["configmaps", "secrets"] {
        assert!(shelf.object(kind, &name).await.is_none(), "{kind}");
    }
    shelf.close().await;
}

#[tokio::test]
async fn two_gateways_agree_on_what_there_is_within_an_interval() {
    let packs = [Pack::new("web", "1.0.0", &[])];
    let pages = Pages::of("", &packs);
    let site = Site::of(None, Wants::Nothing, &pages).await;
    let one = Shelf::open("charts-two", &[&site]).await;
    let other = Shelf::within(&one.namespace, &[&site], &[]).await;
    let definition = json!({"type": "index", "url": site.url("/"), "interval": "10s"});
    let name = one.create("shared", definition).await;
    let is_there = || async {
        let answer = other.get(&format!("repository/{name}")).await;
        answer.status == 200 && answer.json()["status"]["state"] == "ok"
    };
    Cluster::eventually("the other gateway has the repository", is_there).await;
    assert_eq!(one.charts(&name).await, other.charts(&name).await);

    let packs = [packs[0].clone(), Pack::new("web", "1.1.0", &[])];
    pages.put("/index.yaml", "application/yaml", index(&packs));
    one.refresh(&name, &site).await;
    assert_eq!(one.charts(&name).await, ["web 1.1.0"]);
    let agrees = || async { other.charts(&name).await == ["web 1.1.0"] };
    Cluster::eventually("the other gateway has what is new", agrees).await;
    let (here, there) = (one.status(&name).await, other.status(&name).await);
    assert_eq!(here["digest"], there["digest"], "{here} {there}");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn repositories_of_a_file_are_everybodys_to_read_and_nobodys_to_change() {
    let pages = Pages::of("", &[Pack::new("web", "1.0.0", &[])]);
    let site = Site::of(None, Wants::Basic(PAIR), &pages).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let file = folder.path().join("repositories.yaml");
    let text = format!(
        "- name: of-a-file\n  type: index\n  url: {}\n  credentials:\n    username: reader\n    \
         passwordFile: {}\n",
        site.url("/"),
        password.display(),
    );
    std::fs::write(&file, text).unwrap();
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("charts-file").await;
    let path = file.display().to_string();
    let shelf = Shelf::within(&namespace, &[&site], &["--repositories", &path]).await;
    shelf.until("of-a-file", "ok").await;
    let nobody = shelf.by(cluster.token("nobody"));
    let answer = nobody.get("repository/of-a-file").await;
    assert_eq!((answer.status, &answer.json()["source"]), (200, &json!("file")));
    assert!(!answer.text().contains("assword"), "{}", answer.text());
    let list = nobody.get("chart?repository=of-a-file").await;
    assert_eq!(list.json()["listMeta"]["totalItems"], 1, "{}", list.text());
    let definition = json!({"name": "of-a-file", "type": "index", "url": site.url("/other")});
    for (method, body) in [(Method::PUT, &definition), (Method::DELETE, &Value::Null)] {
        let answer = shelf.send(method, "repository/of-a-file", body).await;
        assert!(matches!(answer.status, 403 | 405 | 409), "{}: {}", answer.status, answer.text());
    }
    let answer = shelf.send(Method::POST, "repository", &definition).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let refresh = "repository/of-a-file/refresh";
    let answer = nobody.send(Method::POST, refresh, &[], &json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let answer = shelf.send(Method::POST, refresh, &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    shelf.close().await;
}
