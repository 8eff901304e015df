//! Archives of every bad kind, made here.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::*;

const CHART: &str = "apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: 2.10\n";

/// An entry with just this path, which `tar` itself would not write for us.
fn add(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, data).unwrap();
}

fn zip(tar: &[u8]) -> Vec<u8> {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(tar).unwrap();
    zipped.finish().unwrap()
}

/// The archive of a chart with this Chart.yaml in the folder `web`, and of what else is added.
fn packed(chart: &str, more: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, EntryType::Regular, "web/Chart.yaml", chart.as_bytes());
    more(&mut tar);
    zip(&tar.into_inner().unwrap())
}

fn refused(packed: Vec<u8>) -> BadArchive {
    inspect(&packed.into()).map(|_| ()).unwrap_err()
}

/// Why a chart with one more entry is refused.
fn refused_with(kind: EntryType, path: &str) -> BadArchive {
    refused(packed(CHART, |tar| add(tar, kind, path, b"")))
}

#[test]
fn a_chart_is_shown_with_what_its_archive_holds() {
    let bytes: Bytes = packed(CHART, |tar| {
        add(tar, EntryType::XGlobalHeader, "pax_global_header", b"18 comment=abcdef\n");
        add(tar, EntryType::Directory, "web/", b"");
        add(tar, EntryType::Directory, "web/templates", b"");
        add(tar, EntryType::Regular, "web/templates/service.yaml", b"kind: Service");
        add(tar, EntryType::Regular, "web/crds/one.yaml", b"kind: CustomResourceDefinition");
        add(tar, EntryType::Regular, "web/crds/README.md", b"no manifest");
        add(tar, EntryType::Regular, "web/README.md", b"\xef\xbb\xbf# Web");
        add(tar, EntryType::Regular, "web/values.yaml", b"replicas: 1");
        add(tar, EntryType::Regular, "web/values.schema.json", b"{}");
        add(tar, EntryType::Regular, "web/charts/db/Chart.yaml", b"name: db");
    })
    .into();
    let found = inspect(&bytes).unwrap();
    assert_eq!((found.name.as_str(), found.version.as_str()), ("web", "1.2.3"));
    assert_eq!(found.metadata["apiVersion"], "v2");
    assert_eq!(found.templates, ["templates/service.yaml"]);
    assert_eq!(found.crds, ["crds/one.yaml"]);
    assert_eq!(found.readme.as_deref(), Some("# Web"));
    assert_eq!(found.values.as_deref(), Some("replicas: 1"));
    assert_eq!(found.schema.as_deref(), Some("{}"));
    assert_eq!(found.digest, hex(digest(&SHA256, &bytes).as_ref()));
    assert_eq!(found.digest.len(), 64);
}

#[test]
fn a_commit_that_looks_like_a_number_beyond_all_is_an_app_version() {
    for commit in ["12e4567", "+7e1234"] {
        let chart = format!("apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: {commit}\n");
        let found = inspect(&packed(&chart, |_| {}).into()).unwrap();
        assert_eq!(found.app_version, commit);
        assert_eq!(found.metadata["appVersion"], commit);
    }
    let error = refused(packed("name: web\nversion: 1.2.3\nappVersion: !!float 7e1234\n", |_| {}));
    assert_eq!(error, BadArchive::Chart("line 3: a number is not finite".into()));
}

#[test]
fn what_go_reads_in_another_way_is_refused() {
    let differ = BadArchive::Broken("readers differ on what an entry of it is".into());
    let with = |change: fn(&mut [u8; 512])| {
        refused(packed(CHART, |tar| {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..7].copy_from_slice(b"web/any");
            header.set_size(0);
            header.set_mode(0o644);
            change(header.as_mut_bytes());
            header.set_cksum();
            tar.append(&header, &b""[..]).unwrap();
        }))
    };
    // A prefix in the place of a time, one of another version, and one that is cut.
    assert_eq!(with(|raw| raw[345..352].copy_from_slice(b"web/any")), differ);
    assert_eq!(with(|raw| raw[345..349].copy_from_slice(b"+123")), differ);
    assert_eq!(with(|raw| raw[257..265].copy_from_slice(b"ustar\x0001")), differ);
    assert_eq!(
        with(|raw| {
            raw[257..265].copy_from_slice(b"ustar\x0000");
            raw[508..].copy_from_slice(b"tar\0");
        }),
        differ
    );
    let folder = |tar: &mut Builder<Vec<u8>>| add(tar, EntryType::Directory, "web/a", &[0; 512]);
    assert_eq!(refused(packed(CHART, folder)), differ);
    for second in [EntryType::XGlobalHeader, EntryType::XHeader] {
        let two = |tar: &mut Builder<Vec<u8>>| {
            add(tar, EntryType::XHeader, "x", b"14 path=web/a\n");
            add(tar, second, "g", b"18 comment=abcdef\n");
            add(tar, EntryType::Regular, "web/values.schema.json", b"{}");
        };
        assert_eq!(refused(packed(CHART, two)), differ);
    }
}

