//! What went wrong, out of what the engine said: one class of a fixed list, the engine's own last
//! words, and the violations of a schema one by one.
//!
//! Helm ends with 1 whatever happens, so its texts (3.x and 4.x) are all there is to go by. What
//! the release is like afterwards is not told here; its record tells.

use std::borrow::Cow;

use serde::Serialize;

use super::engine::Why;

/// The engine's last words: an error with a few objects in it; the log has the rest.
const DETAIL: usize = 2048;
/// Lines of what is no error in Helm's form.
const LINES: usize = 20;
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
        "crd-missing",
        &[
            &["no matches for kind"],
            &["resource mapping not found"],
            &["could not find the requested resource"],
            &["removed kubernetes api(s)"],
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
            &["out of memory"],
            &["exec format error"],
        ],
    ),
];

/// Classes of what goes wrong while something runs: in a test it is the test that failed. What has no
/// class is among them, since Helm 3 says of a failed test only that its pod has no log.
const RUNNING: [&str; 3] = ["hook-failed", "timeout", "unknown"];

/// `why`: who ended the engine; `stderr`: the end of what it wrote there.
pub fn classify(why: Why, stderr: &str) -> Trouble {
    let words = last_words(stderr);
    let class = match why {
        Why::Cancelled => "cancelled",
        Why::TimedOut => "timeout",
        Why::TooMuchOutput => "output-limit",
        Why::Itself => class(&words.to_lowercase()),
    };
    let schema = if class == "values-invalid" { violations(&words) } else { Vec::new() };
    Trouble { class, detail: cut(words.trim(), DETAIL).to_owned(), schema }
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
/// (a crash, a kill) what there is.
fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !is_log(line)).collect();
    let error = lines.iter().rposition(|line| line.starts_with("Error: "));
    // A crash tells its reason first and its stack after it.
    let crash = lines.iter().position(|line| is_crash(line));
    let from = error.or(crash).unwrap_or(lines.len().saturating_sub(LINES));
    let words = lines.into_iter().skip(from);
    let words = words.filter(|line| !line.starts_with("Use --debug flag"));
    words.map(without_value).collect::<Vec<_>>().join("\n")
}

/// A violation without the value that it repeats, which may be a password; other lines as they are.
/// Values stand in single quotes, their own escaped (`quote` in jsonschema's `kind/kind.go`), but of
/// one that ends in a backslash nobody can tell the end: then, and where it was cut off, what is
/// told of it goes, too.
pub fn without_value(line: &str) -> Cow<'_, str> {
    let Some(message) = line.trim_start().strip_prefix("- at '").and_then(behind_quote) else {
        return line.into();
    };
    if !message.starts_with(": ") {
        return "- the value is not allowed".into();
    }
    let Some(value) = message.strip_prefix(": '") else { return line.into() };
    let head = line.strip_suffix(value).and_then(|head| head.strip_suffix('\''));
    let head = head.unwrap_or_default();
    let rest = behind_quote(value).unwrap_or_default();
    let word = value.strip_suffix(rest).unwrap_or_default();
    if rest.starts_with(" does not match pattern ") {
        format!("{head}the value{rest}").into()
    } else if let Some(format) = rest.strip_prefix(" is not valid ") {
        // The reason behind the colon may repeat parts of it.
        let format = format.split(':').next().unwrap_or_default();
        format!("{head}the value is not valid {format}").into()
    } else if rest.starts_with(" failed") && !word.contains('\\') {
        // `'allOf' failed`: a word of schemas.
        line.into()
    } else {
        format!("{head}the value is not allowed").into()
    }
}

/// What follows the first quote that is not escaped.
fn behind_quote(text: &str) -> Option<&str> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'\'' => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// Lines of Helm's and the Kubernetes client's logs (`level=WARN …`, `W1121 16:40:34.505437 …`).
fn is_log(line: &str) -> bool {
    let mut bytes = line.bytes();
    let is_klog = bytes.next().is_some_and(|byte| b"IWEF".contains(&byte))
        && bytes.by_ref().take(4).filter(u8::is_ascii_digit).count() == 4
        && bytes.next() == Some(b' ');
    is_klog || line.starts_with("level=") || line.starts_with("WARNING: ")
}

fn is_crash(line: &str) -> bool {
    line.starts_with("panic: ") || line.starts_with("fatal error: ")
}

/// The violations that the text lists below the name of each chart.
fn violations(words: &str) -> Vec<SchemaError> {
    let mut found = Vec::new();
    let mut chart = "";
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
