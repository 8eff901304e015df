//! The command line from outside: the real binary with bad and good flags, variables and files. NOT here: the merge's
//! details, which are unit tests under `src/config`.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The binary with an environment of its own: nobody's settings and nobody's kubeconfig leak in.
fn binnacle(args: &[&str], env: &[(&str, &str)]) -> Output {
    // What is not refused would serve for ever.
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_binnacle")]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BINNACLE_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nonexistent").env_remove("KUBECONFIG");
    command.args(args).envs(env.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line that a refusal is.
fn refusal(args: &[&str], env: &[(&str, &str)]) -> String {
    let output = binnacle(args, env);
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(64), "{args:?} {env:?}: {text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{args:?} {env:?}: {text}");
    assert!(text.starts_with("binnacle: "), "{text}");
    assert!(!text.contains("my-secret"), "{text}");
    assert!(output.stdout.is_empty(), "{}", stdout(&output));
    text.trim_end().to_owned()
}

fn file(folder: &tempfile::TempDir, text: &str) -> String {
    let path: PathBuf = folder.path().join("binnacle.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The row of a setting in `binnacle config check`.
fn row(output: &Output, key: &str) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = stdout(output);
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

#[test]
fn a_bad_flag_is_one_line_that_says_what_would_be_right() {
    assert_eq!(
        refusal(&["--listen", "127.0.0.1"], &[]),
        "binnacle: --listen \"127.0.0.1\": not an address; use HOST:PORT, e.g. 127.0.0.1:8443"
    );
}

#[test]
fn every_sort_of_bad_value_is_refused_by_name() {
    let bad = [
        ("--insecure-listen", "x:1"),
        ("--demo-pods", "many"),
        ("--proxy-listen", "0.0.0.0:8001"),
        ("--proxy-accept-paths", "("),
        ("--proxy-reject-methods", "["),
        ("--kubeconfig", "/no/such/file"),
        ("--repositories", "/no/such/file"),
        ("--csrf-key-file", "/tmp"),
        ("--static-dir", "/no/such/directory"),
        ("--static-locale", "xx/../.."),
        ("--static-locale", "de;q=0.8"),
        ("--base-path", "/a b"),
        ("--default-locale", "tlh"),
        ("--tls-cert", "/no/such/file"),
        ("--tls-key", "/no/such/file"),
        ("--tls-key", "/dev/null"),
        ("--tls-names", "a b"),
        ("--trusted-origins", "headlamp.example.com"),
        ("--trusted-origins", "https://headlamp.example.com/"),
        ("--trusted-origins", "https://*.example.com"),
        ("--trusted-origins", "https://headlamp.example.com:443"),
        ("--tls-secret", "no-namespace"),
        ("--settings-name", "Bad Name!"),
        ("--settings-name", "../secrets/x"),
        ("--log-level", "loud"),
        ("--log-format", "xml"),
        ("--namespaces", "Upper"),
        ("--max-body", "lots"),
        ("--stale-while-away", "soon"),
        ("--stream-recheck", "0"),
        ("--stream-recheck", "11m"),
        ("--terminal-idle", "0"),
        ("--terminal-total", "0.5"),
        ("--config", "/no/such/file.yaml"),
    ];
    for (flag, value) in bad {
        let line = refusal(&["config", "check", flag, value], &[]);
        let named = if flag == "--config" { value } else { flag };
        assert!(line.contains(named), "{line}");
    }
    assert!(refusal(&["--demo=maybe"], &[]).contains("--demo"));
    assert!(refusal(&["demo", "--pods", "x"], &[]).contains("--pods"));
}

/// Found by a look into it: at the check as at a start.
fn refused_for_its_content(args: &[&str], named: &str) {
    let check: Vec<_> = ["config", "check"].iter().chain(args).copied().collect();
    let start: Vec<_> = ["--listen", "127.0.0.1:0"].iter().chain(args).copied().collect();
    for args in [check, start] {
        let line = refusal(&args, &[]);
        assert!(line.contains(named), "{line}");
    }
}

#[test]
fn what_a_file_holds_is_judged_by_the_check_too_and_never_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let rubbish = file(&folder, "token: my-secret\n  - [my-secret\nmy-secret");
    let kubeconfig = folder.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: gone\ncontexts:\n\
                - {name: mine, context: {cluster: c, user: u}}\n\
                clusters:\n- {name: c, cluster: {server: 'http://127.0.0.1:9'}}\n\
                users:\n- {name: u, user: {token: t}}\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    refused_for_its_content(&["--kubeconfig", &rubbish], "--kubeconfig");
    refused_for_its_content(&["--kubeconfig", kubeconfig], "gone");
    let nosuch = ["--kubeconfig", kubeconfig, "--context", "nosuch"];
    refused_for_its_content(&nosuch, "--context \"nosuch\": ");
    refused_for_its_content(&nosuch, "mine");
    refused_for_its_content(&["--demo", "--repositories", &rubbish], "--repositories");
    let twice = folder.path().join("twice.yaml");
    let one = "- {name: a, type: index, url: 'https://charts.example'}\n";
    std::fs::write(&twice, one.repeat(2)).unwrap();
    let twice = twice.to_str().unwrap();
    refused_for_its_content(&["--demo", "--repositories", twice], "--repositories");
    refused_for_its_content(&["--demo", "--csrf-key-file", &rubbish], "--csrf-key-file");
    let pair = ["--demo", "--tls-cert", &rubbish, "--tls-key", &rubbish];
    refused_for_its_content(&pair, "--tls-cert");
    let good = ["config", "check", "--kubeconfig", kubeconfig, "--context", "mine"];
    assert!(row(&binnacle(&good, &[]), "context").contains("mine"));
}

#[test]
fn what_a_kubeconfigs_cluster_and_user_name_is_judged_by_the_check_too() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let path = kubeconfig.to_str().unwrap();
    let server = "server: 'https://127.0.0.1:9'";
    let write = |cluster: &str, user: &str| {
        let text = format!(
            "current-context: mine\ncontexts:\n- {{name: mine, context: {{cluster: c, user: u}}}}\n\
             clusters:\n- {{name: c, cluster: {{{server}{cluster}}}}}\n\
             users:\n- {{name: u, user: {{{user}}}}}\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
    };
    std::fs::write(folder.path().join("rubbish"), "my-secret\n").unwrap();
    std::fs::write(folder.path().join("token"), "my-\nsecret\n").unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["me".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["me".to_owned()]).unwrap();
    std::fs::write(folder.path().join("crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key"), other.signing_key.serialize_pem()).unwrap();
    for (cluster, user, words) in [
        (", certificate-authority-data: aGVsbG8=", "token: t", "no PEM certificate"),
        (", certificate-authority: rubbish", "token: t", "no PEM certificate"),
        (", certificate-authority: none", "token: t", "none"),
        (", certificate-authority: crt, proxy-url: 'ftp://x'", "token: t", "socks5://"),
        (", certificate-authority: crt", "token: \"my-secret\\n\"", "line break"),
        (", certificate-authority: crt", "tokenFile: token", "line break"),
        (", certificate-authority: crt", "tokenFile: none", "none"),
        (", certificate-authority: crt", "client-certificate: crt, client-key: none", "none"),
        (", certificate-authority: crt", "client-certificate: crt, client-key: key", "private key"),
        (", certificate-authority: crt", "token: t, as-groups: [g]", "without as"),
    ] {
        write(cluster, user);
        refused_for_its_content(&["--kubeconfig", path], words);
    }
    refused_for_its_content(&["--kubeconfig", path], path);
    // A command is left for a start, and an empty authority is none, as kubectl has both.
    let check = ["config", "check", "--kubeconfig", path];
    for (cluster, user) in [
        (", certificate-authority: crt", "exec: {command: /no/such/command}"),
        (", certificate-authority: crt, certificate-authority-data: ''", "token: t"),
    ] {
        write(cluster, user);
        assert!(row(&binnacle(&check, &[]), "kubeconfig").contains(path));
    }
}

/// What a check and a start say of a kubeconfig that no setting names.
fn refused_in(env: (&str, &str), named: &[&str]) {
    for args in [&["config", "check"], &["--listen", "127.0.0.1:0"]] {
        let line = refusal(args, &[env]);
        for words in named {
            assert!(line.contains(words), "{line}");
        }
    }
}

#[test]
fn a_persons_own_kubeconfig_is_judged_by_the_check_too_and_never_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let rubbish = file(&folder, "token: my-secret\n  - [my-secret\nmy-secret");
    refused_in(("KUBECONFIG", &rubbish), &[&rubbish, "--demo"]);

    let home = folder.path().to_str().unwrap();
    let own = folder.path().join(".kube/config");
    std::fs::create_dir(own.parent().unwrap()).unwrap();
    let none = "current-context: \"\"\ncontexts: null\nclusters: null\nusers: null\n";
    std::fs::write(&own, none).unwrap();
    let own = own.to_str().unwrap();
    // What is there by itself is not what anybody asked for: it leaves us the demo.
    assert!(row(&binnacle(&["config", "check"], &[("HOME", home)]), "context").contains('-'));
    refused_in(("KUBECONFIG", own), &[own, "no contexts", "--kubeconfig FILE", "--demo"]);

    let text = "current-context: \"\"\ncontexts:\n- {name: mine, context: {cluster: c, user: u}}\n\
                clusters:\n- {name: c, cluster: {server: 'http://127.0.0.1:9'}}\n\
                users:\n- {name: u, user: {token: my-secret}}\n";
    std::fs::write(own, text).unwrap();
    let words = [own, "no current context", "--context NAME: [\"mine\"]", "--demo"];
    refused_in(("HOME", home), &words);
    refused_in(("KUBECONFIG", own), &words);
    let chosen = ["config", "check", "--context", "mine"];
    assert!(row(&binnacle(&chosen, &[("HOME", home)]), "context").contains("mine"));
}

