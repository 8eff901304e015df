//! The start page in one answer: workloads by state, how many there are of every other kind,
//! capacity, what is asked of it and used, warnings by reason, versions. Each number is of what the
//! caller may list; what is missing is named in `errors`.
//!
//! It reads the shared stores and lists nothing where those are current.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::join_all;
use serde_json::{Map, Value, json};

use super::detail::distinct;
use super::join::Joins;
use super::list::namespaces_in;
use super::usage::{self, Usages};
use super::view::{self, NoView, View};
use crate::api::error::ApiError;
use crate::api::respond::{Freshness, Reply};
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Reach;
use crate::kinds::{Allocated, Cell, Counts, EVENT, Facts, KINDS, KindDef, POD, Row, time};
use crate::upstream::User;

/// Reasons of warnings that are shown, the most frequent first.
const REASONS: usize = 20;
/// Warnings that are counted before others have their turn.
const STEP: usize = 500;

/// `GET /api/v1/overview[/{namespace}]`.
pub async fn overview(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = namespaces(request.uri().path())?;
    let locale = gateway.locale_of(request.headers());
    // One question first: bad credentials must not cause one for each kind.
    if let Err(NoView::Failed(error)) = view::scope(&gateway, &user, POD, &wanted).await {
        return Err(error);
    }
    let kinds = KINDS.iter().filter(|kind| kind.is_kept());
    let (asked, wanted) = ((&*gateway, &user), &wanted);
    let open = kinds.map(async |kind| (kind, view::open(asked.0, asked.1, kind, wanted).await));
    let (opened, version, (usage, unknown)) = tokio::join!(
        join_all(open),
        gateway.discovery.version(&gateway.cluster, &user),
        usage::shown(&gateway, &user, POD, wanted, locale),
    );
    let (mut views, mut errors) = (Vec::new(), Vec::new());
    for (kind, view) in opened {
        match view {
            Ok(view) => {
                errors.extend(view.missing().map(|error| error.as_item(locale)));
                views.push((kind, view));
            }
            Err(none) => errors.push(none.unless_unauthorized()?.as_item(locale)),
        }
    }
    let version = version.unwrap_or_else(|failure| {
        errors.push(ApiError::from(failure).as_item(locale));
        String::new()
    });
    errors.extend(unknown);
    let measured = usage.as_ref().and_then(Usages::view);
    let freshness = Freshness::of(views.iter().map(|(_, view)| view).chain(measured));
    let everywhere = *wanted == Reach::Everything;
    let capacity = capacity(asked, &views, usage.as_ref(), everywhere).await;
    let (objects, mut joins, rest) = joined(views);
    joins.usage = usage;
    let counted = rest.iter().filter(|(kind, _)| kind.list.counts != Counts::None);
    for view in counted.map(|(_, view)| view).chain(&joins.pods).chain(&joins.replica_sets) {
        let left_out = joins.left_out(&view.scope);
        errors.extend(left_out.map(|why| ApiError::from(why.clone()).as_item(locale)));
    }
    let errors = distinct(errors);
    // The store is left before they are counted: writers wait for it, and readers behind those.
    let events = joins.events.as_ref().map(|view| view.store().troubled(&view.scope));
    let warnings = warnings(&events.unwrap_or_default()).await;
    let body = json!({
        "namespaces": wanted.names().collect::<Vec<_>>(),
        "workloads": workloads(&rest, &joins),
        "objects": objects,
        "capacity": capacity,
        "warnings": warnings,
        "versions": {
            "kubernetes": version, "kubelets": kubelets(&rest),
            "binnacle": env!("CARGO_PKG_VERSION"),
        },
        "errors": errors,
    });
    let reply = Reply::json(body.to_string().into_bytes(), freshness);
    Ok(reply.respond(&gateway, request.headers()))
}

/// The namespaces that the path names behind the route's own name; one may be called like it.
fn namespaces(path: &str) -> Result<Reach, ApiError> {
    let mut segments = path.rsplit('/');
    let last = segments.next().unwrap_or_default();
    match segments.next() {
        Some("overview") => namespaces_in(last),
        _ => Ok(Reach::Everything),
    }
}

