//! Usage of CPU and memory as the contract shows it, the routes that show nothing else, and how
//! the metrics source stands.
//!
//! NOT here: `/metrics`, which is about ourselves (`probes`), and who may see what (`usage`).

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::related::known;
use super::usage::{self, Usages, in_time};
use super::view::{self, NoView, View};
use crate::api::error::ApiError;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{encoded, live, segment};
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Reach;
use crate::cache::{Series, Standing};
use crate::i18n::Locale;
use crate::kinds::usage::{NODE_USAGE, POD_USAGE};
use crate::kinds::{Allocated, Facts, KindDef, Link, Phase, Row};
use crate::upstream::User;

/// Discovery of the version that metrics-server has had for years; everybody may read it.
const DISCOVERY: &str = "/apis/metrics.k8s.io/v1beta1";

/// The contract's `MetricPoint`.
#[derive(Debug, Serialize)]
struct MetricPoint {
    timestamp: Timestamp,
    value: i64,
}

#[derive(Debug, Serialize)]
struct DataPoint {
    x: i64,
    y: i64,
}

/// The contract's `PodMetrics`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetrics {
    cpu_usage: Option<i64>,
    memory_usage: Option<i64>,
    cpu_usage_history: Vec<MetricPoint>,
    memory_usage_history: Vec<MetricPoint>,
}

/// The contract's `Metric`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    data_points: Vec<DataPoint>,
    metric_points: Vec<MetricPoint>,
    metric_name: &'static str,
    aggregation: &'static str,
}

/// Seconds between the points that a list shows, as the original's scraper had them: a sparkline is
/// small, and a page has many. Details and the routes of usage show every point.
pub const LIST_PACE: i64 = 60;

/// `metrics` of a pod in a list; the contract has null for a pod without any.
pub fn pod_metrics(series: &Series) -> PodMetrics {
    whole(&series.thinned(LIST_PACE))
}

fn whole(series: &Series) -> PodMetrics {
    let newest = series.points.last();
    PodMetrics {
        cpu_usage: newest.map(|point| point.1),
        memory_usage: newest.map(|point| point.2),
        cpu_usage_history: metric_points(series, cpu),
        memory_usage_history: metric_points(series, memory),
    }
}

/// `cumulativeMetrics` of a list and `metrics` of a pod's or node's detail: CPU in millicores, then
/// memory in bytes. Points with times are filled in only where a single object is behind them.
pub fn cumulative(series: &Series) -> [Metric; 2] {
    let metric = |metric_name: &'static str, value: fn(&Point) -> i64| Metric {
        data_points: series.points.iter().map(|at| DataPoint { x: at.0, y: value(at) }).collect(),
        metric_points: match series.sources {
            1 => metric_points(series, value),
            _ => Vec::new(),
        },
        metric_name,
        aggregation: "sum",
    };
    [metric("cpu/usage_rate", cpu), metric("memory/usage", memory)]
}

type Point = (i64, i64, i64);

fn cpu(point: &Point) -> i64 {
    point.1
}

fn memory(point: &Point) -> i64 {
    point.2
}

fn metric_points(series: &Series, value: fn(&Point) -> i64) -> Vec<MetricPoint> {
    let points = series.points.iter().filter_map(|point| {
        let timestamp = Timestamp::from_second(point.0).ok()?;
        Some(MetricPoint { timestamp, value: value(point) })
    });
    points.collect()
}

/// The newest usage as percentages of something; null where that is nothing.
#[derive(Debug, PartialEq, Serialize)]
struct Percent {
    cpu: Option<f64>,
    memory: Option<f64>,
}

/// What our own routes answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(flatten)]
    usage: PodMetrics,
    percent_of_requests: Option<Percent>,
    percent_of_limits: Option<Percent>,
    /// Of nodes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent_of_allocatable: Option<Percent>,
    errors: Vec<Value>,
}

impl Answer {
    /// Without `allocated` the percentages are null: its pods may not be listed.
    fn of(series: &Series, allocated: Option<Allocated>, errors: Vec<Value>) -> Self {
        let share = |of: fn(&Allocated) -> (i64, i64)| {
            allocated.as_ref().map(|allocated| percent(series, of(allocated)))
        };
        Self {
            usage: whole(series),
            percent_of_requests: share(|all| (all.cpu_requests, all.memory_requests)),
            percent_of_limits: share(|all| (all.cpu_limits, all.memory_limits)),
            percent_of_allocatable: None,
            errors,
        }
    }

