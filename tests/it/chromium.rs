//! A headless Chromium of Debian's, one for the whole test process, and its tabs: what a person
//! does with a page, said in the DevTools protocol over a pair of pipes. It ends when this process
//! does, however it ends: Chromium watches its pipe, and a shell takes its profile away after it.
//!
//! It proves nothing itself, and it is NOT where certificates are tested: tabs take any.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::debian;

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(30);
/// Chromium's orders come by descriptor 3 and its words go by 4, which are our two pipes.
const SCRIPT: &str = r#"trap : HUP INT TERM
"$@" 3<&0 4>&1 </dev/null >/dev/null
rm -rf "$HOME" || sleep 1 && rm -rf "$HOME""#;
const FLAGS: [&str; 15] = [
    "--headless",
    "--remote-debugging-pipe",
    // Containers' root may make no namespaces, and their shared memory is small.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // All tabs are worked with at once.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--window-size=1000,900",
];

/// Where screenshots and Chromium's own words stay.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What Chromium has said, for those who wait for it.
#[derive(Default)]
struct Heard {
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    /// By session: errors of the page, and the statuses of its websockets.
    troubles: HashMap<String, Vec<String>>,
    websockets: HashMap<String, Vec<u64>>,
}

impl Heard {
    fn take(&mut self, mut message: Value) {
        if let Some(id) = message["id"].as_u64() {
            if let Some(waiting) = self.waiting.remove(&id) {
                let _ = waiting.send(message);
            }
            return;
        }
        let Some(session) = message["sessionId"].as_str().map(str::to_owned) else { return };
        let params = message["params"].take();
        let method = message["method"].as_str().unwrap_or_default();
        if method == "Network.webSocketHandshakeResponseReceived" {
            let status = params["response"]["status"].as_u64().unwrap_or_default();
            self.websockets.entry(session).or_default().push(status);
        } else if let Some(trouble) = trouble(method, &params) {
            self.troubles.entry(session).or_default().push(trouble);
        }
    }
}

/// An exception or an error of a page.
fn trouble(method: &str, params: &Value) -> Option<String> {
    match method {
        "Runtime.exceptionThrown" => Some(exception(&params["exceptionDetails"])),
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            Some(format!("{} {}", params["entry"]["text"], params["entry"]["url"]))
        }
        "Runtime.consoleAPICalled" if params["type"] == "error" => Some(params["args"].to_string()),
        _ => None,
    }
}

fn exception(details: &Value) -> String {
    let words = details["exception"]["description"].as_str().or(details["text"].as_str());
    words.map_or_else(|| details.to_string(), str::to_owned)
}

struct Browser {
    orders: Mutex<ChildStdin>,
    last: AtomicU64,
    heard: Arc<Mutex<Heard>>,
    _child: Child,
}

/// The browser of this process; the first caller waits for Debian's package.
async fn shared() -> &'static Browser {
    static BROWSER: OnceLock<Browser> = OnceLock::new();
    // Every test has a runtime of its own, so nothing in here may belong to one.
    let browser = tokio::task::spawn_blocking(|| BROWSER.get_or_init(launch)).await;
    browser.expect("Chromium is launched")
}

