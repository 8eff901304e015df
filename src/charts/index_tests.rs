//! Real index files, broken ones, and those of somebody who means harm.

use std::iter::repeat_n;

use super::super::catalogue::Catalogue;
use super::*;

/// As `helm repo index` and ChartMuseum write it.
const INDEX: &str = r#"apiVersion: v1
entries:
  web:
  - annotations:
      artifacthub.io/changes: |
        - kind: added
          description: "entries:\n- no entry"
    apiVersion: v2
    appVersion: "1.10"
    created: "2024-02-03T04:05:06.789012345+01:00"
    dependencies:
    - name: common
      repository: oci://registry.example.com/charts
      version: 2.x.x
    description: 'Serves: pages,
      on two lines'
    digest: 0d9f6f0e52b14c0e8b5d000000000000000000000000000000000000deadbeef
    home: https://example.com
    icon: https://example.com/icon.svg
    keywords:
    - http
    - pages
    maintainers:
    - email: ada@example.com
      name: Ada
    - name: Grace
    name: web
    type: application
    urls:
    - charts/web-1.10.0.tgz
    version: 1.10.0
  - {name: web, version: 1.9.0, deprecated: true, urls: [web-1.9.0.tgz]}
  empty: []
  nothing:
generated: "2024-02-03T04:05:06Z"
"#;

fn read_all(text: &[u8]) -> Result<(Catalogue, Summary), BadIndex> {
    let mut builder = Builder::new();
    let summary = read(text, &mut builder)?;
    Ok((builder.finish_counted().0, summary))
}

fn broken(text: &str) -> (usize, String) {
    match read_all(text.as_bytes()) {
        Err(BadIndex::Broken { line, words }) => (line, words),
        other => panic!("{other:?}"),
    }
}

fn check(catalogue: &Catalogue) {
    let [chart] = catalogue.charts.as_slice() else { panic!("{catalogue:?}") };
    assert_eq!(chart.name, "web");
    assert_eq!(&*chart.description, "Serves: pages, on two lines");
    assert_eq!(chart.home.as_deref(), Some("https://example.com"));
    assert_eq!(chart.icon.as_deref(), Some("https://example.com/icon.svg"));
    assert_eq!(chart.keywords.iter().map(|word| &**word).collect::<Vec<_>>(), ["http", "pages"]);
    assert_eq!(chart.maintainers.iter().map(|name| &**name).collect::<Vec<_>>(), ["Ada", "Grace"]);
    let [first, second] = &*chart.versions else { panic!("{chart:?}") };
    assert_eq!((first.version.as_str(), first.app_version.as_str()), ("1.10.0", "1.10"));
    assert_eq!(first.created, Some(1_706_929_506));
    assert_eq!(first.digest.map(|digest| digest[31]), Some(0xef));
    assert_eq!(first.urls.first(), Some("charts/web-1.10.0.tgz"));
    assert_eq!((second.version.as_str(), second.deprecated), ("1.9.0", true));
    assert!(!first.deprecated && !chart.deprecated);
}

#[test]
fn an_index_as_helm_writes_it_is_read_whole() {
    let (catalogue, summary) = read_all(INDEX.as_bytes()).unwrap();
    check(&catalogue);
    assert_eq!(summary, Summary { versions: 2, skipped: 0, reason: None });
}

#[test]
fn the_same_as_json_is_the_same() {
    let value: serde_json::Value = serde_saphyr::from_str(INDEX).unwrap();
    for text in [value.to_string(), format!("\u{feff} {value:#}\n")] {
        let (catalogue, summary) = read_all(text.as_bytes()).unwrap();
        check(&catalogue);
        assert_eq!(summary.versions, 2);
    }
}

#[test]
fn yaml_that_begins_with_a_brace_is_no_json() {
    let text = "{apiVersion: v1, entries: {web: [{name: web, version: 1.0.0}]}}";
    assert_eq!(read_all(text.as_bytes()).unwrap().0.versions(), 1);
}

#[test]
fn broken_entries_are_left_out_and_counted_and_the_first_is_named() {
    let text = "apiVersion: v1
entries:
  web:
  - {name: web, version: latest}
  - {version: 1.0.0}
  - null
  - a text
  - [a, list]
  - {name: web, version: [1, 2]}
  - {name: web, version: 1.0.0, keywords: {odd: yes}, urls: one.tgz, digest: short, created: never}
  ../../etc:
  - {name: web, version: 1.0.0}
  a/b:
  - {name: a/b, version: 1.0.0}
  odd: text
  odder: {a: b}
";
    let (catalogue, summary) = read_all(text.as_bytes()).unwrap();
    assert_eq!((summary.versions, summary.skipped), (1, 10));
    let reason = summary.reason.unwrap();
    assert!(reason.contains("\"web\"") && reason.contains("\"latest\""), "{reason}");
    let version = catalogue.version("web", "1.0.0").unwrap();
    assert_eq!(version.urls.first(), Some("one.tgz"));
    assert_eq!((version.digest, version.created), (None, None));
}

