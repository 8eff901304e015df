//! Repositories of the configuration: a YAML list of definitions, with credentials as paths of
//! files beside it.
//!
//! The list is read once at start; the files whenever they are needed, since they are rotated.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use super::access::{Access, BadAccess};
use super::definition::{Definition, Kind, Oci};

/// More is no configuration.
const LARGEST: u64 = 1 << 20;
/// Of a file with credentials, in bytes: the longest value.
const VALUE: u64 = 256 << 10;

/// Why the configured repositories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    #[error("{} cannot be read: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
    #[error("{} is larger than {} KiB", .0.display(), .1 >> 10)]
    Large(PathBuf, u64),
    #[error("{} is no UTF-8", .0.display())]
    Text(PathBuf),
    #[error("line {line}: {reason}")]
    Yaml { line: u64, reason: String },
    #[error("the credentials: {0}")]
    Access(#[from] BadAccess),
}

/// A definition as the file has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: Kind,
    url: String,
    #[serde(default)]
    oci: Option<Oci>,
    #[serde(default)]
    interval: Option<String>,
    #[serde(default)]
    credentials: Files,
}

/// Where credentials are, each in a file of its own; a user name is none.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Files {
    username: Option<String>,
    username_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    client_certificate_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files(..)")
    }
}

/// All of a file.
pub fn read(path: &Path) -> Result<Vec<(Definition, Files)>, BadFile> {
    let failed = |error| BadFile::Read(path.to_owned(), error);
    if std::fs::metadata(path).map_err(failed)?.len() > LARGEST {
        return Err(BadFile::Large(path.to_owned(), LARGEST));
    }
    parse(&std::fs::read_to_string(path).map_err(failed)?)
}

/// A YAML list; an empty file, or one of comments alone, has none.
pub fn parse(text: &str) -> Result<Vec<(Definition, Files)>, BadFile> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        let words = error.without_snippet().to_string();
        let reason = words.lines().next().unwrap_or_default().chars().take(200).collect();
        BadFile::Yaml { line, reason }
    })?;
    Ok(entries.into_iter().map(Entry::parts).collect())
}

impl Entry {
    fn parts(self) -> (Definition, Files) {
        let Self { name, kind, url, oci, interval, credentials } = self;
        let has_credentials = !credentials.is_empty();
        (Definition { name, kind, url, oci, interval, has_credentials }, credentials)
    }
}

impl Files {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the files hold now.
    pub(super) async fn read(&self) -> Result<Access, BadFile> {
        let mut access = Access::default();
        access.set("username", self.username.clone().unwrap_or_default());
        for (field, path) in [
            ("username", &self.username_file),
            ("password", &self.password_file),
            ("token", &self.token_file),
            ("clientCertificate", &self.client_certificate_file),
            ("clientKey", &self.client_key_file),
            ("ca", &self.ca_file),
        ] {
            if let Some(path) = path {
                access.set(field, whole(path).await?);
            }
        }
        access.check()?;
        Ok(access)
    }
}

async fn whole(path: &Path) -> Result<String, BadFile> {
    let failed = |error| BadFile::Read(path.to_owned(), error);
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(VALUE + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > VALUE {
        return Err(BadFile::Large(path.to_owned(), VALUE));
    }
    String::from_utf8(bytes).map_err(|_| BadFile::Text(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lists_definitions_with_paths_of_their_credentials() {
        let found = parse(
            "# ours\n\
             - name: corp\n  type: index\n  url: https://charts.corp:8443\n  interval: 30m\n  \
               credentials:\n    username: ci\n    passwordFile: /run/secrets/password\n\
             - name: registry\n  type: oci\n  url: oci://r.example\n  oci:\n    prefix: charts\n",
        )
        .unwrap();
        let (corp, files) = &found[0];
        assert_eq!((corp.name.as_str(), corp.kind), ("corp", Kind::Index));
        assert!(corp.has_credentials);
        assert_eq!(files.password_file.as_deref(), Some(Path::new("/run/secrets/password")));
        let (registry, files) = &found[1];
        assert_eq!(registry.oci.as_ref().unwrap().prefix.as_deref(), Some("charts"));
        assert!(files.is_empty() && !registry.has_credentials);
        assert!(parse("# nothing\n\n").unwrap().is_empty());
    }

    #[test]
    fn a_password_in_the_file_itself_is_refused_and_not_repeated() {
        let text = "- name: corp\n  type: index\n  url: https://charts.corp\n  \
                    credentials:\n    password: hunter2\n";
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("line ") && error.contains("password"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn files_are_read_without_the_line_break_at_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hunter2\r\n").unwrap();
        let files = Files { token_file: Some(path.clone()), ..Files::default() };
        let access = files.read().await.unwrap();
        assert_eq!(access.token.as_deref(), Some("hunter2"));
        std::fs::remove_file(&path).unwrap();
        let error = files.read().await.unwrap_err().to_string();
        assert!(error.contains("token"), "{error}");
    }

    #[tokio::test]
    async fn half_of_a_pair_is_an_error_without_the_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2").unwrap();
        let files = Files { password_file: Some(path), ..Files::default() };
        let error = files.read().await.unwrap_err();
        assert!(!format!("{error} {error:?} {files:?}").contains("hunter2"), "{error}");
    }
}
