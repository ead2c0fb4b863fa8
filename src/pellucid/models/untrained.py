"""Random weights on purpose: the same ones every time, without touching the user's random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

import torch

RANDOM_NOTE = "RANDOM WEIGHTS (seed 0): this network has learnt nothing, so its classes and their maps mean nothing"


def is_random(weights: str | Path | None) -> TypeGuard[str]:
    """Whether the user asked for random weights: `"random"` or `"none"`."""
    return isinstance(weights, str) and weights.lower() in ("random", "none")


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers of one seed inside the block; the user's own stream goes on after it as if nothing had been."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
