"""Write docs/methods from the registry: a page and a picture for every method, and the table of them all.

    python scripts/make_docs.py            # pages and pictures
    python scripts/make_docs.py --text     # pages only
    python scripts/make_docs.py --check    # fails if a page is out of date or a picture is missing

The pages are the same bytes on every run; pictures are compared by existence only.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from PIL import Image

import pellucid as pel
from pellucid.cli.explaining import DEMO_METHODS
from pellucid.methods.registry import Method, Verdict
from pellucid.render import paint

DOCS = Path(__file__).resolve().parents[1] / "docs"
MODEL = "builtin:photos"
WIDTH_PX, DEMO_PX = 264, 224
MOST_BYTES, MOST_DEMO_BYTES = 40_000, 150_000
ROWS = {
    "A1": "saliency",
    "A2": "gradient_x_input",
    "A3": "guided_backprop",
    "A4": "deconvnet",
    "A5": "smoothgrad smoothgrad_squared vargrad",
    "A6": "integrated_gradients",
    "A7": "expected_gradients gradient_shap deep_shap",
    "A8": "deep_lift",
    "A9": "lrp lrp_layer",
    "A10": "sglrp clrp",
    "A11": "deep_taylor",
    "A12": "excitation_backprop contrastive_excitation_backprop",
    "A13": "gated_backprop visual_backprop",
    "B1": "cam",
    "B2": "grad_cam grad_cam_plus_plus xgrad_cam hires_cam layer_cam eigen_cam eigen_grad_cam score_cam "
    "ablation_cam fullgrad",
    "B3": "guided_grad_cam",
    "B4": "occlusion",
    "B5": "region_occlusion",
    "B6": "lime",
    "B7": "shap unit_shapley",
    "B8": "rise extremal_perturbation meaningful_perturbation xrai",
}
REDUCES = {
    "sum": "the sum over the channels",
    "max_abs": "the largest absolute value over the channels",
    "sum_abs": "the sum of absolute values over the channels",
    "none": "the attribution itself (it has one channel)",
}
DECIDES = {  # by the name of the method's doctor
    "composite_doctor.<locals>.doctor": (
        "The operations that relevance meets: *exact* where each has a faithful rule ([relevance](../relevance.md)), "
        "*approximate* where attention is met, *impossible*, naming the operation, where one has none; `lrp` takes "
        '`unknown="generic"` there and says so.'
    ),
    "deep_lift_doctor": (
        "The operations: *exact* where each is linear, a function of one number, a maximum, a product or a norm; "
        "*approximate* where softmax or attention are met, whose derivative is averaged along the way from the "
        "reference."
    ),
    "asks_scores": (
        "Nothing: the method only asks the network about edited pictures and takes no derivative, so it is *exact* on "
        "every network that can be recorded. How it samples is another question, and stands in the receipt."
    ),
    "rerun_doctor": (
        "Nothing: it is *exact* on every network that can be recorded. The doctor says how much of the network one "
        "window of the default size computes again ([engine](../engine.md)), or why every edit has to be run in full."
    ),
    "unit_doctor": (
        "The layer: *exact* where a layer keeps positions, *impossible* where none does; only what follows the layer "
        "is run again."
    ),
    "always_exact": "The method needs derivatives only, and the recorded derivative of every operation is exact.",
    "rectifier_doctor.<locals>.doctor": (
        "The rectifiers: *exact* where all of them are piecewise linear (ReLU, ReLU6, LeakyReLU, PReLU, clamps), "
        "*approximate* where smooth ones occur (SiLU, GELU, Hardswish …), which the paper does not define, or where "
        "there is none, so that the plain gradient comes out."
    ),
    "_deconvnet_doctor": (
        "The rectifiers, as for [guided_backprop](guided_backprop.md). It says when there is no max-pooling, whose "
        "switches would tie the map to this picture."
    ),
    "_gate_doctor": (
        "The layer and the rectifiers: the worse of what [grad_cam](grad_cam.md) and "
        "[guided_backprop](guided_backprop.md), its defaults, can do."
    ),
    "_chain_doctor": (
        "The way back: *exact* where rectified maps form a chain, as in the paper, *approximate* where branches are "
        "added, rectifiers are smooth or an operation's geometry is only roughly known, *impossible* where no "
        "rectifier with positions leads to the scores."
    ),
    "layer_doctor": (
        "The layer: *exact* where a layer keeps positions, *approximate* where attention follows it and mixes them, "
        "*impossible* where no layer has maps."
    ),
    "_cam_doctor": (
        "The head: *exact* where maps are averaged over all positions and only linear operations follow, *impossible* "
        "otherwise; the operation that is in the way is named."
    ),
    "_doctor": (
        "The operations: *exact* on piecewise linear networks, *approximate* where sigmoids, softmax, attention or "
        "layer norms occur, whose share is taken as an implicit bias."
    ),
}


def methods() -> dict[str, Method]:
    """The methods that ship with pellucid, in the order of the mission's rows."""
    own = {name: m for name, m in pel.METHODS.items() if m.compute.__module__.startswith("pellucid.")}
    listed = [name for names in ROWS.values() for name in names.split()]
    if set(listed) != set(own):
        sys.exit(f"ROWS in {__file__} and the registry differ in: {', '.join(sorted(set(listed) ^ set(own)))}")
    return {name: own[name] for name in listed}


