//! Every operation of the OpenAPI document, asked as nobody, as a forger, as a stranger and as the reader of one
//! namespace, on the real API server: nobody gets 401, a stranger nothing, the reader nothing of
//! another namespace. An operation that `walk_table.rs` has no values for fails the test.
//!
//! It is NOT where what a permitted answer holds is tested (`property.rs`, `contract.rs`).

use std::collections::BTreeMap;
use std::time::Instant;

use binnacle::kinds::{KINDS, KindDef};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway};
use crate::helm_charts::{Hand, archive, small};
use crate::museum_server::Site;
use crate::people::{Person, grant};
use crate::property_truth::Client;
use crate::property_world::create;
use crate::reads::{DEADLINE, POLL};
use crate::schema_table::ENDLESS;
use crate::schemas::{bloomed, gardening, market, planted};
use crate::walk_table::{
    ABSENT, BODIES, HARMLESS, NAME, OF_CLUSTER, PUBLIC, QUERIES, VALUES, objects,
};

const METHODS: [&str; 7] = ["get", "head", "options", "put", "post", "patch", "delete"];

/// An operation of the document.
struct Operation {
    method: String,
    /// With its parameters: `/api/v1/pod/{namespace}/{name}`.
    path: String,
}

/// A namespace with one object of each kind and a release, all of which carry its mark.
struct Place {
    namespace: String,
    mark: String,
    /// The one that has installed the release.
    operation: String,
}

struct Walk<'a> {
    admin: &'a str,
    api: &'a Client,
    gateway: &'a Client,
    node: String,
    crd: String,
    /// A packed chart in base64.
    archive: String,
    /// The reader's own, and the one that only others may read.
    own: Place,
    other: Place,
}

/// Whether an answer tells of a refusal and of nothing else.
fn is_refused(answer: &Answer) -> bool {
    match answer.status {
        400 | 403 | 404 => true,
        // A list of nothing, which says what was refused.
        200 => serde_json::from_slice::<Value>(&answer.body).is_ok_and(|body| {
            let errors = body["errors"].as_array();
            let total = &body["listMeta"]["totalItems"];
            errors.is_some_and(|errors| !errors.is_empty()) && (total.is_null() || *total == 0)
        }),
        _ => false,
    }
}

/// What of another's is in an answer to somebody who may see none of these.
fn betrayed<'a>(answer: &Answer, marks: &[&'a str]) -> Option<&'a str> {
    let text = answer.text();
    marks.iter().find(|mark| text.contains(**mark)).copied()
}

fn is_in(table: &[(&str, &str, &str)], operation: &Operation) -> bool {
    let Operation { method, path } = operation;
    table.iter().any(|(known, at, _)| known == method && at == path)
}

/// The operations of the committed document.
fn operations() -> Vec<Operation> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/binnacle.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|method| methods.get(**method).is_some()) {
            found.push(Operation { method: (*method).to_owned(), path: path.clone() });
        }
    }
    assert!(found.len() > 30, "only {} operations in {path}", found.len());
    found
}

fn kind(name: &str) -> Option<&'static KindDef> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// `pod` of `/api/v1/pod/…`; empty for paths outside.
fn first_part(path: &str) -> &str {
    path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

/// The table's value for a parameter, names of the run still in capitals; or what to do about it.
fn value(path: &str, parameter: &str) -> Result<String, String> {
    if parameter == "namespace" {
        return Ok("NAMESPACE".to_owned());
    }
    let mut values = VALUES.iter();
    let found = values.find(|(start, name, _)| path.starts_with(start) && *name == parameter);
    if let Some((_, _, value)) = found {
        return Ok((*value).to_owned());
    }
    let of = first_part(path);
    if kind(of).is_none() || parameter != "name" {
        return Err(format!("walk_table.rs: add a line for {parameter} of {path} to VALUES"));
    }
    if let Some((_, name)) = OF_CLUSTER.iter().find(|(kind, _)| *kind == of) {
        return Ok((*name).to_owned());
    }
    let made = objects("").iter().any(|(kind, ..)| *kind == of);
    if made || ABSENT.iter().any(|(kind, _)| *kind == of) {
        return Ok(NAME.to_owned());
    }
    Err(format!("walk_table.rs: make a {of} in objects(), or name one in OF_CLUSTER ({path})"))
}

/// The table's body for a request that changes something.
fn body(operation: &Operation) -> Result<&'static str, String> {
    let Operation { method, path } = operation;
    let found = BODIES.iter().find(|(known, start, end, _)| {
        known == method && path.starts_with(start) && path.ends_with(end)
    });
    let missing = || format!("walk_table.rs: add a line for {method} {path} to BODIES");
    found.map(|(.., body)| *body).ok_or_else(missing)
}

