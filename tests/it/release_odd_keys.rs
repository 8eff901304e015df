//! Keys that are no text to YAML 1.1 (`on`, `1.10`, `0400`), with the real helm: values as text mean
//! what helm makes of the same file, and a preview of what is installed tells no change.
//!
//! It is NOT where previews are tested otherwise (`release_preview.rs`).

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster;
use crate::gateway;
use crate::helm_charts::{BOTH, Hand, archive, chart, made, options};
use crate::writes::live;

const VALUES: &str = "yes: no
1.10: x
ports: {0o17: a, 0x1F: b, 8_080: c, 'off': d, 08: e}
1e6: f
16777217.0: g
18446744073709551616: h
-.50: [{Y: i}]
? 1e40
: j
";
const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data:
  on: x
  1.10: v
  0400: z
  1_000: t
  9000: m
  plain: p
  values: {{ toJson .Values | quote }}
";

/// What helm says of a release's values.
async fn values(hand: &Hand<'_>, major: u32, name: &str, more: &[&str]) -> Value {
    let args = ["get", "values", name, "-n", hand.namespace, "-o", "json"];
    let said = made(major, hand.token, &[], &[&args[..], more].concat()).await;
    serde_json::from_str(&said).unwrap()
}

#[tokio::test]
async fn keys_that_are_no_text_are_what_helm_makes_of_them() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("odd-keys{major}")).await;
        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        let defaults = "yes: yes\n1.10: of the chart\n";
        let files = [("templates/map.yaml", MAP), ("values.yaml", defaults)];
        let chart = chart("odd", "0.1.0", &files);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.yaml");
        std::fs::write(&file, VALUES).unwrap();
        let file = file.display().to_string();
        let args = ["install", "theirs", "chart.tgz", "-f", &file, "-n", &namespace];
        made(major, hand.token, &chart, &args).await;
        let body = json!({"chart": archive(&chart), "values": VALUES});
        hand.succeeds("install", "ours", body.clone()).await;

        let wanted = json!({
            "true": false, "1.1": "x", "1e+06": "f", "1.6777216e+07": "g", "1.8446744e+19": "h",
            "ports": {"15": "a", "31": "b", "8080": "c", "off": "d", "8": "e"},
            "-0.5": [{"true": "i"}], ".inf": "j",
        });
        for name in ["theirs", "ours"] {
            assert_eq!(values(&hand, major, name, &[]).await, wanted, "helm {major}, {name}");
            let all = values(&hand, major, name, &["--all"]).await;
            assert_eq!(all, wanted, "helm {major}, {name}");
            let read = hand.get(&format!("{}/values", hand.at(name))).await.json();
            assert_eq!((&read["user"], &read["computed"]), (&wanted, &wanted), "{name}: {read}");
        }

        let map = live(cluster, &format!("/api/v1/namespaces/{namespace}/configmaps/ours")).await;
        let map = map.unwrap();
        for (key, value) in [("true", "x"), ("1.1", "v"), ("256", "z"), ("1000", "t")] {
            assert_eq!(map["data"][key], value, "helm {major}: {map}");
        }
        for (act, mut body) in [("upgrade", body), ("rollback", json!({"revision": 1}))] {
            body["act"] = act.into();
            let path = format!("{}/preview", hand.at("ours"));
            let answer = hand.send(Method::POST, &path, &[], &body).await;
            assert_eq!(answer.status, 200, "helm {major}, {act}: {}", answer.text());
            let shown = answer.json();
            let objects = shown["objects"].as_array().unwrap();
            let changes: Vec<_> = objects.iter().map(|object| &object["change"]).collect();
            assert_eq!(changes, ["none"], "helm {major}, {act}: {shown}");
        }
        gateway.stop().await;
    }))
    .await;
}
