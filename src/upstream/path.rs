//! What a path of the Kubernetes API asks for, read as the API server reads it
//! (k8s.io/apiserver/pkg/endpoints/request/requestinfo.go), and which paths are refused outright.
//!
//! Pure. It never changes a path: what is accepted goes on byte for byte. It is no authorizer.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode;

/// A path is decoded once by the API server, and once more by each aggregated server or proxied
/// backend behind it: something hidden deeper than this is decoded by nobody.
const DECODINGS: usize = 3;
/// Segments of nearly every path.
const SEGMENTS: usize = 12;
/// As much of a bad segment as a message repeats, in characters.
const SHOWN: usize = 80;
/// Subresources of a namespace; every other word behind its name is a resource in it.
const OF_NAMESPACES: [&str; 2] = ["status", "finalize"];

/// A request as the API server's filters see it, in words of its path; fields that do not apply are
/// empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo<'a> {
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; `proxy`
    /// where the path begins so; the method in lower case where there is no resource.
    pub verb: Cow<'a, str>,
    pub group: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub namespace: Cow<'a, str>,
    pub resource: Cow<'a, str>,
    pub subresource: Cow<'a, str>,
    pub name: Cow<'a, str>,
    /// Decoded once; bytes that are no UTF-8 are replaced.
    pub path: Cow<'a, str>,
    /// An empty segment stands before or among those that were read.
    pub doubled_slash: bool,
}

/// Why a path is refused: a 400, before any filter or review.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("it does not begin with a slash")]
    Relative,
    #[error("{0:?} has a percent sign without two hexadecimal digits behind it")]
    Encoding(String),
    #[error("{0:?} contains a NUL byte")]
    Nul(String),
    #[error("{0:?} is a dot segment, or hides one")]
    Dots(String),
    #[error("{0:?} encodes a slash, a percent sign or something else that no name contains")]
    Name(String),
    #[error("it has an empty segment; write one slash, not two")]
    Empty,
    #[error("only resources and their subresources can be upgraded")]
    NoResource,
}

/// Reads method, path (as it came, percent-encoded) and query.
///
/// # Errors
/// NUL bytes, dot segments (encoded up to three times), broken percent-encoding; encoded slashes,
/// percent signs and control characters up to the subresource. What follows a subresource
/// (`…/proxy/a%2Fb`) belongs to somebody else and may be encoded as it likes.
pub fn classify<'a>(
    method: &Method,
    path: &'a str,
    query: Option<&str>,
) -> Result<RequestInfo<'a>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath::Relative);
    }
    let trimmed = path.trim_matches('/');
    let mut segments = Vec::with_capacity(SEGMENTS);
    if !trimmed.is_empty() {
        for segment in trimmed.split('/') {
            segments.push(Segment::checked(segment)?);
        }
    }
    let decoded = match path.contains('%') {
        true => String::from_utf8_lossy(&decode(path.as_bytes())).into_owned().into(),
        false => path.into(),
    };
    let mut info = RequestInfo { path: decoded, ..RequestInfo::default() };
    let read = info.read(method, &segments);
    let read = segments.get(..read).unwrap_or(&segments);
    if let Some(segment) = read.iter().find(|segment| !segment.is_name) {
        return Err(BadPath::Name(shown(segment.raw)));
    }
    info.doubled_slash =
        path.starts_with("//") || read.iter().any(|segment| segment.name.is_empty());
    info.read_query(query.unwrap_or_default());
    Ok(info)
}

