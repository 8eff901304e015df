//! Which kubeconfig and which of its contexts, what is said where there is none, and the proxy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const CORP: &str = "http://me:a%40b@proxy.corp.example:3128";

#[test]
fn an_api_server_is_excepted_by_its_own_address_and_not_by_the_proxys() {
    for (server, no, goes_through) in [
        ("https://10.0.0.1:6443", "", true),
        ("https://10.0.0.1:6443", "proxy.corp.example,192.168.0.0/16", true),
        ("https://10.0.0.1:6443", "a.example, 10.0.0.0/8", false),
        ("https://10.0.0.1:6443", "10.0.0.1", false),
        ("https://10.0.0.1:6443", "10.0.0.1:6443", false),
        ("https://10.0.0.1:6443", "10.0.0.1:443", true),
        ("https://10.0.0.1:6443", "a.example,*", false),
        ("https://[fd00::1]:6443", "fd00::/8", false),
        ("https://[fd00::1]:6443", "fd00::1", false),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", false),
        ("https://[fd00::1]:6443", "[fd00::1]:443,fd00::2", true),
        ("https://api.corp.example", ",corp.example,", false),
        ("https://api.corp.example", ".CORP.example", false),
        ("https://api.corp.example", "*.corp.example", false),
        ("https://api.corp.example", "api.corp.example:443", false),
        ("https://api.corp.example", "api.corp.example:6443", true),
        ("https://api.corp.example", "orp.example,a.example,,", true),
        // This machine's own, whatever is excepted.
        ("https://127.0.0.1:38111", "", false),
        ("https://[::1]:38111", "", false),
        ("https://localhost:38111", "", false),
        // HTTPS_PROXY is for https.
        ("http://10.0.0.1:8001", "", false),
    ] {
        let found = proxy_of(&server.parse().unwrap(), CORP, no);
        let wanted: Option<Uri> = goes_through.then(|| CORP.parse().unwrap());
        assert_eq!(found, wanted, "{server} with NO_PROXY={no}");
    }
}

#[test]
fn a_proxy_of_the_environment_needs_no_scheme_and_none_is_none() {
    let server = Uri::from_static("https://10.0.0.1:6443");
    let proxy = proxy_of(&server, "proxy.corp.example:3128", "");
    assert_eq!(proxy, Some(Uri::from_static("http://proxy.corp.example:3128")));
    let proxy = proxy_of(&server, "socks5://10.0.0.2:1080", "");
    assert_eq!(proxy, Some(Uri::from_static("socks5://10.0.0.2:1080")));
    assert_eq!(proxy_of(&server, "", ""), None);
}

#[tokio::test]
async fn a_kubeconfigs_own_proxy_is_that_of_the_contexts_cluster() {
    let read = "current-context: two\n\
         clusters:\n\
         - {name: a, cluster: {server: 'https://[::1]:1', proxy-url: 'http://other:1'}}\n\
         - {name: b, cluster: {server: 'https://[::1]:2', proxy-url: 'socks5://[::1]:3'}}\n\
         - {name: c, cluster: {server: 'https://[::1]:4', proxy-url: ''}}\n\
         contexts:\n\
         - {name: one, context: {cluster: a}}\n\
         - {name: two, context: {cluster: b}}\n\
         - {name: three, context: {cluster: c}}\n";
    let read = Kubeconfig::from_yaml(read).unwrap();
    let chosen = from_kubeconfig(read.clone(), None, "").await.unwrap();
    assert_eq!(chosen.config.proxy_url, Some(Uri::from_static("socks5://[::1]:3")));
    let chosen = from_kubeconfig(read.clone(), Some("one".into()), "").await.unwrap();
    assert_eq!(chosen.config.proxy_url, Some(Uri::from_static("http://other:1")));
    let chosen = from_kubeconfig(read, Some("three".into()), "").await.unwrap();
    assert_eq!(chosen.config.proxy_url, None);
}

