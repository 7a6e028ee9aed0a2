"""The page as a person sees it: Chromium in front of a real daemon that hears real frames."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.api.app import WEB
from swarm.wire.messages import NO_GAIN, SERVES
from tests.web.served import Cell, Served, until

selenium = pytest.importorskip("selenium", reason="selenium is missing: pip install -e '.[test]'")

from tests.web import browser as chromium  # noqa: E402

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.skipif(
    chromium.BROWSER is None or chromium.DRIVER is None,
    reason="chromium or chromedriver is missing: apt-get install chromium chromium-driver",
)

NODES = 30
UNHEARD = 5
VENDOR = ("leaflet.js", "uplot.js")
# Where a node of high risk is on the map, whoever draws it: the first dot from the top, in page pixels.
A_DOT = """
const found = getComputedStyle(document.documentElement).getPropertyValue("--high").trim();
const want = found.match(/../g).length && [1, 3, 5].map((at) => parseInt(found.slice(at, at + 2), 16));
for (const canvas of document.querySelectorAll("#map canvas")) {
  const box = canvas.getBoundingClientRect();
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < data.length; at += 4) {
    if (want.every((value, i) => Math.abs(data[at + i] - value) < 12) && data[at + 3] > 200) {
      const pixel = at / 4, ratio = box.width / canvas.width;
      return [box.left + (pixel % width) * ratio, box.top + (Math.floor(pixel / width) + 4) * ratio];
    }
  }
}
return null;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium.open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def with_libraries(folder: Path) -> Path:
    """The page's files with Leaflet and uPlot; fetched when `make web` did not."""
    if not all((WEB / "vendor" / name).exists() for name in VENDOR):
        if shutil.which("npm") is None:
            pytest.skip("npm is missing and gateway/web/vendor is empty: apt-get install npm, make web")
        shutil.copytree(WEB, folder / "web")
        fetched = subprocess.run(
            ["sh", str(folder / "web" / "fetch.sh")], capture_output=True, text=True, check=False
        )
        if fetched.returncode:
            pytest.skip(f"npm could not fetch the page's libraries: {fetched.stderr.strip()[-200:]}")
        return folder / "web"
    return WEB


def without_libraries(folder: Path) -> Path:
    """The page's files as they are in a fresh clone."""
    return Path(shutil.copytree(WEB, folder / "bare", ignore=shutil.ignore_patterns("vendor")))


