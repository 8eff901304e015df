//! Each act in both majors, word for word.

use serde_json::{Value, json};

use super::super::act;
use super::*;

fn line(act: &Act, major: u32, method: Option<&str>) -> Result<String, BadAct> {
    let words = argv(act, "web", "shop", major, method, false)?;
    Ok(joined(words))
}

fn dry(act: &Act, major: u32) -> String {
    joined(argv(act, "web", "shop", major, Some("ssa"), true).unwrap())
}

fn joined(words: Vec<OsString>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| word.into_string().unwrap()).collect();
    words.join(" ")
}

/// The body with a chart in it.
fn with_chart(mut body: Value) -> Vec<u8> {
    body["chart"] = json!({"archive": "Y2hhcnQ="});
    body.to_string().into_bytes()
}

fn install(body: Value) -> Act {
    act::install(&with_chart(body)).unwrap()
}

fn upgrade(body: Value) -> Act {
    act::upgrade(&with_chart(body)).unwrap()
}

fn rollback(body: Value) -> Act {
    act::rollback(body.to_string().as_bytes()).unwrap()
}

#[test]
fn an_install_is_told_to_each_helm_in_its_own_words() {
    let cases = [
        (json!({}), "--hide-notes --timeout=300s", "--hide-notes --timeout=300s"),
        (
            json!({"createNamespace": true, "hooks": false, "skipCrds": true}),
            "--create-namespace --no-hooks --skip-crds --hide-notes --timeout=300s",
            "--create-namespace --no-hooks --skip-crds --hide-notes --timeout=300s",
        ),
        (
            json!({"skipSchemaValidation": true, "takeOwnership": true, "timeout": "1500ms"}),
            "--skip-schema-validation --take-ownership --hide-notes --timeout=1500ms",
            "--skip-schema-validation --take-ownership --hide-notes --timeout=1500ms",
        ),
        (
            json!({"description": "--for you", "labels": {"team": "a", "x/y": ""}}),
            "--hide-notes --description=--for you --labels=team=a --labels=x/y= --timeout=300s",
            "--hide-notes --description=--for you --labels=team=a --labels=x/y= --timeout=300s",
        ),
        (
            json!({"rollbackOnFailure": true, "waitForJobs": true}),
            "--hide-notes --atomic --wait-for-jobs --timeout=300s",
            "--hide-notes --rollback-on-failure --wait-for-jobs --timeout=300s",
        ),
        (
            json!({"wait": "watcher"}),
            "--hide-notes --wait --timeout=300s",
            "--hide-notes --wait=watcher --timeout=300s",
        ),
        (
            json!({"wait": "legacy", "waitForJobs": true}),
            "--hide-notes --wait --wait-for-jobs --timeout=300s",
            "--hide-notes --wait=legacy --wait-for-jobs --timeout=300s",
        ),
        (
            json!({"wait": "hooks", "serverSideApply": "false"}),
            "--hide-notes --timeout=300s",
            "--hide-notes --timeout=300s --server-side=false",
        ),
    ];
    for (body, three, four) in cases {
        let install = install(body);
        for (major, flags) in [(3, three), (4, four)] {
            let wanted =
                format!("install --namespace=shop --values=values.json {flags} -- web chart.tgz");
            assert_eq!(line(&install, major, None), Ok(wanted));
        }
    }
}

#[test]
fn an_upgrade_is_told_to_each_helm_in_its_own_words() {
    let cases = [
        (json!({}), "--timeout=300s", "--timeout=300s"),
        (json!({"install": true}), "--timeout=300s --install", "--timeout=300s --install"),
        (
            json!({"install": true, "createNamespace": true}),
            "--timeout=300s --install",
            "--timeout=300s --install",
        ),
        (
            json!({"reuse": "reset"}),
            "--timeout=300s --reset-values",
            "--timeout=300s --reset-values",
        ),
        (
            json!({"reuse": "reuse"}),
            "--timeout=300s --reuse-values",
            "--timeout=300s --reuse-values",
        ),
        (
            json!({"reuse": "resetThenReuse", "maxHistory": 0}),
            "--timeout=300s --reset-then-reuse-values --history-max=0",
            "--timeout=300s --reset-then-reuse-values --history-max=0",
        ),
        (
            json!({"labels": {"team": null}, "rollbackOnFailure": true}),
            "--labels=team=null --atomic --timeout=300s",
            "--labels=team=null --rollback-on-failure --timeout=300s",
        ),
    ];
    for (body, three, four) in cases {
        let made = body.get("createNamespace").is_some();
        let head = if made { "--create-namespace --hide-notes" } else { "--hide-notes" };
        let upgrade = upgrade(body);
        for (major, flags) in [(3, three), (4, four)] {
            let wanted = format!(
                "upgrade --namespace=shop --values=values.json {head} {flags} -- web chart.tgz"
            );
            assert_eq!(line(&upgrade, major, Some("csa")), Ok(wanted));
        }
    }
}

#[test]
fn a_rollback_is_told_to_each_helm_in_its_own_words() {
    let cases = [
        (json!({}), "--timeout=300s -- web 0", "--timeout=300s -- web 0"),
        (json!({"revision": 3}), "--timeout=300s -- web 3", "--timeout=300s -- web 3"),
        (
            json!({"hooks": false, "cleanupOnFail": true, "wait": "watcher", "timeout": "2m"}),
            "--no-hooks --cleanup-on-fail --wait --timeout=120s -- web 0",
            "--no-hooks --cleanup-on-fail --wait=watcher --timeout=120s -- web 0",
        ),
    ];
    for (body, three, four) in cases {
        for (major, rest) in [(3, three), (4, four)] {
            let wanted = format!("rollback --namespace=shop {rest}");
            assert_eq!(line(&rollback(body.clone()), major, Some("ssa")), Ok(wanted));
        }
    }
}

