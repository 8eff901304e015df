//! The OpenAPI document against the gateway, on the real control plane with all kinds present:
//! every GET operation answers what its schema says, and nothing that the schema does not know, and
//! those that have event streams are documented so; every route is in the document, and all of the
//! document is routed.
//! It is NOT where values are tested, nor who may ask (`walk.rs`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Empty;
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::gateway_api;
use crate::helm_charts::{Hand, archive, program, web};
use crate::museum_server::{Pack, Pages, Site, Wants, index};
use crate::property_truth::Client;
use crate::reads::{DEADLINE, POLL};
use crate::schema_check::{Checker, elements};
use crate::schema_table::{
    CHART, CONTENTS, ENDLESS, FURTHER, LEFT_OUT, OBJECTS, QUERIES, RELEASE, REPOSITORY, STATUSES,
    VALUES, VERSION,
};

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

const GATEWAY_API: &str = gateway_api::GROUP;

/// What the chart, the release and the repository say of themselves, where nobody looks for it.
const MARK: &str = "thorny";
const CRD: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The document that the code makes; that it is the committed one, `generated.rs` tests.
pub fn document() -> Value {
    serde_json::from_str(&binnacle::api::openapi()).unwrap()
}

/// Method and path of every operation.
pub fn operations(document: &Value) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let methods = METHODS.into_iter().filter(|method| operations.get(*method).is_some());
        found.extend(methods.map(|method| (method, path.clone())));
    }
    assert!(found.len() > 200, "only {} operations", found.len());
    found
}

/// What this run calls the names in capitals.
#[derive(Clone, Debug)]
pub struct Names {
    space: String,
    pod: String,
    set: String,
    event: String,
    operation: String,
}

impl Names {
    /// For requests whose objects do not matter.
    fn nobodys() -> Self {
        let none = || "none".to_owned();
        Self { space: none(), pod: none(), set: none(), event: none(), operation: none() }
    }

    pub fn fill(&self, text: &str) -> String {
        let text = text.replace("SPACE", &self.space).replace("POD", &self.pod);
        let text = text.replace("SET", &self.set).replace("EVENT", &self.event);
        text.replace("NODE", "node-0").replace("OPERATION", &self.operation)
    }

    /// The path with real names, and the query that it needs; or what to add to the tables.
    pub fn path(&self, template: &str) -> Result<String, String> {
        let mut parts = Vec::new();
        for part in template.split('/') {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(parameter) => parts.push(self.fill(value(template, parameter)?)),
                None => parts.push(part.to_owned()),
            }
        }
        let query = QUERIES.iter().find(|(path, _)| *path == template);
        let query = query.map(|(_, query)| format!("?{}", self.fill(query))).unwrap_or_default();
        Ok(parts.join("/") + &query)
    }
}

/// The tables' value for a parameter.
fn value(path: &str, parameter: &str) -> Result<&'static str, String> {
    let mut values = VALUES.iter();
    let found = values.find(|(start, name, _)| path.starts_with(start) && *name == parameter);
    if let Some(&(_, _, value)) = found {
        return Ok(value);
    }
    let kind = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next());
    let object = OBJECTS.iter().find(|(name, _)| Some(*name) == kind && parameter == "name");
    object.map(|(_, name)| *name).ok_or_else(|| {
        format!("schema_table.rs: {{{parameter}}} of {path} needs a line in OBJECTS or VALUES")
    })
}

/// The recorded objects under names of their own: those of `contract.rs` stay as they are.
fn recorded(file: &str, space: &str) -> String {
    let text = text(root().join("tests/contract").join(file));
    text.replace("example.com", "SPACE.example.com")
        .replace("is-default-class: \"true\"", "is-default-class: \"false\"")
        .replace(", nodePort: 30080", "")
        .replace("atlas", "SPACE")
        .replace("edge", "SPACE-edge")
        .replace("fast", "SPACE-fast")
        .replace("vol-1", "SPACE-vol-1")
        .replace("SPACE", space)
}

/// Says of the gateway and its route what a controller would.
async fn accept(cluster: &Cluster, space: &str) {
    let yes = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": kind, "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z"})
    };
    let listener = json!({"name": "http", "attachedRoutes": 1, "supportedKinds": [],
        "conditions": [yes("Accepted")]});
    let address = json!({"type": "IPAddress", "value": "192.0.2.1"});
    let front = json!({
        "addresses": [address], "conditions": [yes("Programmed")], "listeners": [listener],
    });
    let parent = json!({
        "parentRef": {"name": "front", "sectionName": "http"},
        "controllerName": "example.com/c", "conditions": [yes("Accepted")],
    });
    let headers = [("content-type", "application/merge-patch+json")];
    for (object, status) in
        [("gateways/front", front), ("httproutes/shop", json!({ "parents": [parent] }))]
    {
        let path = format!("{GATEWAY_API}/v1/namespaces/{space}/{object}/status");
        let patch = json!({ "status": status }).to_string();
        let answer = cluster.request(Method::PATCH, cluster.token("admin"), &path, &headers, patch);
        let (status, _, body) = answer.await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    }
}

