//! What an install, upgrade or rollback would make and what was there last: the engine renders a
//! chart on a dry run, an earlier revision is read from its record.
//!
//! Objects are not looked at one by one here; that is `releases::dry`'s part.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::detail;
use super::dry::{Problem, Severity, Way};
use super::protect::refuse_if_protected;
use super::run::{chart_of, fetched};
use super::write::no_engine;
use crate::api::Gateway;
use crate::api::body::{self, TURN};
use crate::api::error::ApiError;
use crate::api::target;
use crate::charts::schema::{self, BadSchema};
use crate::helm::act::{Act, Apply, Back, ChartFrom, Deploy};
use crate::helm::argv::{CHART, VALUES, argv};
use crate::helm::blob::Release;
use crate::helm::classify::{SchemaError, classify};
use crate::helm::engine::{Ended, Found, Job, RunError, TRIALS, Why};
use crate::helm::manifest::Object;
use crate::helm::record::{self, Record, Status};
use crate::helm::rendered::{Hook, Rendered};
use crate::helm::values;
use crate::i18n::{self, Locale};
use crate::upstream::{Served, Turns, User};

/// For one run of the engine: two of them and what comes after fit into a preview's time.
const ENGINE_TIME: Duration = Duration::from_secs(30);
/// What a dry run may print: the release with its chart, which is packed small in its record
/// afterwards. Real ones stay below a MiB.
const OUTPUT: usize = 32 << 20;
/// Previews that wait for a turn, each of another caller.
const WAITING: usize = 16;
/// Of one caller, by his name: who asks for many, of slow charts, leaves turns to others.
const OF_ONE: usize = 1;
static OWN: LazyLock<Turns<String>> = LazyLock::new(|| Turns::new(OF_ONE));
/// Charts whose schemas are looked through at once: up to 100 MiB are unpacked of each, piece by piece.
static READING: Semaphore = Semaphore::const_new(2);
/// Previews that run the engine at once, and hold a chart for it: no more than it has places for.
static TURNS: Semaphore = Semaphore::const_new(TRIALS);
static QUEUE: Semaphore = Semaphore::const_new(WAITING);
/// Group and kind of definitions of kinds.
const DEFINITION: (&str, &str) = ("apiextensions.k8s.io", "CustomResourceDefinition");
/// A release that is applied on the server (helm `pkg/release/v1/release.go`, `ApplyMethod`).
const SERVER_SIDE: &str = "ssa";
/// One that is applied on the client.
pub const CLIENT_SIDE: &str = "csa";

