//! Paths of releases, and what is told of a revision with and without its content.

use std::sync::Arc;

use futures::StreamExt as _;

use super::*;
use crate::helm::record::Status;

fn record() -> Record {
    Record {
        namespace: "shop".into(),
        name: "web".into(),
        revision: 3,
        status: Status::PendingUpgrade,
        labels: [("team".to_owned(), "red".to_owned())].into(),
        secret: "sh.helm.release.v1.web.v3".into(),
        uid: "u".into(),
        resource_version: "9".into(),
        created: 1_767_323_045,
    }
}

#[test]
fn a_path_names_a_release_and_its_query_a_revision() {
    let of = |path: &str, after| {
        let asked = Asked::of(&path.parse().unwrap(), after)?;
        Ok::<_, ApiError>((asked.namespace.to_string(), asked.name.to_string(), asked.revision))
    };
    let web = |revision| ("shop".to_owned(), "web.a".to_owned(), revision);
    assert_eq!(of("/api/v1/release/shop/web.a", 0).unwrap(), web(None));
    assert_eq!(of("/api/v1/release/shop/web.a/values?revision=7", 1).unwrap(), web(Some(7)));
    for odd in ["revision=0", "revision=", "revision=-1", "revision=x"] {
        let error = of(&format!("/release/shop/web?{odd}"), 0).unwrap_err();
        assert_eq!(error.status.as_u16(), 400, "{odd}");
    }
    assert!(of("/release/Shop/web", 0).is_err());
    assert!(of("/release/shop/a%2Fb", 0).is_err());
}

#[test]
fn without_its_content_a_revision_tells_what_its_metadata_knows() {
    let told = told(&record(), None);
    assert_eq!((&told["revision"], &told["status"]), (&json!(3), &json!("pending-upgrade")));
    assert_eq!(told["lastDeployed"], "2026-01-02T03:04:05Z");
    assert_eq!(told["labels"], json!({"team": "red"}));
    for key in ["firstDeployed", "applyMethod", "chart", "values"] {
        assert_eq!(told[key], Value::Null, "{key}");
    }
    assert_eq!((&told["hooks"], &told["notes"]), (&json!([]), &json!("")));
}

#[test]
fn a_chart_has_all_keys_and_no_others() {
    let chart = chart_of(&json!({"name": "web", "version": "1.2.0", "odd": 1}));
    assert_eq!(chart.as_object().unwrap().len(), OF_CHART.len());
    assert_eq!((&chart["name"], &chart["icon"]), (&json!("web"), &Value::Null));
}

#[test]
fn a_revision_whose_content_nobody_could_read_is_still_told() {
    let record = record();
    let fact = Fact { chart: "web".into(), updated: Some(1_767_323_046), ..Fact::default() };
    let known = Read::from([("u".into(), fact.into())]);
    let history = std::slice::from_ref(&record);
    let shown = revisions(history, &known);
    assert_eq!((&shown[0]["chart"], &shown[0]["revision"]), (&json!("web"), &json!(3)));
    assert_eq!(shown[0]["updated"], "2026-01-02T03:04:06Z");
    let shown = revisions(history, &Read::new());
    assert_eq!((&shown[0]["chart"], &shown[0]["revision"]), (&Value::Null, &json!(3)));
}

#[test]
fn a_revision_without_a_record_is_told_with_those_that_there_are() {
    let history = [record()];
    assert_eq!(chosen(&history, "web", 3).unwrap().revision, 3);
    let error = chosen(&history, "web", 2).unwrap_err();
    assert_eq!(error.status, StatusCode::NOT_FOUND);
    let text = error.text(Locale::EN);
    assert!(text.contains('2') && text.contains('3'), "{text}");
}

#[test]
fn who_goes_back_from_the_first_revision_is_told_of_no_number_that_he_did_not_name() {
    let first = [Record { revision: 1, ..record() }];
    let error = chosen(&first, "web", 0).unwrap_err();
    assert_eq!(error.status, StatusCode::NOT_FOUND);
    let text = error.text(Locale::EN);
    assert!(text.contains("earlier") && text.contains('1') && !text.contains('0'), "{text}");
}

#[test]
fn a_body_is_read_where_it_came_if_it_is_short_and_can_name_no_value_twice() {
    let of = |values: &str| json!({ "chart": {}, "values": values }).to_string();
    assert!(is_quick(of("a: 1").as_bytes()) && is_quick(b""));
    assert!(!is_quick(of("a: &a [1, 1], b: [*a, *a]").as_bytes()));
    assert!(!is_quick(br#"{"values": "a: &a [1, 1], b: [\u002aa, \u002aa]"}"#));
    assert!(!is_quick("a".repeat(IN_PLACE + 1).as_bytes()));
}

#[tokio::test]
async fn a_long_text_has_its_room_until_it_is_taken() {
    let (long, room) = ("a: 1\n".repeat(100_000), Arc::new(()));
    let answer = text("application/yaml", long.clone(), room.clone());
    let said = |name: &str| answer.headers()[name].to_str().unwrap();
    assert_eq!(said("content-length"), long.len().to_string());
    assert_eq!((said("content-type"), said("cache-control")), ("application/yaml", "no-store"));
    let mut sent = answer.into_body().into_data_stream();
    let mut all = sent.next().await.unwrap().unwrap().to_vec();
    assert_eq!(Arc::strong_count(&room), 2);
    while let Some(piece) = sent.next().await {
        all.extend(piece.unwrap());
    }
    assert_eq!((all, Arc::strong_count(&room)), (long.into_bytes(), 1));
    let _short = text("text/plain", "short".to_owned(), room.clone());
    assert_eq!(Arc::strong_count(&room), 1, "it takes no more than any other answer");
}
