//! Charts within charts, made here, and repositories whose catalogues are put there.

use std::io::Read as _;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::*;
use crate::charts::catalogue::{Builder, Entry};
use crate::charts::repositories::Repositories;
use crate::charts::repository::{Loaded, Status};
use crate::charts::subcharts::CHARTS;
use crate::charts::{Policy, file};
use crate::upstream::Cluster;

const REPOSITORIES: &str = "
- {name: corp, type: oci, url: 'oci://r.example:5000/charts'}
- {name: named, type: oci, url: 'oci://r.example', oci: {repositories: [a/web]}}
- {name: one, type: oci, url: 'oci://one.example/solo'}
- {name: stable, type: index, url: 'https://charts.example/stable'}
- {name: team, type: museum, url: 'https://charts.example/team/'}
";

fn tar(files: &[(&str, &[u8])]) -> tar::Builder<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar
}

fn zip(tar: &[u8]) -> Bytes {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    io::copy(&mut &*tar, &mut zipped).unwrap();
    zipped.finish().unwrap().into()
}

/// A chart of this name with these lines in its Chart.yaml and these files.
fn chart(name: &str, about: &str, files: &[(&str, &[u8])]) -> Bytes {
    let about = format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n{about}");
    let about = (format!("{name}/Chart.yaml"), about.as_bytes());
    let files = files.iter().map(|(path, content)| (format!("{name}/{path}"), *content));
    let all: Vec<_> = std::iter::once(about).chain(files).collect();
    let all: Vec<_> = all.iter().map(|(path, content)| (path.as_str(), *content)).collect();
    zip(&tar(&all).into_inner().unwrap())
}

/// A list of dependencies for a Chart.yaml: name, range and repository.
fn list(all: &[(&str, &str, &str)]) -> String {
    let one = |(name, version, repository): &(&str, &str, &str)| {
        format!("- {{name: {name}, version: '{version}', repository: '{repository}'}}\n")
    };
    format!("dependencies:\n{}", all.iter().map(one).collect::<String>())
}

fn unpacked(bytes: &Bytes) -> Result<Vec<Dependency>, BadDependency> {
    let archive = archive::inspect(bytes).unwrap();
    lacks(archive.metadata["dependencies"].clone(), bytes)
}

fn names(all: &[Dependency]) -> Vec<&str> {
    all.iter().map(|one| one.name.as_str()).collect()
}

fn needs(name: &str, version: &str, repository: &str) -> Dependency {
    let [name, version, repository] = [name, version, repository].map(str::to_owned);
    Dependency { name, version, repository, locked: None }
}

/// Repositories with two charts each; `web` has the versions 1.2.0 and 1.10.0, 2.0.0-rc.1.
fn repositories() -> Vec<Arc<Repository>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nowhere = "http://127.0.0.1:9".parse().unwrap();
    let cluster = Cluster::new("test", kube::Config::new(nowhere)).unwrap();
    let listed = file::parse(REPOSITORIES).unwrap();
    let all = Repositories::new(cluster, "ops".into(), Policy::default(), listed).unwrap().all();
    for repository in &all {
        let mut builder = Builder::new();
        for version in ["1.2.0", "1.10.0", "2.0.0-rc.1"] {
            let at = match repository.name() {
                "corp" => "oci://r.example:5000/charts/web",
                "named" => "oci://r.example/a/web",
                "one" => "oci://one.example/solo",
                _ => "web",
            };
            let name = if repository.name() == "one" { "solo" } else { "web" };
            let (name, version) = (name.to_owned(), version.to_owned());
            let urls = vec![format!("{at}:{version}")];
            builder.add(&Entry { name, version, urls, ..Entry::default() }).unwrap();
        }
        let catalogue = Arc::new(builder.finish_counted().0);
        let status = Status { state: State::Ok, ..Status::default() };
        repository.loaded.store(Arc::new(Loaded { catalogue, status, ..Loaded::default() }));
    }
    all
}