impl<'a> RequestInfo<'a> {
    /// Reads the segments; answers how many of them have a meaning here.
    fn read(&mut self, method: &Method, segments: &[Segment<'a>]) -> usize {
        let count = segments.len();
        // Empty behind the last one.
        let name = |at: usize| segments.get(at).map_or("", |segment| &*segment.name);
        let text = |at: usize| segments.get(at).map(|one| one.name.clone()).unwrap_or_default();
        let mut at = match name(0) {
            "api" if count >= 3 => 1,
            "apis" if count >= 4 => {
                self.group = text(1);
                2
            }
            _ => {
                self.verb = method.as_str().to_ascii_lowercase().into();
                return count;
            }
        };
        self.is_resource = true;
        self.version = text(at);
        at += 1;
        self.verb = match (name(at), method) {
            // Both want a resource behind them; without one the API server answers with an error.
            ("proxy" | "watch", _) if at + 1 == count => {
                self.verb = method.as_str().to_ascii_lowercase().into();
                return count;
            }
            ("proxy" | "watch", _) => {
                at += 1;
                text(at - 1)
            }
            (_, &Method::POST) => "create".into(),
            (_, &Method::GET | &Method::HEAD) => "get".into(),
            (_, &Method::PUT) => "update".into(),
            (_, &Method::PATCH) => "patch".into(),
            (_, &Method::DELETE) => "delete".into(),
            _ => "".into(),
        };
        if name(at) == "namespaces" && at + 1 < count {
            self.namespace = text(at + 1);
            if at + 2 < count && !OF_NAMESPACES.contains(&name(at + 2)) {
                at += 2;
            }
        }
        self.resource = text(at);
        self.name = text(at + 1);
        if self.verb != "proxy" {
            self.subresource = text(at + 2);
        }
        count.min(at + 3)
    }

    /// Without a name a get is a list or a watch, and a delete is one of the collection.
    fn read_query(&mut self, query: &str) {
        if !self.is_resource || !self.name.is_empty() {
            return;
        }
        if self.verb == "delete" {
            self.verb = "deletecollection".into();
        }
        if self.verb != "get" {
            return;
        }
        let first = |wanted: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == wanted).map(|(_, value)| value.into_owned())
        };
        // As the API server converts it: whatever is not said to be false is true.
        let watch = first("watch")
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
        self.verb = if watch { "watch" } else { "list" }.into();
        let selector = first("fieldSelector").unwrap_or_default();
        let exact = selector.split(',').find_map(|term| {
            let value = term.strip_prefix("metadata.name=")?;
            Some(value.strip_prefix('=').unwrap_or(value))
        });
        if let Some(name) = exact.filter(|name| can_be_name(name)) {
            self.name = name.to_owned().into();
        }
    }

    /// Whether an upgrade of this request opens a way into something that runs, so that `create`
    /// on the subresource must be reviewed first: API servers before 1.35 are content with `get`,
    /// and for `proxy` they still are. Others (a watch or a log by WebSocket, an aggregated API's
    /// own) are judged by the API server alone.
    ///
    /// # Errors
    /// The request cannot be told to be one for a resource: it must not be upgraded.
    pub fn upgrade_needs_create(&self) -> Result<bool, BadPath> {
        if self.doubled_slash {
            return Err(BadPath::Empty);
        }
        if self.resource.is_empty() || self.verb == "proxy" {
            return Err(BadPath::NoResource);
        }
        let into = match (&*self.resource, &*self.subresource) {
            ("pods", subresource) => {
                matches!(subresource, "exec" | "attach" | "portforward" | "proxy")
            }
            ("services" | "nodes", subresource) => subresource == "proxy",
            _ => false,
        };
        Ok(self.group.is_empty() && into)
    }
}

/// What stands between two slashes.
struct Segment<'a> {
    raw: &'a str,
    /// Decoded once; bytes that are no UTF-8 are replaced.
    name: Cow<'a, str>,
    /// It can be one.
    is_name: bool,
}

impl<'a> Segment<'a> {
    /// If nothing is wrong with it at any depth.
    fn checked(raw: &'a str) -> Result<Self, BadPath> {
        // Nearly all are as they look, and cost nothing.
        let is_plain = raw.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
        if is_plain && raw != "." && raw != ".." {
            return Ok(Self { raw, name: Cow::Borrowed(raw), is_name: true });
        }
        let (name, is_name) = match String::from_utf8(decoded_once(raw)?) {
            Ok(name) => {
                let is_name = can_be_name(&name);
                (name, is_name)
            }
            Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), false),
        };
        Ok(Self { raw, name: Cow::Owned(name), is_name })
    }
}

fn decoded_once(segment: &str) -> Result<Vec<u8>, BadPath> {
    if !well_encoded(segment.as_bytes()) {
        return Err(BadPath::Encoding(shown(segment)));
    }
    let once = decode(segment.as_bytes());
    let mut text = once.clone();
    for _ in 0..DECODINGS {
        if text.contains(&0) {
            return Err(BadPath::Nul(shown(segment)));
        }
        if text.split(|byte| *byte == b'/').any(|part| part == b"." || part == b"..") {
            return Err(BadPath::Dots(shown(segment)));
        }
        // Lenient from here on: others may be.
        let next = decode(&text);
        if next == text {
            break;
        }
        text = next;
    }
    Ok(once)
}

