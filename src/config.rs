//! The command line, the environment and the configuration file, parsed once at start into typed structs.
//! A flag wins over a variable, a variable over the file. What is wrong ends in one line and exit code 64.
//! NOT here: any use of a setting; `app` takes the structs apart and hands each room its own.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::i18n::Locale;
use crate::telemetry::LogFormat;

mod layer;
mod resolve;
mod values;

pub use resolve::Effective;

/// `EX_USAGE` of sysexits.h: bad usage or configuration.
const USAGE: u8 = 64;

/// What the process is to do.
#[derive(Debug)]
pub enum Command {
    /// The gateway itself.
    Serve(Config),
    /// The demo API server alone.
    Demo {
        /// Address of the plain HTTP listener.
        listen: SocketAddr,
        /// Number of pods; `None` leaves it to the demo.
        pods: Option<usize>,
        /// Where to write a kubeconfig that points to it.
        kubeconfig_out: Option<PathBuf>,
    },
    /// Print the settings in effect (`Config::effective`) and end.
    ConfigCheck(Config),
    /// Print the certificate of our own authority.
    Ca(Config),
    /// Print the OpenAPI document.
    Openapi,
    /// Print the RBAC manifest.
    Rbac,
    /// Print the version.
    Version,
}

/// Everything that can be set, in a struct for each that needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub listeners: Listeners,
    pub cluster: ClusterChoice,
    /// What must outlive a restart; it need not exist yet.
    pub state_dir: PathBuf,
    pub front: Front,
    pub web: Web,
    pub certificate: Certificate,
    pub reads: Reads,
    pub proxy: ProxyRules,
    pub charts: Charts,
    pub log: Log,
    pub drain: Drain,
    /// The same as text, each with where it came from.
    pub effective: Effective,
}

/// Where we listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    pub https: SocketAddr,
    pub http: Option<SocketAddr>,
    pub proxy: Option<SocketAddr>,
}

/// Which cluster; if nothing is said, `app` looks around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterChoice {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// Said outright: wins over any kubeconfig.
    pub demo: bool,
    pub demo_pods: Option<usize>,
}

/// The HTTP front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    pub static_dir: Option<PathBuf>,
    /// With a leading slash and without a trailing one; empty for the root.
    pub base_path: String,
    pub default_locale: Locale,
    /// Of frontends elsewhere that bring their users' tokens.
    pub trusted_origins: Vec<String>,
    /// Bytes.
    pub max_body: usize,
}

/// What the web frontend needs besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Language of its files for those who chose none.
    pub locale: Option<String>,
    pub csrf_protection: bool,
    pub csrf_key_file: Option<PathBuf>,
    /// Namespace and name of the Secret that keeps the key.
    pub csrf_secret: Option<(String, String)>,
    /// `None`: that of our own kubeconfig or pod.
    pub settings_namespace: Option<String>,
    pub settings_name: String,
    /// Empty: none.
    pub banner: String,
    /// INFO, WARNING or ERROR.
    pub banner_severity: String,
}

/// The certificate of the TLS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Chain and key, both PEM; without them we make our own.
    pub files: Option<(PathBuf, PathBuf)>,
    /// Host names and IP addresses beyond those that we find ourselves.
    pub names: Vec<String>,
    /// Namespace and name of the Secret that keeps our own.
    pub secret: Option<(String, String)>,
}

/// How lists are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    pub namespaces: Vec<String>,
    pub shared_cache: bool,
    pub stale_while_away: Duration,
    pub stream_recheck: Duration,
    /// Of shells: without a byte, and at all.
    pub terminal_idle: Duration,
    pub terminal_total: Duration,
}

/// The filters of the proxy listener: regular expressions as text, with `kubectl proxy`'s meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRules {
    pub accept_paths: Vec<String>,
    pub reject_paths: Vec<String>,
    pub accept_hosts: Vec<String>,
    pub reject_methods: Vec<String>,
}

/// Releases and charts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charts {
    /// `None`: the helm that is in PATH.
    pub helm: Option<PathBuf>,
    /// The program that stands between us and helm: our own (`helm::guard`).
    pub guard: PathBuf,
    /// `NAMESPACE/NAME` with `*`.
    pub protected: Vec<String>,
    /// `HOST:PORT` that may have a private address.
    pub hosts: Vec<String>,
    /// No host is asked for charts but those of repositories and `hosts`.
    pub air_gapped: bool,
    /// A YAML list of repositories of charts.
    pub repositories: Option<PathBuf>,
    /// Seconds without a sign of life of an operation.
    pub silence: u32,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// What happens after SIGTERM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// We are not ready any more but still accept.
    pub delay: Duration,
    /// We accept no more and let requests end.
    pub grace: Duration,
}

