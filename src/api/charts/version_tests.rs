//! A version of a chart: paths, what is told of it, what is sent, and what is not.

use futures::StreamExt as _;

use super::*;
use crate::charts::store::Busy;
use crate::i18n::Locale;

fn archive() -> Archive {
    Archive {
        name: "web".into(),
        version: "1.2.3".into(),
        app_version: "2.10".into(),
        metadata: json!({ "name": "web", "dependencies": [{ "name": "db" }] }),
        digest: "ab".repeat(32),
        readme: Some("# Web".into()),
        values: Some("a: 1".into()),
        schema: Some("{\"type\":\"object\"}".into()),
        crds: Vec::new(),
        templates: vec!["templates/a.yaml".into()],
    }
}

fn chart(versions: &[&str]) -> Chart {
    let versions =
        versions.iter().map(|version| Version { version: (*version).into(), ..Version::default() });
    Chart { name: "web".into(), versions: versions.collect(), ..Chart::default() }
}

#[test]
fn who_finds_no_place_to_fetch_is_told_to_ask_again() {
    let error = unavailable("web", &Version::default(), &BadChart::Busy(Busy));
    assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
    let slow = BadChart::Slow(Duration::from_secs(5));
    assert_eq!(unavailable("web", &Version::default(), &slow).status, StatusCode::BAD_GATEWAY);
}

#[test]
fn a_path_names_repository_chart_and_version() {
    let (repository, name, version) =
        segments("/api/v1/chart/stable/a%2Fweb/1.2.3%2Bbuild/icon", 1).unwrap();
    assert_eq!((&*repository, &*name, &*version), ("stable", "a/web", "1.2.3+build"));
    let (_, _, version) = segments("/api/v1/chart/stable/web/1.2.3+build", 0).unwrap();
    assert_eq!(&*version, "1.2.3+build");
    assert!(segments("/api/v1/chart/stable/../1", 0).is_err());
    assert!(segments("/api/v1/chart/stable/web/a%2Fb", 0).is_err());
}

#[test]
fn what_an_archive_tells_has_its_schema_as_json_or_else_as_it_is() {
    let mut archive = archive();
    let body = told(&archive);
    assert_eq!(body["schema"]["type"], "object");
    assert_eq!(body["dependencies"][0]["name"], "db");
    assert_eq!(body["readme"]["raw"], "# Web");
    assert_eq!(body["signature"]["state"], Value::Null);
    (archive.schema, archive.readme) = (Some("{".into()), None);
    archive.metadata = json!({});
    let body = told(&archive);
    assert_eq!(body["schema"], "{");
    assert_eq!((&body["readme"], &body["dependencies"]), (&Value::Null, &json!([])));
}

#[test]
fn a_chart_has_an_icon_if_the_catalogue_or_the_archive_says_so() {
    let mut archive = archive();
    assert!(!has_icon(None, &archive));
    assert!(has_icon(Some("https://a.b/c"), &archive));
    archive.metadata["icon"] = "data:image/png;base64,".into();
    assert!(has_icon(None, &archive));
}

#[test]
fn a_version_that_is_not_there_is_told_with_those_that_are() {
    let error = no_version(&chart(&["2.0.0", "1.0.0"]), "3");
    assert_eq!(error.status, StatusCode::NOT_FOUND);
    let text = error.text(Locale::EN);
    assert!(text.contains("2.0.0, 1.0.0") && text.contains("web"), "{text}");
}

#[test]
fn a_page_that_stands_in_the_place_of_a_provenance_file_is_not_shown() {
    let shown = |text: &str| {
        let mut body = told(&archive());
        sign(&mut body, &archive(), Ok(Some(text.into())));
        body
    };
    let page = shown("<html>not found</html>");
    assert_eq!(page["provenance"], Value::Null);
    assert_eq!(page["signature"], json!({ "state": "mismatch", "keysChecked": false }));
    assert_eq!(shown(SIGNED)["provenance"], SIGNED);
    let mut body = told(&archive());
    sign(&mut body, &archive(), Err("too slow".into()));
    assert_eq!(body["errors"], json!(["too slow"]));
    assert_eq!(body["signature"]["state"], Value::Null);
}

#[test]
fn addresses_are_those_that_can_be_fetched() {
    let base = Url::parse("https://a.example/charts/").unwrap();
    let urls = ["web.tgz", "javascript:alert(1)", "oci://r.example/web:1", "data:text/html,x"];
    let urls = urls.iter().collect();
    let version = Version { urls, ..Version::default() };
    let shown = ["https://a.example/charts/web.tgz", "oci://r.example/web:1"];
    assert_eq!(addresses(&base, &version), shown);
}

#[tokio::test]
async fn an_archive_has_its_place_until_its_last_piece_is_sent() {
    let (bytes, place) = (Bytes::from(vec![7; 1 << 20]), Arc::new(()));
    let answer = download(&archive(), bytes.clone(), place.clone(), WRITE);
    let said = |name: &str| answer.headers()[name].to_str().unwrap();
    assert_eq!(said("content-length"), bytes.len().to_string());
    assert_eq!(said("content-disposition"), "attachment; filename=\"web-1.2.3.tgz\"");
    let mut sent = answer.into_body().into_data_stream();
    let mut all = Vec::new();
    while all.len() < bytes.len() {
        assert_eq!(Arc::strong_count(&place), 2);
        all.extend(sent.next().await.unwrap().unwrap());
    }
    assert!(sent.next().await.is_none());
    assert_eq!((all, Arc::strong_count(&place)), (bytes.to_vec(), 1));
}

#[tokio::test]
async fn an_archive_of_which_nobody_takes_anything_has_no_place_any_more() {
    let (bytes, place) = (Bytes::from(vec![7; 1 << 20]), Arc::new(()));
    let brief = Duration::from_millis(20);
    let answer = download(&archive(), bytes, place.clone(), brief);
    assert_eq!(Arc::strong_count(&place), 2);
    let gone = async {
        while Arc::strong_count(&place) > 1 {
            tokio::time::sleep(brief).await;
        }
    };
    tokio::time::timeout(WRITE, gone).await.unwrap();
    // It breaks off: a good end would look like its own.
    let rest: Vec<_> = answer.into_body().into_data_stream().collect().await;
    assert!(rest.last().is_some_and(Result::is_err));
}

#[test]
fn a_file_name_cannot_end_its_header() {
    let odd = Archive { version: "1.0.0-a\"\r\n;ä".into(), ..archive() };
    assert_eq!(file_name(&odd), "web-1.0.0-a_____.tgz");
    assert_eq!(file_name(&archive()), "web-1.2.3.tgz");
}

#[test]
fn an_icon_that_is_opened_by_itself_may_do_nothing() {
    let headers = [(header::CONTENT_SECURITY_POLICY, ICON_POLICY)];
    let response = file(Body::from("<svg/>"), "image/svg+xml", headers);
    let said = |name: &str| response.headers()[name].to_str().unwrap();
    assert_eq!(said("x-content-type-options"), "nosniff");
    assert_eq!(said("content-type"), "image/svg+xml");
    assert!(said("content-security-policy").contains("default-src 'none'"));
}
