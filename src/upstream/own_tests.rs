//! Tests of our own identity: what goes to the API server, and when a source is asked again. The
//! API server is played by a few lines here, plugins by a shell.

use std::fs;
use std::path::Path;

use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::{Cluster, Identity, User};
use super::*;

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Counts its runs in the folder that is its first argument, waits there for `go`, and gives what
/// the file of this run has, or fails without one.
const PLUGIN: &str = r#"
    echo >> "$0/runs"
    run=$(wc -l < "$0/runs" | tr -d ' ')
    while [ -d "$0" ] && [ ! -e "$0/go" ]; do sleep 0.05; done
    cat "$0/$run"
"#;

type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// A cluster with this user, whose API server notes headers and knows no token that ends in `-old`.
async fn cluster(user: Value) -> (Cluster, Seen) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let seen = Seen::default();
    let noted = seen.clone();
    let answer = move |headers: HeaderMap| async move {
        let token = headers.get(header::AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
        let old = token.ends_with(b"-old");
        noted.lock().unwrap().push(headers);
        if old { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    config.auth_info = serde_json::from_value(user).unwrap();
    (Cluster::new("test", config).unwrap(), seen)
}

async fn ask(cluster: &Cluster, who: Identity<'_>) -> Result<StatusCode, UpstreamError> {
    let request = Request::get("/version").body(Body::empty()).unwrap();
    let answer = timeout(DEADLINE, cluster.send(who, request)).await.expect("an answer");
    answer.map(|answer| answer.status())
}

/// The values of a header in the last request.
fn last(seen: &Seen, name: impl header::AsHeaderName) -> Vec<String> {
    let seen = seen.lock().unwrap();
    let values = seen.last().unwrap().get_all(name);
    values.iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn user(folder: &Path) -> Value {
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "sh", "args": ["-c", PLUGIN, folder],
    }})
}

/// What a run of the plugin gives.
fn gives(folder: &Path, run: usize, token: &str, until: Option<&str>) {
    let status = json!({"token": token, "expirationTimestamp": until});
    fs::write(folder.join(run.to_string()), json!({"status": status}).to_string()).unwrap();
}

fn runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs")).unwrap().lines().count()
}

/// Lets this much time go by for what is had now; what a source gave for some time is over then.
fn later(cluster: &Cluster, time: Duration) {
    let own = &cluster.0.own;
    let now = own.current.load_full();
    let mut next = Issued::new(now.stack.clone(), now.given.clone());
    next.given.renew = now.given.renew.map(|_| Timestamp::UNIX_EPOCH);
    next.given.until = now.given.until.map(|_| Timestamp::UNIX_EPOCH);
    next.at = now.at.checked_sub(time).unwrap();
    next.failed = now.failed;
    next.refused = AtomicBool::new(now.refused.load(Ordering::Relaxed));
    own.current.store(Arc::new(next));
}

#[tokio::test]
async fn who_impersonates_somebody_takes_nothing_of_whom_the_kubeconfig_impersonates() {
    let admin = json!({
        "token": "own", "as": "admin", "as-uid": "1", "as-groups": ["system:masters"],
        "as-user-extra": {"reason": ["work"]},
    });
    let (cluster, seen) = cluster(admin).await;
    let names = ["user", "uid", "group", "extra-reason"];
    let said = || names.map(|name| last(&seen, format!("impersonate-{name}")).join(","));

    let mut headers = HeaderMap::new();
    let local = User::kubeconfig(&headers);
    // What the API server does not know impersonates nobody.
    headers.insert(HeaderName::from_static("impersonate-foo"), HeaderValue::from_static("x"));
    let odd = User::kubeconfig(&headers);
    for who in [Identity::Server, Identity::User(&local), Identity::User(&odd)] {
        ask(&cluster, who).await.unwrap();
        assert_eq!(said(), ["admin", "1", "system:masters", "work"]);
        assert!(last(&seen, "impersonate-foo").is_empty());
    }
    let name = HeaderName::from_static("impersonate-user");
    headers.insert(name, HeaderValue::from_static("jane"));
    ask(&cluster, Identity::User(&User::kubeconfig(&headers))).await.unwrap();
    assert_eq!(said(), ["jane", "", "", ""]);
    assert_eq!(last(&seen, header::AUTHORIZATION), ["Bearer own"]);
    ask(&cluster, Identity::User(&User::bearer("hers", &headers).unwrap())).await.unwrap();
    assert_eq!(said(), ["jane", "", "", ""]);
}

