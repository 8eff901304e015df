//! What went wrong, out of what the engine said: one class of a fixed list, the engine's own last
//! words, and the violations of a schema one by one.
//!
//! Helm ends with 1 whatever happens, so its texts (3.x and 4.x) are all there is to go by. What
//! the release is like afterwards is not told here; its record tells.

use serde::Serialize;

use super::child::STDERR_KEPT;
use super::engine::Why;
use super::redact::{is_crash, is_log, without_values};

/// The engine's last words: an error with a few objects in it; the log has the rest.
const DETAIL: usize = 2048;
/// Lines of what is no error in Helm's form.
const LINES: usize = 20;
/// Told of an end that may be that of a value.
const LONG: &str = "The engine's error is longer than 64 KiB; the log has its beginning.";
/// Violations of one error; nobody reads more.
const VIOLATIONS: usize = 100;
/// Characters of one violation.
const VIOLATION: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The message for a person is `helm-<class>`.
    pub class: &'static str,
    /// The engine's own words, not translated; may be empty.
    pub detail: String,
    pub schema: Vec<SchemaError>,
}

/// A value that a chart's schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaError {
    pub chart: String,
    /// A JSON pointer; empty for the values as a whole.
    pub path: String,
    pub message: String,
}

/// Class, and what its texts contain in lower case; all parts of one text must be there.
type Rule = (&'static str, &'static [&'static [&'static str]]);

/// The first that fits. First come those whose text can hold words of a chart's author, then those
/// that stand in a text of a wider one: a quota is a kind of "forbidden", inside a failed hook.
const RULES: &[Rule] = &[
    (
        "values-invalid",
        &[
            &["values don't meet the specifications of the schema"],
            &["failed to parse values.json"],
            &["unable to validate schema"],
        ],
    ),
    (
        "render-failed",
        &[
            &["execution error at ("],
            &["parse error at ("],
            &["parse error in ("],
            &["yaml parse error on "],
            &["executing \"", "at <"],
            &["error during tpl function execution"],
            &["rendering template failed"],
            &["error converting yaml to json", "manifest"],
            &["error parsing yaml"],
        ],
    ),
    (
        "chart-broken",
        &[
            &["chart.yaml file is missing"],
            &["unable to detect chart"],
            &[": validation: "],
            &["gzipped archive"],
            &["does not appear to be a valid chart file"],
            &["chart illegally "],
            &["chart contains illegally named files"],
            &["chart yaml not in base directory"],
            &["decompressed chart "],
            &["no files in chart archive"],
            &["invalid chart apiversion"],
            &["cannot load chart."],
            &["cannot load values.yaml"],
            &["cannot load requirements."],
            &["error unpacking subchart"],
            &["charts are not installable"],
            &["missing in charts/ directory"],
            &["chart requires kubeversion"],
            &["gzip: "],
            &["archive/tar: "],
        ],
    ),
    (
        "name-taken",
        &[&["re-use a name that is still in use"], &["reuse a name that is still in use"]],
    ),
    (
        "pending",
        &[
            &["another operation (install/upgrade/rollback) is in progress"],
            // Somebody else wrote this revision in the meantime.
            &["sh.helm.release.v1.", "already exists"],
            &["release: already exists"],
        ],
    ),
    ("no-deployed", &[&["has no deployed releases"]]),
    (
        "not-found",
        &[
            &["release: not found"],
            &["release has no ", " version"],
            &["no revision for release"],
            &["is already deleted"],
        ],
    ),
    (
        "credentials",
        &[
            &["asked for the client to provide credentials"],
            &["error: unauthorized"],
            &[": unauthorized"],
            &["401 unauthorized"],
        ],
    ),
    (
        "webhook",
        &[&["admission webhook"], &["failed calling webhook"], &["validatingadmissionpolicy "]],
    ),
    ("namespace-terminating", &[&["because it is being terminated"]]),
    ("quota", &[&["exceeded quota"], &["failed quota: "], &["status unknown for quota"]]),
    (
        "too-large",
        &[
            &["too long: may not be more than 1048576 bytes"],
            &["request entity too large"],
            &["request is too large"],
            &["trying to send message larger than max"],
            // Go's runtime, where the guard gives no more.
            &["fatal error: ", "out of memory"],
            &["fatal error: ", "cannot allocate memory"],
        ],
    ),
    (
        "unreachable",
        &[
            &["cluster unreachable"],
            &["connection refused"],
            &["connection reset by peer"],
            &["client connection lost"],
            &["no such host"],
            &["i/o timeout"],
            &["tls handshake"],
            &["client.timeout exceeded"],
            &["unexpected eof"],
            &["server is currently unable to handle the request"],
        ],
    ),
    (
        "conflict",
        &[
            &["apply failed with ", " conflict"],
            &["conflict occurred while applying object"],
            &["cannot be imported into the current release"],
            &["invalid ownership metadata"],
            &["cannot be owned:"],
            &["the object has been modified"],
            &["forceconflicts enabled when serversideapply disabled"],
            &["\" already exists"],
        ],
    ),
    (
        "immutable",
        &[
            &["field is immutable"],
            &["forbidden: updates to statefulset spec"],
            &["may not be changed"],
            &["forbidden: spec is immutable"],
            &["updates to parameters are forbidden"],
        ],
    ),
    ("forbidden", &[&["\" is forbidden: "], &[" is forbidden: user "]]),
    ("namespace-missing", &[&["namespaces \"", "\" not found"]]),
    (
        // Before `crd-missing`: what lacks its kind is there already, and nothing can be installed for
        // it. When an uninstall fails by this, Helm does not say why.
        "api-removed",
        &[
            &["objects from current release manifest", "no matches for kind"],
            &["removed kubernetes api(s)"],
        ],
    ),
    (
        "crd-missing",
        &[
            &["no matches for kind"],
            &["resource mapping not found"],
            &["could not find the requested resource"],
        ],
    ),
    (
        "invalid-object",
        &[
            &["\" is invalid: "],
            &["failed to create typed patch object"],
            &["field not declared in schema"],
            &["strict decoding error"],
            &["error validating data"],
            &["error validating \""],
            &["cannot be handled as a "],
            &["unable to convert unstructured object"],
            &["cannot unmarshal "],
        ],
    ),
    ("cancelled", &[&["context canceled"]]),
    (
        "hook-failed",
        &[
            &["failed pre-install: "],
            &["failed post-install: "],
            &["pre-upgrade hooks failed: "],
            &["post-upgrade hooks failed: "],
            &["warning: hook "],
            // A hook of a rollback or an uninstall that Helm 4 waits for.
            &["resource pod/", "not ready. status: failed"],
            &["resource job/", "not ready. status: failed"],
            &["error: pod ", " failed"],
            &["error: job ", " failed"],
            &["* pod ", " failed"],
            &["* job ", " failed"],
            &[" failed: job ", " failed"],
            &[" failed: pod ", " failed"],
        ],
    ),
    (
        "timeout",
        &[
            &["context deadline exceeded"],
            &["timed out waiting for"],
            &["would exceed context deadline"],
            &["not ready. status: "],
            &["still exists. status: "],
        ],
    ),
    (
        "engine",
        &[
            &["unknown flag: "],
            &["unknown shorthand flag"],
            &["unknown command "],
            &["invalid argument "],
            &["panic: "],
            &["fatal error: "],
            &["exec format error"],
        ],
    ),
    // Somebody has deleted what was waited for, perhaps with its namespace.
    ("not-found", &[&[" failed: ", "\" not found"]]),
];

