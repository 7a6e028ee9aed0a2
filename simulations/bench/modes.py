"""The learning modes as a table: what a mode runs, and with which settings on which task.

A mode is a list of steps; each step is so many rounds of one kind of update.  Settings were chosen on the
seeds `VALIDATION_SEEDS`, by validation rows only; results are reported on others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from swarm.federation.reply import PER_BLOCK
from swarm.federation.strategy import DEFAULT_OPTIONS, PROTOTYPES, OptionValue, option_names
from swarm.wire.app import RoundMode

__all__ = [
    "AVERAGED", "AVERAGED_ROUNDS", "CHECK_EVERY", "DENSE", "MODES", "POLICY", "VALIDATION_SEEDS", "Averaged",
    "Mode", "Step", "server", "solver_options",
]  # fmt: skip

_ABOUT_CLEAR = "the sums of masked_sums in the clear and exact, nothing on the air up: what masks cost"

VALIDATION_SEEDS = (101, 102, 103)
POLICY = "policy"
"""The product's own decision: whether to learn together at all, and how far."""


@dataclass(frozen=True, slots=True)
class Step:
    """Rounds of one kind of update, to each of which about `per_round` nodes are invited (None: all).

    As many rounds as make `frames` updates of each node, or `rounds` where that is not 0.  After every
    `check_every` rounds the nodes judge their validation rows; the best version so far is what remains.
    `strategy` None: the mode's own one with the task's solver options; contexts whose shipped head
    validates better then keep that.  `clear`: no round, the strategy is given the nodes' own sums.
    `epsilon` of masked sums: 0 is without noise.
    """

    kind: RoundMode
    frames: float = 0.0
    rounds: int = 0
    per_round: int | None = None
    check_every: int = 1
    strategy: str | None = None
    options: dict[str, OptionValue] = field(default_factory=dict)
    clear: bool = False
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Mode:
    """A row of the table."""

    name: str
    about: str
    steps: tuple[Step, ...]

    def lasting(self, rounds: int | None) -> Mode:
        """The same with so many rounds wherever their number is fixed (None: as it is)."""
        steps = (replace(step, rounds=rounds) if rounds and step.rounds else step for step in self.steps)
        return replace(self, steps=tuple(steps))


CHECK_EVERY = 5
"""Rounds between two looks at validation rows."""

_PROTOTYPES = Step(RoundMode.PROTOTYPES, frames=1)
_FEATURES = Step(RoundMode.FEATURES, frames=1)
_SUMS = Step(RoundMode.MASKED_SUMS, frames=1)
_BLOCKS = Step(RoundMode.BLOCKS, frames=3, strategy="FedAvg" + PER_BLOCK)
_SIGNS = Step(RoundMode.TOP_K_SIGN, frames=3, per_round=100, check_every=CHECK_EVERY, strategy="FedAvg")
_ROUNDS = replace(_SIGNS, rounds=60)

MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("prototypes", "class means, one frame a node", (_PROTOTYPES,)),
        Mode("features", "the samples themselves, one frame a node, trained at the gateway", (_FEATURES,)),
        Mode("masked_sums", "class sums under masks, groups of 8, repaired", (_SUMS,)),
        Mode("private_sums", "the same with noise: epsilon 8, delta 1e-5", (replace(_SUMS, epsilon=8.0),)),
        Mode("clear_sums", _ABOUT_CLEAR, (replace(_SUMS, clear=True),)),
        Mode("blocks", "class means, then blocks: four frames a node", (_PROTOTYPES, _BLOCKS)),
        Mode("four_frames", "class means, then signs: four frames a node", (_PROTOTYPES, _SIGNS)),
        Mode("top_k_sign", "class means, then 60 rounds of signs of about 100 nodes", (_PROTOTYPES, _ROUNDS)),
        Mode(
            "top_k_int4",
            "the same with 4-bit levels",
            (_PROTOTYPES, replace(_ROUNDS, kind=RoundMode.TOP_K_INT4)),
        ),
        Mode(
            "dense_int8",
            "the adapter and the head in int8, 60 rounds of about 100 nodes, from the shipped heads",
            (replace(_ROUNDS, kind=RoundMode.DENSE_INT8),),
        ),
    )
}
DENSE = "dense_int8"