def row_of(name: str) -> str:
    return next(row for row, names in ROWS.items() if name in names.split())


def linked(source: str) -> str:
    """Papers as links."""
    source = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"doi:(10\.[\w./-]*\w)", r"[doi:\1](https://doi.org/\1)", source)


def text_of(method: Method) -> str:
    """The docstring with its sections as paragraphs."""
    text = inspect.cleandoc(method.compute.__doc__ or "")
    section = re.compile(r"^(Returns|Raises|Args|Source):\n((?:[ ]{4}.*\n?)+)", re.MULTILINE)
    return section.sub(lambda m: f"**{m[1]}:** {inspect.cleandoc(m[2])}\n", text).strip()


def facts_of(method: Method) -> str:
    """What the map is, as a list."""
    each = "pixel" if method.reduce == "none" else "pixel and channel"
    place = f"the network's input, one value for each {each}"
    if method.site == "layer":
        place = "the grid of one layer, one value for each of its cells"
    lines = [f"- **Lies on** {place}."]
    if method.layered:
        lines.append("- **Layer**: the last one with maps unless you name one ([layers](../layers.md)).")
    elif method.site == "layer":
        lines.append("- **Layer**: the maps that are averaged into the scores; there is none to choose.")
    lines.append(f"- **Sign**: {sign_of(method)}.")
    lines.append(f"- **Heat**: {REDUCES[method.reduce]}; colours end at the 98th percentile of |heat|, printed.")
    lines.append(f"- **Unit**: {method.units}.")
    return "\n".join(lines)


def sign_of(method: Method) -> str:
    if method.signed:
        return "signed; red is positive, blue negative"
    if method.reduce in ("max_abs", "sum_abs"):
        return "the heat is never negative; the raw `attribution` keeps each channel's own values"
    return "never negative"


def kind_of(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    return {int: "whole number", float: "number", bool: "yes or no"}.get(kind, "")


def settings_of(method: Method) -> str:
    if not method.settings:
        return "None."
    rows = []
    for one in method.settings.values():
        words = "; ".join(filter(None, (one.help, kind_of(one.kind)))).replace("|", "\\|")
        rows.append(f"| `{one.name}` | `{one.default}` | {words} |")
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *rows])


def calls_of(method: Method) -> str:
    """The method in Python and on the command line, with its first setting that is a number."""
    number = next((s for s in method.settings.values() if s.kind in (int, float)), None)
    python = f", {number.name}={number.default}" if number else ""
    shell = f" --set {method.name}.{number.name}={number.default}" if number else ""
    layer, named = (', layers="stage2"', " --layer stage2") if method.layered else ("", "")
    return f"""```python
import pellucid as pel
from skimage.data import chelsea

one = pel.explain("{MODEL}", chelsea(), methods="{method.name}"{layer}{python})
one.save("{method.name}.png")
```

```bash
pellucid explain cat.png --method {method.name}{named}{shell} --out {method.name}/
```"""


def doctor_of(method: Method, verdict: Verdict) -> str:
    name = method.doctor.__qualname__
    if name not in DECIDES:
        sys.exit(f"say in DECIDES of {__file__} what {name} of {method.name} decides by")
    return f"{DECIDES[name]}\n\nOn `{MODEL}` it says: *{verdict.fit}*, {verdict.why}."


def page(method: Method, verdict: Verdict) -> str:
    return f"""<!-- made by scripts/make_docs.py from the registry; change the method, not this page -->
# {method.title}

`{method.name}` · mission row {row_of(method.name)} · [all methods](README.md)

![{method.title} over a photograph of a cat](../pictures/{method.name}.png)

{text_of(method)}

## What the map is

{facts_of(method)}

## Settings

{settings_of(method)}

## Use it

{calls_of(method)}

## When it misleads

{method.misleads[0].upper()}{method.misleads[1:]}.

## Source

{linked(method.source)}

## What `pellucid doctor` decides by

{doctor_of(method, verdict)}
"""


