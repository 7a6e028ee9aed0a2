"""Turns tests/vectors/fragmentation.json into the C tables that test_transport.c compares with.

    python3 blocks_to_header.py ../../tests/vectors/fragmentation.json fragmentation.h

Standard library only, so that the C tests need no Python packages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """/* Made by blocks_to_header.py from tests/vectors/fragmentation.json: do not edit. */
#include <stddef.h>
#include <stdint.h>

typedef struct row_vector {
    uint16_t count;
    uint16_t n;
    uint8_t version;
    const char *row;
} row_vector_t;

/* Bytes are hexadecimal digits; `frames` ends with NULL. */
typedef struct block_vector {
    const char *name;
    uint8_t version;
    const char *root_key;
    const char *setup;
    const char *block;
    const char *const *frames;
} block_vector_t;
"""


def text(vectors: dict[str, Any]) -> str:
    """The whole header."""
    rows = [f'{{{row["nb_frag"]}, {row["n"]}, {row["version"]}, "{row["row"]}"}},' for row in vectors["rows"]]
    parts = [HEAD, "static const row_vector_t ROWS[] = {", *(f"    {row}" for row in rows), "};\n"]
    blocks = []
    for number, block in enumerate(vectors["blocks"]):
        frames = ", ".join(f'"{frame}"' for frame in block["frames"])
        parts.append(f"static const char *const FRAMES_{number}[] = {{{frames}, NULL}};")
        strings = ", ".join(f'"{block[name]}"' for name in ("root_key", "setup", "block"))
        blocks.append(f'    {{"{block["name"]}", {block["version"]}, {strings}, FRAMES_{number}}},')
    parts.append("\nstatic const block_vector_t BLOCKS[] = {")
    return "\n".join([*parts, *blocks, "};", ""])


if __name__ == "__main__":
    source, target = sys.argv[1:]
    Path(target).write_text(text(json.loads(Path(source).read_text(encoding="utf-8"))), encoding="utf-8")
