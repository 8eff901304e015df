//! Child lists: what belongs to one object, as a list with a query of its own. The owner is read
//! live as the caller first, so that its 403 and 404 are the answer.
//!
//! How relatives are found is `related`'s part.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::list::open_joins;
use super::related::{self, Chosen, Subject, known};
use super::sets::sets;
use super::usage;
use super::view;
use crate::api::error::ApiError;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{Target, live};
use crate::api::{Caller, Shared};
use crate::auth::Reach;
use crate::cache::Page;
use crate::kinds::detail::whole;
use crate::kinds::{Child, KindDef};
use crate::query::ListQuery;

/// `GET /api/v1/{kind}[/{namespace}]/{name}/{child}`.
pub async fn child(
    State(gateway): Shared,
    Caller(user): Caller,
    kind: &'static KindDef,
    child: Child,
    request: Request,
) -> Result<Response, ApiError> {
    let target = Target::of(request.uri().path(), kind, 1)?;
    let listed = listed(child)?;
    // The list of autoscalers ignores its query, as the contract has it.
    let query = match listed.filter(|_| child != Child::Autoscalers) {
        Some(listed) => ListQuery::parse(request.uri().query(), listed)?,
        None => ListQuery::default(),
    };
    let active = child != Child::Jobs || wants_active(request.uri().query());
    let locale = gateway.locale_of(request.headers());
    let at = view::served(&gateway, &user, kind).await?;
    let json = live(&gateway, &user, &target.path(&at)).await?;
    let row = (kind.row)(&json)?;
    let object = whole(&json).map_err(|error| ApiError::internal(&error))?;
    let subject =
        Subject { gateway: &gateway, user: &user, locale, kind, object: &object, row: &row };
    let reply = answer(&subject, child, listed, &query, active).await?;
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

/// The kind that a child list's rows are of; `None` for what is no list with a query.
fn listed(child: Child) -> Result<Option<&'static KindDef>, ApiError> {
    let name = match child {
        Child::Containers | Child::NewSet => return Ok(None),
        Child::Autoscalers => "horizontalpodautoscaler",
        Child::Claims => "persistentvolumeclaim",
        Child::Events => "event",
        Child::Ingresses => "ingress",
        Child::Jobs => "job",
        Child::OldSets => "replicaset",
        Child::Pods => "pod",
        Child::PullSecrets | Child::Secrets => "secret",
        Child::Services => "service",
        Child::Volumes => "persistentvolume",
    };
    known(name).map(Some)
}

/// `active=false` asks for the jobs of a cron job that have ended, anything else for the others.
fn wants_active(query: Option<&str>) -> bool {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    !pairs.any(|(name, value)| name == "active" && value == "false")
}

async fn answer(
    subject: &Subject<'_>,
    child: Child,
    listed: Option<&'static KindDef>,
    query: &ListQuery,
    active: bool,
) -> Result<Reply, ApiError> {
    let Some(kind) = listed else {
        return match child {
            Child::NewSet => new_set(subject).await,
            _ => containers(subject),
        };
    };
    let chosen = match child {
        Child::Containers | Child::NewSet | Child::OldSets => old_sets(subject, query).await?,
        Child::Autoscalers => related::autoscalers(subject).await?,
        Child::Claims => related::claims(subject, query).await?,
        Child::Events => related::events(subject, query).await?,
        Child::Ingresses => related::ingresses(subject, query).await?,
        Child::Jobs => related::jobs(subject, query, active).await?,
        Child::Pods => related::pods(subject, query).await?,
        Child::PullSecrets => related::secrets(subject, query, "/imagePullSecrets").await?,
        Child::Secrets => related::secrets(subject, query, "/secrets").await?,
        Child::Services => related::services(subject, query).await?,
        Child::Volumes => related::volumes(subject, query).await?,
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
    let wanted = Reach::one(&subject.row.namespace);
    // This answer has no place for errors: what may not be seen counts as nothing.
    let (joins, _) = open_joins(gateway, user, kind, &wanted, locale).await;
    let mut body = Vec::new();
    joins.write(kind, &row, &mut body).map_err(|error| ApiError::internal(&error))?;
    Ok(Reply::json(body, Freshness::of(joins.views()).with_live()))
}

async fn old_sets(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    let Subject { gateway, user, locale, .. } = *subject;
    let (kind, wanted) = (known("replicaset")?, Reach::one(&subject.row.namespace));
    let (sets, (mut joins, mut errors), (usage, unknown)) = tokio::join!(
        sets(subject),
        open_joins(gateway, user, kind, &wanted, locale),
        usage::shown(gateway, user, kind, &wanted, locale),
    );
    joins.usage = usage;
    errors.extend(unknown);
    let rows = match sets {
        Ok(sets) => Page::left(sets.old, query),
        Err(error) if error.status == http::StatusCode::FORBIDDEN => {
            errors.insert(0, subject.item(error));
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let usage = joins.usage.as_ref().map(|usage| usage.of_rows(kind, &rows, &joins));
    Ok(Chosen { page: Page::of(&rows, query), usage, joins, errors, views: Vec::new() })
}
