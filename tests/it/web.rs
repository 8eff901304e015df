//! The calls around the pages, on the real control plane, in the order of the web UI: signing in
//! with its CSRF tokens, who am I, settings and pinned resources in their ConfigMap, banner, config.
//! It is NOT about static files (`statics.rs`).

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, ask, grant, rule};

const JSON: (&str, &str) = ("content-type", "application/json");
const CHANGED: &str = "settings changed since last reload";
const CONFIG_MAP: &str = "kubernetes-dashboard-settings";

/// A gateway whose settings are in this namespace.
async fn start(namespace: &str, more: &[&str]) -> Gateway {
    let mut extra = vec!["--settings-namespace".to_owned(), namespace.to_owned()];
    extra.extend(more.iter().map(|text| (*text).to_owned()));
    gateway::start(Options { extra, ..Options::default() }).await
}

async fn nobodys(gateway: &Gateway, path: &str) -> Answer {
    gateway.request(Method::GET, None, path, &[], Vec::new()).await
}

async fn csrf(gateway: &Gateway, action: &str) -> String {
    let answer = nobodys(gateway, &format!("/api/v1/csrftoken/{action}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

async fn post(gateway: &Gateway, path: &str, csrf: Option<&str>, body: &str) -> Answer {
    let mut headers = vec![JSON];
    headers.extend(csrf.map(|token| ("x-csrf-token", token)));
    let body = body.as_bytes().to_vec();
    gateway.request(Method::POST, None, path, &headers, body).await
}

async fn put(gateway: &Gateway, user: &str, path: &str, body: &Value) -> Answer {
    let body = body.to_string().into_bytes();
    gateway.request(Method::PUT, Some(user), path, &[JSON], body).await
}

/// The admin's browser at the settings: what an answer sets, the next request carries.
async fn browse(gateway: &Gateway, cookie: &mut String, method: Method, body: &str) -> Answer {
    let headers = [JSON, ("cookie", cookie.as_str())];
    let body = body.as_bytes().to_vec();
    let answer = gateway.request(method, Some("admin"), "/b/settings", &headers, body).await;
    let attributes = "; Path=/b/settings; Max-Age=43200; HttpOnly; SameSite=Strict";
    assert!(answer.header("set-cookie").ends_with(attributes), "{:?}", answer.headers);
    *cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("binnacle-settings="), "{:?}", answer.headers);
    answer
}

/// The ConfigMap's texts as the API server has them; `Null` when there is none.
async fn stored(cluster: &Cluster, namespace: &str) -> Value {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}");
    let (_, _, body) = cluster.get(cluster.token("admin"), &path).await;
    let map: Value = serde_json::from_slice(&body).unwrap();
    map["data"].clone()
}

/// Somebody edits the ConfigMap with kubectl.
async fn edit(cluster: &Cluster, namespace: &str, key: &str, text: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}");
    let patch = json!({"data": {key: text}}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let admin = cluster.token("admin");
    let (status, _, body) = cluster.request(Method::PATCH, admin, &path, &headers, patch).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
}

fn is_item(answer: &Answer, status: u16, message: &str, reason: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let expected = json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": status,
    });
    assert_eq!(answer.json()["ErrStatus"], expected);
}

#[tokio::test]
async fn the_web_ui_starts_and_signs_in() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-login").await;
    let gateway = start(&namespace, &[]).await;
    for path in ["/config", "/settings/pinnedresources", "/settings", "/systembanner"] {
        let answer = nobodys(&gateway, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
    }
    is_item(
        &nobodys(&gateway, "/api/v1/me").await,
        401,
        "MSG_LOGIN_UNAUTHORIZED_ERROR",
        "Unauthorized",
    );
    let token = csrf(&gateway, "login").await;
    let viewer = cluster.token("viewer");
    for sent in [viewer.to_owned(), format!(" {viewer}\n")] {
        let login = json!({ "token": sent }).to_string();
        let answer = post(&gateway, "/api/v1/login", Some(&token), &login).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json(), json!({ "token": viewer }));
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let me = gateway.get("viewer", "/api/v1/me").await;
    assert_eq!(me.json(), json!({"name": "viewer", "authenticated": true}));
    let settings = gateway.get("viewer", "/settings").await;
    assert_eq!(settings.json()["itemsPerPage"], 10);
    gateway.stop().await;
}