/// One object of each kind, in a namespace of this test's own.
pub async fn furnish(cluster: &Cluster) -> String {
    let space = cluster.namespace("schemas").await;
    gateway_api::define(cluster, &gateway_api::COLLECTIONS).await;
    cluster.apply(&recorded("all-kinds.yaml", &space)).await;
    cluster.apply(&FURTHER.replace("SPACE", &space)).await;
    accept(cluster, &space).await;
    let admin = cluster.token("admin");
    let widgets = format!("/apis/{space}.example.com/v1/widgets");
    let is_served = || async { cluster.get(admin, &widgets).await.0 == 200 };
    Cluster::eventually("the custom kind is served", is_served).await;
    cluster.apply(&recorded("widget.yaml", &space)).await;
    space
}

/// A server with one chart, which says this mark wherever it can; the repository is below a path of
/// that name.
pub async fn market(mark: &str) -> Site {
    let base = format!("/{mark}");
    let (readme, values) = (format!("# {mark}\n"), format!("message: {mark}\n"));
    let files = [
        ("README.md", readme.as_str()),
        ("values.yaml", values.as_str()),
        ("values.schema.json", r#"{"type": "object"}"#),
        ("templates/NOTES.txt", "{{ .Values.message }}\n"),
        ("crds/thing.yaml", CRD),
    ];
    let about = format!(
        "description: {mark}\nkeywords: [{mark}]\nmaintainers:\n- name: {mark}\n\
         home: https://example.org/rose\nicon: https://HERE/icon.svg"
    );
    let packs = [Pack::new(CHART, VERSION, &files).about(&about)];
    let pages = Pages::of(&base, &packs);
    let site = Site::of(None, Wants::Nothing, &pages).await;
    let text = index(&packs).replace("https://HERE", &site.url(&base));
    pages.put(&format!("{base}/index.yaml"), "application/yaml", text);
    let icon = "<svg xmlns=\"http://www.w3.org/2000/svg\"><circle r=\"4\"/></svg>";
    pages.put(&format!("{base}/icon.svg"), "image/svg+xml", icon);
    site
}

/// A gateway that runs helm, and has its repositories in this namespace and may reach this server.
pub fn gardening(site: &Site, namespace: &str) -> Options {
    let (helm, host) = (program(4).display().to_string(), site.host());
    let extra = ["--helm", &helm, "--settings-namespace", namespace, "--chart-hosts", &host];
    Options { extra: extra.map(str::to_owned).into(), ..Options::default() }
}

/// Makes the repository of a market; back when its chart is listed.
pub async fn planted(hand: Hand<'_>, site: &Site, mark: &str) {
    let url = site.url(&format!("/{mark}"));
    let definition = json!({"name": REPOSITORY, "type": "index", "url": url, "interval": "1h"});
    let answer = hand.send(Method::POST, "repository", &[], &definition).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let is_listed = || async {
        let list = hand.get("chart").await;
        list.status == 200 && list.json()["charts"][0]["description"] == mark
    };
    Cluster::eventually("the chart is listed", is_listed).await;
}

/// Makes the release, which says this mark in its values and its history; the id of the operation
/// that has installed it.
pub async fn bloomed(hand: Hand<'_>, mark: &str) -> String {
    let values = json!({"message": mark, "replicas": 0});
    let body = json!({"chart": archive(&web()), "values": values, "description": mark});
    let operation = hand.succeeds("install", RELEASE, body).await;
    operation["id"].as_str().unwrap().to_owned()
}

/// Repository and release of a gateway; the id of the operation.
pub async fn garden(gateway: &Gateway, token: &str, space: &str, site: &Site) -> String {
    let hand = Hand { gateway, token, namespace: space };
    planted(hand, site, MARK).await;
    bloomed(hand, MARK).await
}

/// A market for [`garden`].
pub async fn nursery() -> Site {
    market(MARK).await
}

/// Waits until pods run, one is pending, and there is an event.
pub async fn names(client: &Client, admin: &str, space: String, operation: String) -> Names {
    let begun = Instant::now();
    loop {
        let pods = client.get(admin, &format!("/api/v1/pod/{space}")).await.json();
        let events = client.get(admin, &format!("/api/v1/event/{space}")).await.json();
        let named = |app: &str, status: &str| {
            let found = elements(&pods["pods"])
                .iter()
                .find(|pod| pod["objectMeta"]["labels"]["app"] == app && pod["status"] == status);
            found.and_then(|pod| pod["objectMeta"]["name"].as_str()).map(str::to_owned)
        };
        let event = events["events"][0]["objectMeta"]["name"].as_str();
        if let (Some(pod), Some(_), Some(event)) =
            (named("tiles", "Running"), named("starved", "Pending"), event)
        {
            let set = pod.rsplit_once('-').unwrap().0.to_owned();
            return Names { space, pod, set, event: event.to_owned(), operation };
        }
        assert!(begun.elapsed() < DEADLINE, "the pods do not run: {pods}\n{events}");
        tokio::time::sleep(POLL).await;
    }
}

/// What is wrong with an answer; `None`: another status, which may still change.
fn wrong(document: &Value, template: &str, answer: &Answer) -> Option<Vec<String>> {
    let responses = &document["paths"][template]["get"]["responses"];
    let expected = STATUSES.iter().find(|(path, ..)| *path == template);
    if let Some((_, status, _)) = expected {
        let is_known = responses.get(status.to_string()).is_some();
        let problem = (!is_known).then(|| format!("{status} is not documented"));
        return (answer.status == *status).then(|| problem.into_iter().collect());
    }
    if answer.status != 200 {
        return None;
    }
    let contents = responses["200"]["content"].as_object();
    let Some((documented, content)) = contents.and_then(|contents| contents.iter().next()) else {
        return Some(vec!["no content is documented".to_owned()]);
    };
    let other = CONTENTS.iter().find(|(path, ..)| *path == template);
    let wanted = other.map_or(documented.as_str(), |(_, content, _)| content);
    let found = answer.header("content-type").split(';').next().unwrap_or_default();
    if found != wanted {
        return Some(vec![format!("content type {found}, documented as {wanted}")]);
    }
    let is_tagged = !answer.header("etag").is_empty();
    if other.is_none() && is_tagged != responses.get("304").is_some() {
        return Some(vec![format!("an ETag: {is_tagged}, and the document has it otherwise")]);
    }
    if wanted != "application/json" {
        return Some(Vec::new());
    }
    let problems = Checker { document }.problems(&content["schema"], &answer.json());
    Some(problems.into_iter().collect())
}

/// Asks all these; returns what has not answered with the right status yet.
async fn pass(
    (client, admin): (&Client, &str),
    document: &Value,
    asked: &[(String, String)],
    found: &mut BTreeSet<String>,
) -> Vec<(String, String)> {
    let mut later = Vec::new();
    for (template, path) in asked {
        let answer = client.get(admin, path).await;
        match wrong(document, template, &answer) {
            Some(problems) => {
                found.extend(problems.iter().map(|problem| format!("{template}: {problem}")));
            }
            None => later.push((template.clone(), path.clone())),
        }
    }
    later
}

/// Asks all these for event streams, of which no more than the head is read; where the document has
/// it otherwise.
async fn misled(
    (gateway, token): (&Gateway, &str),
    document: &Value,
    asked: &[(String, String)],
) -> Vec<String> {
    const EVENTS: &str = "text/event-stream";
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(gateway.tls())
        .https_only()
        .enable_http1()
        .build();
    let client: Hyper<_, Empty<Bytes>> = Hyper::builder(TokioExecutor::new()).build(connector);
    let mut found = Vec::new();
    for (template, path) in asked {
        let contents = &document["paths"][template]["get"]["responses"]["200"]["content"];
        let request = Request::get(format!("{}{path}", gateway.url))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", EVENTS);
        let answer = client.request(request.body(Empty::new()).unwrap());
        let Ok(answer) = tokio::time::timeout(DEADLINE, answer).await else {
            panic!("no answer to {path}");
        };
        let answer = answer.unwrap();
        let content = answer.headers().get("content-type");
        let is = content.is_some_and(|content| content.as_bytes() == EVENTS.as_bytes());
        if is != contents.get(EVENTS).is_some() {
            let status = answer.status();
            found.push(format!("{template}: {status}, an event stream: {is}, documented: {}", !is));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_what_the_document_says_and_no_more() {
    let document = document();
    let reads = operations(&document).into_iter().filter(|(method, _)| *method == "get");
    let templates: Vec<String> =
        reads.map(|(_, path)| path).filter(|path| !ENDLESS.contains(&path.as_str())).collect();
    let missing: Vec<String> =
        templates.iter().filter_map(|path| Names::nobodys().path(path).err()).collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));

    let cluster = cluster::shared().await;
    let admin = cluster.token("admin");
    let space = furnish(cluster).await;
    let site = nursery().await;
    let gateway = gateway::start(gardening(&site, &space)).await;
    let operation = garden(&gateway, admin, &space, &site).await;
    let client = Client::of_gateway(&gateway);
    let names = names(&client, admin, space, operation).await;
    let with_path = |path: &String| (path.clone(), names.path(path).unwrap());
    let asked: Vec<(String, String)> = templates.iter().map(with_path).collect();

    let (mut found, begun) = (BTreeSet::new(), Instant::now());
    let mut later = pass((&client, admin), &document, &asked, &mut found).await;
    let was_early = !later.is_empty();
    // Usage comes a little later than the pods that it is of, and kinds later than discovery.
    while !later.is_empty() && begun.elapsed() < DEADLINE {
        tokio::time::sleep(POLL).await;
        later = pass((&client, admin), &document, &later, &mut found).await;
    }
    for (template, path) in &later {
        let answer = client.get(admin, path).await;
        found.insert(format!("{template}: {path}: {}: {}", answer.status, answer.text()));
    }
    if was_early && later.is_empty() {
        // Once more, now that there is usage to show.
        pass((&client, admin), &document, &asked, &mut found).await;
    }
    let endless = ENDLESS.iter().map(|path| with_path(&(*path).to_owned()));
    let is_found = |template: &String| !STATUSES.iter().any(|(path, ..)| path == template);
    let answered = asked.iter().cloned().chain(endless);
    let answered: Vec<_> = answered.filter(|(template, _)| is_found(template)).collect();
    found.extend(misled((&gateway, admin), &document, &answered).await);
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{} problems:\n{}", found.len(), found.join("\n"));
}

#[tokio::test]
async fn every_documented_operation_is_routed_and_no_other_method_is() {
    let document = document();
    let gateway = gateway::start(Options::default()).await;
    let client = Client::of_gateway(&gateway);
    let names = Names::nobodys();
    let mut problems = Vec::new();
    for (template, operations) in document["paths"].as_object().unwrap() {
        // The passthrough routes every method, and files have no routes of their own.
        let is_open_ended = template == "/" || template.starts_with("/clusters/");
        let path = names.path(template).unwrap_or_else(|problem| panic!("{problem}"));
        for name in METHODS {
            let is_documented = operations.get(name).is_some();
            if is_open_ended && !is_documented {
                continue;
            }
            let method: Method = name.to_uppercase().parse().unwrap();
            let answer = client.send(method, "", &path, &[], "").await;
            let is_routed = !matches!(answer.status, 404 | 405);
            if is_routed != is_documented {
                let (status, text) = (answer.status, answer.text());
                problems.push(format!("{name} {template} ({path}): {status}: {text}"));
            } else if is_routed {
                // What nobody gets is a status that is told of, too.
                let status = answer.status.to_string();
                if operations[name]["responses"].get(&status).is_none() {
                    problems.push(format!("{name} {template}: {status} is not documented"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "not as documented:\n{}", problems.join("\n"));
}

/// The paths of `.route("…")` in the router, whole.
fn routed() -> BTreeSet<String> {
    let source = text(root().join("src/api/mod.rs"));
    let mut found = BTreeSet::new();
    for (at, call) in source.match_indices(".route(") {
        let function = source[..at].rfind("\nfn ").max(source[..at].rfind("\npub fn "));
        let function = function.map_or("", |start| &source[start..]);
        let is_api = ["\nfn contract(", "\nfn reads(", "\nfn releases(", "\nfn catalogue("]
            .iter()
            .any(|of| function.starts_with(of));
        let prefix = if is_api { "/api/v1" } else { "" };
        // Those that the kind table makes are formatted.
        let argument = source[at + call.len()..].trim_start().strip_prefix('"');
        if let Some((path, _)) = argument.and_then(|rest| rest.split_once('"')) {
            found.insert(format!("{prefix}{}", path.replace("{*", "{")));
        }
    }
    assert!(found.len() > 40, "only {} routes are found in the router's text", found.len());
    found
}

#[test]
fn every_route_is_in_the_document() {
    let document = document();
    let is_known = |path: &String| {
        document["paths"].get(path).is_some() || LEFT_OUT.iter().any(|(left, _)| left == path)
    };
    let missing: Vec<String> = routed().into_iter().filter(|path| !is_known(path)).collect();
    assert!(missing.is_empty(), "openapi_routes.rs has no {}", missing.join(", "));
}

#[test]
fn an_operation_without_values_is_told_what_to_add() {
    let path = "/api/v1/gadget/{namespace}/{name}";
    let problem = Names::nobodys().path(path).unwrap_err();
    assert!(problem.contains("{name} of /api/v1/gadget"), "{problem}");
}
