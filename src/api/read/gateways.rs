//! What stands behind the names of the Gateway API: the services that a route sends to, the routes
//! attached to a gateway, the gateways of a class, each read under the caller's own rights.
//!
//! It resolves what the objects say; whether traffic flows is their controllers' to say. What the
//! cluster does not serve is empty; what may not be read is unknown (null) and named in `errors`.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};

use super::list::is_namespace;
use super::related::{Part, Subject, known};
use super::view::{self, NoView, View};
use crate::api::error::ApiError;
use crate::auth::Reach;
use crate::kinds::gateway_api::{self, Backend, GROUP};
use crate::kinds::{KindDef, Row};

/// Distinct backends of one route that are looked up: 16 rules with 16 of each, as the Gateway API
/// long allowed; further ones are left out.
const BACKENDS: usize = 256;
/// Namespaces that one route's backends are looked up in; what is in further ones stays unknown.
const NAMESPACES: usize = 16;
/// Of those, side by side: one request must not crowd out others.
const AT_ONCE: usize = 4;
/// Routes of a gateway, or gateways of a class, that a detail shows.
const SHOWN: usize = 1_000;

/// What could be read of one namespace; `None`: the caller may not, or nobody could tell.
#[derive(Default)]
struct Place {
    services: Option<View>,
    grants: Option<Vec<Value>>,
    errors: Vec<Value>,
}

/// Who refers to something: group, kind and namespace.
#[derive(Clone, Copy)]
struct Referrer<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
}

/// `backends` of a route: what its rules name, each once, with `found` (null: not known, or no
/// service), `clusterIP` and `ports` of the service, and whether a reference out of the route's
/// namespace is `permitted` (null: not known).
pub async fn backends(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let Subject { kind, object, row, .. } = *subject;
    let named = gateway_api::backends(object);
    let namespaces: BTreeSet<&str> = named.iter().map(|backend| backend.namespace).collect();
    // A name from an object must not reach a path before it was looked at.
    let namespaces = namespaces.into_iter().filter(|name| is_namespace(name).is_ok());
    let namespaces: Vec<CompactString> = namespaces.take(NAMESPACES).map(Into::into).collect();
    let places = futures::stream::iter(namespaces).map(|namespace| async move {
        let place = place(subject, &namespace).await;
        (namespace, place)
    });
    let places: Vec<(CompactString, Place)> = places.buffered(AT_ONCE).collect().await;
    let mut places: BTreeMap<CompactString, Place> = places.into_iter().collect();

    let referrer = Referrer {
        group: kind.resource.group,
        kind: kind.resource.kind,
        namespace: &row.namespace,
    };
    let nowhere = Place::default();
    let shown = named.iter().take(BACKENDS).map(|backend| {
        let place = places.get(backend.namespace).unwrap_or(&nowhere);
        resolved(backend, place, referrer)
    });
    let mut part = Part::of("backends", Value::Array(shown.collect()).to_string().as_bytes());
    for place in places.values_mut() {
        part.errors.append(&mut place.errors);
        part.views.extend(place.services.take());
    }
    Ok(part)
}

/// Services of a namespace and, unless it is the route's own, its reference grants.
async fn place(subject: &Subject<'_>, namespace: &CompactString) -> Place {
    let wanted = &Reach::one(namespace);
    let foreign = *namespace != subject.row.namespace;
    let grants =
        async { if foreign { Some(seen(subject, "referencegrant", wanted).await) } else { None } };
    let (services, grants) = tokio::join!(seen(subject, "service", wanted), grants);
    let mut place = Place::default();
    match services {
        Ok(view) => place.services = view,
        Err(error) => place.errors.push(subject.item(error)),
    }
    match grants {
        None => {}
        Some(Ok(view)) => place.grants = Some(view.as_ref().map(items).unwrap_or_default()),
        Some(Err(error)) => place.errors.push(subject.item(error)),
    }
    place
}

