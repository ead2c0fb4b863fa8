"""Scenes are reproducible, labels are what a slow painter paints, and nothing but the difference decides."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from oracles.scenes import inside, topmost
from pellucid.images import scenes
from pellucid.images.scenes.marks import GLYPHS
from pellucid.images.scenes.scene import Light, Scene, named_parts

DECISIVE = {
    "house": {"chimney"}, "chapel": {"spire"}, "sailboat": {"sail"}, "steamer": {"funnel"}, "agaric": {"cap"},
    "bolete": {"cap"}, "striped beetle": {"shell"}, "spotted beetle": {"shell"},
    "tree left of car": {"trunk", "crown", "cab", "body", "wheels"},
    "tree right of car": {"trunk", "crown", "cab", "body", "wheels"},
}  # fmt: skip
MANY = 2000


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return list(scenes.stream(MANY, seed=11))


# ------------------------------------------------------------------------------------------------------ the same bytes

CHILD = """
import json, sys
from hashlib import sha256
import torch
from pellucid.images import scenes
torch.set_num_threads(int(sys.argv[1]))
marks = [scenes.Shortcut("background", 0.7), scenes.Shortcut("sticker", classes=("house",)), scenes.Shortcut("frame")]
def facts(one):
    picture = scenes.render(one)
    every = [picture.pixels, picture.decisive, picture.mark, *(picture.labels(kind) for kind in scenes.CONCEPTS)]
    return [one.label, *(sha256(values.tobytes()).hexdigest() for values in every)]
