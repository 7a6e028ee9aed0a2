"""LoRaWAN 1.0.4 cryptography: integrity codes, payload encryption, join accept, key derivation.

AES and CMAC are the `cryptography` package's; this module only builds the blocks that TS001-1.0.4
prescribes (sections 4.3.3, 4.4, 6.2.5).  Numbers go on the air little endian; keys are 16 bytes.
"""

from __future__ import annotations

import hmac
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.cmac import CMAC

__all__ = [
    "KEY_SIZE",
    "MIC_SIZE",
    "AesKey",
    "cipher_payload",
    "data_block_key",
    "data_block_mic",
    "data_mic",
    "mc_ke_key",
    "mc_root_key",
    "multicast_keys",
    "open_join_accept",
    "open_mc_key",
    "same_mic",
    "seal_join_accept",
    "seal_mc_key",
    "session_keys",
]

KEY_SIZE = 16
MIC_SIZE = 4

_DATA_HEAD = b"\x49\x00\x00\x00\x00"
_CIPHER_HEAD = b"\x01\x00\x00\x00\x00"
_BLOCK_TAILS = tuple(bytes((0, index)) for index in range(1, 17))


class AesKey:
    """One AES-128 key with its key schedules, made once: a frame then costs about a microsecond a step.

    ECB carries nothing from one block to the next, so one encryption context serves for ever; a CMAC
    is copied from an unused one.  The key appears in no `repr`.
    """

    __slots__ = ("_cmac", "_decrypt", "_encrypt", "_raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_SIZE:
            raise ValueError(f"a key has {KEY_SIZE} bytes, not {len(raw)}")
        self._raw = raw
        self._encrypt: CipherContext = Cipher(AES(raw), ECB()).encryptor()
        self._decrypt: CipherContext | None = None
        self._cmac = CMAC(AES(raw))

    @property
    def raw(self) -> bytes:
        """The sixteen bytes, for storing them."""
        return self._raw

    def encrypt(self, blocks: bytes) -> bytes:
        """AES-ECB of whole blocks."""
        assert len(blocks) % 16 == 0
        return self._encrypt.update(blocks)

    def decrypt(self, blocks: bytes) -> bytes:
        """The inverse of `encrypt`."""
        assert len(blocks) % 16 == 0
        if self._decrypt is None:
            self._decrypt = Cipher(AES(self._raw), ECB()).decryptor()
        return self._decrypt.update(blocks)

    def cmac(self, message: bytes) -> bytes:
        """AES-CMAC (RFC 4493), 16 bytes."""
        running = self._cmac.copy()
        running.update(message)
        return running.finalize()

    def mic(self, message: bytes) -> bytes:
        """The first four bytes of the CMAC: the integrity code of join frames."""
        return self.cmac(message)[:MIC_SIZE]

    def __repr__(self) -> str:
        return "AesKey(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AesKey) and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash(self._raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return AesKey, (self._raw,)


def same_mic(first: bytes, second: bytes) -> bool:
    """Whether two integrity codes agree, in time that does not depend on where they differ."""
    return hmac.compare_digest(first, second)


def data_mic(key: AesKey, message: bytes, *, uplink: bool, dev_addr: int, f_cnt: int) -> bytes:
    """Integrity code of a data frame; `message` is MHDR..FRMPayload, `f_cnt` all 32 bits of the counter."""
    way = b"\x00" if uplink else b"\x01"
    counter = dev_addr.to_bytes(4, "little") + f_cnt.to_bytes(4, "little")
    return key.cmac(_DATA_HEAD + way + counter + b"\x00" + len(message).to_bytes(1, "little") + message)[
        :MIC_SIZE
    ]


def cipher_payload(key: AesKey, payload: bytes, *, uplink: bool, dev_addr: int, f_cnt: int) -> bytes:
    """Encrypt or decrypt FRMPayload (0..250 B): the same operation both ways."""
    size = len(payload)
    if size == 0:
        return b""
    way = b"\x00" if uplink else b"\x01"
    head = _CIPHER_HEAD + way + dev_addr.to_bytes(4, "little") + f_cnt.to_bytes(4, "little")
    blocks = b"".join([head + tail for tail in _BLOCK_TAILS[: (size + 15) // 16]])
    stream = key.encrypt(blocks)[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")


def seal_join_accept(app_key: AesKey, plain: bytes) -> bytes:
    """The join accept on the air; `plain` is MHDR and its fields without MIC (13 or 29 B).

    The network *decrypts*, so that the device needs only the encryption half of AES.
    """
    return plain[:1] + app_key.decrypt(plain[1:] + app_key.mic(plain))


def open_join_accept(app_key: AesKey, sealed: bytes) -> bytes | None:
    """The plain join accept without MIC, or None when size or integrity code are wrong."""
    if len(sealed) not in (17, 33):
        return None
    plain = sealed[:1] + app_key.encrypt(sealed[1:])
    body, mic = plain[:-MIC_SIZE], plain[-MIC_SIZE:]
    return body if same_mic(app_key.mic(body), mic) else None


def session_keys(app_key: AesKey, *, join_nonce: int, net_id: int, dev_nonce: int) -> tuple[bytes, bytes]:
    """NwkSKey and AppSKey of an over-the-air activation."""
    seed = join_nonce.to_bytes(3, "little") + net_id.to_bytes(3, "little") + dev_nonce.to_bytes(2, "little")
    pad = bytes(7)
    both = app_key.encrypt(b"\x01" + seed + pad + b"\x02" + seed + pad)
    return both[:KEY_SIZE], both[KEY_SIZE:]


def multicast_keys(mc_key: AesKey, mc_addr: int) -> tuple[bytes, bytes]:
    """McNwkSKey and McAppSKey of a group (TS005 section 4)."""
    seed = mc_addr.to_bytes(4, "little") + bytes(11)
    both = mc_key.encrypt(b"\x02" + seed + b"\x01" + seed)
    return both[:KEY_SIZE], both[KEY_SIZE:]


def mc_root_key(root: AesKey, *, version_1_1: bool = False) -> AesKey:
    """McRootKey of a device (TS005 section 4); `root` is GenAppKey, or AppKey of a LoRaWAN 1.1 device.

    Stacks that keep one key for all (LoRaMac-node on 1.0.x) have GenAppKey = AppKey.
    """
    return AesKey(root.encrypt((b"\x20" if version_1_1 else b"\x00") + bytes(15)))


def mc_ke_key(mc_root: AesKey) -> AesKey:
    """McKEKey, under which a group's key travels to this device."""
    return AesKey(mc_root.encrypt(bytes(16)))


def seal_mc_key(mc_ke: AesKey, mc_key: AesKey) -> bytes:
    """McKey_encrypted of McGroupSetupReq (16 B): *decrypted*, so that the device needs to encrypt only."""
    return mc_ke.decrypt(mc_key.raw)


def open_mc_key(mc_ke: AesKey, sealed: bytes) -> AesKey:
    """What the device makes of it; ValueError unless `sealed` has 16 bytes."""
    if len(sealed) != KEY_SIZE:
        raise ValueError(f"a sealed key has {KEY_SIZE} bytes, not {len(sealed)}")
    return AesKey(mc_ke.encrypt(sealed))


def data_block_key(root: AesKey) -> AesKey:
    """DataBlockIntKey of a device (TS004 version 2); `root` as in `mc_root_key`."""
    return AesKey(root.encrypt(b"\x30" + bytes(15)))


def data_block_mic(key: AesKey, block: bytes, *, session_cnt: int, index: int, descriptor: bytes) -> bytes:
    """The MIC of a data block without its padding, as FragSessionSetupReq (version 2) carries it.

    The key is the device's own, so the group that hears the fragments cannot forge the block.
    """
    assert len(descriptor) == 4
    counted = session_cnt.to_bytes(2, "little") + index.to_bytes(1, "little")
    size = len(block).to_bytes(4, "little")
    return key.mic(b"\x49" + counted + descriptor + bytes(4) + size + block)
