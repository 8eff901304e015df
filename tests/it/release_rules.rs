//! Who may act on a release when: repeated requests, names, two at once, two replicas, releases
//! that hang, protected ones. Helm runs in few of these tests, and by hand in some.
//!
//! It is NOT where what helm makes of an act is compared with what helm says (`release_writes.rs`).

use std::path::Path;
use std::process::Stdio;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Options};
use crate::helm_charts::{
    BOTH, Hand, archive, helm_command, made, options, program, slow, small, web,
};
use crate::helm_guard::script;
use crate::people::{Person, grant};
use crate::writes::live;

fn slowly() -> Value {
    json!({"chart": archive(&slow()), "wait": "legacy", "timeout": "60s"})
}

fn saying(message: &str) -> Value {
    json!({"chart": archive(&small()), "values": {"message": message}})
}

#[tokio::test]
async fn a_repeated_request_is_the_same_operation_at_any_replica() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("repeated").await;
    let (one, other) = (gateway::start(options(4)).await, gateway::start(options(4)).await);
    let hand = Hand { gateway: &one, token: cluster.token("admin"), namespace: &namespace };
    let there = Hand { gateway: &other, ..hand };
    let key = [("idempotency-key", "press-1")];
    let first = hand.act("install", "again", &key, saying("one")).await;
    assert_eq!(first.status, 202, "{}", first.text());
    for hand in [hand, there] {
        let second = hand.act("install", "again", &key, saying("one")).await;
        assert_eq!(second.status, 202, "{}", second.text());
        assert_eq!(second.json()["id"], first.json()["id"]);
    }
    let ended = there.ended(&first.json()).await;
    assert_eq!((&ended["state"], &ended["revision"]), (&json!("succeeded"), &json!(1)), "{ended}");
    let later = there.act("install", "again", &key, saying("one")).await;
    assert_eq!((later.status, &later.json()["id"]), (202, &ended["id"]), "{}", later.text());
    assert_eq!(later.json()["state"], "succeeded");

    // Another key is another request, and so is another body.
    let answer = hand.act("install", "again", &[("idempotency-key", "2")], saying("one")).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let answer = hand.act("install", "again", &key, saying("two")).await;
    assert!(matches!(answer.status, 409 | 422), "{}: {}", answer.status, answer.text());
    for bad in ["x".repeat(201), "a\tb".to_owned()] {
        let key = [("idempotency-key", bad.as_str())];
        let answer = hand.act("install", "other", &key, saying("one")).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    assert_eq!(hand.rows().await.len(), 1);

    // What is gone is not uninstalled again, even if somebody has put it there anew.
    let key = [("idempotency-key", "press-2")];
    let gone = hand.act("uninstall", "again", &key, json!({})).await;
    assert_eq!(gone.status, 202, "{}", gone.text());
    assert_eq!(there.ended(&gone.json()).await["state"], "succeeded");
    for installs in [false, true] {
        if installs {
            hand.succeeds("install", "again", saying("three")).await;
        }
        let later = there.act("uninstall", "again", &key, json!({})).await;
        assert_eq!((later.status, &later.json()["id"]), (202, &gone.json()["id"]));
        assert_eq!(later.json()["state"], "succeeded");
        assert_eq!(hand.rows().await.len(), usize::from(installs));
    }
}

#[tokio::test]
async fn who_is_second_hears_who_is_at_it_and_any_replica_can_cancel() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("second").await;
    let (one, other) = (gateway::start(options(4)).await, gateway::start(options(3)).await);
    let hand = Hand { gateway: &one, token: cluster.token("admin"), namespace: &namespace };
    let there = Hand { gateway: &other, ..hand };
    let operation = hand.begun("install", "slow", slowly()).await;
    hand.until("slow", "pending-install").await;
    for hand in [hand, there] {
        for (act, body) in [
            ("upgrade", slowly()),
            ("rollback", json!({"revision": 0})),
            ("test", json!({})),
            ("uninstall", json!({})),
        ] {
            let answer = hand.act(act, "slow", &[], body).await;
            assert_eq!(answer.status, 409, "{act}: {}", answer.text());
            assert!(answer.text().contains("token-admin"), "{act}: {}", answer.text());
        }
        let unlock = hand.act("unlock", "slow", &[], json!({"confirm": true})).await;
        assert_eq!(unlock.status, 409, "{}", unlock.text());
        let detail = hand.get(&hand.at("slow")).await.json();
        assert_eq!(detail["stuck"]["state"], "running", "{detail}");
        assert_eq!(detail["operation"]["id"], operation["id"]);
        assert_eq!(hand.operation(&operation).await["holder"]["user"], "token-admin");
    }
    let state = there.operation(&operation).await["state"].clone();
    assert!(state == "running" || state == "elsewhere", "{state}");

    let id = operation["id"].as_str().unwrap();
    let path = format!("operation/{namespace}/{id}");
    let answer = there.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for hand in [hand, there] {
        let ended = hand.ended(&operation).await;
        assert_eq!(ended["state"], "cancelled", "{ended}");
        assert_eq!(ended["status"], "failed", "{ended}");
    }
    let nobody = there.get(&format!("operation/{namespace}/slow.aaaaaaaa")).await;
    assert_eq!(nobody.status, 404, "{}", nobody.text());
}