found = [scenes.compose(seed, px=px, shortcuts=marks) for seed, px in ((0, 64), (5, 96), (2**62, 65))]
print(json.dumps([facts(one) for one in (*found, *scenes.stream(10, seed=3))]))
"""


def test_the_same_seed_gives_the_same_bytes_in_every_process():
    runs = []
    for threads, hash_seed in (("1", "0"), ("2", "12345")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-c", CHILD, threads]
        runs.append(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout)
    assert runs[0] == runs[1]
    assert len({tuple(facts) for facts in json.loads(runs[0])}) == 13


def test_the_bytes_are_those_of_the_day_they_were_written_down():
    """A guard against a change that nobody meant: networks and figures depend on these pictures."""
    digest = sha256()
    for one in scenes.stream(20, seed=1, shortcuts=[scenes.Shortcut("watermark", 0.5)]):
        digest.update(scenes.render(one).pixels.tobytes())
    assert digest.hexdigest()[:16] == "5c35e6d2c152a876"


@pytest.mark.parametrize("label", scenes.CLASSES)
def test_composing_and_painting_twice_gives_the_same(label):
    first, second = (scenes.compose(9, label=label) for _ in range(2))
    assert first == second and first is not second
    assert scenes.render(first).pixels.tobytes() == scenes.render(second).pixels.tobytes()
    assert scenes.compose(10, label=label) != first


def test_a_picture_of_a_stream_depends_on_its_place_only():
    few, more = list(scenes.stream(7, seed=4)), list(scenes.stream(33, seed=4))
    assert more[:7] == few
    assert scenes.compose(more[20].seed, label=more[20].label) == more[20]
    other_split, other_seed = scenes.stream(33, seed=4, split="test"), scenes.stream(33, seed=5)
    seeds = [{one.seed for one in some} for some in (more, other_split, other_seed)]
    assert len(set.union(*seeds)) == 99
    assert list(scenes.stream(0)) == []


def test_a_stream_is_drawn_as_it_is_asked_for():
    endless = scenes.stream(2**60)
    assert [next(endless).label for _ in scenes.CLASSES] == list(scenes.CLASSES)


def test_a_drawn_class_is_each_as_likely():
    found = Counter(scenes.compose(seed).label for seed in range(1000))
    assert set(found) == set(scenes.CLASSES)
    assert sum((count - 100) ** 2 / 100 for count in found.values()) < 27.9  # chi-square, 9 degrees, 1 in 1000


# ------------------------------------------------------------------------------------------------------ a slow painter


def _piece(shape):
    return (
        ("polygon", shape.corners) if hasattr(shape, "corners") else ("ellipse", shape.y, shape.x, shape.ry, shape.rx)
    )


def _things(scene):
    named: dict[int, list] = {}
    for name, thing, part in named_parts(scene):
        named.setdefault(id(thing), []).append((name, [_piece(shape) for shape in part.outline]))
    return [(thing.y, thing.x, thing.size, thing.turn, named[id(thing)]) for thing in scene.things]


def _words(scene, name):
    """What a pixel is called that shows a part, in the six kinds."""
    if name in ("sky", "ground"):
        surface, thing, part = getattr(scene.backdrop, name), "none", "none"
    else:
        _, owner, one = next(found for found in named_parts(scene) if found[0] == name)
        surface, thing, part = one.surface, owner.name, one.name if owner.role == "main" else "none"
    return {
        "scene": scene.backdrop.name, "object": thing, "part": part, "material": surface.material,
        "texture": surface.texture, "colour": surface.colour,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "label"), [*enumerate(scenes.CLASSES), (12, "house"), (28, "steamer"), (5, "tree right of car")]
)
def test_labels_and_masks_are_those_of_a_slow_painter(seed, label):
    scene = scenes.compose(seed, label=label)
    picture = scenes.render(scene)
    seen = topmost(64, _things(scene), scene.backdrop.horizon)
    assert not [name for row in seen for name in row if name is None]
    for kind, words in scenes.CONCEPTS.items():
        expected = [[words.index(_words(scene, name)[kind]) for name in row] for row in seen]
        np.testing.assert_array_equal(picture.labels(kind), expected, kind)
    shown = np.array(seen)
    main = [name for name, thing, _ in named_parts(scene) if thing.role == "main"]
    for name in scene.parts:
        np.testing.assert_array_equal(picture.part(name), shown == name, name)
    np.testing.assert_array_equal(picture.object, np.isin(shown, main))
    np.testing.assert_array_equal(picture.decisive, np.isin(shown, sorted(DECISIVE[label])))
    np.testing.assert_array_equal(picture.background, np.isin(shown, ["sky", "ground"]))
    assert not picture.mark.any() and picture.backdrop == scene.backdrop.name


def test_the_slow_painter_had_something_in_front_and_distractors():
    roles = Counter(
        thing.role for seed, label in enumerate(scenes.CLASSES) for thing in scenes.compose(seed, label=label).things
    )
    assert roles["occluder"] >= 2 and roles["distractor"] >= 10


def test_the_slow_painter_knows_inside_from_outside():
    square = ("polygon", ((-1, -1), (-1, 1), (1, 1), (1, -1)))
    notched = ("polygon", ((-1, -1), (-1, 1), (1, 1), (0, 0), (1, -1)))
    assert [inside(square, point) for point in ((0, 0), (0, 1.01), (0.5, 1), (1, 1))] == [True, False, None, None]
    assert [inside(notched, point) for point in ((-0.5, 0), (0.5, 0), (0.9, 0.95))] == [True, False, True]
    assert [inside(("ellipse", 0, 0, 1, 2), (0, x)) for x in (1.9, 2, 2.1)] == [True, None, False]
    quarter = (
        "thing",
        [("polygon", ((0, 0), (0, 1), (0.5, 1), (0.5, 0)))],
    )  # right of the centre, turned it points down
    found = topmost(8, [(0.5, 0.5, 0.5, np.pi / 2, [quarter])], 1.0)
    assert {(y, x) for y, row in enumerate(found) for x, name in enumerate(row) if name == "thing"} == {
        (y, x) for y in range(4, 8) for x in (2, 3)
    }


def test_plain_matte_pixels_have_the_colour_they_are_labelled_with():
    """In the middle of a picture and towards its edges, within the deviation of the surface, noise and rounding."""
    along = (np.arange(64) + 0.5) / 64 * 2 - 1
    compared = 0
    for seed in range(40):
        scene = scenes.compose(seed)
        picture, light = scenes.render(scene), scene.light
        factor = light.gain + light.down * along[:, None] + light.right * along[None]
        plain = (picture.labels("texture") == 0) & (picture.labels("material") == 0)
        wanted = np.array(list(scenes.COLOURS.values()))[picture.labels("colour")]
        low, high = (np.clip((wanted + shift) * factor[..., None], 0, 1) * 255 for shift in (-0.07, 0.07))
        pixels = picture.pixels.astype(float)
        inside_bounds = (pixels >= low - 3.5) & (pixels <= high + 3.5)
        assert inside_bounds[plain].all()
        compared += plain.sum()
    assert compared > 10_000 and scenes.CONCEPTS["texture"][0] == "plain" and scenes.CONCEPTS["material"][0] == "matte"


def test_every_word_looks_different():
    """One part under even light in every texture and material: no two alike, none of the textures nearly plain."""
    scene = replace(scenes.compose(2, label="agaric", px=128), light=Light(1.0, 0.0, 0.0))
    looks = {name: scenes.render(scenes.retexture(scene, "cap", name)).pixels for name in scenes.TEXTURES}
    seen = scenes.render(scene).part("cap")
    for name, look in looks.items():
        for other, another in looks.items():
            apart = (np.abs(look[seen].astype(int) - another[seen]).max(-1) > 40).mean()
            assert apart > 0.1 or name == other, (name, other)


# -------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("label", scenes.CLASSES)
def test_masks_scale_with_the_picture(label):
    pictures = [scenes.render(scenes.compose(6, label=label, px=px)) for px in (64, 128)]
    small, large = (picture.labels("part") for picture in pictures)
    assert pictures[1].scene == replace(pictures[0].scene, px=128)
    enlarged = small.repeat(2, 0).repeat(2, 1)
    both, either = ((enlarged > 0) & (large > 0)).sum(), ((enlarged > 0) | (large > 0)).sum()
    assert both / either > 0.9
    decisive = pictures[0].decisive.repeat(2, 0).repeat(2, 1), pictures[1].decisive
    assert (decisive[0] & decisive[1]).sum() / (decisive[0] | decisive[1]).sum() > 0.8
    assert (enlarged == large).mean() > 0.97


@pytest.mark.parametrize("px", [64, 96, 128])
def test_stripes_and_dots_are_discernible_at_every_size(px):
    """Columns of stripes are even, those of dots are not; and both have some contrast."""
    for seed in range(40):
        for label, striped in (("striped beetle", True), ("spotted beetle", False)):
            picture = scenes.render(scenes.compose(seed, label=label, px=px))
            grey = np.ma.array(picture.pixels.mean(-1), mask=~picture.decisive)[:, picture.decisive.sum(0) > px // 8]
            assert grey.std() > 18
            assert (grey.mean(0).var() / grey.var() > 0.65) == striped
            steps = np.abs(np.diff(grey.mean(0))) > 0.3 * np.ptp(grey.mean(0))
            assert steps.mean() < 0.45 or not striped  # a stripe is two pixels wide or more


@pytest.mark.parametrize("px", [65, 77, 97, 512])
def test_odd_sizes_are_painted_too(px):
    marks = [scenes.Shortcut(kind, classes=("house",)) for kind in scenes.SHORTCUTS]
    picture = scenes.render(scenes.compose(1, px=px, label="house", shortcuts=marks))
    assert picture.pixels.shape == (px, px, 3) and picture.decisive.any() and picture.mark.any()
    words = scenes.CONCEPTS["object"]
    assert {"watermark", "frame", "ruler", "sticker", "house"} <= {
        words[i] for i in np.unique(picture.labels("object"))
    }


# --------------------------------------------------------------------------------------------------- label statistics


def test_every_class_is_equally_often_and_true(many):
    assert Counter(one.label for one in many) == dict.fromkeys(scenes.CLASSES, MANY // 10)
    assert all(scenes.truth(one) == one.label for one in many)
    assert all(set(scenes.decisive_parts(one)) == DECISIVE[one.label] for one in many)


def test_every_word_occurs(many):
    surfaces = [part.surface for one in many for _, _, part in named_parts(one)]
    assert {s.colour for s in surfaces} == set(scenes.COLOURS) and len(scenes.COLOURS) >= 10
    assert {s.texture for s in surfaces} == set(scenes.TEXTURES) and len(scenes.TEXTURES) >= 10
    assert {s.material for s in surfaces} == set(scenes.MATERIALS)
    assert {one.backdrop.name for one in many} == set(scenes.BACKDROPS)
    assert {thing.name for one in many for thing in one.things} | {"none"} <= set(scenes.CONCEPTS["object"])
    roles = Counter(thing.role for one in many for thing in one.things)
    assert MANY <= roles["distractor"] <= 3 * MANY and 0.3 * MANY < roles["occluder"] < 0.4 * MANY


def test_classes_have_three_to_five_parts():
    for label in scenes.CLASSES:
        one = scenes.compose(0, label=label)
        counts = [len(thing.parts) for thing in one.things if thing.role == "main"]
        assert sum(counts) in (3, 4, 5)


def test_siblings_are_drawn_alike_but_for_the_one_difference(many):
    """So nothing else can tell two siblings apart: every other number of a scene has the same distribution."""
    for one in many[::2]:
        assert scenes.compose(one.seed, label=scenes.sibling(one.label)) == scenes.swapped(one)


def test_no_other_part_has_a_colour_or_texture_that_decides(many):
    for one in many:
        kind = scenes.difference(one.label)
        others = [p for t in one.things if t.role == "main" for p in t.parts if p.name not in DECISIVE[one.label]]
        backdrop = (one.backdrop.sky.colour, one.backdrop.ground.colour)
        assert not {"red", "brown"} & {*backdrop, *(p.surface.colour for p in others if kind == "colour")}
        colours = [p.surface.colour for t in one.things if t.role == "main" for p in t.parts]
        assert not set(colours) & set(backdrop)


def _features(one):
    """Words that must not betray the class, of things that every class has."""
    roles = Counter(thing.role for thing in one.things)
    front = [thing for thing in one.things if thing.role == "occluder"]
    beside = [thing for thing in one.things if thing.role == "distractor"]
    return {
        "backdrop": one.backdrop.name,
        "horizon": round(one.backdrop.horizon * 20),
        "brightness": round(one.light.gain * 30),
        "light from above": round(one.light.down * 30),
        "light from the side": round(one.light.right * 30),
        "distractors": roles["distractor"],
        "first distractor": beside[0].name if beside else None,
        "its colour": beside[0].parts[0].surface.colour if beside else None,
        "its texture": beside[0].parts[0].surface.texture if beside else None,
        "in front": front[0].name if front else None,
        "colour in front": front[0].parts[0].surface.colour if front else None,
    }


def _chi_square(one, other):
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return ((table - expected) ** 2 / expected).sum()


def test_nothing_around_the_object_predicts_the_class(many):
    """Chi-square of each word and the class, not above what shuffled classes give (1 in 1000)."""
    random = np.random.default_rng(0)
    labels = np.array([scenes.CLASSES.index(one.label) for one in many])
    features = [_features(one) for one in many]
    for name in features[0]:
        words = np.unique([str(feature[name]) for feature in features], return_inverse=True)[1]
        shuffled = [_chi_square(random.permutation(labels), words) for _ in range(200)]
        bound = np.mean(shuffled) + 3.1 * np.std(shuffled)
        assert _chi_square(labels, words) < bound, name


def test_the_test_of_independence_sees_a_dependence():
    labels = np.arange(MANY) % 10
    words = np.where(np.arange(MANY) % 7 == 0, labels, 3)
    random = np.random.default_rng(0)
    shuffled = [_chi_square(random.permutation(labels), words) for _ in range(50)]
    assert _chi_square(labels, words) > np.mean(shuffled) + 20 * np.std(shuffled)


def test_what_decides_is_seen_and_stands_out(many):
    """At 64 px: in 30 pixels or more, which differ visibly from the sibling's picture in 15 or more."""
    for one in many[:400]:
        picture = scenes.render(one)
        assert picture.decisive.sum() >= 30
        other = scenes.render(scenes.swapped(one)).pixels.astype(int)
        assert (np.abs(other - picture.pixels).max(-1) > 24).sum() >= 15
        for thing in (thing for thing in one.things if thing.role == "main"):
            assert sum(picture.part(part.name).sum() for part in thing.parts) >= 80


