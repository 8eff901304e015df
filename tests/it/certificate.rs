//! Our own certificate as clients, operators and other replicas meet it: checked with a strict TLS client
//! and with x509 tools, kept over restarts, shared through a Secret of the real API server.
//! What is decided by times and files alone is tested beside the code.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use binnacle::tls::{Keeper, Source, TlsError, Wanted, read_ca, read_ca_of, wanted_names};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::cluster;
use crate::lifecycle::{POLL, bearer, connect, get, in_time, leaf};
use crate::spawned::{Spoken, command};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A client that trusts this CA and nothing else.
pub fn trusting(ca_pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A keeper of a state directory, as on a person's machine.
pub async fn on_a_machine(dir: &Path) -> Keeper {
    let wanted = wanted_names(&[], Some(LOOPBACK), None).unwrap();
    let source = Source::StateDir(dir.to_owned());
    Keeper::open(source, wanted).await.unwrap()
}

/// The certificate that a strict client accepts under this name, or why it does not.
async fn handshake(
    config: Arc<ServerConfig>,
    ca_pem: &str,
    name: &str,
) -> Result<CertificateDer<'static>, String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = TlsConnector::from(Arc::new(trusting(ca_pem))).connect(name, near);
    let server = TlsAcceptor::from(config).accept(far);
    let (client, _server) = tokio::join!(client, server);
    let client = client.map_err(|e| e.to_string())?;
    let chain = client.get_ref().1.peer_certificates().unwrap();
    Ok(chain[0].clone().into_owned())
}

async fn served(keeper: &Keeper) -> CertificateDer<'static> {
    let ca = keeper.ca_pem().unwrap();
    handshake(keeper.server_config(), &ca, "localhost").await.unwrap()
}

#[tokio::test]
async fn a_strict_client_accepts_it_for_every_loopback_name_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = on_a_machine(dir.path()).await;
    let ca = read_ca(dir.path()).unwrap();
    assert_eq!(keeper.ca_pem().as_ref(), Some(&ca));
    for name in ["localhost", "127.0.0.1", "::1"] {
        handshake(keeper.server_config(), &ca, name).await.unwrap();
    }
    let refused = handshake(keeper.server_config(), &ca, "example.com").await;
    assert!(refused.is_err());

    let other = tempfile::tempdir().unwrap();
    on_a_machine(other.path()).await;
    let strangers_ca = read_ca(other.path()).unwrap();
    let refused = handshake(keeper.server_config(), &strangers_ca, "localhost").await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn x509_tools_find_a_subject_a_bounded_life_and_the_right_usages() {
    let dir = tempfile::tempdir().unwrap();
    let der = served(&on_a_machine(dir.path()).await).await;
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    assert!(leaf.subject().iter_common_name().next().is_some());
    assert!(leaf.subject().to_string().contains("O=Binnacle"));
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert!(life <= 398 * 24 * 60 * 60, "{life} s");
    assert!(leaf.validity().is_valid());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.any);
    assert_eq!(leaf.raw_serial().len(), 16);
    assert!(leaf.raw_serial()[0] < 0x80, "positive");
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert!(names.general_names.contains(&GeneralName::DNSName("localhost")));
}

#[tokio::test]
async fn a_restart_keeps_the_certificate_and_keys_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let first = served(&on_a_machine(dir.path()).await).await;
    let second = served(&on_a_machine(dir.path()).await).await;
    assert_eq!(first, second);
    for key in ["ca.key", "tls.key"] {
        let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[tokio::test]
async fn a_renewal_is_swapped_in_while_a_connection_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = on_a_machine(dir.path()).await;
    let ca = keeper.ca_pem().unwrap();
    let before = served(&keeper).await;

    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let client = TlsConnector::from(Arc::new(trusting(&ca))).connect(name, near);
    let server = TlsAcceptor::from(keeper.server_config()).accept(far);
    let (client, server) = tokio::join!(client, server);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());

    std::fs::remove_file(dir.path().join("tls.crt")).unwrap();
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    let beside = on_a_machine(dir.path()).await;
    keeper.check(Timestamp::now()).await;
    assert_eq!(keeper.reloads(), 1);
    assert_eq!(keeper.failures(), 0);
    let after = served(&keeper).await;
    assert_ne!(before, after);
    assert_eq!(after, served(&beside).await);

    client.write_all(b"still here").await.unwrap();
    client.flush().await.unwrap();
    let mut heard = [0; 10];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

