//! Our own identity at the API server, which is the kubeconfig's user too: requests with his
//! credentials, and these made anew in time where a plugin or a file gives them.
//!
//! kube reads kubeconfigs and knows all other credentials. But what a plugin gives without an end,
//! and every certificate, it keeps for good, and a plugin that is slower than those who wait for it
//! it starts once for each of them. Here a run is nobody's own: whoever waits for it may leave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Request, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use kube::client::ConfigExt as _;
use kube::client::middleware::ExtraHeadersLayer;
use kube::config::{AuthInfo, ExecConfig};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, ServiceExt as _};

use super::{Answer, CONNECTING, UpstreamError, plugin, pool};

/// What is left of a plugin's credentials when others are wanted.
const LEFT: SignedDuration = SignedDuration::from_secs(30);
/// A token file is read again after this, as client-go does it, and so are a certificate's files
/// (client-go: for a connection, and every 5 minutes).
const FILE: SignedDuration = SignedDuration::from_secs(60);
/// Between two runs, whatever came of the first: a plugin may be broken, and what it gives may end
/// at once.
const PAUSE: Duration = Duration::from_secs(5);
/// Between runs that a 401 asks for: others than the API server say 401 too, through its proxies.
const REFUSED: Duration = Duration::from_secs(60);

/// For a run under way: less than what those wait whom we answer, so that they hear why.
const WAIT: Duration = Duration::from_secs(20);

/// Of a token: it is a secret, so what it has is not shown.
const NO_HEADER: &str = "cannot stand in a header: is there a line break in it?";

type Stack = BoxCloneSyncService<Request<Body>, Response<Answer>, BoxError>;

pub(super) struct Own {
    /// Without what `source` gives.
    config: kube::Config,
    source: Source,
    /// The kubeconfig's further headers, and the same without whom it impersonates.
    headers: ExtraHeadersLayer,
    impersonated: ExtraHeadersLayer,
    current: ArcSwap<Issued>,
    /// Cancelled when the run under way has ended.
    run: Mutex<CancellationToken>,
}

enum Source {
    /// As the kubeconfig has them: nothing to be made anew.
    Fixed,
    File(String),
    /// A client certificate and its key, by their paths: whoever renews them writes them there.
    Pair(String, String),
    Plugin(Box<ExecConfig>),
}

/// What a source gives, once.
#[derive(Clone, Default)]
pub(super) struct Given {
    pub authorization: Option<HeaderValue>,
    /// With its key, both PEM.
    pub certificate: Option<(String, String)>,
    /// When others are wanted.
    pub renew: Option<Timestamp>,
    /// Nothing is to be had with these afterwards.
    pub until: Option<Timestamp>,
}

struct Issued {
    given: Given,
    stack: Stack,
    /// The last run, which may have failed.
    at: Instant,
    failed: bool,
    /// The API server does not know them any more.
    refused: AtomicBool,
}

impl Own {
    /// Has the first credentials made: it may block for as long as a plugin runs.
    pub fn new(mut config: kube::Config) -> Result<Self, UpstreamError> {
        let source = Source::of(&mut config.auth_info);
        let given = source.ask().map_err(UpstreamError::Setup)?;
        let mut nobody = config.clone();
        nobody.auth_info = AuthInfo::default();
        let ended = CancellationToken::new();
        ended.cancel();
        Ok(Self {
            headers: config.extra_headers_layer().map_err(setup)?,
            impersonated: nobody.extra_headers_layer().map_err(setup)?,
            current: ArcSwap::from_pointee(Issued::new(stack(&config, &given)?, given)),
            config,
            source,
            run: Mutex::new(ended),
        })
    }

    /// Sends the request as the kubeconfig's user. When it says whom to impersonate, the kubeconfig
    /// does not: the API server would take the one's name with the other's groups.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
        impersonates: bool,
    ) -> Result<Response<Answer>, UpstreamError> {
        let issued = self.issued().await?;
        if let Some(value) = &issued.given.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        let headers = if impersonates { &self.impersonated } else { &self.headers };
        let answer = headers.layer(issued.stack.clone()).oneshot(request).await;
        let answer = answer.map_err(UpstreamError::from_stack)?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            issued.refused.store(true, Ordering::Relaxed);
        }
        Ok(answer)
    }

    async fn issued(self: &Arc<Self>) -> Result<Arc<Issued>, UpstreamError> {
        let mut in_time = true;
        if self.is_due() {
            in_time = timeout(WAIT, self.renewed().cancelled()).await.is_ok();
        }
        let issued = self.current.load_full();
        let is_bad = issued.is_over() && (issued.failed || !in_time);
        if is_bad { Err(UpstreamError::Credentials) } else { Ok(issued) }
    }

    fn is_due(&self) -> bool {
        !matches!(self.source, Source::Fixed) && self.current.load().is_due()
    }

    /// The run under way, or a new one unless somebody was faster.
    fn renewed(self: &Arc<Self>) -> CancellationToken {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if run.is_cancelled() && self.is_due() {
            *run = CancellationToken::new();
            let (own, ended) = (self.clone(), run.clone().drop_guard());
            tokio::spawn(async move {
                own.renew().await;
                drop(ended);
            });
        }
        run.clone()
    }

    async fn renew(self: Arc<Self>) {
        let own = self.clone();
        let made = tokio::task::spawn_blocking(move || own.make()).await;
        let issued = made.unwrap_or_else(|error| Err(error.to_string())).unwrap_or_else(|why| {
            let _ = UpstreamError::credentials(&why);
            self.current.load().again()
        });
        self.current.store(Arc::new(issued));
    }

    fn make(&self) -> Result<Issued, String> {
        let given = self.source.ask()?;
        let last = self.current.load_full();
        // A new token goes over the connections that there are, a new certificate cannot.
        if given.certificate == last.given.certificate {
            return Ok(Issued::new(last.stack.clone(), given));
        }
        let stack = stack(&self.config, &given).map_err(|error| error.to_string())?;
        Ok(Issued::new(stack, given))
    }
}

