//! An API server that goes away for a while and comes back: a gateway in this process in front of a
//! demo API server that the test takes away.
//!
//! Only the demo can be taken away at will; it is NOT where rights are tested on a real cluster
//! (`rights.rs`), nor an API server that never comes (`lifecycle.rs`).

use std::ffi::OsString;
use std::net::SocketAddr;

use binnacle::app::{self, Running};
use binnacle::config;
use binnacle::demo::{Demo, DemoOptions};
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::certificate::trusting;
use crate::fault_proxy::Front;
use crate::lifecycle::{Answer, POLL, bearer, get, in_time};

/// Seconds; longer than a right is believed in without asking again (10 s).
const BEYOND_A_VERDICT: f64 = 11.0;

/// A gateway of this process in front of a demo API server that tests can take away.
struct Fronted {
    demo: Demo,
    running: Running,
    tls: ClientConfig,
    _folder: tempfile::TempDir,
}

async fn demo() -> Demo {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Demo::start(DemoOptions { listen, pods: 0, simulate: false }).await.unwrap()
}

impl Fronted {
    /// `away`: how many seconds rows are served without an API server.
    async fn start(away: &str) -> Fronted {
        let front = Self::of(demo().await, &["--stale-while-away", away]).await;
        front.until("the cache is current", "demo-admin-token", "/api/v1/pod", is_current).await;
        front
    }

    /// With these arguments besides; whether it has read anything is left open.
    async fn of(demo: Demo, more: &[&str]) -> Fronted {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig.yaml");
        std::fs::write(&kubeconfig, demo.kubeconfig()).unwrap();
        let state = folder.path().join("state");
        let args = [
            ["binnacle", "serve"],
            ["--listen", "127.0.0.1:0"],
            ["--kubeconfig", kubeconfig.to_str().unwrap()],
            ["--state-dir", state.to_str().unwrap()],
        ];
        let args = [&args.concat()[..], more].concat().into_iter().map(OsString::from);
        let Ok(config::Command::Serve(config)) = config::parse(args) else {
            panic!("the arguments are good");
        };
        let running = app::start(config).await.unwrap();
        let tls = trusting(running.ca_pem.as_deref().unwrap());
        Fronted { demo, running, tls, _folder: folder }
    }

    async fn get(&self, user: &str, path: &str) -> Answer {
        let url = format!("https://{}{path}", self.running.https);
        get(&self.tls, &url, &bearer(user)).await.unwrap()
    }

