// The page: what the daemon knows, kept fresh by its event stream.
import { frameLine } from "./format.js";
import { follow, get, keepToken, post, takeToken } from "./api.js";
import { makePlan } from "./map.js";
import { $, Curve, element, lastAsked, showAirtime, showAnswer, showLegend, showNode, showRoundNow, showRounds, showSummary } from "./panels.js";

const FRAMES_SHOWN = 16;
const FRAMES_ASKED = 200;
const STATE_MS = 3000;
const NODES_MS = 30_000;
const DRAW_MS = 1000;
const RATE_MS = 10_000;
const PLACES_MAX = 400;
const FRAME_KINDS = ["uplink", "downlink", "dropped"];
const NODE_KINDS = ["node_added", "node_removed", "joined"];

const nodes = new Map();
const names = new Map();
let plan;
let curve;
let chosen = null;
let clockUs = 0;
let changed = false;
let framesSeen = [];

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function draw() {
  const list = [...nodes.values()];
  const by = $("colour").value;
  plan.show(list, by, clockUs);
  showLegend(list, by, clockUs);
  if (chosen && nodes.has(chosen)) showNode(nodes.get(chosen), clockUs);
  changed = false;
}

function choose(devEui) {
  chosen = devEui;
  const node = nodes.get(devEui);
  showNode(node, clockUs);
  $("near").value = node.name;
}

async function loadNodes() {
  const list = (await get("/api/nodes")).nodes;
  nodes.clear();
  names.clear();
  for (const node of list) {
    nodes.set(node.dev_eui, node);
    names.set(node.dev_eui, node.name);
  }
  const places = [...new Set(list.map((node) => node.plot)), ...list.map((node) => node.name)].filter(Boolean);
  $("places").replaceChildren(...places.slice(0, PLACES_MAX).map((place) => Object.assign(element("option"), { value: place })));
  draw();
}

async function loadState() {
  const state = await get("/api/state");
  clockUs = state.now_us;
  showSummary(state);
  showAirtime(state.gateways);
  showRoundNow(state);
}

async function loadRounds() {
  const { rounds } = await get("/api/rounds");
  showRounds(rounds);
  curve?.show(rounds);
}

async function loadPast() {
  const { events } = await get(`/api/events/past?limit=${FRAMES_ASKED}`);
  for (const event of events.filter(({ kind }) => FRAME_KINDS.includes(kind)).slice(-FRAMES_SHOWN)) addFrame(event.kind, event, false);
  const { query } = await get("/api/queries/last");
  if (query && !$("answer").childElementCount) showAnswer(query, names, lastAsked(query, clockUs));
}

function addFrame(kind, event, isNew) {
  const line = frameLine(kind, event.data, names);
  const row = element("tr", undefined, isNew ? "new" : "");
  const direction = { "↑": "up", "↓": "down", "×": "refused" }[line.way];
  const way = element("td");
  way.append(Object.assign(element("span", line.way, `way ${direction}`), { title: direction }));
  row.append(
    element("td", new Date(event.at_us / 1000).toLocaleTimeString([], { hour12: false })),
    way,
    element("td", line.node),
    element("td", line.what),
    element("td", line.rate === "" ? "" : `DR${line.rate}`, "wide"),
    element("td", line.signal, "number"),
    element("td", String(line.size), "number wide"),
  );
  const body = $("frames").tBodies[0];
  body.querySelector(".empty")?.remove();
  body.prepend(row);
  while (body.rows.length > FRAMES_SHOWN) body.lastElementChild.remove();
}

