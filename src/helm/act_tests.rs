//! Bodies that are right, and what each wrong one is told.

use serde_json::json;

use super::*;

/// The body with a chart in it.
fn with_chart(mut body: Value) -> Vec<u8> {
    body["chart"] = json!({"archive": "Y2hhcnQ="});
    body.to_string().into_bytes()
}

fn installed(body: Value) -> Deploy {
    match install(&with_chart(body)).unwrap() {
        Act::Install(deploy) => deploy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_install_has_helms_defaults() {
    let wanted = Deploy {
        name: None,
        chart: ChartFrom::Archive(Bytes::from_static(b"chart")),
        values: json!({}),
        description: None,
        labels: BTreeMap::new(),
        create_namespace: false,
        hooks: true,
        skip_schema_validation: false,
        skip_crds: false,
        take_ownership: false,
        rollback_on_failure: false,
        waiting: Waiting { wait: Wait::Hooks, for_jobs: false, timeout: Duration::from_secs(300) },
        apply: Apply { server_side: None, force_conflicts: false },
        reuse: None,
        max_history: None,
        install: false,
    };
    assert_eq!(installed(json!({})), wanted);
}

#[test]
fn every_field_of_an_install_is_read() {
    let deploy = installed(json!({
        "name": "web", "values": "a: {b: 1}", "set": ["a.c=2"], "setString": ["d=3"],
        "description": "first", "labels": {"team": "a", "x.io/y": "z"}, "createNamespace": true,
        "hooks": false, "skipSchemaValidation": true, "skipCrds": true, "takeOwnership": true,
        "rollbackOnFailure": true, "wait": "legacy", "waitForJobs": true, "timeout": "90s",
        "serverSideApply": "false", "forceConflicts": true,
    }));
    assert_eq!(deploy.name.as_deref(), Some("web"));
    assert_eq!(deploy.values, json!({"a": {"b": 1, "c": 2}, "d": "3"}));
    assert_eq!(deploy.description.as_deref(), Some("first"));
    let labels = [("team", "a"), ("x.io/y", "z")];
    let labels = labels.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    assert_eq!(deploy.labels, BTreeMap::from(labels));
    let waiting = Waiting { wait: Wait::Legacy, for_jobs: true, timeout: Duration::from_secs(90) };
    assert_eq!(deploy.waiting, waiting);
    assert_eq!(deploy.apply, Apply { server_side: Some(false), force_conflicts: true });
    assert!(deploy.create_namespace && deploy.skip_schema_validation && deploy.skip_crds);
    assert!(deploy.take_ownership && deploy.rollback_on_failure && !deploy.hooks);
}

#[test]
fn an_upgrade_may_reuse_values_take_labels_off_and_install() {
    let body = json!({"reuse": "resetThenReuse", "maxHistory": 5, "labels": {"team": null}});
    let Act::Upgrade(deploy) = upgrade(&with_chart(body)).unwrap() else { panic!() };
    assert_eq!(deploy.reuse, Some(Reuse::ResetThenReuse));
    assert_eq!(deploy.max_history, Some(5));
    assert_eq!(deploy.labels, BTreeMap::from([("team".to_owned(), None)]));
    let body = json!({"install": true, "createNamespace": true, "serverSideApply": true});
    let Act::Upgrade(deploy) = upgrade(&with_chart(body)).unwrap() else { panic!() };
    assert!(deploy.install && deploy.create_namespace);
    assert_eq!(deploy.apply.server_side, Some(true));
}

#[test]
fn the_other_acts_have_helms_defaults_too() {
    let waiting = Waiting { wait: Wait::Hooks, for_jobs: false, timeout: Duration::from_secs(300) };
    let apply = Apply { server_side: None, force_conflicts: false };
    let back = Back { revision: 0, hooks: true, cleanup_on_fail: false, waiting, apply };
    assert_eq!(rollback(b"{}"), Ok(Act::Rollback(back)));
    let gone = Gone { keep_history: false, hooks: true, description: None, waiting };
    assert_eq!(uninstall(""), Ok(Act::Uninstall(gone)));
    let tests = Try { timeout: Duration::from_secs(300), logs: true, filter: Vec::new() };
    assert_eq!(test(b""), Ok(Act::Test(tests)));
}

#[test]
fn wrong_fields_are_told_by_name() {
    let long = "x".repeat(600);
    let cases = [
        (json!({"nope": 1}), "nope", "error-release-unknown-field"),
        (json!({"reuse": "reset"}), "reuse", "error-release-unknown-field"),
        (json!({"maxHistory": 1}), "maxHistory", "error-release-unknown-field"),
        (json!({"name": "Web"}), "name", "error-release-name"),
        (json!({"name": 1}), "name", "error-release-not-text"),
        (json!({"values": [1]}), "values", "error-release-values-object"),
        (json!({"set": "a=b"}), "set", "error-release-not-texts"),
        (json!({"set": ["a"]}), "set", "error-release-set"),
        (json!({"description": long}), "description", "error-release-text-long"),
        (json!({"description": "a\u{0}"}), "description", "error-release-text-control"),
        (json!({"hooks": "yes"}), "hooks", "error-release-not-boolean"),
        (json!({"wait": "long"}), "wait", "error-release-not-one-of"),
        (json!({"wait": true}), "wait", "error-release-not-one-of"),
        (json!({"timeout": "2h"}), "timeout", "error-release-timeout"),
        (json!({"timeout": 300}), "timeout", "error-release-timeout"),
        (json!({"waitForJobs": true}), "waitForJobs", "error-release-wait-for-jobs"),
        (json!({"serverSideApply": "yes"}), "serverSideApply", "error-release-not-one-of"),
        (json!({"labels": []}), "labels", "error-release-labels"),
    ];
    for (body, field, what) in cases {
        let bad = install(&with_chart(body.clone())).unwrap_err();
        assert_eq!((&*bad.field, bad.what), (field, what), "{body}");
        assert!(bad.args().contains(&("field", field)), "{bad:?}");
    }
}

#[test]
fn what_only_makes_sense_with_something_else_says_so() {
    let bad = upgrade(&with_chart(json!({"createNamespace": true}))).unwrap_err();
    assert_eq!(bad.what, "error-release-create-namespace");
    let bad = rollback(br#"{"waitForJobs":true,"wait":"none"}"#).unwrap_err();
    assert_eq!(bad.what, "error-release-wait-for-jobs");
    assert!(rollback(br#"{"waitForJobs":true,"wait":"watcher"}"#).is_ok());
    assert!(install(&with_chart(json!({"waitForJobs": true, "rollbackOnFailure": true}))).is_ok());
}

#[test]
fn acts_do_not_take_the_fields_of_others() {
    let bad = rollback(br#"{"description":"x"}"#).unwrap_err();
    assert_eq!((&*bad.field, bad.what), ("description", "error-release-unknown-field"));
    assert!(bad.args().iter().any(|(name, known)| *name == "known" && known.contains("revision")));
    assert_eq!(rollback(br#"{"revision":-1}"#).unwrap_err().what, "error-release-not-number");
    assert_eq!(uninstall("waitForJobs=true").unwrap_err().field, "waitForJobs");
    assert_eq!(uninstall("hooks=no").unwrap_err().what, "error-release-not-boolean");
    assert_eq!(test(br#"{"wait":"none"}"#).unwrap_err().field, "wait");
}

#[test]
fn labels_of_helm_and_of_ours_are_reserved() {
    let long = "x".repeat(64);
    let cases = [
        ("owner", json!("x"), "error-release-label-reserved"),
        ("createdAt", json!("x"), "error-release-label-reserved"),
        ("binnacle.dev/protected", json!("false"), "error-release-label-reserved"),
        ("x.binnacle.dev/y", json!("x"), "error-release-label-reserved"),
        ("", json!("x"), "error-release-label-key"),
        ("a b", json!("x"), "error-release-label-key"),
        ("a,b", json!("x"), "error-release-label-key"),
        ("/a", json!("x"), "error-release-label-key"),
        ("A_B/c", json!("x"), "error-release-label-key"),
        (long.as_str(), json!("x"), "error-release-label-key"),
        ("a", json!("x,y=z"), "error-release-label-value"),
        ("a", json!("-x"), "error-release-label-value"),
        ("a", json!(long), "error-release-label-value"),
        ("a", json!(1), "error-release-label-value"),
        ("a", json!("null"), "error-release-label-value"),
        ("a", json!(null), "error-release-label-value"),
    ];
    for (key, value, what) in cases {
        let body = json!({"labels": {key: value}});
        let bad = install(&with_chart(body)).unwrap_err();
        assert_eq!(bad.what, what, "{key}: {value}");
    }
    let fine = json!({"labels": {"notbinnacle.dev/x": "y", "Name": "", "a.b_c-d": "E.f"}});
    assert_eq!(installed(fine).labels.len(), 3);
}

#[test]
fn a_chart_is_an_archive_or_a_reference() {
    let what = |chart: Value| {
        let body = json!({"chart": chart}).to_string();
        install(body.as_bytes()).map_err(|bad| (bad.field.clone(), bad.what))
    };
    let wrong = |field: &str, what| Err((field.to_owned(), what));
    assert_eq!(what(json!(null)), wrong("chart", "error-field-missing"));
    for chart in [
        json!("web"),
        json!({}),
        json!({"archive": 1}),
        json!({"archive": "Y2hhcnQ=", "oci": "oci://a/b"}),
        json!({"oci": "oci://a/b", "version": "1"}),
    ] {
        assert_eq!(what(chart), wrong("chart", "error-release-chart"));
    }
    for archive in ["", "no base64", "Y2hhcnQ"] {
        let chart = json!({"archive": archive});
        assert_eq!(what(chart), wrong("chart.archive", "error-release-chart-base64"));
    }
    let large = json!({"archive": "A".repeat(ARCHIVE / 3 * 4 + 16)});
    assert_eq!(what(large), wrong("chart.archive", "error-release-chart-large"));
}

#[test]
fn references_are_those_of_registries() {
    let digest = "0123456789abcdef".repeat(4);
    let right = [
        "oci://r.example/charts/web".to_owned(),
        "oci://localhost:5000/web:1.2.0".to_owned(),
        "oci://127.0.0.1:5000/a/b/c_d:1.2.0+build".to_owned(),
        format!("oci://r.example/web@sha256:{digest}"),
        format!("oci://r.example/web:1.2.0@sha256:{digest}"),
    ];
    for reference in right {
        assert!(is_reference(&reference), "{reference}");
    }
    let wrong = [
        "https://r.example/web".to_owned(),
        "oci://".to_owned(),
        "oci://r.example".to_owned(),
        "oci://r.example/".to_owned(),
        "oci://r.example//web".to_owned(),
        "oci://r.example/../web".to_owned(),
        "oci://r.example/Web".to_owned(),
        "oci://user:word@r.example/web".to_owned(),
        "oci://r.example:port/web".to_owned(),
        "oci://r.example/web:".to_owned(),
        "oci://r.example/web:a b".to_owned(),
        "oci://r.example/web?x=y".to_owned(),
        "oci://r.example/web@sha256:12".to_owned(),
        format!("oci://r.example/web@md5:{digest}"),
        format!("oci://r.example/{}", "a".repeat(REFERENCE)),
    ];
    for reference in wrong {
        assert!(!is_reference(&reference), "{reference}");
    }
}

#[test]
fn filters_of_tests_name_tests() {
    assert!(test(br#"{"filter":["name=a","!name=b.c-1"]}"#).is_ok());
    for wrong in ["a", "name=", "!a", "name=a,b", "label=x", "name=a b"] {
        let body = json!({"filter": [wrong]}).to_string();
        let bad = test(body.as_bytes()).unwrap_err();
        assert_eq!(bad.what, "error-release-test-filter", "{wrong}");
    }
}

#[test]
fn a_preview_is_the_act_itself() {
    let body = with_chart(json!({"act": "upgrade", "reuse": "reset"}));
    assert!(matches!(preview(&body), Ok(Act::Upgrade(_))));
    assert!(matches!(preview(br#"{"act":"rollback","revision":2}"#), Ok(Act::Rollback(_))));
    let bad = preview(br#"{"act":"uninstall"}"#).unwrap_err();
    assert_eq!((&*bad.field, bad.what), ("act", "error-release-not-one-of"));
    assert_eq!(preview(b"{}").unwrap_err().field, "act");
    assert_eq!(preview(b"[]").unwrap_err().what, "error-release-body-object");
}
