"""A simulated month of a thousand nodes: what it costs, and what it carried."""

from __future__ import annotations

from simulations import world
from tests.bench.measure import Measured

__all__ = ["measure"]

SCENARIO = "farm_1000"


def measure() -> list[Measured]:
    """One run of `farm_1000`: 30 days, three rounds a day, one status a day, questions."""
    report = world.run(SCENARIO)
    up, down = report.frames, report.downlinks
    frames = up["sent"] + down["sent"]
    carried = f"{len(report.rounds)} rounds, {report.violations} violations"
    return [
        Measured(f"{SCENARIO}, {report.virtual_days:.0f} days", report.cpu_s, "CPU s", note=carried),
        Measured("the same on the wall", report.wall_s, "s", note=f"digest {report.digest[:12]}"),
        Measured("uplinks sent", up["sent"], "", note=f"{up['received']} received"),
        Measured("downlinks sent", down["sent"], "", note=f"heard {down['received']} times by nodes"),
        Measured(
            "all of it per frame on the air",
            report.cpu_s / frames * 1e6,
            "CPU us",
            note="firmware, air, LoRaWAN both ways, gateway, strategy, evaluation",
        ),
    ]
