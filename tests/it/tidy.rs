//! Holds the source to its style: layers, module heads, lengths, depth and banned words. Reads text, parses no Rust:
//! simple rules that rustfmt's layout makes reliable. NOT here: what clippy can say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 70;
const DEEPEST_FOLDER: usize = 2;

/// A file under `src`, its path relative to it with `/` between the parts.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// The text without test modules; nothing for a file that is one.
    pub fn product(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap();
        if name == "tests.rs" || name.ends_with("_tests.rs") {
            return String::new();
        }
        without_tests(&self.text)
    }

    fn room(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Its room's folder that it lies in, as a path of modules.
    fn folder(&self) -> Option<String> {
        let (folder, _) = self.path.rsplit_once('/')?;
        folder.contains('/').then(|| folder.replace('/', "::"))
    }
}

/// Every Rust file of the product, in the order of its path.
pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources under {}", root.display());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    let entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).unwrap();
            let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path: parts.join("/"), text });
        }
    }
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// Drops `#[cfg(test)]` with the module behind it, up to the brace at the same depth.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        let end = format!("{}}}", indent(line));
        for inner in lines.by_ref() {
            let declared = inner.trim_end().ends_with(';') && indent(inner) == indent(line);
            if inner == end || declared {
                break;
            }
        }
    }
    kept
}

/// The table under `## Layers`: room → what it may use.
fn layers(markdown: &str) -> BTreeMap<String, Vec<String>> {
    let section = markdown.split("\n## Layers\n").nth(1).expect("a heading ## Layers");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 2, "two cells a row: {row}");
        let clean = |text: &str| text.trim().trim_matches('`').to_owned();
        let may = cells[1].split(',').map(clean).filter(|name| !name.is_empty() && name != "–");
        (clean(cells[0]), may.collect())
    })
    .collect()
}

/// The paths behind every `crate::`, groups in braces opened up, comments left out.
fn references(code: &str) -> Vec<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    code.split("crate::").skip(1).flat_map(paths).collect()
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let end = text.find(|c: char| !is_path(c)).unwrap_or(text.len());
    let (head, rest) = text.split_at(end);
    let Some(group) = rest.strip_prefix('{') else {
        return vec![head.to_owned()];
    };
    let inner = members(group).into_iter().flat_map(|member| paths(member.trim()));
    inner.filter(|path| !path.is_empty()).map(|path| format!("{head}{path}")).collect()
}

/// The members of a group, up to its closing brace, at its own depth.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            '}' => {
                found.push(&group[start..at]);
                break;
            }
            _ => {}
        }
    }
    found
}

/// Is `path` within `room` or within what the room may use?
fn allowed(room: &str, path: &str, may: &[String]) -> bool {
    let within = |name: &str| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    within(room) || may.iter().any(|name| within(name))
}

/// Name and number of lines of each function with a body.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let opens = lines[start..].iter().position(|l| l.ends_with(['{', ';', '}']));
        let Some(open) = opens.map(|offset| start + offset) else { continue };
        if !lines[open].ends_with('{') {
            continue;
        }
        let end = format!("{}}}", indent(line));
        let close = lines[open..].iter().position(|l| **l == *end);
        let close = close.map_or(lines.len() - 1, |offset| open + offset);
        found.push((name.to_owned(), close - start + 1));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let keyword = |word: &str| {
        matches!(word, "async" | "const" | "extern" | "default") || word.starts_with("pub")
    };
    // `pub(in a::b)` never occurs here: it would be two words.
    while let Some(word) = words.next() {
        match word {
            "fn" => return words.next().map(|name| name.split(['(', '<']).next().unwrap()),
            word if keyword(word) => {}
            _ => return None,
        }
    }
    None
}

fn banned(path: &str, code: &str) -> Vec<&'static str> {
    let mut words = vec!["todo!", "unimplemented!", "FIXME", "dbg!"];
    // Only the composition root speaks to the terminal; everything else logs.
    if path != "main.rs" && path != "app.rs" && !path.starts_with("app/") {
        words.extend(["println!", "print!("]);
    }
    words.into_iter().filter(|word| code.contains(word)).collect()
}

fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_room_uses_only_what_the_layer_table_allows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let table = layers(&fs::read_to_string(path).unwrap());
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs") {
        let room = source.room();
        let Some(may) = table.get(room) else {
            problems.push(format!("{}: no room {room} in ARCHITECTURE.md", source.path));
            continue;
        };
        let besides = source.folder().and_then(|folder| table.get(&folder));
        let may = [may.as_slice(), besides.map_or(&[], Vec::as_slice)].concat();
        let code = source.product();
        let code = if room == "main" { code.replace("binnacle::", "crate::") } else { code };
        for path in references(&code).iter().filter(|path| !allowed(room, path, &may)) {
            problems.push(format!("{}: {room} may not use {path}", source.path));
        }
    }
    none(problems);
}

#[test]
fn only_a_live_list_takes_the_api_servers_own_answer_for_a_scope() {
    let users = sources().into_iter().filter(|source| source.product().contains("Scope::answered"));
    let users: Vec<String> = users.map(|source| source.path).collect();
    assert_eq!(users, ["cache/pager.rs"]);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    none(silent.map(|source| format!("{}: no //! head", source.path)).collect());
}

#[test]
fn no_file_is_too_long_or_too_deep() {
    let mut problems = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LONGEST_FILE {
            problems.push(format!("{}: {lines} lines, at most {LONGEST_FILE}", source.path));
        }
        if source.path.matches('/').count() > DEEPEST_FOLDER {
            problems.push(format!("{}: deeper than {DEEPEST_FOLDER} folders", source.path));
        }
    }
    none(problems);
}

#[test]
fn no_function_is_too_long() {
    let mut problems = Vec::new();
    for source in sources() {
        for (name, lines) in functions(&source.product()) {
            if lines > LONGEST_FUNCTION {
                let path = &source.path;
                problems.push(format!("{path}: {name}: {lines} lines, at most {LONGEST_FUNCTION}"));
            }
        }
    }
    none(problems);
}

#[test]
fn no_unfinished_work_and_no_stray_output() {
    let found = sources().into_iter().flat_map(|source| {
        let words = banned(&source.path, &source.product());
        words.into_iter().map(move |word| format!("{}: {word}", source.path))
    });
    none(found.collect());
}

/// `Cargo.lock` names what a feature that is off would need as well: cargo says what is built.
#[test]
fn there_is_one_crypto_provider() {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"]);
    let output = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let built = |name: &str| text.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(built("aws-lc-rs"), "{text}");
    for other in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!built(other), "{other} is built: deny.toml says why it must not be");
    }
}

#[test]
fn the_table_is_read_by_room() {
    let text = "# A\n\n## Layers\n\n| room | may use |\n| --- | --- |\n| `a` | `b`, `c::D` |\n| b | – |\n\n## B\n| x | y |\n";
    let table = layers(text);
    assert_eq!(table["a"], ["b", "c::D"]);
    assert!(table["b"].is_empty());
    assert_eq!(table.len(), 2);
}

#[test]
fn a_forbidden_reference_is_found_in_a_use_a_group_and_a_path() {
    let code = "use crate::a::{b, c::{D, e}};\nuse crate::{f, g::H};\nlet x = crate::i::j();\n// crate::no\n";
    assert_eq!(references(code), ["a::b", "a::c::D", "a::c::e", "f", "g::H", "i::j"]);
    let may = vec!["auth::Scope".to_owned()];
    assert!(allowed("cache", "cache::store", &may));
    assert!(allowed("cache", "auth::Scope", &may));
    assert!(!allowed("cache", "auth::Session", &may));
    assert!(!allowed("cache", "cached", &may));
}

#[test]
fn test_modules_do_not_count() {
    let code = "a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nmod x;\nd\n";
    assert_eq!(without_tests(code), "a\nc\nd\n");
}

#[test]
fn functions_are_measured_from_their_line_to_their_brace() {
    let code = "pub(crate) async fn long(\n    a: u8,\n) {\n    if a {\n    }\n}\n\ntrait T {\n    fn none(&self);\n    fn one<'a>() {\n    }\n}\n";
    let found = functions(code);
    assert_eq!(found, [("long".to_owned(), 6), ("one".to_owned(), 2)]);
}

#[test]
fn banned_words_are_found_where_they_are_banned() {
    assert_eq!(banned("api/list.rs", "eprintln!(\"x\"); todo!()"), ["todo!", "println!"]);
    assert!(banned("main.rs", "println!(\"x\")").is_empty());
}
