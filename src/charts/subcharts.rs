//! The charts that an archive of a chart holds within itself, as helm's loader finds them
//! (pkg/chart/v2/loader/load.go), and how more are put there.
//!
//! In memory and in bounds, nothing is unpacked to disk. Which charts are to be in it, and where
//! they come from, is the part of `dependencies`.

use std::collections::HashSet;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use tar::EntryType;

use super::archive::{self, BadArchive, metadata_within, scalar};

/// Bytes of all packed charts that are unpacked to learn their names: as of a chart itself.
const UNPACKED: u64 = 100 << 20;
/// Entries of a packed chart that are looked at: helm writes its Chart.yaml first.
const ENTRIES: usize = 10_000;
/// Charts in a chart whose names are read: the largest known ones have some forty.
pub(super) const CHARTS: usize = 256;
/// Nodes and bytes of text of a Chart.yaml that is read for its name alone: three times what those
/// with a whole change log have. There are many of them.
const NAME_NODES: usize = 2_000;
const NAME_TEXT: usize = 64 << 10;
/// The longest list of dependencies or lock file, in bytes: lists were once in Chart.yaml.
const LISTED: u64 = archive::CHART_YAML;

/// What the archive itself tells of what it needs and holds.
#[derive(Default)]
pub(super) struct Held {
    /// Names of the charts in it.
    pub(super) packed: HashSet<String>,
    /// The list that charts for Helm 2 have beside Chart.yaml; it goes before the one in there.
    requirements: Option<Value>,
    lock: Option<Value>,
    /// Where its last file ends, in bytes of the tar.
    pub(super) end: u64,
}

impl Held {
    /// Takes up to a second of computing: not for a thread that others wait for.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, BadArchive> {
        let (mut held, mut left, mut charts) = (Self::default(), UNPACKED, 0);
        // Read once, however often they are in it: the last one counts, as in helm.
        let (mut requirements, mut lock) = (None, None);
        let end = archive::walk(bytes, |path, size, content| {
            let parts: Vec<&str> = path.split('/').collect();
            match parts.as_slice() {
                ["requirements.yaml"] if size <= LISTED => {
                    requirements = Some(archive::whole(content, size)?);
                }
                ["Chart.lock" | "requirements.lock"] if size <= LISTED => {
                    lock = Some(archive::whole(content, size)?);
                }
                // As helm's loader, which passes these over.
                ["charts", one, ..] if one.starts_with(['_', '.']) => {}
                ["charts", file] if file.ends_with(".tgz") => {
                    count(&mut charts)?;
                    let packed = archive::whole(content, size)?;
                    held.packed.extend(name_within(&packed, &mut left)?);
                }
                // A folder that is called as an archive is what helm refuses.
                ["charts", folder, "Chart.yaml"]
                    if size <= archive::CHART_YAML && !folder.ends_with(".tgz") =>
                {
                    count(&mut charts)?;
                    held.packed.extend(name_of(&archive::whole(content, size)?));
                }
                _ => {}
            }
            Ok(())
        })?;
        held.end = end;
        let read = |yaml: Vec<u8>| archive::metadata(&yaml).ok();
        (held.requirements, held.lock) = (requirements.and_then(read), lock.and_then(read));
        Ok(held)
    }

    /// The dependencies that count; `listed` are those of Chart.yaml.
    pub(super) fn listed(&self, listed: Value) -> Value {
        let of_helm2 = self.requirements.as_ref().map(|list| list["dependencies"].clone());
        of_helm2.filter(|list| !list.is_null()).unwrap_or(listed)
    }

    /// The version of the lock file for the dependency at this place of the list, or else for one
    /// of this name.
    pub(super) fn locked(&self, at: usize, name: &str) -> Option<String> {
        let all = self.lock.as_ref()?["dependencies"].as_array()?;
        let is_it = |one: &&Value| scalar(one, "name") == name;
        let found = all.get(at).filter(is_it).or_else(|| all.iter().find(is_it));
        found.map(|one| scalar(one, "version"))
    }
}

fn count(charts: &mut usize) -> Result<(), BadArchive> {
    *charts += 1;
    if *charts > CHARTS {
        return Err(BadArchive::Broken(format!("it holds more than {CHARTS} charts")));
    }
    Ok(())
}

