//! Deploy forms and files on the real control plane: what they make, that a mistake anywhere makes
//! nothing, and that what failed in the middle says what exists now. And the validations beside the
//! form.
//!
//! It is NOT where broken bodies, bombs and names that are none are tested (`bad_requests.rs`).

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, create, delete, grant, rule, workload};
use crate::writes::{live, send};

/// A file sent as this person, for this namespace.
pub async fn file(gateway: &Gateway, token: &str, namespace: &str, content: &str) -> Answer {
    let body = json!({"name": "a.yaml", "namespace": namespace, "content": content,
        "validate": true});
    send(gateway, token, Method::POST, "/api/v1/appdeploymentfromfile", &body).await
}

/// The same from somebody who reads this language.
async fn refused_file(
    gateway: &Gateway,
    token: &str,
    namespace: &str,
    language: &str,
    content: &str,
) -> Answer {
    let path = "/api/v1/csrftoken/appdeploymentfromfile";
    let csrf = gateway.request(Method::GET, None, path, &[], Vec::new()).await.json();
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept-language", language),
        ("x-csrf-token", csrf["token"].as_str().unwrap()),
    ];
    let body = json!({"name": "a.yaml", "namespace": namespace, "content": content});
    let body = body.to_string().into_bytes();
    gateway.request(Method::POST, None, "/api/v1/appdeploymentfromfile", &headers, body).await
}

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n---\n")
}

fn secret(name: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\n---\n")
}

async fn exists(cluster: &Cluster, namespace: &str, plural: &str, name: &str) -> bool {
    let path = format!("/api/v1/namespaces/{namespace}/{plural}/{name}");
    live(cluster, &path).await.is_some()
}

/// Allows this many objects of a kind and waits until the API server counts them.
async fn quota(cluster: &Cluster, namespace: &str, what: &str, most: u32) {
    let object = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "quota"}, "spec": {"hard": {what: most.to_string()}}});
    let path = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    create(cluster, &path, object).await;
    let path = format!("{path}/quota");
    let is_counted = || async {
        let status = live(cluster, &path).await.unwrap()["status"].take();
        status["hard"][what] == json!(most.to_string()) && status["used"][what] == "0"
    };
    Cluster::eventually("the quota is counted", is_counted).await;
}

fn form(namespace: &str, name: &str) -> Value {
    json!({
        "name": name, "namespace": namespace, "containerImage": "example.invalid/tiles:1",
        "imagePullSecret": "hub", "containerCommand": "/bin/tiles serve",
        "containerCommandArgs": " --port  8080 ", "replicas": 0, "isExternal": true,
        "portMappings": [
            {"port": 80, "targetPort": 8080, "protocol": "TCP"},
            {"port": 53, "targetPort": 5353, "protocol": "TCP"}],
        "variables": [{"name": "LEVEL", "value": "info"}], "description": "serves tiles",
        "memoryRequirement": "64Mi", "cpuRequirement": 0.25,
        "labels": [{"key": "app", "value": name}, {"key": "tier", "value": "web"}],
        "runAsPrivileged": false,
    })
}

