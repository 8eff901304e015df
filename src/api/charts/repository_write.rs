//! Repositories of charts changed as the caller: made, replaced, removed, and tried beforehand.
//!
//! A repository is a ConfigMap and, with credentials, a Secret of the same name that goes with it.
//! Both are written as the caller and by nobody else; what is stored of credentials is not read
//! here, and serves one host alone: another host drops it.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::repositories::{granted, may, name_in, shown};
use crate::api::body::{self, JSON, send};
use crate::api::error::ApiError;
use crate::api::read::related::known;
use crate::api::read::view::told_to_known;
use crate::api::{Caller, Gateway, Shared};
use crate::charts::access::{Access, is_same_host};
use crate::charts::definition::{Definition, is_label};
use crate::charts::renew::{self, Tried};
use crate::charts::repositories::{read, written};
use crate::charts::repository::{Source, config_map};
use crate::upstream::{Failure, User};

/// What answers have beyond what can be given: sent back, it says nothing.
const OURS: [&str; 3] = ["hasCredentials", "source", "status"];

/// What a body gives.
struct Given {
    definition: Definition,
    /// `None`: nothing is said of credentials. Empty ones are none.
    access: Option<Access>,
}

/// What becomes of the Secret.
enum Step {
    Stay,
    Write(Value),
    Remove,
}

/// `POST /api/v1/repository`: 409 where there is one of that name.
pub async fn create(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let sent = body::read(&gateway, &head.headers, sent).await?;
    let Given { mut definition, access } = given(sent, None)?;
    let access = access.filter(|access| !access.is_empty());
    definition.has_credentials = access.is_some();
    let base = usable(&gateway, &definition, access.as_ref()).await?;
    is_no_file(&gateway, &user, &definition.name).await?;
    let name = config_map(&definition.name);
    let step = |owner: Option<&Value>| match &access {
        Some(access) => Step::Write(access.secret(&name, &base, owner)),
        None => Step::Stay,
    };
    // First of all whether the second write would succeed.
    keep(&gateway, &user, &name, step(None), true).await?;
    let map = written(Value::Null, &definition, gateway.catalogues.namespace());
    let map = map.map_err(|error| ApiError::internal(&error))?;
    let (path, map) = (collection(&gateway, "configmaps"), Bytes::from(map.to_string()));
    let made = send(&gateway, &user, Method::POST, &path, JSON, map).await?;
    if let Err(failure) = keep(&gateway, &user, &name, step(Some(&made)), false).await {
        let path = object(&gateway, "configmaps", &name);
        let undone = send(&gateway, &user, Method::DELETE, &path, JSON, Bytes::new()).await;
        if let Err(error) = undone {
            tracing::warn!(%error, name, "a repository without its credentials is left over");
        }
        return Err(failure.into());
    }
    done(&gateway, &user, definition, &made, StatusCode::CREATED).await
}

/// `PUT /api/v1/repository/{name}`. Without credentials in the body those that are stored stay,
/// unless the host is another; empty ones (`{}`) drop them.
pub async fn replace(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let name = named(&gateway, &user, head.uri.path()).await?;
    let sent = body::read(&gateway, &head.headers, sent).await?;
    let Given { mut definition, access } = given(sent, Some(&name))?;
    let name = config_map(&name);
    let path = object(&gateway, "configmaps", &name);
    let current = body::get(&gateway, &user, &path).await?;
    let before = read(&current);
    let base = check(&gateway, &definition)?;
    let stays = access.is_none() && before.as_ref().is_some_and(|old| serves(&gateway, old, &base));
    let access = access.filter(|access| !access.is_empty());
    definition.has_credentials = stays || access.is_some();
    usable(&gateway, &definition, access.as_ref()).await?;
    let step = || match &access {
        Some(access) => Step::Write(access.secret(&name, &base, Some(&current))),
        None if stays || before.as_ref().is_some_and(|old| !old.has_credentials) => Step::Stay,
        None => Step::Remove,
    };
    keep(&gateway, &user, &name, step(), true).await?;
    // With its resource version: what somebody else changed meanwhile is a 409.
    let map = written(current.clone(), &definition, gateway.catalogues.namespace());
    let map = map.map_err(|error| ApiError::internal(&error))?;
    let map = Bytes::from(map.to_string());
    let put = send(&gateway, &user, Method::PUT, &path, JSON, map).await?;
    let kept = keep(&gateway, &user, &name, step(), false).await;
    let answer = done(&gateway, &user, definition, &put, StatusCode::OK).await?;
    kept?;
    Ok(answer)
}

