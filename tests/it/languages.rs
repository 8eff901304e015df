//! The catalogues against each other and against the code: the same messages with the same variables in every language,
//! none missing, none unused. NOT here: whether a translation is good.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::tidy;

/// What a message id begins with; a literal of that look in the code is taken for one.
const PREFIXES: [&str; 5] = ["error-", "warning-", "note-", "helm-preview-", "release-stuck-"];

type Catalogue = BTreeMap<String, BTreeSet<String>>;

/// Messages and the variables of each.
fn catalogue(text: &str) -> Catalogue {
    let mut found = Catalogue::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((id, _)) = line.split_once(" =").filter(|_| !line.starts_with(' ')) {
            current = id.to_owned();
            let new = found.insert(current.clone(), BTreeSet::new()).is_none();
            assert!(new, "{current} stands there twice");
        }
        for rest in line.split('$').skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            found.get_mut(&current).expect("a message").insert(name.to_owned());
        }
    }
    found
}

fn catalogues() -> BTreeMap<String, Catalogue> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("i18n");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "ftl"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, catalogue(&fs::read_to_string(path).unwrap()))
        })
        .collect()
}

/// String literals that look like message ids.
fn ids(code: &str) -> BTreeSet<String> {
    let is_id = |text: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        PREFIXES.iter().any(|prefix| text.starts_with(prefix)) && text.chars().all(plain)
    };
    let literals = code.split('"').filter(|text| is_id(text));
    literals.map(str::to_owned).collect()
}

#[test]
fn every_language_has_the_same_messages_with_the_same_variables() {
    let all = catalogues();
    let english = &all["en"];
    assert!(all.len() > 1 && !english.is_empty());
    for (name, other) in &all {
        assert_eq!(english, other, "en and {name} differ");
    }
}

#[test]
fn every_catalogue_is_compiled_in_and_every_locale_has_one() {
    let known: BTreeSet<String> =
        binnacle::i18n::Locale::all().map(|locale| locale.tag().to_owned()).collect();
    let files: BTreeSet<String> = catalogues().into_keys().collect();
    assert_eq!(known, files);
}

fn is_class(id: &str) -> bool {
    id.starts_with("helm-") && !id.starts_with("helm-preview-")
}

#[test]
fn the_code_uses_every_message_and_no_other() {
    let used: BTreeSet<String> =
        tidy::sources().iter().flat_map(|source| ids(&source.product())).collect();
    let known: BTreeSet<String> = catalogues()["en"].keys().cloned().collect();
    // What goes wrong with a release has a class, and `helm-<class>` says what to do about it.
    let (classes, known): (BTreeSet<String>, BTreeSet<String>) =
        known.into_iter().partition(|id| is_class(id));
    let code: String = tidy::sources().iter().map(|source| source.product()).collect();
    for class in classes.iter().map(|id| id.trim_start_matches("helm-")) {
        assert!(code.contains(&format!("\"{class}\"")), "nothing is of the class {class}");
    }
    let missing: Vec<_> = used.difference(&known).collect();
    let unused: Vec<_> = known.difference(&used).collect();
    assert!(missing.is_empty(), "used in src, missing in i18n/en.ftl: {missing:?}");
    assert!(unused.is_empty(), "in i18n/en.ftl, used nowhere in src: {unused:?}");
}

#[test]
fn messages_and_variables_are_read_over_several_lines() {
    let found = catalogue("# error-no = x\nerror-a = b { $c }\n    and { $d-e }.\nnote-f = g\n");
    let variables: Vec<_> = found["error-a"].iter().map(String::as_str).collect();
    assert_eq!(variables, ["c", "d-e"]);
    assert_eq!(found.len(), 2);
}

#[test]
fn ids_are_found_in_literals_only() {
    let found = ids("f(\"error-a\", \"error: b\"); // error-c\nx(\"note-d\")");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["error-a", "note-d"]);
}
