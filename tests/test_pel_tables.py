"""Tables and further maps are kept: in the `.pel`, as CSV, in the folder of a panel; and are never lost in silence."""

import csv
import dataclasses
import io
import math
import os

import numpy as np
import pytest
import torch

from pellucid.core.errors import FileError, SettingError
from pellucid.core.tables import table
from pellucid.render import Explanation, Panel
from pellucid.render import pel as pel_file
from pellucid.render.earlier import is_ours
from pellucid.render.tabular import csv_names, csv_text
from pellucid.store.files import read_tensors, write_tensors
from render_examples import HOSTILE, explanation, signed_explanation
from table_examples import COVERED, REGIONS, further, told

ODD = table(
    f"odd {HOSTILE}",
    ["a", HOSTILE],
    [[0.1 + 0.2, "süß 猫"], [5e-324, None], [-0.0, True], [2**70, ""], [float("inf"), "\ud800"], [-1, "=1+1"]],
    HOSTILE,
)


# ---- .pel -------------------------------------------------------------------------------------------------------


def test_tables_and_further_maps_come_back_bit_for_bit(tmp_path):
    maps = {**further(), f"last {HOSTILE}": torch.full((32, 32), float("nan"))}
    maps["double"] = torch.randn(32, 32, dtype=torch.float64)
    one = told(REGIONS, ODD, table("empty", ["x"], []), extra_maps=maps)
    back = Explanation.open(one.save(tmp_path / "one.pel"))
    assert back.tables == one.tables
    assert [[type(c) for c in row] for row in back.tables[1].rows] == [[type(c) for c in row] for row in ODD.rows]
    assert math.copysign(1, back.tables[1].rows[2][0]) == -1
    assert list(back.extra_maps) == list(maps)
    for name, values in maps.items():
        assert back.extra_maps[name].dtype == values.dtype
        assert back.extra_maps[name].numpy().tobytes() == values.numpy().tobytes()


def test_a_missing_number_in_a_table_comes_back(tmp_path):
    back = Explanation.open(told(COVERED).save(tmp_path / "one.pel"))
    assert str(back.tables) == str((COVERED,))


def test_files_from_before_tables_still_open(tmp_path):
    tensors, facts = read_tensors(explanation().save(tmp_path / "old.pel"))
    assert facts["format"] == 1
    assert {"tables", "extra_maps"}.isdisjoint(facts)
    back = Explanation.open(write_tensors(tmp_path / "older.pel", tensors, facts))
    assert (back.tables, dict(back.extra_maps)) == ((), {})


@pytest.mark.parametrize("facts", [{"tables": (REGIONS,), "extra_maps": {}}, {"tables": (), "extra_maps": further()}])
def test_an_older_pellucid_refuses_what_it_would_lose(tmp_path, monkeypatch, facts):
    path = signed_explanation(**facts).save(tmp_path / "new.pel")
    assert read_tensors(path)[1]["format"] == 2
    monkeypatch.setattr(pel_file, "FORMAT", 1)
    with pytest.raises(FileError, match="install a newer one"):
        Explanation.open(path)


ROW = {"name": "t", "columns": ["a"], "rows": [[1]], "kind": "table", "note": ""}
DAMAGED = {
    "no list": {"tables": 3},
    "missing": {"tables": None},
    "a table of text": {"tables": ["abc"]},
    "no name": {"tables": [{**ROW, "name": ["x"]}]},
    "no note": {"tables": [{**ROW, "note": None}]},
    "no kind": {"tables": [{k: v for k, v in ROW.items() if k != "kind"}]},
    "another kind": {"tables": [{**ROW, "kind": "</script>"}]},
    "kind of lists": {"tables": [{**ROW, "kind": []}]},
    "columns of numbers": {"tables": [{**ROW, "columns": [1]}]},
    "columns of text": {"tables": [{**ROW, "columns": "a"}]},
    "rows of text": {"tables": [{**ROW, "rows": ["a"]}]},
    "rows of numbers": {"tables": [{**ROW, "rows": [1]}]},
    "a short row": {"tables": [{**ROW, "rows": [[1], []]}]},
    "a cell of lists": {"tables": [{**ROW, "rows": [[[1]]]}]},
    "a cell of dicts": {"tables": [{**ROW, "rows": [[{}]]}]},
    "names of numbers": {"extra_maps": [1, 2, 3, 4]},
    "names as one text": {"extra_maps": "abcd"},
    "a name twice": {"extra_maps": ["a", "a"]},
    "more names than maps": {"extra_maps": list("abcdef")},
    "names missing": {"extra_maps": None},
}


