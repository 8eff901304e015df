//! Credentials of repositories: kept where nobody reads them, shown to their own host alone whoever
//! changes the address and however, and of no use to who may not change the repository.
//!
//! It is NOT where repositories are made and removed (`chart_repos.rs`), nor where registries
//! refuse passwords (`registries.rs`).

use axum::extract::Request;
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use crate::chart_hostile::moved;
use crate::chart_repos::{PAIR, PASSWORD, Shelf, says, tried_by};
use crate::chart_uploads::push;
use crate::cluster::{self, Cluster};
use crate::museum_server::{Authority, Pack, Pages, Site, Wants, index};
use crate::people::{Person, grant};

const TOKEN: &str = "token-nobody-may-read";

fn given() -> Value {
    json!({"username": "reader", "password": PASSWORD})
}

impl Shelf {
    async fn change(&self, name: &str, definition: &Value) -> Value {
        let path = format!("repository/{name}");
        let answer = self.send(Method::PUT, &path, definition).await;
        assert_eq!(answer.status, 200, "{definition}: {}", answer.text());
        self.read(&path).await
    }
}

#[tokio::test]
async fn a_private_authority_and_credentials_let_us_in_and_are_never_told() {
    let packs = [Pack::new("web", "1.0.0", &[]), Pack::new("db", "2.0.0", &[])];
    let (pages, authority) = (Pages::of("/stable", &packs), Authority::new());
    let (certificate, key) = authority.issue(&["client.test"]);
    let pair = json!({"clientCertificate": certificate, "clientKey": key});
    let mut servers = Vec::new();
    for (kind, wants, given) in [
        ("basic", Wants::Basic(PAIR), given()),
        ("bearer", Wants::Bearer(TOKEN), json!({"token": TOKEN})),
        ("certificate", Wants::Nothing, pair),
    ] {
        let tls = authority.server(kind == "certificate");
        servers.push((kind, Site::of(Some(tls), wants, &pages).await, given));
    }
    let sites: Vec<_> = servers.iter().map(|(_, site, _)| site).collect();
    let shelf = Shelf::open("charts-tls", &sites).await;
    for (kind, site, given) in &servers {
        let url = site.url("/stable");
        let mut definition = json!({"name": shelf.name(kind), "type": "index", "url": url});
        let refused = shelf.tried(&definition).await;
        assert_eq!(refused["ok"], false, "{kind}: {refused}");
        says(refused["error"].as_str().unwrap_or_default(), &["certificate", "authority", "trust"]);
        definition["credentials"] = json!({"ca": authority.pem});
        let refused = shelf.tried(&definition).await;
        assert_eq!(refused["ok"], false, "{kind}: {refused}");
        assert!(refused["error"].is_string(), "{kind}: {refused}");
        definition["credentials"] = given.clone();
        definition["credentials"]["ca"] = authority.pem.as_str().into();
        let tried = shelf.tried(&definition).await;
        assert_eq!((&tried["ok"], &tried["charts"]), (&json!(true), &json!(2)), "{kind}: {tried}");

        let name = shelf.create(kind, definition.clone()).await;
        assert_eq!(shelf.charts(&name).await, ["db 2.0.0", "web 1.0.0"]);
        let status = shelf.status(&name).await;
        assert_eq!((&status["charts"], &status["versions"]), (&json!(2), &json!(2)), "{status}");
        assert!(status["lastSuccess"].is_string() && status["error"].is_null(), "{status}");
        is_kept_secret(&shelf, &name, site, &definition["credentials"]).await;
    }
    shelf.close().await;
}

