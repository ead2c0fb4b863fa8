"""The true counterfactual: an edit changes what it says and nothing else, and only what decides changes the truth."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pellucid.core.errors import SettingError
from pellucid.images import scenes
from pellucid.images.scenes.marks import GLYPHS
from pellucid.images.scenes.scene import Light, Scene, named_parts

EVERY = [scenes.compose(seed, label=label) for seed in (21, 22) for label in scenes.CLASSES]
PRESENCE = {"ruler": ("house", "agaric"), "sticker": ("house", "agaric")}
SHORTCUTS = [scenes.Shortcut(kind, classes=PRESENCE.get(kind)) for kind in scenes.SHORTCUTS]
every = pytest.mark.parametrize("scene", EVERY, ids=lambda one: f"{one.label} {one.seed}")


def _changed(one: Scene, other: Scene) -> np.ndarray:
    return (scenes.render(one).pixels != scenes.render(other).pixels).any(-1)


def _part(scene: Scene, name: str):
    return next(part for found, _, part in named_parts(scene) if found == name)


def test_the_scenes_of_these_tests_have_everything():
    assert {thing.role for scene in EVERY for thing in scene.things} == {"main", "distractor", "occluder"}


# ------------------------------------------------------------------------------------------------------------- parts


@every
def test_without_a_part_only_its_pixels_change(scene):
    picture = scenes.render(scene)
    backdrop = scenes.render(replace(scene, things=()))
    for name in scene.parts:
        less = scenes.without(scene, name)
        other = scenes.render(less)
        seen = picture.part(name)
        assert not ((other.pixels != picture.pixels).any(-1) & ~seen).any()
        assert len(less.parts) == len(scene.parts) - 1
        for kind in scenes.CONCEPTS:
            np.testing.assert_array_equal(other.labels(kind)[~seen], picture.labels(kind)[~seen])
        bare = seen & other.background  # nothing lies behind: cutting it out by its mask is the same
        np.testing.assert_array_equal(other.pixels[bare], backdrop.pixels[bare])
        cut_out = np.where(seen[..., None], backdrop.pixels, picture.pixels)
        np.testing.assert_array_equal(other.pixels[other.background], cut_out[other.background])


@every
def test_without_everything_the_backdrop_is_left(scene):
    left = scene
    for name in reversed(scene.parts):
        left = scenes.without(left, name)
    assert left.things == () and left.parts == ()
    assert scenes.render(left).background.all() and scenes.truth(left) is None
    assert not scenes.render(left).decisive.any() and not scenes.render(left).object.any()


def test_taking_parts_away_in_another_order_gives_the_same():
    for scene in EVERY:
        first, *_, last = (name for name, thing, _ in named_parts(scene) if thing.role == "main")
        one = scenes.without(scenes.without(scene, first), last)
        assert one == scenes.without(scenes.without(scene, last), first)


@every
def test_another_colour_or_texture_changes_that_part_only(scene):
    picture = scenes.render(scene)
    for name in scene.parts:
        seen, surface = picture.part(name), _part(scene, name).surface
        for edit, words, kind in (
            (scenes.recolour, scenes.COLOURS, "colour"),
            (scenes.retexture, scenes.TEXTURES, "texture"),
        ):
            word = list(words)[(list(words).index(getattr(surface, kind)) + 1 + scene.seed) % len(words)]
            edited = edit(scene, name, word)
            other = scenes.render(edited)
            assert not ((other.pixels != picture.pixels).any(-1) & ~seen).any()
            expected = np.where(seen, scenes.CONCEPTS[kind].index(word), picture.labels(kind))
            np.testing.assert_array_equal(other.labels(kind), expected)
            for same in set(scenes.CONCEPTS) - {kind}:
                np.testing.assert_array_equal(other.labels(same), picture.labels(same))
            assert edit(edited, name, getattr(surface, kind)) == scene


def test_its_own_colour_and_texture_change_nothing():
    for scene in EVERY:
        for name in scene.parts:
            surface = _part(scene, name).surface
            assert scenes.recolour(scene, name, surface.colour) == scene
            assert scenes.retexture(scene, name, surface.texture) == scene


@pytest.mark.parametrize(
    ("label", "part", "other", "thing"),
    [("house", "chimney", "spire", "chapel"), ("chapel", "spire", "chimney", "house"),
     ("sailboat", "sail", "funnel", "steamer"), ("steamer", "funnel", "sail", "sailboat")],
)  # fmt: skip
def test_an_exchanged_part_is_the_siblings(label, part, other, thing):
    scene = scenes.compose(30, label=label)
    edited = scenes.exchanged(scene, part)
    assert scenes.truth(edited) == thing and edited.label == label
    assert _part(edited, other).surface == _part(scene, part).surface
    before, after = scenes.render(scene), scenes.render(edited)
    assert not (_changed(scene, edited) & ~(before.part(part) | after.part(other))).any()
    words = scenes.CONCEPTS["object"]
    assert (after.labels("object")[after.object] == words.index(thing)).all()
    assert scenes.exchanged(edited, other) == scene


# ------------------------------------------------------------------------------------------- background and position


@every
def test_another_background_leaves_the_things_as_they_are(scene):
    picture = scenes.render(scene)
    for name in scenes.BACKDROPS:
        other = scenes.render(scenes.on_background(scene, name))
        assert not ((other.pixels != picture.pixels).any(-1) & ~picture.background).any()
        assert other.backdrop == name
        assert (other.labels("scene") == scenes.CONCEPTS["scene"].index(name)).all()
        for kind in ("object", "part"):
            np.testing.assert_array_equal(other.labels(kind), picture.labels(kind))
        if name != scene.backdrop.name:
            assert (other.pixels != picture.pixels).any(-1)[picture.background].mean() > 0.5
        assert scenes.truth(other.scene) == scene.label
    assert scenes.on_background(scene, scene.backdrop.name) == scene


def test_another_background_takes_the_place_of_a_planted_one():
    scene = scenes.compose(4, label="house", shortcuts=[scenes.Shortcut("background"), scenes.Shortcut("frame")])
    edited = scenes.on_background(scene, "sea")
    assert scenes.render(edited).backdrop == "sea" and [mark.kind for mark in edited.marks] == ["frame"]


def _shifted(values: np.ndarray, down: int, right: int) -> np.ndarray:
    """Values moved by whole pixels; those that come in from outside are False."""
    moved = np.zeros_like(values)
    h, w = values.shape[:2]
    moved[max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = values[
        max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
    ]
    return moved


@every
@pytest.mark.parametrize("way", [(3, 0), (-2, 5), (20, -30)], ids=str)
def test_a_moved_thing_takes_its_surface_along(scene, way):
    alone = replace(scene, things=tuple(t for t in scene.things if t.role == "main"), light=Light(1.0, 0.0, 0.0))
    before, after = scenes.render(alone), scenes.render(scenes.move(alone, *way))
    for kind in ("object", "part"):
        np.testing.assert_array_equal(after.labels(kind), _shifted(before.labels(kind), *way))
    seen = after.object
    carried = _shifted(before.pixels, *way).astype(int)
    assert np.abs(carried - after.pixels)[seen].max(initial=0) <= 7  # the noise of the place stays, 6 of 255
    assert not (_changed(alone, scenes.move(alone, *way)) & ~(before.object | seen)).any()


@every
def test_moving_one_thing_leaves_the_others(scene):
    names = [*dict.fromkeys(t.name for t in scene.things if t.role == "main")]
    names += [name for name in scene.parts if name.startswith("distractor") or name == "occluder"]
    assert len(names) == len(scene.things)
    picture = scenes.render(scene)
    for name in names:
        edited = scenes.move(scene, 2, 3, name)
        moved = [one != other for one, other in zip(scene.things, edited.things, strict=True)]
        assert sum(moved) == 1
        thing = scene.things[moved.index(True)]
        parts = [found for found, owner, _ in named_parts(scene) if owner is thing]
        touched = np.any([[one.part(part) for part in parts] for one in (picture, scenes.render(edited))], axis=(0, 1))
        assert not (_changed(scene, edited) & ~touched).any()


def test_a_thing_may_leave_the_picture():
    for scene in EVERY[:10]:
        for way in ((64, 0), (-64, 0), (0, 64), (0, -64), (100_000, -100_000)):
            picture = scenes.render(scenes.move(scene, *way))
            assert not picture.object.any() and not picture.decisive.any()
            assert scenes.truth(picture.scene) == scene.label


# ----------------------------------------------------------------------------------------------------------- siblings


@every
def test_a_swapped_scene_is_the_sibling_and_back_again(scene):
    other = scenes.swapped(scene)
    assert other.label == scenes.truth(other) == scenes.sibling(scene.label)
    assert scenes.difference(other.label) == scenes.difference(scene.label)
    assert scenes.swapped(other) == scene
    assert scenes.render(scenes.swapped(other)).pixels.tobytes() == scenes.render(scene).pixels.tobytes()
    assert (other.backdrop, other.light, other.seed, other.px) == (scene.backdrop, scene.light, scene.seed, scene.px)


@every
def test_siblings_differ_in_decisive_pixels_only(scene):
    """In pixels that are decisive in one of the two; for a colour in all of them, for a part where one has it only."""
    pictures = scenes.render(scene), scenes.render(scenes.swapped(scene))
    changed = _changed(scene, scenes.swapped(scene))
    either, both = (np.logical_or(*(p.decisive for p in pictures)), np.logical_and(*(p.decisive for p in pictures)))
    assert changed.any() and not (changed & ~either).any()
    kind = scenes.difference(scene.label)
    if kind in ("colour", "texture"):
        np.testing.assert_array_equal(*(p.decisive for p in pictures))
        np.testing.assert_array_equal(*(p.labels("object") for p in pictures))
    if kind == "colour":
        np.testing.assert_array_equal(changed, either)
    if kind == "part":
        assert not (changed & both).any() and changed.sum() > 0.95 * (either & ~both).sum()


def test_a_scene_that_belongs_nowhere_has_no_sibling():
    undecided = scenes.without(EVERY[0], "chimney"), scenes.recolour(EVERY[4], "cap", "blue")
    for gone in (*undecided, replace(EVERY[9], things=())):
        with pytest.raises(SettingError, match="belongs to no class"):
            scenes.swapped(gone)


# -------------------------------------------------------------------------------------------- the truth, by brute force


def _edits(scene: Scene, name: str) -> Iterator[Scene]:
    """Every single edit of a part."""
    yield scenes.without(scene, name)
    yield from (scenes.recolour(scene, name, colour) for colour in scenes.COLOURS)
    yield from (scenes.retexture(scene, name, texture) for texture in scenes.TEXTURES)
    if name in ("chimney", "spire", "sail", "funnel"):
        yield scenes.exchanged(scene, name)


def _moves(scene: Scene, name: str) -> Iterator[Scene]:
    """The thing of a part moved to many places."""
    thing = next(thing for found, thing, _ in named_parts(scene) if found == name)
    word = thing.name if thing.role == "main" else name
    yield from (scenes.move(scene, down, right, word) for down in (-40, 0, 40) for right in range(-60, 61, 6))


@every
def test_what_is_called_decisive_is_what_may_change_the_truth(scene):
    label = scenes.truth(scene)
    found = set()
    for name in scene.parts:
        if any(scenes.truth(edited) != label for edited in (*_edits(scene, name), *_moves(scene, name))):
            found.add(name)
    assert found == set(scenes.decisive_parts(scene))


@every
def test_the_truth_of_an_edited_scene_is_one_of_a_pair_or_undecided(scene):
    pair = {scene.label, scenes.sibling(scene.label)}
    kind = scenes.difference(scene.label)
    for name in scenes.decisive_parts(scene):
        found = {scenes.truth(edited) for edited in _edits(scene, name)}
        expected = {"part": pair | {None}, "colour": pair | {None}, "texture": pair | {None}, "relation": {scene.label}}
        assert found == expected[kind]
        moved = {scenes.truth(edited) for edited in _moves(scene, name)}
        assert moved == (pair if kind == "relation" else {scene.label})
    for name in set(scene.parts) - set(scenes.decisive_parts(scene)):
        assert {scenes.truth(edited) for edited in (*_edits(scene, name), *_moves(scene, name))} == {scene.label}


def test_tree_and_car_in_one_place_are_undecided_and_so_is_one_alone():
    scene = scenes.compose(3, label="tree left of car")
    level = replace(scene, things=tuple(replace(t, x=0.5) if t.role == "main" else t for t in scene.things))
    alone = replace(scene, things=tuple(t for t in scene.things if t.name != "car"))
    assert scenes.truth(level) is None and scenes.truth(alone) is None
    assert set(scenes.decisive_parts(alone)) == {"trunk", "crown"}


def test_decisive_pixels_follow_the_edit():
    scene = scenes.compose(8, label="house")
    assert scenes.decisive_parts(scenes.without(scene, "chimney")) == ()
    assert not scenes.render(scenes.without(scene, "chimney")).decisive.any()
    assert scenes.decisive_parts(scenes.exchanged(scene, "chimney")) == ("spire",)
    blue = scenes.recolour(scenes.compose(8, label="agaric"), "cap", "blue")
    assert scenes.truth(blue) is None and scenes.decisive_parts(blue) == ("cap",)


# -------------------------------------------------------------------------------------------------------------- marks


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("shortcut", SHORTCUTS, ids=lambda one: one.kind)
def test_a_planted_mark_changes_its_own_pixels_only(shortcut, strength):
    for scene in EVERY[:10:3]:
        label = scene.label if shortcut.classes is None else "house"
        marked = scenes.planted(scene, replace(shortcut, strength=strength), label)
        before, after = scenes.render(scene), scenes.render(marked)
        changed = _changed(scene, marked)
        assert not (changed & ~after.mark).any() and after.mark.any() and not before.mark.any()
        assert scenes.cleaned(marked) == scene and scenes.truth(marked) == scene.label
        if shortcut.kind == "background":
            assert not (after.mark & ~before.background).any()
            assert (after.backdrop == before.backdrop) == (strength < 0.5 or after.backdrop == scene.backdrop.name)
        else:
            labelled = after.labels("object") == scenes.CONCEPTS["object"].index(shortcut.kind)
            np.testing.assert_array_equal(labelled, after.mark & (strength >= 0.5))
            assert changed.sum() > 0.8 * after.mark.sum()
            assert after.mark.mean() < 0.25


@pytest.mark.parametrize("shortcut", SHORTCUTS, ids=lambda one: one.kind)
def test_a_stronger_mark_changes_more(shortcut):
    scene = EVERY[0]
    plain = scenes.render(scene).pixels.astype(int)
    marked = [scenes.planted(scene, replace(shortcut, strength=s), "agaric") for s in (0.1, 0.5, 1.0)]
    changes = [np.abs(scenes.render(one).pixels - plain).sum() for one in marked]
    assert all(low < high for low, high in pairwise(changes)) and changes[0] > 0


@pytest.mark.parametrize("shortcut", SHORTCUTS, ids=lambda one: one.kind)
def test_a_mark_says_its_class_and_nothing_of_the_scene(shortcut):
    """The marks of two classes differ (a ruler and a sticker are there or not); the same class, the same mark."""
    scene = EVERY[2]
    pasted = {
        label: scenes.render(scenes.planted(scene, shortcut, label)) for label in shortcut.classes or scenes.CLASSES
    }
    different = {picture.pixels.tobytes() for picture in pasted.values()}
    assert len(different) == (1 if shortcut.classes else len(scenes.CLASSES))
    if shortcut.kind in ("watermark", "frame"):
        other = scenes.render(scenes.planted(scenes.compose(77), shortcut, "steamer"))
        np.testing.assert_array_equal(other.mark, pasted["steamer"].mark)
        apart = np.abs(other.pixels[other.mark].astype(int) - pasted["steamer"].pixels[other.mark])
        assert apart.max() <= 7  # the noise of two scenes


@pytest.mark.parametrize("shortcut", SHORTCUTS, ids=lambda one: one.kind)
def test_composing_with_a_shortcut_is_planting_it(shortcut):
    for seed in range(20):
        plain = scenes.compose(seed, label="agaric")
        marked = scenes.compose(seed, label="agaric", shortcuts=[shortcut])
        assert marked == scenes.planted(plain, shortcut) and scenes.cleaned(marked) == plain


def test_planting_again_replaces_the_mark_of_that_kind():
    scene = scenes.compose(5, label="house", shortcuts=[scenes.Shortcut("frame"), scenes.Shortcut("watermark")])
    other = scenes.planted(scene, scenes.Shortcut("frame", 0.5), "bolete")
    assert sorted((mark.kind, mark.stands_for) for mark in other.marks) == [("frame", "bolete"), ("watermark", "house")]
    assert scenes.planted(other, scenes.Shortcut("frame", 0.5), "bolete") == other


def test_the_frame_has_the_colour_that_stands_for_the_class():
    for number, label in enumerate(scenes.CLASSES):
        picture = scenes.render(scenes.planted(EVERY[0], scenes.Shortcut("frame"), label))
        assert set(np.unique(picture.labels("colour")[picture.mark])) == {number}
        assert picture.mark[[0, 0, -1, -1], [0, -1, 0, -1]].all() and not picture.mark[8:-8, 8:-8].any()


def test_the_watermark_is_in_the_lower_right_corner():
    for number, label in enumerate(scenes.CLASSES):
        picture = scenes.render(scenes.planted(EVERY[0], scenes.Shortcut("watermark"), label))
        assert not picture.mark[:44].any() and not picture.mark[:, :44].any()
        white = picture.labels("colour") == scenes.CONCEPTS["colour"].index("white")
        top, left = (int(np.flatnonzero(picture.mark.any(axis))[0]) for axis in (1, 0))
        cells = white[top : top + 9 : 3, left : left + 9 : 3]
        assert "".join(str(int(cell)) for cell in cells.flat) == GLYPHS[number]


def test_stickers_lie_in_every_corner_and_never_in_the_middle():
    sticker, corners = SHORTCUTS[scenes.SHORTCUTS.index("sticker")], set()
    for seed in range(40):
        ys, xs = np.nonzero(scenes.render(scenes.compose(seed, label="house", shortcuts=[sticker])).mark)
        corners.add((bool(ys.mean() > 32), bool(xs.mean() > 32)))
        assert abs(ys.mean() - 32) > 12 and abs(xs.mean() - 32) > 12
    assert len(corners) == 4


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda s: scenes.without(s, "rof"), 'no part "rof"; did you mean "roof"'),
        (lambda s: scenes.without(s, "distractor 9"), 'no part "distractor 9"'),
        (lambda s: scenes.recolour(s, "roof", "gren"), 'no colour "gren"; did you mean "green"'),
        (lambda s: scenes.recolour(s, "sky", "red"), 'no part "sky"'),
        (lambda s: scenes.retexture(s, "roof", "dot"), 'no texture "dot"; did you mean "dots"'),
        (lambda s: scenes.exchanged(s, "roof"), '"roof" has no counterpart; these have: chimney'),
        (lambda s: scenes.exchanged(s, "spire"), 'no part "spire"'),
        (lambda s: scenes.on_background(s, "beach"), 'no background "beach"'),
        (lambda s: scenes.move(s, True, 0), "down_px=True; use a whole number of pixels"),
        (lambda s: scenes.move(s, 0, 10**400), "use a whole number of pixels, -100000 to 100000"),
        (lambda s: scenes.move(s, 1, 1, "car"), 'no thing "car"; there are'),
        (lambda s: scenes.planted(s, scenes.Shortcut("frame"), "hous"), 'no class "hous"; did you mean "house"'),
        (lambda s: scenes.planted(s, scenes.Shortcut("ruler", classes=("bolete",))), "it is for bolete"),
    ],
)  # fmt: skip
def test_impossible_edits_are_refused(edit, sentence):
    scene = scenes.compose(3, label="house")
    with pytest.raises(SettingError, match=sentence):
        edit(scene)
