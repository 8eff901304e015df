//! Order, bounds and what a chart says of itself.

use super::*;

fn entry(name: &str, version: &str) -> Entry {
    Entry { name: name.to_owned(), version: version.to_owned(), ..Entry::default() }
}

fn described(name: &str, version: &str, description: &str) -> Entry {
    Entry { description: description.to_owned(), ..entry(name, version) }
}

fn catalogue(entries: &[Entry]) -> Catalogue {
    let mut builder = Builder::new();
    for entry in entries {
        builder.add(entry).unwrap();
    }
    builder.finish_counted().0
}

fn versions_of<'a>(catalogue: &'a Catalogue, name: &str) -> Vec<&'a str> {
    let chart = catalogue.find(name).unwrap();
    chart.versions.iter().map(|version| version.version.as_str()).collect()
}

#[test]
fn charts_stand_by_name_and_versions_newest_first_whatever_order_they_come_in() {
    let mixed = [
        entry("web", "1.9.0"),
        entry("api", "0.1.0"),
        entry("web", "1.10.0"),
        entry("web", "v2"),
        entry("web", "2.0.0-rc.1"),
    ];
    let catalogue = catalogue(&mixed);
    let names: Vec<&str> = catalogue.charts.iter().map(|chart| chart.name.as_str()).collect();
    assert_eq!(names, ["api", "web"]);
    assert_eq!(versions_of(&catalogue, "web"), ["v2", "2.0.0-rc.1", "1.10.0", "1.9.0"]);
    assert_eq!(catalogue.versions(), 5);
    assert!(catalogue.find("we").is_none());
}

#[test]
fn the_latest_stable_is_no_prerelease_and_the_best_is_one_only_where_there_is_nothing_else() {
    let both = catalogue(&[entry("web", "2.0.0-rc.1"), entry("web", "1.0.0")]);
    let chart = both.find("web").unwrap();
    assert_eq!(chart.latest().unwrap().version, "2.0.0-rc.1");
    assert_eq!(chart.latest_stable().unwrap().version, "1.0.0");
    assert_eq!(chart.best().unwrap().version, "1.0.0");
    let early = catalogue(&[entry("web", "0.1.0-alpha")]);
    let chart = early.find("web").unwrap();
    assert_eq!(chart.latest_stable(), None);
    assert_eq!(chart.best().unwrap().version, "0.1.0-alpha");
}

#[test]
fn a_chart_says_what_its_newest_stable_version_says() {
    let told = [
        described("web", "1.0.0", "old"),
        described("web", "2.0.0", "stable"),
        described("web", "3.0.0-rc.1", "to come"),
        described("web", "1.5.0", "older"),
    ];
    assert_eq!(&*catalogue(&told).find("web").unwrap().description, "stable");
}

#[test]
fn of_a_version_that_comes_twice_the_first_counts() {
    let first = Entry { app_version: "first".to_owned(), ..entry("web", "1.0.0") };
    let second = Entry { app_version: "second".to_owned(), ..entry("web", "1.0.0") };
    let catalogue = catalogue(&[first, entry("web", "1.0.0+build"), second]);
    assert_eq!(versions_of(&catalogue, "web"), ["1.0.0+build", "1.0.0"]);
    assert_eq!(catalogue.version("web", "1.0.0").unwrap().app_version, "first");
}

#[test]
fn a_version_is_found_as_it_is_written_and_as_it_is_meant() {
    let catalogue = catalogue(&[entry("web", "v1.2.0")]);
    for text in ["v1.2.0", "1.2.0", "1.2"] {
        assert_eq!(catalogue.version("web", text).unwrap().version, "v1.2.0", "{text}");
    }
    assert_eq!(catalogue.version("web", "1.2.1"), None);
    assert_eq!(catalogue.version("api", "1.2.0"), None);
}

#[test]
fn another_build_is_another_version() {
    let catalogue = catalogue(&[entry("web", "v1.0.0+1"), entry("web", "1.0.0+2")]);
    let chart = catalogue.find("web").unwrap();
    let text = |version: Option<&Version>| version.map(|version| version.version.to_string());
    for (asked, meant) in [
        ("v1.0.0+1", Some("v1.0.0+1")),
        ("1.0.0+1", Some("v1.0.0+1")),
        ("v1+2", Some("1.0.0+2")),
        ("1.0.0+3", None),
        ("1.0.0", None),
    ] {
        assert_eq!(text(chart.version(asked)).as_deref(), meant, "{asked}");
        let written = meant.filter(|meant| *meant == asked);
        assert_eq!(text(chart.written(asked)).as_deref(), written, "{asked}");
    }
}

#[test]
fn names_that_lead_elsewhere_and_versions_that_are_none_are_rejected() {
    let mut builder = Builder::new();
    let long = "a".repeat(300);
    let bad = ["", ".", "..", "../web", "a//b", "/web", "web/", "we b", "wéb", "a\\b", &*long];
    for name in bad {
        assert!(matches!(builder.add(&entry(name, "1.0.0")), Err(Rejected::Name(_))), "{name}");
    }
    for version in ["", "latest", "1.2.3.4", "../1.0.0"] {
        let added = builder.add(&entry("web", version));
        assert!(matches!(added, Err(Rejected::Version(..))), "{version}");
    }
    builder.add(&entry("stable/web", "1.0.0")).unwrap();
    assert_eq!(builder.finish_counted().0.versions(), 1);
}

