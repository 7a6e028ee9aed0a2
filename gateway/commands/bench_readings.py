"""`swarm bench readings`: what neighbours' readings are worth, on a file of real weather stations."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.bench import one_thread, progress, seeds_of
from gateway.commands.output import AsJson, CommandError, finite, meant, show_json, show_table

__all__ = ["readings"]

DAYS_MAX = 1000
NAMES_MAX, NAME_MAX = 20, 32


def readings(
    weather: Annotated[Path, typer.Argument(help="Hourly records of stations (CSV or .csv.gz).")],
    start: Annotated[
        str | None, typer.Option(help="First day, YYYY-MM-DD; default: the first 1 June with records of all.")
    ] = None,
    days: Annotated[int, typer.Option(min=21, max=DAYS_MAX, help="So many days from there on.")] = 152,
    stations: Annotated[
        list[str] | None,
        typer.Option("--station", help="A station (several times; default: all that differ)."),
    ] = None,
    defects: Annotated[
        list[str] | None,
        typer.Option("--defect", help="no humidity, biased, no rain or mixed (several times; default: all)."),
    ] = None,
    losses: Annotated[
        list[float] | None,
        typer.Option(
            "--loss",
            min=0.0,
            max=0.9,
            help="Share of frames lost, each way (several times; default: 0, .1, .3).",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which: 3 or 1,2,7.")] = "3",
    as_json: AsJson = False,
) -> None:
    """The published rule on own sensors, and with what neighbours lend: each station in turn the borrowers'.

    Example: swarm bench readings stations.csv.gz --start 2014-05-01 --defect "no humidity" --loss 0
    """
    one_thread()
    from simulations.bench import ask_readings as bench
    from simulations.field.weather_csv import StationMissing, WeatherCsvError, read_weather_csv

    chosen = seeds_of(seeds)
    for name in defects or ():
        if name not in bench.DEFECTS:
            advice = meant(name, bench.DEFECTS, "the defects")
            raise CommandError(f"--defect: there is no {name!r}; {advice}")
    for loss in losses or ():
        finite(loss)
    if not weather.exists():
        raise CommandError(f"{weather}: no such file; check the path")
    try:
        record = read_weather_csv(weather, days * 24, _day(start), only=stations or ())
    except StationMissing as error:
        known = ", ".join(name[:NAME_MAX] for name in error.there[:NAMES_MAX])
        more = ", ..." if len(error.there) > NAMES_MAX else ""
        raise CommandError(f"--station: there is no {error.name!r}; there are {known}{more}") from error
    except WeatherCsvError as error:
        raise CommandError(str(error)) from error
    if len(record.stations) < 2:
        raise CommandError(f"{weather}: lending takes two distinct stations; this window has one")
    with progress() as on_progress:
        rows = bench.run(
            record,
            defects=tuple(dict.fromkeys(defects or bench.DEFECTS)),
            losses=tuple(dict.fromkeys(losses or (0.0, 0.1, 0.3))),
            seeds=chosen,
            on_progress=on_progress,
        )
    if as_json:
        show_json(rows)
        return
    columns = ("defect", "lost", "own sensors", "borrowed", "B a node and day", "lenders", "violations")
    show_table(columns, (_cells(row) for row in rows))
    typer.echo(f"mean of per-crop macro-F1 over {', '.join(record.stations)}, from {record.start}")


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise CommandError(f"--start: {text!r} is no day; write it as 2014-05-01") from None


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["defect"],
        f"{row['loss']:.0%}",
        f"{row['own']:.3f} ± {row['own_sd']:.3f}",
        f"{row['borrowed']:.3f} ± {row['borrowed_sd']:.3f}",
        f"{row['bytes_per_node_day']:.0f}",
        f"{row['lenders']:.1f}",
        str(row["violations"]),
    )
