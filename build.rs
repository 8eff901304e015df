//! Tells the linker which functions of a release lie together. It generates nothing, and leaves
//! debug builds, tests and whoever chose a linker alone.

use std::env::var;

/// What runs at start, when idle and in use, in front of what may never run (`benches/order.sh`
/// writes it). The kernel maps a program in pieces of 64 KiB around each page that is touched:
/// strewn over all of it, 4 MiB of functions take 16.
const ORDER: &str = "deploy/order.ld";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={ORDER}");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    // GNU ld and lld take such a script besides their own; others refuse it.
    let chosen = var("RUSTC_LINKER").is_ok()
        || var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"));
    if let Ok(root) = var("CARGO_MANIFEST_DIR")
        && is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && !chosen
    {
        println!("cargo::rustc-link-arg-bin=binnacle=-T{root}/{ORDER}");
    }
}
