"""`swarm pilot`: plan a pilot from its tables, and make the keys of its nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.output import AsJson, CommandError, finite, show_json

__all__ = ["app"]

app = typer.Typer(help="Plan a pilot in the field, and provision its nodes.", no_args_is_help=True)


@app.command()
def plan(
    nodes: Annotated[Path, typer.Argument(help="A CSV table: id, lat, lon, height_m, crop, and more.")],
    gateways: Annotated[Path, typer.Argument(help="A CSV table: id, lat, lon, height_m, and more.")],
    rounds_per_day: Annotated[
        float, typer.Option(min=0.0, max=1000.0, callback=finite, help="Learning rounds a day.")
    ] = 1.0,
    margin_db: Annotated[
        float,
        typer.Option(
            min=-50.0, max=100.0, callback=finite, help="Spare dB that a link should have in full leaf."
        ),
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """What each node may expect: gateway, margin, spreading factor, delivery, airtime, battery.

    Example: swarm pilot plan nodes.csv gateways.csv
    """
    from gateway import pilot
    from swarm.pilot.plan import PlanOptions

    try:
        made = pilot.plan(nodes, gateways, PlanOptions(rounds_per_day=rounds_per_day, margin_db=margin_db))
    except (pilot.CsvErrors, ValueError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        show_json(made.to_dict())
    else:
        typer.echo(made.text())


@app.command()
def provision(
    nodes: Annotated[Path, typer.Argument(help="The CSV table of `swarm pilot plan`.")],
    out_dir: Annotated[Path, typer.Argument(help="Where the keys go; for its owner alone.")] = Path(
        "pilot-keys"
    ),
    region: Annotated[
        str | None, typer.Option(help="The region of the radios; default: OUT_DIR's, else eu868.")
    ] = None,
    multicast_data_rate: Annotated[
        int | None,
        typer.Option(help="As \\[multicast] data_rate; default: OUT_DIR's, else the region's RX2."),
    ] = None,
    multicast_frequency_hz: Annotated[
        int | None,
        typer.Option(help="As \\[multicast] frequency_hz; default: OUT_DIR's, else the region's RX2."),
    ] = None,
    mask_group_size: Annotated[
        int | None,
        typer.Option(min=4, max=16, help="Put nodes of a crop into masking groups, for mode masked_sums."),
    ] = None,
    sign: Annotated[
        bool,
        typer.Option("--sign", help="Make a signing key for an OUT_DIR from before models were signed."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give every node its keys, once; then `swarm nodes import OUT_DIR` tells the gateway.

    Example: swarm pilot provision nodes.csv pilot-keys
    """
    from gateway import pilot

    try:
        channel = pilot.ChannelOptions(region, multicast_data_rate, multicast_frequency_hz)
        report = pilot.provision(
            nodes, out_dir, options=channel, mask_group_size=mask_group_size, sign=sign, dry_run=dry_run
        )
    except (pilot.CsvErrors, ValueError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        show_json(report.to_dict())
    else:
        typer.echo(report.text())