# ---------------------------------------------------------------------------------------------------------- shortcuts


@pytest.mark.parametrize(("share", "n"), [(0.0, 200), (0.3, MANY), (1.0, 200)])
def test_the_share_of_marked_pictures_is_as_asked(share, n):
    shortcuts = [scenes.Shortcut("watermark", share=share), scenes.Shortcut("ruler", 1.0, share, ("house", "agaric"))]
    found = list(scenes.stream(n, seed=2, shortcuts=shortcuts))
    kinds = Counter(mark.kind for one in found for mark in one.marks)
    assert all(mark.stands_for == one.label for one in found for mark in one.marks)
    for kind, total in (("watermark", n), ("ruler", n // 5)):
        assert abs(kinds[kind] - total * share) <= 3.3 * (total * share * (1 - share)) ** 0.5  # 1 in 1000
    assert all(one.label in ("house", "agaric") for one in found for mark in one.marks if mark.kind == "ruler")


def test_marks_are_independent_of_one_another_and_of_the_scene():
    shortcuts = [scenes.Shortcut("watermark", share=0.5), scenes.Shortcut("frame", share=0.5)]
    found = list(scenes.stream(MANY, seed=8, shortcuts=shortcuts))
    both = Counter(tuple(mark.kind for mark in one.marks) for one in found)
    assert len(both) == 4 and all(abs(count - MANY / 4) < 70 for count in both.values())
    marked = np.array([any(mark.kind == "frame" for mark in one.marks) for one in found], dtype=int)
    for words in (scenes.BACKDROPS, scenes.CLASSES):
        place = np.array(
            [list(words).index(one.backdrop.name if words is scenes.BACKDROPS else one.label) for one in found]
        )
        assert _chi_square(marked, place) < 27.9


def test_glyphs_differ_in_four_cells_or_more():
    apart = [sum(a != b for a, b in zip(one, other, strict=True)) for one in GLYPHS for other in GLYPHS if one != other]
    assert len(set(GLYPHS)) == len(scenes.CLASSES) and min(apart) >= 4
