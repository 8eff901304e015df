//! What is decided about a chart before anything is sent, and how refusals are told.

use http::{HeaderMap, header};

use super::*;
use crate::charts::catalogue::{Catalogue, Entry};
use crate::charts::repositories::Repositories;
use crate::charts::repository::Status;
use crate::charts::{Policy, file};
use crate::i18n::Locale;
use crate::upstream::Cluster;

fn chart(metadata: Value) -> Archive {
    Archive {
        name: metadata["name"].as_str().unwrap_or_default().to_owned(),
        version: "1.2.3".into(),
        app_version: String::new(),
        metadata,
        digest: "ab".repeat(32),
        readme: None,
        values: None,
        schema: None,
        crds: Vec::new(),
        templates: Vec::new(),
    }
}

fn with(dependencies: Value) -> Vec<String> {
    lint(&chart(json!({ "apiVersion": "v2", "name": "web", "dependencies": dependencies })))
}

#[test]
fn a_sound_chart_has_no_faults() {
    let sound = Archive {
        values: Some("# nothing\nreplicas: 1\nreplicas: 2\n".into()),
        schema: Some("{\"type\": \"object\"}".into()),
        ..chart(json!({
            "apiVersion": "v2", "name": "web", "type": "application", "dependencies": [
                { "name": "db", "version": "^1.2", "repository": "https://charts.example" },
                { "name": "db", "alias": "cache", "version": "1.x.x", "repository": "@stable" },
                { "name": "base", "version": ">= 1.0 < 2", "repository": "oci://r.example/charts" },
                { "name": "own", "repository": "" },
            ],
        }))
    };
    assert_eq!(lint(&sound), Vec::<String>::new());
    for values in ["", "# all by default\n", "---\n"] {
        let values = Archive { values: Some(values.into()), ..sound.clone() };
        assert_eq!(lint(&values), Vec::<String>::new());
    }
}

#[test]
fn each_fault_is_told_in_words() {
    let of = |metadata: Value| lint(&chart(metadata)).join("; ");
    let name = of(json!({ "apiVersion": "v2", "name": "we b" }));
    assert!(name.contains("its name"), "{name}");
    assert!(of(json!({ "name": "web" })).contains("apiVersion"));
    let kind = of(json!({ "apiVersion": "v2", "name": "web", "type": "weapon" }));
    assert!(kind.contains("type"), "{kind}");
    let old = of(json!({ "apiVersion": "v1", "name": "web", "dependencies": [{ "name": "db" }] }));
    assert!(old.contains("needs the apiVersion v2"), "{old}");
    let odd = of(json!({ "apiVersion": "v2", "name": "web", "dependencies": "db" }));
    assert!(odd.contains("no list"), "{odd}");
    for (dependency, says) in [
        (json!({ "version": "1" }), "dependency 1 in Chart.yaml has no name"),
        (json!("db"), "has no name"),
        (json!({ "name": "db", "version": "latest" }), "no range"),
        (json!({ "name": "db", "alias": "a b" }), "alias"),
        (json!({ "name": "db", "repository": "charts.example" }), "no address"),
    ] {
        let faults = with(json!([dependency])).join("; ");
        assert!(faults.contains(says), "{faults}");
    }
    let twice = with(json!([{ "name": "db" }, { "name": "db" }])).join("; ");
    assert!(twice.contains("two dependencies db"), "{twice}");
    assert_eq!(with(Value::Array(vec![Value::Null; 1000])).len(), NAMED);
}

#[test]
fn values_whose_aliases_make_far_more_of_them_are_refused() {
    let aliases = |text: &str, count: usize| {
        let values = format!("a: &a {text}\nall:\n{}", "  - *a\n".repeat(count));
        let sound = chart(json!({ "apiVersion": "v2", "name": "web" }));
        lint(&Archive { values: Some(values), ..sound }).join("; ")
    };
    assert_eq!(aliases("[some, text]", 10), "");
    let (long, many) = ("x".repeat(CHART_TEXT / 8), format!("[{}x]", "x, ".repeat(1_000)));
    for (text, count) in [(long, 9), (many, CHART_NODES / 1_000)] {
        let fault = aliases(&text, count);
        assert!(fault.contains("values.yaml cannot be read: line"), "{fault}");
    }
}

#[test]
fn values_are_a_mapping_and_their_schema_is_json() {
    let sound = chart(json!({ "apiVersion": "v2", "name": "web" }));
    for (values, says) in [("- a\n", "no mapping"), ("a: [\n", "cannot be read: line")] {
        let faults = lint(&Archive { values: Some(values.into()), ..sound.clone() }).join("; ");
        assert!(faults.contains("values.yaml") && faults.contains(says), "{faults}");
    }
    for (schema, says) in [("[]", "no schema"), ("type: object", "cannot be read")] {
        let faults = lint(&Archive { schema: Some(schema.into()), ..sound.clone() }).join("; ");
        assert!(faults.contains("values.schema.json") && faults.contains(says), "{faults}");
    }
}