#[tokio::test]
async fn a_form_makes_a_deployment_and_a_service_that_belong_together() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-form").await;
    let gateway = gateway::start(Options::default()).await;
    let (admin, form) = (cluster.token("admin"), form(&namespace, "tiles"));
    let answer = send(&gateway, admin, Method::POST, "/api/v1/appdeployment", &form).await;
    assert_eq!((answer.status, answer.json()), (201, form), "the form comes back");

    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/tiles");
    let deployment = live(cluster, &path).await.unwrap();
    let labels = json!({"app": "tiles", "tier": "web"});
    let (metadata, spec) = (&deployment["metadata"], &deployment["spec"]);
    assert_eq!(metadata["labels"], labels);
    assert_eq!(metadata["annotations"]["description"], "serves tiles");
    assert_eq!(spec["replicas"], 0);
    assert_eq!(spec["selector"], json!({"matchLabels": labels}));
    assert_eq!(spec["template"]["metadata"]["labels"], labels);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "hub"}]));
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
    let container = &pod["containers"][0];
    for (key, value) in [
        ("name", json!("tiles")),
        ("image", json!("example.invalid/tiles:1")),
        ("command", json!(["/bin/tiles serve"])),
        ("args", json!(["--port", "8080"])),
        ("env", json!([{"name": "LEVEL", "value": "info"}])),
        ("resources", json!({"requests": {"cpu": "250m", "memory": "64Mi"}})),
        ("securityContext", json!({"privileged": false})),
    ] {
        assert_eq!(container[key], value, "{key}");
    }

    let path = format!("/api/v1/namespaces/{namespace}/services/tiles");
    let service = live(cluster, &path).await.unwrap();
    assert_eq!(service["metadata"]["labels"], labels);
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(service["spec"]["selector"], labels);
    let ports = service["spec"]["ports"].as_array().unwrap();
    for (port, (number, target)) in ports.iter().zip([(80, 8080), (53, 5353)]) {
        assert_eq!((&port["port"], &port["targetPort"]), (&json!(number), &json!(target)));
        assert_eq!(port["protocol"], "TCP");
        let name = port["name"].as_str().unwrap();
        let letters = name.strip_prefix(&format!("tcp-{number}-{target}-")).unwrap_or_default();
        assert_eq!(letters.len(), 5, "{name}");
    }
    assert_eq!(ports.len(), 2);
    // Who deployed sees both at once.
    for kind in ["deployment", "service"] {
        let list = gateway.get("admin", &format!("/api/v1/{kind}/{namespace}")).await.json();
        assert_eq!(list["listMeta"]["totalItems"], 1, "{list}");
    }
}

#[tokio::test]
async fn a_form_without_ports_makes_no_service_and_one_whose_service_is_refused_makes_nothing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-half").await;
    quota(cluster, &namespace, "services", 0).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let answer =
        send(&gateway, admin, Method::POST, "/api/v1/appdeployment", &form(&namespace, "no")).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("quota"), "{}", answer.text());
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    assert_eq!(live(cluster, &format!("{deployments}/no")).await, None);

    let mut bare = form(&namespace, "yes");
    for key in ["portMappings", "memoryRequirement", "cpuRequirement", "variables", "description"] {
        bare[key] = Value::Null;
    }
    let answer = send(&gateway, admin, Method::POST, "/api/v1/appdeployment", &bare).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(live(cluster, &format!("{deployments}/yes")).await.is_some());
    assert!(!exists(cluster, &namespace, "services", "yes").await);
    // A second one is not an update.
    let answer = send(&gateway, admin, Method::POST, "/api/v1/appdeployment", &bare).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
}

#[tokio::test]
async fn amounts_are_taken_as_texts_too_and_a_service_inside_the_cluster_has_no_balancer() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-texts").await;
    let gateway = gateway::start(Options::default()).await;
    let mut form = form(&namespace, "tiles");
    form["cpuRequirement"] = json!("250m");
    form["memoryRequirement"] = json!(67_108_864);
    form["isExternal"] = json!(false);
    form["runAsPrivileged"] = json!(true);
    form["labels"] = Value::Null;
    let admin = cluster.token("admin");
    let answer = send(&gateway, admin, Method::POST, "/api/v1/appdeployment", &form).await;
    assert_eq!((answer.status, answer.json()), (201, form), "the form comes back");
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/tiles");
    let spec = live(cluster, &path).await.unwrap()["spec"].take();
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"], json!({"requests": {"cpu": "250m", "memory": "67108864"}}));
    assert_eq!(container["securityContext"], json!({"privileged": true}));
    let labels = json!({"k8s-app": "tiles"});
    assert_eq!(spec["selector"], json!({"matchLabels": labels}));
    let path = format!("/api/v1/namespaces/{namespace}/services/tiles");
    let service = live(cluster, &path).await.unwrap()["spec"].take();
    assert_eq!((&service["type"], &service["selector"]), (&json!("ClusterIP"), &labels));
}

