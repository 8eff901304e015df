//! The folder of one child: its HOME, its kubeconfig and the files it is given, private to us and
//! gone with it. What a process that died has left behind, the next one removes.
//!
//! It starts nothing and knows no argument of `helm`.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::door::DoorKey;

/// In a process's folder: locked as long as the process lives.
const LOCK: &str = "lock";
/// Above them: held while folders are made or removed, so that none is seen half made.
const GATE: &str = "gate";
const KUBECONFIG: &str = "kubeconfig";
/// Folders of one process id: containers that share a volume have the same few numbers.
const NAMES: usize = 1000;
/// Go's own collector works harder from here on, long before the guard's limit.
const MEMORY: &str = "512MiB";

/// The sandboxes of this process, in a folder that is made with the first of them.
pub struct Sandboxes {
    root: PathBuf,
    own: Mutex<Option<Own>>,
    next: AtomicU64,
}

/// The folder of this process. The lock ends with the file.
struct Own {
    dir: PathBuf,
    _lock: File,
}

/// One child's folder; dropping it removes it.
pub struct Sandbox {
    dir: PathBuf,
}

impl Sandboxes {
    /// Below `{state_dir}/helm`, from which the leftovers of dead processes are removed.
    pub fn new(state_dir: &Path) -> Self {
        let root = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        let root = root.join("helm");
        if let Err(error) = sweep(&root) {
            let root = root.display();
            tracing::warn!(%error, %root, "leftovers of earlier runs of helm were not removed");
        }
        Self { root, own: Mutex::default(), next: AtomicU64::new(0) }
    }

    /// A new folder. With a door it has a kubeconfig whose one context is that namespace behind
    /// that door; `files` are named relatively to the folder, which is the child's cwd.
    ///
    /// It writes to the disk: call it where blocking is allowed.
    pub fn make(
        &self,
        door: Option<(&DoorKey, &str)>,
        files: &[(&'static str, Bytes)],
    ) -> io::Result<Sandbox> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.own()?.join(number.to_string());
        private_dir(&dir)?;
        let sandbox = Sandbox { dir };
        private_dir(&sandbox.home())?;
        if let Some((key, namespace)) = door {
            sandbox.write(KUBECONFIG, kubeconfig(key, namespace).as_bytes())?;
        }
        for (name, content) in files {
            sandbox.write(name, content)?;
        }
        Ok(sandbox)
    }

    fn own(&self) -> io::Result<PathBuf> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        // Cleaners of temporary folders may have been there.
        if let Some(own) = own.as_ref().filter(|own| own.dir.is_dir()) {
            return Ok(own.dir.clone());
        }
        *own = None;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        let _gate = gate(&self.root)?;
        let dir = new_dir(&self.root)?;
        let lock = private_file(&dir.join(LOCK))?;
        lock.lock()?;
        *own = Some(Own { dir: dir.clone(), _lock: lock });
        Ok(dir)
    }
}

impl Sandbox {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        private_file(&self.dir.join(name))?.write_all(content)
    }

    /// All that the child's environment has: nobody's settings, no PATH, no proxy, no plugin.
    /// A given file `registry.json` is its registry configuration.
    pub fn env(&self) -> Vec<(&'static str, OsString)> {
        let home = self.home();
        vec![
            ("HOME", home.clone().into()),
            ("TMPDIR", home.clone().into()),
            ("KUBECONFIG", self.dir.join(KUBECONFIG).into()),
            ("HELM_CACHE_HOME", home.join("cache").into()),
            ("HELM_CONFIG_HOME", home.join("config").into()),
            ("HELM_DATA_HOME", home.join("data").into()),
            ("HELM_REGISTRY_CONFIG", self.dir.join("registry.json").into()),
            ("HELM_NO_PLUGINS", "1".into()),
            ("HELM_DRIVER", "secret".into()),
            ("NO_COLOR", "1".into()),
            ("GOMEMLIMIT", MEMORY.into()),
            // The dump of a crash says nothing to a person, and has arguments of functions.
            ("GOTRACEBACK", "none".into()),
        ]
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            // A child in its last moments may still write; the next start removes it.
            tracing::debug!(%error, dir = %dir.display(), "a sandbox was not removed");
        }
        _ => {}
    }
}

