//! Misuse of every kind against a gateway in front of the real cluster: a clear error with the
//! right status, never another identity, never an end of the server. Where an HTTP client would not
//! send it, the bytes are written by hand.
//!
//! It is NOT where limits of connections are tested (`listeners.rs`).

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, ask};

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
/// The passthrough to the cluster of the kubeconfig's context.
const THROUGH: &str = "/clusters/test";
const UNAUTHORIZED: &str = "MSG_LOGIN_UNAUTHORIZED_ERROR";

async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.request(Method::GET, None, path, headers, Vec::new()).await
}

/// Sends these bytes over TLS, with nothing behind them, and returns all that comes back.
async fn raw(gateway: &Gateway, bytes: &[u8]) -> String {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(gateway.tls()));
    let mut stream = connector.connect(name, tcp).await.unwrap();
    // A server that has refused already may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let ended = tokio::time::timeout(DEADLINE, read).await;
    assert!(ended.is_ok(), "no end of the answer to {:?}", String::from_utf8_lossy(bytes));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whom the API server takes the sender of a request through us for.
async fn who_am_i(gateway: &Gateway, user: &str, headers: &[(&str, &str)]) -> Answer {
    let path = format!("{THROUGH}/apis/authentication.k8s.io/v1/selfsubjectreviews");
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    gateway.request(Method::POST, Some(user), &path, &all, review.into_bytes()).await
}

/// The server still answers, and everybody is still who they are.
async fn is_well(gateway: &Gateway) {
    assert_eq!(get(gateway, "/livez", &[]).await.text(), "ok");
    let nodes = gateway.get("admin", "/api/v1/node?filterBy=name,node-").await.json();
    assert_eq!(nodes["listMeta"]["totalItems"], 3);
    let me = who_am_i(gateway, "nobody", &[]).await.json();
    assert_eq!(me["status"]["userInfo"]["username"], "nobody", "{me}");
}

