//! What the stock web frontend asks for on each of its pages, in its order.
//!
//! It knows the frontend alone: no answer, and nothing of who asks (`frontend.rs`).

use binnacle::kinds::by_name;

/// The queries of a list before anybody touched it; of events that of their own column.
pub const LIST_QUERY: &str = "itemsPerPage=10&page=1&sortBy=d,creationTimestamp";
pub const EVENT_QUERY: &str = "itemsPerPage=10&page=1&sortBy=d,lastSeen";
/// How the frontend writes "all namespaces".
pub const ALL: &str = "%20";
/// The custom kind of `tests/contract`, under its name of this run.
pub const CRD: &str = "widgets.SPACE.example.com";

/// The start page.
pub const WORKLOADS: [&str; 8] = [
    "cronjob",
    "daemonset",
    "deployment",
    "job",
    "pod",
    "replicaset",
    "replicationcontroller",
    "statefulset",
];
const CLUSTER: [&str; 9] = [
    "clusterrole",
    "clusterrolebinding",
    "namespace",
    "networkpolicy",
    "node",
    "persistentvolume",
    "role",
    "rolebinding",
    "serviceaccount",
];
const DISCOVERY: [&str; 3] = ["ingress", "ingressclass", "service"];
const CONFIG: [&str; 4] = ["configmap", "persistentvolumeclaim", "secret", "storageclass"];
/// On the overview; the volumes are there a second time.
const CONFIG_SUMMARY: [&str; 4] = ["configmap", "persistentvolume", "secret", "storageclass"];
/// Pages of one list that are on no page of several.
const ALONE: [&str; 2] = ["event", "crd"];

/// What an answer is.
#[derive(Clone, Copy)]
pub enum Is {
    /// A list of this kind.
    List(&'static str),
    /// One object: its name is the path's last segment.
    Detail,
    Json,
    Text,
}
use Is::{Detail, Json, List, Text};

/// A call: its path beneath `/api/v1/`. `{q}` and `{e}` are queries, `NS` is the chosen namespace
/// or all of them, and what else is in capitals are names of this run.
pub type Call = (String, Is);

/// Detail pages: the object, and what is asked after it.
const DETAILS: &[(&str, &[(&str, Is)])] = &[
    (
        "pod/SPACE/POD",
        &[
            ("event?{e}", List("event")),
            ("persistentvolumeclaim?{q}", List("persistentvolumeclaim")),
        ],
    ),
    (
        "deployment/SPACE/tiles",
        &[
            ("event?{e}", List("event")),
            ("oldreplicaset?{q}", List("replicaset")),
            ("newreplicaset", Json),
            ("horizontalpodautoscaler?{q}", List("horizontalpodautoscaler")),
        ],
    ),
    ("replicaset/SPACE/SET", PODS_SERVICES_EVENTS),
    ("daemonset/SPACE/agent", PODS_SERVICES_EVENTS),
    ("replicationcontroller/SPACE/legacy", PODS_SERVICES_EVENTS),
    ("statefulset/SPACE/store", PODS_EVENTS),
    ("job/SPACE/import", PODS_EVENTS),
    (
        "cronjob/SPACE/nightly",
        &[
            ("job?{q}", List("job")),
            ("job?active=false&{q}", List("job")),
            ("event?{e}", List("event")),
        ],
    ),
    ("node/NODE", PODS_EVENTS),
    ("namespace/SPACE", &[("event?{e}", List("event"))]),
    (
        "service/SPACE/tiles",
        &[("pod?{q}", List("pod")), ("ingress?{q}", List("ingress")), ("event?{e}", List("event"))],
    ),
    ("ingress/SPACE/tiles", &[("event?{e}", List("event"))]),
    (
        "serviceaccount/SPACE/tiles",
        &[("secret?{q}", List("secret")), ("imagepullsecret?{q}", List("secret"))],
    ),
    ("storageclass/SPACE-fast", &[("persistentvolume?{q}", List("persistentvolume"))]),
    ("configmap/SPACE/settings", &[]),
    ("secret/SPACE/api-key", &[]),
    ("persistentvolume/SPACE-vol-1", &[]),
    ("persistentvolumeclaim/SPACE/data", &[]),
    ("role/SPACE/reader", &[]),
    ("rolebinding/SPACE/readers", &[]),
    ("clusterrole/SPACE-viewer", &[]),
    ("clusterrolebinding/SPACE-viewers", &[]),
    ("networkpolicy/SPACE/deny", &[]),
    ("ingressclass/SPACE-edge", &[]),
    ("crd/SPACE/widgets.SPACE.example.com/big-one", &[("event?{e}", List("event"))]),
];
const PODS_EVENTS: &[(&str, Is)] = &[("pod?{q}", List("pod")), ("event?{e}", List("event"))];
const PODS_SERVICES_EVENTS: &[(&str, Is)] =
    &[("pod?{q}", List("pod")), ("service?{q}", List("service")), ("event?{e}", List("event"))];

/// Pages without a table of their own.
const OTHERS: &[(&str, Is)] = &[
    ("crd/widgets.SPACE.example.com", Detail),
    ("crd/NS/widgets.SPACE.example.com/object?{q}", List("crd")),
    ("_raw/widgets.SPACE.example.com/namespace/SPACE/name/big-one", Json),
    ("log/source/SPACE/SET/replicaset", Json),
    ("log/source/SPACE/POD/pod", Json),
    ("log/SPACE/POD/main", Json),
    (
        "log/SPACE/POD/main?logFilePosition=end&referenceTimestamp=newest&referenceLineNum=0\
         &offsetFrom=2000000000&offsetTo=2000000100&previous=false",
        Json,
    ),
    (
        "log/SPACE/POD/main?logFilePosition=beginning&referenceTimestamp=oldest&referenceLineNum=0\
         &offsetFrom=-2000000100&offsetTo=-2000000000&previous=false",
        Json,
    ),
    ("log/file/SPACE/POD/main?previous=false&timestamps=true", Text),
    ("pod/SPACE/POD/container", Json),
    ("appdeployment/protocols", Json),
    ("namespace", List("namespace")),
    ("namespace", List("namespace")),
    ("secret/SPACE", List("secret")),
];

/// The lists of the overview, in their order; the search page asks for the same.
pub fn overview() -> Vec<&'static str> {
    [&WORKLOADS[..], &CLUSTER, &DISCOVERY, &CONFIG_SUMMARY].concat()
}

