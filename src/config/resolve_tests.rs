//! Tests of the merge and of its messages. NOT here: the process as a whole, its exit code and its environment (`tests/it/config.rs`).

use clap::CommandFactory;

use super::super::Cli;
use super::*;

fn reader(origins: &[(&str, Origin)]) -> Reader {
    Reader {
        file: Some(PathBuf::from("b.yaml")),
        origins: origins.iter().map(|(key, origin)| ((*key).to_owned(), *origin)).collect(),
        rows: Vec::new(),
    }
}

fn layer(yaml: &str) -> Result<Layer, Exit> {
    parse_file(yaml, Path::new("b.yaml"))
}

#[test]
fn a_misspelt_key_is_named_with_its_file_its_line_and_the_nearest_one() {
    let exit = layer("demo: true\nlisen: 127.0.0.1:1\n").unwrap_err();
    assert_eq!(exit.code, 64);
    assert_eq!(exit.message, "binnacle: b.yaml:2: unknown key \"lisen\"; did you mean \"listen\"?");
}

#[test]
fn a_key_like_no_other_is_not_guessed_at() {
    let exit = layer("colour-of-the-sea: blue\n").unwrap_err();
    assert!(exit.message.contains("binnacle --help"), "{}", exit.message);
}

#[test]
fn numbers_and_booleans_of_the_file_are_text_to_us() {
    let layer = layer("demo: true\ndrain-grace: 3\nnamespaces: [a, b]\n").unwrap();
    assert_eq!(layer.demo.as_deref(), Some("true"));
    assert_eq!(layer.drain_grace.as_deref(), Some("3"));
    assert_eq!(layer.namespaces.unwrap().len(), 2);
}

#[test]
fn an_empty_file_says_nothing() {
    assert_eq!(layer("").unwrap(), Layer::default());
    assert_eq!(layer("# nothing\n\n").unwrap(), Layer::default());
}

#[test]
fn every_error_of_the_file_is_one_line_that_names_it() {
    for broken in ["demo: [", "listen: {a: b}", "- a\n- b", "listen: a\nlisten: b", "\u{1}"] {
        let message = layer(broken).unwrap_err().message;
        assert!(message.starts_with("binnacle: b.yaml:"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn an_error_of_the_file_is_in_words_for_whoever_wrote_it() {
    for (broken, words) in [
        ("namespaces: [~]\n", "b.yaml:1: an item of a list has no value"),
        ("demo: true\ndemo: false\n", ": the key \"demo\" is there twice"),
        ("demo: true\n---\ndemo: false\n", ": a second document begins; give one"),
    ] {
        let message = layer(broken).unwrap_err().message;
        assert!(message.ends_with(words), "{message}");
    }
}

#[test]
fn a_bad_value_names_where_it_came_from() {
    let bad = |origin| {
        let layer = Layer { listen: Some("127.0.0.1".to_owned()), ..Layer::default() };
        reader(&[("listen", origin)]).config(layer).unwrap_err().message
    };
    let rest = "\"127.0.0.1\": not an address; use HOST:PORT, e.g. 127.0.0.1:8443";
    assert_eq!(bad(Origin::Flag), format!("binnacle: --listen {rest}"));
    assert_eq!(bad(Origin::Environment), format!("binnacle: BINNACLE_LISTEN {rest}"));
    assert_eq!(bad(Origin::File), format!("binnacle: listen in b.yaml {rest}"));
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let layer = Layer { tls_cert: Some(file.to_owned()), ..Layer::default() };
    let exit = reader(&[("tls-cert", Origin::Flag)]).config(layer).unwrap_err();
    assert_eq!(exit.message, "binnacle: --tls-cert: give --tls-key too");
}

#[test]
fn what_a_room_refuses_names_the_setting_in_one_line_and_quotes_no_further_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let layer = Layer {
        kubeconfig: Some(file.to_owned()),
        state_dir: Some("s".to_owned()),
        ..Layer::default()
    };
    let config = reader(&[("kubeconfig", Origin::File)]).config(layer).unwrap();
    let exit = config.effective.refuse("kubeconfig", &"no YAML\ntoken: secret");
    assert_eq!(exit.code, 64);
    assert_eq!(exit.message, format!("binnacle: kubeconfig in b.yaml {file:?}: no YAML"));
}

#[test]
fn the_defaults_that_help_promises_are_the_real_ones() {
    let layer = Layer { state_dir: Some("s".to_owned()), ..Layer::default() };
    let config = reader(&[("state-dir", Origin::Flag)]).config(layer).unwrap();
    let command = Cli::command();
    let settings = command.get_arguments().filter(|a| a.get_env().is_some()).count();
    assert_eq!(config.effective.rows.len() + 1, settings, "all but --config are read");
    for row in &config.effective.rows {
        let argument = command.get_arguments().find(|a| a.get_long() == Some(row.key));
        let help = argument.and_then(|a| a.get_help()).unwrap().to_string();
        let promised = format!("(default: {})", row.value);
        let has_default = row.origin == "default" && !row.value.is_empty();
        assert_eq!(help.contains("(default: "), has_default, "{}: {help}", row.key);
        assert!(!has_default || help.contains(&promised), "{}: {help}", row.key);
    }
}

#[test]
fn no_text_is_no_pattern_as_kubectl_proxy_has_it() {
    let (none, one) = (Some(vec![String::new()]), Some(vec!["^a$".to_owned()]));
    let by_flag = Layer {
        state_dir: Some("s".to_owned()),
        proxy_accept_paths: none.clone(),
        proxy_reject_paths: none.clone(),
        proxy_accept_hosts: none.clone(),
        proxy_reject_methods: none,
        ..Layer::default()
    };
    let by_file = "{state-dir: s, proxy-accept-paths: [], proxy-reject-paths: [''], \
                   proxy-accept-hosts: [''], proxy-reject-methods: []}";
    for layer in [by_flag.clone(), layer(by_file).unwrap()] {
        let rules = reader(&[]).config(layer).unwrap().proxy;
        assert_eq!(rules.accept_paths.len() + rules.reject_paths.len(), 0, "{rules:?}");
        assert_eq!(rules.accept_hosts.len() + rules.reject_methods.len(), 0, "{rules:?}");
    }
    let layer = Layer { proxy_accept_hosts: one, ..by_flag };
    assert_eq!(reader(&[]).config(layer).unwrap().proxy.accept_hosts, ["^a$"]);
}

#[test]
fn every_setting_has_a_variable_of_its_own_name() {
    for argument in Cli::command().get_arguments().filter(|a| a.get_env().is_some()) {
        let long = argument.get_long().unwrap().replace('-', "_").to_ascii_uppercase();
        assert_eq!(argument.get_env().unwrap().to_str().unwrap(), format!("BINNACLE_{long}"));
    }
}

#[test]
fn distances_are_counted_in_edits() {
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(distance("lisen", "listen"), 1);
    assert_eq!(distance("kitten", "sitting"), 3);
}
