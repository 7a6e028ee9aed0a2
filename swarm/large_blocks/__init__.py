"""A large block on its way to many nodes: which (`blocks`), how (`plan`, `job`), the frames (`sending`)."""
