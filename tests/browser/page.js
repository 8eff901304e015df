// A small frontend: signs in, shows the pods of a namespace as they come and go, follows a log and
// types into a shell. It is what the browser tests drive, and an example of how each is done.
// It is NOT a dashboard: one namespace, one container, no styles.
"use strict";

/** Empty for who came by the gateway's link: then an HttpOnly cookie speaks for the person. */
let token = "";

const element = (id) => document.getElementById(id);

/** A call with the person's credentials. Addresses are relative to the page's base path. */
async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer;
}

const json = async (path, options) => (await call(path, options)).json();

// --- Signing in -------------------------------------------------------------------------------

async function signIn(secret) {
  const csrf = await json("api/v1/csrftoken/login");
  const headers = { "Content-Type": "application/json", "X-CSRF-TOKEN": csrf.token };
  const body = JSON.stringify({ token: secret });
  token = (await json("api/v1/login", { method: "POST", headers, body })).token;
}

async function welcome() {
  const me = await json("api/v1/me");
  element("who").textContent = me.name;
  element("sign-in").hidden = true;
  element("choose").hidden = false;
}

// --- Event streams ----------------------------------------------------------------------------

/**
 * Reads an event stream and comes again where it broke off: `on(name, data)` is told each event.
 * Browsers' own EventSource sends cookies but no Authorization, so with a token it is read by hand.
 * Returns what stops it.
 */
function events(path, names, on) {
  return token ? eventsByToken(path, on) : eventsByCookie(path, names, on);
}

function eventsByCookie(path, names, on) {
  const source = new EventSource(path);
  for (const name of names) {
    source.addEventListener(name, (event) => on(name, JSON.parse(event.data)));
  }
  return () => source.close();
}

function eventsByToken(path, on) {
  const stopping = new AbortController();
  const state = { last: "", retry: 1000 };
  const run = async () => {
    while (!stopping.signal.aborted) {
      const headers = { Accept: "text/event-stream" };
      if (state.last) headers["Last-Event-ID"] = state.last;
      try {
        const answer = await call(path, { headers, signal: stopping.signal });
        await readEvents(answer.body, state, on);
      } catch (error) {
        if (!stopping.signal.aborted) on("broken", { reason: String(error) });
      }
      await new Promise((resume) => setTimeout(resume, state.retry));
    }
  };
  run();
  return () => stopping.abort();
}

/** Until the stream's end; an event is lines up to an empty one, and a comment is none. */
async function readEvents(body, state, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let read = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    read += value;
    let end;
    while ((end = read.indexOf("\n\n")) >= 0) {
      const fields = fieldsOf(read.slice(0, end));
      read = read.slice(end + 2);
      if (fields.id) state.last = fields.id;
      if (fields.retry) state.retry = Number(fields.retry);
      if (fields.data) on(fields.event, JSON.parse(fields.data));
    }
  }
}

function fieldsOf(text) {
  const fields = {};
  for (const line of text.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name) fields[name] = value;
  }
  return fields;
}

// --- Live lists -------------------------------------------------------------------------------

const uid = (row) => row.objectMeta.uid;

/** Applies a `change` to the body that `whole` brought: rows by their uid, the rest as it comes. */
function apply(body, change) {
  for (const [name, value] of Object.entries(change)) {
    const rows = body[name];
    if (!Array.isArray(rows) || !Array.isArray(value?.set)) {
      body[name] = value;
      continue;
    }
    const known = new Map(rows.map((row) => [uid(row), row]));
    for (const gone of value.removed) known.delete(gone);
    for (const row of value.set) known.set(uid(row), row);
    body[name] = (value.order ?? [...known.keys()]).map((one) => known.get(one));
  }
}

/** Keeps the table of a namespace's pods up to date. */
function showPods(namespace) {
  const path = `api/v1/pod/${namespace}?itemsPerPage=50&page=1&sortBy=a,name`;
  let body;
  return events(path, ["whole", "change", "stale", "current", "end"], (name, data) => {
    element("list-state").textContent = data.reason ? `${name}: ${data.reason}` : "live";
    if (name === "whole") body = data;
    else if (name === "change") apply(body, data);
    else return;
    element("pods").replaceChildren(...body.pods.map((pod) => rowOf(namespace, pod)));
  });
}

function rowOf(namespace, pod) {
  const row = document.createElement("tr");
  row.dataset.name = pod.objectMeta.name;
  for (const text of [pod.objectMeta.name, pod.status]) row.insertCell().textContent = text;
  const actions = row.insertCell();
  for (const [label, act] of [["Log", showLog], ["Shell", openShell]]) {
    const button = document.createElement("button");
    button.textContent = label;
    button.onclick = () => act(namespace, pod.objectMeta.name);
    actions.append(button);
  }
  return row;
}