fn decode(text: &[u8]) -> Vec<u8> {
    percent_decode(text).collect()
}

fn well_encoded(text: &[u8]) -> bool {
    let hex = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
    text.iter().enumerate().all(|(at, byte)| *byte != b'%' || (hex(at + 1) && hex(at + 2)))
}

/// What `IsPathSegmentName` of k8s.io/apimachinery/pkg/api/validation/path refuses, and text that
/// hides something from a filter: control characters.
fn can_be_name(segment: &str) -> bool {
    !segment.contains(|c: char| c == '/' || c == '%' || c.is_control())
}

fn shown(segment: &str) -> String {
    segment.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(method: &Method, target: &'a str) -> Result<RequestInfo<'a>, BadPath> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        classify(method, path, query)
    }

    /// verb, group/version, namespace, resource/subresource, name
    fn line(method: &Method, target: &str) -> String {
        let RequestInfo { verb, group, version, namespace, resource, subresource, name, .. } =
            read(method, target).unwrap();
        format!("{verb} {group}/{version} {namespace} {resource}/{subresource} {name}")
    }

    #[test]
    fn resources_are_read_as_the_api_server_reads_them() {
        for (method, target, wanted) in [
            (Method::GET, "/api/v1/pods", "list /v1  pods/ "),
            (Method::GET, "/api/v1/pods?watch", "watch /v1  pods/ "),
            (Method::GET, "/api/v1/pods?watch=true&watch=0", "watch /v1  pods/ "),
            (Method::GET, "/api/v1/pods?watch=False", "list /v1  pods/ "),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Da", "list /v1  pods/ a"),
            (Method::GET, "/api/v1/watch/pods", "watch /v1  pods/ "),
            (Method::GET, "/api/v1/watch", "list /v1  / "),
            (Method::POST, "/apis/apps/v1/proxy/", "post apps/v1  / "),
            (Method::GET, "/api/v1/namespaces", "list /v1  namespaces/ "),
            (Method::PUT, "/api/v1/namespaces/x", "update /v1 x namespaces/ x"),
            (Method::PUT, "/api/v1/namespaces/x/finalize", "update /v1 x namespaces/finalize x"),
            (Method::POST, "/api/v1/namespaces/x/pods", "create /v1 x pods/ "),
            (Method::DELETE, "/api/v1/namespaces/x/pods", "deletecollection /v1 x pods/ "),
            (Method::DELETE, "/api/v1/namespaces/x/pods/p/", "delete /v1 x pods/ p"),
            (Method::GET, "/api/v1/namespaces/x/pods/p/exec", "get /v1 x pods/exec p"),
            (Method::GET, "/api/v1/nodes/n/proxy/exec/x/p/c", "get /v1  nodes/proxy n"),
            (Method::GET, "/api/v1/proxy/nodes/n/exec", "proxy /v1  nodes/ n"),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/x/deployments/d/scale",
                "patch apps/v1 x deployments/scale d",
            ),
            (Method::OPTIONS, "/api/v1/pods/p", " /v1  pods/ p"),
        ] {
            assert_eq!(line(&method, target), wanted, "{method} {target}");
        }
        for target in ["/", "/api", "/api/v1", "/apis/apps/v1", "/healthz/etcd", "/openapi/v3/x/y"]
        {
            let info = read(&Method::GET, target).unwrap();
            assert!(!info.is_resource && info.verb == "get" && info.path == target, "{target}");
        }
    }

    #[test]
    fn nul_dot_segments_and_broken_encoding_are_refused_however_they_are_wrapped() {
        for (path, wanted) in [
            ("/api/v1/../pods", "dot"),
            ("/api/v1/./pods", "dot"),
            ("/api/v1/%2e%2E/pods", "dot"),
            ("/api/v1/.%252e/pods", "dot"),
            ("/api/v1/%25252e/pods", "dot"),
            ("/api/v1/a%2f..%2fb", "dot"),
            ("/api/v1/%252e%252e%252f%25", "dot"),
            ("/api/v1/namespaces/x/services/s/proxy/a/../b", "dot"),
            ("/api/v1/namespaces/x/services/s/proxy/%00", "NUL"),
            ("/api/v1/pods/a%2500", "NUL"),
            ("/healthz%", "percent"),
            ("/api/v1/pods/%zz", "percent"),
            ("/api/v1/pods/%+1", "percent"),
            ("/api/v1/namespaces/x/pods/p%2Fexec", "encodes"),
            ("/api%2Fv1/pods", "encodes"),
            ("/%2Fapi/v1/pods", "encodes"),
            ("/api/v1/namespaces/x/pods/p%252Fexec", "encodes"),
            ("/api/v1/namespaces/x/pods/p%0A/exec", "encodes"),
            ("/api/v1/namespaces/x/pods/%FF/exec", "encodes"),
            ("*", "slash"),
            ("", "slash"),
        ] {
            let error = read(&Method::GET, path).unwrap_err().to_string();
            assert!(error.contains(wanted), "{path}: {error}");
        }
    }

    #[test]
    fn names_with_encoded_characters_and_whatever_follows_a_subresource_pass() {
        let service = "/api/v1/namespaces/kube-system/services/https:dashboard:/proxy/a%20b";
        assert_eq!(
            line(&Method::GET, service),
            "get /v1 kube-system services/proxy https:dashboard:"
        );
        let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode";
        assert_eq!(read(&Method::GET, role).unwrap().name, "system:node");
        for tail in ["a%2Fb", "100%25", "a//b", "%FF", "...", "a..b"] {
            let path = format!("/api/v1/namespaces/x/services/s/proxy/{tail}");
            assert_eq!(read(&Method::GET, &path).unwrap().subresource, "proxy", "{tail}");
        }
    }

    #[test]
    fn upgrades_into_what_runs_need_create_and_those_of_no_resource_are_refused() {
        let needs = |path: &str| read(&Method::GET, path).unwrap().upgrade_needs_create();
        for path in [
            "/api/v1/namespaces/x/pods/p/exec",
            "/api/v1/namespaces/x/pods/p/attach",
            "/api/v1/namespaces/x/pods/p/portforward",
            "/api/v1/namespaces/x/pods/p/proxy/ws",
            "/api/v1/namespaces/x/services/https:s:1/proxy",
            "/api/v1/nodes/n/proxy/exec/x/p/c",
        ] {
            assert_eq!(needs(path), Ok(true), "{path}");
        }
        for path in [
            "/api/v1/pods",
            "/api/v1/namespaces/x/pods/p/log",
            "/apis/subresources.kubevirt.io/v1/namespaces/x/virtualmachineinstances/v/console",
        ] {
            assert_eq!(needs(path), Ok(false), "{path}");
        }
        for path in ["/healthz", "/api/v1", "/api/v1/proxy/nodes/n", "/api/v1/watch"] {
            assert_eq!(needs(path), Err(BadPath::NoResource), "{path}");
        }
        for path in [
            "//api/v1/namespaces/x/pods/p/exec",
            "/api/v1//namespaces/x/pods/p/exec",
            "/api/v1/namespaces/x/pods/p//exec",
            "/apis//v1/namespaces/x/pods/p/exec",
        ] {
            assert_eq!(needs(path), Err(BadPath::Empty), "{path}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_an_upgrade_has_the_segments_of_its_path_decoded_once(
            path in "(//?|\\.|%2[fFeE5]|%00|%|[a-z\\PC]|/apis?|/v1|/namespaces|/pods|/exec){0,14}"
        ) {
            if let Ok(info) = classify(&Method::GET, &path, None)
                && info.upgrade_needs_create().is_ok()
            {
                // Splitting before and after decoding must find the same words.
                let after: Vec<&str> = info.path.trim_matches('/').split('/').collect();
                let words = [&info.version, &info.resource, &info.name, &info.subresource];
                for word in words.into_iter().filter(|word| !word.is_empty()) {
                    prop_assert!(after.contains(&&**word), "{word} of {path}");
                    prop_assert!(!word.contains(['/', '%', '\0']), "{word} of {path}");
                }
            }
        }
    }
}