/// The credentials are in the Secret with the host they are for, and nowhere else.
async fn is_kept_secret(shelf: &Shelf, name: &str, site: &Site, given: &Value) {
    let secret = shelf.object("secrets", name).await.unwrap();
    assert_eq!(secret["type"], "binnacle.dev/repository.v1");
    let kept = |key: &str| {
        let value = STANDARD.decode(secret["data"][key].as_str().unwrap_or_default()).unwrap();
        String::from_utf8(value).unwrap().trim_end().to_owned()
    };
    assert_eq!(kept("host"), site.address.to_string());
    let map = shelf.object("configmaps", name).await.unwrap();
    assert_eq!(map["metadata"]["labels"]["binnacle.dev/repository"], "true", "{map}");
    let one = shelf.get(&format!("repository/{name}")).await;
    let all = shelf.get("repository").await;
    assert_eq!(one.json()["hasCredentials"], true, "{}", one.text());
    assert_eq!(one.json()["source"], "configMap", "{}", one.text());
    for (field, key) in [
        ("username", "username"),
        ("password", "password"),
        ("token", "token"),
        ("clientCertificate", "tls.crt"),
        ("clientKey", "tls.key"),
        ("ca", "ca.crt"),
    ] {
        let Some(value) = given[field].as_str() else { continue };
        assert_eq!(kept(key), value.trim_end(), "{field}");
        // The line breaks of PEM would be escaped in JSON.
        let part = value.lines().nth(1).unwrap_or(value);
        for text in [one.text(), all.text(), map["data"].to_string()] {
            assert!(!text.contains(part), "{field} is told: {text}");
        }
    }
}

/// The headers of all requests for this path.
fn heads(site: &Site, path: &str) -> Vec<HeaderMap> {
    let asked = site.asked().into_iter().filter(|asked| asked.target == path);
    asked.map(|asked| asked.headers).collect()
}

#[tokio::test]
async fn credentials_stay_with_an_edit_and_go_with_their_host() {
    let packs = [Pack::new("web", "1.0.0", &[])];
    let pages = Pages::of("", &packs);
    pages.put("/other/index.yaml", "application/yaml", index(&packs));
    let home = Site::of(None, Wants::Basic(PAIR), &pages).await;
    let away = Site::of(None, Wants::Nothing, &pages).await;
    let shelf = Shelf::open("charts-hosts", &[&home, &away]).await;
    let definition = json!({"type": "index", "url": home.url("/"), "credentials": given()});
    let name = shelf.create("edited", definition).await;

    let mut edited = json!({"name": name, "type": "index", "url": home.url("/other/")});
    edited["interval"] = "1h".into();
    let after = shelf.change(&name, &edited).await;
    assert_eq!((&after["hasCredentials"], &after["interval"]), (&json!(true), &json!("1h")));
    let is_read = || async { !heads(&home, "/other/index.yaml").is_empty() };
    Cluster::eventually("the new address is read", is_read).await;
    shelf.until(&name, "ok").await;

    edited["url"] = away.url("/").into();
    let after = shelf.change(&name, &edited).await;
    assert_eq!(after["hasCredentials"], false, "{after}");
    let is_read = || async { !heads(&away, "/index.yaml").is_empty() };
    Cluster::eventually("the new host is read", is_read).await;
    shelf.until(&name, "ok").await;
    let secret = shelf.object("secrets", &name).await;
    assert!(secret.is_none_or(|secret| secret["data"]["password"].is_null()), "the password stays");

    // Back again: what was dropped does not come back.
    edited["url"] = home.url("/").into();
    shelf.change(&name, &edited).await;
    let status = shelf.until(&name, "failing").await;
    says(status["error"].as_str().unwrap(), &["401", "credential"]);
    let told = away.asked().iter().any(|asked| asked.headers.contains_key(header::AUTHORIZATION));
    assert!(!told, "credentials are sent to another host");
    shelf.close().await;
}

