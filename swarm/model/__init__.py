"""The mixture-of-experts model as data: layout of the parameters, container, deltas and blocks."""