#[tokio::test]
async fn odd_query_values_and_absurd_page_numbers_never_fail() {
    let gateway = gateway::start(Options::default()).await;
    let long = "x".repeat(20_000);
    let many = "a,name,".repeat(3_000);
    let odd = [
        "itemsPerPage=9223372036854775807&page=9223372036854775807".to_owned(),
        "itemsPerPage=9223372036854775807&page=2&sortBy=d,creationTimestamp".to_owned(),
        "itemsPerPage=18446744073709551616&page=1".to_owned(),
        "itemsPerPage=-9223372036854775808&page=-1".to_owned(),
        "itemsPerPage=1e3&page=0x1".to_owned(),
        "itemsPerPage=%zz&page=%00".to_owned(),
        "itemsPerPage&page&sortBy&filterBy".to_owned(),
        "itemsPerPage=1&itemsPerPage=2&page=1&page=2".to_owned(),
        "&&&==&=;=&%".to_owned(),
        "sortBy=%ff%fe,%00".to_owned(),
        "sortBy=,,,".to_owned(),
        "filterBy=".to_owned(),
        "filterBy=name,%ff".to_owned(),
        "filterBy=name,%F0%9F%9A%80".to_owned(),
        format!("filterBy=name,{long}"),
        format!("sortBy={many}a,name"),
        format!("{long}={long}"),
    ];
    for query in odd {
        for kind in ["pod", "event", "node"] {
            let answer = gateway.get("admin", &format!("/api/v1/{kind}?{query}")).await;
            assert_eq!(answer.status, 200, "{kind}?{query:.80}: {}", answer.text());
            assert!(answer.json()["listMeta"]["totalItems"].is_u64());
        }
    }
    for query in ["filterBy=%00,x", "filterBy=name;drop,x", "filterBy=a,b,c,d"] {
        let answer = gateway.get("admin", &format!("/api/v1/pod?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert!(
            answer.text().contains("name, namespace, creationTimestamp, status"),
            "{}",
            answer.text()
        );
    }
    is_well(&gateway).await;
}

#[tokio::test]
async fn headers_of_100_kb_are_a_431_everywhere() {
    let gateway = gateway::start(Options::default()).await;
    let big = "x".repeat(100_000);
    for path in ["/api/v1/pod", "/livez", "/clusters/test/api", "/nowhere"] {
        let answer = get(&gateway, path, &[("big", big.as_str())]).await;
        assert_eq!(answer.status, 431, "{path}: {}", answer.text());
        assert!(answer.text().contains("too large"), "{}", answer.text());
    }
    let value = format!("Bearer {big}");
    let token = get(&gateway, "/api/v1/pod", &[("authorization", value.as_str())]).await;
    assert_eq!(token.status, 431);
    is_well(&gateway).await;
}

#[tokio::test]
async fn paths_that_are_broken_or_hide_something_are_a_400() {
    let gateway = gateway::start(Options::default()).await;
    let bad = ["%zz", "%", "%2", "a%00b", "%00", "%ff", "..", "%2e%2e", ".%2E", ".", "%2e"];
    for part in bad {
        let ours = [
            format!("/api/v1/pod/{part}"),
            format!("/api/v1/deployment/default,{part}"),
            format!("/api/v1/pod/default/{part}"),
            format!("/api/v1/node/{part}"),
        ];
        let through = [
            format!("{THROUGH}/api/v1/namespaces/{part}/pods"),
            format!("{THROUGH}/api/v1/namespaces/default/pods/{part}"),
            format!("{THROUGH}/{part}/api/v1/pods"),
        ];
        // A byte that is no UTF-8 is well encoded: what it means is the API server's to say.
        let through = through.into_iter().filter(|_| part != "%ff");
        for path in ours.into_iter().chain(through) {
            let answer = gateway.get("admin", &path).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            assert!(!answer.body.is_empty(), "{path} says nothing");
        }
        // Outside the routes there is nothing to be read either.
        for path in [format!("/api/v1/{part}/pod"), format!("/{part}/api/v1/pod")] {
            let status = gateway.get("admin", &path).await.status;
            assert!(matches!(status, 400 | 404), "{path}: {status}");
        }
    }
    let long = "a".repeat(64);
    for part in ["a%2Fb", "a%09b", "a%20b", "a%3Fb", &long] {
        let answer = gateway.get("admin", &format!("/api/v1/pod/{part}")).await;
        assert_eq!(answer.status, 400, "{part}: {}", answer.text());
    }
    // No namespace is called so, and no pod is there: half a name is no mistake.
    for part in ["Upper", "-a", "under_score"] {
        let answer = gateway.get("admin", &format!("/api/v1/pod/{part}")).await;
        assert_eq!(answer.status, 200, "{part}: {}", answer.text());
        assert_eq!(answer.json()["listMeta"]["totalItems"], 0, "{part}");
    }
    is_well(&gateway).await;
}

#[tokio::test]
async fn wrong_methods_unknown_paths_and_trailing_slashes_are_told_apart() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("routes").await;
    let gateway = gateway::start(Options::default()).await;
    let list = format!("/api/v1/pod/{namespace}");
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for path in ["/api/v1/pod", "/api/v1/pod/", list.as_str(), "/api/v1/node", "/livez"] {
            let method = method.clone();
            let answer = gateway.request(method, Some("admin"), path, &[], Vec::new()).await;
            assert_eq!(answer.status, 405, "{path}");
            assert_eq!(answer.text(), "405: Method Not Allowed", "{path}");
        }
    }
    let unknown = ["/nowhere", "/api", "/api/v2/pod", "/api/v1", "/api/v1/colour", "/api/v1/Pod"];
    for path in unknown {
        let answer = gateway.get("admin", path).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, "404: Page Not Found"), "{path}");
    }
    for path in ["/api/v1/pod/", &format!("{list}/"), &format!("{list}//"), "/api/v1/node/"] {
        let answer = gateway.get("admin", path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let query = gateway.get("admin", &format!("{list}/?itemsPerPage=0&page=1")).await;
    assert_eq!(query.json()["listMeta"]["totalItems"], 0);
}

#[tokio::test]
async fn invalid_tokens_are_a_401_that_the_web_ui_knows() {
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster::shared().await.token("admin");
    // {"alg":"none"} and {"sub":"token-admin","exp":1}
    let unsigned = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0b2tlbi1hZG1pbiIsImV4cCI6MX0.";
    let basic = format!("Basic {admin}");
    let refused =
        ["Bearer no-such-token", unsigned, basic.as_str(), "Bearer", "Bearer ", "Negotiate", ""];
    for value in refused {
        for path in ["/api/v1/pod", "/api/v1/node", "/api/v1/event/default"] {
            let answer = get(&gateway, path, &[("authorization", value)]).await;
            assert_eq!((answer.status, answer.text().as_str()), (401, UNAUTHORIZED), "{value:?}");
        }
        let path = format!("{THROUGH}/api/v1/pods");
        let answer = get(&gateway, &path, &[("authorization", value)]).await;
        assert_eq!(answer.status, 401, "{value:?}");
        assert_eq!(answer.json()["kind"], "Status", "{}", answer.text());
    }
    let good = format!("Bearer {admin}");
    let doubled = [("authorization", good.as_str()), ("authorization", "Bearer other")];
    assert_eq!(get(&gateway, "/api/v1/pod", &doubled).await.status, 401);
    is_well(&gateway).await;
}

#[tokio::test]
async fn the_token_of_a_deleted_account_is_worth_nothing_soon() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deleted").await;
    let gateway = gateway::start(Options::default()).await;
    let kubectl = |args: &[&str]| {
        let mut command = tokio::process::Command::from(cluster.kubectl_command("admin"));
        command.args(args).args(["--namespace", namespace.as_str()]).kill_on_drop(true);
        async move {
            let output = command.output().await.unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        }
    };
    kubectl(&["create", "serviceaccount", "brief"]).await;
    let subject = format!("--serviceaccount={namespace}:brief");
    kubectl(&["create", "rolebinding", "brief", "--clusterrole=view", &subject]).await;
    let token = kubectl(&["create", "token", "brief"]).await;
    let list = format!("/api/v1/pod/{namespace}");
    let through = format!("{THROUGH}/api/v1/namespaces/{namespace}/pods");
    let may = || async {
        let answer = ask(&gateway, &token, &list).await;
        answer.status == 200 && answer.json()["errors"] == json!([])
    };
    Cluster::eventually("the account may list pods", may).await;
    assert_eq!(ask(&gateway, &token, &through).await.status, 200);
    // A signature's last character has bits that the API server overlooks. We refuse none of its
    // spellings; that all are one caller is proven in `src/upstream/identity.rs`.
    let mut respelt = token.clone().into_bytes();
    *respelt.last_mut().unwrap() += 1;
    let respelt = String::from_utf8(respelt).unwrap();
    for path in [&list, &through] {
        assert_eq!(ask(&gateway, &respelt, path).await.status, 200, "{path}");
    }
    kubectl(&["delete", "serviceaccount", "brief"]).await;
    let over = || async {
        let answer = ask(&gateway, &token, &list).await;
        answer.status == 401 && answer.text() == UNAUTHORIZED
    };
    Cluster::eventually("the token of the deleted account is refused", over).await;
    let over = || async { ask(&gateway, &token, &through).await.status == 401 };
    Cluster::eventually("it is refused behind the passthrough", over).await;
}