@pytest.fixture(params=[with_libraries, without_libraries], ids=["with libraries", "without libraries"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    make: Callable[[Path], Path] = request.param
    with Served(tmp_path, web=make(tmp_path)) as made:
        yield made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, web=without_libraries(tmp_path)) as made:
        yield made


def field(served: Served) -> Cell:
    """Thirty registered nodes; the first 25 were heard, and their own estimates get worse northwards."""
    assert served.daemon.udp_address is not None
    cell = Cell(served.daemon.udp_address, NODES)
    assert served.http.post("/api/nodes", json=cell.registration()).json()["added"] == NODES
    cell.pull()
    heard = NODES - UNHEARD
    for index, node in enumerate(cell.nodes[:heard]):
        cell.uplink(node, 12, node.status(risk=3 * index // heard, serves=SERVES.index("rule") | NO_GAIN))
    until(lambda: served.http.get("/api/state").json()["nodes_heard"] == heard, "the nodes to be heard")
    return cell


def enter(browser: Chrome, served: Served, *, width: int = 1440, theme: str = "light") -> None:
    """Open the address that the daemon prints, and wait until the page is live."""
    browser.get("about:blank")
    chromium.console(browser)
    chromium.hosts(browser)
    chromium.size(browser, width, 1200)
    chromium.theme(browser, theme)
    browser.get(f"{served.url}/#token={served.daemon.token}")
    until(lambda: text(browser, "#connection") == "live", "the page to be live")


def text(browser: Chrome, selector: str) -> str:
    """The text that a person reads there; empty when it is hidden or absent."""
    script = """
        const found = document.querySelector(arguments[0]);
        return found?.checkVisibility() ? found.innerText.trim() : "";
    """
    return str(browser.execute_script(script, selector))


def tiles(browser: Chrome) -> dict[str, str]:
    script = """
        const tiles = [...document.querySelectorAll("#summary div")];
        return tiles.map((tile) => [...tile.children].map((part) => part.innerText));
    """
    return dict(browser.execute_script(script))


def rows(browser: Chrome, table: str) -> list[list[str]]:
    script = """
        const lines = [...document.querySelector(arguments[0]).tBodies[0].rows];
        return lines.map((line) => [...line.cells].map((cell) => cell.innerText));
    """
    found: list[list[str]] = browser.execute_script(script, table)
    return found


def fill_in_and_ask(browser: Chrome, near: str) -> None:
    box = browser.find_element("id", "near")
    box.clear()
    box.send_keys(near)
    browser.find_element("css selector", "#ask button").click()


def no_faults(browser: Chrome, served: Served) -> None:
    assert chromium.console(browser) == []
    assert chromium.hosts(browser) == {served.url.removeprefix("http://")}


def test_a_person_sees_the_cell_and_what_happens_in_it(browser: Chrome, either: Served) -> None:
    cell = field(either)
    enter(browser, either)
    shown = tiles(browser)
    assert shown["nodes heard"].split() == ["25", "of", "30"]
    assert shown["gateways"] == "1"
    assert shown["uplinks"] == "25"
    assert ("make web" in text(browser, "#notice")) == (not (either.web / "vendor").exists())
    legend = text(browser, "#legend")
    assert [line.split()[0] for line in legend.splitlines()] == ["low", "medium", "high", "not"]
    assert legend.endswith("not heard yet 5")

    cell.uplink(cell.nodes[-1], 12, cell.nodes[-1].status(risk=2))
    name = cell.nodes[-1].row["name"]
    until(lambda: rows(browser, "#frames")[0][2] == name, "the live frame's row")
    assert rows(browser, "#frames")[0][1:6] == ["↑", name, "status", "DR5", "-97 dBm"]
    cell.push(b"\x40" + b"\xaa" * 15)
    until(lambda: rows(browser, "#frames")[0][1] == "×", "the refused frame's row")
    until(lambda: text(browser, "#legend").endswith("not heard yet 4"), "the map to follow")
    until(lambda: tiles(browser)["refused"] == "1", "the count of refused frames")
    no_faults(browser, either)


def test_a_round_shows_progress_airtime_and_a_line_in_the_table(browser: Chrome, either: Served) -> None:
    cell = field(either)
    assert either.http.post("/api/rounds").status_code == 200
    enter(browser, either)
    until(lambda: "round 1: 0 of 30 updates" in text(browser, "#round-now"), "the open round")
    assert rows(browser, "#rounds")[0][-1] == "open"
    until(lambda: cell.hear() and "P: 869.40 to 869.65 MHz" in text(browser, "#airtime"), "the airtime's bar")
    width = "return document.querySelector('#airtime .bar i').getBoundingClientRect().width"
    assert browser.execute_script(width) > 0
    assert "of 360 s" in text(browser, "#airtime")
    assert "round" in text(browser, "#airtime .key")
    no_faults(browser, either)


def test_a_node_on_the_map_tells_about_itself(browser: Chrome, either: Served) -> None:
    field(either)
    enter(browser, either)
    x, y = until(lambda: browser.execute_script(A_DOT), "a node of high risk on the map")
    mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **mouse})
    until(lambda: "high risk" in text(browser, "#node-detail"), "the chosen node's facts")
    facts = text(browser, "#node-detail")
    for words in ("18.3 °C", "75.5 %", "DR5", "-97 dBm", "1, 0 lost", "rule, no gain"):
        assert words in facts
    assert browser.execute_script("return document.querySelector('#near').value") == facts.splitlines()[0]
    no_faults(browser, either)


def test_asking_gives_an_answer_from_the_field(browser: Chrome, served: Served) -> None:
    cell = field(served)
    enter(browser, served)
    fill_in_and_ask(browser, cell.nodes[3].row["name"])
    until(
        lambda: "nodes hear it when they next send" in text(browser, "#answer"), "the word that it was asked"
    )

    def answered() -> bool:
        cell.converse((10, 45, 200))
        return "confidence" in text(browser, "#answer")

    until(answered, "the answer")
    answer = text(browser, "#answer")
    assert answer.lower().startswith("high risk, confidence 7")
    assert "of 3 nodes answered" in answer
    assert "of airtime" in answer
    browser.refresh()
    until(lambda: "Last question" in text(browser, "#answer"), "the answer after a reload")
    no_faults(browser, served)


def test_no_answer_is_said_in_words(browser: Chrome, served: Served) -> None:
    cell = Cell(served.daemon.udp_address or ("", 0), NODES)
    served.http.post("/api/nodes", json=cell.registration())
    enter(browser, served)
    assert "Nothing yet" in text(browser, "#frames")
    assert "No gateway was heard yet" in text(browser, "#airtime")
    fill_in_and_ask(browser, cell.nodes[3].row["plot"])
    until(lambda: text(browser, "#answer").startswith("No answer: no node there can be asked"), "no answer")
    fill_in_and_ask(browser, "atlantis")
    until(lambda: "nothing here is called 'atlantis'" in text(browser, "#answer"), "the refusal")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1440])
