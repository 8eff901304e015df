//! References as charts have them, and as somebody would write them who wants helm to ask.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::*;

const OUT: &str = "http://127.0.0.1:1/secret";

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn through(files: &[(&str, &[u8])]) -> Result<(), BadSchema> {
    within(&packed(files), "", DEPTH, &mut { UNPACKED })
}

fn allowed(schema: &Value) {
    assert_eq!(elsewhere(schema.to_string().as_bytes()).unwrap(), None, "{schema}");
}

fn refused(schema: &Value, reference: &str) {
    let found = elsewhere(schema.to_string().as_bytes()).unwrap();
    assert_eq!(found.as_deref(), Some(reference), "{schema}");
}

#[test]
fn what_is_within_the_document_may_be_referred_to() {
    let known = [
        "",
        "#",
        "#/definitions/a",
        "#name",
        "urn:example:all",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2020-12/schema#/$defs/a",
    ];
    let roots = [
        json!({}),
        json!({"$id": "https://example.com/charts/values.json"}),
        json!({"$id": "https://example.com/charts/values.json#"}),
        json!({"$id": "http://example.com:8080"}),
        json!({"id": "http://example.com/a", "$id": "urn:example:a"}),
        json!({"$id": "My values"}),
        json!({"$id": "values.schema.json"}),
        json!({"$id": "#/properties/a"}),
        json!({"$schema": ""}),
    ];
    for (reference, mut root) in
        known.iter().flat_map(|one| roots.iter().map(move |root| (one, root.clone())))
    {
        root["properties"] =
            json!({"a": {"allOf": [{"$ref": reference}]}, "$ref": {"type": "string"}});
        root["$defs"] =
            json!({"b": {"$dynamicRef": reference}, "id": {"$recursiveRef": reference}});
        root["$ref"] = json!(reference);
        allowed(&root);
    }
    allowed(&json!({"properties": {"$ref": {"enum": [OUT]}, "$schema": {"const": "x"}}}));
    // Values have ids.
    let values = json!({"default": {"id": "what? ever", "$id": "%"}, "description": OUT});
    allowed(&json!({"properties": {"a": values, "b": {"$ref": "#"}}}));
    for schema in [json!(true), json!([]), json!(OUT), json!(null), json!([1, -1, 1.5])] {
        allowed(&schema);
    }
}

#[test]
fn the_drafts_are_those_that_helm_has_and_no_others() {
    for site in ["http://", "https://", ""] {
        for path in ["draft-04/schema#", "draft-06/schema", "draft-07/schema#", "schema"] {
            allowed(&json!({"$schema": format!("{site}json-schema.org/{path}")}));
        }
        for path in ["2019-09", "2020-12"] {
            allowed(&json!({"$schema": format!("{site}json-schema.org/draft/{path}/schema")}));
        }
    }
    for schema in [
        OUT,
        "file:///etc/hostname",
        "x",
        "http://json-schema.org/draft-05/schema#",
        "http://json-schema.org/draft-07/schema#/definitions/a",
        "http://json-schema.org.evil.example/draft-07/schema#",
        "HTTP://json-schema.org/draft-07/schema#",
        "http://user@json-schema.org/draft-07/schema#",
    ] {
        refused(&json!({ "$schema": schema }), schema);
        refused(&json!({"default": [{"a": {"$schema": schema}}]}), schema);
    }
}

#[test]
fn what_leads_out_of_the_document_is_refused_wherever_it_stands() {
    for reference in [
        OUT,
        "https://json-schema.org/draft/2020-12/meta/other",
        "http://json-schema.org/draft-07/../x",
        "file:///etc/hostname",
        "FILE:/etc/hostname",
        "ftp://example.com/a",
        "//169.254.169.254/latest",
        "/etc/hostname",
        "hostname",
        "../etc/hostname",
        "./values.schema.json",
        "?",
        " http://127.0.0.1",
        "\\\\host\\share",
        "values.schema.json?",
    ] {
        for key in ["$ref", "$dynamicRef", "$recursiveRef"] {
            for schema in [
                json!({ key: reference }),
                json!({"properties": {"a": {"items": [{"x-any": {key: reference}}]}}}),
                json!({"definitions": {key: reference}}),
                json!({"const": {key: reference}, "$id": "urn:example:a"}),
                json!({"$id": "https://example.com/a", "$comment": [[{key: reference}]]}),
                json!({"$id": reference, "$ref": {key: reference}}),
                // Not even where it is in the document: readers differ on where ids count.
                json!({"not": {key: reference}, "definitions": {"a": {"$id": reference}}}),
            ] {
                refused(&schema, reference);
            }
        }
    }
}