#[tokio::test]
async fn credentials_follow_neither_a_redirect_nor_an_address_to_another_host() {
    let packs = [Pack::new("web", "1.0.0", &[])];
    let away = Site::of(None, Wants::Nothing, &Pages::of("", &packs)).await;
    let (text, there) = (index(&packs), away.url("/charts/"));
    let text = text.replace("- charts/", &format!("- {there}"));
    let leads = away.url("/index.yaml");
    let answer = move |request: Request| {
        let refused = Wants::Basic(PAIR).refuses(request.headers());
        let answer = refused.unwrap_or_else(|| match request.uri().path() {
            "/moved/index.yaml" => moved(&leads),
            _ => text.clone().into_response(),
        });
        std::future::ready(answer)
    };
    let home = Site::start(None, answer).await;
    let shelf = Shelf::open("charts-follow", &[&home, &away]).await;
    for (short, path) in [("moved", "/moved"), ("linked", "/")] {
        let url = home.url(path);
        let definition = json!({"type": "index", "url": url, "credentials": given()});
        let name = shelf.create(short, definition).await;
        assert_eq!(shelf.charts(&name).await, ["web 1.0.0"]);
        if short == "linked" {
            let answer = shelf.get(&format!("chart/{name}/web/1.0.0/archive")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.body, packs[0].bytes);
        }
    }
    assert!(heads(&home, "/index.yaml")[0].contains_key(header::AUTHORIZATION));
    for path in ["/index.yaml", "/charts/web-1.0.0.tgz"] {
        let heads = heads(&away, path);
        assert!(!heads.is_empty(), "nobody asked for {path}");
        let told = heads.iter().any(|head| head.contains_key(header::AUTHORIZATION));
        assert!(!told, "credentials are sent to another host for {path}");
    }
    shelf.close().await;
}