#[tokio::test]
async fn forged_headers_of_a_front_proxy_have_no_effect() {
    let gateway = gateway::start(Options::default()).await;
    let forged = [
        ("x-remote-user", "cert-admin"),
        ("x-remote-group", "system:masters"),
        ("x-remote-extra-scopes", "all"),
        ("x-remote-uid", "1"),
        ("x-forwarded-user", "cert-admin"),
    ];
    let me = who_am_i(&gateway, "nobody", &forged).await.json();
    assert_eq!(me["status"]["userInfo"]["username"], "nobody", "{me}");
    let groups = me["status"]["userInfo"]["groups"].to_string();
    assert!(!groups.contains("masters"), "{me}");
    let list = gateway.request(Method::GET, Some("nobody"), "/api/v1/pod", &forged, Vec::new());
    let list = list.await.json();
    assert_eq!(list["pods"], json!([]), "{list}");
    assert!(list["errors"].to_string().contains("nobody"), "{list}");
    for path in ["/api/v1/pod", "/clusters/test/api/v1/pods"] {
        assert_eq!(get(&gateway, path, &forged).await.status, 401, "{path}");
    }
}

async fn asked(gateway: &Gateway, user: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.request(Method::GET, Some(user), path, headers, Vec::new()).await
}

#[tokio::test]
async fn impersonation_needs_the_right_to_it_and_a_user() {
    let gateway = gateway::start(Options::default()).await;
    let (list, through) = ("/api/v1/pod", "/clusters/test/api/v1/pods");
    for path in [list, through] {
        let admin = [("impersonate-user", "token-admin"), ("impersonate-group", "system:masters")];
        let answer = asked(&gateway, "nobody", path, &admin).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
        assert!(answer.text().contains("impersonate"), "{}", answer.text());
        for header in ["impersonate-group", "impersonate-uid", "impersonate-extra-scopes"] {
            for user in ["nobody", "admin"] {
                let answer = asked(&gateway, user, path, &[(header, "system:masters")]).await;
                assert_eq!(answer.status, 400, "{path} {header}: {}", answer.text());
                assert!(answer.text().contains("Impersonate-User"), "{}", answer.text());
            }
        }
        // The API server would overlook an empty name and a second one.
        let (empty, name) = (("impersonate-user", ""), ("impersonate-user", "nobody"));
        for odd in [&[empty][..], &[empty, name], &[name, empty], &[name, name]] {
            for user in ["nobody", "admin"] {
                let answer = asked(&gateway, user, path, odd).await;
                assert_eq!(answer.status, 400, "{path} {odd:?}: {}", answer.text());
                assert!(answer.text().contains("Impersonate-User"), "{}", answer.text());
            }
        }
        // What it does not know changes nothing.
        let unknown = asked(&gateway, "nobody", path, &[("impersonate-foo", "admin")]).await;
        let plain = asked(&gateway, "nobody", path, &[]).await;
        assert_eq!(unknown.status, plain.status, "{path}: {}", unknown.text());
    }
    // Who may do it becomes that user, and no more than that.
    let headers = [("impersonate-user", "nobody")];
    let answer = asked(&gateway, "admin", list, &headers).await.json();
    assert_eq!(answer["pods"], json!([]), "{answer}");
    assert!(answer["errors"].to_string().contains("User \\\"nobody\\\""), "{answer}");
    let me = who_am_i(&gateway, "admin", &headers).await.json();
    assert_eq!(me["status"]["userInfo"]["username"], "nobody", "{me}");
    // A live answer, which asks for nothing yet, has no place for a name that may not be used: who
    // makes them up would take all the places.
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("impersonate-user", "made-up"),
    ];
    for (user, status) in [("nobody", 403), ("admin", 101)] {
        let answer = asked(&gateway, user, "/api/v1/stream", &upgrade).await;
        assert_eq!(answer.status, status, "{user}: {}", answer.text());
        assert_eq!(answer.text().contains("cannot impersonate"), status == 403, "{user}");
    }
    is_well(&gateway).await;
}