#[tokio::test]
async fn a_form_of_which_either_half_is_refused_makes_neither() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-either").await;
    workload(cluster, &namespace, "whole", 0, "none").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "service"},
        "spec": {"ports": [{"port": 80}]}});
    let services = format!("/api/v1/namespaces/{namespace}/services");
    create(cluster, &services, service).await;
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    delete(cluster, &format!("{services}/whole")).await;
    let gateway = gateway::start(Options::default()).await;
    let twice = json!({"port": 80, "targetPort": 8080, "protocol": "TCP"});
    let mut doubled = form(&namespace, "doubled");
    doubled["portMappings"] = json!([twice, twice]);
    for (form, status, words) in [
        (doubled, 422, "Duplicate"),
        (form(&namespace, "whole"), 409, "whole"),
        (form(&namespace, "service"), 409, "service"),
    ] {
        let admin = cluster.token("admin");
        let answer = send(&gateway, admin, Method::POST, "/api/v1/appdeployment", &form).await;
        assert_eq!(answer.status, status, "{words}: {}", answer.text());
        assert!(answer.text().contains(words), "{words}: {}", answer.text());
    }
    for (collection, only) in [(deployments, "whole"), (services, "service")] {
        let list = live(cluster, &collection).await.unwrap();
        let names = list["items"].as_array().unwrap().iter();
        let names: Vec<&Value> = names.map(|one| &one["metadata"]["name"]).collect();
        assert_eq!(names, [only], "{collection}");
    }
}

#[tokio::test]
async fn a_file_makes_its_objects_and_what_stands_on_them() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-file").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let new = format!("{namespace}-new");
    let content = format!(
        "# a comment alone
---
apiVersion: v1
kind: Namespace
metadata: {{name: {new}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: inside, namespace: {new}}}
data: {{80: \"eighty\", level: \"on\"}}
---
apiVersion: v1
kind: List
items:
- {{apiVersion: v1, kind: Secret, metadata: {{name: one, namespace: {new}}}}}
- {{apiVersion: v1, kind: Secret, metadata: {{generateName: two-, namespace: {new}}}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: sails.deploys.example.org}}
spec:
  group: deploys.example.org
  scope: Namespaced
  names: {{plural: sails, singular: sail, kind: Sail, listKind: SailList}}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
---
apiVersion: deploys.example.org/v1
kind: Sail
metadata: {{name: main, namespace: {new}}}
spec: {{area: 12.5}}
"
    );
    let answer = file(&gateway, admin, "_all", &content).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json(), json!({"name": "a.yaml", "content": content, "error": ""}));
    let map = live(cluster, &format!("/api/v1/namespaces/{new}/configmaps/inside")).await;
    assert_eq!(map.unwrap()["data"], json!({"80": "eighty", "level": "on"}));
    let secrets = live(cluster, &format!("/api/v1/namespaces/{new}/secrets")).await.unwrap();
    let names = secrets["items"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|one| one["metadata"]["name"].as_str().unwrap()).collect();
    assert!(names.len() == 2 && names[0] == "one" && names[1].starts_with("two-"), "{names:?}");
    let sail = format!("/apis/deploys.example.org/v1/namespaces/{new}/sails/main");
    assert_eq!(live(cluster, &sail).await.unwrap()["spec"]["area"], 12.5);

    // JSON is a file, too; the form's namespace is that of what names none.
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "json"}});
    let answer = file(&gateway, admin, &namespace, &object.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(exists(cluster, &namespace, "configmaps", "json").await);
}

#[tokio::test]
async fn numbers_in_a_file_are_read_as_kubectl_reads_them() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-octal").await;
    let gateway = gateway::start(Options::default()).await;
    let content = "apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: NS}
spec:
  replicas: 0
  selector: {matchLabels: {app: files}}
  template:
    metadata: {labels: {app: files}}
    spec:
      containers: [{name: main, image: example.invalid/files}]
      volumes:
      - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
      - {name: texts, configMap: {name: texts, defaultMode: 0644}}
