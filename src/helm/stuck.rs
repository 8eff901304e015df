//! What a release in `pending-*` means: somebody is at work, nobody is any more, or that cannot be
//! told from here. Pure: it looks at the history and at the release's lock, and asks nobody.

use jiff::Timestamp;

use super::lock::Seen;
use super::record::{Record, Status};
use super::words::Verb;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// An operation of ours is at work.
    Running,
    /// An operation of ours was, and its process is gone.
    Interrupted,
    /// None of ours has left it so: perhaps a `helm` command that runs elsewhere.
    Elsewhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub standing: Standing,
    pub since: Option<Timestamp>,
    pub revision: u32,
    pub status: Status,
    /// What to do once it is unlocked: uninstall, rollback or upgrade.
    pub remedy: Verb,
    pub rollback_to: Option<u32>,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Of a history, newest first, and the lock as it was read. `at_work`: this process runs the
/// operation that holds the lock, whatever its last heartbeat says. `None` when nothing is pending.
pub fn stuck(history: &[Record], lock: Option<&Seen>, at_work: bool) -> Option<Stuck> {
    let newest = history.first().filter(|record| record.status.is_pending())?;
    let standing = match lock {
        Some(lock) if at_work || lock.is_live() => Standing::Running,
        Some(lock) if has_left(lock, newest, history.get(1)) => Standing::Interrupted,
        _ => Standing::Elsewhere,
    };
    let good = |record: &&Record| matches!(record.status, Status::Deployed | Status::Superseded);
    let rollback_to = history.iter().find(good).map(|record| record.revision);
    let remedy = match (newest.status, rollback_to) {
        (Status::PendingInstall, _) => Verb::Uninstall,
        (_, Some(_)) => Verb::Rollback,
        (_, None) => Verb::Upgrade,
    };
    Some(Stuck {
        standing,
        // Not by the label of Helm's last write: a new record has that of the one before.
        since: Timestamp::from_second(newest.created).ok(),
        revision: newest.revision,
        status: newest.status,
        remedy,
        rollback_to: rollback_to.filter(|_| remedy == Verb::Rollback),
    })
}

/// Whether the lock's last operation, which is not at work, has left this record as it is; `older`
/// is the one before it.
fn has_left(lock: &Seen, newest: &Record, older: Option<&Record>) -> bool {
    let operation = lock.operation();
    if let (Some(revision), Some(status)) = (operation.revision, &operation.status) {
        return revision == newest.revision && *status == newest.status.as_str();
    }
    // It did not live to tell. Helm makes one revision a time, and another one on the way back from
    // an upgrade, whose own is marked as failed before. One that was made long after the last
    // heartbeat, or where none is noted, is somebody else's.
    let in_time = lock.beat_at.is_some_and(|at| newest.created <= at + lock.silence());
    let next = operation.before.saturating_add(1);
    let failed = |older: &Record| (older.revision, older.status) == (next, Status::Failed);
    let on_its_way_back = operation.act.is(Verb::Upgrade)
        && newest.status == Status::PendingRollback
        && newest.revision == next.saturating_add(1)
        && older.is_some_and(failed);
    (newest.revision == next || on_its_way_back) && in_time
}

#[cfg(test)]
#[path = "stuck_tests.rs"]
mod tests;