impl Walk<'_> {
    fn named(&self, text: &str, namespace: &str) -> String {
        let place = if namespace == self.other.namespace { &self.other } else { &self.own };
        let text = text.replace("NAMESPACE", namespace).replace("NODE", &self.node);
        let text = text.replace("CRD", &self.crd).replace("OPERATION", &place.operation);
        text.replace("ARCHIVE", &self.archive)
    }

    /// The operation's path with real names.
    fn path(&self, operation: &Operation, namespace: &str) -> Result<String, String> {
        let mut parts = Vec::new();
        for part in operation.path.split('/') {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(parameter) => {
                    let value = value(&operation.path, parameter.trim_start_matches('*'))?;
                    parts.push(self.named(&value, namespace));
                }
                None => parts.push(part.to_owned()),
            }
        }
        let query = QUERIES.iter().find(|(path, _)| *path == operation.path);
        let query = query.map(|(_, query)| format!("?{query}")).unwrap_or_default();
        Ok(parts.join("/") + &query)
    }

    /// Sends an operation with the headers that a browser page of ours would send.
    async fn send(&self, operation: &Operation, token: &str, path: &str, body: &str) -> Answer {
        // HEAD does all that GET does, but the reading.
        let method: Method = match ENDLESS.contains(&operation.path.as_str()) {
            true => Method::HEAD,
            false => operation.method.to_uppercase().parse().unwrap(),
        };
        let mut headers = Vec::new();
        let action = first_part(&operation.path);
        let issued = match method == Method::POST && !action.is_empty() {
            true => Some(self.gateway.get("", &format!("/api/v1/csrftoken/{action}")).await),
            false => None,
        };
        let issued = issued.filter(|issued| issued.status == 200).map(|issued| issued.json());
        let csrf = issued.as_ref().and_then(|issued| issued["token"].as_str()).unwrap_or_default();
        if !csrf.is_empty() {
            headers.push(("x-csrf-token", csrf));
        }
        self.gateway.send(method, token, path, &headers, body.to_owned()).await
    }

    /// What is wrong with the answers to nobody and to a stranger.
    async fn as_outsiders(&self, operation: &Operation, stranger: &str) -> Result<(), String> {
        let is_read = matches!(operation.method.as_str(), "get" | "head" | "options");
        let path = self.path(operation, &self.own.namespace)?;
        let body = if is_read { "" } else { body(operation)? };
        let body = self.named(body, &self.own.namespace);
        let marks = [self.own.mark.as_str(), self.other.mark.as_str()];
        let about = |who: &str, answer: &Answer| {
            let Operation { method, path: template } = operation;
            format!("{method} {template} ({path}) as {who}: {}: {}", answer.status, answer.text())
        };
        let is_public = is_in(PUBLIC, operation);
        // Without credentials, and with some that only the API server can know to be bad.
        for (who, token) in [("nobody", ""), ("a forger", "forged")] {
            let answer = self.send(operation, token, &path, &body).await;
            if !is_public && answer.status != 401 {
                let why = "not 401, nor public in walk_table.rs";
                return Err(format!("{why}: {}", about(who, &answer)));
            }
            if betrayed(&answer, &marks).is_some() {
                return Err(format!("shows somebody's content: {}", about(who, &answer)));
            }
        }
        let answer = self.send(operation, stranger, &path, &body).await;
        if !is_public && !is_in(HARMLESS, operation) && !is_refused(&answer) {
            let why = "neither refused nor harmless in walk_table.rs";
            return Err(format!("{why}: {}", about("a stranger", &answer)));
        }
        if betrayed(&answer, &marks).is_some() {
            return Err(format!("shows somebody's content: {}", about("a stranger", &answer)));
        }
        Ok(())
    }

    /// What is wrong with the answers to the reader of one namespace, about it and another.
    async fn as_reader(&self, operation: &Operation, reader: &str) -> Result<(), String> {
        let path = self.path(operation, &self.own.namespace)?;
        let answer = self.send(operation, reader, &path, "").await;
        let about =
            |answer: &Answer| format!("{path} as a reader: {}: {}", answer.status, answer.text());
        let strange = [self.other.mark.as_str(), self.other.namespace.as_str()];
        if let Some(found) = betrayed(&answer, &strange) {
            return Err(format!("shows {found} of another namespace: {}", about(&answer)));
        }
        if answer.status == 401 {
            return Err(format!("credentials are refused: {}", about(&answer)));
        }
        let of = first_part(&operation.path);
        let made = of == "release" || objects("").iter().any(|(kind, ..)| *kind == of);
        let depth = operation.path.split('/').count();
        // A list of one namespace or of all, or a detail: they hold what the reader may see.
        if made && operation.path.starts_with("/api/v1/") && depth <= 6 {
            let whole = answer.status == 200 && answer.text().contains(&self.own.mark);
            if !whole {
                return Err(format!("lacks the reader's own object: {}", about(&answer)));
            }
        }
        let elsewhere = self.path(operation, &self.other.namespace)?;
        if elsewhere == path {
            return Ok(());
        }
        let path = elsewhere;
        let answer = self.send(operation, reader, &path, "").await;
        let about = format!("{path} as a reader of another: {}: {}", answer.status, answer.text());
        if betrayed(&answer, &[self.other.mark.as_str()]).is_some() {
            return Err(format!("shows another namespace's content: {about}"));
        }
        let may = is_in(PUBLIC, operation) || is_in(HARMLESS, operation);
        if !may && !is_refused(&answer) {
            return Err(format!("not refused: {about}"));
        }
        Ok(())
    }

    /// Everything in both namespaces, without what controllers write of their own accord.
    async fn content(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for place in [&self.own, &self.other] {
            for (name, ..) in objects("") {
                let collection = kind(name).unwrap().resource.collection(Some(&place.namespace));
                let list = self.api.get(self.admin, &collection).await;
                assert_eq!(list.status, 200, "{collection}: {}", list.text());
                for mut object in list.json()["items"].as_array().unwrap().iter().cloned() {
                    object["status"] = Value::Null;
                    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                    for written in ["resourceVersion", "managedFields", "annotations"] {
                        object["metadata"][written] = Value::Null;
                    }
                    found.insert(format!("{collection}/{name}"), object);
                }
            }
        }
        // What controllers say, and slices that they derive, come and go.
        found.retain(|path, _| {
            let derived = ["/events/", "/endpointslices/", "/replicasets/"];
            !derived.iter().any(|part| path.contains(part)) || path.ends_with(&format!("/{NAME}"))
        });
        found
    }
}

