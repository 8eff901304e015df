//! The order of merged lines, and which pods are followed.

use super::*;
use crate::api::logs::follow::{Follows, Limits};
use crate::api::logs::stream::Reader;

fn said(pod: &str, milli: u32) -> Said {
    let text = format!("2026-01-02T03:04:05.{milli:03}Z {pod}{milli}\n");
    let line = Reader::default().next(&mut text.as_bytes()).unwrap();
    Said { names: Arc::new(Names { pod: pod.into(), container: "main".into() }), line }
}

fn due(merge: &mut Merge, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| merge.next(now)).map(|said| said.line.text).collect()
}

#[test]
fn lines_that_come_within_the_window_go_out_by_their_times() {
    let (mut merge, now) = (Merge::default(), Instant::now());
    let after = |millis: u64| now + Duration::from_millis(millis);
    merge.push(now, said("a", 10));
    merge.push(after(100), said("a", 30));
    merge.push(after(200), said("b", 5));
    merge.push(after(300), said("b", 20));
    assert_eq!(merge.due(), Some(now + WINDOW));
    assert_eq!(due(&mut merge, after(499)), Vec::<String>::new());
    assert_eq!(due(&mut merge, after(500)), ["b5", "a10"]);
    assert_eq!(due(&mut merge, after(600)), ["b20", "a30"]);
    assert!(merge.is_empty() && merge.bytes.bytes() == 0);
    // Too late to be in order: it goes out in its turn.
    merge.push(after(700), said("c", 1));
    assert_eq!(due(&mut merge, after(1_200)), ["c1"]);
    assert_eq!(merge.newest, said("a", 30).line.at, "the place stays behind what went out");
}

#[test]
fn a_clock_that_is_ahead_does_not_end_the_order_of_others() {
    let (mut merge, now) = (Merge::default(), Instant::now());
    merge.push(now, said("ahead", 900));
    assert_eq!(due(&mut merge, now + WINDOW), ["ahead900"]);
    let later = now + WINDOW * 2;
    merge.push(later, said("a", 20));
    merge.push(later, said("b", 10));
    assert_eq!(due(&mut merge, later + WINDOW / 2), Vec::<String>::new());
    assert_eq!(due(&mut merge, later + WINDOW), ["b10", "a20"]);
}

#[test]
fn without_room_lines_wait_less() {
    let (mut merge, now) = (Merge::default(), Instant::now());
    for _ in 0..QUEUE.0 + 10 {
        merge.push(now, said("a", 1));
    }
    let out = due(&mut merge, now).len();
    assert!(out >= 10 && merge.arrivals.len() <= QUEUE.0, "{out} lines went out");
}

#[test]
fn who_resumes_is_not_taken_past_the_first_lines_of_a_log_that_has_just_begun() {
    let (mut merge, now) = (Merge::default(), Instant::now());
    merge.begins(now);
    merge.push(now, said("a", 10));
    assert_eq!(due(&mut merge, now + WINDOW), ["a10"]);
    assert_eq!(merge.place(now + WINDOW), None, "others may bring earlier ones");
    let later = now + SETTLING;
    assert_eq!(merge.place(later), said("a", 10).line.at);
    merge.begins(later);
    merge.push(later, said("a", 20));
    assert_eq!(due(&mut merge, later + WINDOW), ["a20"]);
    assert_eq!(merge.place(later + WINDOW), said("a", 10).line.at);
    assert_eq!(merge.place(later + SETTLING), said("a", 20).line.at);
}

#[test]
fn who_comes_back_has_the_place_he_came_with_until_the_logs_have_begun() {
    let from = said("a", 5).line.at;
    let (mut merge, now) = (Merge { newest: from, ..Merge::default() }, Instant::now());
    merge.begins(now);
    merge.push(now, said("a", 10));
    assert_eq!(due(&mut merge, now + WINDOW), ["a10"]);
    assert_eq!(merge.place(now + WINDOW), from);
}

fn user() -> User {
    User::bearer("a", &http::HeaderMap::new()).unwrap()
}

/// The pods to follow from now on, with places for all of them.
fn see(crew: &mut Crew, seen: Seen) -> Vec<Pod> {
    let follows = Follows::default();
    let new = crew.see(seen, |containers| follows.pod(&user(), containers));
    new.into_iter().map(|joined| joined.pod).collect()
}

