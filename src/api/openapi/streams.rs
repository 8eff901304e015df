//! The routes of logs and of shells, as the OpenAPI document tells of them.
//!
//! It routes nothing: that is `mod.rs`.

use super::routes::{Answer, NO_UPGRADE, Parameter, Route, get};

const WINDOW: &[Parameter] = &[
    ("previous", "bool", "The log of the container's run before this one."),
    ("logFilePosition", "\"beginning\"|\"end\"", "Which end of a long log to read."),
    ("referenceTimestamp", "string", "Time of the line to count from; newest or oldest."),
    ("referenceLineNum", "int", "Which line of that time."),
    ("offsetFrom", "int", "First line, counted from the reference."),
    ("offsetTo", "int", "Behind the last line, counted from the reference."),
];
const FILE: &[Parameter] = &[
    ("previous", "bool", "The log of the container's run before this one."),
    ("timestamps", "bool", "Each line begins with its time."),
    ("follow", "bool", "Goes on with new lines until the caller hangs up."),
    ("tailLines", "int", "Begins so many lines before the end."),
    ("sinceSeconds", "int", "Begins so many seconds ago."),
    ("sinceTime", "time", "Begins at this time; not together with sinceSeconds."),
];
const FOLLOW: &[Parameter] = &[
    ("previous", "bool", "The log of the container's run before this one."),
    ("timestamps", "bool", "Each line comes with its time; true without it."),
    ("tailLines", "int", "Begins so many lines before the end."),
    ("sinceSeconds", "int", "Begins so many seconds ago."),
    ("sinceTime", "time", "Begins at this time; not together with sinceSeconds."),
    (
        "filter",
        "string",
        "A regular expression: lines without a match are left out. The first 2 KiB of a line are looked at, at most 10 groups.",
    ),
    ("from", "string", "The id of the last event that was read, as Last-Event-ID."),
    ("container", "string", "Of a workload: this container only."),
];
const SHELL: &[Parameter] =
    &[("shell", "string", "This program alone; else bash, sh, powershell and cmd are tried.")];
const EXEC: &[Parameter] = &[
    ("container", "string", "Which container; the only one without it."),
    ("command", "string", "The program, then each argument: as often as needed."),
    ("tty", "bool", "With a terminal."),
    ("stdin", "bool", "Takes input."),
];
const ATTACH: &[Parameter] = &[
    ("container", "string", "Which container; the only one without it."),
    ("tty", "bool", "With a terminal."),
    ("stdin", "bool", "Takes input."),
];

const UPGRADED: Answer = (101, "The same lines by WebSocket");
const TOO_MANY: Answer = (413, "The workload has more pods than are listed");

pub const STREAMS: &[Route] = &[
    get(
        "/api/v1/log/source/{namespace}/{name}/{kind}",
        "logSources",
        "The pods and containers of a workload",
    )
    .json("LogSources")
    .also(&[TOO_MANY]),
    get("/api/v1/log/{namespace}/{pod}", "podLog", "Lines of the log of a pod's first container")
        .query(WINDOW)
        .json("LogDetails"),
    get("/api/v1/log/{namespace}/{pod}/{container}", "containerLog", "Lines of a container's log")
        .query(WINDOW)
        .json("LogDetails"),
    get(
        "/api/v1/log/file/{namespace}/{pod}/{container}",
        "logFile",
        "A container's log as a file, or followed",
    )
    .query(FILE)
    .text("text/plain"),
    get(
        "/api/v1/log/{namespace}/{pod}/{container}/follow",
        "followLog",
        "New lines of a container's log, as event stream or WebSocket",
    )
    .query(FOLLOW)
    .text("text/event-stream")
    .also(&[UPGRADED, NO_UPGRADE]),
    get(
        "/api/v1/log/follow/{kind}/{namespace}/{name}",
        "followLogs",
        "New lines of all pods of a workload in the order of their times, as they come and go",
    )
    .query(FOLLOW)
    .text("text/event-stream")
    .also(&[UPGRADED, TOO_MANY, NO_UPGRADE]),
    get(
        "/api/v1/pod/{namespace}/{name}/shell/{container}",
        "openShell",
        "The id that binds a SockJS session to a shell of a container",
    )
    .query(SHELL)
    .json("TerminalResponse")
    .untagged(),
    get("/api/v1/pod/{namespace}/{name}/exec", "exec", "A process in a container, by WebSocket")
        .query(EXEC)
        .status(101)
        .also(&[NO_UPGRADE]),
    get(
        "/api/v1/pod/{namespace}/{name}/attach",
        "attach",
        "A container's own process, by WebSocket",
    )
    .query(ATTACH)
    .status(101)
    .also(&[NO_UPGRADE]),
    get(
        "/api/v1/pod/{namespace}/{name}/portforward/{port}",
        "forwardPort",
        "A connection to a port of a pod, by WebSocket",
    )
    .status(101)
    .also(&[NO_UPGRADE]),
];
