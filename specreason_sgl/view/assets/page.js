"use strict";

const $ = (id) => document.getElementById(id);
let running = null;

function say(words) {
  $("said").textContent = words;
}

function askKey(words) {
  sessionStorage.removeItem("key");
  $("ask").hidden = true;
  $("ask-key").hidden = false;
  $("key").focus();
  say(words);
}

/* An answer of the server, or an error in its own words. */
async function fetched(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem("key")}`, "Content-Type": "application/json" };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const words = [said.message ?? `The server says ${response.status}.`, said.hint].filter(Boolean).join(" – ");
  if (response.status === 401) askKey(words);
  throw new Error(words);
}

async function open() {
  try {
    const { data } = await (await fetched("v1/models")).json();
    $("program").replaceChildren(...data.map(({ id }) => new Option(id, id)));
    $("ask-key").hidden = true;
    $("ask").hidden = false;
    say("");
    $("question").focus();
  } catch (error) {
    say(error.message);
    if ($("ask").hidden) $("ask-key").hidden = false;
  }
}

/* The messages of a stream of server-sent events. */
async function* messages(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const blocks = (rest + read.value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const message = { event: "", data: "" };
      for (const line of block.split(/\r?\n/)) {
        const colon = line.indexOf(":");
        if (colon > 0) message[line.slice(0, colon)] += line.slice(colon + 1).replace(/^ /, "");
      }
      if (message.data) yield { kind: message.event, data: JSON.parse(message.data) };
    }
  }
}

/* Put a part in its place; what the reader has folded or unfolded stays so. */
function put({ id, html }) {
  const template = document.createElement("template");
  template.innerHTML = html;
  for (const fold of template.content.querySelectorAll("details[id]")) {
    const before = $(fold.id);
    if (before) fold.open = before.open;
  }
  const place = $(id);
  if (place) place.replaceWith(template.content);
  else $("trace").append(template.content);
}

async function solve() {
  const threshold = $("threshold").value;
  const order = {
    question: $("question").value,
    program: $("program").value,
    parameters: threshold === "" ? {} : { threshold: Number(threshold) },
    stream: true,
  };
  running = new AbortController();
  $("trace").replaceChildren();
  $("solve-it").disabled = !($("stop").disabled = false);
  say("Waiting for the server …");
  let closed = false;
  try {
    const path = "v1/solves?render=html";
    const response = await fetched(path, { method: "POST", body: JSON.stringify(order), signal: running.signal });
    for await (const { kind, data } of messages(response.body)) {
      say("");
      if (kind === "part") put(data);
      else if (kind === "closed") closed = true;
      else if (data.message) throw new Error([data.message, data.hint].filter(Boolean).join(" – "));
    }
    if (!closed) say("The server has ended the solve before it was over.");
  } catch (error) {
    say(error.name === "AbortError" ? "Stopped." : error.message);
  }
  $("solve-it").disabled = !($("stop").disabled = true);
}

$("ask-key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value);
  $("key").value = "";
  open();
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  solve();
});
$("stop").addEventListener("click", () => running.abort());
addEventListener("pagehide", () => running?.abort());
if (sessionStorage.getItem("key") === null) askKey("");
else open();
