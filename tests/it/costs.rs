//! What each read costs at the API server: a gateway whose only way to it is a recorder, which
//! counts the requests that carry the caller's own credentials. Expectations are held to it, and
//! all of it is written as a table to `target/tmp/costs.md` and compared with the committed
//! `tests/it/costs.md`; `UPDATE=1 cargo test --test it costs::` writes that anew.
//!
//! It measures no time (`benches`), and writes are not counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::Body;
use binnacle::kinds::{KindDef, by_name};
use binnacle::upstream::classify;
use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client as Hyper};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::frontend_table::{LIST_QUERY, WORKLOADS, overview};
use crate::gateway::{self, Answer, Gateway};
use crate::museum_server::Site;
use crate::people::{Person, grant};
use crate::property_truth::Client;
use crate::reads::{DEADLINE, POLL};
use crate::schema_table::{ENDLESS, STATUSES};
use crate::schemas::{self, Names, furnish, garden, gardening, names, nursery};

/// How often a read is measured anew because a verdict was over just then.
const TRIES: usize = 5;

/// Kind, GETs, lists: the most that the detail of one object may cost where that is more than its
/// own GET. A live kind among its relatives is a list; everything else comes from the cache.
const DETAILS: [(&str, usize, usize); 7] = [
    // The config map and the secret that its environment names.
    ("pod", 3, 0),
    // Endpoints of its name.
    ("service", 2, 0),
    // Quotas and limit ranges.
    ("namespace", 1, 2),
    // Its objects.
    ("crd", 1, 1),
    // Routes of each kind.
    ("gateway", 1, 3),
    ("gatewayclass", 1, 1),
    // Reference grants of the namespaces of its backends.
    ("httproute", 1, 1),
];

/// A request that reached the API server.
struct Asked {
    token: String,
    /// Verb and resource: `list pods`, `list pods.metrics.k8s.io`, `get pods/log`, `get /version`;
    /// a list's later pages are `continue pods`.
    what: String,
}

/// An HTTP server that passes everything on to the real API server, watches included.
struct Recorder {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    accepting: JoinHandle<()>,
}

struct Upstream {
    server: String,
    client: Hyper<HttpsConnector<HttpConnector>, Body>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Recorder {
    async fn start(cluster: &Cluster) -> Recorder {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trusting(cluster.ca_pem()))
            .https_only()
            .enable_http1()
            .build();
        let client = Hyper::builder(TokioExecutor::new()).build(connector);
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let server = cluster.server.clone();
        let upstream = Arc::new(Upstream { server, client, asked: asked.clone() });
        let accepting = tokio::spawn(accept(listener, upstream));
        Recorder { address, asked, accepting }
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// What was asked with this token after the first `from` requests of anybody.
    fn since(&self, from: usize, token: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let own = asked[from..].iter().filter(|asked| asked.token == token);
        own.map(|asked| asked.what.clone()).collect()
    }

    fn kubeconfig(&self, token: &str) -> serde_json::Value {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "own", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "own"}}],
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: Arc<Upstream>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(stream, upstream.clone()));
    }
}

async fn serve(stream: TcpStream, upstream: Arc<Upstream>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| pass(upstream.clone(), request));
    // A client that goes away ends its connection, and with it what was asked on it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn pass(
    upstream: Arc<Upstream>,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, legacy::Error> {
    upstream.note(&request);
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let target = format!("{}{target}", upstream.server).parse().unwrap();
    let mut request = request.map(Body::new);
    *request.uri_mut() = target;
    request.headers_mut().remove("host");
    upstream.client.request(request).await
}

impl Upstream {
    fn note(&self, request: &Request<Incoming>) {
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let (path, query) = (request.uri().path(), request.uri().query());
        let info = classify(request.method(), path, query).unwrap();
        let mut pairs = query.unwrap_or_default().split('&');
        let is_later_page = info.verb == "list" && pairs.any(|pair| pair.starts_with("continue="));
        let verb = if is_later_page { "continue" } else { &*info.verb };
        let mut what = format!("{verb} ");
        what += if info.is_resource { &*info.resource } else { path };
        for (mark, part) in [(".", &info.group), ("/", &info.subresource)] {
            if !part.is_empty() {
                what += mark;
                what += part;
            }
        }
        self.asked.lock().unwrap().push(Asked { token: token.to_owned(), what });
    }
}

