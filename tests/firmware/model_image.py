"""The model containers that the node's tests run on: random weights, so that retraining changes no test."""

from swarm.model.container import random_model

__all__ = ["IMAGE", "IMAGE_OF_ALL", "IMAGE_WITHOUT_RULE"]

IMAGE = random_model(1)
"""Knows contexts 0 and 1, as the shipped model does."""
IMAGE_OF_ALL = random_model(1, contexts=(0, 1, 2, 3))
"""Knows every crop that has a rule."""
IMAGE_WITHOUT_RULE = random_model(1, contexts=(0, 5, 7))
"""Knows contexts for which the firmware has no rule, and not tomato, whose rule is the general one."""
