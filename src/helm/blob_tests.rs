//! Tests of reading records; also the records that other tests of this room read.

use std::sync::LazyLock;

use serde_json::json;

use super::*;

/// As Helm 3 writes it: times that are not there are empty texts, and no `apply_method`.
pub const HELM_3: &str = r##"{"name": "web", "info": {"first_deployed": "2026-01-02T03:04:05Z",
    "last_deployed": "2026-01-02T03:04:05.123456789Z", "deleted": "",
    "description": "Install complete", "status": "deployed", "notes": "Have fun."},
    "chart": {"metadata": {"name": "web", "version": "1.2.0", "appVersion": "2.0"}, "lock": null,
    "templates": [{"name": "templates/web.yaml", "data": "e3t9fQ=="}],
    "values": {"replicas": 1, "image": {"tag": "1", "pull": null}, "old": {"a": 1}},
    "schema": "eyJ0eXBlIjoib2JqZWN0In0=",
    "files": [{"name": "LICENSE", "data": ""}, {"name": "ReadMe.md", "data": "IyBXZWI="}]},
    "config": {"image": {"tag": "2"}, "old": null}, "manifest": "---\n# Source: web\n",
    "hooks": [{"name": "test", "kind": "Pod", "path": "templates/test.yaml", "manifest": "x",
    "events": ["test"], "last_run": {"started_at": "", "completed_at": "", "phase": ""},
    "delete_policies": ["hook-succeeded"]}], "version": 3, "namespace": "atlas"}"##;

/// A record as the API server gives it out.
pub fn stored(json: &str, is_packed: bool) -> String {
    let bytes = if is_packed { gzip(json.as_bytes()) } else { json.as_bytes().to_vec() };
    STANDARD.encode(STANDARD.encode(bytes))
}

/// Small, and unpacked larger than any record may be.
pub static BOMB: LazyLock<String> = LazyLock::new(|| {
    let text = format!("{{\"name\":\"{}\"}}", "a".repeat(UNPACKED as usize));
    let bomb = stored(&text, true);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    bomb
});

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn read(json: &str) -> Release {
    decode(&stored(json, true)).unwrap()
}

fn with_values(chart: Value, config: Value) -> Value {
    computed(&read(&json!({"chart": {"values": chart}, "config": config}).to_string()))
}

#[test]
fn a_record_of_helm_3_is_read_whole() {
    let release = read(HELM_3);
    assert_eq!((release.name.as_str(), release.namespace.as_str()), ("web", "atlas"));
    assert_eq!((release.version, release.apply_method.as_str()), (3, ""));
    assert_eq!(release.info.first_deployed, Some(1_767_323_045));
    assert_eq!(release.info.last_deployed, Some(1_767_323_045));
    assert_eq!((release.info.deleted, release.info.rollback_revision), (None, None));
    assert_eq!(release.info.status, Status::Deployed);
    assert_eq!(release.info.notes, "Have fun.");
    assert_eq!(release.chart.metadata["appVersion"], "2.0");
    assert_eq!(release.chart.schema, Some(json!({"type": "object"})));
    assert_eq!(release.chart.readme.as_deref(), Some("# Web"));
    assert_eq!(release.chart.files, ["LICENSE", "ReadMe.md"]);
    assert_eq!(release.chart.templates, ["templates/web.yaml"]);
    let [hook] = release.hooks.as_slice() else { panic!("one hook") };
    assert_eq!((hook.name.as_str(), hook.weight), ("test", 0));
    assert_eq!((hook.last_run.started_at, hook.last_run.phase.as_str()), (None, ""));
    assert_eq!(hook.events, ["test"]);
}

#[test]
fn a_record_of_helm_4_says_how_it_was_applied_and_one_that_is_not_packed_is_read_too() {
    let json = r#"{"name": "web", "apply_method": "ssa", "version": 1, "info":
        {"status": "pending-install"}, "chart": {"metadata": null, "templates": null,
        "values": null, "schema": null, "files": null}, "config": null, "hooks": null}"#;
    for is_packed in [true, false] {
        let release = decode(&stored(json, is_packed)).unwrap();
        assert_eq!(release.apply_method, "ssa");
        assert_eq!(release.info.status, Status::PendingInstall);
        assert_eq!((release.info.first_deployed, release.info.last_deployed), (None, None));
        assert_eq!((&release.config, &release.chart.values), (&json!({}), &json!({})));
        assert!(release.hooks.is_empty() && release.chart.schema.is_none());
    }
}

