//! Files under names that are digests, within a budget: what was used longest ago goes first.
//!
//! It is a cache and nothing else: whatever is missing is fetched again, so nothing is waited for
//! until it is on the platter, and who reads checks what is read. Everything here blocks.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

use super::{PACKED, hex};

/// What a process that was killed has left half written; one that lives writes for seconds.
const LEFT: Duration = Duration::from_secs(60 * 60);

pub(super) struct Disk {
    folder: PathBuf,
    /// Bytes of all files.
    budget: u64,
    /// Looked for at first use.
    known: OnceLock<Mutex<Known>>,
    writes: AtomicU64,
}

#[derive(Default)]
struct Known {
    files: HashMap<String, Used>,
    bytes: u64,
    /// One more at each use.
    clock: u64,
}

struct Used {
    bytes: u64,
    at: u64,
}

/// The name of what all of this is about.
pub(super) fn name(parts: &[&str]) -> String {
    hex(digest(&SHA256, parts.join("\n").as_bytes()).as_ref())
}

impl Disk {
    pub(super) fn new(folder: PathBuf, budget: u64) -> Self {
        Self { folder, budget, known: OnceLock::new(), writes: AtomicU64::new(0) }
    }

    /// What was kept under this name, if that is not longer ago than `most`.
    pub(super) fn get(&self, name: &str, most: Option<Duration>) -> Option<Vec<u8>> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            let file = File::open(self.folder.join(name))?;
            let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
            if most.is_some_and(|most| age > most) {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            file.take(PACKED as u64).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        let found = read();
        let mut known = self.known();
        match &found {
            Ok(Some(bytes)) => known.used(name, bytes.len() as u64),
            Ok(None) => {}
            Err(_) => known.gone(name),
        }
        found.ok().flatten()
    }

    /// Whether there is a file that `get` would read just now; what is in it is not looked at.
    pub(super) fn has(&self, name: &str, most: Option<Duration>) -> bool {
        let Ok(about) = fs::metadata(self.folder.join(name)) else { return false };
        let age = about.modified().map(|at| at.elapsed().unwrap_or_default());
        about.is_file() && age.is_ok_and(|age| most.is_none_or(|most| age <= most))
    }

    /// Bytes of all that is kept, once somebody has looked for it.
    pub(super) fn bytes(&self) -> u64 {
        let known = self.known.get();
        known.map_or(0, |known| known.lock().unwrap_or_else(PoisonError::into_inner).bytes)
    }

    /// Lets go of what turned out to be of no use.
    pub(super) fn remove(&self, name: &str) {
        self.known().gone(name);
        let _ = fs::remove_file(self.folder.join(name));
    }

    /// Keeps this, and nothing of what that leaves no place for. Without a disk nothing is kept.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let mut written = self.write(name, bytes);
        if written.as_ref().is_err_and(is_full) {
            // The volume is smaller than the budget; what else is on it needs a place, too.
            self.halve();
            written = self.write(name, bytes);
        }
        if let Err(error) = written {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "what was fetched cannot be kept on disk");
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        if size > self.budget {
            return Ok(());
        }
        let mut folder = DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.folder)?;
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let half = self.folder.join(format!(".{}.{number}", std::process::id()));
        let written = fs::write(&half, bytes);
        let written = written.and_then(|()| fs::rename(&half, self.folder.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&half);
            return written;
        }
        let mut known = self.known();
        known.used(name, size);
        self.shrink(&mut known, self.budget);
        Ok(())
    }

    fn halve(&self) {
        let mut known = self.known();
        let half = known.bytes / 2;
        self.shrink(&mut known, half);
    }

    /// Leaves so many bytes at most.
    fn shrink(&self, known: &mut Known, most: u64) {
        while known.bytes > most {
            let Some(oldest) = known.oldest() else { break };
            known.gone(&oldest);
            let _ = fs::remove_file(self.folder.join(oldest));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let known = self.known.get_or_init(|| Mutex::new(self.found()));
        known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What earlier processes have kept.
    fn found(&self) -> Known {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            let at = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match entry.file_name().into_string() {
                Ok(name) if is_name(&name) => found.push((at, name, about.len())),
                Ok(name) if name.starts_with('.') && at.elapsed().is_ok_and(|age| age > LEFT) => {
                    let _ = fs::remove_file(entry.path());
                }
                _ => {}
            }
        }
        found.sort_unstable();
        let mut known = Known::default();
        for (_, name, bytes) in found {
            known.used(&name, bytes);
        }
        known
    }
}

