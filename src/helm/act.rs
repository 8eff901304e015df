//! What a person asks of the engine: install, upgrade, rollback, uninstall or test, read out of a
//! request and checked before anything runs.
//!
//! It knows no HTTP and no flags (`argv` does), and not whether the cluster can do it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::fields::{self, Fields};
use super::words::Verb;
use super::{names, values};

/// A packed chart, as Helm's own limits and ours have it.
const ARCHIVE: usize = 20 * 1024 * 1024;
/// Names and versions of a catalogue, in bytes.
const NAMED: usize = 256;
/// Bytes of a description: it is a line in a history.
const DESCRIPTION: usize = 512;
/// Bytes of an OCI reference.
const REFERENCE: usize = 512;
/// Labels of a release: they are labels of its Secret.
const LABELS: usize = 64;
/// Ours: the protection of a release is among them.
const OURS: &str = "binnacle.dev";
/// Tests of one release that can be named.
const TESTS: usize = 100;

const DEPLOY: [&str; 15] = [
    "chart",
    "values",
    "set",
    "setString",
    "description",
    "labels",
    "createNamespace",
    "hooks",
    "skipSchemaValidation",
    "skipCrds",
    "takeOwnership",
    "rollbackOnFailure",
    "wait",
    "waitForJobs",
    "timeout",
];
const APPLY: [&str; 2] = ["serverSideApply", "forceConflicts"];

#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    Install(Deploy),
    Upgrade(Deploy),
    Rollback(Back),
    Uninstall(Gone),
    Test(Try),
}

impl Act {
    pub fn verb(&self) -> Verb {
        match self {
            Self::Install(_) => Verb::Install,
            Self::Upgrade(_) => Verb::Upgrade,
            Self::Rollback(_) => Verb::Rollback,
            Self::Uninstall(_) => Verb::Uninstall,
            Self::Test(_) => Verb::Test,
        }
    }

    pub fn name(&self) -> &'static str {
        self.verb().as_str()
    }
}

