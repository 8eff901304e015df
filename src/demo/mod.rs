//! The demo cluster: a real HTTP server with the Kubernetes API in memory, for a first look
//! without a cluster, for tests that inject faults, and for benches with many pods.
//!
//! It proves nothing about Kubernetes, and nothing here outlives the process.

mod ask;
mod discovery;
mod exec;
mod faults;
mod kinds;
mod load;
mod log;
mod metrics;
mod objects;
mod patch;
mod rbac;
mod read;
mod reply;
mod reviews;
mod seed;
mod selector;
mod server;
mod sim;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use faults::Faults;
use rbac::Rbac;
use server::Shared;
use store::Store;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 4_096;

/// A client that does not send its next head in this time is cut off; pools keep idle
/// connections for less.
const HEAD_TIME: Duration = Duration::from_secs(120);

/// A pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a demo cluster is made of.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where to listen; port 0 is any.
    pub listen: SocketAddr,
    /// 0 is the standard lively set; else load is added up to this number of pods.
    pub pods: usize,
    /// Whether controllers, kubelets and nodes move, one step a second.
    pub simulate: bool,
}

/// A person who may use the demo, known by a bearer token.
#[derive(Debug)]
pub struct DemoUser {
    pub name: &'static str,
    pub token: &'static str,
    /// What this user may do, in one sentence.
    pub rights: &'static str,
}

static USERS: [DemoUser; 3] = [
    DemoUser {
        name: "demo-admin",
        token: "demo-admin-token",
        rights: "May do everything (group system:masters).",
    },
    DemoUser {
        name: "demo-team",
        token: "demo-team-token",
        rights: "May edit in the namespace shop and view monitoring, and nothing else.",
    },
    DemoUser {
        name: "demo-viewer",
        token: "demo-viewer-token",
        rights: "May read pods, deployments, replica sets, services, nodes and namespaces \
                 everywhere, but no events and no secrets.",
    },
];

/// A running demo cluster. Dropping it stops it as well, without waiting.
pub struct Demo {
    addr: SocketAddr,
    faults: Arc<Faults>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Demo {
    /// Seeds the cluster and listens; fails only when the address cannot be bound.
    pub async fn start(options: DemoOptions) -> std::io::Result<Demo> {
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let store = Arc::new(Store::new());
        seed::fill(&store);
        load::fill(&store, options.pods);
        // The seed is no news: watches begin behind it.
        store.expire();
        let faults = Arc::new(Faults::new(Arc::clone(&store)));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        if options.simulate {
            let simulation = sim::Simulation::new(Arc::clone(&store));
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = simulation.run() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        let shared = Arc::new(Shared {
            store,
            faults: Arc::clone(&faults),
            rbac: Rbac::default(),
            stop: stop.clone(),
        });
        tasks.spawn(accept(listener, shared, tasks.clone()));
        Ok(Demo { addr, faults, stop, tasks })
    }

    /// The address that was bound.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Everyone who may use the demo; the first may do everything.
    pub fn users() -> &'static [DemoUser] {
        &USERS
    }

    /// A kubeconfig with the context `demo` as its admin.
    pub fn kubeconfig(&self) -> String {
        let [admin, ..] = &USERS;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: demo\n\
             clusters:\n- name: demo\n  cluster:\n    server: {}\n\
             contexts:\n- name: demo\n  context:\n    cluster: demo\n    user: {name}\n    \
             namespace: default\n\
             users:\n- name: {name}\n  user:\n    token: {}\n",
            self.url(),
            admin.token,
            name = admin.name,
        )
    }

    /// What tests break and count.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Cuts all connections and waits for all tasks to end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            // A closed door: the client sees a reset or an early end.
            Ok(_) if shared.faults.is_down() => {}
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    serve(stream, shared).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Without it small watch events wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = {
        let shared = Arc::clone(&shared);
        service_fn(move |request| server::handle(Arc::clone(&shared), request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        // A client that went away in the middle is no news.
        _ = connection => {}
        () = shared.faults.until_down() => {}
        () = shared.stop.cancelled() => {}
    }
}
