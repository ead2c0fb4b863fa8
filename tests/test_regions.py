"""Regions: made from a picture, given by the user, placed like the picture, covered one by one."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

import pellucid as pel
from method_cases import COLOURS, case, random_input
from pellucid.core.edits import covered
from pellucid.core.errors import MissingExtraError, SettingError
from pellucid.images import Placement, Preprocess, decode
from pellucid.images.regions import Regions, regions, segments
from pellucid.images.regions.segments import KINDS
from pellucid.methods.covering import regions_of

skimage_data = pytest.importorskip("skimage.data", reason="scikit-image is not installed; make test installs it")
FOUND = [kind for kind in KINDS if kind != "grid"]


def cat(size: int = 96) -> Tensor:
    return Preprocess(resize_px=size, crop_px=size)(decode(skimage_data.chelsea())).pixels


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def network() -> torch.nn.Module:
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    return torch.nn.Sequential(*layers).double().eval()


def whole(found: Regions) -> None:
    """Every pixel is in exactly one region, and the parts of the value agree with each other."""
    masks = found.masks()
    assert masks.shape == (found.count, *found.labels.shape) and masks.dtype is torch.bool
    assert torch.equal(masks.sum(0), torch.ones_like(found.labels))
    assert tuple(masks.flatten(1).sum(1).tolist()) == found.sizes and min(found.sizes) > 0
    assert torch.equal(masks.long().argmax(0), found.labels)
    assert len(found.names) == found.count
    for mask, box in zip(masks, found.boxes(), strict=True):
        inside = torch.zeros_like(mask)
        inside[tuple(slice(a, b) for a, b in box)] = True
        assert not bool((mask & ~inside).any())
        for axis, (start, stop) in enumerate(box):
            assert bool(mask.select(axis, start).any()) and bool(mask.select(axis, stop - 1).any())


# --------------------------------------------------------------------------------------------------- made from pictures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 9, 40])
def test_every_pixel_of_a_photograph_is_in_exactly_one_region(kind: str, count: int):
    found = regions(f"{kind}:{count}", cat())
    whole(found)
    assert found.kind == kind and abs(found.count - count) <= max(2, 0.2 * count)
    assert torch.equal(regions(kind, cat(), count=count).labels, found.labels)
    assert torch.equal(regions(f" {kind.upper()} : {count} ", cat()).labels, found.labels)


@pytest.mark.parametrize("kind", FOUND)
def test_regions_follow_what_is_seen(kind: str):
    """Two flat halves with an oblique edge between them: hardly a region lies on both."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    left = columns + 0.3 * rows < 38
    picture = torch.where(
        left, torch.tensor([0.8, 0.2, 0.1]).view(3, 1, 1), torch.tensor([0.1, 0.3, 0.9]).view(3, 1, 1)
    )
    found = regions(f"{kind}:12", picture + 0.02 * noise(3, 64, 64))
    whole(found)
    smaller = sum(min(int(mask[left].sum()), int(mask[~left].sum())) for mask in found.masks())
    assert smaller <= 0.02 * 64 * 64
    on_grid = sum(min(int(m[left].sum()), int(m[~left].sum())) for m in regions("grid:12", picture).masks())
    assert on_grid > 0.05 * 64 * 64


@pytest.mark.parametrize("kind", ["slic", "felzenszwalb"])
def test_superpixels_hang_together(kind: str):
    for mask in regions(f"{kind}:30", cat()).masks():
        assert ndimage.label(mask.numpy(), np.ones((3, 3)))[1] == 1


def test_quickshift_is_that_of_scikit_image_at_the_distance_that_gives_the_count():
    from skimage.segmentation import quickshift

    picture, low, high = cat(48), 0.0, 100.0
    array = picture.double().movedim(0, -1).numpy()
    kernel = 48 / 16**0.5 / 6
    for _ in range(40):
        middle = (low + high) / 2
        theirs = quickshift(array, ratio=0.5, kernel_size=kernel, max_dist=middle, rng=0)
        low, high = (middle, high) if theirs.max() + 1 > 16 else (low, middle)
        if theirs.max() + 1 == 16:
            break
    ours = regions("quickshift:16", picture).labels.numpy()
    pairs = {*zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True)}
    assert len(pairs) == 16 == ours.max() + 1 == theirs.max() + 1


