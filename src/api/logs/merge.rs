//! The logs of a whole workload as one: its pods are found as they come, each is followed to its
//! end, and lines that arrive about the same time go out in the order of their own times.
//!
//! Which pods those are the caller's own view of them says. Over a skew of the nodes' clocks, or
//! for lines that come late, the order is that of arrival.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use compact_str::{CompactString, ToCompactString as _};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::follow::{Reading, Seat, right};
use super::lines::parameter;
use super::source::{self, HAND_OVER, Names, Said, Source, Wanted};
use super::source_filter::Filter;
use super::stream::{End, Held, QUEUE, Queue, Reason};
use super::window::{all, names, pods_of, source};
use crate::api::body;
use crate::api::error::ApiError;
use crate::api::read::related::known;
use crate::api::read::view::{self, View};
use crate::api::standing::Doubt;
use crate::api::target::{Target, segment};
use crate::api::{Caller, Gateway, Shared};
use crate::i18n::Locale;
use crate::kinds::{KindDef, Link, Phase, Resource, Row};
use crate::upstream::User;

/// Pods that are followed at once, and their containers: each is a request to the API server.
const PODS: usize = 50;
const CONTAINERS: usize = 100;
/// Pods beyond those that are named.
const NAMED: usize = 50;
/// Lines of each container to begin with, for who does not say.
const TAIL: usize = 100;
/// How long a line waits for earlier ones of other pods.
const WINDOW: Duration = Duration::from_millis(500);
/// How long a log that has just begun may take for its first lines: until then nobody who resumes
/// is taken past them. What comes later still, or out of the window, a resumed stream may lack.
const SETTLING: Duration = Duration::from_secs(5);
/// Between two looks at the pods: in the shared cache, and by a list as the caller.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// `GET /api/v1/log/follow/{kind}/{namespace}/{name}`: as an event stream or a websocket. Besides
/// the options of one container's log, `container` names the only one to follow.
pub async fn follow(
    State(gateway): Shared,
    Caller(user): Caller,
    mut request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let (kind, spec) = source(&segment(path.rsplit('/').nth(2).unwrap_or_default())?)?;
    let target = Target::of(path, kind, 0)?;
    let query = request.uri().query().unwrap_or_default();
    let wanted = Arc::new(Wanted::of(query, request.headers())?.or_tail(TAIL));
    let asked = parameter(query, "container").filter(|name| !name.is_empty());
    let asked = asked.map(|name| CompactString::from(&*name));
    let at = view::served(&gateway, &user, kind).await?;
    let path = target.path(&at);
    let owner = body::get(&gateway, &user, &path).await?;
    let right = right(&target.namespace, if kind.name == "pod" { &target.name } else { "" });
    if !gateway.authorizer.review(&gateway.cluster, &user, &right).await? {
        let args = [("namespace", target.namespace.as_str())];
        return Err(ApiError::with_status(StatusCode::FORBIDDEN, "error-no-log-right", &args));
    }
    let filter = source::filter(&gateway.follows.filters, &user, query).await?;
    let pods = known("pod")?.resource;
    let namespace = target.namespace;
    let work = Workload {
        gateway: gateway.clone(),
        user: user.clone(),
        kind,
        path,
        owner,
        spec,
        namespace,
        asked,
        pods,
        wanted,
        filter,
    };
    // Whoever may not list the pods learns it from the answer.
    work.pods(&work.owner).await?;
    // Taken by callers alone who have been found to have the right.
    let seat = gateway.follows.seat(&user)?;
    let queue = Arc::new(Queue::default());
    let reading = Reading { gateway, user, right, seat, queue: queue.clone() };
    reading.answer(&mut request, run(work, queue))
}

struct Workload {
    gateway: Arc<Gateway>,
    user: User,
    kind: &'static KindDef,
    /// Where the API server has it, and what it was at first.
    path: String,
    owner: Value,
    /// Where it describes its pods.
    spec: &'static str,
    namespace: CompactString,
    /// The only container that is followed, if there was one in the query.
    asked: Option<CompactString>,
    /// Where the API server has pods.
    pods: Resource,
    wanted: Arc<Wanted>,
    filter: Option<Arc<Filter>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    uid: CompactString,
    name: CompactString,
    /// Its row, where that is to say which containers it has.
    row: Option<Bytes>,
    is_pending: bool,
}

