"""One self-contained HTML page: pictures, predictions, maps side by side, receipts, and a plain sentence on top.

Nothing is loaded from anywhere: script, style, pictures and data are in the page, and its security policy forbids
the rest. Facts are written as HTML here; the script draws maps from the data block and serves the controls.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from math import isfinite
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

from pellucid.core.errors import SettingError
from pellucid.core.receipt import Check, Receipt
from pellucid.render import bars, paint
from pellucid.render.datablock import GRID_CELLS, PERCENTILES, PICTURE_PX, data_block, embed, picture_key, picture_uri
from pellucid.render.explanation import Explanation
from pellucid.render.extras import MOST_STILLS, Still, scales, stills
from pellucid.render.leaf import allowed
from pellucid.render.notebook import data_uri, escape
from pellucid.render.sentence import (
    alt_text,
    lead,
    map_sentence,
    share_text,
    trust_sentence,
)
from pellucid.render.tabular import tables_html
from pellucid.store.files import write_text

_STILL_PX, _EXTRA_PX = 480, 300
_PIXELATED_PX = 160
_VERDICTS = {"pass": "✓ passed", "warn": "! with care", "fail": "✗ failed", "told": "i told"}
_BADGES = {"pass": "✓ checks passed", "warn": "! read with care", "fail": "✗ failed its check"}


def report(
    explanations: Iterable[Explanation] | Explanation,
    path: str | Path,
    *,
    title: str | None = None,
    overwrite: bool = True,
) -> Path:
    """Writes the page in one step.

    Args:
        explanations: one or many; grouped by image, a row for each target, a column for each method.
        path: the file, usually `*.html`.
        title: heading of the page; None names the pictures.
        overwrite: False refuses a file that exists.

    Raises:
        SettingError: there is nothing to report.
        FileError: the file can't be written.
    """
    shown = (explanations,) if isinstance(explanations, Explanation) else tuple(explanations)
    if not shown:
        raise SettingError("there is nothing to report; expected at least one explanation")
    return write_text(path, page(shown, title or _default_title(shown)), overwrite=overwrite)


def page(explanations: Sequence[Explanation], title: str) -> str:
    """The whole page as text."""
    style, script = _asset("report.css"), _asset("report.js")
    numbered = list(enumerate(explanations))
    groups = _grouped(numbered, lambda one: picture_key(one.picture))
    return Template(_asset("report.html")).substitute(
        title=escape(title),
        policy=f"script-src '{allowed(script)}'; style-src '{allowed(style)}'",
        style=style,
        script=script,
        clips="".join(_option(i, p) for i, p in enumerate(PERCENTILES)),
        images="\n".join(_image(group) for group in groups),
        versions=escape(_versions(explanations)),
        data=embed(data_block(explanations, title)),
    )


_Numbered = tuple[int, Explanation]


def _image(group: list[_Numbered]) -> str:
    first = group[0][1]
    rows = "\n".join(_row(row, alone=len(group) == 1) for row in _grouped(group, lambda one: one.target))
    rows += "".join(bars.html(*found) for found in bars.bars_of(one for _, one in group).items())
    return f"""<section class="image">
<h2>{escape(first.picture.name)}</h2>
<p class="lead">{escape(lead([one for _, one in group]))}</p>
<div class="beside"><aside>
<figure><img class="{_picture_class(first)}" src="{picture_uri(first.picture.image(), _STILL_PX)}"
 alt="The picture {escape(first.picture.name)}"><figcaption>{escape(_size_text(first))}</figcaption></figure>
{_predictions(first)}
</aside><div class="rows">{rows}</div></div>
</section>"""


def _row(row: list[_Numbered], alone: bool) -> str:
    first = row[0][1]
    cards = "\n".join(_card(number, one, alone, len(row) == 1) for number, one in row)
    score = f"score {paint.number(first.score)}"
    return (
        f'<h3>Target: {escape(first.target)} <span class="quiet">{escape(score)}</span></h3>'
        f'<div class="row">{cards}</div>'
    )


def _card(number: int, one: Explanation, alone: bool, wide: bool) -> str:
    said = "" if alone else f'<p class="said">{escape(f"{map_sentence(one)} {trust_sentence(one)}")}</p>'
    still = picture_uri(one.overlay(longest_px=_STILL_PX), _STILL_PX)
    bar = data_uri(Image.fromarray(paint.strip(one.diverging)))
    low, high = (paint.number(value) for value in one.limits())
    zero = '<span class="zero">0</span>' if one.diverging else ""
    verdict = "quiet" if _unchecked(one.receipt) else one.receipt.verdict
    size = "map full" if wide and _has_more(one) else "map"
    return f"""<article class="{size}" aria-labelledby="name-{number}">
