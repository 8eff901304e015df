//! Programs that tests run and Debian packages: found, or else installed with apt-get, which is
//! said. Never a silent skip: without the program a test fails by the command that installs it.
//!
//! What is installed stays installed; no service of it runs or is enabled.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

/// Asked by Debian's scripts before they start a service (invoke-rc.d, deb-systemd-invoke).
const POLICY: &str = "/usr/sbin/policy-rc.d";
const OURS: &str = "For the time of an installation by tests";
/// Servers are there, which a person's PATH often lacks.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The path of a program, which this package of Debian has.
pub fn installed(program: &str, package: &str) -> PathBuf {
    let by_hand = format!("apt-get install --no-install-recommends {package}");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Before it is looked for: what is just being installed is there, and does not work yet. Held
    // until the end of this function; other processes of tests wait.
    let _lock = is_root.then(|| {
        let lock = File::create(std::env::temp_dir().join("binnacle-apt.lock")).unwrap();
        lock.lock().unwrap();
        lock
    });
    if let Some(path) = find(program) {
        return path;
    }
    assert!(
        is_root && find("apt-get").is_some(),
        "this test needs {program}; on Debian, as root: {by_hand}"
    );
    say(&format!("installing Debian's package {package}, for {program}"));
    let mut output = install(package);
    if !output.status.success() {
        // The lists may be old, or not there.
        let update = apt_get(&["update"]);
        assert!(update.status.success(), "apt-get update: {}", words(&update));
        output = install(package);
    }
    assert!(output.status.success(), "{by_hand}: {}", words(&output));
    find(program).unwrap_or_else(|| panic!("{package} is installed, and has no {program}"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
}

fn install(package: &str) -> Output {
    let _quiet = NoServices::begin();
    let output = apt_get(&["install", "-y", "--no-install-recommends", package]);
    if output.status.success() && Path::new("/run/systemd/system").exists() {
        // Not at the next boot either. Most packages have no service of their name.
        let _ = Command::new("systemctl").args(["--quiet", "disable", package]).output();
    }
    output
}

fn apt_get(args: &[&str]) -> Output {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(args);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command.output().expect("apt-get can be run")
}

fn words(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// While it lives no package starts its service. Containers often have such a policy already; that
/// one stays as it is.
struct NoServices {
    is_ours: bool,
}

impl NoServices {
    fn begin() -> NoServices {
        // If we are killed, it takes itself away when it is asked the next time.
        let script = format!(
            "#!/bin/sh\n# {OURS}; 101: start nothing.\n\
             [ -d /proc/{} ] && exit 101\nrm -f {POLICY}\nexit 104\n",
            std::process::id()
        );
        // Nobody else installs now: one of ours is of a process that was killed.
        if std::fs::read_to_string(POLICY).is_ok_and(|text| text.contains(OURS)) {
            let _ = std::fs::remove_file(POLICY);
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        let is_ours = match file {
            Ok(mut file) => {
                file.write_all(script.as_bytes()).unwrap();
                true
            }
            Err(_) => false,
        };
        NoServices { is_ours }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

/// Writes to the real stderr: the test harness holds back what the print macros write.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("tests: {text}\n").as_bytes());
}