";
    let content = content.replace("NS", &namespace);
    cluster.apply(&content.replace("NAME", "kubectls")).await;
    let ours = content.replace("NAME", "ours");
    let answer = file(&gateway, cluster.token("admin"), &namespace, &ours).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let spec = async |name: &str| {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        live(cluster, &path).await.unwrap()["spec"]["template"]["spec"].take()
    };
    let (ours, theirs) = (spec("ours").await, spec("kubectls").await);
    assert_eq!(theirs["volumes"][0]["secret"]["defaultMode"], 0o400);
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn a_file_that_fails_in_the_middle_says_what_exists_now() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-middle").await;
    // Each of two secrets alone is within it, so that trying them finds nothing.
    quota(cluster, &namespace, "secrets", 1).await;
    let gateway = gateway::start(Options::default()).await;
    let content = [config_map("first"), secret("one"), secret("two"), config_map("last")].concat();
    let answer = file(&gateway, cluster.token("admin"), &namespace, &content).await;
    let text = answer.text();
    assert_eq!(answer.status, 403, "{text}");
    assert!(text.contains("exceeded quota"), "{text}");
    let (made, missing) = text.split_once("Not created").unwrap();
    for (plural, name, is_made) in [
        ("configmaps", "first", true),
        ("secrets", "one", true),
        ("secrets", "two", false),
        ("configmaps", "last", false),
    ] {
        assert_eq!(exists(cluster, &namespace, plural, name).await, is_made, "{name}: {text}");
        let said = format!("{namespace}/{name}");
        assert!((if is_made { made } else { missing }).contains(&said), "{name}: {text}");
        assert!(!(if is_made { missing } else { made }).contains(&said), "{name}: {text}");
    }
}

#[tokio::test]
async fn what_stands_on_a_namespace_of_the_file_and_is_wrong_is_told_from_what_exists() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-own").await;
    let gateway = gateway::start(Options::default()).await;
    // Nothing can be tried in a namespace that is not there yet.
    for (part, line, status, words) in
        [("key", "data: {\"a b\": c}", 422, "a b"), ("field", "dta: {a: b}", 400, "\"dta\"")]
    {
        let new = format!("{namespace}-{part}");
        let space = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {new}}}\n---\n");
        let bad = config_map("bad").replace("---", &format!("{line}\n---"));
        let maps = [config_map("first"), bad, config_map("last")].concat();
        let content = space + &maps.replace("name: ", &format!("namespace: {new}, name: "));
        let answer = file(&gateway, cluster.token("admin"), "_all", &content).await;
        let text = answer.text();
        assert_eq!(answer.status, status, "{text}");
        assert!(text.contains(words), "{text}");
        let (made, missing) = text.split_once("Not created").unwrap();
        let created = format!("Created: Namespace {new}, ConfigMap {new}/first");
        assert!(made.contains(&created), "{text}");
        assert!(missing.contains(&format!("ConfigMap {new}/bad, ConfigMap {new}/last")), "{text}");
        for (name, is_made) in [("first", true), ("bad", false), ("last", false)] {
            assert_eq!(exists(cluster, &new, "configmaps", name).await, is_made, "{name}: {text}");
        }
    }
}

#[tokio::test]
async fn a_file_of_which_one_object_is_refused_makes_none() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-refused").await;
    create(
        cluster,
        &format!("/api/v1/namespaces/{namespace}/configmaps"),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "there"}}),
    )
    .await;
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["create"], &["configmaps"])]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let gateway = gateway::start(Options::default()).await;
    let is_allowed = || async {
        file(&gateway, &person.token, &namespace, &config_map("own")).await.status == 201
    };
    Cluster::eventually("the person may create config maps", is_allowed).await;

    let admin = cluster.token("admin");
    let bad_key = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {\"a b\": c}\n";
    let typo = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: typo}\nspec:
  replcas: 3
  selector: {matchLabels: {app: typo}}
  template:
    metadata: {labels: {app: typo}}
    spec: {containers: [{name: main, image: example.invalid/typo}]}\n";
    for (token, middle, status, words) in [
        (person.token.as_str(), secret("other"), 403, "secrets"),
        (admin, config_map("there"), 409, "there"),
        (admin, bad_key.to_owned(), 422, "a b"),
        (admin, typo.to_owned(), 400, "spec.replcas"),
        (admin, config_map("a").replace("---", "data: {a: b, a: c}"), 400, "duplicate"),
        (admin, "apiVersion: v9\nkind: ConfigMap\nmetadata: {name: a}\n".into(), 400, "v9"),
        (admin, "apiVersion: v1\nkind: ConfigMap\n".into(), 400, "metadata.name"),
        (admin, "a: [\n".into(), 400, "line"),
        (admin, "a: &a [*a]\n".into(), 400, "line"),
    ] {
        let content = format!("{}{middle}---\n{}", config_map("half"), config_map("after"));
        let answer = file(&gateway, token, &namespace, &content).await;
        assert_eq!(answer.status, status, "{middle}: {}", answer.text());
        assert!(answer.text().contains(words), "{middle}: {}", answer.text());
        for name in ["half", "after"] {
            assert!(!exists(cluster, &namespace, "configmaps", name).await, "{name}: {middle}");
        }
    }
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/typo");
    assert_eq!(live(cluster, &path).await, None);

    // Behind the API server's words stand ours, which everybody reads in his own language.
    for (language, words) in [("en", "Nothing was created"), ("zh-CN", "未创建任何对象")] {
        let answer = refused_file(&gateway, admin, &namespace, language, bad_key).await;
        let text = answer.text();
        assert_eq!(answer.status, 422, "{text}");
        assert!(text.contains("a b") && text.contains(words), "{language}: {text}");
        assert!(text.contains(&format!("ConfigMap {namespace}/bad")), "{language}: {text}");
    }
}

