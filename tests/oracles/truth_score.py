"""The truth score, written slowly from its definition: loops over pixels, one picture at a time."""

import math

import torch

from pellucid.images import scenes


def share(heat, mask):
    inside = total = 0.0
    for y in range(len(heat)):
        for x in range(len(heat[0])):
            if heat[y][x] > 0:
                total += float(heat[y][x])
                inside += float(heat[y][x]) if mask[y][x] else 0.0
    return inside / total if total > 0 else math.nan


def pointing(heat, mask):
    cells = [(float(heat[y][x]), bool(mask[y][x])) for y in range(len(heat)) for x in range(len(heat[0]))]
    largest = max(value for value, _ in cells)
    hits = [inside for value, inside in cells if value == largest]
    return sum(hits) / len(hits)


def ranks(values):
    return [sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]


def spearman(a, b):
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return math.nan
    first, second = ranks(a), ranks(b)
    mean = (len(a) - 1) / 2
    covariance = sum((p - mean) * (q - mean) for p, q in zip(first, second, strict=True))
    return covariance / math.sqrt(sum((p - mean) ** 2 for p in first) * sum((q - mean) ** 2 for q in second))


def part_sums(heat, places):
    return [
        sum(float(heat[y][x]) for y in range(len(heat)) for x in range(len(heat[0])) if place[y][x]) for place in places
    ]


def score(heat, mask, places, importances):
    """Undefined components count as no share, no correlation, not pointed."""
    parts = [share(heat, mask), spearman(part_sums(heat, places), list(importances)), pointing(heat, mask)]
    s, rho, p = (0.0 if math.isnan(v) else v for v in parts)
    return (s + (1 + rho) / 2 + p) / 3


def importances(model, scene, right, other=None, least_px=8):
    """`{part: score(scene) - score(scene without it)}` for the parts that are seen; each picture alone."""

    def number(shown):
        pixels = torch.from_numpy(scenes.render(shown).pixels).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            logits = model.module(model.preprocess.normalise(pixels))[0]
        return float(logits[right]) - (float(logits[other]) if other is not None else 0.0)

    whole, picture, found = number(scene), scenes.render(scene), {}
    for part in scene.parts:
        if int(picture.part(part).sum()) >= least_px:
            found[part] = whole - number(scenes.without(scene, part))
    if scene.marks:
        found["mark"] = whole - number(scenes.cleaned(scene))
    return found