    async fn until(&self, what: &str, user: &str, path: &str, good: fn(&Answer) -> bool) -> Answer {
        let wait = async {
            loop {
                let answer = self.get(user, path).await;
                if good(&answer) {
                    return answer;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        in_time(what, wait).await
    }
}

fn is_current(answer: &Answer) -> bool {
    answer.status == 200
        && answer.header("binnacle-source") == "cache"
        && answer.header("binnacle-age") == "0.000"
        && answer.header("warning").is_empty()
}

#[tokio::test]
async fn rows_are_shown_as_stale_while_the_api_server_is_away_to_those_whose_right_was_confirmed() {
    let (admin, team) = ("demo-admin-token", "demo-team-token");
    let front = Fronted::start("60").await;
    let before = front.get(admin, "/api/v1/pod").await;
    let own = front.get(team, "/api/v1/pod/shop").await;
    // Of all that it may see, and of each kind that is joined: all at once, by one review.
    let part = front.get(team, "/api/v1/pod").await;
    assert!(before.pods() > part.pods() && part.pods() > own.pods() && own.pods() > 0);
    assert_eq!(part.json()["errors"], json!([]));
    let denied = front.get(team, "/api/v1/pod/payments").await;
    assert_eq!((denied.pods(), &denied.json()["errors"][0]["ErrStatus"]["code"]), (0, &json!(403)));

    front.demo.faults().set_down(true);
    let past_the_verdict = async {
        loop {
            let all = front.get(admin, "/api/v1/pod").await;
            assert_eq!((all.status, &all.body), (200, &before.body), "{}", all.text());
            let shop = front.get(team, "/api/v1/pod/shop").await;
            assert_eq!((shop.status, &shop.body), (200, &own.body), "{}", shop.text());
            let seen = front.get(team, "/api/v1/pod").await;
            assert_eq!((seen.status, &seen.body), (200, &part.body), "{}", seen.text());
            let still = front.get(team, "/api/v1/pod/payments").await;
            assert!(still.status == 503 || still.pods() == 0, "{}", still.text());
            let age: f64 = all.header("binnacle-age").parse().unwrap();
            if age > 0.0 {
                for answer in [&all, &seen] {
                    assert!(answer.header("warning").starts_with("110 "), "{:?}", answer.headers);
                    assert_eq!(answer.header("binnacle-source"), "cache");
                }
            }
            if age > BEYOND_A_VERDICT {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the age passes a verdict's", past_the_verdict).await;
    // Who may list all may list each, asked about it before or not.
    assert!(front.get(admin, "/api/v1/pod/monitoring").await.pods() > 0);
    let kinds = front.get("", "/readyz?verbose").await.text();
    assert!(kinds.contains("[pod] stale for 1"), "{kinds}");
    // Denied before, and never asked about: nobody can say yes now.
    for (user, path) in [(team, "/api/v1/pod/payments"), ("demo-viewer-token", "/api/v1/pod")] {
        let answer = front.get(user, path).await;
        assert!(matches!(answer.status, 503 | 504), "{path}: {}", answer.text());
        assert!(answer.text().contains("API server"), "{}", answer.text());
    }
    assert_eq!(front.get("", "/readyz").await.status, 200);
    front.demo.faults().set_down(false);
    front.until("it comes back by itself", admin, "/api/v1/pod", is_current).await;
    let viewer = front.get("demo-viewer-token", "/api/v1/pod").await;
    assert_eq!(viewer.pods(), before.pods());
}

#[tokio::test]
async fn a_right_to_all_namespaces_that_is_gone_is_not_bridged_once_one_of_them_was_denied() {
    let (front, demo) = Front::demo(0).await;
    let viewer = "demo-viewer-token";
    let all = front.get_as(viewer, "/api/v1/pod").await;
    assert!(all.pods() > 0, "{}", all.text());
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    front.api.remove(&format!("{bindings}/demo-viewer-demo-viewer")).await;
    let denied = async {
        while front.get_as(viewer, "/api/v1/pod/shop").await.pods() > 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the denial in one namespace", denied).await;
    demo.faults().set_down(true);
    let answer = front.get_as(viewer, "/api/v1/pod").await;
    assert!(answer.status == 503 && !answer.text().contains("shop"), "{}", answer.text());
}

#[tokio::test]
async fn a_search_in_part_of_the_namespaces_says_that_nobody_could_be_asked_about_the_rest() {
    let front = Fronted::start("60").await;
    let team = "demo-team-token";
    assert!(front.get(team, "/api/v1/pod/shop").await.pods() > 0);
    front.demo.faults().respond("/apis/authorization.k8s.io", 503, u32::MAX);
    let answer = front.get(team, "/api/v1/search?q=frontend&kinds=pod").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert!(body["listMeta"]["totalItems"].as_u64() > Some(0), "{body}");
    assert_eq!(body["errors"].as_array().map(Vec::len), Some(1), "{body}");
}

#[tokio::test]
async fn releases_of_part_of_the_namespaces_say_that_nobody_could_be_asked_about_the_rest() {
    let front = Fronted::start("60").await;
    let (team, nothing) = ("demo-team-token", json!([]));
    let before = front.get(team, "/api/v1/release/shop").await;
    assert_eq!((before.status, &before.json()["errors"]), (200, &nothing), "{}", before.text());
    front.demo.faults().respond("/apis/authorization.k8s.io", 503, u32::MAX);
    let answer = front.get(team, "/api/v1/release").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap();
    let is_silence = |error: &Value| error["ErrStatus"]["code"].as_u64() >= Some(500);
    assert!(!errors.is_empty() && errors.iter().all(is_silence), "{body}");
}

#[tokio::test]
async fn after_the_stated_bound_stale_rows_are_a_503_until_the_api_server_is_back() {
    let front = Fronted::start("1").await;
    let (admin, team) = ("demo-admin-token", "demo-team-token");
    assert!(front.get(team, "/api/v1/pod").await.pods() > 0);
    front.demo.faults().set_down(true);
    let is_over = |answer: &Answer| answer.status == 503;
    for user in [admin, team] {
        let over = front.until("stale rows end", user, "/api/v1/pod", is_over).await;
        assert!(over.text().contains("API server"), "{}", over.text());
    }
    assert_eq!(front.get("", "/livez").await.status, 200);
    assert_eq!(front.get("", "/readyz").await.status, 200);
    front.demo.faults().set_down(false);
    front.until("it comes back by itself", admin, "/api/v1/pod", is_current).await;
}

#[tokio::test]
async fn an_api_server_that_is_away_at_the_start_is_found_when_it_comes() {
    let demo = demo().await;
    demo.faults().set_down(true);
    let front = Fronted::of(demo, &[]).await;
    let admin = "demo-admin-token";
    let answer = front.get(admin, "/api/v1/pod").await;
    assert!(matches!(answer.status, 503 | 504), "{}: {}", answer.status, answer.text());
    front.demo.faults().set_down(false);
    let answer = front.until("it comes up with it", admin, "/api/v1/pod", is_current).await;
    assert!(answer.pods() > 0, "{}", answer.text());
}

#[tokio::test]
async fn rows_are_not_called_current_while_their_watch_waits_to_be_opened_again() {
    let front = Fronted::start("60").await;
    let admin = "demo-admin-token";
    // A watch that ends as soon as it is open is followed by a pause, in which nothing is heard.
    let waiting = async {
        loop {
            front.demo.faults().drop_watches();
            let answer = front.get(admin, "/api/v1/pod").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            if answer.header("binnacle-age") != "0.000" {
                assert!(answer.header("warning").starts_with("110 "), "{:?}", answer.headers);
                return;
            }
        }
    };
    in_time("the pause shows", waiting).await;
    front.until("it goes on by itself", admin, "/api/v1/pod", is_current).await;
}

/// Pods that were left out, as the metrics count them.
fn malformed(answer: &Answer) -> u64 {
    let text = answer.text();
    let counted = text.lines().find_map(|line| {
        line.strip_prefix("binnacle_malformed_objects_total{kind=\"pod\"} ")?.parse().ok()
    });
    counted.unwrap_or(0)
}

#[tokio::test]
async fn a_malformed_object_costs_its_row_and_a_count_and_nothing_else() {
    let front = Fronted::start("60").await;
    let before = front.get("demo-admin-token", "/api/v1/pod").await.json();
    assert!(front.demo.faults().insert_malformed("pods"));
    front
        .until("the watch has met it", "demo-admin-token", "/metrics", |answer| {
            malformed(answer) >= 1
        })
        .await;
    let after = front.get("demo-admin-token", "/api/v1/pod").await.json();
    assert_eq!(after["listMeta"], before["listMeta"]);

    // In a list it is met again, and the rest of the list is there.
    front.demo.faults().expire_history();
    front.demo.faults().drop_watches();
    front
        .until("the relist has met it", "demo-admin-token", "/metrics", |answer| {
            malformed(answer) >= 2
        })
        .await;
    let relisted = front.get("demo-admin-token", "/api/v1/pod").await.json();
    assert_eq!(relisted["listMeta"], before["listMeta"]);
}

#[tokio::test]
async fn a_malformed_object_that_is_read_live_costs_its_row_and_a_count_too() {
    let front = Fronted::of(demo().await, &["--shared-cache=false"]).await;
    let admin = "demo-admin-token";
    let before = front.get(admin, "/api/v1/pod").await;
    assert!(before.pods() > 0 && before.header("binnacle-source").starts_with("live"));
    assert_eq!(malformed(&front.get(admin, "/metrics").await), 0);
    assert!(front.demo.faults().insert_malformed("pods"));
    for (path, count) in [("/api/v1/pod", 1), ("/api/v1/pod/default", 2), ("/api/v1/pod/shop", 2)] {
        let answer = front.get(admin, path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(malformed(&front.get(admin, "/metrics").await), count, "{path}");
    }
    let after = front.get(admin, "/api/v1/pod").await.json();
    assert_eq!(after["listMeta"], before.json()["listMeta"]);
}