/// An install or an upgrade.
#[derive(Debug, Clone, PartialEq)]
pub struct Deploy {
    /// Of an install: none is to be generated.
    pub name: Option<String>,
    pub chart: ChartFrom,
    /// An object: the values, `set` and `setString` in one.
    pub values: Value,
    pub description: Option<String>,
    /// None takes the label off (upgrades only).
    pub labels: BTreeMap<String, Option<String>>,
    pub create_namespace: bool,
    pub hooks: bool,
    pub skip_schema_validation: bool,
    pub skip_crds: bool,
    pub take_ownership: bool,
    pub rollback_on_failure: bool,
    pub waiting: Waiting,
    pub apply: Apply,
    /// Of an upgrade: none is Helm's own way (the old values if no new ones are given).
    pub reuse: Option<Reuse>,
    /// Of an upgrade: revisions to keep, 0 for all.
    pub max_history: Option<u32>,
    /// Of an upgrade: install what is not there.
    pub install: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Back {
    /// 0 is the one before.
    pub revision: u32,
    pub hooks: bool,
    pub cleanup_on_fail: bool,
    pub waiting: Waiting,
    pub apply: Apply,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Gone {
    pub keep_history: bool,
    pub hooks: bool,
    pub description: Option<String>,
    pub waiting: Waiting,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    pub timeout: Duration,
    pub logs: bool,
    /// As Helm takes them: `name=x`, `!name=x`.
    pub filter: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ChartFrom {
    Archive(Bytes),
    Oci(String),
    /// `version` is one, or a range of them; empty: the newest stable one.
    Catalogue {
        repository: String,
        name: String,
        version: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub wait: Wait,
    pub for_jobs: bool,
    /// For each single operation of Kubernetes, not for all together.
    pub timeout: Duration,
}

/// What is waited for. Hooks always are; Helm knows no way to not wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Hooks,
    Watcher,
    Legacy,
}

/// How objects are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apply {
    /// None: as the release was before, and on the server at an install.
    pub server_side: Option<bool>,
    pub force_conflicts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Reset,
    Reuse,
    ResetThenReuse,
}

/// What is wrong with a request: which field, and the message that says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct BadAct {
    /// As it is called in the request; empty for the request as a whole.
    pub field: String,
    /// The id of a message; its arguments are [`BadAct::args`].
    pub what: &'static str,
    args: Vec<(&'static str, String)>,
}

impl BadAct {
    pub fn new(field: &str, what: &'static str) -> Self {
        Self { field: field.to_owned(), what, args: Vec::new() }.with("field", field)
    }

    /// Adds an argument of the message; long ones are cut.
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.args.push((name, value.to_string().chars().take(200).collect()));
        self
    }

    /// The arguments of the message; `field` is always among them.
    pub fn args(&self) -> Vec<(&'static str, &str)> {
        self.args.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// `POST …/release/{namespace}`.
pub fn install(body: &[u8]) -> Result<Act, BadAct> {
    let known = [&DEPLOY[..], &APPLY[..], &["name"][..]].concat();
    let mut fields = Fields::of_json(body, &known)?;
    let name = fields.text("name", usize::MAX)?;
    if let Some(name) = &name {
        names::release(name)?;
    }
    let deploy = deploy(&mut fields, false)?;
    Ok(Act::Install(Deploy { name, ..deploy }))
}

/// `PUT …/release/{namespace}/{name}`.
pub fn upgrade(body: &[u8]) -> Result<Act, BadAct> {
    let known = [&DEPLOY[..], &APPLY[..], &["reuse", "maxHistory", "install"][..]].concat();
    let mut fields = Fields::of_json(body, &known)?;
    let install = fields.flag("install", false)?;
    let ways = [
        ("reset", Reuse::Reset),
        ("reuse", Reuse::Reuse),
        ("resetThenReuse", Reuse::ResetThenReuse),
    ];
    let reuse = fields.choice("reuse", &ways)?;
    let max_history = fields.number("maxHistory", 0, 10_000)?;
    let deploy = deploy(&mut fields, !install)?;
    if deploy.create_namespace && !install {
        return Err(BadAct::new("createNamespace", "error-release-create-namespace"));
    }
    Ok(Act::Upgrade(Deploy { install, reuse, max_history, ..deploy }))
}

/// `POST …/rollback`.
pub fn rollback(body: &[u8]) -> Result<Act, BadAct> {
    let own = ["revision", "hooks", "cleanupOnFail", "wait", "waitForJobs", "timeout"];
    let mut fields = Fields::of_json(body, &[&own[..], &APPLY[..]].concat())?;
    Ok(Act::Rollback(Back {
        revision: fields.number("revision", 0, i32::MAX.unsigned_abs())?.unwrap_or_default(),
        hooks: fields.flag("hooks", true)?,
        cleanup_on_fail: fields.flag("cleanupOnFail", false)?,
        waiting: waiting(&mut fields, false)?,
        apply: apply(&mut fields)?,
    }))
}

/// The query of `DELETE …/release/{namespace}/{name}`.
pub fn uninstall(query: &str) -> Result<Act, BadAct> {
    let known = ["keepHistory", "hooks", "wait", "timeout", "description"];
    let mut fields = Fields::of_query(query, &known)?;
    Ok(Act::Uninstall(Gone {
        keep_history: fields.flag("keepHistory", false)?,
        hooks: fields.flag("hooks", true)?,
        description: fields.text("description", DESCRIPTION)?,
        waiting: waiting(&mut fields, false)?,
    }))
}

/// `POST …/test`.
pub fn test(body: &[u8]) -> Result<Act, BadAct> {
    let mut fields = Fields::of_json(body, &["timeout", "logs", "filter"])?;
    let filter = fields.texts("filter")?;
    let is_name = |name: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        !name.is_empty() && name.len() <= 253 && name.bytes().all(inside)
    };
    let wrong = filter.iter().find(|one| {
        let one = one.strip_prefix('!').unwrap_or(one);
        !one.strip_prefix("name=").is_some_and(is_name)
    });
    if let Some(wrong) = wrong {
        return Err(BadAct::new("filter", "error-release-test-filter").with("found", wrong));
    }
    if filter.len() > TESTS {
        return Err(BadAct::new("filter", "error-release-not-texts").with("most", TESTS));
    }
    let timeout = fields.timeout("timeout")?;
    Ok(Act::Test(Try { timeout, logs: fields.flag("logs", true)?, filter }))
}

/// The body of a preview: `act`, and beside it what that act takes itself.
pub fn preview(body: &[u8]) -> Result<Act, BadAct> {
    let mut object = fields::object(body)?;
    let act = object.remove("act");
    let wanted = act.as_ref().and_then(Value::as_str).unwrap_or_default();
    let parse = match wanted {
        "install" => install,
        "upgrade" => upgrade,
        "rollback" => rollback,
        other => {
            let bad = BadAct::new("act", "error-release-not-one-of");
            return Err(bad.with("found", other).with("known", "install, upgrade, rollback"));
        }
    };
    // As text alone: two trees at once take twice the room.
    let rest = Value::Object(object).to_string();
    parse(rest.as_bytes())
}

/// What installs and upgrades have in common.
fn deploy(fields: &mut Fields, may_unset: bool) -> Result<Deploy, BadAct> {
    let set = fields.texts("set")?;
    let set_string = fields.texts("setString")?;
    let rollback_on_failure = fields.flag("rollbackOnFailure", false)?;
    Ok(Deploy {
        name: None,
        chart: chart(fields.take("chart"))?,
        values: values::merged(fields.take("values"), &set, &set_string)?,
        description: fields.text("description", DESCRIPTION)?,
        labels: labels(fields.take("labels"), may_unset)?,
        create_namespace: fields.flag("createNamespace", false)?,
        hooks: fields.flag("hooks", true)?,
        skip_schema_validation: fields.flag("skipSchemaValidation", false)?,
        skip_crds: fields.flag("skipCrds", false)?,
        take_ownership: fields.flag("takeOwnership", false)?,
        rollback_on_failure,
        waiting: waiting(fields, rollback_on_failure)?,
        apply: apply(fields)?,
        reuse: None,
        max_history: None,
        install: false,
    })
}

/// `waits`: the act waits anyway, for it has to know whether it failed.
fn waiting(fields: &mut Fields, waits: bool) -> Result<Waiting, BadAct> {
    let ways = [
        ("none", Wait::Hooks),
        ("hooks", Wait::Hooks),
        ("watcher", Wait::Watcher),
        ("legacy", Wait::Legacy),
    ];
    let wait = fields.choice("wait", &ways)?.unwrap_or(Wait::Hooks);
    let for_jobs = fields.flag("waitForJobs", false)?;
    if for_jobs && wait == Wait::Hooks && !waits {
        return Err(BadAct::new("waitForJobs", "error-release-wait-for-jobs"));
    }
    Ok(Waiting { wait, for_jobs, timeout: fields.timeout("timeout")? })
}

fn apply(fields: &mut Fields) -> Result<Apply, BadAct> {
    let ways = [("auto", None), ("true", Some(true)), ("false", Some(false))];
    Ok(Apply {
        server_side: fields.choice("serverSideApply", &ways)?.flatten(),
        force_conflicts: fields.flag("forceConflicts", false)?,
    })
}

/// `{"archive":"<base64>"}`, `{"oci":"oci://…"}` or `{"repository":"…","name":"…","version":"…"}`.
fn chart(chart: Option<Value>) -> Result<ChartFrom, BadAct> {
    let Some(chart) = chart else { return Err(BadAct::new("chart", "error-field-missing")) };
    let Value::Object(mut chart) = chart else {
        return Err(BadAct::new("chart", "error-release-chart"));
    };
    if chart.contains_key("repository") {
        return catalogued(chart);
    }
    let (archive, oci) = (chart.remove("archive"), chart.remove("oci"));
    match (archive, oci, chart.is_empty()) {
        (Some(Value::String(archive)), None, true) => {
            if archive.len() / 4 * 3 > ARCHIVE + 2 {
                let bad = BadAct::new("chart.archive", "error-release-chart-large");
                return Err(bad.with("most", ARCHIVE));
            }
            match STANDARD.decode(archive) {
                Ok(archive) if !archive.is_empty() => Ok(ChartFrom::Archive(archive.into())),
                _ => Err(BadAct::new("chart.archive", "error-release-chart-base64")),
            }
        }
        (None, Some(Value::String(oci)), true) if is_reference(&oci) => Ok(ChartFrom::Oci(oci)),
        // It is not repeated: people put passwords there.
        (None, Some(Value::String(_)), true) => {
            Err(BadAct::new("chart.oci", "error-release-chart-oci"))
        }
        _ => Err(BadAct::new("chart", "error-release-chart")),
    }
}

fn catalogued(mut chart: Map<String, Value>) -> Result<ChartFrom, BadAct> {
    let mut text = |key: &str, or: Option<&str>| match chart.remove(key) {
        Some(Value::String(text)) if text.len() <= NAMED => Ok(text),
        None => or.map(str::to_owned).ok_or_else(|| BadAct::new("chart", "error-release-chart")),
        Some(_) => Err(BadAct::new("chart", "error-release-chart")),
    };
    let (repository, name) = (text("repository", None)?, text("name", None)?);
    let version = text("version", Some(""))?;
    if !chart.is_empty() {
        return Err(BadAct::new("chart", "error-release-chart"));
    }
    Ok(ChartFrom::Catalogue { repository, name, version })
}

/// `oci://host[:port]/repository[:tag][@sha256:…]`, as the distribution specification has it.
/// A `+` in a tag is Helm's own: versions have it.
fn is_reference(reference: &str) -> bool {
    let is_word = |text: &str, more: &[u8]| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
        edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inside)
    };
    let Some(rest) = reference.strip_prefix("oci://") else { return false };
    let (rest, digest) = rest.split_once('@').map_or((rest, None), |(a, b)| (a, Some(b)));
    let digest_ok = digest.is_none_or(|digest| {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    let Some((host, path)) = rest.split_once('/') else { return false };
    let (path, tag) = path.split_once(':').map_or((path, None), |(a, b)| (a, Some(b)));
    let (host, port) = host.split_once(':').map_or((host, None), |(a, b)| (a, Some(b)));
    let lower = path.bytes().all(|byte| !byte.is_ascii_uppercase());
    reference.len() <= REFERENCE
        && digest_ok
        && is_word(host, b".-")
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && lower
        && path.split('/').all(|part| is_word(part, b"._-"))
        && tag.is_none_or(|tag| tag.len() <= 128 && is_word(tag, b"._-+"))
}

fn labels(
    labels: Option<Value>,
    may_unset: bool,
) -> Result<BTreeMap<String, Option<String>>, BadAct> {
    let labels = match labels {
        None => Map::new(),
        Some(Value::Object(labels)) if labels.len() <= LABELS => labels,
        Some(_) => {
            return Err(BadAct::new("labels", "error-release-labels").with("most", LABELS));
        }
    };
    let checked = labels.into_iter().map(|(key, value)| {
        let wrong = |what| Err(BadAct::new("labels", what).with("key", &key));
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        let rest = prefix.strip_suffix(OURS);
        let ours = rest.is_some_and(|sub| sub.is_empty() || sub.ends_with('.'));
        if ours || !crate::kinds::release::is_custom(&key) {
            return wrong("error-release-label-reserved");
        }
        if !is_label_key(&key) {
            return wrong("error-release-label-key");
        }
        match value {
            Value::Null if may_unset => Ok((key, None)),
            // Helm takes the text for the order to take the label off.
            Value::String(value) if value != "null" && is_label_value(&value) => {
                Ok((key, Some(value)))
            }
            _ => wrong("error-release-label-value"),
        }
    });
    checked.collect()
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(a, b)| (Some(a), b));
    !name.is_empty()
        && is_label_value(name)
        && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(names::is_label))
}

fn is_label_value(value: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    value.len() <= 63
        && value.bytes().all(inside)
        && edge(value.bytes().next())
        && edge(value.bytes().last())
}

#[cfg(test)]
#[path = "act_tests.rs"]
mod tests;