    fn reply(&self, views: &[&View]) -> Result<Reply, ApiError> {
        let body = serde_json::to_vec(self).map_err(|error| ApiError::internal(&error))?;
        Ok(Reply::json(body, Freshness::of(views.iter().copied())))
    }
}

fn percent(series: &Series, (cpu, memory): (i64, i64)) -> Percent {
    let share = |part: i64, whole: i64| {
        let share = part as f64 / whole as f64 * 100.0;
        (whole > 0).then_some((share * 10.0).round() / 10.0)
    };
    let newest = series.points.last();
    Percent {
        cpu: newest.and_then(|point| share(point.1, cpu)),
        memory: newest.and_then(|point| share(point.2, memory)),
    }
}

/// What pods that have not ended ask for together.
fn allocated<'a>(pods: impl Iterator<Item = &'a Row>) -> Allocated {
    let pods = pods.filter_map(Row::pod);
    let alive = pods.filter(|pod| !matches!(pod.phase, Phase::Succeeded | Phase::Failed));
    alive.fold(Allocated::default(), |sum, pod| Allocated {
        cpu_requests: sum.cpu_requests.saturating_add(pod.allocated.cpu_requests),
        cpu_limits: sum.cpu_limits.saturating_add(pod.allocated.cpu_limits),
        memory_requests: sum.memory_requests.saturating_add(pod.allocated.memory_requests),
        memory_limits: sum.memory_limits.saturating_add(pod.allocated.memory_limits),
    })
}

/// `GET /api/v1/metrics/pod/{namespace}/{name}`.
pub async fn pod(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let mut names = request.uri().path().rsplit('/');
    let (name, namespace) = (place(names.next())?, place(names.next())?);
    let locale = gateway.locale_of(request.headers());
    let (kind, wanted) = (known("pod")?, Reach::one(&namespace));
    let (usages, pods) = tokio::join!(
        required(&gateway, &user, &POD_USAGE, &wanted),
        view::open(&gateway, &user, kind, &wanted),
    );
    let usages = usages?;
    let (pods, errors) = kept(pods, locale);
    let row = pods.as_ref().and_then(|pods| pods.store().get(&pods.scope, &namespace, &name));
    let series = match &row {
        Some(row) => usages.of(row),
        None => usages.get(&namespace, &name),
    };
    let series = series.ok_or_else(|| unmeasured(&name))?;
    let asked = row.and_then(|row| row.pod().map(|pod| pod.allocated));
    let views: Vec<&View> = usages.view().into_iter().chain(&pods).collect();
    let reply = Answer::of(&series, asked, errors).reply(&views)?;
    Ok(reply.respond(&gateway, request.headers()))
}

/// `GET /api/v1/metrics/node/{name}`: percentages of what all pods on it ask for, and of what the
/// node has for pods.
pub async fn node(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let name = place(request.uri().path().rsplit('/').next())?;
    let locale = gateway.locale_of(request.headers());
    let (of_nodes, of_pods) = (known("node")?, known("pod")?);
    let (usages, nodes, pods) = tokio::join!(
        required(&gateway, &user, &NODE_USAGE, &Reach::Everything),
        view::open(&gateway, &user, of_nodes, &Reach::Everything),
        view::open_all(&gateway, &user, of_pods),
    );
    let usages = usages?;
    let (nodes, mut errors) = kept(nodes, locale);
    let node = nodes.as_ref().and_then(|nodes| nodes.store().get(&nodes.scope, "", &name));
    let series = match &node {
        Some(node) => usages.of(node),
        None => usages.get("", &name),
    };
    let series = series.ok_or_else(|| unmeasured(&name))?;
    let (pods, more) = kept(pods, locale);
    errors.extend(more);
    let asked = pods.as_ref().map(|pods| {
        let mut rows = Vec::new();
        let on_it = Link::Node(name.clone());
        pods.store().linked(&pods.scope, &on_it, |row| rows.push(row.clone()));
        allocated(rows.iter().map(|row| &**row))
    });
    let mut answer = Answer::of(&series, asked, errors);
    answer.percent_of_allocatable = node.and_then(|node| match &node.facts {
        Facts::Node(has) => Some(percent(&series, (has.cpu, has.memory))),
        _ => None,
    });
    let views: Vec<&View> = usages.view().into_iter().chain(&nodes).chain(&pods).collect();
    Ok(answer.reply(&views)?.respond(&gateway, request.headers()))
}

