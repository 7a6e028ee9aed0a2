"""The model container that the node's tests run on: random weights, so that retraining changes no test."""

from swarm.model.container import random_model

__all__ = ["IMAGE"]

IMAGE = random_model(1)