#[test]
fn an_unknown_flag_or_command_is_one_line_with_a_tip() {
    assert!(refusal(&["--lisen", "127.0.0.1:1"], &[]).contains("--listen"));
    refusal(&["fly"], &[]);
    refusal(&["config"], &[]);
    refusal(&["--listen"], &[]);
}

#[test]
fn a_bad_variable_is_named() {
    let line = refusal(&["config", "check"], &[("BINNACLE_DRAIN_GRACE", "long")]);
    assert!(line.starts_with("binnacle: BINNACLE_DRAIN_GRACE \"long\": "), "{line}");
}

#[test]
fn a_bad_value_and_an_unknown_key_of_the_file_are_named_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "log-format: xml\n");
    let line = refusal(&["--config", &path], &[]);
    assert!(line.contains(&format!("log-format in {path} \"xml\"")), "{line}");
    let path = file(&folder, "demo: true\nlog-formt: json\n");
    let line = refusal(&["config", "check"], &[("BINNACLE_CONFIG", &path)]);
    assert!(line.contains(&format!("{path}:2: ")), "{line}");
    assert!(line.contains("\"log-formt\"") && line.contains("\"log-format\""), "{line}");
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "drain-delay: 1\ndrain-grace: 1\nstale-while-away: 1\n");
    let env = [("BINNACLE_DRAIN_DELAY", "2"), ("BINNACLE_DRAIN_GRACE", "2")];
    let args = ["config", "check", "--config", &path, "--drain-delay", "3"];
    let output = binnacle(&args, &env);
    let fields = |key| row(&output, key).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(fields("drain-delay")[1..], ["3", "(--drain-delay)"]);
    assert_eq!(fields("drain-grace")[1..], ["2", "(BINNACLE_DRAIN_GRACE)"]);
    assert_eq!(fields("stale-while-away")[1..3], ["1", "(stale-while-away"]);
    assert_eq!(fields("max-body")[1..], ["3Mi", "(default)"]);
}

