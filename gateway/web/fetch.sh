#!/bin/sh
# Brings the page's two libraries from npm (versions and hashes in package-lock.json) into vendor/.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp package.json package-lock.json "$work"
(cd "$work" && npm ci --silent --no-audit --no-fund --ignore-scripts)
mkdir -p vendor
cp "$work/node_modules/leaflet/dist/leaflet-src.esm.js" vendor/leaflet.js
cp "$work/node_modules/leaflet/dist/leaflet.css" vendor/leaflet.css
cp "$work/node_modules/uplot/dist/uPlot.esm.js" vendor/uplot.js
cp "$work/node_modules/uplot/dist/uPlot.min.css" vendor/uplot.css
