// The field plan: nodes where they stand, coloured by the risk they last reported.  No tiles, no internet.
import { riskOf, RISKS } from "./format.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Draws with Leaflet when it was installed; otherwise a plain canvas, so that the page works without npm. */
export async function makePlan(element, onChoose) {
  try {
    const leaflet = await import("./vendor/leaflet.js");
    return new LeafletPlan(leaflet, element, onChoose);
  } catch {
    return new CanvasPlan(element, onChoose);
  }
}

function nodeColour(node) {
  const risk = riskOf(node);
  return risk === null ? colour("unknown") : colour(RISKS[risk]);
}

class LeafletPlan {
  constructor(leaflet, element, onChoose) {
    this.leaflet = leaflet;
    this.onChoose = onChoose;
    this.map = leaflet.map(element, { preferCanvas: true, attributionControl: false, zoomSnap: 0.25 });
    this.markers = new Map();
    leaflet.control.scale({ imperial: false }).addTo(this.map);
  }

  show(nodes) {
    const placed = nodes.filter((node) => node.lat !== null && node.lon !== null);
    for (const node of placed) {
      const style = { radius: 4, weight: 0, fillColor: nodeColour(node), fillOpacity: 0.9 };
      const known = this.markers.get(node.dev_eui);
      if (known) {
        known.setStyle(style);
        continue;
      }
      const marker = this.leaflet.circleMarker([node.lat, node.lon], style).addTo(this.map);
      marker.bindTooltip(`${node.name} (${node.crop})`).on("click", () => this.onChoose(node.dev_eui));
      this.markers.set(node.dev_eui, marker);
    }
    if (placed.length && !this.fitted) {
      this.map.fitBounds(placed.map((node) => [node.lat, node.lon]), { padding: [12, 12] });
      this.fitted = true;
    }
  }
}

class CanvasPlan {
  constructor(element, onChoose) {
    this.plain = true;
    this.canvas = document.createElement("canvas");
    element.append(this.canvas);
    this.points = [];
    this.canvas.addEventListener("click", (event) => {
      const near = this.points.map((p) => ({ ...p, d: Math.hypot(p.x - event.offsetX, p.y - event.offsetY) }));
      near.sort((a, b) => a.d - b.d);
      if (near.length && near[0].d < 12) onChoose(near[0].dev_eui);
    });
  }

  show(nodes) {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas.parentElement;
    canvas.width = width;
    canvas.height = height;
    const placed = nodes.filter((node) => node.lat !== null && node.lon !== null);
    if (!placed.length) return;
    const lats = placed.map((node) => node.lat);
    const lons = placed.map((node) => node.lon);
    const [south, west] = [Math.min(...lats), Math.min(...lons)];
    // A degree of longitude is shorter than one of latitude; keep the field's shape.
    const shrink = Math.cos((south * Math.PI) / 180);
    const scale = Math.min((width - 24) / ((Math.max(...lons) - west) * shrink || 1e-9), (height - 24) / (Math.max(...lats) - south || 1e-9));
    const context = canvas.getContext("2d");
    this.points = placed.map((node) => ({
      dev_eui: node.dev_eui,
      x: 12 + (node.lon - west) * shrink * scale,
      y: height - 12 - (node.lat - south) * scale,
    }));
    this.points.forEach((point, index) => {
      context.fillStyle = nodeColour(placed[index]);
      context.beginPath();
      context.arc(point.x, point.y, 4, 0, 2 * Math.PI);
      context.fill();
    });
  }
}
