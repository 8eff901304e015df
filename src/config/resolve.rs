//! Layers into a `Config`: the file under the environment under the flags, each value judged once, with its origin remembered.
//! NOT here: what a value must look like (`values`), nor what is done with it (the rooms).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::{Map, Value};

use super::layer::Layer;
use super::{
    Certificate, Charts, ClusterChoice, Config, Drain, Exit, Front, Listeners, Log, ProxyRules,
    Reads, Web, values,
};

/// A configuration is a page of text; more is not ours.
const LARGEST_FILE: u64 = 1 << 20;
/// A value in a message is shown to this many characters.
const SHOWN: usize = 120;
/// How many edits away a misspelt key may be to be taken for a known one.
const CLOSE: usize = 3;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    File,
    Default,
}

/// The settings in effect, as text, each with its origin: what `binnacle config check` prints. There are no secrets among them.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    key: &'static str,
    value: String,
    origin: String,
}

impl Effective {
    /// A usage error about this setting that only a look into what it names can find: a kubeconfig without the context, a
    /// certificate that is none. Of several lines the first is told: those below may quote what the file holds.
    pub fn refuse(&self, key: &str, reason: &dyn fmt::Display) -> Exit {
        let reason = reason.to_string();
        let reason = reason.lines().next().unwrap_or_default();
        match self.rows.iter().find(|row| row.key == key) {
            Some(row) => Exit::usage(format_args!("{} {:?}: {reason}", row.origin, row.value)),
            None => Exit::usage(format_args!("{key}: {reason}")),
        }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { key, value, origin } in &self.rows {
            // A message may have several lines, and each setting is a row.
            let value = value.replace('\n', "\\n").replace('\r', "\\r");
            let value = if value.is_empty() { "-" } else { value.as_str() };
            writeln!(f, "{key:<22} {value:<40} ({origin})")?;
        }
        Ok(())
    }
}

/// One configuration from what the command line and the environment gave and, if there is one, the file.
pub(super) fn resolve(
    given: &Layer,
    matches: &ArgMatches,
    file: Option<&str>,
) -> Result<Config, Exit> {
    let file = file.filter(|path| !path.is_empty()).map(PathBuf::from);
    let below = file.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let mut merged = fields(&below);
    let mut origins: BTreeMap<String, Origin> =
        merged.keys().map(|key| (key.clone(), Origin::File)).collect();
    for (key, value) in fields(given) {
        let flag = matches.value_source(&key.replace('-', "_")) == Some(ValueSource::CommandLine);
        // A variable that is set to nothing is how manifests leave one out.
        if !flag && is_empty(&value) {
            continue;
        }
        let origin = if flag { Origin::Flag } else { Origin::Environment };
        origins.insert(key.clone(), origin);
        merged.insert(key, value);
    }
    let layer = serde_json::from_value(Value::Object(merged)).map_err(Exit::usage)?;
    Reader { file, origins, rows: Vec::new() }.config(layer)
}

/// What a layer says, without what it leaves open.
fn fields(layer: &Layer) -> Map<String, Value> {
    match serde_json::to_value(layer) {
        Ok(Value::Object(map)) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        _ => false,
    }
}

