//! The stock web frontend: every call of its pages and actions, replayed in its order on the real
//! control plane, as an admin and as somebody who may edit one namespace and nothing else.
//!
//! It is NOT where values are tested (`reads.rs`, `details.rs`), nor the right answers to odd
//! requests (`bad_requests.rs`). Shells are not replayed (`shells.rs`, `browser.rs`).

use std::time::Instant;

use binnacle::kinds::by_name;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::frontend_table::{ALL, CRD, EVENT_QUERY, Is, LIST_QUERY, pages};
use crate::gateway::{self, Answer, Options};
use crate::people::{Person, bindings, create, grant, workload};
use crate::property_truth::Client;
use crate::reads::{DEADLINE, POLL};
use crate::schemas::{Names, furnish, names};

const UNAUTHORIZED: &str = "MSG_LOGIN_UNAUTHORIZED_ERROR";
/// Pages that are opened with one namespace chosen: all there are.
const PAGES: usize = 72;
/// Of these, those that differ with all namespaces chosen.
const PAGES_OF_ALL: usize = 26;

/// Somebody in front of the frontend.
pub struct Seat<'a> {
    pub cluster: &'a Cluster,
    pub gateway: &'a Client,
    pub token: &'a str,
    /// What `me` calls the person, and the objects of its actions.
    pub name: &'a str,
    pub names: &'a Names,
    pub space: &'a str,
    /// A namespace of which a person of one namespace must see nothing.
    pub other: &'a str,
    pub is_admin: bool,
}

/// What the frontend reads without looking first, anywhere in an answer.
fn unguarded(value: &Value, at: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| unguarded(one, at, wrong)),
        Value::Object(fields) => {
            for (key, one) in fields {
                let good = match key.as_str() {
                    "warnings" | "errors" => one.is_array(),
                    "listMeta" => one["totalItems"].is_u64(),
                    "cumulativeMetrics" => one.is_null() || one.is_array(),
                    // Anybody's keys.
                    "annotations" | "labels" | "data" => continue,
                    _ => true,
                };
                let at = format!("{at}/{key}");
                if !good {
                    wrong.push(format!("{at} is {one}"));
                }
                unguarded(one, &at, wrong);
            }
        }
        _ => {}
    }
}

/// Whether a path is of a child list that is not empty: the furniture sees to it.
fn has_rows(place: &str) -> bool {
    let filled = [
        "/pod",
        "/service",
        "/ingress",
        "/horizontalpodautoscaler",
        "/persistentvolumeclaim",
        "/persistentvolume",
        "/secret",
        "/imagepullsecret",
    ];
    place.split('/').count() > 2 && filled.iter().any(|child| place.ends_with(child))
}

fn check(wrong: &mut Vec<String>, good: bool, why: &str) {
    if !good {
        wrong.push(why.to_owned());
    }
}

