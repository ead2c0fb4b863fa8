"""What a scene shows at each pixel, painted pixel by pixel from its definition.

A thing is `(y, x, size, turn, parts)`: the centre and the half-size in fractions of the picture's side, the turn in
radians, clockwise on the screen; its parts lie back to front. A part is `(name, pieces)`, and covers a pixel whose
centre lies in any of its pieces: `("polygon", ((y, x), …))` or `("ellipse", y, x, ry, rx)`, in half-sizes, y downwards.
"""

from collections.abc import Iterator, Sequence
from math import atan2, cos, hypot, pi, sin
from typing import Any

NEAR = 1e-9  # half-sizes: closer to an outline, the side is not decided
FARTHEST = 1.5  # half-sizes: parts lie in the square from -1 to 1


def topmost(px: int, things: Sequence[Any], horizon: float) -> list[list[str | None]]:
    """The name of what is seen at each pixel: a part, "sky" or "ground"; None where an outline hits the centre."""
    return [[_seen(px, row, column, things, horizon) for column in range(px)] for row in range(px)]


def _seen(px: int, row: int, column: int, things: Sequence[Any], horizon: float) -> str | None:
    seen: str | None = "ground" if row + 1 > horizon * px else "sky"
    for y, x, size, turn, parts in things:
        down, right = (row + 0.5) / px - y, (column + 0.5) / px - x
        distance, angle = hypot(down, right) / size, atan2(down, right) - turn
        if distance > FARTHEST:
            continue
        point = distance * sin(angle), distance * cos(angle)
        for name, pieces in parts:
            covers = [inside(piece, point) for piece in pieces]
            if any(c is True for c in covers):
                seen = name
            elif any(c is None for c in covers):
                seen = None
    return seen


def inside(piece: Any, point: tuple[float, float]) -> bool | None:
    """Whether a point lies in a piece; None where it lies on the outline, as far as numbers tell."""
    kind, *rest = piece
    return _in_ellipse(point, *rest) if kind == "ellipse" else _in_polygon(point, rest[0])


def _in_ellipse(point: tuple[float, float], y: float, x: float, ry: float, rx: float) -> bool | None:
    distance = hypot((point[0] - y) / ry, (point[1] - x) / rx)
    return None if abs(distance - 1) < NEAR else distance < 1


def _in_polygon(point: tuple[float, float], corners: Sequence[tuple[float, float]]) -> bool | None:
    """The angles under which a point sees the sides add up to a full turn inside, and to nothing outside."""
    total = 0.0
    for (y1, x1), (y2, x2) in _sides(corners):
        if _distance(point, (y1, x1), (y2, x2)) < NEAR:
            return None
        turned = atan2(y2 - point[0], x2 - point[1]) - atan2(y1 - point[0], x1 - point[1])
        total += (turned + pi) % (2 * pi) - pi
    return round(total / (2 * pi)) != 0


def _sides(corners: Sequence[tuple[float, float]]) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    for number, corner in enumerate(corners):
        yield corner, corners[(number + 1) % len(corners)]


def _distance(point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> float:
    """From a point to the side between two corners."""
    along = end[0] - start[0], end[1] - start[1]
    to_point = point[0] - start[0], point[1] - start[1]
    share = (to_point[0] * along[0] + to_point[1] * along[1]) / (along[0] ** 2 + along[1] ** 2)
    share = min(max(share, 0.0), 1.0)
    return hypot(to_point[0] - share * along[0], to_point[1] - share * along[1])
