// The field plan: nodes where they stand, coloured by what was chosen.  No tiles, no internet.
import { distance, keyOf, scaleLength } from "./format.js";

const METRES_PER_DEGREE = 111_320;
const LABELS_MAX = 24;
const PULSES_MAX = 40;
const PULSE_MS = 1100;
const LABEL_PX = 4;
const MARGIN = 30;

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Draws with Leaflet when it was installed; otherwise on a plain canvas, so that the page works without npm. */
export async function makePlan(element, hasLeaflet, onChoose) {
  if (!hasLeaflet) return new CanvasPlan(element, onChoose);
  const leaflet = await import("./vendor/leaflet.js");
  return new LeafletPlan(leaflet, element, onChoose);
}

/** Leaflet reads texts as HTML; names are none. */
function span(text) {
  const made = document.createElement("span");
  made.textContent = text;
  return made;
}

const isPlaced = (node) => node.lat !== null && node.lon !== null;

/** Dots get smaller when there are many: their areas together cover about a tenth of the map. */
function dotRadius(count, width, height) {
  return Math.max(2.5, Math.min(7, 0.18 * Math.sqrt((width * height) / Math.max(1, count))));
}

/** High risk stands out by size too, not by colour alone. */
const emphasis = (key) => (key === "high" ? 1.35 : 1);

/** Names of plots above their nodes, when there are few enough to read. */
function plotLabels(nodes) {
  const plots = new Map();
  for (const node of nodes) {
    if (!node.plot) continue;
    const plot = plots.get(node.plot) ?? { name: node.plot, lat: -90, lon: 0, count: 0 };
    plot.lat = Math.max(plot.lat, node.lat);
    plot.lon += node.lon;
    plot.count += 1;
    plots.set(node.plot, plot);
  }
  if (plots.size > LABELS_MAX) return [];
  return [...plots.values()].map((plot) => ({ name: plot.name, lat: plot.lat, lon: plot.lon / plot.count }));
}

class LeafletPlan {
  constructor(leaflet, element, onChoose) {
    this.leaflet = leaflet;
    this.element = element;
    this.onChoose = onChoose;
    this.map = leaflet.map(element, { preferCanvas: true, attributionControl: false, zoomSnap: 0.1, maxZoom: 22 });
    this.map.setView([0, 0], 2);
    this.markers = new Map();
    this.labels = new Map();
    this.pulses = 0;
    leaflet.control.scale({ imperial: false, maxWidth: 140 }).addTo(this.map);
    for (const kind of ["wheel", "mousedown", "touchstart"]) {
      element.addEventListener(kind, () => (this.moved = true), { passive: true, once: true });
    }
    new ResizeObserver(() => {
      this.map.invalidateSize({ pan: false });
      if (!this.moved) this.fit();
    }).observe(element);
  }

  fit() {
    const places = [...this.markers.values()].map((marker) => marker.getLatLng());
    if (places.length) this.map.fitBounds(places, { padding: [MARGIN, MARGIN], animate: false });
  }

  show(nodes, by, nowUs) {
    const placed = nodes.filter(isPlaced);
    const radius = dotRadius(placed.length, this.element.clientWidth, this.element.clientHeight);
    const edge = variable("--card");
    const colours = new Map();
    const colour = (key) => colours.get(key) ?? colours.set(key, variable(`--${key}`)).get(key);
    const seen = new Set();
    for (const node of placed) {
      seen.add(node.dev_eui);
      const key = keyOf(node, by, nowUs);
      const style = { radius: radius * emphasis(key), weight: 1, color: edge, fillColor: colour(key), fillOpacity: 0.95 };
      const known = this.markers.get(node.dev_eui);
      if (!known) {
        this.add(node, style);
      } else if (known.look !== `${key} ${edge} ${radius}`) {
        known.setStyle(style).setRadius(style.radius);
      }
      this.markers.get(node.dev_eui).look = `${key} ${edge} ${radius}`;
    }
    for (const [devEui, marker] of this.markers) {
      if (!seen.has(devEui)) {
        marker.remove();
        this.markers.delete(devEui);
      }
    }
    this.label(placed);
    if (this.fitted !== placed.length && !this.moved) this.fit();
    this.fitted = placed.length;
  }

  add(node, style) {
    const marker = this.leaflet.circleMarker([node.lat, node.lon], style).addTo(this.map);
    marker.bindTooltip(span(`${node.name} (${node.crop})`)).on("click", () => this.onChoose(node.dev_eui));
    this.markers.set(node.dev_eui, marker);
  }

  label(placed) {
    const wanted = plotLabels(placed);
    if (wanted.map((plot) => plot.name).join() === [...this.labels.keys()].join()) return;
    for (const label of this.labels.values()) label.remove();
    this.labels.clear();
    for (const plot of wanted) {
      const label = this.leaflet.tooltip([plot.lat, plot.lon], { permanent: true, direction: "top", offset: [0, -LABEL_PX], className: "plot", interactive: false });
      label.setContent(span(plot.name)).addTo(this.map);
      this.labels.set(plot.name, label);
    }
  }