/// What one read made us ask as its caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Each counted once, however many pages it has: those depend on what other tests made.
    lists: usize,
    /// Single objects, logs among them.
    gets: usize,
    /// Questions about rights and about who somebody is.
    reviews: usize,
    /// Discovery, versions, anything else.
    others: usize,
}

impl Cost {
    fn of(asked: &[String]) -> Cost {
        let mut cost = Cost::default();
        for what in asked {
            let (verb, of) = what.split_once(' ').unwrap_or_default();
            let counter = match verb {
                "continue" => continue,
                "list" => &mut cost.lists,
                "get" if !of.starts_with('/') => &mut cost.gets,
                "create" if of.starts_with("selfsubject") => &mut cost.reviews,
                _ => &mut cost.others,
            };
            *counter += 1;
        }
        cost
    }
}

/// A gateway behind the recorder, and one caller who may read everything.
struct Bench {
    recorder: Recorder,
    gateway: Gateway,
    client: Client,
    token: String,
    own_token: &'static str,
}

impl Bench {
    async fn start(cluster: &'static Cluster, space: &str, site: &Site) -> Bench {
        let caller = Person::new(cluster, space, "caller").await;
        let all = json!([
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ]);
        grant(cluster, None, &format!("{space}-caller"), caller.subject.clone(), all).await;
        let may = || async { cluster.get(&caller.token, "/api/v1/nodes").await.0 == 200 };
        Cluster::eventually("the caller may read everything", may).await;
        let recorder = Recorder::start(cluster).await;
        let own_token = cluster.token("admin");
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig.yaml");
        std::fs::write(&kubeconfig, recorder.kubeconfig(own_token).to_string()).unwrap();
        let gateway = gateway::start_with(&kubeconfig, gardening(site, space), cluster).await;
        let client = Client::of_gateway(&gateway);
        let ready = || async { client.get("", "/readyz").await.status == 200 };
        Cluster::eventually("the gateway behind the recorder is ready", ready).await;
        Bench { recorder, gateway, client, token: caller.token, own_token }
    }

    /// Waits until a read is answered as it will be from now on.
    async fn warm(&self, path: &str) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.client.get(&self.token, path).await;
            if answer.status == 200 {
                return answer;
            }
            let (status, text) = (answer.status, answer.text());
            assert!(begun.elapsed() < DEADLINE, "{path}: {status}: {text}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The cost of these reads, one after the other, with rights and discovery known: those are
    /// asked for again every ten seconds and every minute, whoever reads.
    async fn cost(&self, paths: &[String]) -> (Cost, Vec<String>, Answer) {
        let mut last = None;
        for path in paths {
            last = Some(self.warm(path).await);
        }
        let mut asked = Vec::new();
        for _ in 0..TRIES {
            let from = self.recorder.count();
            for path in paths {
                last = Some(self.client.get(&self.token, path).await);
            }
            asked = self.recorder.since(from, &self.token);
            let Cost { reviews, others, .. } = Cost::of(&asked);
            if (reviews, others) == (0, 0) {
                break;
            }
        }
        (Cost::of(&asked), asked, last.unwrap())
    }
}

/// What an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    List,
    Detail,
    Child,
    Other,
}

/// The class of a documented path, and the kind that it is of.
fn class(template: &str) -> (Class, Option<&'static KindDef>) {
    let below = template.strip_prefix("/api/v1/").unwrap_or_default();
    let parts: Vec<&str> = below.split('/').collect();
    let Some(kind) = by_name(parts[0]) else { return (Class::Other, None) };
    let class = match (kind.resource.namespaced, &parts[1..]) {
        (_, []) | (true, ["{namespace}"]) => Class::List,
        (false, ["{name}"]) | (true, ["{namespace}", "{name}"]) => Class::Detail,
        (false, ["{name}", _]) | (true, ["{namespace}", "{name}", _]) => Class::Child,
        _ => Class::Other,
    };
    (class, Some(kind))
}

/// What a documented read cost.
struct Line {
    template: String,
    source: String,
    cost: Cost,
}

/// Whether a read is of the catalogue: each asks anew whether its caller may, and one of them looks
/// at all releases, which other tests make some of.
fn is_of_catalogue(template: &str) -> bool {
    template.starts_with("/api/v1/chart") || template.starts_with("/api/v1/repository")
}

