//! Answers to a deploy form while it is filled in: is the name free, is the image reference one,
//! does the protocol fit.
//!
//! Nothing is written; the real judge is the API server, when the form is sent.

use std::sync::LazyLock;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use regex::Regex;
use serde::Deserialize;
use serde_json::json;

use crate::api::body::{self, get};
use crate::api::error::ApiError;
use crate::api::read::related::known;
use crate::api::target::{LONGEST, encoded};
use crate::api::{Caller, Shared};

/// Longest repository name that registries take (distribution's `RepositoryNameTotalLengthMax`).
const LONGEST_NAME: usize = 255;
const DEFAULT_DOMAIN: &str = "docker.io";
/// Bytes of a body that anybody may send: the longest reference has less than a quarter of them.
const OPEN: usize = 4 << 10;

/// As much as is repeated of what is no name, in characters.
const SHOWN: usize = 80;

/// The grammar of distribution/reference v3: name, tag, digest.
static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let alphanumeric = "[a-z0-9]+";
    let path = format!("{alphanumeric}(?:(?:[._]|__|-+){alphanumeric})*");
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{label}(?:\.{label})*|\[(?:[a-fA-F0-9:]+)\])");
    let name = format!("(?:{host}(?::[0-9]+)?/)?{path}(?:/{path})*");
    let tag = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    Regex::new(&format!("^({name})(?::({tag}))?(?:@({digest}))?$")).ok()
});

#[derive(Deserialize)]
struct NameSpec {
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
struct ReferenceSpec {
    reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProtocolSpec {
    protocol: String,
    #[serde(default)]
    is_external: bool,
}

/// `POST …/validate/name`: whether neither a deployment nor a service of that name is seen.
pub async fn name(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let NameSpec { name, namespace } = body::read(&gateway, &head.headers, body).await?;
    for text in [&name, &namespace] {
        if text.len() > LONGEST || matches!(text.as_str(), "" | "." | "..") {
            let shown: String = text.chars().take(SHOWN).collect();
            return Err(body::malformed(&format!("{shown:?} is no name")));
        }
    }
    let mut valid = true;
    for kind in ["deployment", "service"] {
        let collection = known(kind)?.resource.collection(Some(&encoded(&namespace)));
        match get(&gateway, &user, &format!("{collection}/{}", encoded(&name))).await {
            Ok(_) => valid = false,
            Err(failure)
                if matches!(
                    failure.code(),
                    Some(StatusCode::NOT_FOUND | StatusCode::FORBIDDEN)
                ) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(body::answer(StatusCode::OK, &json!({ "valid": valid })))
}

/// `POST …/validate/imagereference`: needs no credentials.
pub async fn reference(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let ReferenceSpec { reference } = body::read_up_to(&gateway, OPEN, &head.headers, body).await?;
    let wrong = wrong_with(&reference);
    let answer = json!({ "valid": wrong.is_none(), "reason": wrong.unwrap_or_default() });
    Ok(body::answer(StatusCode::OK, &answer))
}

/// `POST …/validate/protocol`: needs no credentials. Load balancers of UDP alone are rare.
pub async fn protocol(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let spec: ProtocolSpec = body::read_up_to(&gateway, OPEN, &head.headers, body).await?;
    let valid = !(spec.protocol == "UDP" && spec.is_external);
    Ok(body::answer(StatusCode::OK, &json!({ "valid": valid })))
}

/// `GET …/appdeployment/protocols`.
pub async fn protocols() -> Response {
    body::answer(StatusCode::OK, &json!({ "protocols": ["TCP", "UDP"] }))
}

/// What is wrong with an image reference, in the words of distribution's parser
/// (`ParseNormalizedNamed`); `None` when it is one.
fn wrong_with(reference: &str) -> Option<String> {
    let invalid = || Some("invalid reference format".to_owned());
    if reference.len() == 64
        && reference.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Some(format!(
            "invalid repository name ({reference}), cannot specify 64-byte hexadecimal strings"
        ));
    }
    let (domain, rest) = split(reference);
    let repository = rest.split(':').next().unwrap_or_default();
    if repository.chars().any(char::is_uppercase) {
        return Some(format!(
            "invalid reference format: repository name ({repository}) must be lowercase"
        ));
    }
    let whole = format!("{domain}/{rest}");
    let found = REFERENCE.as_ref().and_then(|grammar| grammar.captures(&whole));
    let Some(found) = found else { return invalid() };
    // The registry does not count.
    let path = found.get(1).and_then(|name| name.as_str().split_once('/'));
    if path.is_some_and(|(_, path)| path.len() > LONGEST_NAME) {
        return Some(format!("repository name must not be more than {LONGEST_NAME} characters"));
    }
    let digest = found.get(3)?.as_str();
    let (algorithm, checksum) = digest.split_once(':')?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Some("unsupported digest algorithm".to_owned()),
    };
    if checksum.len() != length {
        return Some("invalid checksum digest length".to_owned());
    }
    let is_lower = !checksum.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_lower { None } else { Some("invalid checksum digest format".to_owned()) }
}

/// The registry and the rest; a name without a registry is Docker Hub's.
fn split(reference: &str) -> (&str, String) {
    let own = reference.split_once('/').filter(|(domain, _)| {
        domain.contains(['.', ':'])
            || *domain == "localhost"
            || domain.chars().any(char::is_uppercase)
    });
    match own {
        Some((domain, rest)) => (domain, rest.to_owned()),
        None if reference.contains('/') => (DEFAULT_DOMAIN, reference.to_owned()),
        None => (DEFAULT_DOMAIN, format!("library/{reference}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_those_that_docker_takes() {
        let sha = "a".repeat(64);
        let digest = format!("nginx@sha256:{sha}");
        for good in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "ghcr.io/a/b_c/d-e:v1.0",
            "localhost:5000/a",
            "localhost/a",
            "[2001:db8::1]:5000/a:b",
            "a__b/c---d",
            "registry.example/a.b:x_Y",
            &digest,
        ] {
            assert_eq!(wrong_with(good), None, "{good}");
        }
        for (bad, word) in [
            ("", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("nginx:", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("nginx:tag:tag", "invalid reference format"),
            ("Nginx", "must be lowercase"),
            ("ghcr.io/A/b", "must be lowercase"),
            ("nginx@sha256:abc", "invalid reference format"),
            (&format!("nginx@md5:{sha}"), "unsupported digest algorithm"),
            (&format!("nginx@sha256:{sha}a"), "invalid checksum digest length"),
            (&sha, "64-byte hexadecimal"),
            (&format!("a/{}", "b".repeat(256)), "not be more than 255"),
        ] {
            let wrong = wrong_with(bad).unwrap_or_default();
            assert!(wrong.contains(word), "{bad}: {wrong}");
        }
    }
}
