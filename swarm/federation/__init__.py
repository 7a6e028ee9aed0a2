"""Learning together: rounds, Flower strategies, prototypes and top-k signs."""