/// `GET /api/v1/metrics/namespace/{namespace}`: the sum over the pods that the caller may list, and
/// may list the usage of. Nothing measured is an empty history.
pub async fn namespace(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let name = place(request.uri().path().rsplit('/').next())?;
    let (kind, wanted) = (known("pod")?, Reach::one(&name));
    let (usages, pods) = tokio::join!(
        required(&gateway, &user, &POD_USAGE, &wanted),
        view::open(&gateway, &user, kind, &wanted),
    );
    let (usages, pods) = (usages?, pods.map_err(NoView::error)?);
    let mut rows = Vec::new();
    pods.store().each(&pods.scope, |row| rows.push(row.clone()));
    let series = usages.sum(rows.iter().map(|row| (row.namespace.as_str(), row.name.as_str())));
    let asked = allocated(rows.iter().map(|row| &**row));
    let views: Vec<&View> = usages.view().into_iter().chain([&pods]).collect();
    let reply = Answer::of(&series, Some(asked), Vec::new()).reply(&views)?;
    Ok(reply.respond(&gateway, request.headers()))
}

/// No name in Kubernetes is longer (RFC 1123 subdomain).
const LONGEST_NAME: usize = 253;

/// A name that may stand in a path upstream as it is.
fn place(raw: Option<&str>) -> Result<CompactString, ApiError> {
    let name = segment(raw.unwrap_or_default())?;
    if name.len() <= LONGEST_NAME && encoded(&name) == name.as_str() {
        Ok(name)
    } else {
        Err(ApiError::bad_request("error-bad-path", &[("reason", name.as_str())]))
    }
}

/// Where usage is all that was asked for, its absence is an error.
async fn required(
    gateway: &Gateway,
    user: &User,
    kind: &'static KindDef,
    wanted: &Reach,
) -> Result<Usages, ApiError> {
    if let Some(usages) = usage::open(gateway, user, kind, wanted).await? {
        return Ok(usages);
    }
    let error = ApiError::with_status(StatusCode::NOT_FOUND, "error-no-metrics-source", &[]);
    Err(view::told_to_known(gateway, user, error).await)
}

fn unmeasured(name: &str) -> ApiError {
    ApiError::with_status(StatusCode::NOT_FOUND, "error-no-usage", &[("name", name)])
}

/// A view that an answer can do without, or why it has to.
fn kept(view: Result<View, NoView>, locale: Locale) -> (Option<View>, Vec<Value>) {
    match view {
        Ok(view) => (Some(view), Vec::new()),
        Err(none) => (None, vec![none.error().as_item(locale)]),
    }
}

/// The contract's `IntegrationState`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IntegrationState {
    connected: bool,
    last_checked: Option<Timestamp>,
    error: Option<Value>,
}

/// `GET /api/v1/integration/{name}/state`: how the last poll of the metrics source went, or how the
/// source answers now where we do not poll it. `sidecar` is its name in the contract.
pub async fn state(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let name = segment(request.uri().path().rsplit('/').nth(1).unwrap_or_default())?;
    if name == "helm" {
        return engine(&gateway, &user, request.headers()).await;
    }
    if !matches!(name.as_str(), "sidecar" | "metrics") {
        let args = [("name", name.as_str())];
        return Err(ApiError::with_status(
            StatusCode::NOT_FOUND,
            "error-unknown-integration",
            &args,
        ));
    }
    view::verified(&gateway, &user).await?;
    let locale = gateway.locale_of(request.headers());
    let polled = !matches!(gateway.usage.standing(), Standing::Live);
    let (checked, failure) = if polled {
        let report = gateway.usage.report();
        (report.checked, report.failure)
    } else {
        let answer = in_time(live(&gateway, &user, DISCOVERY)).await;
        let failure = answer.flatten().err();
        (Some(Timestamp::now().as_second()), failure)
    };
    let state = IntegrationState {
        connected: failure.is_none(),
        last_checked: checked.and_then(|at| Timestamp::from_second(at).ok()),
        error: failure.map(|failure| ApiError::from(failure).as_item(locale)),
    };
    let body = serde_json::to_vec(&state).map_err(|error| ApiError::internal(&error))?;
    let freshness = Freshness::of(std::iter::empty());
    let freshness = if polled { freshness } else { freshness.with_live() };
    Ok(Reply::json(body, freshness).respond(&gateway, request.headers()))
}

