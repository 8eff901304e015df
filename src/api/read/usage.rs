//! The usage of pods and nodes that a caller may see: from the shared history, or one point an
//! object, listed live as the caller where we have no history. Either way seen only under a right
//! of its own: to list metrics.k8s.io's pods or nodes.
//!
//! It writes no JSON (`metrics`) and keeps nothing (`cache`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use super::join::Joins;
use super::metrics::pod_metrics;
use super::view::{self, NoView, View};
use crate::api::Gateway;
use crate::api::error::ApiError;
use crate::auth::{Reach, Scope};
use crate::cache::{Series, Standing, Usage};
use crate::i18n::Locale;
use crate::kinds::usage::{NODE_USAGE, POD_USAGE};
use crate::kinds::{Facts, Join, KindDef, PodsOf, Row, UsageFacts};
use crate::upstream::{Failure, UpstreamError, User};

/// How long an answer waits for usage that has to be read live: it is the least of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer waits for the first poll; it goes on without usage then.
const BEGINNING: Duration = Duration::from_millis(250);

/// Usage that this caller may see.
pub enum Usages {
    Shared {
        usage: Arc<Usage>,
        scope: Scope,
    },
    /// One point an object, listed as the caller; all of them are said to be of the same second,
    /// that of the newest, so that they can be added up.
    Own {
        view: Box<View>,
        at: i64,
    },
}

impl Usages {
    /// Of one object; the namespace of a node is empty.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Series> {
        match self {
            Self::Shared { usage, scope } => usage.get(scope, namespace, name),
            Self::Own { view, at } => {
                let mut sum = Sum::default();
                let row = view.store().get(&view.scope, namespace, name)?;
                sum.add(&row);
                Some(sum.series(*at)).filter(|series| series.sources > 0)
            }
        }
    }

    /// Of the very object that a row is of, and of none that had its name before.
    pub fn of(&self, row: &Row) -> Option<Series> {
        match self {
            Self::Shared { usage, scope } => {
                usage.of(scope, (row.namespace.as_str(), row.name.as_str()), row.created)
            }
            Self::Own { view, .. } => {
                let measured = view.store().get(&view.scope, &row.namespace, &row.name)?;
                let is_its_own = facts(&measured)?.time >= row.created;
                self.get(&row.namespace, &row.name).filter(|_| is_its_own)
            }
        }
    }

    /// `metrics` of a pod in a list, written.
    pub fn written(&self, row: &Row) -> Option<Bytes> {
        let write = |series: &Series| serde_json::to_vec(&pod_metrics(series)).unwrap_or_default();
        match self {
            Self::Shared { usage, scope } => usage.written(scope, row, write),
            Self::Own { .. } => self.of(row).map(|series| write(&series).into()),
        }
    }

    /// Added up over objects, each named once.
    pub fn sum<'a>(&self, names: impl Iterator<Item = (&'a str, &'a str)>) -> Series {
        match self {
            Self::Shared { usage, scope } => usage.sum(scope, names),
            Self::Own { view, at } => {
                let mut sum = Sum::default();
                for (namespace, name) in names {
                    if let Some(row) = view.store().get(&view.scope, namespace, name) {
                        sum.add(&row);
                    }
                }
                sum.series(*at)
            }
        }
    }

    /// Added up over all objects in the namespaces that `within`, a scope of pods, covers too: for
    /// lists without a filter, because it costs next to nothing. It is as of the last poll.
    pub fn total(&self, within: &Scope) -> Series {
        match self {
            Self::Shared { usage, scope } => usage.total(scope, within),
            Self::Own { view, at } => {
                let mut sum = Sum::default();
                view.store().each(&view.scope, |row| {
                    if within.covers(&row.namespace) {
                        sum.add(row);
                    }
                });
                sum.series(*at)
            }
        }
    }

    /// Added up over the rows of a list: pods and nodes themselves, the pods of anything else.
    pub fn of_rows(&self, kind: &KindDef, rows: &[Arc<Row>], joins: &Joins) -> Series {
        let Some(how) = pods_of(kind) else {
            return self.sum(rows.iter().map(|row| (row.namespace.as_str(), row.name.as_str())));
        };
        let pods: Vec<_> = rows.iter().flat_map(|row| joins.pods_of(row, how)).collect();
        self.sum(pods.iter().map(|pod| (pod.namespace.as_str(), pod.name.as_str())))
    }

    /// The view that was read for it, if one was.
    pub fn view(&self) -> Option<&View> {
        match self {
            Self::Shared { .. } => None,
            Self::Own { view, .. } => Some(&**view),
        }
    }
}

