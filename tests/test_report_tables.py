"""Tables, curves and further maps in the report: all of them there, safe, right in numbers, and seen in a browser."""

import base64
import dataclasses
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import pellucid as pel
from pellucid.core.tables import curve, table
from pellucid.render import paint
from pellucid.render.curves import MOST_LINES
from pellucid.render.curves import curve as drawn
from pellucid.render.extras import stills
from pellucid.render.report import report
from pellucid.render.tabular import FIRST_ROWS, MOST_ROWS, MOST_TABLES, cell_text
from render_examples import HOSTILE, explanation, picture, signed_explanation
from table_examples import COVERED, REGIONS, further, told
from test_report_page import Seen, data_of, luminance, shown  # noqa: F401

MINUS = "\N{MINUS SIGN}"


def written(tmp_path, *explanations):
    return report(explanations, tmp_path / "report.html").read_text(encoding="utf-8")


def rows_of(html):
    """The text of every cell, row by row, of every table of cells."""
    return [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row)]
        for part in re.findall(r'<table class="cells">(.*?)</table>', html, re.DOTALL)
        for row in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    ]


# ---- tables -----------------------------------------------------------------------------------------------------


def test_a_table_is_there_in_its_order_and_folded_after_a_dozen_rows(tmp_path):
    html = written(tmp_path, told(REGIONS))
    head, *rows = rows_of(html)
    assert head == list(REGIONS.columns)
    assert rows.pop(FIRST_ROWS) == head, "the folded part has its own head"
    assert rows == [[cell_text(cell) for cell in row] for row in REGIONS.rows]
    assert re.search(r"<details><summary>8 more rows</summary>", html)
    assert REGIONS.note in html
    page = Seen(html)
    assert sum(a.get("class") == "found" for a in page.all("section")) == 2
    assert "n" not in {a.get("class") for a in page.all("th") if a.get("scope") == "row"} - {"n", None}


@pytest.mark.parametrize(("count", "folds"), [(FIRST_ROWS, 0), (FIRST_ROWS + 1, 1), (MOST_ROWS + 3, 1)])
def test_what_is_left_away_is_counted(tmp_path, count, folds):
    html = written(tmp_path, told(table("t", ["k"], [[k] for k in range(count)]), extra_maps={}))
    numbers = [row[0] for row in rows_of(html) if row != ["k"]]
    assert numbers == [str(k) for k in range(min(count, MOST_ROWS))]
    assert len(re.findall(r"<summary>[\d,]+ more rows?</summary>", html)) == folds
    assert ("and 3 more rows, kept in the .pel file" in html) == (count > MOST_ROWS)


def test_empty_tables_and_many_tables(tmp_path):
    html = written(tmp_path, told(*[table(f"t{k}", [], []) for k in range(MOST_TABLES + 2)]))
    assert html.count("no rows") == MOST_TABLES
    assert "and 2 more tables" in html
    html = written(tmp_path, told(table("t", [], [[], []]), curve("c", [], []), curve("d", ["x"], [[1]])))
    assert html.count("no numbers to draw") == 2


def test_numbers_are_written_as_elsewhere():
    assert cell_text(-1234.5) == paint.number(-1234.5)
    assert [cell_text(v) for v in (False, 0, -0.0, float("-inf"), "", 10**20)] == [
        "no", "0", f"{MINUS}0", f"{MINUS}∞", "", "1" + 20 * "0",
    ]  # fmt: skip


def test_the_data_block_holds_the_tables(tmp_path):
    data = data_of(written(tmp_path, told(COVERED), explanation()))
    (found,) = data["maps"][0]["tables"]
    assert (found["name"], found["kind"], found["columns"]) == ("covered", "curve", list(COVERED.columns))
    assert found["rows"][2] == [2, None, 2.0]
    assert found["rows"][3][2] == "nan"
    assert data["maps"][1]["tables"] == []


def test_a_map_alone_shows_them_and_a_map_among_others_folds_them(tmp_path):
    alone, beside = written(tmp_path, told()), written(tmp_path, told(), explanation())
    assert '<article class="map full"' in alone
    assert "<summary>More:" not in alone
    assert '<article class="map full"' not in beside
    assert beside.count("<summary>More: further maps, regions, covered</summary>") == 1
    assert written(tmp_path, told(), explanation(target="another")).count("map full") == 1, "a row of its own"


def test_hostile_tables_stay_text(tmp_path):
    bad = [table(HOSTILE, [HOSTILE, "b"], [[HOSTILE, 1]], HOSTILE), curve(HOSTILE, [HOSTILE] * 3, [[1, 2, 3]], HOSTILE)]
    html = written(tmp_path, told(*bad, extra_maps={HOSTILE: further()["blur"], f"a ({HOSTILE})": further()["mean"]}))
    page = Seen(html)
    assert len(page.all("script")) == 2
    assert all("onerror" not in image for image in page.all("img"))
    assert "<!--" not in html
    for tag, attributes in page.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert page.words.count(HOSTILE) >= 8
    assert data_of(html)["maps"][0]["tables"][0]["rows"] == [[HOSTILE, 1]]


