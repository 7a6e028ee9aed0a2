"""Readings that nodes lend one another: who needs some, from whom, whether it helps, and what it costs.

Theory of operation.  What a node does is an order (SHARE): what to send each day, what of others' to use,
how to correct its own humidity.  Each STATUS tells the number of the order in force; as long as it is not
the wanted one, the order goes down in that STATUS's receive window.  Orders end by themselves and are
renewed in time, so that nothing goes on when the gateway is gone.

    survey     each node sends its hours for a week, its neighbours with it
    decide     `inference.pairing`: defects of its humidity, neighbours, the most alike first;
               what is missing is borrowed, what is biased is corrected, and what would not help is refused
    compare    a week of weather may flatter a neighbour: who borrows humidity, and whoever might lend it,
               go on with their temperatures, and lenders are chosen again from all of it
    lend       lenders send their day after each noon; a borrower asks for it, and is answered in the receive
               window of its own request with the mean of its lenders; one more sends where frames get lost
    watch      a lender that falls silent is left for the next one; a borrower whose labels say that its own
               readings were right more often is left alone

Days are kept as nodes sent them (table `reading`, `KEPT_DAYS` a node), orders and decisions in table
`sharing`: a restart goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import islice

from swarm.config import Borrowing as Settings
from swarm.downlinks import Downlinks, Pending
from swarm.effects import Effect, Event, Purpose, Row, Store, integers
from swarm.inference.loan import composed, text_of
from swarm.inference.pairing import Defect, Match, Witness, defect_of, match, rainy_hours, together
from swarm.inference.plan import distance_m
from swarm.phy.regions import Region
from swarm.queued import Payload
from swarm.registry import Entry, NodeRecord, Registry
from swarm.wire import app
from swarm.wire import readings as wire
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["Borrowing"]

DAY_US = 86_400_000_000
KEPT_DAYS = 32
"""As long as a survey and a comparison may last, and two more."""
PRIOR_PER_KM = 0.05
"""How much farther apart (`Match.apart`) a kilometre makes two nodes: near ones share showers and soil, which
days of temperatures may not show."""
UNPLACED_M = 5_000.0
NEIGHBOURS_MAX = 8
"""Neighbours that are surveyed with a node, the nearest ones, and so many lenders are remembered."""
SILENT_DAYS = 5
RENEW_DAYS = 7
LEAKY_DAYS = 14
LEAKY_SHARE = 0.8
"""Of the lenders' frames of these days: when fewer came, one more lends, so that few days go without any."""
REFUSED_DAYS = 30
LATE_DAYS = 2
"""Days that a survey may take longer because frames or orders were lost."""
NOON_SLACK_US = 900_000_000
"""Noons are known to some ten minutes: a day's number is that of the time a little later."""
EXPIRES_US = 600_000_000
NO_HUMIDITY, NO_RAIN, SUSPECTS = 1, 2, 8
SHARE_SHIFT = 4
TOLD_MIN = 8
RAINY_MIN = 24
COVERED_SHARE = 0.8
"""Of the rainy hours of a lender: where so many are humid anyway, its rain is refused."""


@dataclass(slots=True)
class _Member:
    """One node's part; times in us, 0: never.  Lenders are DevEUIs with blanks between, best first."""

    share_id: int = 0
    send: int = 0
    use: int = 0
    offset_half: int = 0
    until_us: int = 0
    survey_us: int = 0
    survey_until_us: int = 0
    decided_us: int = 0
    refused_until_us: int = 0
    needs: int = 0
    humidity_from: str = ""
    humidity_correlation: float = 0.0
    rain_from: str = ""
    rain_correlation: float = 0.0
    correction_half: int = 0
    rainy_hours: int = 0
    humid_rainy_hours: int = 0

    def to_row(self) -> Row:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> _Member:
        integers(row, *(each.name for each in fields(cls) if each.type == "int"))
        return cls(**{each.name: row[each.name] for each in fields(cls)})  # type: ignore[arg-type]