#[tokio::test]
async fn being_on_this_machine_or_having_the_cookie_elsewhere_is_worth_nothing() {
    let gateway = gateway::start(Options::default()).await;
    let local = gateway.local_token.clone().unwrap();
    // The link that was printed at the start is the way to the cookie, which is no token itself.
    let link = get(&gateway, &format!("/?token={local}"), &[]).await;
    let set = link.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(set.starts_with("binnacle-token=") && !set.contains(local.as_str()), "{set}");
    let cookie = set.clone();
    let cookie = ("cookie", cookie.as_str());
    for path in ["/api/v1/pod", "/clusters/test/api/v1/pods"] {
        let cases: [(&[(&str, &str)], u16); 9] = [
            (&[], 401),
            (&[("x-forwarded-for", "127.0.0.1"), ("host", "localhost")], 401),
            (&[cookie], 200),
            (&[("cookie", "binnacle-token=guess")], 401),
            (&[cookie, ("sec-fetch-site", "cross-site")], 403),
            (&[cookie, ("sec-fetch-site", "same-site")], 403),
            (&[cookie, ("sec-fetch-site", "same-origin")], 200),
            (&[cookie, ("host", "rebound.example")], 403),
            (&[cookie, ("host", "localhost.rebound.example:8443")], 403),
        ];
        for (headers, status) in cases {
            let answer = get(&gateway, path, headers).await;
            assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
        }
    }
    let path = format!("{THROUGH}/api/v1/namespaces");
    let headers =
        [cookie, ("origin", "https://evil.example"), ("content-type", "application/json")];
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}});
    let body = body.to_string().into_bytes();
    let answer = gateway.request(Method::POST, None, &path, &headers, body).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(gateway.get("admin", &format!("{path}/evil")).await.status, 404);
    // The link that was printed at the start is the way to the cookie.
    let link = get(&gateway, &format!("/?token={local}"), &[]).await;
    assert_eq!(link.status, 303);
    assert!(link.header("set-cookie").starts_with(cookie.1), "{}", link.header("set-cookie"));
    assert_eq!(get(&gateway, "/?token=guess", &[]).await.status, 401);
}

