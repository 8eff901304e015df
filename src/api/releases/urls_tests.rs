//! Addresses out of ingresses, routes and services.

use super::*;
use crate::helm::manifest::objects;

fn seen(api_version: &str, kind: &str, mut value: Value) -> Seen {
    value["metadata"] = json!({"name": "web", "namespace": "shop"});
    let text = format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: web}}}}");
    let object = objects(&text).0.remove(0);
    let (namespace, uid) = ("shop".into(), "u".into());
    Seen { object, namespace, uid, state: "ready", message: String::new(), value }
}

fn shown(reached: &[Reached<'_>]) -> Vec<String> {
    let urls = reached.iter().filter_map(Reached::shown);
    urls.map(|url| url["url"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_ingress_is_reached_by_its_hosts_encrypted_where_it_says_so() {
    let ingress = json!({
        "spec": {"tls": [{"hosts": ["*.example.com"]}], "rules": [
            {"host": "a.example.com", "http": {"paths": [
                {"path": "/"}, {"path": "/app(/|$)(.*)"}]}},
            {"host": "plain.test"},
            {"host": "*.example.com", "http": {"paths": [{"path": "/"}]}},
            {"http": {"paths": [{"path": "/any"}]}}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "2001:db8::1"}]}}});
    let ingress = seen("networking.k8s.io/v1", "Ingress", ingress);
    let wanted = [
        "https://a.example.com/",
        "https://a.example.com/app",
        "http://plain.test/",
        "http://[2001:db8::1]/any",
    ];
    let reached = of_ingress(&ingress);
    assert_eq!(shown(&reached), wanted);
    let first = reached[0].shown().unwrap();
    let addresses = json!(["2001:db8::1"]);
    assert_eq!((&first["kind"], &first["addresses"]), (&json!("Ingress"), &addresses));
}

#[test]
fn a_load_balancer_is_reached_by_its_addresses_and_a_node_port_is_none() {
    let service = |kind: &str| {
        let ports = json!([{"port": 80, "name": "web"}, {"port": 8443}, {"port": 5432},
            {"port": 53, "protocol": "UDP"}, {"port": 9000, "appProtocol": "http"}]);
        let balanced = json!({"loadBalancer": {"ingress": [{"hostname": "lb.test", "ip": "x"}]}});
        seen("v1", "Service", json!({"spec": {"type": kind, "ports": ports}, "status": balanced}))
    };
    let wanted = [
        "http://lb.test/",
        "https://lb.test:8443/",
        "tcp://lb.test:5432",
        "udp://lb.test:53",
        "http://lb.test:9000/",
    ];
    assert_eq!(shown(&of_service(&service("LoadBalancer"))), wanted);
    assert!(of_service(&service("NodePort")).is_empty());
}

#[test]
fn a_route_is_reached_through_the_listeners_of_its_gateways() {
    let gateway = json!({
        "spec": {"listeners": [
            {"name": "plain", "protocol": "HTTP", "port": 8080},
            {"name": "tls", "protocol": "HTTPS", "port": 443, "hostname": "*.example.com"},
            {"name": "tcp", "protocol": "TCP", "port": 5432}]},
        "status": {"addresses": [{"value": "192.0.2.1"}]}});
    let route = json!({"spec": {
        "hostnames": ["web.example.com", "other.test"],
        "parentRefs": [{"name": "web", "sectionName": "tls"}, {"name": "web", "port": 8080},
            {"name": "gone"}, {"group": "", "kind": "Service", "name": "web"}],
        "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/a"}}]},
            {"matches": [{"path": {"type": "RegularExpression", "value": "/b.*"}}]}]}});
    let gateway = seen("gateway.networking.k8s.io/v1", "Gateway", gateway);
    let wanted = ["http://192.0.2.1:8080/"];
    assert_eq!(shown(&of_gateway(&gateway)), wanted);
    let route = seen("gateway.networking.k8s.io/v1", "HTTPRoute", route);
    let look = Look { seen: vec![gateway, route], errors: vec![] };
    let wanted =
        ["https://web.example.com/a", "http://web.example.com:8080/a", "http://other.test:8080/a"];
    let others = BTreeMap::new();
    assert_eq!(shown(&of_route(&look.seen[1], &look, &others)), wanted);
}

#[test]
fn what_is_no_host_becomes_no_link() {
    let host = |host: &str| {
        let ingress = json!({"spec": {"rules": [{"host": host}]}});
        shown(&of_ingress(&seen("networking.k8s.io/v1", "Ingress", ingress))).len()
    };
    assert_eq!(host("a.test"), 1);
    for odd in ["a.test/<script>", "a b", "user@a.test", "*"] {
        assert_eq!(host(odd), 0, "{odd}");
    }
    assert_eq!(plain_path("/files.v1"), "/files.v1");
    assert_eq!(plain_path("/app.*"), "/app");
}

#[test]
fn services_show_their_ports() {
    let spec = json!({"clusterIP": "10.0.0.1",
        "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    let look = Look { seen: vec![seen("v1", "Service", json!({"spec": spec}))], errors: vec![] };
    assert_eq!(
        services(&look),
        [json!({"name": "web", "namespace": "shop", "type": "ClusterIP",
            "clusterIP": "10.0.0.1", "addresses": [], "ports": [{"name": "http", "port": 80,
                "protocol": "TCP", "targetPort": "web", "nodePort": null}]})]
    );
}
