// What the page shows beside the map: each function fills one panel from the API's objects.
import { ago, airtime, duration, KEYS, keyOf, nodeFacts, percent, PURPOSES, RISKS, whyNot } from "./format.js";

const ROUNDS_SHOWN = 6;
const MHZ = 1e6;
/** Counters of the radio's side that count no refused uplink. */
const NO_REFUSALS = ["datagrams", "packets", "pull_resp", "counter_unknown", "tx_ack_timeout", "tx_ack_unknown", "downlink_refused", "gateway_evicted", "events_lost"];

export const $ = (id) => document.getElementById(id);

export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function dot(name) {
  const made = element("span", undefined, "dot");
  made.style.background = `var(--${name})`;
  return made;
}

function item(name, ...texts) {
  const made = element("li");
  made.append(dot(name), ...texts);
  return made;
}

/** The tiles: [name, number, small words behind it]. */
export function showSummary(state) {
  const atTheRadio = Object.entries(state.radio).filter(([name]) => !NO_REFUSALS.includes(name));
  const refused = atTheRadio.reduce((sum, [, count]) => sum + count, state.counters.dropped ?? 0);
  const open = state.open_round;
  const tiles = [
    ["nodes heard", state.nodes_heard, `of ${state.nodes}`],
    ["gateways", state.gateways.length, ""],
    ["model version", state.model_version, state.model_digest.slice(0, 6)],
    ["round", state.round ?? "–", open ? "open" : ""],
    ["uplinks", state.counters.uplink ?? 0, ""],
    ["refused", refused, ""],
  ];
  $("summary").replaceChildren(
    ...tiles.map(([name, value, small]) => {
      const tile = element("div");
      const number = element("dd", `${value} `);
      number.append(element("small", small));
      tile.append(element("dt", name), number);
      return tile;
    }),
  );
  $("region").textContent = state.region.toUpperCase();
  $("region").hidden = false;
}

export function showLegend(nodes, by, nowUs) {
  const counts = new Map();
  for (const node of nodes) {
    const key = keyOf(node, by, nowUs);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  $("legend").replaceChildren(
    ...KEYS[by].map(([key, words]) => item(key, `${words} `, element("b", String(counts.get(key) ?? 0)))),
  );
}

export function showNode(node, nowUs) {
  const list = element("dl");
  for (const [name, words] of nodeFacts(node, nowUs)) {
    const fact = element("div");
    fact.append(element("dt", name), element("dd", words));
    list.append(fact);
  }
  $("node-detail").replaceChildren(element("h3", node.name), list);
}

/** Per gateway one bar for each sub-band that was used; the others are named in one line. */
export function showAirtime(gateways) {
  if (!gateways.length) {
    $("airtime").replaceChildren(element("p", "No gateway was heard yet.", "quiet"));
    return;
  }
  const parts = [];
  const present = new Set();
  for (const gateway of gateways) {
    const used = gateway.sub_bands.filter((band) => band.spent_us > 0);
    const head = element("p", "gateway ", "gateway");
    head.append(element("b", gateway.gateway_id));
    parts.push(head, ...used.map((band) => bandBar(band, present)));
    const idle = gateway.sub_bands.filter((band) => band.spent_us === 0).map((band) => band.name);
    if (idle.length) parts.push(element("p", `Nothing sent in ${used.length ? "" : "any sub-band: "}${idle.join(", ")}.`, "quiet gateway"));
  }
  const key = element("ul", undefined, "key");
  key.append(...PURPOSES.filter((name) => present.has(name)).map((name) => item(name, name)));
  $("airtime").replaceChildren(...parts, key);
}

function bandBar(band, present) {
  const made = element("div", undefined, "band");
  const line = element("p");
  const range = `${band.name}: ${(band.min_hz / MHZ).toFixed(2)} to ${(band.max_hz / MHZ).toFixed(2)} MHz`;
  const share = band.limit_us ? band.spent_us / band.limit_us : 0;
  const spent = `${airtime(band.spent_us)} of ${airtime(band.limit_us)}`;
  line.append(element("span", range), element("span", `${spent}, ${percent(share)}`, "quiet"));
  const bar = element("span", undefined, "bar");
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `${range}: ${spent}`);
  for (const purpose of PURPOSES.filter((name) => band.by_purpose[name])) {
    present.add(purpose);
    const part = element("i");
    part.style.width = `${(100 * band.by_purpose[purpose]) / band.limit_us}%`;
    part.style.background = `var(--${purpose})`;
    part.title = `${purpose}: ${airtime(band.by_purpose[purpose])}`;
    bar.append(part);
  }
  made.append(line, bar);
  return made;
}