#[tokio::test]
async fn bytes_that_no_client_would_send_are_refused_and_do_no_harm() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let end = format!("Host: x\r\nAuthorization: Bearer {}\r\n", cluster.token("nobody"));
    let close = format!("{end}Connection: close\r\n\r\n");
    let refused: [(&str, Vec<u8>); 14] = [
        ("400", b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec()),
        ("400", format!("GET /livez HTTP/1.1\r\nHost: x\r\n{close}").into_bytes()),
        ("400", format!("GET /api/v1/pod\0 HTTP/1.1\r\n{close}").into_bytes()),
        ("400", format!("GET /api/v1/pod/\u{7f} HTTP/1.1\r\n{close}").into_bytes()),
        ("400", [&b"GET /api/v1/pod/\xff HTTP/1.1\r\n"[..], close.as_bytes()].concat()),
        ("400", format!("GET api/v1/pod HTTP/1.1\r\n{close}").into_bytes()),
        ("400", format!("GET /api/v1/pod /x HTTP/1.1\r\n{close}").into_bytes()),
        ("400", format!("GET /api/v1/pod HTTP/9.9\r\n{close}").into_bytes()),
        ("400", format!("G\0T /api/v1/pod HTTP/1.1\r\n{close}").into_bytes()),
        ("400", format!("GET /api/v1/pod HTTP/1.1\r\nX: a\0b\r\n{close}").into_bytes()),
        ("400", format!("GET /api/v1/pod HTTP/1.1\r\nX y: z\r\n{close}").into_bytes()),
        (
            "400",
            format!("GET /livez HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n{close}")
                .into_bytes(),
        ),
        ("400", format!("GET /livez HTTP/1.1\r\nContent-Length: -1\r\n{close}").into_bytes()),
        ("431", format!("GET /livez HTTP/1.1\r\n{}{close}", "A: b\r\n".repeat(300)).into_bytes()),
    ];
    for (status, bytes) in refused {
        let answer = raw(&gateway, &bytes).await;
        let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?}: {answer:?}");
    }
    // Probes may be older than names.
    let probed = raw(&gateway, b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(probed.split_whitespace().nth(1), Some("200"), "{probed}");
    // Forms of a target that are well made and still name nothing here, or somebody else.
    for (start, status) in [
        ("GET *", "404"),
        ("OPTIONS *", "404"),
        ("CONNECT evil.example:443", "40"),
        ("GET https://evil.example/nowhere", "404"),
    ] {
        let answer = raw(&gateway, format!("{start} HTTP/1.1\r\n{close}").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{start}: {answer:?}");
    }
    is_well(&gateway).await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_changes_nothing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("cut").await;
    let person = Person::new(cluster, &namespace, "person").await;
    let gateway = gateway::start(Options::default()).await;
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "half"}});
    let body = body.to_string();
    for token in [cluster.token("admin"), &person.token] {
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(gateway.tls()));
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        let head = format!(
            "POST {THROUGH}{maps} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len() + 1
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\"reason\":\"BadRequest\""), "{answer}");
    }
    let (_, _, maps) = cluster.get(cluster.token("admin"), &maps).await;
    let maps: Value = serde_json::from_slice(&maps).unwrap();
    let mut names = maps["items"].as_array().unwrap().iter().map(|map| &map["metadata"]["name"]);
    assert!(names.all(|name| name != "half"), "{maps}");
    is_well(&gateway).await;
}