#[tokio::test]
async fn a_bad_login_is_refused_and_says_which_way() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-bad").await;
    let gateway = start(&namespace, &[]).await;
    let token = csrf(&gateway, "login").await;
    let good = json!({ "token": cluster.token("viewer") }).to_string();
    let (mac, at) = token.split_once(':').unwrap();
    let other = csrf(&gateway, "namespace").await;
    let old = format!("{mac}:{}", at.parse::<i64>().unwrap() - 1);
    for wrong in [None, Some("x"), Some(other.as_str()), Some(old.as_str())] {
        let answer = post(&gateway, "/api/v1/login", wrong, &good).await;
        is_item(&answer, 401, "MSG_CSRF_VALIDATION_ERROR", "Invalid");
    }
    let unknown = post(&gateway, "/api/v1/login", Some(&token), r#"{"token":"unknown"}"#).await;
    is_item(&unknown, 401, "MSG_LOGIN_UNAUTHORIZED_ERROR", "Unauthorized");
    for (body, status) in
        [(r#"{"token":""}"#, 400), ("{}", 400), ("{", 400), (r#"{"token":7}"#, 400), ("[", 400)]
    {
        let answer = post(&gateway, "/api/v1/login", Some(&token), body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert_eq!(answer.json()["ErrStatus"]["reason"], "BadRequest", "{body}");
    }
    let headers = [("content-type", "text/plain"), ("x-csrf-token", token.as_str())];
    let body = good.clone().into_bytes();
    let answer = gateway.request(Method::POST, None, "/api/v1/login", &headers, body).await;
    assert_eq!(answer.status, 415, "{}", answer.text());
    assert!(answer.json()["ErrStatus"]["message"].is_string());
    gateway.stop().await;
    let gateway = start(&namespace, &["--csrf-protection=false"]).await;
    assert_eq!(post(&gateway, "/api/v1/login", None, &good).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn replicas_accept_each_others_tokens() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-replicas").await;
    let secret = format!("{namespace}/csrf");
    let one = start(&namespace, &["--csrf-secret", &secret]).await;
    let two = start(&namespace, &["--csrf-secret", &secret]).await;
    let (first, second) = tokio::join!(csrf(&one, "login"), csrf(&two, "login"));
    let login = json!({ "token": cluster.token("viewer") }).to_string();
    for (gateway, token) in [(&two, &first), (&one, &second)] {
        let answer = post(gateway, "/api/v1/login", Some(token), &login).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let path = format!("/api/v1/namespaces/{namespace}/secrets/csrf");
    assert_eq!(cluster.get(cluster.token("admin"), &path).await.0, 200);
    let alone = start(&namespace, &[]).await;
    let answer = post(&alone, "/api/v1/login", Some(&first), &login).await;
    assert_eq!(answer.status, 401, "a key of its own: {}", answer.text());
    for gateway in [one, two, alone] {
        gateway.stop().await;
    }
}

#[tokio::test]
async fn people_are_called_by_their_names_and_service_accounts_by_the_bare_one() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-me").await;
    let gateway = start(&namespace, &[]).await;
    let person = Person::new(cluster, &namespace, "lookout").await;
    for _ in 0..2 {
        let answer = ask(&gateway, &person.token, "/api/v1/me").await;
        assert_eq!(answer.json(), json!({"name": "lookout", "authenticated": true}));
    }
    let admin = gateway.get("admin", "/api/v1/me").await;
    assert_eq!(admin.json()["name"], "token-admin");
    let bad = ask(&gateway, "no-such-token", "/api/v1/me").await;
    is_item(&bad, 401, "MSG_LOGIN_UNAUTHORIZED_ERROR", "Unauthorized");
    gateway.stop().await;
}

#[tokio::test]
async fn settings_make_the_round_through_their_config_map() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-settings").await;
    let gateway = start(&namespace, &[]).await;
    let before = gateway.get("admin", "/settings").await.json();
    assert_eq!(before["namespaceFallbackList"], json!(["default"]));
    assert_eq!(before["resourceAutoRefreshTimeInterval"], 10);
    let mut wanted = before.clone();
    wanted["clusterName"] = json!("east");
    wanted["itemsPerPage"] = json!(25);
    wanted["labelsLimit"] = json!(0);
    let answer = put(&gateway, "admin", "/settings", &wanted).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.text());
    wanted["labelsLimit"] = json!(3);
    // At once, for the writer and for everybody.
    assert_eq!(gateway.get("admin", "/settings").await.json(), wanted);
    assert_eq!(nobodys(&gateway, "/settings").await.json(), wanted);
    let text = stored(cluster, &namespace).await["settings"].as_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), wanted);

    let refused = put(&gateway, "nobody", "/settings", &wanted).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(refused.json()["ErrStatus"]["reason"], "Forbidden");
    let body = wanted.to_string().into_bytes();
    let refused = gateway.request(Method::PUT, None, "/settings", &[JSON], body).await;
    is_item(&refused, 401, "MSG_LOGIN_UNAUTHORIZED_ERROR", "Unauthorized");
    for wrong in [json!({"itemsPerPage": "many"}), json!([]), json!({"labelsLimit": -1})] {
        let answer = put(&gateway, "admin", "/settings", &wrong).await;
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
    }
    let next = start(&namespace, &[]).await;
    let answer = put(&next, "admin", "/settings", &json!({"clusterName": "west"})).await;
    assert_eq!(answer.status, 204, "the first save after a restart: {}", answer.text());
    let shown = next.get("admin", "/settings").await.json();
    assert_eq!((&shown["clusterName"], &shown["itemsPerPage"]), (&json!("west"), &json!(25)));
    for gateway in [gateway, next] {
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_lost_update_of_the_settings_is_noticed_once() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-lost").await;
    let gateway = start(&namespace, &[]).await;
    let east = json!({"clusterName": "east"});
    assert_eq!(put(&gateway, "admin", "/settings", &east).await.status, 204);
    assert_eq!(gateway.get("admin", "/settings").await.json()["clusterName"], "east");
    edit(cluster, &namespace, "settings", r#"{"clusterName":"theirs"}"#).await;
    let ours = json!({"clusterName": "ours"});
    let answer = put(&gateway, "admin", "/settings", &ours).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let message = answer.json()["ErrStatus"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(CHANGED), "{message}");
    let settings = stored(cluster, &namespace).await["settings"].clone();
    assert!(settings.as_str().unwrap().contains("theirs"), "{settings}");
    // The person was told and saves anyway.
    assert_eq!(put(&gateway, "admin", "/settings", &ours).await.status, 204);
    assert_eq!(gateway.get("admin", "/settings").await.json()["clusterName"], "ours");

    // In every language the UI finds its words.
    edit(cluster, &namespace, "settings", r#"{"clusterName":"theirs again"}"#).await;
    let headers = [JSON, ("accept-language", "zh-CN")];
    let body = ours.to_string().into_bytes();
    let answer = gateway.request(Method::PUT, Some("admin"), "/settings", &headers, body).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains(CHANGED), "{}", answer.text());

    // Another key of the same ConfigMap is no change of the settings.
    assert_eq!(put(&gateway, "admin", "/settings", &ours).await.status, 204);
    edit(cluster, &namespace, "other", "x").await;
    assert_eq!(put(&gateway, "admin", "/settings", &east).await.status, 204);
    gateway.stop().await;
}

#[tokio::test]
async fn a_lost_update_of_the_settings_is_noticed_at_another_replica() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-lost-replicas").await;
    let args = ["--base-path", "/b"];
    let (one, two) = tokio::join!(start(&namespace, &args), start(&namespace, &args));
    let colleague = Person::new(cluster, &namespace, "colleague").await;
    let rules = json!([rule(&["get", "create", "patch"], &["configmaps"])]);
    grant(cluster, Some(&namespace), "colleague", colleague.subject.clone(), rules).await;
    let cookie = &mut String::new();
    assert_eq!(browse(&one, cookie, Method::GET, "").await.status, 200);
    let bearer = format!("Bearer {}", colleague.token);
    let theirs = || async {
        let headers = [JSON, ("authorization", bearer.as_str())];
        let body = br#"{"clusterName":"theirs"}"#.to_vec();
        one.request(Method::PUT, None, "/b/settings", &headers, body).await.status == 204
    };
    Cluster::eventually("the colleague may save", theirs).await;
    let ours = r#"{"clusterName":"ours"}"#;
    let answer = browse(&two, cookie, Method::PUT, ours).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let message = answer.json()["ErrStatus"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(CHANGED), "{message}");
    let settings = stored(cluster, &namespace).await["settings"].clone();
    assert!(settings.as_str().unwrap().contains("theirs"), "{settings}");
    // One's own change shows at a replica that has read the settings just before it.
    assert_eq!(browse(&two, cookie, Method::GET, "").await.status, 200);
    assert_eq!(browse(&one, cookie, Method::PUT, ours).await.status, 204);
    let shown = browse(&two, cookie, Method::GET, "").await.json();
    assert_eq!(shown["clusterName"], "ours");
    // Told, and one's own writes through either replica, are no changes by somebody else.
    for (gateway, body) in [(&one, ours), (&two, r#"{"clusterName":"again"}"#), (&one, ours)] {
        let answer = browse(gateway, cookie, Method::PUT, body).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    for gateway in [one, two] {
        gateway.stop().await;
    }
}

#[tokio::test]
async fn who_may_read_the_config_map_is_told_so() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-cani").await;
    let gateway = start(&namespace, &[]).await;
    let person = Person::new(cluster, &namespace, "settler").await;
    for path in ["/settings/cani", "/settings/pinnedresources/cani"] {
        assert_eq!(gateway.get("admin", path).await.json(), json!({"allowed": true}), "{path}");
        for token in [person.token.as_str(), cluster.token("nobody")] {
            let answer = ask(&gateway, token, path).await;
            assert_eq!(answer.json(), json!({"allowed": false}), "{path}");
        }
        assert_eq!(nobodys(&gateway, path).await.json(), json!({"allowed": false}), "{path}");
    }
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"],
        "resourceNames": [CONFIG_MAP]}]);
    grant(cluster, Some(&namespace), "settler", person.subject.clone(), rules).await;
    let allowed = || async {
        ask(&gateway, &person.token, "/settings/cani").await.json() == json!({"allowed": true})
    };
    Cluster::eventually("the right is known", allowed).await;
    gateway.stop().await;
}

