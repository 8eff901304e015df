//! Selectors as the API server reads them, and what is none.

use super::*;

fn picks(selector: &str, labels: &[(&str, &str)]) -> bool {
    Selector::parse(selector).unwrap().matches(&labels.iter().copied().collect())
}

#[test]
fn terms_are_those_of_kubectl_and_all_must_hold() {
    let web = [("app", "web"), ("tier", "a"), ("n", "2"), ("in", "notin")];
    for selector in [
        "",
        " \t",
        "app",
        "!canary",
        "! canary",
        "app=web",
        "app==web",
        "app!=db",
        "other!=x",
        "other!=",
        "tier in (a, b)",
        "tier in(a)",
        "tier notin (b,c)",
        "tier notin ()",
        "other notin (x)",
        "app=web,tier in (a,b),!canary",
        "tier=a , app",
        "app = web",
        "n>1",
        "n > 1, n<3",
        "n<9223372036854775807",
        "in in (in,notin)",
        "in=notin",
        "a.example.org/b!=c",
        // As the API server has it.
        "app=web\0",
        "\0nothing",
        "app \0,,",
    ] {
        assert!(picks(selector, &web), "{selector:?}");
    }
    for selector in [
        "canary",
        "!app",
        "app=db",
        "app!=web",
        "app=",
        "tier in (b)",
        "tier in ()",
        "tier in (,b)",
        "tier notin (a)",
        "app,app=x",
        "n>2",
        "n<2",
        "n>00002",
        "app>1",
        "other<1",
    ] {
        assert!(!picks(selector, &web), "{selector:?}");
    }
    for empty in ["app=", "app= ,app", "app in ()", "app in (x,,y)", "app in (,)", "app in (x,)"] {
        assert!(picks(empty, &[("app", "")]), "{empty:?}");
    }
    assert!(picks("n>8", &[("n", "0009")]), "it is a number, not a text");
    assert!(!picks("n>8", &[("n", "99999999999999999999")]), "none that fits");
}

#[test]
fn what_is_no_selector_is_named() {
    let long = "a".repeat(LONGEST + 1);
    let prefix = format!("{}/a", "a".repeat(LONGEST_PREFIX + 1));
    let (long_value, many) = (format!("a={long}"), vec!["a"; TERMS + 1].join(","));
    for bad in [
        "=x",
        "a=b=c",
        "a===b",
        "a in b",
        "a in (b",
        "a in b)",
        "a in (b c)",
        "a in ((b))",
        "a,,b",
        ",a",
        ",",
        "a,",
        "a, ",
        "a%b",
        "a=ü",
        "a near (b)",
        "a b",
        "!",
        "!a=b",
        "!!a",
        "a>",
        "a>x",
        "a>=1",
        "a>1.5",
        "a<-1",
        "a>+1",
        "a>99999999999999999999",
        "a=b|c",
        "-a",
        "a.",
        "a=-b",
        "a=b-",
        "a=-b-",
        "a in (b,-c)",
        "a/b/c",
        "a/",
        "/a",
        "A.example/a",
        "a..b/c",
        "-a/b",
        "a\0b",
        &long,
        &prefix,
        &long_value,
        &many,
    ] {
        assert!(Selector::parse(bad).is_err(), "{bad:?}");
    }
    for (bad, words) in [
        ("a,", "it ends where there should be a label"),
        ("a=-b", "\"-b\" is no label's value"),
        ("a/b/c", "\"a/b/c\" is no label:"),
        ("i>x", "\"x\" is no whole number"),
        ("a in b", "\"b\" where there should be an opening bracket"),
    ] {
        let said = Selector::parse(bad).unwrap_err();
        assert!(said.contains(words), "{bad:?}: {said}");
    }
    let said = Selector::parse(&"é".repeat(30_000)).unwrap_err();
    assert!(said.len() < 1000, "not all of it is repeated: {said}");
}
