//! Charts as `.tgz` bytes made in code, helm as a person runs it by hand (straight to the API
//! server, in a home of its own), and the routes of releases as tests use them.
//!
//! It proves nothing itself; the modules beside it do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::cluster::{self, Cluster};
use crate::gateway::{Answer, Gateway, Options};
use crate::lifecycle::in_time;
use crate::reads::POLL;

/// The versions of helm that all is shown with.
pub const BOTH: [u32; 2] = [4, 3];
/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How an operation ends.
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "interrupted"];

const VALUES: &str = "replicas: 1
message: hello
password: password-of-the-chart
fate: none
hook: ''
test: done
service: true
hold: false
";
const SCHEMA: &str = r#"{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
"properties": {"replicas": {"type": "integer", "minimum": 0}, "message": {"type": "string"}}}"#;
/// `fate` of the pods, `hold` keeps the ConfigMap from being deleted, `service` may be left out.
const OBJECTS: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
      annotations: {test.binnacle/fate: {{ .Values.fate | quote }}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: example.invalid/web}]
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
  finalizers: [{{ if .Values.hold }}test.binnacle/hold{{ end }}]
data: {message: {{ .Values.message | quote }}}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}}
stringData: {password: {{ .Values.password | quote }}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: {{ .Release.Name }}}
spec:
  rules:
  - host: {{ .Release.Name }}.example.org
    http:
      paths: [{path: /, pathType: Prefix, backend: {service: {name: {{ .Release.Name }}, port: {number: 80}}}}]
{{- if .Values.service }}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80}]}
{{- end }}
"#;
const NOTES: &str = "Say {{ .Values.message }} to {{ .Release.Name }}.\n";

/// A pod that runs as a hook; `fate` is an expression of the template.
fn hook(name: &str, events: &str, fate: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {{{{ .Release.Name }}}}-{name}
  annotations:
    helm.sh/hook: {events}
    helm.sh/hook-delete-policy: before-hook-creation
    test.binnacle/fate: {{{{ {fate} | quote }}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: example.invalid/{name}}}]
"
    )
}

/// Files with their whole paths as a `.tgz`.
pub fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        // Written as it is: the library itself would refuse the bad ones.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        header.set_cksum();
        archive.append(&header, *data).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// A chart of these files, whose paths begin below its folder; with a `Chart.yaml`.
pub fn chart(name: &str, version: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let about = format!(
        "apiVersion: v2\nname: {name}\nversion: {version}\nappVersion: '2.0'\n\
         description: A page that says something\nhome: https://example.org/{name}\n"
    );
    let all = [("Chart.yaml", about.as_str())].into_iter().chain(files.iter().copied());
    let all: Vec<_> = all.map(|(path, text)| (format!("{name}/{path}"), text)).collect();
    let all: Vec<_> = all.iter().map(|(path, text)| (path.as_str(), text.as_bytes())).collect();
    packed(&all)
}

/// A deployment, service, ConfigMap, Secret and Ingress with notes, a schema of the values and a
/// test; a hook before all acts when `hook` is the fate of its pod.
pub fn web() -> Vec<u8> {
    let test = hook("test", "test", ".Values.test");
    let events = "pre-install,pre-upgrade,pre-rollback,pre-delete";
    let acts = hook("hook", events, ".Values.hook");
    let acts = format!("{{{{- if .Values.hook }}}}\n{acts}{{{{- end }}}}\n");
    let files = [
        ("values.yaml", VALUES),
        ("values.schema.json", SCHEMA),
        ("README.md", "# web\n\nIt says something.\n"),
        ("templates/objects.yaml", OBJECTS),
        ("templates/NOTES.txt", NOTES),
        ("templates/hook.yaml", acts.as_str()),
        ("templates/tests/test.yaml", test.as_str()),
    ];
    chart("web", "1.2.0", &files)
}

/// One ConfigMap.
pub fn small() -> Vec<u8> {
    let text = "apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {message: {{ .Values.message | quote }}}
";
    chart("small", "0.1.0", &[("templates/map.yaml", text), ("values.yaml", "message: hello\n")])
}

/// Its pod never becomes ready.
pub fn slow() -> Vec<u8> {
    let values = VALUES.replace("fate: none", "fate: pending");
    chart("slow", "0.1.0", &[("values.yaml", &values), ("templates/objects.yaml", OBJECTS)])
}

/// Its hook before an install ends with an error.
pub fn hookfail() -> Vec<u8> {
    let pod = hook("hook", "pre-install,pre-upgrade", "\"fail\"");
    chart("hookfail", "0.1.0", &[("templates/hook.yaml", &pod)])
}