/// How many ask for each of how many releases; `BINNACLE_RACE=100x10` asks for more.
const RACE: (usize, usize) = (12, 4);
/// Requests at once: the gateways let so many begin within their patience even on a slow machine.
const AT_ONCE: usize = 100;

fn race() -> (usize, usize) {
    let Ok(asked) = std::env::var("BINNACLE_RACE") else { return RACE };
    let number = |text: &str| text.parse().ok().filter(|number: &usize| *number > 0);
    let numbers = asked.split_once('x').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    numbers.unwrap_or_else(|| panic!("BINNACLE_RACE is {asked}, not clients x releases: 100x10"))
}

#[tokio::test]
async fn of_many_who_upgrade_at_once_the_losers_are_told_and_no_revision_is_lost_or_double() {
    let (clients, releases) = race();
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("race").await;
    let gateways = [gateway::start(options(4)).await, gateway::start(options(4)).await];
    let hands = gateways.each_ref().map(|gateway| Hand {
        gateway,
        token: cluster.token("admin"),
        namespace: &namespace,
    });
    let [first, _] = hands;
    let names: Vec<_> = (0..releases).map(|number| format!("race-{number}")).collect();
    join_all(names.iter().map(|name| first.succeeds("install", name, saying("hello")))).await;
    let each = names.iter().flat_map(|name| (0..clients).map(move |number| (name, number)));
    let asked = each.map(|(name, number)| async move {
        let hand = hands[number % 2];
        let mut body = saying(&format!("by {number}"));
        // Helm keeps ten revisions otherwise, and each winner makes one.
        body["maxHistory"] = 0.into();
        let answer = hand.act("upgrade", name, &[], body).await;
        match answer.status {
            202 => {
                let ended = hand.ended(&answer.json()).await;
                assert_eq!(ended["state"], "succeeded", "{ended}");
                Some((name, ended["revision"].as_u64().unwrap()))
            }
            409 => None,
            other => panic!("{name}: {other}: {}", answer.text()),
        }
    });
    let asked: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    let won: Vec<_> = asked.into_iter().flatten().collect();
    for name in &names {
        let mut revisions: Vec<_> =
            won.iter().filter(|(of, _)| *of == name).map(|(_, revision)| *revision).collect();
        revisions.sort_unstable();
        let wanted: Vec<_> = (2..2 + revisions.len() as u64).collect();
        assert_eq!(revisions, wanted, "{name}");
        assert!(!wanted.is_empty(), "somebody wins {name}");
        let history = first.get(&format!("{}/history", first.at(name))).await.json();
        let numbers = history["history"].as_array().unwrap_or_else(|| panic!("{history}"));
        assert_eq!(numbers.len(), revisions.len() + 1, "{name}: {history}");
    }
    first.agrees_with_helm(4, "after the race").await;
}