fn launch() -> Browser {
    let program = debian::installed("chromium", "chromium");
    // The shell removes it: what is static is never dropped.
    let home = tempfile::Builder::new().prefix("binnacle-chromium-").tempdir().unwrap().keep();
    let words = File::create(folder().join("chromium.log")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(program).args(FLAGS);
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    command.env("HOME", &home).env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
    // A Ctrl-C for the tests reaches it by its pipe alone, and the shell gets its time.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(words);
    let mut child = command.spawn().unwrap();
    let orders = Mutex::new(child.stdin.take().unwrap());
    let heard = Arc::<Mutex<Heard>>::default();
    let (stdout, told) = (child.stdout.take().unwrap(), heard.clone());
    std::thread::spawn(move || listen(stdout, &told));
    Browser { orders, last: AtomicU64::new(0), heard, _child: child }
}

/// Until Chromium's end. Messages are JSON with a zero byte behind each.
fn listen(stdout: ChildStdout, heard: &Mutex<Heard>) {
    for message in BufReader::new(stdout).split(0) {
        let Ok(message) = message else { break };
        if let Ok(message) = serde_json::from_slice(&message) {
            lock(heard).take(message);
        }
    }
    lock(heard).waiting.clear();
}

impl Browser {
    /// One command of the protocol, for a tab or for the browser; panics when it is refused.
    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (tell, told) = oneshot::channel();
        lock(&self.heard).waiting.insert(id, tell);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut order = message.to_string().into_bytes();
        order.push(0);
        let sent = lock(&self.orders).write_all(&order);
        let log = || folder().join("chromium.log").display().to_string();
        assert!(sent.is_ok(), "Chromium has ended before {method}: see {}", log());
        let answer = tokio::time::timeout(DEADLINE, told).await;
        let answer = answer.unwrap_or_else(|_| panic!("Chromium does not answer {method}"));
        let mut answer =
            answer.unwrap_or_else(|_| panic!("Chromium ended in {method}: see {}", log()));
        assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        answer["result"].take()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A tab of its own context: no cookie of it is another's.
pub struct Tab {
    browser: &'static Browser,
    name: String,
    context: String,
    session: String,
}

impl Tab {
    /// Opens a page; `name` is that of screenshots.
    pub async fn open(name: &str, url: &str) -> Tab {
        let browser = shared().await;
        let context = browser.call(None, "Target.createBrowserContext", json!({})).await;
        let context = text(&context["browserContextId"]);
        let blank = json!({"url": "about:blank", "browserContextId": context});
        let target = browser.call(None, "Target.createTarget", blank).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call(None, "Target.attachToTarget", attach).await;
        let session = text(&session["sessionId"]);
        let tab = Tab { browser, name: name.to_owned(), context, session };
        for domain in ["Runtime", "Log", "Page", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({})).await;
        }
        // Authorities of tests are made anew for each.
        tab.call("Security.setIgnoreCertificateErrors", json!({"ignore": true})).await;
        tab.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true})).await;
        let opened = tab.call("Page.navigate", json!({"url": url})).await;
        assert!(opened.get("errorText").is_none(), "{url}: {}", opened["errorText"]);
        tab
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params).await
    }

    /// The value of an expression, or of the promise that it is; panics with what it throws.
    pub async fn evaluate(&self, script: &str) -> Value {
        let params = json!({
            "expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let mut answer = self.call("Runtime.evaluate", params).await;
        if let Some(details) = answer.get("exceptionDetails") {
            panic!("{}: {script}: {}", self.name, exception(details));
        }
        answer["result"]["value"].take()
    }

    /// Until the expression is true; an error of the page ends it.
    pub async fn wait_for(&self, script: &str) {
        let begun = Instant::now();
        while self.evaluate(script).await != true {
            let troubles = self.troubles();
            if !troubles.is_empty() || begun.elapsed() > DEADLINE {
                self.screenshot("failed").await;
                panic!("{}: waited in vain: {script}; errors: {troubles:#?}", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The text of an element.
    pub async fn text(&self, selector: &str) -> String {
        let script = format!("document.querySelector({}).textContent", json!(selector));
        text(&self.evaluate(&script).await)
    }

    pub async fn click(&self, selector: &str) {
        self.evaluate(&format!("document.querySelector({}).click()", json!(selector))).await;
    }

    /// Types into an element, and then the Enter key.
    pub async fn type_line(&self, selector: &str, line: &str) {
        self.evaluate(&format!("document.querySelector({}).focus()", json!(selector))).await;
        self.call("Input.insertText", json!({"text": line})).await;
        let enter = |kind: &str, text: &str| {
            json!({
                "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13,
                "text": text,
            })
        };
        self.call("Input.dispatchKeyEvent", enter("keyDown", "\r")).await;
        self.call("Input.dispatchKeyEvent", enter("keyUp", "")).await;
    }

    /// Pastes into an element.
    pub async fn paste(&self, selector: &str, content: &str) {
        let (selector, content) = (json!(selector), json!(content));
        let script = format!(
            "{{ const clipboardData = new DataTransfer(); \
             clipboardData.setData('text', {content}); \
             document.querySelector({selector}).dispatchEvent(new ClipboardEvent('paste', \
             {{ clipboardData, cancelable: true }})); }}"
        );
        self.evaluate(&script).await;
    }

    /// Sets the size of the page's window.
    pub async fn resize(&self, width: u32, height: u32) {
        let mut size = json!({"width": width, "height": height});
        size["deviceScaleFactor"] = json!(1);
        size["mobile"] = json!(false);
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// The cookies of this tab, those that scripts cannot read among them.
    pub async fn cookies(&self) -> Vec<Value> {
        let context = json!({"browserContextId": self.context});
        let mut answer = self.browser.call(None, "Storage.getCookies", context).await;
        answer["cookies"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How websockets were agreed to, in their order: 101 over HTTP/1.1, 200 over HTTP/2.
    pub fn websockets(&self) -> Vec<u64> {
        lock(&self.browser.heard).websockets.get(&self.session).cloned().unwrap_or_default()
    }

    fn troubles(&self) -> Vec<String> {
        lock(&self.browser.heard).troubles.get(&self.session).cloned().unwrap_or_default()
    }

    /// Keeps a picture of the page, and says where.
    pub async fn screenshot(&self, moment: &str) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let picture = STANDARD.decode(text(&picture["data"])).unwrap();
        let file = folder().join(format!("{}-{moment}.png", self.name));
        fs::write(&file, picture).unwrap();
        println!("screenshot: {}", file.display());
    }

    /// Closes the page, in which nothing must have gone wrong.
    pub async fn close(self) {
        let troubles = self.troubles();
        assert!(troubles.is_empty(), "{}: errors of the page: {troubles:#?}", self.name);
        let context = json!({"browserContextId": self.context});
        self.browser.call(None, "Target.disposeBrowserContext", context).await;
    }
}