/// Its template fails.
pub fn broken() -> Vec<u8> {
    let text = "{{ required \"the colour is missing\" .Values.colour }}\n";
    chart("broken", "0.1.0", &[("templates/broken.yaml", text)])
}

/// Its one object has 2 MB that nothing packs any smaller: more than a Secret holds.
pub fn huge() -> Vec<u8> {
    let text = "apiVersion: v1
kind: ConfigMap
metadata: {name: huge}
data: {text: {{ randAlphaNum 2000000 }}}
";
    chart("huge", "0.1.0", &[("templates/huge.yaml", text)])
}

/// An object of a kind that nobody has defined.
pub fn crd() -> Vec<u8> {
    let text = "apiVersion: nowhere.example.org/v1\nkind: Nothing\nmetadata: {name: nothing}\n";
    chart("crd", "0.1.0", &[("templates/nothing.yaml", text)])
}

/// A chart as a body of ours has it.
pub fn archive(chart: &[u8]) -> Value {
    json!({"archive": STANDARD.encode(chart)})
}

/// The program of this version; where it is, is found out once.
pub fn program(major: u32) -> &'static Path {
    static FOUND: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let found = FOUND.get_or_init(|| BOTH.map(cluster::helm));
    if major == BOTH[0] { &found[0] } else { &found[1] }
}

/// A gateway that keeps nothing and runs this version of helm.
pub fn options(major: u32) -> Options {
    let extra = vec!["--helm".into(), program(major).display().to_string()];
    Options { shared_cache: false, extra, ..Options::default() }
}

/// helm as whose token this is, to its end; the chart is `chart.tgz` in its folder.
pub async fn helm(major: u32, token: &str, chart: &[u8], args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = helm_command(major, token, folder.path()).await;
    std::fs::write(folder.path().join("chart.tgz"), chart).unwrap();
    in_time("helm ends", command.args(args).output()).await.unwrap()
}

