//! An act as the arguments of `helm` 3 or 4.
//!
//! What a version of Helm does not know is refused or translated here, never passed on to see what
//! happens. Arguments can be read by every process of the machine: values are in a file. There is
//! no shell anywhere, and every word of a person stands behind `=` or `--`.

use std::ffi::OsString;
use std::time::Duration;

use super::act::{Act, Apply, Back, BadAct, Deploy, Gone, Reuse, Try, Wait, Waiting};
use super::names;

/// In the working directory of the engine.
pub const CHART: &str = "chart.tgz";
/// In the working directory of the engine.
pub const VALUES: &str = "values.json";

/// What the engine is like, and what the act is about.
struct Call<'a> {
    major: u32,
    /// How the revision in question was applied: `ssa`, `csa`, or `""` (Helm 3).
    apply_method: Option<&'a str>,
    dry_run: bool,
    args: Vec<String>,
}

/// The arguments for Helm `major`; the chart is [`CHART`] and the values are [`VALUES`].
///
/// `apply_method` is that of the newest revision for an upgrade, and that of the revision to go
/// back to for a rollback, for that is what Helm looks at; none if there is no release. `dry_run`
/// counts for installs and upgrades, the only acts that are tried out.
///
/// # Errors
/// A wrong name, or something that this version of Helm cannot do.
pub fn argv(
    act: &Act,
    release: &str,
    namespace: &str,
    major: u32,
    apply_method: Option<&str>,
    dry_run: bool,
) -> Result<Vec<OsString>, BadAct> {
    names::release(release)?;
    names::namespace(namespace)?;
    let mut call = Call { major, apply_method, dry_run, args: Vec::new() };
    call.word(act.name());
    call.value("--namespace", namespace);
    match act {
        Act::Install(deploy) => {
            // A release that is not there has no method.
            call.apply_method = None;
            call.deploy(deploy)?;
            call.behind(&[release, CHART]);
        }
        Act::Upgrade(deploy) => {
            call.deploy(deploy)?;
            call.upgrade(deploy);
            call.behind(&[release, CHART]);
        }
        Act::Rollback(back) => {
            call.rollback(back)?;
            call.behind(&[release, &back.revision.to_string()]);
        }
        Act::Uninstall(gone) => {
            call.uninstall(gone);
            call.behind(&[release]);
        }
        Act::Test(tests) => {
            call.test(tests);
            call.behind(&[release]);
        }
    }
    Ok(call.args.into_iter().map(OsString::from).collect())
}

impl Call<'_> {
    fn word(&mut self, word: &str) {
        self.args.push(word.to_owned());
    }

    fn value(&mut self, flag: &str, value: &str) {
        self.args.push(format!("{flag}={value}"));
    }

    fn flags(&mut self, flags: &[(bool, &str)]) {
        for (_, flag) in flags.iter().filter(|(is_set, _)| *is_set) {
            self.word(flag);
        }
    }

    /// What may not be taken for a flag.
    fn behind(&mut self, words: &[&str]) {
        self.word("--");
        for word in words {
            self.word(word);
        }
    }

    fn deploy(&mut self, deploy: &Deploy) -> Result<(), BadAct> {
        self.value("--values", VALUES);
        self.flags(&[
            (deploy.create_namespace, "--create-namespace"),
            (!deploy.hooks, "--no-hooks"),
            (deploy.skip_schema_validation, "--skip-schema-validation"),
            (deploy.skip_crds, "--skip-crds"),
            (deploy.take_ownership, "--take-ownership"),
            // Notes are in the record; they often hold passwords, and our log is read by more.
            (!self.dry_run, "--hide-notes"),
        ]);
        if let Some(description) = &deploy.description {
            self.value("--description", description);
        }
        for (key, value) in &deploy.labels {
            // Helm takes off a label whose value is `null`.
            let value = value.as_deref().unwrap_or("null");
            self.value("--labels", &format!("{key}={value}"));
        }
        if deploy.rollback_on_failure {
            let old = self.major < 4;
            self.word(if old { "--atomic" } else { "--rollback-on-failure" });
        }
        self.waiting(&deploy.waiting);
        let installs = self.apply_method.is_none();
        self.apply(deploy.apply, installs)?;
        if self.dry_run {
            self.value("--dry-run", "server");
            self.value("--output", "json");
        }
        Ok(())
    }

    fn upgrade(&mut self, deploy: &Deploy) {
        self.flags(&[
            (deploy.install, "--install"),
            (deploy.reuse == Some(Reuse::Reset), "--reset-values"),
            (deploy.reuse == Some(Reuse::Reuse), "--reuse-values"),
            (deploy.reuse == Some(Reuse::ResetThenReuse), "--reset-then-reuse-values"),
        ]);
        if let Some(most) = deploy.max_history {
            self.value("--history-max", &most.to_string());
        }
    }

    fn rollback(&mut self, back: &Back) -> Result<(), BadAct> {
        self.flags(&[(!back.hooks, "--no-hooks"), (back.cleanup_on_fail, "--cleanup-on-fail")]);
        self.waiting(&back.waiting);
        self.apply(back.apply, false)
    }

    fn uninstall(&mut self, gone: &Gone) {
        self.flags(&[(gone.keep_history, "--keep-history"), (!gone.hooks, "--no-hooks")]);
        if let Some(description) = &gone.description {
            self.value("--description", description);
        }
        self.waiting(&gone.waiting);
    }

    fn test(&mut self, tests: &Try) {
        // Only Helm 3 prints notes here.
        self.flags(&[(tests.logs, "--logs"), (self.major < 4, "--hide-notes")]);
        for one in &tests.filter {
            self.value("--filter", one);
        }
        self.timeout(tests.timeout);
    }

    /// Helm 4 has strategies; Helm 3 waits in one way, which is called `legacy` now.
    fn waiting(&mut self, waiting: &Waiting) {
        match (waiting.wait, self.major < 4) {
            // Its default: hooks alone, or what failing back needs.
            (Wait::Hooks, _) => {}
            (Wait::Watcher | Wait::Legacy, true) => self.word("--wait"),
            (Wait::Watcher, false) => self.word("--wait=watcher"),
            (Wait::Legacy, false) => self.word("--wait=legacy"),
        }
        self.flags(&[(waiting.for_jobs, "--wait-for-jobs")]);
        self.timeout(waiting.timeout);
    }

    fn timeout(&mut self, time: Duration) {
        match time.subsec_millis() {
            0 => self.value("--timeout", &format!("{}s", time.as_secs())),
            _ => self.value("--timeout", &format!("{}ms", time.as_millis())),
        }
    }

    /// Helm 3 applies on the client, always. Helm 4 does it on the server, unless told otherwise
    /// or the release was made by the client; only the server has conflicts to force.
    fn apply(&mut self, apply: Apply, installs: bool) -> Result<(), BadAct> {
        let server = match apply.server_side {
            Some(true) if self.major < 4 => {
                return Err(BadAct::new("serverSideApply", "error-release-needs-helm-4"));
            }
            _ if self.major < 4 => false,
            Some(server) => server,
            None => installs || self.apply_method == Some("ssa"),
        };
        if apply.force_conflicts && !server {
            let old = self.major < 4;
            let what =
                if old { "error-release-needs-helm-4" } else { "error-release-force-conflicts" };
            return Err(BadAct::new("forceConflicts", what));
        }
        if let (Some(server), true) = (apply.server_side, self.major >= 4) {
            self.value("--server-side", if server { "true" } else { "false" });
        }
        self.flags(&[(apply.force_conflicts, "--force-conflicts")]);
        Ok(())
    }
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
