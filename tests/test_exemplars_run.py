"""Exemplars: how values are distributed, interrupted runs, results and mistakes."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pel
from exemplar_nets import Branching, all_maps, signature
from method_cases import undrawn
from oracles import exemplars as oracle
from pellucid.core.errors import Cancelled, FileError, ImageError, LayerError, ModelError, SettingError
from pellucid.core.progress import Progress
from pellucid.inside.exemplars import Exemplars, exemplars
from pellucid.inside.exemplars.sketch import RANK_ERROR, Sketch, affordable


@pytest.fixture
def net() -> nn.Module:
    return Branching().eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(41, 3, 37, 29)


class TestQuantiles:
    @pytest.mark.parametrize(
        "draw",
        [
            lambda g: torch.randn(5, 3000, generator=g),
            lambda g: torch.randn(5, 3000, generator=g).relu(),
            lambda g: torch.randn(5, 3000, generator=g).exp().round(),
            lambda g: torch.rand(5, 3000, generator=g).pow(40),
        ],
        ids=["normal", "rectified", "steps", "heavy at zero"],
    )
    def test_rank_within_the_stated_error(self, draw):
        g, sketch = torch.Generator().manual_seed(1), Sketch(5, seed=3)
        parts = [draw(g) + 0.1 * k for k in range(80)]
        for part in parts:
            sketch.add(part)
        exact = torch.cat(parts, 1).numpy()
        assert sketch.rank_error == RANK_ERROR == 1e-3
        for unit in range(5):
            ranked = np.sort(exact[unit])
            for q in (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.995, 0.999):
                found = float(np.float32(sketch.quantile(unit, q)))
                near = 1e-6 * max(1, abs(found))
                below, upto = (np.searchsorted(ranked, found + d, s) for d, s in ((-near, "left"), (near, "right")))
                assert max(below / ranked.size - q, q - upto / ranked.size, 0) <= RANK_ERROR
            value = float(ranked[ranked.size // 3])
            share = oracle_share(ranked, value)
            assert abs(float(sketch.below(unit, value)) - share) <= RANK_ERROR

    def test_few_values_are_kept_whole(self):
        sketch, values = Sketch(2), torch.randn(2, 500)
        sketch.add(values)
        assert sketch.rank_error == 0
        assert float(sketch.quantile(1, 0.3)) == pytest.approx(np.quantile(values[1].numpy(), 0.3))

    def test_it_comes_back_from_its_state(self):
        one = Sketch(3)
        for _ in range(9):
            one.add(torch.randn(3, 4000))
        other = Sketch.of(3, *one.state())
        more = torch.randn(3, 9000)
        one.add(more), other.add(more)
        assert float(one.quantile(2, 0.77)) == float(other.quantile(2, 0.77)) and one.count == other.count

    def test_histogram_counts_everything(self):
        sketch = Sketch(1)
        for _ in range(5):
            sketch.add(torch.randn(1, 5000))
        counts, edges = sketch.histogram(0, 20)
        assert abs(counts.sum() - 25_000) <= 20 and len(edges) == 21

    def test_memory_is_bounded(self):
        assert affordable(100) == 2048 and affordable(20_000) < 1024
        sketch = Sketch(4, kept=64)
        for _ in range(50):
            sketch.add(torch.randn(4, 1000))
        tensors, _ = sketch.state()
        assert sum(t.shape[1] for t in tensors.values()) < 64 * 16
        assert sketch.rank_error == pytest.approx(32e-3)

    def test_thinned_positions_stay_within_the_error(self, monkeypatch):
        monkeypatch.setattr("pellucid.inside.exemplars.scan.VALUES", 60_000)
        net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()).eval()
        x = torch.randn(60, 1, 64, 64)
        found = exemplars(net, x, layers="1", progress=False)
        maps = all_maps(net, x, "1")
        assert found.tallies["1"].sketch.count < 62_000 and found.rank_error("1") > 0
        for q in (0.5, 0.9, 0.999):
            assert oracle.rank_error(maps[:, 1], found.quantile("1:1", q), q) < 4e-3  # 60,000 of 245,760 values

    def test_of_pictures(self, net, inputs):
        one = exemplars(net, inputs, layers="joined", top=41, progress=False).of("joined:0")
        highest = [e.value for e in one.top]
        assert one.quantile(0.5, of="pictures") == pytest.approx(float(np.median(highest)))
        assert one.quantile(1.0) == highest[0] and one.percentile(highest[0] + 1) == 100


def oracle_share(ranked: np.ndarray, value: float) -> float:
    value = np.float32(value)
    return (np.searchsorted(ranked, value, "left") + np.searchsorted(ranked, value, "right")) / 2 / ranked.size


class TestInterrupted:
    KINDS: ClassVar[dict] = {
        "layers": ["first", "joined"],
        "top": 5,
        "bottom": 2,
        "random": 3,
        "quantile_bins": 2,
        "batch": 4,
    }

    @staticmethod
    def stopping(after: int, error: type[BaseException] | None = None) -> Progress:
        def event(done, total, label):
            if done >= after:
                if error is not None:
                    raise error
                bar.cancel()

        bar = Progress(on_event=event)
        return bar

    def test_a_cancelled_run_is_gone_on_with(self, net, inputs, tmp_path, untouched):
        place = tmp_path / "run.safetensors"
        with untouched(net), undrawn():
            part = exemplars(net, inputs, resume=place, progress=self.stopping(16), **self.KINDS)
        assert 16 <= part.read < 41 and not part.complete and "stopped on request" in part.sentence()
        seen = []
        rest = exemplars(
            net, inputs, resume=place, progress=Progress(on_event=lambda *a: seen.append(a[0])), **self.KINDS
        )
        assert seen[-1] == 41 - part.read and rest.complete
        whole = exemplars(net, inputs, progress=False, **self.KINDS)
        assert signature(rest) == signature(whole)
        assert rest.quantile("first:2", 0.3) == whole.quantile("first:2", 0.3)

    def test_control_c_keeps_what_there_is(self, net, inputs, tmp_path):
        place = tmp_path / "run.safetensors"
        with pytest.raises(KeyboardInterrupt):
            exemplars(net, inputs, resume=place, progress=self.stopping(20, KeyboardInterrupt), **self.KINDS)
        assert signature(exemplars(net, inputs, resume=place, progress=False, **self.KINDS)) == signature(
            exemplars(net, inputs, progress=False, **self.KINDS)
        )

    def test_a_finished_run_needs_no_network(self, net, inputs, tmp_path, monkeypatch):
        place = tmp_path / "run.safetensors"
        whole = exemplars(net, inputs, resume=place, progress=False, **self.KINDS)
        monkeypatch.setattr("pellucid.inside.exemplars.scan.Watch", None)
        again = exemplars(net, inputs, resume=place, progress=False, **self.KINDS)
        assert signature(again) == signature(whole)

    def test_another_network_other_data_other_settings_are_refused(self, net, inputs, tmp_path):
        place = tmp_path / "run.safetensors"
        exemplars(net, inputs, resume=place, progress=False, **self.KINDS)
        other = Branching().eval()
        for given, words in [
            ((other, inputs, self.KINDS), "another network"),
            ((net, inputs + 1, self.KINDS), "other data"),
            ((net, inputs, self.KINDS | {"top": 6}), "other settings"),
            ((net, inputs, self.KINDS | {"layers": ["first"]}), "other layers"),
        ]:
            model, x, kinds = given
            with pytest.raises(FileError, match=words):
                exemplars(model, x, resume=place, progress=False, **kinds)
        with pytest.raises(FileError, match="safetensors"):
            exemplars(net, inputs, resume=tmp_path / "run.pt", progress=False)

    def test_stopped_before_anything(self, net, inputs):
        bar = Progress()
        bar.cancel()
        found = exemplars(net, inputs, layers="first", batch=4, progress=bar)
        assert found.read == 4
        with pytest.raises(Cancelled):
            bar.advance()

    def test_memory_that_runs_out(self, net, inputs, monkeypatch):
        from pellucid.core.watch import Watch

        def short(self, x):
            if len(x) > 3:
                raise torch.OutOfMemoryError("no memory")
            return whole(self, x)

        whole = Watch.__call__
        monkeypatch.setattr(Watch, "__call__", short)
        found = exemplars(net, inputs, layers="joined", batch=16, progress=False)
        assert found.read == 41 and "went on with 8" in found.sentence()


class TestResult:
    def test_saved_and_opened(self, net, inputs, tmp_path):
        found = exemplars(net, inputs, layers="joined", bottom=2, progress=False)
        place = found.save(tmp_path / "found.safetensors")
        again = Exemplars.open(place, net, inputs)
        assert signature(again) == signature(found) and again.of("joined:3").top == found.of("joined:3").top
        with pytest.raises(FileError):
            found.save(place, overwrite=False)
        for suffix in (".png", ".html", ".json"):
            assert found.of("joined:1").save(tmp_path / f"one{suffix}").stat().st_size > 500
            assert found.save(tmp_path / f"all{suffix}").stat().st_size > 500
        assert json.loads((tmp_path / "all.json").read_text())["tables"][0]["name"] == "units"

    def test_classes_of_the_top_pictures(self, tmp_path):
        for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            (tmp_path / name).mkdir()
            for k in range(6):
                Image.new("RGB", (8, 8), tuple(c * (9 - k) // 9 for c in colour)).save(tmp_path / name / f"{k}.png")
        conv = nn.Conv2d(3, 2, 1, bias=False)
        conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None]
        model = pel.wrap(nn.Sequential(conv).eval(), preprocess=pel.preprocess(crop_px=8))
        found = exemplars(model, tmp_path, layers="0", top=5, progress=False)
        assert found.of("0:0").labels == {"red": 5} and found.of("0:1").labels == {"blue": 5}
        assert found.of("0:0").top[0].name == "red/0.png" and "red 5" in found.of("0:0").sentence()
        assert "5 of" in repr(found.of("0:0")) and len(found) == 2 and "2 units" in repr(found)

    def test_units_of_several_layers(self, net, inputs):
        found = exemplars(net, inputs, units=["wide:3", "first:7", "wide:1"], progress=False)
        assert found.channels == {"wide": [3, 1], "first": [7]}
        maps = all_maps(net, inputs, "wide")
        assert found.of("wide:1").top[0].number == oracle.top(maps, 1, 1)[0].image
        assert exemplars(net, inputs, layers=["wide", "last"], units=[2], progress=False).channels == {
            "wide": [2], "last": [2],
        }  # fmt: skip
        assert list(exemplars(net, inputs[:4], progress=False).channels) == ["joined"]

    def test_mistakes_are_told(self, net, inputs, tmp_path):
        found = exemplars(net, inputs[:4], units="wide:3", progress=False)
        for call, error, words in [
            (lambda: found.of("wide:4"), LayerError, "was not watched"),
            (lambda: found.of("wide:99"), LayerError, "from 0 to 7"),
            (lambda: found.quantile("wide:3", 1.2), SettingError, "between 0 and 1"),
            (lambda: found.quantile("wide:3", 0.5, of="x"), SettingError, "positions"),
            (lambda: found.of("wide:3").save("a.txt"), FileError, "png"),
            (lambda: exemplars(net, inputs, layers="nope"), LayerError, "nope"),
            (lambda: exemplars(net, inputs, units=[]), SettingError, "nothing to watch"),
            (lambda: exemplars(net, inputs, top=-1), SettingError, "top is -1"),
            (lambda: exemplars(net, inputs, batch=0), SettingError, "batch is 0"),
            (lambda: exemplars(net, inputs[:0]), ImageError, "empty"),
            (lambda: exemplars(net, tmp_path), ImageError, "no pictures"),
            (lambda: exemplars(net, [np.zeros((8, 8, 3), np.uint8)]), ModelError, "preprocess"),
        ]:
            with pytest.raises(error, match=words):
                call()

    def test_unreadable_pictures_are_passed_over(self, tmp_path):
        for k in range(5):
            Image.new("RGB", (32, 32), (40 * k, 0, 0)).save(tmp_path / f"{k}.png")
        (tmp_path / "0.png").write_bytes(b"not a picture")
        found = exemplars("builtin:photos", tmp_path, progress=False)
        assert found.read == 4 and list(found.data.failed) == [0] and "1 pictures could not" in found.sentence()
        assert all(e.number != 0 for e in found.of(found.units[0]).top)