/// `DELETE /api/v1/repository/{name}`.
pub async fn remove(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let name = config_map(&named(&gateway, &user, request.uri().path()).await?);
    let path = object(&gateway, "configmaps", &name);
    let gone = send(&gateway, &user, Method::DELETE, &path, JSON, Bytes::new()).await?;
    let kept = keep(&gateway, &user, &name, Step::Remove, false).await;
    gateway.catalogues.look().await;
    match kept {
        // The ConfigMap owns it: the cluster's garbage collector comes for it.
        Err(failure) if failure.code() == Some(StatusCode::FORBIDDEN) => {}
        other => other?,
    }
    let place = (known("configmap")?, gateway.catalogues.namespace());
    Ok(body::wrote(&gateway, &user, place, &gone, StatusCode::NO_CONTENT.into_response()))
}

/// `POST /api/v1/repository/test`: whether it can be read, without keeping anything. Needs the
/// right to make repositories, or to update this one; the latter's stored credentials are used
/// where none are given and the host is the same.
pub async fn test(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let sent = body::read(&gateway, &head.headers, sent).await?;
    let Given { mut definition, access } = given(sent, None)?;
    let base = check(&gateway, &definition)?;
    let may_update = may(&gateway, &user, "update", &config_map(&definition.name)).await?;
    if !may_update {
        granted(&gateway, &user, "create", "").await?;
    }
    let known = gateway.catalogues.get(&definition.name);
    let known = known.filter(|known| known.source == Source::ConfigMap);
    definition.has_credentials = may_update
        && access.is_none()
        && known.is_some_and(|known| serves(&gateway, &known.definition, &base));
    let trial = gateway.catalogues.on_trial(definition, access).map_err(|error| bad(&error))?;
    let answer = match renew::once(&trial).await {
        Ok(Tried { charts, versions, skipped, .. }) => json!({
            "ok": true, "charts": charts, "versions": versions, "skipped": skipped, "error": null,
        }),
        Err(error) => json!({ "ok": false, "charts": 0, "error": error.to_string() }),
    };
    Ok(body::answer(StatusCode::OK, &answer))
}

/// What a body gives; `name` is that of the path, if there is one. No value of credentials is in
/// an error.
fn given(mut value: Value, name: Option<&str>) -> Result<Given, ApiError> {
    let Some(fields) = value.as_object_mut() else {
        return Err(bad(&"it has to be a JSON object"));
    };
    let access = match fields.remove("credentials") {
        None | Some(Value::Null) => None,
        Some(given) => Some(Access::given(&given).map_err(|error| bad(&error))?),
    };
    for ours in OURS {
        fields.remove(ours);
    }
    if let Some(name) = name {
        let said = fields.entry("name").or_insert_with(|| name.into());
        if said.as_str() != Some(name) {
            return Err(bad(&"its name cannot be changed; make another and delete this one"));
        }
    }
    let definition = serde_json::from_value(value).map_err(|error| bad(&error))?;
    Ok(Given { definition, access })
}

/// Whether the stored credentials of `old` are for what stands at `base`.
fn serves(gateway: &Gateway, old: &Definition, base: &Url) -> bool {
    old.has_credentials
        && gateway.catalogues.check(old).is_ok_and(|before| is_same_host(&before, base))
}

fn check(gateway: &Gateway, definition: &Definition) -> Result<Url, ApiError> {
    gateway.catalogues.check(definition).map_err(|error| bad(&error))
}

/// Where it stands, if the definition makes sense and so do the credentials.
async fn usable(
    gateway: &Gateway,
    definition: &Definition,
    access: Option<&Access>,
) -> Result<Url, ApiError> {
    let base = check(gateway, definition)?;
    if access.is_some() {
        let trial = gateway.catalogues.on_trial(definition.clone(), access.cloned());
        let trial = trial.map_err(|error| bad(&error))?;
        trial.client().await.map_err(|error| bad(&error))?;
    }
    Ok(base)
}

fn bad(reason: &dyn std::fmt::Display) -> ApiError {
    let reason = reason.to_string();
    ApiError::bad_request("error-repository-invalid", &[("reason", reason.as_str())])
}

/// The name in a path, if it can be one of a ConfigMap's repository.
async fn named(gateway: &Gateway, user: &User, path: &str) -> Result<String, ApiError> {
    let name = name_in(path, 0)?;
    if !is_label(&name) {
        let status = StatusCode::NOT_FOUND;
        return Err(ApiError::with_status(
            status,
            "error-repository-unknown",
            &[("name", name.as_str())],
        ));
    }
    is_no_file(gateway, user, &name).await?;
    Ok(name)
}

/// 409 for the name of a repository of the configuration, told to whom the API server knows.
async fn is_no_file(gateway: &Gateway, user: &User, name: &str) -> Result<(), ApiError> {
    match gateway.catalogues.get(name) {
        Some(known) if known.source == Source::File => {
            let (status, args) = (StatusCode::CONFLICT, [("name", name)]);
            let error = ApiError::with_status(status, "error-repository-of-file", &args);
            Err(told_to_known(gateway, user, error).await)
        }
        _ => Ok(()),
    }
}

