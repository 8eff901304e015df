//! Ids, logs, seats, and what the end of a process does to operations.

use http::HeaderMap;

use super::*;

fn user(token: &str) -> User {
    User::bearer(token, &HeaderMap::new()).unwrap()
}

fn begun(operations: &Operations, id: &str) -> Begun {
    begun_by(operations, id, user("jane-1"))
}

fn begun_by(operations: &Operations, id: &str, user: User) -> Begun {
    let operation = Operation {
        id: id.into(),
        namespace: "shop".into(),
        holder: Holder { user: "jane".into(), instance: operations.instance().into() },
        ..Operation::default()
    };
    let seat = operations.seat("jane").unwrap();
    operations.begin(seat, operation, Some(format!("key of {id}")), user)
}

#[test]
fn an_id_tells_its_release_and_its_act() {
    for verb in Verb::ALL {
        let id = new_id("web.v1", verb);
        assert_eq!(read_id(&id), Some(("web.v1", verb)), "{id}");
    }
    assert_ne!(new_id("web", Verb::Install), new_id("web", Verb::Install));
    for odd in ["", "web", "web.", ".iaaaaaaa", "web.iaaaaaa", "web.iaaaaaaaa", "web.i000aaaa"] {
        assert_eq!(read_id(odd), None, "{odd}");
    }
}

#[test]
fn a_record_is_written_with_the_words_that_all_versions_read() {
    let step = |name: &str, state| Step { name: name.into(), state, at: None };
    let [done, newer] = [Progress::Done.into(), Word::Other("paused".to_owned())];
    let steps = vec![step("lock", done), step("wait", newer)];
    let operation = Operation { act: Verb::Rollback.into(), steps, ..Operation::default() };
    let written = serde_json::to_value(&operation).unwrap();
    assert_eq!(written["act"], "rollback");
    let states = serde_json::json!([
        {"name": "lock", "state": "done", "at": null},
        {"name": "wait", "state": "paused", "at": null},
    ]);
    assert_eq!(written["steps"], states);
    assert_eq!(serde_json::from_value::<Operation>(written).unwrap(), operation);
}

#[test]
fn a_request_is_known_by_all_its_parts_and_their_borders() {
    let key = |parts: &[&str]| key_of(&parts.iter().map(|p| p.as_bytes()).collect::<Vec<_>>());
    assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    assert_ne!(key(&["ab", ""]), key(&["a", "b"]));
}

#[test]
fn of_a_long_log_the_end_is_kept_and_what_is_gone_is_counted() {
    let operations = Operations::new("here");
    let begun = begun(&operations, "web.iaaaaaaa");
    for at in 0..LOG.0 + 50 {
        begun.live.line(&format!("line {at}"));
    }
    let operation = begun.live.operation();
    assert_eq!((operation.log.len(), operation.log_dropped), (LOG.0, 50));
    assert_eq!(operation.log[0], "line 50");
    let (first, lines) = begun.live.lines(10);
    assert_eq!((first, lines.len()), (50, LOG.0));
    let (first, lines) = begun.live.lines(LOG.0 as u64 + 49);
    assert_eq!((first, lines), (LOG.0 as u64 + 49, vec![format!("line {}", LOG.0 + 49)]));
    assert!(begun.live.lines(u64::MAX).1.is_empty());
    let long = "x".repeat(LOG.1 / 4);
    for _ in 0..5 {
        begun.live.line(&long);
    }
    let bytes: usize = begun.live.operation().log.iter().map(String::len).sum();
    assert!(bytes <= LOG.1, "{bytes}");
    let record = begun.live.record();
    let bytes: usize = record.log.iter().map(String::len).sum();
    assert!(bytes <= TAIL, "{bytes}");
    let all = begun.live.operation();
    assert_eq!(
        record.log_dropped + record.log.len() as u64,
        all.log_dropped + all.log.len() as u64
    );
}

#[test]
fn what_is_dropped_before_its_end_was_interrupted_and_a_second_end_is_not_heard() {
    let operations = Operations::new("here");
    let dropped = begun(&operations, "web.iaaaaaaa");
    dropped.live.step("helm");
    assert_eq!(dropped.live.state(), State::Running);
    drop(dropped);
    let live = operations.find("shop", "web.iaaaaaaa").unwrap();
    let operation = live.operation();
    assert_eq!(operation.state, State::Interrupted);
    assert!(operation.steps[0].state.is(Progress::Failed));
    assert!(operation.finished_at.is_some());
    live.finish(|operation| operation.state = State::Succeeded);
    assert_eq!(live.state(), State::Interrupted);
    assert_eq!(operations.running(), 0);
}

#[test]
fn there_are_so_many_seats_and_a_request_is_found_by_its_key() {
    let operations = Operations::new("here");
    let first = begun(&operations, "web.iaaaaaaa");
    let others = (1..RUNNING).map(|at| operations.seat(&format!("joe-{}", at % 4)).unwrap());
    let seats: Vec<Seat> = others.collect();
    assert_eq!(operations.seat("ann").err(), Some(NoSeat::Full));
    drop(seats);
    assert!(operations.seat("ann").is_ok());
    let found = operations.by_key("shop", "key of web.iaaaaaaa").unwrap();
    assert!(Arc::ptr_eq(&found, &first.live));
    assert!(operations.by_key("other", "key of web.iaaaaaaa").is_none());
}