def test_a_large_picture_is_reduced_for_quickshift_and_that_is_told(monkeypatch):
    picture = cat(64)
    assert regions("quickshift:9", picture).notes == ()
    monkeypatch.setattr(segments, "QUICKSHIFT_PIXELS", 1024)
    found = regions("quickshift:9", picture)
    whole(found)
    assert found.notes == ("quickshift saw the picture reduced to 1,024 pixels",)
    blocks = found.labels.unfold(0, 2, 2).unfold(1, 2, 2).flatten(2)
    assert bool((blocks == blocks[..., :1]).all()) and abs(found.count - 9) <= 2


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_channels_is_segmented(kind: str, channels: int):
    picture = cat()[:1].expand(channels, -1, -1)
    found = regions(f"{kind}:20", picture)
    whole(found)
    assert 12 <= found.count <= 30


@pytest.mark.parametrize(("space", "count"), [((40,), 7), ((30, 50), 15), ((8, 9, 10), 24)])
def test_a_grid_on_any_number_of_axes(space: tuple[int, ...], count: int):
    found = regions(f"grid:{count}", noise(2, *space))
    whole(found)
    assert abs(found.count - count) <= 0.2 * count
    for box, size in zip(found.boxes(), found.sizes, strict=True):
        sides = [b - a for a, b in box]
        assert size == np.prod(sides) and max(sides) <= 2 * min(sides)


def test_a_grid_of_so_many_rows_and_columns():
    found = regions("grid:3x4", noise(3, 10, 8))
    rows, columns = torch.arange(10) * 3 // 10, torch.arange(8) * 4 // 8
    assert torch.equal(found.labels, rows[:, None] * 4 + columns)
    assert torch.equal(regions("grid:80", noise(3, 10, 8)).labels.flatten(), torch.arange(80))
    assert regions("grid:1", noise(3, 10, 8)).count == 1


def test_slic_on_a_volume():
    volume = noise(1, 12, 12, 12) * 0.05
    volume[:, 6:] += 0.8
    found = regions("slic:8", volume)
    whole(found)
    assert sum(min(int(m[:6].sum()), int(m[6:].sum())) for m in found.masks()) <= 0.02 * 12**3


def test_chance_comes_from_the_seed_only():
    flat = torch.full((3, 24, 24), 0.5)  # every density is a tie
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = [regions("quickshift:9", flat, seed=seed).labels for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), state[0]) and np.array_equal(np.random.get_state()[1], state[1])


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_as_small_as_they_can_be(kind: str):
    for size in ((1, 1), (1, 7), (2, 2), (5, 3)):
        for count in (1, 2, size[0] * size[1]):
            if count <= size[0] * size[1]:
                whole(regions(f"{kind}:{count}", noise(3, *size)))


# ------------------------------------------------------------------------------------------------- covered one by one


@pytest.mark.parametrize("kind", KINDS)
def test_each_pixel_is_covered_by_exactly_one_region(kind: str):
    x = cat(48)[None].double()
    found = regions(f"{kind}:12", x[0].float())
    edits = covered(x, torch.full_like(x, 2.0), found.labels, ~torch.eye(found.count, dtype=torch.bool))
    hidden = torch.stack([edits.inputs([i])[0, 0] == 2 for i in range(found.count)])
    assert torch.equal(hidden, found.masks())
    assert torch.equal(hidden.sum(0), torch.ones(48, 48, dtype=torch.int64))