<h4 id="name-{number}">{escape(one.title)} {_layer(one)}</h4>
<p class="badge {verdict}">{_badge(one.receipt)}</p>
<div class="stage" data-map="{number}" tabindex="0" role="group"
 aria-label="{escape(one.title)} map; arrow keys read values">
<img class="{_picture_class(one)}" src="{still}" alt="{escape(alt_text(one))}"></div>
<div class="scale"><img class="bar" src="{bar}" alt=""><p class="ends"><span class="low">{low}</span>
{zero}<span class="high">{high}</span></p>
<p class="quiet note">{escape(one.units or "heat")}; colours end at percentile <span class="clip">98</span> of |heat|
</p></div>
<p class="probe quiet" hidden></p>
{said}
{_more(one, wide)}
<details><summary>Settings, receipt, source</summary>{_facts(one)}{_receipt(one.receipt)}</details>
</article>"""


def _has_more(one: Explanation) -> bool:
    return bool(one.tables or one.extra_maps)


def _more(one: Explanation, wide: bool) -> str:
    """Further maps and tables: open where the map has a row of its own, else folded, so that maps stay beside maps."""
    if wide or not _has_more(one):
        return _stills(one) + tables_html(one.tables)
    names = ", ".join(["further maps"] * bool(one.extra_maps) + [table.name for table in one.tables])
    return f"<details><summary>More: {escape(names)}</summary>{_stills(one)}{tables_html(one.tables)}</details>"


def _stills(one: Explanation) -> str:
    """The further maps beside each other; those of one unit share their limits."""
    found = stills(one)
    shown = "".join(_still(still) for group in scales(found[:MOST_STILLS]) for still in group)
    more = f'<p class="quiet">and {len(found) - MOST_STILLS} more, kept in the .pel file</p>'
    rest = more if len(found) > MOST_STILLS else ""
    note = '<p class="quiet">Maps of one unit share the ends of their colours.</p>' if len(found) > 1 else ""
    body = f'<h5>Further maps</h5>{note}<div class="stills">{shown}</div>{rest}'
    return f'<section class="found">{body}</section>' if found else ""


def _still(still: Still) -> str:
    low, high = (paint.number(value) for value in still.limits)
    source = picture_uri(still.picture(_EXTRA_PX), _EXTRA_PX)
    bar = data_uri(Image.fromarray(paint.strip(still.shown.diverging)))
    return f"""<figure><img class="{_picture_class(still.shown)}" src="{source}" alt="{escape(alt_text(still.shown))}">
