"""Federated cells."""
