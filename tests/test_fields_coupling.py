"""Coupling of two layers: its definition, and its sums."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import oracles.fields as oracle
from pellucid.inside.fields import coupling
from test_fields_measured import Small, pictures_, small


def test_coupling_is_its_definition() -> None:
    net, x = small(), pictures_(2, 12)
    found = coupling(net, "b", "c", x, samples=10**6)
    told = coupling_by_hand(net, x)
    np.testing.assert_allclose(found.signed, told[0], atol=1e-12)
    np.testing.assert_allclose(found.mass, told[1], atol=1e-12)
    assert found.signed.shape == (4, 3) and found.positions == 2 * 3 * 9
    assert found.total == pytest.approx(told[1].sum(0).mean())


def coupling_by_hand(net: Small, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """From b's output to c's, the other branch held as it is."""
    signed, mass = 0.0, 0.0
    for image in x:
        with torch.no_grad():
            y = F.relu(net.a(image[None]))
        above = lambda b, y=y: net.c(F.max_pool2d(y + F.relu(b), 2))  # noqa: E731
        s, m = oracle.coupling(lambda i, y=y: net.b(y), above, image[None])  # pyright: ignore[reportArgumentType]
        signed, mass = signed + s / len(x), mass + m / len(x)
    return np.asarray(signed), np.asarray(mass)


def test_coupling_of_a_chain_is_the_oracles() -> None:
    below, above = nn.Conv2d(2, 3, 3).double(), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 3, stride=2)).double()
    x = pictures_(2, 10)
    found = coupling(nn.Sequential(below, *above).eval(), "0", "2", x, samples=10**6)
    signed, mass = oracle.coupling(below, above, x)
    np.testing.assert_allclose(found.signed, signed, atol=1e-12)
    np.testing.assert_allclose(found.mass, mass, atol=1e-12)


def test_coupling_to_scores_and_from_the_input() -> None:
    net, x = small(bias=False), pictures_()
    found = coupling(net, "relu", "head", x, units=[1, 4])
    with torch.no_grad():
        scores = net(x)[:, [1, 4]].mean(0).numpy()
    np.testing.assert_allclose(found.signed.sum(0), scores, atol=1e-12)
    whole = coupling(net, "input", "head", x)
    assert whole.signed.shape == (2, 5)
    few = coupling(net, "relu", "head", x, samples=3)
    assert "1 of 5" in few.notes[0] and np.isnan(few.signed).any()