/// A new certificate for localhost and its key, as somebody else renews them.
fn put_pair(cert: &Path, key: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(cert, made.cert.pem()).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

#[tokio::test]
async fn given_files_are_swapped_and_a_broken_replacement_keeps_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("site.crt"), dir.path().join("site.key"));
    let put = || put_pair(&cert, &key);
    let pem = || std::fs::read_to_string(&cert).unwrap();
    let first = put();
    let first_pem = pem();
    let source = Source::Files { cert: cert.clone(), key: key.clone() };
    let wanted = wanted_names(&[], Some(LOOPBACK), None).unwrap();
    let keeper = Keeper::open(source, wanted).await.unwrap();
    let seen = handshake(keeper.server_config(), &first_pem, "localhost").await;
    assert_eq!(seen.unwrap(), first);

    keeper.check(Timestamp::now()).await;
    assert_eq!((keeper.reloads(), keeper.failures()), (0, 0));

    std::fs::write(&key, "half a ke").unwrap();
    keeper.check(Timestamp::now()).await;
    assert_eq!((keeper.reloads(), keeper.failures()), (0, 1));
    let seen = handshake(keeper.server_config(), &first_pem, "localhost").await;
    assert_eq!(seen.unwrap(), first);

    let second = put();
    keeper.check(Timestamp::now()).await;
    assert_eq!((keeper.reloads(), keeper.failures()), (1, 1));
    let seen = handshake(keeper.server_config(), &pem(), "localhost").await;
    assert_eq!(seen.unwrap(), second);
}

/// How often the running binary did not take over what its files held, by its metrics.
async fn failures(http: &str, tls: &ClientConfig) -> u64 {
    let answer = get(tls, &format!("{http}/metrics"), &bearer("demo-admin-token")).await.unwrap();
    let text = answer.text();
    let name = "binnacle_certificate_reload_failures_total ";
    let count = text.lines().find_map(|line| line.strip_prefix(name));
    count.unwrap_or_else(|| panic!("{} {text}", answer.status)).parse().unwrap()
}