/// Leave to run the engine: given back when the caller and the child are both gone.
type Turn = Arc<(OwnedSemaphorePermit, SemaphorePermit<'static>)>;

/// Who asks about which release.
pub struct Asked<'a> {
    pub gateway: &'a Gateway,
    pub user: &'a User,
    /// Whose turns it takes.
    pub caller: &'a str,
    pub locale: Locale,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// What there shall be, and what was there last.
#[derive(Default)]
pub struct Plan {
    pub rendered: Rendered,
    pub old: Vec<Object>,
    /// Of what was there last a part could not be read.
    pub truncated: bool,
    pub way: Way,
    /// Files of the chart itself with definitions that are made before anything else.
    pub crds: Vec<String>,
    /// Group and kind of definitions among the rendered objects that are made first.
    pub kinds: Vec<(String, String)>,
    pub creates_namespace: bool,
    pub schema_errors: Vec<SchemaError>,
    pub problem: Option<Problem>,
}

impl Asked<'_> {
    /// What the engine makes of a chart.
    pub async fn deployed(&self, act: &Act, deploy: &Deploy) -> Result<Plan, ApiError> {
        let engine = self.engine().await?;
        let cluster = &self.gateway.cluster;
        let history = record::history(cluster, self.user, self.namespace, self.name).await;
        let history = self.gateway.authorizer.heed(self.user, history).await?;
        let upgrades = matches!(act, Act::Upgrade(_));
        let refused = self.refused(&history, !upgrades).await;
        let newest = history.first().filter(|record| record.status != Status::Uninstalled);
        let newest = newest.filter(|_| upgrades);
        let (mut plan, mut method) = (Plan::default(), None);
        if let Some(newest) = newest {
            let last = detail::readable(self.gateway, self.user, newest).await?;
            method = Some(method_of(&last));
            // The engine compares with what was deployed last, whatever failed since.
            let deployed = history.iter().find(|record| record.status == Status::Deployed);
            let base = match deployed.filter(|record| record.revision != newest.revision) {
                Some(record) => {
                    drop(last);
                    detail::readable(self.gateway, self.user, record).await?
                }
                None => last,
            };
            let (old, unread) = detail::objects(base.manifest).await?;
            (plan.old, plan.truncated) = (old, !unread.is_empty());
        }
        plan.way = way(engine.major, deploy.apply, method);
        plan.creates_namespace = deploy.create_namespace;
        let pulled = fetched(self.gateway, self.user, &deploy.chart).await?;
        let turn = turn(self.caller).await?;
        let mut here = deploy.clone();
        if let Some((chart, place)) = pulled {
            here.chart = chart;
            // Not before: what waits for its turn is in memory, too.
            drop(place);
        }
        let (archive, chart) = chart_of(self.gateway, self.user, &here).await?;
        if newest.is_none() && !deploy.skip_crds {
            plan.crds = archive.crds;
        }
        // What was fetched is what is run, whatever the registry gives a moment later.
        here.chart = ChartFrom::Archive(chart.clone());
        let act = if upgrades { Act::Upgrade(here) } else { Act::Install(here) };
        let args = argv(&act, self.name, self.namespace, engine.major, method, true)?;
        let files = files(&act, Some(chart));
        let ended = self.run((&engine, &turn), args, files.clone()).await?;
        self.read(deploy, &mut plan, ended, Rendered::parse).await?;
        let no_kind = plan.problem.as_ref().is_some_and(|problem| problem.class == "crd-missing");
        if no_kind && newest.is_none() && !deploy.skip_crds {
            plan = self.with_definitions((&engine, &turn), deploy, plan, files).await?;
        }
        // Why nothing was rendered goes before: nobody would guess it.
        if plan.problem.as_ref().is_none_or(|problem| problem.severity != Severity::Error) {
            plan.problem = refused.or(plan.problem);
        }
        Ok(plan)
    }

    /// Why the act itself would be refused at once (`releases::write`): on a dry run the engine takes
    /// any name, a rollback has none, and of protection it knows nothing.
    async fn refused(&self, history: &[Record], installs: bool) -> Option<Problem> {
        let newest = history.first()?;
        let class = if newest.status.is_pending() {
            "pending"
        } else if installs {
            // Whatever has become of the release that has it.
            "name-taken"
        } else {
            let Self { gateway, user, namespace, name, .. } = *self;
            let refused = refuse_if_protected(gateway, user, namespace, name, newest).await;
            return Some(Problem::error("forbidden", refused.err()?.text(self.locale)));
        };
        Some(Problem::error(class, self.sentence(class)))
    }

    /// A dry run knows only kinds that the cluster serves; an install makes the chart's own
    /// definitions before. So the chart is rendered without the cluster, definitions and all.
    async fn with_definitions(
        &self,
        engine: (&Found, &Turn),
        deploy: &Deploy,
        refused: Plan,
        files: Vec<(&'static str, Bytes)>,
    ) -> Result<Plan, ApiError> {
        let version = self.gateway.discovery.version(&self.gateway.cluster, self.user).await;
        let version = self.gateway.authorizer.heed(self.user, version).await?;
        let mut args = vec!["template", self.name, CHART, "--namespace", self.namespace];
        args.extend(["--values", VALUES, "--include-crds", "--kube-version", version.as_str()]);
        if deploy.skip_schema_validation {
            args.push("--skip-schema-validation");
        }
        let args = args.into_iter().map(OsString::from).collect();
        let ended = self.run(engine, args, files).await?;
        let mut plan = Plan { crds: refused.crds.clone(), way: refused.way, ..Plan::default() };
        plan.creates_namespace = refused.creates_namespace;
        let read = |stdout: &[u8]| Some(Rendered::of_template(stdout));
        self.read(deploy, &mut plan, ended, read).await?;
        let definitions = plan.rendered.objects.iter().filter(|object| is_of(object, DEFINITION));
        plan.kinds = definitions.filter_map(defined).collect();
        // It failed as well, or the kind comes from elsewhere: the first answer is the right one.
        if plan.problem.is_some() || plan.kinds.is_empty() {
            return Ok(refused);
        }
        let message = i18n::message(self.locale, "helm-preview-definitions-first", &[]);
        plan.problem = Some(Problem::info("crd-missing", message));
        Ok(plan)
    }

    /// What the engine has rendered, or why it has not.
    async fn read(
        &self,
        deploy: &Deploy,
        plan: &mut Plan,
        ended: Ended,
        parse: impl FnOnce(&[u8]) -> Option<Rendered> + Send + 'static,
    ) -> Result<(), ApiError> {
        let Ended { code, stdout, stderr, why } = ended;
        let done = (code, why) == (Some(0), Why::Itself);
        if done && let Some(rendered) = detail::parsed(move || parse(&stdout)).await? {
            plan.rendered = rendered;
            if !deploy.hooks {
                plan.rendered.hooks.clear();
            }
            return Ok(());
        }
        let mut trouble = classify(why, &stderr);
        if done {
            // It said that all is well, and not what.
            trouble.class = "engine";
        }
        plan.schema_errors = trouble.schema;
        // Nothing was rendered: that is no reason to tell that everything will be deleted.
        plan.old.clear();
        let problem = Problem::error(trouble.class, self.sentence(trouble.class));
        plan.problem = Some(Problem { detail: trouble.detail, ..problem });
        Ok(())
    }

    /// A rollback renders nothing: it applies what an earlier revision has stored.
    pub async fn rolled_back(&self, back: &Back) -> Result<Plan, ApiError> {
        let engine = self.engine().await?;
        let found = detail::found(self.gateway, self.user, self.namespace, self.name, None);
        let (history, newest) = found.await?;
        let target = detail::chosen(&history, self.name, back_to(back, &newest))?;
        let (mut way, rendered) = self.stored(&engine, back, target).await?;
        let last = detail::readable(self.gateway, self.user, &newest).await?;
        way.migrates = way.server_side && method_of(&last) != SERVER_SIDE;
        let (old, unread) = detail::objects(last.manifest).await?;
        let problem = match self.refused(&history, false).await {
            None => self.removed(&old).await,
            refused => refused,
        };
        let truncated = !unread.is_empty();
        Ok(Plan { rendered, old, truncated, way, problem, ..Plan::default() })
    }

    /// Kinds of what is there that the cluster does not serve any more: the engine looks for them
    /// before it does anything, whatever shall be there.
    async fn removed(&self, old: &[Object]) -> Option<Problem> {
        let kinds = old.iter().map(|object| ((&object.api_version, &object.kind), object));
        let mut gone = Vec::new();
        for ((version, kind), object) in kinds.collect::<BTreeMap<_, _>>() {
            let is_it = |served: &Served| {
                served.group == object.group()
                    && served.kind == *kind
                    && served.version(Some(object.version())).is_some()
            };
            // That nobody answers is told of each object.
            if matches!(target::find(self.gateway, self.user, is_it).await, Ok(None)) {
                gone.push(format!("{kind} ({version})"));
            }
        }
        let problem = Problem::error("api-removed", self.sentence("api-removed"));
        (!gone.is_empty()).then(|| Problem { detail: gone.join("\n"), ..problem })
    }

    /// What a rollback to this revision applies, and how. Of the record nothing else is kept.
    async fn stored(
        &self,
        engine: &Found,
        back: &Back,
        target: &Record,
    ) -> Result<(Way, Rendered), ApiError> {
        let target = detail::readable(self.gateway, self.user, target).await?;
        let way = way(engine.major, back.apply, Some(method_of(&target)));
        let hooks = target.hooks.into_iter().map(Hook::from).filter(|_| back.hooks).collect();
        let (manifest, notes) = (target.manifest, target.info.notes);
        let rendered = detail::parsed(move || Rendered::of(&manifest, hooks, &notes)).await?;
        Ok((way, rendered))
    }

    async fn engine(&self) -> Result<Found, ApiError> {
        self.gateway.helm.engine.found().await.map_err(|error| no_engine(&error))
    }

    /// One run of the engine as the caller. What it says on the way is not for anybody's log. A
    /// caller who leaves ends it; helm may take a while for that, and has its place so long.
    async fn run(
        &self,
        (found, turn): (&Found, &Turn),
        args: Vec<OsString>,
        files: Vec<(&'static str, Bytes)>,
    ) -> Result<Ended, ApiError> {
        let door = self.gateway.helm.doors.open(self.user.clone());
        let cancel = CancellationToken::new();
        let job = Job {
            args,
            door: door.key(),
            namespace: self.namespace.to_owned(),
            files,
            time: ENGINE_TIME,
            cancel: cancel.clone(),
            stdout_limit: OUTPUT,
        };
        let engine = Arc::clone(&self.gateway.helm.engine);
        let (found, turn) = (found.clone(), Arc::clone(turn));
        let run = async move {
            let _held = (turn, door);
            engine.run(&found, job, |_: &str| {}).await
        };
        to_its_end(cancel, run).await?.map_err(no_run)
    }

    /// What an error of this class means to a person.
    pub fn sentence(&self, class: &str) -> String {
        i18n::message(self.locale, &format!("helm-{class}"), &[])
    }
}

/// An error if helm would fetch what a schema in the chart refers to. A rollback and a test read no
/// schema, and with `--skip-schema-validation` helm reads none at all.
pub async fn closed(deploy: &Deploy, chart: &Bytes) -> Result<(), ApiError> {
    if deploy.skip_schema_validation {
        return Ok(());
    }
    let place = body::turn(&READING, TURN).await?;
    let Err(error) = schema::closed(chart, place).await else { return Ok(()) };
    Err(match &error {
        BadSchema::Elsewhere(file, reference) => {
            let args = [("file", file.as_str()), ("reference", reference.as_str())];
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            ApiError::with_status(status, "error-chart-schema-elsewhere", &args)
        }
        BadSchema::Archive(_) | BadSchema::Unread(..) => {
            let reason = error.to_string();
            ApiError::bad_request("error-chart-broken", &[("reason", reason.as_str())])
        }
        BadSchema::BrokenOff(error) => ApiError::internal(error),
    })
}

/// The files that `argv` names.
pub fn files(act: &Act, chart: Option<Bytes>) -> Vec<(&'static str, Bytes)> {
    let mut files = Vec::new();
    if let Act::Install(deploy) | Act::Upgrade(deploy) = act {
        files.extend(chart.map(|chart| (CHART, chart)));
        files.push((VALUES, values::file(&deploy.values).into()));
    }
    files
}

/// One of the caller's turns, and then one of all; 429 when there is none in time, or too many
/// wait.
async fn turn(caller: &str) -> Result<Turn, ApiError> {
    let both = async {
        // First: who waits for his own takes no place among those who wait for others.
        let own = OWN.at(caller.to_owned()).acquire_owned().await.ok()?;
        let _queued = QUEUE.try_acquire().ok()?;
        Some(Arc::new((own, TURNS.acquire().await.ok()?)))
    };
    timeout(TURN, both).await.ok().flatten().ok_or_else(body::too_many)
}

/// Work that goes on when nobody waits for it any more, and is told so.
async fn to_its_end<T: Send + 'static>(
    cancel: CancellationToken,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ApiError> {
    let _leaves = cancel.drop_guard();
    tokio::spawn(work).await.map_err(|error| ApiError::internal(&error))
}

/// The revision that a rollback leads to.
pub fn back_to(back: &Back, newest: &Record) -> u32 {
    match back.revision {
        0 => newest.revision.saturating_sub(1),
        revision => revision,
    }
}

/// How a revision was applied; Helm 3 says nothing and has one way.
pub fn method_of(release: &Release) -> &'static str {
    if release.apply_method == SERVER_SIDE { SERVER_SIDE } else { CLIENT_SIDE }
}

/// How the engine would apply, of a release whose objects were applied by `method`, or of a new
/// one (helm 4, `getUpgradeServerSideValue`; helm 3 applies client-side).
fn way(major: u32, apply: Apply, method: Option<&str>) -> Way {
    let before = method.is_none_or(|method| method == SERVER_SIDE);
    let server_side = major >= 4 && apply.server_side.unwrap_or(before);
    Way {
        server_side,
        force: server_side && apply.force_conflicts,
        migrates: server_side && !before,
    }
}

pub fn is_of(object: &Object, (group, kind): (&str, &str)) -> bool {
    object.group() == group && object.kind == kind
}

/// Group and kind that a definition defines.
fn defined(definition: &Object) -> Option<(String, String)> {
    let value = definition.value();
    let text = |pointer: &str| value.pointer(pointer)?.as_str().map(str::to_owned);
    Some((text("/spec/group")?, text("/spec/names/kind")?))
}

fn no_run(error: RunError) -> ApiError {
    let reason = error.to_string();
    let args = [("reason", reason.as_str())];
    ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "error-engine-run", &args)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_caller_who_leaves_ends_the_engine_and_its_place_is_free_when_that_is_gone() {
        let (cancel, places) = (CancellationToken::new(), Arc::new(Semaphore::new(1)));
        let place = places.clone().try_acquire_owned().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let told = cancel.clone();
        let work = async move {
            let _held = place;
            told.cancelled().await;
            ended.await
        };
        let mut caller = Box::pin(to_its_end(cancel.clone(), work));
        assert!(caller.as_mut().now_or_never().is_none());
        drop(caller);
        assert!(cancel.is_cancelled());
        assert_eq!(places.available_permits(), 0, "helm has its grace");
        end.send(()).unwrap();
        let free = timeout(Duration::from_secs(60), places.acquire()).await;
        assert!(free.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_caller_who_previews_much_leaves_turns_to_others() {
        let first = turn("jane").await.unwrap();
        let mut more: Vec<_> = (0..TRIALS + WAITING).map(|_| Box::pin(turn("jane"))).collect();
        for waits in &mut more {
            assert!(waits.as_mut().now_or_never().is_none(), "one at a time");
        }
        let other = turn("joe").now_or_never().unwrap();
        assert!(other.is_ok(), "who has none need not wait for who has many");
        drop(first);
        assert!(more.remove(0).await.is_ok());
    }

    #[test]
    fn a_release_stays_with_the_way_it_was_applied_unless_another_is_asked_for() {
        let auto = Apply { server_side: None, force_conflicts: true };
        let forced = Way { server_side: true, force: true, migrates: false };
        assert_eq!(way(4, auto, None), forced);
        assert_eq!(way(4, auto, Some(SERVER_SIDE)), forced);
        assert_eq!(way(4, auto, Some(CLIENT_SIDE)), Way::default());
        let server = Apply { server_side: Some(true), force_conflicts: false };
        let migrates = Way { server_side: true, force: false, migrates: true };
        assert_eq!(way(4, server, Some(CLIENT_SIDE)), migrates);
        assert_eq!(way(3, server, None), Way::default());
    }
}
