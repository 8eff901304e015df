//! The routes of charts and of the repositories that they come from, as the OpenAPI document tells
//! of them.
//!
//! It routes nothing: that is `mod.rs`.

use super::routes::{Answer, Parameter, Route, delete, get, post, put};

const LIST: &[Parameter] = &[
    ("repository", "string", "One repository, or several separated by commas; all without it."),
    ("q", "string", "Words to search for: the best comes first unless sortBy says otherwise."),
    ("deprecated", "bool", "Deprecated charts as well."),
    ("itemsPerPage", "int", "Rows of a page; all of them without it."),
    ("page", "int", "Which page, counted from 1."),
    ("sortBy", "string", "Pairs of a or d and a column, separated by commas."),
    ("filterBy", "string", "Pairs of a column and a text that its value contains."),
];
const VERSIONS: &[Parameter] = &[
    ("itemsPerPage", "int", "Versions of a page; all of them without it."),
    ("page", "int", "Which page, counted from 1."),
];
const FORCE: &[Parameter] = &[("force", "bool", "Takes the place of what is there.")];
const FORCE_DELETE: &[Parameter] = &[("force", "bool", "Even while releases are of this version.")];

const READ_ONLY: Answer = (405, "The repository takes no such change");
const FULL: Answer = (507, "The repository is full");

pub const CHARTS: &[Route] = &[
    get("/api/v1/repository", "repositories", "Those that the caller may read")
        .json("RepositoryList"),
    post("/api/v1/repository", "createRepository", "Makes a repository as the caller")
        .takes("RepositorySpec")
        .status(201)
        .json("Repository"),
    get("/api/v1/repository/{name}", "repository", "A repository and how it is").json("Repository"),
    put(
        "/api/v1/repository/{name}",
        "replaceRepository",
        "Changes a repository; its credentials stay where none are given and the host is the same",
    )
    .takes("RepositoryChange")
    .json("Repository"),
    delete("/api/v1/repository/{name}", "deleteRepository", "Deletes a repository").status(204),
    post(
        "/api/v1/repository/test",
        "testRepository",
        "Whether a repository could be read; nothing is kept",
    )
    .takes("RepositorySpec")
    .json("RepositoryTrial"),
    get(
        "/api/v1/repository/test",
        "repositoryCalledTest",
        "As of any other: a repository may be called so",
    )
    .json("Repository"),
    put("/api/v1/repository/test", "replaceRepositoryCalledTest", "As of any other")
        .takes("RepositoryChange")
        .json("Repository"),
    delete("/api/v1/repository/test", "deleteRepositoryCalledTest", "As of any other").status(204),
    post(
        "/api/v1/repository/{name}/refresh",
        "refreshRepository",
        "Has it read anew, in the background",
    )
    .status(202)
    .json("Repository"),
    get("/api/v1/chart", "charts", "Charts of the repositories that the caller may read")
        .query(LIST)
        .json("ChartList"),
    post(
        "/api/v1/chart/{repository}",
        "uploadChart",
        "Uploads a packed chart; 409 where the version is there, 405 where nobody can upload",
    )
    .query(FORCE)
    .takes("application/gzip")
    .status(201)
    .json("ChartUpload")
    .also(&[READ_ONLY, FULL]),
    get(
        "/api/v1/chart/{repository}/{name}",
        "chart",
        "Its versions, the newest first, and the caller's releases of it",
    )
    .query(VERSIONS)
    .json("ChartDetail"),
    get(
        "/api/v1/chart/{repository}/{name}/{version}",
        "chartVersion",
        "One version, as its archive tells it",
    )
    .json("ChartVersionDetail"),
    delete(
        "/api/v1/chart/{repository}/{name}/{version}",
        "deleteChartVersion",
        "Deletes a version; 409 while releases that the caller sees are of it",
    )
    .query(FORCE_DELETE)
    .json("ChartChange")
    .also(&[READ_ONLY]),
    get(
        "/api/v1/chart/{repository}/{name}/{version}/icon",
        "chartIcon",
        "Its icon; an SVG without all that could run",
    )
    .text("image/*"),
    get(
        "/api/v1/chart/{repository}/{name}/{version}/archive",
        "chartArchive",
        "The .tgz as the repository has it",
    )
    .text("application/gzip"),
    put(
        "/api/v1/chart/{repository}/{name}/{version}/provenance",
        "signChart",
        "Uploads the provenance file of the archive that is there",
    )
    .query(FORCE)
    .takes("text/plain")
    .json("ChartChange")
    .also(&[READ_ONLY, FULL]),
];
