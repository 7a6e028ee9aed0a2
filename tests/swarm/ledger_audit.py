"""Random transmissions through the airtime ledger, against an auditor that knows the law only.

    python -m tests.swarm.ledger_audit SEED [COUNT]      # the same again: COUNT transmissions

A trial is one transmitter: a node or a gateway in some region, with a habit of sending, a patience, and
mishaps (frames that were not sent after all, restarts).  It sends in some sub-bands of the region, from a
random instant on.  Afterwards the auditor (`airtime_auditor.c`, compiled here) sums every hour that begins
or ends at an edge of a transmission.  Of the starts that the ledger put off, a sample is compared with the
first legal start, which the auditor finds by trying all instants at which a start can turn legal.  Limits are
written here once more, from ERC/REC 70-03 and RP002, so that the project's tables are not their own judge.
"""

from __future__ import annotations

import ctypes
import json
import random
import subprocess
import sys
import tempfile
from bisect import bisect_left, insort
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from swarm.effects import Purpose
from swarm.mac.ledger import AirtimeLedger, Grant
from swarm.phy.regions import region

__all__ = ["BATCH", "Auditor", "Trial", "audit"]

HOUR_US = 3_600_000_000
SECOND_US = 1_000_000
LATE_MAX_US = 1_000
"""An answer may be so much later than the first legal start."""
SOURCE = Path(__file__).with_name("airtime_auditor.c")
BATCH = 5_000
"""Requests of one trial."""
DWELL_US = 400_000
LIMITS = {
    "eu868": (
        (863_000_000, 865_000_000, 0.001),
        (865_000_000, 868_000_000, 0.01),
        (868_000_000, 868_600_000, 0.01),
        (868_700_000, 869_200_000, 0.001),
        (869_400_000, 869_650_000, 0.1),
        (869_700_000, 870_000_000, 0.01),
    ),
    "as923": ((923_000_000, 923_500_000, 0.01),),
    "ru864": ((864_000_000, 870_000_000, 0.01),),
    "eu433": ((433_175_000, 434_665_000, 0.1),),
    "us915": ((902_300_000, 914_900_000, 1.0), (923_300_000, 927_500_000, 1.0)),
    "au915": ((915_000_000, 928_000_000, 1.0),),
    "in865": ((865_000_000, 867_000_000, 1.0),),
    "kr920": ((920_000_000, 923_000_000, 1.0),),
    "cn470": ((470_000_000, 510_000_000, 1.0),),
}
"""Lowest and highest frequency (Hz) of each sub-band, and the share of any hour."""
DWELLS = ("as923", "us915", "au915")
"""Where one transmission of up to 250 kHz may last 400 ms, from the boot on."""
CENTRES = ("us915", "eu433")
"""Where the table gives the outermost channel centres: a signal may reach out beyond them."""
HABITS = ("steady", "greedy", "bursts", "ahead", "answers")
"""Random instants; as soon as it may; long silences; up to an hour ahead; answers between frames ahead."""
PATIENCES_US = (0, 2 * SECOND_US, 600 * SECOND_US, HOUR_US)
"""What it waits for, and gives up beyond."""
ODD_US = (1, 10_000, 399_999, 400_000, 400_001, 3_600_000, 3_600_001, 36_000_000, 36_000_001, 360_000_001)
"""Airtimes that no radio sends, but the law speaks of."""
COMPARED = 0.05
"""Share of the answers that say "later" and are compared with the first legal start."""
COMPARED_MAX = 80
"""Frames near an answer up to which its first legal start is looked for: the cube of their number is work."""


@cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="auditor") as folder:
        made = Path(folder) / "auditor.so"
        strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", *strict, str(SOURCE), "-o", str(made)], check=True)
        library = ctypes.CDLL(str(made))
    library.auditor_fullest.restype = library.auditor_earliest.restype = ctypes.c_int64
    return library


class Auditor:
    """The transmissions of one sub-band as (start, end), and what the law says of them."""

    def __init__(self, band: tuple[int, int, float]) -> None:
        self.band = band
        self.budget_us = round(band[2] * HOUR_US)
        self.sent: list[tuple[int, int]] = []

    def fullest(self) -> tuple[int, int]:
        """Time on air in the fullest of all hours, and where that begins (us)."""
        start, end = _columns(self.sent)
        from_us = ctypes.c_int64(0)
        found = _library().auditor_fullest(
            _pointer(start), _pointer(end), ctypes.c_size_t(len(start)), ctypes.byref(from_us)
        )
        return int(found), from_us.value

    def earliest_us(self, airtime_us: int, asked_us: int, until_us: int) -> int | None:
        """The first legal start in [asked_us, until_us) by brute force; None: none, -1: not tried."""
        low_us, high_us = asked_us - HOUR_US, until_us + airtime_us + HOUR_US
        near = [(start, end) for start, end in self.sent if start < high_us and low_us < end]
        if len(near) > COMPARED_MAX:
            return -1
        start, end = _columns(near)
        scratch = np.empty(20 * len(near) + 1, dtype=np.int64)
        numbers = (self.budget_us, airtime_us, asked_us, until_us)
        found = _library().auditor_earliest(
            _pointer(start),
            _pointer(end),
            ctypes.c_size_t(len(near)),
            *(ctypes.c_int64(number) for number in numbers),
            _pointer(scratch),
        )
        return None if found < 0 else int(found)