<img class="bar" src="{bar}" alt=""><p class="ends"><span class="low">{low}</span><span class="high">{high}</span></p>
<figcaption>{escape(still.name)}</figcaption></figure>"""


def _facts(one: Explanation) -> str:
    rows, columns = one.native.shape
    averaged = ", averaged for this page" if max(rows, columns) > GRID_CELLS else ""
    facts: dict[str, Any] = {
        "Method": f"{one.title} ({one.method})",
        "Layer": f"{one.layer} (chosen for you)" if one.layer and one.layer_chosen else one.layer,
        "Computed cells": f"{rows} × {columns}{averaged}",
        "Units": one.units,
        "Seconds": f"{one.seconds:.3g}",
        "Model": one.model,
        "When it misleads": one.misleads,
        "Source": one.source,
    }
    facts |= {f"Setting {name}": _value(value) for name, value in one.settings.items() if name != "layer"}
    return _definitions({name: fact for name, fact in facts.items() if fact})


def _receipt(receipt: Receipt) -> str:
    checks = "".join(_check(check) for check in receipt.checks)
    table = (
        '<div class="wide" tabindex="0" role="region" aria-label="Checks"><table><thead><tr><th>Check</th>'
        f"<th>Number</th><th>Bound</th><th>Verdict</th></tr></thead><tbody>{checks}</tbody></table></div>"
    )
    steps = {"Approximate": receipt.approximate, "Notes": receipt.notes}
    lists = "".join(f"<h5>{name}</h5>{_bullets(entries)}" for name, entries in steps.items() if entries)
    operations = {rule: f"{count:,}" for rule, count in receipt.operations.items()}
    counted = f"<h5>Operations by rule</h5>{_definitions(operations)}" if operations else ""
    return f"<h5>Receipt</h5>{table if checks else '<p>No checks were made.</p>'}{lists}{counted}"


def _check(check: Check) -> str:
    bound = "none" if check.bound is None else paint.number(check.bound)
    return (
        f'<tr><th scope="row">{escape(check.name)}</th><td>{paint.number(check.value)}</td><td>{bound}</td>'
        f'<td class="{check.verdict}">{_VERDICTS[check.verdict]}</td></tr>'
        f'<tr class="why"><td colspan="4">{escape(check.text)}</td></tr>'
    )


def _predictions(one: Explanation) -> str:
    if not one.predictions:
        return ""
    shares = "".join(
        f'<li><span>{escape(p.label)}</span><span class="share">{share_text(min(p.probability, 0.999))}</span>'
        f'<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{_percent(p.probability)}" height="4"/></svg></li>'
        for p in one.predictions
    )
    return f'<h3>The network says</h3><ol class="bars">{shares}</ol>'


def _percent(probability: float) -> str:
    return f"{100 * min(1.0, max(0.0, probability)):.2f}" if isfinite(probability) else "0"


def _layer(one: Explanation) -> str:
    chosen = ", chosen for you" if one.layer_chosen else ""
    return f'<span class="quiet">{escape(one.layer)}{chosen}</span>' if one.layer else ""


def _badge(receipt: Receipt) -> str:
    return "no numerical check of its own" if _unchecked(receipt) else _BADGES[receipt.verdict]


def _unchecked(receipt: Receipt) -> bool:
    """Nothing was wrong, and nothing was held against a bound either."""
    return receipt.verdict == "told"


def _size_text(one: Explanation) -> str:
    height, width = one.picture.size_px
    scale = PICTURE_PX / max(height, width)
    shown = f", shown at {round(width * scale)} × {round(height * scale)}" if scale < 1 else ""
    notes = "".join(f"; {note}" for note in one.picture.notes)
    return f"{width} × {height} pixels{shown}{notes}"


def _picture_class(one: Explanation) -> str:
    return "picture tiny" if max(one.picture.size_px) <= _PIXELATED_PX else "picture"


def _grouped(numbered: list[_Numbered], key: Any) -> list[list[_Numbered]]:
    groups: dict[Any, list[_Numbered]] = {}
    for number, one in numbered:
        groups.setdefault(key(one), []).append((number, one))
    return list(groups.values())


def _definitions(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts.items())}</dl>"


def _bullets(entries: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(entry)}</li>' for entry in entries)}</ul>"


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _versions(explanations: Sequence[Explanation]) -> str:
    found = {f"{name} {version}" for one in explanations for name, version in one.versions.items()}
    return ", ".join(sorted(found))


def _default_title(explanations: Sequence[Explanation]) -> str:
    names = list(dict.fromkeys(one.picture.name for one in explanations))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Explained: {', '.join(names[:3])}{more}"


def _option(index: int, percentile: float) -> str:
    chosen = " selected" if percentile == 98 else ""
    words = "largest value" if percentile == 100 else f"percentile {percentile:g}"
    return f'<option value="{index}"{chosen}>{words}</option>'


def _asset(name: str) -> str:
    return files("pellucid.render").joinpath(name).read_text("utf-8")