#[test]
fn an_uninstall_and_a_test_are_told_to_each_helm_in_its_own_words() {
    let plain = act::uninstall("").unwrap();
    let query = "keepHistory=true&hooks=false&wait=watcher&timeout=10s&description=off+it+goes";
    let full = act::uninstall(query).unwrap();
    for (major, wait) in [(3, "--wait"), (4, "--wait=watcher")] {
        let wanted = "uninstall --namespace=shop --timeout=300s -- web".to_owned();
        assert_eq!(line(&plain, major, None), Ok(wanted));
        let wanted = format!(
            "uninstall --namespace=shop --keep-history --no-hooks --description=off it goes \
             {wait} --timeout=10s -- web"
        );
        assert_eq!(line(&full, major, None), Ok(wanted));
    }
    let tests = act::test(br#"{"filter":["name=a","!name=b.c"],"timeout":"1m"}"#).unwrap();
    for (major, notes) in [(3, " --hide-notes"), (4, "")] {
        let wanted = format!(
            "test --namespace=shop --logs{notes} --filter=name=a --filter=!name=b.c \
             --timeout=60s -- web"
        );
        assert_eq!(line(&tests, major, None), Ok(wanted));
    }
    let silent = act::test(br#"{"logs":false}"#).unwrap();
    let wanted = "test --namespace=shop --timeout=300s -- web".to_owned();
    assert_eq!(line(&silent, 4, None), Ok(wanted));
}

#[test]
fn a_dry_run_asks_the_server_and_answers_in_json() {
    for major in [3, 4] {
        let wanted = "install --namespace=shop --values=values.json --timeout=300s \
                      --dry-run=server --output=json -- web chart.tgz";
        assert_eq!(dry(&install(json!({})), major), wanted);
        let wanted = "upgrade --namespace=shop --values=values.json --timeout=300s \
                      --dry-run=server --output=json -- web chart.tgz";
        assert_eq!(dry(&upgrade(json!({})), major), wanted);
    }
}

/// What comes of forced conflicts: the flags, or the message.
fn forced(act: &Act, major: u32, method: Option<&str>) -> Result<bool, &'static str> {
    match line(act, major, method) {
        Ok(line) => Ok(line.contains(" --force-conflicts ")),
        Err(bad) => Err(bad.what),
    }
}

#[test]
fn conflicts_are_forced_only_where_the_server_applies() {
    let (old, csa) = (Err("error-release-needs-helm-4"), Err("error-release-force-conflicts"));
    let body = |server: &str| json!({"forceConflicts": true, "serverSideApply": server});
    let cases = [
        // an upgrade: what is asked for, the release's method, Helm 4's answer
        ("auto", Some("ssa"), Ok(true)),
        ("auto", Some("csa"), csa),
        ("auto", Some(""), csa),
        ("auto", None, Ok(true)),
        ("true", Some("csa"), Ok(true)),
        ("false", Some("ssa"), csa),
    ];
    for (server, method, wanted) in cases {
        let (upgrade, back) = (upgrade(body(server)), rollback(body(server)));
        assert_eq!(forced(&upgrade, 4, method), wanted, "{server} {method:?}");
        assert_eq!(forced(&upgrade, 3, method), old, "{server} {method:?}");
        if method.is_some() {
            assert_eq!(forced(&back, 4, method), wanted, "{server} {method:?}");
            assert_eq!(forced(&back, 3, method), old, "{server} {method:?}");
        }
    }
    let first = |server| install(body(server));
    assert_eq!(forced(&first("auto"), 4, None), Ok(true));
    assert_eq!(forced(&first("auto"), 4, Some("csa")), Ok(true));
    assert_eq!(forced(&first("false"), 4, None), csa);
    assert_eq!(forced(&first("auto"), 3, None), old);
}

#[test]
fn helm_3_cannot_apply_on_the_server() {
    for server in ["auto", "false"] {
        assert!(line(&install(json!({"serverSideApply": server})), 3, None).is_ok());
    }
    let bad = line(&upgrade(json!({"serverSideApply": "true"})), 3, Some("csa")).unwrap_err();
    assert_eq!((&*bad.field, bad.what), ("serverSideApply", "error-release-needs-helm-4"));
    let four = line(&upgrade(json!({"serverSideApply": "true"})), 4, Some("csa")).unwrap();
    assert!(four.contains(" --server-side=true "), "{four}");
}

#[test]
fn values_are_never_among_the_arguments() {
    let body = json!({
        "values": {"a": "hidden-1"}, "set": ["b=hidden-2"], "setString": ["c=hidden-3"],
    });
    for major in [3, 4] {
        let line = line(&install(body.clone()), major, None).unwrap();
        assert!(!line.contains("hidden"), "{line}");
    }
}

#[test]
fn helm_gets_our_file_wherever_the_chart_comes_from() {
    for body in [
        &br#"{"chart":{"oci":"oci://r.example/charts/web:1.2.0"}}"#[..],
        br#"{"chart":{"repository":"team","name":"web","version":"^1.2"}}"#,
    ] {
        let line = line(&act::install(body).unwrap(), 4, None).unwrap();
        assert!(line.ends_with(" -- web chart.tgz"), "{line}");
    }
}

#[test]
fn names_that_look_like_flags_are_refused() {
    let gone = act::uninstall("").unwrap();
    assert!(argv(&gone, "--help", "shop", 4, None, false).is_err());
    assert!(argv(&gone, "web", "-n", 4, None, false).is_err());
}
