"""What each learning mode would cost the fleet at hand, what it may win, and which one to take.

    made = advise(fleet, evidence)       # made.modes, made.recommendation; made.to_dict() is JSON-ready

`costs` is arithmetic over the fleet's data rates; `evidence` is what the cell has measured of itself;
`benchmarks` are this project's own measurements elsewhere, and are never mixed with the cell's.
"""

from swarm.advice.advise import Advice, ModeAdvice, advise
from swarm.advice.costs import ModeCost, costs_of
from swarm.advice.evidence import Evidence, Expected, Judged
from swarm.advice.fleet import Fleet, FleetNode

__all__ = [
    "Advice",
    "Evidence",
    "Expected",
    "Fleet",
    "FleetNode",
    "Judged",
    "ModeAdvice",
    "ModeCost",
    "advise",
    "costs_of",
]
