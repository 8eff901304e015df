//! The one list of settings: what a flag, an environment variable and a key of the file are called, and what they mean.
//! A layer is what one source said, as text. It is NOT checked here (`values`) and knows no defaults but those it documents;
//! a unit test in `resolve` holds the documented defaults to the real ones.

use clap::Args;
use serde::{Deserialize, Serialize};

/// Everything is text here, so that every value, from whichever source, is judged by the same parser with the same message.
#[derive(Debug, Default, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Layer {
    /// Address of the TLS listener; port 0 takes any free one (default: 127.0.0.1:8443)
    #[arg(long, env = "BINNACLE_LISTEN", hide_env_values = true, value_name = "HOST:PORT")]
    pub(super) listen: Option<String>,

    /// Address of a plain HTTP listener, for probes and TLS-terminating proxies; off unless given
    #[arg(
        long,
        env = "BINNACLE_INSECURE_LISTEN",
        hide_env_values = true,
        value_name = "HOST:PORT"
    )]
    pub(super) insecure_listen: Option<String>,

    /// Loopback address of a listener with the API server's paths at its root, as kubectl proxy has; off unless given
    #[arg(long, env = "BINNACLE_PROXY_LISTEN", hide_env_values = true, value_name = "HOST:PORT")]
    pub(super) proxy_listen: Option<String>,

    /// Kubeconfig of the cluster; without it: the cluster we run in, else the default kubeconfig, else the demo
    #[arg(long, env = "BINNACLE_KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) kubeconfig: Option<String>,

    /// Context of the kubeconfig; without it its current context
    #[arg(long, env = "BINNACLE_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub(super) context: Option<String>,

    /// Serve the embedded demo cluster, whatever kubeconfig there is (default: false)
    #[arg(
        long,
        env = "BINNACLE_DEMO",
        hide_env_values = true,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(super) demo: Option<String>,

    /// Number of pods in the demo cluster; without it the demo's own choice
    #[arg(long, env = "BINNACLE_DEMO_PODS", hide_env_values = true, value_name = "N")]
    pub(super) demo_pods: Option<String>,

    /// Directory of what must outlive a restart, our own certificate first of all; without it $XDG_STATE_HOME/binnacle or ~/.local/state/binnacle
    #[arg(long, env = "BINNACLE_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub(super) state_dir: Option<String>,

    /// Directory of a web frontend to serve; without it there is none
    #[arg(long, env = "BINNACLE_STATIC_DIR", hide_env_values = true, value_name = "DIR")]
    pub(super) static_dir: Option<String>,

    /// Path under which everything is served, for instance /dashboard; without it the root
    #[arg(long, env = "BINNACLE_BASE_PATH", hide_env_values = true, value_name = "PATH")]
    pub(super) base_path: Option<String>,

    /// Language of messages for those who ask for none that we speak (default: en)
    #[arg(long, env = "BINNACLE_DEFAULT_LOCALE", hide_env_values = true, value_name = "LOCALE")]
    pub(super) default_locale: Option<String>,

    /// Origins of frontends elsewhere that bring their users' tokens, such as Headlamp: WebSockets and forms of their pages are not refused; separated by commas
    #[arg(
        long,
        env = "BINNACLE_TRUSTED_ORIGINS",
        hide_env_values = true,
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub(super) trusted_origins: Option<Vec<String>>,

    /// Certificate chain in PEM to serve instead of our own; needs --tls-key too
    #[arg(long, env = "BINNACLE_TLS_CERT", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_cert: Option<String>,

    /// Private key in PEM of --tls-cert
    #[arg(long, env = "BINNACLE_TLS_KEY", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_key: Option<String>,

    /// More host names and IP addresses for our own certificate, separated by commas
    #[arg(
        long,
        env = "BINNACLE_TLS_NAMES",
        hide_env_values = true,
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(super) tls_names: Option<Vec<String>>,

    /// Secret that keeps our own certificate when several replicas share it; in a pod binnacle-tls in our namespace unless given, elsewhere the state directory keeps it
    #[arg(
        long,
        env = "BINNACLE_TLS_SECRET",
        hide_env_values = true,
        value_name = "NAMESPACE/NAME"
    )]
    pub(super) tls_secret: Option<String>,

    /// What to log: error, warn, info, debug, trace, or directives such as info,binnacle::cache=debug (default: info)
    #[arg(long, env = "BINNACLE_LOG_LEVEL", hide_env_values = true, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,

    /// How to log: text, or json, where each line is an object once the settings are read, and the link that signs a person in is not among them, since logs are collected (default: text)
    #[arg(long, env = "BINNACLE_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,

    /// Namespaces to look into for users who may not list namespaces, where we may not watch them either; separated by commas
    #[arg(
        long,
        env = "BINNACLE_NAMESPACES",
        hide_env_values = true,
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(super) namespaces: Option<Vec<String>>,

    /// Largest request body we read into memory, in bytes or with Ki, Mi; not bounded by it are those with a chart (up to 29Mi) and those of the passthrough, which are streamed (default: 3Mi)
    #[arg(long, env = "BINNACLE_MAX_BODY", hide_env_values = true, value_name = "BYTES")]
    pub(super) max_body: Option<String>,

    /// How long rows are served as stale while the API server is away, in seconds (default: 60)
    #[arg(long, env = "BINNACLE_STALE_WHILE_AWAY", hide_env_values = true, value_name = "SECONDS")]
    pub(super) stale_while_away: Option<String>,

    /// How often the right behind a followed log or a shell is checked again, in seconds, from 1s to 10m (default: 10)
    #[arg(long, env = "BINNACLE_STREAM_RECHECK", hide_env_values = true, value_name = "SECONDS")]
    pub(super) stream_recheck: Option<String>,

    /// A shell without a byte in either direction is ended after this long, from 1s (default: 30m)
    #[arg(long, env = "BINNACLE_TERMINAL_IDLE", hide_env_values = true, value_name = "TIME")]
    pub(super) terminal_idle: Option<String>,

    /// No shell lasts longer than this, from 1s (default: 12h)
    #[arg(long, env = "BINNACLE_TERMINAL_TOTAL", hide_env_values = true, value_name = "TIME")]
    pub(super) terminal_total: Option<String>,

    /// How long we keep accepting after SIGTERM, while load balancers notice, in seconds (default: 5)
    #[arg(long, env = "BINNACLE_DRAIN_DELAY", hide_env_values = true, value_name = "SECONDS")]
    pub(super) drain_delay: Option<String>,

    /// How long requests under way may take after that, in seconds (default: 20)
    #[arg(long, env = "BINNACLE_DRAIN_GRACE", hide_env_values = true, value_name = "SECONDS")]
    pub(super) drain_grace: Option<String>,

    /// Paths that --proxy-listen accepts, as regular expressions separated by commas (default: ^.*)
    #[arg(
        long,
        env = "BINNACLE_PROXY_ACCEPT_PATHS",
        hide_env_values = true,
        value_name = "REGEX",
        value_delimiter = ','
    )]
    pub(super) proxy_accept_paths: Option<Vec<String>>,

    /// Paths that --proxy-listen refuses even when accepted (default: ^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach)
    #[arg(
        long,
        env = "BINNACLE_PROXY_REJECT_PATHS",
        hide_env_values = true,
        value_name = "REGEX",
        value_delimiter = ','
    )]
    pub(super) proxy_reject_paths: Option<Vec<String>>,

    /// Hosts that --proxy-listen accepts in the Host header (default: ^localhost$,^127\.0\.0\.1$,^\[::1\]$)
    #[arg(
        long,
        env = "BINNACLE_PROXY_ACCEPT_HOSTS",
        hide_env_values = true,
        value_name = "REGEX",
        value_delimiter = ','
    )]
    pub(super) proxy_accept_hosts: Option<Vec<String>>,

    /// Methods that --proxy-listen refuses (default: ^$)
    #[arg(
        long,
        env = "BINNACLE_PROXY_REJECT_METHODS",
        hide_env_values = true,
        value_name = "REGEX",
        value_delimiter = ','
    )]
    pub(super) proxy_reject_methods: Option<Vec<String>>,

    /// Keep a shared cache by watches of our own, where we have the right to; if false every list is read live as the user (default: true)
    #[arg(
        long,
        env = "BINNACLE_SHARED_CACHE",
        hide_env_values = true,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(super) shared_cache: Option<String>,

    /// The helm command (4, or 3.17 and newer) that changes releases; without it the one in PATH
    #[arg(long, env = "BINNACLE_HELM", hide_env_values = true, value_name = "PATH")]
    pub(super) helm: Option<String>,

    /// Releases that nobody changes before protection is lifted, * standing for anything; separated by commas (default: kube-system/*,kube-public/*,kube-node-lease/*)
    #[arg(
        long,
        env = "BINNACLE_PROTECTED_RELEASES",
        hide_env_values = true,
        value_name = "NAMESPACE/NAME",
        value_delimiter = ','
    )]
    pub(super) protected_releases: Option<Vec<String>>,

    /// Hosts of charts that may have a private address, each with its port, and http:// in front where there is no TLS; others must have a public one; separated by commas
    #[arg(
        long,
        env = "BINNACLE_CHART_HOSTS",
        hide_env_values = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub(super) chart_hosts: Option<Vec<String>>,

    /// Ask no host for charts but those of configured repositories, each with its port, and those of --chart-hosts, wherever an index, a redirect or a registry leads (default: false)
    #[arg(
        long,
        env = "BINNACLE_CHARTS_AIR_GAPPED",
        hide_env_values = true,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(super) charts_air_gapped: Option<String>,

    /// YAML file with a list of chart repositories, their credentials as paths of files; those of ConfigMaps come on top, and those of the file may be read by everybody who is signed in
    #[arg(long, env = "BINNACLE_REPOSITORIES", hide_env_values = true, value_name = "FILE")]
    pub(super) repositories: Option<String>,

    /// An operation on a release that gives no sign of life for this long is taken for interrupted, from 5s to 10m (default: 30s)
    #[arg(long, env = "BINNACLE_OPERATION_SILENCE", hide_env_values = true, value_name = "TIME")]
    pub(super) operation_silence: Option<String>,

    /// Language of the web frontend for those who chose none there; without it their browser's
    #[arg(long, env = "BINNACLE_STATIC_LOCALE", hide_env_values = true, value_name = "TAG")]
    pub(super) static_locale: Option<String>,

    /// Ask for a CSRF token with the POSTs of the Dashboard's contract, as the web frontend sends it (default: true)
    #[arg(
        long,
        env = "BINNACLE_CSRF_PROTECTION",
        hide_env_values = true,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(super) csrf_protection: Option<String>,

    /// Key of the CSRF tokens in base64, 32 bytes or more, where replicas share one; without it one is made
    #[arg(long, env = "BINNACLE_CSRF_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) csrf_key_file: Option<String>,

    /// Secret that keeps the key of the CSRF tokens, made if absent; in a cluster binnacle-csrf in our namespace unless given
    #[arg(
        long,
        env = "BINNACLE_CSRF_SECRET",
        hide_env_values = true,
        value_name = "NAMESPACE/NAME"
    )]
    pub(super) csrf_secret: Option<String>,

    /// Namespace of the ConfigMap with the web frontend's settings, and of the repositories of charts; without it our own
    #[arg(long, env = "BINNACLE_SETTINGS_NAMESPACE", hide_env_values = true, value_name = "NAME")]
    pub(super) settings_namespace: Option<String>,

    /// Name of that ConfigMap (default: kubernetes-dashboard-settings)
    #[arg(long, env = "BINNACLE_SETTINGS_NAME", hide_env_values = true, value_name = "NAME")]
    pub(super) settings_name: Option<String>,

    /// Message above every page of the web frontend; none unless given
    #[arg(long, env = "BINNACLE_SYSTEM_BANNER", hide_env_values = true, value_name = "TEXT")]
    pub(super) system_banner: Option<String>,

    /// INFO, WARNING or ERROR (default: INFO)
    #[arg(
        long,
        env = "BINNACLE_SYSTEM_BANNER_SEVERITY",
        hide_env_values = true,
        value_name = "SEVERITY"
    )]
    pub(super) system_banner_severity: Option<String>,
}