def test_the_last_superpixel_is_covered_though_scikit_image_counts_from_one(monkeypatch):
    """LIME hides superpixels 0 to n − 1 of labels that run from 1 to n: the last never, and the first one is empty."""
    from skimage import segmentation

    original = segmentation.slic
    monkeypatch.setattr(segmentation, "slic", lambda *a, **k: original(*a, **{**k, "start_label": 1}))
    found = regions("slic:12", cat(48))
    whole(found)
    x = cat(48)[None]
    nothing_kept = torch.zeros(1, found.count, dtype=torch.bool)
    assert bool((covered(x, torch.full_like(x, 2.0), found.labels, nothing_kept).inputs([0]) == 2).all())


# -------------------------------------------------------------------------------------------------- given by the user


def test_gaps_between_labels_are_closed_and_names_stay_with_them():
    labels = np.array([[7, 7, 2], [-1, 40, 2]])
    for given in (labels, torch.from_numpy(labels), labels.astype(np.int8), torch.from_numpy(labels.astype(np.int16))):
        found = regions(given, noise(3, 2, 3))
        assert found.labels.tolist() == [[1, 1, 0], [-1, 2, 0]] and found.labels.dtype is torch.int64
        assert (found.count, found.sizes, found.names, found.kind) == (3, (2, 2, 1), ("2", "7", "40"), "labels")
        assert found.boxes() == (((0, 2), (2, 3)), ((0, 1), (0, 2)), ((1, 2), (1, 2)))
    named = regions(labels, noise(3, 2, 3), names={2: "sky", 40: "sun", 99: "moon"})
    assert named.names == ("sky", "7", "sun")
    assert regions(np.array([[0, 1, 1]]), noise(3, 1, 3), names=["cat", "dog"]).names == ("cat", "dog")


def test_label_nought_is_a_region_in_pictures_and_outside_in_volumes():
    flat = np.array([[0, 1], [1, 2]])
    assert regions(flat, noise(3, 2, 2)).count == 3
    assert regions(flat, noise(3, 2, 2), outside=0).labels.tolist() == [[-1, 0], [0, 1]]
    assert regions(flat, noise(3, 2, 2), outside=1).names == ("0", "2")
    atlas = flat[None].repeat(2, 0)
    assert regions(atlas, noise(1, 2, 2, 2)).labels.tolist() == [[[-1, 0], [0, 1]]] * 2
    assert regions(atlas, noise(1, 2, 2, 2), outside=None).count == 3


def test_a_mask_is_one_region():
    mask = noise(4, 5) > 0.5
    for found in (regions(given, noise(3, 4, 5)) for given in (mask, mask.numpy())):
        assert torch.equal(found.labels, torch.where(mask, 0, -1))
        assert (found.kind, found.names, found.count) == ("mask", ("mask",), 1)
    assert regions(np.ones((4, 5), bool), noise(3, 4, 5)).sizes == (20,)


def test_regions_are_taken_as_they_are_and_show_themselves():
    own = regions("grid:6", noise(3, 6, 6))
    assert regions(own, noise(3, 6, 6)) is own
    assert repr(own) == "Regions(grid, 6 of 6 to 6 px, on 6 x 6)"
    assert repr(regions(np.ones((4, 5), bool), noise(3, 4, 5))) == "Regions(mask, 1 of 20 px, on 4 x 5)"
    with pytest.raises(SettingError, match="make them on the input's grid"):
        regions(own, noise(3, 6, 7))


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        (torch.tensor([0, 2]), (), "without a gap"),
        (torch.tensor([0, -2]), (), "without a gap"),
        (torch.tensor([-1, -1]), (), "at least one"),
        (torch.tensor([0.0, 1.0]), (), "whole numbers"),
        (torch.tensor(0), (), "shape"),
        (torch.tensor([0, 1]), ("a",), "1 names came for 2 regions"),
    ],
)
def test_the_value_can_not_be_made_wrong(labels: Tensor, names: tuple[str, ...], says: str):
    with pytest.raises(SettingError, match=says):
        Regions(labels, "labels", names)


# ------------------------------------------------------------------------------------------- where the network looks