impl Known {
    fn used(&mut self, name: &str, bytes: u64) {
        self.gone(name);
        self.clock += 1;
        self.bytes += bytes;
        self.files.insert(name.to_owned(), Used { bytes, at: self.clock });
    }

    fn gone(&mut self, name: &str) {
        if let Some(used) = self.files.remove(name) {
            self.bytes -= used.bytes;
        }
    }

    fn oldest(&self) -> Option<String> {
        let oldest = self.files.iter().min_by_key(|(_, used)| used.at);
        oldest.map(|(name, _)| name.clone())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_name(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().join("a/b"), 10);
        let [one, two, three] = ["1", "2", "3"].map(|text| name(&[text]));
        disk.put(&one, b"1111");
        disk.put(&two, b"2222");
        assert_eq!(disk.get(&one, None).as_deref(), Some(&b"1111"[..]));
        disk.put(&three, b"3333");
        assert_eq!(disk.get(&two, None), None);
        assert_eq!(disk.get(&one, None).as_deref(), Some(&b"1111"[..]));
        disk.put(&two, b"longer than all");
        assert_eq!(disk.get(&two, None), None);
        assert_eq!(disk.get(&three, None).as_deref(), Some(&b"3333"[..]));
        assert_eq!(disk.known().bytes, 8);
    }

    #[test]
    fn what_an_earlier_process_kept_counts_and_what_it_began_to_write_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["1", "2"].map(|text| name(&[text]));
        Disk::new(folder.path().into(), 10).put(&one, b"1111");
        fs::write(folder.path().join(".1.0"), b"half").unwrap();
        let disk = Disk::new(folder.path().into(), 6);
        assert_eq!(disk.known().bytes, 4);
        assert_eq!(disk.get(&one, None).as_deref(), Some(&b"1111"[..]));
        disk.put(&two, b"2222");
        assert_eq!(disk.get(&one, None), None);
        assert!(!folder.path().join(&one).exists());
    }

    #[test]
    fn what_is_too_old_or_was_taken_away_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().into(), 10);
        let one = name(&["1"]);
        disk.put(&one, b"1111");
        assert!(disk.has(&one, None) && !disk.has(&name(&["2"]), None));
        let file = File::options().append(true).open(folder.path().join(&one)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
        assert_eq!(disk.get(&one, Some(Duration::from_secs(50))), None);
        assert!(disk.get(&one, Some(Duration::from_secs(1000))).is_some());
        assert!(!disk.has(&one, Some(Duration::from_secs(50))) && disk.has(&one, None));
        fs::remove_file(folder.path().join(&one)).unwrap();
        assert_eq!(disk.get(&one, None), None);
        assert_eq!(disk.bytes(), 0);
        disk.put(&one, b"1111");
        assert_eq!(disk.bytes(), 4);
        disk.remove(&one);
        assert_eq!((disk.bytes(), disk.has(&one, None)), (0, false));
        fs::create_dir(folder.path().join(&one)).unwrap();
        assert!(!disk.has(&one, None) && disk.get(&one, None).is_none());
    }

    #[test]
    fn a_volume_that_is_full_has_what_was_used_longest_ago_go_until_half_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().into(), 100);
        let names = ["1", "2", "3", "4"].map(|text| name(&[text]));
        for name in &names {
            disk.put(name, b"1111");
        }
        disk.halve();
        let left = names.each_ref().map(|name| folder.path().join(name).exists());
        assert_eq!((left, disk.bytes()), ([false, false, true, true], 8));
        assert!(is_full(&rustix::io::Errno::NOSPC.into()));
        assert!(is_full(&rustix::io::Errno::DQUOT.into()));
        assert!(!is_full(&io::ErrorKind::PermissionDenied.into()));
    }

    #[test]
    fn without_a_disk_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let disk = Disk::new(file.join("below"), 10);
        disk.put(&name(&["1"]), b"1111");
        assert_eq!(disk.get(&name(&["1"]), None), None);
    }
}