def index(found: Mapping[str, Method]) -> str:
    lines = [
        f"| [{m.title}]({m.name}.md) | `{m.name}` | {row_of(m.name)} | {m.site} | {'yes' if m.signed else 'no'} "
        f"| {', '.join(f'`{s}`' for s in m.settings) or 'none'} |"
        for m in found.values()
    ]
    head = ["| method | name | row | map of the | signed | settings |", "|---|---|---|---|---|---|"]
    return "\n".join(
        [
            "<!-- made by scripts/make_docs.py from the registry -->",
            "# Methods",
            "",
            "The name is the same in `pel.explain(…, methods=…)`, in `pellucid explain --method` and in the report.",
            "*Row* is a row of the [feature table](../../README.md#what-there-is); *signed* maps show evidence for and",
            "against. `pellucid doctor MODEL` says which methods are exact on your network.",
            "",
            *head,
            *lines,
            "",
        ]
    )


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    found = methods()
    verdicts = pel.doctor(pel.load(MODEL)).verdicts
    made = {DOCS / "methods" / f"{name}.md": page(method, verdicts[name]) for name, method in found.items()}
    return {DOCS / "methods" / "README.md": index(found), **made}


def pictures() -> list[Path]:
    """Where every generated picture lies."""
    return [DOCS / "pictures" / f"{name}.png" for name in (*methods(), "demo")]


def out_of_date() -> list[str]:
    """What `--check` complains about, one line each."""
    made = pages()
    known = {path.name for path in made}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    found = [f"{path.relative_to(DOCS.parent)} is out of date" for path in stale]
    found += [f"{p.relative_to(DOCS.parent)} has no method" for p in DOCS.glob("methods/*.md") if p.name not in known]
    return found + [f"{path.relative_to(DOCS.parent)} is missing" for path in pictures() if not path.exists()]


def few_colours(image: Image.Image, kinds: Sequence[bool]) -> Image.Image:
    """256 colours; 24 of them are kept for each kind of colour bar, which a common palette would spoil."""
    bars = [paint.colour_bar(1.0, diverging) for diverging in kinds]
    parts = [(image, 256 - 24 * len(bars)), *((bar, 24) for bar in bars)]
    none = Image.Dither.NONE
    colours = [(part.quantize(n, kmeans=3, dither=none).getpalette() or [])[: 3 * n] for part, n in parts]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for part in colours for value in part])
    return image.quantize(palette=palette, dither=none)


def save(image: Image.Image, kinds: Sequence[bool], name: str, most_bytes: int) -> None:
    path = DOCS / "pictures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    few_colours(image, kinds).save(path, optimize=True)
    if path.stat().st_size > most_bytes:
        sys.exit(f"{path} has {path.stat().st_size} bytes, more than {most_bytes}; draw it smaller")


def cell(one: pel.Explanation) -> Image.Image:
    """The overlay with its colour bar below."""
    overlay = one.overlay(longest_px=WIDTH_PX)
    bar = paint.colour_bar(one.limits()[1], one.diverging, width_px=overlay.width)
    sheet = Image.new("RGB", (overlay.width, overlay.height + 4 + bar.height), "white")
    sheet.paste(overlay, (0, 0))
    sheet.paste(bar, (0, overlay.height + 4))
    return sheet


def draw() -> None:
    """A picture for every method, and the demo's methods side by side."""
    from skimage.data import chelsea

    found = methods()
    panel = pel.explain(MODEL, [chelsea()], methods=list(found), progress=False)
    maps = {one.method: one for one in panel}
    for name, one in maps.items():
        save(cell(one), [one.diverging], name, MOST_BYTES)
    chosen = [maps[name] for name in DEMO_METHODS]
    rows = [pel.Panel(chosen[i : i + 3]).grid(DEMO_PX) for i in range(0, len(chosen), 3)]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for place, row in enumerate(rows):
        sheet.paste(row, (0, place * row.height))
    save(sheet, [False, True], "demo", MOST_DEMO_BYTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something is out of date")
    parser.add_argument("--text", action="store_true", help="pages only, no pictures")
    given = parser.parse_args()
    if given.check:
        found = out_of_date()
        print(*found, sep="\n", end="\n" if found else "")
        sys.exit("run python scripts/make_docs.py" if found else 0)
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if not given.text:
        draw()


if __name__ == "__main__":
    main()
