"""The ledger as lines and as a table, and the class bars of relevance."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pellucid as pel
from method_cases import pooled, random_input
from pellucid.cli.main import app
from pellucid.core.errors import MethodError, ModelError, SettingError
from pellucid.render.bars import bars_of

CLOSES = 1e-9


def test_every_line_closes_and_the_next_one_receives_what_was_sent() -> None:
    model, x = pooled(), random_input(2, 3, 8, 8)
    lines = pel.books(model, x, composite="epsilon_alpha2_beta1", target=1)
    start = float(model(x)[:, 1].sum().detach())
    assert lines[0].arrived == pytest.approx(start)
    assert all(line.closing < CLOSES for line in lines)
    for line, following in pairwise(lines):  # a chain: nothing branches
        assert following.arrived == pytest.approx(line.sent, abs=CLOSES)
    kept = sum(sum(line.kept.values()) for line in lines)
    assert lines[-1].sent + kept == pytest.approx(start)
    assert kept != 0
    found = pel.attribute(model, x, methods=pel.lrp(composite="epsilon_alpha2_beta1"), targets=1)[0]
    assert lines[-1].sent == pytest.approx(float(found.attribution.sum()))


def test_books_say_what_is_missing() -> None:
    with pytest.raises(ModelError, match="input size"):
        pel.books(pooled())
    with pytest.raises(SettingError, match="no composite"):
        pel.books(pooled(), random_input(1, 3, 8, 8), composite="epsilom")

    class Sine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sin()

    with pytest.raises(MethodError, match="sin"):
        pel.books(Sine(), random_input(1, 3, 4, 4))
    assert {line.rule for line in pel.books(Sine(), random_input(1, 3, 4, 4), unknown="generic")} == {
        "generic",
        "route",
    }


def test_the_doctor_prints_the_ledger() -> None:
    asked = ["doctor", "builtin:scenes-batchnorm", "--relevance", "epsilon_plus"]
    told = CliRunner().invoke(app, asked, terminal_width=200)
    assert told.exit_code == 0 and "z_plus" in told.output and "stayed" in told.output
    rows = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert {"operation", "layer", "rule", "arrived", "sent", "kept", "closing", "size"} <= set(rows[0])
    assert sum(row["rule"] == "merged" for row in rows) == 6
    wrong = CliRunner().invoke(app, [*asked[:-1], "epsilom"])
    assert wrong.exit_code == 1 and "no composite" in wrong.output


def test_bars_are_the_sums_of_what_speaks_for_and_against(tmp_path) -> None:
    picture = pel.scenes.render(pel.scenes.compose(5)).pixels
    panel = pel.explain(
        "builtin:scenes", picture, methods=["lrp", "saliency", pel.lrp(composite="epsilon")], targets="top3"
    )
    bars = bars_of(panel)
    assert list(bars) == ["LRP (epsilon_plus)", "LRP (epsilon)"]
    ours = [one for one in panel if one.settings.get("composite") == "epsilon"]
    for bar, one in zip(bars["LRP (epsilon)"], ours, strict=True):
        assert bar.target == one.target
        assert bar.warm == pytest.approx(float(one.attribution[one.attribution > 0].sum()))
        assert bar.cold == pytest.approx(float(one.attribution[one.attribution < 0].sum()))
        assert bar.warm > 0 > bar.cold
    drawn = np.asarray(panel.bars())
    assert (drawn != 255).any()
    page = panel.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("what speaks for each target") == 2
    with pytest.raises(SettingError, match="bars compare targets"):
        pel.explain("builtin:scenes", picture, methods=["lrp", "saliency"], targets="top1").bars()