fn read_file(path: &Path) -> Result<Layer, Exit> {
    let shown = path.display();
    let refuse = |reason: &dyn fmt::Display| {
        Exit::usage(format_args!("the configuration file {shown} cannot be read: {reason}"))
    };
    let size = std::fs::metadata(path).map_err(|error| refuse(&error))?.len();
    if size > LARGEST_FILE {
        return Err(refuse(&"it is larger than 1 MiB"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
    parse_file(&text, path)
}

/// An empty file, or one of comments only, says nothing.
fn parse_file(text: &str, path: &Path) -> Result<Layer, Exit> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Layer::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let reason = match error.without_snippet() {
            serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
                unknown_key(field, expected)
            }
            // In the reader's own words these tell a programmer what to do.
            serde_saphyr::Error::NullIntoString { .. } => {
                "an item of a list has no value".to_owned()
            }
            serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
                format!("the key {:?} is there twice", shorten(key.as_deref().unwrap_or_default()))
            }
            serde_saphyr::Error::MultipleDocuments { .. } => {
                "a second document begins; give one".to_owned()
            }
            other => other.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        Exit::usage(format_args!("{}:{line}: {reason}", path.display()))
    })
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|known| (distance(key, known), known)).min();
    let key = shorten(key);
    match nearest {
        Some((edits, known)) if edits <= CLOSE => {
            format!("unknown key {key:?}; did you mean {known:?}?")
        }
        _ => format!("unknown key {key:?}; binnacle --help lists the settings"),
    }
}

