//! What belongs to one object: rows of other kinds, each from a view of its own or read live as
//! the caller, for details and child lists alike.
//!
//! What may not be read is missing and named in `errors`; it never fails a detail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::controller;
use super::crd;
use super::gateways;
use super::join::{Joins, Status};
use super::list;
use super::listing;
use super::usage;
use super::view::{self, NoView, View};
use crate::api::Gateway;
use crate::api::error::ApiError;
use crate::api::target::{encoded, live};
use crate::auth::{Reach, Scope};
use crate::cache::{Page, Series, Store};
use crate::i18n::Locale;
use crate::kinds::{self, KindDef, Link, Phase, Relation, Row, by_name, claim_names, later};
use crate::query::{self, ListQuery};
use crate::upstream::{Failure, User};

/// Limit ranges of one namespace that are looked at; each is a policy, a handful is many.
const LIMIT_RANGES: usize = 500;
/// Where events about nodes are: client-go writes those about what has no namespace there.
const NODE_EVENTS: &str = "default";

/// The object that is looked at, as it is now, and for whom.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub gateway: &'a Gateway,
    pub user: &'a User,
    pub locale: Locale,
    pub kind: &'static KindDef,
    pub object: &'a Value,
    pub row: &'a Row,
}

/// Rows chosen for one list, with all that it takes to write them.
#[derive(Default)]
pub struct Chosen {
    pub page: Page,
    /// Usage of all chosen rows.
    pub usage: Option<Series>,
    pub joins: Joins,
    pub errors: Vec<Value>,
    /// The views of the rows themselves and of what leads to them; none when they were read live.
    pub views: Vec<View>,
}

/// What a relation adds to a detail.
#[derive(Default)]
pub struct Part {
    /// `,"key":value` for each key.
    pub json: Vec<u8>,
    pub errors: Vec<Value>,
    pub views: Vec<View>,
}

/// The request's own list queries, which the lists in a node's detail follow.
#[derive(Default)]
pub struct Queries {
    pub pods: ListQuery,
    pub events: ListQuery,
}

impl Subject<'_> {
    /// Where to look for relatives: everywhere for what has no namespace.
    pub fn around(&self) -> Reach {
        let namespace = match self.kind.name {
            "namespace" => &self.row.name,
            _ => &self.row.namespace,
        };
        if namespace.is_empty() { Reach::Everything } else { Reach::one(namespace) }
    }

    pub fn item(&self, error: ApiError) -> Value {
        error.as_item(self.locale)
    }
}

impl Chosen {
    fn failed(item: Value) -> Self {
        Self { errors: vec![item], ..Self::default() }
    }

    /// The contract's list; `status` of child lists is all zeros.
    pub fn body(&self, kind: &KindDef) -> Result<Vec<u8>, ApiError> {
        let joins = (&self.joins, self.usage.clone());
        listing::body(kind, &Status::default(), joins, &self.page, Some(&self.errors))
            .map_err(|error| ApiError::internal(&error))
    }

    fn into_part(self, key: &str, json: &[u8]) -> Part {
        let Joins { pods, events, replica_sets, usage: _ } = self.joins;
        let mut views = self.views;
        views.extend([pods, events, replica_sets].into_iter().flatten());
        Part { views, errors: self.errors, ..Part::of(key, json) }
    }
}

impl Part {
    pub fn of(key: &str, json: &[u8]) -> Self {
        let mut pair = format!(",\"{key}\":").into_bytes();
        pair.extend_from_slice(json);
        Self { json: pair, ..Self::default() }
    }
}

/// A kind of the table.
pub fn known(name: &str) -> Result<&'static KindDef, ApiError> {
    by_name(name).ok_or_else(|| ApiError::internal(&format!("the kind table has no {name}")))
}

/// What a detail gathers for one relation.
pub async fn gather(
    subject: &Subject<'_>,
    relation: Relation,
    queries: &Queries,
) -> Result<Part, ApiError> {
    match relation {
        Relation::Controller => controller::controller(subject).await,
        Relation::Events { key, first } => {
            embed(subject, key, known("event")?, events(subject, &head(first)).await)
        }
        Relation::Claims => {
            let kind = known("persistentvolumeclaim")?;
            embed(subject, "persistentVolumeClaimList", kind, claims(subject, &head(10)).await)
        }
        Relation::NodePods => {
            embed(subject, "podList", known("pod")?, pods(subject, &queries.pods).await)
        }
        Relation::NodeEvents => {
            embed(subject, "eventList", known("event")?, events(subject, &queries.events).await)
        }
        Relation::Autoscalers => {
            let found = autoscalers(subject).await;
            let kind = known("horizontalpodautoscaler")?;
            embed(subject, "horizontalPodAutoscalerList", kind, found)
        }
        Relation::Quotas => quotas(subject).await,
        Relation::Limits => limits(subject).await,
        Relation::Endpoints => endpoints(subject).await,
        Relation::CustomObjects => crd::objects(subject).await,
        Relation::Backends => gateways::backends(subject).await,
        Relation::Routes => gateways::routes(subject).await,
        Relation::Gateways => gateways::gateways(subject).await,
    }
}

