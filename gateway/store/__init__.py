"""The disk: one SQLite file in the data directory holds all that a restart must not forget."""