#[test]
fn pods_without_a_place_are_beyond_and_only_what_came_after_the_reader_is_new() {
    let follows = Follows::new(Limits { sources: (3, 2), ..Limits::default() });
    let mut crew = Crew::default();
    let mut look = |pods: &[(&str, &str)], ended: &[(&str, &str)]| {
        for pod in seen(ended, false).pods {
            crew.ended(&pod, "main", &Reason::Completed.into());
        }
        let new = crew.see(seen(pods, false), |containers| follows.pod(&user(), containers));
        let new = new.into_iter().map(|Joined { pod, is_new, .. }| (pod.name, is_new));
        (new.collect::<Vec<_>>(), crew.beyond.clone())
    };
    let [a, b, c, d] = [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")];
    let told = |name: &str, is_new| (CompactString::from(name), is_new);
    assert_eq!(look(&[a, b, c], &[]), (vec![told("a", false), told("b", false)], vec!["c".into()]));
    assert_eq!(look(&[b, c, d], &[a]), (vec![told("c", false)], vec!["d".into()]));
    assert_eq!(look(&[c, d], &[b]), (vec![told("d", true)], vec![]));
    drop(crew);
    assert!(follows.pod(&user(), 2).is_some(), "given back");
}

fn pod(uid: &str, name: &str) -> Pod {
    Pod { uid: uid.into(), name: name.into(), row: None, is_pending: false }
}

fn seen(pods: &[(&str, &str)], is_over: bool) -> Seen {
    let pods = pods.iter().map(|(uid, name)| pod(uid, name)).collect();
    Seen { pods, usual: vec!["main".into()], is_over }
}

#[test]
fn pods_come_and_go_and_one_that_has_ended_is_not_begun_again() {
    let mut crew = Crew::default();
    let (a, b) = (("1", "web-a"), ("2", "web-b"));
    let usual = vec!["main".into(), "side".into()];
    let new = see(&mut crew, Seen { usual, ..seen(&[a, b], false) });
    assert_eq!(new.len(), 2);
    let expected =
        json!({"following": ["web-a", "web-b"], "beyond": [], "beyondCount": 0, "failed": []});
    assert_eq!(crew.news(), Some(expected));
    assert_eq!(crew.news(), None, "nothing has changed");
    let completed = Reason::Completed.into();
    crew.ended(&new[0], "main", &completed);
    assert!(crew.active.contains_key("1"), "its other container goes on");
    crew.ended(&new[0], "side", &completed);
    assert!(see(&mut crew, seen(&[a, b], false)).is_empty());
    assert_eq!(crew.news().unwrap()["following"], json!(["web-b"]));
    // The same name is another pod.
    let again = see(&mut crew, seen(&[("3", "web-a"), b], false));
    assert_eq!(again, [pod("3", "web-a")]);
    assert!(crew.done.is_empty(), "what is no longer listed is forgotten");
}

#[test]
fn pods_beyond_the_limit_are_named_and_followed_when_there_is_room() {
    let mut crew = Crew::default();
    let pods = (0..PODS + 3).map(|at| pod(&at.to_string(), &format!("web-{at:03}")));
    let pods: Vec<Pod> = pods.collect();
    let look = || Seen { pods: pods.clone(), ..seen(&[], false) };
    assert_eq!(see(&mut crew, look()).len(), PODS);
    let news = crew.news().unwrap();
    assert_eq!(news["beyond"], json!(["web-050", "web-051", "web-052"]));
    assert_eq!(news["beyondCount"], 3);
    let why = End::of(Reason::Failed, &"no such log");
    crew.ended(&pods[0], "main", &why);
    let failed = json!([
        {"pod": "web-000", "container": "main", "reason": "failed", "message": "no such log"}
    ]);
    assert_eq!(crew.news().unwrap()["failed"], failed);
    assert_eq!(see(&mut crew, look()), [pods[PODS].clone()]);
    for (containers, room) in [(4, CONTAINERS / 4), (CONTAINERS - 1, 1), (1_000, 1)] {
        let usual = vec!["main".into(); containers];
        let pods = see(&mut Crew::default(), Seen { usual, ..look() });
        assert_eq!(pods.len(), room, "many containers, fewer pods: {containers}");
    }
}

/// A pod as a list has it, with the containers that its node has told of.
fn listed(uid: &str, phase: &str, init: &[&str], main: &[&str]) -> Pod {
    let state = |name: &&str| json!({"name": name, "state": {"running": {}}});
    let status = |names: &[&str]| names.iter().map(state).collect::<Vec<_>>();
    let object = json!({
        "metadata": {"name": uid, "uid": uid},
        "spec": {
            "nodeName": "node-0",
            "containers": [{"name": "app", "image": "app"}, {"name": "side", "image": "side"}],
        },
        "status": {"phase": phase, "initContainerStatuses": status(init),
            "containerStatuses": status(main)},
    });
    Pod::of(&(known("pod").unwrap().row)(&object.to_string()).unwrap(), true)
}

#[test]
fn a_pod_is_followed_by_its_own_containers_and_a_new_one_once_its_node_knows_it() {
    let mut crew = Crew::default();
    let mut look = |pods: Vec<Pod>| {
        let (follows, usual) = (Follows::default(), vec!["web".into()]);
        let seen = Seen { pods, usual, is_over: false };
        let new = crew.see(seen, |containers| follows.pod(&user(), containers));
        let told = |joined: Joined| (joined.pod.uid, joined.containers.join(" "), joined.is_new);
        new.into_iter().map(told).collect::<Vec<_>>()
    };
    let running = listed("1", "Running", &["wait"], &["app", "side"]);
    let silent = listed("2", "Pending", &[], &[]);
    // Whoever answers for its node tells nothing of containers.
    let vague = listed("3", "Running", &[], &[]);
    let found = look(vec![running.clone(), silent, vague.clone(), pod("4", "of a pod alone")]);
    let told = |uid: &str, containers: &str, is_new: bool| {
        (CompactString::from(uid), containers.to_owned(), is_new)
    };
    let expected = [told("1", "app side", false), told("3", "web", false), told("4", "web", false)];
    assert_eq!(found, expected);
    let creating = listed("2", "Pending", &[], &["app", "side"]);
    assert_eq!(look(vec![running, creating, vague]), [told("2", "app side", true)]);
}

#[test]
fn it_is_over_when_nothing_is_left_and_nothing_will_come() {
    let mut crew = Crew::default();
    assert!(!crew.is_over());
    let new = see(&mut crew, seen(&[("1", "a")], true));
    assert!(!crew.is_over());
    crew.ended(&new[0], "main", &Reason::Gone.into());
    assert!(crew.is_over());
    let job = |kind: &str, status: &str| {
        let condition = json!({"type": "Complete", "status": status});
        is_finished(&json!({"kind": kind, "status": {"conditions": [condition]}}))
    };
    assert!(job("Job", "True") && !job("Job", "False") && !job("Deployment", "True"));
}
