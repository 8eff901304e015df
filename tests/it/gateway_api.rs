//! The Gateway API's definitions as its own project releases them: a Go module, which Go downloads
//! and verifies. It is kept beside the built test cluster, and is never part of this repository.
//!
//! It proves nothing itself; the modules that make its objects do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde::Deserialize;

use crate::cluster::{self, Cluster};

pub const GROUP: &str = "/apis/gateway.networking.k8s.io";
/// The kinds that we show. Of TLSRoute and ReferenceGrant this release has no `v1`, so that lists
/// of them are found in an older version; TLSRoute is among the experimental ones only.
pub const COLLECTIONS: [&str; 6] = [
    "v1/gatewayclasses",
    "v1/gateways",
    "v1/httproutes",
    "v1/grpcroutes",
    "v1alpha2/tlsroutes",
    "v1beta1/referencegrants",
];

const MODULE: &str = "sigs.k8s.io/gateway-api";
const VERSION: &str = "v1.4.1";
/// Of the whole module, as `go.sum` has it.
const SUM: &str = "h1:NPxFutNkKNa8UfLd2CMlEuhIPMQgDQ6DXNKG9sHbJU8=";
const FOLDER: &str = "config/crd/experimental";

/// Defines the kinds of these collections (version and plural) and waits until they are served;
/// others may define the same ones meanwhile.
pub async fn define(cluster: &Cluster, collections: &[&str]) {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (admin, headers) = (cluster.token("admin"), [("content-type", "application/yaml")]);
    let folder = tokio::task::spawn_blocking(folder).await.unwrap();
    for collection in collections {
        let (_, plural) = collection.split_once('/').unwrap();
        let sent = fs::read_to_string(folder.join(file(plural))).unwrap();
        let (status, _, body) = cluster.request(Method::POST, admin, path, &headers, sent).await;
        let words = String::from_utf8_lossy(&body);
        assert!(matches!(status, 201 | 409), "{plural}: {status}: {words}");
    }
    for collection in collections {
        let path = format!("{GROUP}/{collection}");
        let is_served = || async { cluster.get(admin, &path).await.0 == 200 };
        Cluster::eventually(&format!("{path} is served"), is_served).await;
    }
}

fn file(plural: &str) -> String {
    format!("gateway.networking.k8s.io_{plural}.yaml")
}

/// Where the definitions are.
fn folder() -> &'static Path {
    static KEPT: OnceLock<Result<PathBuf>> = OnceLock::new();
    match KEPT.get_or_init(kept) {
        Ok(folder) => folder,
        Err(why) => panic!("no definitions of the Gateway API: {why:#}"),
    }
}

/// Copied once out of Go's module cache, so that a machine with a built cluster needs no Go.
fn kept() -> Result<PathBuf> {
    let name = format!("gateway-api-{VERSION}");
    let kept = cluster::cache_folder()?.with_file_name(&name);
    if kept.exists() {
        return Ok(kept);
    }
    let unfinished = kept.with_file_name(format!("{name}.{}", std::process::id()));
    fs::create_dir_all(&unfinished).with_context(|| format!("making {}", unfinished.display()))?;
    let module = downloaded(&unfinished)?;
    for collection in COLLECTIONS {
        let file = file(collection.rsplit('/').next().unwrap_or_default());
        let from = module.join(FOLDER).join(&file);
        fs::copy(&from, unfinished.join(&file))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    let moved = fs::rename(&unfinished, &kept);
    // Another process was faster.
    if moved.is_err() && kept.exists() {
        fs::remove_dir_all(&unfinished).context("removing a second copy")?;
        return Ok(kept);
    }
    moved.context("putting the definitions in place")?;
    Ok(kept)
}

/// What `go mod download -json` says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    #[serde(default)]
    dir: PathBuf,
    #[serde(default)]
    sum: String,
    #[serde(default)]
    error: String,
}

/// The module's folder in Go's cache. `outside` is a folder of no module, so that none is changed.
fn downloaded(outside: &Path) -> Result<PathBuf> {
    let mut command = Command::new("go");
    command.args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]);
    command.current_dir(outside).env("GOWORK", "off").stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("Go is not installed; it downloads {MODULE} {VERSION} (https://go.dev/dl)");
        }
        other => other.context("running `go mod download`")?,
    };
    let words = String::from_utf8_lossy(&output.stderr);
    let said: Download = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`go mod download` says no JSON: {words}"))?;
    if !said.error.is_empty() {
        bail!("`go mod download {MODULE}@{VERSION}`: {}", said.error);
    }
    if said.sum != SUM {
        bail!("{MODULE} {VERSION} is not what was pinned: {} in place of {SUM}", said.sum);
    }
    Ok(said.dir)
}