@pytest.mark.parametrize("text", ["\x00\x1b[2J\u202e\ud800", "${title} $data", "x" * 5000])
def test_odd_text_in_tables(tmp_path, text):
    html = written(tmp_path, told(table(text, [text], [[text]], text), curve(text, [text, text], [[0, 1], [1, 2]])))
    outside_data = re.sub(r'id="pellucid-data">.*?</script>', "", html, flags=re.DOTALL)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", outside_data)
    assert data_of(html)["maps"][0]["tables"][0]["rows"] == [[text]]


# ---- curves -----------------------------------------------------------------------------------------------------


def paths(svg, kind):
    return re.findall(rf'<path class="{kind}[^"]*" d="([^"]*)"', svg)


def test_a_curve_lies_where_its_numbers_are():
    (line,) = paths(drawn(curve("c", ["x", "y"], [[0, 10.0], [5, 0.0], [10, -10.0]])), "line")
    assert line == "M0.0 0.0L500.0 200.0L1000.0 400.0"


def test_axes_and_limits_are_printed_and_zero_is_marked():
    svg = drawn(COVERED)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert texts == ["9", "0", f"{MINUS}3"]
    assert re.search(r'class="low">0</span><span class="name">regions covered</span><span class="high">4</span>', svg)
    assert len(paths(svg, "zero")) == 1
    assert re.findall(r"</svg> ([^<]+)</li>", svg) == list(COVERED.columns[1:])
    positive = drawn(curve("c", ["x", "y"], [[0, 1.0], [1, 2.0]]))
    assert paths(positive, "zero") == []
    assert "<figcaption>y</figcaption>" in positive
    assert "legend" not in positive


def test_missing_numbers_break_the_line():
    blur, mean = (line for line in paths(drawn(COVERED), "line") if line.count("M") and "H33" not in line)
    assert [part.count("L") for part in blur.split("M")[1:]] == [1, 1]
    assert [part.count("L") for part in mean.split("M")[1:]] == [2, 0]


def test_lines_differ_in_colour_and_in_dashes():
    rows = [[0.0, *range(MOST_LINES + 2)], [1.0, *range(MOST_LINES + 2)]]
    svg = drawn(curve("c", ["x", *(f"y{k}" for k in range(MOST_LINES + 2))], rows))
    kinds = re.findall(r'<path class="line (c\d d\d)" d="M0', svg)
    assert len(kinds) == len(set(kinds)) == MOST_LINES
    assert all(a[:2] != b[:2] and a[3:] != b[3:] for a, b in pairwise(kinds))
    assert "and 2 more, among the numbers" in svg


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_lines_have_enough_contrast(scheme):
    """Three to one, as WCAG 1.4.11 asks of graphics."""
    from pellucid.render.report import _asset

    css = _asset("report.css")
    both = re.findall(r"\.c(\d) \{ stroke: (#\w{6})", css)
    grounds = dict(zip(("light", "dark"), re.findall(r"--card: (#\w{6})", css), strict=True))
    colours = [colour for _, colour in (both[:4] if scheme == "light" else both[4:])]
    assert len(colours) == 4
    for colour in colours:
        low, high = sorted(float(luminance(c)) for c in (colour, grounds[scheme]))
        assert (high + 0.05) / (low + 0.05) >= 3, colour


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 1.0]],
        [[0, 0.0], [1, 0.0]],
        [[1, 1.7e308], [2, -1.7e308]],
        [[1, 1.7976931348623157e308], [2, 1.7976931348623157e308]],
        [[1, 5e-324], [2, 1e-323]],
        [[2**2000, 1], [2, 10**400]],
        [["a", 1.0], ["b", 2.0]],
        [[True, 1.0], [None, 2.0]],
        [[k, k % 7] for k in range(5000)],
    ],
)
def test_odd_numbers_are_drawn(rows):
    svg = drawn(curve("c", ["x", "y"], rows))
    lines = paths(svg, "line")
    places = [float(n) for line in lines for n in re.findall(r"[\d.]+", line)]
    assert ("no numbers" in svg) == (not lines)
    assert all(0 <= place <= 1000 for place in places)
    assert "nan" not in svg
    assert len(places) <= 2 * 1002


def test_a_long_curve_keeps_its_ends():
    (line,) = paths(drawn(curve("c", ["x", "y"], [[k, k] for k in range(2999)])), "line")
    assert line.startswith("M0.0 400.0")
    assert line.endswith("L1000.0 0.0")


# ---- further maps -----------------------------------------------------------------------------------------------


def test_maps_of_one_unit_share_their_limits_and_sizes_have_one_side():
    blur, mean, disagreement, visits = stills(told())
    largest = max(paint.limit(values.numpy(), 98) for name, values in further().items() if name != "visits (samples)")
    assert blur.limits == mean.limits == (-largest, largest)
    assert disagreement.limits == (0, largest)
    assert visits.limits == (0, paint.limit(further()["visits (samples)"].numpy(), 98))


