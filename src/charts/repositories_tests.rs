//! Tests of the set of repositories: what ConfigMaps become, what stays as it is, and what is said
//! of the others. The API server is played by a few lines here.

use std::sync::Mutex;

use axum::extract::State as Extracted;
use axum::response::{IntoResponse as _, Response};

use super::*;
use crate::charts::definition::Kind;
use crate::charts::repository::{Loaded, Source, State, Status};

/// The status and the list that the API server answers.
type Answer = Arc<Mutex<(u16, Value)>>;

async fn answer(Extracted(answer): Extracted<Answer>) -> Response {
    let (code, value) = answer.lock().unwrap().clone();
    (StatusCode::from_u16(code).unwrap(), value.to_string()).into_response()
}

async fn with_files(said: &Answer, file: &str) -> Result<Repositories, BadList> {
    with_router(axum::Router::new().fallback(answer).with_state(said.clone()), file).await
}

async fn with_router(router: axum::Router, file: &str) -> Result<Repositories, BadList> {
    let cluster = Cluster::played(router).await;
    let file = crate::charts::file::parse(file).unwrap();
    Repositories::new(cluster, "ops".into(), Policy::default(), file)
}

fn definition(name: &str, url: &str) -> Definition {
    Definition {
        name: name.into(),
        kind: Kind::Index,
        url: url.into(),
        oci: None,
        interval: None,
        has_credentials: false,
    }
}

fn map(definition: &Definition) -> Value {
    let mut map = written(Value::Null, definition, "ops").unwrap();
    map["metadata"]["uid"] = format!("uid of {}", definition.name).into();
    map
}

fn say(answer: &Answer, code: u16, maps: &[Value]) {
    *answer.lock().unwrap() = (code, json!({ "kind": "ConfigMapList", "items": maps }));
}

fn names(repositories: &Repositories) -> Vec<String> {
    repositories.all().iter().map(|one| one.name().to_owned()).collect()
}

const FILE: &str = "- name: corp\n  type: index\n  url: https://corp.example\n";

#[tokio::test]
async fn what_config_maps_say_is_found_beside_what_the_file_says() {
    let said = Answer::default();
    let repositories = with_files(&said, FILE).await.unwrap();
    assert_eq!(names(&repositories), ["corp"]);
    let (a, z) = (definition("a", "https://a.example"), definition("z", "https://z.example"));
    say(&said, 200, &[map(&z), map(&a)]);
    let mut changed = repositories.changed();
    repositories.look().await;
    assert_eq!(names(&repositories), ["a", "corp", "z"]);
    assert!(changed.has_changed().unwrap());
    assert_eq!(repositories.get("z").unwrap().source, Source::ConfigMap);
    assert_eq!(repositories.get("corp").unwrap().source, Source::File);
    assert!(repositories.get("b").is_none() && repositories.problems().is_empty());
    changed.mark_unchanged();
    say(&said, 200, &[map(&a)]);
    repositories.look().await;
    assert_eq!(names(&repositories), ["a", "corp"]);
    assert!(changed.has_changed().unwrap());
}

#[tokio::test]
async fn what_has_not_changed_stays_the_same_and_keeps_its_catalogue() {
    let said = Answer::default();
    let repositories = with_files(&said, "").await.unwrap();
    let mut one = definition("a", "https://a.example");
    say(&said, 200, &[map(&one)]);
    repositories.look().await;
    let before = repositories.get("a").unwrap();
    let status = Status { state: State::Ok, ..Status::default() };
    before.loaded.store(Arc::new(Loaded { status, ..Loaded::default() }));
    let changed = repositories.changed();
    repositories.look().await;
    assert!(Arc::ptr_eq(&before, &repositories.get("a").unwrap()));
    assert!(!changed.has_changed().unwrap());
    one.interval = Some("1h".into());
    say(&said, 200, &[map(&one)]);
    repositories.look().await;
    let next = repositories.get("a").unwrap();
    assert!(!Arc::ptr_eq(&before, &next) && changed.has_changed().unwrap());
    assert_eq!(next.loaded.load().status.state, State::Ok);
    one.url = "https://b.example".into();
    say(&said, 200, &[map(&one)]);
    repositories.look().await;
    let elsewhere = repositories.get("a").unwrap();
    assert_eq!(elsewhere.loaded.load().status.state, State::Never);
}

#[tokio::test]
async fn another_mark_makes_it_another_one_with_what_was_read_of_it_and_the_same_does_not() {
    let said = Answer::default();
    let repositories = with_files(&said, "").await.unwrap();
    let map = map(&definition("a", "https://a.example"));
    say(&said, 200, std::slice::from_ref(&map));
    repositories.look().await;
    let mut changed = repositories.changed();
    for seconds in [1, 2] {
        let before = repositories.get("a").unwrap();
        let at = Timestamp::from_second(seconds).unwrap();
        say(&said, 200, &[marked(map.clone(), at)]);
        repositories.look().await;
        let after = repositories.get("a").unwrap();
        assert!(!Arc::ptr_eq(&before, &after) && Arc::ptr_eq(&before.loaded, &after.loaded));
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        repositories.look().await;
        assert!(Arc::ptr_eq(&after, &repositories.get("a").unwrap()));
        assert!(!changed.has_changed().unwrap());
    }
}

