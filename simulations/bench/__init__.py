"""Benchmarks of what the swarm does for its user: real firmware, real frames, against baselines."""
