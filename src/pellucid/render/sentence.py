"""What a map says, in words for a reader who is no expert: facts of heat, tables, prediction and receipt only."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from pellucid.core.receipt import Receipt
from pellucid.render import paint
from pellucid.render.explanation import Explanation, Prediction

_LONGEST_PX = 288
_COARSE_CELLS = 32
_HALF = 0.5
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")
_Part = tuple[str, slice, slice]


def sentence(explanation: Explanation) -> str:
    """Prediction, place, coarseness and reliability, as one short paragraph."""
    parts = (prediction_sentence(explanation), map_sentence(explanation), trust_sentence(explanation))
    return " ".join(part for part in parts if part)


def lead(explanations: Sequence[Explanation]) -> str:
    """What stands above all maps of one picture: the prediction, how many maps there are, and which to distrust."""
    if len(explanations) == 1:
        return sentence(explanations[0])
    methods = dict.fromkeys(one.title for one in explanations)
    many = f" by {len(methods)} methods. Each method asks its own question, so the maps may differ." * (
        len(methods) > 1
    )
    failed = _told(explanations, "fail", "Do not rely on {}: failed their own check.")
    warned = _told(explanations, "warn", "Read with care: {}.")
    parts = (prediction_sentence(explanations[0]), failed, f"Below are {len(explanations)} maps{many or '.'}", warned)
    return " ".join(part for part in parts if part)


def _told(explanations: Sequence[Explanation], verdict: str, words: str) -> str:
    named = dict.fromkeys(one.title for one in explanations if one.receipt.verdict == verdict)
    return words.format(", ".join(named)) if named else ""


def prediction_sentence(explanation: Explanation) -> str:
    """What the network says about the picture; empty without predictions."""
    if not explanation.predictions:
        return ""
    best = explanation.predictions[0]
    return f"The network says {best.label} ({share_text(min(best.probability, 0.999))})."


def map_sentence(explanation: Explanation) -> str:
    """Where the heat lies, what it means, how coarse it is and what was not seen."""
    heat = explanation.placed(_LONGEST_PX)
    parts = (
        _where(explanation, heat), _finding(explanation), _coarseness(explanation), _unseen(explanation, heat),
    )  # fmt: skip
    return " ".join(part for part in parts if part)


def trust_sentence(explanation: Explanation) -> str:
    """How far the map may be trusted: its checks, what was approximate, and when this method misleads."""
    receipt = explanation.receipt
    named = {verdict: _named(receipt, verdict) for verdict in ("fail", "warn", "pass")}
    if named["fail"]:
        word = f"Do not rely on this map: it failed its own check ({named['fail']})."
    elif named["warn"] or receipt.approximate:
        warned = f"a warning from its own check ({named['warn']})" if named["warn"] else ""
        word = f"Read it with care: {' and '.join(filter(None, (warned, _steps(len(receipt.approximate)))))}."
    elif named["pass"]:
        word = f"It passed its own check{'s' * (', ' in named['pass'])} ({named['pass']})."
    else:
        word = "This method has no numerical check of its own."
    return f"{word} {_misleads(explanation.misleads)}".strip()


def alt_text(explanation: Explanation) -> str:
    """The text that stands for the picture where it can't be seen."""
    name = explanation.picture.name
    return f"{explanation.title} heat map over {name}. {_where(explanation, explanation.placed(_LONGEST_PX))}"


def share_text(share: float) -> str:
    """A share as whole per cent, never claiming all or nothing that is not so.

    Example:
        >>> share_text(0.623), share_text(0.004), share_text(0.9999)
        ('62 %', 'under 1 %', 'over 99 %')
    """
    if not np.isfinite(share):
        return "no number"
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


