//! Where a release can be reached: the addresses that its Ingresses, Gateways, HTTP routes and load
//! balancers have now, as URLs that a browser can open, and its services.
//!
//! It tries none of them: whether anybody answers there is not looked at.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resources::{Look, Seen};
use crate::api::Gateway;
use crate::api::body::get;
use crate::api::read::list::is_namespace;
use crate::api::target::{self, encoded};
use crate::kinds::detail::{list, text};
use crate::kinds::gateway_api::GROUP;
use crate::upstream::{Served, User};

/// URLs that one release shows: a page of links that nobody reads to its end.
const URLS: usize = 200;
/// Gateways outside of the release that are read to learn their ports.
const GATEWAYS: usize = 8;
/// Of each list of one object that multiplies with others; the Gateway API allows fewer. A record
/// may hold what no API server has ever looked at.
const MOST: usize = 128;

/// One entry, and where it leads today.
struct Reached<'a> {
    seen: &'a Seen,
    /// `http`, `https`, or of what is no web server `tcp` and `udp`.
    scheme: &'a str,
    host: &'a str,
    port: Option<i64>,
    path: &'a str,
    addresses: Vec<&'a str>,
}

/// A listener of a gateway.
struct Listener<'a> {
    scheme: &'static str,
    port: Option<i64>,
    /// Empty: any.
    host: &'a str,
}

/// `urls` of a release, in the order of its objects, each once.
pub async fn urls(gateway: &Gateway, user: &User, look: &Look) -> Vec<Value> {
    let others = foreign_gateways(gateway, user, look).await;
    let mut shown: Vec<Value> = Vec::new();
    for seen in &look.seen {
        let reached = match (seen.object.group(), seen.object.kind.as_str()) {
            ("networking.k8s.io", "Ingress") => of_ingress(seen),
            ("", "Service") => of_service(seen),
            (GROUP, "Gateway") => of_gateway(seen),
            (GROUP, "HTTPRoute") => of_route(seen, look, &others),
            _ => continue,
        };
        for url in reached.iter().filter_map(Reached::shown) {
            if shown.len() == URLS {
                return shown;
            }
            if !shown.contains(&url) {
                shown.push(url);
            }
        }
    }
    shown
}

/// `services` of a release.
pub fn services(look: &Look) -> Vec<Value> {
    let is_service = |seen: &&Seen| seen.object.group().is_empty() && seen.object.kind == "Service";
    let services = look.seen.iter().filter(is_service).map(|seen| {
        let service = &seen.value;
        let ports = list(service, "/spec/ports").iter().map(|port| {
            json!({
                "name": text(port, "/name"), "port": port.get("port"),
                "protocol": text_or(port, "/protocol", "TCP"),
                "targetPort": port.get("targetPort"), "nodePort": port.get("nodePort"),
            })
        });
        json!({
            "name": seen.object.name, "namespace": seen.namespace,
            "type": text_or(service, "/spec/type", "ClusterIP"),
            "clusterIP": text(service, "/spec/clusterIP"),
            "ports": ports.collect::<Vec<_>>(),
            "addresses": balanced(service),
        })
    });
    services.collect()
}

impl Reached<'_> {
    /// `None` when it cannot be opened: a wildcard, or a text that is no host.
    fn shown(&self) -> Option<Value> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        if self.host.is_empty() || !self.host.chars().all(plain) {
            return None;
        }
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.to_owned(),
        };
        let port = match (self.scheme, self.port) {
            ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        Some(json!({
            "url": format!("{}://{host}{port}{}", self.scheme, plain_path(self.path)),
            "kind": self.seen.object.kind, "name": self.seen.object.name,
            "namespace": self.seen.namespace, "addresses": self.addresses,
        }))
    }
}

fn text_or<'a>(object: &'a Value, pointer: &str, otherwise: &'a str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or(otherwise)
}

/// Paths of Ingresses may be patterns: what stands before the pattern begins.
fn plain_path(path: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.' | '_' | '~');
    let end = path.find(|c| !plain(c)).unwrap_or(path.len());
    let pattern = end < path.len();
    let path = path.get(..end).unwrap_or_default();
    if pattern { path.trim_end_matches('.') } else { path }
}

/// Addresses of a load balancer.
fn balanced(object: &Value) -> Vec<&str> {
    let all = list(object, "/status/loadBalancer/ingress").iter();
    let all = all.map(|at| match text(at, "/hostname") {
        "" => text(at, "/ip"),
        host => host,
    });
    all.filter(|address| !address.is_empty()).take(MOST).collect()
}

