//! A web frontend served from a directory, over HTTPS: languages, compressed files, ETags, pages of
//! the UI, what lies outside, the base path.
//! It is NOT about the frontend's own calls (`web.rs`).

use std::fs;
use std::path::Path;

use http::Method;

use crate::gateway::{self, Answer, Gateway, Options};

const LOCALES: [&str; 4] = ["en", "de", "zh-Hans", "zh-Hant"];
const INDEX_RULES: &str = "no-cache, no-store, must-revalidate";

/// A frontend in four languages, and a secret beside it.
fn frontend() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("public");
    fs::write(write_folder(folder.path(), "beside").join("secret.txt"), "secret").unwrap();
    for tag in LOCALES {
        let locale = write_folder(&root, tag);
        let write = |name: &str, text: &str| fs::write(locale.join(name), text).unwrap();
        write("index.html", &format!("<p>{tag}</p>"));
        write("main.js", &format!("plain {tag}"));
        write("main.js.br", &format!("br {tag}"));
        write("main.js.gz", &format!("gz {tag}"));
        write("styles.css", "p {}");
        write("data", "?");
        write(".env", "secret");
        fs::write(write_folder(&locale, "assets/config").join("config.json"), "{}").unwrap();
        let secret = folder.path().join("beside/secret.txt");
        std::os::unix::fs::symlink(secret, locale.join("link.txt")).unwrap();
        std::os::unix::fs::symlink(folder.path(), locale.join("links")).unwrap();
    }
    folder
}

fn write_folder(root: &Path, name: &str) -> std::path::PathBuf {
    let folder = root.join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

async fn start(folder: &tempfile::TempDir, more: &[&str]) -> Gateway {
    let root = folder.path().join("public").display().to_string();
    let mut extra = vec!["--static-dir".to_owned(), root];
    extra.extend(more.iter().map(|text| (*text).to_owned()));
    gateway::start(Options { extra, shared_cache: false, ..Options::default() }).await
}

async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.request(Method::GET, None, path, headers, Vec::new()).await
}

