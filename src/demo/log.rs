//! Container logs: every container has written one line a second since its pod started, and
//! what a line says follows from its number alone, so that all readers see the same log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use serde_json::Value;

use super::ask::{Ask, Resource};
use super::kinds::POD;
use super::read;
use super::reply::{self, Fail, Reply};
use super::server::Shared;

/// Lines kept, as if the rest was rotated away.
const KEPT: i64 = 2_000;

pub(super) fn answer(shared: &Arc<Shared>, ask: &Ask, path: &Resource) -> Result<Reply, Fail> {
    let pod = read::find(&shared.store, &POD, path)?.value();
    let container = container(&pod, ask.query.get("container"))?;
    let state = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let status = state.clone().find(|status| status["name"] == container.as_str());
    let waiting = status.and_then(|it| it["state"]["waiting"]["reason"].as_str());
    let started = pod["status"]["startTime"].as_str().and_then(|it| it.parse::<Timestamp>().ok());
    let (Some(started), None | Some("CrashLoopBackOff")) = (started, waiting) else {
        return Err(Fail::bad_request(format!(
            "container \"{container}\" in pod \"{}\" is waiting to start: {}",
            path.name,
            waiting.unwrap_or("ContainerCreating")
        )));
    };
    let never_ended = status.is_none_or(|it| it["lastState"]["terminated"].is_null());
    if ask.query.flag("previous") && never_ended {
        return Err(Fail::bad_request(format!(
            "previous terminated container \"{container}\" in pod \"{}\" not found",
            path.name
        )));
    }
    let start = started.as_second();
    let now = Timestamp::now().as_second();
    let mut first = start.max(now - KEPT);
    if let Some(tail) = ask.query.number::<i64>("tailLines")? {
        first = first.max(now - tail.clamp(0, KEPT) + 1);
    }
    if let Some(seconds) = ask.query.number::<i64>("sinceSeconds")? {
        first = first.max(now - seconds.clamp(0, KEPT));
    }
    let since = ask.query.get("sinceTime");
    if !since.is_empty() {
        let refused = || Fail::bad_request(format!("invalid sinceTime \"{since}\""));
        first = first.max(since.parse::<Timestamp>().map_err(|_| refused())?.as_second());
    }
    let stamped = ask.query.flag("timestamps");
    let write = move |second: i64| line(&container, second, start, stamped);
    let mut text: String = (first..=now).map(&write).collect();
    if let Some(limit) = ask.query.number::<usize>("limitBytes")? {
        let mut end = limit.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    if !ask.query.flag("follow") {
        return Ok(reply::whole(200, "text/plain", text));
    }
    let stop = shared.stop.clone();
    let more = stream::unfold(now, move |last| {
        let (write, stop) = (write.clone(), stop.clone());
        async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = stop.cancelled() => return None,
            }
            let now = Timestamp::now().as_second();
            let text: String = (last + 1..=now).map(&write).collect();
            Some((Bytes::from(text), now))
        }
    });
    // An empty chunk would end a chunked body.
    let more = more.filter(|chunk| std::future::ready(!chunk.is_empty()));
    let whole = stream::iter((!text.is_empty()).then(|| Bytes::from(text))).chain(more);
    Ok(reply::streamed("text/plain", whole))
}

/// The container asked for, or the only one there is.
fn container(pod: &Value, asked: &str) -> Result<String, Fail> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let names: Vec<&str> = containers.filter_map(|it| it["name"].as_str()).collect();
    match names.as_slice() {
        _ if names.contains(&asked) => Ok(asked.to_owned()),
        [only] if asked.is_empty() => Ok((*only).to_owned()),
        _ if asked.is_empty() => Err(Fail::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            names.join(" ")
        ))),
        _ => Err(Fail::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
    }
}

fn line(container: &str, second: i64, start: i64, stamped: bool) -> String {
    let number = second - start;
    let text = match number % 10 {
        0 => format!("INFO {container}: health check passed, {number} requests served"),
        7 => format!("WARN {container}: slow request id={number} took={}ms", 400 + number % 100),
        rest => format!("INFO {container}: GET /items/{} 200 {}ms", number % 97, 3 + rest),
    };
    if stamped {
        let at = Timestamp::from_second(second).unwrap_or_default();
        format!("{} {text}\n", at.strftime("%Y-%m-%dT%H:%M:%S.000000000Z"))
    } else {
        format!("{text}\n")
    }
}