#[test]
fn long_names_of_gnu_and_of_pax_are_names() {
    let long = |letter: &str| format!("web/templates/{}.yaml", letter.repeat(150));
    let bytes = packed(CHART, |tar| {
        let mut header = Header::new_gnu();
        header.set_size(0);
        tar.append_data(&mut header, long("a"), &b""[..]).unwrap();
        let name = long("b");
        // The length counts itself: three digits, a blank and the line's end with the record.
        let record = format!("{} path={name}\n", name.len() + "100 path=\n".len());
        add(tar, EntryType::XHeader, "PaxHeaders/x", record.as_bytes());
        add(tar, EntryType::Regular, "web/cut", b"");
    });
    let found = inspect(&bytes.into()).unwrap();
    let found: Vec<String> = found.templates.iter().map(|path| format!("web/{path}")).collect();
    assert_eq!(found, [long("a"), long("b")]);
}

#[test]
fn a_long_name_leads_out_no_more_than_a_short_one() {
    let bytes = packed(CHART, |tar| {
        add(tar, EntryType::GNULongName, "././@LongLink", b"web/../../etc/passwd\0");
        add(tar, EntryType::Regular, "web/harmless", b"");
    });
    assert!(matches!(refused(bytes), BadArchive::Path(..)));
    for record in ["16 size=1000000\n", "22 GNU.sparse.major=1\n"] {
        let bytes = packed(CHART, |tar| {
            add(tar, EntryType::XHeader, "x", record.as_bytes());
            add(tar, EntryType::Regular, "web/a", b"");
        });
        assert!(matches!(refused(bytes), BadArchive::Broken(_)), "{record}");
    }
    let bytes = packed(CHART, |tar| {
        add(tar, EntryType::GNULongName, "././@LongLink", b"web/a\0");
        add(tar, EntryType::GNULongName, "././@LongLink", b"web/b\0");
        add(tar, EntryType::Regular, "web/c", b"");
    });
    assert!(refused(bytes).to_string().contains("two long names"));
    let large = packed(CHART, |tar| {
        add(tar, EntryType::GNULongName, "././@LongLink", &vec![b'a'; EXTENSION as usize + 1]);
    });
    assert!(refused(large).to_string().contains("too large"));
}