impl Seat<'_> {
    fn path(&self, template: &str, namespace: &str) -> String {
        let text = template.replace("{q}", LIST_QUERY).replace("{e}", EVENT_QUERY);
        let text = self.names.fill(&text.replace("/NS", &format!("/{namespace}")));
        if text.starts_with('/') { text } else { format!("/api/v1/{text}") }
    }

    /// Whether the person may read what a path beneath `/api/v1/` is of.
    fn may(&self, path: &str) -> bool {
        let first = path.split(['/', '?']).next().unwrap_or_default();
        self.is_admin
            || match first {
                "role" | "rolebinding" => false,
                "namespace" => true,
                "crd" => {
                    let is_of = |space: &&str| path.starts_with(&format!("crd/{space}/"));
                    [self.space, ALL].iter().any(is_of)
                }
                kind => by_name(kind).is_none_or(|kind| kind.resource.namespaced),
            }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.gateway.get(self.token, path).await
    }

    /// Asks until the answer is as wanted: events and usage come a little later than pods.
    async fn asks(&self, template: &str, is: Is, namespace: &str) {
        let path = self.path(template, namespace);
        let begun = Instant::now();
        loop {
            let answer = self.get(&path).await;
            let text = answer.text();
            let betrayed = !self.is_admin && text.contains(self.other);
            assert!(!betrayed, "{path} as {} tells of {}: {text}", self.name, self.other);
            let wrong = self.wrong(&path, is, namespace, &answer);
            if wrong.is_empty() {
                return;
            }
            let wrong = wrong.join("\n");
            let (who, status) = (self.name, answer.status);
            assert!(begun.elapsed() < DEADLINE, "{path} as {who}: {status}:\n{wrong}\n{text}");
            tokio::time::sleep(POLL).await;
        }
    }

    fn wrong(&self, path: &str, is: Is, namespace: &str, answer: &Answer) -> Vec<String> {
        let mut wrong = Vec::new();
        let below = path.strip_prefix("/api/v1/").unwrap_or(path);
        let place = below.split('?').next().unwrap_or_default();
        // A list in its own right; it is answered to everybody.
        let is_top = place.split('/').count() <= 2 || place.ends_with("/object");
        let may = self.may(below);
        let is_list = matches!(is, Is::List(_)) && is_top;
        if !(may || is_list) {
            check(&mut wrong, answer.status == 403, "it is not refused");
            return wrong;
        }
        check(&mut wrong, answer.status == 200, "it is not answered");
        if answer.status != 200 || matches!(is, Is::Text) {
            return wrong;
        }
        let body = answer.json();
        check(&mut wrong, answer.header("content-type") == "application/json", "not typed JSON");
        if !place.starts_with("_raw/") {
            unguarded(&body, "", &mut wrong);
        }
        match is {
            Is::List(kind) => {
                let all = namespace == ALL && !place.ends_with("/object");
                let chosen = is_top && !all && !below.contains("filterBy");
                self.wrong_list(kind, (may, chosen || has_rows(place)), &body, &mut wrong);
            }
            Is::Detail => {
                let name = place.rsplit('/').next().unwrap_or_default();
                check(&mut wrong, body["objectMeta"]["name"] == name, "another object");
                check(&mut wrong, body["typeMeta"]["kind"].is_string(), "no kind");
                let containers = !place.starts_with("pod/") || body["containers"].is_array();
                check(&mut wrong, containers, "no containers");
                check(&mut wrong, body["errors"] == json!([]), "errors");
            }
            Is::Json if place.ends_with("/container") => {
                check(&mut wrong, body["containers"][0] == "main", "no containers");
            }
            Is::Json | Is::Text => check(&mut wrong, body.is_object(), "no object"),
        }
        wrong
    }

    /// `chosen`: a list of the person's own namespace, which has objects of every kind, or of what
    /// belongs to one of them.
    fn wrong_list(
        &self,
        kind: &str,
        (may, chosen): (bool, bool),
        body: &Value,
        wrong: &mut Vec<String>,
    ) {
        let kind = by_name(kind).unwrap();
        let total = &body["listMeta"]["totalItems"];
        let Some(rows) = body[kind.list.items].as_array() else {
            wrong.push(format!("{} is no array", kind.list.items));
            return;
        };
        if !may {
            check(wrong, rows.is_empty() && *total == 0, "rows of what is refused");
            let code = &body["errors"][0]["ErrStatus"]["code"];
            check(wrong, *code == 403, "nothing says that it is refused");
            return;
        }
        check(wrong, body["errors"] == json!([]), "errors");
        check(wrong, rows.len() <= 10 || kind.name == "namespace", "more rows than a page has");
        check(wrong, total.as_u64() >= Some(rows.len() as u64), "fewer in all than rows");
        check(wrong, !chosen || !rows.is_empty(), "no rows");
        for row in rows {
            let meta = &row["objectMeta"];
            check(wrong, row["typeMeta"]["kind"].is_string(), "a row without a kind");
            check(wrong, meta["name"].is_string(), "a row without a name");
            let own = match kind.name {
                "namespace" => meta["name"] == self.space,
                _ => meta["namespace"].is_null() || meta["namespace"] == self.space,
            };
            check(wrong, self.is_admin || own, &format!("a row of another namespace: {meta}"));
        }
    }

    /// As the frontend starts: nobody yet, then the login page, then the first page.
    async fn signs_in(&self) {
        let nobody = |path: &'static str| self.gateway.get("", path);
        let probe = nobody("/assets/config/config.json").await;
        assert_eq!((probe.status, probe.json()), (200, json!({"themes": []})));
        assert_eq!(nobody("/").await.text(), "<p>UI</p>");
        assert_eq!(nobody("/config").await.status, 200);
        assert!(nobody("/settings/pinnedresources").await.json().is_array());
        let me = nobody("/api/v1/me").await;
        assert_eq!((me.status, &me.json()["ErrStatus"]["message"]), (401, &json!(UNAUTHORIZED)));
        assert_eq!(nobody("/settings").await.json()["itemsPerPage"], 10);
        // The script looks at the text, and drops its cookie.
        let bad = self.gateway.get("bad-token", "/api/v1/pod/%20").await;
        assert_eq!((bad.status, bad.text().trim()), (401, UNAUTHORIZED));

        let refused = self.posts("", "login", &json!({"token": "bad-token"})).await;
        assert_eq!(refused.status, 401, "{}", refused.text());
        let login = self.posts("", "login", &json!({"token": self.token})).await;
        assert_eq!((login.status, login.json()), (200, json!({"token": self.token})));
        let me = self.get("/api/v1/me").await.json();
        assert_eq!(me, json!({"name": self.name, "authenticated": true}));
        let pinned = "/settings/pinnedresources";
        for path in ["/config", pinned, "/api/v1/me", "/settings", "/settings"] {
            assert_eq!(self.get(path).await.status, 200, "{path}");
        }
        assert_eq!(nobody("/systembanner").await.json()["message"], "");
        self.asks("namespace", Is::List("namespace"), ALL).await;
    }

    async fn opens_every_page(&self) {
        for (namespace, all) in [(self.space, PAGES), (ALL, PAGES_OF_ALL)] {
            let mut opened = 0;
            for page in pages() {
                // Detail pages are the same whatever is chosen.
                if namespace == ALL && !page.iter().any(|(path, _)| path.contains("/NS")) {
                    continue;
                }
                self.asks("namespace", Is::List("namespace"), namespace).await;
                for (path, is) in page {
                    self.asks(&path, is, namespace).await;
                }
                opened += 1;
            }
            assert_eq!(opened, all, "pages opened with {namespace} chosen");
            assert_eq!(self.get("/api/v1/me").await.status, 200);
        }
        let cani = self.get("/settings/cani").await.json();
        assert_eq!(cani, json!({"allowed": self.is_admin}));
    }

    /// What the other person must not see is there to be seen, or not seeing it would say nothing.
    async fn sees_the_other_namespace(&self) {
        for kind in ["pod", "deployment", "service", "configmap", "secret"] {
            let path = format!("/api/v1/{kind}/{ALL}?filterBy=name,gem");
            let is_shown = || async { self.get(&path).await.text().contains(self.other) };
            Cluster::eventually(&format!("{path} shows {}", self.other), is_shown).await;
        }
    }

    /// What an admin pinned stays where somebody tries to unpin it who may not.
    async fn keeps_its_pin_from(&self, person: &Seat<'_>) {
        let (path, crd) = ("/settings/pinnedresources", self.names.fill(CRD));
        let pin = json!({"kind": "customresourcedefinition", "name": crd,
            "displayName": "Widget", "namespaced": true});
        let sent = pin.to_string();
        let answer = self.gateway.send(Method::PUT, self.token, path, &[], sent).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        let pinned = format!("{path}/customresourcedefinition/{crd}");
        for (seat, status, left) in [(person, 403, json!([pin])), (self, 204, json!([]))] {
            let answer = self.gateway.send(Method::DELETE, seat.token, &pinned, &[], "").await;
            assert_eq!(answer.status, status, "as {}: {}", seat.name, answer.text());
            assert_eq!(seat.get(path).await.json(), left, "as {}", seat.name);
        }
    }
}