export function showRoundNow(state) {
  const open = state.open_round;
  $("progress").hidden = !open;
  if (open) {
    const share = open.expected ? Math.min(1, open.updates / open.expected) : 0;
    $("progress").firstElementChild.style.width = `${100 * share}%`;
    const left = duration(open.close_us - state.now_us);
    $("round-now").textContent = `round ${open.round}: ${open.updates} of ${open.expected} updates, closes within ${left}`;
  } else if (state.mode === "none") {
    $("round-now").textContent = "switched off";
  } else if (state.next_round_us !== null) {
    $("round-now").textContent = `next round in ${duration(state.next_round_us - state.now_us)}`;
  }
}

export function showRounds(rounds) {
  const body = $("rounds").tBodies[0];
  $("rounds").hidden = !rounds.length;
  body.replaceChildren(
    ...rounds.slice(-ROUNDS_SHOWN).reverse().map((round) => {
      const row = element("tr");
      row.append(
        element("td", String(round.round)),
        element("td", round.mode.replaceAll("_", " "), "wide"),
        element("td", String(round.updates), "number"),
        element("td", String(round.model_version), "number"),
        element("td", round.score === null ? "–" : percent(round.score), "number"),
        element("td", round.state),
      );
      return row;
    }),
  );
}

/** Agreement and updates over the rounds; a chart made anew when the colours change. */
export class Curve {
  constructor(uPlot) {
    this.uPlot = uPlot;
    this.box = $("curve");
    this.chart = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.clear());
    new ResizeObserver(() => this.chart?.setSize({ width: this.box.clientWidth, height: 160 })).observe(this.box);
  }

  clear() {
    this.chart?.destroy();
    this.chart = null;
    if (this.rounds) this.show(this.rounds);
  }

  show(rounds) {
    this.rounds = rounds;
    const scored = rounds.filter((round) => round.score !== null);
    if (scored.length < 2) return;
    const data = [scored.map((r) => r.round), scored.map((r) => 100 * r.score), scored.map((r) => r.updates)];
    if (this.chart) this.chart.setData(data);
    else this.chart = new this.uPlot(this.options(), data, this.box);
  }

  options() {
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: colour("--quiet"), font, labelFont: font, labelSize: 16, ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 } };
    const whole = (_, splits) => splits.map((value) => (Number.isInteger(value) ? value : ""));
    return {
      width: this.box.clientWidth,
      height: 160,
      cursor: { y: false },
      scales: { x: { time: false }, "%": { range: (_, low, high) => [Math.max(0, Math.floor(low - 5)), Math.min(100, Math.ceil(high + 5))] }, n: { range: (_, low, high) => [0, high * 1.15 || 1] } },
      axes: [
        { ...axis, grid: { show: false }, values: whole, size: 28 },
        { ...axis, scale: "%", label: "agreement, %", size: 38 },
        { ...axis, scale: "n", side: 1, label: "updates", size: 38, grid: { show: false }, values: whole },
      ],
      series: [
        {},
        { scale: "%", stroke: colour("--accent"), width: 2.5, points: { size: 5 } },
        { scale: "n", stroke: colour("--model"), width: 1.5, dash: [5, 4], points: { show: false } },
      ],
    };
  }
}

/** An answer of POST /api/ask; `when` (us) tells how old it is, undefined for one just given. */
export function showAnswer(answer, names, asked) {
  const box = $("answer");
  const heading = asked ? [element("p", asked, "quiet")] : [];
  if (answer.value === null) {
    box.replaceChildren(...heading, element("p", `No answer: ${whyNot(answer)}.`));
    return;
  }
  const isRisk = answer.probabilities.length === RISKS.length;
  const classes = isRisk ? RISKS : answer.probabilities.map((_, index) => `class ${index}`);
  const verdict = element("p");
  const value = classes[answer.value];
  verdict.append(element("strong", value, isRisk ? value : ""), `${isRisk ? " risk" : ""}, confidence ${percent(answer.confidence)}`);
  const shares = element("div", undefined, "shares");
  answer.probabilities.forEach((share, index) => {
    const bar = element("span", undefined, "bar");
    const part = element("i");
    part.style.width = `${100 * share}%`;
    if (isRisk) part.style.background = `var(--${RISKS[index]})`;
    bar.append(part);
    shares.append(element("span", classes[index]), bar, element("span", percent(share)));
  });
  const who = answer.nodes.map((node) => names.get(node) ?? node).join(", ");
  const cost = `${duration(answer.latency_s * 1e6)}, ${airtime(answer.airtime_us)} of airtime`;
  const how = answer.asked
    ? `${answer.nodes.length} of ${answer.asked} nodes answered: ${who} (${cost}).`
    : "The gateway's own model judged it; nothing went over the air.";
  box.replaceChildren(...heading, verdict, shares, element("p", how, "quiet"));
}

export function lastAsked(query, nowUs) {
  return `Last question, ${ago(nowUs, query.at_us)}:`;
}