def densest_part(heat: Float[np.ndarray, "h w"]) -> tuple[str, float]:
    """The familiar part of the picture that holds most heat for its size.

    Of all ninths, quarters, thirds and halves, the one with the largest share / sqrt(area), so that a small part with
    a little less heat wins over a large one.

    Args:
        heat: values >= 0, not all of them 0; what is not finite counts as nothing.

    Returns:
        The part in words ("the left third") and its share of the heat in 0..1; the part is "" where no part holds half
        of the heat, or none stands out (share <= sqrt(area), as where the heat is even).
    """
    mass = np.where(np.isfinite(heat), np.maximum(heat, 0), 0).astype(np.float64)
    total, found = mass.sum(), []
    for area, family in ((1 / 9, _ninths), (1 / 4, _quarters), (1 / 3, _thirds), (1 / 2, _halves)):
        for name, rows, columns in family(*mass.shape):
            share = float(mass[rows, columns].sum() / total)
            found.append((share / area**0.5, share, name))
    found = [part for part in found if part[0] > 1 and part[1] >= _HALF]
    _, share, name = max(found, default=(0, 1.0, ""))
    return name, share


def _strongest_ninth(heat: Float[np.ndarray, "h w"]) -> tuple[str, float]:
    """The ninth with most heat and its share; "" where it holds hardly more than an even spread would give it."""
    mass = np.where(np.isfinite(heat), np.maximum(heat, 0), 0).astype(np.float64)
    total = mass.sum()
    shares = [(float(mass[rows, columns].sum() / total), name) for name, rows, columns in _ninths(*mass.shape)]
    share, name = max(shares)
    return (name, share) if share > 1.5 / 9 else ("", 0.0)


def _where(explanation: Explanation, heat: Float[np.ndarray, "h w"]) -> str:
    finite = heat[np.isfinite(heat)]
    positive, negative = finite[finite > 0].sum(dtype=np.float64), -finite[finite < 0].sum(dtype=np.float64)
    if not finite.size:
        return f"{explanation.title} gave no number anywhere, so this map shows nothing."
    if positive == 0 and negative == 0:
        return f"{explanation.title} is zero everywhere: it marks no part of the picture for {_asked(explanation)}."
    about = _asked(explanation)
    if positive == 0:
        found = _marks(explanation, -heat, f"as what speaks against {about}", "negative heat")
        return f"{found} It marks nothing as speaking for it."
    found = _marks(explanation, heat, _meaning(explanation, about), "positive heat" if negative else "heat")
    return f"{found} {_against(heat, negative / (positive + negative))}".strip()


def _marks(explanation: Explanation, heat: Float[np.ndarray, "h w"], meaning: str, what: str) -> str:
    part, share = densest_part(heat)
    if not part:
        spread = f"{explanation.title} marks no single part of the picture {meaning}: its {what} is spread widely"
        strongest, share = _strongest_ninth(heat)
        return f"{spread}, strongest in {strongest} ({share_text(share)})." if strongest else f"{spread}."
    return f"{explanation.title} marks {part} of the picture {meaning} ({share_text(share)} of the {what})."


def _against(heat: Float[np.ndarray, "h w"], share: float) -> str:
    if share < 0.05:
        return ""
    part, _ = densest_part(-heat)
    place = f"mostly in {part}" if part else "spread over the picture"
    return f"{share_text(share)} of all heat counts the other way, {place}."


def _meaning(explanation: Explanation, about: str) -> str:
    if explanation.reduce in ("max_abs", "sum_abs"):
        return f"as what matters most to {about}, whether for or against"
    if " per unit " in explanation.units:
        return f"as where {'its score' if about == 'it' else f'the score of {about}'} reacts most to small changes"
    return f"as what speaks most for {about}"


def _finding(explanation: Explanation) -> str:
    """What covering the strongest region alone does to the score, where regions were covered."""
    regions = next((table for table in explanation.tables if table.name == "regions"), None)
    if regions is None or not regions.rows or not any(name.startswith("effect ") for name in regions.columns):
        return ""
    drop = regions.column("mean")[0] if "mean" in regions.columns else None
    if not isinstance(drop, int | float) or not 0 < drop < np.inf:
        return ""
    before, after = (paint.number(value) for value in (explanation.score, explanation.score - drop))
    which = f"the strongest of {len(regions.rows)} regions alone" if len(regions.rows) > 1 else "the region"
    return f"Covering {which} lowers the score from {before} to {after}."