def test_everything_is_readable_and_in_its_place(
    browser: Chrome, tmp_path: Path, theme: str, width: int
) -> None:
    with Served(tmp_path, web=with_libraries(tmp_path)) as served:
        cell = field(served)
        long = {**cell.nodes[0].row, "name": "n" * 64, "plot": "p" * 64}
        served.http.post("/api/nodes", json={"nodes": [long]})
        served.http.post("/api/rounds")
        cell.uplink(cell.nodes[0], 12, cell.nodes[0].status(risk=2))
        cell.push(b"\x40" + b"\xaa" * 15)
        enter(browser, served, width=width, theme=theme)
        until(lambda: "869" in text(browser, "#airtime"), "the airtime's bar")
        x, y = until(lambda: browser.execute_script(A_DOT), "a node of high risk on the map")
        browser.execute_script("document.elementFromPoint(arguments[0], arguments[1])?.click()", x, y)
        assert chromium.wide(browser) == []
        assert chromium.unreadable(browser) == []
        browser.get(served.url + "/docs")
        until(lambda: "POST /api/ask" in text(browser, "main"), "the description of the API")
        assert chromium.wide(browser) == []
        assert chromium.unreadable(browser) == []
        no_faults(browser, served)


def test_names_are_texts_and_never_code(browser: Chrome, either: Served) -> None:
    cell = field(either)
    evil = "<img src=x onerror=document.title='pwned'>"
    row = {**cell.nodes[0].row, "name": evil, "plot": evil}
    assert either.http.post("/api/nodes", json={"nodes": [row]}).json()["changed"] == 1
    enter(browser, either)
    cell.uplink(cell.nodes[0], 12, cell.nodes[0].status(risk=2))
    until(lambda: rows(browser, "#frames")[0][2] == evil, "the frame of the node with the evil name")
    assert browser.title == "LoRa swarm"
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    no_faults(browser, either)


def test_without_a_token_the_page_asks_for_it_and_takes_it(browser: Chrome, served: Served) -> None:
    browser.get("about:blank")
    browser.get(served.url)
    until(lambda: "swarm gateway run" in text(browser, "#notice"), "the page to ask for the token")
    assert text(browser, "main") == ""
    browser.find_element("id", "token").send_keys("wrong")
    browser.find_element("css selector", "#door button").click()
    until(lambda: "not the daemon's" in text(browser, "#notice"), "the wrong token to be refused")
    browser.find_element("id", "token").send_keys(served.daemon.token)
    browser.find_element("css selector", "#door button").click()
    until(lambda: text(browser, "#connection") == "live", "the page to open")
    kept: Any = browser.execute_script("return [location.href, document.cookie, localStorage.length]")
    assert kept == [served.url + "/", "", 0], "the token is in this tab only"


def test_a_daemon_that_went_away_is_noticed(browser: Chrome, tmp_path: Path) -> None:
    with Served(tmp_path, web=without_libraries(tmp_path)) as served:
        field(served)
        enter(browser, served)
        served.stop()
        until(lambda: text(browser, "#connection") == "no connection", "the lost connection")
        until(lambda: "No word from the daemon" in text(browser, "#notice"), "the notice")
