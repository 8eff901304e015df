//! The `binnacle` command: parses, starts, prints what a person needs, and waits for its end.
//!
//! All wiring is in `app`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use binnacle::app::{self, Running};
use binnacle::config::{self, Command, Config, Exit};
use binnacle::demo::{Demo, DemoOptions};
use binnacle::helm::guard;
use binnacle::telemetry;
use tokio::signal::unix::{SignalKind, signal};

/// For what is dropped at the end and tidies up behind itself; a name that is being resolved, or a
/// file that does not answer, holds up no exit any longer.
const LAST: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // No command for people: it needs no settings, and its exit code is helm's.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == guard::SUBCOMMAND) {
        return guard::main(&args.collect::<Vec<_>>());
    }
    let command = match config::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(exit) if exit.code == 0 => {
            print!("{}", exit.message);
            return ExitCode::SUCCESS;
        }
        Err(exit) => {
            eprintln!("{}", exit.message);
            return ExitCode::from(exit.code);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Exit>() {
            Some(exit) => {
                eprintln!("{}", exit.message);
                ExitCode::from(exit.code)
            }
            None => {
                eprintln!("binnacle: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(config) => {
            let runtime = runtime()?;
            let outcome = runtime.block_on(serve(config));
            runtime.shutdown_timeout(LAST);
            outcome
        }
        Command::Demo { listen, pods, kubeconfig_out } => {
            let options = DemoOptions { listen, pods: pods.unwrap_or(0), simulate: true };
            runtime()?.block_on(demo(options, kubeconfig_out))
        }
        Command::ConfigCheck(config) => {
            runtime()?.block_on(app::check(&config))?;
            print!("{}", config.effective);
            Ok(())
        }
        Command::Ca(config) => {
            print!("{}", runtime()?.block_on(app::ca(&config))?);
            Ok(())
        }
        Command::Openapi => {
            println!("{}", binnacle::api::openapi());
            Ok(())
        }
        Command::Rbac => {
            print!("{}", binnacle::kinds::rbac_manifest());
            Ok(())
        }
        Command::Version => {
            println!("binnacle {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::init(&config.log.level, config.log.format);
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
    eprintln!("draining; a second signal ends at once");
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
    eprintln!("cluster {:?}: {}", running.cluster, running.why);
    match &running.local_token {
        Some(token) => {
            eprintln!("open {https}/?token={token}");
            eprintln!("or   curl -k -H 'Authorization: Bearer {token}' {https}/api/v1/pod");
        }
        None => {
            let token = running.gateway.callers.demo_admin.as_deref().unwrap_or("$TOKEN");
            let url = format!("https://{}{base}/api/v1/pod", reachable(running.https));
            eprintln!("try  curl -k -H \"Authorization: Bearer {token}\" {url}");
        }
    }
    eprintln!("listening on {https}");
    if let Some(address) = running.http {
        eprintln!("listening on http://{address}{base}");
    }
    if let Some(address) = running.proxy {
        eprintln!("listening on http://{address} (the API server's paths)");
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
        eprintln!("{}: token {}: {}", user.name, user.token, user.rights);
    }
    eprintln!("listening on {}", demo.url());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    demo.stop().await;
    Ok(())
}