/// A backend with what stands behind it.
fn resolved(backend: &Backend<'_>, place: &Place, referrer: Referrer<'_>) -> Value {
    let mut shown = backend.shown();
    let service = place.services.as_ref().filter(|_| backend.is_service()).map(|view| {
        let row = view.store().get(&view.scope, backend.namespace, backend.name);
        row.map(|row| item(&row))
    });
    shown["found"] = service.as_ref().map(Option::is_some).into();
    let service = service.flatten().unwrap_or_default();
    shown["clusterIP"] = service["clusterIP"].clone();
    shown["ports"] = service["internalEndpoint"]["ports"].clone();
    shown["permitted"] = if backend.namespace == referrer.namespace {
        true.into()
    } else {
        let grants = place.grants.as_ref();
        grants.map(|grants| grants.iter().any(|grant| permits(grant, referrer, backend))).into()
    };
    shown
}

/// Whether a reference grant, which counts in its own namespace alone, lets `referrer` name `to`.
fn permits(grant: &Value, referrer: Referrer<'_>, to: &Backend<'_>) -> bool {
    let each = |key: &str| grant[key].as_array().into_iter().flatten();
    let from = each("from").any(|from| {
        from["group"] == referrer.group
            && from["kind"] == referrer.kind
            && from["namespace"] == referrer.namespace
    });
    let named = |granted: &Value| match granted["name"].as_str() {
        None | Some("") => true,
        Some(name) => name == to.name,
    };
    from && each("to").any(|granted| {
        // The core group may be left out.
        granted["group"].as_str().unwrap_or_default() == to.group
            && granted["kind"] == to.kind
            && named(granted)
    })
}

/// `routes` of a gateway: the HTTP, gRPC and TLS routes that name it as a parent and that the
/// caller may list, by kind, namespace and name; `routeCount` is how many there are.
pub async fn routes(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let gateway = subject.row;
    let (http, grpc, tls) = tokio::join!(
        seen(subject, "httproute", &Reach::Everything),
        seen(subject, "grpcroute", &Reach::Everything),
        seen(subject, "tlsroute", &Reach::Everything),
    );
    let mut found = Found::default();
    for (name, seen) in [("httproute", http), ("grpcroute", grpc), ("tlsroute", tls)] {
        found.take(subject, seen, |row, item| {
            let parents = item["parents"].as_array().into_iter().flatten();
            let ours: Vec<&Value> = parents.filter(|parent| is_gateway(parent, gateway)).collect();
            if ours.is_empty() {
                return None;
            }
            let said = ours.iter().map(|parent| parent["accepted"].as_str().unwrap_or_default());
            Some(json!({
                "kind": name,
                "namespace": row.namespace.as_str(),
                "name": row.name.as_str(),
                "hostnames": item["hostnames"],
                "accepted": gateway_api::together(said),
            }))
        });
    }
    Ok(found.into_part("routes", "routeCount"))
}

/// Whether a parent, as a route's row shows it, is this gateway.
fn is_gateway(parent: &Value, gateway: &Row) -> bool {
    parent["group"] == GROUP
        && parent["kind"] == "Gateway"
        && parent["namespace"] == gateway.namespace.as_str()
        && parent["name"] == gateway.name.as_str()
}

/// `gateways` of a class: those that name it and that the caller may list, by namespace and name;
/// `gatewayCount` is how many there are.
pub async fn gateways(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let class = subject.row.name.as_str();
    let mut found = Found::default();
    found.take(subject, seen(subject, "gateway", &Reach::Everything).await, |row, item| {
        (item["class"] == class).then(|| {
            json!({
                "namespace": row.namespace.as_str(),
                "name": row.name.as_str(),
                "addresses": item["addresses"],
                "programmed": item["programmed"],
                "attachedRoutes": item["attachedRoutes"],
            })
        })
    });
    Ok(found.into_part("gateways", "gatewayCount"))
}

/// What was chosen from several lists.
#[derive(Default)]
struct Found {
    shown: Vec<Value>,
    count: usize,
    errors: Vec<Value>,
    views: Vec<View>,
}