#[tokio::test]
async fn a_running_gateway_watches_given_files_and_tells_of_a_broken_one_in_log_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("site.crt"), dir.path().join("site.key"));
    let trusted = || trusting(&std::fs::read_to_string(&cert).unwrap());
    let first = put_pair(&cert, &key);
    let paths = [cert.to_str().unwrap(), key.to_str().unwrap()];
    let args = ["--demo", "--tls-cert", paths[0], "--tls-key", paths[1]];
    let mut spoken = Spoken::start(command(dir.path()), dir.path(), &args);
    let (https, http) = spoken.listens().await;
    let tls = trusted();
    assert_eq!(leaf(&https, &tls).await.unwrap(), first);
    assert_eq!(failures(&http, &tls).await, 0);
    let address = https.trim_start_matches("https://").parse().unwrap();
    let mut open = connect(address, Some(Arc::new(tls.clone()))).await.unwrap();
    let live = || Request::get("/livez").header("host", "localhost").body(Empty::new()).unwrap();
    // One that has asked nothing is closed after 15 s.
    let answer = open.send_request(live()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");

    std::fs::write(&key, "half a ke").unwrap();
    let counted = async {
        while failures(&http, &tls).await == 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the failure is counted", counted).await;
    let line = spoken.says("keeping the certificate that is served").await;
    assert!(line.contains("WARN") && line.contains(paths[1]), "{line}");
    assert_eq!(leaf(&https, &tls).await.unwrap(), first);

    let second = put_pair(&cert, &key);
    let tls = trusted();
    let swapped = async {
        while leaf(&https, &tls).await.as_ref() != Ok(&second) {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the new one is served", swapped).await;
    open.ready().await.unwrap();
    let answer = open.send_request(live()).await.unwrap();
    assert_eq!(answer.status(), 200, "on the connection of before");
}

async fn client(user: &str) -> kube::Client {
    let file = cluster::shared().await.kubeconfig(user);
    let kubeconfig = kube::config::Kubeconfig::read_from(file).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    kube::Client::try_from(config.unwrap()).unwrap()
}

fn of_service(namespace: &str) -> Wanted {
    wanted_names(&[], Some(LOOPBACK), Some((namespace, "binnacle"))).unwrap()
}

/// A replica: its client and its names are its own.
async fn replica(user: &str, namespace: &str) -> Result<Keeper, TlsError> {
    let source = Source::Secret {
        client: client(user).await,
        namespace: namespace.to_owned(),
        name: "binnacle-tls".to_owned(),
    };
    Keeper::open(source, of_service(namespace)).await
}

async fn secrets(namespace: &str) -> Api<Secret> {
    Api::namespaced(client("admin").await, namespace)
}

#[tokio::test]
async fn replicas_that_start_at_once_end_with_one_secret_and_the_same_certificate() {
    let namespace = cluster::shared().await.namespace("tls-race").await;
    let starts = (0..6).map(|_| replica("admin", &namespace));
    let keepers = futures::future::join_all(starts).await;
    let mut seen = Vec::new();
    for keeper in keepers {
        seen.push(served(&keeper.unwrap()).await);
    }
    assert!(seen.iter().all(|leaf| *leaf == seen[0]));

    let list = secrets(&namespace).await.list(&Default::default()).await;
    let secret = list.unwrap().items.pop().unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let data = secret.data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "ca.key", "tls.crt", "tls.key"]);
    let kept = CertificateDer::from_pem_slice(&data["tls.crt"].0).unwrap();
    assert_eq!(kept, seen[0]);

    let later = replica("admin", &namespace).await.unwrap();
    assert_eq!(served(&later).await, seen[0]);
    let full = format!("binnacle.{namespace}.svc.cluster.local");
    let ca = later.ca_pem().unwrap();
    handshake(later.server_config(), &ca, &full).await.unwrap();
}

#[tokio::test]
async fn replicas_that_renew_at_once_agree_and_keep_the_authority() {
    let namespace = cluster::shared().await.namespace("tls-renew").await;
    let one = replica("admin", &namespace).await.unwrap();
    let two = replica("admin", &namespace).await.unwrap();
    let (ca, first) = (one.ca_pem(), one.not_after());

    // Different clocks: a second renewal would be seen by its different end.
    let due = Timestamp::now() + SignedDuration::from_hours(24 * 300);
    let a_little_later = due + SignedDuration::from_mins(5);
    tokio::join!(one.check(due), two.check(a_little_later));
    one.check(a_little_later).await;
    two.check(a_little_later).await;
    assert!(one.not_after() > first);
    assert_eq!(one.not_after(), two.not_after());
    assert_eq!((one.ca_pem(), two.ca_pem()), (ca.clone(), ca));
    assert_eq!((one.reloads(), two.reloads()), (1, 1));
    assert_eq!((one.failures(), two.failures()), (0, 0));
}

#[tokio::test]
async fn what_pods_share_before_another_cluster_has_no_names_of_theirs() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("tls-pods").await;
    let dir = tempfile::tempdir().unwrap();
    let mut pod = command(dir.path());
    pod.env("KUBERNETES_SERVICE_HOST", "192.0.2.1");
    let kubeconfig = cluster.kubeconfig("admin").display().to_string();
    let secret = format!("{namespace}/binnacle-tls");
    let args = ["--kubeconfig", &kubeconfig, "--tls-secret", &secret];
    let mut spoken = Spoken::start(pod, dir.path(), &args);
    spoken.listens().await;
    let kept = secrets(&namespace).await.get("binnacle-tls").await.unwrap().data.unwrap();
    let leaf = CertificateDer::from_pem_slice(&kept["tls.crt"].0).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names.len(), 3, "localhost and two addresses: {names:?}");
}

