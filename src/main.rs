//! The `binnacle` command: parses, starts, prints what a person needs, and waits for its end.
//!
//! All wiring is in `app`.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use binnacle::app::{self, Running};
use binnacle::config::{self, Command, Config, Exit};
use binnacle::demo::{Demo, DemoOptions};
use binnacle::helm::guard;
use binnacle::telemetry::{self, LogFormat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// For what is dropped at the end and tidies up behind itself; a name that is being resolved, or a
/// file that does not answer, holds up no exit any longer.
const LAST: Duration = Duration::from_secs(5);

/// The log is JSON, and who collects it reads nothing else from stderr: what we say there are
/// events of it.
static IN_EVENTS: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    // No command for people: it needs no settings, and its exit code is helm's.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == guard::SUBCOMMAND) {
        return guard::main(&args.collect::<Vec<_>>());
    }
    let outcome = match config::parse(std::env::args_os()) {
        Ok(command) => run(command),
        Err(exit) if exit.code == 0 => print(exit.message),
        Err(exit) => Err(exit.into()),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Exit>() {
        Some(exit) => {
            fail(&exit.message);
            ExitCode::from(exit.code)
        }
        None => {
            fail(format_args!("binnacle: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Why we end.
fn fail(words: impl Display) {
    // Whatever the log leaves out, this is said.
    if IN_EVENTS.load(Ordering::Relaxed) && tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{words}");
    } else {
        let _ = writeln!(io::stderr(), "{words}");
    }
}

/// A line for whoever started us. Where nobody reads it any more (`2>&1 | tee log`, whose reader is
/// gone first at a Ctrl-C) it is lost and nothing else is: `eprintln!` would panic.
fn say(words: impl Display) {
    if IN_EVENTS.load(Ordering::Relaxed) {
        tracing::info!("{words}");
        return;
    }
    let _ = writeln!(io::stderr(), "{words}");
}

/// What a command was asked for. A reader who has seen enough of it (`| head -1`) is no failure.
fn print(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Every connection is a file, and a followed log or a shell two. The soft limit that services are
/// given (1,024 by systemd) is that of programs which use select(2); the hard one is for all others
/// to raise it to. Children of the engine have a limit of their own (`helm::guard`).
fn raise_open_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where the system refuses, we serve with what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn run(command: Command) -> anyhow::Result<()> {
    raise_open_files();
    match command {
        Command::Serve(config) => {
            let runtime = runtime()?;
            let lives = app::keep_thread(&runtime);
            let outcome = runtime.block_on(serve(config));
            drop(lives);
            runtime.shutdown_timeout(LAST);
            outcome
        }
        Command::Demo { listen, pods, kubeconfig_out } => {
            let options = DemoOptions { listen, pods: pods.unwrap_or(0), simulate: true };
            runtime()?.block_on(demo(options, kubeconfig_out))
        }
        Command::ConfigCheck(config) => {
            runtime()?.block_on(app::check(&config))?;
            print(&config.effective)
        }
        Command::Ca(config) => print(runtime()?.block_on(app::ca(&config))?),
        Command::Openapi => print(format_args!("{}\n", binnacle::api::openapi())),
        Command::Rbac => print(binnacle::kinds::rbac_manifest()),
        Command::Version => print(format_args!("binnacle {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::init(&config.log.level, config.log.format);
    if config.log.format == LogFormat::Json {
        IN_EVENTS.store(true, Ordering::Relaxed);
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let base = config.front.base_path.clone();
    let running = tokio::select! {
        running = app::start(config) => running?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    announce(&running, &base);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    say("draining; a second signal ends at once");
    tokio::select! {
        () = running.drain() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// How this machine itself reaches a listener: nobody can connect to "any address".
fn reachable(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}

/// Which cluster and why, what to try, and a line for each listener.
fn announce(running: &Running, base: &str) {
    let https = format!("https://{}{base}", running.https);
    say(format_args!("cluster {:?}: {}", running.cluster, running.why));
    match &running.local_token {
        // Whoever reads a log that is collected is not who started us.
        Some(_) if IN_EVENTS.load(Ordering::Relaxed) => {
            say("the link that signs in stands in no JSON log; --log-format text shows it");
        }
        Some(token) => {
            say(format_args!("open {https}/?token={token}"));
            say(format_args!("or   curl -k -H 'Authorization: Bearer {token}' {https}/api/v1/pod"));
        }
        None => {
            let token = running.gateway.callers.demo_admin.as_deref().unwrap_or("$TOKEN");
            let url = format!("https://{}{base}/api/v1/pod", reachable(running.https));
            say(format_args!("try  curl -k -H \"Authorization: Bearer {token}\" {url}"));
        }
    }
    say(format_args!("listening on {https}"));
    if let Some(address) = running.http {
        say(format_args!("listening on http://{address}{base}"));
    }
    if let Some(address) = running.proxy {
        say(format_args!("listening on http://{address} (the API server's paths)"));
    }
}

async fn demo(options: DemoOptions, out: Option<std::path::PathBuf>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let demo = Demo::start(options).await?;
    if let Some(path) = out {
        std::fs::write(path, demo.kubeconfig())?;
    }
    for user in Demo::users() {
        say(format_args!("{}: token {}: {}", user.name, user.token, user.rights));
    }
    say(format_args!("listening on {}", demo.url()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    demo.stop().await;
    Ok(())
}
