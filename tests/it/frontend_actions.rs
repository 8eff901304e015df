//! The actions of the stock web frontend: dialogs, menus and the create page, as `frontend.rs`
//! replays them.
//!
//! It is NOT where all that a write does is tested (`writes.rs`, `deploys.rs`, `raw.rs`).

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::frontend::Seat;
use crate::frontend_table::{CRD, LIST_QUERY};
use crate::gateway::Answer;
use crate::people::{create, workload};
use crate::writes::live;

impl Seat<'_> {
    /// POST with the token against forgery that is fetched right before.
    pub async fn posts(&self, token: &str, path: &str, body: &Value) -> Answer {
        let action = path.split('/').next().unwrap_or_default();
        let csrf = self.gateway.get(token, &format!("/api/v1/csrftoken/{action}")).await.json();
        let headers = [("x-csrf-token", csrf["token"].as_str().unwrap())];
        let (path, body) = (format!("/api/v1/{path}"), body.to_string());
        self.gateway.send(Method::POST, token, &path, &headers, body).await
    }

    async fn does(&self, method: Method, path: &str, body: &Value) -> Answer {
        let path = if path.starts_with('/') { path.into() } else { format!("/api/v1/{path}") };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.gateway.send(method, self.token, &path, &[], body).await
    }

    /// What the actions are done to, and that has the person's name.
    pub async fn prepares(&self) {
        let (name, space) = (self.name, self.space);
        workload(self.cluster, space, name, 0, "none").await;
        let core = format!("/api/v1/namespaces/{space}");
        for (kind, plural, content) in
            [("ConfigMap", "configmaps", "a"), ("Secret", "secrets", "b2xk")]
        {
            let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name},
                "data": {"a": content}});
            create(self.cluster, &format!("{core}/{plural}"), object).await;
        }
        let containers = json!([{"name": "main", "image": "example.invalid/main"}]);
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
        let job = json!({"spec": {"suspend": true, "template": pod}});
        let object = json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": name},
            "spec": {"schedule": "0 3 1 1 *", "suspend": true, "jobTemplate": job}});
        let jobs = format!("/apis/batch/v1/namespaces/{space}/cronjobs");
        create(self.cluster, &jobs, object).await;
        let version = format!("{space}.example.com/v1");
        let object = json!({"apiVersion": version, "kind": "Widget", "metadata": {"name": name},
            "spec": {"size": 1, "replicas": 1}});
        let widgets = format!("/apis/{version}/namespaces/{space}/widgets");
        create(self.cluster, &widgets, object).await;
    }

    pub async fn edits(&self) {
        let (name, space) = (self.name, self.space);
        let raw = |kind: &str| format!("_raw/{kind}/namespace/{space}/name/{name}");
        let edited = || async {
            let mut object = self.does(Method::GET, &raw("deployment"), &Value::Null).await.json();
            assert_eq!(object["kind"], "Deployment", "{object}");
            object["metadata"]["labels"]["edited"] = json!(name);
            let answer = self.does(Method::PUT, &raw("deployment"), &object).await;
            // Its controller may have been faster.
            assert!(matches!(answer.status, 204 | 409), "{}", answer.text());
            answer.status == 204
        };
        Cluster::eventually("the deployment is edited", edited).await;
        let list = self.get(&format!("/api/v1/deployment/{space}?{LIST_QUERY}")).await.text();
        assert!(list.contains(&format!("\"edited\":\"{name}\"")), "{list}");

        let mut secret = self.does(Method::GET, &raw("secret"), &Value::Null).await.json();
        secret["data"]["a"] = json!("bmV3");
        let answer = self.does(Method::PUT, &raw("secret"), &secret).await;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""));
        let detail = self.get(&format!("/api/v1/secret/{space}/{name}")).await.json();
        assert_eq!(detail["data"]["a"], "bmV3", "{detail}");

        for kind in ["deployment".to_owned(), self.names.fill(CRD)] {
            let path = format!("scale/{kind}/{space}/{name}");
            let counts = self.does(Method::GET, &path, &Value::Null).await.json();
            assert!(counts["desiredReplicas"].is_u64(), "{path}: {counts}");
            let wanted = format!("{path}?scaleBy=2");
            let counts = self.does(Method::PUT, &wanted, &json!({"scaleBy": 2})).await.json();
            assert_eq!(counts["desiredReplicas"], 2, "{path}: {counts}");
        }
        let path = format!("deployment/{space}/{name}/restart");
        let answer = self.does(Method::PUT, &path, &json!({"responseType": "text"})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let path = format!("cronjob/{space}/{name}/trigger");
        let answer = self.does(Method::PUT, &path, &json!({})).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        let ended = format!("/api/v1/cronjob/{space}/{name}/job?active=false&{LIST_QUERY}");
        assert_eq!(self.get(&ended).await.json()["listMeta"]["totalItems"], 1);
    }

    pub async fn creates(&self) {
        let (name, space) = (self.name, self.space);
        let valid = async |path: &str, body: Value| {
            let path = format!("appdeployment/validate/{path}");
            self.does(Method::POST, &path, &body).await.json()["valid"].clone()
        };
        assert_eq!(valid("name", json!({"name": name, "namespace": space})).await, false);
        let app = format!("{name}-app");
        assert_eq!(valid("name", json!({"name": app, "namespace": space})).await, true);
        assert_eq!(valid("imagereference", json!({"reference": "a.invalid/b:1"})).await, true);
        assert_eq!(valid("protocol", json!({"protocol": "UDP", "isExternal": true})).await, false);
        let port = json!({"port": 80, "targetPort": 8080, "protocol": "TCP"});
        let label = json!({"key": "k8s-app", "value": app});
        let form = json!({
            "containerImage": "example.invalid/main", "imagePullSecret": null,
            "containerCommand": null, "containerCommandArgs": null, "isExternal": false,
            "name": app, "description": null, "portMappings": [port], "replicas": 1,
            "variables": [], "memoryRequirement": null, "cpuRequirement": null,
            "labels": [label], "namespace": space, "runAsPrivileged": false,
        });
        let answer = self.posts(self.token, "appdeployment", &form).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:";
        for (file, namespace, content) in [
            ("", space, format!("{map} {{name: {name}-one}}\n")),
            ("made.yaml", "_all", format!("{map} {{name: {name}-two, namespace: {space}}}\n")),
        ] {
            let body = json!({"name": file, "namespace": namespace, "content": content,
                "validate": true});
            let answer = self.posts(self.token, "appdeploymentfromfile", &body).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            assert_eq!(answer.json()["error"], "", "{}", answer.text());
        }
        let body = json!({"name": format!("{name}-pull"), "namespace": space, "data": "e30="});
        let answer = self.posts(self.token, "secret/", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        for (kind, made) in [
            ("deployment", app.clone()),
            ("service", app),
            ("configmap", format!("{name}-one")),
            ("configmap", format!("{name}-two")),
            ("secret", format!("{name}-pull")),
        ] {
            let list = self.get(&format!("/api/v1/{kind}/{space}")).await.text();
            assert!(list.contains(&format!("\"{made}\"")), "{made}: {list}");
        }
        let body = json!({"name": format!("{space}-{name}")});
        let answer = self.posts(self.token, "namespace", &body).await;
        assert_eq!(answer.status, if self.is_admin { 201 } else { 403 }, "{}", answer.text());
        let list = self.get("/api/v1/namespace").await.text();
        assert_eq!(list.contains(&format!("\"{space}-{name}\"")), self.is_admin, "{list}");
    }

    /// Settings and pins are the dashboard's own, in a namespace that is not the person's.
    pub async fn configures(&self) {
        let status = if self.is_admin { 204 } else { 403 };
        let crd = self.names.fill(CRD);
        let path = "/settings/pinnedresources";
        let pin = json!({"kind": "customresourcedefinition", "name": crd,
            "displayName": "Widget", "namespaced": true});
        let answer = self.does(Method::PUT, path, &pin).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let shown = self.get(path).await.json();
        assert_eq!(shown, if self.is_admin { json!([pin]) } else { json!([]) });
        if self.is_admin {
            let pinned = format!("{path}/customresourcedefinition/{crd}");
            let answer = self.does(Method::DELETE, &pinned, &Value::Null).await;
            assert_eq!(answer.status, 204, "{}", answer.text());
            assert_eq!(self.get(path).await.json(), json!([]));
        }
        let mut settings = self.get("/settings").await.json();
        settings["labelsLimit"] = json!(5);
        let answer = self.does(Method::PUT, "/settings", &settings).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }

    pub async fn deletes(&self) {
        let (name, space) = (self.name, self.space);
        let crd = self.names.fill(CRD);
        for (kind, options) in [
            ("configmap", "deleteNow=false&propagation=Background"),
            ("cronjob", "deleteNow=true&propagation=Background"),
            ("deployment", "deleteNow=true&propagation=Foreground"),
            ("secret", "deleteNow=false&propagation=Background"),
            (crd.as_str(), "deleteNow=false&propagation=Orphan"),
        ] {
            let path = format!("_raw/{kind}/namespace/{space}/name/{name}");
            let chosen = format!("{path}?{options}");
            let answer = self.does(Method::DELETE, &chosen, &Value::Null).await;
            assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{kind}");
            let is_gone = || async { self.get(&format!("/api/v1/{path}")).await.status == 404 };
            Cluster::eventually(&format!("{path} is gone"), is_gone).await;
        }
        let path = self.names.fill("_raw/node/name/NODE");
        let node = self.does(Method::GET, &path, &Value::Null).await;
        assert_eq!(node.status, if self.is_admin { 200 } else { 403 });
    }

    /// The same actions on what is somebody else's change nothing and tell nothing.
    pub async fn is_refused_elsewhere(&self) {
        let other = self.other;
        let core = format!("/api/v1/namespaces/{other}");
        let (map, secret) = (format!("{core}/configmaps/gem"), format!("{core}/secrets/gem"));
        let before = (live(self.cluster, &map).await, live(self.cluster, &secret).await);
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "gem", "namespace": other}, "data": {"a": "changed"}});
        for (method, path, body) in [
            (Method::GET, format!("_raw/secret/namespace/{other}/name/gem"), Value::Null),
            (Method::PUT, format!("_raw/configmap/namespace/{other}/name/gem"), object),
            (Method::DELETE, format!("_raw/configmap/namespace/{other}/name/gem"), Value::Null),
            (Method::GET, format!("scale/deployment/{other}/gem"), Value::Null),
            (Method::PUT, format!("scale/deployment/{other}/gem?scaleBy=3"), json!({})),
            (Method::PUT, format!("deployment/{other}/gem/restart"), json!({})),
            (Method::PUT, format!("cronjob/{other}/gem/trigger"), json!({})),
            (Method::GET, format!("deployment/{other}/gem"), Value::Null),
        ] {
            let answer = self.does(method, &path, &body).await;
            assert_eq!(answer.status, 403, "{path}: {}", answer.text());
            assert!(!answer.text().contains("facets"), "{path}: {}", answer.text());
        }
        let file = json!({"name": "", "namespace": other, "validate": true,
            "content": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n"});
        let pull = json!({"name": "more", "namespace": other, "data": "e30="});
        for (path, body) in [("appdeploymentfromfile", file), ("secret/", pull)] {
            let answer = self.posts(self.token, path, &body).await;
            assert_eq!(answer.status, 403, "{path}: {}", answer.text());
        }
        let after = (live(self.cluster, &map).await, live(self.cluster, &secret).await);
        assert!(before.0.is_some() && before == after, "{after:?}");
        assert_eq!(live(self.cluster, &format!("{core}/configmaps/more")).await, None);
    }
}
