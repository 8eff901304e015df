//! A kubeconfig's credential plugin (`exec`): runs it and reads what it gives
//! (client.authentication.k8s.io).
//!
//! When it runs is `own`'s part. Neither its answer nor parts of it stand in a message: they are
//! secrets. What it has to say is on stderr, which is ours, as with kubectl.

use std::io::{IsTerminal as _, stdin};
use std::process::{Command, Stdio};

use jiff::Timestamp;
use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use serde::{Deserialize, Serialize};

use super::own::{Given, bearer};

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

/// Blocks until the plugin has ended.
pub(super) fn run(plugin: &ExecConfig) -> Result<Given, String> {
    let name = plugin.command.as_deref().ok_or("the credential plugin has no command")?;
    let never = plugin.interactive_mode == Some(ExecInteractiveMode::Never);
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
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{name} cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name} ended with {}", output.status));
    }
    read(&output.stdout).map_err(|why| format!("{name} {why}"))
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
    use super::*;

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
}
