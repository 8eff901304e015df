//! Services: where they can be reached, from inside and outside, and which pods they select.
//!
//! The endpoints behind a service are another resource, gathered above.

use std::collections::BTreeMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::detail::text;
use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode, flat};
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::text("type")],
    list: ListShape::rows("services"),
    relations: &[Relation::Endpoints],
    children: &[("event", Child::Events), ("ingress", Child::Ingresses), ("pod", Child::Pods)],
    ..KindDef::of("service", Resource::namespaced("", "v1", "Service", "services"), row, detail)
};

#[derive(Deserialize)]
struct Service<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, rename = "clusterIP")]
    cluster_ip: Text<'a>,
    #[serde(borrow, rename = "externalIPs")]
    external_ips: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    selector: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow)]
    ports: Option<Vec<Port<'a>>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port<'a> {
    #[serde(default)]
    port: i64,
    #[serde(borrow, default)]
    protocol: Text<'a>,
    #[serde(default)]
    node_port: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    #[serde(borrow)]
    load_balancer: LoadBalancer<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoadBalancer<'a> {
    #[serde(borrow)]
    ingress: Option<Vec<Ingress<'a>>>,
}

#[derive(Deserialize)]
struct Ingress<'a> {
    #[serde(borrow, default)]
    hostname: Text<'a>,
    #[serde(borrow, default)]
    ip: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    internal_endpoint: Endpoint<'a>,
    external_endpoints: Vec<Endpoint<'a>>,
    selector: Option<&'a BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(rename = "clusterIP")]
    cluster_ip: &'a str,
}

/// Ports are null when the service has none.
#[derive(Serialize)]
struct Endpoint<'a> {
    host: String,
    ports: Option<&'a [Port<'a>]>,
}

impl<'a> Service<'a> {
    fn endpoint(&'a self, host: String) -> Endpoint<'a> {
        let ports = self.spec.ports.as_deref().filter(|ports| !ports.is_empty());
        Endpoint { host, ports }
    }

    /// The name under which pods of any namespace find the service.
    fn internal_host(&self) -> String {
        let Meta { name, namespace, .. } = &self.metadata;
        if namespace.is_empty() || **namespace == *"default" {
            name.to_string()
        } else {
            format!("{}.{}", &**name, &**namespace)
        }
    }

    /// Addresses of the load balancer, if the service asks for one, then every external IP.
    fn external_hosts(&self) -> Vec<String> {
        let balanced = &*self.spec.kind == "LoadBalancer";
        let ingress = self.status.load_balancer.ingress.iter().flatten();
        let balancers = ingress
            .filter(|_| balanced)
            .map(|at| if at.hostname.is_empty() { &at.ip } else { &at.hostname });
        let ips = self.spec.external_ips.iter().flatten();
        balancers.chain(ips).map(|host| host.to_string()).collect()
    }
}

fn row(json: &str) -> Result<Row, Malformed> {
    let object: Service = decode(KIND.name, json)?;
    let hosts = object.external_hosts();
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta::plain(KIND.name),
        internal_endpoint: object.endpoint(object.internal_host()),
        external_endpoints: hosts.into_iter().map(|host| object.endpoint(host)).collect(),
        selector: object.spec.selector.as_ref(),
        kind: &object.spec.kind,
        cluster_ip: &object.spec.cluster_ip,
    };
    let cells = vec![Cell::Text(CompactString::new(&*object.spec.kind))];
    object.metadata.row(KIND.name, &item, cells, vec![], Facts::None)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Map<String, Value>, Malformed> {
    let mut fields = flat(KIND.name, object, row)?;
    fields.insert("sessionAffinity".into(), text(object, "/spec/sessionAffinity").into());
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(object: &Value) -> Value {
        serde_json::from_slice(&row(&object.to_string()).unwrap().json).unwrap()
    }

    #[test]
    fn a_service_shows_its_endpoints_selector_and_type() {
        let json = r#"{"metadata": {"name": "public", "namespace": "atlas"},
            "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "externalIPs": ["192.0.2.7"],
                "selector": {"app": "tiles"}, "sessionAffinity": "None",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}]},
            "status": {"loadBalancer": {}}}"#;
        let made = row(json).unwrap();
        assert_eq!(*made.cells, [Cell::Text("NodePort".into())]);
        assert_eq!(
            std::str::from_utf8(&made.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"public","namespace":"atlas","creationTimestamp":null},"#,
                r#""typeMeta":{"kind":"service"},"internalEndpoint":{"host":"public.atlas","#,
                r#""ports":[{"port":80,"protocol":"TCP","nodePort":30080}]},"#,
                r#""externalEndpoints":[{"host":"192.0.2.7","ports":[{"port":80,"protocol":"TCP","nodePort":30080}]}],"#,
                r#""selector":{"app":"tiles"},"type":"NodePort","clusterIP":"10.96.0.9"}"#,
            )
        );
        let fields = detail_of(&KIND, json).unwrap();
        assert_eq!(fields["sessionAffinity"], "None");
        assert_eq!(fields["internalEndpoint"]["host"], "public.atlas");
    }

    #[test]
    fn external_endpoints_are_balancers_of_load_balancers_then_external_ips() {
        let ingress = json!([{"hostname": "lb.example", "ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]);
        let service = |kind: &str| {
            json!({
                "metadata": {"name": "s", "namespace": "n"},
                "spec": {"type": kind, "externalIPs": ["192.0.2.7", "192.0.2.8"]},
                "status": {"loadBalancer": {"ingress": ingress}},
            })
        };
        for (kind, expected) in [
            ("LoadBalancer", vec!["lb.example", "192.0.2.2", "192.0.2.7", "192.0.2.8"]),
            ("NodePort", vec!["192.0.2.7", "192.0.2.8"]),
        ] {
            let item = item(&service(kind));
            let ends = item["externalEndpoints"].as_array().unwrap();
            let hosts: Vec<_> = ends.iter().map(|end| end["host"].as_str().unwrap()).collect();
            assert_eq!(hosts, expected, "{kind}");
            assert!(ends.iter().all(|end| end["ports"].is_null()));
        }
    }

    #[test]
    fn the_internal_host_names_the_namespace_unless_it_is_the_default_one() {
        for (namespace, host) in [("default", "s"), ("atlas", "s.atlas"), ("", "s")] {
            let item = item(&json!({"metadata": {"name": "s", "namespace": namespace}}));
            assert_eq!(item["internalEndpoint"]["host"], host);
            assert_eq!(item["internalEndpoint"]["ports"], Value::Null);
            assert_eq!(item["externalEndpoints"], json!([]));
            assert_eq!(item["selector"], Value::Null);
        }
    }
}