/// The first rows, unsorted: what lists within details show.
fn head(first: usize) -> ListQuery {
    let page = query::Page { size: first, index: 0 };
    ListQuery { page: Some(page), ..ListQuery::default() }
}

/// A list within a detail: what failed leaves it empty and is named.
fn embed(
    subject: &Subject<'_>,
    key: &str,
    kind: &'static KindDef,
    chosen: Result<Chosen, ApiError>,
) -> Result<Part, ApiError> {
    let chosen = chosen.unwrap_or_else(|error| Chosen::failed(subject.item(error)));
    let json = chosen.body(kind)?;
    Ok(chosen.into_part(key, &json))
}

/// Rows of a kind that has a cache, under the caller's own scope, with the joins of their page.
async fn choose(
    subject: &Subject<'_>,
    kind: &'static KindDef,
    query: &ListQuery,
    pick: impl FnOnce(&View) -> Vec<Arc<Row>>,
) -> Result<Chosen, ApiError> {
    let Subject { gateway, user, locale, .. } = *subject;
    let wanted = subject.around();
    let (view, (mut joins, mut errors), (usage, unknown)) = tokio::join!(
        view::open(gateway, user, kind, &wanted),
        list::open_joins(gateway, user, kind, &wanted, locale),
        usage::shown(gateway, user, kind, &wanted, locale),
    );
    joins.usage = usage;
    errors.extend(unknown);
    match view {
        Ok(view) => {
            let left_out = joins.left_out(&view.scope);
            errors.extend(left_out.map(|why| subject.item(why.clone().into())));
            errors.extend(view.missing().map(|error| subject.item(error)));
            let rows = Page::left(pick(&view), query);
            let usage = joins.usage.as_ref().filter(|_| kind.list.metrics);
            let usage = usage.map(|usage| usage.of_rows(kind, &rows, &joins));
            let page = Page::of(&rows, query);
            Ok(Chosen { page, usage, joins, errors, views: vec![view] })
        }
        Err(NoView::Denied(error)) => {
            errors.insert(0, subject.item(error));
            Ok(Chosen { joins, errors, ..Chosen::default() })
        }
        Err(NoView::Failed(error)) => Err(error),
    }
}

fn linked(store: &Store, scope: &Scope, links: &[Link]) -> Vec<Arc<Row>> {
    let mut rows = Vec::new();
    for link in links {
        store.linked(scope, link, |row| rows.push(row.clone()));
    }
    rows
}

fn filtered(store: &Store, scope: &Scope, keep: impl Fn(&Row) -> bool) -> Vec<Arc<Row>> {
    let mut rows = Vec::new();
    store.each(scope, |row| {
        if keep(row) {
            rows.push(row.clone());
        }
    });
    rows
}

/// Events about the subject: by name, as the contract has it; of a namespace all events in it; of
/// a node those with its uid, which kubelets give as its name, about an object of no namespace, in
/// `default`, where kubelets and controllers write them: who may make events elsewhere can put none
/// here. The API server alone does not see to it: it takes such events in `kube-system`, too, when
/// they have an `eventTime` (`legacyValidateEvent`).
pub async fn events(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    let row = subject.row;
    let links = match subject.kind.name {
        "node" => vec![Link::Involved(row.uid.clone()), Link::Involved(row.name.as_str().into())],
        _ => vec![Link::InvolvedAt(Box::new((row.namespace.clone(), row.name.clone())))],
    };
    let about_it = Link::InvolvedAt(Box::new((CompactString::default(), row.name.clone())));
    choose(subject, known("event")?, query, |view| match subject.kind.name {
        "namespace" => filtered(view.store(), &view.scope, |_| true),
        "node" => {
            let mut events = linked(view.store(), &view.scope, &links);
            events.retain(|event| event.namespace == NODE_EVENTS && event.links_to(&about_it));
            events
        }
        _ => linked(view.store(), &view.scope, &links),
    })
    .await
}