#[tokio::test]
async fn a_secret_that_is_not_ours_is_used_as_given_and_never_touched() {
    let namespace = cluster::shared().await.namespace("tls-foreign").await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let secrets = secrets(&namespace).await;
    let given =
        secret(&[("tls.crt", made.cert.pem()), ("tls.key", made.signing_key.serialize_pem())]);
    let before = secrets.create(&PostParams::default(), &given).await.unwrap();

    let keeper = replica("admin", &namespace).await.unwrap();
    let pem = made.cert.pem();
    let seen = handshake(keeper.server_config(), &pem, "localhost").await;
    assert_eq!(&seen.unwrap(), made.cert.der());
    assert_eq!(keeper.ca_pem(), None);
    let far = Timestamp::now() + SignedDuration::from_hours(24 * 1000);
    keeper.check(far).await;
    let shown = read_ca_of(client("admin").await, &namespace, "binnacle-tls").await;
    let told = shown.unwrap_err().to_string();
    assert!(told.contains(&namespace) && told.contains("not ours"), "{told}");
    assert!(told.contains("whoever issued") && !told.contains("delete"), "{told}");
    assert_eq!(secrets.get("binnacle-tls").await.unwrap(), before);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_an_error_that_names_it_and_stays() {
    let namespace = cluster::shared().await.namespace("tls-broken").await;
    let secrets = secrets(&namespace).await;
    let place = format!("{namespace}/binnacle-tls");

    let mut foreign = secret(&[("password", "x".to_owned())]);
    foreign.type_ = None;
    let before = secrets.create(&PostParams::default(), &foreign).await.unwrap();
    let told = replica("admin", &namespace).await.err().unwrap().to_string();
    assert!(told.contains(&place) && told.contains("not ours"), "{told}");
    assert_eq!(secrets.get("binnacle-tls").await.unwrap(), before);
    secrets.delete("binnacle-tls", &Default::default()).await.unwrap();

    replica("admin", &namespace).await.unwrap();
    let mut ours = secrets.get("binnacle-tls").await.unwrap();
    let rubbish = k8s_openapi::ByteString(b"rubbish".to_vec());
    let data = ours.data.as_mut().unwrap();
    data.insert("tls.crt".to_owned(), rubbish);
    let before = secrets.replace("binnacle-tls", &PostParams::default(), &ours).await.unwrap();
    let told = replica("admin", &namespace).await.err().unwrap().to_string();
    assert!(told.contains(&place) && told.contains("certificate"), "{told}");
    assert_eq!(secrets.get("binnacle-tls").await.unwrap(), before);
}

#[tokio::test]
async fn who_may_not_read_the_secret_is_told_which_right_is_missing() {
    let namespace = cluster::shared().await.namespace("tls-denied").await;
    let told = replica("nobody", &namespace).await.err().unwrap().to_string();
    assert!(told.contains(&format!("cannot get Secret {namespace}/binnacle-tls")), "{told}");
    assert!(told.contains("allow get, create and update"), "{told}");
    let list = secrets(&namespace).await.list(&Default::default()).await;
    assert!(list.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_secret_deleted_while_running_is_told_and_not_made_anew() {
    let namespace = cluster::shared().await.namespace("tls-deleted").await;
    let keeper = replica("admin", &namespace).await.unwrap();
    let before = served(&keeper).await;
    let secrets = secrets(&namespace).await;
    secrets.delete("binnacle-tls", &Default::default()).await.unwrap();
    keeper.check(Timestamp::now()).await;
    assert_eq!(keeper.failures(), 1);
    assert_eq!(served(&keeper).await, before);
    assert!(secrets.get_opt("binnacle-tls").await.unwrap().is_none());
}

/// `binnacle-tls` as somebody else would make it.
fn secret(entries: &[(&str, String)]) -> Secret {
    let entries = entries.iter();
    Secret {
        metadata: kube::api::ObjectMeta {
            name: Some("binnacle-tls".to_owned()),
            ..Default::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        string_data: Some(entries.map(|(k, v)| ((*k).to_owned(), v.clone())).collect()),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_authority_that_a_secret_keeps_is_shown_and_none_is_made_for_showing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("show-ca").await;
    let secret = format!("{namespace}/binnacle-tls");
    let kubeconfig = cluster.kubeconfig("admin").display().to_string();
    let shown = async || {
        let args = ["binnacle", "ca", "--kubeconfig", &kubeconfig, "--tls-secret", &secret];
        let command = binnacle::config::parse(args.into_iter().map(Into::into));
        let Ok(binnacle::config::Command::Ca(config)) = command else { panic!("{command:?}") };
        binnacle::app::ca(&config).await
    };
    let missing = shown().await.unwrap_err().to_string();
    assert!(missing.contains(&secret), "{missing}");
    let extra = vec!["--tls-secret".to_owned(), secret.clone()];
    let options = crate::gateway::Options { extra, ..Default::default() };
    let gateway = crate::gateway::start(options).await;
    let kept = std::fs::read_to_string(&gateway.ca_file).unwrap();
    assert_eq!(shown().await.unwrap(), kept);
}
