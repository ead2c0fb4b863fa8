"""The report: one file, safe against hostile text, right in numbers, and alive in a real browser."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pellucid.core.errors import FileError, SettingError
from pellucid.core.receipt import Check, Receipt
from pellucid.images.decode import Picture
from pellucid.render import Panel, paint
from pellucid.render.datablock import PERCENTILES, grid
from pellucid.render.explanation import Prediction
from pellucid.render.report import _asset, report
from render_examples import HOSTILE, bump, explanation, picture, signed_explanation


class Seen(HTMLParser):
    """Every tag with its attributes, every id, and the text outside of script and style."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.held = [], [], {"script": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        inside = self.tags[-1][0] if self.tags else ""
        self.held.get(inside, self.words).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def data_of(html):
    return json.loads(re.search(r'id="pellucid-data">(.*?)</script>', html, re.DOTALL)[1])


def written(tmp_path, *explanations, **options):
    return report(explanations, tmp_path / "report.html", **options).read_text(encoding="utf-8")


def luminance(colour):
    part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_nothing_is_loaded_from_anywhere(tmp_path):
    html = written(tmp_path, explanation(), signed_explanation())
    page = Seen(html)
    assert not re.search(r"https?://|@import|url\(", html)
    for tag, attributes in page.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in {"src", "href"} & set(attributes):
            assert attributes[name].startswith("data:"), (tag, name)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; script-src 'sha256-")
    assert "unsafe" not in policy


def test_hostile_text_stays_text(tmp_path):
    check = Check(HOSTILE, float("nan"), None, "told", HOSTILE)
    one = explanation(
        picture=picture(name=HOSTILE), title=HOSTILE, target=HOSTILE, layer=HOSTILE, misleads=HOSTILE, source=HOSTILE,
        model=HOSTILE, units=HOSTILE, settings={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE},
        predictions=(Prediction(HOSTILE, 1, float("nan")),),
        receipt=Receipt((check,), (HOSTILE,), (HOSTILE,), {HOSTILE: 1}),
    )  # fmt: skip
    html = written(tmp_path, one, title=HOSTILE)
    plain = Seen(written(tmp_path, explanation()))
    page = Seen(html)
    assert len(page.all("script")) == len(plain.all("script")) == 2
    assert all("onerror" not in image for image in page.all("img"))
    assert "<!--" not in html
    assert data_of(html)["maps"][0]["target"] == HOSTILE
    assert page.words.count(HOSTILE) >= 5


def test_the_data_block_holds_the_heat(tmp_path):
    one = signed_explanation()
    data = data_of(written(tmp_path, one))
    (only,) = data["maps"]
    cells = np.frombuffer(base64.b64decode(only["grid"]["int16"]), "<i2").reshape(32, 32)
    np.testing.assert_allclose(cells * only["grid"]["scale"], one.native, atol=only["grid"]["scale"] / 2 * 1.01)
    assert only["limits"] == [paint.limit(one.native, percentile) for percentile in PERCENTILES]
    assert only["box"] == pytest.approx([0, 15 / 90, 1, 75 / 90])
    assert only["receipt"]["checks"][0]["value"] == 0.012
    assert only["sentence"] == one.sentence()
    assert data["images"][0]["picture"].startswith("data:image/png;base64,")


def test_quantised_grids():
    holes = np.array([[np.nan, np.inf], [-2.0, 1e-9]], np.float32)
    found = grid(holes)
    cells = np.frombuffer(base64.b64decode(found["int16"]), "<i2")
    assert cells.tolist() == [-32768, -32768, -32767, 0]
    assert found["scale"] == 2 / 32767
    assert grid(np.zeros((2, 2), np.float32))["scale"] == 0
    averaged = grid(np.kron(np.arange(4.0).reshape(2, 2), np.ones((600, 600))).astype(np.float32))
    assert (averaged["rows"], averaged["columns"]) == (512, 512)


def test_large_pictures_are_shrunk_and_said(tmp_path):
    large = Picture(np.full((1500, 2100, 3), 99, np.uint8), "large.jpg")
    html = written(tmp_path, explanation(picture=large))
    assert "2100 × 1500 pixels, shown at 1024 × 731" in html
    assert len(html) < 300_000


