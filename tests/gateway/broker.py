"""A real Mosquitto on a free loopback port, its certificates, and a person's client in front of it."""

from __future__ import annotations

import getpass
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from tests.web.served import until

__all__ = ["Authority", "Broker", "Person", "free_port", "needs_mosquitto"]

PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(
    PROGRAM is None, reason="mosquitto is not installed (apt-get install mosquitto)"
)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """`with Broker(folder) as broker:` it runs; it may be killed and started again.

    Everything that changes is written to its database at once, so that it survives `kill -9`.
    """

    def __init__(self, folder: Path, *lines: str, anonymous: bool = True) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "mosquitto.conf"
        common = (
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'true' if anonymous else 'false'}",
        )
        self._file.write_text("\n".join((*common, *lines)) + "\n")

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill(signal.SIGTERM)

    def start(self) -> None:
        assert PROGRAM is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-v", "-c", str(self._file)], stdout=log, stderr=subprocess.STDOUT
            )
        until(self._listens, "the broker listens")

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(20)
        self._process = None

    def add_user(self, name: str, password: str) -> None:
        """A line in the password file that the configuration names."""
        file = self.folder / "passwords"
        create = ["-c"] if not file.exists() else []
        program = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
        subprocess.run([program, "-b", *create, str(file), name, password], check=True, capture_output=True)
        os.chmod(file, 0o600)

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Authority:
    """A certificate authority of our own, and the certificate it gave to 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file, self.cert_file, self.key_file = (folder / name for name in ("ca", "cert", "key"))
        own = ec.generate_private_key(ec.SECP256R1())
        root = _certificate("swarm test authority", "swarm test authority", own, own, authority=True)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _certificate("127.0.0.1", "swarm test authority", key, own, authority=False)
        self.ca_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        self.cert_file.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        self.key_file.touch(0o600)
        self.key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))

    def lines(self) -> tuple[str, ...]:
        """What Mosquitto's configuration says to use them."""
        return (f"cafile {self.ca_file}", f"certfile {self.cert_file}", f"keyfile {self.key_file}")


def _certificate(
    name: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(address, critical=False)
        .sign(signer, hashes.SHA256())
    )


class Person:
    """Somebody else's MQTT client with a persistent session; keeps all it hears, reconnects by itself."""

    def __init__(
        self, port: int, filters: Sequence[str] = ("swarm/#", "homeassistant/#"), **more: Any
    ) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.subscriptions = 0
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, "person", clean_session=False, protocol=paho.MQTTv311
        )
        if "username" in more:
            self._client.username_pw_set(more["username"], more["password"])
        if "ca_file" in more:
            self._client.tls_set(str(more["ca_file"]))
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([(each, 1) for each in filters])
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        until(lambda: self.subscriptions, "the person's subscription")

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic: str, payload: object, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it; anything but bytes goes as JSON."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, data, qos=1, retain=retain).wait_for_publish(20)

    def on(self, topic: str) -> list[bytes]:
        """What was heard on a topic, in order."""
        return [payload for where, payload, _ in list(self.heard) if where == topic]

    def next(self, topic: str, number: int = 1) -> Any:
        """The JSON of the `number`th message on a topic, waited for."""
        until(lambda: len(self.on(topic)) >= number, f"message {number} on {topic}")
        return json.loads(self.on(topic)[number - 1])

    def retained(self, topic: str) -> bytes | None:
        """What the broker keeps on a topic, asked anew."""
        found: list[bytes] = []
        done = threading.Event()
        reader = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)

        def on_message(_: object, __: object, message: paho.MQTTMessage) -> None:
            if message.topic == topic:
                found.append(message.payload)
            else:
                done.set()

        reader.on_message = on_message
        reader.connect("127.0.0.1", self._client.port)
        reader.loop_start()
        # The broker answers in order: the mark comes behind what it keeps.
        reader.subscribe([(topic, 1), ("mark", 1)])
        reader.publish("mark", b"", qos=1)
        assert done.wait(20)
        reader.disconnect()
        reader.loop_stop()
        return found[0] if found else None

    def _on_subscribe(self, *_: object) -> None:
        self.subscriptions += 1

    def _on_message(self, _: object, __: object, message: paho.MQTTMessage) -> None:
        self.heard.append((message.topic, message.payload, message.retain))