#[tokio::test]
async fn resources_are_pinned_and_unpinned() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-pinned").await;
    let gateway = start(&namespace, &[]).await;
    let path = "/settings/pinnedresources";
    assert_eq!(nobodys(&gateway, path).await.json(), json!([]));
    let kind = json!({"kind": "customresourcedefinition", "name": "gadgets.example.org",
        "displayName": "Gadget", "namespaced": true});
    let object = json!({"kind": "gadgets.example.org", "name": "one", "namespace": "shop",
        "displayName": "one", "namespaced": true});
    // At once, and one of them twice: none is lost, none is there twice.
    let (a, b, c) = tokio::join!(
        put(&gateway, "admin", path, &kind),
        put(&gateway, "admin", path, &object),
        put(&gateway, "admin", path, &kind),
    );
    for answer in [a, b, c] {
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.text());
    }
    let mut shown = gateway.get("admin", path).await.json();
    shown.as_array_mut().unwrap().sort_by_key(|one| one["kind"].to_string());
    assert_eq!(shown, json!([kind, object]));
    let text = stored(cluster, &namespace).await["pinnedResources"].clone();
    assert!(text.as_str().unwrap().contains("gadgets.example.org"), "{text}");

    let delete = async |user: &str, rest: &str| {
        let path = format!("{path}/{rest}");
        gateway.request(Method::DELETE, Some(user), &path, &[], Vec::new()).await
    };
    assert_eq!(delete("nobody", "gadgets.example.org/shop/one").await.status, 403);
    assert_eq!(delete("admin", "gadgets.example.org/one").await.status, 404);
    assert_eq!(delete("admin", "gadgets.example.org/shop/one").await.status, 204);
    let again = delete("admin", "gadgets.example.org/shop/one").await;
    assert_eq!(again.status, 404);
    assert_eq!(again.json()["ErrStatus"]["reason"], "NotFound");
    assert_eq!(gateway.get("admin", path).await.json(), json!([kind]));
    let answer = delete("admin", "customresourcedefinition/gadgets.example.org").await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(nobodys(&gateway, path).await.json(), json!([]));
    for wrong in [json!({"name": "x"}), json!({"kind": "", "name": "x"}), json!("x")] {
        assert_eq!(put(&gateway, "admin", path, &wrong).await.status, 400, "{wrong}");
    }
    gateway.stop().await;
}