#[test]
fn what_is_packed_in_any_form_is_not_missing() {
    let within = chart("packed", "", &[]);
    let about = list(&[
        ("folder", "", ""),
        ("packed", "^9", "https://charts.example"),
        ("passed", "", "https://charts.example"),
        ("absent", "^1", "https://charts.example"),
    ]);
    let bytes = chart(
        "shop",
        &about,
        &[
            ("charts/other/Chart.yaml", b"name: folder\nversion: 1.0.0\n"),
            ("charts/any.tgz", &within),
            ("charts/_passed/Chart.yaml", b"name: passed\nversion: 1.0.0\n"),
            ("charts/broken.tgz", b"no archive"),
            ("charts/odd.tgz/Chart.yaml", b"name: absent\n"),
            ("charts/README.md", b"name: absent\n"),
        ],
    );
    assert_eq!(names(&unpacked(&bytes).unwrap()), ["passed", "absent"]);
    let mut listed = vec![serde_json::json!({ "name": "packed" }), "odd".into()];
    listed.push(serde_json::json!({ "name": "absent" }));
    mark(&mut listed, &bytes);
    assert_eq!(listed[0]["packed"], true);
    assert_eq!(listed[1], "odd");
    assert_eq!(listed[2]["packed"], false);
}

#[test]
fn a_list_for_helm_2_counts_and_a_broken_one_is_told() {
    let listed = list(&[("old", "1", "@stable")]);
    let bytes = chart("shop", "", &[("requirements.yaml", listed.as_bytes())]);
    assert_eq!(names(&unpacked(&bytes).unwrap()), ["old"]);
    assert!(unpacked(&chart("shop", "", &[])).unwrap().is_empty());
    for about in ["dependencies: 7\n", "dependencies: [web]\n"] {
        let error = unpacked(&chart("shop", about, &[])).unwrap_err();
        assert!(matches!(error, BadDependency::List), "{error}");
    }
    for name in ["", "../up", "_under", ".dot", "a/b"] {
        let error = unpacked(&chart("shop", &list(&[(&format!("'{name}'"), "1", "")]), &[]));
        assert!(matches!(error, Err(BadDependency::Name(_))), "{name}");
    }
    let many: Vec<String> = (0..=MOST).map(|number| format!("a{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1", "@stable")).collect();
    let error = unpacked(&chart("shop", &list(&many), &[])).unwrap_err();
    assert!(matches!(error, BadDependency::TooMany), "{error}");
    // Those that are packed do not count.
    let within = [("charts/a/Chart.yaml", &b"name: a0\n"[..])];
    assert_eq!(unpacked(&chart("shop", &list(&many), &within)).unwrap().len(), MOST);
}

#[test]
fn a_chart_with_more_charts_in_it_than_anybody_has_is_refused() {
    let paths: Vec<String> = (0..=CHARTS).map(|at| format!("charts/{at}/Chart.yaml")).collect();
    let files: Vec<_> = paths.iter().map(|path| (path.as_str(), &b"name: a\n"[..])).collect();
    assert!(unpacked(&chart("shop", "", &files[1..])).unwrap().is_empty());
    let error = unpacked(&chart("shop", "", &files)).unwrap_err().to_string();
    assert!(error.contains("more than 256 charts"), "{error}");
}

#[test]
fn what_may_be_secret_in_an_address_is_not_shown() {
    for (address, wanted) in [
        ("oci://me:hunter2@r.example:5000/charts/web", "oci://r.example:5000/charts/web"),
        ("https://charts.example/stable?token=hunter2", "https://charts.example/stable"),
        ("charts/web?token=hunter2", "charts/web"),
        ("charts/web#hunter2", "charts/web"),
        ("oci://me:hunter2/5@r.example/web", "an odd address"),
        ("@stable", "@stable"),
    ] {
        assert_eq!(shown(address), wanted);
    }
}

