//! Catalogues on disk, so that a restart answers at once: a file for each repository, written as a
//! whole or not at all, with a checksum at its end.
//!
//! A cache and no store: what is broken, cut off or of another format is removed and fetched anew.
//! All of it blocks: not for a thread that others wait for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::hex;

/// Counted up when fields change their meaning.
const FORMAT: u32 = 2;
/// Of files that are whole, and of those being written.
const ENDING: &str = "snapshot";
const UNFINISHED: &str = "unfinished";
/// The largest file. A catalogue has 48 MiB of text at most; the names of fields are the rest.
const LARGEST: u64 = 256 << 20;
/// The checksum is SHA-256, in hexadecimal.
const CHECKSUM: usize = 64;

/// What tells whether a repository has changed since its catalogue was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Etags {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Of the whole document, in hexadecimal.
    pub digest: Option<String>,
    /// When it was read or confirmed last, in seconds since 1970.
    pub success: Option<i64>,
    /// Entries that were left out.
    pub skipped: usize,
}

#[derive(Serialize)]
struct Saved<'a> {
    format: u32,
    etags: &'a Etags,
    catalogue: &'a Catalogue,
}

#[derive(Deserialize)]
struct Loaded {
    format: u32,
    etags: Etags,
    catalogue: Catalogue,
}

/// Puts a catalogue in the place of what was kept under its key, which is hexadecimal. A process
/// that is killed meanwhile leaves what was there before.
pub fn save(dir: &Path, key: &str, catalogue: &Catalogue, etags: &Etags) -> io::Result<()> {
    let path = path(dir, key, ENDING).ok_or(ErrorKind::InvalidInput)?;
    let unfinished = path.with_extension(UNFINISHED);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let written = write(&unfinished, &Saved { format: FORMAT, etags, catalogue });
    let moved = written.and_then(|()| fs::rename(&unfinished, &path));
    if moved.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    moved?;
    // Makes the new name survive a power cut.
    File::open(dir)?.sync_all()
}

fn write(path: &Path, saved: &Saved<'_>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // What a private repository has is nobody else's business.
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut out = BufWriter::new(Summed { file, context: Context::new(&SHA256) });
    serde_json::to_writer(&mut out, saved)?;
    let Summed { mut file, context } = out.into_inner()?;
    file.write_all(hex(context.finish().as_ref()).as_bytes())?;
    file.sync_all()
}

/// What is kept under a key, if that is whole.
pub fn load(dir: &Path, key: &str) -> Option<(Catalogue, Etags)> {
    let path = path(dir, key, ENDING)?;
    let file = File::open(&path).ok()?;
    let Some(loaded) = parse(file) else {
        tracing::warn!(path = %path.display(), "a broken snapshot of charts is removed");
        let _ = fs::remove_file(&path);
        return None;
    };
    Some((loaded.catalogue, loaded.etags))
}

fn parse(file: File) -> Option<Loaded> {
    let mut bytes = Vec::new();
    let size = file.metadata().ok()?.len();
    if size > LARGEST {
        return None;
    }
    bytes.reserve(usize::try_from(size).ok()?);
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    if hex(digest(&SHA256, body).as_ref()).as_bytes() != sum {
        return None;
    }
    let loaded: Loaded = serde_json::from_slice(body).ok()?;
    (loaded.format == FORMAT).then_some(loaded)
}

/// Removes what is kept of repositories that are gone: all whose key is not among these.
pub fn retain(dir: &Path, is_kept: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = path.extension().is_some_and(|end| end == ENDING || end == UNFINISHED);
        let key = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if ours && !is_kept(key) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// `None` for a key that could lead anywhere else.
fn path(dir: &Path, key: &str, ending: &str) -> Option<PathBuf> {
    let sound = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| dir.join(format!("{key}.{ending}")))
}

/// Sums up what is written.
struct Summed {
    file: File,
    context: Context,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.context.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{Builder, Entry};
    use super::*;

    fn catalogue() -> Catalogue {
        let mut builder = Builder::new();
        for version in ["1.2.3", "2.0.0-rc.1", "v0.9"] {
            let entry = Entry {
                name: "shop".to_owned(),
                version: version.to_owned(),
                description: "Sells \"things\" ü".to_owned(),
                keywords: vec!["web".to_owned()],
                created: Some(1_700_000_000),
                digest: Some([7; 32]),
                urls: vec!["shop.tgz".to_owned()],
                ..Entry::default()
            };
            builder.add(&entry).unwrap();
        }
        builder.finish_counted().0
    }

    fn etags() -> Etags {
        Etags { etag: Some("\"a\"".to_owned()), skipped: 3, ..Etags::default() }
    }

    #[test]
    fn what_was_saved_is_loaded_again_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("charts/snapshots");
        assert_eq!(load(&deep, "ab"), None);
        save(&deep, "ab", &Catalogue::default(), &Etags::default()).unwrap();
        save(&deep, "ab", &catalogue(), &etags()).unwrap();
        assert_eq!(load(&deep, "ab"), Some((catalogue(), etags())));
        assert_eq!(load(&deep, "cd"), None);
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    }

    #[test]
    fn one_that_is_cut_off_or_changed_anywhere_is_ignored_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ab.snapshot");
        save(dir.path(), "ab", &catalogue(), &etags()).unwrap();
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for broken in [&whole[..at], changed.as_slice()] {
                fs::write(&file, broken).unwrap();
                assert_eq!(load(dir.path(), "ab"), None, "{at}");
                assert!(!file.exists(), "{at}");
            }
        }
    }

    #[test]
    fn one_of_another_format_is_ignored_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ab.snapshot");
        let (etags, catalogue) = (&etags(), &catalogue());
        write(&file, &Saved { format: FORMAT - 1, etags, catalogue }).unwrap();
        assert_eq!(load(dir.path(), "ab"), None);
        assert!(!file.exists());
    }

    #[test]
    fn one_half_written_by_a_process_that_was_killed_is_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "ab", &catalogue(), &etags()).unwrap();
        fs::write(dir.path().join("ab.unfinished"), "half").unwrap();
        assert_eq!(load(dir.path(), "ab"), Some((catalogue(), etags())));
        save(dir.path(), "ab", &catalogue(), &Etags::default()).unwrap();
        assert!(!dir.path().join("ab.unfinished").exists());
    }

    #[test]
    fn those_of_repositories_that_are_gone_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for key in ["ab", "cd"] {
            save(dir.path(), key, &catalogue(), &etags()).unwrap();
        }
        fs::write(dir.path().join("cd.other"), "").unwrap();
        retain(dir.path(), |key| key == "ab");
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["ab.snapshot", "cd.other"]);
    }

    #[test]
    fn a_key_that_leads_elsewhere_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(save(dir.path(), "../ab", &catalogue(), &etags()).is_err());
        assert!(save(dir.path(), "", &catalogue(), &etags()).is_err());
        assert_eq!(load(dir.path(), "../ab"), None);
    }
}
