//! Bodies and forms that are wrong in every way, and writes that meet each other: refused in words,
//! and nothing is half done.
//!
//! It is NOT where forms that are right are tested.

use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};

use super::Who::{Admin, Stranger};
use super::{DELETE, Desk, GET, NONE, PATCH, POST, PUT};
use crate::cluster::Cluster;
use crate::people::{create, workload};

#[tokio::test]
async fn bodies_that_are_no_json_too_large_or_of_another_type_are_refused_everywhere() {
    let desk = Desk::open("bad-bodies").await;
    let here = desk.namespace.as_str();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}});
    create(desk.cluster, &format!("/api/v1/namespaces/{here}/configmaps"), object).await;
    for (method, path) in [
        (PUT, format!("/api/v1/_raw/configmap/namespace/{here}/name/kept")),
        (PUT, format!("/api/v1/deployment/{here}/{NONE}/rollback")),
        (POST, format!("/api/v1/replicationcontroller/{here}/{NONE}/update/pod")),
        (POST, "/api/v1/appdeployment".into()),
        (POST, "/api/v1/appdeploymentfromfile".into()),
        (POST, "/api/v1/appdeployment/validate/name".into()),
        (POST, "/api/v1/appdeployment/validate/imagereference".into()),
        (POST, "/api/v1/appdeployment/validate/protocol".into()),
        (POST, "/api/v1/namespace".into()),
        (POST, "/api/v1/secret".into()),
        (POST, "/api/v1/login".into()),
        (PUT, "/settings".into()),
        (PUT, "/settings/pinnedresources".into()),
    ] {
        let asked = (method.clone(), Admin, path.as_str());
        for content in [None, Some("text/plain"), Some("application/yaml"), Some("json")] {
            let answer = desk.send(asked.clone(), content, "{}").await;
            assert_eq!(answer.status, 415, "{path} {content:?}: {}", answer.text());
            assert!(answer.text().contains("application/json"), "{path}: {}", answer.text());
        }
        let deep = "[".repeat(4_000);
        let broken: [&[u8]; 7] =
            [b"", b"{", b"[1", b"7", b"\"text\"", b"\xff\xfe", deep.as_bytes()];
        for body in broken {
            let sent = Bytes::copy_from_slice(body);
            let answer = desk.send(asked.clone(), Some("application/json"), sent).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
            assert_eq!(answer.status, 400, "{path} {shown}: {}", answer.text());
            assert!(answer.text().contains("body"), "{path} {shown}: {}", answer.text());
        }
        // Who needs no credentials has less room.
        let most: usize = match path.as_str() {
            "/api/v1/login" => 64 << 10,
            "/api/v1/appdeployment/validate/imagereference"
            | "/api/v1/appdeployment/validate/protocol" => 4 << 10,
            _ => 3 << 20,
        };
        let answer = desk.send(asked, Some("application/json"), vec![b' '; most + 1]).await;
        assert_eq!(answer.status, 413, "{path}: {}", answer.text());
        assert!(answer.text().contains(&most.to_string()), "{path}: {}", answer.text());
        desk.wrong_methods(&path, &[PATCH]).await;
    }
}