def _columns(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(sorted(spans), dtype=np.int64).reshape(-1, 2)
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Trial:
    """One transmitter's life, drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        draw = self.draw = random.Random(seed)
        # Most where the sub-bands are many, few where no hour is limited.
        self.name = draw.choices(list(LIMITS), (10, 2, 2, 2, *[0.4] * 5))[0]
        self.up = draw.random() < 0.5
        self.habit = draw.choice(HABITS)
        self.patience_us = draw.choice(PATIENCES_US)
        self.one_radio = draw.random() < 0.8
        """Whether its frames keep out of one another's way, as those of a radio do."""
        self.load = 10 ** draw.uniform(-0.7, 0.4)
        """How much it would send, in budgets."""
        self.withdraws, self.restarts = draw.choice((0.0, 0.0, 0.05, 0.3)), draw.choice((0.0, 0.0, 0.002))
        self.region = region(self.name)
        self.ledger = AirtimeLedger(self.region)
        bands = LIMITS[self.name]
        self.auditors = [
            Auditor(band) for band in draw.sample(bands, min(draw.choice((1, 1, 2, 6)), len(bands)))
        ]
        self.kinds = self._kinds()
        self.now_us = draw.randrange(2_000_000_000_000_000)
        self.busy: list[tuple[int, int]] = []
        self.waiting: list[tuple[Grant, Auditor]] = []
        self.counts: Counter[str] = Counter()

    def _kinds(self) -> list[tuple[int, int]]:
        """Airtime and bandwidth of the frames that it sends: real ones, of up to six data rates."""
        rates = self.region.uplink_data_rates if self.up else self.region.downlink_data_rates
        lora = [index for index, rate in rates.items() if rate.kind == "lora"]
        chosen = self.draw.sample(lora, min(len(lora), self.draw.choice((1, 2, 6))))
        frames = [(self.draw.choice(chosen), self.draw.randrange(12, 235)) for _ in range(40)]
        return [
            (self.region.airtime_us(index, size, uplink=self.up), rates[index].bandwidth_hz)
            for index, size in frames
        ]

    def run(self) -> Counter[str]:
        """Ask `BATCH` times, then let the auditors judge."""
        for _ in range(BATCH):
            self._request()
            if self.draw.random() < self.restarts:
                rows = json.loads(json.dumps(self.ledger.rows(self.now_us)))
                self.ledger = AirtimeLedger(self.region)
                self.ledger.restore(rows)
                self.counts["restarts"] += 1
        for auditor in self.auditors:
            if (
                auditor.band[2] == 1.0
            ):  # no law on the hour, and frames that overlap would be more than all of it
                continue
            spent_us, from_us = auditor.fullest()
            assert spent_us <= auditor.budget_us, (
                f"{spent_us} us in the hour from {from_us} us in {auditor.band}"
            )
            self.counts["hours"] += 4 * len(auditor.sent)
        return self.counts

    def _request(self) -> None:
        draw = self.draw
        airtime_us, bandwidth_hz = draw.choice(self.kinds)
        if draw.random() < 0.002:
            airtime_us = draw.choice(ODD_US)
        auditor = draw.choice(self.auditors)
        frequency_hz, inside = self._frequency(auditor, bandwidth_hz)
        dwells = self.name in DWELLS and bandwidth_hz <= 250_000 and airtime_us > DWELL_US
        possible = inside and not dwells and airtime_us <= auditor.budget_us
        asked_us = self._when(airtime_us, auditor)
        at_us = self._place(auditor, frequency_hz, bandwidth_hz, airtime_us, asked_us)
        self.counts["asked"] += 1
        assert (at_us is not None) == possible, (frequency_hz, bandwidth_hz, airtime_us, asked_us, at_us)
        if at_us is None:
            self.counts["never legal"] += 1
        elif at_us - asked_us > self.patience_us:
            self.counts["given up"] += 1
        else:
            grant = self.ledger.grant(at_us, frequency_hz, bandwidth_hz, airtime_us, Purpose.MODEL)
            auditor.sent.append((at_us, at_us + airtime_us))
            self.counts["sent"] += 1
            if self.one_radio:
                insort(self.busy, (at_us, at_us + airtime_us))
            if self.withdraws:
                self._withdraw(grant, auditor)

    def _frequency(self, auditor: Auditor, bandwidth_hz: int) -> tuple[int, bool]:
        """A frequency for the sub-band, and whether the signal is inside; one in a hundred is not quite."""
        low_hz, high_hz, _ = auditor.band
        margin_hz = 0 if self.name in CENTRES else bandwidth_hz // 2
        if low_hz + margin_hz > high_hz - margin_hz:
            return low_hz + margin_hz, False
        if self.draw.random() < 0.01:
            return high_hz - margin_hz + self.draw.randrange(1, 60_000), False
        return self.draw.randrange(low_hz + margin_hz, high_hz - margin_hz + 1), True

    def _place(
        self, auditor: Auditor, frequency_hz: int, bandwidth_hz: int, airtime_us: int, asked_us: int
    ) -> int | None:
        """The ledger's answer; for one radio, the first that also keeps clear of its other frames."""
        while True:
            answer_us = self.ledger.earliest_us(frequency_hz, bandwidth_hz, airtime_us, asked_us)
            if answer_us is None:
                return None
            if answer_us > asked_us:
                self._judge_the_wait(auditor, airtime_us, asked_us, answer_us)
            free_us = self._free_us(answer_us, airtime_us) if self.one_radio else answer_us
            if free_us == answer_us:
                return answer_us
            asked_us = free_us

    def _free_us(self, at_us: int, airtime_us: int) -> int:
        index = max(0, bisect_left(self.busy, (at_us, 0)) - 1)
        while index < len(self.busy) and self.busy[index][0] < at_us + airtime_us:
            at_us = max(at_us, self.busy[index][1])
            index += 1
        return at_us

    def _judge_the_wait(self, auditor: Auditor, airtime_us: int, asked_us: int, answer_us: int) -> None:
        assert auditor.band[2] < 1.0, "put off where no law is"
        self.counts["put off"] += 1
        if self.draw.random() >= COMPARED:
            return
        first_us = auditor.earliest_us(airtime_us, asked_us, answer_us + 1)
        if first_us == -1:
            return
        self.counts["compared"] += 1
        assert first_us is not None, f"{airtime_us} us asked for {asked_us}: {answer_us} is not legal"
        late_us = answer_us - first_us
        assert late_us <= LATE_MAX_US, (
            f"{airtime_us} us asked for {asked_us}: {answer_us} is {late_us} us too late"
        )
        self.counts["late"] += late_us > 0

    def _withdraw(self, grant: Grant, auditor: Auditor) -> None:
        """Now and then one of the last frames is not sent after all, unless it is on the air already."""
        self.waiting = [*self.waiting[-15:], (grant, auditor)]
        if self.draw.random() >= self.withdraws:
            return
        grant, auditor = self.waiting.pop(self.draw.randrange(len(self.waiting)))
        if grant.at_us > self.now_us:
            self.ledger.release(grant)
            span = (grant.at_us, grant.at_us + grant.airtime_us)
            auditor.sent.remove(span)
            if self.one_radio:
                self.busy.remove(span)
            self.counts["withdrawn"] += 1

    def _when(self, airtime_us: int, auditor: Auditor) -> int:
        """When it wants to send: never before `now_us`, which goes on."""
        draw = self.draw
        gap_us = int(draw.expovariate(self.load) * airtime_us / auditor.band[2] / len(self.auditors))
        match self.habit:
            case "greedy":
                self.now_us = max(self.now_us, auditor.sent[-1][1] if auditor.sent else 0)
                return self.now_us
            case "bursts":
                self.now_us += draw.randrange(3 * HOUR_US) if draw.random() < 0.01 else gap_us // 10
                return self.now_us
        self.now_us += gap_us
        if self.habit == "ahead" or (self.habit == "answers" and draw.random() < 0.3):
            return self.now_us + draw.randrange(HOUR_US)
        return self.now_us + (SECOND_US if self.habit == "answers" else 0)


def audit(seed: int, count: int) -> Counter[str]:
    """Trials from `seed` on, `count` transmissions; AssertionError says how to repeat the one at fault."""
    counts: Counter[str] = Counter()
    while counts["asked"] < count:
        counts += _trial(seed + counts["trials"])
        counts["trials"] += 1
    return counts


def _trial(seed: int) -> Counter[str]:
    try:
        return Trial(seed).run()
    except AssertionError as error:
        raise AssertionError(f"{error}; again: python -m tests.swarm.ledger_audit {seed}") from error


def main() -> None:
    """Repeat trials, and print what they counted."""
    seed = int(sys.argv[1])
    print(dict(audit(seed, int(sys.argv[2]) if len(sys.argv) > 2 else 1)))  # noqa: T201


if __name__ == "__main__":
    main()