@dataclass(frozen=True, slots=True)
class Averaged:
    """Federated averaging outside the firmware (`simulations.bench.averaging`): every weight, or adapters.

    Step sizes of the nodes' gradients and of the server's Adam.
    """

    about: str
    whole: bool
    node_rate: float
    server_rate: float


AVERAGED = {
    "average_adapters": Averaged(
        "adapters in every expert, gate and heads in int8, 60 rounds of 100 nodes, FedAdam; no firmware",
        whole=False,
        node_rate=0.3,
        server_rate=0.02,
    ),
    "average_all": Averaged(
        "every weight in int8, else the same", whole=True, node_rate=0.1, server_rate=0.03
    ),
}
AVERAGED_ROUNDS = 60

_GENERAL: dict[str, OptionValue] = {
    "gain_min": 0.0,
    "identity_shrink": 2.0,
    "mean_shrink": 0.5,
    "keep_shipped": 0.0,
    "count_cap": 6.0,
    "balance": 0.0,
}
_VOICE: dict[str, OptionValue] = {
    "public_covariance": 0.5,
    "ridge": 0.03,
    "count_cap": 60.0,
    "prior_weight": 0.0,
}
_DISEASE: dict[str, OptionValue] = {"public_covariance": 1.0, "ridge": 0.03, "prior_weight": 0.0}
_SOLVER: dict[str, dict[str, OptionValue]] = {
    "agri": {"public_covariance": 1.0, "ridge": 1.0},
    "digits": {"public_covariance": 0.0, "ridge": 0.03, "balance": 0.5, "prior_weight": 0.0},
    "disease": _DISEASE,
    "disease_next": _DISEASE,
    "disease_real": _DISEASE,
    "disease_next_real": _DISEASE,
    "soil": {"public_covariance": 0.0, "ridge": 0.1, "balance": 0.5},
    "faults": {"public_covariance": 0.5, "ridge": 0.3},
    "faults_known": {"public_covariance": 0.5, "ridge": 1.0},
    "voice": _VOICE,
    "wake": _VOICE,
    "voice_left_out": _VOICE,
}
"""Found by `tools/choose_solver.py`."""
_REFINED: dict[str, dict[str, OptionValue]] = {"agri": {"ridge": 0.3, "balance": -1.0, "refine": 500.0}}
"""Of `prototypes` alone: what goes with the regression on class means, where it validates better."""


_SERVER_STEP = {"agri": 0.5, "digits": 2.0}
"""How far 60 rounds of signs go along the mean change, where 1.0 is not best on validation."""


def server(task: str, step: Step) -> tuple[str, dict[str, OptionValue]]:
    """The Flower strategy of a step's rounds and its options."""
    assert step.strategy is not None
    if step.kind is RoundMode.TOP_K_SIGN and step.rounds and task in _SERVER_STEP:
        return "FedAvgM", {"server_learning_rate": _SERVER_STEP[task], "server_momentum": 0.0}
    return step.strategy, step.options


def solver_options(task: str, strategy: str = PROTOTYPES) -> dict[str, OptionValue]:
    """Options of a strategy of ours for a task; `gain_min` 0: nodes judge here, not the gateway.

    They were found for `prototypes`; the others take those that mean the same to them.
    """
    chosen = {**_GENERAL, **_SOLVER.get(task, {}), **DEFAULT_OPTIONS.get(strategy, {})}
    if strategy == PROTOTYPES:
        chosen |= _REFINED.get(task, {})
    return {name: value for name, value in chosen.items() if name in option_names(strategy)}