/// One object of each kind in a namespace, in the order of the table.
async fn furnish(api: &Client, admin: &str, place: &Place, crd: &str) {
    let Place { namespace, mark, .. } = place;
    let metadata = json!({"name": NAME, "labels": {"mark": mark}});
    for (name, version, kind_name, rest) in objects(mark) {
        let mut object = json!({"apiVersion": version, "kind": kind_name, "metadata": metadata});
        for (key, value) in rest.as_object().unwrap() {
            object[key] = value.clone();
        }
        let text = object.to_string().replace("NAMESPACE", namespace);
        let object: Value = serde_json::from_str(&text).unwrap();
        let collection = kind(name).unwrap().resource.collection(Some(namespace));
        create(api, admin, &collection, &object).await;
    }
    let (plural, group) = crd.split_once('.').unwrap();
    let api_version = format!("{group}/v1");
    let object = json!({"apiVersion": api_version, "kind": "Walk", "metadata": metadata});
    let collection = format!("/apis/{api_version}/namespaces/{namespace}/{plural}");
    create(api, admin, &collection, &object).await;
}

/// A gateway with a release in each place. Its repository has a chart with the other's mark, and
/// the ConfigMap of it is at home, where the reader may read nothing.
async fn settle(admin: &str, home: &str, own: &mut Place, other: &mut Place) -> (Gateway, Site) {
    let site = market(&other.mark).await;
    let server = gateway::start(gardening(&site, home)).await;
    planted(Hand { gateway: &server, token: admin, namespace: home }, &site, &other.mark).await;
    for place in [own, other] {
        let hand = Hand { gateway: &server, token: admin, namespace: &place.namespace };
        place.operation = bloomed(hand, &place.mark).await;
    }
    // That others are not shown it means something: who may is.
    for path in ["/api/v1/repository", "/api/v1/chart"] {
        let shown = Client::of_gateway(&server).get(admin, path).await;
        assert!(shown.text().contains("gem-of-"), "{path}: {}", shown.text());
    }
    (server, site)
}