impl Pod {
    fn of(row: &Row, is_read: bool) -> Self {
        let (uid, name) = (row.uid.to_compact_string(), row.name.clone());
        let is_pending = row.pod().is_some_and(|facts| facts.phase == Phase::Pending);
        // Without a node nobody tells of its containers: there is nothing to look through.
        let is_silent = is_pending && !row.links.iter().any(|link| matches!(link, Link::Node(_)));
        let json = || if is_silent { Bytes::new() } else { row.json.clone() };
        Self { uid, name, row: is_read.then(json), is_pending }
    }

    /// Its own containers: in a rollout not all pods have those that are `usual` now. None as long
    /// as its node has said nothing of it: then there is no log either.
    fn containers(&self, usual: &[CompactString]) -> Vec<CompactString> {
        let Some(row) = &self.row else { return usual.to_vec() };
        let shown: Value = serde_json::from_slice(row).unwrap_or_default();
        let count = shown.get("containerImages").and_then(Value::as_array).map_or(0, Vec::len);
        let mut own = all(&names(&shown, "/containerStatuses"));
        match own.len().checked_sub(count) {
            // Those of its init containers come first.
            Some(init) if count > 0 => own.split_off(init),
            _ if self.is_pending => Vec::new(),
            _ => usual.to_vec(),
        }
    }
}

/// What a look has found.
struct Seen {
    pods: Vec<Pod>,
    /// The containers of the workload as it is now.
    usual: Vec<CompactString>,
    /// There will be no more of them.
    is_over: bool,
}

impl Workload {
    fn usual(&self, owner: &Value) -> Vec<CompactString> {
        match &self.asked {
            Some(name) => vec![name.clone()],
            None => all(&names(owner, &format!("{}/containers", self.spec))),
        }
    }

    /// The pods now, by name, and when to look again.
    async fn pods(&self, owner: &Value) -> Result<(Vec<Pod>, Duration), ApiError> {
        if self.kind.name == "pod" {
            let text = |pointer: &str| owner.pointer(pointer).and_then(Value::as_str);
            let of = |pointer: &str| CompactString::from(text(pointer).unwrap_or_default());
            let (uid, name) = (of("/metadata/uid"), of("/metadata/name"));
            let pod = Pod { uid, name, row: None, is_pending: false };
            return Ok((vec![pod], self.gateway.follows.recheck()));
        }
        let Self { gateway, user, kind, namespace, .. } = self;
        let (rows, views) = pods_of(gateway, user, kind, namespace, owner).await?;
        let pods = rows.iter().map(|row| Pod::of(row, self.asked.is_none()));
        let again = if views.iter().all(View::is_shared) { LOOK.0 } else { LOOK.1 };
        Ok((pods.collect(), again))
    }

    /// Looks for pods again and again; returns when the caller may no longer.
    async fn look(&self, to: mpsc::Sender<Seen>) -> End {
        let (mut owner, mut read) = (self.owner.clone(), Instant::now());
        let mut doubt = Doubt::default();
        let mut is_over = self.kind.name == "pod" || is_finished(&owner);
        loop {
            if read.elapsed() >= self.gateway.follows.recheck() {
                match body::get(&self.gateway, &self.user, &self.path).await {
                    Ok(now) => owner = now,
                    Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => is_over = true,
                    // Rights are looked at elsewhere, and the last we know is good enough.
                    Err(_) => {}
                }
                is_over |= is_finished(&owner);
                read = Instant::now();
            }
            let again = match self.pods(&owner).await {
                Ok((pods, again)) => {
                    doubt.allowed();
                    let usual = self.usual(&owner);
                    if to.send(Seen { pods, usual, is_over }).await.is_err() {
                        return Reason::Completed.into();
                    }
                    again
                }
                Err(error) => match error.status {
                    StatusCode::FORBIDDEN if !doubt.excuses_now(&self.gateway) => {
                        return End::of(Reason::Denied, &error.text(Locale::EN));
                    }
                    StatusCode::UNAUTHORIZED => return Reason::Unauthorized.into(),
                    _ => LOOK.1,
                },
            };
            sleep(again).await;
        }
    }

    /// `is_new`: the pod came after the reader, who gets it from its beginning.
    fn source(&self, pod: &Pod, container: &CompactString, is_new: bool) -> Source {
        let (namespace, name) = (self.namespace.clone(), pod.name.clone());
        Source {
            gateway: self.gateway.clone(),
            user: self.user.clone(),
            path: Target { namespace, name: name.clone() }.path(&self.pods),
            names: Arc::new(Names { pod: name, container: container.clone() }),
            wanted: if is_new { Arc::new(self.wanted.whole()) } else { self.wanted.clone() },
            filter: self.filter.clone(),
            uid: Some(pod.uid.clone()),
        }
    }
}

