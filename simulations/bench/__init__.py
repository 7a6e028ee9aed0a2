"""Benchmarks: real firmware, real frames, measured against their baselines."""