#[test]
fn a_path_that_leads_elsewhere_is_refused() {
    for path in [
        "/etc/passwd",
        "../web/a",
        "web/../../a",
        "web/..",
        "./web/a",
        "web//a",
        "web/a/",
        "web\\..\\a",
        "web/c:/a",
        "web/a\nb",
        "web/\u{1b}[2J",
    ] {
        let error = refused_with(EntryType::Regular, path);
        assert!(matches!(error, BadArchive::Path(..)), "{path}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
    let bytes = packed(CHART, |tar| {
        let name = format!("web/{}\0", "a/".repeat(PATH));
        add(tar, EntryType::GNULongName, "././@LongLink", name.as_bytes());
        add(tar, EntryType::Regular, "web/a", b"");
    });
    assert!(refused(bytes).to_string().contains("too long"));
}

#[test]
fn links_and_devices_are_refused() {
    for (kind, says) in [
        (EntryType::Symlink, "symbolic link"),
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "pipe"),
        (EntryType::GNUSparse, "uncommon"),
        (EntryType::Continuous, "uncommon"),
        (EntryType::GNULongLink, "uncommon"),
    ] {
        let error = refused_with(kind, "web/a");
        assert!(matches!(error, BadArchive::Kind(..)), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn all_of_a_chart_is_in_one_folder_with_its_name() {
    let error = refused_with(EntryType::Regular, "other/a");
    assert_eq!(error, BadArchive::Folders("web".into(), "other".into()));
    assert!(matches!(refused_with(EntryType::Directory, "other/"), BadArchive::Folders(..)));
    assert!(matches!(refused_with(EntryType::Regular, "Chart.yaml"), BadArchive::Outside(_)));
    let error = refused(packed("name: shop\nversion: 1.0.0", |_| {}));
    assert_eq!(error, BadArchive::Name { folder: "web".into(), name: "shop".into() });
    let error = refused_with(EntryType::Regular, "web/Chart.yaml");
    assert_eq!(error, BadArchive::Twice("web/Chart.yaml".into()));
}

#[test]
fn a_chart_has_a_chart_yaml_with_a_known_version_of_itself() {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, EntryType::Regular, "web/values.yaml", b"");
    assert_eq!(refused(zip(&tar.into_inner().unwrap())), BadArchive::NoChart);
    assert_eq!(refused(zip(&[0; 1024])), BadArchive::NoChart);
    for chart in ["", "- a", "name: [", "apiVersion: v3\nname: web\nversion: 1.0.0"] {
        assert!(matches!(refused(packed(chart, |_| {})), BadArchive::Chart(_)), "{chart}");
    }
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n\
                c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n\
                e: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\n\
                g: [*f, *f, *f, *f, *f, *f, *f, *f]\n";
    assert!(matches!(refused(packed(bomb, |_| {})), BadArchive::Chart(_)));
    let huge = format!("{CHART}description: {}", "a".repeat(CHART_YAML as usize));
    assert_eq!(
        refused(packed(&huge, |_| {})),
        BadArchive::File("web/Chart.yaml".into(), CHART_YAML)
    );
    // Helm 2 asked for no apiVersion.
    assert!(inspect(&packed("name: web\nversion: 1.0.0", |_| {}).into()).is_ok());
}

#[test]
fn aliases_make_no_more_of_a_chart_yaml_than_may_be_in_it() {
    let aliases = |text: &str, count: usize| {
        let aliases = "  - *a\n".repeat(count);
        packed(&format!("{CHART}annotations:\n  a: &a {text}\n  all:\n{aliases}"), |_| {})
    };
    assert!(inspect(&aliases("[some, text]", 10).into()).is_ok());
    let (long, many) = ("x".repeat(CHART_TEXT / 8), format!("[{}x]", "x, ".repeat(1_000)));
    for (text, count) in [(long, 9), (many, CHART_NODES / 1_000)] {
        let error = refused(aliases(&text, count));
        assert!(matches!(error, BadArchive::Chart(_)), "{error}");
    }
}

#[test]
fn a_version_is_what_helm_takes_for_one() {
    let plain = ["1.2.3", "v1.2.3", "1", "1.2", "1.2.3-rc.1+build.5", "1.2-beta", "0.0.0"];
    // Those who count by the month write zeros.
    for good in plain.into_iter().chain(["01.2.3", "2024.06.1"]) {
        let chart = format!("name: web\nversion: {good}");
        let found = inspect(&packed(&chart, |_| {}).into()).unwrap();
        assert_eq!(found.version, good);
    }
    for bad in ["''", "latest", "1.2.3.4", "1.2.3-01", "1.2.x", "-1", "1.2.3-", "'1.2.3 '", "[1]"] {
        let chart = format!("name: web\nversion: {bad}");
        let error = refused(packed(&chart, |_| {}));
        assert!(matches!(error, BadArchive::Version(_)), "{bad}: {error}");
    }
}

#[test]
fn an_archive_is_bounded_in_every_direction() {
    let small = Limits { unpacked: 64 << 10, file: 16 << 10, entries: 20 };
    let within = |more: &dyn Fn(&mut Builder<Vec<u8>>)| {
        inspect_within(&packed(CHART, more), &small).map(|_| ())
    };
    assert_eq!(within(&|_| {}), Ok(()));
    let file = within(&|tar| add(tar, EntryType::Regular, "web/a", &[0; (16 << 10) + 1]));
    assert_eq!(file, Err(BadArchive::File("web/a".into(), 16 << 10)));
    let many = within(&|tar| {
        for at in 0..20 {
            add(tar, EntryType::Regular, &format!("web/{at}"), b"");
        }
    });
    assert_eq!(many, Err(BadArchive::Entries(20)));
    let bomb = within(&|tar| {
        for at in 0..8 {
            add(tar, EntryType::Regular, &format!("web/{at}"), &[0; 16 << 10]);
        }
    });
    assert_eq!(bomb, Err(BadArchive::Unpacked(64 << 10)));
    // What says of itself that it is huge is not believed to be there.
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, EntryType::Regular, "web/Chart.yaml", CHART.as_bytes());
    let mut tar = tar.into_inner().unwrap();
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..5].copy_from_slice(b"web/a");
    header.set_entry_type(EntryType::XGlobalHeader);
    header.set_size(u64::MAX);
    header.set_cksum();
    tar.truncate(1024);
    tar.extend_from_slice(header.as_bytes());
    assert!(matches!(refused(zip(&tar)), BadArchive::Broken(_)));
    assert_eq!(refused(vec![0x1f; PACKED + 1]), BadArchive::Packed);
}

#[test]
fn what_is_no_archive_or_only_a_part_of_one_is_refused() {
    for text in [&b""[..], b"PK\x03\x04", b"apiVersion: v2", b"\x1f\x8b"] {
        assert_eq!(refused(text.to_vec()), BadArchive::NotGzip);
    }
    assert!(matches!(refused(b"\x1f\x8b\x08 and no more".to_vec()), BadArchive::Broken(_)));
    assert!(matches!(refused(zip(b"no tar at all")), BadArchive::Broken(_)));
    let mut noise = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    })
    .take(64 << 10)
    .collect();
    let whole = packed(CHART, |tar| add(tar, EntryType::Regular, "web/noise", &noise));
    assert!(inspect(&whole.clone().into()).is_ok());
    for part in [whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4] {
        let error = refused(whole[..part].to_vec());
        assert!(matches!(error, BadArchive::Broken(_)), "{part}: {error}");
    }
}