/// The smallest frontend: what its own probe looks for, and a page.
fn frontend() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("en/assets/config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.json"), r#"{"themes": []}"#).unwrap();
    std::fs::write(folder.path().join("en/index.html"), "<p>UI</p>").unwrap();
    folder
}

/// A service account with Kubernetes' own role `edit` in one namespace, and beside it a role for
/// the custom kind, which `edit` does not know.
async fn editor(cluster: &Cluster, space: &str) -> Person {
    let person = Person::new(cluster, space, "editor").await;
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let group = format!("{space}.example.com");
    let rules = json!([{"apiGroups": [group], "resources": ["*"], "verbs": verbs}]);
    grant(cluster, Some(space), "custom", person.subject.clone(), rules).await;
    let api = "rbac.authorization.k8s.io";
    let reference = json!({"apiGroup": api, "kind": "ClusterRole", "name": "edit"});
    let binding = json!({"apiVersion": format!("{api}/v1"), "kind": "RoleBinding",
        "metadata": {"name": "edit"}, "roleRef": reference, "subjects": [person.subject]});
    create(cluster, &bindings(Some(space)), binding).await;
    let pods = format!("/api/v1/namespaces/{space}/pods");
    let may = || async { cluster.get(&person.token, &pods).await.0 == 200 };
    Cluster::eventually("the editor may list pods", may).await;
    person
}