/// Whether a host name, which may begin with `*.`, means this one.
fn fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern.is_empty() || pattern == host,
    }
}

/// The hosts that stand there or, without any, the addresses.
fn hosts<'a>(named: &[&'a str], addresses: &[&'a str]) -> Vec<&'a str> {
    let named: Vec<&str> = named.iter().copied().filter(|host| !host.is_empty()).collect();
    if named.is_empty() { addresses.to_vec() } else { named }
}

fn of_ingress(seen: &Seen) -> Vec<Reached<'_>> {
    let ingress = &seen.value;
    let addresses = balanced(ingress);
    let is_encrypted = |host: &str| {
        list(ingress, "/spec/tls").iter().any(|tls| match list(tls, "/hosts") {
            [] => true,
            named => named.iter().filter_map(Value::as_str).any(|one| fits(one, host)),
        })
    };
    let mut reached = Vec::new();
    let mut take = |host, path| {
        if reached.len() >= URLS {
            return;
        }
        for host in hosts(&[host], &addresses) {
            let scheme = if is_encrypted(host) { "https" } else { "http" };
            let addresses = addresses.clone();
            reached.push(Reached { seen, scheme, host, port: None, path, addresses });
        }
    };
    for rule in list(ingress, "/spec/rules") {
        let host = text(rule, "/host");
        match list(rule, "/http/paths") {
            [] => take(host, "/"),
            paths => paths.iter().for_each(|path| take(host, text_or(path, "/path", "/"))),
        }
    }
    if ingress.pointer("/spec/defaultBackend").is_some() {
        take("", "/");
    }
    reached
}

/// Of load balancers alone: where nodes are reached from outside, a cluster does not know.
fn of_service(seen: &Seen) -> Vec<Reached<'_>> {
    let service = &seen.value;
    let mut reached = Vec::new();
    if text(service, "/spec/type") != "LoadBalancer" {
        return reached;
    }
    let addresses = balanced(service);
    for port in list(service, "/spec/ports") {
        if reached.len() >= URLS {
            break;
        }
        let scheme = scheme_of(port);
        let path = if scheme.starts_with("http") { "/" } else { "" };
        for host in addresses.iter().copied() {
            let (port, addresses) = (port.get("port").and_then(Value::as_i64), addresses.clone());
            reached.push(Reached { seen, scheme, host, port, path, addresses });
        }
    }
    reached
}

/// What a service's port speaks, as far as its names and numbers tell.
fn scheme_of(port: &Value) -> &'static str {
    let said = [text(port, "/appProtocol"), text(port, "/name")];
    let number = port.get("port").and_then(Value::as_i64);
    if text(port, "/protocol") == "UDP" {
        "udp"
    } else if said.iter().any(|text| text.starts_with("https")) {
        "https"
    } else if said.iter().any(|text| text.starts_with("http")) {
        "http"
    } else {
        match number {
            Some(443 | 8443) => "https",
            Some(80 | 8080) => "http",
            _ => "tcp",
        }
    }
}

/// The listeners that speak HTTP.
fn listeners<'a>(gateway: &'a Value, is_wanted: impl Fn(&Value) -> bool) -> Vec<Listener<'a>> {
    let all = list(gateway, "/spec/listeners").iter().filter(|listener| is_wanted(listener));
    let all = all.filter_map(|listener| {
        let scheme = match text(listener, "/protocol") {
            "HTTP" => "http",
            "HTTPS" => "https",
            _ => return None,
        };
        let port = listener.get("port").and_then(Value::as_i64);
        Some(Listener { scheme, port, host: text(listener, "/hostname") })
    });
    all.take(MOST).collect()
}

fn gateway_addresses(gateway: &Value) -> Vec<&str> {
    let all = list(gateway, "/status/addresses").iter().map(|at| text(at, "/value"));
    all.filter(|address| !address.is_empty()).take(MOST).collect()
}

fn of_gateway(seen: &Seen) -> Vec<Reached<'_>> {
    let gateway = &seen.value;
    let addresses = gateway_addresses(gateway);
    let mut reached = Vec::new();
    for Listener { scheme, port, host } in listeners(gateway, |_| true) {
        if reached.len() >= URLS {
            break;
        }
        for host in hosts(&[host], &addresses) {
            let addresses = addresses.clone();
            reached.push(Reached { seen, scheme, host, port, path: "/", addresses });
        }
    }
    reached
}

/// Namespace and name of a gateway.
type Place = (String, String);

