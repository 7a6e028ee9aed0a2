"""Random transmissions through the ledger, judged by an independent auditor; and the auditor's own cases."""

from __future__ import annotations

import itertools
import json

import pytest

from swarm.mac import ledger
from swarm.mac.ledger import AirtimeLedger
from tests.swarm.ledger_audit import HOUR_US, SECOND_US, Auditor, audit

S = SECOND_US
SEED = 868
M = (868_000_000, 868_600_000, 0.01)


def _audited(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    counts = audit(SEED, count)
    with capsys.disabled():
        again = f"python -m tests.swarm.ledger_audit {SEED} {count}"
        print(f"\nseed {SEED}: {json.dumps(counts)}; again: {again}")  # noqa: T201
    assert counts["asked"] >= count
    assert counts["late"] == 0, "the ledger is exact: 1 ms would be allowed"
    for what in ("put off", "given up", "never legal", "withdrawn", "restarts", "compared"):
        assert counts[what] > count // 10_000, f"nothing was audited of: {what}"


def test_two_hundred_thousand_transmissions_break_no_law(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: no hour of any sub-band is overfull, nothing legal is put off; both directions, all regions."""
    _audited(200_000, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_million_transmissions_break_no_law(capsys: pytest.CaptureFixture[str]) -> None:
    _audited(10_000_000, capsys)


def test_the_auditor_finds_the_fullest_hour() -> None:
    """Method: by hand; the fullest hour may begin at an edge, end at one, or cut frames at both ends."""
    auditor = Auditor(M)
    auditor.sent = [(0, 20 * S), (HOUR_US - S, HOUR_US + 9 * S)]
    assert auditor.fullest() == (21 * S, 0)
    auditor.sent.append((HOUR_US + 9 * S, HOUR_US + 30 * S))
    assert auditor.fullest() == (31 * S, HOUR_US - S)
    auditor.sent.append((5 * S, 20 * S))  # two at a time
    assert auditor.fullest() == (36 * S, 0)


def test_the_auditor_finds_the_first_legal_start() -> None:
    """Method: every second of a line is tried as a start, and all hours from second to second are summed."""
    auditor = Auditor(M)
    auditor.sent = [(at * S, (at + 12) * S) for at in (100, 900, 901, 3690)]

    def legal(at_s: int, airtime_s: int) -> bool:
        spans = [*auditor.sent, (at_s * S, (at_s + airtime_s) * S)]
        hours = range((at_s - 3600) * S, (at_s + airtime_s) * S, S)
        return all(
            sum(max(0, min(end, hour + HOUR_US) - max(start, hour)) for start, end in spans) <= 36 * S
            for hour in hours
        )

    for airtime_s, asked_s in itertools.product((7, 30), (0, 890, 3705)):
        tried = next(at_s for at_s in range(asked_s, 20_000) if legal(at_s, airtime_s))
        assert auditor.earliest_us(airtime_s * S, asked_s * S, 20_000 * S) == tried * S


@pytest.mark.parametrize("fault", ["budget", "memory", "future", "waiting"])
def test_the_auditor_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a ledger that is 1 ms too generous, forgets, sees no future or waits 2 ms more is caught."""
    band = ledger._Band
    real = band.earliest_us

    def generous(self: ledger._Band, airtime_us: int, not_before_us: int) -> int | None:
        self.budget_us += 1000
        answer_us = real(self, airtime_us, not_before_us)
        self.budget_us -= 1000
        return answer_us

    def hesitant(self: ledger._Band, airtime_us: int, not_before_us: int) -> int | None:
        answer_us = real(self, airtime_us, not_before_us)
        return answer_us if answer_us in (None, not_before_us) else real(self, airtime_us, answer_us + 2000)

    match fault:
        case "budget":
            monkeypatch.setattr(band, "earliest_us", generous)
        case "memory":
            monkeypatch.setattr(ledger, "LOOKAHEAD_US", -HOUR_US // 2)
        case "future":
            monkeypatch.setattr(band, "_overfull", lambda *_: None)
        case _:
            monkeypatch.setattr(band, "earliest_us", hesitant)
    monkeypatch.setattr(AirtimeLedger, "grant", _unchecked)
    with pytest.raises(AssertionError, match=r"again: python -m tests\.swarm\.ledger_audit \d+"):
        audit(SEED, 300_000)


def _unchecked(
    self: AirtimeLedger, at_us: int, frequency_hz: int, bandwidth_hz: int, airtime_us: int, purpose: object
) -> ledger.Grant:
    """`grant` without its own check, which would notice before the auditor."""
    found = self._band_of(frequency_hz, bandwidth_hz)
    assert found is not None
    grant = ledger.Grant(at_us, airtime_us, found.sub_band.name, purpose)  # type: ignore[arg-type]
    found.add(grant)
    return grant