  pulse(devEui) {
    const marker = this.markers.get(devEui);
    if (!marker || this.pulses >= PULSES_MAX) return;
    this.pulses += 1;
    const ring = this.leaflet.circleMarker(marker.getLatLng(), { radius: 4, weight: 2, color: variable("--accent"), fill: false, interactive: false });
    ring.addTo(this.map);
    const start = performance.now();
    const grow = (now) => {
      const part = (now - start) / PULSE_MS;
      if (part >= 1) {
        ring.remove();
        this.pulses -= 1;
        return;
      }
      ring.setRadius(4 + 20 * part).setStyle({ opacity: 1 - part });
      requestAnimationFrame(grow);
    };
    requestAnimationFrame(grow);
  }
}

class CanvasPlan {
  constructor(element, onChoose) {
    this.element = element;
    this.canvas = element.appendChild(document.createElement("canvas"));
    this.points = [];
    this.pulses = new Map();
    this.last = null;
    const nearest = (event) => {
      const near = this.points.map((point) => ({ point, d: Math.hypot(point.x - event.offsetX, point.y - event.offsetY) }));
      near.sort((a, b) => a.d - b.d);
      return near.length && near[0].d < 14 ? near[0].point : null;
    };
    this.canvas.addEventListener("click", (event) => {
      const point = nearest(event);
      if (point) onChoose(point.node.dev_eui);
    });
    this.canvas.addEventListener("mousemove", (event) => {
      const point = nearest(event);
      this.canvas.title = point ? `${point.node.name} (${point.node.crop})` : "";
      this.canvas.style.cursor = point ? "pointer" : "default";
    });
    new ResizeObserver(() => this.last && this.draw()).observe(element);
  }

  show(nodes, by, nowUs) {
    this.last = { placed: nodes.filter(isPlaced), by, nowUs };
    this.draw();
  }

  pulse(devEui) {
    if (!this.last || this.pulses.size >= PULSES_MAX) return;
    const idle = !this.pulses.size;
    this.pulses.set(devEui, performance.now());
    if (idle) requestAnimationFrame(() => this.draw());
  }

  draw() {
    const { placed, by, nowUs } = this.last;
    const { clientWidth: width, clientHeight: height } = this.element;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    if (!placed.length) return;
    const place = projection(placed, width, height);
    const radius = dotRadius(placed.length, width, height);
    this.points = placed.map((node) => ({ node, ...place(node) }));
    const colours = new Map();
    for (const { node, x, y } of this.points) {
      const key = keyOf(node, by, nowUs);
      if (!colours.has(key)) colours.set(key, variable(`--${key}`));
      disc(context, x, y, radius * emphasis(key), colours.get(key));
    }
    this.rings(context);
    this.captions(context, placed, place, height);
  }

  rings(context) {
    const now = performance.now();
    context.strokeStyle = variable("--accent");
    context.lineWidth = 2;
    for (const { node, x, y } of this.points) {
      const start = this.pulses.get(node.dev_eui);
      if (start === undefined) continue;
      const part = (now - start) / PULSE_MS;
      if (part >= 1) {
        this.pulses.delete(node.dev_eui);
        continue;
      }
      context.globalAlpha = Math.max(0, 1 - part);
      context.beginPath();
      context.arc(x, y, 4 + 20 * Math.max(0, part), 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 1;
    if (this.pulses.size) requestAnimationFrame(() => this.draw());
  }

  captions(context, placed, place, height) {
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.lineWidth = 4;
    context.strokeStyle = variable("--sunk");
    context.fillStyle = variable("--ink");
    for (const plot of plotLabels(placed)) {
      const { x, y } = place(plot);
      context.strokeText(plot.name, x, y - 2 * LABEL_PX - 3);
      context.fillText(plot.name, x, y - 2 * LABEL_PX - 3);
    }
    const metres = scaleLength(500 / place.pixelsPerMetre);
    const length = metres * place.pixelsPerMetre;
    context.fillStyle = variable("--quiet");
    context.fillRect(14, height - 14, length, 2);
    context.font = "12px system-ui, sans-serif";
    context.fillText(distance(metres), 14 + length / 2, height - 20);
  }
}

function disc(context, x, y, radius, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/** From degrees to pixels: a degree of longitude is shorter than one of latitude; the field keeps its shape. */
function projection(placed, width, height) {
  const lats = placed.map((node) => node.lat);
  const lons = placed.map((node) => node.lon);
  const [south, north] = [Math.min(...lats), Math.max(...lats)];
  const [west, east] = [Math.min(...lons), Math.max(...lons)];
  const shrink = Math.cos((south * Math.PI) / 180);
  const scale = Math.min((width - 2 * MARGIN) / ((east - west) * shrink || 1e-4), (height - 2 * MARGIN) / (north - south || 1e-4));
  const [middleX, middleY] = [(west + east) / 2, (south + north) / 2];
  const place = ({ lat, lon }) => ({ x: width / 2 + (lon - middleX) * shrink * scale, y: height / 2 - (lat - middleY) * scale });
  place.pixelsPerMetre = scale / METRES_PER_DEGREE;
  return place;
}