/// The process ends before it began: for bad usage (64), or because it was only asked for help (0).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Exit {
    pub code: u8,
    /// Ready to print: to stdout if the code is 0, else to stderr.
    pub message: String,
}

impl Exit {
    /// Bad usage or configuration, said in one line.
    pub fn usage(reason: impl fmt::Display) -> Self {
        Self { code: USAGE, message: format!("binnacle: {reason}") }
    }
}

/// An API gateway and backend for Kubernetes dashboards.
///
/// Every setting is a flag, a variable (BINNACLE_ and its name) and a key of the YAML file. A flag wins over a variable, a
/// variable over the file. A variable that is set to nothing counts as not set.
#[derive(Debug, Parser)]
#[command(name = "binnacle", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    given: Given,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Args)]
struct Given {
    /// YAML file with the settings below, named as here without the dashes in front; without it no file is read
    #[arg(long, env = "BINNACLE_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<String>,
    #[command(flatten)]
    layer: layer::Layer,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Serve (what happens without a command, too)
    Serve(Given),
    /// Run the demo cluster alone, as an API server for others
    Demo(DemoFlags),
    /// Look at the configuration: `binnacle config check`
    Config {
        #[command(subcommand)]
        what: Option<ConfigSub>,
    },
    /// Print the certificate of our own authority, for people to trust
    Ca(Given),
    /// Print the RBAC manifest that our own watches need
    Rbac,
    /// Print the OpenAPI document
    Openapi,
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigSub {
    /// Print the settings in effect and where each came from; exit code 64 if one is wrong
    Check(Given),
}

#[derive(Debug, Args)]
struct DemoFlags {
    /// Address of the demo API server, plain HTTP; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6443")]
    listen: String,
    /// Number of pods; without it the demo's own choice
    #[arg(long, value_name = "N")]
    pods: Option<String>,
    /// Where to write a kubeconfig that points to it
    #[arg(long, value_name = "FILE")]
    kubeconfig_out: Option<String>,
}

/// Reads the arguments (the program's name first, as `std::env::args_os` gives them), the environment and the file.
///
/// # Errors
/// An `Exit` for help and version (code 0), and for everything that is wrong (code 64, one line).
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Exit> {
    let matches = Cli::command().try_get_matches_from(args).map_err(|error| stop(&error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| stop(&error))?;
    match cli.command {
        None => settings(&cli.given, &matches).map(Command::Serve),
        Some(Sub::Serve(given)) => settings(&given, inner(&matches)).map(Command::Serve),
        Some(Sub::Demo(flags)) => demo(&flags),
        Some(Sub::Config { what: Some(ConfigSub::Check(given)) }) => {
            settings(&given, inner(inner(&matches))).map(Command::ConfigCheck)
        }
        Some(Sub::Config { what: None }) => {
            Err(Exit::usage("config: say what to do with it: binnacle config check"))
        }
        Some(Sub::Ca(given)) => settings(&given, inner(&matches)).map(Command::Ca),
        Some(Sub::Rbac) => Ok(Command::Rbac),
        Some(Sub::Openapi) => Ok(Command::Openapi),
        Some(Sub::Version) => Ok(Command::Version),
    }
}

fn settings(given: &Given, matches: &ArgMatches) -> Result<Config, Exit> {
    resolve::resolve(&given.layer, matches, given.config.as_deref())
}

/// The matches of the subcommand: only they know what came from the environment.
fn inner(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, matches)| matches)
}

fn demo(flags: &DemoFlags) -> Result<Command, Exit> {
    let refuse = |flag: &str, text: &str, reason: String| {
        Exit::usage(format_args!("demo --{flag} {text:?}: {reason}"))
    };
    let listen =
        values::address(&flags.listen).map_err(|reason| refuse("listen", &flags.listen, reason))?;
    let pods = flags
        .pods
        .as_deref()
        .map(|text| values::demo_pods(text).map_err(|reason| refuse("pods", text, reason)));
    let kubeconfig_out = flags
        .kubeconfig_out
        .as_deref()
        .map(|text| values::path(text).map_err(|reason| refuse("kubeconfig-out", text, reason)));
    Ok(Command::Demo {
        listen,
        pods: pods.transpose()?,
        kubeconfig_out: kubeconfig_out.transpose()?,
    })
}

/// clap's report over several lines as one: what is wrong and its tip, without the usage.
fn stop(error: &clap::Error) -> Exit {
    let text = error.to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Exit { code: 0, message: text };
    }
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let said = said.join("; ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    Exit::usage(format_args!("{said} (binnacle --help lists the settings)"))
}