#[tokio::test]
async fn an_authority_in_a_file_is_read_again_and_one_in_the_kubeconfig_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let pem = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
    std::fs::write(&file, &pem).unwrap();
    let read_again = async |authority: &str| {
        let text = format!(
            "current-context: one\n\
             clusters: [{{name: a, cluster: {{server: 'https://[::1]:1', {authority}}}}}]\n\
             contexts: [{{name: one, context: {{cluster: a}}}}]\n"
        );
        let read = Kubeconfig::from_yaml(&text).unwrap();
        from_kubeconfig(read, None, "").await.unwrap().config.root_cert_file
    };
    let named = format!("certificate-authority: '{}'", file.display());
    let held = format!("certificate-authority-data: {}", STANDARD.encode(&pem));
    assert_eq!(read_again(&format!("{named}, {held}")).await, None);
    assert_eq!(read_again(&held).await, None);
    assert_eq!(read_again(&named).await, Some(file));
}

#[test]
fn files_that_are_not_there_are_passed_over_and_one_must_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a"), "current-context: one\n").unwrap();
    std::fs::write(path("b"), "current-context: two\nkind: Config\n").unwrap();
    std::fs::write(path("bad"), "clusters: 1\n").unwrap();
    let all = read_all(&[path("none"), path("a"), path("b")]).unwrap();
    assert_eq!(all.current_context.as_deref(), Some("one"));
    assert_eq!(all.kind.as_deref(), Some("Config"));
    let error = read_all(&[path("first"), path("second")]).unwrap_err().to_string();
    assert!(error.contains("first") && !error.contains("second"), "{error}");
    assert!(read_all(&[path("a"), path("bad")]).is_err());
    assert!(read_all(&[]).is_err());
    assert_eq!(named(OsStr::new(":a::b:")), [PathBuf::from("a"), PathBuf::from("b")]);
    assert!(named(OsStr::new("")).is_empty());
}

#[test]
fn a_file_whose_current_context_is_empty_leaves_it_to_the_files_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("unset"), "current-context: \"\"\n").unwrap();
    std::fs::write(path("one"), "current-context: one\n").unwrap();
    let all = read_all(&[path("unset"), path("one")]).unwrap();
    assert_eq!(all.current_context.as_deref(), Some("one"));
    assert_eq!(read_all(&[path("unset")]).unwrap().current_context, None);
}

/// A kubeconfig with these contexts, of which `lost` has a cluster that is not there.
fn kubeconfig(current: &str, contexts: &[&str]) -> Kubeconfig {
    let mut text = format!("current-context: {current:?}\ncontexts:\n");
    for name in contexts {
        let cluster = if *name == "lost" { "none" } else { "c" };
        text.push_str(&format!("- {{name: {name}, context: {{cluster: {cluster}}}}}\n"));
    }
    text.push_str("clusters:\n- {name: c, cluster: {server: 'https://[::1]:1'}}\n");
    Kubeconfig::from_yaml(&text).unwrap()
}

#[tokio::test]
async fn who_has_no_usable_context_is_told_why_and_what_else_there_is() {
    type Case<'a> = (&'a str, &'a [&'a str], Option<&'a str>, &'a str, &'a str);
    let many = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
    let all = "[\"n0\", \"n1\", \"n2\", \"n3\", \"n4\"] and 2 more";
    let cases: [Case<'_>; 8] = [
        ("", &[], None, "it has no contexts", ""),
        ("a", &[], Some("a"), "it has no contexts", ""),
        ("", &["a", "b"], None, "it has no current context", "[\"a\", \"b\"]"),
        ("gone", &["a"], None, "its current context \"gone\" is not in it", "[\"a\"]"),
        ("gone", &many, None, "its current context \"gone\" is not in it", all),
        ("a", &["a"], Some("gone"), "it has no such context", "[\"a\"]"),
        ("a", &["a", "lost"], Some("lost"), "context \"lost\": ", "[\"a\"]"),
        ("lost", &["lost"], None, "context \"lost\": ", ""),
    ];
    for (current, contexts, context, why, others) in cases {
        let told = in_context(kubeconfig(current, contexts), context, "").await.err().unwrap();
        let others = match others {
            "" => "; name another file with --kubeconfig FILE".to_owned(),
            names => format!("; choose one with --context NAME: {names}"),
        };
        assert!(told.starts_with(why) && told.ends_with(&others), "{told}");
    }
    let there = kubeconfig("a", &["a", "lost"]);
    assert_eq!(in_context(there.clone(), None, "").await.unwrap().name, "a");
    assert_eq!(in_context(there, Some("a"), "").await.unwrap().name, "a");
}