#[test]
fn below_an_id_that_may_lead_away_nothing_is_within_the_document() {
    let inner = json!({"allOf": [{"$ref": "#/definitions/a"}]});
    for id in [
        "http://127.0.0.1:1/a?",
        "http://127.0.0.1:1/a?b#",
        "http://me@127.0.0.1:1/a",
        "HTTP://127.0.0.1:1/a",
        "http://127.0.0.1:1/a/../b",
        "http://",
        "//127.0.0.1:1/a",
        "a%41",
        "http://127.0.0.1:1/a#name",
    ] {
        for key in ["id", "$id"] {
            refused(&json!({key: id, "properties": {"a": inner}}), id);
            // The order of the text does not count.
            let text = format!(r##"{{"a": {{"$ref": "#"}}, {}: {}}}"##, json!(key), json!(id));
            assert_eq!(elsewhere(text.as_bytes()).unwrap().as_deref(), Some(id));
        }
        // An address needs no place.
        allowed(&json!({"$id": id, "not": {"$ref": "http://json-schema.org/schema"}}));
    }
    for id in [OUT, "deep.json", "urn:a"] {
        refused(&json!({"properties": {"a": {"$id": id, "b": inner}}}), id);
        refused(&json!({"x-all": [{"id": id, "$ref": "#"}]}), id);
    }
}

#[test]
fn what_hides_from_readers_of_our_kind_is_seen() {
    // With it `Value` itself would take the text for JSON.
    for key in ["$serde_json::private::RawValue", "\\u0024serde_json::private::RawValue"] {
        let hidden = json!({ "$id": OUT }).to_string();
        let text = format!(
            r#"{{"not": {{"$ref": "{OUT}"}}, "definitions": {{"x": {{"{key}": {}}}}}}}"#,
            json!(hidden)
        );
        assert_eq!(elsewhere(text.as_bytes()).unwrap().as_deref(), Some(OUT));
    }
    for twice in [
        format!(r##"{{"$ref": "#", "$ref": "{OUT}"}}"##),
        format!(r##"{{"$ref": "{OUT}", "$ref": "#"}}"##),
        format!(r##"{{"\u0024ref": "{OUT}"}}"##),
    ] {
        assert_eq!(elsewhere(twice.as_bytes()).unwrap().as_deref(), Some(OUT), "{twice}");
    }
}

#[test]
fn every_schema_that_helm_reads_is_looked_at() {
    let (bad, good) = (format!(r#"{{"$ref": "{OUT}"}}"#), br##"{"$ref": "#"}"##);
    let bad = bad.as_bytes();
    let leaf = packed(&[("leaf/values.schema.json", bad)]);
    let twig = packed(&[("twig/charts/leaf-1.0.0.tgz", &leaf), ("twig/README.md", b"x")]);
    let marked = [MARK, &leaf].concat();
    for (path, content, file) in [
        ("web/values.schema.json", bad, "values.schema.json"),
        ("web/charts/a/values.schema.json", bad, "charts/a/values.schema.json"),
        ("web/charts/a/charts/b/values.schema.json", bad, "charts/a/charts/b/values.schema.json"),
        ("web/charts/leaf.tgz", &leaf[..], "charts/leaf.tgz/values.schema.json"),
        ("web/charts/mark.tgz", &marked[..], "charts/mark.tgz/values.schema.json"),
        (
            "web/charts/a/charts/twig.tgz",
            &twig[..],
            "charts/a/charts/twig.tgz/charts/leaf-1.0.0.tgz/values.schema.json",
        ),
    ] {
        let files = [("web/Chart.yaml", &b"name: web"[..]), (path, content), ("web/z", &b""[..])];
        match through(&files).unwrap_err() {
            BadSchema::Elsewhere(found, reference) => {
                assert_eq!((&*found, &*reference), (file, OUT));
            }
            other => panic!("{path}: {other}"),
        }
    }
    for path in [
        "web/files/values.schema.json",
        "web/templates/values.schema.json",
        "web/charts/values.schema.json",
        "web/charts/_a/values.schema.json",
        "web/charts/a/files/values.schema.json",
        "web/charts/.hidden.tgz",
        "web/charts/no-archive.tgz",
    ] {
        through(&[(path, bad), ("web/values.schema.json", good)]).unwrap();
    }
    through(&[("web/values.schema.json", b"")]).unwrap();
    through(&[("web/values.schema.json", b"\xef\xbb\xbf{}")]).unwrap();
}

#[test]
fn what_cannot_be_read_is_not_taken_for_closed() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for text in ["{", "{} {}", r#"{"a": "\ud800"}"#, "[1e999]", deep.as_str()] {
        let error = through(&[("web/values.schema.json", text.as_bytes())]).unwrap_err();
        assert!(matches!(error, BadSchema::Unread(..)), "{text}: {error}");
    }
    let link = |kind| {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_data(&mut header, "leaf/a", &b""[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    };
    let error = through(&[("web/charts/leaf.tgz", &link(tar::EntryType::Fifo))]).unwrap_err();
    assert!(matches!(error, BadSchema::Archive(BadArchive::Kind(..))), "{error}");

    let mut nested = packed(&[("leaf/a", b"")]);
    for _ in 0..DEPTH {
        nested = packed(&[("leaf/charts/leaf.tgz", &nested)]);
    }
    let error = through(&[("web/charts/leaf.tgz", &nested)]).unwrap_err();
    assert!(error.to_string().contains("packed into each other"), "{error}");

    let large = packed(&[("leaf/a", &[0; 64 << 10])]);
    let names = ["web/charts/a.tgz", "web/charts/b.tgz", "web/charts/c.tgz", "web/charts/d.tgz"];
    let all = packed(&names.map(|name| (name, large.as_slice())));
    within(&all, "", DEPTH, &mut (400 << 10)).unwrap();
    let error = within(&all, "", DEPTH, &mut (200 << 10)).unwrap_err();
    let wanted = BadArchive::Unpacked(UNPACKED);
    assert!(matches!(&error, BadSchema::Archive(why) if *why == wanted), "{error}");
}