#[test]
fn one_caller_has_not_all_the_seats() {
    let operations = Operations::new("here");
    let seats: Vec<Seat> = (0..OF_ONE).map(|_| operations.seat("jane").unwrap()).collect();
    assert_eq!(operations.seat("jane").err(), Some(NoSeat::Full));
    assert!(operations.seat("joe").is_ok());
    assert_eq!(operations.running(), OF_ONE);
    drop(seats);
    assert!(operations.seat("jane").is_ok());
    assert_eq!(operations.running(), 0);
}

#[test]
fn of_what_is_over_the_latest_is_remembered() {
    let operations = Operations::new("here");
    for at in 0..FINISHED.0 + 10 {
        drop(begun(&operations, &format!("web-{at}.iaaaaaaa")));
    }
    let running = begun(&operations, "web.iaaaaaaa");
    assert!(operations.find("shop", "web-0.iaaaaaaa").is_none());
    let last = format!("web-{}.iaaaaaaa", FINISHED.0 + 9);
    assert!(operations.find("shop", &last).is_some());
    assert!(operations.find("shop", &running.live.operation().id).is_some());
}

#[tokio::test]
async fn an_end_takes_nothing_new_and_cancels_what_outlasts_the_grace() {
    let operations = Operations::new("here");
    let running = begun(&operations, "web.iaaaaaaa");
    let work = async {
        running.live.cancelled().cancelled().await;
        assert_eq!(running.live.state(), State::Cancelling);
        assert_eq!(operations.seat("joe").err(), Some(NoSeat::Ending));
        running.live.finish(|operation| operation.state = State::Cancelled);
        drop(running);
    };
    tokio::join!(operations.end(Duration::from_millis(1)), work);
    assert_eq!(operations.running(), 0);
}

#[test]
fn what_is_at_work_on_a_release_is_found_until_it_is_over() {
    let operations = Operations::new("here");
    let running = begun(&operations, "web.v1.iaaaaaaa");
    let found = operations.at("shop", "web.v1").unwrap();
    assert!(Arc::ptr_eq(&found, &running.live));
    assert!(operations.at("shop", "web").is_none() && operations.at("other", "web.v1").is_none());
    drop(running);
    assert!(operations.at("shop", "web.v1").is_none());
}

#[test]
fn credentials_that_end_earlier_or_impersonate_otherwise_are_not_gone_on_with() {
    let operations = Operations::new("here");
    let running = begun(&operations, "web.iaaaaaaa");
    let live = &running.live;
    let until = |end: i64| {
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{end}}}"));
        user(&format!("e30.{claims}.x"))
    };
    live.renew(&until(1), "jane");
    assert!(live.is_owner(&user("jane-1")), "it is not known to end");
    let mut groups = HeaderMap::new();
    groups.insert("impersonate-group", http::HeaderValue::from_static("admins"));
    live.renew(&User::bearer("jane-2", &groups).unwrap(), "jane");
    assert!(live.is_owner(&user("jane-1")), "another group is another caller");
    live.renew(&user("jane-2"), "jane");
    assert!(live.is_owner(&user("jane-2")));
    let timed = begun_by(&operations, "api.iaaaaaaa", until(5));
    for (end, kept) in [(4, 5), (5, 5), (6, 6), (2, 6)] {
        timed.live.renew(&until(end), "jane");
        assert!(timed.live.is_owner(&until(kept)), "{end}");
    }
    timed.live.renew(&user("jane-3"), "jane");
    assert!(timed.live.is_owner(&user("jane-3")));
}

#[test]
fn newer_credentials_of_the_same_person_are_gone_on_with_and_strangers_are_asked_about_once() {
    let operations = Operations::new("here");
    let running = begun(&operations, "web.iaaaaaaa");
    let (live, owner) = (&running.live, running.live.owner());
    let (newer, stranger) = (user("jane-2"), user("joe"));
    assert!(live.is_unknown(&stranger));
    live.renew(&stranger, "joe");
    assert!(!live.is_unknown(&stranger) && live.is_owner(&user("jane-1")));
    live.renew(&newer, "jane");
    assert!(live.is_owner(&newer));
    assert!(!live.is_unknown(&user("jane-1")), "an older window of hers is nothing newer");
    assert_eq!(owner.borrow().fingerprint(), newer.fingerprint());
    live.renew(&user("nobody"), "");
    assert!(live.is_owner(&newer));
}

#[test]
fn credentials_whose_name_is_not_told_are_asked_about_again_and_are_gone_on_with_then() {
    let operations = Operations::new("here");
    let running = begun(&operations, "web.iaaaaaaa");
    let (live, newer) = (&running.live, user("jane-2"));
    live.renew(&newer, "");
    assert!(live.is_unknown(&newer) && live.is_owner(&user("jane-1")));
    live.renew(&newer, "jane");
    assert!(live.is_owner(&newer));
    // Where the API server tells nobody's name, nobody is asked about each time.
    let nameless = Operation { id: "api.iaaaaaaa".into(), ..Operation::default() };
    let seat = operations.seat("").unwrap();
    let nameless = operations.begin(seat, nameless, None, user("jane-1"));
    assert!(!nameless.live.is_unknown(&newer));
}

#[test]
fn so_many_credentials_are_remembered_and_the_oldest_are_asked_about_again() {
    let operations = Operations::new("here");
    let running = begun(&operations, "web.iaaaaaaa");
    let stranger = |at: usize| user(&format!("joe-{at}"));
    (0..=ASKED).for_each(|at| running.live.renew(&stranger(at), "joe"));
    assert!(running.live.is_unknown(&stranger(0)));
    assert!((1..=ASKED).all(|at| !running.live.is_unknown(&stranger(at))));
}
