// The page: what the daemon knows, kept fresh by its event stream.
import { ago, airtime, battery, frameLine, RISKS } from "./format.js";
import { follow, get, post, takeToken } from "./api.js";
import { makePlan } from "./map.js";

const FRAMES_SHOWN = 14;
const REFRESH_MS = 3000;
const PURPOSES = ["join", "ack", "query", "round", "model", "telemetry", "repair"];
const HUES = { join: 280, ack: 200, query: 35, round: 160, model: 215, telemetry: 110, repair: 0 };

const $ = (id) => document.getElementById(id);
const names = new Map();
const nodes = new Map();
let plan;
let chart;
let uPlot;
let framesSeen = [];

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function showSummary(state) {
  const facts = {
    nodes: `${state.nodes_heard} of ${state.nodes} heard`,
    gateways: state.gateways.length,
    model: `version ${state.model_version}`,
    round: state.round === null ? "none yet" : state.round,
    uplinks: state.counters.uplink ?? 0,
    refused: state.counters.dropped ?? 0,
  };
  $("summary").replaceChildren(
    ...Object.entries(facts).map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", String(value)));
      return pair;
    }),
  );
}

function showAirtime(gateways) {
  const rows = [];
  for (const gateway of gateways) {
    for (const band of gateway.sub_bands) {
      const row = element("div", undefined, "band");
      const bar = element("span", undefined, "bar");
      bar.setAttribute("role", "img");
      bar.setAttribute("aria-label", `${airtime(band.spent_us)} of ${airtime(band.limit_us)}`);
      for (const purpose of PURPOSES.filter((name) => band.by_purpose[name])) {
        const part = element("i");
        part.style.width = `${(100 * band.by_purpose[purpose]) / band.limit_us}%`;
        part.style.background = `hsl(${HUES[purpose]} 60% 50%)`;
        part.title = `${purpose}: ${airtime(band.by_purpose[purpose])}`;
        bar.append(part);
      }
      const share = ((100 * band.spent_us) / band.limit_us).toFixed(1);
      row.append(element("span", `${band.name} (${(100 * band.duty_cycle).toFixed(1)} %)`), bar);
      row.append(element("span", `${airtime(band.spent_us)} = ${share} %`));
      rows.push(row);
    }
  }
  const key = element("p", undefined, "quiet");
  for (const purpose of PURPOSES) {
    const dot = element("span", ` ● ${purpose}`);
    dot.style.color = `hsl(${HUES[purpose]} 60% 50%)`;
    key.append(dot);
  }
  $("airtime").replaceChildren(...rows, key);
}

function showRounds(rounds) {
  const body = $("rounds").tBodies[0];
  body.replaceChildren(
    ...rounds.slice(-6).reverse().map((round) => {
      const row = element("tr");
      const agreement = round.score === null ? "" : `${(100 * round.score).toFixed(1)} %`;
      for (const cell of [round.round, round.mode, round.updates, round.model_version, agreement, round.state]) {
        row.append(element("td", String(cell)));
      }
      return row;
    }),
  );
  const scored = rounds.filter((round) => round.score !== null);
  if (!uPlot || scored.length < 2) return;
  const data = [scored.map((r) => r.round), scored.map((r) => 100 * r.score), scored.map((r) => r.updates)];
  if (chart) {
    chart.setData(data);
    return;
  }
  const ink = getComputedStyle(document.body).color;
  const axis = { stroke: ink, grid: { stroke: "#8883" } };
  chart = new uPlot(
    {
      width: $("curve").clientWidth,
      height: 150,
      scales: { x: { time: false }, "%": { auto: true }, n: { auto: true } },
      axes: [axis, { ...axis, scale: "%", label: "agreement, %" }, { ...axis, scale: "n", side: 1, label: "updates", grid: { show: false } }],
      series: [{}, { scale: "%", stroke: "#2f8f4e", width: 2 }, { scale: "n", stroke: "#1f6feb", dash: [4, 4] }],
    },
    data,
    $("curve"),
  );
}

