//! Protection of releases: set and lifted as the caller, by a label on the newest record's Secret,
//! and looked at before anything changes a release.
//!
//! What protects is `helm::protect`'s to say. The passthrough stays raw: whoever may write Secrets
//! there, or runs helm elsewhere, is not held.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::detail::{Asked, found};
use super::write::{at_it, in_the_way, place_of};
use crate::api::body::{self, MERGE, send};
use crate::api::error::ApiError;
use crate::api::passthrough::granted;
use crate::api::target::encoded;
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Attributes;
use crate::helm::operation::{self, Operation};
use crate::helm::protect::LABEL;
use crate::helm::record::{self, Record};
use crate::kinds::by_name;
use crate::kinds::release::RELEASE;
use crate::upstream::{Failure, User};

/// What lifting is called in roles: no object of the API server's, but a verb that its
/// authorizers are asked about.
const VERB: &str = "unprotect";
const GROUP: &str = "binnacle.dev";
const RESOURCE: &str = "releases";

/// Times that a label is copied where others write the record just then.
const TRIES: usize = 3;

/// `PUT /api/v1/release/{namespace}/{name}/protect`: whoever may write the record may protect it.
/// 409 when it is set, but an operation waits for its turn that was accepted before.
pub async fn protect(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(request.uri(), 1)?;
    let answer = mark(&gateway, &user, &asked, "true").await?;
    // Not before: what is accepted from here on finds the label.
    match at_work(&gateway, &user, &asked).await? {
        Some(other) if waits(&other) => Err(in_the_way("error-release-protect-late", &other)),
        // It has begun meanwhile, and may have read the record before.
        Some(other) => Err(in_the_way("error-release-protect-busy", &other)),
        None => Ok(answer),
    }
}

/// `PUT /api/v1/release/{namespace}/{name}/unprotect`: whoever may `unprotect` it besides.
pub async fn unprotect(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(request.uri(), 1)?;
    granted(&gateway, &user, &lifting(&asked.namespace, &asked.name)).await?;
    // Not by taking the label away: what has none gets that of the record before.
    let answer = mark(&gateway, &user, &asked, "false").await?;
    // It may have begun meanwhile, and have read the record before.
    match at_work(&gateway, &user, &asked).await?.filter(|other| !waits(other)) {
        Some(other) => Err(in_the_way("error-release-protect-busy", &other)),
        None => Ok(answer),
    }
}

/// 403 with the reason when this release, whose newest record is this, is protected.
pub async fn refuse_if_protected(
    gateway: &Gateway,
    user: &User,
    namespace: &str,
    name: &str,
    newest: &Record,
) -> Result<(), ApiError> {
    let guarded = gateway.helm.protection.of(namespace, name, &newest.labels);
    if !guarded.protected {
        return Ok(());
    }
    // Who cannot be told about stays with the words for everybody.
    let wanted = lifting(namespace, name);
    let id = match gateway.authorizer.review(&gateway.cluster, user, &wanted).await {
        Ok(true) => "error-release-protected-by-you-too",
        _ => "error-release-protected",
    };
    let args = [("name", name), ("by", guarded.by.as_str())];
    Err(ApiError::with_status(StatusCode::FORBIDDEN, id, &args))
}

/// After an upgrade or a rollback: the newest record says of protection what the one before said,
/// unless it says something itself. A rollback takes its labels from the revision it goes back to.
pub async fn keep_label(
    gateway: &Gateway,
    user: &User,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let mut tries = 0;
    loop {
        let history = record::history(&gateway.cluster, user, namespace, name).await;
        let history = gateway.authorizer.heed(user, history).await?;
        let Some((newest, value)) = missing(&history) else { return Ok(()) };
        tries += 1;
        match set(gateway, user, newest, value).await {
            Err(failure) if failure.code() == Some(StatusCode::CONFLICT) && tries < TRIES => {}
            answer => return answer.map(drop).map_err(ApiError::from),
        }
    }
}

/// The newest record and the label that it should have from the one before.
fn missing(history: &[Record]) -> Option<(&Record, &str)> {
    let [newest, before, ..] = history else { return None };
    let value = before.labels.get(LABEL)?;
    (!newest.labels.contains_key(LABEL)).then_some((newest, value.as_str()))
}

