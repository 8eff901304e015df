//! The official SockJS client as npm has it: a pinned tarball, verified before anything of it is
//! unpacked. It is kept beside the built test cluster, and is never part of this repository.
//!
//! It proves nothing itself, and it is no npm: no dependencies, no scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{cluster, debian};

const NAME: &str = "sockjs-client";
const VERSION: &str = "1.6.1";
/// As the registry has it (`npm view sockjs-client@1.6.1 dist.integrity`).
const INTEGRITY: &str = "sha512-2g0tjOR+fRs0amxENLi/q5TiJTqY+WXFOzb5UwXndlK6TO3U/mirZznpx6w34HVMo\
                         c3g7cY24yC/ZMIYnDlfkw==";
/// What is unpacked: the file for browsers, and under which terms (MIT).
const FILES: [&str; 2] = ["package/dist/sockjs.min.js", "package/LICENSE"];

/// The client's file for browsers, downloaded the first time. It blocks.
pub fn sockjs() -> PathBuf {
    static KEPT: OnceLock<Result<PathBuf>> = OnceLock::new();
    match KEPT.get_or_init(kept) {
        Ok(folder) => folder.join("dist/sockjs.min.js"),
        Err(why) => panic!("no {NAME} {VERSION}: {why:#}"),
    }
}

/// The package's folder.
fn kept() -> Result<PathBuf> {
    let name = format!("{NAME}-{VERSION}");
    let kept = cluster::cache_folder()?.with_file_name(&name);
    if kept.exists() {
        return Ok(kept);
    }
    let beside = kept.parent().context("the cache is a folder of a folder")?;
    fs::create_dir_all(beside).with_context(|| format!("making {}", beside.display()))?;
    let unfinished = tempfile::Builder::new().prefix(&format!("{name}.")).tempdir_in(beside)?;
    let tarball = unfinished.path().join("package.tgz");
    download(&tarball)?;
    verify(&tarball)?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&tarball).arg("-C").arg(unfinished.path()).args(FILES);
    run(&mut tar)?;
    let moved = fs::rename(unfinished.path().join("package"), &kept);
    // Another process was faster.
    if moved.is_err() && kept.exists() {
        return Ok(kept);
    }
    moved.context("putting the package in place")?;
    Ok(kept)
}

/// With curl, which heeds the machine's proxies and authorities.
fn download(to: &Path) -> Result<()> {
    let url = format!("https://registry.npmjs.org/{NAME}/-/{NAME}-{VERSION}.tgz");
    let mut curl = Command::new(debian::installed("curl", "curl"));
    curl.args(["--fail", "--silent", "--show-error", "--location"]);
    curl.args(["--retry", "3", "--max-time", "120", "--output"]).arg(to).arg(url);
    run(&mut curl)
}

fn verify(tarball: &Path) -> Result<()> {
    let data = fs::read(tarball).context("reading the tarball")?;
    let found = format!("sha512-{}", STANDARD.encode(digest::digest(&digest::SHA512, &data)));
    ensure!(found == INTEGRITY, "it is not what was pinned: {found} in place of {INTEGRITY}");
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("running {command:?}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{words}", output.status);
    Ok(())
}
