//! Repositories of charts as the caller may see them: the list, one of them, its refresh; and the
//! rights that everything about charts is judged by.
//!
//! They are the rights to the repository's ConfigMap in our namespace, asked of the API server as
//! the caller. What changes a repository: `repository_write`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::body::{self, JSON};
use crate::api::error::ApiError;
use crate::api::passthrough;
use crate::api::read::view::verified;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::segment;
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Attributes;
use crate::charts::definition::{Definition, Kind, Oci, is_label};
use crate::charts::repositories::{Problem, mark, marked};
use crate::charts::repository::{Repository, Source, Status, config_map};
use crate::upstream::{Failure, User};

/// Reviews side by side for one answer: one request must not crowd out others.
const AT_ONCE: usize = 16;

/// A repository as it is shown: all but its credentials.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: Kind,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    oci: Option<&'a Oci>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<&'a str>,
    has_credentials: bool,
    source: Source,
    status: &'a Status,
}

/// `GET /api/v1/repository`: those that the caller may read, and what is wrong with others.
pub async fn list(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let problems = gateway.catalogues.problems();
    let all = gateway.catalogues.all();
    let maps = of_config_maps(&all).chain(problems.iter().filter_map(|one| one.config_map.clone()));
    let gettable = gettable(&gateway, &user, maps.collect()).await?;
    let all: Vec<_> = all.iter().filter(|one| is_shown(one, &gettable)).collect();
    let shown: Result<Vec<Value>, ApiError> = all.iter().map(|one| shown(one)).collect();
    let locale = gateway.locale_of(request.headers());
    let errors: Vec<Value> = problems
        .iter()
        .filter(|one| one.config_map.as_ref().is_none_or(|map| gettable.contains(map)))
        .map(|problem| unusable(problem).as_item(locale))
        .collect();
    let body = json!({
        "listMeta": { "totalItems": all.len() }, "repositories": shown?, "errors": errors,
    });
    let reply = Reply::json(body.to_string(), Freshness::default().with_live());
    Ok(reply.respond(&gateway, request.headers()))
}

/// `GET /api/v1/repository/{name}`.
pub async fn one(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let name = name_in(request.uri().path(), 0)?;
    let found = found(&gateway, &user, &name).await?;
    let reply = Reply::json(shown(&found)?.to_string(), Freshness::default().with_live());
    Ok(reply.respond(&gateway, request.headers()))
}

/// `POST /api/v1/repository/{name}/refresh`: 202, it happens in the background.
pub async fn refresh(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let name = name_in(request.uri().path(), 1)?;
    let found = found(&gateway, &user, &name).await?;
    may_change(&gateway, &user, &found).await?;
    read_anew(&gateway, &user, &found).await;
    Ok(body::answer(StatusCode::ACCEPTED, &shown(&found)?))
}

/// Has a repository read anew, here and, by a mark on its ConfigMap, at all other replicas.
pub(crate) async fn read_anew(gateway: &Gateway, user: &User, repository: &Repository) {
    let name = repository.name();
    if repository.source == Source::ConfigMap {
        match set_mark(gateway, user, &repository.config_map()).await {
            // What we see now does not have us read it once more at the next look.
            Ok(()) => gateway.catalogues.look().await,
            Err(error) => {
                tracing::warn!(repository = name, %error, "no mark: other replicas see it late");
            }
        }
    }
    gateway.refresher.refresh_now(name);
}

/// By the right that changes of the repository are allowed by, `update`: no patch. Of two tries the
/// second is for a conflict.
async fn set_mark(gateway: &Gateway, user: &User, map: &str) -> Result<(), Failure> {
    let path = format!("/api/v1/namespaces/{}/configmaps/{map}", gateway.catalogues.namespace());
    let mut before: Option<String> = None;
    loop {
        let current = body::get(gateway, user, &path).await?;
        let found = mark(&current);
        // Whoever was faster has set it after what is to be told.
        if before.as_ref().is_some_and(|before| *before != found) {
            return Ok(());
        }
        let sent = Bytes::from(marked(current, Timestamp::now()).to_string());
        match body::send(gateway, user, Method::PUT, &path, JSON, sent).await {
            Err(failure) if failure.code() == Some(StatusCode::CONFLICT) && before.is_none() => {
                before = Some(found);
            }
            done => return done.map(drop),
        }
    }
}

/// The repositories that the caller may read, by name.
pub async fn readable(gateway: &Gateway, user: &User) -> Result<Vec<Arc<Repository>>, ApiError> {
    let mut all = gateway.catalogues.all();
    let gettable = gettable(gateway, user, of_config_maps(&all).collect()).await?;
    all.retain(|one| is_shown(one, &gettable));
    Ok(all)
}

/// The repository of this name, if the caller may read it: 403 otherwise, whether there is one or
/// not, and 404 where there is none.
pub async fn found(
    gateway: &Gateway,
    user: &User,
    name: &str,
) -> Result<Arc<Repository>, ApiError> {
    let unknown = || {
        let status = StatusCode::NOT_FOUND;
        ApiError::with_status(status, "error-repository-unknown", &[("name", name)])
    };
    if !is_label(name) {
        verified(gateway, user).await?;
        return Err(unknown());
    }
    let known = gateway.catalogues.get(name);
    match &known {
        Some(known) => may_read(gateway, user, known).await?,
        None => granted(gateway, user, "get", &config_map(name)).await?,
    }
    if let Some(known) = known {
        return Ok(known);
    }
    // Another replica may have made it just now.
    gateway.catalogues.look().await;
    if let Some(found) = gateway.catalogues.get(name) {
        return Ok(found);
    }
    let map = config_map(name);
    let problems = gateway.catalogues.problems();
    let problem = problems.iter().find(|one| one.config_map.as_ref() == Some(&map));
    Err(problem.map_or_else(unknown, unusable))
}

