"""Chromium as the tests drive it, and what they ask of any page: contrast, overflow, console, requests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

__all__ = ["BROWSER", "DRIVER", "console", "hosts", "open_browser", "size", "theme", "unreadable", "wide"]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1440,1200",
)

UNREADABLE = """
function parse(text) {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  return { r, g, b, a };
}
const curve = (part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
const channel = (value) => curve(value / 255);
const luminance = (c) => .2126 * channel(c.r) + .7152 * channel(c.g) + .0722 * channel(c.b);
function ground(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.a === 1) return colour;
  }
  return { r: 255, g: 255, b: 255 };
}
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const style = getComputedStyle(element);
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  if (element.closest(".hidden, script")) continue;
  const [text, behind] = [luminance(parse(style.color)), luminance(ground(element))];
  const contrast = (Math.max(text, behind) + .05) / (Math.min(text, behind) + .05);
  const pixels = parseFloat(style.fontSize);
  const large = pixels >= 24 || (pixels >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) found.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
}
return found;
"""

WIDE = """
const found = [];
const whole = document.documentElement.scrollWidth;
if (whole > innerWidth) found.push(`page: ${whole}`);
for (const box of document.querySelectorAll(".card, .scroll, header, #summary > div")) {
  if (box.checkVisibility() && box.scrollWidth > box.clientWidth + 1) {
    const name = box.closest("[aria-labelledby]")?.getAttribute("aria-labelledby") ?? box.tagName;
    found.push(`${name} ${box.className}: ${box.scrollWidth} in ${box.clientWidth}`);
  }
}
return found;
"""


@contextmanager
def open_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a fresh profile, which logs its console and its requests."""
    options = Options()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def theme(browser: webdriver.Chrome, name: str) -> None:
    """`light` or `dark`, as the system would say."""
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def size(browser: webdriver.Chrome, width: int, height: int) -> None:
    """The viewport in CSS pixels; below 600 it is a phone's."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def console(browser: webdriver.Chrome) -> list[str]:
    """Errors and warnings since the last call."""
    entries = browser.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]


def hosts(browser: webdriver.Chrome) -> set[str]:
    """Whom the page asked for anything since the last call: host and port."""
    asked = set()
    for entry in browser.get_log("performance"):
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = urlsplit(message["params"]["request"]["url"])
            if url.scheme not in ("data", "blob", "chrome", "about"):
                asked.add(url.netloc)
    return asked


def unreadable(browser: webdriver.Chrome) -> list[str]:
    """Texts whose contrast is below WCAG 2's AA (4.5, large ones 3)."""
    found: list[str] = browser.execute_script(UNREADABLE)
    return found


def wide(browser: webdriver.Chrome) -> list[str]:
    """What is wider than its place."""
    found: list[str] = browser.execute_script(WIDE)
    return found
