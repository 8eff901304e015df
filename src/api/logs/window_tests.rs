//! Logs as far as they need no API server: paths, options, limits, and whose error it is.

use super::*;
use futures::StreamExt as _;

#[test]
fn a_type_is_known_in_any_case_and_an_unknown_one_is_told_the_others() {
    for (name, _) in SOURCES {
        assert_eq!(source(name).unwrap().0.name, name);
        assert_eq!(source(&name.to_uppercase()).unwrap().0.name, name);
    }
    assert_eq!(source("CronJob").unwrap().1, "/spec/jobTemplate/spec/template/spec");
    for name in ["service", "pods", ""] {
        assert_eq!(source(name).err().unwrap().status, StatusCode::NOT_FOUND);
    }
}

#[test]
fn names_of_no_containers_are_null() {
    let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    assert_eq!(names(&pod, "/spec/containers"), json!(["a", "b"]));
    assert_eq!(names(&pod, "/spec/initContainers"), Value::Null);
    assert_eq!((first_container(&pod), first_container(&Value::Null)), ("a".into(), "".into()));
}

#[test]
fn a_window_is_of_a_pod_or_of_one_of_its_containers() {
    let of = |path: &str| {
        let (pod, container) = of_window(path).unwrap();
        let path = pod.path(&known("pod").unwrap().resource);
        (path, container.unwrap_or_default().to_string())
    };
    let expected = |path: &str, container: &str| (path.to_owned(), container.to_owned());
    let pod = "/api/v1/namespaces/atlas/pods/tiles";
    assert_eq!(of("/log/atlas/tiles"), expected(pod, ""));
    assert_eq!(of("/api/v1/log/atlas/tiles/main"), expected(pod, "main"));
    assert_eq!(of("/log/log/log/log"), expected("/api/v1/namespaces/log/pods/log", "log"));
    for path in ["/log/a/%2e%2e", "/log/a/b/%2F", "/log/a/b/.."] {
        assert!(of_window(path).is_err(), "{path}");
    }
}

#[test]
fn what_is_asked_of_the_api_server_is_encoded() {
    let options = window_options("previous=true", Position::Beginning);
    assert_eq!(
        log_path("/pod", "a&b=c", &options),
        "/pod/log?container=a%26b%3Dc&timestamps=true&limitBytes=500000&previous=true"
    );
    let options = window_options("previous=false", Position::Neither);
    let path = log_path("/pod", "a", &options);
    assert_eq!(path, "/pod/log?container=a&timestamps=true&tailLines=5000");
}

#[test]
fn options_of_a_file_are_checked_before_they_are_passed_on() {
    let options = |query: &str| {
        file_options(query).map(|options| log_path("", "c", &options)).map_err(|e| e.status)
    };
    let passed = |text: &str| Ok(format!("/log?container=c{text}"));
    assert_eq!(options("previous=false&timestamps=&other=1"), passed(""));
    assert_eq!(options("timestamps=true&follow=true"), passed("&timestamps=true&follow=true"));
    assert_eq!(options("tailLines=0&sinceSeconds=60"), passed("&tailLines=0&sinceSeconds=60"));
    let time = options("sinceTime=2026-01-02T05:04:05%2B02:00");
    assert_eq!(time, passed("&sinceTime=2026-01-02T03%3A04%3A05Z"));
    for query in [
        "tailLines=-1",
        "tailLines=many",
        "sinceSeconds=0",
        "sinceSeconds=1.5",
        "sinceTime=yesterday",
        "sinceTime=2026-01-02T03:04:05Z&sinceSeconds=1",
    ] {
        assert_eq!(options(query), Err(StatusCode::BAD_REQUEST), "{query}");
    }
}

#[test]
fn of_a_log_too_large_the_newest_whole_lines_stay() {
    let read = |chunks: &[&str], limit| {
        let mut log = Newest::default();
        for chunk in chunks {
            log.push(chunk.as_bytes(), limit);
            assert!(log.bytes.len() <= limit + limit / 4);
        }
        let log = log.end(limit);
        (String::from_utf8(log.bytes).unwrap(), log.is_cut)
    };
    assert_eq!(read(&["a\nb", "b\n"], 5), ("a\nbb\n".into(), false));
    assert_eq!(read(&["a\nb", "b\nc\n"], 5), ("c\n".into(), true));
    assert_eq!(read(&["1\n2\n", "3\n4\n", "5\n6\n", "7\n8\n"], 5), ("7\n8\n".into(), true));
    assert_eq!(read(&["aaaaaaaa"], 5), ("aaaaa".into(), true));
    assert_eq!(read(&[], 5), (String::new(), false));
}

#[tokio::test]
async fn a_long_log_waits_for_a_place_and_has_it_until_its_answer_is_taken() {
    let user = |token: &str| User::bearer(token, &http::HeaderMap::new()).unwrap();
    let none = async |token: &str| place(&user(token), Duration::ZERO).await.is_none();
    let soon = Duration::from_millis(20);
    let mut places = Vec::new();
    for number in 0..8 {
        let token = format!("person-{}", number / LONG_OF_ONE);
        places.push(place(&user(&token), WAIT).await.unwrap());
        let is_full = number % LONG_OF_ONE == LONG_OF_ONE - 1;
        assert_eq!(none(&token).await, is_full, "{number}: one caller has some of them");
    }
    assert!(none("other").await, "all are taken");

    let answer = || Response::new(Body::from(vec![b'x'; 200_001]));
    let whole = events::held(answer(), places.pop().unwrap(), events::WRITE).into_body().collect();
    assert_eq!(whole.await.unwrap().to_bytes(), vec![b'x'; 200_001]);
    places.push(place(&user("other"), WAIT).await.expect("it was taken"));

    let left = events::held(answer(), places.pop().unwrap(), soon);
    let mut left = left.into_body().into_data_stream();
    assert!(left.next().await.unwrap().unwrap().len() < 200_001);
    assert!(place(&user("next"), WAIT).await.is_some(), "nobody takes it");
}

#[test]
fn errors_are_shown_as_the_log_unless_they_are_about_the_caller_or_the_pod() {
    let failure = |code: u16, kind: &str| {
        let body = json!({"message": "no", "details": {"kind": kind}}).to_string();
        Failure::status(StatusCode::from_u16(code).unwrap(), body.as_bytes())
    };
    for (code, kind, shown) in [
        (400, "", true),
        (500, "", true),
        (404, "pods/log", true),
        (404, "pods", false),
        (403, "pods", false),
        (401, "", false),
    ] {
        assert_eq!(is_about_the_log(&failure(code, kind)), shown, "{code} {kind}");
    }
    assert!(!is_about_the_log(&UpstreamError::Timeout.into()));
}

#[test]
fn a_file_name_needs_no_quoting() {
    assert_eq!(disposition("web-1", "main"), "attachment; filename=\"web-1_main.log\"");
    assert_eq!(disposition("a\"\r\n/b", "ü"), "attachment; filename=\"ab_.log\"");
}