def damaged(tmp_path, change, **more):
    tensors, facts = read_tensors(told().save(tmp_path / "good.pel"))
    return write_tensors(tmp_path / "bad.pel", {**tensors, **more}, {**facts, **change})


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_tables_and_names_are_refused(tmp_path, name):
    with pytest.raises(FileError, match=r"bad\.pel is damaged"):
        Explanation.open(damaged(tmp_path, DAMAGED[name]))


@pytest.mark.parametrize(
    "values",
    [torch.zeros(31, 32), torch.zeros(1, 32, 32), torch.zeros(32, 32, dtype=torch.int64), torch.zeros(0)],
)
def test_damaged_further_maps_are_refused(tmp_path, values):
    with pytest.raises(FileError, match=r"bad\.pel is damaged.*blur"):
        Explanation.open(damaged(tmp_path, {}, **{"extra.0": values}))


def test_what_is_not_damaged_opens(tmp_path):
    """The frame of the two tests above: they fail for the damage alone."""
    assert Explanation.open(damaged(tmp_path, {"tables": [ROW]})).tables[0].rows == ((1,),)


# ---- the explanation itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [torch.zeros(32, 31), torch.zeros(3, 32, 32), torch.zeros(32, 32).int()])
def test_further_maps_lie_on_the_grid_of_the_attribution(values):
    with pytest.raises(SettingError, match=r'"blur" has shape .* \(32, 32\)'):
        told(extra_maps={"blur": values})


def test_a_further_map_is_an_explanation_of_its_own():
    one = told()
    blur, count = one.extra("blur"), one.extra("visits (samples)")
    np.testing.assert_array_equal(blur.native, further()["blur"].numpy())
    assert (blur.signed, blur.diverging, blur.units, blur.tables) == (True, True, "logit", ())
    assert (count.diverging, count.units) == (False, "samples")
    assert not one.extra("disagreement").diverging
    assert "blur" in blur.title
    with pytest.raises(SettingError, match='did you mean "blur"'):
        one.extra("blurr")


def test_colours_may_end_where_they_are_told_to():
    one = explanation()
    same, paler = (np.asarray(one.overlay(end=end)) for end in (one.limits()[1], 10 * one.limits()[1]))
    np.testing.assert_array_equal(same, np.asarray(one.overlay()))
    change = [np.abs(found.astype(int) - one.picture.pixels).sum() for found in (same, paler)]
    assert change[1] < change[0] / 3


def test_the_notebook_names_them():
    shown = told(dataclasses.replace(REGIONS, name=HOSTILE), extra_maps={HOSTILE: further()["blur"]})._repr_html_()
    assert "(20 rows); see .tables" in shown
    assert "see .extra(name)" in shown
    assert "<img src=x" not in shown
    assert "see .tables" not in explanation()._repr_html_()


# ---- CSV --------------------------------------------------------------------------------------------------------


def read_csv(text):
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_csv_holds_every_number_to_the_last_digit():
    head, *rows = read_csv(csv_text(REGIONS))
    assert tuple(head) == REGIONS.columns
    assert [tuple(map(float, row[2:])) for row in rows] == [row[2:] for row in REGIONS.rows]
    assert read_csv(csv_text(table("t", ["a"], [[0.1 + 0.2], [-1.5], [None], [-7]])))[1:] == [
        ["0.30000000000000004"], ["-1.5"], [""], ["-7"],
    ]  # fmt: skip