/// Edits (insert, delete, replace) from one word to the other: Levenshtein's distance, one row of the table at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().take(SHOWN).enumerate() {
        let mut next = vec![above + 1];
        let pairs = row.iter().zip(row.iter().skip(1));
        for ((diagonal, up), other) in pairs.zip(&to) {
            let left = next.last().copied().unwrap_or_default();
            let replaced = diagonal + usize::from(letter != *other);
            next.push(replaced.min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Reads the settings one after the other and keeps what it showed for `Effective`.
struct Reader {
    file: Option<PathBuf>,
    origins: BTreeMap<String, Origin>,
    rows: Vec<Row>,
}

impl Reader {
    fn config(mut self, mut layer: Layer) -> Result<Config, Exit> {
        let from = &mut layer;
        Ok(Config {
            listeners: self.listeners(from)?,
            cluster: self.cluster(from)?,
            state_dir: self.state_dir(from.state_dir.take())?,
            front: self.front(from)?,
            web: self.web(from)?,
            certificate: self.certificate(from)?,
            reads: self.reads(from)?,
            proxy: self.proxy(from)?,
            charts: self.charts(from)?,
            log: Log {
                level: self.one("log-level", from.log_level.take(), "info", values::log_level)?,
                format: self.one(
                    "log-format",
                    from.log_format.take(),
                    "text",
                    values::log_format,
                )?,
            },
            drain: Drain {
                delay: self.one("drain-delay", from.drain_delay.take(), "5", values::duration)?,
                grace: self.one("drain-grace", from.drain_grace.take(), "20", values::duration)?,
            },
            effective: Effective { rows: self.rows },
        })
    }

    fn listeners(&mut self, from: &mut Layer) -> Result<Listeners, Exit> {
        let plain = from.insecure_listen.take();
        Ok(Listeners {
            https: self.one("listen", from.listen.take(), "127.0.0.1:8443", values::address)?,
            http: self.optional("insecure-listen", plain, values::address)?,
            proxy: self.optional("proxy-listen", from.proxy_listen.take(), values::loopback)?,
        })
    }

    fn cluster(&mut self, from: &mut Layer) -> Result<ClusterChoice, Exit> {
        Ok(ClusterChoice {
            kubeconfig: self.optional("kubeconfig", from.kubeconfig.take(), values::file)?,
            context: self.optional("context", from.context.take(), values::name)?,
            demo: self.one("demo", from.demo.take(), "false", values::boolean)?,
            demo_pods: self.optional("demo-pods", from.demo_pods.take(), values::demo_pods)?,
        })
    }

    fn front(&mut self, from: &mut Layer) -> Result<Front, Exit> {
        let locale = from.default_locale.take();
        let origins = from.trusted_origins.take();
        Ok(Front {
            static_dir: self.optional("static-dir", from.static_dir.take(), values::directory)?,
            base_path: self.one("base-path", from.base_path.take(), "", values::base_path)?,
            default_locale: self.one("default-locale", locale, "en", values::locale)?,
            trusted_origins: self.many("trusted-origins", origins, &[], values::origin)?,
            max_body: self.one("max-body", from.max_body.take(), "3Mi", values::body_size)?,
        })
    }

    fn web(&mut self, from: &mut Layer) -> Result<Web, Exit> {
        let protection = from.csrf_protection.take();
        let severity = from.system_banner_severity.take();
        let namespace = from.settings_namespace.take();
        let (name, default) = (from.settings_name.take(), "kubernetes-dashboard-settings");
        Ok(Web {
            locale: self.optional("static-locale", from.static_locale.take(), values::language)?,
            csrf_protection: self.one("csrf-protection", protection, "true", values::boolean)?,
            csrf_key_file: self.optional(
                "csrf-key-file",
                from.csrf_key_file.take(),
                values::file,
            )?,
            csrf_secret: self.optional("csrf-secret", from.csrf_secret.take(), values::secret)?,
            settings_namespace: self.optional(
                "settings-namespace",
                namespace,
                values::namespace,
            )?,
            settings_name: self.one("settings-name", name, default, values::config_map)?,
            banner: self.one("system-banner", from.system_banner.take(), "", values::text)?,
            banner_severity: self.one(
                "system-banner-severity",
                severity,
                "INFO",
                values::severity,
            )?,
        })
    }

    fn reads(&mut self, from: &mut Layer) -> Result<Reads, Exit> {
        let stale = from.stale_while_away.take();
        let recheck = from.stream_recheck.take();
        let (idle, total) = (from.terminal_idle.take(), from.terminal_total.take());
        Ok(Reads {
            namespaces: self.many("namespaces", from.namespaces.take(), &[], values::namespace)?,
            shared_cache: self.one(
                "shared-cache",
                from.shared_cache.take(),
                "true",
                values::boolean,
            )?,
            stale_while_away: self.one("stale-while-away", stale, "60", values::duration)?,
            stream_recheck: self.one("stream-recheck", recheck, "10", values::recheck)?,
            terminal_idle: self.one("terminal-idle", idle, "30m", values::of_shells)?,
            terminal_total: self.one("terminal-total", total, "12h", values::of_shells)?,
        })
    }

    /// The defaults are `kubectl proxy`'s: its command line is the documentation of ours. There, too,
    /// no text is no pattern, where as a pattern it would fit everything.
    fn proxy(&mut self, from: &mut Layer) -> Result<ProxyRules, Exit> {
        let mut rules = |key, given: &mut Option<Vec<String>>, default: &[&str]| {
            let given = given.take().map(|texts| if texts == [""] { Vec::new() } else { texts });
            self.many(key, given, default, values::pattern)
        };
        let loopback = ["^localhost$", r"^127\.0\.0\.1$", r"^\[::1\]$"];
        let shells = ["^/api/.*/pods/.*/exec", "^/api/.*/pods/.*/attach"];
        Ok(ProxyRules {
            accept_paths: rules("proxy-accept-paths", &mut from.proxy_accept_paths, &["^.*"])?,
            reject_paths: rules("proxy-reject-paths", &mut from.proxy_reject_paths, &shells)?,
            accept_hosts: rules("proxy-accept-hosts", &mut from.proxy_accept_hosts, &loopback)?,
            reject_methods: rules("proxy-reject-methods", &mut from.proxy_reject_methods, &["^$"])?,
        })
    }

    fn charts(&mut self, from: &mut Layer) -> Result<Charts, Exit> {
        let protected = from.protected_releases.take();
        let core = ["kube-system/*", "kube-public/*", "kube-node-lease/*"];
        let (hosts, silence) = (from.chart_hosts.take(), from.operation_silence.take());
        Ok(Charts {
            helm: self.optional("helm", from.helm.take(), values::path)?,
            // Our own image, even after its file was replaced; where there is no such path the file.
            guard: if cfg!(target_os = "linux") {
                PathBuf::from("/proc/self/exe")
            } else {
                std::env::current_exe().unwrap_or_default()
            },
            protected: self.many("protected-releases", protected, &core, values::releases)?,
            hosts: self.many("chart-hosts", hosts, &[], values::host_and_port)?,
            air_gapped: self.one(
                "charts-air-gapped",
                from.charts_air_gapped.take(),
                "false",
                values::boolean,
            )?,
            repositories: self.optional("repositories", from.repositories.take(), values::file)?,
            silence: self.one("operation-silence", silence, "30s", values::silence)?,
        })
    }

    fn certificate(&mut self, from: &mut Layer) -> Result<Certificate, Exit> {
        let cert = self.optional("tls-cert", from.tls_cert.take(), values::file)?;
        let key = self.optional("tls-key", from.tls_key.take(), values::file)?;
        let files = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(self.alone("tls-cert", "give --tls-key too")),
            (None, Some(_)) => return Err(self.alone("tls-key", "give --tls-cert too")),
        };
        let names = from.tls_names.take();
        let names = self.many("tls-names", names, &[], values::certificate_name)?;
        let secret = self.optional("tls-secret", from.tls_secret.take(), values::secret)?;
        if files.is_some() && secret.is_some() {
            let reason = "--tls-cert and --tls-key are served as they are; leave one of them out";
            return Err(self.alone("tls-secret", reason));
        }
        Ok(Certificate { files, names, secret })
    }

    fn state_dir(&mut self, given: Option<String>) -> Result<PathBuf, Exit> {
        if let Some(directory) = self.optional("state-dir", given, values::path)? {
            return Ok(directory);
        }
        let directory = default_state_dir().ok_or_else(|| {
            Exit::usage("--state-dir: there is no home directory to put one in; give a directory")
        })?;
        // The row is there already, without a value: it shows what was found instead.
        if let Some(row) = self.rows.last_mut() {
            row.value = directory.display().to_string();
        }
        Ok(directory)
    }

    fn one<T>(
        &mut self,
        key: &'static str,
        given: Option<String>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Exit> {
        let text = given.unwrap_or_else(|| default.to_owned());
        let value = self.judge(key, &text, parse)?;
        self.show(key, text);
        Ok(value)
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        given: Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Exit> {
        let value = given.as_deref().map(|text| self.judge(key, text, parse)).transpose()?;
        self.show(key, given.unwrap_or_default());
        Ok(value)
    }

    fn many<T>(
        &mut self,
        key: &'static str,
        given: Option<Vec<String>>,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Exit> {
        let texts =
            given.unwrap_or_else(|| default.iter().map(|text| (*text).to_owned()).collect());
        let values: Result<_, _> = texts.iter().map(|text| self.judge(key, text, &parse)).collect();
        self.show(key, texts.join(","));
        values
    }

    fn judge<T>(
        &self,
        key: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Exit> {
        parse(text).map_err(|reason| {
            Exit::usage(format_args!("{} {:?}: {reason}", self.origin(key), shorten(text)))
        })
    }

    fn alone(&self, key: &str, reason: &str) -> Exit {
        Exit::usage(format_args!("{}: {reason}", self.origin(key)))
    }

    fn show(&mut self, key: &'static str, value: String) {
        let origin = self.origin(key);
        self.rows.push(Row { key, value, origin });
    }

    /// What a person would look for to change the value.
    fn origin(&self, key: &str) -> String {
        match self.origins.get(key).copied().unwrap_or(Origin::Default) {
            Origin::Flag => format!("--{key}"),
            Origin::Environment => {
                format!("BINNACLE_{}", key.replace('-', "_").to_ascii_uppercase())
            }
            Origin::File => match &self.file {
                Some(path) => format!("{key} in {}", path.display()),
                None => key.to_owned(),
            },
            Origin::Default => "default".to_owned(),
        }
    }
}

/// The XDG base directory specification, which says to ignore a relative path.
fn default_state_dir() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name).map(PathBuf::from).filter(|directory| directory.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")))?;
    Some(state.join("binnacle"))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