#[tokio::test]
async fn config_maps_are_looked_at_page_by_page() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let pages = asked.clone();
    let router = axum::Router::new().fallback(move |uri: http::Uri| {
        let query = uri.query().unwrap_or_default().to_owned();
        let (name, more) = if query.contains("&continue=") { ("b", "") } else { ("a", "to/b") };
        pages.lock().unwrap().push(query);
        let maps = [map(&definition(name, "https://a.example"))];
        let page = json!({ "metadata": { "continue": more }, "items": maps });
        std::future::ready(page.to_string())
    });
    let repositories = with_router(router, "").await.unwrap();
    assert!(!repositories.seen().1);
    repositories.look().await;
    assert_eq!(names(&repositories), ["a", "b"]);
    assert!(repositories.seen().1 && repositories.problems().is_empty());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].ends_with("&limit=20") && asked[1].ends_with("&limit=20&continue=to%2Fb"));
}

#[tokio::test]
async fn the_file_wins_over_a_config_map_of_the_same_name_and_it_is_said() {
    let said = Answer::default();
    let repositories = with_files(&said, FILE).await.unwrap();
    say(&said, 200, &[map(&definition("corp", "https://evil.example"))]);
    repositories.look().await;
    assert_eq!(repositories.get("corp").unwrap().source, Source::File);
    assert_eq!(repositories.get("corp").unwrap().base.as_str(), "https://corp.example/");
    let problems = repositories.problems();
    assert_eq!(problems[0].config_map.as_deref(), Some("binnacle.repository.corp"));
    assert!(problems[0].reason.contains("file"), "{problems:?}");
}

#[tokio::test]
async fn a_config_map_that_makes_no_sense_is_said_and_the_others_count() {
    let said = Answer::default();
    let repositories = with_files(&said, "").await.unwrap();
    let (mut broken, mut misnamed) =
        (map(&definition("b", "https://b.example")), map(&definition("c", "https://c.example")));
    broken["data"]["definition"] = "{".into();
    misnamed["metadata"]["name"] = "binnacle.repository.other".into();
    let odd = map(&definition("d", "https://me:hunter2@d.example"));
    let empty = json!({ "metadata": { "name": "binnacle.repository.e" } });
    say(&said, 200, &[broken, misnamed, odd, empty, map(&definition("a", "https://a.example"))]);
    repositories.look().await;
    assert_eq!(names(&repositories), ["a"]);
    let problems = repositories.problems();
    assert_eq!(problems.len(), 4);
    assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
}

#[tokio::test]
async fn an_api_server_that_is_away_takes_nothing_away_and_a_lost_right_all_but_the_file() {
    let said = Answer::default();
    let repositories = with_files(&said, FILE).await.unwrap();
    say(&said, 200, &[map(&definition("a", "https://a.example"))]);
    repositories.look().await;
    say(&said, 500, &[]);
    repositories.look().await;
    assert_eq!(names(&repositories), ["a", "corp"]);
    assert!(repositories.problems()[0].config_map.is_none());
    say(&said, 403, &[]);
    repositories.look().await;
    assert_eq!(names(&repositories), ["corp"]);
    let problems = repositories.problems();
    assert!(problems[0].reason.contains("ConfigMaps in the namespace ops"), "{problems:?}");
}

#[tokio::test]
async fn the_file_has_each_name_once_and_definitions_that_make_sense() {
    let twice = format!("{FILE}{FILE}");
    let error = with_files(&Answer::default(), &twice).await.err().unwrap();
    assert!(matches!(error, BadList::Twice(_)), "{error}");
    let odd = FILE.replace("https://", "ftp://");
    let error = with_files(&Answer::default(), &odd).await.err().unwrap();
    assert!(matches!(error, BadList::Definition(..)), "{error}");
}

#[test]
fn a_config_map_keeps_what_others_wrote_there() {
    let one = definition("a", "https://a.example");
    let theirs = json!({
        "metadata": { "name": "binnacle.repository.a", "resourceVersion": "7",
            "labels": { "team": "ops" } },
        "data": { "note": "ours", "definition": "{" },
    });
    let map = written(theirs, &one, "ops").unwrap();
    assert_eq!(map["metadata"]["labels"], json!({ "team": "ops", LABEL: LABELLED }));
    assert_eq!(map["data"]["note"], "ours");
    assert_eq!(map["metadata"]["resourceVersion"], "7");
    assert_eq!(read(&map), Some(one));
    let mut noted = map.clone();
    noted["metadata"]["annotations"]["team"] = "ops".into();
    assert_eq!([mark(&map), mark(&noted)], ["", ""]);
    let again = marked(marked(noted, Timestamp::now()), Timestamp::UNIX_EPOCH);
    assert_eq!(mark(&again), "1970-01-01T00:00:00Z");
    assert_eq!(again["metadata"]["annotations"], json!({ "team": "ops", MARK: mark(&again) }));
    assert_eq!(again["metadata"]["labels"], map["metadata"]["labels"]);
    assert_eq!(again["data"], map["data"]);
    let long = json!({ "metadata": { "annotations": { MARK: "x".repeat(900) } } });
    assert_eq!(mark(&long).len(), MARK_LENGTH);
}
