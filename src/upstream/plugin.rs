//! A kubeconfig's credential plugin (`exec`): runs it and reads what it gives
//! (client.authentication.k8s.io).
//!
//! When it runs is `own`'s part. Neither its answer nor parts of it stand in a message: they are
//! secrets. What it has to say is on stderr, which is ours, as with kubectl.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal as _, Read as _, stderr, stdin};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::own::{Given, bearer};

/// A plugin that runs for longer is ended. One that asks somebody to log in needs minutes, and some
/// wait for three by themselves; but for one that hangs on a connection whose other end has
/// vanished everybody else waits until then, too.
const LONGEST: Duration = Duration::from_secs(300);
/// At a terminal, where somebody may be logging in and can end it by Ctrl-C: as long as device codes last.
const LOGIN: Duration = Duration::from_secs(900);
/// After this the log names it: before the first who wait for it give up (`own`), at the start too.
const SLOW: Duration = Duration::from_secs(15);
/// For what is still to come when it has ended: something that it started may keep its stdout.
const REST: Duration = Duration::from_secs(1);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);
/// Of its answer, in bytes: far more than a token, a certificate and a key.
const LARGEST: u64 = 1 << 20;

/// `ExecCredential` as a plugin reads it from its environment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    api_version: Option<&'a str>,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    interactive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a ExecAuthCluster>,
}