/// The name of a packed chart; `None` of what is none, which helm will say. `left`: bytes that may
/// still be unpacked.
fn name_within(packed: &[u8], left: &mut u64) -> Result<Option<String>, BadArchive> {
    let mut reader = MultiGzDecoder::new(packed).take(*left);
    let found = chart_yaml(&mut reader);
    *left = reader.limit();
    if found.is_none() && *left == 0 {
        let why = format!("the charts in it have more than {} MiB unpacked", UNPACKED >> 20);
        return Err(BadArchive::Broken(why));
    }
    Ok(found.as_deref().and_then(name_of))
}

fn name_of(about: &[u8]) -> Option<String> {
    let about = metadata_within(about, NAME_NODES, NAME_TEXT).ok()?;
    Some(scalar(&about, "name")).filter(|name| !name.is_empty())
}

fn chart_yaml(reader: impl Read) -> Option<Vec<u8>> {
    let mut tar = tar::Archive::new(reader);
    // Raw: the names of what is wanted are short, and long ones may have any length.
    for entry in tar.entries().ok()?.raw(true).take(ENTRIES) {
        let mut entry = entry.ok()?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let path = entry.header().path_bytes().into_owned();
        let mut parts = path.split(|byte| *byte == b'/').skip(1);
        if (parts.next(), parts.next()) == (Some(&b"Chart.yaml"[..]), None) {
            let size = entry.size();
            let is_fair = size <= archive::CHART_YAML;
            return if is_fair { archive::whole(&mut entry, size).ok() } else { None };
        }
    }
    None
}

/// The archive of the chart of this name, which ends at `end` of its tar, with these files in
/// `charts/`. All else in it stays as it is, byte for byte of the tar.
pub(super) fn pack<'a>(
    name: &str,
    (bytes, end): (&[u8], u64),
    files: impl Iterator<Item = (&'a str, &'a Bytes)>,
) -> io::Result<Vec<u8>> {
    let mut zipped = GzEncoder::new(Vec::with_capacity(bytes.len()), Compression::default());
    io::copy(&mut MultiGzDecoder::new(bytes).take(end), &mut zipped)?;
    let mut tar = tar::Builder::new(zipped);
    for (file, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("{name}/charts/{file}"), &bytes[..])?;
    }
    tar.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packed chart with these entries.
    fn packed(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, *content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_packed_chart_has_its_name_in_a_file_and_not_in_something_else() {
        let named = |kind| packed(&[(kind, "db/Chart.yaml", b"name: db\n")]);
        for (kind, name) in [(EntryType::Regular, Some("db")), (EntryType::Char, None)] {
            let found = name_within(&named(kind), &mut 8192).unwrap();
            assert_eq!(found.as_deref(), name, "{kind:?}");
        }
    }

    #[test]
    fn what_cannot_be_unpacked_any_more_is_told_and_not_taken_for_absent() {
        let large = (EntryType::Regular, "db/values.yaml", &[b'#'; 4096][..]);
        let about = (EntryType::Regular, "db/Chart.yaml", &b"name: db\n"[..]);
        let (behind, mut left) = (packed(&[large, about]), 4096);
        let error = name_within(&behind, &mut left).unwrap_err().to_string();
        assert!(error.contains("more than 100 MiB unpacked"), "{error}");
        assert!(name_within(&packed(&[about]), &mut left).is_err());
        assert_eq!(name_within(&behind, &mut 8192).unwrap().as_deref(), Some("db"));
        assert_eq!(name_within(b"no archive", &mut 8192), Ok(None));
    }

    #[test]
    fn a_name_is_not_looked_for_in_more_than_anybody_writes() {
        let listed = |count: usize| format!("name: db\nall: [{}]\n", "x, ".repeat(count));
        assert_eq!(name_of(listed(1_000).as_bytes()).as_deref(), Some("db"));
        assert_eq!(name_of(listed(NAME_NODES).as_bytes()), None);
        let long = format!("name: db\nabout: {}\n", "x".repeat(NAME_TEXT));
        assert_eq!(name_of(long.as_bytes()), None);
    }
}
