"""Relevance of several targets side by side: how much of the map speaks for each, in warm, and against it, in cold."""

from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from pellucid.render import paint
from pellucid.render.colours import DIVERGING, NEUTRAL
from pellucid.render.explanation import Explanation
from pellucid.render.notebook import escape

WARM, COLD = (tuple(int(c) for c in DIVERGING[i][:3]) for i in (-1, 0))
SHARE = "share of the score"  # the units of relevance
_LINE_PX, _LABEL_PX, _HALF_PX = 26, 220, 170


@dataclass(frozen=True)
class Bar:
    """One target: the sums of its map's positive and negative values."""

    target: str
    warm: float
    cold: float


def bars_of(explanations: Iterable[Explanation]) -> dict[str, list[Bar]]:
    """For each signed method that explains several targets of one picture, a bar per target."""
    found: dict[str, list[Bar]] = {}
    for one in explanations:
        if one.diverging and one.units == SHARE:
            heat = one.attribution
            found.setdefault(_called(one), []).append(
                Bar(one.target, float(heat.clamp(min=0).sum()), float(heat.clamp(max=0).sum()))
            )
    return {title: bars for title, bars in found.items() if len(bars) > 1}


def _called(one: Explanation) -> str:
    composite = one.settings.get("composite")
    return f"{one.title} ({composite})" if isinstance(composite, str) else one.title


def html(title: str, bars: list[Bar]) -> str:
    """The bars as a table whose last column is drawn."""
    most = _most(bars)
    rows = "".join(
        f'<tr><th scope="row">{escape(bar.target)}</th><td>{paint.number(bar.warm)}</td>'
        f"<td>{paint.number(bar.cold)}</td>"
        f'<td><svg viewBox="0 0 200 10" width="200" height="14" aria-hidden="true">'
        f'<rect x="100" width="{100 * bar.warm / most:.2f}" height="10" fill="{_hex(WARM)}"/>'
        f'<rect x="{100 + 100 * bar.cold / most:.2f}" width="{-100 * bar.cold / most:.2f}" height="10" '
        f'fill="{_hex(COLD)}"/><path d="M100 0V10" stroke="currentColor"/></svg></td></tr>'
        for bar in bars
    )
    return (
        f'<h3>{escape(title)}: what speaks for each target, and against it</h3><div class="wide" tabindex="0" '
        f'role="region" aria-label="Relevance of the targets"><table><thead><tr><th>Target</th><th>For (warm)</th>'
        f"<th>Against (cold)</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def picture(title: str, bars: list[Bar]) -> Image.Image:
    """The bars as a picture, with their numbers printed."""
    most, font = _most(bars), ImageFont.load_default(13)
    sheet = Image.new("RGB", (_LABEL_PX + 2 * (_HALF_PX + 60), _LINE_PX * (len(bars) + 1) + 8), "white")
    pen, middle = ImageDraw.Draw(sheet), _LABEL_PX + _HALF_PX + 60
    pen.text((4, 6), title, fill="black", font=font)
    for line, bar in enumerate(bars, 1):
        top = 4 + line * _LINE_PX
        left, right = middle + round(_HALF_PX * bar.cold / most), middle + round(_HALF_PX * bar.warm / most)
        pen.text((4, top + 4), bar.target[:32], fill="black", font=font)
        pen.rectangle((left, top + 2, middle, top + _LINE_PX - 6), fill=COLD if bar.cold else NEUTRAL)
        pen.rectangle((middle, top + 2, right, top + _LINE_PX - 6), fill=WARM if bar.warm else NEUTRAL)
        pen.text((left - 4, top + 4), paint.plain(bar.cold), fill="black", font=font, anchor="ra")
        pen.text((right + 4, top + 4), paint.plain(bar.warm), fill="black", font=font)
    pen.line((middle, _LINE_PX, middle, sheet.height), fill="black")
    return sheet


def _most(bars: list[Bar]) -> float:
    return max(max(bar.warm, -bar.cold) for bar in bars) or 1.0


def _hex(colour: tuple[int, ...]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