#[tokio::test]
async fn a_name_that_cannot_be_is_told_before_anything_runs_and_one_can_be_made() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("names").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let long = "a".repeat(54);
    for name in ["Upper", "-dash", "under_score", "trailing-", "a..b", "--debug", &long] {
        let answer = hand.act("install", name, &[], saying("one")).await;
        assert_eq!(answer.status, 400, "{name:?}: {}", answer.text());
        let word = if name == long { "53" } else { name };
        assert!(answer.text().contains(word), "{name:?}: {}", answer.text());
    }
    assert_eq!(hand.rows().await.len(), 0);
    let path = format!("release/{namespace}");
    let answer = hand.send(Method::POST, &path, &[], &saying("one")).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let operation = hand.ended(&answer.json()).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let name = operation["release"].as_str().unwrap();
    assert!(name.starts_with("small-") && name.len() <= 53, "{name}");
    let taken = hand.act("install", name, &[], saying("two")).await;
    assert_eq!(taken.status, 409, "{}", taken.text());
    assert!(taken.text().contains(name), "{}", taken.text());
    for (act, body) in [
        ("upgrade", saying("one")),
        ("rollback", json!({"revision": 1})),
        ("uninstall", json!({})),
        ("test", json!({})),
    ] {
        let answer = hand.act(act, "nowhere", &[], body).await;
        assert_eq!(answer.status, 404, "{act}: {}", answer.text());
    }
    let mut body = saying("one");
    body["install"] = true.into();
    hand.succeeds("upgrade", "nowhere", body).await;
}

/// helm that is killed when the release is pending.
async fn killed(hand: &Hand<'_>, major: u32, act: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chart.tgz"), web()).unwrap();
    let mut command = helm_command(major, hand.token, folder.path()).await;
    command.args(act).args(["web", "chart.tgz", "-n", hand.namespace]);
    command.args(["--set", "fate=pending", "--wait", "--timeout", "60s"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    hand.until("web", "pending-").await;
    child.kill().await.unwrap();
}

#[tokio::test]
async fn what_hangs_without_a_lock_of_ours_may_run_elsewhere_and_is_unlocked_by_who_confirms() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("hangs{major}")).await;
        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        killed(&hand, major, &["install"]).await;
        hangs(&hand, major, "uninstall", None).await;
        hand.succeeds("uninstall", "web", json!({})).await;

        made(major, hand.token, &web(), &["install", "web", "chart.tgz", "-n", &namespace]).await;
        killed(&hand, major, &["upgrade"]).await;
        hangs(&hand, major, "rollback", Some(1)).await;
        hand.succeeds("rollback", "web", json!({"revision": 1})).await;
        assert_eq!(hand.status("web").await, "deployed");
        hand.agrees_with_helm(major, "back at the first").await;
    }))
    .await;
}