/// The same of the engine that changes releases, with its version.
async fn engine(gateway: &Gateway, user: &User, headers: &HeaderMap) -> Result<Response, ApiError> {
    view::verified(gateway, user).await?;
    let found = gateway.helm.engine.found().await;
    let version = found.as_ref().ok().map(|found| found.version.clone());
    let error = found.err().map(|why| {
        let args = [("reason", &*why.to_string())];
        let error =
            ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "error-no-engine", &args);
        error.as_item(gateway.locale_of(headers))
    });
    let body = json!({
        "connected": version.is_some(), "lastChecked": Timestamp::now(), "version": version,
        "error": error,
    });
    let reply = Reply::json(body.to_string().into_bytes(), Freshness::default().with_live());
    Ok(reply.respond(gateway, headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(sources: usize) -> Series {
        let points = vec![(1_767_323_045, 120, 1 << 26), (1_767_323_060, 121, 1 << 27)];
        Series { points, sources }
    }

    #[test]
    fn a_pod_shows_its_newest_usage_and_where_it_comes_from() {
        let listed = serde_json::to_value(pod_metrics(&series(1))).unwrap();
        assert_eq!(listed["cpuUsageHistory"].as_array().unwrap().len(), 1);
        let shown = serde_json::to_value(whole(&series(1))).unwrap();
        let point = |at: &str, value: i64| json!({"timestamp": at, "value": value});
        let (a, b) = ("2026-01-02T03:04:05Z", "2026-01-02T03:04:20Z");
        let wanted = json!({
            "cpuUsage": 121, "memoryUsage": 1 << 27,
            "cpuUsageHistory": [point(a, 120), point(b, 121)],
            "memoryUsageHistory": [point(a, 1 << 26), point(b, 1 << 27)],
        });
        assert_eq!(shown, wanted);
        let nothing = serde_json::to_value(pod_metrics(&Series::default())).unwrap();
        assert_eq!((&nothing["cpuUsage"], &nothing["cpuUsageHistory"]), (&Value::Null, &json!([])));
    }

    #[test]
    fn a_sum_has_points_with_times_only_of_a_single_object() {
        let many = serde_json::to_value(cumulative(&series(2))).unwrap();
        let cpu = json!({
            "dataPoints": [{"x": 1_767_323_045, "y": 120}, {"x": 1_767_323_060, "y": 121}],
            "metricPoints": [], "metricName": "cpu/usage_rate", "aggregation": "sum",
        });
        assert_eq!(many[0], cpu);
        assert_eq!(many[1]["metricName"], "memory/usage");
        assert_eq!(many[1]["dataPoints"][1]["y"], 1 << 27);
        let one = serde_json::to_value(cumulative(&series(1))).unwrap();
        assert_eq!(one[0]["metricPoints"][1]["timestamp"], "2026-01-02T03:04:20Z");
        let none = serde_json::to_value(cumulative(&Series::default())).unwrap();
        assert_eq!((&none[0]["dataPoints"], &none[1]["metricPoints"]), (&json!([]), &json!([])));
    }

    #[test]
    fn a_percentage_of_nothing_is_null_and_without_pods_there_is_none() {
        let asks = Allocated { cpu_requests: 242, memory_limits: 1 << 28, ..Allocated::default() };
        let answer = Answer::of(&series(1), Some(asks), Vec::new());
        let answer = serde_json::to_value(answer).unwrap();
        assert_eq!(answer["percentOfRequests"], json!({"cpu": 50.0, "memory": null}));
        assert_eq!(answer["percentOfLimits"], json!({"cpu": null, "memory": 50.0}));
        assert_eq!(answer["cpuUsage"], 121);
        assert!(answer.get("percentOfAllocatable").is_none());
        let answer = serde_json::to_value(Answer::of(&series(1), None, Vec::new())).unwrap();
        assert_eq!(answer["percentOfRequests"], Value::Null);
    }

    #[test]
    fn a_name_that_would_need_encoding_is_refused() {
        assert!(place(Some("tiles-1.x")).is_ok());
        for raw in [None, Some(".."), Some("a%20b"), Some("a%2Fb"), Some("a%3Fwatch=1")] {
            assert_eq!(place(raw).unwrap_err().status, StatusCode::BAD_REQUEST, "{raw:?}");
        }
    }
}