#[test]
fn a_time_that_is_none_is_none() {
    for time in [r#""""#, "null", r#""0001-01-01T00:00:00Z""#, r#""soon""#] {
        let release = read(&format!(r#"{{"info": {{"last_deployed": {time}}}}}"#));
        assert_eq!(release.info.last_deployed, None, "{time}");
    }
}

#[test]
fn a_bomb_is_left_before_it_is_unpacked() {
    assert_eq!(decode(&BOMB).err(), Some(BadRelease::TooLarge(UNPACKED)));
    assert_eq!(marked_failed(&BOMB, "").err(), Some(BadRelease::TooLarge(UNPACKED)));
    let values = format!(r#"{{"config": {{"a": "{}"}}}}"#, "a".repeat(TREE));
    assert_eq!(decode(&stored(&values, true)).err(), Some(BadRelease::TooLarge(TREE as u64)));
    let hooks = format!(r#"{{"hooks": [{}{{}}]}}"#, "{},".repeat(HOOKS));
    assert_eq!(decode(&stored(&hooks, true)).err(), Some(BadRelease::Hooks));
}

#[test]
fn a_record_that_is_made_up_to_take_memory_is_refused_before_it_takes_it() {
    // Each of some MiB, and packed of some KiB.
    let many = |part: &str| part.repeat(NODES / 2);
    for made_up in [
        format!(r#"{{"config": {{"a": [{}0]}}}}"#, many(r#"{"a":0},"#)),
        format!(r#"{{"chart": {{"files": [{}{{}}]}}}}"#, many("{},")),
        format!(r#"{{"hooks": [{{"events": [{}"b"]}}]}}"#, many(r#""a","a","#)),
        format!(r#"{{{}"b": 0}}"#, many(r#""a":0,"#)),
    ] {
        assert_eq!(decode(&stored(&made_up, true)).err(), Some(BadRelease::Nodes));
        assert_eq!(marked_failed(&stored(&made_up, true), "").err(), Some(BadRelease::Nodes));
    }
    // What stands there as text takes no more than its text.
    let text = format!(r#"{{"manifest": "{}"}}"#, many("{[,:"));
    assert_eq!(read(&text).manifest.len(), 2 * NODES);
    let told = BadRelease::Nodes.to_string();
    assert!(told.contains("values") && told.contains("300000"), "{told}");
}

#[test]
fn an_ordinary_big_record_is_read_and_its_weight_is_told() {
    let manifest = "---\n# Source: web/templates/a.yaml\nkind: {a: [b, \"c\"]}\n".repeat(60_000);
    let values = (0..5_000).map(|n| json!({"name": format!("n{n}"), "on": true}));
    let big = json!({"manifest": manifest, "config": {"all": values.collect::<Vec<_>>()},
        "chart": {"files": [{"name": "a.json", "data": "e30=".repeat(100_000)}]}});
    let release = read(&big.to_string());
    assert_eq!(release.manifest.len(), manifest.len());
    assert_eq!(release.config["all"].as_array().unwrap().len(), 5_000);
    let texts = 2 * manifest.len();
    assert!(release.weight() > texts && release.weight() < texts + (24 << 20));
}

#[test]
fn a_broken_record_is_told_from_others_and_nothing_of_it_is_repeated() {
    assert!(matches!(decode("%").err(), Some(BadRelease::Base64(_))));
    let whole = STANDARD.decode(STANDARD.decode(stored(HELM_3, true)).unwrap()).unwrap();
    let half = STANDARD.encode(STANDARD.encode(&whole[..whole.len() / 2]));
    assert!(matches!(decode(&half).err(), Some(BadRelease::Packed(_))));
    for json in ["", "7", r#"{"config": "hunter2"}"#, r#"{"name": {"hunter2": 1}}"#] {
        let error = decode(&stored(json, true)).err().unwrap();
        assert!(matches!(error, BadRelease::Json(_)), "{json}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn computed_values_are_the_users_over_the_charts() {
    assert_eq!(computed(&read(HELM_3)), json!({"replicas": 1, "image": {"tag": "2"}}));
    assert_eq!(with_values(json!(null), json!(null)), json!({}));
    let both = with_values(json!({"a": [1, null]}), json!({"b": 2}));
    assert_eq!(both, json!({"a": [1, null], "b": 2}));
}

#[test]
fn a_null_takes_a_default_away_and_one_without_a_default_stays() {
    let chart = json!({"a": {"b": {"c": 1, "d": 2}, "e": null}, "f": null, "g": 1});
    let config = json!({"a": {"b": {"c": null, "x": null}, "y": null}, "f": null, "z": null});
    let wanted = json!({"a": {"b": {"d": 2, "x": null}, "y": null}, "g": 1, "z": null});
    assert_eq!(with_values(chart, config), wanted);
}

#[test]
fn an_object_and_what_is_none_are_not_mixed() {
    let chart = json!({"a": {"b": 1}, "c": 1});
    let config = json!({"a": "text", "c": {"d": 2}});
    assert_eq!(with_values(chart, config.clone()), config);
}

#[test]
fn a_record_marked_as_failed_keeps_all_else() {
    let json = r#"{"name": "web", "info": {"status": "pending-upgrade", "description": "Preparing",
        "notes": "n", "last_deployed": "2026-01-02T03:04:05.123456789+01:00"},
        "config": {"big": 12345678901234567890123, "float": 1.0}, "odd": [1, {"x": null}]}"#;
    for is_packed in [true, false] {
        let marked = marked_failed(&stored(json, is_packed), "ended \"here\"").unwrap();
        let text = String::from_utf8(unpacked(&marked).unwrap()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["info"]["status"], "failed");
        assert_eq!(value["info"]["description"], "ended \"here\"");
        assert_eq!(value["info"]["notes"], "n");
        for whole in ["2026-01-02T03:04:05.123456789+01:00", "12345678901234567890123", "1.0"] {
            assert!(text.contains(whole), "{whole} in {text}");
        }
        assert_eq!(value["odd"], json!([1, {"x": null}]));
    }
    let bare = marked_failed(&stored(r#"{"info": null}"#, true), "d").unwrap();
    assert_eq!(decode(&bare).unwrap().info.status, Status::Failed);
    assert!(marked_failed(&stored("[]", true), "").is_err());
}

#[test]
fn a_secret_is_read_as_far_as_it_matters() {
    let json = br#"{"kind": "Secret", "metadata": {"uid": "u", "resourceVersion": "9", "x": 1},
        "data": {"release": "QQ==", "other": "QQ=="}}"#;
    let held = Held::of(json).unwrap();
    assert_eq!((held.uid.as_str(), held.version, held.release), ("u", 9, Some("QQ==")));
    let empty = Held::of(br#"{"metadata": {"uid": "u", "resourceVersion": "x"}}"#).unwrap();
    assert_eq!((empty.version, empty.release), (0, None));
    assert!(Held::of(b"{}").is_err());
}