#[test]
fn a_lock_counts_where_all_of_it_fits() {
    let about = list(&[("a", "^1", "@stable"), ("b", "~2.1", "@stable")]);
    let locked = |b: &str| {
        let lock = list(&[("a", "1.2.0", "@stable"), ("b", b, "@stable")]);
        let bytes = chart("shop", &about, &[("Chart.lock", lock.as_bytes())]);
        let found = unpacked(&bytes).unwrap();
        found.into_iter().map(|one| one.locked.unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(locked("2.1.7"), ["1.2.0", "2.1.7"]);
    assert_eq!(locked("2.2.0"), ["", ""]);
}

#[tokio::test]
async fn a_repository_is_found_by_its_address_or_its_name() {
    let all = repositories();
    for (address, name, repository) in [
        ("https://charts.example/stable", "web", "stable"),
        ("https://Charts.example:443/stable//", "web", "stable"),
        ("https://charts.example/team", "web", "team"),
        ("@team", "web", "team"),
        ("alias:stable", "web", "stable"),
        ("@corp", "web", "corp"),
        ("oci://r.example:5000/charts", "web", "corp"),
        ("oci://r.example/a/", "web", "named"),
        ("oci://one.example", "solo", "one"),
    ] {
        let chosen = needs(name, "^1", address).chosen(&all).unwrap_or_else(|error| {
            panic!("{address}: {error}");
        });
        assert_eq!(chosen.repository.name(), repository, "{address}");
        assert_eq!((&*chosen.version.version, &*chosen.chart), ("1.10.0", name), "{address}");
        assert_eq!(chosen.file, format!("{name}-1.10.0.tgz"));
    }
    for address in [
        "http://charts.example/stable",
        "https://charts.example/",
        "https://charts.example/stable?a=hunter2",
        "https://me:hunter2@charts.example/stable",
        "https://me:hunter2@other.example",
        "@other",
        "oci://r.example:5000/other",
        "oci://r.example/b",
        "oci://r.example:5001/charts",
    ] {
        let error = needs("web", "^1", address).chosen(&all).map(|_| ()).unwrap_err();
        assert!(matches!(error, BadDependency::Unknown(..)), "{address}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let odd = |address: &str| needs("web", "^1", address).chosen(&all).map(|_| ()).unwrap_err();
    assert!(matches!(odd(""), BadDependency::Unpacked(_)));
    assert!(matches!(odd("file://../web"), BadDependency::Local(..)));
    for address in ["stable", "ftp://charts.example", "me:hunter2@charts.example"] {
        let error = odd(address);
        assert!(matches!(error, BadDependency::Address(..)), "{address}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_version_is_the_newest_in_the_range_or_the_locked_one() {
    let all = repositories();
    let of = |range: &str, locked: Option<&str>| {
        let locked = locked.map(str::to_owned);
        Dependency { locked, ..needs("web", range, "@stable") }.chosen(&all)
    };
    for (range, locked, wanted) in [
        ("*", None, "1.10.0"),
        ("~1.2", None, "1.2.0"),
        (">=1.0.0-0", None, "2.0.0-rc.1"),
        ("^1", Some("1.2.0"), "1.2.0"),
    ] {
        assert_eq!(&*of(range, locked).unwrap_or_else(|e| panic!("{e}")).version.version, wanted);
    }
    let error = of("^3", None).map(|_| ()).unwrap_err().to_string();
    for word in ["web", "stable", "^3", "1.10.0, 1.2.0"] {
        assert!(error.contains(word), "{word} in: {error}");
    }
    let error = of("^1", Some("1.3.0")).map(|_| ()).unwrap_err();
    assert!(matches!(error, BadDependency::NotLocked(..)), "{error}");
    let error = of("newest please", None).map(|_| ()).unwrap_err();
    assert!(matches!(error, BadDependency::Range(..)), "{error}");
    for locked in [None, Some("1.2.0")] {
        let error = of(" ", locked).map(|_| ()).unwrap_err();
        assert!(matches!(error, BadDependency::Range(..)), "{error}");
        assert!(error.to_string().contains("helm wants one"), "{error}");
    }
    let absent = |name, repository| {
        let error = needs(name, "^1", repository).chosen(&all).map(|_| ()).unwrap_err();
        assert!(matches!(error, BadDependency::NoChart(..)), "{error}");
        (error.is_away(), error.to_string())
    };
    assert!(!absent("db", "@stable").0);
    all[0].loaded.store(Arc::default());
    let (is_away, text) = absent("web", "@corp");
    assert!(is_away && text.contains("not read yet"), "{text}");
    let error = Some("it is down".to_owned());
    let status = Status { state: State::Failing, error, ..Status::default() };
    all[0].loaded.store(Arc::new(Loaded { status, ..Loaded::default() }));
    let (is_away, text) = absent("web", "@corp");
    assert!(is_away && text.contains("it is down"), "{text}");
}

#[tokio::test]
async fn a_reference_is_within_a_registry_that_is_configured() {
    let all = repositories();
    for within in [
        "oci://r.example:5000/charts/web:1",
        "oci://r.example:5000/charts/a/b@sha256:00",
        "oci://r.example:5000/charts/web",
        "oci://r.example/a/web:1@sha256:00",
        "oci://one.example/solo:1",
    ] {
        assert!(is_within(&all, within), "{within}");
    }
    for beyond in [
        "oci://r.example:5000/charted/web:1",
        "oci://r.example:5000/web:1",
        "oci://r.example/a/db:1",
        "oci://charts.example/stable/web:1",
        "https://r.example:5000/charts/web:1",
        "oci://",
    ] {
        assert!(!is_within(&all, beyond), "{beyond}");
    }
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut tar).unwrap();
    tar
}

#[test]
fn what_is_put_in_leaves_all_else_byte_for_byte() {
    let about = list(&[("db", "^1", "@stable")]);
    let before = chart("shop", &about, &[("values.yaml", b"a: 1\n"), ("odd name", b"x")]);
    let long = "d".repeat(120);
    let more = [
        ("db-1.0.0.tgz".to_owned(), chart("db", "", &[])),
        (format!("{long}-1.0.0.tgz"), chart(&long, "", &[])),
    ];
    let (archive, after) = packed("shop", &before, &more).unwrap();
    assert_eq!((archive.name.as_str(), archive.values.as_deref()), ("shop", Some("a: 1\n")));
    assert!(unpacked(&after).unwrap().is_empty());
    let end = usize::try_from(Held::of(&before).unwrap().end).unwrap();
    let (old, new) = (unzipped(&before), unzipped(&after));
    assert_eq!(old.len(), end + 1024);
    assert_eq!(new[..end], old[..end]);
    let mut found = tar::Archive::new(&new[end..]);
    let found = found.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, content)
    });
    let wanted = more.iter().map(|(file, one)| (format!("shop/charts/{file}"), one.to_vec()));
    assert!(found.eq(wanted));
}

#[test]
fn an_extension_that_nothing_follows_names_nothing_that_is_put_in() {
    let about = b"apiVersion: v2\nname: shop\nversion: 1.0.0\n";
    let mut tar = tar(&[("shop/Chart.yaml", about)]);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(11);
    header.set_cksum();
    tar.append(&header, &b"shop/other\0"[..]).unwrap();
    let before = zip(&tar.into_inner().unwrap());
    let more = [("db-1.0.0.tgz".to_owned(), chart("db", "", &[]))];
    let (_, after) = packed("shop", &before, &more).unwrap();
    assert!(Held::of(&after).unwrap().packed.contains("db"));
}

#[tokio::test]
async fn what_is_put_in_holds_what_it_needs_itself() {
    let web = needs("web", "^1", "@stable").chosen(&repositories());
    let web = web.unwrap_or_else(|error| panic!("{error}"));
    let whole = async |about: &str| {
        let bytes = chart("web", about, &[]);
        web.is_whole(&archive::inspect(&bytes).unwrap(), &bytes).await
    };
    assert!(whole("").await.is_ok());
    let about = list(&[("common", "1.x", "https://charts.example")]);
    let error = whole(&about).await.unwrap_err().to_string();
    for word in ["1.10.0 of web", "common"] {
        assert!(error.contains(word), "{word} in: {error}");
    }
}

#[test]
fn what_is_put_in_is_within_the_limits_of_a_chart() {
    let shop = chart("shop", &list(&[("db", "^1", "@stable")]), &[]);
    let noise: Vec<u8> = (0_u64..700_000)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).to_le_bytes())
        .collect();
    let (one, other) = (&noise[..3 << 20], &noise[2 << 20..5 << 20]);
    let large = chart("db", "", &[("one", one), ("other", other)]);
    assert!(large.len() > 5 << 20, "{} bytes", large.len());
    let error = packed("shop", &shop, &[("db-1.0.0.tgz".to_owned(), large)]).unwrap_err();
    assert!(matches!(error, BadDependency::Packed(BadArchive::File(..))), "{error}");
}