def test_grouped_by_image_then_target(tmp_path):
    ones = [explanation(), signed_explanation(), explanation(target="logit of 282 tiger cat")]
    ones += [explanation(picture=picture(50, 50, "other.png")), explanation(picture=picture())]
    page = Seen(written(tmp_path, *ones))
    assert sum(a.get("class") == "image" for a in page.all("section")) == 2
    assert sum(a.get("class") == "row" for a in page.all("div")) == 3
    assert len(page.all("article")) == 5


def test_facts_are_in_the_page_without_script(tmp_path):
    one = signed_explanation(seconds=0.1234, receipt=explanation().receipt)
    html = written(tmp_path, one)
    words = " ".join(Seen(html).words)
    low, high = (paint.number(value) for value in one.limits())
    for fact in (
        one.sentence(),
        low,
        high,
        "completeness",
        "0.012",
        "0.05",
        "✓ passed",
        "i told",
        "0.123",
        "LRP (lrp)",
    ):
        assert fact in words
    for fact in ("Selvaraju", "it often marks only one", "exact: convolution", "builtin:photos"):
        assert fact in words
    images = Seen(html).all("img")
    assert all(image["src"].startswith("data:image/") and "alt" in image for image in images)
    assert len(images) == 3


def test_a_failed_receipt_is_told_first(tmp_path):
    failed = Receipt((Check("completeness", 0.4, 0.05, "fail", "off by 40 %"),), ("a step without a rule",))
    html = written(tmp_path, explanation(receipt=failed))
    assert html.index("Do not rely on this map") < html.index("<article")
    assert "✗ failed its check" in html
    assert "a step without a rule" in html


