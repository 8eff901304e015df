//! One version of a chart as the store wants it: what it is called on disk, where it is, and
//! whether an archive is the one.
//!
//! It neither fetches nor keeps anything.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use tokio::task::spawn_blocking;
use url::Url;

use super::archive::{self, Archive};
use super::catalogue::Version;
use super::places::Permit;
use super::repository::Repository;
use super::store::{BadChart, Found};
use super::{disk, hex, versions};

/// How long an archive is taken for what is still there where the repository tells no digest.
const UNTOLD: Duration = Duration::from_secs(10 * 60);

/// One version of a chart, and where it is.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Of the repository: what its files are named by, and its address.
    pub(super) scope: String,
    pub(super) base: Url,
    /// What the repository was marked with: somebody has changed it whenever this is another.
    pub(super) mark: String,
    pub(super) chart: String,
    pub(super) version: Version,
}

pub(super) enum Address {
    Server(Url),
    /// `oci://host/repository:tag`
    Registry(String),
}

impl Wanted {
    pub(super) fn of(repository: &Repository, chart: &str, version: &Version) -> Self {
        Self {
            scope: repository.key(),
            base: repository.base.clone(),
            mark: repository.mark.clone(),
            chart: chart.to_owned(),
            version: version.clone(),
        }
    }

    /// Its name on disk.
    pub(super) fn name(&self) -> String {
        let Self { scope, mark, chart, version, .. } = self;
        let address = version.urls.first().map_or("", |address| address);
        // Where no digest is told, whoever has written to the repository has marked it.
        let told = version.digest.map_or_else(|| mark.clone(), |digest| hex(&digest));
        disk::name(&["archive", scope, chart, &version.version, address, &told])
    }

    /// What its provenance file is remembered by. Who signs marks the repository, so that no
    /// replica goes on with what it knew before.
    pub(super) fn signed_name(&self) -> String {
        disk::name(&["provenance", &self.name(), &self.mark])
    }

    /// How old it may be on disk.
    pub(super) fn most(&self) -> Option<Duration> {
        self.version.digest.is_none().then_some(UNTOLD)
    }

    /// Where it is: the first address, as helm takes it; the others are mirrors.
    pub(super) fn address(&self) -> Result<Address, BadChart> {
        let Self { base, chart, version, .. } = self;
        let address = version.urls.first().ok_or_else(|| {
            BadChart::NoAddress(chart.clone(), version.version.as_str().to_owned())
        })?;
        Ok(match resolved(base, address)? {
            // An index may leave the tag out.
            Address::Registry(text) if !is_tagged(&text) => {
                Address::Registry(format!("{text}:{}", version.version))
            }
            address => address,
        })
    }

    /// What the archive holds, if it is the one that is wanted. It goes on when nobody waits for
    /// it any more, so it has its place until it ends.
    pub(super) async fn look(&self, bytes: Bytes, place: Permit) -> Result<Found, BadChart> {
        let (wanted, read) = (self.version.digest, bytes.clone());
        let archive = spawn_blocking(move || -> Result<Archive, BadChart> {
            let _place = place;
            let found = digest(&SHA256, &read);
            match wanted {
                Some(wanted) if found.as_ref() != wanted => {
                    Err(BadChart::Digest { found: hex(found.as_ref()), wanted: hex(&wanted) })
                }
                _ => Ok(archive::inspect(&read)?),
            }
        });
        let archive = archive.await??;
        let same = versions::order(&archive.version) == versions::order(&self.version.version);
        // In a registry the name of a chart is the last part of its repository's.
        if !same || self.chart.rsplit('/').next() != Some(archive.name.as_str()) {
            return Err(BadChart::Other(archive.name, archive.version));
        }
        Ok((Arc::new(archive), bytes))
    }
}

fn is_tagged(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or_default();
    last.contains([':', '@'])
}

/// An address that a repository at `base` tells.
pub(super) fn resolved(base: &Url, address: &str) -> Result<Address, BadChart> {
    if address.starts_with("oci://") {
        return Ok(Address::Registry(address.to_owned()));
    }
    let url = base.join(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| BadChart::Address(address.chars().take(200).collect()))?;
    Ok(Address::Server(url))
}
