//! What a pending release means, by its history and its lock.

use super::*;
use crate::helm::operation::{Operation, State};

fn record(revision: u32, status: Status) -> Record {
    Record {
        namespace: "shop".into(),
        name: "web".into(),
        revision,
        status,
        labels: Default::default(),
        secret: format!("sh.helm.release.v1.web.v{revision}"),
        uid: "u".into(),
        resource_version: "1".into(),
        created: 1_000,
    }
}

fn lock(state: State, before: u32, age: i64) -> Seen {
    let operation = Operation { state, before, ..Operation::default() };
    Seen::for_tests(operation, age, 1_000)
}

#[test]
fn what_is_not_pending_is_not_stuck() {
    let history = [record(2, Status::Failed), record(1, Status::Deployed)];
    assert_eq!(stuck(&history, Some(&lock(State::Running, 1, 0)), true), None);
    assert_eq!(stuck(&[], None, false), None);
}

#[test]
fn the_lock_tells_whether_somebody_is_at_work() {
    let history = [record(2, Status::PendingUpgrade), record(1, Status::Deployed)];
    let standing = |lock: Option<&Seen>, at_work| stuck(&history, lock, at_work).unwrap().standing;
    assert_eq!(standing(Some(&lock(State::Running, 1, 3)), false), Standing::Running);
    assert_eq!(standing(Some(&lock(State::Running, 1, 40)), false), Standing::Interrupted);
    assert_eq!(standing(Some(&lock(State::Running, 1, 40)), true), Standing::Running);
    assert_eq!(standing(None, false), Standing::Elsewhere);
    // It was to make another revision.
    assert_eq!(standing(Some(&lock(State::Running, 2, 40)), false), Standing::Elsewhere);
    let mut later = history.clone();
    later[0].created = 1_000 + 31;
    let found = stuck(&later, Some(&lock(State::Running, 1, 400)), false).unwrap();
    assert_eq!(found.standing, Standing::Elsewhere);
    let mut unnoted = lock(State::Running, 1, 40);
    unnoted.beat_at = None;
    assert_eq!(standing(Some(&unnoted), false), Standing::Elsewhere);
}

#[test]
fn a_lock_that_tells_nonsense_is_nobodys() {
    let history = [record(2, Status::PendingUpgrade), record(1, Status::Deployed)];
    let found = stuck(&history, Some(&lock(State::Running, u32::MAX, 40)), false).unwrap();
    assert_eq!(found.standing, Standing::Elsewhere);
}

#[test]
fn an_upgrade_that_died_on_its_way_back_is_told_from_a_rollback_elsewhere() {
    let back = record(3, Status::PendingRollback);
    let mut history = [back, record(2, Status::Failed), record(1, Status::Deployed)];
    let lock = |act: Verb| {
        let operation = Operation { act: act.into(), before: 1, ..Operation::default() };
        Seen::for_tests(operation, 40, 1_000)
    };
    let standing =
        |history: &[Record], act: Verb| stuck(history, Some(&lock(act)), false).unwrap().standing;
    assert_eq!(standing(&history, Verb::Upgrade), Standing::Interrupted);
    assert_eq!(standing(&history, Verb::Rollback), Standing::Elsewhere);
    history[0].created = 1_000 + 31;
    assert_eq!(standing(&history, Verb::Upgrade), Standing::Elsewhere);
    history[0] = record(3, Status::PendingUpgrade);
    assert_eq!(standing(&history, Verb::Upgrade), Standing::Elsewhere);
    // Helm itself goes back from what has failed alone; a person from anything.
    history[0] = record(3, Status::PendingRollback);
    history[1] = record(2, Status::PendingUpgrade);
    assert_eq!(standing(&history, Verb::Upgrade), Standing::Elsewhere);
}

#[test]
fn an_operation_that_ended_and_left_it_pending_is_told_from_one_that_did_not() {
    let history = [record(2, Status::PendingUpgrade), record(1, Status::Deployed)];
    let ended = |revision: u32, status: &str| {
        let (revision, status) = (Some(revision), Some(status.to_owned()));
        let state = State::Cancelled;
        let operation = Operation { state, before: 1, revision, status, ..Operation::default() };
        Seen::for_tests(operation, 400, 1_000)
    };
    let standing = |lock: &Seen| stuck(&history, Some(lock), false).unwrap().standing;
    assert_eq!(standing(&ended(2, "pending-upgrade")), Standing::Interrupted);
    assert_eq!(standing(&ended(1, "deployed")), Standing::Elsewhere);
}

#[test]
fn the_remedy_follows_from_what_is_pending_and_what_is_good() {
    let remedy = |history: &[Record]| {
        let stuck = stuck(history, None, false).unwrap();
        (stuck.remedy, stuck.rollback_to)
    };
    assert_eq!(remedy(&[record(1, Status::PendingInstall)]), (Verb::Uninstall, None));
    let upgrade = record(4, Status::PendingUpgrade);
    let history = [upgrade.clone(), record(3, Status::Failed), record(2, Status::Superseded)];
    assert_eq!(remedy(&history), (Verb::Rollback, Some(2)));
    assert_eq!(remedy(&[upgrade, record(3, Status::Failed)]), (Verb::Upgrade, None));
}