type Views = Vec<(&'static KindDef, View)>;

/// How many objects there are of each kind, and the views apart: those that joins look into, and
/// the rest.
fn joined(views: Views) -> (Map<String, Value>, Joins, Views) {
    let mut counts = Map::new();
    let mut joins = Joins::default();
    let mut rest = Vec::new();
    for (kind, view) in views {
        counts.insert(kind.name.into(), view.store().count(&view.scope).into());
        match kind.name {
            "pod" => joins.pods = Some(view),
            "event" => joins.events = Some(view),
            "replicaset" => joins.replica_sets = Some(view),
            _ => rest.push((kind, view)),
        }
    }
    (counts, joins, rest)
}

/// The contract's `status` of every kind that has one.
fn workloads(rest: &Views, joins: &Joins) -> Map<String, Value> {
    let joined = joins.pods.iter().chain(&joins.replica_sets);
    let joined = joined.map(|view| (view.scope.kind(), view));
    let all = rest.iter().map(|(kind, view)| (*kind, view)).chain(joined);
    let counted = all.filter(|(kind, _)| kind.list.counts != Counts::None);
    counted
        .map(|(kind, view)| {
            let status = serde_json::to_value(joins.status(kind, view)).unwrap_or_default();
            (kind.name.to_owned(), status)
        })
        .collect()
}

fn rows(views: &Views, name: &str, visit: impl FnMut(&Arc<Row>)) {
    if let Some((_, view)) = views.iter().find(|(kind, _)| kind.name == name) {
        view.store().each(&view.scope, visit);
    }
}

/// How many nodes have a kubelet of each version.
fn kubelets(views: &Views) -> BTreeMap<String, usize> {
    let mut kubelets: BTreeMap<String, usize> = BTreeMap::new();
    let nodes = views.iter().find(|(kind, _)| kind.name == "node");
    let column = nodes.and_then(|(kind, _)| kind.column("version"));
    rows(views, "node", |node| {
        if let Some(Cell::Text(version)) = column.and_then(|at| node.cells.get(at)) {
            *kubelets.entry(version.to_string()).or_default() += 1;
        }
    });
    kubelets
}

/// What the nodes have, and what of it the pods ask for and use: sums over all pods, or nothing.
async fn capacity(
    (gateway, user): (&Gateway, &User),
    views: &Views,
    usage: Option<&Usages>,
    everywhere: bool,
) -> Value {
    let Some((kind, pods)) = views.iter().find(|(kind, _)| kind.name == "pod") else {
        return Value::Null;
    };
    let sums = pods.store().pod_sums(&pods.scope, |_| {});
    let Allocated { cpu_requests, cpu_limits, memory_requests, memory_limits } = sums.allocated;
    let mut capacity = json!({
        "cpu": { "requests": cpu_requests, "limits": cpu_limits },
        "memory": { "requests": memory_requests, "limits": memory_limits },
        "pods": { "used": sums.alive },
    });
    let used = usage.and_then(|usage| usage.total(&pods.scope).points.last().copied());
    if let Some((_, cpu, memory)) = used {
        capacity["cpu"]["usage"] = cpu.into();
        capacity["memory"]["usage"] = memory.into();
    }
    // Beside the capacity of all nodes the sums of some pods would say too little.
    let all =
        everywhere && gateway.authorizer.scope_of_all(&gateway.cluster, user, kind).await.is_ok();
    let (mut nodes, mut ready, mut have) = (0, 0, (0, 0, 0));
    rows(views, "node", |node| {
        let Facts::Node(facts) = &node.facts else { return };
        nodes += 1;
        ready +=
            usize::from(matches!(node.cells.first(), Some(Cell::Text(text)) if text == "True"));
        have = (have.0 + facts.cpu, have.1 + facts.memory, have.2 + facts.pods);
    });
    if all && nodes > 0 {
        capacity["nodes"] = json!({ "total": nodes, "ready": ready });
        capacity["cpu"]["allocatable"] = have.0.into();
        capacity["memory"]["allocatable"] = have.1.into();
        capacity["pods"]["allocatable"] = have.2.into();
    }
    capacity
}

#[derive(Default)]
struct Group<'a> {
    count: usize,
    objects: HashSet<(&'a str, &'a str)>,
    newest: Option<i64>,
    example: Option<&'a Arc<Row>>,
}

/// Warning events by their reason.
async fn warnings(events: &[Arc<Row>]) -> Vec<Value> {
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    let last_seen = EVENT.column("lastSeen");
    for (before, event) in events.iter().enumerate() {
        if before > 0 && before.is_multiple_of(STEP) {
            tokio::task::yield_now().await;
        }
        let Some(warning) = event.warning() else { continue };
        let group = groups.entry(&warning.reason).or_default();
        group.count += 1;
        group.objects.extend(event.involved());
        let seen = match last_seen.and_then(|at| event.cells.get(at)) {
            Some(Cell::Time(seen)) => *seen,
            _ => None,
        };
        if group.example.is_none() || seen > group.newest {
            group.newest = seen;
            group.example = Some(event);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    groups.truncate(REASONS);
    let shown = groups.into_iter().map(|(reason, group)| {
        json!({
            "reason": reason, "count": group.count, "objects": group.objects.len(),
            "lastSeen": group.newest.and_then(time),
            "example": group.example.map(|event| json!({
                "namespace": event.namespace, "name": event.name,
                "message": event.warning().map(|warning| &warning.message),
            })),
        })
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::beside;

    fn event(name: &str, reason: &str, about: &str, seen: &str) -> Arc<Row> {
        let event = json!({
            "metadata": {"name": name, "namespace": "atlas"}, "type": "Warning",
            "reason": reason, "message": format!("said by {name}"), "lastTimestamp": seen,
            "involvedObject": {"kind": "Pod", "namespace": "atlas", "name": about},
        });
        Arc::new((EVENT.row)(&event.to_string()).unwrap())
    }

    #[tokio::test]
    async fn warnings_are_shown_by_reason_with_the_newest_as_an_example() {
        let (older, newer) = ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z");
        let events = [
            event("a", "Unhealthy", "web", newer),
            event("b", "BackOff", "web", older),
            event("c", "BackOff", "web", newer),
            event("d", "BackOff", "api", older),
        ];
        let back_off = json!({
            "reason": "BackOff", "count": 3, "objects": 2, "lastSeen": newer,
            "example": {"namespace": "atlas", "name": "c", "message": "said by c"},
        });
        let unhealthy = json!({
            "reason": "Unhealthy", "count": 1, "objects": 1, "lastSeen": newer,
            "example": {"namespace": "atlas", "name": "a", "message": "said by a"},
        });
        assert_eq!(warnings(&events).await, [back_off, unhealthy]);
    }

    #[tokio::test]
    async fn others_have_their_turn_while_many_warnings_are_counted() {
        let event = event("a", "BackOff", "web", "2026-01-02T03:04:05Z");
        let (shown, turns) = beside(warnings(&vec![event; 2 * STEP])).await;
        assert_ne!(turns, 0);
        assert_eq!((&shown[0]["count"], &shown[0]["objects"]), (&json!(2 * STEP), &json!(1)));
    }
}
