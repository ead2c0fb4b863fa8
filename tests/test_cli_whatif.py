"""`pellucid whatif`: regions are covered, the answer and how far the paint decides it are told and written."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

import pellucid as pel
from cli_runs import drawn, pellucid, printed, refused
from pellucid.cli.asking import METHOD, TOP, disagreement
from pellucid.core.receipt import Check, Receipt
from pellucid.core.tables import table
from table_examples import told

QUICK = ("--cover", "grid:3x4", "--fill", "blur,mean")


@pytest.fixture
def cat(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return drawn(tmp_path / "cat.png")


def joined(text):
    return " ".join(text.split())


def test_the_regions_are_told_strongest_first(cat):
    result = pellucid("whatif", cat, *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    text = joined(result.stdout)
    for words in (
        "cat.png:",
        "region where effect blur effect mean mean disagreement",
        "and 2 more;",
        "the fills differ",
    ):
        assert words in text
    lines = [line.split() for line in result.stdout.splitlines() if re.match(r"\d+ +row \d+, column \d+", line)]
    assert len(lines) == TOP
    means = [float(line[-2].replace("\N{MINUS SIGN}", "-")) for line in lines]
    assert means == sorted(means, reverse=True)


def test_the_numbers_are_those_of_the_library(cat):
    (facts,) = printed("whatif", cat, *QUICK)
    one = pel.explain("builtin:photos", cat, methods=METHOD, regions="grid:3x4", fill="blur+mean", progress=False)
    assert [found["name"] for found in facts["tables"]] == ["regions", "covered"]
    assert facts["tables"] == json.loads(json.dumps([found.to_json() for found in one.tables]))
    assert facts["settings"]["pairs"] == 0
    assert facts["disagreement"] == disagreement(one)
    assert (facts["report"], facts["csv"]) == (None, [])


def test_where_a_region_lies_is_on_the_picture(cat):
    """On a 3 x 4 grid of a picture of 40 x 60 pixels, rows of 13 and columns of 15 pixels."""
    text = pellucid("whatif", cat, *QUICK).stdout
    places = {
        int(n): (int(y), int(x)) for n, y, x in re.findall(r"^(\d+) +row (\d+), column (\d+)", text, re.MULTILINE)
    }
    assert len(places) == TOP
    for region, (row, column) in places.items():
        assert abs(row - (region // 4 + 0.5) * 40 / 3) <= 1.5, region
        assert abs(column - (region % 4 + 0.5) * 15) <= 1.5, region


def test_names_are_read_in_any_case_and_commas_join_fills(cat):
    plain, shouted = (printed("whatif", cat, "-c", cover, "-f", fill)[0] for cover, fill in (
        ("slic:12", "blur,mean"), ("SLIC:12", "Blur,MEAN"),
    ))  # fmt: skip
    assert plain["tables"] == shouted["tables"]
    joined_by_plus = printed("whatif", cat, "-c", "slic:12", "-f", "blur+mean")[0]
    assert joined_by_plus["tables"] == plain["tables"]
    many = printed("whatif", cat, "-c", "grid:4")[0]
    assert many["settings"]["fill"] == pel.METHODS[METHOD].values["fill"]


def test_pairs_are_tried_when_they_are_asked_for(cat):
    (facts,) = printed("whatif", cat, *QUICK, "--pairs")
    regions, pairs, covered = facts["tables"]
    assert (pairs["name"], covered["kind"]) == ("pairs", "curve")
    strongest = {row[0] for row in regions["rows"][:8]}
    assert {number for row in pairs["rows"] for number in row[:2]} == strongest
    assert len(pairs["rows"]) == 28
    assert "region a region b together sum interaction" in joined(pellucid("whatif", cat, *QUICK, "--pairs").stdout)


def test_a_mask_of_the_users_is_one_region(cat):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 15:30] = 255
    Image.fromarray(mask).save("Mask.png")
    text = joined(pellucid("whatif", cat, "--cover", "Mask.png", "--fill", "blur,mean").stdout)
    assert re.search(r"0 mask row 1[3-6], column 2[1-4]", text)
    assert "covering it " in text
    assert "the score by" in text
    assert "pairs need two regions" in refused("whatif", cat, "--cover", "Mask.png", "--pairs")


def test_the_folder_holds_report_maps_and_tables(cat):
    result = pellucid("whatif", cat, *QUICK, "--out", "out")
    assert result.exit_code == 0
    out = cat.parent / "out"
    kinds = sorted(path.suffix for path in out.iterdir())
    assert kinds == [".csv", ".csv", ".html", ".pel", ".png"]
    for path in out.iterdir():
        if path.suffix in (".html", ".csv"):
            assert str(path) in joined(result.stdout)
    (regions,) = out.glob("*.regions.csv")
    head, *rows = csv.reader(regions.open(encoding="utf-8", newline=""))
    (facts,) = printed("whatif", cat, *QUICK, "--out", "out", "--overwrite")
    assert head == facts["tables"][0]["columns"]
    assert [float(row[3]) for row in rows] == [row[3] for row in facts["tables"][0]["rows"]]
    assert sorted(facts["csv"]) == sorted(str(path) for path in out.glob("*.csv"))
    assert facts["report"] == str(out / "report.html")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Further maps" in page
    assert "covered" in page


def test_a_folder_in_use_is_refused_and_overwriting_keeps_what_is_not_ours(cat):
    assert pellucid("whatif", cat, *QUICK, "--pairs", "--out", "out", "--quiet").exit_code == 0
    assert "not empty" in refused("whatif", cat, *QUICK, "--out", "out")
    (cat.parent / "out" / "mine.csv").write_text("a")
    assert len(list((cat.parent / "out").glob("*.csv"))) == 4
    assert pellucid("whatif", cat, *QUICK, "--out", "out", "--overwrite", "-q").exit_code == 0
    assert sorted(path.name.split(".")[-2] for path in (cat.parent / "out").glob("*.csv")) == [
        "covered", "mine", "regions",
    ]  # fmt: skip


def test_several_pictures_and_targets_and_one_that_fails(cat):
    other = drawn(cat.parent / "other.png", 60, 40)
    found = printed("whatif", cat, other, *QUICK, "--target", "0", "--target", "1")
    assert [(one["picture"], one["target"].split()[2]) for one in found] == [
        ("cat.png", "0"), ("cat.png", "1"), ("other.png", "0"), ("other.png", "1"),
    ]  # fmt: skip
    result = pellucid("whatif", cat, "nothing.png", *QUICK, "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing.png" in result.stderr


@pytest.mark.parametrize(
    ("words", "told_words"),
    [
        (("--cover", "slik"), 'did you mean "slic"'),
        (("--cover", "no.png"), 'there is no file "no.png"'),
        (("--cover", "cat.txt"), "can't be read"),
        (("--cover", "slic:0"), "at least 1"),
        (("--cover", "grid:x"), "after the colon stands a whole number"),
        (("--cover", "grid:99999999"), "ask for fewer"),
        (("--cover", "cat.png"), "colours"),
        (("--fill", "blurr"), 'did you mean "blur"'),
        (("--fill", "blur,blur"), "twice"),
        (("--fill", "donor:no.png"), 'there is no file "no.png"'),
        (("--target", "elephant"), "elephant"),
        (("--model", "no:such"), 'no module "no"'),
        (("--out", "cat.png"), "is no folder"),
    ],
)
def test_refusals_are_one_sentence(cat, words, told_words):
    (cat.parent / "cat.txt").write_text("1")
    assert told_words in refused("whatif", cat, *words)


@pytest.mark.parametrize("words", [(), ("cat.png", "--seed", "-1"), ("cat.png", "--pairs", "--bogus")])
def test_wrong_usage(words):
    assert pellucid("whatif", *words).exit_code == 2


def test_no_region_name_commands_the_terminal(cat):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 1
    Image.fromarray(labels + 1).save("labels.png")
    (cat.parent / "names.csv").write_text("index,name\n1,[red]=1+1\x1b[2J\n2,right\n")
    result = pellucid("whatif", cat, "-c", "labels.png:names.csv", "-f", "blur,mean", "-o", "out")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "[red]=1+1" in re.sub(r"\s+", "", result.stdout)
    (regions,) = (cat.parent / "out").glob("*.regions.csv")
    assert "\x1b" not in regions.read_text(encoding="utf-8")


def test_layers_are_switched_off_when_they_are_asked_for(cat):
    words = ("whatif", cat, *QUICK, "--layer", "stage1,stage2", "-t", "cat")
    (facts,) = printed(*words)
    model = pel.load("builtin:photos")
    x = model.preprocess.normalise(model.preprocess(pel.decode(cat)).pixels[None])
    found = pel.layer_shapley(model, x, layers=["stage1", "stage2"], target="cat", progress=False)
    assert facts["layers"] == json.loads(json.dumps(found.tables[0].to_json()))
    assert re.search(r"stage1 .*stage2|stage2 .*stage1", joined(pellucid(*words).stdout))
    assert "give 2 to 12" in refused("whatif", cat, *QUICK, "--layer", "stage1")
    assert "stage2" in refused("whatif", cat, *QUICK, "--layer", "stage1,stage3x")


# ---- the words about the paint ----------------------------------------------------------------------------------


def occluded(*rows, verdict="pass", share=0.25):
    columns = ["region", "name", "size px", "effect blur", "effect mean", "effect grey", "mean", "disagreement"]
    check = Check("disagreement between fills", share, 0.5, verdict, "…")
    found = table("regions", columns, [[*row, 0.0, 0.0] for row in rows])
    return told(found, receipt=Receipt((check,)))


SAME = ([3, "3", 9, 2.0, 1.0, 1.0], [4, "left eye", 9, 1.0, 0.5, 0.5])


def test_fills_that_agree():
    assert (
        disagreement(occluded(*SAME)) == "region 3 counts most under every fill; the fills differ by ± 25 % of the heat"
    )


def test_fills_that_differ_in_size():
    words = disagreement(occluded(*SAME, verdict="warn", share=0.6))
    assert words.startswith("the answer depends on the paint: region 3 counts most under every fill")


def test_fills_that_name_another_region():
    rows = ([3, "3", 9, 2.0, 0.2, -1.0], [4, "left eye", 9, 1.0, 0.5, -0.5])
    assert disagreement(occluded(*rows)).startswith(
        "the answer depends on the paint: region 3 counts most under blur; region 4 (left eye) counts most under mean; "
        "no region counts most under grey"
    )


def test_one_region_and_one_fill():
    words = disagreement(occluded([0, "mask", 9, 2.0, 1.0, -0.5], verdict="warn", share=75.0))
    assert words == (
        "the answer depends on the paint: covering it lowers the score by 2 under blur, lowers the score by 1 under "
        "mean, raises the score by 0.5 under grey; the fills differ by more than the heat itself"
    )
    one = occluded(*SAME)
    single = table("regions", ["region", "name", "size px", "effect blur", "mean"], [[3, "3", 9, 2.0, 2.0]])
    assert "one fill only" in disagreement(dataclasses.replace(one, tables=(single,)))