/// Sets the address in a repository's ConfigMap past us, and has us look at it.
async fn edit(shelf: &Shelf, name: &str, url: &str) {
    let map = shelf.object("configmaps", name).await.unwrap();
    let mut definition: Value =
        serde_json::from_str(map["data"]["definition"].as_str().unwrap()).unwrap();
    assert_eq!(definition["hasCredentials"], true, "{definition}");
    definition["url"] = url.into();
    let patch = json!({"data": {"definition": definition.to_string()}}).to_string();
    let map = format!("binnacle.repository.{name}");
    let mut args = vec!["patch", "configmap", &map, "-n", &shelf.namespace];
    args.extend(["--type=merge", "-p", &patch]);
    let output = cluster::shared().await.kubectl("admin", &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Of one that we do not know another replica may know already.
    assert_eq!(shelf.get("repository/nowhere").await.status, 404);
}

#[tokio::test]
async fn an_address_that_is_edited_past_us_gets_nothing_of_what_is_stored() {
    let packs = [Pack::new("web", "1.0.0", &[])];
    let pages = Pages::of("", &packs);
    let home = Site::of(None, Wants::Basic(PAIR), &pages).await;
    let away = Site::of(None, Wants::Nothing, &pages).await;
    let shelf = Shelf::open("charts-edited", &[&home, &away]).await;
    let definition = json!({"type": "museum", "url": home.url("/"), "credentials": given()});
    let name = shelf.create("edited", definition).await;

    edit(&shelf, &name, &away.url("/")).await;
    let status = shelf.until(&name, "failing").await;
    let (old, new) = (home.host(), away.host());
    let why =
        format!("the stored credentials are for {old} and are not sent to {new}: give them anew");
    assert_eq!((&status["error"], &status["charts"]), (&json!(why), &json!(0)), "{status}");
    // Nor by any other way there is.
    let edited = json!({"name": name, "type": "museum", "url": away.url("/")});
    let tried = shelf.tried(&edited).await;
    assert_eq!((&tried["ok"], &tried["error"]), (&json!(false), &json!(why)), "{tried}");
    let upload = push(&shelf.hand(), Method::POST, &format!("chart/{name}"), &packs[0].bytes).await;
    assert_eq!(upload.status, 502, "{}", upload.text());
    assert!(upload.text().contains(&why), "{}", upload.text());
    let path = format!("repository/{name}/refresh");
    let before = status["lastAttempt"].clone();
    assert_eq!(shelf.send(Method::POST, &path, &json!({})).await.status, 202);
    let is_over = || async {
        let status = shelf.status(&name).await;
        status["state"] == "failing" && status["lastAttempt"] != before
    };
    Cluster::eventually("it was refreshed once more", is_over).await;
    assert!(away.asked().is_empty(), "{:?}", away.asked());

    // They are for their own host still.
    edit(&shelf, &name, &home.url("/")).await;
    shelf.until(&name, "ok").await;
    assert_eq!(shelf.charts(&name).await, ["web 1.0.0"]);
    shelf.close().await;
}

/// Somebody with this right to ConfigMaps of these names; to all without any.
async fn person(shelf: &Shelf, who: &str, verb: &str, names: &[&str]) -> Person {
    let cluster = cluster::shared().await;
    let person = Person::new(cluster, &shelf.namespace, who).await;
    let rules = json!([{
        "apiGroups": [""], "resources": ["configmaps"], "verbs": [verb], "resourceNames": names,
    }]);
    grant(cluster, Some(&shelf.namespace), who, person.subject.clone(), rules).await;
    person
}

#[tokio::test]
async fn what_is_stored_is_tried_for_nobody_but_who_may_change_the_repository() {
    let packs = [Pack::new("web", "1.0.0", &[])];
    let pages = Pages::of("", &packs);
    // Refreshes go elsewhere.
    pages.put("/tried/index.yaml", "application/yaml", index(&packs));
    let home = Site::of(None, Wants::Basic(PAIR), &pages).await;
    let away = Site::of(None, Wants::Nothing, &pages).await;
    let shelf = Shelf::open("charts-tried", &[&home, &away]).await;
    let definition = json!({"type": "index", "url": home.url("/"), "credentials": given()});
    let name = shelf.create("kept", definition).await;
    let map = format!("binnacle.repository.{name}");
    let stranger = person(&shelf, "stranger", "update", &["something-else"]).await;
    let reader = person(&shelf, "reader", "get", &[&map]).await;
    let maker = person(&shelf, "maker", "create", &[]).await;
    let keeper = person(&shelf, "keeper", "update", &[&map]).await;
    let kept = json!({"name": name, "type": "index", "url": home.url("/tried/")});
    let elsewhere = json!({"name": name, "type": "index", "url": away.url("/tried/")});
    let with = |credentials: Value| {
        let mut body = kept.clone();
        body["credentials"] = credentials;
        body
    };
    let tried = || heads(&home, "/tried/index.yaml");

    for token in [&reader.token, &stranger.token] {
        for body in [&kept, &with(given()), &elsewhere] {
            let answer = tried_by(&shelf.by(token), body).await;
            assert_eq!(answer.status, 403, "{}", answer.text());
            let said = answer.text();
            assert!(said.contains("cannot create resource \"configmaps\""), "{said}");
        }
    }
    assert!(tried().is_empty() && away.asked().is_empty(), "somebody without rights was heard");

    let basic = format!("Basic {}", STANDARD.encode(PAIR));
    for (token, body, sent) in [
        (&maker.token, kept.clone(), false),
        (&maker.token, with(given()), true),
        (&keeper.token, with(json!({})), false),
        (&keeper.token, kept.clone(), true),
    ] {
        let before = tried().len();
        let answer = tried_by(&shelf.by(token), &body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        let (answer, heads) = (answer.json(), tried());
        assert_eq!((heads.len(), &answer["ok"]), (before + 1, &json!(sent)), "{body}: {answer}");
        let shown = heads[before].get(header::AUTHORIZATION);
        assert_eq!(shown.is_some(), sent, "{body}");
        assert!(shown.is_none_or(|value| value.as_bytes() == basic.as_bytes()), "{body}");
        if !sent {
            says(answer["error"].as_str().unwrap(), &["401 unauthorized: it wants credentials"]);
        }
    }
    let answer = tried_by(&shelf.by(&keeper.token), &elsewhere).await;
    assert_eq!(answer.json()["ok"], true, "{}", answer.text());
    let told = heads(&away, "/tried/index.yaml");
    assert_eq!(told.len(), 1);
    assert!(!told[0].contains_key(header::AUTHORIZATION), "credentials are sent to another host");
    shelf.close().await;
}