impl Source {
    /// Takes it out of what is known of the user, where nothing else there goes before it.
    fn of(info: &mut AuthInfo) -> Self {
        let password = info.username.is_some() && info.password.is_some();
        if password || info.auth_provider.is_some() {
            return Self::Fixed;
        }
        // A token beside a file is what that once held: as client-go has it, the file goes before
        // it unless there is nothing to read.
        let file = info.token_file.clone().map(Self::File);
        if let Some(file) = file.filter(|file| info.token.is_none() || file.ask().is_ok()) {
            (info.token, info.token_file, info.exec) = (None, None, None);
            return file;
        }
        if info.token.is_some() {
            return Self::Fixed;
        }
        match info.exec.take() {
            Some(exec) => Self::Plugin(Box::new(exec)),
            None => Self::pair(info),
        }
    }

    /// What stands in the kubeconfig itself goes before files, as kube has it too.
    fn pair(info: &AuthInfo) -> Self {
        let is_given = info.client_certificate_data.is_some() || info.client_key_data.is_some();
        match (&info.client_certificate, &info.client_key) {
            (Some(certificate), Some(key)) if !is_given => {
                Self::Pair(certificate.clone(), key.clone())
            }
            _ => Self::Fixed,
        }
    }

    fn ask(&self) -> Result<Given, String> {
        match self {
            Self::Fixed => Ok(Given::default()),
            Self::File(path) => {
                let token = std::fs::read_to_string(path);
                let token = token.map_err(|error| format!("token file {path}: {error}"))?;
                let token = bearer(&token).ok_or_else(|| match token.trim().is_empty() {
                    true => format!("no token in {path}"),
                    false => format!("the token in {path} {NO_HEADER}"),
                })?;
                let renew = Timestamp::now().checked_add(FILE).ok();
                Ok(Given { authorization: Some(token), renew, ..Given::default() })
            }
            Self::Pair(certificate, key) => {
                let read = |path: &String| match std::fs::read(path) {
                    Ok(pem) => Ok(String::from_utf8_lossy(&pem).into_owned()),
                    Err(error) => Err(format!("client certificate or key {path}: {error}")),
                };
                let certificate = Some((read(certificate)?, read(key)?));
                let renew = Timestamp::now().checked_add(FILE).ok();
                Ok(Given { certificate, renew, ..Given::default() })
            }
            Self::Plugin(exec) => {
                let mut given = plugin::run(exec)?;
                given.renew = given.until.and_then(|until| until.checked_sub(LEFT).ok());
                Ok(given)
            }
        }
    }
}

impl Issued {
    fn new(stack: Stack, given: Given) -> Self {
        Self { given, stack, at: Instant::now(), failed: false, refused: AtomicBool::new(false) }
    }

    /// The same, after a run that failed.
    fn again(&self) -> Self {
        let again = Self::new(self.stack.clone(), self.given.clone());
        again.refused.store(self.refused.load(Ordering::Relaxed), Ordering::Relaxed);
        Self { failed: true, ..again }
    }

    fn is_due(&self) -> bool {
        let (since, now) = (self.at.elapsed(), Timestamp::now());
        let late = self.given.renew.is_some_and(|renew| renew <= now);
        (late && since >= PAUSE) || (self.refused.load(Ordering::Relaxed) && since >= REFUSED)
    }

    fn is_over(&self) -> bool {
        self.given.until.is_some_and(|until| until <= Timestamp::now())
    }
}

/// The way to the API server that carries a client certificate and whatever never changes.
fn stack(config: &kube::Config, given: &Given) -> Result<Stack, UpstreamError> {
    let mut config = config.clone();
    if let Some((certificate, key)) = &given.certificate {
        let info = &mut config.auth_info;
        info.client_certificate_data = Some(STANDARD.encode(certificate));
        info.client_key_data = Some(STANDARD.encode(key).into());
    }
    judge(&config.auth_info)?;
    let auth = config.auth_layer().map_err(setup)?;
    let plain = pool(&config, CONNECTING)?;
    let stack = tower::ServiceBuilder::new().option_layer(auth).service(plain);
    Ok(BoxCloneSyncService::new(stack.map_err(Into::into)))
}

/// kube takes a token that never changes for a header as it stands, and panics where it is none.
fn judge(info: &AuthInfo) -> Result<(), UpstreamError> {
    let known = serde_json::to_value(info).unwrap_or_default();
    let tokens = ["/token", "/auth-provider/config/id-token"].map(|at| known.pointer(at));
    let mut tokens = tokens.into_iter().flatten().filter_map(|token| token.as_str());
    match tokens.all(|token| HeaderValue::from_str(token).is_ok()) {
        true => Ok(()),
        false => Err(UpstreamError::Setup(format!("the user's token {NO_HEADER}"))),
    }
}

/// The header for a token, without what stands around it; `None` when nothing or no header is left.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let token = token.trim();
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

fn setup(error: kube::Error) -> UpstreamError {
    UpstreamError::Setup(error.to_string())
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