async fn hangs(hand: &Hand<'_>, major: u32, remedy: &str, rollback_to: Option<u64>) {
    let stuck = hand.get(&hand.at("web")).await.json()["stuck"].clone();
    assert_eq!(stuck["state"], "elsewhere", "{stuck}");
    assert_eq!((&stuck["remedy"], stuck["rollbackTo"].as_u64()), (&json!(remedy), rollback_to));
    let message = stuck["message"].as_str().unwrap();
    assert!(!message.is_empty() && message.is_ascii(), "{message}");
    let asked = [("accept-language", "zh-Hans")];
    let answer = hand.send(Method::GET, &hand.at("web"), &asked, &Value::Null).await.json();
    let message = answer["stuck"]["message"].as_str().unwrap();
    assert!(!message.is_ascii(), "in the language of who asks: {message}");
    let body = json!({"chart": archive(&web())});
    for (act, body) in [
        ("upgrade", body),
        ("rollback", json!({"revision": 1})),
        ("uninstall", json!({})),
        ("unlock", json!({"confirm": false})),
    ] {
        let answer = hand.act(act, "web", &[], body).await;
        assert_eq!(answer.status, 409, "{act}: {}", answer.text());
    }
    hand.agrees_with_helm(major, "nothing was done to it").await;
    let answer = hand.act("unlock", "web", &[], json!({"confirm": true})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(hand.status("web").await, "failed");
    hand.agrees_with_helm(major, "unlocked").await;
    let detail = hand.get(&hand.at("web")).await.json();
    assert_eq!(detail["stuck"], Value::Null, "{detail}");
}

/// Whether what would change the release is refused as protected.
async fn is_refused(hand: &Hand<'_>, name: &str) {
    for (act, body) in [
        ("upgrade", saying("changed")),
        ("rollback", json!({"revision": 1})),
        ("uninstall", json!({})),
    ] {
        let answer = hand.act(act, name, &[], body).await;
        assert_eq!(answer.status, 403, "{act}: {}", answer.text());
        assert!(answer.text().contains("protect"), "{act}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_protected_release_is_left_alone_until_somebody_lifts_it_who_may() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("kept").await;
    let gateway = gateway::start(options(4)).await;
    let admin = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let person = Person::new(cluster, &namespace, "person").await;
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let hand = Hand { token: &person.token, ..admin };

    hand.succeeds("install", "dear", saying("one")).await;
    hand.succeeds("upgrade", "dear", saying("two")).await;
    let answer = hand.act("protect", "dear", &[], json!({})).await;
    assert_eq!((answer.status, &answer.json()["protected"]), (200, &json!(true)));
    let list = hand.get(&format!("release/{namespace}")).await.json();
    assert_eq!(list["releases"][0]["protected"], true, "{list}");
    is_refused(&hand, "dear").await;
    is_refused(&admin, "dear").await;
    admin.agrees_with_helm(4, "protected").await;
    let answer = hand.act("unprotect", "dear", &[], json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let rules = json!([{"apiGroups": ["binnacle.dev"], "resources": ["releases"],
        "verbs": ["unprotect"], "resourceNames": ["dear"]}]);
    grant(cluster, Some(&namespace), "lifter", person.subject.clone(), rules).await;
    let lifted = || async { hand.act("unprotect", "dear", &[], json!({})).await.status == 200 };
    Cluster::eventually("who may lift it can", lifted).await;
    hand.succeeds("rollback", "dear", json!({"revision": 1})).await;
    hand.succeeds("uninstall", "dear", json!({})).await;
}

#[tokio::test]
async fn a_protection_that_helm_would_write_away_again_is_neither_set_nor_lifted() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("tested").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let args = ["install", "web", "chart.tgz", "-n", &namespace, "--set", "test=pending"];
    made(4, hand.token, &web(), &args).await;
    let operation = hand.begun("test", "web", json!({"timeout": "60s"})).await;
    let pod = format!("/api/v1/namespaces/{namespace}/pods/web-test");
    let is_there = || async { live(cluster, &pod).await.is_some() };
    Cluster::eventually("the pod of the test is there", is_there).await;
    let record = format!("/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.web.v1");
    let label = || async {
        let record = live(cluster, &record).await.unwrap();
        record["metadata"]["labels"]["binnacle.dev/protected"].clone()
    };
    let id = operation["id"].as_str().unwrap();
    for act in ["protect", "unprotect"] {
        let answer = hand.act(act, "web", &[], json!({})).await;
        assert_eq!(answer.status, 409, "{act}: {}", answer.text());
        assert!(answer.text().contains(id), "{act}: {}", answer.text());
        assert_eq!(label().await, Value::Null, "{act}");
    }
    let path = format!("operation/{namespace}/{id}");
    let answer = hand.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    hand.ended(&operation).await;
    let answer = hand.act("protect", "web", &[], json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(label().await, "true");
    is_refused(&hand, "web").await;
}

/// Children of one engine that one caller has at once; what he begins then waits for its turn.
const OF_ONE: usize = 3;

/// helm 4 that leaves `helm.began.<number>` beside itself and then waits for `helm.open`.
fn held_back(path: &Path) {
    let helm = program(4).display();
    let text = format!(
        r#"#!/bin/sh
if [ "$1" != version ]; then
    : > "$0.began.$$"
    while [ ! -e "$0.open" ]; do sleep 0.05; done
fi
exec '{helm}' "$@"
"#
    );
    script(path, &text);
}

/// How many of those have begun.
fn begun(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("helm.began.")).count()
}

#[tokio::test]
async fn what_is_protected_while_an_act_waits_for_its_turn_is_left_alone() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("turns").await;
    let folder = tempfile::tempdir().unwrap();
    let helm = folder.path().join("helm");
    held_back(&helm);
    let extra = vec!["--helm".into(), helm.display().to_string()];
    let gateway = gateway::start(Options { extra, ..options(4) }).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let (mut first, mut queued) = (Vec::new(), Vec::new());
    for number in 0..OF_ONE {
        first.push(hand.begun("install", &format!("first-{number}"), saying("one")).await);
    }
    let all = || async { begun(folder.path()) == OF_ONE };
    Cluster::eventually("every place of his is taken", all).await;
    for name in ["dear", "late", "plain"] {
        let args = ["install", name, "chart.tgz", "-n", &namespace];
        made(4, hand.token, &small(), &args).await;
        queued.push(hand.begun("upgrade", name, saying("two")).await);
    }

    let record = format!("/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.dear.v1");
    let kind = [("content-type", "application/merge-patch+json")];
    let label = json!({"metadata": {"labels": {"binnacle.dev/protected": "true"}}}).to_string();
    let (status, _, body) = cluster.request(Method::PATCH, hand.token, &record, &kind, label).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let late = hand.act("protect", "late", &[], json!({})).await;
    assert_eq!(late.status, 409, "{}", late.text());
    assert!(late.text().contains(queued[1]["id"].as_str().unwrap()), "{}", late.text());
    for operation in &queued {
        assert_eq!(hand.operation(operation).await["state"], "queued");
    }

    std::fs::write(folder.path().join("helm.open"), "").unwrap();
    for operation in &first {
        assert_eq!(hand.ended(operation).await["state"], "succeeded");
    }
    for (operation, revision) in queued.iter().zip([1, 1, 2]) {
        let ended = hand.ended(operation).await;
        assert_eq!(ended["revision"], revision, "{ended}");
        let name = ended["release"].as_str().unwrap();
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let message = live(cluster, &map).await.unwrap()["data"]["message"].clone();
        if name == "plain" {
            assert_eq!((&ended["state"], message), (&json!("succeeded"), json!("two")), "{ended}");
            continue;
        }
        assert_eq!((&ended["state"], message), (&json!("failed"), json!("hello")), "{ended}");
        assert_eq!(ended["error"]["class"], "forbidden", "{ended}");
        let detail = ended["error"]["detail"].as_str().unwrap();
        assert!(detail.contains("protected"), "{detail}");
        is_refused(&hand, name).await;
    }
    assert_eq!(begun(folder.path()), OF_ONE + 1, "helm ran for the other one alone");
    hand.agrees_with_helm(4, "when all had their turn").await;
}

#[tokio::test]
async fn who_has_much_to_do_waits_for_himself_and_nobody_else_waits_for_him() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("crowd").await;
    let folder = tempfile::tempdir().unwrap();
    let helm = folder.path().join("helm");
    held_back(&helm);
    let extra = vec!["--helm".into(), helm.display().to_string()];
    let gateway = gateway::start(Options { extra, ..options(4) }).await;
    let one = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let person = Person::new(cluster, &namespace, "person").await;
    let rules =
        json!([{"apiGroups": [""], "verbs": ["*"], "resources": ["secrets", "configmaps"]}]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let other = Hand { token: &person.token, ..one };
    let may = || async { other.get(&other.at("none")).await.status == 404 };
    Cluster::eventually("the other may act himself", may).await;

    let (mut all, path) = (Vec::new(), folder.path());
    let has = |number: usize| move || async move { begun(path) == number };
    for number in 0..=OF_ONE {
        all.push(one.begun("install", &format!("one-{number}"), saying("one")).await);
    }
    Cluster::eventually("the places of the one are taken", has(OF_ONE)).await;
    all.push(other.begun("install", "other", saying("one")).await);
    Cluster::eventually("the other has his", has(OF_ONE + 1)).await;
    let states = join_all(all.iter().map(|operation| one.operation(operation))).await;
    let waiting: Vec<_> = states.iter().filter(|now| now["state"] == "queued").collect();
    assert_eq!(waiting.len(), 1, "{states:?}");
    assert_eq!(waiting[0]["holder"]["user"], "token-admin");

    std::fs::write(folder.path().join("helm.open"), "").unwrap();
    for operation in &all {
        let ended = one.ended(operation).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
}

#[tokio::test]
async fn core_namespaces_are_protected_and_what_is_lifted_stays_so_after_a_rollback() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: "kube-system" };
    let name = cluster.namespace("core").await;
    for act in ["install", "upgrade"] {
        let args = [act, &name, "chart.tgz", "-n", "kube-system", "--set", "message=x"];
        made(4, hand.token, &small(), &args).await;
    }
    let protection = hand.get(&hand.at(&name)).await.json()["protection"].clone();
    assert_eq!(protection["protected"], true, "{protection}");
    assert!(protection["by"].as_str().unwrap().starts_with("pattern"), "{protection}");
    is_refused(&hand, &name).await;
    let answer = hand.act("unprotect", &name, &[], json!({})).await;
    assert_eq!((answer.status, &answer.json()["protected"]), (200, &json!(false)));
    for revision in [1, 2] {
        hand.succeeds("rollback", &name, json!({"revision": revision})).await;
    }
    let answer = hand.act("protect", &name, &[], json!({})).await;
    assert_eq!((answer.status, &answer.json()["protected"]), (200, &json!(true)));
    is_refused(&hand, &name).await;
    made(4, hand.token, &[], &["uninstall", &name, "-n", "kube-system"]).await;
}