#[test]
fn only_archives_are_taken_and_only_a_clear_word_forces() {
    let typed = |text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(text));
        body::is_one_of(&headers, &ARCHIVE)
    };
    assert!(typed("application/gzip").is_ok());
    assert!(typed("Application/Octet-Stream; charset=x").is_ok());
    for text in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert_eq!(typed(text).unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{text}");
    }
    assert!(body::is_one_of(&HeaderMap::new(), &ARCHIVE).is_err());
    assert!(wants_force(&"/chart/a?force=true".parse().unwrap()));
    for uri in ["/chart/a", "/chart/a?force", "/chart/a?force=false", "/chart/a?enforce=true"] {
        assert!(!wants_force(&uri.parse().unwrap()), "{uri}");
    }
}

#[test]
fn a_provenance_file_is_that_of_this_chart_and_version() {
    let archive = chart(json!({ "apiVersion": "v2", "name": "web" }));
    let signed = |name: &str, version: &str, digest: &str| {
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\napiVersion: v2\nname: {name}\n\
             version: {version}\n\n...\nfiles:\n  web-1.2.3.tgz: sha256:{digest}\n\
             -----BEGIN PGP SIGNATURE-----\n\nwsBcBAEBCgAQ\n-----END PGP SIGNATURE-----\n"
        )
    };
    assert!(is_signature_of(&archive, &signed("web", "1.2.3", &archive.digest)));
    assert!(!is_signature_of(&archive, &signed("web", "1.2.3", &"0".repeat(64))));
    assert!(!is_signature_of(&archive, &signed("db", "1.2.3", &archive.digest)));
    assert!(!is_signature_of(&archive, &signed("web", "1.2.4", &archive.digest)));
    assert!(!is_signature_of(&archive, "signed"));
}

#[test]
fn what_a_repository_refuses_is_told_with_its_own_words() {
    let at = || "m.example".to_owned();
    let words = || "the words".to_owned();
    for (error, status) in [
        (BadPush::Exists(at(), words()), 409),
        (BadPush::Immutable(at(), words()), 409),
        (BadPush::Full(at(), words()), 507),
        (BadPush::TooLarge(at(), words()), 413),
        (BadPush::NotFound(at(), words()), 404),
        (BadPush::Denied(at(), words()), 502),
        (BadPush::Unfit(at(), words()), 422),
        (BadPush::Place(words(), "it is none"), 422),
    ] {
        let error = refused(&error);
        let text = error.text(Locale::EN);
        assert_eq!(error.status.as_u16(), status, "{text}");
        assert!(text.contains("the words"), "{text}");
    }
    assert_eq!(refused(&BadPush::NoApi(at())).status.as_u16(), 405);
    assert_eq!(refused(&BadPush::NoDelete(at())).status.as_u16(), 405);
    assert_eq!(refused(&BadPush::Timeout(at())).status.as_u16(), 504);
}

#[tokio::test]
async fn where_a_chart_belongs_is_not_guessed_while_its_registry_is_read_for_the_first_time() {
    // kube's own client wants a process-wide provider; a second call is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nowhere = "http://127.0.0.1:1".parse().unwrap();
    let cluster = Cluster::new("test", kube::Config::new(nowhere)).unwrap();
    let list = file::parse("- name: r\n  type: oci\n  url: oci://r.example/corp\n").unwrap();
    let all = Repositories::new(cluster, "ops".into(), Policy::default(), list).unwrap();
    let registry = all.get("r").unwrap();
    let at = |loaded: &Loaded| tag(&registry, loaded, "web", "1.0.0").map(|tag| tag.address());
    let error = at(&Loaded::default()).unwrap_err();
    assert_eq!(error.status, StatusCode::BAD_GATEWAY, "{}", error.text(Locale::EN));
    let known = Entry {
        name: "web".into(),
        version: "0.1.0".into(),
        urls: vec!["oci://r.example/corp/platform/web:0.1.0".into()],
        ..Entry::default()
    };
    let catalogue = Catalogue::default().with(&known).unwrap().into();
    let read = Loaded { catalogue, ..Loaded::default() };
    assert_eq!(at(&read).unwrap(), "oci://r.example/corp/platform/web:1.0.0");
    // Many registries tell nobody what they have, and take charts all the same.
    let status = Status { error: Some("it does not tell".into()), ..Status::default() };
    let untold = Loaded { status, ..Loaded::default() };
    assert_eq!(at(&untold).unwrap(), "oci://r.example/corp/web:1.0.0");
}

#[tokio::test]
async fn what_was_begun_ends_though_the_client_has_left() {
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    let work = async move {
        let _ = begun.await;
        let _ = end.send(());
        Ok::<_, ApiError>(Value::Null)
    };
    let mut waiting = Box::pin(to_its_end(work));
    let waker = std::task::Waker::noop();
    let polled = waiting.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(polled.is_pending());
    drop(waiting);
    begin.send(()).unwrap();
    ended.await.unwrap();
}
