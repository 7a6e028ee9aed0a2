"""Which uplink channels a device may use, as the channel masks of a LinkADRReq and of a CFList say it.

Two kinds of regions.  In *dynamic* ones a device has up to 16 channels: the default ones, those of the
CFList and those of NewChannelReq, and ChMask has a bit for each.  *Fixed* plans (US915, AU915, CN470)
number all channels of the region; masks speak of banks of 16, and ChMaskCntl says of which, or of all at
once.  A channel set is an integer here, bit n for channel n.

A set is always told whole, in one contiguous block of LinkADRReq that begins from nothing or from everything:
end devices differ in whether a block changes the set they had or makes a new one.
Source: RP002-1.0.4 (CN470: 26 MHz plan).
"""

from __future__ import annotations

from swarm.phy.regions import Region

__all__ = [
    "DYNAMIC_CHANNELS",
    "all_channels",
    "apply_mask",
    "cf_list_masks",
    "is_fixed",
    "masks_of",
    "sub_band",
    "sub_band_of",
]

DYNAMIC_CHANNELS = 16
BANK = 16
WIDE = 64
"""Fixed plans of 72 channels: from here on they are 500 kHz wide."""


def is_fixed(region: Region) -> bool:
    """Whether the channels of the region are numbered once and for all."""
    return region.cflist == "channel_masks"


def all_channels(region: Region) -> int:
    """Every channel of a fixed plan; the default ones of a dynamic region."""
    return (1 << len(region.uplink_channels)) - 1


def sub_band(region: Region, number: int) -> int:
    """The eight 125 kHz channels of sub-band `number` (from 1), and the wide one that belongs to them.

    ValueError: no fixed plan, or no such sub-band.
    """
    count = len(region.uplink_channels)
    narrow = min(count, WIDE)
    if not is_fixed(region) or not 1 <= number <= narrow // 8:
        raise ValueError(f"{region.name} has no sub-band {number}")
    channels = 0xFF << 8 * (number - 1)
    return channels | 1 << WIDE + number - 1 if count > WIDE else channels


def sub_band_of(region: Region, frequency_hz: int) -> int | None:
    """The sub-band (from 1) of an uplink channel of a fixed plan; None: there is no such channel, or plan."""
    for index, channel in enumerate(region.uplink_channels if is_fixed(region) else ()):
        if channel.frequency_hz == frequency_hz:
            return index - WIDE + 1 if index >= WIDE else index // 8 + 1
    return None


def masks_of(region: Region, channels: int) -> tuple[tuple[int, int], ...]:
    """(ChMaskCntl, ChMask) of the LinkADRReq, one to five, that make `channels` the device's set.

    In dynamic regions: all that the device has been given, whatever these are.
    """
    if not is_fixed(region):
        return ((6, 0),)
    count = len(region.uplink_channels)
    if count <= WIDE:
        if channels == all_channels(region):
            return ((3, 0),)
        return tuple((bank, _bank(channels, bank)) for bank in range(count // BANK))
    wide = channels >> WIDE & 0xFF
    narrow = [(bank, _bank(channels, bank)) for bank in range(WIDE // BANK)]
    if all(mask == 0xFFFF for _, mask in narrow):
        return ((6, wide),)
    return ((7, wide), *((bank, mask) for bank, mask in narrow if mask))


def apply_mask(region: Region, channels: int, cntl: int, mask: int, defined: int) -> int | None:
    """The set after one block: `channels` before it, `defined` those that exist; None: what is reserved, or
    a channel that does not exist."""
    if not is_fixed(region):
        if cntl == 6:
            return defined
        return mask if cntl == 0 and not mask & ~defined else None
    count = len(region.uplink_channels)
    if count <= WIDE:
        if cntl in (3, 4):
            return all_channels(region) if cntl == 3 else 0
        return _with_bank(channels, cntl, mask) if cntl < count // BANK else None
    if cntl < 4:
        return _with_bank(channels, cntl, mask)
    if cntl == 4:
        return None if mask > 0xFF else channels & (1 << WIDE) - 1 | mask << WIDE
    if cntl == 5:
        narrow = sum(0xFF << 8 * band for band in range(8) if mask >> band & 1)
        return narrow | (mask & 0xFF) << WIDE
    return ((1 << WIDE) - 1 if cntl == 6 else 0) | (mask & 0xFF) << WIDE


def cf_list_masks(region: Region, channels: int) -> bytes:
    """A CFList (type 1) that makes `channels` the set of a joining device, 16 B."""
    banks = -(-len(region.uplink_channels) // BANK)
    masks = b"".join(_bank(channels, bank).to_bytes(2, "little") for bank in range(banks))
    return masks.ljust(15, b"\x00") + b"\x01"


def channels_of(region: Region, cf_list: bytes) -> int | None:
    """The set that a CFList of type 1 makes; None: it is none, or none of the region's channels is left."""
    if len(cf_list) != 16 or cf_list[15] != 1 or not is_fixed(region):
        return None
    channels = int.from_bytes(cf_list[:15], "little") & all_channels(region)
    return channels or None


def _bank(channels: int, bank: int) -> int:
    return channels >> BANK * bank & 0xFFFF


def _with_bank(channels: int, bank: int, mask: int) -> int:
    return channels & ~(0xFFFF << BANK * bank) | mask << BANK * bank
