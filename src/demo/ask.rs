//! What a request asks for: path, query and method read as the API server reads them.
//!
//! It decides nothing about rights or existence.

use http::Method;
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::kinds::{self, Kind};
use super::rbac::Attributes;
use super::reply::Fail;

/// The decoded query of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Query {
        Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value; empty when absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|pair| pair.0 == name).map_or("", |pair| &*pair.1)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |pair| pair.0 == name).map(|pair| &*pair.1)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|pair| pair.0 == name && matches!(&*pair.1, "true" | "1" | ""))
    }

    /// A number; 400 on anything else.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Fail> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        let refused = || Fail::bad_request(format!("invalid {name} \"{text}\": not a number"));
        text.parse().map(Some).map_err(|_| refused())
    }

    pub(super) fn dry_run(&self) -> bool {
        self.get("dryRun") == "All"
    }
}

/// A path that names a resource. Absent parts are empty.
#[derive(Debug, Default)]
pub(super) struct Resource {
    pub group: String,
    pub plural: String,
    pub namespace: String,
    pub name: String,
    pub sub: String,
    pub kind: Option<&'static Kind>,
}

/// One request, read.
pub(super) struct Ask {
    pub method: Method,
    pub path: String,
    pub query: Query,
    /// The Kubernetes verb; for other paths the method in lower case.
    pub verb: &'static str,
    pub resource: Option<Resource>,
}

impl Ask {
    pub(super) fn read(method: &Method, uri: &http::Uri) -> Result<Ask, Fail> {
        let path = percent_decode_str(uri.path()).decode_utf8();
        let path = path.map_err(|_| Fail::bad_request("the path is not UTF-8"))?.into_owned();
        let query = Query::parse(uri.query().unwrap_or_default());
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let resource = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => resource("", version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                resource(group, version, rest)
            }
            _ => None,
        };
        let named = resource.as_ref().is_some_and(|resource| !resource.name.is_empty());
        let verb = match (&resource, method.as_str()) {
            (Some(_), "GET" | "HEAD") if named => "get",
            (Some(_), "GET" | "HEAD") if query.flag("watch") => "watch",
            (Some(_), "GET" | "HEAD") => "list",
            (Some(_), "POST") => "create",
            (Some(_), "PUT") => "update",
            (_, "PATCH") => "patch",
            (Some(_), "DELETE") if !named => "deletecollection",
            (_, "DELETE") => "delete",
            (None, "POST") => "post",
            (None, "PUT") => "put",
            (None, "HEAD") => "head",
            _ => "get",
        };
        Ok(Ask { method: method.clone(), path, query, verb, resource })
    }

    /// What RBAC is asked about this request.
    pub(super) fn attributes(&self) -> Attributes {
        let verb = self.verb.to_owned();
        let Some(resource) = &self.resource else {
            return Attributes { verb, path: Some(self.path.clone()), ..Attributes::default() };
        };
        let mut full = resource.plural.clone();
        if !resource.sub.is_empty() {
            full = format!("{full}/{}", resource.sub);
        }
        let mut name = resource.name.clone();
        if matches!(self.verb, "list" | "watch" | "deletecollection") {
            name = named_field(self.query.get("fieldSelector")).unwrap_or_default();
        }
        let namespace = resource.namespace.clone();
        let group = resource.group.clone();
        Attributes { verb, group, resource: full, namespace, name, path: None }
    }
}

/// `metadata.name=x` limits a list to one name, for RBAC too.
fn named_field(selector: &str) -> Option<String> {
    let name = selector.split(',').find_map(|part| part.strip_prefix("metadata.name="))?;
    Some(name.trim_start_matches('=').to_owned())
}

fn resource(group: &str, version: &str, parts: &[&str]) -> Option<Resource> {
    let (namespace, parts) = match parts {
        ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status"] | ["finalize"]) => {
            (*namespace, rest)
        }
        // A namespace is in itself, for RBAC too.
        ["namespaces", namespace, ..] => (*namespace, parts),
        _ => ("", parts),
    };
    let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
    Some(Resource {
        group: group.to_owned(),
        plural: part(0),
        namespace: namespace.to_owned(),
        name: part(1),
        sub: parts.get(2..).unwrap_or_default().join("/"),
        kind: kinds::find(group, version, parts.first().copied().unwrap_or_default()),
    })
}
