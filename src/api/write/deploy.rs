//! The deploy form: a Deployment and, where ports are mapped, a Service, made as the caller. Both
//! are tried first (dry run), so that a form with a mistake in its second half makes nothing.
//!
//! Only what the form knows; anything else is `deploy_file`.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::body::{self, JSON, send};
use crate::api::error::ApiError;
use crate::api::read::list;
use crate::api::read::related::known;
use crate::api::target::encoded;
use crate::api::written::Wrote;
use crate::api::{Caller, Gateway, Shared};
use crate::upstream::{Failure, User};

/// The contract's `AppDeploymentSpec`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    name: String,
    namespace: String,
    container_image: String,
    #[serde(default)]
    image_pull_secret: Option<String>,
    #[serde(default)]
    container_command: Option<String>,
    #[serde(default)]
    container_command_args: Option<String>,
    replicas: u32,
    #[serde(default)]
    port_mappings: Option<Vec<PortMapping>>,
    #[serde(default)]
    variables: Option<Vec<Variable>>,
    #[serde(default)]
    is_external: bool,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    memory_requirement: Option<Amount>,
    #[serde(default)]
    cpu_requirement: Option<Amount>,
    #[serde(default)]
    labels: Option<Vec<Label>>,
    #[serde(default)]
    run_as_privileged: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    port: u16,
    target_port: u16,
    protocol: String,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Label {
    key: String,
    #[serde(default)]
    value: String,
}

/// A quantity; the web frontend sends CPU as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Text(String),
    Number(serde_json::Number),
}

/// `POST /api/v1/appdeployment`: 201 and the form itself.
pub async fn deploy(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let sent: Value = body::read(&gateway, &head.headers, body).await?;
    let form: Form = Form::deserialize(&sent).map_err(|error| body::malformed(&error))?;
    if form.namespace.is_empty() {
        return Err(ApiError::bad_request("error-field-missing", &[("field", "namespace")]));
    }
    list::is_namespace(&form.namespace)?;
    let deployments = known("deployment")?.resource.collection(Some(&encoded(&form.namespace)));
    let services = known("service")?.resource.collection(Some(&encoded(&form.namespace)));
    let mut wanted = vec![("deployment", deployments, form.deployment())];
    if let Some(service) = form.service()? {
        wanted.push(("service", services, service));
    }
    for (_, path, object) in &wanted {
        post(&gateway, &user, &format!("{path}?dryRun=All"), object).await?;
    }
    // In a task of its own: a client that goes away must not leave a half of it.
    let making = tokio::spawn(async move { make(&gateway, &user, &form, &wanted).await });
    let wrote = making.await.map_err(|error| ApiError::internal(&error))??;
    let mut answer = body::answer(StatusCode::CREATED, &sent);
    answer.extensions_mut().insert(wrote);
    Ok(answer)
}

