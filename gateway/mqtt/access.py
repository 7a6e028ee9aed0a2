"""What opens the broker's door: the password in its file, and certificates; each mistake is one line."""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config import MqttSection

__all__ = ["Access", "AccessError", "read_access"]

PASSWORD_BYTES_MAX = 1_024


class AccessError(Exception):
    """A file that cannot be used: `mqtt.KEY: FILE: why; what to do`."""


@dataclass(frozen=True, slots=True)
class Access:
    """Read once, at the start."""

    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def read_access(settings: MqttSection) -> Access:
    """Password and TLS context that `[mqtt]` names; AccessError when a file is no use."""
    password = _password(Path(settings.password_file)) if settings.password_file else None
    return Access(password, _tls(settings) if settings.tls else None)


def _password(path: Path) -> str:
    _private("password_file", path)
    try:
        with path.open("rb") as file:
            text = file.read(PASSWORD_BYTES_MAX + 1).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise _unusable("password_file", path, error) from None
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text or len(text) >= PASSWORD_BYTES_MAX:
        raise AccessError(f"mqtt.password_file: {path}: is not one line of text; write the password there")
    return text


def _tls(settings: MqttSection) -> ssl.SSLContext:
    """The server is always verified: against `ca_file`, or against the system's authorities."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except ssl.SSLError:
        raise AccessError(f"mqtt.ca_file: {settings.ca_file}: holds no certificate in PEM") from None
    except OSError as error:
        raise _unusable("ca_file", Path(settings.ca_file), error) from None
    if settings.cert_file:
        _private("key_file", Path(settings.key_file))
        try:
            # A password is given so that OpenSSL does not ask for one at the terminal.
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
        except ssl.SSLError:
            raise AccessError(
                f"mqtt.cert_file: {settings.cert_file}: is no PEM certificate for the key in"
                f" {settings.key_file}, or the key is encrypted; give a pair that is"
            ) from None
        except OSError as error:
            raise _unusable("cert_file", Path(settings.cert_file), error) from None
    return context


def _private(key: str, path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unusable(key, path, error) from None
    if mode & stat.S_IROTH:
        raise AccessError(f"mqtt.{key}: {path}: everybody on this machine may read it; chmod o= {path}")


def _unusable(key: str, path: Path, error: OSError) -> AccessError:
    return AccessError(f"mqtt.{key}: {path}: {error.strerror}; give a file this user may read")
