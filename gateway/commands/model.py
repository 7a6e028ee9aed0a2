"""`swarm model`: what is inside a model container."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.output import AsJson, CommandError, show_json, show_table

__all__ = ["app"]

app = typer.Typer(help="Model containers: look into one, or write it as a C array.", no_args_is_help=True)
FILE_SIZE_MAX = 16_000_000


@app.callback()
def _group() -> None:
    """Model containers: look into one, or write it as a C array."""


def _read(file: Path | None) -> tuple[bytes, dict[str, object]]:
    """A container's bytes and what is in it."""
    from swarm.model import container

    if file is None:
        image = (resources.files("swarm.model") / "base_model.swm").read_bytes()
    else:
        if file.stat().st_size > FILE_SIZE_MAX:
            raise CommandError(f"{file}: is larger than any container; give a .swm file")
        image = file.read_bytes()
    found = container.inspect(image)
    if "error" in found:
        raise CommandError(
            f"{file}: is no sound container ({found['error']}: {found['detail']}); get the file again"
        )
    return image, found


@app.command()
def header(
    file: Annotated[
        Path | None, typer.Argument(help="A .swm file; without it, the model that is shipped.")
    ] = None,
) -> None:
    """The container as an array for a firmware's flash, in C or C++: SWN_MODEL.

    Example: swarm model header > model.h
    """
    image, found = _read(file)
    lines = [
        f"/* {file.name if file is not None else 'The model that is shipped'}, {len(image)} bytes,"
        f" model {found['model_id']}; made by `swarm model header`. */",
        "#ifndef SWN_MODEL_ARRAY_H",
        "#define SWN_MODEL_ARRAY_H",
        "",
        "__attribute__((aligned(16))) static const unsigned char SWN_MODEL[] = {",
        *(f"    {', '.join(map(str, image[at : at + 24]))}," for at in range(0, len(image), 24)),
        "};",
        "",
        "#endif",
    ]
    typer.echo("\n".join(lines))


@app.command()
def inspect(
    file: Annotated[
        Path | None, typer.Argument(help="A .swm file; without it, the model that is shipped.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Header, program, tensors and fragments of a container, after checking it.

    Example: swarm model inspect swarm/model/base_model.swm
    """
    _, found = _read(file)
    if as_json:
        show_json(found)
        return
    show_table(("", ""), ((name, value) for name, value in found.items() if not isinstance(value, list)))
    for name, rows in found.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            typer.echo(f"\n{name}")
            columns = list(rows[0])
            show_table(columns, ([row.get(column) for column in columns] for row in rows))
