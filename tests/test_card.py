"""The card of a unit: every part on one page, and what becomes of parts that can't be made."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import pellucid as pel
from method_cases import undrawn
from pellucid.cli.main import app
from pellucid.core.errors import Cancelled, ImageError, LayerError, SettingError
from pellucid.core.progress import Progress
from pellucid.images import scenes
from pellucid.inside.card import unit_card
from pellucid.inside.card.result import HEADINGS

FEW = ["exemplars", "optimised", "feeders", "ablation"]
QUICK = {"steps": 4, "samples": 4, "top": 3, "progress": False}


@pytest.fixture(scope="module")
def some():
    return [scenes.render(scene).pixels for scene in scenes.stream(12, seed=3)]


@pytest.fixture(scope="module")
def card(some):
    return unit_card("builtin:scenes", "features:7", some, **QUICK)


def test_it_holds_every_part(card):
    assert list(card.findings) == list(HEADINGS) and not card.missing and not card.notes
    assert card.unit.channel == 7 and "features" in card.sentence()


def test_its_parts_are_those_of_the_functions_themselves(card, some):
    alone = pel.ablation("builtin:scenes", "features:7", some[::3], progress=False)
    assert np.allclose(card["ablation"].scores, alone.scores)
    strongest = pel.exemplars("builtin:scenes", some, units=["features:7"], top=3, progress=False).of("features:7")
    assert [e.number for e in card["exemplars"].top] == [e.number for e in strongest.top]


def test_page_picture_and_facts(card, tmp_path):
    page = card.save(tmp_path / "card.html").read_text(encoding="utf-8")
    assert all(heading in page for heading in HEADINGS.values()) and "://" not in page.split("<body>")[0]
    facts = json.loads(card.save(tmp_path / "card.json").read_text(encoding="utf-8"))
    assert set(facts["parts"]) == set(HEADINGS)
    assert card.image().width > 300


def test_a_layer_without_maps_has_a_card_too(some):
    found = unit_card(
        "builtin:scenes", "head:2", some, parts=["exemplars", "optimised", "feeders", "ablation"], **QUICK
    )
    assert {"exemplars", "optimised", "feeders"} <= set(found.findings)
    assert set(found.findings) | set(found.missing) == {"exemplars", "optimised", "feeders", "ablation"}


def test_stopping_keeps_what_is_finished(some):
    stop = Progress(None)
    stop.on_event = lambda done, total, label: stop.cancel() if "features:7" in label or done > 14 else None
    try:
        found = unit_card("builtin:scenes", "features:7", some, **{**QUICK, "steps": 400, "progress": stop})
    except Cancelled:
        pytest.fail("the finished parts were lost")
    assert "exemplars" in found.findings and len(found.findings) < len(HEADINGS) and found.notes


def test_the_network_is_left_as_it_was(some, untouched):
    model = pel.load("builtin:scenes")
    with untouched(model.module), undrawn():
        unit_card(model, "features:7", some, **QUICK)


def test_wrong_units_parts_and_data_are_refused(some):
    with pytest.raises(LayerError, match='did you mean "features"'):
        unit_card("builtin:scenes", "featurs:7", some, **QUICK)
    with pytest.raises(LayerError, match="it has"):
        unit_card("builtin:scenes", "features:70000", some, **QUICK)
    with pytest.raises(SettingError, match="part"):
        unit_card("builtin:scenes", "features:7", some, parts=["colour"], **QUICK)
    with pytest.raises(ImageError):
        unit_card("builtin:scenes", "features:7", [], **QUICK)


def test_the_command_writes_one_card_or_several(tmp_path):
    scenes.make(tmp_path / "scenes", 8, seed=1, progress=False)
    data = str(tmp_path / "scenes" / "images")
    few = ["--data", data, "--steps", "2", "--samples", "2", "--top", "2", "--json"]
    one = CliRunner().invoke(app, ["unit", "builtin:scenes", "features:1", *few, "--out", str(tmp_path / "one.html")])
    assert one.exit_code == 0, one.output
    assert json.loads(one.stdout)[0]["unit"] == "features:1" and (tmp_path / "one.html").exists()
    two = [*few, "--part", "exemplars,field", "--out", str(tmp_path / "cards")]
    both = CliRunner().invoke(app, ["unit", "builtin:scenes", "features:1", "features:2", *two])
    assert both.exit_code == 0, both.output
    assert sorted(p.name for p in (tmp_path / "cards").iterdir()) == ["features_1.html", "features_2.html"]
    again = CliRunner().invoke(app, ["unit", "builtin:scenes", "features:1", *few, "--out", str(tmp_path / "one.html")])
    assert again.exit_code == 1 and "exists" in again.output