class Borrowing:
    """The loans of one cell."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        downlinks: Downlinks,
        region: Region,
        rows: Mapping[str, Mapping[str, Row]],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._downlinks = downlinks
        self._region = region
        self._members = {key: _Member.from_row(row) for key, row in rows.get("sharing", {}).items()}
        self._days: dict[str, dict[int, app.Readings]] = {}
        self._sizes: dict[str, int] = {}
        for row in rows.get("reading", {}).values():
            dev_eui, payload = str(row["dev_eui"]), bytes(row["payload"])  # type: ignore[arg-type]
            message = app.decode_uplink(app.F_PORT_STATUS, payload)
            if isinstance(message, app.Readings):
                self._days.setdefault(dev_eui, {})[int(row["day"])] = message  # type: ignore[arg-type]
                self._sizes[dev_eui] = len(payload)
        # lender -> borrower -> what it sends for it each day, and what it would if others' frames get lost
        self._borrowers: dict[str, dict[str, tuple[int, int]]] = {}
        for dev_eui, member in self._members.items():
            for lender in _names(f"{member.humidity_from} {member.rain_from}"):
                if lender not in self._members:  # removed by a daemon that left its name here
                    _strike(member, lender)
            self._lend(dev_eui, member)

    # -- inputs -----------------------------------------------------------------------------------

    def on_status(self, now_us: int, entry: Entry) -> list[Effect]:
        """A node reported: see what it needs, and whether it does what it was told."""
        if not self._settings.enabled:
            return []
        dev_eui, flags = entry.record.dev_eui, entry.status.flags or 0
        member = self._members.setdefault(dev_eui, _Member())
        before = member.to_row()
        effects: list[Effect] = []
        if now_us - member.survey_us > self._settings.survey_every_days * DAY_US or not member.survey_us:
            effects += self._survey(now_us, entry, member)
        needs = flags & (NO_HUMIDITY | NO_RAIN | SUSPECTS)
        if self._surveyed(now_us, dev_eui, member) and (
            self._is_due(now_us, member) or needs != member.needs
        ):
            member.needs = needs
            effects += self._decide(now_us, entry, member)
        elif member.rain_from:
            effects += self._judge_rain(now_us, entry, member)
        self._order(now_us, entry, member, flags >> SHARE_SHIFT)
        if member.to_row() != before:
            effects.append(Store("sharing", dev_eui, member.to_row()))
        return effects

    def on_readings(self, now_us: int, entry: Entry, message: app.Readings) -> list[Effect]:
        """A node's day."""
        dev_eui = entry.record.dev_eui
        member = self._members.get(dev_eui)
        if not self._settings.enabled or member is None:
            return [Event("readings_unasked", now_us, {"dev_eui": dev_eui})]
        day = _day(now_us, message.age)
        days = self._days.setdefault(dev_eui, {})
        known = day in days
        payload = app.encode(message)
        days[day] = message
        self._sizes[dev_eui] = len(payload)
        for old in sorted(days)[:-KEPT_DAYS]:
            del days[old]
        effects: list[Effect] = [
            Store(
                "reading",
                f"{dev_eui} {day % KEPT_DAYS}",
                {"dev_eui": dev_eui, "day": day, "payload": payload},
            ),
            Event("readings", now_us, {"dev_eui": dev_eui, "node": entry.record.name, "size": len(payload)}),
        ]
        rainy, humid = rainy_hours(message)
        if rainy and not known:
            member.rainy_hours += rainy
            member.humid_rainy_hours += humid
            effects.append(Store("sharing", dev_eui, member.to_row()))
        return effects

    def on_request(self, now_us: int, entry: Entry, message: app.ReadingsRequest) -> list[Effect]:
        """A borrower asks for a day; it is answered at once, or asks again later."""
        dev_eui = entry.record.dev_eui
        member = self._members.get(dev_eui)
        if not self._settings.enabled or member is None:
            return []
        if message.labelled >= TOLD_MIN and message.own_right > message.borrowed_right + 1:
            return self._refuse_by_labels(now_us, entry, member, message)
        day = _day(now_us, message.age)
        effects = self._leave_silent(now_us, entry, member, day)
        lent = composed(
            self._days_of(member.humidity_from, day, wire.HUMIDITY),
            self._days_of(member.rain_from, day, wire.RAIN),
        )
        if lent is None:
            return [*effects, Event("readings_not_there", now_us, {"dev_eui": dev_eui})]
        noon_us = now_us - message.age * wire.AGE_STEP_US

        def payload(at_us: int) -> bytes:
            age = min(max(at_us - noon_us, 0) // wire.AGE_STEP_US, 255)
            return app.encode(app.Readings(age, *lent))

        size = len(payload(now_us))
        self._enqueue(now_us, dev_eui, payload, size, "readings")
        return [*effects, Event("readings_lent", now_us, {"dev_eui": dev_eui, "size": size})]

    def _days_of(self, names: str, day: int, quantity: int) -> list[app.Readings]:
        """That day of its lenders; where one's frame was lost, of the next that lends it to others."""
        days = [found for each in _names(names) if (found := self._days.get(each, {}).get(day)) is not None]
        humid = quantity == wire.HUMIDITY
        usable = [found for found in days if (found.humidity if humid else found.rainy) is not None]
        return usable[: self._settings.lenders]

    def forget(self, dev_eui: str) -> list[Store]:
        """The node was removed."""
        self._days.pop(dev_eui, None)
        member = self._members.pop(dev_eui, None)
        if member is None:
            return []
        self._lend(dev_eui, _Member())
        stores = [Store("reading", f"{dev_eui} {slot}", None) for slot in range(KEPT_DAYS)]
        for borrower in self._borrowers.pop(dev_eui, {}):
            _strike(self._members[borrower], dev_eui)
            self._lend(borrower, self._members[borrower])
            stores.append(Store("sharing", borrower, self._members[borrower].to_row()))
        return [*stores, Store("sharing", dev_eui, None)]

    def parties(self) -> tuple[frozenset[str], frozenset[str]]:
        """(nodes that borrow or are corrected, nodes that lend) by the decisions as they stand."""
        borrowers = {
            dev_eui
            for dev_eui, member in self._members.items()
            if member.humidity_from or member.rain_from or member.correction_half
        }
        lenders = {
            lender
            for lender, loans in self._borrowers.items()
            for sends, spare in loans.values()
            if sends or spare & ~wire.TEMPERATURE & self._members.get(lender, _Member()).send
        }
        return frozenset(borrowers), frozenset(lenders)

    # -- orders -----------------------------------------------------------------------------------

    def _order(self, now_us: int, entry: Entry, member: _Member, confirmed: int) -> None:
        """Send the wanted order down while the node does not say that it follows it."""
        dev_eui = entry.record.dev_eui
        wanted = self._wanted(now_us, dev_eui, member)
        idle = not any(wanted)
        if idle and not confirmed:
            member.send = member.use = member.offset_half = member.until_us = 0
            return
        left_us = member.until_us - now_us
        if wanted != (member.send, member.use, member.offset_half) or left_us < RENEW_DAYS * DAY_US:
            member.share_id = member.share_id % wire.SHARE_ID_MAX + 1
            member.send, member.use, member.offset_half = wanted
            member.until_us = now_us + self._settings.lease_days * DAY_US
        if idle or confirmed != member.share_id:
            days = 0 if idle else max((member.until_us - now_us) // DAY_US, 1)
            payload = app.encode(app.Share(member.share_id, *wanted, days))
            self._enqueue(now_us, dev_eui, payload, len(payload), "share")

    def _wanted(self, now_us: int, dev_eui: str, member: _Member) -> tuple[int, int, int]:
        """What the node should send, use and add to its humidity."""
        send = wire.TEMPERATURE if self._compares(now_us, member) else 0
        for borrower, (sends, spare) in self._borrowers.get(dev_eui, {}).items():
            send |= sends | (wire.TEMPERATURE if self._compares(now_us, self._members[borrower]) else 0)
            if spare and self._leaks(now_us, self._members[borrower]):
                send |= spare
        if now_us < member.survey_until_us and not self._has_survey(dev_eui, member):
            sensors = self._sensors(dev_eui)  # rain without humidity says nothing in a survey
            send |= wire.TEMPERATURE | (sensors if sensors & wire.HUMIDITY else 0)
        use = wire.USE_HUMIDITY if member.humidity_from else 0
        use |= wire.USE_RAIN if member.rain_from and not self._rain_is_open(member) else 0
        return send & (self._sensors(dev_eui) | wire.TEMPERATURE), use, member.correction_half

    def _sensors(self, dev_eui: str) -> int:
        entry = self._registry.get(dev_eui)
        flags = (entry.status.flags or 0) if entry is not None else NO_HUMIDITY | NO_RAIN
        return (0 if flags & NO_HUMIDITY else wire.HUMIDITY) | (0 if flags & NO_RAIN else wire.RAIN)

    def _enqueue(self, now_us: int, dev_eui: str, payload: Payload, size: int, tag: str) -> None:
        expires_us = now_us + EXPIRES_US
        pending = Pending(app.F_PORT_STATUS, payload, size, Purpose.LENDING, expires_us, tag)
        self._downlinks.enqueue(dev_eui, pending)

    # -- surveys ----------------------------------------------------------------------------------

    def _survey(self, now_us: int, entry: Entry, member: _Member) -> list[Effect]:
        """Ask the node, and the neighbours that it will be compared with, for their days."""
        until_us = now_us + (self._settings.survey_days + LATE_DAYS) * DAY_US
        member.survey_us, member.survey_until_us = now_us, until_us
        effects: list[Effect] = []
        for each in islice(self._near(entry), NEIGHBOURS_MAX):
            neighbour = self._members.setdefault(each, _Member())
            if now_us >= neighbour.survey_until_us:
                neighbour.survey_us, neighbour.survey_until_us = now_us, until_us
                effects.append(Store("sharing", each, neighbour.to_row()))
        return effects

    def _has_survey(self, dev_eui: str, member: _Member) -> bool:
        return len(self._survey_days(dev_eui, member)) >= self._settings.survey_days

    def _survey_days(self, dev_eui: str, member: _Member) -> dict[int, app.Readings]:
        """What the node sent since its survey began: days of another season say nothing beside these."""
        since = _day(member.survey_us, 0)
        return {day: found for day, found in self._days.get(dev_eui, {}).items() if day > since}

    def _surveyed(self, now_us: int, dev_eui: str, member: _Member) -> bool:
        return bool(member.survey_us) and (
            now_us >= member.survey_until_us or self._has_survey(dev_eui, member)
        )

    def _compares(self, now_us: int, member: _Member) -> bool:
        """Whether the node's temperatures, and those of all that might lend to it, are still wanted."""
        return bool(member.humidity_from) and now_us < self._compared_us(member)

    def _compared_us(self, member: _Member) -> int:
        return member.survey_us + self._settings.compare_days * DAY_US

    def _is_due(self, now_us: int, member: _Member) -> bool:
        """Whether to decide: after a survey, and after the comparison, for which a loan that runs waits."""
        compared_us = self._compared_us(member)
        if member.humidity_from and compared_us > member.survey_us:
            return member.decided_us < compared_us <= now_us
        return member.decided_us < member.survey_us

    def _near(self, entry: Entry) -> dict[str, float]:
        """Other nodes that were heard and how far away they are (m), the nearest first."""
        here = entry.record
        found = [
            (_away_m(here, other.record), other.record.node_index, other.record.dev_eui)
            for other in self._registry
            if other.reachable and other.status.data_rate is not None and other is not entry
        ]
        return {dev_eui: away_m for away_m, _, dev_eui in sorted(found)}

    # -- decisions --------------------------------------------------------------------------------

    def _decide(self, now_us: int, entry: Entry, member: _Member) -> list[Effect]:
        """Judge the node's sensors and choose its lenders from what the survey brought."""
        dev_eui = entry.record.dev_eui
        ranked = self._ranked(entry)
        if ranked is None:
            return self._survey(now_us, entry, member)
        defect = self._defect(dev_eui, ranked)
        member.decided_us = now_us
        lacks = bool(member.needs & (NO_HUMIDITY | SUSPECTS)) or (
            defect is not None and defect.kind != "biased"
        )
        effects: list[Effect] = []
        if defect is not None:
            data = {**_who(entry), "kind": defect.kind, "bias_pct": defect.bias_pct}
            effects.append(Event("sensor_suspected", now_us, data))
        if now_us < member.refused_until_us:
            return effects
        humidity = [each for each in ranked if self._sensors(each[0]) & wire.HUMIDITY] if lacks else []
        rain = [each for each in ranked if self._sensors(each[0]) & wire.RAIN]
        rain = rain if member.needs & NO_RAIN else []
        member.correction_half = max(-128, min(127, 0 if defect is None else defect.offset_half))
        member.humidity_from = " ".join(dev for dev, _ in humidity[:NEIGHBOURS_MAX])
        member.humidity_correlation = humidity[0][1].correlation if humidity else 0.0
        member.rain_from = " ".join(dev for dev, _ in rain[:NEIGHBOURS_MAX])
        member.rain_correlation = rain[0][1].correlation if rain else 0.0
        self._lend(dev_eui, member)
        if lacks:
            effects.append(
                self._told(now_us, entry, "humidity", member.humidity_from, member.humidity_correlation)
            )
        if member.needs & NO_RAIN and not rain:
            effects.append(self._told(now_us, entry, "rain", "", 0.0))
        return effects + self._judge_rain(now_us, entry, member)

    def _defect(self, dev_eui: str, ranked: list[tuple[str, Match]]) -> Defect | None:
        """What is wrong with the node's humidity sensor, if it has one and sent its hours."""
        survey = self._survey_days(dev_eui, self._members[dev_eui])
        days = {day: found for day, found in survey.items() if found.humidity is not None}
        if not days or not self._sensors(dev_eui) & wire.HUMIDITY:
            return None
        witnesses = [
            Witness(*together(days, self._days[other]), found.correlation)
            for other, found in ranked
            if found.by == "humidity"
        ]
        return defect_of(together(days, days)[0], witnesses)

    def _judge_rain(self, now_us: int, entry: Entry, member: _Member) -> list[Effect]:
        """Refuse the rain of lenders whose rainy hours are humid anyway; say so once it is known."""
        names = _names(member.rain_from)
        useful = [each for each in names if self._covered(each) < COVERED_SHARE]
        if useful != names:
            member.rain_from = " ".join(useful)
            self._lend(entry.record.dev_eui, member)
        if not names or self._rain_is_open(member) or (useful and member.use & wire.USE_RAIN):
            return []
        return [self._told(now_us, entry, "rain", member.rain_from, member.rain_correlation)]

    def _ranked(self, entry: Entry) -> list[tuple[str, Match]] | None:
        """Sound neighbours that follow the node well enough, the best first; None: no hours are common."""
        own = self._survey_days(entry.record.dev_eui, self._members[entry.record.dev_eui])
        found: list[tuple[str, Match]] = []
        compared = 0
        near = self._near(entry)
        for each in islice((each for each in near if each in self._days), 2 * NEIGHBOURS_MAX):
            result = match(*together(own, self._days[each]))
            compared += result is not None
            if result is None or result.copy or result.correlation < self._settings.correlation_min:
                continue
            if self._sound(each):
                found.append((each, result))
        found.sort(key=lambda pair: near[pair[0]] / 1000 * PRIOR_PER_KM + pair[1].apart)
        return found if compared else None

    def _sound(self, dev_eui: str) -> bool:
        """Whether the node may lend: nothing is known against its sensors, and it can afford the airtime."""
        entry, member = self._registry.get(dev_eui), self._members.get(dev_eui)
        if entry is None or entry.status.data_rate is None or member is None:
            return False
        size = DATA_OVERHEAD + wire.READINGS_SIZE_MAX
        airtime_us = self._region.airtime_us(entry.status.data_rate, size, uplink=True)
        suspect = (entry.status.flags or 0) & SUSPECTS or member.humidity_from
        return not suspect and airtime_us <= self._settings.airtime_ms_max * 1000

    def _covered(self, dev_eui: str) -> float:
        """Share of the node's rainy hours with RH >= 90 %; 0 while it had too few of them."""
        member = self._members[dev_eui]
        known = member.rainy_hours >= RAINY_MIN
        return member.humid_rainy_hours / member.rainy_hours if known else 0.0

    def _rain_is_open(self, member: _Member) -> bool:
        """Whether it has not rained enough yet to know whether the best lender's rain helps."""
        lenders = _names(member.rain_from)
        return bool(lenders) and self._members[lenders[0]].rainy_hours < RAINY_MIN

    def _lend(self, dev_eui: str, member: _Member) -> None:
        """Note what this node borrows with its lenders, and with those that might become its lenders."""
        for borrowers in self._borrowers.values():
            borrowers.pop(dev_eui, None)
        loans = (
            (member.humidity_from, wire.HUMIDITY | wire.TEMPERATURE),
            (member.rain_from, wire.RAIN | wire.HUMIDITY),
        )
        for names, bits in loans:
            for rank, lender in enumerate(_names(names)):
                borrowers = self._borrowers.setdefault(lender, {})
                sends, spare = borrowers.get(dev_eui, (0, 0))
                sends |= bits if rank < self._settings.lenders else 0
                borrowers[dev_eui] = sends, spare | (bits if rank == self._settings.lenders else 0)

    # -- watching ---------------------------------------------------------------------------------

    def _leaks(self, now_us: int, member: _Member) -> bool:
        """Whether many of the last days' frames of the node's lenders were lost."""
        today = _day(now_us, 0)
        days = range(max(today - LEAKY_DAYS, _day(member.survey_us, 0) + 1), today)
        chosen = (
            _names(names)[: self._settings.lenders] for names in (member.humidity_from, member.rain_from)
        )
        lenders = {each for names in chosen for each in names}
        came = sum(day in self._days.get(each, {}) for each in lenders for day in days)
        return len(days) >= LEAKY_DAYS // 2 and came < LEAKY_SHARE * len(days) * len(lenders)

    def _leave_silent(self, now_us: int, entry: Entry, member: _Member, day: int) -> list[Effect]:
        """Drop lenders of whom nothing came for days."""
        if now_us - member.decided_us < (SILENT_DAYS + LATE_DAYS) * DAY_US:
            return []
        effects: list[Effect] = []
        for quantity in ("humidity_from", "rain_from"):
            for lender in _names(getattr(member, quantity))[: self._settings.lenders]:
                if max(self._days.get(lender, {0: None})) < day - SILENT_DAYS:
                    _strike(member, lender, quantity)
                    effects.append(Event("lender_silent", now_us, {**_who(entry), "lender": lender}))
        if effects:
            member.decided_us = now_us
            self._lend(entry.record.dev_eui, member)
            effects.append(Store("sharing", entry.record.dev_eui, member.to_row()))
        return effects

    def _refuse_by_labels(
        self, now_us: int, entry: Entry, member: _Member, message: app.ReadingsRequest
    ) -> list[Effect]:
        member.humidity_from = member.rain_from = ""
        member.correction_half = 0
        member.refused_until_us = now_us + REFUSED_DAYS * DAY_US
        self._lend(entry.record.dev_eui, member)
        reason = (
            f"of {message.labelled} labelled days its own readings were right on {message.own_right}, "
            f"with the neighbour's on {message.borrowed_right}"
        )
        return [
            Store("sharing", entry.record.dev_eui, member.to_row()),
            Event("borrowing_refused", now_us, {**_who(entry), "reason": reason}),
        ]

    def _told(self, now_us: int, entry: Entry, quantity: str, lenders: str, correlation: float) -> Event:
        """What a person should know of a decision."""
        if not lenders:
            reason = f"no neighbour whose {quantity} would help"
            return Event("borrowing_refused", now_us, {**_who(entry), "quantity": quantity, "reason": reason})
        lender = _names(lenders)[0]
        other = self._registry.get(lender)
        name = other.record.name if other is not None else lender
        size = self._sizes.get(lender, 0)
        data = {
            **_who(entry),
            "quantity": quantity,
            "lender": lender,
            "correlation": round(correlation, 3),
            "bytes_per_day": size,
            "text": text_of(entry.record.name, quantity, name, correlation, size),
        }
        return Event("borrowing_paired", now_us, data)


def _day(now_us: int, age: int) -> int:
    """The number of the day whose noon was `age` ten minutes ago."""
    return (now_us - age * wire.AGE_STEP_US + NOON_SLACK_US) // DAY_US


def _away_m(here: NodeRecord, there: NodeRecord) -> float:
    """How far apart two nodes stand; where a place is not known, as far as any."""
    places = (here.lat, here.lon, there.lat, there.lon)
    lat, lon, other_lat, other_lon = (0.0 if each is None else each for each in places)
    return UNPLACED_M if None in places else distance_m(lat, lon, other_lat, other_lon)


def _names(text: str) -> list[str]:
    return text.split()


def _strike(member: _Member, lender: str, *quantities: str) -> None:
    """Take a lender out of what a node borrows; one that has nobody left looks for others at its next
    report."""
    for quantity in quantities or ("humidity_from", "rain_from"):
        names = _names(getattr(member, quantity))
        left = [each for each in names if each != lender]
        setattr(member, quantity, " ".join(left))
        if names and not left:
            member.survey_us = 0


def _who(entry: Entry) -> dict[str, object]:
    return {"dev_eui": entry.record.dev_eui, "node": entry.record.name}