fn collection(gateway: &Gateway, plural: &str) -> String {
    format!("/api/v1/namespaces/{}/{plural}", gateway.catalogues.namespace())
}

fn object(gateway: &Gateway, plural: &str, name: &str) -> String {
    format!("{}/{name}", collection(gateway, plural))
}

/// Does to the Secret of this name what has to be done; `dry`: whether it would be allowed.
async fn keep(
    gateway: &Gateway,
    user: &User,
    name: &str,
    step: Step,
    dry: bool,
) -> Result<(), Failure> {
    let dry = if dry { "?dryRun=All" } else { "" };
    let all = format!("{}{dry}", collection(gateway, "secrets"));
    let one = format!("{}{dry}", object(gateway, "secrets", name));
    let done = match step {
        Step::Stay => return Ok(()),
        Step::Write(secret) => {
            let secret = Bytes::from(secret.to_string());
            match send(gateway, user, Method::POST, &all, JSON, secret.clone()).await {
                // There is one already: it becomes this, as a whole.
                Err(failure) if failure.code() == Some(StatusCode::CONFLICT) => {
                    send(gateway, user, Method::PUT, &one, JSON, secret).await
                }
                done => done,
            }
        }
        Step::Remove => match send(gateway, user, Method::DELETE, &one, JSON, Bytes::new()).await {
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => return Ok(()),
            done => done,
        },
    };
    done.map(drop)
}

/// The answer to a change: the repository as it is now. It is there in the very next read, and
/// refreshed at once.
async fn done(
    gateway: &Gateway,
    user: &User,
    definition: Definition,
    map: &Value,
    status: StatusCode,
) -> Result<Response, ApiError> {
    gateway.catalogues.look().await;
    gateway.refresher.refresh_now(&definition.name);
    let shown = match gateway.catalogues.get(&definition.name) {
        Some(found) => shown(&found)?,
        // We may not look ourselves: the list says so.
        None => {
            let trial = gateway.catalogues.on_trial(definition, None);
            shown(&trial.map_err(|error| bad(&error))?)?
        }
    };
    let place = (known("configmap")?, gateway.catalogues.namespace());
    Ok(body::wrote(gateway, user, place, map, body::answer(status, &shown)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::i18n::Locale;

    fn refusal(value: Value) -> String {
        let error = given(value, Some("stable")).err().unwrap();
        assert_eq!(error.status.as_u16(), 400);
        error.text(Locale::EN)
    }

    #[test]
    fn what_was_answered_can_be_sent_back() {
        let answered = json!({
            "name": "stable", "type": "index", "url": "https://charts.example",
            "hasCredentials": true, "source": "configMap", "status": { "state": "ok" },
        });
        let Given { definition, access } = given(answered, Some("stable")).unwrap();
        assert_eq!(definition.name, "stable");
        assert!(!definition.has_credentials, "nobody claims credentials by saying so");
        assert!(access.is_none(), "nothing is said of credentials");
    }

    #[test]
    fn the_name_of_the_path_counts() {
        let unnamed = json!({ "type": "index", "url": "https://charts.example" });
        assert_eq!(given(unnamed.clone(), Some("stable")).unwrap().definition.name, "stable");
        assert!(given(unnamed, None).is_err());
        refusal(json!({ "name": "other", "type": "index", "url": "https://charts.example" }));
        refusal(json!(["stable"]));
    }

    #[test]
    fn empty_credentials_are_something_else_than_none() {
        let with = |credentials: Value| {
            let body = json!({
                "name": "a", "type": "index", "url": "https://a.b", "credentials": credentials,
            });
            given(body, None).unwrap().access
        };
        assert!(with(Value::Null).is_none());
        assert!(with(json!({})).unwrap().is_empty());
        assert!(!with(json!({ "token": "hunter2" })).unwrap().is_empty());
    }

    #[test]
    fn no_refusal_repeats_a_secret() {
        for credentials in [
            json!("hunter2"),
            json!(["hunter2"]),
            json!({ "password": "hunter2" }),
            json!({ "passwort": "hunter2" }),
            json!({ "username": "hunter2", "password": 4711 }),
            json!({ "username": "hunter2", "password": "hunter2", "token": "hunter2" }),
            json!({ "token": "hunter2\u{1}" }),
            json!({ "clientKey": "hunter2" }),
        ] {
            let text = refusal(json!({
                "type": "index", "url": "https://a.b", "credentials": credentials,
            }));
            assert!(!text.contains("hunter2") && !text.contains("4711"), "{text}");
        }
        let outside = json!({ "type": "index", "url": "https://a.b", "password": "hunter2" });
        let text = refusal(outside);
        assert!(text.contains("password") && !text.contains("hunter2"), "{text}");
    }
}
