//! Rows, uses and updates of charts.

use super::*;
use crate::charts::catalogue::{Catalogue, Entry};
use crate::charts::repositories::Repositories;
use crate::charts::search::Search;
use crate::charts::{Policy, file, repository};
use crate::i18n::Locale;
use crate::upstream::Cluster;

fn entry(name: &str, version: &str) -> Entry {
    Entry {
        name: name.into(),
        version: version.into(),
        app_version: "7".into(),
        created: Some(1_767_323_045),
        digest: Some([171; 32]),
        ..Entry::default()
    }
}

fn shelf(name: &str, entries: &[Entry]) -> Shelf {
    let empty = Catalogue::default();
    let catalogue = entries.iter().fold(empty, |all, entry| all.with(entry).unwrap());
    let search = Search::new(&catalogue).into();
    let last_success = Some(jiff::Timestamp::UNIX_EPOCH);
    let status = repository::Status { last_success, ..repository::Status::default() };
    let loaded = Loaded { catalogue: catalogue.into(), search, status, ..Loaded::default() };
    Shelf { name: name.into(), loaded: loaded.into() }
}

fn shelves() -> Vec<Shelf> {
    let old = Entry { deprecated: true, ..entry("old", "0.1.0") };
    let web = Entry {
        keywords: vec!["http".into(), "server".into()],
        icon: "https://icons.example/web.png".into(),
        home: "javascript:alert(1)".into(),
        ..entry("web", "1.2.0")
    };
    let first = [entry("db", "3.0.0"), old, web, entry("web", "2.0.0-rc.1")];
    vec![shelf("second", &[entry("web", "9.0.0")]), shelf("first", &first)]
}

/// Repository, name and JSON of what a query shows, and how much there is in all.
fn shown_by(raw: &str) -> (Vec<(String, Value)>, usize) {
    let asked = Asked::of(Some(raw));
    let mut query = ListQuery::parse(Some(raw), &CHART).unwrap();
    if asked.words.is_some() {
        query.sort.push(Sort { key: Key::Cell(SCORE), descending: true });
    }
    query.sort.extend(TIES);
    let page = choose(&shelves(), &asked, &query, "/base").unwrap();
    let shown = page.rows.iter().map(|row| {
        let item = serde_json::from_slice(&row.json).unwrap();
        (format!("{}/{}", row.namespace, row.name), item)
    });
    (shown.collect(), page.total)
}