PREPARATIONS = [
    Preprocess(resize_px=256, crop_px=224),
    Preprocess(resize_px=96, crop_px=64),
    Preprocess(resize_px=(100, 130)),
    Preprocess(crop_fraction=0.7, resize_px=(300, 451)),
    Preprocess(resize_px=600, crop_px=(500, 700)),
    Preprocess(crop_px=(200, 500)),
    Preprocess(),
]


@pytest.mark.parametrize("preprocess", PREPARATIONS, ids=range(len(PREPARATIONS)))
def test_a_mask_of_the_picture_lands_where_its_pixels_land(preprocess: Preprocess):
    """White paint under the mask, pushed through the network's own preprocessing, is white where the region is."""
    drawn = Image.new("L", (451, 300))
    ImageDraw.Draw(drawn).ellipse((120, 60, 300, 220), fill=255)
    ImageDraw.Draw(drawn).polygon([(330, 40), (440, 150), (350, 290)], fill=255)
    mask = np.asarray(drawn) > 0
    prepared = preprocess(decode(np.repeat(np.asarray(drawn)[..., None], 3, 2)))
    found = regions(mask, prepared.pixels, placement=prepared.placement)
    white, inside = prepared.pixels[0], found.labels == 0
    assert bool(inside[white >= 0.95].all()) and not bool(inside[white <= 0.05].any())
    assert int(((white > 0.5) != inside).sum()) <= 0.3 * int(((white > 0.02) & (white < 0.98)).sum())
    assert int((white >= 0.95).sum()) > 500


def test_labels_beyond_the_input_are_told_and_padding_is_in_no_region():
    picture = decode(np.zeros((40, 80, 3), np.uint8))
    cut = Preprocess(crop_px=40)(picture)
    labels = np.arange(80)[None].repeat(40, 0) // 10
    found = regions(labels, cut.pixels, placement=cut.placement)
    assert (found.names, found.sizes) == (("2", "3", "4", "5"), (400,) * 4)
    assert found.notes == ("4 of 8 regions lie outside the network's input, or between its pixels",)
    padded = Preprocess(crop_px=(60, 80))(picture)
    wider = regions(labels, padded.pixels, placement=padded.placement)
    assert wider.count == 8 and wider.notes == ()
    assert bool((wider.labels[:10] == -1).all()) and bool((wider.labels[50:] == -1).all())
    assert torch.equal(wider.labels[10:50], torch.from_numpy(labels))
    with pytest.raises(SettingError, match="none of the regions lies inside the network's input"):
        regions(labels == 7, cut.pixels, placement=cut.placement)


def test_labels_of_the_inputs_size_are_taken_as_they_are():
    placement = Placement((40, 80), (20, 20), (0.0, 20.0, 40.0, 60.0))
    labels = torch.arange(400).view(20, 20)
    assert torch.equal(regions(labels, noise(3, 20, 20), placement=placement).labels, labels)
    with pytest.raises(SettingError, match=r"\(20, 20\), or of the original picture, \(40, 80\)"):
        regions(torch.zeros(21, 20, dtype=torch.int64), noise(3, 20, 20), placement=placement)
    with pytest.raises(SettingError, match="turned"):
        regions(torch.zeros(30, 20, dtype=torch.int64), noise(3, 20, 30))


# ------------------------------------------------------------------------------------------------------------- a case


def test_on_a_case_regions_lie_on_the_networks_input():
    picture = decode(skimage_data.chelsea())
    preprocess = Preprocess(resize_px=64, crop_px=48, mean=COLOURS.mean, std=COLOURS.std)
    prepared = preprocess(picture)
    x = preprocess.normalise(prepared.pixels[None]).double()
    made = case(network(), torch.cat([x, x.flip(3)]), pel.logit(1), preprocess=preprocess,
                placements=[prepared.placement, prepared.placement])  # fmt: skip
    assert torch.equal(regions_of(made, "slic:12", 0, count=4).labels, regions("slic:12", prepared.pixels).labels)
    assert torch.equal(regions_of(made, "slic", 1, count=8).labels, regions("slic:8", prepared.pixels.flip(2)).labels)
    mask = np.zeros(picture.size_px, bool)
    mask[100:180, 200:300] = True
    expected = regions(mask, prepared.pixels, placement=prepared.placement)
    assert torch.equal(regions_of(made, mask, 0).labels, expected.labels)
    assert made.notes == []
    halves = np.arange(picture.size_px[1])[None].repeat(picture.size_px[0], 0) // 20
    assert regions_of(made, halves, 0).count < len(np.unique(halves))
    assert [note for note in made.notes if "outside the network's input" in note] == made.notes != []


