//! Room for shells, bound and unbound, and for lines about strangers.

use super::*;

#[tokio::test]
async fn without_shells_the_end_is_there_at_once() {
    let shells = Shells::default();
    let place = shells.place().unwrap();
    assert_eq!(shells.count(), 1);
    drop(place);
    shells.end().await;
    assert_eq!(shells.count(), 0);
    assert_ne!(shells.replica, Shells::default().replica);
}

#[test]
fn there_is_room_for_so_many_and_then_a_503() {
    let shells = Shells::default();
    let places: Vec<_> = (0..MOST_OPEN).map(|_| shells.place().unwrap()).collect();
    assert_eq!(shells.place().err().unwrap().status, 503);
    drop(places);
    assert!(shells.place().is_ok());
}

#[test]
fn strangers_take_what_is_for_everybody_and_leave_room_for_whom_we_know() {
    let shells = Shells::default();
    let strangers: Vec<_> = (0..MOST_UNBOUND).map(|_| shells.waiting(false).unwrap()).collect();
    assert_eq!(shells.waiting(false).err().unwrap().status, 503);
    assert!(shells.waiting(true).is_ok());
    drop(strangers);
    assert!(shells.waiting(false).is_ok());
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
