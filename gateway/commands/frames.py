"""`swarm nodes send` and `sends`: frames by hand, and those of them that wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.node_names import find
from gateway.commands.output import AsJson, CommandError, local_time, show_json, show_table

__all__ = ["send", "sends"]


def send(
    node_name: Annotated[str, typer.Argument(metavar="NODE", help="Its name or DevEUI.")],
    payload: Annotated[str, typer.Argument(help="Hexadecimal digits, two for a byte.")],
    port: Annotated[int, typer.Option(min=1, max=223, help="FPort of the frame.")],
    confirmed: Annotated[bool, typer.Option("--confirmed", help="The node has to acknowledge it.")] = False,
    within_s: Annotated[
        int, typer.Option("--within", min=1, max=2_592_000, help="Seconds after which it is given up.")
    ] = 86_400,
    config_file: ConfigFile = Path("swarm.toml"),
) -> None:
    """Send a node a frame: a class A node gets it after its next uplink, class C at once.

    Example: swarm nodes send bench-1 0a0b --port 10 --confirmed
    """
    from gateway.api.bodies import PAYLOAD_MAX

    digits = payload.replace(" ", "").lower()
    if len(digits) % 2 or set(digits) - set("0123456789abcdef"):
        raise CommandError("the payload has to be hexadecimal digits, two for a byte")
    if len(digits) > 2 * PAYLOAD_MAX:
        raise CommandError(
            f"the payload has {len(digits) // 2} bytes; a frame carries at most {PAYLOAD_MAX}, at low data"
            " rates less"
        )
    client = Client(config_file)
    dev_eui = find(client, node_name)["dev_eui"]
    body = {"f_port": port, "payload": digits, "confirmed": confirmed, "within_s": within_s}
    number = client.post(f"/api/nodes/{dev_eui}/downlink", body)["number"]
    typer.echo(
        f"{dev_eui}: frame {number} waits; `swarm nodes sends` lists it, `swarm events --kind operator_frame`"
        " tells what becomes of it"
    )


def sends(
    cancel: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Take this one back instead.")
    ] = None,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Frames sent by hand that wait for their node, or for its acknowledgement.

    Example: swarm nodes sends --cancel 12
    """
    client = Client(config_file)
    if cancel is not None:
        answer = client.delete(f"/api/downlinks/{cancel}")
        if as_json:
            show_json(answer)
        else:
            typer.echo(f"frame {cancel}: cancelled")
        return
    found = client.get("/api/downlinks")["downlinks"]
    if as_json:
        show_json(found)
        return
    names = {node["dev_eui"]: node["name"] for node in client.get("/api/nodes")["nodes"]}
    show_table(
        ("frame", "node", "FPort", "bytes", "confirmed", "tries", "given up"),
        (
            (
                each["number"],
                names.get(each["dev_eui"], each["dev_eui"]),
                each["f_port"],
                each["size"],
                "yes" if each["confirmed"] else "no",
                each["tries"],
                local_time(each["expires_us"]),
            )
            for each in found
        ),
        empty="no frame waits; `swarm nodes send NODE PAYLOAD --port N` sends one",
    )
