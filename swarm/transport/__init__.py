"""Blocks over a lossy link: the erasure code of TS004 and the sessions that use it."""