function onEvent(kind, event) {
  const { data } = event;
  if (kind === "uplink") clockUs = Math.max(clockUs, event.at_us);
  if (FRAME_KINDS.includes(kind)) {
    framesSeen.push(Date.now());
    addFrame(kind, event, true);
  }
  const node = nodes.get(data.dev_eui);
  if (kind === "uplink" && node) {
    const { rssi_dbm, snr_db, data_rate } = data;
    Object.assign(node, { rssi_dbm, snr_db, data_rate, last_seen_us: event.at_us, uplinks: node.uplinks + 1 });
    plan.pulse(data.dev_eui);
    changed = true;
  } else if (kind === "status" && node) {
    const { serves, ...heard } = data; // a byte here; its words come with the list of nodes
    Object.assign(node, heard);
    changed = true;
  } else if (NODE_KINDS.includes(kind)) {
    soon(loadNodes);
  } else if (kind.startsWith("round")) {
    soon(loadRounds);
  }
}

const waiting = new Set();

/** Many events of one kind (an import) make one request. */
function soon(load) {
  if (waiting.has(load)) return;
  waiting.add(load);
  setTimeout(() => {
    waiting.delete(load);
    attempt(load);
  }, DRAW_MS);
}

async function attempt(load) {
  try {
    await load();
    return true;
  } catch (error) {
    if (error.status === 401) openDoor("This token is not the daemon's.");
    else notice(`No word from the daemon: ${error.message}`);
    return false;
  }
}

async function ask(event) {
  event.preventDefault();
  const button = $("ask").querySelector("button");
  const started = Date.now();
  const wait_s = Number($("wait").value);
  const ticking = setInterval(tell, DRAW_MS);
  function tell() {
    const seconds = Math.round((Date.now() - started) / 1000);
    $("answer").replaceChildren(element("p", `Asked ${seconds} s ago; nodes hear it when they next send.`, "quiet"));
  }
  tell();
  button.disabled = true;
  try {
    showAnswer(await post("/api/ask", { near: $("near").value.trim(), deadline_s: wait_s }), names);
  } catch (error) {
    $("answer").replaceChildren(element("p", error.message));
  } finally {
    clearInterval(ticking);
    button.disabled = false;
  }
}

function openDoor(words) {
  notice(words);
  keepToken(null);
  $("door").hidden = false;
  document.querySelector("main").hidden = true;
  $("connection").dataset.state = "lost";
  $("connection").textContent = "closed";
}

/** Charts and map are fetched at set-up; the page works without them and says so. */
async function libraries() {
  const { files } = await fetch("/vendor").then((response) => response.json());
  for (const name of files.filter((file) => file.endsWith(".css"))) {
    document.head.prepend(Object.assign(element("link"), { rel: "stylesheet", href: `vendor/${name}` }));
  }
  const [hasMap, hasCharts] = ["leaflet.js", "uplot.js"].map((file) => files.includes(file));
  if (!hasMap || !hasCharts) notice("The zoomable map and the charts are not installed: run `make web` (it needs npm), then reload.");
  if (hasCharts) curve = new Curve((await import("./vendor/uplot.js")).default);
  plan = await makePlan($("map"), hasMap, choose);
}

async function start() {
  document.querySelector("main").hidden = false;
  await libraries();
  $("ask").addEventListener("submit", ask);
  $("colour").addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  if (!(await attempt(loadState)) || !(await attempt(loadNodes))) return;
  await attempt(loadRounds);
  await attempt(loadPast);
  setInterval(() => attempt(loadState), STATE_MS);
  setInterval(() => attempt(loadNodes), NODES_MS);
  setInterval(() => {
    framesSeen = framesSeen.filter((at) => at > Date.now() - RATE_MS);
    $("rate").textContent = `${((1000 * framesSeen.length) / RATE_MS).toFixed(1)} a second`;
    if (changed) draw();
  }, DRAW_MS);
  follow(onEvent, (state) => {
    $("connection").dataset.state = state;
    $("connection").textContent = state === "live" ? "live" : "no connection";
    if (state === "live") attempt(loadNodes);
  });
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken($("token").value.trim());
  location.reload();
});
if (takeToken()) start();
else openDoor("Open the address that `swarm gateway run` printed, or give the token here.");
