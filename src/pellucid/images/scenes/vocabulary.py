"""The words of a scene: colours, textures, materials and backdrops, and how each is painted.

Everything on pixels is integer hashing and `+ - * /` in float64, so that the same scene gives the same bytes on
every machine.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

COLOURS: dict[str, tuple[float, float, float]] = {
    "black": (0.08, 0.08, 0.09),
    "blue": (0.16, 0.32, 0.80),
    "brown": (0.42, 0.25, 0.10),
    "green": (0.16, 0.56, 0.20),
    "grey": (0.52, 0.52, 0.52),
    "orange": (0.95, 0.52, 0.08),
    "pink": (0.97, 0.60, 0.74),
    "purple": (0.48, 0.18, 0.62),
    "red": (0.82, 0.10, 0.10),
    "white": (0.94, 0.94, 0.92),
    "yellow": (0.93, 0.86, 0.18),
}
PERIOD = 0.094  # of every texture, as a fraction of the picture's side: 6 px of 64

# A backdrop is a sky and a ground: colour, texture and material of each; never red or brown, which decide a class.
BACKDROPS: dict[str, tuple[tuple[str, str, str], tuple[str, str, str]]] = {
    "meadow": (("blue", "plain", "matte"), ("green", "plain", "sand")),
    "desert": (("yellow", "plain", "matte"), ("orange", "waves", "sand")),
    "sea": (("grey", "plain", "matte"), ("blue", "waves", "matte")),
    "snow": (("blue", "plain", "matte"), ("white", "plain", "sand")),
    "night": (("black", "plain", "sand"), ("purple", "plain", "stone")),
    "hall": (("pink", "grid", "matte"), ("orange", "plain", "wood")),
    "forest": (("green", "bars", "wood"), ("black", "plain", "sand")),
    "street": (("grey", "bricks", "stone"), ("black", "plain", "stone")),
    "sunset": (("orange", "plain", "matte"), ("purple", "plain", "sand")),
    "studio": (("white", "plain", "fabric"), ("grey", "checks", "matte")),
}

Plane = Float64[np.ndarray, "h w"]
Whole = Int64[np.ndarray, "h w"]


def hashed(y: Whole, x: Whole, seed: int) -> Plane:
    """Noise in [0, 1) that depends on integer coordinates and a seed only (a xorshift-multiply hash of 64 bits)."""
    with np.errstate(over="ignore"):
        h = y.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + x.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
        h += np.uint64(seed % 2**63) * np.uint64(0xD6E8FEB86659FD93) + np.uint64(0x165667B19E3779F9)
        for _ in range(2):
            h = (h ^ (h >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        h ^= h >> np.uint64(32)
    return (h >> np.uint64(40)).astype(np.float64) / 2**24


def _saw(t: Plane) -> Plane:
    """A position within its period, in [0, 1)."""
    return t - np.floor(t)


def _triangle(t: Plane) -> Plane:
    """A triangle wave of period 1 in [0, 1]."""
    return 1 - np.abs(2 * _saw(t) - 1)


def _bands(t: Plane, share: float = 0.5) -> Plane:
    return (_saw(t) < share).astype(np.float64)


def _dots(u: Plane, v: Plane) -> Plane:
    return ((_saw(u) - 0.5) ** 2 + (_saw(v) - 0.5) ** 2 < 0.1).astype(np.float64)


def _rings(u: Plane, v: Plane) -> Plane:
    radius = np.sqrt((_saw(u / 2) - 0.5) ** 2 + (_saw(v / 2) - 0.5) ** 2)
    return _bands(radius * 4)


def _bricks(u: Plane, v: Plane) -> Plane:
    shifted = v / 2 + np.floor(u * 1.25) / 2
    return np.maximum(_bands(u * 1.25, 0.3), _bands(shifted, 0.15))


# From coordinates in periods (down, right) to 1 where the second tone shows and 0 where the first does.
TEXTURES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "stripes": lambda u, v: _bands(v),
    "dots": _dots,
    "bars": lambda u, v: _bands(u),
    "diagonal": lambda u, v: _bands((u + v) * 0.75),
    "checks": lambda u, v: np.abs(_bands(u) - _bands(v)),
    "rings": _rings,
    "bricks": _bricks,
    "zigzag": lambda u, v: _bands(u + _triangle(v / 2)),
    "grid": lambda u, v: np.maximum(_bands(u, 0.25), _bands(v, 0.25)),
    "waves": lambda u, v: _bands(u + 0.6 * _triangle(v / 3) * (2 - _triangle(v / 3)), 0.3),
}

# From integer pixel coordinates (relative to the thing) and a seed to a factor on the brightness, about 1.
MATERIALS: dict[str, Callable[[Whole, Whole, int, int], Plane]] = {
    "matte": lambda y, x, seed, px: np.ones(y.shape),
    "wood": lambda y, x, seed, px: 0.92 + 0.16 * hashed(y, x // 9, seed),
    "stone": lambda y, x, seed, px: 0.90 + 0.20 * hashed(y // 3, x // 3, seed),
    "metal": lambda y, x, seed, px: 0.90 + 0.25 * _triangle((y + x) / (0.4 * px) + seed % 97 / 97),
    "fabric": lambda y, x, seed, px: 0.95 + 0.10 * ((y + x) % 2),
    "sand": lambda y, x, seed, px: 0.91 + 0.18 * hashed(y, x, seed),
}


def two_tones(colour: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The two tones of a textured surface: the colour, and a darker one, or a lighter one where it is dark itself."""
    first = np.array(colour)
    bright = float(first @ np.array([0.30, 0.59, 0.11])) > 0.36
    return first, first * 0.38 if bright else first + 0.55 * (1 - first)