/// Pods of the subject: those on a node that have not ended, those that a service selects, those
/// of a deployment's replica sets, those that anything else controls.
pub async fn pods(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    let row = subject.row;
    let selector = labels(subject.object.pointer("/spec/selector"));
    let (owners, sets, denied) = match subject.kind.name {
        "deployment" => sets(subject).await?,
        _ => (vec![Link::Owner(row.uid.clone())], None, None),
    };
    let mut chosen = choose(subject, known("pod")?, query, |view| {
        let (store, scope) = (view.store(), &view.scope);
        match subject.kind.name {
            "node" => {
                let mut pods = linked(store, scope, &[Link::Node(row.name.clone())]);
                pods.retain(|pod| !pod.pod().is_some_and(|facts| has_ended(facts.phase)));
                pods
            }
            "service" => filtered(store, scope, |pod| selects(&selector, |key| label(pod, key))),
            _ => linked(store, scope, &owners),
        }
    })
    .await?;
    chosen.errors.extend(denied);
    chosen.views.extend(sets);
    Ok(chosen)
}

/// The replica sets of the subject, a deployment, as owners of pods, the view that they are of, or
/// the word that denies them.
async fn sets(subject: &Subject<'_>) -> Result<(Vec<Link>, Option<View>, Option<Value>), ApiError> {
    let Subject { gateway, user, row, .. } = *subject;
    match view::open(gateway, user, known("replicaset")?, &subject.around()).await {
        Ok(view) => {
            let sets = linked(view.store(), &view.scope, &[Link::Owner(row.uid.clone())]);
            let owners = sets.iter().map(|set| Link::Owner(set.uid.clone())).collect();
            Ok((owners, Some(view), None))
        }
        Err(NoView::Denied(error)) => Ok((Vec::new(), None, Some(subject.item(error)))),
        Err(NoView::Failed(error)) => Err(error),
    }
}

fn has_ended(phase: Phase) -> bool {
    matches!(phase, Phase::Succeeded | Phase::Failed)
}

/// Services whose selector is part of the labels that the subject's own selector asks for.
pub async fn services(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    #[derive(Deserialize)]
    struct Item {
        selector: Option<BTreeMap<String, String>>,
    }
    let at = match subject.kind.name {
        // Of before there were expressions: a plain map.
        "replicationcontroller" => "/spec/selector",
        _ => "/spec/selector/matchLabels",
    };
    let wanted = labels(subject.object.pointer(at));
    choose(subject, known("service")?, query, |view| {
        filtered(view.store(), &view.scope, |service| {
            let item = serde_json::from_slice::<Item>(&service.json).ok();
            let selector = item.and_then(|item| item.selector).unwrap_or_default();
            selects(&selector, |key| wanted.get(key).map(String::as_str))
        })
    })
    .await
}

fn labels(object: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = object.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn label<'a>(row: &'a Row, key: &str) -> Option<&'a str> {
    row.labels.get(key)
}

/// Whether labels have all that a selector asks for; an empty selector selects nothing.
fn selects<'a>(
    selector: &BTreeMap<String, String>,
    label: impl Fn(&str) -> Option<&'a str>,
) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| label(key) == Some(value.as_str()))
}

/// Ingresses that send to the subject, a service.
pub async fn ingresses(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    let link = Link::Backend(subject.row.name.clone());
    choose(subject, known("ingress")?, query, |view| linked(view.store(), &view.scope, &[link]))
        .await
}

/// Jobs that a cron job made: those with pods at work, or those without.
pub async fn jobs(
    subject: &Subject<'_>,
    query: &ListQuery,
    active: bool,
) -> Result<Chosen, ApiError> {
    let link = Link::Owner(subject.row.uid.clone());
    choose(subject, known("job")?, query, |view| {
        let mut jobs = linked(view.store(), &view.scope, &[link]);
        jobs.retain(|job| job.workload().is_some_and(|job| job.current > 0) == active);
        jobs
    })
    .await
}

/// Volumes of the subject, a storage class.
pub async fn volumes(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    let link = Link::Class(subject.row.name.clone());
    choose(subject, known("persistentvolume")?, query, |view| {
        linked(view.store(), &view.scope, &[link])
    })
    .await
}

