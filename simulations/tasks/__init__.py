"""The learning tasks: public data, fleets of nodes with labels of their own, baselines that need no model."""
