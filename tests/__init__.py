"""Tests, mirroring the tree; vectors/ is the protocol as data, read by Python and by C."""
