// The page's pure functions: run with `node --test tests/web`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, airtime, battery, frameLine, parseEvents, riskOf } from "../../gateway/web/format.js";

test("airtime is read in the unit that fits", () => {
  assert.equal(airtime(46_336), "46 ms");
  assert.equal(airtime(2_793_472), "2.8 s");
});

test("a node that was never heard says so", () => {
  assert.equal(ago(5_000_000, null), "never");
  assert.equal(ago(65_000_000, 5_000_000), "60 s ago");
  assert.equal(ago(7_200_000_000, 0), "2 h ago");
});

test("the risk byte holds the class in its two high bits, and class 3 is none", () => {
  assert.equal(riskOf({ risk: (2 << 6) | 40 }), 2);
  assert.equal(riskOf({ risk: 3 << 6 }), null);
  assert.equal(riskOf({ risk: null }), null);
});

test("battery follows LoRaWAN's DevStatusAns: 0 mains, 1..254, 255 unknown", () => {
  assert.equal(battery(0), "mains");
  assert.equal(battery(1), "0 %");
  assert.equal(battery(254), "100 %");
  assert.equal(battery(255), "unknown");
});

test("frames become lines, other events do not", () => {
  const names = new Map([["aa", "plot-7"]]);
  const up = frameLine("uplink", { dev_eui: "aa", f_port: 10, data_rate: 5, rssi_dbm: -101.4, size: 58 }, names);
  assert.deepEqual(up, { way: "↑", node: "plot-7", what: "update", rate: 5, signal: "-101 dBm", size: 58 });
  const down = frameLine("downlink", { dev_eui: null, purpose: "model", data_rate: 0, airtime_us: 2e6, size: 64 }, names);
  assert.equal(down.node, "all nodes");
  assert.equal(frameLine("dropped", { reason: "mic", detail: "" }, names).what, "mic");
  assert.equal(frameLine("status", {}, names), null);
});

test("the stream is cut at blank lines only, and keeps what is incomplete", () => {
  const { events, rest } = parseEvents('event: uplink\ndata: {"a":1}\n\n: ping\n\ndata: {"b":2}\r\n\r\nevent: dro');
  assert.deepEqual(events, [
    { event: "uplink", data: { a: 1 } },
    { event: "message", data: { b: 2 } },
  ]);
  assert.equal(rest, "event: dro");
});