/// Behind a proxy that takes `/dash` off and tells of it.
#[tokio::test]
async fn a_pin_shows_at_a_replica_that_has_just_read_them() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-pinned-replicas").await;
    let (one, two) = tokio::join!(start(&namespace, &[]), start(&namespace, &[]));
    let cookie = &mut String::new();
    let mut browse = async |gateway: &Gateway, method: Method, rest: &str, body: &Value| {
        let path = format!("/settings/pinnedresources{rest}");
        let headers = [JSON, ("cookie", cookie.as_str()), ("x-forwarded-prefix", "/dash")];
        let body = body.to_string().into_bytes();
        let answer = gateway.request(method, Some("admin"), &path, &headers, body).await;
        let (set, attributes) = answer.header("set-cookie").split_once(';').unwrap();
        assert!(set.starts_with("binnacle-pins="), "{:?}", answer.headers);
        assert!(attributes.starts_with(" Path=/dash/settings;"), "{:?}", answer.headers);
        *cookie = set.to_owned();
        answer
    };
    let pin = json!({"kind": "gadgets.example.org", "name": "one", "displayName": "one",
        "namespaced": true, "namespace": "shop"});
    let (all, none) = (json!([pin]), Value::Null);
    assert_eq!(browse(&two, Method::GET, "", &none).await.json(), json!([]));
    assert_eq!(browse(&one, Method::PUT, "", &pin).await.status, 204);
    assert_eq!(browse(&two, Method::GET, "", &none).await.json(), all);
    let has_read = || async { nobodys(&two, "/settings/pinnedresources").await.json() == all };
    Cluster::eventually("it has read the pin by itself", has_read).await;
    let gone = browse(&one, Method::DELETE, "/gadgets.example.org/shop/one", &none).await;
    assert_eq!(gone.status, 204, "{}", gone.text());
    assert_eq!(browse(&two, Method::GET, "", &none).await.json(), json!([]));
    for gateway in [one, two] {
        gateway.stop().await;
    }
}

