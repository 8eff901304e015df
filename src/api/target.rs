//! The one object that a path names, and reading objects live as the caller.
//!
//! Nothing of a path reaches the API server before it was decoded, looked at and encoded again.

use compact_str::CompactString;
use futures::StreamExt as _;
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::Gateway;
use super::error::ApiError;
use crate::kinds::{KindDef, Resource};
use crate::upstream::{Failure, Identity, OBJECT_LIMIT, Served, UpstreamError, User};

/// What names may hold besides letters and digits (RBAC names have colons); all else is encoded.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
/// Bytes of a segment: longer than any name (253, but RBAC's may be longer), and so short that a
/// path of several, encoded, is one that can be sent.
pub const LONGEST: usize = 4096;
/// Single objects read for one answer: config maps, secrets and claims of one pod. A pod that
/// names more is a mistake or an attack on the API server.
pub const FETCHES: usize = 32;
/// Of those, side by side: one request must not crowd out others.
const AT_ONCE: usize = 8;

/// An object's place within its kind.
pub struct Target {
    /// Empty for cluster-scoped kinds.
    pub namespace: CompactString,
    pub name: CompactString,
}

impl Target {
    /// Of a path that ends in `/{kind}[/{namespace}]/{name}` and `after` more segments.
    pub fn of(path: &str, kind: &KindDef, after: usize) -> Result<Self, ApiError> {
        let mut segments = path.rsplit('/').skip(after);
        let mut next = || segment(segments.next().unwrap_or_default());
        let name = next()?;
        let namespace = if kind.resource.namespaced { next()? } else { CompactString::default() };
        Ok(Self { namespace, name })
    }

    /// Where the API server has it.
    pub fn path(&self, at: &Resource) -> String {
        let namespace = encoded(&self.namespace);
        format!("{}/{}", at.collection(Some(&namespace)), encoded(&self.name))
    }
}

/// What discovery, asked as the caller, serves that is wanted. A 401 of it is heeded.
pub async fn find(
    gateway: &Gateway,
    user: &User,
    is_wanted: impl Fn(&Served) -> bool,
) -> Result<Option<Served>, Failure> {
    let found = gateway.discovery.find(&gateway.cluster, user, is_wanted).await;
    gateway.authorizer.heed(user, found).await
}

/// The kind as the cluster serves it now, where it `was` remembered otherwise and `failure` says
/// that nobody serves the path that came of it: a definition has lost that version, or its scope.
/// Anything else is the failure itself. Whoever gets a kind asks once more, there.
pub async fn moved(
    gateway: &Gateway,
    user: &User,
    was: &Served,
    failure: Failure,
) -> Result<Served, Failure> {
    // An object that is not there has a reason; a path that nobody serves is a plain 404.
    let is_unserved = matches!(
        &failure,
        Failure::Status { code: StatusCode::NOT_FOUND, reason, .. } if reason.is_empty()
    );
    if !is_unserved {
        return Err(failure);
    }
    let is_it = |now: &Served| now.readable && now.group == was.group && now.plural == was.plural;
    let found = gateway.discovery.find_anew(&gateway.cluster, user, is_it).await;
    match gateway.authorizer.heed(user, found).await {
        Ok(Some(now)) if now != *was => Ok(now),
        _ => Err(failure),
    }
}

/// What `ask` gets at a path of this kind, and once more where the cluster serves the kind now
/// ([`moved`]): then `served` is that.
pub async fn asked<T, F: Future<Output = Result<T, Failure>>>(
    gateway: &Gateway,
    user: &User,
    served: &mut Served,
    path: impl Fn(&Served) -> String,
    ask: impl Fn(String) -> F,
) -> Result<T, Failure> {
    match ask(path(served)).await {
        Err(failure) => {
            *served = moved(gateway, user, served, failure).await?;
            ask(path(served)).await
        }
        found => found,
    }
}

/// A path's segment decoded; an empty one, a dot segment, control characters, broken encoding and
/// what is longer than any name are refused.
pub fn segment(raw: &str) -> Result<CompactString, ApiError> {
    let text = segment_of_many(raw)?;
    if text.len() > LONGEST { Err(ApiError::bad_path(raw)) } else { Ok(text) }
}

/// The same of one that may hold many names: those of namespaces.
pub fn segment_of_many(raw: &str) -> Result<CompactString, ApiError> {
    let bad = || ApiError::bad_path(raw);
    let text = percent_decode_str(raw).decode_utf8().map_err(|_| bad())?;
    match &*text {
        "" | "." | ".." => Err(bad()),
        text if text.contains('\0') => Err(ApiError::bad_request("error-nul-in-path", &[])),
        text if text.contains(|c: char| c == '/' || c.is_control()) => Err(bad()),
        text => Ok(text.into()),
    }
}

/// A name as a segment of a path to the API server.
pub fn encoded(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// GET of `path` as the user, as text.
pub async fn live(gateway: &Gateway, user: &User, path: &str) -> Result<String, Failure> {
    let answer = gateway.cluster.get(Identity::User(user), path, OBJECT_LIMIT).await;
    let body = gateway.authorizer.heed(user, answer).await?;
    String::from_utf8(body.into())
        .map_err(|error| UpstreamError::Broken(format!("{path}: {error}")).into())
}

/// GETs of these paths as the user, some at once, answered in their order.
pub async fn live_all<K>(
    gateway: &Gateway,
    user: &User,
    wanted: Vec<(K, String)>,
) -> Vec<(K, Result<String, Failure>)> {
    futures::stream::iter(wanted)
        .map(|(key, path)| async move { (key, live(gateway, user, &path).await) })
        .buffered(AT_ONCE)
        .collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::i18n::Locale;
    use crate::kinds::by_name;

    fn path(raw: &str, kind: &str, after: usize) -> String {
        let kind = by_name(kind).unwrap();
        Target::of(raw, kind, after).map(|target| target.path(&kind.resource)).unwrap()
    }

    #[test]
    fn a_path_names_an_object_by_its_last_segments() {
        assert_eq!(path("/pod/atlas/tiles-1", "pod", 0), "/api/v1/namespaces/atlas/pods/tiles-1");
        assert_eq!(path("/api/v1/node/n%3a0", "node", 0), "/api/v1/nodes/n:0");
        assert_eq!(path("/node/n/event", "node", 1), "/api/v1/nodes/n");
    }

    #[test]
    fn what_could_leave_its_segment_is_refused_or_encoded() {
        let control = ["a%00", "a%0Ab", "%1b", "a%7F", "a%C2%85"];
        for raw in ["", ".", "..", "%2e%2E", "a%2Fb", "%ff"].into_iter().chain(control) {
            assert_eq!(segment(raw).unwrap_err().status.as_u16(), 400, "{raw}");
        }
        assert!(segment(&"a".repeat(LONGEST)).is_ok());
        let long = "%27".repeat(LONGEST + 1);
        let error = segment(&long).unwrap_err();
        assert_eq!(error.status.as_u16(), 400, "no path of it could be sent");
        assert!(error.text(Locale::EN).len() < 400, "and not all of it is repeated");
        assert!(segment_of_many(&long).is_ok());
        assert_eq!(encoded(&segment("a%3Fb%20c%25").unwrap()), "a%3Fb%20c%25");
    }
}