/// Kind, collection and object.
type Wanted = (&'static str, String, Value);

async fn make(
    gateway: &Gateway,
    user: &User,
    form: &Form,
    wanted: &[Wanted],
) -> Result<Vec<Wrote>, ApiError> {
    let mut wrote: Vec<Wrote> = Vec::new();
    for (kind, path, object) in wanted {
        match post(gateway, user, path, object).await {
            Ok(made) => {
                let one = Wrote::of(known(kind)?, &form.namespace, &made);
                gateway.writes.note(user, &one);
                wrote.push(one);
            }
            Err(failure) => {
                let name = format!("{kind} {}/{}", form.namespace, form.name);
                let created = match wrote.is_empty() {
                    true => "–".to_owned(),
                    false => format!("deployment {}/{}", form.namespace, form.name),
                };
                let (id, key) = match failure.code() {
                    Some(_) => ("error-half-created", "missing"),
                    None => ("error-half-unknown", "unknown"),
                };
                let mut args = vec![("created", created.as_str()), (key, name.as_str())];
                if key == "unknown" {
                    args.push(("missing", "–"));
                }
                return Err(ApiError::from(failure).followed_by(id, &args));
            }
        }
    }
    Ok(wrote)
}

async fn post(
    gateway: &Gateway,
    user: &User,
    path: &str,
    object: &Value,
) -> Result<Value, Failure> {
    send(gateway, user, Method::POST, path, JSON, Bytes::from(object.to_string())).await
}

impl Form {
    /// The labels of object, template and selector; a selector must name something.
    fn labels(&self) -> Map<String, Value> {
        let given = self.labels.iter().flatten().filter(|label| !label.key.is_empty());
        let labels: Map<String, Value> =
            given.map(|label| (label.key.clone(), label.value.as_str().into())).collect();
        if labels.is_empty() {
            return Map::from_iter([("k8s-app".to_owned(), self.name.as_str().into())]);
        }
        labels
    }

    fn metadata(&self) -> Value {
        let mut metadata = json!({
            "name": self.name, "namespace": self.namespace, "labels": self.labels(),
        });
        if let Some(description) = self.description.as_deref().filter(|text| !text.is_empty()) {
            metadata["annotations"] = json!({ "description": description });
        }
        metadata
    }

    fn deployment(&self) -> Value {
        let labels = self.labels();
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.metadata(),
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": self.pod() },
            },
        })
    }

    fn pod(&self) -> Value {
        let mut container = json!({
            "name": self.name, "image": self.container_image,
            "securityContext": { "privileged": self.run_as_privileged },
        });
        let requests = [("cpu", &self.cpu_requirement), ("memory", &self.memory_requirement)];
        let requests: Map<String, Value> = requests
            .into_iter()
            .filter_map(|(name, amount)| Some((name.to_owned(), amount.as_ref()?.quantity()?)))
            .collect();
        if !requests.is_empty() {
            container["resources"] = json!({ "requests": requests });
        }
        let variables =
            self.variables.iter().flatten().filter(|variable| !variable.name.is_empty());
        let variables: Vec<Value> = variables
            .map(|variable| json!({ "name": variable.name, "value": variable.value }))
            .collect();
        if !variables.is_empty() {
            container["env"] = variables.into();
        }
        if let Some(command) = self.container_command.as_deref().filter(|text| !text.is_empty()) {
            container["command"] = json!([command]);
        }
        let args = self.container_command_args.as_deref().unwrap_or_default();
        let args: Vec<&str> = args.split_whitespace().collect();
        if !args.is_empty() {
            container["args"] = json!(args);
        }
        let mut pod = json!({ "containers": [container] });
        if let Some(secret) = self.image_pull_secret.as_deref().filter(|name| !name.is_empty()) {
            pod["imagePullSecrets"] = json!([{ "name": secret }]);
        }
        pod
    }

    /// None when no port is mapped.
    fn service(&self) -> Result<Option<Value>, ApiError> {
        let mut ports = Vec::new();
        for mapping in self.port_mappings.iter().flatten() {
            let PortMapping { port, target_port, protocol } = mapping;
            let letters = random_letters()?;
            let name = format!("{}-{port}-{target_port}-{letters}", protocol.to_ascii_lowercase());
            ports.push(json!({
                "name": name, "protocol": protocol, "port": port, "targetPort": target_port,
            }));
        }
        if ports.is_empty() {
            return Ok(None);
        }
        let kind = if self.is_external { "LoadBalancer" } else { "ClusterIP" };
        Ok(Some(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": self.metadata(),
            "spec": { "type": kind, "selector": self.labels(), "ports": ports },
        })))
    }
}

impl Amount {
    fn quantity(&self) -> Option<Value> {
        match self {
            Self::Text(text) if text.trim().is_empty() => None,
            Self::Text(text) => Some(text.trim().into()),
            Self::Number(number) => Some(number.to_string().into()),
        }
    }
}

/// Five random letters: a port's name is unique within its service.
fn random_letters() -> Result<String, ApiError> {
    let mut bytes = [0u8; 5];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ApiError::internal(&"no randomness"))?;
    Ok(bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(more: Value) -> Form {
        let mut form = json!({
            "name": "tiles", "namespace": "atlas", "containerImage": "tiles:1", "replicas": 2,
            "imagePullSecret": null, "containerCommand": null, "containerCommandArgs": null,
            "portMappings": null, "variables": null, "isExternal": false, "description": null,
            "memoryRequirement": null, "cpuRequirement": null, "labels": null,
            "runAsPrivileged": false,
        });
        form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Form::deserialize(&form).unwrap()
    }

    #[test]
    fn a_bare_form_is_a_deployment_without_a_service() {
        let form = form(json!({}));
        assert_eq!(form.service().unwrap(), None);
        let deployment = form.deployment();
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"k8s-app": "tiles"}));
        assert_eq!(
            deployment["spec"]["template"]["spec"],
            json!({"containers": [{"name": "tiles", "image": "tiles:1",
                "securityContext": {"privileged": false}}]})
        );
    }

    #[test]
    fn a_full_form_fills_the_container_and_maps_ports() {
        let form = form(json!({
            "containerCommand": "run", "containerCommandArgs": " -a  b ", "description": "maps",
            "cpuRequirement": 0.5, "memoryRequirement": "64Mi", "imagePullSecret": "hub",
            "variables": [{"name": "A", "value": "1"}, {"name": "", "value": ""}],
            "labels": [{"key": "app", "value": "tiles"}], "isExternal": true,
            "portMappings": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
        }));
        let pod = form.pod();
        let container = &pod["containers"][0];
        assert_eq!(container["command"], json!(["run"]));
        assert_eq!(container["args"], json!(["-a", "b"]));
        assert_eq!(container["resources"], json!({"requests": {"cpu": "0.5", "memory": "64Mi"}}));
        assert_eq!(container["env"], json!([{"name": "A", "value": "1"}]));
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "hub"}]));
        let service = form.service().unwrap().unwrap();
        assert_eq!(service["metadata"]["annotations"], json!({"description": "maps"}));
        assert_eq!(service["spec"]["type"], "LoadBalancer");
        assert_eq!(service["spec"]["selector"], json!({"app": "tiles"}));
        let name = service["spec"]["ports"][0]["name"].as_str().unwrap();
        assert!(name.starts_with("tcp-80-8080-") && name.len() == 17, "{name}");
    }
}