#[tokio::test]
async fn without_rights_of_our_own_the_callers_count_and_else_the_defaults() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-poor").await;
    let extra = vec!["--settings-namespace".to_owned(), namespace.clone()];
    let gateway = gateway::start(Options {
        shared_cache: false,
        server_user: "nobody",
        extra,
        ..Options::default()
    })
    .await;
    assert_eq!(gateway.get("admin", "/settings").await.json()["clusterName"], "");
    let answer = put(&gateway, "admin", "/settings", &json!({"clusterName": "east"})).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(gateway.get("admin", "/settings").await.json()["clusterName"], "east");
    for answer in [nobodys(&gateway, "/settings").await, gateway.get("viewer", "/settings").await] {
        assert_eq!((answer.status, &answer.json()["clusterName"]), (200, &json!("")));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_banner_and_the_version_need_no_credentials() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("web-banner").await;
    let more = ["--system-banner", "Rebuild at noon", "--system-banner-severity", "warning"];
    let gateway = start(&namespace, &more).await;
    let banner = nobodys(&gateway, "/systembanner").await.json();
    assert_eq!(banner, json!({"message": "Rebuild at noon", "severity": "WARNING"}));
    let config = nobodys(&gateway, "/config").await.json();
    assert!(config["serverTime"].as_i64().unwrap() > 1_700_000_000_000, "{config}");
    assert_eq!(config["version"], env!("CARGO_PKG_VERSION"));
    assert!(config["userAgent"].as_str().unwrap().starts_with("binnacle/"), "{config}");
    gateway.stop().await;
    let gateway = start(&namespace, &[]).await;
    let banner = nobodys(&gateway, "/systembanner").await.json();
    assert_eq!(banner, json!({"message": "", "severity": "INFO"}));
    gateway.stop().await;
}
