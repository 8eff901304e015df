//! Which folder, which file, which coding: over a folder on disk, without HTTP.

use super::*;

const STOCK: [&str; 9] = ["de", "en", "es", "fr", "ja", "ko", "zh-Hans", "zh-Hant", "zh-Hant-HK"];

fn build(tags: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for tag in tags {
        std::fs::create_dir(root.path().join(tag)).unwrap();
        std::fs::write(root.path().join(tag).join(INDEX), tag).unwrap();
    }
    root
}

fn chosen(statics: &Statics, cookie: &str, accept: &str) -> String {
    let mut headers = HeaderMap::new();
    for (name, value) in [(header::COOKIE, cookie), (header::ACCEPT_LANGUAGE, accept)] {
        if !value.is_empty() {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
    }
    statics.choose(&headers).tag.clone()
}

#[test]
fn the_nearest_build_is_chosen_for_every_way_to_name_a_language() {
    let root = build(&STOCK);
    let statics = Statics::open(root.path(), None, "en").unwrap();
    for (accept, tag) in [
        ("de", "de"),
        ("de-DE", "de"),
        ("DE-at;q=0.8", "de"),
        ("zh", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zh-SG", "zh-Hans"),
        ("zh-TW", "zh-Hant"),
        ("zh-HK", "zh-Hant-HK"),
        ("zh-Hant", "zh-Hant"),
        ("zh-Hant-HK", "zh-Hant-HK"),
        ("zh-Hant-TW", "zh-Hant"),
        ("xx, fr-CA;q=0.5, ja;q=0.4", "fr"),
        ("ja;q=0.4, ko;q=0.9", "ko"),
        ("de;q=0, es", "es"),
        ("*", "en"),
        ("xx", "en"),
        ("", "en"),
        (",;=", "en"),
    ] {
        assert_eq!(chosen(&statics, "", accept), tag, "{accept}");
    }
}

#[test]
fn the_cookie_wins_then_the_configuration_then_the_browser() {
    let root = build(&STOCK);
    let statics = Statics::open(root.path(), None, "de").unwrap();
    assert_eq!(chosen(&statics, "token=x; lang=fr", "ja"), "fr");
    assert_eq!(chosen(&statics, "lang=zh-TW", "ja"), "zh-Hant");
    for useless in ["lang=", "lang=xx", "lang=../en", "language=fr"] {
        assert_eq!(chosen(&statics, useless, "ja"), "ja", "{useless}");
    }
    assert_eq!(chosen(&statics, "", "xx"), "de");
    let statics = Statics::open(root.path(), Some("ko"), "en").unwrap();
    assert_eq!(chosen(&statics, "", "ja"), "ko");
    assert_eq!(chosen(&statics, "lang=fr", "ja"), "fr");
}

#[test]
fn a_build_without_languages_serves_everybody_and_none_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let error = Statics::open(root.path(), None, "en").err().unwrap();
    assert!(error.to_string().contains(INDEX), "{error}");
    std::fs::write(root.path().join(INDEX), "one").unwrap();
    let statics = Statics::open(root.path(), None, "en").unwrap();
    assert_eq!(chosen(&statics, "lang=de", "fr"), "");
}

#[test]
fn ways_out_hidden_files_and_our_own_routes_are_not_looked_for() {
    for path in [
        "..",
        "../x",
        "a/../b",
        "%2e%2e/x",
        "a%2f..%2fb",
        "a//b",
        "/etc/passwd",
        ".git/config",
        "a/.env",
        "a%00",
        "a\\b",
        "%5c..",
        "%ff",
        "api/v2/pod",
        "clusters/x",
        "settings/x",
    ] {
        assert!(names_of(path).is_none(), "{path}");
    }
    assert_eq!(names_of("a/b%20c.js").unwrap(), ["a", "b c.js"]);
    assert!(names_of("").unwrap().is_empty());
}

#[test]
fn what_looks_like_a_file_is_no_page_of_the_ui() {
    let page = |path: &str| is_page(&names_of(path).unwrap());
    assert!(page(""));
    assert!(page("workloads"));
    assert!(page("deployment/atlas/tiles-1.2"));
    for file in ["k8s/assets/config/config.json", "assets/logo", "main.1234.js", "favicon.ico"] {
        assert!(!page(file), "{file}");
    }
}

#[test]
fn the_best_coding_that_is_accepted_comes_first() {
    let found = |accept: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
        codings(&headers).into_iter().map(|(coding, _)| coding).collect::<Vec<_>>()
    };
    assert_eq!(found("gzip, deflate, br"), ["br", "gzip"]);
    assert_eq!(found("gzip;q=1.0, br;q=0.5"), ["gzip", "br"]);
    assert_eq!(found("br;q=0, *"), ["gzip"]);
    assert_eq!(found("GZIP"), ["gzip"]);
    for none in ["", "identity", "deflate", "br;q=x", "gzip;q=NaN"] {
        assert!(found(none).is_empty(), "{none}");
    }
    assert!(codings(&HeaderMap::new()).is_empty());
}

#[tokio::test]
async fn a_changed_file_is_read_again_and_a_link_is_followed_only_inside() {
    let (root, outside) = (build(&["en"]), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    let folder = root.path().join("en");
    std::os::unix::fs::symlink(outside.path().join("secret.txt"), folder.join("out.txt")).unwrap();
    std::os::unix::fs::symlink(INDEX, folder.join("in.txt")).unwrap();
    let statics = Statics::open(root.path(), None, "en").unwrap();
    let read = async |name: &str| {
        let found = statics.find(&statics.folders[0], &[name.into()], "x", &[]).await.unwrap();
        found.map(|found| found.file.content.clone())
    };
    assert_eq!(read("in.txt").await.as_deref(), Some(b"en".as_slice()));
    assert_eq!(read("out.txt").await, None);
    assert_eq!(read("none.txt").await, None);
    assert_eq!(read(&"n".repeat(300)).await, None);
    std::fs::write(folder.join(INDEX), "longer").unwrap();
    assert_eq!(read("in.txt").await.as_deref(), Some(b"longer".as_slice()));
}
