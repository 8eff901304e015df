//! Versions and ranges; the tables are those of constraints_test.go of Masterminds' semver v3.

use super::*;

fn contains(range: &str, version: &str) -> bool {
    Range::parse(range).unwrap_or_else(|error| panic!("{error}")).contains(version)
}

fn list(versions: &[&str]) -> Vec<Version> {
    let version = |text: &&str| Version { version: (*text).into(), ..Version::default() };
    versions.iter().map(version).collect()
}

fn newest_of<'a>(versions: &'a [Version], range: &str) -> Option<&'a str> {
    newest(versions, range).map(|version| version.version.as_str())
}

#[test]
fn a_v_missing_parts_and_leading_zeros_are_forgiven() {
    for (text, meant) in [("v1", "1.0.0"), ("1.2", "1.2.0"), ("01.02.3", "1.2.3"), ("v0", "0.0.0")]
    {
        assert_eq!(order(text), order(meant), "{text}");
        assert!(order(text).is_some(), "{text}");
    }
    let bad = ["", "v", "1.", ".1", "1.2.3.4", "a", "1.2.3-", "1.2.3+", "1.2.3-01", "1.2.3-a..b"];
    for text in bad {
        assert_eq!(order(text), None, "{text}");
    }
    assert_eq!(order(&format!("1.0.0-{}", "a".repeat(300))), None);
    assert_eq!(order("1.99999999999999999999.0"), None);
}

#[test]
fn precedence_is_that_of_semantic_versions_and_build_metadata_has_none() {
    let rising = ["0.9", "1.0.0-a", "1.0.0-a.1", "1.0.0-a.b", "1.0.0-b.2", "1.0.0-b.11"];
    for pair in rising.windows(2) {
        assert!(order(pair[0]) < order(pair[1]), "{pair:?}");
    }
    assert!(order("1.0.0-rc.1") < order("1.0.0"));
    assert_eq!(order("1.0.0+a"), order("1.0.0+b"));
}

#[test]
fn ranges_hold_what_they_hold_in_helm() {
    let cases = [
        ("=2.0.0", "1.2.3", false),
        ("=2.0", "2.0.5", true),
        ("4.1", "4.1.3", true),
        ("1.x", "1.4", true),
        ("*", "4.5.0", true),
        ("*", "1.0.0-rc.1", false),
        ("*-0", "1.0.0-rc.1", true),
        ("!=4.1", "4.1.3", false),
        ("!=4.x", "5.1.0", true),
        ("!=4.2.x", "4.2.3", false),
        (">1.1", "1.1.9", false),
        (">1.1", "1.2.0", true),
        (">11", "11.1.0", false),
        (">11", "12.0.0", true),
        (">=1.1", "1.1.0", true),
        ("=>1.1", "0.9.0", false),
        ("<=11", "11.9.9", true),
        ("=<11", "12.0.0", false),
        ("<=1.1", "1.1.9", true),
        ("<2.1", "2.0.9", true),
        ("<0", "0.0.0-alpha", false),
        ("~1.2.3", "1.2.9", true),
        ("~1.2.3", "1.3.0", false),
        ("~1", "1.9.9", true),
        ("~>1.2", "1.3.0", false),
        ("~0.0.0", "7.0.0", true),
        ("^1.2.3", "1.9.0", true),
        ("^1.2.3", "2.0.0", false),
        ("^0.2.3", "0.2.9", true),
        ("^0.2.3", "0.3.0", false),
        ("^0.0.3", "0.0.4", false),
        ("^0.0", "0.0.9", true),
        ("^0", "0.9.0", true),
        ("^0", "1.0.0", false),
        ("1.1 - 2", "2.9.0", true),
        ("1.1 - 2.0.0", "2.0.1", false),
        (">=1.1, <2, !=1.2.3", "1.2.3", false),
        (">=1.1 <2 !=1.2.3", "1.2.4", true),
        (">=1.1, <2, !=1.2.3 || > 3", "4.1.2", true),
        ("^1.2 || ^3", "2.0.0", false),
        (">= 1.0.0-alpha", "1.0.0-beta", true),
        ("> 1.0.0", "1.0.1-rc.1", false),
        ("v1.2.3", "1.2.3+build", true),
        ("", "1.0.0", true),
        ("", "1.0.0-rc", false),
    ];
    for (range, version, held) in cases {
        assert_eq!(contains(range, version), held, "{version} in {range}");
    }
}

#[test]
fn what_is_no_range_is_told_so() {
    let bad = ["a", ">", "1.2.3.4", ">=1.0<2.0", "1,", "||", "1 -", "- 1", "1 ||", "^^1", ">1 - 2"];
    for text in bad {
        let error = Range::parse(text).unwrap_err();
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
    assert!(Range::parse(&"1".repeat(2_000)).is_err());
}

#[test]
fn the_newest_is_the_first_stable_one_unless_a_prerelease_is_asked_for() {
    let versions = list(&["2.0.0-rc.1", "1.10.0", "1.9.0", "0.1.0"]);
    assert_eq!(newest_of(&versions, ""), Some("1.10.0"));
    assert_eq!(newest_of(&versions, "^1"), Some("1.10.0"));
    assert_eq!(newest_of(&versions, "<1.10"), Some("1.9.0"));
    assert_eq!(newest_of(&versions, ">0-0"), Some("2.0.0-rc.1"));
    assert_eq!(newest_of(&versions, "2.0.0-rc.1"), Some("2.0.0-rc.1"));
    assert_eq!(newest_of(&versions, "3"), None);
    assert_eq!(newest_of(&versions, "rubbish"), None);
}

#[test]
fn a_version_written_just_so_goes_before_one_that_means_the_same() {
    let versions = list(&["1.0.0+b", "1.0.0+a"]);
    assert_eq!(newest_of(&versions, "1.0.0+a"), Some("1.0.0+a"));
    assert_eq!(newest_of(&versions, "1.0.0"), Some("1.0.0+b"));
}
