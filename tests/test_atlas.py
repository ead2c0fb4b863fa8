"""The activation atlas: what is collected, where it lies, what a cell says, what an interrupted run keeps."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from atlas_cases import Planted, clusters, flat_icons
from method_cases import undrawn
from oracles import atlas as oracle
from pellucid.core.errors import (
    Cancelled,
    FileError,
    ImageError,
    LayerError,
    MissingExtraError,
    SettingError,
    TargetError,
)
from pellucid.core.progress import Progress
from pellucid.core.record import record
from pellucid.core.target import class_scores
from pellucid.images import scenes
from pellucid.inside.atlas import Atlas, atlas
from pellucid.inside.atlas import layout as layouts
from pellucid.inside.atlas.attributing import attributions, backwards, forwards
from pellucid.inside.atlas.cells import cosines, supporters, whitening
from pellucid.inside.atlas.collecting import places
from pellucid.inside.atlas.layout import cells_of, lay_out, scaled
from pellucid.inside.opened import opened


@pytest.fixture(scope="module")
def planted():
    x, labels = clusters()
    return atlas(Planted().eval(), x, "layer", layout="pca", grid=12, least=4, invert=flat_icons), labels


@pytest.mark.parametrize("layout", ["pca", "tsne", "umap"])
def test_planted_clusters_lie_in_cells_of_their_own(layout):
    pytest.importorskip({"pca": "torch", "tsne": "sklearn", "umap": "umap"}[layout])
    x, labels = clusters()
    found = atlas(Planted().eval(), x, "layer", layout=layout, grid=12, least=2, icons=False)
    assert oracle.purity(found.grid.places[:, ::-1], labels[found.samples.pictures].tolist(), 12) > 0.95
    assert (found.grid.rows >= 0).mean() > 0.7


def test_every_activation_lies_in_one_cell_and_the_counts_add_up(planted):
    found, _ = planted
    counts = found.grid.counts
    assert counts.sum() == len(found.samples) == 200
    np.testing.assert_array_equal(counts, oracle.counts(found.grid.places[:, ::-1], 12))
    for number, cell in enumerate(found.cells):
        assert counts[cell.row, cell.column] == cell.count == (found.grid.rows == number).sum() >= 4
    assert counts[counts >= 4].sum() == (found.grid.rows >= 0).sum()


def test_cells_are_means_named_after_the_class_they_give_most_to(planted):
    found, _ = planted
    upright = found.grid.places[:, ::-1]
    means = oracle.cell_means(upright, found.samples.vectors, 12, more_than=3)
    labels = oracle.cell_labels(upright, found.samples.attributions, 12, more_than=3)
    assert {(c.row, c.column) for c in found.cells} == set(means)
    for cell, mean in zip(found.cells, found.grid.means, strict=True):
        np.testing.assert_allclose(mean, means[cell.row, cell.column], rtol=1e-5)
        assert cell.classes[0] == labels[cell.row, cell.column]
        assert list(cell.shares) == sorted(cell.shares, reverse=True)
        near = cosines(found.samples.vectors, mean)
        assert all(found.grid.rows[e] == found.grid.rows[cell.examples[0]] for e in cell.examples)
        assert near[cell.examples[0]] >= near[list(cell.examples)].max() - 1e-6


def test_the_edges_belong_to_one_cell_each():
    random = np.random.default_rng(0)
    points = np.concatenate([random.random((200, 2)), [[0, 0], [1, 1], [0, 1], [0.5, 0.5], [1 / 3, 2 / 3]]])
    for side in (1, 2, 3, 7):
        mine = cells_of(points, side)
        assert mine.min() >= 0 and mine.max() <= side - 1
        assert [tuple(c) for c in mine] == [oracle.cell_of(p[::-1], side) for p in points]


def test_clipping_to_percentiles_with_a_margin():
    points = np.random.default_rng(0).standard_cauchy((500, 2))
    np.testing.assert_allclose(scaled(points), oracle.layout(points), atol=1e-12)
    assert scaled(np.ones((5, 2))).tolist() == [[0.5, 0.5]] * 5


def test_places_leave_out_the_border_and_reach_all_others():
    drawn = {p for picture in range(400) for p in places((5, 4), picture, 1, seed=0)}
    assert drawn == {(i, j) for i in (1, 2, 3) for j in (1, 2)}
    assert {p for n in range(50) for p in places((2, 1), n, 1, 0)} == {(0, 0), (1, 0)}
    several = places((5, 5), 3, 4, seed=0)
    assert len(set(several)) == 4 and places((5, 5), 3, 4, seed=0) == several != places((5, 5), 3, 4, seed=1)


def test_activations_are_those_of_the_network():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.rand(30, 3, 11, 13)
    found = atlas(net, x, "1", layout="pca", grid=1, icons=False).samples
    maps = net[:2](x).detach().numpy()
    for vector, picture, (row, column), box in zip(
        found.vectors, found.pictures, found.positions, found.boxes, strict=True
    ):
        np.testing.assert_allclose(vector, maps[picture, :, row, column], rtol=1e-5)
        assert 0 < row < maps.shape[2] - 1 and 0 < column < maps.shape[3] - 1
        assert box.tolist() == [[max(2 * p - 1, 0), 2 * p + 2] for p in (row, column)]
    assert sorted(found.pictures) == list(range(30))


class Harder(nn.Module):
    def __init__(self, dense=False):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.more, self.head, self.dense = nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 3, 1), dense

    def forward(self, x):
        x = self.norm(self.conv(x)).relu_()
        y = self.head(torch.nn.functional.max_pool2d(self.more(x), 2) * x.mean((2, 3), keepdim=True).sigmoid())
        return y if self.dense else nn.functional.silu(y).mean((2, 3))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("layer", ["norm", "more"])
def test_attributions_agree_forwards_backwards_and_by_differences(dense, layer):
    net = Harder(dense).eval().double()
    trace = record(net, torch.randn(3, 2, 12, 12, dtype=torch.float64))
    value, end = trace.at(layer), class_scores(trace)
    vectors = torch.randn_like(value.data)
    mine = attributions(trace, value, vectors)
    one, other = forwards(trace, value, end, vectors), backwards(trace, value, end, vectors)
    torch.testing.assert_close(one.flatten(2).mean(2) if dense else one, other)
    step = 1e-6
    ahead, behind = (trace.replay(edits={value: value.data + s * vectors}) for s in (step, -step))
    slopes = (ahead - behind) / (2 * step)
    slopes = slopes.flatten(2).mean(2) if dense else slopes
    torch.testing.assert_close(mine.double(), slopes, rtol=1e-4, atol=1e-6)


def test_attributions_are_the_same_for_any_batch_and_for_many_classes(planted):
    found, _ = planted
    head = Planted().head.weight.detach().numpy()
    np.testing.assert_allclose(found.samples.attributions, found.samples.vectors @ head.T / 16, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_atlas_and_another_another():
    x = torch.rand(60, 3, 8, 8)
    made = [atlas(Planted().eval(), x, "layer", layout="pca", grid=3, seed=s, icons=False) for s in (3, 3, 4)]
    np.testing.assert_array_equal(made[0].grid.places, made[1].grid.places)
    np.testing.assert_array_equal(made[0].samples.positions, made[1].samples.positions)
    assert made[0].cells == made[1].cells
    assert (made[0].samples.positions != made[2].samples.positions).any()


def test_more_or_fewer_activations_than_pictures():
    x = torch.rand(40, 3, 8, 8)
    some = {"layer": "layer", "layout": "pca", "grid": 1, "icons": False}
    few = atlas(Planted().eval(), x, samples=25, **some).samples
    many = atlas(Planted().eval(), x, samples=90, **some).samples
    assert len(few) == len(set(few.pictures)) == 25
    assert len(many) == 90 and set(np.bincount(many.pictures)) == {2, 3}
    assert len({(n, *p) for n, p in zip(many.pictures, map(tuple, many.positions), strict=True)}) == 90


def test_whitening_is_the_inverse_of_the_uncentred_second_moment():
    vectors = np.random.default_rng(0).standard_normal((500, 6)) + 2
    ridge = 1e-3 * np.trace(oracle.second_moment(vectors)) / 6
    np.testing.assert_allclose(whitening(vectors), oracle.whitening(vectors, ridge), rtol=1e-4, atol=1e-5)
    flat = np.zeros((5, 3))
    assert np.isfinite(whitening(flat)).all()


def middles(inside, found):
    """What the layer gives in the middle of each icon."""
    assert inside.model.preprocess is not None
    x = inside.model.preprocess.normalise(torch.from_numpy(found.icons).permute(0, 3, 1, 2) / 255)
    maps = inside.maps(found.layer, record(inside.model.module, x).at(found.layer).data)
    return maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]


def test_icons_of_cells_resemble_their_means_more_than_others():
    shown, inside = (
        [scenes.render(scene).pixels for scene in scenes.stream(48, seed=1, px=64)],
        opened("builtin:scenes"),
    )
    found = atlas("builtin:scenes", shown, layout="pca", grid=2, least=4, steps=24)
    means = torch.from_numpy(found.grid.means[list(found.drawn)])
    h = middles(inside, found)
    own = torch.cosine_similarity(h, means)
    others = torch.stack([torch.cosine_similarity(h, means.roll(k, 0)) for k in range(1, len(means))]).mean(0)
    assert len(means) >= 3 and own.mean() > others.mean() + 0.1


def test_the_atlas_of_a_class_keeps_what_gives_to_it():
    x, _ = clusters()
    found = atlas(Planted().eval(), x, "layer", class_=1, layout="pca", grid=4, icons=False)
    assert found.settings["least"] == 4 and found.title.endswith("class 1")
    best = found.samples.attributions.argmax(1)
    whole = atlas(Planted().eval(), x, "layer", layout="pca", grid=4, icons=False).samples
    assert (best == 1).sum() == (whole.attributions.argmax(1) == 1).sum()
    assert all(cell.classes == (1,) for cell in found.cells)
    assert (found.samples.attributions[:, 1] > 0).all() and len(found.samples) == (whole.attributions[:, 1] > 0).sum()
    many = supporters(whole.attributions, 1, 10)
    assert many.sum() >= 10 and many[whole.attributions[:, 1].argmax()]


class Stops(Progress):
    """Asks to stop once this many batches of icons were made."""

    def __init__(self, batches):
        super().__init__(None)
        self.batches = batches

    def icons(self, *args, **settings):
        self.batches -= 1
        if self.batches < 0:
            self.cancel()
        return flat_icons(*args, **settings)


@pytest.mark.parametrize("batches", [0, 1])
def test_an_interrupted_run_keeps_its_icons(batches):
    x = torch.rand(200, 3, 8, 8)
    bar = Stops(batches)
    found = atlas(
        Planted().eval(), x, "layer", layout="pca", grid=7, least=1, invert=bar.icons, progress=bar
    )  # fmt: skip
    assert len(found.icons) == len(found.drawn) == 16 * batches < len(found.cells)
    assert any(note.startswith(f"stopped after {16 * batches} of") for note in found.notes)
    assert min(found.cells[k].count for k in found.drawn) >= 1 if batches else not found.drawn
    assert found.image().size[0] > 100 and (batches or "nearest to its mean" in found.sentence())


def test_a_run_that_has_nothing_yet_is_cancelled():
    bar = Progress(None)
    bar.cancel()
    with pytest.raises(Cancelled):
        atlas(Planted().eval(), torch.rand(20, 3, 8, 8), "layer", progress=bar)


def test_the_network_stays_as_it_was(untouched):
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1),
                           nn.Flatten(), nn.Linear(4, 2)).eval(), torch.rand(24, 3, 8, 8)  # fmt: skip
    with untouched(net), undrawn():
        atlas(net, x, layout="pca", grid=2, least=2, steps=2)


def test_signals_and_volumes_get_an_atlas_without_pictures():
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    found = atlas(net, torch.randn(60, 2, 20), layout="pca", grid=2, least=2)
    assert len(found.drawn) == 0 and any("pictures only" in note for note in found.notes)
    assert found.image().size[0] > 50 and sum(map(sum, found.grid.counts)) == 60


@pytest.mark.parametrize("channels", [1, 12])
def test_any_number_of_channels(channels):
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = atlas(net, torch.rand(30, channels, 12, 12), layout="pca", grid=2, least=2, steps=2)
    assert found.icons.shape[-1] == 3 and found.patches.shape[-1] == 3


def test_wrong_settings_are_told(monkeypatch):
    net, x = Planted().eval(), torch.rand(20, 3, 8, 8)
    with pytest.raises(LayerError, match='no layer "nothing"'):
        atlas(net, x, "nothing")
    with pytest.raises(LayerError, match="has no maps"):
        atlas(net, x, "head")
    with pytest.raises(TargetError, match="class 7 came; the network has 3 classes"):
        atlas(net, x, "layer", class_=7)
    with pytest.raises(SettingError, match="no cell of a grid of 9×9 holds 15"):
        atlas(net, x, "layer", layout="pca", grid=9, least=15)
    with pytest.raises(SettingError, match="grid=0"):
        atlas(net, x, "layer", grid=0)
    with pytest.raises(SettingError, match="least=0"):
        atlas(net, x, "layer", least=0)
    with pytest.raises(SettingError, match="samples=0"):
        atlas(net, x, "layer", samples=0)
    with pytest.raises(SettingError, match='no layout "pcaa"; did you mean "pca"'):
        atlas(net, x, "layer", layout="pcaa")
    with pytest.raises(ImageError):
        atlas(net, [], "layer")
    with pytest.raises(SettingError, match="2 activations came"):
        atlas(net, x[:2], "layer")
    monkeypatch.setattr(layouts, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"umap-learn.*pellucid\[atlas\]"):
        atlas(net, x, "layer", layout="umap")
    assert atlas(net, x, "layer", grid=1, icons=False).settings["layout"] == "pca"


def test_unreadable_pictures_are_passed_over(tmp_path):
    random = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / f"{k}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = atlas("builtin:photos", tmp_path, layout="pca", grid=1, icons=False)
    assert len(found.samples) == 12 and any("1 pictures could not be used" in note for note in found.notes)


def test_it_is_saved_and_opened_again(planted, tmp_path):
    found, _ = planted
    again = Atlas.open(found.save(tmp_path / "a.safetensors"))
    assert again.cells == found.cells and again.sentence() == found.sentence() and again.labels == found.labels
    np.testing.assert_array_equal(again.samples.vectors, found.samples.vectors)
    np.testing.assert_array_equal(again.icons, found.icons)
    facts = json.loads(found.save(tmp_path / "a.json").read_text())
    assert sum(map(sum, facts["counts"])) == 200 and len(facts["cells"]) == len(found.cells)
    assert Image.open(io.BytesIO(found.save(tmp_path / "a.png").read_bytes())).size == found.image().size
    with pytest.raises(FileError, match="is saved as"):
        found.save(tmp_path / "a.txt")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileError):
        Atlas.open(tmp_path / "b.safetensors")


def test_cells_are_found_by_class(planted):
    found, _ = planted
    cells = found.find("class 0")
    assert cells == found.find(0) and all(found.cells[k].classes[0] == 0 for k in cells)
    assert [found.cells[k].count for k in cells] == sorted((found.cells[k].count for k in cells), reverse=True)
    with pytest.raises(SettingError, match="no class"):
        found.find("house")
    assert found.size(max(range(len(found.cells)), key=lambda k: found.cells[k].count)) == pytest.approx(1)


def test_principal_components_have_fixed_signs():
    points = np.random.default_rng(0).standard_normal((40, 5)) * [5, 3, 1, 1, 1]
    first = lay_out(points, "pca")
    np.testing.assert_allclose(lay_out(points[::-1].copy(), "pca")[::-1], first, atol=1e-9)
    wide = np.random.default_rng(0).standard_normal((10, 30))
    assert lay_out(wide, "pca").shape == (10, 2)


@pytest.mark.parametrize(("single", "neighbours", "distance"), [(False, 50, 0.05), (True, 20, 0.01)])
def test_umap_is_asked_as_in_the_article(monkeypatch, single, neighbours, distance):
    class Umap:
        def __init__(self, **settings):
            asked.update(settings)

        def fit_transform(self, vectors):
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
            return vectors[:, :2].astype(np.float32)

    asked = {}
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    found = lay_out(np.random.default_rng(0).standard_normal((80, 5)), "umap", seed=7, single_class=single)
    assert found.shape == (80, 2) and found.min() == 0 and found.max() == 1
    assert (asked["metric"], asked["random_state"], asked["n_components"]) == ("cosine", 7, 2)
    assert (asked["n_neighbors"], asked["min_dist"]) == (neighbours, distance)


@pytest.mark.slow
def test_icons_of_photographs_resemble_their_cells(data):
    import zipfile

    with zipfile.ZipFile(data / "cifar10" / "test.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith((".jpg", ".png"))][::25]
        pictures = [np.asarray(Image.open(archive.open(n)).convert("RGB")) for n in names]
    found = atlas("builtin:photos", pictures, layout="pca", grid=5, steps=64)
    inside = opened("builtin:photos")
    h = middles(inside, found)
    means = torch.from_numpy(found.grid.means[list(found.drawn)])
    own = torch.cosine_similarity(h, means)
    random = torch.stack([torch.cosine_similarity(h, means[:, torch.randperm(means.shape[1])]) for _ in range(20)])
    assert (own > random.mean(0)).all()
