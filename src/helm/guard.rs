//! The process between us and `helm`: limits what the child may take, and ends it when we let go
//! of the leash, which is this process's stdin. A `kill -9` of ours lets go, too.
//!
//! No async, no log, no configuration: it starts fast and waits. It knows nothing of releases.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, setrlimit,
    umask, waitid,
};

/// The hidden first argument that makes our own executable the guard.
pub const SUBCOMMAND: &str = "helm-guard";
/// How long SIGTERM has before SIGKILL follows, in milliseconds.
pub const GRACE: &str = "--grace";

/// Where our own mistakes end: `EX_USAGE`, and what a shell says of a command that cannot start.
const USAGE: u8 = 64;
const NOT_STARTED: u8 = 127;

/// What guard and child may take, each for itself.
const LIMITS: [(Resource, u64); 5] = [
    // A core would hold the door's token and values.
    (Resource::Core, 0),
    // Go reserves far more than it uses; helm 3 and 4 run in a quarter of it.
    (Resource::As, 4 << 30),
    // What is written to: a chart of 100 MiB, unpacked and rendered, several times over. A block that
    // is taken at once from what Go has reserved the kernel counts too late (mm/vma.c): those end at
    // the limit before.
    (Resource::Data, 1 << 30),
    // One file: more than the largest chart unpacked.
    (Resource::Fsize, 256 << 20),
    (Resource::Nofile, 1024),
];

/// Raised, so that a machine without memory loses a child and not the server (proc(5)).
const OOM_SCORE: &str = "500";

/// `helm-guard --grace MILLISECONDS -- PROGRAM ARGS…`, without the first word. The exit code is the
/// child's; 128 and the signal's number where one ended it.
pub fn main(args: &[OsString]) -> ExitCode {
    let Some((grace, program, rest)) = parse(args) else {
        say(&format!("wanted: {GRACE} MILLISECONDS -- PROGRAM ARGS…"));
        return ExitCode::from(USAGE);
    };
    match run(grace, program, rest) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("{} cannot be run: {error}", program.display()));
            ExitCode::from(NOT_STARTED)
        }
    }
}

/// Where helm itself speaks: the engine reads it.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{SUBCOMMAND}: {words}");
}

fn parse(args: &[OsString]) -> Option<(Duration, &OsStr, &[OsString])> {
    let [flag, grace, dashes, program, rest @ ..] = args else { return None };
    if flag != GRACE || dashes != "--" {
        return None;
    }
    let grace = grace.to_str()?.parse().ok()?;
    Some((Duration::from_millis(grace), program.as_os_str(), rest))
}

fn run(grace: Duration, program: &OsStr, args: &[OsString]) -> io::Result<u8> {
    confine()?;
    // A group of its own: a signal reaches what the child itself has started, and not us.
    let mut command = Command::new(program);
    let mut child = command.args(args).stdin(Stdio::null()).process_group(0).spawn()?;
    let group = Pid::from_child(&child);
    let ended = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&ended);
    let leash = thread::Builder::new().spawn(move || {
        until_let_go();
        signal(group, Signal::TERM, &seen);
        thread::sleep(grace);
        signal(group, Signal::KILL, &seen);
    });
    if let Err(error) = leash {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    wait(&mut child, group, &ended)
}

/// Waits for the child's end, and then ends what it has left behind.
fn wait(child: &mut Child, group: Pid, ended: &Mutex<bool>) -> io::Result<u8> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    // An error would mean that there is no child any more: then there is nothing to wait for.
    let _ = retry_on_intr(|| waitid(WaitId::Pid(group), options));
    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    // Not reaped yet, so that its number is still nobody else's.
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait()?;
    *ended = true;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The child inherits all of it.
fn confine() -> io::Result<()> {
    for (resource, limit) in LIMITS {
        // A lower one that we were given stays: only root may raise it.
        let limit = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    umask(Mode::RWXG | Mode::RWXO);
    // Where there is no such file nothing is lost.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    Ok(())
}

/// Returns when the other end of stdin is closed: by the one who holds it, or by his end.
fn until_let_go() {
    let mut bytes = [0; 64];
    loop {
        match io::stdin().read(&mut bytes) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
}

fn signal(group: Pid, signal: Signal, ended: &Mutex<bool>) {
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ended {
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_childs_own_words_come_after_two_dashes_and_are_left_alone() {
        let given = args(&["--grace", "250", "--", "/bin/helm", "list", "--grace", "--"]);
        let (grace, program, rest) = parse(&given).unwrap();
        assert_eq!((grace, program.to_str()), (Duration::from_millis(250), Some("/bin/helm")));
        assert_eq!(rest, args(&["list", "--grace", "--"]));
    }

    #[test]
    fn what_is_no_guards_command_line_is_refused() {
        for line in [
            "",
            "--grace 1 --",
            "--grace soon -- /bin/helm",
            "-- /bin/helm list x",
            "--grace 1 /bin/helm list",
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(parse(&args(&words)).is_none(), "{line}");
        }
    }
}