def test_refusals(tmp_path):
    with pytest.raises(SettingError, match="at least one"):
        report([], tmp_path / "a.html")
    path = Panel([explanation()]).report(tmp_path / "a.html")
    with pytest.raises(FileError, match="overwrite=True"):
        report(explanation(), path, overwrite=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(scheme):
    light, dark = re.findall(r":root \{(.*?)\}", _asset("report.css"), re.DOTALL)
    tokens = dict(re.findall(r"--(\w+): (#\w{6})", light if scheme == "light" else dark))
    assert len(tokens) == 9
    for text in ("ink", "quiet", "pass", "warn", "fail", "accent"):
        for ground in ("page", "card"):
            low, high = sorted(float(luminance(tokens[name])) for name in (text, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


@pytest.fixture
def shown(page, tmp_path):
    """Opens a report and fails at the end on any console message, error or request but for the file itself."""
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("data:") else told.append(request.url))

    def show(*explanations, width=1400):
        page.set_viewport_size({"width": width, "height": 900})
        path = report(explanations, tmp_path / "report.html")
        page.goto(path.as_uri())
        page.evaluate(DRAWN)
        told.remove(path.as_uri())
        return page

    yield show
    assert told == []


def canvas(page, number=0):
    address = page.locator(f'[data-map="{number}"] canvas').evaluate("canvas => canvas.toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))).astype(np.int16)


@pytest.mark.browser
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("make", [explanation, signed_explanation])
def test_the_browser_draws_what_python_draws(shown, make, native):
    one = make(picture=picture(426, 640))
    page = shown(one)
    if native:
        page.get_by_label("computed cells").check()
    drawn = canvas(page)
    expected = paint.rgba(one.placed(native=native), one.limits()[1], one.diverging).astype(np.int16)
    seen = expected[..., 3] > 40  # a canvas stores colours times alpha, faint ones lose digits
    assert drawn.shape == expected.shape
    assert seen.mean() > 0.1
    assert (np.abs(drawn - expected).max(-1)[seen] <= 6).mean() > 0.999
    assert (np.abs(drawn - expected)[..., 3] <= 3).mean() > 0.999


@pytest.mark.browser
def test_every_control_changes_the_map(shown):
    page = shown(signed_explanation(picture=picture(213, 320)))
    card, drawings = page.locator("article"), [canvas(page)]

    def low_high():
        return card.locator(".low").inner_text(), card.locator(".high").inner_text()

    whole = low_high()
    for sign in ("positive", "negative", "absolute"):
        page.get_by_label("Sign").select_option(sign)
        drawings.append(canvas(page))
        assert low_high() == (whole[0] if sign == "negative" else "0", "0" if sign == "negative" else whole[1])
    page.get_by_label("Sign").select_option("all")
    page.get_by_label("Colours end at").select_option("largest value")
    drawings.append(canvas(page))
    assert low_high() != whole
    assert card.locator(".clip").inner_text() == "100"
    page.get_by_label("computed cells").check()
    drawings.append(canvas(page))
    page.get_by_label("map alone").check()
    drawings.append(canvas(page))
    assert (drawings[-1][..., 3] == 255).all()
    assert len({drawing.tobytes() for drawing in drawings}) == len(drawings)
    page.get_by_label("map alone").uncheck()
    page.get_by_label("Opacity").focus()
    page.keyboard.press("Home")
    assert page.locator(".stage canvas").evaluate("c => getComputedStyle(c).opacity") == "0"


@pytest.mark.browser
def test_holding_space_shows_the_bare_picture(shown):
    page = shown(explanation())
    visible = "c => getComputedStyle(c).visibility"
    page.keyboard.down("Space")
    assert page.locator(".stage canvas").evaluate(visible) == "hidden"
    page.keyboard.up("Space")
    assert page.locator(".stage canvas").evaluate(visible) == "visible"
    page.get_by_role("button", name="Hold").hover()
    page.mouse.down()
    assert page.locator(".stage canvas").evaluate(visible) == "hidden"
    page.mouse.up()
    assert page.locator(".stage canvas").evaluate(visible) == "visible"


@pytest.mark.browser
def test_pointer_and_arrow_keys_read_value_and_pixel(shown):
    heat = np.zeros((2, 2), np.float32)
    heat[0, 0], heat[1, 1] = 0.25, -0.5
    one = explanation(heat, signed=True)
    page = shown(one, explanation(np.full((2, 2), 3.0)))
    stage = page.locator(".stage").first
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.1)
    here = page.locator(".probe").first.inner_text()
    x, y = map(int, re.match(r"pixel x (\d+), y (\d+): 0\.25 logit$", here).groups())
    assert (x, y) == (pytest.approx(9, abs=1), pytest.approx(6, abs=1))
    assert page.locator(".probe").nth(1).inner_text() == f"pixel x {x}, y {y}: 3 logit"
    page.mouse.move(0, 0)
    stage.focus()
    for _ in range(10):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    assert "\N{MINUS SIGN}0.5 logit" in page.locator("#spoken").inner_text()


@pytest.mark.browser
def test_margins_that_were_not_seen_have_no_value(shown):
    page = shown(signed_explanation())
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] / 2)
    assert page.locator(".probe").inner_text().endswith("no value here")


@pytest.mark.browser
def test_hostile_text_does_not_run(shown):
    page = shown(explanation(title=HOSTILE, target=HOSTILE, picture=picture(name=HOSTILE), units=HOSTILE))
    page.locator(".stage").hover()
    assert page.title().startswith("Explained: ")
    assert page.locator("img[onerror]").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [380, 1400])
def test_no_sideways_scrolling_and_every_control_by_keyboard(shown, width):
    page = shown(explanation(target="t" * 90), signed_explanation(), explanation(units="u" * 80), width=width)
    page.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.locator("h1").click()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"opacity", "sign", "clip", "native", "alone", "bare", "stage"} <= reached


@pytest.mark.browser
@pytest.mark.parametrize("make", [lambda: explanation(np.zeros((8, 8))), lambda: explanation(np.full((8, 8), np.nan))])
def test_degenerate_heat_in_the_browser(shown, make):
    drawn = canvas(shown(make()))
    assert drawn[..., 3].max() in (0, 255)


@pytest.mark.browser
def test_without_script_the_overlay_is_there(page, tmp_path):
    path = report(explanation(bump(8, 0.2, 0.2)), tmp_path / "report.html")
    quiet = page.context.browser.new_context(java_script_enabled=False, offline=True).new_page()
    quiet.goto(path.as_uri())
    assert quiet.locator(".stage img").is_visible()
    assert not quiet.locator(".controls").is_visible()
    assert quiet.locator(".ends").inner_text().split() == ["0", paint.number(explanation().limits()[1])]
