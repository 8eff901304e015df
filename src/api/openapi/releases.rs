//! The routes of releases and of the operations that change them, as the OpenAPI document tells of
//! them.
//!
//! It routes nothing: that is `mod.rs`.

use super::routes::{Parameter, Route, delete, get, post, put};

const REVISION: &[Parameter] = &[("revision", "int", "One revision; the newest one without it.")];
const LIST: &[Parameter] = &[
    ("itemsPerPage", "int", "Rows of a page; all of them without it."),
    ("page", "int", "Which page, counted from 1."),
    ("sortBy", "string", "Pairs of a or d and a column, separated by commas."),
    ("filterBy", "string", "Pairs of a column and a text that its value contains."),
    ("labelSelector", "string", "Labels of the releases, as the API server takes it."),
    ("all", "bool", "Every revision; without it the newest one of each release."),
];
const UNINSTALL: &[Parameter] = &[
    ("keepHistory", "bool", "Leaves the records of the release."),
    ("hooks", "bool", "Runs the chart's hooks; true without it."),
    ("wait", "\"none\"|\"hooks\"|\"watcher\"|\"legacy\"", "What to wait for."),
    ("timeout", "string", "A duration from 1s to 1h; 5m without it."),
    ("description", "string", "What the record says afterwards."),
];

pub const RELEASES: &[Route] = &[
    get(
        "/api/v1/release",
        "releases",
        "Releases of all namespaces whose secrets the caller may list",
    )
    .query(LIST)
    .json("ReleaseList"),
    get("/api/v1/release/{namespace}", "releasesIn", "The same of these namespaces")
        .query(LIST)
        .json("ReleaseList"),
    post(
        "/api/v1/release/{namespace}",
        "install",
        "Installs a chart; Idempotency-Key makes it one operation",
    )
    .takes("Install")
    .status(202)
    .json("Operation")
    .repeatable(),
    get(
        "/api/v1/release/{namespace}/{name}",
        "release",
        "A release with its objects as they are now",
    )
    .query(REVISION)
    .json("ReleaseDetail"),
    put("/api/v1/release/{namespace}/{name}", "upgrade", "Upgrades a release")
        .takes("Upgrade")
        .status(202)
        .json("Operation")
        .repeatable(),
    delete("/api/v1/release/{namespace}/{name}", "uninstall", "Uninstalls a release")
        .query(UNINSTALL)
        .status(202)
        .json("Operation")
        .repeatable(),
    get(
        "/api/v1/release/{namespace}/{name}/history",
        "releaseHistory",
        "Its revisions, the newest first",
    )
    .json("ReleaseHistory"),
    get(
        "/api/v1/release/{namespace}/{name}/values",
        "releaseValues",
        "The user's values, and what they make of the chart's",
    )
    .query(REVISION)
    .json("ReleaseValues"),
    get(
        "/api/v1/release/{namespace}/{name}/manifest",
        "releaseManifest",
        "What was applied, as YAML",
    )
    .query(REVISION)
    .text("application/yaml"),
    get("/api/v1/release/{namespace}/{name}/notes", "releaseNotes", "NOTES.txt, rendered")
        .query(REVISION)
        .text("text/plain"),
    get(
        "/api/v1/release/{namespace}/{name}/hooks",
        "releaseHooks",
        "Its hooks with their manifests",
    )
    .query(REVISION)
    .json("ReleaseHooks"),
    get(
        "/api/v1/release/{namespace}/{name}/chart",
        "releaseChart",
        "What the record holds of the chart",
    )
    .query(REVISION)
    .json("ReleaseChart"),
    get(
        "/api/v1/release/{namespace}/{name}/resource",
        "releaseResources",
        "Its objects and how they are now",
    )
    .query(REVISION)
    .json("ReleaseResources"),
    get("/api/v1/release/{namespace}/{name}/pod", "releasePods", "The pods of its workloads")
        .query(REVISION)
        .list("pod"),
    post(
        "/api/v1/release/{namespace}/{name}/rollback",
        "rollbackRelease",
        "Goes back to a revision",
    )
    .takes("RollbackOfRelease")
    .status(202)
    .json("Operation")
    .repeatable(),
    post("/api/v1/release/{namespace}/{name}/test", "testRelease", "Runs the chart's tests")
        .takes("TestOfRelease")
        .status(202)
        .json("Operation")
        .repeatable(),
    post(
        "/api/v1/release/{namespace}/{name}/preview",
        "previewRelease",
        "What an act would do, and what would stop it; nothing is changed",
    )
    .takes("PreviewOf")
    .json("Preview"),
    post(
        "/api/v1/release/{namespace}/{name}/unlock",
        "unlockRelease",
        "Marks a revision that hangs in pending as failed",
    )
    .takes("Unlock")
    .json("Unlocked"),
    put(
        "/api/v1/release/{namespace}/{name}/protect",
        "protectRelease",
        "Nobody changes it until that is lifted",
    )
    .json("Protection"),
    put(
        "/api/v1/release/{namespace}/{name}/unprotect",
        "unprotectRelease",
        "Lifts the protection; needs the verb unprotect on releases of binnacle.dev",
    )
    .json("Protection"),
    get(
        "/api/v1/operation/{namespace}/{id}",
        "operation",
        "How an operation stands; as an event stream its log",
    )
    .json("Operation")
    .untagged(),
    delete(
        "/api/v1/operation/{namespace}/{id}",
        "cancelOperation",
        "Asks it to end; 200 when it is over already",
    )
    .status(202)
    .json("Operation")
    .also(&[(200, "It was over already")]),
];
