//! The detail of one object: read live as the caller, with what its values refer to, its joins,
//! and its relations side by side, each under a right of its own.
//!
//! Only the object itself can fail a detail; what else could not be read is named in `errors`.

use std::collections::HashSet;

use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::join_all;
use http::StatusCode;
use serde_json::Value;

use super::join::Joins;
use super::list::open_joins;
use super::metrics::cumulative;
use super::related::{self, Part, Queries, Subject, is_missing, known};
use super::usage;
use super::view;
use crate::api::error::ApiError;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{FETCHES, Target, encoded, live, live_all};
use crate::api::{Caller, Shared};
use crate::auth::Reach;
use crate::kinds::detail::whole;
use crate::kinds::{KindDef, PodDetail, Reference, References, Relation};
use crate::query::ListQuery;

/// Room for what an answer holds besides the object, in bytes; a longer one grows.
const RELATED: usize = 4 << 10;

/// `GET /api/v1/{kind}[/{namespace}]/{name}`.
pub async fn detail(
    State(gateway): Shared,
    Caller(user): Caller,
    kind: &'static KindDef,
    request: Request,
) -> Result<Response, ApiError> {
    let target = Target::of(request.uri().path(), kind, 0)?;
    let queries = queries(request.uri().query(), kind)?;
    let locale = gateway.locale_of(request.headers());
    let at = view::served(&gateway, &user, kind).await?;
    let json = live(&gateway, &user, &target.path(&at)).await?;
    let row = (kind.row)(&json)?;
    let object = whole(&json).map_err(|error| ApiError::internal(&error))?;
    let subject =
        Subject { gateway: &gateway, user: &user, locale, kind, object: &object, row: &row };
    let reply = answer(&subject, json.len(), &queries).await?;
    let reply = reply.warned(&queries.pods.warnings);
    // Secrets, and pods whose environment names some.
    let reply = if matches!(kind.name, "secret" | "pod") { reply.secret() } else { reply };
    Ok(reply.respond(&gateway, request.headers()))
}

/// The lists in a node's detail follow the request's query, its events without what is about pods
/// alone: the filter by their columns, and labels, which events have none of. No other detail takes
/// a query.
fn queries(raw: Option<&str>, kind: &KindDef) -> Result<Queries, ApiError> {
    if !kind.relations.contains(&Relation::NodePods) {
        return Ok(Queries::default());
    }
    let pods = ListQuery::parse(raw, known("pod")?)?;
    let all = url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes());
    let mut rest = url::form_urlencoded::Serializer::new(String::new());
    rest.extend_pairs(all.filter(|(name, _)| !matches!(&**name, "filterBy" | "labelSelector")));
    let mut events = ListQuery::parse(Some(&rest.finish()), known("event")?)?;
    // Said once, by the pods.
    events.warnings.clear();
    Ok(Queries { pods, events })
}

/// `size`: of the object as text, in bytes.
async fn answer(subject: &Subject<'_>, size: usize, queries: &Queries) -> Result<Reply, ApiError> {
    let relations = subject.kind.relations.iter();
    let relations = relations.map(|relation| related::gather(subject, *relation, queries));
    let ((references, mut errors), (joins, joined), (usage, unknown), parts) =
        tokio::join!(resolve(subject), joins(subject), measured(subject), join_all(relations));
    errors.extend(joined);
    errors.extend(unknown);
    let mut body = Vec::with_capacity(size + RELATED);
    write_own(subject, &references, usage, &mut body)?;
    // The closing brace: what follows are more fields.
    body.pop();
    if is_flat(subject.kind) {
        let written = joins.write_fields(subject.kind, subject.row, &mut body);
        written.map_err(|error| ApiError::internal(&error))?;
    }
    let mut views = Vec::new();
    for part in parts {
        let Part { json, errors: more, views: seen } = part?;
        body.extend_from_slice(&json);
        errors.extend(more);
        views.extend(seen);
    }
    body.extend_from_slice(b",\"errors\":");
    let errors = distinct(errors);
    serde_json::to_writer(&mut body, &errors).map_err(|error| ApiError::internal(&error))?;
    body.push(b'}');
    let freshness = Freshness::of(views.iter().chain(joins.views())).with_live();
    Ok(Reply::json(body, freshness))
}

/// Every detail but a pod's holds all of its list item, joins included.
fn is_flat(kind: &KindDef) -> bool {
    kind.name != "pod"
}