function showNode(devEui, nowUs) {
  const node = nodes.get(devEui);
  if (!node) return;
  const facts = [
    `${node.name}: ${node.crop}, plot ${node.plot || "–"}`,
    `heard ${ago(nowUs, node.last_seen_us)}`,
    node.temperature_centi === null ? null : `${(node.temperature_centi / 100).toFixed(1)} °C`,
    node.humidity_half === null || node.humidity_half === 255 ? null : `${node.humidity_half / 2} % RH`,
    `model ${node.model_version ?? "–"}`,
    `battery ${battery(node.battery)}`,
    node.rssi_dbm === null ? null : `${Math.round(node.rssi_dbm)} dBm, SNR ${node.snr_db} dB`,
    `${node.uplinks} uplinks, ${node.lost} lost`,
  ];
  $("node-detail").textContent = facts.filter(Boolean).join(" · ");
  $("near").value = node.name;
}

function showFrame(kind, event) {
  framesSeen = framesSeen.filter((at) => at > Date.now() - 10_000);
  const line = frameLine(kind, event.data, names);
  if (!line) return;
  framesSeen.push(Date.now());
  $("rate").textContent = `${(framesSeen.length / 10).toFixed(1)} a second`;
  const row = element("tr");
  const time = new Date(event.at_us / 1000).toLocaleTimeString();
  const rate = line.rate === "" ? "" : `DR${line.rate}`;
  for (const cell of [time, line.way, line.node, line.what, rate, line.signal, line.size]) row.append(element("td", String(cell)));
  const body = $("frames").tBodies[0];
  body.prepend(row);
  while (body.rows.length > FRAMES_SHOWN) body.lastElementChild.remove();
}

async function refresh() {
  const state = await get("/api/state");
  showSummary(state);
  showAirtime(state.gateways);
  showRounds((await get("/api/rounds")).rounds);
  const open = state.open_round;
  $("round-now").textContent = open
    ? `Round ${open.round} is open: ${open.updates} of ${open.expected} updates.`
    : `Next round opens in ${Math.max(0, Math.round((state.next_round_us - state.now_us) / 1e6))} s.`;
  const list = (await get("/api/nodes")).nodes;
  for (const node of list) {
    nodes.set(node.dev_eui, node);
    names.set(node.dev_eui, node.name);
  }
  plan.show(list);
  if (!$("places").childElementCount) {
    const places = [...new Set(list.flatMap((node) => [node.plot, node.name]).filter(Boolean))].slice(0, 400);
    $("places").replaceChildren(...places.map((place) => Object.assign(document.createElement("option"), { value: place })));
  }
}

function showAnswer(answer) {
  const box = $("answer");
  if (answer.value === null) {
    box.replaceChildren(element("p", `No answer: ${answer.reason ?? "nobody answered in time"}.`));
    return;
  }
  const risk = RISKS[answer.value];
  const verdict = element("p");
  verdict.append(element("strong", risk, risk), ` risk, confidence ${Math.round(100 * answer.confidence)} %`);
  const who = answer.nodes.map((node) => names.get(node) ?? node).join(", ");
  const cost = `${answer.nodes.length} of ${answer.asked} nodes (${who}) in ${answer.latency_s.toFixed(1)} s, ${airtime(answer.airtime_us)} of airtime.`;
  box.replaceChildren(verdict, element("p", cost, "quiet"));
}

async function ask(event) {
  event.preventDefault();
  $("answer").replaceChildren(element("p", "Asking; nodes answer when they next wake.", "quiet"));
  try {
    showAnswer(await post("/api/ask", { near: $("near").value }));
  } catch (error) {
    $("answer").replaceChildren(element("p", error.message));
  }
}

async function start() {
  if (!takeToken()) {
    notice("This page needs the daemon's token: open the address that `swarm gateway run` printed, it ends in #token=…");
    return;
  }
  $("legend").replaceChildren(
    ...[...RISKS, "unknown"].flatMap((name) => {
      const dot = element("i");
      dot.style.background = `var(--${name})`;
      return [dot, name];
    }),
  );
  plan = await makePlan($("map"), (devEui) => showNode(devEui, Date.now() * 1000));
  uPlot = await import("./vendor/uplot.js").then((module) => module.default, () => null);
  if (plan.plain || !uPlot) notice("Charts and the zoomable map are not installed: run `make web` (it needs npm), then reload.");
  $("ask").addEventListener("submit", ask);
  const tick = () => refresh().catch((error) => notice(error.status === 401 ? "The token is wrong: open the address the daemon printed." : `No word from the daemon: ${error.message}`));
  await tick();
  setInterval(tick, REFRESH_MS);
  follow(showFrame, (state) => { $("connection").textContent = state; });
}

start();