#[tokio::test]
async fn each_request_gets_the_language_of_its_sender() {
    let folder = frontend();
    let gateway = start(&folder, &[]).await;
    for (cookie, accept, tag) in [
        ("", "de-DE,de;q=0.9,en;q=0.8", "de"),
        ("", "zh-TW", "zh-Hant"),
        ("", "zh-HK", "zh-Hant"),
        ("", "zh-CN,zh;q=0.9", "zh-Hans"),
        ("", "fr, de;q=0.1", "de"),
        ("", "fr", "en"),
        ("", "", "en"),
        ("lang=de", "zh-TW", "de"),
        ("token=x; lang=zh-Hant", "de", "zh-Hant"),
        ("lang=tlh", "de", "de"),
        ("lang=../../beside", "de", "de"),
    ] {
        let headers: Vec<_> = [("cookie", cookie), ("accept-language", accept)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let page = get(&gateway, "/", &headers).await;
        assert_eq!(page.text(), format!("<p>{tag}</p>"), "{cookie} {accept}");
        assert_eq!(page.header("cache-control"), INDEX_RULES);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        for name in ["Accept-Language", "Cookie"] {
            assert!(page.header("vary").contains(name), "{}", page.header("vary"));
        }
        let script = get(&gateway, "/main.js", &headers).await;
        assert_eq!(script.text(), format!("plain {tag}"), "{cookie} {accept}");
    }
    gateway.stop().await;
    let gateway = start(&folder, &["--static-locale", "de"]).await;
    assert_eq!(get(&gateway, "/", &[("accept-language", "zh-TW")]).await.text(), "<p>de</p>");
    let chosen = get(&gateway, "/", &[("cookie", "lang=en")]).await;
    assert_eq!(chosen.text(), "<p>en</p>");
    gateway.stop().await;
}

#[tokio::test]
async fn compressed_files_are_sent_to_those_who_take_them() {
    let folder = frontend();
    let gateway = start(&folder, &[]).await;
    for (accept, coding, text) in [
        ("gzip, deflate, br", "br", "br en"),
        ("gzip", "gzip", "gz en"),
        ("br;q=0.1, gzip", "gzip", "gz en"),
        ("identity", "", "plain en"),
        ("br;q=0", "", "plain en"),
    ] {
        let script = get(&gateway, "/main.js", &[("accept-encoding", accept)]).await;
        let coded = script.header("content-encoding");
        assert_eq!((coded, script.text().as_str()), (coding, text), "{accept}");
        assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
        assert!(script.header("vary").contains("Accept-Encoding"));
    }
    let styles = get(&gateway, "/styles.css", &[("accept-encoding", "br, gzip")]).await;
    assert_eq!((styles.header("content-encoding"), styles.text().as_str()), ("", "p {}"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_file_that_is_known_is_not_sent_again_but_that_of_another_language_is() {
    let folder = frontend();
    let gateway = start(&folder, &[]).await;
    let first = get(&gateway, "/styles.css", &[]).await;
    assert_eq!((first.status, first.header("cache-control")), (200, "no-cache"));
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with("\"en-"), "{tag}");
    let weak = format!("\"x\", W/{tag}");
    for known in [tag.as_str(), weak.as_str(), "*"] {
        let again = get(&gateway, "/styles.css", &[("if-none-match", known)]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
        assert_eq!(again.header("etag"), tag);
    }
    // The same bytes, but its language is another.
    let headers = [("if-none-match", tag.as_str()), ("cookie", "lang=de")];
    assert_eq!(get(&gateway, "/styles.css", &headers).await.status, 200);
    let plain = get(&gateway, "/main.js", &[]).await.header("etag").to_owned();
    let headers = [("if-none-match", plain.as_str()), ("accept-encoding", "br")];
    assert_eq!(get(&gateway, "/main.js", &headers).await.status, 200);

    let head = gateway.request(Method::HEAD, None, "/styles.css", &[], Vec::new()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!((head.header("content-length"), head.header("etag")), ("4", tag.as_str()));
    fs::write(folder.path().join("public/en/styles.css"), "p { color: red }").unwrap();
    let changed = get(&gateway, "/styles.css", &[("if-none-match", tag.as_str())]).await;
    assert_eq!((changed.status, changed.text().as_str()), (200, "p { color: red }"));
    gateway.stop().await;
}

#[tokio::test]
async fn pages_of_the_ui_are_its_index_and_other_paths_are_not_found() {
    let folder = frontend();
    let gateway = start(&folder, &[]).await;
    for path in ["/", "/index.html", "/workloads", "/pod/atlas/tiles-1?a=b", "/%E4%B8%AD"] {
        let page = get(&gateway, path, &[]).await;
        assert_eq!((page.status, page.text().as_str()), (200, "<p>en</p>"), "{path}");
        assert_eq!(page.header("cache-control"), INDEX_RULES, "{path}");
    }
    let config = get(&gateway, "/assets/config/config.json", &[]).await;
    assert_eq!((config.status, config.text().as_str()), (200, "{}"));
    let unknown = get(&gateway, "/data", &[]).await;
    assert_eq!(unknown.header("content-type"), "application/octet-stream");
    assert_eq!(unknown.header("x-content-type-options"), "nosniff");
    for path in [
        "/k8s/assets/config/config.json",
        "/assets/none",
        "/chunk.12345678.js",
        "/api",
        "/api/v2/pod",
        "/api/v1/colour",
        "/settings/colour",
        "/clusters",
    ] {
        let answer = get(&gateway, path, &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, "404: Page Not Found"), "{path}");
    }
    let slash = get(&gateway, "/workloads/", &[]).await;
    assert_eq!(slash.status, 404);
    assert_eq!(slash.json()["ErrStatus"]["code"], 404);
    let posted = gateway.request(Method::POST, None, "/workloads", &[], Vec::new()).await;
    assert_eq!(posted.status, 404);
    assert_eq!(get(&gateway, "/config", &[]).await.header("content-type"), "application/json");
    assert_eq!(get(&gateway, "/livez", &[]).await.text(), "ok");
    gateway.stop().await;
}

#[tokio::test]
async fn nothing_outside_the_directory_and_no_hidden_file_is_served() {
    let folder = frontend();
    let gateway = start(&folder, &[]).await;
    for path in [
        "/link.txt",
        "/links/beside/secret.txt",
        "/../beside/secret.txt",
        "/../../beside/secret.txt",
        "/%2e%2e/%2e%2e/beside/secret.txt",
        "/..%2f..%2fbeside%2fsecret.txt",
        "/assets/../../../beside/secret.txt",
        "/..%5c..%5cbeside%5csecret.txt",
        "//etc/passwd",
        "/.env",
        "/%2eenv",
        "/main.js%00.txt",
        "/%ff",
    ] {
        let answer = get(&gateway, path, &[]).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(!answer.text().contains("secret"), "{path}: {}", answer.text());
    }
    let long = format!("/{}.js", "n".repeat(300));
    assert_eq!(get(&gateway, &long, &[]).await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn under_a_base_path_the_ui_finds_it_by_its_probe() {
    let folder = frontend();
    let gateway = start(&folder, &["--base-path", "/ops/dash"]).await;
    for (path, status) in [
        ("/assets/config/config.json", 404),
        ("/ops/assets/config/config.json", 404),
        ("/ops/dash/assets/config/config.json", 200),
        ("/ops/dash/pod/assets/config/config.json", 404),
        ("/ops/dash/", 200),
        ("/ops/dash/workloads", 200),
        ("/ops/dash/config", 200),
        ("/ops/dash/ops/dash/.env", 404),
        ("/ops/dashboard", 404),
        ("/", 404),
    ] {
        let answer = get(&gateway, path, &[]).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let bare = get(&gateway, "/ops/dash", &[]).await;
    assert_eq!((bare.status, bare.header("location")), (307, "/ops/dash/"));
    // Behind a proxy that takes off a prefix, and with what else the address says.
    let outer = ("x-forwarded-prefix", "/outer");
    let bare = get(&gateway, "/ops/dash?a=b&c", &[outer]).await;
    assert_eq!((bare.status, bare.header("location")), (307, "/outer/ops/dash/?a=b&c"));
    let link = format!("/ops/dash/?token={}", gateway.local_token.as_ref().unwrap());
    let signed = get(&gateway, &link, &[outer]).await;
    assert_eq!((signed.status, signed.header("location")), (303, "/outer/ops/dash/"));
    let cookie = signed.header("set-cookie");
    assert!(cookie.contains("; Path=/outer/ops/dash/;"), "{cookie}");
    assert_eq!(get(&gateway, "/ops/dash/main.js", &[]).await.text(), "plain en");
    // Its root is a route like any other, with and without the slash.
    for path in ["/ops/dash", "/ops/dash/"] {
        let posted = gateway.request(Method::POST, None, path, &[], Vec::new()).await;
        let said = posted.text();
        assert_eq!((posted.status, said.as_str()), (405, "405: Method Not Allowed"), "{path}");
        assert!(!posted.header("x-request-id").is_empty(), "{path}: {:?}", posted.headers);
    }
    let page = get(&gateway, "/ops/dash/", &[]).await;
    assert!(!page.header("x-request-id").is_empty(), "{:?}", page.headers);
    let metrics = gateway.get("admin", "/ops/dash/metrics").await.text();
    assert!(metrics.contains(r#"route="/ops/dash/",method="GET""#), "{metrics}");
    gateway.stop().await;
}