def _asked(explanation: Explanation) -> str:
    """The target in plain words: "it" for the top class, the label of another class, else the target as written."""
    for rank, prediction in enumerate(explanation.predictions):
        if _is_class(explanation.target, prediction):
            return "it" if rank == 0 else f"{prediction.label} ({share_text(prediction.probability)})"
    return f"“{explanation.target}”"


def _is_class(target: str, prediction: Prediction) -> bool:
    kinds = "logit|probability|log-probability"
    return bool(re.fullmatch(f"({kinds}) of {prediction.index}( {re.escape(prediction.label)})?", target))


def _coarseness(explanation: Explanation) -> str:
    rows, columns = explanation.native.shape
    if max(rows, columns) > _COARSE_CELLS or max(rows, columns) >= max(explanation.placement.original_px):
        return ""
    return f"This map is coarse: {rows}×{columns} cells."


def _unseen(explanation: Explanation, heat: Float[np.ndarray, "h w"]) -> str:
    missing = float(np.mean(~np.isfinite(heat)))
    broken = float(np.mean(~np.isfinite(explanation.native)))
    if broken:
        return f"{share_text(broken)} of its cells have no number; they are hatched."
    if not missing:
        return ""
    return f"The network did not see the hatched margin ({share_text(missing)} of the picture)."


def _misleads(text: str) -> str:
    if not text:
        return ""
    told = text.strip().rstrip(".")
    if told.lower().startswith(("when ", "where ", "if ")):
        return f"It can mislead {told[0].lower()}{told[1:]}."
    return f"Where it misleads: {told}."


def _named(receipt: Receipt, verdict: str) -> str:
    return ", ".join(dict.fromkeys(check.name for check in receipt.checks if check.verdict == verdict))


def _steps(count: int) -> str:
    if not count:
        return ""
    return "one step of it was approximate" if count == 1 else f"{count} steps of it were approximate"


def _cuts(size: int, parts: int) -> list[slice]:
    edges = [round(size * i / parts) for i in range(parts + 1)]
    return [slice(low, high) for low, high in pairwise(edges)]


def _ninths(height: int, width: int) -> list[_Part]:
    cells = [(r, c) for r in range(3) for c in range(3)]
    rows, columns = _cuts(height, 3), _cuts(width, 3)
    return [(f"the {_cell(r, c)} ninth", rows[r], columns[c]) for r, c in cells]


def _cell(row: int, column: int) -> str:
    return "central" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]}"


def _quarters(height: int, width: int) -> list[_Part]:
    rows, columns = _cuts(height, 2), _cuts(width, 2)
    return [(f"the {_ROWS[2 * r]} {_COLUMNS[2 * c]} quarter", rows[r], columns[c]) for r in range(2) for c in range(2)]


def _thirds(height: int, width: int) -> list[_Part]:
    whole = slice(None)
    across = [(f"the {_ROWS[i]} third", rows, whole) for i, rows in enumerate(_cuts(height, 3))]
    down = [(f"the {_COLUMNS[i]} third", whole, columns) for i, columns in enumerate(_cuts(width, 3))]
    return [_band(part, "horizontal") for part in across] + [_band(part, "vertical") for part in down]


def _band(part: _Part, way: str) -> _Part:
    name, rows, columns = part
    return name.replace("middle third", f"{way} middle band"), rows, columns


def _halves(height: int, width: int) -> list[_Part]:
    whole = slice(None)
    across = [(f"the {_ROWS[2 * i]} half", rows, whole) for i, rows in enumerate(_cuts(height, 2))]
    return across + [(f"the {_COLUMNS[2 * i]} half", whole, columns) for i, columns in enumerate(_cuts(width, 2))]
