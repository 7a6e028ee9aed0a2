"""Flower above the cell: its ServerApps over one cell's radio, and cells under one SuperLink."""
