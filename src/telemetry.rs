//! The log and the metrics: how both are set up, and which metrics there are.
//! Every label has few values: route templates, status classes, kinds of the table; never a path, a name or a user.
//! NOT here: serving `/metrics`, which needs a right of its own (`api`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// From half a millisecond, which is a page from the cache, to ten seconds, which is an API server in trouble.
const SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5, 10.0];

/// The content type of `Metrics::encode`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one object a line, the fields beside the message.
    Json,
}

/// What `--log-level` means: a level, or directives as `tracing` has them. `None` if it cannot be understood.
pub fn filter(level: &str) -> Option<EnvFilter> {
    // To tracing a lone unknown word is a target; to us it is a misspelt level.
    let understood = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if !level.split(',').all(understood) {
        return None;
    }
    // What h2 warns of, anybody can have written without credentials. `h2=…` behind it wins.
    EnvFilter::try_new(format!("h2=error,{level}")).ok()
}

/// Logs to stderr from now on. Only the first call of a process counts, which is what tests need.
pub fn init(level: &str, format: LogFormat) {
    let filter = filter(level).unwrap_or_else(|| EnvFilter::new("info"));
    // Where nobody reads stderr any more a line is lost. To say so there would be a panic.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let first = match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    if first.is_err() {
        tracing::debug!("the log was set up before");
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteOnly {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

/// What is counted of one route: its time, and its requests by method and status class.
#[derive(Debug)]
struct Handles {
    seconds: Histogram,
    counters: Vec<((&'static str, &'static str), Counter)>,
}

/// What there is of charts in all repositories together. Their names are told to nobody here: who
/// may read the metrics may not know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charts {
    /// By how they ended.
    pub refreshes: Vec<(&'static str, u64)>,
    /// What all of them took, and the last one.
    pub refreshing: Duration,
    pub last_refresh: Duration,
    /// By how they are.
    pub repositories: Vec<(&'static str, usize)>,
    pub charts: usize,
    pub versions: usize,
    /// Of text.
    pub bytes: usize,
    /// Entries that were left out.
    pub skipped: usize,
}

/// The metrics of one server. Every value lives here; the registry only points to them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// By route template: as many as there are routes.
    handles: DashMap<String, Handles, RandomState>,
    requests: Family<Route, Counter>,
    seconds: Family<RouteOnly, Histogram>,
    upstream: Family<Outcome, Counter>,
    usage_polls: Family<Outcome, Counter>,
    usage_series: Gauge,
    usage_connected: Gauge,
    connections: Gauge,
    rows: Family<Kind, Gauge>,
    synced: Family<Kind, Gauge>,
    events: Family<Kind, Counter>,
    malformed: Family<Kind, Counter>,
    restarts: Family<Kind, Counter>,
    reviews: Family<Outcome, Counter>,
    not_after: Gauge,
    reload_failures: Counter,
    tunnels: Gauge,
    helm_engine: Family<Version, Gauge>,
    helm_runs: Family<Outcome, Counter>,
    helm_children: Gauge,
    helm_waiting: Gauge,
    charts: ChartMetrics,
}

/// Of repositories of charts and the archives that are kept of them.
#[derive(Debug, Default)]
struct ChartMetrics {
    refreshes: Family<Outcome, Counter>,
    refreshing: Counter<f64, AtomicU64>,
    last_refresh: Gauge<f64, AtomicU64>,
    repositories: Family<State, Gauge>,
    charts: Gauge,
    versions: Gauge,
    bytes: Gauge,
    skipped: Gauge,
    archive_bytes: Gauge,
    archives: Family<Outcome, Counter>,
}

impl ChartMetrics {
    fn register(&self, r: &mut Registry) {
        let help = "Refreshes of repositories of charts, by how they ended";
        r.register("chart_refreshes", help, self.refreshes.clone());
        let help = "Time that refreshes of repositories of charts took, in seconds";
        r.register("chart_refresh_seconds", help, self.refreshing.clone());
        let help = "Time that the last refresh of a repository of charts took, in seconds";
        r.register("chart_refresh_last_seconds", help, self.last_refresh.clone());
        let help = "Repositories of charts, by how they are";
        r.register("chart_repositories", help, self.repositories.clone());
        r.register("chart_catalogue_charts", "Charts in the catalogues", self.charts.clone());
        let help = "Versions of charts in the catalogues";
        r.register("chart_catalogue_versions", help, self.versions.clone());
        let help = "Bytes of text in the catalogues";
        r.register("chart_catalogue_bytes", help, self.bytes.clone());
        let help = "Entries of repositories that were left out of the catalogues";
        r.register("chart_catalogue_skipped_entries", help, self.skipped.clone());
        let help = "Bytes of archives and icons on disk, once the first was looked for";
        r.register("chart_archive_cache_bytes", help, self.archive_bytes.clone());
        let help = "Archives of charts that were asked for, by whether they were on disk";
        r.register("chart_archive_cache_lookups", help, self.archives.clone());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("binnacle"),
            handles: DashMap::default(),
            requests: Family::default(),
            seconds: Family::<RouteOnly, Histogram>::new_with_constructor(|| {
                Histogram::new(SECONDS)
            }),
            upstream: Family::default(),
            usage_polls: Family::default(),
            usage_series: Gauge::default(),
            usage_connected: Gauge::default(),
            connections: Gauge::default(),
            rows: Family::default(),
            synced: Family::default(),
            events: Family::default(),
            malformed: Family::default(),
            restarts: Family::default(),
            reviews: Family::default(),
            not_after: Gauge::default(),
            reload_failures: Counter::default(),
            tunnels: Gauge::default(),
            helm_engine: Family::default(),
            helm_runs: Family::default(),
            helm_children: Gauge::default(),
            helm_waiting: Gauge::default(),
            charts: ChartMetrics::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Help texts get their full stop, counters their `_total`, from the encoder.
    fn register(&mut self) {
        let r = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The version that runs", build);
        r.register("http_requests", "Requests answered, by route template", self.requests.clone());
        let help = "Time to the response's headers in seconds, by route template";
        r.register("http_request_duration_seconds", help, self.seconds.clone());
        let help = "Requests sent to the API server, by outcome";
        r.register("upstream_requests", help, self.upstream.clone());
        r.register("connections_open", "Client connections now open", self.connections.clone());
        r.register("cache_rows", "Rows in the cache", self.rows.clone());
        r.register("cache_synced", "1 if the cache has the kind whole", self.synced.clone());
        r.register("cache_events", "Watch events applied", self.events.clone());
        let help = "Objects left out because they could not be read";
        r.register("malformed_objects", help, self.malformed.clone());
        r.register("watch_restarts", "Watches begun again after a failure", self.restarts.clone());
        r.register("access_reviews", "Questions to the authorizer", self.reviews.clone());
        let help = "End of the served certificate, seconds since 1970";
        r.register("certificate_not_after_seconds", help, self.not_after.clone());
        let help = "Certificates refused on reload, or served outside of their time";
        r.register("certificate_reload_failures", help, self.reload_failures.clone());
        let help = "Polls of metrics.k8s.io, by outcome";
        r.register("usage_polls", help, self.usage_polls.clone());
        let help = "Pods and nodes whose usage is remembered";
        r.register("usage_series", help, self.usage_series.clone());
        let help = "Whether metrics.k8s.io answered the last poll";
        r.register("usage_connected", help, self.usage_connected.clone());
        let help = "Upgraded connections of the passthrough now open";
        r.register("tunnels_open", help, self.tunnels.clone());
        let help = "1 for the version of helm that was found last";
        r.register("helm_engine", help, self.helm_engine.clone());
        r.register("helm_runs", "Runs of helm, by how they ended", self.helm_runs.clone());
        r.register("helm_children", "Runs of helm under way", self.helm_children.clone());
        let help = "Operations that wait for a run of helm";
        r.register("helm_waiting", help, self.helm_waiting.clone());
        self.charts.register(r);
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut body = String::new();
        // Writing into a String cannot fail, and half an answer is better than none.
        if text::encode(&mut body, &self.registry).is_err() {
            tracing::warn!("the metrics could not be encoded whole");
        }
        body
    }

    /// One request answered. `route` is the template (`/api/v1/pod/{namespace}`), never the path.
    /// Handles are kept for each route, so that a request neither copies labels nor hashes them.
    pub fn request(&self, route: &str, method: &str, status: u16, elapsed: Duration) {
        let label = (method_label(method), status_class(status));
        let seconds = elapsed.as_secs_f64();
        if let Some(handles) = self.handles.get(route)
            && let Some((_, counter)) = handles.counters.iter().find(|(known, _)| *known == label)
        {
            counter.inc();
            handles.seconds.observe(seconds);
            return;
        }
        let labels = Route { route: route.to_owned(), method: label.0, status: label.1 };
        let counter = self.requests.get_or_create_owned(&labels);
        counter.inc();
        let mut handles = self.handles.entry(labels.route.clone()).or_insert_with(|| Handles {
            seconds: self.seconds.get_or_create_owned(&RouteOnly { route: labels.route }),
            counters: Vec::new(),
        });
        handles.seconds.observe(seconds);
        if !handles.counters.iter().any(|(known, _)| *known == label) {
            handles.counters.push((label, counter));
        }
    }

    /// How the cache of a kind stands: counted where it happens, brought here when asked for.
    pub fn cache_counts(&self, kind: &str, events: u64, malformed: u64, restarts: u64) {
        set(&self.events.get_or_create(&of(kind)), events);
        set(&self.malformed.get_or_create(&of(kind)), malformed);
        set(&self.restarts.get_or_create(&of(kind)), restarts);
    }

    /// Client connections open now, upgraded ones included, and tunnels of the passthrough alone.
    pub fn connections(&self, open: usize, tunnels: usize) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.tunnels.set(i64::try_from(tunnels).unwrap_or(i64::MAX));
    }

    /// How many rows of a kind the cache holds now.
    pub fn cache_rows(&self, kind: &str, rows: usize) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.rows.get_or_create(&of(kind)).set(rows);
    }

    /// Whether the cache has all of a kind.
    pub fn cache_synced(&self, kind: &str, synced: bool) {
        self.synced.get_or_create(&of(kind)).set(i64::from(synced));
    }

    /// Questions asked of the API server about rights, by answer.
    pub fn access_reviews(&self, allowed: u64, denied: u64, failed: u64) {
        for (outcome, count) in [("allowed", allowed), ("denied", denied), ("failed", failed)] {
            set(&self.reviews.get_or_create(&Outcome { outcome }), count);
        }
    }

    /// Requests to the API server: those it answered and those it did not.
    pub fn upstream(&self, answered: u64, failed: u64) {
        for (outcome, count) in [("answered", answered), ("failed", failed)] {
            set(&self.upstream.get_or_create(&Outcome { outcome }), count);
        }
    }

    /// The history of usage: how many series, whether the last poll was answered, and how many were
    /// and were not.
    pub fn usage(&self, series: usize, connected: bool, answered: u64, failed: u64) {
        self.usage_series.set(i64::try_from(series).unwrap_or(i64::MAX));
        self.usage_connected.set(connected.into());
        for (outcome, count) in [("answered", answered), ("failed", failed)] {
            set(&self.usage_polls.get_or_create(&Outcome { outcome }), count);
        }
    }

    /// The engine that was found, how its runs ended, and how many run and wait now.
    pub fn helm(
        &self,
        version: Option<&str>,
        outcomes: &[(&'static str, u64)],
        children: usize,
        waiting: usize,
    ) {
        self.helm_engine.clear();
        if let Some(version) = version {
            let label = Version { version: version.to_owned() };
            self.helm_engine.get_or_create(&label).set(1);
        }
        for &(outcome, count) in outcomes {
            set(&self.helm_runs.get_or_create(&Outcome { outcome }), count);
        }
        self.helm_children.set(i64::try_from(children).unwrap_or(i64::MAX));
        self.helm_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// What refreshes have made of the repositories of charts.
    pub fn charts(&self, now: &Charts) {
        let metrics = &self.charts;
        for &(outcome, count) in &now.refreshes {
            set(&metrics.refreshes.get_or_create(&Outcome { outcome }), count);
        }
        let seconds = now.refreshing.as_secs_f64();
        metrics.refreshing.inner().store(seconds.to_bits(), Ordering::Relaxed);
        metrics.last_refresh.set(now.last_refresh.as_secs_f64());
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for &(state, count) in &now.repositories {
            metrics.repositories.get_or_create(&State { state }).set(number(count));
        }
        metrics.charts.set(number(now.charts));
        metrics.versions.set(number(now.versions));
        metrics.bytes.set(number(now.bytes));
        metrics.skipped.set(number(now.skipped));
    }

    /// Bytes of archives on disk, and how often one was there and had to be fetched.
    pub fn chart_archives(&self, bytes: u64, hits: u64, misses: u64) {
        self.charts.archive_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        for (outcome, count) in [("hit", hits), ("miss", misses)] {
            set(&self.charts.archives.get_or_create(&Outcome { outcome }), count);
        }
    }

    /// The served certificate's end in seconds since 1970, and what was wrong with certificates.
    pub fn certificate(&self, not_after: i64, failures: u64) {
        self.not_after.set(not_after);
        set(&self.reload_failures, failures);
    }
}

/// Brings a counter to a value that is counted elsewhere and only grows.
fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

fn of(kind: &str) -> Kind {
    Kind { kind: kind.to_owned() }
}

/// `2xx` and so on: what a status is called as a label.
fn status_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}

/// A client may invent methods; the labels may not grow with them.
fn method_label(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_shows_with_its_template_and_status_class() {
        let metrics = Metrics::default();
        metrics.request("/api/v1/pod/{namespace}", "GET", 204, Duration::from_millis(3));
        metrics.request("/api/v1/pod/{namespace}", "BREW", 599, Duration::from_millis(3));
        let text = metrics.encode();
        let line = "binnacle_http_requests_total{route=\"/api/v1/pod/{namespace}\",method=\"GET\",status=\"2xx\"} 1";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("method=\"other\",status=\"5xx\""), "{text}");
        assert!(text.contains("binnacle_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn what_is_counted_elsewhere_shows_with_its_latest_value() {
        let metrics = Metrics::default();
        metrics.connections(5, 2);
        metrics.connections(3, 1);
        metrics.cache_synced("pod", true);
        metrics.cache_counts("pod", 10, 1, 0);
        metrics.cache_counts("pod", 12, 1, 0);
        metrics.usage(2, true, 7, 3);
        let text = metrics.encode();
        assert!(text.contains("binnacle_connections_open 3"), "{text}");
        assert!(text.contains("binnacle_tunnels_open 1"), "{text}");
        assert!(text.contains("binnacle_cache_synced{kind=\"pod\"} 1"), "{text}");
        assert!(text.contains("binnacle_cache_events_total{kind=\"pod\"} 12"), "{text}");
        let polls = text.lines().filter(|line| line.starts_with("binnacle_usage_polls_total{"));
        let polls = polls.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
        assert_eq!(polls.sum::<u64>(), 10, "none twice: {text}");
    }

    #[test]
    fn charts_show_with_their_totals_and_no_name() {
        let metrics = Metrics::default();
        let mut now = Charts {
            refreshes: vec![("changed", 2), ("failed", 1)],
            refreshing: Duration::from_millis(1500),
            last_refresh: Duration::from_millis(250),
            repositories: vec![("ok", 3), ("failing", 1)],
            charts: 20,
            ..Charts::default()
        };
        metrics.charts(&now);
        (now.charts, now.skipped) = (10, 4);
        metrics.charts(&now);
        metrics.chart_archives(1 << 20, 7, 2);
        let text = metrics.encode();
        for line in [
            "chart_refreshes_total{outcome=\"changed\"} 2",
            "chart_refresh_seconds_total 1.5",
            "chart_refresh_last_seconds 0.25",
            "chart_repositories{state=\"failing\"} 1",
            "chart_catalogue_charts 10",
            "chart_catalogue_skipped_entries 4",
            "chart_archive_cache_bytes 1048576",
            "chart_archive_cache_lookups_total{outcome=\"hit\"} 7",
        ] {
            assert!(text.contains(&format!("\nbinnacle_{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn levels_and_directives_are_understood() {
        assert!(filter("info").is_some());
        assert!(filter("info,binnacle::cache=debug").is_some());
        assert!(filter("loud").is_none());
        assert!(filter("binnacle=loud").is_none());
    }
}
