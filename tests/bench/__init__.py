"""`make bench`: what the parts cost on this machine, in CPU seconds; docs/benchmarks.md keeps the table."""