/// 403 unless the caller may read this repository: those of the configuration, everybody may whom
/// the API server knows.
pub async fn may_read(
    gateway: &Gateway,
    user: &User,
    repository: &Repository,
) -> Result<(), ApiError> {
    match repository.source {
        Source::File => verified(gateway, user).await,
        Source::ConfigMap => granted(gateway, user, "get", &repository.config_map()).await,
    }
}

/// 403 unless the caller may refresh this repository and change what is in it.
pub async fn may_change(
    gateway: &Gateway,
    user: &User,
    repository: &Repository,
) -> Result<(), ApiError> {
    granted(gateway, user, "update", &repository.config_map()).await
}

/// 403 in the words of the API server's own denials unless the caller may do this to a ConfigMap
/// of our namespace.
pub(crate) async fn granted(
    gateway: &Gateway,
    user: &User,
    verb: &str,
    map: &str,
) -> Result<(), ApiError> {
    passthrough::granted(gateway, user, &wanted(gateway, verb, map)).await
}

/// Whether the caller may do this to a ConfigMap of our namespace; without a name, to all.
pub(crate) async fn may(
    gateway: &Gateway,
    user: &User,
    verb: &str,
    map: &str,
) -> Result<bool, Failure> {
    gateway.authorizer.review(&gateway.cluster, user, &wanted(gateway, verb, map)).await
}

fn wanted(gateway: &Gateway, verb: &str, map: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        version: "v1".into(),
        resource: "configmaps".into(),
        namespace: gateway.catalogues.namespace().into(),
        name: map.into(),
        ..Attributes::default()
    }
}

/// The answer about a repository, without its credentials.
pub(crate) fn shown(repository: &Repository) -> Result<Value, ApiError> {
    let Definition { name, kind, url, oci, interval, .. } = &repository.definition;
    let loaded = repository.loaded.load();
    let shown = Shown {
        name,
        kind: *kind,
        url,
        oci: oci.as_ref(),
        interval: interval.as_deref(),
        has_credentials: repository.has_credentials(),
        source: repository.source,
        status: &loaded.status,
    };
    serde_json::to_value(shown).map_err(|error| ApiError::internal(&error))
}

/// The repository's name in a path, with so many segments after it.
pub(crate) fn name_in(path: &str, after: usize) -> Result<String, ApiError> {
    segment(path.rsplit('/').nth(after).unwrap_or_default()).map(Into::into)
}

fn of_config_maps(all: &[Arc<Repository>]) -> impl Iterator<Item = String> {
    let of_maps = all.iter().filter(|one| one.source == Source::ConfigMap);
    of_maps.map(|one| one.config_map())
}

fn is_shown(repository: &Repository, gettable: &HashSet<String>) -> bool {
    repository.source == Source::File || gettable.contains(&repository.config_map())
}

/// Those of these ConfigMaps that the caller may get. Asking proves who the caller is, even where
/// there are none.
async fn gettable(
    gateway: &Gateway,
    user: &User,
    maps: Vec<String>,
) -> Result<HashSet<String>, ApiError> {
    if may(gateway, user, "get", "").await? {
        return Ok(maps.into_iter().collect());
    }
    let reviews = maps.into_iter().map(|map| async move {
        let allowed = may(gateway, user, "get", &map).await?;
        Ok::<_, Failure>(allowed.then_some(map))
    });
    let reviews = futures::stream::iter(reviews).buffer_unordered(AT_ONCE);
    let found: Vec<Option<String>> = reviews.try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

fn unusable(problem: &Problem) -> ApiError {
    let reason = problem.reason.as_str();
    match &problem.config_map {
        Some(map) => {
            let args = [("name", map.as_str()), ("reason", reason)];
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            ApiError::with_status(status, "error-repository-unusable", &args)
        }
        None => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            ApiError::with_status(status, "error-repositories-unfound", &[("reason", reason)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::i18n::Locale;

    #[test]
    fn a_name_is_a_segment_of_the_path() {
        assert_eq!(name_in("/api/v1/repository/stable", 0).unwrap(), "stable");
        assert_eq!(name_in("/api/v1/repository/stable/refresh", 1).unwrap(), "stable");
        assert!(name_in("/api/v1/repository/a%2Fb", 0).is_err());
    }

    #[test]
    fn what_cannot_be_used_says_which_and_why() {
        let problem = |config_map: Option<&str>| Problem {
            config_map: config_map.map(str::to_owned),
            reason: "it is empty".into(),
        };
        let one = unusable(&problem(Some("binnacle.repository.a")));
        assert_eq!(one.status.as_u16(), 422);
        let text = one.text(Locale::EN);
        assert!(text.contains("binnacle.repository.a") && text.contains("it is empty"), "{text}");
        assert_eq!(unusable(&problem(None)).status.as_u16(), 503);
    }
}