/// The operation that is at work on the release, or waits for that.
async fn at_work(
    gateway: &Gateway,
    user: &User,
    asked: &Asked,
) -> Result<Option<Operation>, ApiError> {
    let Asked { namespace, name, .. } = asked;
    let seen = place_of(namespace, name)?.look(&gateway.cluster, user).await;
    let seen = gateway.authorizer.heed(user, seen).await?;
    Ok(at_it(gateway, namespace, name, seen.as_ref()))
}

/// Whether it will look for protection yet. Of one elsewhere that is not known: its lock tells how
/// far it was some seconds ago.
fn waits(operation: &Operation) -> bool {
    operation.state == operation::State::Queued
}

/// Sets the label to `value`. 409 without that while an act is at work.
async fn mark(
    gateway: &Gateway,
    user: &User,
    asked: &Asked,
    value: &str,
) -> Result<Response, ApiError> {
    let Asked { namespace, name, .. } = asked;
    place_of(namespace, name)?;
    let (_, newest) = found(gateway, user, namespace, name, None).await?;
    if newest.status.is_pending() {
        // Helm writes the record again at the end, with the labels that it read before.
        let args = [("name", name.as_str()), ("status", newest.status.as_str())];
        let status = StatusCode::CONFLICT;
        return Err(ApiError::with_status(status, "error-release-protect-pending", &args));
    }
    // The same holds of a test, and of an act that has not made its own record yet.
    if let Some(other) = at_work(gateway, user, asked).await?.filter(|other| !waits(other)) {
        return Err(in_the_way("error-release-protect-busy", &other));
    }
    let secret = set(gateway, user, &newest, value).await?;
    let mut labels = newest.labels;
    labels.insert(LABEL.to_owned(), value.to_owned());
    let guarded = gateway.helm.protection.of(namespace, name, &labels);
    let answer = body::answer(StatusCode::OK, &guarded.shown());
    let Some(kind) = by_name("secret") else { return Ok(answer) };
    Ok(body::wrote(gateway, user, (kind, namespace), &secret, answer))
}

/// Sets the label of a record that nobody has written since it was read; 409 else.
async fn set(
    gateway: &Gateway,
    user: &User,
    record: &Record,
    value: &str,
) -> Result<Value, Failure> {
    let namespace = encoded(&record.namespace);
    let collection = RELEASE.resource.collection(Some(&namespace));
    let path = format!("{collection}/{}", encoded(&record.secret));
    let patch = json!({ "metadata": {
        "resourceVersion": record.resource_version, "labels": { LABEL: value },
    }});
    send(gateway, user, Method::PATCH, &path, MERGE, Bytes::from(patch.to_string())).await
}

/// The right to lift the protection of a release.
fn lifting(namespace: &str, name: &str) -> Attributes {
    Attributes {
        verb: VERB.into(),
        group: GROUP.into(),
        version: "*".into(),
        resource: RESOURCE.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: u32, label: Option<&str>) -> Record {
        let mut labels = json!({ "owner": "helm", "name": "web", "status": "deployed" });
        if let Some(label) = label {
            labels[LABEL] = label.into();
        }
        let metadata = json!({
            "name": format!("sh.helm.release.v1.web.v{revision}"), "namespace": "atlas",
            "uid": "u", "resourceVersion": "1", "labels": labels,
        });
        record::of(&metadata).unwrap()
    }

    #[test]
    fn only_what_has_not_begun_here_will_still_look_for_protection() {
        let waits = |state| waits(&Operation { state, ..Operation::default() });
        assert!(waits(operation::State::Queued));
        for state in
            [operation::State::Running, operation::State::Cancelling, operation::State::Elsewhere]
        {
            assert!(!waits(state), "{state:?}");
        }
    }

    #[test]
    fn a_record_without_a_label_gets_that_of_the_one_before() {
        let history = [record(4, None), record(3, Some("false")), record(2, Some("true"))];
        let (newest, value) = missing(&history).unwrap();
        assert_eq!((newest.revision, value), (4, "false"));
    }

    #[test]
    fn a_label_that_somebody_set_on_the_newest_record_stays() {
        for label in ["true", "false"] {
            assert!(missing(&[record(4, Some(label)), record(3, Some("true"))]).is_none());
            assert!(missing(&[record(4, Some(label)), record(3, None)]).is_none());
        }
        assert!(missing(&[record(4, None), record(3, None), record(2, Some("true"))]).is_none());
        assert!(missing(&[record(1, None)]).is_none() && missing(&[]).is_none());
    }
}