def test_negative_values_are_never_hidden():
    (only,) = stills(told(extra_maps={"disagreement": -further()["blur"]}))
    assert only.limits[0] < 0
    (other,) = stills(told(signed=False, extra_maps={"blur": further()["mean"]}))
    assert other.limits[0] < 0


def test_further_maps_are_in_the_page_with_name_and_limits(tmp_path):
    html = written(tmp_path, told())
    figures = re.findall(r"<figure>(.*?)</figure>", html[html.index('class="stills"') :], re.DOTALL)
    assert [re.search("<figcaption>(.*?)<", figure)[1] for figure in figures] == list(further())
    ends = [re.findall(r'class="(?:low|high)">(.*?)<', figure) for figure in figures]
    assert ends == [[paint.number(v) for v in still.limits] for still in stills(told())]
    for figure, still in zip(figures, stills(told()), strict=True):
        address = re.search(r'src="data:image/\w+;base64,([^"]+)"', figure)[1]
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(address))).convert("RGB")).astype(int)
        expected = np.asarray(still.picture(300)).astype(int)
        assert seen.shape == expected.shape
        assert np.abs(seen - expected).mean() < 3


def test_many_further_maps_are_counted(tmp_path):
    html = written(tmp_path, told(extra_maps={f"m{k}": further()["blur"] for k in range(30)}))
    assert html[html.index('class="stills"') :].count("<figure>") == 24
    assert "and 6 more, kept in the .pel file" in html


# ---- the sentence -----------------------------------------------------------------------------------------------

OCCLUDED = table(
    "regions", ["region", "name", "size px", "effect blur", "mean"], [[4, "4", 9, 3.0, 2.5], [1, "1", 9, 1.0, 0.5]]
)


def test_the_sentence_tells_what_covering_the_strongest_region_does():
    one = told(OCCLUDED, score=9.25)
    assert "Covering the strongest of 2 regions alone lowers the score from 9.25 to 6.75." in one.sentence()
    only = dataclasses.replace(OCCLUDED, rows=OCCLUDED.rows[:1])
    assert "Covering the region lowers the score from 9.25 to 6.75." in told(only, score=9.25).sentence()


@pytest.mark.parametrize("drop", [None, -1.0, 0.0, float("nan"), float("inf"), "2"])
def test_the_sentence_claims_no_more_than_the_table(drop):
    rows = () if drop is None else ((4, "4", 9, 1.0, drop),)
    assert "Covering" not in told(dataclasses.replace(OCCLUDED, rows=rows)).sentence()
    assert "Covering" not in told(REGIONS, COVERED).sentence()


PERTURBING = "occlusion region_occlusion lime shap unit_shapley rise extremal_perturbation score_cam ablation_cam"


@pytest.mark.parametrize("name", [name for name in PERTURBING.split() if name in pel.METHODS])
def test_effects_of_covering_are_not_called_reactions_to_small_changes(name):
    method = pel.METHODS[name]
    words = signed_explanation(units=method.units, signed=method.signed, title=method.title).sentence()
    assert "small changes" not in words
    assert "as what speaks most for it" in words


# ---- in a browser -----------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("width", [380, 1400])
def test_tables_fit_every_screen(shown, width):  # noqa: F811
    wide = table("wide", ["long " * 8] * 12, [["w" * 90, *range(11)]])
    long = curve("c", ["x" * 60, "y" * 60, "z" * 300], [[0, 1, 2], [1, -1, 3]])
    page = shown(told(REGIONS, COVERED, wide, long), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_text("8 more rows").click()
    assert page.get_by_text("part 19").is_visible()
    plot, levels = (page.locator(f".curve .{kind}").first.bounding_box() for kind in ("plot", "levels"))
    assert levels["x"] + levels["width"] <= plot["x"]
    assert plot["width"] > 200
    assert abs(plot["y"] - levels["y"]) < 1
    columns = page.locator(".cells").first.locator("tbody tr").first.locator("th, td")
    assert columns.nth(1).evaluate("e => getComputedStyle(e).textAlign") == "left"
    assert columns.nth(2).evaluate("e => getComputedStyle(e).textAlign") == "right"


@pytest.mark.browser
def test_lines_are_drawn_in_the_colours_of_the_scheme(shown):  # noqa: F811
    page = shown(told(picture=picture(426, 640)))
    colour = "path => getComputedStyle(path).stroke"
    light = [page.locator(".curve .plot .line").nth(k).evaluate(colour) for k in range(2)]
    page.emulate_media(color_scheme="dark")
    dark = [page.locator(".curve .plot .line").nth(k).evaluate(colour) for k in range(2)]
    assert len({*light, *dark}) == 4


@pytest.mark.browser
def test_the_folded_part_opens(shown):  # noqa: F811
    page = shown(told(), explanation())
    assert not page.get_by_text("part 3", exact=True).is_visible()
    page.get_by_text("More: further maps").click()
    assert page.get_by_text("part 3", exact=True).is_visible()
    assert page.locator(".stills img.picture").count() == 4