/// Why a cost is not what it should be.
fn unexpected(line: &Line, asked: &[String]) -> Option<String> {
    let Line { template, source, cost } = line;
    let (class, kind) = class(template);
    let Cost { lists, gets, reviews, others } = *cost;
    let is_kept = kind.is_some_and(KindDef::is_kept);
    let good = match (class, kind) {
        (Class::List, _) if is_kept => source == "cache" && (lists, gets) == (0, 0),
        (Class::List, _) => source == "live" && (lists, gets) == (1, 0),
        (Class::Detail, Some(kind)) => {
            let known = DETAILS.iter().find(|(name, ..)| *name == kind.name);
            let (most_gets, most_lists) = known.map_or((1, 0), |(_, gets, lists)| (*gets, *lists));
            source.contains("live") && (1..=most_gets).contains(&gets) && lists <= most_lists
        }
        // The owner, and at most one list of relatives that are read live.
        (Class::Child, _) => source.contains("live") && gets == 1 && lists <= 1,
        _ if template.starts_with("/api/v1/overview") || template == "/api/v1/search" => {
            source == "cache" && *cost == Cost::default()
        }
        // One list of their Secrets: what is in those is remembered.
        _ if template == "/api/v1/release" || template == "/api/v1/release/{namespace}" => {
            (lists, gets) == (1, 0)
        }
        _ if is_of_catalogue(template) => {
            let uses = usize::from(template == "/api/v1/chart/{repository}/{name}");
            let wanted = Cost { lists: uses, reviews: 1, ..Cost::default() };
            return (*cost != wanted).then(|| format!("{template}: {cost:?}: {asked:?}"));
        }
        // Whatever it costs, it is in the table.
        _ => return None,
    };
    let good = good && (reviews, others) == (0, 0);
    (!good).then(|| format!("{template} ({source}): {cost:?}: {asked:?}"))
}

/// Every read below `/api/v1/` of the document, measured; and what is not as it should be.
async fn measured(bench: &Bench, names: &Names) -> (Vec<Line>, Vec<String>) {
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    for (method, template) in schemas::operations(&schemas::document()) {
        let elsewhere = STATUSES.iter().any(|(path, ..)| *path == template)
            || ENDLESS.contains(&template.as_str());
        if method != "get" || !template.starts_with("/api/v1/") || elsewhere {
            continue;
        }
        let path = names.path(&template).unwrap_or_else(|problem| panic!("{problem}"));
        let paths = [path];
        let mut found = bench.cost(&paths).await;
        let more = if is_of_catalogue(&template) { TRIES } else { 0 };
        for _ in 0..more {
            let again = bench.cost(&paths).await;
            if again.0 < found.0 {
                found = again;
            }
        }
        let (cost, asked, answer) = found;
        let source = match answer.header("binnacle-source") {
            // A stream, or nothing that the cluster has.
            "" if cost == Cost::default() => "own",
            "" => "live",
            source => source,
        };
        let line = Line { source: source.to_owned(), template, cost };
        wrong.extend(unexpected(&line, &asked));
        lines.push(line);
    }
    (lines, wrong)
}

/// Operations of one class, source and cost share a line; then each has its own.
fn table(lines: &[Line], pages: &[(&str, usize, Cost)]) -> String {
    let mut text = String::from(
        "Requests that a read sends to the API server as its caller, once warm. Reads of charts and\n\
         repositories ask for one access review each besides.\n\n\
         | page | calls | lists | gets | other |\n|---|---|---|---|---|\n",
    );
    for (page, calls, Cost { lists, gets, others, .. }) in pages {
        let _ = writeln!(text, "| {page} | {calls} | {lists} | {gets} | {others} |");
    }
    let mut groups: BTreeMap<(Class, &str, &Cost), Vec<&str>> = BTreeMap::new();
    for Line { template, source, cost } in lines {
        let key = (class(template).0, source.as_str(), cost);
        groups.entry(key).or_default().push(template);
    }
    text += "\n| reads | served from | lists | gets | other | operations |\n";
    text += "|---|---|---|---|---|---|\n";
    for ((class, source, Cost { lists, gets, others, .. }), templates) in &groups {
        let all: Vec<String> = templates.iter().map(|path| format!("`{path}`")).collect();
        let (count, all) = (all.len(), all.join(" "));
        let _ = writeln!(
            text,
            "| {class:?} | {source} | {lists} | {gets} | {others} | {count}: {all} |"
        );
    }
    text += "\n| operation | served from | lists | gets | other |\n|---|---|---|---|---|\n";
    for Line { template, source, cost: Cost { lists, gets, others, .. } } in lines {
        let _ = writeln!(text, "| `{template}` | {source} | {lists} | {gets} | {others} |");
    }
    text
}

