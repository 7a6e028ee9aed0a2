// The page's pure functions: run with `node --test tests/web`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, airtime, battery, distance, duration, frameLine, keyOf, KEYS, nodeFacts, parseEvents, percent, riskOf, scaleLength, whyNot } from "../../gateway/web/format.js";

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

test("what a node's dot means: its risk, its crop, or how long it was not heard", () => {
  const hour = 3_600_000_000;
  const node = { risk: 1 << 6, crop: "grape", last_seen_us: 10 * hour };
  assert.equal(keyOf(node, "risk", 0), "medium");
  assert.equal(keyOf({ risk: null }, "risk", 0), "unknown");
  assert.equal(keyOf(node, "crop", 0), "grape");
  assert.equal(keyOf({ crop: "context 6" }, "crop", 0), "unknown");
  assert.deepEqual([10.5, 12, 40].map((at) => keyOf(node, "heard", at * hour)), ["fresh", "day", "stale"]);
  assert.equal(keyOf({ last_seen_us: null }, "heard", hour), "unknown");
  for (const [by, keys] of Object.entries(KEYS)) assert.ok(keys.every(([key, words]) => key && words), by);
});

test("facts that were never heard are left out", () => {
  const silent = { crop: "apple", plot: "", last_seen_us: null, risk: null, temperature_centi: null, humidity_half: null, battery: null, model_version: null, rssi_dbm: null, data_rate: null, joined: false, uplinks: 0, lost: 0 };
  assert.deepEqual(nodeFacts(silent, 0), [["crop", "apple"], ["last heard", "never"], ["session", "not joined"]]);
  assert.deepEqual(nodeFacts({ ...silent, joined: null }, 0).at(-1), ["session", "behind a network server"]);
  const heard = Object.fromEntries(nodeFacts({ ...silent, last_seen_us: 0, temperature_centi: -250, humidity_half: 255, battery: 254, uplinks: 3, lost: 1 }, 60e6));
  assert.equal(heard.temperature, "-2.5 °C");
  assert.equal(heard.humidity, undefined);
  assert.equal(heard.battery, "100 %");
  assert.equal(heard.uplinks, "3, 1 lost");
  const serving = (serves, no_gain) => Object.fromEntries(nodeFacts({ ...silent, serves, no_gain }, 0))["answers by"];
  assert.equal(serving("shipped head", true), "shipped head, no gain");
  assert.equal(serving("fleet's head", false), "fleet's head");
  assert.equal(serving(null, null), undefined);
  assert.deepEqual(nodeFacts({ ...silent, right: 0.5 }, 0)[2], ["was right", "50 % of its answers"]);
});

test("a missing answer has its reason in words", () => {
  assert.match(whyNot({ reason: "no_fresh_node", asked: 0 }), /two days/);
  assert.match(whyNot({ asked: 5 }), /none of the 5/);
  assert.equal(whyNot({ reason: "something new" }), "something new");
});

test("shares keep their first digit, and something never reads as nothing", () => {
  assert.deepEqual([0, 0.0001, 0.071, 0.5, 1].map(percent), ["0 %", "0.1 %", "7.1 %", "50 %", "100 %"]);
});

test("the scale of the map is a round length of a quarter to half of it", () => {
  for (const metres of [3, 40, 500, 777, 12_000]) {
    const length = scaleLength(metres);
    assert.ok(length >= metres / 4 && length <= metres / 1.6, `${length} of ${metres}`);
    assert.match(String(length), /^[125]0*$|^0\.[125]$/);
  }
  assert.deepEqual([50, 2000].map(distance), ["50 m", "2 km"]);
  assert.equal(duration(7_200e6), "2 h");
});