/// Secrets that the subject, a service account, names in the list at `pointer`.
pub async fn secrets(
    subject: &Subject<'_>,
    query: &ListQuery,
    pointer: &str,
) -> Result<Chosen, ApiError> {
    let named = subject.object.pointer(pointer).and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(|one| one.get("name")?.as_str());
    let names: BTreeSet<&str> = named.collect();
    if names.is_empty() {
        return Ok(Chosen::default());
    }
    choose(subject, known("secret")?, query, |view| {
        filtered(view.store(), &view.scope, |secret| names.contains(secret.name.as_str()))
    })
    .await
}

/// Autoscalers that scale the subject.
pub async fn autoscalers(subject: &Subject<'_>) -> Result<Chosen, ApiError> {
    let link = Link::Target(Box::new((subject.kind.name.into(), subject.row.name.clone())));
    let query = ListQuery::default();
    let kind = known("horizontalpodautoscaler")?;
    choose(subject, kind, &query, |view| linked(view.store(), &view.scope, &[link])).await
}

/// The claims that a pod's volumes name. One may be missing: a pod may wait for it.
pub async fn claims(subject: &Subject<'_>, query: &ListQuery) -> Result<Chosen, ApiError> {
    let names = claim_names(subject.object);
    if names.is_empty() {
        return Ok(Chosen::default());
    }
    choose(subject, known("persistentvolumeclaim")?, query, |view| {
        let namespace = &subject.row.namespace;
        let found = names.iter().map(|name| view.store().get(&view.scope, namespace, name));
        found.flatten().collect()
    })
    .await
}

/// `resourceQuotaList` of a namespace: a list without `errors` of its own.
async fn quotas(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let kind = known("resourcequota")?;
    let all = |view: &View| filtered(view.store(), &view.scope, |_| true);
    let chosen = choose(subject, kind, &ListQuery::default(), all).await;
    let chosen = chosen.unwrap_or_else(|error| Chosen::failed(subject.item(error)));
    let joins = (&chosen.joins, None);
    let json = listing::body(kind, &Status::default(), joins, &chosen.page, None)
        .map_err(|error| ApiError::internal(&error))?;
    Ok(chosen.into_part("resourceQuotaList", &json))
}

/// `resourceLimits` of a namespace; null when there are none.
async fn limits(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let Subject { gateway, user, .. } = *subject;
    let namespace = encoded(&subject.row.name);
    let path = format!("/api/v1/namespaces/{namespace}/limitranges?limit={LIMIT_RANGES}");
    let read = async {
        let json = live(gateway, user, &path).await?;
        kinds::limits(&json).map_err(ApiError::from)
    };
    Ok(single(subject, "resourceLimits", read.await, Value::Null))
}

/// `endpointList` of a service, from the core/v1 `Endpoints` of its name.
async fn endpoints(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let Subject { gateway, user, row, .. } = *subject;
    let (namespace, name) = (encoded(&row.namespace), encoded(&row.name));
    let path = format!("/api/v1/namespaces/{namespace}/endpoints/{name}");
    let read = match live(gateway, user, &path).await {
        Ok(json) => serde_json::from_str(&json)
            .map(|object: Value| later::endpoints(Some(&object)))
            .map_err(|error| ApiError::internal(&error)),
        Err(failure) if is_missing(&failure) => Ok(later::endpoints(None)),
        Err(failure) => Err(failure.into()),
    };
    Ok(single(subject, "endpointList", read, later::endpoints(None)))
}

pub fn is_missing(failure: &Failure) -> bool {
    failure.code() == Some(StatusCode::NOT_FOUND)
}

fn single(
    subject: &Subject<'_>,
    key: &str,
    read: Result<Value, ApiError>,
    otherwise: Value,
) -> Part {
    let (value, errors) = match read {
        Ok(value) => (value, Vec::new()),
        Err(error) => (otherwise, vec![subject.item(error)]),
    };
    Part { errors, ..Part::of(key, value.to_string().as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_selects_labels_that_have_all_of_it() {
        let has = labels(Some(&json!({"app": "tiles", "hash": "1"})));
        let of = |key: &str| has.get(key).map(String::as_str);
        assert!(selects(&labels(Some(&json!({"app": "tiles"}))), of));
        assert!(!selects(&labels(Some(&json!({"app": "tiles", "tier": "web"}))), of));
        assert!(!selects(&labels(Some(&json!({"app": "other"}))), of));
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        for object in [None, Some(&json!(null)), Some(&json!({}))] {
            assert!(!selects(&labels(object), |_| Some("x")));
        }
    }
}
