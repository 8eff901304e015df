//! A chart's provenance file (`.prov`, helm.sh/docs/topics/provenance): whether the text that
//! somebody signed is about this archive.
//!
//! No signature is verified and no key is known: that the text names the archive's digest says that
//! both belong together, not who wrote it. `helm verify` with a key ring says that.

use super::archive::Archive;

/// The largest file: it repeats Chart.yaml, which has 256 KiB at most, and adds a signature.
pub const LONGEST: usize = 320 << 10;

/// How one begins. What else a server shows there is a page of its own.
pub const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";

/// What is known of a chart's signature without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// There is no provenance file.
    None,
    /// There is one, and it is about this archive.
    Present,
    /// There is one that is about another archive, or about none.
    Mismatch,
}

impl Signature {
    pub fn of(archive: &Archive, provenance: Option<&str>) -> Self {
        match provenance {
            None => Self::None,
            Some(text) if names(text, &archive.digest) => Self::Present,
            Some(_) => Self::Mismatch,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Present => "present",
            Self::Mismatch => "mismatch",
        }
    }
}

/// Whether the signed part of a provenance file lists a file with this SHA-256 (helm's
/// pkg/provenance/sign.go: Chart.yaml, a line of three dots, then `files:` with
/// `name: sha256:digest`). What stands around the signed part proves nothing.
fn names(provenance: &str, digest: &str) -> bool {
    let signed = provenance.split_once(SIGNED).and_then(|(_, rest)| rest.split_once(SIGNATURE));
    let Some((signed, _)) = signed else { return false };
    let mut lines = signed.lines().map(str::trim_end).skip_while(|line| *line != "...").skip(1);
    if !lines.any(|line| line == "files:") {
        return false;
    }
    lines.take_while(|line| line.starts_with(' ')).any(|line| {
        let listed = line.trim_matches([' ', '"', '\'']).rsplit_once("sha256:");
        listed.is_some_and(|(_, listed)| listed.eq_ignore_ascii_case(digest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "c6841b3a895f1444a6738b5d04564a57e860ce42f8519c3be807fb6d9bee7888";

    fn provenance(digest: &str) -> String {
        format!(
            "{SIGNED}\nHash: SHA512\n\napiVersion: v1\ndescription: Test chart versioning\n\
             name: hashtest\nversion: 1.2.3\n\n...\nfiles:\n  hashtest-1.2.3.tgz: \
             sha256:{digest}\n{SIGNATURE}\n\nwsBcBAEBCgAQ\n-----END PGP SIGNATURE-----\n"
        )
    }

    #[test]
    fn the_signed_text_is_about_the_archive_whose_digest_it_has() {
        assert!(names(&provenance(DIGEST), DIGEST));
        assert!(names(&provenance(DIGEST).replace('\n', "\r\n"), DIGEST));
        assert!(!names(&provenance(&"0".repeat(64)), DIGEST));
    }

    #[test]
    fn a_digest_outside_of_what_is_signed_or_not_among_the_files_is_none() {
        let other = provenance(&"0".repeat(64));
        let line = format!("files:\n  a.tgz: sha256:{DIGEST}\n");
        for forged in [
            format!("...\n{line}{other}"),
            format!("{other}...\n{line}"),
            other.replace("name: hashtest", line.trim_end()),
            other.replace("files:", "images:").replace(&"0".repeat(64), DIGEST),
            line,
            String::new(),
        ] {
            assert!(!names(&forged, DIGEST), "{forged}");
        }
    }
}