fn names(raw: &str) -> Vec<String> {
    shown_by(raw).0.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn who_leaves_gives_no_place_back_before_the_work_is_over() {
    static PLACES: Semaphore = Semaphore::const_new(1);
    let (begins, begun) = tokio::sync::oneshot::channel();
    let (ends, end) = std::sync::mpsc::channel::<()>();
    let work = move || {
        let _ = begins.send(());
        let _ = end.recv();
    };
    let asking = tokio::spawn(in_place(&PLACES, work));
    begun.await.unwrap();
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    let error = turn(&PLACES, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
    drop(ends);
    assert!(turn(&PLACES, Duration::from_secs(60)).await.is_ok());
}

#[test]
fn the_same_chart_of_two_repositories_is_two_rows_side_by_side() {
    assert_eq!(names(""), ["first/db", "first/web", "second/web"]);
    let (page, total) = shown_by("itemsPerPage=1&page=3");
    assert_eq!((page[0].0.as_str(), total), ("second/web", 3));
}

#[test]
fn charts_are_sorted_and_filtered_by_the_grammar_of_every_list() {
    assert_eq!(names("sortBy=d,repository"), ["second/web", "first/db", "first/web"]);
    assert_eq!(names("filterBy=version,9.0"), ["second/web"]);
    assert_eq!(names("filterBy=keywords,serv"), ["first/web"]);
    assert_eq!(names("filterBy=repository,first&sortBy=d,name"), ["first/web", "first/db"]);
    assert!(ListQuery::parse(Some("filterBy=colour,red"), &CHART).is_err());
}

#[test]
fn what_is_searched_for_comes_best_first_unless_another_order_is_asked_for() {
    assert_eq!(names("q=web"), ["first/web", "second/web"]);
    assert_eq!(names("q=http+server"), ["first/web"]);
    assert_eq!(names("q=webb&sortBy=d,repository"), ["second/web", "first/web"]);
    assert!(names("q=nothing").is_empty());
    assert_eq!(names("q=+"), names(""));
    let (page, _) = shown_by("q=web");
    assert!(page[0].1["score"].as_i64().unwrap() > 0);
}

#[test]
fn deprecated_charts_are_shown_to_who_asks_for_them() {
    assert_eq!(names("deprecated=true").len(), 4);
    assert!(names("q=old").is_empty());
    let (page, _) = shown_by("q=old&deprecated=true");
    assert_eq!(page[0].1["deprecated"], true);
}

#[test]
fn an_item_tells_of_the_newest_stable_version_and_leads_nowhere_odd() {
    let (page, _) = shown_by("filterBy=repository,first,name,web");
    let item = &page[0].1;
    assert_eq!((&item["version"], &item["latest"]), (&json!("1.2.0"), &json!("2.0.0-rc.1")));
    assert_eq!((&item["versions"], &item["home"]), (&json!(2), &Value::Null));
    assert_eq!(item["icon"], "/base/api/v1/chart/first/web/1.2.0/icon");
    assert_eq!(item["keywords"], json!(["http", "server"]));
    assert_eq!(item["updated"], "2026-01-02T03:04:05Z");
    assert_eq!((item.get("score"), &item["appVersion"]), (None, &json!("7")));
    assert_eq!(link("HTTPS://a.example"), Some("HTTPS://a.example"));
    for odd in ["", "http:/", "data:text/html,x", "é://", "//a.example"] {
        assert_eq!(link(odd), None, "{odd}");
    }
}

#[test]
fn what_is_missing_is_told_of_once() {
    let names: [CompactString; 2] = ["first".into(), "theirs".into()];
    let (left, errors) = wanted(shelves(), &names);
    assert_eq!((left.len(), errors.len()), (1, 1));
    assert_eq!(errors[0].status, StatusCode::NOT_FOUND);
    let error = Some("nobody answers".to_owned());
    let status = repository::Status { error, ..repository::Status::default() };
    let loaded = Loaded { status, ..Loaded::default() };
    let broken = Shelf { name: "broken".into(), loaded: loaded.into() };
    let new = Shelf { name: "new".into(), loaded: Arc::default() };
    let (left, errors) = wanted(vec![broken, new], &[]);
    assert_eq!((left.len(), errors.len()), (2, 2));
    for (error, reason) in errors.iter().zip(["nobody answers", FIRST]) {
        assert_eq!(error.status, StatusCode::BAD_GATEWAY);
        assert!(error.text(Locale::EN).contains(reason));
    }
}

#[test]
fn of_a_chart_with_very_many_versions_the_first_are_shown_unless_pages_are_asked_for() {
    let version =
        |index: usize| Version { version: format!("1.0.{index}").into(), ..Version::default() };
    let versions = (0..VERSIONS + 1).rev().map(version).collect();
    let chart = Chart { name: "web".into(), versions, ..Chart::default() };
    let all = shown("", "first", &chart, None);
    assert_eq!(all["versions"].as_array().unwrap().len(), VERSIONS);
    assert_eq!(all["listMeta"]["totalItems"], VERSIONS + 1);
    let rest = shown("", "first", &chart, Some(query::Page { size: VERSIONS, index: 1 }));
    assert_eq!(rest["versions"][0]["version"], "1.0.0");
}

#[test]
fn the_versions_of_a_chart_come_newest_first_and_page_by_page() {
    let shelf = &shelves()[1];
    let chart = shelf.loaded.catalogue.find("web").unwrap();
    let all = shown("", "first", chart, None);
    assert_eq!((&all["latest"], &all["latestStable"]), (&json!("2.0.0-rc.1"), &json!("1.2.0")));
    assert_eq!(all["versions"][0]["version"], "2.0.0-rc.1");
    assert_eq!(all["versions"][0]["stable"], false);
    assert_eq!(all["versions"][1]["digest"], "ab".repeat(32));
    let page = shown("", "first", chart, Some(query::Page { size: 1, index: 1 }));
    assert_eq!(page["versions"].as_array().unwrap().len(), 1);
    assert_eq!(page["versions"][0]["version"], "1.2.0");
    assert_eq!(page["listMeta"]["totalItems"], 2);
    let behind = shown("", "first", chart, Some(query::Page { size: usize::MAX, index: 9 }));
    assert_eq!(behind["versions"], json!([]));
}

#[test]
fn an_update_is_stable_unless_a_prerelease_is_run() {
    let shelf = shelf("a", &["2.0.0-rc.1", "1.2.0", "v1.0.0"].map(|one| entry("web", one)));
    let chart = shelf.loaded.catalogue.find("web").unwrap();
    for (version, newer) in [
        ("1.0.0", Some("1.2.0")),
        ("1.2.0", None),
        ("1.2.0+build.7", None),
        ("1.3.0", None),
        ("2.0.0-alpha", Some("2.0.0-rc.1")),
        ("2.0.0-rc.1", None),
        ("1.0.0-rc.1", Some("1.2.0")),
        ("", None),
        ("nonsense", None),
    ] {
        assert_eq!(update(chart, version), newer, "{version}");
    }
    for (version, listed) in [("1.0.0", true), ("1.1.0", false)] {
        let (namespace, name) = ("atlas".into(), "shop".into());
        let release = Use { namespace, name, version: version.into() }.shown(chart);
        assert_eq!((&release["listed"], &release["update"]), (&json!(listed), &json!("1.2.0")));
    }
}

#[test]
fn a_chart_of_a_registry_may_have_slashes_in_its_name() {
    assert_eq!(chart_name("team%2fa%2Fweb").unwrap(), "team/a/web");
    assert_eq!(chart_name("web").unwrap(), "web");
    for odd in ["", "%2F", "a%2F..", "a%2F%2Fb", "%00"] {
        assert!(chart_name(odd).is_err(), "{odd}");
    }
    let missing = in_catalogue(&shelf("first", &[]).loaded, "first", "web").unwrap_err();
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[test]
fn of_a_repository_that_was_never_read_nobody_says_that_it_has_no_such_chart() {
    let error = Some("nobody answers".to_owned());
    let status = repository::Status { error, ..repository::Status::default() };
    let failed = Loaded { status, ..Loaded::default() };
    for (loaded, reason) in [(Loaded::default(), FIRST), (failed, "nobody answers")] {
        let error = in_catalogue(&loaded, "first", "web").unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_GATEWAY);
        assert!(error.text(Locale::EN).contains(reason));
    }
}

#[tokio::test]
async fn who_wants_a_chart_waits_for_the_first_read_of_its_repository() {
    // kube's own client wants a process-wide provider; a second call is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nowhere = "http://127.0.0.1:1".parse().unwrap();
    let cluster = Cluster::new("test", kube::Config::new(nowhere)).unwrap();
    let list = file::parse("- name: a\n  type: index\n  url: https://a.example\n").unwrap();
    let all = Repositories::new(cluster, "ops".into(), Policy::default(), list).unwrap();
    let (new, asked) = (all.get("a").unwrap(), all.get("a").unwrap());
    let waiting = tokio::spawn(async move { loaded(&asked, "web").await });
    tokio::task::yield_now().await;
    new.loaded.store(shelf("a", &[entry("web", "1.0.0")]).loaded);
    assert!(in_catalogue(&waiting.await.unwrap(), "a", "web").is_ok());
    // What is known by now is not waited for, be it that there is none.
    assert!(in_catalogue(&*loaded(&new, "db").await, "a", "db").is_err());
}
