"""Flash, RAM and worst stack of the core for one target, against the budget; exit status 1 when over.

    python3 budget.py NAME SIZE_TOOL NM_TOOL BUILD_FOLDER

The folder holds the target's objects and the compiler's call graphs (-fcallgraph-info=su: one .ci file per
source, with the stack of each function).  The worst stack is the deepest path from any swn_ function;
calls through the port's pointers end there (a driver's stack is the driver's), library calls count as 0.
Recursion, or a frame whose size the compiler cannot tell, is over any budget.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FLASH_MAX = 64 * 1024
RAM_MAX = 40 * 1024

NODE = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*?(\d+) bytes \((static|dynamic|dynamic,bounded)\)')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')


def run(*command: str) -> str:
    """The output of a tool."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sections(size_tool: str, objects: list[str]) -> tuple[int, int, int]:
    """(text with constants, data, bss) of all objects."""
    rows = [line.split() for line in run(size_tool, *objects).splitlines()[1:]]
    text, data, bss = (sum(int(row[column]) for row in rows) for column in range(3))
    return text, data, bss


def probed(nm_tool: str, probe: Path, name: str) -> int:
    """The size of a structure on the target, which the probe object holds as an array."""
    line = next(line for line in run(nm_tool, "-S", str(probe)).splitlines() if f"swn_{name}_probe" in line)
    return int(line.split()[1], 16)


def deepest(graphs: list[Path]) -> tuple[int, list[str]]:
    """(bytes, path) of the deepest chain of calls; ValueError on recursion or unbounded frames."""
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for graph in graphs:
        text = graph.read_text(encoding="utf-8")
        for name, size, kind in NODE.findall(text):
            if kind == "dynamic":
                raise ValueError(f"{name}: stack of unknown size")
            frames[name] = int(size)
        for source, target in EDGE.findall(text):
            calls.setdefault(source, set()).add(target)
    known: dict[str, tuple[int, list[str]]] = {}

    def depth(name: str, above: tuple[str, ...]) -> tuple[int, list[str]]:
        if name in above:
            raise ValueError(f"recursion: {' -> '.join((*above, name))}")
        if name not in known:
            below = [depth(target, (*above, name)) for target in sorted(calls.get(name, ()))]
            size, path = max(below, default=(0, []))
            known[name] = (frames.get(name, 0) + size, [name, *path])
        return known[name]

    return max(depth(name, ()) for name in sorted(frames))


def main(name: str, size_tool: str, nm_tool: str, folder: str) -> int:
    """Prints one line, and one more for each budget that is exceeded."""
    build = Path(folder)
    objects = sorted(str(path) for path in build.glob("swn_*.o"))
    text, data, bss = sections(size_tool, objects)
    node, packages = (probed(nm_tool, build / "probe.o", name) for name in ("node", "packages"))
    try:
        stack, path = deepest(sorted(build.glob("*.ci")))
    except ValueError as error:
        print(f"{name}: {error}")
        return 1
    ram = node + packages + data + bss + stack
    held = f"node {node}  packages {packages}"
    print(f"{name:<14} text {text:>6}  data {data}  bss {bss}  {held}  stack {stack}  ram {ram}")
    print(f"{'':<14} deepest: {' > '.join(step.rpartition(':')[2] for step in path)}")
    over = 0
    for what, used, limit in (
        ("flash", text + data, FLASH_MAX),
        ("RAM", ram, RAM_MAX),
        ("static data", data + bss, 0),
    ):
        if used > limit:
            print(f"{name}: {what} {used} B is over its budget of {limit} B")
            over = 1
    return over


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