#[test]
fn a_broken_document_is_refused_with_its_line() {
    let (line, words) = broken("apiVersion: v1\nentries:\n  web:\n  - {name: web, version: [1\n");
    assert!(line >= 4 && !words.is_empty(), "{line}: {words}");
    let (line, words) = broken("{\"apiVersion\":\"v1\",\n\"entries\": {\"web\": [}}");
    assert!(line == 2 && !words.contains("line"), "{line}: {words}");
    broken("{\"apiVersion\":\"v1\"} trailing");
    for text in ["", "<!DOCTYPE html>\n<html><body>404</body></html>", "- a\n- b\n", "just text"] {
        assert!(read_all(text.as_bytes()).is_err(), "{text}");
    }
    let (_, words) = broken("apiVersion: v1\nentries: [a]\n");
    assert!(words.contains("charts"), "{words}");
}

#[test]
fn a_document_without_api_version_is_no_index() {
    for text in ["entries: {}", "{}", "{\"entries\":{}}", "apiVersion: \"\""] {
        assert!(matches!(read_all(text.as_bytes()), Err(BadIndex::NoApiVersion)), "{text}");
    }
    assert_eq!(read_all(b"apiVersion: v1\nentries:\n").unwrap().1, Summary::default());
}

#[test]
fn aliases_cost_nothing_and_are_no_entries() {
    let bomb = "apiVersion: v1
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
entries:
  web:
  - &first {name: web, version: 1.0.0, keywords: *c}
  - *first
  api: *c
";
    let (catalogue, summary) = read_all(bomb.as_bytes()).unwrap();
    assert_eq!((catalogue.versions(), summary.skipped), (1, 1));
    assert!(catalogue.charts[0].keywords.is_empty());
}

#[test]
fn deep_documents_are_refused() {
    let yaml = format!("apiVersion: v1\nx: {}", "[".repeat(100_000));
    assert!(read_all(yaml.as_bytes()).is_err());
    let block: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(read_all(block.as_bytes()).is_err());
    let json = format!("{{\"apiVersion\":\"v1\",\"x\":{}", "[".repeat(100_000));
    assert!(read_all(json.as_bytes()).is_err());
}

/// A beginning, and then the same for ever.
struct Endless<'a>(&'a [u8], &'a [u8], u64);

impl Read for Endless<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            self.0 = self.1;
        }
        let read = self.0.read(into)?;
        self.2 += read as u64;
        Ok(read)
    }
}

#[test]
fn a_value_without_end_is_given_up_long_before_it_fills_the_memory() {
    for start in ["apiVersion: v1\nx: \"", "apiVersion: v1\n#", r#"{"apiVersion": "v1", "x": ""#] {
        let mut endless = Endless(start.as_bytes(), b"aaaaaaaa", 0);
        let error = read(&mut endless, &mut Builder::new()).unwrap_err();
        assert!(matches!(error, BadIndex::LongValue), "{start}: {error}");
        assert!(endless.2 < APART + (1 << 20), "{start}: {}", endless.2);
    }
}

#[test]
fn ten_million_versions_end_in_a_sentence_and_not_in_the_memory() {
    let mut text = String::from(r#"{"apiVersion":"v1","entries":{"web":["#);
    for patch in 0..=super::super::catalogue::VERSIONS {
        text.push_str(&format!(r#"{{"name":"web","version":"1.0.{patch}"}},"#));
    }
    let mut endless = Endless(text.as_bytes(), br#"{"name":"web","version":"1.0.0"},"#, 0);
    let error = read(&mut endless, &mut Builder::new()).unwrap_err();
    assert!(matches!(error, BadIndex::Full(_)), "{error}");
    assert!(error.to_string().contains("100000"), "{error}");
}

#[test]
fn a_body_that_breaks_off_is_told_in_its_own_words() {
    struct Fails<'a>(&'a [u8]);
    impl Read for Fails<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::Error::other("the server went away")),
                read => Ok(read),
            }
        }
    }
    let json = "{\"apiVersion\":\"v1\",\"entries\":{}}";
    for text in [INDEX, &INDEX[..300], json, &json[..10], ""] {
        let error = read(Fails(text.as_bytes()), &mut Builder::new()).unwrap_err();
        assert!(error.to_string().contains("the server went away"), "{text}: {error}");
    }
}

#[test]
fn all_is_read_even_what_follows_the_document() {
    let rest: Vec<u8> = repeat_n(*b"...\n", 100_000).flatten().collect();
    let text = [INDEX.as_bytes(), b"---\n", &rest].concat();
    let mut left = text.as_slice();
    read(&mut left, &mut Builder::new()).unwrap();
    assert!(left.is_empty());
}