#[test]
fn a_value_of_several_lines_is_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "system-banner: |\n  one\n  two\n");
    let output = binnacle(&["config", "check", "--config", &path], &[]);
    assert!(row(&output, "system-banner").contains("one\\ntwo\\n"), "{}", stdout(&output));
    let rows = binnacle(&["config", "check"], &[]);
    assert_eq!(stdout(&output).lines().count(), stdout(&rows).lines().count());
}

#[test]
fn a_variable_set_to_nothing_counts_as_not_set() {
    let output = binnacle(&["config", "check"], &[("BINNACLE_LISTEN", "")]);
    assert!(row(&output, "listen").contains("127.0.0.1:8443"));
    assert!(row(&output, "listen").contains("(default)"));
}

#[test]
fn the_state_directory_follows_the_xdg_variables() {
    let output = binnacle(&["config", "check"], &[("XDG_STATE_HOME", "/xdg")]);
    assert!(row(&output, "state-dir").contains("/xdg/binnacle"));
    let output = binnacle(&["config", "check"], &[("XDG_STATE_HOME", ""), ("HOME", "/home/x")]);
    assert!(row(&output, "state-dir").contains("/home/x/.local/state/binnacle"));
}

#[test]
fn help_explains_every_setting_and_the_check_shows_every_one() {
    let help = binnacle(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    let help = stdout(&help);
    let check = stdout(&binnacle(&["config", "check", "--state-dir", "/s"], &[]));
    let keys: Vec<&str> = check.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(keys.contains(&"listen") && keys.contains(&"shared-cache"), "{check}");
    for key in keys {
        let variable = key.replace('-', "_").to_ascii_uppercase();
        assert!(help.contains(&format!("--{key}")), "{key} is missing in {help}");
        assert!(help.contains(&format!("BINNACLE_{variable}")), "{variable} is missing in {help}");
    }
}

#[test]
fn the_version_is_told_in_both_ways() {
    for arguments in ["version", "--version"] {
        let output = binnacle(&[arguments], &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains(env!("CARGO_PKG_VERSION")));
    }
}
