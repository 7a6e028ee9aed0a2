"""Radios: how frames reach the daemon and leave it; the Semtech UDP packet forwarder is the first."""