#[tokio::test]
async fn a_token_file_is_read_without_its_line_end_and_again_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "first\n").unwrap();
    let (cluster, seen) = cluster(json!({"tokenFile": path})).await;
    let token = || last(&seen, header::AUTHORIZATION);

    ask(&cluster, Identity::Server).await.unwrap();
    assert_eq!(token(), ["Bearer first"]);
    fs::write(&path, "second\r\n").unwrap();
    ask(&cluster, Identity::Server).await.unwrap();
    assert_eq!(token(), ["Bearer first"], "not for each request");
    later(&cluster, PAUSE);
    ask(&cluster, Identity::Server).await.unwrap();
    assert_eq!(token(), ["Bearer second"]);
    // Some take it away once it was read (kubernetes/kubernetes#68164).
    fs::remove_file(&path).unwrap();
    later(&cluster, PAUSE);
    ask(&cluster, Identity::Server).await.unwrap();
    assert_eq!(token(), ["Bearer second"]);
}

#[tokio::test]
async fn a_token_beside_its_file_counts_only_where_that_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let user = json!({"token": "stale", "tokenFile": path});
    let sent = async || {
        let (cluster, seen) = cluster(user.clone()).await;
        ask(&cluster, Identity::Server).await.unwrap();
        last(&seen, header::AUTHORIZATION)
    };
    assert_eq!(sent().await, ["Bearer stale"]);
    fs::write(&path, "new\n").unwrap();
    assert_eq!(sent().await, ["Bearer new"]);
}

#[tokio::test]
async fn a_certificate_in_files_is_read_again_after_a_while_and_one_half_written_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
    let pair = || {
        let made = rcgen::generate_simple_self_signed(vec!["me".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let (first, second) = (pair(), pair());
    fs::write(&certificate, &first.0).unwrap();
    fs::write(&key, &first.1).unwrap();
    let user = json!({"client-certificate": certificate, "client-key": key});
    let (cluster, _) = cluster(user).await;
    let shown = || cluster.0.own.current.load().given.certificate.clone().unwrap();
    let asked = || async { ask(&cluster, Identity::Server).await.unwrap() };

    assert_eq!((asked().await, shown() == first), (StatusCode::OK, true));
    fs::write(&certificate, &second.0).unwrap();
    assert_eq!((asked().await, shown() == first), (StatusCode::OK, true), "not for each request");
    // The key is not there yet.
    later(&cluster, PAUSE);
    assert_eq!((asked().await, shown() == first), (StatusCode::OK, true));
    fs::write(&key, &second.1).unwrap();
    later(&cluster, PAUSE);
    assert_eq!((asked().await, shown() == second), (StatusCode::OK, true));
    fs::remove_file(&key).unwrap();
    later(&cluster, PAUSE);
    assert_eq!((asked().await, shown() == second), (StatusCode::OK, true));
}

#[test]
fn a_certificate_in_the_kubeconfig_itself_goes_before_files_of_one() {
    let source = |user: Value| Source::of(&mut serde_json::from_value(user).unwrap());
    let files = json!({"client-certificate": "c", "client-key": "k"});
    assert!(matches!(source(files.clone()), Source::Pair(..)));
    for more in ["client-certificate-data", "client-key-data"] {
        let mut both = files.clone();
        both[more] = json!("eA==");
        assert!(matches!(source(both), Source::Fixed), "{more}");
    }
    // Half a pair is a mistake, which kube names.
    assert!(matches!(source(json!({"client-certificate": "c"})), Source::Fixed));
}

#[tokio::test]
async fn a_slow_plugin_runs_once_for_all_who_wait_and_goes_on_when_they_leave() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("go"), "").unwrap();
    gives(folder, 1, "first", Some("2020-01-01T00:00:00Z"));
    gives(folder, 2, "second", Some("2126-01-01T00:00:00Z"));
    let (cluster, seen) = cluster(user(folder)).await;
    assert_eq!(runs(folder), 1);
    ask(&cluster, Identity::Server).await.unwrap();
    assert_eq!(last(&seen, header::AUTHORIZATION), ["Bearer first"], "a clock may be wrong");

    fs::remove_file(folder.join("go")).unwrap();
    later(&cluster, PAUSE);
    for _ in 0..3 {
        let left = timeout(Duration::from_millis(200), ask(&cluster, Identity::Server)).await;
        assert!(left.is_err(), "the plugin has given nothing yet");
    }
    let (one, other) = (ask(&cluster, Identity::Server), ask(&cluster, Identity::Server));
    let go = async { fs::write(folder.join("go"), "").unwrap() };
    let (one, other, ()) = tokio::join!(one, other, go);
    assert_eq!((one.unwrap(), other.unwrap()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(last(&seen, header::AUTHORIZATION), ["Bearer second"]);
    assert_eq!(runs(folder), 2);
}

#[tokio::test]
async fn a_token_without_an_end_is_asked_for_anew_once_it_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("go"), "").unwrap();
    gives(folder, 1, "revoked-old", None);
    gives(folder, 2, "new", None);
    let (cluster, _) = cluster(user(folder)).await;
    for _ in 0..2 {
        let refused = ask(&cluster, Identity::Server).await.unwrap();
        assert_eq!((refused, runs(folder)), (StatusCode::UNAUTHORIZED, 1), "once a minute at most");
    }
    later(&cluster, REFUSED);
    let taken = ask(&cluster, Identity::Server).await.unwrap();
    assert_eq!((taken, runs(folder)), (StatusCode::OK, 2));

    // A caller's own token that is refused says nothing of ours.
    let caller = User::bearer("theirs-old", &HeaderMap::new()).unwrap();
    let refused = ask(&cluster, Identity::User(&caller)).await.unwrap();
    assert_eq!(refused, StatusCode::UNAUTHORIZED);
    later(&cluster, REFUSED);
    ask(&cluster, Identity::Server).await.unwrap();
    assert_eq!(runs(folder), 2);
}