async fn joins(subject: &Subject<'_>) -> (Joins, Vec<Value>) {
    let Subject { gateway, user, locale, kind, row, .. } = *subject;
    if !is_flat(kind) {
        return (Joins::default(), Vec::new());
    }
    open_joins(gateway, user, kind, &Reach::one(&row.namespace), locale).await
}

/// `metrics` of a pod or node, whose details show their own; `None` when they are not known.
async fn measured(subject: &Subject<'_>) -> (Option<Value>, Option<Value>) {
    let Subject { gateway, user, locale, kind, row, .. } = *subject;
    if !matches!(kind.name, "pod" | "node") {
        return (None, None);
    }
    let (usage, unknown) = usage::shown(gateway, user, kind, &subject.around(), locale).await;
    let series = usage.map(|usage| usage.of(row).unwrap_or_default());
    (series.and_then(|series| serde_json::to_value(cumulative(&series)).ok()), unknown)
}

/// The object's own fields, with the values that its references resolve to.
fn write_own(
    subject: &Subject<'_>,
    references: &References,
    usage: Option<Value>,
    body: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let Subject { kind, object, row, .. } = *subject;
    let written = if is_flat(kind) {
        let mut fields = (kind.detail)(object, row, references)?;
        if let (Some(usage), Some(metrics)) = (usage, fields.get_mut("metrics")) {
            *metrics = usage;
        }
        serde_json::to_writer(body, &fields)
    } else {
        let mut fields = PodDetail::of(object, row, references)?;
        fields.metrics = usage.unwrap_or_default();
        serde_json::to_writer(body, &fields)
    };
    written.map_err(|error| ApiError::internal(&error))
}

/// Config maps and secrets that the object names, as the caller; one that is missing leaves its
/// values empty, as do those beyond [`FETCHES`], which is said.
async fn resolve(subject: &Subject<'_>) -> (References, Vec<Value>) {
    let wanted = (subject.kind.references)(subject.object);
    let in_part = wanted.len() > FETCHES;
    let namespace = encoded(&subject.row.namespace);
    let path = |reference: &Reference| {
        let (plural, name) = match reference {
            Reference::ConfigMap(name) => ("configmaps", name),
            Reference::Secret(name) => ("secrets", name),
        };
        format!("/api/v1/namespaces/{namespace}/{plural}/{}", encoded(name))
    };
    let wanted = wanted.into_iter().take(FETCHES).map(|reference| {
        let path = path(&reference);
        (reference, path)
    });
    let (mut references, mut errors) = (References::new(), Vec::new());
    for (reference, answer) in live_all(subject.gateway, subject.user, wanted.collect()).await {
        let object = match answer {
            Ok(json) => whole(&json).map_err(|error| ApiError::internal(&error)),
            Err(failure) if is_missing(&failure) => continue,
            Err(failure) => Err(failure.into()),
        };
        match object {
            Ok(object) => {
                references.insert(reference, object);
            }
            Err(error) => errors.push(subject.item(error)),
        }
    }
    if in_part {
        let (too_many, most) = (StatusCode::PAYLOAD_TOO_LARGE, FETCHES.to_string());
        let error = ApiError::with_status(too_many, "error-values-in-part", &[("most", &most)]);
        errors.push(subject.item(error));
    }
    (references, errors)
}

/// The errors without those that say the same again, as several reads of one kind do.
pub fn distinct(errors: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::new();
    let said = |error: &Value| {
        let message = error.pointer("/ErrStatus/message").and_then(Value::as_str);
        message.unwrap_or_default().to_owned()
    };
    errors.into_iter().filter(|error| seen.insert(said(error))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said_twice_is_said_once() {
        let error = |text: &str| json!({"ErrStatus": {"message": text}});
        let errors = distinct(vec![error("a"), error("b"), error("a")]);
        assert_eq!(errors, [error("a"), error("b")]);
    }

    #[test]
    fn a_nodes_events_are_left_whole_by_what_is_asked_of_its_pods() {
        let raw = "filterBy=status,Running&labelSelector=app%3Dweb&itemsPerPage=5&page=2";
        let Queries { pods, events } = queries(Some(raw), known("node").unwrap()).unwrap();
        assert!(!pods.filters.is_empty() && !pods.labels.is_empty(), "{pods:?}");
        assert!(!events.is_filtered(), "{events:?}");
        assert!(events.page.is_some() && events.page == pods.page, "{events:?}");
    }
}
