//! What is found, how it is ranked, and what is forgiven.

use super::*;

fn entry(name: &str, keywords: &[&str], description: &str, maintainers: &[&str]) -> Entry {
    let (keywords, maintainers) = (keywords.iter().copied(), maintainers.iter().copied());
    Entry::of(name, keywords, description, maintainers)
}

/// In the order of their names, as a catalogue has them.
fn shop() -> Search {
    let entries = [
        entry("cert-manager", &["tls", "certificates"], "Issues certificates.", &["Jetstack"]),
        entry("cert-manager-webhook-gandi", &["cert-manager"], "DNS01 at Gandi.", &[]),
        entry("ingress-nginx", &["ingress", "reverse proxy"], "An ingress controller.", &[]),
        entry("kube-prometheus-stack", &["operator"], "Everything for Prometheus.", &["Ada"]),
        entry("nginx", &["web"], "A web server.", &["Grace Hopper"]),
        entry("postgresql", &["database", "sql"], "An open source database.", &[]),
        entry("prometheus", &["monitoring"], "Collects metrics.", &["Ada"]),
        entry("prometheus-adapter", &["hpa"], "Serves metrics of Prometheus.", &[]),
        entry("vault", &["secrets"], "Works well with nginx and prometheus.", &[]),
    ];
    Search(entries.into())
}

/// Where charts stand and how well they fit, without the length of their names.
fn fits(search: &Search, words: &str) -> Vec<(usize, u32)> {
    search.find(words).into_iter().map(|(index, score)| (index, score / NEARER)).collect()
}

fn best(words: &str) -> u32 {
    fits(&shop(), words)[0].1
}

fn found(words: &str) -> Vec<String> {
    let search = shop();
    let names = search.find(words).into_iter().map(|(index, _)| search.0[index].name.to_string());
    names.collect()
}

#[test]
fn a_name_comes_before_its_beginning_a_part_of_it_a_keyword_and_a_description() {
    assert_eq!(
        found("prometheus"),
        ["prometheus", "prometheus adapter", "kube prometheus stack", "vault"]
    );
    assert_eq!(found("nginx"), ["nginx", "ingress nginx", "vault"]);
    assert_eq!(found("database"), ["postgresql"]);
    let scores: Vec<u32> = fits(&shop(), "prometheus").iter().map(|(_, fit)| *fit).collect();
    assert_eq!(scores, [EXACT, PREFIX, PART, TEXT]);
    assert_eq!([best("gres"), best("tls"), best("proxy")], [INNER, KEYWORD, IN_KEYWORD]);
    assert_eq!(found("hopper"), ["nginx"]);
}

#[test]
fn all_words_must_fit_in_whatever_order_and_however_they_are_joined() {
    for words in ["cert-manager", "Cert Manager", " cert_manager "] {
        assert_eq!(found(words), ["cert manager", "cert manager webhook gandi"], "{words}");
        assert_eq!(best(words), EXACT, "{words}");
    }
    assert_eq!(found("nginx ingress"), ["ingress nginx"]);
    assert_eq!(found("collects ada"), ["prometheus"]);
    assert_eq!(found("prometheus ada")[0], "prometheus adapter");
    assert_eq!(found("nginx database"), [] as [&str; 0]);
    assert_eq!(found("reverse proxy"), ["ingress nginx"]);
}

#[test]
fn one_typo_is_forgiven_from_four_letters_and_two_from_eight() {
    for typo in ["nginz", "ngnix", "ngin", "nginxx", "nignx"] {
        let first = found(typo).into_iter().next();
        assert_eq!(first.as_deref(), Some("nginx"), "{typo}");
    }
    for typo in ["prometeus", "promethues", "promethesu", "prmetheuss"] {
        assert_eq!(found(typo)[0], "prometheus", "{typo}");
    }
    assert_eq!(found("postgrsql"), ["postgresql"]);
    assert_eq!(found("databse"), ["postgresql"]);
    assert_eq!(found("certt manager")[0], "cert manager");
    for far in ["ngx", "ngonz", "promtes", "veb"] {
        assert_eq!(found(far), [] as [&str; 0], "{far}");
    }
}

#[test]
fn what_is_called_so_is_not_taken_for_a_typo() {
    let search = Search([entry("radis", &[], "", &[]), entry("redis", &[], "", &[])].into());
    assert_eq!(fits(&search, "redis"), [(1, EXACT)]);
    assert_eq!(fits(&search, "rodis"), [(0, MEANT), (1, MEANT)]);
}

#[test]
fn of_equals_the_shorter_name_comes_first() {
    let names = ["web-something", "web-app", "web-bpp"].map(|name| entry(name, &[], "", &[]));
    let search = Search(names.into());
    assert_eq!(fits(&search, "web"), [(1, PREFIX), (2, PREFIX), (0, PREFIX)]);
    let long = Search([entry(&"a".repeat(400), &[], "", &[])].into());
    assert_eq!(long.find("aaa"), [(0, PREFIX * NEARER)]);
}

#[test]
fn odd_questions_find_nothing_and_long_ones_are_cut() {
    for odd in ["", "  ", "---", "💥", "\0"] {
        assert!(shop().find(odd).is_empty(), "{odd:?}");
    }
    assert_eq!(shop().find(&"nginx ".repeat(10_000))[0].0, 4);
    assert!(shop().find(&"x".repeat(1 << 20)).is_empty());
    let long = entry("a", &["k".repeat(9_000).as_str(); 99], &"é ".repeat(9_000), &["m"; 99]);
    assert!(long.keywords.len() < 2 * SEARCHED && long.rest.len() < 4 * SEARCHED);
}

#[test]
fn letters_of_every_script_are_searched_in_lower_case() {
    let search = Search([entry("ärger", &["数据库"], "ÉTÉ", &[])].into());
    for words in ["ÄRGER", "数据", "été", "argEr"] {
        assert_eq!(search.find(words).len(), 1, "{words}");
    }
}

#[test]
fn the_distance_of_words_is_symmetric_and_counts_an_exchange_once() {
    let near = |a: &str, b: &str, most| {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        assert_eq!(is_near(&a, &b, most), is_near(&b, &a, most));
        is_near(&a, &b, most)
    };
    assert!(near("", "", 0) && near("abc", "abc", 0) && near("", "a", 1));
    assert!(near("abcd", "abdc", 1) && !near("abcd", "badc", 1) && near("abcd", "badc", 2));
    assert!(near("kitten", "sitting", 3) && !near("kitten", "sitting", 2));
}