/// Holds the committed table to what was measured: a read that costs something else is then seen in
/// review.
fn check(text: &str) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/costs.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, text).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    let (old, new): (Vec<&str>, Vec<&str>) = (committed.lines().collect(), text.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
    let differences: Vec<String> = gone.chain(come).collect();
    assert!(
        committed == text,
        "tests/it/costs.md is not what was measured; UPDATE=1 cargo test --test it costs::\n{}",
        differences.join("\n")
    );
}

/// A page of lists over all namespaces, as the frontend asks for them.
fn page(kinds: &[&str]) -> Vec<String> {
    let namespaced = |kind: &str| by_name(kind).unwrap().resource.namespaced;
    let place = |kind: &str| if namespaced(kind) { "/%20" } else { "" };
    kinds.iter().map(|kind| format!("/api/v1/{kind}{}?{LIST_QUERY}", place(kind))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_kept_kinds_cost_nothing_and_every_other_read_costs_what_is_written() {
    let cluster = cluster::shared().await;
    let space = furnish(cluster).await;
    let site = nursery().await;
    let bench = Bench::start(cluster, &space, &site).await;
    let operation = garden(&bench.gateway, &bench.token, &space, &site).await;
    let names = names(&bench.client, &bench.token, space, operation).await;

    let start = page(&WORKLOADS);
    // Lists of what the install has written are live for a moment.
    let is_free = || async { bench.cost(&start).await.0 == Cost::default() };
    Cluster::eventually("the start page asks the API server for nothing", is_free).await;
    let from = bench.recorder.count();
    let (start_cost, ..) = bench.cost(&start).await;
    // Nor does the gateway list anything for itself because somebody reads.
    let own = bench.recorder.since(from, bench.own_token);
    // Usage is polled, read or not, and repositories are looked for.
    let is_timed = |what: &str| what == "list configmaps" || what.ends_with(".metrics.k8s.io");
    let is_list = |what: &&String| what.starts_with("list ") && !is_timed(what);
    let listed: Vec<&String> = own.iter().filter(is_list).collect();
    assert!(listed.is_empty(), "{listed:?}");

    let summary = page(&overview());
    let (summary_cost, asked, _) = bench.cost(&summary).await;
    assert!(asked.iter().all(|what| what.ends_with(" secrets")), "the overview asks for {asked:?}");
    let secrets_alone = Cost { lists: 1, ..Cost::default() };
    assert_eq!(summary_cost, secrets_alone, "secrets are held nowhere: {asked:?}");
    let (one_cost, asked, _) = bench.cost(&["/api/v1/overview".to_owned()]).await;
    assert_eq!(one_cost, Cost::default(), "the overview in one answer asks for {asked:?}");

    let (lines, wrong) = measured(&bench, &names).await;
    let pages = [
        ("workloads (start page)", start.len(), start_cost),
        ("overview", summary.len(), summary_cost),
        ("`/api/v1/overview`", 1, one_cost),
    ];
    let text = table(&lines, &pages);
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/costs.md");
    std::fs::write(file, &text).unwrap();
    println!("{text}");
    assert!(wrong.is_empty(), "{} reads cost something else:\n{}", wrong.len(), wrong.join("\n"));
    assert!(lines.len() > 150, "only {} reads were measured", lines.len());
    check(&text);
    bench.gateway.stop().await;
}

#[test]
fn what_was_asked_is_counted_by_what_it_is() {
    let asked = [
        "list pods",
        "continue pods",
        "get pods",
        "get pods/log",
        "create selfsubjectaccessreviews",
        "get /version",
        "create pods",
    ];
    let cost = Cost::of(&asked.map(str::to_owned));
    assert_eq!(cost, Cost { lists: 1, gets: 2, reviews: 1, others: 2 });
    assert_eq!(class("/api/v1/pod/{namespace}").0, Class::List);
    assert_eq!(class("/api/v1/node/{name}").0, Class::Detail);
    assert_eq!(class("/api/v1/node/{name}/pod").0, Class::Child);
    assert_eq!(class("/api/v1/crd/{namespace}/{crd}/object").0, Class::Other);
    assert_eq!(class("/api/v1/search").0, Class::Other);
}
