//! The index of a large repository of charts: 2,000 charts with 20 versions each, some 50 MB.
//!
//! Made up, with entries as long as those of the well-known repositories.

use std::fmt::Write as _;
use std::io::Write;

pub const CHARTS: usize = 2_000;
pub const VERSIONS: usize = 20;
pub const WORDS: [&str; 12] = [
    "proxy", "queue", "cache", "store", "mesh", "gate", "mail", "forge", "index", "vault", "graph",
    "relay",
];

/// As `helm repo index` writes it. All versions begin with `major` or a little more.
pub fn yaml(out: &mut impl Write, major: usize) {
    out.write_all(b"apiVersion: v1\nentries:\n").unwrap();
    for number in 0..CHARTS {
        out.write_all(yaml_chart(number, major).as_bytes()).unwrap();
    }
    out.write_all(b"generated: \"2026-01-01T00:00:00Z\"\n").unwrap();
}

/// The same as JSON in one line.
pub fn json(out: &mut impl Write) {
    out.write_all(br#"{"apiVersion":"v1","entries":{"#).unwrap();
    for number in 0..CHARTS {
        out.write_all(json_chart(number).as_bytes()).unwrap();
    }
    out.write_all(b"\"none\":[]}}\n").unwrap();
}

/// Of the chart with this number.
pub fn name(number: usize) -> String {
    let (first, second) = (WORDS[number % 12], WORDS[number / 12 % 12]);
    format!("{first}-{second}-{number}")
}

fn digest(number: usize, version: usize) -> String {
    format!("{:064x}", (number * VERSIONS + version + 1) as u128 * 0x9e37_79b9_7f4a_7c15)
}

fn version(number: usize, major: usize) -> String {
    format!("{}.{}.{}", major + number / 8, number % 8, number % 3)
}

/// With the annotations that Artifact Hub asks for.
fn yaml_chart(number: usize, major: usize) -> String {
    let (name, word) = (name(number), WORDS[number % 12]);
    let mut text = format!("  {name}:\n");
    for release in (0..VERSIONS).rev() {
        let (version, digest) = (version(release, major), digest(number, release));
        let maintainer = number % 50;
        write!(
            text,
            "  - annotations:
      artifacthub.io/changes: |
        - kind: changed
          description: Settings of the {word} are checked before it starts, see its documentation
        - kind: fixed
          description: \"A replica that was away too long is filled anew: {release}\"
      artifacthub.io/license: Apache-2.0
    apiVersion: v2
    appVersion: \"{version}\"
    created: \"2025-{:02}-{:02}T03:04:05.678901234Z\"
    dependencies:
    - condition: database.enabled
      name: database
      repository: https://charts.example.com/stable
      version: 12.x.x
    - name: common
      repository: oci://registry.example.com/charts
      version: 2.x.x
    description: A replicated {word} with metrics, backups and a small web page of its own
    digest: {digest}
    home: https://example.com/{name}
    icon: https://example.com/icons/{name}.svg
    keywords:
    - {word}
    - replicated
    - metrics
    maintainers:
    - email: maintainer{maintainer}@example.com
      name: maintainer{maintainer}
    name: {name}
    sources:
    - https://git.example.com/{name}
    type: application
    urls:
    - https://charts.example.com/archives/{name}-{version}.tgz
    version: {version}
",
            release % 12 + 1,
            release % 28 + 1,
        )
        .unwrap();
    }
    text
}

fn json_chart(number: usize) -> String {
    let (name, word) = (name(number), WORDS[number % 12]);
    let entry = |release: usize| {
        let (version, digest) = (version(release, 0), digest(number, release));
        let maintainer = format!("maintainer{}", number % 50);
        serde_json::json!({
            "annotations": {"changes": format!("- kind: changed\n{word}").repeat(12)},
            "apiVersion": "v2",
            "appVersion": version,
            "created": "2025-01-02T03:04:05.678901234Z",
            "dependencies": [{"name": "common", "repository": "oci://registry.example.com/charts"}],
            "description": format!("A replicated {word} with metrics, backups and a web page"),
            "digest": digest,
            "home": format!("https://example.com/{name}"),
            "icon": format!("https://example.com/icons/{name}.svg"),
            "keywords": [word, "replicated", "metrics"],
            "maintainers": [{"name": maintainer, "email": "somebody@example.com"}],
            "name": name,
            "sources": [format!("https://git.example.com/{name}")],
            "urls": [format!("https://charts.example.com/archives/{name}-{version}.tgz")],
            "version": version,
        })
    };
    let entries: Vec<serde_json::Value> = (0..VERSIONS).rev().map(entry).collect();
    format!("{}:{},", serde_json::Value::from(name.as_str()), serde_json::Value::from(entries))
}
