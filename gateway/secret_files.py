"""Files that hold secrets: read once, at the start; each mistake is one line that names the key and the
file."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

__all__ = ["AccessError", "check_private", "is_open", "load_certificate", "read_secret", "unusable"]

SECRET_BYTES_MAX = 1_024


class AccessError(Exception):
    """A file that cannot be used: `SECTION.KEY: FILE: why; what to do`."""


def read_secret(key: str, path: Path) -> str:
    """The one line of text in a file that others may not read; `key` names the setting."""
    check_private(key, path)
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_BYTES_MAX + 1).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise unusable(key, path, error) from None
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text or len(text) >= SECRET_BYTES_MAX:
        word = key.rpartition(".")[2].removesuffix("_file")
        raise AccessError(f"{key}: {path}: is not one line of text; write the {word} there")
    return text


def load_certificate(context: ssl.SSLContext, section: str, cert_file: str, key_file: str) -> None:
    """Our own certificate and its key into `context`."""
    check_private(f"{section}.key_file", Path(key_file))
    try:
        # A password is given so that OpenSSL does not ask for one at the terminal.
        context.load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError:
        raise AccessError(
            f"{section}.cert_file: {cert_file}: is no PEM certificate for the key in"
            f" {key_file}, or the key is encrypted; give a pair that is"
        ) from None
    except OSError as error:
        raise unusable(f"{section}.cert_file", Path(cert_file), error) from None


def check_private(key: str, path: Path) -> None:
    """AccessError where everybody on this machine may read the file."""
    try:
        if not is_open(path):
            return
    except OSError as error:
        raise unusable(key, path, error) from None
    raise AccessError(f"{key}: {path}: everybody on this machine may read it; chmod o= {path}")


def is_open(path: Path) -> bool:
    """Whether everybody on this machine may read the file; OSError where that cannot be said."""
    return bool(path.stat().st_mode & stat.S_IROTH)


def unusable(key: str, path: Path, error: OSError) -> AccessError:
    return AccessError(f"{key}: {path}: {error.strerror}; give a file this user may read")
