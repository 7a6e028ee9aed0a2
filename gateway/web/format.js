// Pure functions from the API's numbers to what a person reads; tested with `node --test`.

export const RISKS = ["low", "medium", "high"];
export const CROPS = ["apple", "tomato", "potato", "grape"];
export const PURPOSES = ["join", "ack", "query", "round", "model", "telemetry", "repair"];

const HOUR_US = 3_600_000_000;
const NO_ANSWER = {
  no_node: "no node there can be asked",
  no_fresh_node: "no node there was heard in the past two days",
};

/** Seconds of airtime as "1.2 s", small ones as "46 ms". */
export function airtime(us) {
  if (us >= 1e7) return `${Math.round(us / 1e6)} s`;
  if (us >= 1e6) return `${(us / 1e6).toFixed(1)} s`;
  return `${Math.round(us / 1e3)} ms`;
}

/** A share as per cent: small ones keep a digit, so that something never reads as nothing. */
export function percent(share) {
  const value = 100 * share;
  if (value === 0) return "0 %";
  return value < 10 ? `${Math.max(0.1, value).toFixed(1)} %` : `${Math.round(value)} %`;
}

/** How long ago, from two times in microseconds. */
export function ago(nowUs, thenUs) {
  if (thenUs === null || thenUs === undefined) return "never";
  return `${duration(nowUs - thenUs)} ago`;
}

/** A length of time in the unit that fits. */
export function duration(us) {
  const seconds = Math.max(0, Math.round(us / 1e6));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** The risk byte of a STATUS frame: class in the two high bits; null when nothing was heard. */
export function riskOf(node) {
  if (node.risk === null || node.risk === undefined) return null;
  const index = node.risk >> 6;
  return index < RISKS.length ? index : null;
}

/** LoRaWAN battery byte: 0 external power, 1..254 of full, 255 unknown. */
export function battery(value) {
  if (value === null || value === undefined || value === 255) return "unknown";
  if (value === 0) return "mains";
  return `${Math.round((value - 1) / 2.53)} %`;
}

/** What a colour on the map stands for: [name of the colour, words]; the name is a CSS variable. */
export const KEYS = {
  risk: [...RISKS.map((name) => [name, name]), ["unknown", "not heard yet"]],
  crop: CROPS.map((name) => [name, name]),
  heard: [["fresh", "past hour"], ["day", "past day"], ["stale", "longer ago"], ["unknown", "never"]],
};

/** The colour's name for a node. */
export function keyOf(node, by, nowUs) {
  if (by === "crop") return CROPS.includes(node.crop) ? node.crop : "unknown";
  if (by === "heard") {
    if (node.last_seen_us === null || node.last_seen_us === undefined) return "unknown";
    const age = nowUs - node.last_seen_us;
    return age < HOUR_US ? "fresh" : age < 24 * HOUR_US ? "day" : "stale";
  }
  const risk = riskOf(node);
  return risk === null ? "unknown" : RISKS[risk];
}

/** Facts of a node as [name, words]; what was never heard is left out. */
export function nodeFacts(node, nowUs) {
  const known = (value) => value !== null && value !== undefined;
  const risk = riskOf(node);
  return [
    ["crop", node.crop],
    ["plot", node.plot || null],
    ["last heard", ago(nowUs, node.last_seen_us)],
    ["its own estimate", risk === null ? null : `${RISKS[risk]} risk`],
    ["temperature", known(node.temperature_centi) ? `${(node.temperature_centi / 100).toFixed(1)} °C` : null],
    ["humidity", known(node.humidity_half) && node.humidity_half !== 255 ? `${node.humidity_half / 2} %` : null],
    ["answers by", known(node.serves) ? `${node.serves}${node.no_gain ? ", no gain" : ""}` : null],
    ["was right", known(node.right) ? `${percent(node.right)} of its answers` : null],
    ["battery", known(node.battery) ? battery(node.battery) : null],
    ["model", known(node.model_version) ? `version ${node.model_version}` : null],
    ["signal", known(node.rssi_dbm) ? `${Math.round(node.rssi_dbm)} dBm, SNR ${node.snr_db} dB` : null],
    ["data rate", known(node.data_rate) ? `DR${node.data_rate}` : null],
    ["uplinks", known(node.last_seen_us) ? `${node.uplinks}, ${node.lost} lost` : null],
    ["session", node.joined === false ? "not joined" : (node.dev_addr ?? "behind a network server")],
  ].filter(([, words]) => words !== null);
}

/** One line for the live table from an event of the stream; null for events that are no frames. */
export function frameLine(kind, data, names) {
  const node = data.node ?? names.get(data.dev_eui) ?? data.dev_eui ?? "all nodes";
  if (kind === "uplink") {
    const what = { 10: "update", 11: "answer", 12: "status" }[data.f_port] ?? "frame";
    return { way: "↑", node, what, rate: data.data_rate ?? "", signal: `${Math.round(data.rssi_dbm)} dBm`, size: data.size };
  }
  if (kind === "downlink") {
    return { way: "↓", node, what: data.purpose, rate: data.data_rate ?? "", signal: airtime(data.airtime_us), size: data.size };
  }
  if (kind === "dropped") {
    const words = data.reason.replaceAll("_", " ");
    return { way: "×", node: data.detail || "unknown", what: words, rate: "", signal: "", size: "" };
  }
  return null;
}

/** Why there is no answer, in words. */
export function whyNot(answer) {
  if (answer.reason) return NO_ANSWER[answer.reason] ?? answer.reason;
  return `none of the ${answer.asked} asked nodes answered in time; nodes hear a question when they next send`;
}

/** The smallest of 1, 2, 5 x 10^n metres that is at least a quarter of `metres`. */
export function scaleLength(metres) {
  const power = 10 ** Math.floor(Math.log10(metres / 4));
  return [1, 2, 5, 10].map((step) => step * power).find((length) => length >= metres / 4 - 1e-9);
}

/** Metres as "200 m" or "1.5 km". */
export function distance(metres) {
  return metres < 1000 ? `${Math.round(metres)} m` : `${metres / 1000} km`;
}

/** Splits a server-sent-events text into [{event, data}], and the rest that is not complete yet. */
export function parseEvents(text) {
  const parts = text.split(/\r?\n\r?\n/);
  const rest = parts.pop();
  const events = [];
  for (const part of parts) {
    let event = "message";
    const data = [];
    for (const line of part.split(/\r?\n/)) {
      if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).trim());
    }
    if (data.length) events.push({ event, data: JSON.parse(data.join("\n")) });
  }
  return { events, rest };
}