impl Found {
    /// The rows of a list that `choose` makes something of.
    fn take(
        &mut self,
        subject: &Subject<'_>,
        seen: Result<Option<View>, ApiError>,
        choose: impl Fn(&Row, &Value) -> Option<Value>,
    ) {
        let view = match seen {
            Ok(Some(view)) => view,
            Ok(None) => return,
            Err(error) => return self.errors.push(subject.item(error)),
        };
        self.errors.extend(view.missing().map(|error| subject.item(error)));
        view.store().each(&view.scope, |row| {
            let Some(chosen) = choose(row, &item(row)) else { return };
            self.count += 1;
            if self.shown.len() < SHOWN {
                self.shown.push(chosen);
            }
        });
        self.views.push(view);
    }

    fn into_part(self, key: &str, count: &str) -> Part {
        let mut part = Part::of(key, Value::Array(self.shown).to_string().as_bytes());
        let more = Part::of(count, self.count.to_string().as_bytes());
        part.json.extend(more.json);
        Part { errors: self.errors, views: self.views, ..part }
    }
}

/// What the caller may see of a kind where it is wanted; `None` where the cluster does not serve it.
/// That is asked first: without rights the API server does not say.
async fn seen(subject: &Subject<'_>, name: &str, wanted: &Reach) -> Result<Option<View>, ApiError> {
    let kind: &'static KindDef = known(name)?;
    let is_missing = |error: &ApiError| error.status == StatusCode::NOT_FOUND;
    match Box::pin(view::served(subject.gateway, subject.user, kind)).await {
        Ok(_) => {}
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    match Box::pin(view::open(subject.gateway, subject.user, kind, wanted)).await {
        Ok(view) => Ok(Some(view)),
        Err(NoView::Failed(error)) if is_missing(&error) => Ok(None),
        Err(none) => Err(none.error()),
    }
}

/// The list item of a row.
fn item(row: &Row) -> Value {
    serde_json::from_slice(&row.json).unwrap_or_default()
}

fn items(view: &View) -> Vec<Value> {
    let mut items = Vec::new();
    view.store().each(&view.scope, |row| items.push(item(row)));
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: Referrer<'static> = Referrer { group: GROUP, kind: "HTTPRoute", namespace: "shop" };
    const API: Backend<'static> =
        Backend { group: "", kind: "Service", namespace: "core", name: "api", port: Some(80) };

    fn grant(kind: &str, to: &Value) -> Value {
        json!({"from": [{"group": GROUP, "kind": kind, "namespace": "shop"}], "to": [to]})
    }

    #[test]
    fn a_grant_permits_its_own_referrers_to_name_what_it_names() {
        let all = json!({"group": "", "kind": "Service"});
        let one = |name: &str| json!({"kind": "Service", "name": name});
        assert!(permits(&grant("HTTPRoute", &all), SHOP, &API));
        assert!(permits(&grant("HTTPRoute", &one("api")), SHOP, &API));
        assert!(!permits(&grant("GRPCRoute", &all), SHOP, &API));
        assert!(!permits(&grant("HTTPRoute", &one("db")), SHOP, &API));
        assert!(!permits(&grant("HTTPRoute", &json!({"kind": "Secret"})), SHOP, &API));
        assert!(!permits(&grant("HTTPRoute", &all), Referrer { namespace: "other", ..SHOP }, &API));
        assert!(!permits(&json!({}), SHOP, &API));
    }

    #[test]
    fn what_could_not_be_read_is_unknown_and_the_own_namespace_needs_no_grant() {
        let shown = resolved(&API, &Place::default(), SHOP);
        assert_eq!((&shown["found"], &shown["permitted"]), (&Value::Null, &Value::Null));
        assert_eq!((&shown["clusterIP"], &shown["ports"]), (&Value::Null, &Value::Null));
        let own = Backend { namespace: "shop", ..API };
        assert_eq!(resolved(&own, &Place::default(), SHOP)["permitted"], true);
        let none = Place { grants: Some(vec![]), ..Place::default() };
        assert_eq!(resolved(&API, &none, SHOP)["permitted"], false);
        let one = vec![grant("HTTPRoute", &json!({"kind": "Service"}))];
        let granted = Place { grants: Some(one), ..Place::default() };
        assert_eq!(resolved(&API, &granted, SHOP)["permitted"], true);
    }
}