def test_without_preprocessing_the_input_itself_is_segmented_and_that_is_told():
    x = cat(48)[None].double() * 7 - 3
    made = case(network(), x, pel.logit(1))
    found = regions_of(made, "felzenszwalb:12", 0)
    stretched = (x[0] - x.min()) / (x.max() - x.min())
    assert torch.equal(found.labels, regions("felzenszwalb:12", stretched).labels)
    assert "rescaled to its own range" in made.notes[0]
    made = case(network(), random_input(1, 3, 8, 8), pel.logit(1))
    assert regions_of(made, "grid", 0, count=4).count == 4 and made.notes == []
    whole(regions_of(case(network(), torch.zeros(1, 3, 8, 8).double(), pel.logit(1)), "slic:4", 0))


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("slick", 'did you mean "slic"'),
        ("quite_else", "Known: grid, slic"),
        ("slic:0", "at least 1"),
        ("slic:-3", "a whole number"),
        ("slic:many", "a whole number"),
        ("slic:2.5", "a whole number"),
        ("grid:49", "49 regions came for 48 pixels"),
        ("quickshift:100", "100 regions came for 48 pixels"),
        ("grid:9x2", "from 1 to its pixels"),
        ("grid:2x2x2", "one whole number for each axis"),
        ("slic:2x3", "only a grid has axes"),
        (np.zeros((6, 8)), "labels of float64"),
        (torch.zeros(6, 8), "labels of float32"),
        (np.full((6, 8), -2), "labels from -2 to -2"),
        (np.full((6, 8), 2**60), "labels from"),
        (np.full((6, 8), "a"), "labels of <U1"),
        (np.full((6, 8), -1), "labels that name no region"),
        (np.zeros((6, 8), bool), "a mask that is nowhere True"),
        (np.zeros((0, 8), int), "name no region"),
        (np.zeros((6, 9), int), r"labels of shape \(6, 9\) came"),
        (np.zeros((2, 6, 8), int), r"labels of shape \(2, 6, 8\) came"),
        (7, "regions from int"),
        (None, "regions from NoneType"),
        ([[0, 1]], "regions from list"),
    ],
)
def test_bad_input_is_told(asked, says: str):
    with pytest.raises(SettingError, match=says):
        regions(asked, noise(3, 6, 8))


@pytest.mark.parametrize("count", [0, -1, True])
def test_a_count_that_is_none_is_told(count):
    with pytest.raises(SettingError, match="regions came; ask for a whole number, at least 1"):
        regions("grid", noise(3, 6, 8), count=count)


@pytest.mark.parametrize(("kind", "space"), [("slic", (9,)), ("felzenszwalb", (4, 4, 4)), ("quickshift", (4, 4, 4))])
def test_what_a_segmentation_can_not_do_is_told(kind: str, space: tuple[int, ...]):
    with pytest.raises(SettingError, match="use grid"):
        regions(f"{kind}:3", noise(3, *space))


def test_names_that_are_none_are_told():
    with pytest.raises(SettingError, match="from labels to names"):
        regions(np.array([[0, 1]]), noise(3, 1, 2), names={"zero": "a"})


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    for kind in FOUND:
        with pytest.raises(MissingExtraError, match=r"pellucid\[segment\]"):
            regions(kind, noise(3, 6, 8), count=4)
    whole(regions("grid:4", noise(3, 6, 8)))