#[tokio::test]
async fn bodies_of_too_many_fields_are_refused_and_large_objects_are_those_of_known_callers() {
    let desk = Desk::open("bad-many").await;
    let here = desk.namespace.as_str();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "many"}});
    create(desk.cluster, &format!("/api/v1/namespaces/{here}/configmaps"), object.clone()).await;
    let raw = format!("/api/v1/_raw/configmap/namespace/{here}/name/many");
    let made_up = |count: usize| format!("{{\"nosuchfield\":[{}0]}}", r#"{"a":0},"#.repeat(count));
    let headers = [("authorization", "Bearer no-such-token"), ("content-type", "application/json")];
    let nobody = async |path: &str, body: &str| {
        desk.gateway.request(PUT, None, path, &headers, body.to_owned().into_bytes()).await
    };
    for (path, body) in [(raw.as_str(), made_up(150_000)), ("/settings", made_up(10_000))] {
        let words = "too many fields";
        desk.says((PUT, Admin, path), &body, &[400], words).await;
        let answer = nobody(path, &body).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    let mut large = object;
    let data = (0..12_000).map(|number| (format!("k{number}"), json!("x")));
    large["data"] = Value::Object(data.collect());
    let large = large.to_string();
    assert_eq!(nobody(&raw, &large).await.status, 401);
    desk.says((PUT, Admin, &raw), &large, &[204], "").await;
}

/// A deploy form with these fields in place of its own.
fn form(namespace: &str, name: &str, more: Value) -> String {
    let mut form = json!({
        "name": name, "namespace": namespace, "containerImage": "example.invalid/a:1",
        "replicas": 0, "isExternal": false, "runAsPrivileged": false, "nosuchfield": {"a": 1},
        "portMappings": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
    });
    form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    form.to_string()
}

#[tokio::test]
async fn forms_and_sign_in_say_what_is_wrong_and_do_nothing_by_halves() {
    let desk = Desk::open("bad-forms").await;
    let here = desk.namespace.as_str();
    let file =
        |content: &str| json!({"name": "f", "namespace": here, "content": content}).to_string();
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: half}\n";
    let bomb = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        format!("{text}a{level}: &a{level} [{row}]\n")
    });
    let secret = |namespace: &str, data: &str| {
        json!({"name": "half", "namespace": namespace, "data": data}).to_string()
    };
    let bad_port = json!({"portMappings": [{"port": 80, "targetPort": 80, "protocol": "ICMP"}]});
    for (action, body, status, words) in [
        ("appdeployment", form(here, "half", bad_port), 422, "ICMP"),
        ("appdeployment", form(here, "Not_a_name", json!({})), 422, "Not_a_name"),
        ("appdeployment", form(NONE, "half", json!({})), 404, NONE),
        ("appdeployment", form("", "half", json!({})), 400, "namespace"),
        ("appdeployment", form(here, "half", json!({"replicas": -1})), 400, "-1"),
        ("appdeployment", form(here, "half", json!({"cpuRequirement": "much"})), 400, "quantities"),
        ("appdeploymentfromfile", file(""), 400, "no document"),
        ("appdeploymentfromfile", file("---\n---\n"), 400, "no document"),
        ("appdeploymentfromfile", file("a: [\n"), 400, "line"),
        ("appdeploymentfromfile", file("just text"), 400, "apiVersion"),
        ("appdeploymentfromfile", file(&bomb), 400, "body"),
        ("appdeploymentfromfile", file(&"[".repeat(5_000)), 400, "body"),
        ("appdeploymentfromfile", file(&format!("{map}---\n").repeat(300)), 400, "body"),
        ("appdeploymentfromfile", file(&format!("{map}---\nkind: X\n")), 400, "document 2"),
        (
            "appdeploymentfromfile",
            file(&format!("{map}---\n{}", map.replace("ConfigMap", "Nosuchkind"))),
            400,
            "Nosuchkind",
        ),
        (
            "appdeploymentfromfile",
            file(&format!("{map}---\n{}", map.replace("half", "Not_a_name"))),
            422,
            "Not_a_name",
        ),
        (
            "appdeploymentfromfile",
            file(&map.replace("half}", "half, namespace: other}")),
            400,
            "MSG_DEPLOY_NAMESPACE_MISMATCH_ERROR",
        ),
        ("namespace", r#"{"name":"Not_a_name"}"#.to_owned(), 422, "Not_a_name"),
        ("namespace", r#"{"name":""}"#.to_owned(), 422, "name"),
        ("namespace", json!({"name": here}).to_string(), 409, here),
        ("secret", secret(here, "no base64!"), 400, "base64"),
        ("secret", secret(NONE, "e30="), 404, NONE),
        ("secret", secret("", "e30="), 400, "namespace"),
        ("login", r#"{"token":""}"#.to_owned(), 400, "token"),
        ("login", r#"{"token":"unknown"}"#.to_owned(), 401, "MSG_LOGIN_UNAUTHORIZED_ERROR"),
    ] {
        let path = format!("/api/v1/{action}");
        desk.says((POST, Admin, &path), &body, &[status], words).await;
    }
    for (action, body) in [
        ("appdeployment", form(here, "half", json!({}))),
        ("appdeploymentfromfile", file(map)),
        ("namespace", json!({"name": format!("{here}-half")}).to_string()),
        ("secret", secret(here, "e30=")),
    ] {
        let path = format!("/api/v1/{action}");
        desk.says((POST, Stranger, &path), &body, &[403], "forbidden").await;
    }
    for plural in ["configmaps", "secrets", "services"] {
        let path = format!("/api/v1/namespaces/{here}/{plural}/half");
        assert_eq!(desk.cluster.get(desk.cluster.token("admin"), &path).await.0, 404, "{path}");
    }
    let half = format!("/apis/apps/v1/namespaces/{here}/deployments/half");
    assert_eq!(desk.cluster.get(desk.cluster.token("admin"), &half).await.0, 404);
}

#[tokio::test]
async fn settings_and_pins_say_what_is_wrong_and_leave_out_what_they_do_not_know() {
    let desk = Desk::open("bad-settings").await;
    let here = desk.namespace.as_str();
    let settings = json!({"itemsPerPage": 25, "nosuchfield": {"a": 1}}).to_string();
    desk.says((PUT, Stranger, "/settings"), &settings, &[403], "forbidden").await;
    desk.says((PUT, Admin, "/settings"), r#"{"itemsPerPage":"x"}"#, &[400], "body").await;
    desk.says((PUT, Admin, "/settings"), &settings, &[204], "").await;
    let now = desk.says((GET, Admin, "/settings"), "", &[200], "").await.json();
    assert_eq!((&now["itemsPerPage"], &now["nosuchfield"]), (&json!(25), &Value::Null));
    let pins = "/settings/pinnedresources";
    desk.says((PUT, Admin, pins), r#"{"kind":"","name":"a"}"#, &[400], "kind").await;
    desk.says((DELETE, Admin, &format!("{pins}/pod/{here}/{NONE}")), "", &[404], NONE).await;
    desk.is_odd(DELETE, &format!("{pins}/pod/@/a")).await;
    desk.is_odd(DELETE, &format!("{pins}/@/a")).await;
    desk.wrong_methods("/settings", &[POST, DELETE]).await;
}

#[tokio::test]
async fn of_edits_at_once_one_is_done_and_the_others_are_told() {
    let desk = Desk::open("bad-races").await;
    let here = desk.namespace.clone();
    let maps = format!("/api/v1/namespaces/{here}/configmaps");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "edited"}});
    let map = create(desk.cluster, &maps, map).await;
    workload(desk.cluster, &here, "web", 0, "none").await;
    // Its controller writes to it at first, too.
    let web = format!("/apis/apps/v1/namespaces/{here}/deployments/web");
    let is_at_rest = || async {
        let (_, _, body) = desk.cluster.get(desk.cluster.token("admin"), &web).await;
        let status = serde_json::from_slice::<Value>(&body).unwrap()["status"].take();
        status["observedGeneration"] == 1 && status["conditions"][1].is_object()
    };
    Cluster::eventually("the deployment is at rest", is_at_rest).await;
    let raw = format!("/api/v1/_raw/configmap/namespace/{here}/name/edited");
    let pause = format!("/api/v1/deployment/{here}/web/pause");
    let version = map["metadata"]["resourceVersion"].as_str().unwrap();
    let new = form(&here, "new", json!({}));
    let space = json!({"name": format!("{here}-new")}).to_string();
    let edit = |number: usize| {
        let mut edited = map.clone();
        edited["data"] = json!({"by": number.to_string()});
        edited.to_string()
    };
    for (method, path, body, done, words) in [
        (PUT, raw.as_str(), None, 204, version),
        (PUT, pause.as_str(), Some(""), 200, "web"),
        (POST, "/api/v1/appdeployment", Some(new.as_str()), 201, "new"),
        (POST, "/api/v1/namespace", Some(space.as_str()), 201, here.as_str()),
    ] {
        let edits = (0..4).map(|number| {
            let (desk, method) = (&desk, method.clone());
            let body = body.map_or_else(|| edit(number), str::to_owned);
            async move { desk.says((method, Admin, path), &body, &[done, 409], words).await.status }
        });
        let statuses = join_all(edits).await;
        let count = statuses.iter().filter(|status| **status == done).count();
        assert_eq!(count, 1, "{path}: {statuses:?}");
    }
    // Without a version the last writer wins, as documented: all of them are done.
    let edits = (0..3).map(|number| {
        let mut edited: Value = serde_json::from_str(&edit(number)).unwrap();
        edited["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let (desk, raw) = (&desk, raw.as_str());
        async move { desk.says((PUT, Admin, raw), &edited.to_string(), &[204], "").await }
    });
    join_all(edits).await;
}
