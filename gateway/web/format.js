// Pure functions from the API's numbers to what a person reads; tested with `node --test`.

export const RISKS = ["low", "medium", "high"];
export const CROPS = ["apple", "tomato", "potato", "grape"];

/** Seconds of airtime as "1.2 s", small ones as "46 ms". */
export function airtime(us) {
  if (us >= 1e6) return `${(us / 1e6).toFixed(1)} s`;
  return `${Math.round(us / 1e3)} ms`;
}

/** How long ago, from two times in microseconds. */
export function ago(nowUs, thenUs) {
  if (thenUs === null || thenUs === undefined) return "never";
  const seconds = Math.max(0, Math.round((nowUs - thenUs) / 1e6));
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
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

/** One line for the live table from an event of the stream; null for events that are no frames. */
export function frameLine(kind, data, names) {
  const node = data.node ?? names.get(data.dev_eui) ?? data.dev_eui ?? "all nodes";
  if (kind === "uplink") {
    const what = { 10: "update", 11: "answer", 12: "status" }[data.f_port] ?? "frame";
    return { way: "↑", node, what, rate: data.data_rate, signal: `${Math.round(data.rssi_dbm)} dBm`, size: data.size };
  }
  if (kind === "downlink") {
    return { way: "↓", node, what: data.purpose, rate: data.data_rate, signal: airtime(data.airtime_us), size: data.size };
  }
  if (kind === "dropped") {
    return { way: "×", node: data.detail || "unknown", what: data.reason, rate: "", signal: "", size: "" };
  }
  return null;
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
