"""Random numbers that belong to one picture and to nobody else."""

import hashlib

import torch


def source(seed: int, name: str) -> torch.Generator:
    """A generator of the seed and the picture's own name, so that its neighbours in a batch do not matter."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