fn pods_of(kind: &KindDef) -> Option<PodsOf> {
    kind.joins.iter().find_map(|join| match join {
        Join::PodInfo { pods, .. } => Some(*pods),
        _ => None,
    })
}

fn facts(row: &Row) -> Option<UsageFacts> {
    match &row.facts {
        Facts::Usage(facts) => Some(**facts),
        _ => None,
    }
}

/// One point in the making.
#[derive(Default)]
struct Sum {
    cpu: i64,
    memory: i64,
    sources: usize,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        let Some(facts) = facts(row) else { return };
        self.cpu = self.cpu.saturating_add(facts.cpu);
        self.memory = self.memory.saturating_add(facts.memory);
        self.sources += 1;
    }

    /// Of nothing there is no point.
    fn series(self, at: i64) -> Series {
        let Self { cpu, memory, sources } = self;
        let point = (sources > 0).then_some((at, cpu, memory));
        Series { points: point.into_iter().collect(), sources }
    }
}

/// The usage that lists and details of `kind` show, if they show any, and what of it could not be
/// had as the contract's errors. Neither when the cluster has no metrics source.
pub async fn shown(
    gateway: &Gateway,
    user: &User,
    kind: &KindDef,
    wanted: &Reach,
    locale: Locale,
) -> (Option<Usages>, Option<Value>) {
    if !kind.list.metrics && !kind.joins.contains(&Join::Metrics) {
        return (None, None);
    }
    // In a large cluster the first poll takes seconds, and to list as much once more for each answer
    // would only make it longer.
    if !gateway.usage.begun(BEGINNING).await {
        return (None, None);
    }
    let source = if kind.name == "node" { &NODE_USAGE } else { &POD_USAGE };
    match open(gateway, user, source, wanted).await {
        Ok(usages) => {
            let view = usages.as_ref().and_then(Usages::view);
            let refused = view.and_then(|view| view.refused.clone());
            (usages, refused.map(|why| ApiError::from(why).as_item(locale)))
        }
        Err(error) => (None, Some(error.as_item(locale))),
    }
}

/// The usage that `user` may see of pods or nodes where it is wanted; `None` when the cluster has
/// no metrics source.
pub async fn open(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    wanted: &Reach,
) -> Result<Option<Usages>, ApiError> {
    let standing = gateway.usage.standing();
    match standing {
        Standing::Absent => return Ok(None),
        Standing::Current | Standing::Down(_) => {
            // First of all: how the source stands is told to those who may read it.
            let scope = view::scope(gateway, user, kind, wanted).await.map_err(NoView::error)?;
            if let Standing::Down(_) = standing {
                let code = StatusCode::SERVICE_UNAVAILABLE;
                return Err(ApiError::with_status(code, "error-metrics-source-down", &[]));
            }
            return Ok(Some(Usages::Shared { usage: gateway.usage.clone(), scope }));
        }
        Standing::Live => {}
    }
    let listing = Box::pin(view::open(gateway, user, kind, wanted));
    let error = match in_time(listing).await {
        Ok(Ok(view)) => return Ok(Some(own(view))),
        Ok(Err(none)) => none.error(),
        Err(failure) => failure.into(),
    };
    if error.status == StatusCode::NOT_FOUND { Ok(None) } else { Err(error) }
}

/// A slow source is no reason for a slow answer.
pub async fn in_time<T>(reading: impl Future<Output = T>) -> Result<T, Failure> {
    let timed = tokio::time::timeout(PATIENCE, reading).await;
    timed.map_err(|_| UpstreamError::Timeout.into())
}

fn own(view: View) -> Usages {
    let mut newest: Option<i64> = None;
    view.store().each(&view.scope, |row| newest = newest.max(facts(row).map(|facts| facts.time)));
    let now = Timestamp::now().as_second();
    // Clocks of nodes may be ahead; a chart must not be.
    Usages::Own { view: Box::new(view), at: newest.map_or(now, |at| at.min(now)) }
}
