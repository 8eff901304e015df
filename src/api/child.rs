//! Child lists: what belongs to one object, as a list with a query of its own. The owner is read
//! live as the caller first, so that its 403 and 404 are the answer.
//!
//! How relatives are found is `related`'s part.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::list::open_joins;
use super::related::{self, Chosen, Subject, known};
use super::respond::{Freshness, Reply};
use super::sets::sets;
use super::target::{Target, live};
use super::{Caller, Shared};
use crate::cache::Page;
use crate::kinds::KindDef;
use crate::kinds::later::{AUTOSCALER, CLAIM, INGRESS};
use crate::query::ListQuery;

/// Which relatives a route lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    Autoscalers,
    Claims,
    Containers,
    Events,
    Ingresses,
    NewSet,
    OldSets,
    Pods,
    Services,
}

/// Kind, last segment of the route, and what it lists.
const CHILDREN: &[(&str, &str, Child)] = &[
    ("deployment", "event", Child::Events),
    ("deployment", "horizontalpodautoscaler", Child::Autoscalers),
    ("deployment", "newreplicaset", Child::NewSet),
    ("deployment", "oldreplicaset", Child::OldSets),
    ("namespace", "event", Child::Events),
    ("node", "event", Child::Events),
    ("node", "pod", Child::Pods),
    ("pod", "container", Child::Containers),
    ("pod", "event", Child::Events),
    ("pod", "persistentvolumeclaim", Child::Claims),
    ("replicaset", "event", Child::Events),
    ("replicaset", "horizontalpodautoscaler", Child::Autoscalers),
    ("replicaset", "pod", Child::Pods),
    ("replicaset", "service", Child::Services),
    ("service", "event", Child::Events),
    ("service", "ingress", Child::Ingresses),
    ("service", "pod", Child::Pods),
];

/// The child lists of a kind, by the last segment of their route.
pub fn children(kind: &KindDef) -> impl Iterator<Item = (&'static str, Child)> {
    let name = kind.name;
    let own = CHILDREN.iter().filter(move |(owner, ..)| *owner == name);
    own.map(|(_, segment, child)| (*segment, *child))
}

/// `GET /api/v1/{kind}[/{namespace}]/{name}/{child}`.
pub async fn child(
    State(gateway): Shared,
    Caller(user): Caller,
    kind: &'static KindDef,
    child: Child,
    request: Request,
) -> Result<Response, ApiError> {
    let target = Target::of(request.uri().path(), kind, 1)?;
    let query = match child.takes_query()? {
        Some(listed) => ListQuery::parse(request.uri().query(), listed)?,
        None => ListQuery::default(),
    };
    let locale = gateway.locale_of(request.headers());
    let json = live(&gateway, &user, &target.path(kind)).await?;
    let row = (kind.row)(&json)?;
    let object: Value = serde_json::from_str(&json).map_err(|error| ApiError::internal(&error))?;
    let subject =
        Subject { gateway: &gateway, user: &user, locale, kind, object: &object, row: &row };
    let reply = answer(&subject, child, &query).await?;
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

impl Child {
    /// The kind that the query's columns are of, where the route takes a query.
    fn takes_query(self) -> Result<Option<&'static KindDef>, ApiError> {
        Ok(match self {
            Self::Autoscalers | Self::Containers | Self::NewSet => None,
            Self::Claims => Some(&CLAIM),
            Self::Events => Some(known("event")?),
            Self::Ingresses => Some(&INGRESS),
            Self::OldSets => Some(known("replicaset")?),
            Self::Pods => Some(known("pod")?),
            Self::Services => Some(known("service")?),
        })
    }
}

async fn answer(subject: &Subject<'_>, child: Child, query: &ListQuery) -> Result<Reply, ApiError> {
    let (kind, chosen) = match child {
        Child::Containers => return containers(subject),
        Child::NewSet => return new_set(subject).await,
        Child::Autoscalers => (&AUTOSCALER, related::autoscalers(subject).await?),
        Child::Claims => (&CLAIM, related::claims(subject, query).await?),
        Child::Events => (known("event")?, related::events(subject, query).await?),
        Child::Ingresses => (&INGRESS, related::ingresses(subject, query).await?),
        Child::OldSets => (known("replicaset")?, old_sets(subject, query).await?),
        Child::Pods => (known("pod")?, related::pods(subject, query).await?),
        Child::Services => (known("service")?, related::services(subject, query).await?),
    };
    let freshness = Freshness::of(chosen.views.iter().chain(chosen.joins.views())).with_live();
    Ok(Reply::json(chosen.body(kind)?, freshness))
}

/// Names of the normal containers, in their order.
fn containers(subject: &Subject<'_>) -> Result<Reply, ApiError> {
    let all = subject.object.pointer("/spec/containers").and_then(Value::as_array);
    let names: Vec<&Value> = all.into_iter().flatten().filter_map(|one| one.get("name")).collect();
    let body = json!({ "containers": names }).to_string();
    Ok(Reply::json(body.into_bytes(), Freshness::default().with_live()))
}

/// The contract's `ReplicaSet`, or the same with nothing in it.
async fn new_set(subject: &Subject<'_>) -> Result<Reply, ApiError> {
    let Some(row) = sets(subject).await?.new else {
        let body = json!({
            "objectMeta": { "creationTimestamp": null }, "typeMeta": {},
            "podInfo": { "current": 0, "running": 0, "pending": 0, "failed": 0, "succeeded": 0,
                         "warnings": [] },
            "containerImages": null, "initContainerImages": null,
        });
        let body = body.to_string().into_bytes();
        return Ok(Reply::json(body, Freshness::default().with_live()));
    };
    let Subject { gateway, user, locale, .. } = *subject;
    let kind = known("replicaset")?;
    let wanted = std::slice::from_ref(&subject.row.namespace);
    // This answer has no place for errors: what may not be seen counts as nothing.
    let (joins, _) = open_joins(gateway, user, kind, wanted, locale).await;
    let mut body = Vec::new();
    joins.write(kind, &row, &mut body).map_err(|error| ApiError::internal(&error))?;
    Ok(Reply::json(body, Freshness::of(joins.views()).with_live()))
}

async fn old_sets(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    let Subject { gateway, user, locale, .. } = *subject;
    let wanted = std::slice::from_ref(&subject.row.namespace);
    let (sets, (joins, mut errors)) = tokio::join!(
        sets(subject),
        open_joins(gateway, user, known("replicaset")?, wanted, locale),
    );
    let rows = match sets {
        Ok(sets) => sets.old,
        Err(error) if error.status == http::StatusCode::FORBIDDEN => {
            errors.insert(0, subject.item(error));
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    Ok(Chosen { page: Page::of(&rows, query), joins, errors, ..Chosen::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_child_list_belongs_to_a_kind_of_the_table() {
        for (kind, segment, child) in CHILDREN {
            let kind = known(kind).unwrap();
            assert!(children(kind).any(|one| one == (*segment, *child)), "{segment}");
        }
    }
}
