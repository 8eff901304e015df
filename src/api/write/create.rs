//! The two objects that the contract makes from a form of their own: namespaces and image pull
//! secrets.
//!
//! Their names are judged by the API server. Workloads: `deploy`; anything else: `deploy_file`.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::body::{self, JSON, send};
use crate::api::error::ApiError;
use crate::api::read::list;
use crate::api::read::related::known;
use crate::api::target::encoded;
use crate::api::{Caller, Shared};

#[derive(Deserialize)]
struct NamespaceSpec {
    name: String,
}

#[derive(Deserialize)]
struct PullSecretSpec {
    name: String,
    namespace: String,
    /// In base64, as it goes into the Secret.
    data: String,
}

/// `POST /api/v1/namespace`.
pub async fn namespace(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let NamespaceSpec { name } = body::read(&gateway, &head.headers, body).await?;
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let object = Bytes::from(object.to_string());
    let made = send(&gateway, &user, Method::POST, "/api/v1/namespaces", JSON, object).await?;
    let answer = body::answer(StatusCode::CREATED, &json!({ "name": name }));
    Ok(body::wrote(&gateway, &user, (known("namespace")?, ""), &made, answer))
}

/// `POST /api/v1/secret`: a Secret of type `kubernetes.io/dockercfg`.
pub async fn pull_secret(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let spec: PullSecretSpec = body::read(&gateway, &head.headers, body).await?;
    let object = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": spec.name, "namespace": spec.namespace },
        "type": "kubernetes.io/dockercfg", "data": { ".dockercfg": spec.data },
    });
    if spec.namespace.is_empty() {
        return Err(ApiError::bad_request("error-field-missing", &[("field", "namespace")]));
    }
    list::is_namespace(&spec.namespace)?;
    let kind = known("secret")?;
    let path = kind.resource.collection(Some(&encoded(&spec.namespace)));
    let object = Bytes::from(object.to_string());
    let made = send(&gateway, &user, Method::POST, &path, JSON, object).await?;
    let row = (kind.row)(&made.to_string())?;
    let item: Value =
        serde_json::from_slice(&row.json).map_err(|error| ApiError::internal(&error))?;
    Ok(body::answer(StatusCode::CREATED, &item))
}