/// The gateways that a route wants to be attached to, each with the reference.
fn parents(seen: &Seen) -> impl Iterator<Item = (Place, &Value)> {
    let parents = list(&seen.value, "/spec/parentRefs").iter();
    let parents = parents.filter(|parent| {
        let kind = text_or(parent, "/kind", "Gateway");
        text_or(parent, "/group", GROUP) == GROUP && kind == "Gateway"
    });
    parents.take(MOST).map(move |parent| {
        let namespace = text_or(parent, "/namespace", &seen.namespace);
        ((namespace.to_owned(), text(parent, "/name").to_owned()), parent)
    })
}

fn of_route<'a>(
    seen: &'a Seen,
    look: &'a Look,
    others: &'a BTreeMap<Place, Value>,
) -> Vec<Reached<'a>> {
    let route = &seen.value;
    let named: Vec<&str> =
        list(route, "/spec/hostnames").iter().filter_map(Value::as_str).take(MOST).collect();
    let matches = list(route, "/spec/rules").iter().flat_map(|rule| list(rule, "/matches"));
    let is_plain = |found: &&Value| text(found, "/path/type") != "RegularExpression";
    let paths = matches.filter(is_plain).map(|found| text_or(found, "/path/value", "/"));
    let mut paths: Vec<&str> = paths.take(MOST).collect();
    if paths.is_empty() {
        paths.push("/");
    }
    let mut reached = Vec::new();
    for (place, parent) in parents(seen) {
        let Some(gateway) = own_gateway(look, &place).or_else(|| others.get(&place)) else {
            continue;
        };
        let addresses = gateway_addresses(gateway);
        let (section, port) = (text(parent, "/sectionName"), parent.get("port"));
        let is_wanted = |listener: &Value| {
            (section.is_empty() || text(listener, "/name") == section)
                && (port.is_none() || listener.get("port") == port)
        };
        for Listener { scheme, port, host: pattern } in listeners(gateway, is_wanted) {
            let both = named.iter().copied().filter(|host| fits(pattern, host)).collect();
            let both: Vec<&str> =
                if named.is_empty() { hosts(&[pattern], &addresses) } else { both };
            for host in both {
                if reached.len() >= URLS {
                    return reached;
                }
                reached.extend(paths.iter().copied().map(|path| {
                    let addresses = addresses.clone();
                    Reached { seen, scheme, host, port, path, addresses }
                }));
            }
        }
    }
    reached
}

/// A gateway that the release itself brings.
fn own_gateway<'a>(look: &'a Look, (namespace, name): &Place) -> Option<&'a Value> {
    let mut gateways = look
        .seen
        .iter()
        .filter(|seen| seen.object.group() == GROUP && seen.object.kind == "Gateway");
    let own = gateways.find(|seen| seen.namespace == *namespace && seen.object.name == *name);
    own.map(|seen| &seen.value)
}

/// The gateways of routes that others have made, as far as the caller may read them.
async fn foreign_gateways(gateway: &Gateway, user: &User, look: &Look) -> BTreeMap<Place, Value> {
    let mut found = BTreeMap::new();
    let routes = look
        .seen
        .iter()
        .filter(|seen| seen.object.group() == GROUP && seen.object.kind == "HTTPRoute");
    let mut wanted: Vec<Place> = routes.flat_map(parents).map(|(place, _)| place).collect();
    wanted.sort();
    wanted.dedup();
    // A name from an object must not reach a path before it was looked at.
    wanted.retain(|place| {
        let (namespace, name) = place;
        let is_odd = namespace.is_empty() || is_namespace(namespace).is_err();
        own_gateway(look, place).is_none() && !is_odd && !matches!(name.as_str(), "" | "." | "..")
    });
    let is_it = |served: &Served| served.group == GROUP && served.kind == "Gateway";
    if wanted.is_empty() {
        return found;
    }
    let Ok(Some(served)) = target::find(gateway, user, is_it).await else {
        return found;
    };
    for place in wanted.into_iter().take(GATEWAYS) {
        let (namespace, name) = (encoded(&place.0), encoded(&place.1));
        let version = served.version(None).unwrap_or_default();
        let path = format!("{}/{name}", served.collection(version, Some(&namespace)));
        // Without it the route's URLs are not known; nothing else is wrong.
        if let Ok(value) = get(gateway, user, &path).await {
            found.insert(place, value);
        }
    }
    found
}

#[cfg(test)]
#[path = "urls_tests.rs"]
mod tests;
