"""What opens the broker's door: the password in its file, and certificates; each mistake is one line."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config import BrokerSection
from gateway.secret_files import AccessError, load_certificate, read_secret, unusable

__all__ = ["Access", "AccessError", "read_access"]


@dataclass(frozen=True, slots=True)
class Access:
    """Read once, at the start."""

    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def read_access(settings: BrokerSection, section: str = "mqtt") -> Access:
    """Password and TLS context that `section` names; AccessError when a file is no use."""
    named = settings.password_file
    password = read_secret(f"{section}.password_file", Path(named)) if named else None
    return Access(password, _tls(settings, section) if settings.tls else None)


def _tls(settings: BrokerSection, section: str) -> ssl.SSLContext:
    """The server is always verified: against `ca_file`, or against the system's authorities."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except ssl.SSLError:
        raise AccessError(f"{section}.ca_file: {settings.ca_file}: holds no certificate in PEM") from None
    except OSError as error:
        raise unusable(f"{section}.ca_file", Path(settings.ca_file), error) from None
    if settings.cert_file:
        load_certificate(context, section, settings.cert_file, settings.key_file)
    return context
