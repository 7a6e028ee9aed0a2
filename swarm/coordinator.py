"""The sans-IO top of a cell: inputs in, effects out; the way of every frame in one place.

Theory of operation.  An uplink walks, in this order:

    on_uplink -> mac.dedup (one frame, many gateways) -> wire.lorawan.parse -> registry (whose DevAddr)
    -> mac.session.accept (counter, MIC, decrypt) -> mac.commands (what the device answered)
    -> wire.app.decode_uplink -> rounds.on_update | asking.on_answer | expert_asking | borrowing | status
    (FPorts 200-203: packages -> the clock, or large_blocks.blocks)
    -> downlinks.answer (RX1/RX2 of this very uplink, with mac.commands' requests)

(where somebody else's network server does the MAC, on_application_uplink enters at wire.app, and
server_nodes answers), and a round, when its quorum or deadline has come:

    rounds: federation.round closes -> federation.strategy (Flower) -> model.vector -> version + 1
    -> rounds: the next programme, model.block -> downlinks -> mac.scheduler -> mac.ledger -> Transmit

A question: on_query -> inference.plan -> downlinks.enqueue -> (nodes answer) -> inference.combine; a node's
own question for an expert that it lacks: expert_asking -> the gateway's replica, or holders -> downlinks.
A large block: on_command -> large_blocks.blocks -> transport.delivery -> downlinks, between the windows of
rounds.  Labels, loans and frames by hand wait in downlinks like the rest.  There is no second way onto the
air.  Drivers call `poll` whenever `poll_at` says so, and perform the effects in the order given.
All state lives in rows that `Store` effects wrote: a coordinator made from the same rows goes on where the
last one stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from swarm.asking import Asking
from swarm.borrowing import Borrowing
from swarm.commands import (
    AddNode,
    CancelBlock,
    CancelFrame,
    Command,
    HandOver,
    OpenRound,
    RemoveNode,
    RollBack,
    SendBlock,
    SendFrame,
    SetModel,
    SetMulticast,
    SetSigningKey,
    TellLabel,
)
from swarm.config import SwarmConfig
from swarm.downlinks import UNKNOWN_FATE, Downlinks, Pending
from swarm.effects import (
    ApplicationUplink,
    Effect,
    Event,
    Malformed,
    Purpose,
    Row,
    RxFrame,
    Store,
    Transmit,
    TxAck,
)
from swarm.expert_asking import ExpertAsking
from swarm.group_keys import set_multicast
from swarm.hand_over import HandOvers
from swarm.inference.plan import Query
from swarm.labels import Labels
from swarm.large_blocks.blocks import Blocks
from swarm.mac import commands as mac_commands
from swarm.mac import session as mac_session
from swarm.mac.commands import NetworkMac, answer_room
from swarm.mac.dedup import Deduplicator, Heard
from swarm.mac.join import Device, answer_join
from swarm.mac.session import Accepted
from swarm.operator_frames import OperatorFrames
from swarm.packages import PORTS, PackagePorts
from swarm.phy.link import SNR_LIMIT_DB
from swarm.phy.regions import region
from swarm.registry import Entry, Refused, Registry
from swarm.retired import Retired
from swarm.rounds import Rounds
from swarm.security.signatures import Signer, SigningKey
from swarm.server_nodes import Fresh, ServerNodes
from swarm.wire import app, expert, lorawan
from swarm.wire.mac_commands import STICKY

__all__ = ["Coordinator"]

SCHEDULE_PORT = 12
SCHEDULE_EXPIRES_US = 600_000_000
WANTS_SCHEDULE = 1 << 2


class Coordinator:
    """One cell's brain.  `rows` is what earlier `Store` effects left: table -> key -> row.

    `signing_key`: what blocks are signed with, for nodes that were provisioned with its public half.
    """

    def __init__(
        self,
        config: SwarmConfig,
        rows: Mapping[str, Mapping[str, Row]],
        model: bytes,
        signing_key: SigningKey | None = None,
    ) -> None:
        self.config = config
        self.region = region(config.region)
        self.channel = config.multicast.channel(self.region)
        self.counters: Counter[str] = Counter()
        self._retired = Retired(rows)
        self.registry = Registry(self.region, rows, config.rx1_delay_s, self._retired)
        self.mac = NetworkMac(config.mac, self.region, rows)
        self.downlinks = Downlinks(
            self.region,
            config.downlink_lead_us,
            rows,
            dwell=config.mac.dwell,
            confirmed_tries=config.mac.confirmed_tries,
        )
        if self.downlinks.group is not None:
            # The settings rule; only keys and counter are the group's own.
            self.downlinks.group.frequency_hz = self.channel.frequency_hz
            self.downlinks.group.data_rate = self.channel.data_rate
        self.signer = Signer(signing_key)
        self.rounds = Rounds(config, self.registry, self.downlinks, self.region, rows, model, self.signer)
        self.asking = Asking(config, self.registry, self.downlinks, self.rounds, self.region, rows)
        self.expert_asking = ExpertAsking(
            config, self.registry, self.downlinks, self.rounds.replica, self.region, rows
        )
        self.borrowing = Borrowing(config.borrowing, self.registry, self.downlinks, self.region, rows)
        self.labels = Labels(self.registry, self.downlinks, rows)
        self.blocks = Blocks(
            config, self.registry, self.downlinks, self.region, rows, self.signer.large_block
        )
        self.hand_overs = HandOvers(
            config,
            self.registry,
            self.region,
            self.expert_asking,
            self.blocks,
            self.rounds.replica,
            self.signer,
            rows,
        )
        self._packages = PackagePorts(self.downlinks, self.blocks)
        for entry in self.registry:
            self._listens(entry)
        self.operator_frames = OperatorFrames(self.region, self.registry, self.downlinks, rows)
        self._dedup = Deduplicator(config.dedup_us)
        self._in_class_b: set[str] = set()
        """Nodes of which an event told; as many as there are nodes at most."""
        self.server_nodes = ServerNodes(
            self.region, self.registry, self.downlinks, self.rounds, self.blocks, rows
        )

    # -- inputs -----------------------------------------------------------------------------------

    def on_uplink(self, now_us: int, rx: RxFrame) -> list[Effect]:
        """A gateway heard a frame."""
        effects = self.downlinks.heard_gateway(now_us, rx.gateway_id)
        stranger = not self.downlinks.genuine(rx.gateway_id)
        lost = self._dedup.on_frame(now_us, rx, stranger=stranger)
        if lost is not None:
            effects += self._dropped(now_us, lost, Malformed("overflow", "too many frames at once"))
        if self._dedup.late:
            self.counters["late_copies"] = self._dedup.late
        return self._count(effects + self._drain(now_us))

    def on_gateway(self, now_us: int, gateway_id: str, *, blocks: bool = False) -> list[Effect]:
        """A gateway gave a sign of life (PULL_DATA, stat); `blocks`: it keeps a duty cycle of its own."""
        return self._count(self.downlinks.heard_gateway(now_us, gateway_id, blocks=blocks))

    def on_tx_ack(self, now_us: int, ack: TxAck) -> list[Effect]:
        """A gateway said what became of a transmission (or the driver gave up waiting for its word)."""
        dev_eui = self.downlinks.addressee(ack.transmit_id)
        effects = self.downlinks.on_tx_ack(now_us, ack)
        if dev_eui is not None:
            left = ack.error in (None, UNKNOWN_FATE)
            effects += self.mac.on_fate(dev_eui, ack.transmit_id, left=left)
        return self._count(effects)

    def on_application_uplink(self, now_us: int, uplink: ApplicationUplink) -> list[Effect]:
        """A network server received a frame of a node whose MAC it does; the same frame counts once."""
        entry = self.registry.get(uplink.dev_eui)
        if entry is None or not entry.behind_server:
            unknown = Malformed("unknown_device", f"DevEUI {uplink.dev_eui}")
            return self._count(self._dropped(now_us, uplink, unknown))
        fresh = self.server_nodes.accept(uplink)
        if isinstance(fresh, Malformed):
            return self._count(self._dropped(now_us, uplink, fresh))
        return self._count(self._from_server(now_us, entry, uplink, fresh))

    def on_application_fate(self, now_us: int, reference: int, error: str | None) -> list[Effect]:
        """A network server said what became of an `ApplicationDownlink` (error None: it was sent)."""
        return self._count(self.server_nodes.on_fate(now_us, reference, error))

    def on_query(self, now_us: int, query: Query) -> list[Effect]:
        """Somebody asks; the answer comes as an Event `query_answered` with this query's id."""
        return self._count(self.asking.on_query(now_us, query))

    def on_command(self, now_us: int, command: Command) -> list[Effect] | Refused:
        """Do what an operator asked for, or say why not."""
        result = self._command(now_us, command)
        return result if isinstance(result, Refused) else self._count(result)

    def _command(self, now_us: int, command: Command) -> list[Effect] | Refused:
        match command:
            case AddNode():
                stores = self.registry.add(now_us, command)
                if isinstance(stores, Refused):
                    return stores
                if not stores:
                    return []  # known with just these values
                known = self.registry.get(command.dev_eui)
                assert known is not None
                self._listens(known)
                return [*stores, Event("node_added", now_us, {"dev_eui": command.dev_eui})]
            case RemoveNode():
                removed = self.registry.remove(command.dev_eui)
                if isinstance(removed, Refused):
                    return removed
                self._in_class_b.discard(command.dev_eui)
                self.downlinks.forget(command.dev_eui)
                removed += self.operator_frames.forget(command.dev_eui)
                removed += self.mac.forget(command.dev_eui)
                removed += self.expert_asking.holders.forget(command.dev_eui)
                removed += self.hand_overs.forget(command.dev_eui)
                removed += self.borrowing.forget(command.dev_eui)
                removed += self.labels.forget(command.dev_eui)
                removed += self.server_nodes.forget(command.dev_eui)
                removed += self.blocks.forget(command.dev_eui)
                return [*removed, Event("node_removed", now_us, {"dev_eui": command.dev_eui})]
            case SetMulticast() | SetSigningKey():
                return self._set_keys(now_us, command)
            case OpenRound():
                return self.rounds.open_now(now_us)
            case RollBack():
                return self.rounds.roll_back(now_us, command.to_version)
            case SetModel():
                return self.rounds.hand_in(now_us, command)
            case SendFrame() | CancelFrame() | TellLabel() | SendBlock() | CancelBlock() | HandOver():
                return self._to_nodes(now_us, command)

    def _to_nodes(
        self, now_us: int, command: SendFrame | CancelFrame | TellLabel | SendBlock | CancelBlock | HandOver
    ) -> list[Effect] | Refused:
        """What an operator has for nodes."""
        match command:
            case SendFrame():
                return self.operator_frames.send(now_us, command)
            case CancelFrame():
                return self.operator_frames.cancel(now_us, command)
            case TellLabel():
                return self.labels.tell(now_us, command, self.rounds.replica.shape.classes)
            case SendBlock():
                return self.blocks.send(now_us, command)
            case CancelBlock():
                return self.blocks.cancel(now_us, command)
            case HandOver():
                return self.hand_overs.begin(now_us, command)

    def poll(self, now_us: int) -> list[Effect]:
        """Do all that is due at `now_us`."""
        effects = self._drain(now_us)
        effects += self.operator_frames.poll(now_us)
        effects += self.rounds.poll(now_us)
        effects += self.asking.poll(now_us)
        effects += self.expert_asking.poll(now_us)
        effects += self.blocks.poll(now_us)
        effects += self.server_nodes.poll(now_us)
        sent = self.downlinks.poll(now_us)
        if any(isinstance(effect, Event) and effect.kind == "programme_sent" for effect in sent):
            effects += self.rounds.on_programme_sent()
        return self._count(effects + sent)

    def poll_at(self) -> int | None:
        """When `poll` has to be called next (us); None: only after another input."""
        parts = (
            *(self._dedup, self.rounds, self.asking, self.expert_asking, self.blocks),
            *(self.downlinks, self.operator_frames, self.server_nodes),
        )
        times = [at_us for at_us in (part.poll_at() for part in parts) if at_us is not None]
        return min(times) if times else None

    # -- the way of an uplink ---------------------------------------------------------------------

    def _drain(self, now_us: int) -> list[Effect]:
        effects: list[Effect] = []
        for heard in self._dedup.poll(now_us):
            effects += self._uplink(now_us, heard)
        return effects

    def _uplink(self, now_us: int, heard: Heard) -> list[Effect]:
        frame = lorawan.parse(heard.best.payload)
        if isinstance(frame, Malformed):
            return self._dropped(now_us, heard.best, frame)
        if isinstance(frame, lorawan.JoinRequest):
            return self._join(now_us, heard, frame)
        refusal = Malformed("unknown_device", f"DevAddr {frame.dev_addr:08x}")
        sessions = [(e, session) for e in self.registry.by_addr(frame.dev_addr) for session in e.sessions]
        for entry, session in sessions:
            before, lost = session.f_cnt_up, 0
            accepted = mac_session.accept(session, frame)
            if isinstance(accepted, Accepted):
                begun = self._begun(now_us, entry) if session is entry.joining else []
                if before is not None and not accepted.retransmission:
                    lost = accepted.f_cnt - before - 1
                    entry.status.lost += lost
                class_b = self._class_b(now_us, entry) if frame.bit4 else []
                return begun + class_b + self._accepted(now_us, heard, entry, accepted, lost)
            if refusal.reason != "replay":
                refusal = accepted
        owners = {entry.record.dev_eui: entry for entry, _ in sessions}
        return self._dropped(
            now_us, heard.best, refusal, next(iter(owners.values())) if len(owners) == 1 else None
        )

    def _class_b(self, now_us: int, entry: Entry) -> list[Effect]:
        """Say once that a node waits for beacons in vain; its frames count as those of class A."""
        dev_eui = entry.record.dev_eui
        if dev_eui in self._in_class_b:
            return []
        self._in_class_b.add(dev_eui)
        detail = "class B is not offered: no beacons, no ping slots; it is answered as in class A"
        data = {"dev_eui": dev_eui, "node": entry.record.name, "reason": "class_b", "detail": detail}
        return [Event("class_refused", now_us, data)]

    def _begun(self, now_us: int, entry: Entry) -> list[Effect]:
        """A node uses the session of its last join."""
        stores = [*self.registry.promote(entry), *self.mac.forget(entry.record.dev_eui)]
        self._listens(entry)
        assert entry.session is not None
        data = {"dev_eui": entry.record.dev_eui, "dev_addr": f"{entry.session.dev_addr:08x}"}
        return [*stores, Event("rejoined", now_us, data)]

    def _listens(self, entry: Entry) -> None:
        """Tell the downlinks whether this node can be sent to at once."""
        self.downlinks.listens(
            entry.record.dev_eui, entry.session if entry.record.device_class == "c" else None
        )

    def _accepted(
        self, now_us: int, heard: Heard, entry: Entry, accepted: Accepted, lost: int
    ) -> list[Effect]:
        rx, session, status = heard.best, entry.session, entry.status
        assert session is not None
        dev_eui = entry.record.dev_eui
        effects: list[Effect] = []
        if not accepted.retransmission:
            # What may be a recording says nothing about the node, nor about the gateway.
            status.uplinks += 1
            status.last_seen_us, status.data_rate = now_us, rx.data_rate
            status.rssi_dbm, status.snr_db = rx.rssi_dbm, rx.snr_db
            effects += self._proof(now_us, heard)
            effects += self.mac.on_uplink(now_us, session, accepted, rx, lost=lost)
            effects += self.downlinks.on_heard(now_us, dev_eui, accepted.ack)
        effects += [
            Store("session", dev_eui, session.to_row()),
            Event(
                "uplink",
                now_us,
                {
                    "dev_eui": dev_eui,
                    "node": entry.record.name,
                    "f_cnt": accepted.f_cnt,
                    "f_port": accepted.f_port,
                    "data_rate": rx.data_rate,
                    "rssi_dbm": rx.rssi_dbm,
                    "snr_db": rx.snr_db,
                    "gateway_id": rx.gateway_id,
                    "size": len(rx.payload),
                    **({"again": True} if accepted.retransmission else {}),
                },
            ),
        ]
        if not accepted.retransmission:
            effects += self._application(now_us, rx, entry, accepted)
            effects += self.labels.on_heard(now_us, dev_eui)
            effects.append(Store("status", dev_eui, status.to_row()))
            if accepted.f_port != app.F_PORT_LEARNING:  # seeds may be many frames: no word in between
                self.rounds.on_heard(now_us, entry)
        elif not self.downlinks.genuine(rx.gateway_id):
            return effects  # no answer through strangers to what may be a recording
        return effects + self._answer(now_us, heard, entry, accepted)

    def _answer(self, now_us: int, heard: Heard, entry: Entry, accepted: Accepted) -> list[Effect]:
        """The receive windows of this uplink: acknowledgement, MAC commands, and the frame that waits."""
        rx, session = heard.best, entry.session
        assert session is not None
        self.blocks.reach(now_us, entry)
        margin_db = round(rx.snr_db - self._snr_limit_db(rx.data_rate))
        f_opts = mac_session.mac_answers(
            accepted, margin_db=margin_db, gateways=len(heard.copies), heard_unix_us=rx.at_us
        )
        room = answer_room(self.region, rx, session)
        size = self.downlinks.next_size(now_us, session.dev_eui)
        if size is not None:
            room = min(lorawan.FOPTS_MAX, room - size)
        requests = self.mac.requests(
            now_us,
            session,
            accepted,
            room - len(f_opts),
            ask_status=entry.status.reported_us is None
            and entry.status.uplinks >= mac_commands.UPLINKS_BEFORE_STATUS,
            cf_list=entry.record.activation == "otaa",
        )
        repeats = any(command.cid in STICKY for command in accepted.commands)
        effects = self.downlinks.answer(
            now_us,
            rx,
            session,
            ack=accepted.confirmed,
            f_opts=f_opts + requests,
            adr=self.config.mac.adr and accepted.adr,
            must=accepted.adr_ack_req or repeats,
        )
        carrying = lorawan.DATA_OVERHEAD - 1 + len(f_opts + requests)
        sent = [effect for effect in effects if isinstance(effect, Transmit)]
        if not sent or len(sent[0].payload) < carrying:
            return effects  # nothing was asked: there was no slot, or one for the acknowledgement alone
        return self.mac.asked(now_us, session.dev_eui, requests, sent[0].transmit_id) + effects

    def _from_server(
        self, now_us: int, entry: Entry, uplink: ApplicationUplink, fresh: Fresh
    ) -> list[Effect]:
        """What a frame says, and an answer; a late one changes nothing that newer ones have said."""
        dev_eui, status = entry.record.dev_eui, entry.status
        at_us = min(uplink.at_us, now_us)
        status.uplinks += 1
        status.lost += fresh.lost
        if not fresh.late:
            status.last_seen_us = at_us
            status.data_rate = uplink.data_rate if uplink.data_rate is not None else status.data_rate or 0
            status.rssi_dbm, status.snr_db = uplink.rssi_dbm, uplink.snr_db
        data = {
            "dev_eui": dev_eui,
            "node": entry.record.name,
            "f_cnt": uplink.f_cnt,
            "f_port": uplink.f_port,
            "data_rate": uplink.data_rate,
            "rssi_dbm": uplink.rssi_dbm,
            "snr_db": uplink.snr_db,
            "gateway_id": uplink.gateway_id,
            "size": len(uplink.payload),
            "received_us": at_us,
            "late": fresh.late,
        }
        effects: list[Effect] = [*fresh.stores, Event("uplink", now_us, data)]
        if not (fresh.late and uplink.f_port == app.F_PORT_STATUS):
            effects += self._application(now_us, uplink, entry, uplink)
            if status.reported_us == now_us:
                status.reported_us = at_us
        effects.append(Store("status", dev_eui, status.to_row()))
        if uplink.f_port != app.F_PORT_LEARNING:
            self.rounds.on_heard(now_us, entry)
        effects += self.labels.on_heard(now_us, dev_eui)
        return effects + self.server_nodes.answer(now_us, entry, uplink)

    def _proof(self, now_us: int, heard: Heard) -> list[Effect]:
        """Who brought a genuine new frame first has heard it; the others may have copied it."""
        return self.downlinks.heard_gateway(now_us, heard.first.gateway_id, proof=True)

    def _snr_limit_db(self, data_rate: int) -> float:
        """The demodulation floor at this uplink data rate; 0 where there is none (FSK)."""
        rate = self.region.uplink_data_rates.get(data_rate)
        return SNR_LIMIT_DB.get(rate.spreading_factor, 0.0) if rate is not None else 0.0

    def _application(
        self,
        now_us: int,
        rx: RxFrame | ApplicationUplink,
        entry: Entry,
        accepted: Accepted | ApplicationUplink,
    ) -> list[Effect]:
        if not accepted.f_port:
            return []
        if accepted.f_port in PORTS:
            done = self._packages.on_uplink(now_us, entry, accepted.f_port, accepted.payload, rx.at_us)
            return self._dropped(now_us, rx, done) if isinstance(done, Malformed) else done
        return self._message(now_us, rx, entry, app.decode_uplink(accepted.f_port, accepted.payload))

    def _message(
        self,
        now_us: int,
        rx: RxFrame | ApplicationUplink,
        entry: Entry,
        message: app.UplinkMessage | Malformed,
    ) -> list[Effect]:
        """One of our own frames."""
        match message:
            case Malformed():
                return self._dropped(now_us, rx, message, entry)
            case app.Fragment():
                return self.rounds.on_fragment(now_us, entry, message)
            case app.Seeds():
                return self.rounds.on_seeds(now_us, entry, message)
            case app.Answer():
                return self.asking.on_answer(now_us, entry, message)
            case app.Status():
                return self._status(now_us, entry, message)
            case expert.Ask():
                return self.expert_asking.on_ask(now_us, entry, message)
            case expert.Output():
                return self.expert_asking.on_output(now_us, entry, message)
            case expert.Experts():
                ended = self.hand_overs.on_experts(now_us, entry.record.dev_eui, message)
                return self.expert_asking.on_experts(now_us, entry, message) + ended
            case app.Readings():
                return self.borrowing.on_readings(now_us, entry, message)
            case app.ReadingsRequest():
                return self.borrowing.on_request(now_us, entry, message)
            case _:
                return self.rounds.on_update(now_us, entry, message)

    def _status(self, now_us: int, entry: Entry, message: app.Status) -> list[Effect]:
        status = entry.status
        status.reported_us = now_us
        status.model_version, status.battery = message.model_version, message.battery
        status.labelled, status.flags, status.risk = message.labelled, message.flags, message.risk
        status.temperature_centi, status.rain_tenth = message.temperature_centi, message.rain_tenth
        status.humidity_half, status.serves = message.humidity_half, message.serves
        # First, because an order is rare and a schedule is asked for again.
        effects = self.borrowing.on_status(now_us, entry)
        if message.flags & WANTS_SCHEDULE:
            period_min = self.config.status_period_min
            self.downlinks.enqueue(
                entry.record.dev_eui,
                Pending(
                    f_port=SCHEDULE_PORT,
                    payload=lambda at_us: app.encode(self.rounds.schedule(at_us, period_min)),
                    size=len(app.encode(self.rounds.schedule(now_us, period_min))),
                    purpose=Purpose.ROUND,
                    expires_us=now_us + SCHEDULE_EXPIRES_US,
                    tag="schedule",
                ),
            )
        return [*effects, Event("status", now_us, {"dev_eui": entry.record.dev_eui, **status.to_row()})]

    def _join(self, now_us: int, heard: Heard, request: lorawan.JoinRequest) -> list[Effect]:
        rx = heard.best
        entry = self.registry.get(request.dev_eui)
        if entry is None or entry.record.app_key is None:
            return self._dropped(now_us, rx, Malformed("unknown_device", f"DevEUI {request.dev_eui}"))
        record, mac = entry.record, self.config.mac
        assert record.app_key is not None
        answer = answer_join(
            Device(record.dev_eui, record.join_eui, record.app_key, record.dev_nonce, record.join_nonce),
            request,
            dev_addr=self.registry.free_address(self.config.net_id, record.node_index),
            net_id=self.config.net_id,
            region=self.region,
            rx1_delay_s=mac.rx1_delay_s or self.config.rx1_delay_s,
            rx1_dr_offset=mac.rx1_dr_offset or 0,
            rx2_data_rate=mac.rx2_data_rate,
            channels=self.mac.channels,
        )
        if isinstance(answer, Malformed):
            return self._dropped(now_us, rx, answer, entry)
        session, accept, device = answer
        record.dev_nonce, record.join_nonce = device.last_dev_nonce, device.join_nonce
        stores = self.registry.set_session(entry, session)
        if entry.session is session:
            stores += self.mac.forget(record.dev_eui)
            self._listens(entry)
        return [
            *self._proof(now_us, heard),
            Store("node", record.dev_eui, record.to_row()),
            *stores,
            Event("joined", now_us, {"dev_eui": record.dev_eui, "dev_addr": f"{session.dev_addr:08x}"}),
            *self.downlinks.join_accept(now_us, rx, accept, session),
        ]

    # -- the rest ---------------------------------------------------------------------------------

    def _set_keys(self, now_us: int, command: SetMulticast | SetSigningKey) -> list[Effect] | Refused:
        """Take over what all nodes were provisioned with."""
        if isinstance(command, SetMulticast):
            return set_multicast(now_us, command, self.channel, self.downlinks, self._retired)
        self.signer.key = command.key
        return [Event("signing_key_set", now_us, {"public_key": command.key.public_key.hex()})]

    def _dropped(
        self, now_us: int, rx: RxFrame | ApplicationUplink, why: Malformed, said: Entry | None = None
    ) -> list[Effect]:
        """`said`: the node that the frame says it is of."""
        data: dict[str, object] = {"reason": why.reason, "detail": why.detail, "gateway_id": rx.gateway_id}
        if said is not None:
            data["node"] = said.record.name
        return [Event("dropped", now_us, data)]

    def _count(self, effects: list[Effect]) -> list[Effect]:
        """Keep the counters that the metrics show; one per kind of event, one per reason of a drop."""
        for effect in effects:
            if isinstance(effect, Event):
                self.counters[effect.kind] += 1
                if effect.kind == "dropped":
                    self.counters[f"dropped:{effect.data['reason']}"] += 1
        return effects
