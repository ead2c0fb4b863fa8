"""The true counterfactual: the same scene, with the same random numbers, and one thing changed."""

from collections.abc import Callable
from dataclasses import replace

from pellucid.core.errors import SettingError, check_known
from pellucid.images.scenes.blueprints import CLASSES, EXCHANGED, KINDS, sibling
from pellucid.images.scenes.scene import Draw, Part, Scene, Thing, drawn_backdrop, named_parts
from pellucid.images.scenes.shortcuts import Mark, Shortcut, checked, mark_of
from pellucid.images.scenes.vocabulary import BACKDROPS, COLOURS, TEXTURES

FARTHEST_PX = 100_000  # that a thing is moved in one step


def truth(scene: Scene) -> str | None:
    """The class by the rules of the world; None where nothing in the scene decides between two siblings."""
    main = {thing.name: thing for thing in scene.things if thing.role == "main"}
    parts = {part.name: part for thing in main.values() for part in thing.parts}
    found = [label for label, kind in KINDS.items() if set(kind.objects) & set(main) and _is(label, main, parts)]
    return found[0] if len(found) == 1 else None


def _is(label: str, main: dict[str, Thing], parts: dict[str, Part]) -> bool:
    kind = KINDS[label]
    if kind.difference == "relation":
        if set(kind.objects) - set(main):
            return False
        left = min(kind.objects, key=lambda name: main[name].x)
        return left == kind.value and main["tree"].x != main["car"].x
    decisive = parts.get(kind.decisive[0])
    if decisive is None:
        return False
    shown = {"part": decisive.name, "colour": decisive.surface.colour, "texture": decisive.surface.texture}
    return shown[kind.difference] == kind.value


def decisive_parts(scene: Scene) -> tuple[str, ...]:
    """The parts that decide between the scene's class and its sibling.

    A part is decisive if taking it away, painting it anew or moving the thing it belongs to may change the class.
    """
    there = {name for name, thing, _ in named_parts(scene) if thing.role == "main"}
    label = truth(scene) or scene.label
    return tuple(name for name in KINDS[label].decisive if name in there)


def without(scene: Scene, part: str) -> Scene:
    """The scene as if this part had never been there; what lies behind it shows.

    Raises:
        SettingError: the scene has no such part.
    """
    return _with_part(scene, part, lambda one: None)


def recolour(scene: Scene, part: str, colour: str) -> Scene:
    """A part in another colour.

    Raises:
        SettingError: no such part or colour.
    """
    check_known("colour", colour, COLOURS)
    return _with_part(scene, part, lambda one: replace(one, surface=replace(one.surface, colour=colour)))


def retexture(scene: Scene, part: str, texture: str) -> Scene:
    """A part with another texture.

    Raises:
        SettingError: no such part or texture.
    """
    check_known("texture", texture, TEXTURES)
    return _with_part(scene, part, lambda one: replace(one, surface=replace(one.surface, texture=texture)))


def exchanged(scene: Scene, part: str) -> Scene:
    """A part replaced by the one its sibling has in that place, with the same surface (chimney and spire, …).

    Raises:
        SettingError: no such part, or no sibling has another one in its place.
    """
    check_known("part", part, scene.parts)
    if part not in EXCHANGED:
        raise SettingError(f'"{part}" has no counterpart; these have: {", ".join(EXCHANGED)}')
    name, outline = EXCHANGED[part]
    owner = CLASSES[[kind.decisive[0] for kind in KINDS.values()].index(name)]
    things = tuple(
        replace(t, name=KINDS[owner].objects[0]) if any(p.name == part for p in t.parts) else t for t in scene.things
    )
    return _with_part(replace(scene, things=things), part, lambda one: replace(one, name=name, outline=outline))


def on_background(scene: Scene, backdrop: str) -> Scene:
    """The same things before another backdrop, which also takes the place of a planted one.

    Raises:
        SettingError: no such backdrop.
    """
    check_known("background", backdrop, BACKDROPS)
    return replace(scene, backdrop=drawn_backdrop(backdrop, scene.seed), marks=_other_marks(scene, "background"))