/// helm in this folder, with nobody's settings.
pub async fn helm_command(major: u32, token: &str, folder: &Path) -> Command {
    let cluster = cluster::shared().await;
    let authority = STANDARD.encode(cluster.ca_pem());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": cluster.server, "certificate-authority-data": authority,
        }}],
        "users": [{"name": "me", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let mut command = Command::new(program(major));
    command.env_clear().env("HOME", folder).env("KUBECONFIG", path);
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// helm that must succeed: its stdout.
pub async fn made(major: u32, token: &str, chart: &[u8], args: &[&str]) -> String {
    let output = helm(major, token, chart, args).await;
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm {major} {args:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// helm that must succeed and print JSON.
pub async fn told(major: u32, token: &str, args: &[&str]) -> Value {
    let args = [args, &["-o", "json"]].concat();
    serde_json::from_str(&made(major, token, &[], &args).await).unwrap()
}

/// What a list says of each release, in the order revision, status, chart with its version, version
/// of the application, second of the last change.
pub type Rows = BTreeMap<String, [String; 5]>;

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Of a time with any offset.
fn second(value: &Value) -> String {
    let time = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    time.map(|time| time.as_second().to_string()).unwrap_or_default()
}

/// As helm itself lists them, all statuses.
pub async fn listed_by_helm(major: u32, token: &str, namespace: &str) -> Rows {
    let mut args = vec!["list", "-n", namespace, "--time-format", "2006-01-02T15:04:05Z07:00"];
    if major == 3 {
        args.push("--all");
    }
    let rows = told(major, token, &args).await;
    let row = |row: &Value| {
        let updated = second(&row["updated"]);
        let facts = ["revision", "status", "chart", "app_version"].map(|key| text(&row[key]));
        let [revision, status, chart, app_version] = facts;
        (text(&row["name"]), [revision, status, chart, app_version, updated])
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

/// As our list has them.
pub fn rows(list: &Value) -> Rows {
    let row = |row: &Value| {
        let updated = second(&row["updated"]);
        let chart = format!("{}-{}", text(&row["chart"]), text(&row["chartVersion"]));
        let [revision, status, app] =
            ["revision", "status", "appVersion"].map(|key| text(&row[key]));
        (text(&row["objectMeta"]["name"]), [revision, status, chart, app, updated])
    };
    list["releases"].as_array().unwrap_or_else(|| panic!("{list}")).iter().map(row).collect()
}

/// Somebody at a gateway, in a namespace.
#[derive(Clone, Copy)]
pub struct Hand<'a> {
    pub gateway: &'a Gateway,
    pub token: &'a str,
    pub namespace: &'a str,
}

impl Hand<'_> {
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], &Value::Null).await
    }

    /// A request to what is below `/api/v1/`.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        more: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut headers =
            vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend_from_slice(more);
        let mut forgery = String::new();
        if method == Method::POST {
            let action = path.split('/').next().unwrap();
            let path = format!("/api/v1/csrftoken/{action}");
            let answer = self.gateway.request(Method::GET, None, &path, &[], Vec::new()).await;
            forgery = answer.json()["token"].as_str().unwrap().to_owned();
        }
        if !forgery.is_empty() {
            headers.push(("x-csrf-token", &forgery));
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.gateway.request(method, None, &format!("/api/v1/{path}"), &headers, body).await
    }

    /// Where a release is, below `/api/v1/`.
    pub fn at(&self, name: &str) -> String {
        format!("release/{}/{name}", self.namespace)
    }

    /// `install`, `upgrade`, `uninstall` (whose body becomes the query) or what is posted to a
    /// route of that name.
    pub async fn act(
        &self,
        act: &str,
        name: &str,
        more: &[(&str, &str)],
        mut body: Value,
    ) -> Answer {
        let at = self.at(name);
        match act {
            "install" => {
                body["name"] = name.into();
                let path = format!("release/{}", self.namespace);
                self.send(Method::POST, &path, more, &body).await
            }
            "upgrade" => self.send(Method::PUT, &at, more, &body).await,
            "uninstall" => {
                let pairs = body.as_object().unwrap().iter();
                let pairs: Vec<_> =
                    pairs.map(|(key, value)| format!("{key}={}", text(value))).collect();
                let path = format!("{at}?{}", pairs.join("&"));
                self.send(Method::DELETE, &path, more, &Value::Null).await
            }
            "protect" | "unprotect" => {
                self.send(Method::PUT, &format!("{at}/{act}"), more, &body).await
            }
            _ => self.send(Method::POST, &format!("{at}/{act}"), more, &body).await,
        }
    }

    /// The operation that an accepted request has begun.
    pub async fn begun(&self, act: &str, name: &str, body: Value) -> Value {
        let answer = self.act(act, name, &[], body).await;
        assert_eq!(answer.status, 202, "{act} {name}: {}", answer.text());
        let operation = answer.json();
        let id = operation["id"].as_str().unwrap();
        let path = format!("/api/v1/operation/{}/{id}", self.namespace);
        assert!(answer.header("location").ends_with(&path), "{}", answer.header("location"));
        assert_eq!([&operation["release"], &operation["act"]], [name, act], "{operation}");
        operation
    }

    pub async fn operation(&self, operation: &Value) -> Value {
        let id = operation["id"].as_str().unwrap();
        let answer = self.get(&format!("operation/{}/{id}", self.namespace)).await;
        assert_eq!(answer.status, 200, "operation {id}: {}", answer.text());
        answer.json()
    }

    /// The same operation at its end.
    pub async fn ended(&self, operation: &Value) -> Value {
        let begun = Instant::now();
        loop {
            let now = self.operation(operation).await;
            if ENDS.iter().any(|end| now["state"] == *end) {
                return now;
            }
            assert!(begun.elapsed() < DEADLINE, "it does not end: {now}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// An act from its beginning to its end.
    pub async fn done(&self, act: &str, name: &str, body: Value) -> Value {
        let operation = self.begun(act, name, body).await;
        self.ended(&operation).await
    }

    /// An act that must succeed.
    pub async fn succeeds(&self, act: &str, name: &str, body: Value) -> Value {
        let operation = self.done(act, name, body).await;
        assert_eq!(operation["state"], "succeeded", "{act} {name}: {operation}");
        operation
    }

    /// Of the release as it is now; empty without one.
    pub async fn status(&self, name: &str) -> String {
        let answer = self.get(&self.at(name)).await;
        if answer.status == 404 {
            return String::new();
        }
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        text(&answer.json()["status"])
    }

    /// Until the release has a status that begins so.
    pub async fn until(&self, name: &str, status: &str) {
        let is_so = || async { self.status(name).await.starts_with(status) };
        Cluster::eventually(&format!("{name} is {status}"), is_so).await;
    }

    pub async fn rows(&self) -> Rows {
        let answer = self.get(&format!("release/{}", self.namespace)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        rows(&answer.json())
    }

    /// Our list says of the namespace what helm says of it.
    pub async fn agrees_with_helm(&self, major: u32, after: &str) {
        let helm = listed_by_helm(major, self.token, self.namespace).await;
        assert_eq!(self.rows().await, helm, "{after}: ours, and what helm {major} lists");
    }
}