async function containerOf(namespace, pod) {
  return (await json(`api/v1/pod/${namespace}/${pod}/container`)).containers[0];
}

// --- Logs -------------------------------------------------------------------------------------

const print = (screen, text) => {
  screen.append(text);
  screen.scrollTop = screen.scrollHeight;
};

const printLines = (screen, lines) => {
  for (const line of lines) print(screen, `${line.content}\n`);
};

/** Follows a log twice: as event stream and by websocket. A frontend takes one of them. */
async function showLog(namespace, pod) {
  const container = await containerOf(namespace, pod);
  const path = `api/v1/log/${namespace}/${pod}/${container}/follow?tailLines=5`;
  events(path, ["lines", "missed", "end"], (name, data) => {
    if (name === "lines") printLines(element("log-events"), data);
    else element("log-state").textContent = `${name}: ${JSON.stringify(data)}`;
  });
  socketTo(path, "v1.logs.binnacle").onmessage = ({ data }) => {
    const told = JSON.parse(data);
    if (told.event === "lines") printLines(element("log-socket"), told.data);
    else element("log-state").textContent = `${told.event}: ${JSON.stringify(told.data)}`;
  };
}

/** Browsers let no script set a websocket's headers: the token goes among the protocols. */
function socketTo(path, protocol) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const bytes = String.fromCharCode(...new TextEncoder().encode(token));
  const encoded = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const credentials = token ? [`base64url.bearer.authorization.k8s.io.${encoded}`] : [];
  return new WebSocket(url, [protocol, ...credentials]);
}

// --- Shells -----------------------------------------------------------------------------------

/** What is typed goes to the last shell that was opened. */
let shell;

async function openShell(namespace, pod) {
  const container = await containerOf(namespace, pod);
  const { id } = await json(`api/v1/pod/${namespace}/${pod}/shell/${container}`);
  const wanted = element("transport").value;
  // The client's own patience with a transport is a fraction of a second.
  const options = { timeout: 20_000, ...(wanted && { transports: [wanted] }) };
  const socket = new SockJS(`api/sockjs?${id}`, null, options);
  const say = (message) => socket.send(JSON.stringify(message));
  socket.onopen = () => {
    say({ Op: "bind", SessionID: id });
    shell = {
      type: (text) => say({ Op: "stdin", Data: text, ...shell.size }),
      resize: () => {
        shell.size = sizeOf(element("screen"));
        element("size").textContent = `${shell.size.Rows} ${shell.size.Cols}`;
        say({ Op: "resize", ...shell.size });
      },
    };
    shell.resize();
    element("shell-state").textContent = `open over ${socket.transport}`;
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.Op === "stdout") print(element("screen"), withoutCodes(message.Data));
    else element("shell-state").textContent = `${message.Op}: ${message.Data}`;
  };
  socket.onclose = ({ code, reason }) => {
    element("shell-state").textContent = `closed: ${code} ${reason}`;
  };
}

/** Colours and cursors are a terminal emulator's to understand, such as xterm.js. */
const withoutCodes = (text) => text.replaceAll(/\x1b\[[?0-9;]*[a-zA-Z]/g, "");

/** Rows and columns of letters that have room. */
function sizeOf(screen) {
  const letter = document.createElement("span");
  letter.textContent = "x";
  screen.append(letter);
  const { width, height } = letter.getBoundingClientRect();
  letter.remove();
  const room = (length, part) => Math.max(1, Math.floor(length / part));
  return { Cols: room(screen.clientWidth, width), Rows: room(screen.clientHeight, height) };
}

/** UTF-16 units of one message: what is pasted may be longer than the gateway takes at once. */
const PIECE = 4096;

/** Cut between characters: half of one is none, and could not be encoded. */
function paste(text) {
  for (let from = 0, to; from < text.length; from = to) {
    to = Math.min(from + PIECE, text.length);
    if (to < text.length && /[\ud800-\udbff]/.test(text[to - 1])) to -= 1;
    shell.type(text.slice(from, to));
  }
}

// --- The page ---------------------------------------------------------------------------------

let stop = () => {};

element("sign-in").onsubmit = async (event) => {
  event.preventDefault();
  await signIn(element("token").value);
  await welcome();
};
element("by-link").onclick = welcome;
element("choose").onsubmit = (event) => {
  event.preventDefault();
  stop();
  stop = showPods(element("namespace").value);
};
element("type").onsubmit = (event) => {
  event.preventDefault();
  shell.type(`${element("line").value}\n`);
  element("line").value = "";
};
element("line").onpaste = (event) => {
  event.preventDefault();
  paste(event.clipboardData.getData("text"));
};
window.onresize = () => shell?.resize();
