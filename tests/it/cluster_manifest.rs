//! `deploy/cluster.yaml` with `deploy/rbac.yaml`: a real API server takes both, in a namespace of
//! the strictest standard for pods too, and their parts fit each other and the settings.
//!
//! Nothing is kept: it is a dry run. What the rights are good for is tested in `cluster_rights.rs`.

use std::process::Stdio;

use binnacle::config::{self, Command, Drain};
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::kubectl::{Ran, finish};

const RBAC: &str = include_str!("../../deploy/rbac.yaml");
const SHIPPED: &str = include_str!("../../deploy/cluster.yaml");
const NOT_AS_ROOT: &str = "runAsNonRoot: true";

/// What the API server says of it in this namespace, through kubectl.
async fn tried(cluster: &Cluster, namespace: &str, manifest: &str) -> Ran {
    let mut command = tokio::process::Command::from(cluster.kubectl_command("admin"));
    command.args(["--namespace", namespace, "apply", "--dry-run=server", "-o", "json", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    finish(command, &format!("{RBAC}\n---\n{manifest}")).await.ok()
}

/// The only object of its kind.
fn the<'a>(objects: &'a Value, kind: &str) -> &'a Value {
    let mut found = objects["items"].as_array().unwrap().iter().filter(|one| one["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "one {kind}");
    one
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The account of the pods has both roles, and the Service leads to them by the name that the
/// certificate has.
fn fits(objects: &Value) {
    let account = &the(objects, "ServiceAccount")["metadata"]["name"];
    for (role, binding) in [("ClusterRole", "ClusterRoleBinding"), ("Role", "RoleBinding")] {
        let (role, binding) = (the(objects, role), the(objects, binding));
        assert_eq!(binding["roleRef"]["kind"], role["kind"]);
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        assert_eq!(&binding["subjects"][0]["name"], account);
    }
    assert_eq!(the(objects, "ClusterRoleBinding")["subjects"][0]["namespace"], "binnacle");
    let template = &the(objects, "Deployment")["spec"]["template"];
    assert_eq!(&template["spec"]["serviceAccountName"], account);
    let service = the(objects, "Service");
    assert_eq!(service["metadata"]["name"], "binnacle");
    assert_eq!(service["spec"]["selector"], template["metadata"]["labels"]);
    let port = &template["spec"]["containers"][0]["ports"][0]["name"];
    assert_eq!(&service["spec"]["ports"][0]["targetPort"], port);
}

/// The program takes its arguments, listens where it is asked, writes where it may, and has the
/// time that it needs to end.
fn is_started_as_its_pod_is_made(pod: &Value) {
    let container = &pod["containers"][0];
    assert_eq!(words(&container["command"]), ["binnacle"]);
    let args = ["binnacle", "config", "check"].map(String::from).into_iter();
    let args = args.chain(words(&container["args"])).map(Into::into);
    let parsed = config::parse(args);
    let Ok(Command::ConfigCheck(config)) = parsed else { panic!("{parsed:?}") };
    let (listen, port) = (config.listeners.https, &container["ports"][0]);
    assert!(listen.ip().is_unspecified(), "{listen}");
    assert_eq!(port["containerPort"], listen.port());
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["path"], path);
        assert_eq!(asked["scheme"], "HTTPS");
        assert_eq!(asked["port"], port["name"]);
    }
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let mount = &container["volumeMounts"][0];
    assert_eq!(mount["mountPath"], config.state_dir.display().to_string());
    let volume = &pod["volumes"][0];
    assert!(volume["name"] == mount["name"] && volume["emptyDir"].is_object(), "{volume}");
    let Drain { delay, grace } = config.drain;
    assert_eq!(pod["terminationGracePeriodSeconds"], (delay + grace).as_secs() + 40);
}

#[tokio::test]
async fn two_replicas_are_made_in_a_cluster_as_the_shipped_manifests_say() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("manifest").await;
    let strict = "pod-security.kubernetes.io/warn=restricted";
    let labelled = cluster.kubectl("admin", &["label", "namespace", &namespace, strict]);
    assert!(labelled.status.success(), "{}", String::from_utf8_lossy(&labelled.stderr));
    // From here on the API server warns, which it does not know at once.
    let loose = SHIPPED.replace(NOT_AS_ROOT, "runAsNonRoot: false");
    let warned = || async { tried(cluster, &namespace, &loose).await.words.contains("restricted") };
    Cluster::eventually("pods are held to the standard", warned).await;

    let ran = tried(cluster, &namespace, SHIPPED).await;
    assert_eq!(ran.words, "");
    let objects: Value = serde_json::from_str(&ran.out).unwrap();
    fits(&objects);
    let deployment = &the(&objects, "Deployment")["spec"];
    assert_eq!(deployment["replicas"], 2);
    is_started_as_its_pod_is_made(&deployment["template"]["spec"]);
}