#[tokio::test]
async fn the_namespace_rule_answers_with_the_contracts_own_words() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-namespace").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let elsewhere = config_map("a").replace("name: a", "name: a, namespace: elsewhere");
    for (asked, content, words) in [
        ("_all", config_map("a"), "MSG_DEPLOY_EMPTY_NAMESPACE_ERROR"),
        ("", config_map("a"), "MSG_DEPLOY_EMPTY_NAMESPACE_ERROR"),
        (namespace.as_str(), elsewhere, "MSG_DEPLOY_NAMESPACE_MISMATCH_ERROR"),
    ] {
        let content = config_map("before").replace("before", "before, namespace: NS") + &content;
        let content = content.replace("NS", &namespace);
        let answer = file(&gateway, admin, asked, &content).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, words));
        assert!(!exists(cluster, &namespace, "configmaps", "before").await);
    }
}

#[tokio::test]
async fn validations_answer_while_a_form_is_filled_in() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-validate").await;
    create(
        cluster,
        &format!("/api/v1/namespaces/{namespace}/services"),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"},
            "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    let stranger = Person::new(cluster, &namespace, "stranger").await;
    let gateway = gateway::start(Options::default()).await;
    let path = "/api/v1/appdeployment/validate/name";
    for (token, name, valid) in [
        (cluster.token("admin"), "taken", false),
        (cluster.token("admin"), "free", true),
        // What may not be seen counts as free.
        (stranger.token.as_str(), "taken", true),
    ] {
        let body = json!({"name": name, "namespace": namespace});
        let answer = send(&gateway, token, Method::POST, path, &body).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"valid": valid})), "{name}");
    }
    let headers = [("content-type", "application/json")];
    let sent = json!({"name": "a", "namespace": "b"}).to_string().into_bytes();
    let answer = gateway.request(Method::POST, None, path, &headers, sent).await;
    assert_eq!(answer.status, 401, "{}", answer.text());

    // These need neither credentials nor a token against forgery.
    let digest = format!("example.org:5000/a/b@sha256:{}", "a".repeat(64));
    let upper = "invalid reference format: repository name (library/Tiles) must be lowercase";
    for (route, body, wanted) in [
        ("imagereference", json!({"reference": digest}), json!({"valid": true, "reason": ""})),
        ("imagereference", json!({"reference": "Tiles"}), json!({"valid": false, "reason": upper})),
        ("protocol", json!({"protocol": "UDP", "isExternal": true}), json!({"valid": false})),
        ("protocol", json!({"protocol": "UDP", "isExternal": false}), json!({"valid": true})),
        ("protocol", json!({"protocol": "TCP", "isExternal": true}), json!({"valid": true})),
    ] {
        let path = format!("/api/v1/appdeployment/validate/{route}");
        let sent = body.to_string().into_bytes();
        let answer = gateway.request(Method::POST, None, &path, &headers, sent).await;
        assert_eq!((answer.status, answer.json()), (200, wanted), "{route} {body}");
    }
    let path = "/api/v1/appdeployment/protocols";
    let answer = gateway.request(Method::GET, None, path, &[], Vec::new()).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"protocols": ["TCP", "UDP"]})));
}