/// A custom kind of this test's own; back when it is served.
async fn define(api: &Client, admin: &str, crd: &str) {
    let (plural, group) = crd.split_once('.').unwrap();
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": crd},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": "Walk"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    create(api, admin, collection, &object).await;
    let path = format!("/apis/{group}/v1/{plural}");
    let is_served = || async { api.get(admin, &path).await.status == 200 };
    Cluster::eventually("the custom kind is served", is_served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_gives_outsiders_nothing_and_a_reader_nothing_of_other_namespaces() {
    let cluster = cluster::shared().await;
    let admin = cluster.token("admin");
    let api = Client::of_cluster(cluster);
    let place = async |prefix: &str| {
        let namespace = cluster.namespace(prefix).await;
        Place { mark: format!("gem-of-{prefix}"), namespace, operation: String::new() }
    };
    let (mut own, mut other) = (place("walkown").await, place("walkother").await);
    let crd = format!("walks.{}.binnacle.test", own.namespace);
    define(&api, admin, &crd).await;
    tokio::join!(furnish(&api, admin, &own, &crd), furnish(&api, admin, &other, &crd));
    let home = cluster.namespace("walkhome").await;
    let stranger = Person::new(cluster, &home, "stranger").await;
    let reader = Person::new(cluster, &home, "reader").await;
    let verbs = ["get", "list", "watch"];
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]);
    grant(cluster, Some(&own.namespace), "reader", reader.subject.clone(), rules).await;
    let nodes = api.get(admin, "/api/v1/nodes?limit=1").await.json();
    let node = nodes["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let (server, _site) = settle(admin, &home, &mut own, &mut other).await;
    let gateway = &Client::of_gateway(&server);
    let archive = archive(&small())["archive"].as_str().unwrap().to_owned();
    let walk = Walk { admin, api: &api, gateway, node, crd, archive, own, other };

    let before = walk.content().await;
    let mut wrong = Vec::new();
    for operation in operations() {
        wrong.extend(walk.as_outsiders(&operation, &stranger.token).await.err());
        if operation.method != "get" {
            continue;
        }
        let begun = Instant::now();
        // Rights and rows take a moment to arrive; what is shown wrongly would stay.
        while let Err(why) = walk.as_reader(&operation, &reader.token).await {
            let final_word = !why.starts_with("lacks") && !why.starts_with("credentials");
            if final_word || begun.elapsed() > DEADLINE {
                wrong.push(why);
                break;
            }
            tokio::time::sleep(POLL).await;
        }
    }
    assert!(wrong.is_empty(), "{} operations are wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    let after = walk.content().await;
    let changed: Vec<&String> = before
        .iter()
        .filter(|(path, object)| after.get(*path) != Some(object))
        .map(|(path, _)| path)
        .chain(after.keys().filter(|path| !before.contains_key(*path)))
        .collect();
    assert!(changed.is_empty(), "a stranger has changed or made {changed:?}");
    let made = format!("/api/v1/namespaces/{}-made", walk.own.namespace);
    assert_eq!(api.get(admin, &made).await.status, 404, "a stranger has made a namespace");
}

#[test]
fn an_operation_without_values_is_told_what_to_add() {
    let path = "/api/v1/gadget/{namespace}/{name}";
    assert!(value(path, "name").unwrap_err().contains("VALUES"));
    assert_eq!(value("/api/v1/pod/{namespace}/{name}", "name").unwrap(), NAME);
    let operation = Operation { method: "put".to_owned(), path: path.to_owned() };
    assert!(body(&operation).unwrap_err().contains("BODIES"));
    let restart = format!("{path}/restart");
    assert_eq!(body(&Operation { method: "put".into(), path: restart }).unwrap(), "{}");
}
