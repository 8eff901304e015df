//! Room for shells, bound and unbound, and for lines about strangers.

use super::*;

fn user(token: &str) -> User {
    User::bearer(token, &HeaderMap::new()).unwrap()
}

#[tokio::test]
async fn without_shells_the_end_is_there_at_once() {
    let shells = Shells::default();
    let place = shells.place(&user("a")).unwrap();
    assert_eq!(shells.count(), 1);
    drop(place);
    shells.end().await;
    assert_eq!(shells.count(), 0);
    assert_ne!(shells.replica, Shells::default().replica);
}

#[test]
fn there_is_room_for_so_many_and_then_a_503() {
    let shells = Shells::default();
    let status = |name: &str| shells.place(&user(name)).err().map(|error| error.status.as_u16());
    let of = |name: &str| -> Vec<Seat> {
        (0..MOST_OF_ONE).map(|_| shells.place(&user(name)).unwrap()).collect()
    };
    let mut first = of("a");
    assert_eq!(status("a"), Some(429), "as many as one caller may have");
    assert_eq!(status("b"), None, "others have room");
    first.pop();
    assert_eq!(status("a"), None, "what is closed is free again");
    first.push(shells.place(&user("a")).unwrap());
    let more: Vec<_> = ["b", "c", "d", "e"].into_iter().map(of).collect();
    assert_eq!(shells.count(), MOST_OPEN);
    assert_eq!(status("f"), Some(503));
    drop((first, more));
    assert_eq!((shells.count(), status("f")), (0, None));
}

#[test]
fn strangers_take_what_is_for_everybody_and_leave_room_for_whom_we_know() {
    let shells = Shells::default();
    let strangers: Vec<_> = (0..MOST_UNBOUND).map(|_| shells.waiting(None).unwrap()).collect();
    assert_eq!(shells.waiting(None).err().unwrap().status, 503);
    let known = |name: &str| shells.waiting(Some(&user(name)));
    let one: Vec<_> = (0..MOST_UNBOUND_OF_ONE).map(|_| known("a").unwrap()).collect();
    assert_eq!(known("a").err().unwrap().status, 429, "as many as one of them may have");
    assert!(known("b").is_ok(), "others have room");
    drop(one);
    assert!(known("a").is_ok(), "what is given back is free again");
    drop(strangers);
    assert!(shells.waiting(None).is_ok());
}

#[test]
fn one_caller_has_a_share_of_the_room_for_long_pastes() {
    let shells = Shells::default();
    let pasting = |name: &str| shells.pasting(&user(name));
    let all: Vec<_> = (0..LONG_BODIES_OF_ONE).map(|_| pasting("a").unwrap()).collect();
    assert_eq!(pasting("a").err().unwrap().status, 429);
    assert!(pasting("b").is_ok());
    drop(all);
    assert!(pasting("a").is_ok());
}

#[test]
fn strangers_have_so_many_lines_a_minute_in_the_audit_log() {
    let shells = Shells::default();
    assert!((0..MOST_LINES).all(|_| shells.may_log()));
    assert!(!shells.may_log());
    let begun = Instant::now().checked_sub(MINUTE).unwrap();
    shells.lines.lock().unwrap().0 = Some(begun);
    assert!(shells.may_log());
}