/// Removes the folders whose process lives no more.
fn sweep(root: &Path) -> io::Result<()> {
    let _gate = match gate(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        gate => gate?,
    };
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && is_left(&entry.path()) {
            remove(&entry.path());
        }
    }
    Ok(())
}

/// Whether nobody holds the folder's lock. Folders are made behind the gate, lock and all.
fn is_left(dir: &Path) -> bool {
    match OpenOptions::new().read(true).write(true).open(dir.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Waits for the gate; closing the file leaves it.
fn gate(root: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let gate = options.open(root.join(GATE))?;
    gate.lock()?;
    Ok(gate)
}

fn new_dir(root: &Path) -> io::Result<PathBuf> {
    for number in 0..NAMES {
        let dir = root.join(format!("{}-{number}", std::process::id()));
        match private_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// JSON, which is YAML.
fn kubeconfig(key: &DoorKey, namespace: &str) -> String {
    let DoorKey { url, ca, token } = key;
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "door",
        "clusters": [{"name": "door", "cluster": {
            "server": url, "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "users": [{"name": "door", "user": {"token": token}}],
        "contexts": [{"name": "door", "context": {
            "cluster": "door", "user": "door", "namespace": namespace,
        }}],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key() -> DoorKey {
        let url = "https://127.0.0.1:1".to_owned();
        DoorKey { url, ca: "PEM".to_owned(), token: "t0ken".to_owned() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn folders_and_files_are_ours_alone_and_gone_when_dropped() {
        let state = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::new(&state.path().join("not/yet/there"));
        let files = [("values.json", Bytes::from_static(b"{}"))];
        let sandbox = sandboxes.make(Some((&key(), "shop")), &files).unwrap();
        let dir = sandbox.dir().to_owned();
        assert!(dir.is_absolute());
        for (path, wanted) in [
            (dir.clone(), 0o700),
            (dir.join("home"), 0o700),
            (dir.join("kubeconfig"), 0o600),
            (dir.join("values.json"), 0o600),
        ] {
            assert_eq!(mode(&path), wanted, "{}", path.display());
        }
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(dir.join("kubeconfig")).unwrap()).unwrap();
        assert_eq!(config["users"][0]["user"]["token"], "t0ken");
        assert_eq!(config["contexts"][0]["context"]["namespace"], "shop");
        drop(sandbox);
        assert!(!dir.exists());
        let process = dir.parent().unwrap().to_owned();
        assert!(process.exists());
        drop(sandboxes);
        assert!(!process.exists());
    }

    #[test]
    fn what_dead_processes_left_is_removed_and_what_living_ones_have_stays() {
        let state = tempfile::tempdir().unwrap();
        let living = Sandboxes::new(state.path());
        let sandbox = living.make(None, &[]).unwrap();
        let root = state.path().join("helm");
        let (dead, broken) = (root.join("77-0"), root.join("78-0"));
        fs::create_dir_all(dead.join("0/home")).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::create_dir_all(&broken).unwrap();
        let next = Sandboxes::new(state.path());
        assert!(!dead.exists() && !broken.exists());
        assert!(sandbox.dir().exists());
        let other = next.make(None, &[]).unwrap();
        assert_ne!(sandbox.dir().parent(), other.dir().parent());
    }

    #[test]
    fn a_folder_that_somebody_removed_is_made_again() {
        let state = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::new(state.path());
        drop(sandboxes.make(None, &[]).unwrap());
        fs::remove_dir_all(state.path().join("helm")).unwrap();
        assert!(sandboxes.make(None, &[]).unwrap().dir().exists());
    }
}
