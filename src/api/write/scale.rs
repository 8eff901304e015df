//! The scale of anything that has one, custom kinds included: read and set through the `scale`
//! subresource as the caller.
//!
//! It knows no kinds; what can be scaled, discovery says.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use compact_str::CompactString;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::body::{self, MERGE, get, send};
use crate::api::error::ApiError;
use crate::api::read::view;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{self, encoded, segment};
use crate::api::{Caller, Gateway, Shared};
use crate::kinds::KINDS;
use crate::upstream::{Served, User};

/// `/scale/{kind}[/{namespace}]/{name}`.
struct Place {
    namespace: Option<CompactString>,
    name: CompactString,
}

impl Place {
    async fn of(gateway: &Gateway, user: &User, path: &str) -> Result<(Served, Self), ApiError> {
        let bad = || ApiError::bad_path(path);
        let (_, rest) = path.split_once("/scale/").ok_or_else(bad)?;
        let parts = rest.split('/').map(segment).collect::<Result<Vec<_>, _>>()?;
        let (kind, namespace, name) = match parts.as_slice() {
            [kind, name] => (kind, None, name.clone()),
            [kind, namespace, name] => (kind, Some(namespace.clone()), name.clone()),
            _ => return Err(bad()),
        };
        let called = |served: &Served| served.is_called(kind);
        let served = target::find(gateway, user, called).await?;
        let Some(served) = served.filter(|served| served.scalable) else {
            return Err(view::unknown(gateway, user, "error-no-scale", kind).await);
        };
        if served.namespaced && namespace.is_none() {
            let error = ApiError::bad_request("error-scale-namespace", &[("kind", kind.as_str())]);
            return Err(view::told_to_known(gateway, user, error).await);
        }
        Ok((served, Self { namespace, name }))
    }

    fn path(&self, served: &Served) -> String {
        let namespace = self.namespace.as_deref().map(encoded);
        let version = served.version(None).unwrap_or_default();
        let collection = served.collection(version, namespace.as_deref());
        format!("{collection}/{}/scale", encoded(&self.name))
    }
}

/// `GET /api/v1/scale/{kind}[/{namespace}]/{name}`.
pub async fn read(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut served, place) = Place::of(&gateway, &user, request.uri().path()).await?;
    let path = |served: &Served| place.path(served);
    let ask = |path: String| {
        let (gateway, user) = (&gateway, &user);
        async move { get(gateway, user, &path).await }
    };
    let scale = target::asked(&gateway, &user, &mut served, path, ask).await?;
    let body = counts(&scale).to_string().into_bytes();
    let reply = Reply::json(body, Freshness::default().with_live());
    Ok(reply.respond(&gateway, request.headers()))
}

/// `PUT /api/v1/scale/{kind}[/{namespace}]/{name}?scaleBy=N`: N replicas, whatever there were.
pub async fn replace(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = wanted(request.uri().query().unwrap_or_default())?;
    let (mut served, place) = Place::of(&gateway, &user, request.uri().path()).await?;
    let patch = Bytes::from(json!({ "spec": { "replicas": wanted } }).to_string());
    let set = |path: String| {
        let (gateway, user, patch) = (&gateway, &user, patch.clone());
        async move { send(gateway, user, Method::PATCH, &path, MERGE, patch).await }
    };
    let path = |served: &Served| place.path(served);
    let scale = target::asked(&gateway, &user, &mut served, path, set).await?;
    let answer = body::answer(StatusCode::OK, &counts(&scale));
    let mut kinds = KINDS.iter();
    let Served { group, plural, .. } = &served;
    let kind = kinds.find(|kind| kind.resource.group == group && kind.resource.plural == plural);
    Ok(match kind {
        Some(kind) => {
            let namespace = place.namespace.as_deref().unwrap_or_default();
            body::wrote(&gateway, &user, (kind, namespace), &scale, answer)
        }
        None => answer,
    })
}

/// The number of replicas in `scaleBy`; the API server's own type is a 32-bit one.
fn wanted(query: &str) -> Result<i32, ApiError> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let text = pairs.find(|(name, _)| name == "scaleBy").map(|(_, value)| value);
    let text = text.unwrap_or_default();
    text.parse::<i32>().ok().filter(|wanted| *wanted >= 0).ok_or_else(|| {
        let value: String = text.chars().take(40).collect();
        ApiError::bad_request("error-bad-scale", &[("value", value.as_str())])
    })
}

/// The contract's `ReplicaCounts`.
fn counts(scale: &Value) -> Value {
    let number = |pointer: &str| scale.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    json!({
        "desiredReplicas": number("/spec/replicas"), "actualReplicas": number("/status/replicas"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_whole_number_that_is_not_negative() {
        assert_eq!(wanted("scaleBy=3").unwrap(), 3);
        assert_eq!(wanted("a=b&scaleBy=0").unwrap(), 0);
        for bad in ["", "scaleBy=", "scaleBy=-1", "scaleBy=1.5", "scaleBy=2147483648", "scaleBy=x"]
        {
            assert_eq!(wanted(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn what_a_scale_leaves_out_is_zero() {
        let scale = json!({"spec": {"replicas": 2}});
        assert_eq!(counts(&scale), json!({"desiredReplicas": 2, "actualReplicas": 0}));
    }
}