/// Whether a job has come to its end.
fn is_finished(owner: &Value) -> bool {
    if owner.pointer("/kind").and_then(Value::as_str) != Some("Job") {
        return false;
    }
    let conditions = owner.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| {
        let is = |key: &str, value: &str| one.get(key).is_some_and(|text| text == value);
        is("status", "True") && (is("type", "Complete") || is("type", "Failed"))
    })
}

/// Follows all pods until there are no more of them.
async fn run(work: Workload, queue: Arc<Queue>) -> End {
    let begun = Timestamp::now();
    let (to, mut said) = mpsc::channel::<Vec<Said>>(HAND_OVER);
    let (tell, mut seen) = mpsc::channel(1);
    let mut looking = pin!(work.look(tell));
    let (mut crew, mut sources, mut is_over) = (Crew::default(), JoinSet::new(), false);
    let mut merge = Merge { newest: work.wanted.begins(), ..Merge::default() };
    while !is_over || !merge.is_empty() {
        let due = merge.due();
        tokio::select! {
            ended = &mut looking => return ended,
            Some(now) = seen.recv() => {
                let place = |containers| work.gateway.follows.pod(&work.user, containers);
                let new = crew.see(now, place);
                if !new.is_empty() {
                    merge.begins(Instant::now());
                }
                for Joined { pod, containers, is_new } in new {
                    for container in &containers {
                        let (source, to) = (work.source(&pod, container, is_new), to.clone());
                        let pod = pod.clone();
                        sources.spawn(async move {
                            let end = source.run(None, to).await;
                            (pod, source.names.container.clone(), end)
                        });
                    }
                }
            }
            Some(ended) = sources.join_next() => {
                if let Ok((pod, container, end)) = ended {
                    crew.ended(&pod, &container, &end);
                }
            }
            Some(lines) = said.recv() => {
                for said in lines {
                    merge.push(Instant::now(), said);
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        while let Some(said) = merge.next(Instant::now()) {
            let id = merge.place(Instant::now()).map(|at| at.to_string());
            let entry = work.wanted.entry(&said.line, Some(&*said.names), id);
            queue.put(entry, said.line.at.is_some_and(|at| at < begun)).await;
        }
        if let Some(news) = crew.news() {
            queue.pods(news);
        }
        // The last lines of sources that have ended may still be on their way to here.
        is_over = crew.is_over() && said.is_empty() && sources.is_empty();
    }
    Reason::Completed.into()
}

/// Which pods are followed, by uid.
#[derive(Default)]
struct Crew {
    active: BTreeMap<CompactString, Active>,
    /// Those that have ended and are still listed.
    done: HashSet<CompactString>,
    has_looked: bool,
    /// Those that the first look found and that have not been followed yet.
    old: HashSet<CompactString>,
    beyond: Vec<CompactString>,
    /// What could not be followed, by the uid of its pod.
    failed: Vec<(CompactString, Value)>,
    is_over: bool,
    told: Value,
}

/// A pod to follow from now on.
struct Joined {
    pod: Pod,
    containers: Vec<CompactString>,
    /// It came after the first look.
    is_new: bool,
}

/// A pod that is followed.
struct Active {
    name: CompactString,
    containers: usize,
    /// Containers that have not ended.
    left: usize,
    _seat: Seat,
}

impl Crew {
    /// Takes note of the pods; returns those to follow from now on. A pod for whose containers
    /// there is no room or no `place` is beyond.
    fn see(&mut self, seen: Seen, place: impl Fn(usize) -> Option<Seat>) -> Vec<Joined> {
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        self.is_over = seen.is_over;
        let listed: HashSet<&CompactString> = seen.pods.iter().map(|pod| &pod.uid).collect();
        self.done.retain(|uid| listed.contains(uid));
        self.old.retain(|uid| listed.contains(uid));
        self.failed.retain(|(uid, _)| listed.contains(uid));
        self.beyond.clear();
        let (mut new, mut is_full) = (Vec::new(), false);
        let mut count: usize = self.active.values().map(|pod| pod.containers).sum();
        for pod in &seen.pods {
            if self.active.contains_key(&pod.uid) || self.done.contains(&pod.uid) {
                continue;
            }
            let mut containers = if is_full { Vec::new() } else { pod.containers(&seen.usual) };
            containers.truncate(CONTAINERS);
            if containers.is_empty() && !is_full {
                continue;
            }
            count += containers.len();
            is_full |= self.active.len() >= PODS || count > CONTAINERS;
            let seat = if is_full { None } else { place(containers.len()) };
            let Some(seat) = seat else {
                // Who gets none is not asked again for each of thousands of pods.
                is_full = true;
                self.beyond.push(pod.name.clone());
                if is_first {
                    self.old.insert(pod.uid.clone());
                }
                continue;
            };
            let is_new = !is_first && !self.old.remove(&pod.uid);
            let (name, left) = (pod.name.clone(), containers.len());
            let active = Active { name, containers: left, left, _seat: seat };
            self.active.insert(pod.uid.clone(), active);
            let pod = Pod { row: None, ..pod.clone() };
            new.push(Joined { pod, containers, is_new });
        }
        new
    }

    fn ended(&mut self, pod: &Pod, container: &str, end: &End) {
        if !matches!(end.reason, Reason::Completed | Reason::Gone) {
            let mut failed = end.data();
            failed["pod"] = pod.name.as_str().into();
            failed["container"] = container.into();
            self.failed.push((pod.uid.clone(), failed));
        }
        match self.active.get_mut(&pod.uid) {
            Some(active) if active.left > 1 => active.left -= 1,
            _ => {
                self.active.remove(&pod.uid);
                self.done.insert(pod.uid.clone());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_over && self.active.is_empty() && self.beyond.is_empty()
    }

    /// The pods as they are told, if that has changed.
    fn news(&mut self) -> Option<Value> {
        let mut following: Vec<_> = self.active.values().map(|pod| &pod.name).collect();
        following.sort_unstable();
        let failed: Vec<&Value> = self.failed.iter().map(|(_, failed)| failed).collect();
        let news = json!({
            "following": following,
            "beyond": self.beyond.iter().take(NAMED).collect::<Vec<_>>(),
            "beyondCount": self.beyond.len(),
            "failed": failed,
        });
        if news == self.told {
            return None;
        }
        self.told = news.clone();
        Some(news)
    }
}

/// Lines that wait for earlier ones.
#[derive(Default)]
struct Merge {
    held: BTreeMap<(Timestamp, u64), Said>,
    bytes: Held,
    count: u64,
    /// When lines came, in that order, with their times.
    arrivals: VecDeque<(Instant, Timestamp)>,
    /// Lines up to this time have waited long enough.
    until: Option<Timestamp>,
    /// The newest time that has gone out.
    newest: Option<Timestamp>,
    /// When logs began that may still bring earlier lines, with what was the newest then.
    settling: VecDeque<(Instant, Option<Timestamp>)>,
}

impl Merge {
    fn push(&mut self, now: Instant, said: Said) {
        // A word of the kubelet's has no time: it goes out with the next line.
        let at = said.line.at.unwrap_or(Timestamp::MIN);
        self.bytes.add(said.line.text.len());
        self.count += 1;
        self.held.insert((at, self.count), said);
        self.arrivals.push_back((now, at));
    }

    /// The next line that has waited long enough, or for which there is no room.
    fn next(&mut self, now: Instant) -> Option<Said> {
        loop {
            let first = self.held.first_key_value().map(|((at, _), _)| *at);
            if first.is_some_and(|at| self.until.is_some_and(|until| at <= until)) {
                let (_, said) = self.held.pop_first()?;
                self.bytes.sub(said.line.text.len());
                self.newest = self.newest.max(said.line.at);
                return Some(said);
            }
            self.until = None;
            let &(arrived, at) = self.arrivals.front()?;
            if arrived + WINDOW > now && !self.is_full() {
                return None;
            }
            self.arrivals.pop_front();
            self.until = Some(at);
        }
    }

    /// More logs have begun.
    fn begins(&mut self, now: Instant) {
        self.settling.push_back((now, self.newest));
    }

    /// The time to resume at, where no log that has just begun is passed over: its readers get
    /// lines of those seconds twice rather than not at all.
    fn place(&mut self, now: Instant) -> Option<Timestamp> {
        while self.settling.front().is_some_and(|(begun, _)| *begun + SETTLING <= now) {
            self.settling.pop_front();
        }
        self.settling.front().map_or(self.newest, |(_, newest)| *newest)
    }

    fn is_full(&self) -> bool {
        self.arrivals.len() > QUEUE.0 || self.bytes.bytes() > self.bytes.most()
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// When the next line will have waited long enough.
    fn due(&self) -> Option<Instant> {
        self.arrivals.front().map(|(arrived, _)| *arrived + WINDOW)
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
