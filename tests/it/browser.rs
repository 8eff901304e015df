//! A page in a real browser, with the real cluster behind: it signs in, shows pods as they come and
//! go, follows a log and types into a shell; directly, behind nginx under a base path, and in front
//! of two instances that take turns. And the official SockJS client, each transport forced.
//!
//! The page is `tests/browser`; what each call answers in all its cases is tested elsewhere.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use aws_lc_rs::digest;
use serde_json::json;
use tempfile::TempDir;

use crate::chromium::Tab;
use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::logs::counting;
use crate::nginx;
use crate::npm;
use crate::people::{delete, pod};

/// The page and the official client, as a frontend's build without languages.
async fn frontend() -> TempDir {
    let sockjs = tokio::task::spawn_blocking(npm::sockjs).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    for (from, name) in [
        (page.join("page.html"), "index.html"),
        (page.join("page.js"), "page.js"),
        (sockjs, "sockjs.min.js"),
    ] {
        fs::copy(&from, folder.path().join(name)).unwrap();
    }
    folder
}

/// Gateways that serve the page, and a pod `web` in a namespace of its own, whose log grows.
struct Stage {
    cluster: &'static Cluster,
    namespace: String,
    gateways: Vec<Gateway>,
    _frontend: TempDir,
}

impl Stage {
    async fn new(name: &str, instances: usize, base_path: &str) -> Stage {
        let cluster = cluster::shared().await;
        let namespace = cluster.namespace(name).await;
        counting(cluster, &namespace, "web", 10, 50).await;
        let frontend = frontend().await;
        let directory = frontend.path().display().to_string();
        let secret = format!("{namespace}/csrf");
        let mut gateways = Vec::new();
        for _ in 0..instances {
            let mut args = vec!["--static-dir", &directory, "--csrf-secret", &secret];
            args.extend(["--insecure-listen", "127.0.0.1:0"]);
            if !base_path.is_empty() {
                args.extend(["--base-path", base_path]);
            }
            let extra = args.into_iter().map(str::to_owned).collect();
            gateways.push(gateway::start(Options { extra, ..Options::default() }).await);
        }
        Stage { cluster, namespace, gateways, _frontend: frontend }
    }

    async fn end(self) {
        for gateway in self.gateways {
            gateway.stop().await;
        }
    }
}

/// Until an element's text is as the script's condition on `text` says.
async fn until(tab: &Tab, selector: &str, condition: &str) {
    let selector = json!(selector);
    let script =
        format!("(text => {condition})(document.querySelector({selector})?.textContent ?? '')");
    tab.wait_for(&script).await;
}

/// A tab on the page, which has loaded.
async fn page(name: &str, url: &str) -> Tab {
    let tab = Tab::open(name, url).await;
    tab.wait_for("document.readyState === 'complete' && typeof SockJS === 'function'").await;
    tab
}

async fn sign_in(tab: &Tab, stage: &Stage) {
    tab.type_line("#token", stage.cluster.token("admin")).await;
    until(tab, "#who", "text === 'token-admin'").await;
}

/// Shows the namespace, in which `web` runs.
async fn list(tab: &Tab, stage: &Stage) {
    tab.type_line("#namespace", &stage.namespace).await;
    until(tab, "tr[data-name=web]", "text.includes('Running')").await;
}

/// A pod comes and goes, and so does its row.
async fn a_pod_comes_and_goes(tab: &Tab, stage: &Stage) {
    pod(stage.cluster, &stage.namespace, "guest", "none").await;
    until(tab, "tr[data-name=guest]", "text.includes('Running')").await;
    tab.screenshot("list").await;
    let path = format!("/api/v1/namespaces/{}/pods/guest?gracePeriodSeconds=0", stage.namespace);
    delete(stage.cluster, &path).await;
    tab.wait_for("!document.querySelector('tr[data-name=guest]')").await;
    until(tab, "#list-state", "text === 'live'").await;
}

/// Both ways of following show lines that follow one another.
async fn a_log_grows(tab: &Tab) {
    tab.click("tr[data-name=web] button:nth-child(1)").await;
    for screen in ["#log-events", "#log-socket"] {
        until(tab, screen, "text.split('\\n').length > 15").await;
        let text = tab.text(screen).await;
        let number = |line: &str| line.strip_prefix("line ").unwrap().parse::<usize>().unwrap();
        let numbers: Vec<usize> = text.lines().map(number).collect();
        assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{screen}: {text}");
    }
    assert_eq!(tab.text("#log-state").await, "");
}

/// Opens a shell, by this transport or by whichever works first.
async fn open_shell(tab: &Tab, transport: &str) {
    tab.click("tr[data-name=web] button:nth-child(2)").await;
    until(tab, "#shell-state", &format!("text === 'open over {transport}'")).await;
}

/// On an emptied screen: what was answered before does not count.
async fn a_command_is_answered(tab: &Tab) {
    tab.evaluate("document.querySelector('#screen').replaceChildren()").await;
    tab.type_line("#line", "echo drop-💧-é-$((40+2))").await;
    until(tab, "#screen", "text.includes('drop-💧-é-42')").await;
}

async fn exit(tab: &Tab) {
    tab.type_line("#line", "exit").await;
    until(tab, "#shell-state", "text === 'closed: 1 Process exited'").await;
}

/// All that the page does for somebody who is signed in.
async fn a_visit(tab: &Tab, stage: &Stage) {
    list(tab, stage).await;
    a_pod_comes_and_goes(tab, stage).await;
    a_log_grows(tab).await;
    open_shell(tab, "websocket").await;
    a_command_is_answered(tab).await;
    tab.screenshot("shell").await;
    exit(tab).await;
}