#[test]
fn texts_are_cut_between_characters_and_long_addresses_left_out() {
    let long = Entry {
        description: "é".repeat(5_000),
        icon: format!("data:image/png;base64,{}", "A".repeat(5_000)),
        home: " https://example.com ".to_owned(),
        keywords: vec!["k".repeat(500); 100],
        maintainers: vec![String::new(), "Ada".to_owned()],
        urls: vec!["a.tgz".to_owned(); 100],
        app_version: "9".repeat(500),
        ..entry("web", "1.0.0")
    };
    let catalogue = catalogue(&[long]);
    let chart = catalogue.find("web").unwrap();
    assert_eq!(chart.description.len(), 1024);
    assert_eq!(chart.icon, None);
    assert_eq!(chart.home.as_deref(), Some("https://example.com"));
    assert_eq!((chart.keywords.len(), chart.keywords[0].len()), (32, 128));
    assert_eq!(chart.maintainers.len(), 1);
    let version = &chart.versions[0];
    assert_eq!((version.urls.iter().count(), version.app_version.len()), (4, 128));
}

#[test]
fn a_repository_with_too_many_versions_is_full_and_says_so() {
    let mut builder = Builder::new();
    for patch in 0..VERSIONS {
        builder.add(&entry("web", &format!("1.0.{patch}"))).unwrap();
    }
    let full = builder.add(&entry("web", "2.0.0")).unwrap_err();
    assert_eq!(full, Rejected::Full);
    assert!(full.to_string().contains("100000 versions"), "{full}");
}

#[test]
fn of_a_chart_with_too_many_versions_the_newest_are_kept_and_the_others_counted() {
    let mut builder = Builder::new();
    for patch in 0..CHART_VERSIONS + 3 {
        builder.add(&entry("web", &format!("1.0.{patch}"))).unwrap();
    }
    builder.add(&entry("web", "1.0.0")).unwrap();
    builder.add(&entry("api", "1.0.0")).unwrap();
    let (catalogue, left_out) = builder.finish_counted();
    assert_eq!((catalogue.versions(), left_out), (CHART_VERSIONS + 1, 3));
    let versions = versions_of(&catalogue, "web");
    assert_eq!((versions[0], versions[CHART_VERSIONS - 1]), ("1.0.5002", "1.0.3"));
    let uploaded = catalogue.with(&entry("web", "2.0.0")).unwrap();
    assert_eq!(uploaded.versions(), CHART_VERSIONS + 1);
    assert_eq!(versions_of(&uploaded, "web")[0], "2.0.0");
}

#[test]
fn a_catalogue_knows_about_how_much_text_it_has() {
    let one = Entry { urls: vec!["web.tgz".to_owned()], ..described("web", "1.0.0", "a shop") };
    assert_eq!(catalogue(&[one]).text(), "web".len() + "a shop".len() + "1.0.0web.tgz".len() + 16);
    assert_eq!(Catalogue::default().text(), 0);
}

#[test]
fn a_repository_with_too_much_text_is_full_before_it_has_too_many_versions() {
    let mut builder = Builder::new();
    let urls = vec!["u".repeat(2048); 4];
    let full = (0..VERSIONS).find_map(|patch| {
        let entry = Entry { urls: urls.clone(), ..entry("web", &format!("1.0.{patch}")) };
        builder.add(&entry).err()
    });
    assert_eq!(full, Some(Rejected::Full));
}

#[test]
fn an_uploaded_version_is_there_at_once_and_a_deleted_one_is_not() {
    let before = catalogue(&[described("web", "1.0.0", "old"), entry("api", "1.0.0")]);
    let uploaded = Entry { digest: Some([1; 32]), ..described("web", "1.1.0", "new") };
    let after = before.with(&uploaded).unwrap();
    assert_eq!(versions_of(&after, "web"), ["1.1.0", "1.0.0"]);
    assert_eq!(&*after.find("web").unwrap().description, "new");
    assert_eq!(after, after.with(&uploaded).unwrap());
    let older = after.with(&described("web", "0.5.0", "ancient")).unwrap();
    assert_eq!(versions_of(&older, "web"), ["1.1.0", "1.0.0", "0.5.0"]);
    assert_eq!(&*older.find("web").unwrap().description, "new");
    let new = before.with(&entry("mid", "1.0.0")).unwrap();
    assert_eq!(new.charts.len(), 3);
    assert!(new.find("mid").is_some() && new.find("web").is_some());
    assert_eq!(versions_of(&after.without("web", "1.1.0"), "web"), ["1.0.0"]);
    assert!(before.without("api", "1.0.0").find("api").is_none());
    assert!(before.with(&entry("web", "none")).is_err());
}

#[test]
fn a_digest_is_read_with_and_without_its_kind() {
    let digits = "ab".repeat(32);
    assert_eq!(sha256(&digits), Some([0xab; 32]));
    assert_eq!(sha256(&format!("sha256:{}", digits.to_uppercase())), Some([0xab; 32]));
    let (wide, signed) = ("é".repeat(32), format!("+{}", &digits[1..]));
    for text in ["", "sha256:", "abc", wide.as_str(), signed.as_str()] {
        assert_eq!(sha256(text), None, "{text}");
    }
}

#[test]
fn addresses_stay_in_their_order_and_have_no_line_breaks() {
    let urls: Urls = ["a.tgz", "https://b.example/\na.tgz"].iter().collect();
    assert_eq!(urls.iter().collect::<Vec<_>>(), ["a.tgz", "https://b.example/a.tgz"]);
    assert_eq!((urls.first(), Urls::default().first()), (Some("a.tgz"), None));
}

#[test]
fn versions_of_a_chart_may_stand_apart() {
    let apart = [entry("web", "1.0.0"), entry("api", "1.0.0"), entry("web", "1.1.0")];
    assert_eq!(versions_of(&catalogue(&apart), "web"), ["1.1.0", "1.0.0"]);
}

#[test]
fn what_is_kept_of_a_version_stays_small() {
    assert!(size_of::<Version>() <= 120, "{}", size_of::<Version>());
}