/// Classes of what goes wrong while something runs: in a test it is the test that failed. What has
/// no class is among them, since Helm 3 says of a failed test only that its pod has no log.
const RUNNING: [&str; 3] = ["hook-failed", "timeout", "unknown"];

/// `why`: who ended the engine; `stderr`: the end of what it wrote there.
pub fn classify(why: Why, stderr: &str) -> Trouble {
    let told = last_words(stderr);
    let words = told.as_deref().unwrap_or(stderr);
    let class = match why {
        Why::Cancelled => "cancelled",
        Why::TimedOut => "timeout",
        Why::TooMuchOutput => "output-limit",
        Why::Itself => class(&words.to_lowercase()),
    };
    let schema = if class == "values-invalid" {
        violations(told.as_deref().unwrap_or_default())
    } else {
        Vec::new()
    };
    Trouble { class, detail: cut(told.as_deref().unwrap_or(LONG).trim(), DETAIL).into(), schema }
}

impl Trouble {
    /// The same, seen in a test: hooks are all that it runs.
    pub fn of_test(mut self) -> Self {
        if RUNNING.contains(&self.class) {
            self.class = "test-failed";
        }
        self
    }
}

/// Every class that words lead to.
#[cfg(test)]
pub fn classes() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(class, _)| *class).chain(["unknown", "timeout", "output-limit"])
}

fn class(words: &str) -> &'static str {
    let fits = |text: &&[&str]| text.iter().all(|part| words.contains(part));
    let rule = RULES.iter().find(|(_, texts)| texts.iter().any(fits));
    rule.map_or("unknown", |(class, _)| *class)
}

/// From the last line that begins with `Error: ` to the end, without the log; without such a line
/// (a crash, a kill) what there is, unless it may be the end of a value.
fn last_words(stderr: &str) -> Option<String> {
    let told = without_values(stderr);
    let lines: Vec<&str> = told.lines().filter(|line| !is_log(line)).collect();
    let error = lines.iter().rposition(|line| line.starts_with("Error: "));
    // A crash tells its reason first and its stack after it.
    let crash = lines.iter().position(|line| is_crash(line));
    let from = match error.or(crash) {
        Some(from) => from,
        // In so many the beginning may be missing.
        None if stderr.len() >= STDERR_KEPT => return None,
        None => lines.len().saturating_sub(LINES),
    };
    let words = lines.into_iter().skip(from).filter(|line| !line.starts_with("Use --debug flag"));
    Some(words.collect::<Vec<_>>().join("\n"))
}

/// The violations that the text lists below the name of each chart.
fn violations(words: &str) -> Vec<SchemaError> {
    let (mut found, mut chart) = (Vec::new(), "");
    let lines = words.lines().skip_while(|line| !line.contains("values don't meet the spec"));
    for line in lines.skip(1).take_while(|line| !line.trim().is_empty()) {
        let is_item = line.trim_start().starts_with("- ");
        if let (false, Some(name)) = (is_item, line.strip_suffix(':')) {
            chart = name;
            continue;
        }
        let (path, message) = violation(line.trim());
        // A parent says nothing of its own; its children follow.
        if message != "validation failed" && found.len() < VIOLATIONS {
            let message = message.chars().take(VIOLATION).collect();
            found.push(SchemaError { chart: cut(chart, VIOLATION).to_owned(), path, message });
        }
    }
    found
}

/// `- at '/a/b': message`; before Helm 3.18 `- a.b: message`.
fn violation(line: &str) -> (String, &str) {
    let Some(item) = line.strip_prefix("- ") else { return (String::new(), line) };
    if let Some((path, message)) = item.strip_prefix("at '").and_then(|at| at.split_once("': ")) {
        return (path.to_owned(), message);
    }
    match item.split_once(": ") {
        Some(("(root)", message)) => (String::new(), message),
        Some((path, message)) => (format!("/{}", path.replace('.', "/")), message),
        None => (String::new(), item),
    }
}

/// At most `most` bytes of a text, from its start.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