/// The cookie of a shell is for SockJS alone, and not for scripts.
async fn holds_the_shells_cookie(tab: &Tab, path: &str) {
    let cookies = tab.cookies().await;
    let [cookie] = cookies.as_slice() else { panic!("one cookie: {cookies:?}") };
    assert_eq!((&cookie["name"], &cookie["path"]), (&json!("binnacle-shell"), &json!(path)));
    assert_eq!((&cookie["httpOnly"], &cookie["secure"]), (&json!(true), &json!(true)));
    assert_eq!(cookie["sameSite"], "Strict");
    assert_eq!(tab.evaluate("document.cookie").await, "");
}

#[tokio::test]
async fn a_page_sees_pods_come_and_go_follows_a_log_and_types_into_a_shell() {
    let stage = Stage::new("browser", 1, "").await;
    let tab = page("direct", &format!("{}/", stage.gateways[0].url)).await;
    sign_in(&tab, &stage).await;
    a_visit(&tab, &stage).await;
    holds_the_shells_cookie(&tab, "/api/sockjs").await;
    // The log's and the shell's, inside the connection that there is.
    assert_eq!(tab.websockets(), [200, 200]);
    tab.close().await;
    stage.end().await;
}

#[tokio::test]
async fn a_page_that_came_by_the_link_does_the_same_with_its_cookie() {
    let stage = Stage::new("browser-link", 1, "").await;
    let gateway = &stage.gateways[0];
    let token = gateway.local_token.as_deref().unwrap();
    let tab = page("link", &format!("{}/?token={token}", gateway.url)).await;
    assert_eq!(tab.evaluate("location.search + document.cookie").await, "");
    tab.click("#by-link").await;
    until(&tab, "#who", "text === 'token-admin'").await;
    a_visit(&tab, &stage).await;
    tab.close().await;
    stage.end().await;
}

#[tokio::test]
async fn behind_nginx_under_a_base_path_the_page_does_the_same() {
    let stage = Stage::new("browser-nginx", 1, "/ops/dash").await;
    let nginx = nginx::start(&[stage.gateways[0].http.unwrap()], "/ops/dash").await;
    let tab = page("nginx", &format!("{}/ops/dash/", nginx.url())).await;
    sign_in(&tab, &stage).await;
    a_visit(&tab, &stage).await;
    holds_the_shells_cookie(&tab, "/ops/dash/api/sockjs").await;
    tab.close().await;
    stage.end().await;
}

#[tokio::test]
async fn behind_nginx_two_instances_without_stickiness_are_as_good_as_one() {
    let stage = Stage::new("browser-two", 2, "").await;
    let servers: Vec<_> = stage.gateways.iter().map(|gateway| gateway.http.unwrap()).collect();
    let nginx = nginx::start(&servers, "").await;
    let tab = page("two", &format!("{}/", nginx.url())).await;
    sign_in(&tab, &stage).await;
    a_visit(&tab, &stage).await;
    // Each shell's id and its socket are two requests: over some shells they have met both ways.
    for _ in 0..3 {
        open_shell(&tab, "websocket").await;
        a_command_is_answered(&tab).await;
        exit(&tab).await;
    }
    tab.close().await;
    for server in servers {
        let took_part = || async { nginx.access_log().contains(&format!(" {server}\n")) };
        Cluster::eventually(&format!("{server} has answered"), took_part).await;
    }
    stage.end().await;
}

/// More than 100 KB, a line each of which is shorter than the 4096 bytes of a terminal's line.
fn much() -> String {
    let mut text = String::new();
    for number in 0..1100 {
        writeln!(text, "{number:04} 💧 {}", "a long paste ".repeat(7)).unwrap();
    }
    assert!(text.len() > 100_000);
    text
}

fn sha256(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The terminal follows the page's size.
async fn a_new_size_arrives(tab: &Tab) {
    let before = tab.text("#size").await;
    tab.resize(700, 900).await;
    until(tab, "#size", &format!("text !== {}", json!(before))).await;
    let wait = format!("until [ \"$(stty size)\" != '{before}' ]; do sleep 0.05; done");
    tab.type_line("#line", &format!("{wait}; echo now-$(stty size)")).await;
    let size = "document.querySelector('#size').textContent";
    until(tab, "#screen", &format!("text.includes('now-' + {size})")).await;
}

/// All of it reaches the process, in its order.
async fn a_large_paste_arrives(tab: &Tab) {
    let text = much();
    tab.type_line("#line", "stty -echo; echo ready-$((40+2)); sha256sum; stty echo").await;
    until(tab, "#screen", "text.includes('ready-42')").await;
    // Behind the last line, the end of the input.
    tab.paste("#line", &format!("{text}\u{4}")).await;
    until(tab, "#screen", &format!("text.includes('{}')", sha256(&text))).await;
}

#[tokio::test]
async fn the_official_sockjs_client_types_pastes_and_resizes_over_each_transport() {
    let stage = Stage::new("browser-sockjs", 1, "").await;
    let url = format!("{}/", stage.gateways[0].url);
    for transport in ["websocket", "xhr-streaming", "xhr-polling"] {
        let tab = page(transport, &url).await;
        sign_in(&tab, &stage).await;
        list(&tab, &stage).await;
        tab.evaluate(&format!("document.querySelector('#transport').value = '{transport}'")).await;
        open_shell(&tab, transport).await;
        a_command_is_answered(&tab).await;
        a_new_size_arrives(&tab).await;
        a_large_paste_arrives(&tab).await;
        a_command_is_answered(&tab).await;
        tab.screenshot("pasted").await;
        exit(&tab).await;
        tab.close().await;
    }
    stage.end().await;
}