/// What the editor must not see.
async fn plant(cluster: &Cluster, other: &str) {
    workload(cluster, other, "gem", 1, "none").await;
    let core = format!("/api/v1/namespaces/{other}");
    for (kind, plural, data) in
        [("ConfigMap", "configmaps", "data"), ("Secret", "secrets", "stringData")]
    {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "gem"},
            data: {"a": "facets"}});
        create(cluster, &format!("{core}/{plural}"), object).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_the_frontend_is_answered_to_an_admin_and_to_an_editor_of_one_namespace() {
    let cluster = cluster::shared().await;
    let space = furnish(cluster).await;
    let other = cluster.namespace("front-other").await;
    let settings = cluster.namespace("front-settings").await;
    plant(cluster, &other).await;
    let editor = editor(cluster, &space).await;
    let folder = frontend();
    let files = folder.path().display().to_string();
    let extra = ["--settings-namespace", settings.as_str(), "--static-dir", files.as_str()];
    let extra = extra.map(str::to_owned).to_vec();
    let server = gateway::start(Options { extra, ..Options::default() }).await;
    let gateway = &Client::of_gateway(&server);
    let admin = cluster.token("admin");
    let names = &names(gateway, admin, space.clone(), "none".to_owned()).await;
    let seat = |name: &'static str, token, is_admin| {
        let (space, other) = (space.as_str(), other.as_str());
        Seat { cluster, gateway, token, name, names, space, other, is_admin }
    };
    let seats = [seat("token-admin", admin, true), seat("editor", editor.token.as_str(), false)];
    seats[0].sees_the_other_namespace().await;
    for seat in &seats {
        seat.signs_in().await;
        seat.opens_every_page().await;
    }
    for seat in &seats {
        seat.prepares().await;
        seat.edits().await;
        seat.creates().await;
        seat.configures().await;
        seat.deletes().await;
    }
    seats[0].keeps_its_pin_from(&seats[1]).await;
    seats[1].is_refused_elsewhere().await;
    server.stop().await;
}

#[test]
fn what_the_frontend_reads_without_looking_is_told_where_it_is_not() {
    let good = json!({"errors": [], "listMeta": {"totalItems": 0}, "cumulativeMetrics": null,
        "pods": [{"warnings": [], "objectMeta": {"labels": {"errors": "x"}}}]});
    let mut wrong = Vec::new();
    unguarded(&good, "", &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
    let bad = json!({"errors": null, "listMeta": {}, "pods": [{"warnings": null}]});
    unguarded(&bad, "", &mut wrong);
    let listed = ["/errors is null", "/listMeta is {}", "/pods/warnings is null"];
    wrong.sort();
    assert_eq!(wrong, listed);
}

#[test]
fn the_table_has_as_many_calls_as_the_pages_make() {
    let pages = pages();
    let lengths: Vec<usize> = pages.iter().take(6).map(Vec::len).collect();
    assert_eq!(lengths, [8, 24, 24, 9, 3, 4], "workloads, overview, search and the groups");
    for (kind, calls) in [
        ("pod", 3),
        ("deployment", 5),
        ("replicaset", 4),
        ("daemonset", 4),
        ("replicationcontroller", 4),
        ("statefulset", 3),
        ("job", 3),
        ("cronjob", 4),
        ("node", 3),
        ("namespace", 2),
        ("service", 4),
        ("ingress", 2),
        ("serviceaccount", 3),
        ("storageclass", 2),
    ] {
        let start = format!("{kind}/");
        let is_detail = |page: &&Vec<(String, Is)>| {
            matches!(page[0].1, Is::Detail) && page[0].0.starts_with(&start)
        };
        let found: Vec<usize> = pages.iter().filter(is_detail).map(Vec::len).collect();
        assert_eq!(found, [calls], "calls of the detail page of {kind}");
    }
    let of_all = |page: &&Vec<(String, Is)>| page.iter().any(|(path, _)| path.contains("/NS"));
    assert_eq!((pages.len(), pages.iter().filter(of_all).count()), (PAGES, PAGES_OF_ALL));
}