fn list(kind: &'static str, filter: &str) -> Call {
    let place = by_name(kind).unwrap().resource.namespaced;
    let place = if place { "/NS" } else { "" };
    let query = if kind == "event" { "{e}" } else { "{q}" };
    (format!("{kind}{place}?{query}{filter}"), List(kind))
}

fn calls(kinds: &[&'static str], filter: &str) -> Vec<Call> {
    kinds.iter().map(|&kind| list(kind, filter)).collect()
}

/// The calls of every page, one page after the other, for one choice of a namespace.
pub fn pages() -> Vec<Vec<Call>> {
    let summary = overview();
    let mut pages = vec![
        calls(&WORKLOADS, ""),
        calls(&summary, ""),
        calls(&summary, "&filterBy=name,tiles"),
        calls(&CLUSTER, ""),
        calls(&DISCOVERY, ""),
        calls(&CONFIG, ""),
    ];
    let alone = [&WORKLOADS[..], &CLUSTER, &DISCOVERY, &CONFIG, &ALONE].concat();
    pages.extend(alone.iter().map(|&kind| calls(&[kind], "")));
    // A click on the header of a column that we have nothing of.
    pages.push(vec![("cronjob/NS?itemsPerPage=10&page=1&sortBy=a,active".into(), List("cronjob"))]);
    for (object, further) in DETAILS {
        let mut page = vec![((*object).to_owned(), Detail)];
        page.extend(further.iter().map(|(child, is)| (format!("{object}/{child}"), *is)));
        pages.push(page);
    }
    pages.extend(OTHERS.iter().map(|(path, is)| vec![((*path).to_owned(), *is)]));
    pages
}