def move(scene: Scene, down_px: int, right_px: int, thing: str | None = None) -> Scene:
    """The main things, or one thing, moved by whole pixels with its surface; it may leave the picture.

    Args:
        down_px, right_px: -100000 to 100000.
        thing: name of a main thing ("tree"), "distractor 0", …, or "occluder"; all main things where it is None.

    Raises:
        SettingError: no such thing, or no whole number of pixels.
    """
    for word, value in (("down_px", down_px), ("right_px", right_px)):
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > FARTHEST_PX:
            raise SettingError(f"{word}={value!r}; use a whole number of pixels, {-FARTHEST_PX} to {FARTHEST_PX}")
    names = _thing_names(scene)
    if thing is not None:
        check_known("thing", thing, names)
    moved = tuple(
        replace(t, y=t.y + down_px / scene.px, x=t.x + right_px / scene.px)
        if (name == thing if thing is not None else t.role == "main")
        else t
        for t, name in zip(scene.things, names, strict=True)
    )
    return replace(scene, things=moved)


def swapped(scene: Scene) -> Scene:
    """The scene with its one decisive difference set to its sibling's, and nothing else changed.

    Raises:
        SettingError: the scene was edited until it belongs to no class.
    """
    label = truth(scene)
    if label is None:
        raise SettingError(f"{scene!r} was edited until it belongs to no class, so it has no sibling")
    other, kind = KINDS[sibling(label)], KINDS[label]
    if kind.difference == "relation":
        place = {t.name: t.x for t in scene.things if t.role == "main"}
        turned = {"tree": place["car"], "car": place["tree"]}
        things = tuple(replace(t, x=turned[t.name]) if t.name in turned else t for t in scene.things)
        scene = replace(scene, things=things)
    elif kind.difference == "part":
        scene = exchanged(scene, kind.decisive[0])
    elif kind.difference == "colour":
        scene = recolour(scene, kind.decisive[0], other.value)
    else:
        scene = retexture(scene, kind.decisive[0], other.value)
    return replace(scene, label=sibling(label))


def planted(scene: Scene, shortcut: Shortcut, as_class: str | None = None) -> Scene:
    """The scene with a mark pasted in, in place of one of the same kind.

    Args:
        as_class: the class the mark stands for; that of the scene where it is None.

    Raises:
        SettingError: a shortcut that can't be planted, or that has no mark for this class.
    """
    checked([shortcut])
    label = scene.label if as_class is None else as_class
    check_known("class", label, CLASSES)
    draw = Draw(scene.seed, "mark", shortcut.kind)
    draw.chance(1.0)
    mark = mark_of(shortcut, label, (draw.between(0.0, 1.0), draw.between(0.0, 1.0)))
    if mark is None:
        raise SettingError(
            f'this {shortcut.kind} has no mark for "{label}"; it is for {", ".join(shortcut.classes or ())}'
        )
    return replace(scene, marks=(*_other_marks(scene, shortcut.kind), mark))


def cleaned(scene: Scene) -> Scene:
    """The scene without any planted mark, before its own backdrop."""
    return replace(scene, marks=())


def _thing_names(scene: Scene) -> list[str]:
    """A name for every thing: a distractor or an occluder is called as in `scene.parts`."""
    of_part = {id(thing): name for name, thing, _ in named_parts(scene)}
    return [t.name if t.role == "main" else of_part[id(t)] for t in scene.things]


def _other_marks(scene: Scene, kind: str) -> tuple[Mark, ...]:
    return tuple(m for m in scene.marks if m.kind != kind)


def _with_part(scene: Scene, part: str, change: Callable[[Part], Part | None]) -> Scene:
    check_known("part", part, scene.parts)
    found = next((thing, one) for name, thing, one in named_parts(scene) if name == part)
    things = []
    for thing in scene.things:
        if thing is found[0]:
            parts = tuple(p for one in thing.parts if (p := change(one) if one is found[1] else one) is not None)
            thing = replace(thing, parts=parts)
        if thing.parts:
            things.append(thing)
    return replace(scene, things=tuple(things))