/// And as it writes it.
#[derive(Deserialize)]
struct Answer {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Blocks until the plugin has ended, or was ended.
pub(super) fn run(plugin: &ExecConfig) -> Result<Given, String> {
    let never = plugin.interactive_mode == Some(ExecInteractiveMode::Never);
    within(plugin, if never || !stdin().is_terminal() { LONGEST } else { LOGIN })
}

fn within(plugin: &ExecConfig, longest: Duration) -> Result<Given, String> {
    let name = plugin.command.as_deref().ok_or("the credential plugin has no command")?;
    let never = plugin.interactive_mode == Some(ExecInteractiveMode::Never);
    // Who has no stdin asks at /dev/tty, and Ctrl-C comes from there, too.
    let at_terminal = stdin().is_terminal() || stderr().is_terminal();
    let interactive = !never && stdin().is_terminal();
    let cluster = plugin.cluster.as_ref().filter(|_| plugin.provide_cluster_info);
    let asked = Asked {
        api_version: plugin.api_version.as_deref(),
        kind: "ExecCredential",
        spec: Spec { interactive, cluster },
    };
    let asked = serde_json::to_string(&asked).map_err(|error| error.to_string())?;
    let mut command = Command::new(name);
    command.args(plugin.args.iter().flatten());
    for pair in plugin.env.iter().flatten() {
        if let (Some(name), Some(value)) = (pair.get("name"), pair.get("value")) {
            command.env(name, value);
        }
    }
    command.env("KUBERNETES_EXEC_INFO", asked);
    command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    // A group of its own, to be ended with all that it has started: many are scripts around another
    // program. At a terminal it has to be in ours, which alone may read there and hears Ctrl-C.
    if !at_terminal {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| format!("{name} cannot be run: {error}"))?;
    let (status, answer) = attend(&mut child, name, longest).map_err(|why| {
        end(&mut child, !at_terminal);
        format!("{name} {why}")
    })?;
    if !status.success() {
        return Err(format!("{name} ended with {status}"));
    }
    read(&answer).map_err(|why| format!("{name} {why}"))
}

/// How it ended and what it wrote. No read blocks: who holds its stdout afterwards holds nobody up.
fn attend(
    child: &mut Child,
    name: &str,
    longest: Duration,
) -> Result<(ExitStatus, Vec<u8>), String> {
    let out = child.stdout.take().ok_or("has no stdout")?;
    ioctl_fionbio(&out, true).map_err(unheard)?;
    let (mut out, mut answer) = (out.take(LARGEST), Vec::new());
    let (begun, mut ended, mut is_told) = (Instant::now(), None::<Instant>, false);
    loop {
        // Before the read: whatever it wrote itself is there by then.
        let status = child.try_wait().map_err(unheard)?;
        let is_all = match out.read_to_end(&mut answer) {
            Ok(_) if out.limit() == 0 => return Err("was ended: it wrote too much".to_owned()),
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => return Err(unheard(error)),
        };
        if let Some(status) = status {
            let since = *ended.get_or_insert_with(Instant::now);
            if is_all || since.elapsed() >= REST {
                return Ok((status, answer));
            }
        } else if begun.elapsed() >= longest {
            return Err(format!("was ended: it had not ended after {longest:?}"));
        }
        if !is_told && begun.elapsed() >= SLOW {
            is_told = true;
            tracing::warn!(plugin = name, within = ?longest, "the credential plugin takes long");
        }
        sleep(LOOK);
    }
}

fn unheard(error: impl Display) -> String {
    format!("cannot be heard: {error}")
}

/// So that the next run is the only one.
fn end(child: &mut Child, has_group: bool) {
    // Once it was waited for, its number may be another's.
    if has_group && matches!(child.try_wait(), Ok(None)) {
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    }
    // Nobody waits for one that we may not end (sudo).
    let _ = child.kill().and_then(|()| child.wait());
}

/// JSON, or YAML as client-go takes it too.
fn read(answer: &[u8]) -> Result<Given, &'static str> {
    let answer: Answer = serde_saphyr::from_slice(answer).map_err(|_| "gave no ExecCredential")?;
    let status = answer.status.ok_or("gave no status")?;
    let until = status.expiration_timestamp.as_deref().map(str::parse::<Timestamp>).transpose();
    let until = until.map_err(|_| "gave an expirationTimestamp that is none")?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let authorization = filled(status.token)
        .map(|token| bearer(&token).ok_or("gave a token that cannot stand in a header"));
    let authorization = authorization.transpose()?;
    let certificate = filled(status.client_certificate_data).zip(filled(status.client_key_data));
    if authorization.is_none() && certificate.is_none() {
        return Err("gave neither a token nor a certificate with its key");
    }
    Ok(Given { authorization, certificate, until, ..Given::default() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Half a minute, unless the folder is gone before.
    const LINGERING: &str = r#"
        while [ -d "$0" ] && [ $((i += 1)) -lt 600 ]; do echo >> "$0/alive"; sleep 0.05; done
    "#;

    fn shell(script: &str, folder: &Path) -> ExecConfig {
        let args = ["-c", script, folder.to_str().unwrap()];
        let plugin = serde_json::json!({"command": "sh", "args": args, "interactiveMode": "Never"});
        serde_json::from_value(plugin).unwrap()
    }

    fn given(status: serde_json::Value) -> Result<Given, &'static str> {
        let kind = ("client.authentication.k8s.io/v1", "ExecCredential");
        let answer = serde_json::json!({"apiVersion": kind.0, "kind": kind.1, "status": status});
        read(answer.to_string().as_bytes())
    }

    #[test]
    fn a_plugin_gives_a_token_or_a_certificate_with_its_key_or_both_with_an_end_or_none() {
        let end = "2126-01-02T03:04:05Z";
        let token = given(serde_json::json!({"token": "t\n", "expirationTimestamp": end})).unwrap();
        assert_eq!(token.authorization.unwrap(), "Bearer t");
        assert_eq!(token.until, Some(end.parse().unwrap()));
        assert!(token.certificate.is_none());
        let pair =
            serde_json::json!({"clientCertificateData": "c", "clientKeyData": "k", "token": ""});
        let pair = given(pair).unwrap();
        assert_eq!(pair.certificate, Some(("c".into(), "k".into())));
        assert!(pair.authorization.is_none() && pair.until.is_none());
        let yaml = read(b"kind: ExecCredential\nstatus:\n  token: t\n").unwrap();
        assert_eq!(yaml.authorization.unwrap(), "Bearer t");
        for nothing in [
            serde_json::json!({"clientCertificateData": "c"}),
            serde_json::json!({}),
            serde_json::Value::Null,
            serde_json::json!({"token": "t", "expirationTimestamp": "soon"}),
        ] {
            assert!(given(nothing.clone()).is_err(), "{nothing}");
        }
    }

    #[test]
    fn what_a_plugin_wrote_stands_in_no_message() {
        for answer in [r#"{"status": {"token": ["hidden"]}}"#, "hidden", r#"{"token": "hidden"#] {
            let why = read(answer.as_bytes()).err().unwrap();
            assert!(!why.contains("hidden"), "{why}");
        }
    }

    #[test]
    fn a_plugin_that_hangs_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let script = format!(r#"echo $$ > "$0/pid"; ({LINGERING}) & sleep 60"#);
        let longest = Duration::from_secs(2);
        let why = within(&shell(&script, folder), longest).err().unwrap();
        assert_eq!(why, "sh was ended: it had not ended after 2s");
        let pid = fs::read_to_string(folder.join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err(), "not even a zombie");
        // At a terminal it shares our group, and the rest of it goes on.
        if !stdin().is_terminal() && !stderr().is_terminal() {
            let alive = || fs::metadata(folder.join("alive")).unwrap().len();
            sleep(Duration::from_millis(200));
            let before = alive();
            sleep(Duration::from_millis(500));
            assert_eq!(alive(), before);
        }
    }

    #[test]
    fn what_a_plugin_leaves_behind_holds_up_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(r#"({LINGERING}) & echo '{{"status": {{"token": "t"}}}}'"#);
        let begun = Instant::now();
        let given = within(&shell(&script, folder.path()), Duration::from_secs(60)).unwrap();
        assert_eq!(given.authorization.unwrap(), "Bearer t");
        assert!(begun.elapsed() < 10 * REST, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_plugin_is_heard_to_its_end_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script| within(&shell(script, folder.path()), Duration::from_secs(60));
        // More than a pipe holds, and the rest in another moment.
        let long = r#"
            printf '{"status": {"token": "'; head -c 131072 /dev/zero | tr '\0' t
            sleep 0.2; echo '"}}'
        "#;
        assert_eq!(run(long).unwrap().authorization.unwrap().len(), "Bearer ".len() + 131_072);
        let endless = run("exec yes").err().unwrap();
        assert_eq!(endless, "sh was ended: it wrote too much");
    }
}
