"""The world: a cell whose gateway is the core itself, in virtual time, with its evaluation and its checks.

Theory of operation.  The core is driven exactly as the daemon drives it: inputs in, effects out, a
`Store` performed before the `Transmit` behind it.  Rows go into dictionaries with the semantics of the
daemon's database, so that the gateway can be stopped at any instant and built again from what it had
stored (`restart_gateway`); its radio, a separate box, goes on.  People ask questions at random times
about random plots; the field knows the true answers.

    report = run("farm_1000", seed=7)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simulations.cell import DAY_US, GATEWAY_ID, Cell, Downlink
from simulations.checkers import Checkers
from simulations.evaluation import Evaluation, accuracy_table
from simulations.field import Field
from simulations.large_blocks import DeliveryWatch, container_of
from simulations.provisioning import Identity, group, identities, signing_seed
from simulations.report import Report, digest_of
from simulations.scenario import Scenario, load
from simulations.swarm_of_nodes import shipped_model
from simulations.versions import Versions
from swarm.commands import Command, SendBlock, SetMulticast
from swarm.coordinator import Coordinator
from swarm.effects import Effect, Event, Row, RxFrame, Store, Transmit, TxAck
from swarm.inference.plan import Query
from swarm.phy.regions import region as region_of
from swarm.prng import Prng
from swarm.receiver import Receivers
from swarm.registry import Refused
from swarm.security.signatures import SigningKey

__all__ = ["Progress", "World", "run"]

SIGN_OF_LIFE_US = 60_000_000
POLL_PAUSE_US = 100_000
"""A gateway that says it is due again at once is asked again after this."""
SPIN_UP_DAYS = 3
CURVE_POINTS = 10
SECOND_US = 1_000_000

Progress = Callable[[int, int], None]
"""Called with (days simulated, days to simulate)."""


class World:
    """One run.  `coordinator` is replaced by `restart_gateway`; `rows` is what it has stored."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        model: bytes | None = None,
        history_days: int = 0,
        field: Field | None = None,
    ) -> None:
        """`history_days`: labelled days that the nodes have behind them when the run begins.

        `field`: what the nodes stand in, if it is not to be made from the scenario; as long as that would be.
        """
        self.scenario = scenario
        self.model = shipped_model() if model is None else model
        self.field = (
            Field(
                scenario.nodes,
                scenario.days,
                scenario.seed,
                weather=scenario.weather or None,
                spin_up_days=SPIN_UP_DAYS + history_days,
                test_days=scenario.test_days,
                told_share=scenario.told_share,
            )
            if field is None
            else field
        )
        self.checkers = Checkers(scenario.region)
        self.identities: list[Identity] = identities(scenario, self.field)
        self.rows: dict[str, dict[str, Row]] = {}
        self.rounds: list[dict[str, Any]] = []
        self.queries: dict[int, dict[str, Any]] = {}
        self.events: dict[str, int] = {}
        self.start_us = (SPIN_UP_DAYS + history_days) * DAY_US
        self.end_us = self.start_us + scenario.days * DAY_US
        session = group(scenario)
        self.cell = Cell(
            scenario,
            self.field,
            self.identities,
            session,
            self.model,
            self,
            self.checkers,
            start_us=self.start_us,
            history_days=history_days,
        )
        self._prng = Prng(scenario.seed).child("world")
        self._versions = Versions(self.model, self.field.context)
        self._restart_rounds = _restart_rounds(scenario)
        self._asked: tuple[int, int] | None = None
        self._poll_us: int | None = None
        self.coordinator = self._new_coordinator()
        self._perform(self.start_us, self.coordinator.on_gateway(self.start_us, GATEWAY_ID))
        commands: list[Command] = [session, *(identity.add_node() for identity in self.identities)]
        for command in commands:
            result = self.coordinator.on_command(self.start_us, command)
            assert not isinstance(result, Refused), result.reason
            self._perform(self.start_us, result)
        self.watch: DeliveryWatch | None = None
        """Of the large block, where the scenario has one."""
        if scenario.large_block.at_s:
            self.watch = self.cell.checkers.watch = self._new_watch(session)
            self.cell.call_at(self.start_us + scenario.large_block.at_s * SECOND_US, self._send_block)
        self._plan_queries()
        self.cell.call_at(self.start_us + SIGN_OF_LIFE_US, self._sign_of_life)
        self._schedule_poll(self.start_us)

    # -- driving ----------------------------------------------------------------------------------

    def run_until(self, until_us: int) -> None:
        """Let the world go on until that time."""
        self.cell.run_until(until_us)

    def command(self, command: Command) -> list[Effect] | Refused:
        """Tell the gateway something, as an operator would; the effects are performed already."""
        now_us = self.cell.now_us
        result = self.coordinator.on_command(now_us, command)
        if not isinstance(result, Refused):
            self._perform(now_us, result)
            self._schedule_poll(now_us)
        return result

    def restart_gateway(self) -> None:
        """Stop the gateway's program now and build it again from its rows."""
        now_us = self.cell.now_us
        self.coordinator = self._new_coordinator()
        self._perform(now_us, self.coordinator.on_gateway(now_us, GATEWAY_ID))
        self._schedule_poll(now_us)

    def on_uplink(self, now_us: int, rx: RxFrame) -> None:
        """The gateway received a frame."""
        self._perform(now_us, self.coordinator.on_uplink(now_us, rx))
        self._schedule_poll(now_us)

    def _new_coordinator(self) -> Coordinator:
        rows = {table: {key: dict(row) for key, row in kept.items()} for table, kept in self.rows.items()}
        key = SigningKey(signing_seed(self.scenario))
        return Coordinator(self.scenario.swarm_config(), rows, self.model, key)

    def _schedule_poll(self, now_us: int) -> None:
        at_us = self.coordinator.poll_at()
        if at_us is None:
            self._poll_us = None
            return
        at_us = max(at_us, now_us)
        if at_us != self._poll_us:
            self._poll_us = at_us
            self.cell.call_at(at_us, self._poll)

    def _poll(self, now_us: int) -> None:
        if now_us != self._poll_us:
            return
        self._poll_us = None
        self._perform(now_us, self.coordinator.poll(now_us))
        at_us = self.coordinator.poll_at()
        self._schedule_poll(now_us + POLL_PAUSE_US if at_us is not None and at_us <= now_us else now_us)

    def _sign_of_life(self, now_us: int) -> None:
        if not self.cell.air.gateway_is_down(now_us):
            self._perform(now_us, self.coordinator.on_gateway(now_us, GATEWAY_ID))
            self._schedule_poll(now_us)
        self.cell.call_at(now_us + SIGN_OF_LIFE_US, self._sign_of_life)

    # -- a large block ----------------------------------------------------------------------------

    def _new_watch(self, session: SetMulticast) -> DeliveryWatch:
        body = container_of(self.scenario.seed, self.scenario.large_block, self.model)
        return DeliveryWatch(body, session, self.checkers.violations)

    def _send_block(self, now_us: int) -> None:
        """The operator hands the gateway a container."""
        assert self.watch is not None
        result = self.command(SendBlock(self.coordinator.blocks.signed(self.watch.body)))
        assert not isinstance(result, Refused), result.reason

    def delivered(self) -> dict[str, Any] | None:
        """The report's `multicast`: what became of the large block so far; None: there is none."""
        watch, channel = self.watch, self.cell.channel
        if watch is None:
            return None
        told = next(iter(self.coordinator.blocks.listing()), None)
        said = {} if told is None else told
        verified = watch.check(self.cell.now_us, Receivers(self.cell.nodes.firmware))
        complete = int(said.get("whole", 0))
        watch.check_books(self.cell.now_us, complete, verified, int(said.get("airtime_us", 0)))
        return watch.summary(self.cell.region, channel.data_rate, complete=complete, verified=verified)

    # -- performing effects -----------------------------------------------------------------------

    def _perform(self, now_us: int, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Store):
                self._store(effect)
            elif isinstance(effect, Transmit):
                error = self._transmit(now_us, effect)
                self._perform(now_us, self.coordinator.on_tx_ack(now_us, TxAck(effect.transmit_id, error)))
            elif isinstance(effect, Event):
                self._on_event(now_us, effect)

    def _store(self, store: Store) -> None:
        table = self.rows.setdefault(store.table, {})
        if store.row is None:
            table.pop(store.key, None)
            return
        table[store.key] = dict(store.row)
        if store.table == "model":
            self._versions.add(store.row)

    def _transmit(self, now_us: int, transmit: Transmit) -> str | None:
        if self.cell.air.gateway_is_down(now_us):
            return "UNREACHABLE"
        rate = region_of(self.scenario.region).data_rate(transmit.data_rate, uplink=False)
        return self.cell.transmit(
            now_us,
            Downlink(
                payload=transmit.payload,
                start_us=transmit.at_us,
                frequency_hz=transmit.frequency_hz,
                spreading_factor=rate.spreading_factor,
                bandwidth_hz=rate.bandwidth_hz,
                power_dbm=transmit.power_dbm,
                purpose=str(transmit.purpose),
            ),
        )

    def _on_event(self, now_us: int, event: Event) -> None:
        self.events[event.kind] = self.events.get(event.kind, 0) + 1
        self.checkers.on_event(event)
        data: dict[str, Any] = dict(event.data)
        match event.kind:
            case "round_opened":
                if data["round"] in self._restart_rounds:
                    half_us = self.scenario.learning.spread_s * SECOND_US // 2
                    self.cell.call_at(now_us + half_us, lambda _: self.restart_gateway())
            case "round_closed":
                self.checkers.on_versions(now_us, self._versions.differing(self.cell.nodes.firmware))
                self.rounds.append(self._round_row(data))
            case "query_asked" | "query_refused":
                if self._asked is not None:
                    node, asked_us = self._asked
                    self.queries[data["query_id"]] = {"node": node, "asked_us": asked_us}
                    self._asked = None
            case "query_answered":
                self.queries.setdefault(data["query_id"], {}).update(answer=data, answered_us=now_us)

    def _round_row(self, data: dict[str, Any]) -> dict[str, Any]:
        traffic = self.cell.traffic
        return {
            "round": data["round"],
            "mode": data["mode"],
            "updates": data["updates"],
            "late": data["late"],
            "model_version": data["model_version"],
            "digest": data["digest"],
            "score": data["score"],
            "opened_s": (data["opened_us"] - self.start_us) / SECOND_US,
            "closed_s": (data["closed_us"] - self.start_us) / SECOND_US,
            "airtime_up_s": sum(traffic.up_us.values()) / SECOND_US,
            "airtime_down_s": sum(traffic.down_us.values()) / SECOND_US,
        }

    # -- questions --------------------------------------------------------------------------------

    def _plan_queries(self) -> None:
        """People ask from the second day on, when there is something to know."""
        draws = self._prng.child("queries").numpy()
        days = max(self.scenario.days - 1, 0)
        count = int(draws.poisson(self.scenario.queries.per_day * days))
        times = np.sort(draws.random(count)) * days * DAY_US + self.start_us + DAY_US
        for at_us, node in zip(
            times.tolist(), draws.integers(0, self.scenario.nodes, count).tolist(), strict=True
        ):
            self.cell.call_at(int(at_us), partial(self._ask_later, node))

    def _ask_later(self, node: int, now_us: int) -> None:
        self.ask(now_us, node)

    def ask(self, now_us: int, node: int) -> None:
        """Somebody asks for the risk around the plot of `node`."""
        who = self.identities[node]
        named = self.scenario.queries.about == "plot"
        query = Query(
            "place",
            plot=who.plot if named else None,
            lat=None if named else who.lat,
            lon=None if named else who.lon,
            context=who.context,
            deadline_s=self.scenario.queries.deadline_s,
        )
        self._asked = (node, now_us)
        self._perform(now_us, self.coordinator.on_query(now_us, query))
        self._schedule_poll(now_us)

    def query_summary(self) -> dict[str, Any]:
        """The report's `queries`; a question without any node's answer counts as unanswered."""
        asked = list(self.queries.values())
        answered = [each for each in asked if each.get("answer", {}).get("value") is not None]
        latencies = [each["answer"]["latency_s"] for each in answered]
        correct = sum(
            each["answer"]["value"] == self._truth(each["node"], each["answered_us"]) for each in answered
        )
        traffic = self.cell.traffic
        return {
            "asked": len(asked),
            "answered": len(answered),
            "correct": correct,
            "p50_s": float(np.percentile(latencies, 50)) if latencies else None,
            "p95_s": float(np.percentile(latencies, 95)) if latencies else None,
            "airtime_s": (traffic.up_us["answer"] + traffic.down_us["query"]) / SECOND_US,
        }

    def _truth(self, node: int, at_us: int) -> int:
        """The true class of the noon-to-noon day that fills most of the 24 hours before `at_us`."""
        day = max(0, (at_us - DAY_US // 2) // DAY_US)
        return int(self.field.labels[day][node])

    # -- the end ----------------------------------------------------------------------------------

    def frames(self) -> dict[str, Any]:
        """The report's `frames`."""
        checkers = self.checkers
        lost = dict(sorted(checkers.lost.items()))
        return {"sent": checkers.sent, "received": checkers.received, "lost_by_cause": lost}

    def digest(self) -> str:
        """What two runs have in common when they were the same."""
        traffic = self.cell.traffic
        airtime_us = (sum(traffic.up_us.values()), sum(traffic.down_us.values()))
        return digest_of(self.rounds, self.frames(), airtime_us)

    def finish(self) -> None:
        """Close the books: windows, versions, frames and updates."""
        now_us = self.cell.now_us
        self.cell.windows.finish(now_us)
        self.checkers.on_versions(now_us, self._versions.differing(self.cell.nodes.firmware))
        current = self.coordinator.rounds.current
        self.checkers.finish(now_us, self.cell.air.frames_in_air, None if current is None else current.number)

    def curve_point(self, evaluation: Evaluation) -> dict[str, float]:
        """Where the fleet stands now."""
        traffic = self.cell.traffic
        return {
            "day": (self.cell.now_us - self.start_us) / DAY_US,
            "macro_f1": evaluation.score(self.cell.nodes.firmware).mean(),
            "airtime_s": (sum(traffic.up_us.values()) + sum(traffic.down_us.values())) / SECOND_US,
        }


def run(
    scenario: Scenario | str | Path,
    *,
    nodes: int | None = None,
    days: int | None = None,
    seed: int | None = None,
    weather: str | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Run a scenario to its end; ScenarioError says what is wrong with it."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    chosen = scenario if isinstance(scenario, Scenario) else load(scenario)
    chosen = chosen.override(nodes=nodes, days=days, seed=seed, weather=weather)
    world = World(chosen)
    evaluation = Evaluation(chosen, world.field, world.model)
    start = evaluation.score(world.cell.nodes.firmware)
    curve = [world.curve_point(evaluation)]
    every = max(1, chosen.days // CURVE_POINTS)
    for day in range(1, chosen.days + 1):
        world.run_until(world.start_us + day * DAY_US)
        if day % every == 0:
            curve.append(world.curve_point(evaluation))
        if on_progress is not None:
            on_progress(day, chosen.days)
    world.finish()
    end = evaluation.score(world.cell.nodes.firmware)
    report = _report(world, accuracy_table(start, end, evaluation.baselines()), curve)
    report.replay = _replay(scenario, chosen)
    report.cpu_s = round(time.process_time() - cpu_s, 3)
    report.wall_s = round(time.perf_counter() - wall_s, 3)
    return report


def _report(world: World, accuracy: dict[str, Any], curve: list[dict[str, float]]) -> Report:
    scenario, traffic, checkers = world.scenario, world.cell.traffic, world.checkers
    energy = world.cell.energy.per_node_day_mj(
        world.cell.windows.listened_us, world.cell.now_us - world.start_us
    )
    by_purpose = {**traffic.up_us, **traffic.down_us}
    delivered = world.delivered()
    return Report(
        scenario=scenario.name,
        seed=scenario.seed,
        nodes=scenario.nodes,
        virtual_days=(world.cell.now_us - world.start_us) / DAY_US,
        digest=world.digest(),
        rounds=world.rounds,
        accuracy=accuracy,
        airtime_s={
            "up": sum(traffic.up_us.values()) / SECOND_US,
            "down": sum(traffic.down_us.values()) / SECOND_US,
            "by_purpose": {purpose: spent / SECOND_US for purpose, spent in sorted(by_purpose.items())},
        },
        energy_mj_per_node_day=sum(energy.values()),
        energy_by_state_mj=energy,
        multicast=delivered,
        violations=checkers.violations.count,
        violations_explained=checkers.violations.explained,
        frames=world.frames(),
        downlinks={
            "sent": traffic.downlinks_sent,
            "received": traffic.downlinks_received,
            "lost_by_cause": dict(
                sorted((str(cause), count) for cause, count in traffic.downlinks_lost.items())
            ),
        },
        queries=world.query_summary(),
        curve=curve,
        cpu_s=0.0,
        wall_s=0.0,
        replay="",
    )


def _replay(given: Scenario | str | Path, chosen: Scenario) -> str:
    """The command that does exactly this again."""
    name = given if isinstance(given, str | Path) else given.name
    command = f"swarm sim run {name} --nodes {chosen.nodes} --days {chosen.days} --seed {chosen.seed}"
    return command + (f" --weather {chosen.weather}" if chosen.weather else "")


def _restart_rounds(scenario: Scenario) -> frozenset[int]:
    """The numbers of the rounds in whose middle the gateway is restarted: evenly over the run."""
    rounds = scenario.days * 86_400 // scenario.learning.period_s
    times = scenario.hardship.gateway_restarts
    return frozenset(max(1, rounds * (each + 1) // (times + 1)) for each in range(times))
