"""What a notebook shows: a small static picture, the sentence and the limits; no script, nothing loaded."""

import base64
from collections.abc import Sequence
from html import escape as escape_markup
from io import BytesIO

from PIL import Image

from pellucid.render.explanation import Explanation
from pellucid.render.sentence import alt_text
from pellucid.render.visible import visible

_LONGEST_PX = 384
_MOST_CARDS, _MOST_NAMES = 12, 6
_CARD = "display:inline-block;vertical-align:top;width:min(100%,384px);margin:0 16px 16px 0;font:14px/1.45 sans-serif"


def card(explanation: Explanation) -> str:
    """One explanation as a small block of HTML."""
    source = data_uri(explanation.overlay(longest_px=_LONGEST_PX))
    return (
        f'<div style="{_CARD}"><img src="{source}" alt="{escape(alt_text(explanation))}" style="max-width:100%">'
        f'<p style="margin:6px 0">{escape(explanation.sentence())}</p>'
        f'<p style="margin:6px 0;opacity:.8;font-size:12px">{escape(explanation.caption())}. '
        f"{explanation.seconds:.2g} s{escape(_more(explanation))}</p></div>"
    )


def _more(explanation: Explanation) -> str:
    """What there is besides the map, and where to find it."""
    tables = ", ".join(f"{table.name} ({len(table.rows)} rows)" for table in explanation.tables[:_MOST_NAMES])
    maps = ", ".join(list(explanation.extra_maps)[:_MOST_NAMES])
    told = [f"Tables: {tables}; see .tables"] * bool(tables) + [f"Further maps: {maps}; see .extra(name)"] * bool(maps)
    return "".join(f". {part}" for part in told)


def cards(explanations: Sequence[Explanation]) -> str:
    """Several explanations side by side; beyond a dozen, the rest is counted."""
    shown = "".join(card(explanation) for explanation in explanations[:_MOST_CARDS])
    rest = len(explanations) - _MOST_CARDS
    return shown + (f"<p>and {rest} more; see them all with .report(path)</p>" if rest > 0 else "")


def escape(text: str) -> str:
    """Text of the user's inside HTML: neither markup nor a control character of it acts."""
    return escape_markup(visible(text))


def data_uri(picture: Image.Image, kind: str = "PNG", **options: int) -> str:
    """A picture as a `data:` address."""
    held = BytesIO()
    picture.save(held, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