FORMULAS = [
    "=1+1",
    "+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\N{FULLWIDTH EQUALS SIGN}1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_run_is_text(text):
    head, row = read_csv(csv_text(table("t", [text, "b"], [[text, -1]])))
    assert head[0].startswith("'")
    assert row[0].startswith("'")
    assert row[1] == "-1"


def test_other_text_is_kept_and_none_commands_a_terminal():
    kept = 'left "eye", 3 = three; naïve 猫'
    (_, row) = read_csv(csv_text(table("t", ["a", "b"], [[kept, "\x1b[2J"]])))
    assert row == [kept, "\\u001b[2J"]


def test_saved_as_csv_by_the_name_of_the_file(tmp_path):
    one = told()
    assert one.save(tmp_path / "cat-Covered.csv").read_bytes() == csv_text(COVERED).encode()
    assert told(REGIONS).save(tmp_path / "any.csv").read_bytes() == csv_text(REGIONS).encode()
    with pytest.raises(FileError, match=r'2 tables; name the file "regions\.csv", "covered\.csv"'):
        one.save(tmp_path / "cat.csv")
    with pytest.raises(FileError, match="has no tables"):
        explanation().save(tmp_path / "cat.csv")
    with pytest.raises(FileError, match="overwrite=True"):
        one.save(tmp_path / "cat-Covered.csv", overwrite=False)


# ---- the folder of a panel --------------------------------------------------------------------------------------


def names_in(folder):
    return sorted(os.listdir(folder))


def test_a_panel_writes_a_csv_for_each_table(tmp_path):
    paths = Panel([explanation(), told()]).save(tmp_path / "out")
    names = names_in(tmp_path / "out")
    assert names == sorted(path.name for path in paths)
    regions, covered = (next(p for p in paths if p.name.endswith(f".{name}.csv")) for name in ("regions", "covered"))
    assert regions.name.startswith("002-cat-region_occlusion")
    assert regions.read_bytes() == csv_text(REGIONS).encode()
    assert covered.read_bytes() == csv_text(COVERED).encode()
    assert len(names) == 1 + 4 + 2


def test_names_of_tables_do_not_collide_or_leave_the_folder(tmp_path):
    tables = [table(name, ["a"], []) for name in ("../../x", "X", "x", "x-2", "", "猫", HOSTILE, "y" * 300)]
    ends = csv_names(tables)
    assert len({end.casefold() for end in ends}) == len(tables)
    paths = Panel([told(*tables)]).save(tmp_path / "out")
    assert {path.resolve().parent for path in paths} == {(tmp_path / "out").resolve()}
    assert len(names_in(tmp_path / "out")) == 3 + len(tables)


def test_overwriting_replaces_tables_and_takes_away_those_that_are_gone(tmp_path):
    out = tmp_path / "out"
    Panel([told(), told(target="another")]).save(out)
    assert sum(name.endswith(".csv") for name in names_in(out)) == 4
    changed = dataclasses.replace(REGIONS, rows=REGIONS.rows[:3])
    paths = Panel([told(changed)]).save(out, overwrite=True)
    assert names_in(out) == sorted(path.name for path in paths)
    assert next(path for path in paths if path.suffix == ".csv").read_bytes() == csv_text(changed).encode()


def test_tables_of_the_user_are_kept(tmp_path):
    out = tmp_path / "out"
    paths = Panel([told()]).save(out)
    regions = next(path for path in paths if path.name.endswith(".regions.csv"))
    for name in ("mine.csv", "001-mine.csv", "001-mine.regions.csv", f"{regions.name[:-12]}.other.csv"):
        (out / name).write_text("a,b\r\n1,2\r\n")
    before = names_in(out)
    Panel([told()]).save(out, overwrite=True)
    assert names_in(out) == before
    regions.write_bytes(regions.read_bytes() + b"my note,,,,,\r\n")
    assert not is_ours(regions)
    with pytest.raises(FileError, match="was changed since"):
        Panel([told()]).save(out, overwrite=True)
    assert regions.read_bytes().endswith(b"my note,,,,,\r\n")


@pytest.mark.parametrize("content", [b"", b"junk", b"\x00" * 100])
def test_a_csv_beside_a_broken_map_is_the_users(tmp_path, content):
    paths = Panel([told()]).save(tmp_path / "out")
    next(path for path in paths if path.suffix == ".pel").write_bytes(content)
    assert [is_ours(path) for path in paths if path.suffix == ".csv"] == [False, False]


@pytest.mark.parametrize("change", [{"tables": 3}, {"format": "x"}, {"tables": [ROW, 3]}])
def test_a_csv_beside_a_damaged_record_is_the_users(tmp_path, change):
    paths = Panel([told()]).save(tmp_path / "out")
    pel = next(path for path in paths if path.suffix == ".pel")
    tensors, facts = read_tensors(pel)
    write_tensors(pel, tensors, {**facts, **change})
    assert [is_ours(path) for path in paths if path.suffix == ".csv"] == [False, False]


def test_a_table_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.render.panel.csv_text", lambda table: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Panel([told()]).save(tmp_path / "out")
    assert names_in(tmp_path) == []