#[tokio::test]
async fn a_plugin_that_fails_is_left_alone_for_a_while_and_its_words_are_not_for_callers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("go"), "").unwrap();
    gives(folder, 1, "first", Some("2126-01-01T00:00:00Z"));
    let (cluster, _) = cluster(user(folder)).await;
    assert_eq!(ask(&cluster, Identity::Server).await.unwrap(), StatusCode::OK);
    later(&cluster, PAUSE);
    for _ in 0..3 {
        let error = ask(&cluster, Identity::Server).await.unwrap_err();
        assert_eq!(error.to_string(), "the server's own credentials for the cluster cannot be had");
        assert_eq!(runs(folder), 2);
    }
    gives(folder, 3, "third", None);
    later(&cluster, PAUSE);
    assert_eq!(ask(&cluster, Identity::Server).await.unwrap(), StatusCode::OK);
    assert_eq!(runs(folder), 3);
}

#[tokio::test]
async fn a_plugin_that_fails_at_the_start_is_named() {
    let mut config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    config.auth_info = serde_json::from_value(json!({"exec": {"command": "false"}})).unwrap();
    let error = Own::new(config).err().unwrap().to_string();
    assert!(error.contains("false ended with exit status: 1"), "{error}");
}

#[test]
fn a_token_that_is_no_header_is_refused_and_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "hid\nden\n").unwrap();
    let id = json!({"name": "oidc", "config": {"id-token": "hid\nden"}});
    for user in [
        json!({"token": "hidden\n"}),
        json!({"token": "hid\rden"}),
        json!({"auth-provider": id}),
        json!({"tokenFile": path}),
    ] {
        let mut config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        config.auth_info = serde_json::from_value(user.clone()).unwrap();
        let error = Own::new(config).err().unwrap().to_string();
        assert!(error.contains("cannot stand in a header"), "{user}: {error}");
        assert!(!error.contains("hid"), "{error}");
    }
}
