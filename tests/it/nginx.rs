//! A real nginx in front of gateways, with `deploy/nginx.conf` itself: only names, addresses and
//! places are replaced in its text, so that what is shipped is what is tested.
//!
//! It proves nothing itself; the modules beside it do (`proxies.rs`).

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustix::process::{Pid, Signal, kill_process};

use crate::debian;

const CONFIG: &str = include_str!("../../deploy/nginx.conf");
/// The replica in it.
const SERVER: &str = "127.0.0.1:9090";
/// Until it is given up; never how long it should take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running nginx, which ends when this is dropped, or when the thread that started it ends.
pub struct Nginx {
    master: Child,
    port: u16,
    root_pem: String,
    folder: tempfile::TempDir,
}

/// Starts it in front of the plain HTTP listeners of gateways, which take turns. The base path is
/// theirs: empty, or with a leading and without a trailing slash.
pub async fn start(servers: &[SocketAddr], base_path: &str) -> Nginx {
    let program = debian::installed("nginx", "nginx");
    let folder = tempfile::tempdir().unwrap();
    let root_pem = certificate(folder.path());
    // nginx binds no port 0, but takes sockets that it inherits: as its stdin this one.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = folder.path().join("nginx.conf");
    std::fs::write(&config, adapted(folder.path(), port, servers, base_path)).unwrap();
    let words = File::create(folder.path().join("stderr")).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&config).args(["-g", "daemon off;"]);
    command.env("NGINX", "0;").stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(words);
    let master = command.spawn().expect("setpriv of util-linux can be run");
    // With it our end of the socket: connections are refused once nginx has gone.
    drop(command);
    let mut nginx = Nginx { master, port, root_pem, folder };
    let begun = Instant::now();
    while !nginx.folder.path().join("nginx.pid").exists() {
        let ended = nginx.master.try_wait().unwrap();
        assert!(ended.is_none(), "nginx ended with {ended:?}");
        assert!(begun.elapsed() < DEADLINE, "nginx does not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    nginx
}

impl Nginx {
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `https://localhost:PORT`; the certificate is for 127.0.0.1, too.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The certificate of the authority to trust.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A line for each request that is over: address, time, method, path, protocol, status, bytes,
    /// seconds, and the server that answered.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Not SIGKILL: the workers would stay.
        if let Ok(None) = self.master.try_wait()
            && kill_process(Pid::from_child(&self.master), Signal::TERM).is_ok()
        {
            let _ = self.master.wait();
        }
        if std::thread::panicking() {
            for name in ["stderr", "error.log", "access.log"] {
                let text = std::fs::read_to_string(self.folder.path().join(name));
                eprintln!("nginx's {name}:\n{}", text.unwrap_or_default());
            }
        }
    }
}

/// The shipped configuration for this folder, port and these servers.
fn adapted(folder: &Path, port: u16, servers: &[SocketAddr], base_path: &str) -> String {
    let place = folder.display();
    // Its workers must get into the folder; without root nobody can be somebody else anyway.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
    let user = if is_root { "user root;" } else { "" };
    // With all that its line says of a server.
    let is_server = |line: &&str| line.trim_start().starts_with(&format!("server {SERVER}"));
    let shipped = CONFIG.lines().find(is_server).expect("deploy/nginx.conf has a server");
    let of = |server: &SocketAddr| shipped.replace(SERVER, &server.to_string());
    let upstream = servers.iter().map(of).collect::<Vec<_>>().join("\n");
    let mut config = CONFIG.to_owned();
    for (shipped, ours) in [
        ("user www-data;", user.to_owned()),
        ("/run/nginx.pid", format!("{place}/nginx.pid")),
        ("/var/log/nginx/", format!("{place}/")),
        ("/var/lib/nginx/", format!("{place}/")),
        (shipped, upstream),
        ("listen 80;", format!("listen unix:{place}/http.sock;")),
        ("listen [::]:80;", String::new()),
        ("listen 443 ssl http2;", format!("listen 127.0.0.1:{port} ssl http2;")),
        ("listen [::]:443 ssl http2;", String::new()),
        ("server_name dashboard.example.org;", "server_name localhost 127.0.0.1;".to_owned()),
        ("/etc/ssl/certs/dashboard.pem", format!("{place}/tls.pem")),
        ("/etc/ssl/private/dashboard.key", format!("{place}/tls.key")),
        ("location /", format!("location {base_path}/")),
    ] {
        assert!(config.contains(shipped), "deploy/nginx.conf has no {shipped:?} any more");
        config = config.replace(shipped, &ours);
    }
    config
}

/// Makes an authority and nginx's own certificate in the folder; returns the authority's.
fn certificate(folder: &Path) -> String {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::<String>::new()).unwrap();
    root.distinguished_name.push(DnType::CommonName, "authority of a test");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let names = ["localhost", "127.0.0.1"].map(String::from);
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&root, &root_key)).unwrap();
    std::fs::write(folder.join("tls.pem"), leaf.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    root_pem
}
