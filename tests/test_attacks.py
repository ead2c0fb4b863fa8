"""Hostile files: every one is refused in our own words, runs nothing, and costs little time and memory."""

import json
import pickle
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import pellucid as pel
from cli_runs import drawn, pellucid, printed, refused, snapshot
from pellucid.core.errors import FileError, ModelError
from pellucid.core.receipt import Receipt
from pellucid.models.checkpoints import read_state
from pellucid.render import Prediction
from pellucid.render.report import report
from pellucid.render.visible import visible
from pellucid.store.files import read_tensors, write_tensors
from render_examples import HOSTILE, explanation, picture

OWN = ("--model", "user_networks:plain", "--preprocess", "prep.json")
TERMINAL = "\x1b[2J\x1b]0;owned\x07\rsafe.png\u202egnp.exe\u2066"
LIMIT_BYTES = 2**31


@pytest.fixture
def cat(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prep.json").write_text(json.dumps({"resize_px": [32, 32]}))
    return drawn(tmp_path / "cat.png")


@pytest.fixture
def quickly():
    """Fails the test if it took long."""
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 30


# ---- hostile text -----------------------------------------------------------------------------------------------


def test_text_that_could_act_is_shown_by_its_code():
    shown = visible(TERMINAL + "\u2029\u061c\x9b\ud800")
    assert shown.isprintable()
    assert shown.startswith("\\u001b[2J\\u001b]0;owned\\u0007\\u000dsafe.png\\u202egnp.exe\\u2066")
    plain = "naïve 猫 🐈\u200d⬛ می\u200cخواهم\tx\ny"
    assert visible(plain) == plain


def test_no_text_of_others_commands_the_terminal(cat):
    path = drawn(cat.parent / f"{TERMINAL}.png")
    (cat.parent / "labels.json").write_text(json.dumps([TERMINAL, "[red]b[/red]", "[/]", "[link=x]d", "e"]))
    for words in (("-t", "0"), ("-t", "0", "-o", "out"), ("-t", "9"), ("-t", TERMINAL + "x"), ("-l", TERMINAL)):
        result = pellucid("explain", path, *OWN, "--labels", "labels.json", *words)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result.stdout + result.stderr)
    for words in (("layers", TERMINAL), ("doctor", TERMINAL), ("methods", TERMINAL)):
        assert "\x1b" not in refused(*words)
    text = pellucid("explain", cat, *OWN, "--labels", "labels.json", "-t", "1").stdout
    assert "[red]b[/red]" in re.sub(r"\s+", "", text)
    assert printed("explain", cat, *OWN, "--labels", "labels.json", "-t", "0")[0]["target"] == f"logit of 0 {TERMINAL}"


@pytest.mark.parametrize(
    "text", [HOSTILE, "\"'><script>alert(1)</script>", TERMINAL, "\x00\x0c\ud800", "${title} $data"]
)
def test_hostile_names_and_labels_stay_text_in_the_report(tmp_path, text):
    one = explanation(
        picture=picture(name=text), target=f"logit of 0 {text}", predictions=(Prediction(text, 0, 0.5),), model=text
    )
    html = report(one, tmp_path / "r.html").read_text(encoding="utf-8")
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    assert json.loads(data)["images"][0]["predictions"][0]["label"] == text
    assert html.count("<script") == 2
    assert "alert(1)" not in script
    outside_data = html.replace(data, "")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", outside_data)
    assert "<img src=x" not in outside_data


def test_hostile_names_do_not_leave_the_folder(cat):
    one = explanation(picture=picture(name="../../../etc/passwd"), target="/x/../../y", method="../z")
    before = snapshot(cat.parent)
    paths = pel.Panel([one]).save("out")
    assert {path.resolve().parent for path in paths} == {(cat.parent / "out").resolve()}
    assert {name for name in snapshot(cat.parent) if not name.startswith("out")} == set(before)


# ---- .pel files -------------------------------------------------------------------------------------------------


def raw(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


RAW = {
    "empty": b"",
    "short": b"\x01\x02",
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "header past the end": raw({}, length=10_000),
    "deep header": raw(b"[" * 100_000),
    "nan in the header": raw(b'{"a": NaN}'),
    "wrong length": raw({"attribution": tensor(shape=(9,))}, b"1234"),
    "overflowing shape": raw({"attribution": tensor(shape=(2**62, 4))}, b"1234"),
    "negative shape": raw({"attribution": tensor(shape=(-1,))}, b"1234"),
    "overlap": raw({"attribution": tensor(), "pixels": tensor()}, b"1234"),
    "unknown type": raw({"attribution": tensor("F1024")}, b"1234"),
    "metadata of numbers": raw({"__metadata__": {"pellucid": 3}}),
    "no metadata": raw({"attribution": tensor()}, b"1234"),
    "deep metadata": raw({"__metadata__": {"pellucid": "[" * 100_000}}),
    "text": b"hello, I am no map",
    "pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("name", RAW)
def test_a_hostile_container_is_refused(tmp_path, name, quickly):
    path = tmp_path / "a.pel"
    path.write_bytes(RAW[name])
    with pytest.raises(FileError) as told:
        pel.open(path)
    assert "a.pel" in str(told.value)
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(RAW[name])
    try:
        state, _ = read_state(weights)
        assert all(t.numel() <= 4 for t in state.values())
    except ModelError as error:
        assert "a.safetensors" in str(error)


CHECK = {"name": "n", "value": 1.0, "bound": None, "verdict": "told", "text": "t"}
FACTS = {
    "infinite class": {"predictions": [{"label": "a", "index": float("inf"), "probability": 1.0}]},
    "no class": {"predictions": [{"label": "a", "index": None, "probability": 1.0}]},
    "predictions that are none": {"predictions": 7},
    "infinite place": {"placement": {"original_px": [float("inf"), 1], "input_px": [1, 1], "box": [0, 0, 1, 1]}},
    "place without numbers": {"placement": {"original_px": [60, 90], "input_px": [8, 8], "box": [float("nan")] * 4}},
    "another size": {"placement": {"original_px": [10**9, 10**9], "input_px": [8, 8], "box": [0, 0, 1, 1]}},
    "check without words": {"receipt": {**Receipt().to_json(), "checks": [{**CHECK, "name": ["x"]}]}},
    "check of no verdict": {"receipt": {**Receipt().to_json(), "checks": [{**CHECK, "verdict": '"><script>'}]}},
    "check of no number": {"receipt": {**Receipt().to_json(), "checks": [{**CHECK, "value": "1"}]}},
    "check of lists": {"receipt": {**Receipt().to_json(), "checks": [{**CHECK, "verdict": []}]}},
    "check of more": {"receipt": {**Receipt().to_json(), "checks": [{**CHECK, "evil": 1}]}},
    "operations uncounted": {"receipt": {**Receipt().to_json(), "operations": {"a": "many"}}},
    "notes that are none": {"receipt": {**Receipt().to_json(), "notes": [None, 3]}},
    "no receipt": {"receipt": None},
    "settings that are none": {"settings": 3},
    "another site": {"site": "</script>"},
    "another reduce": {"reduce": "__import__"},
    "later format": {"format": 10**9},
    "no format": {"format": "1"},
    "score in words": {"score": "high"},
}


def altered(tmp_path, **change):
    tensors, facts = read_tensors(explanation().save(tmp_path / "good.pel"))
    return write_tensors(tmp_path / "bad.pel", tensors, {**facts, **change})


@pytest.mark.parametrize("name", FACTS)
def test_hostile_facts_are_refused(tmp_path, name):
    with pytest.raises(FileError, match=r"bad\.pel"):
        pel.open(altered(tmp_path, **FACTS[name]))


@pytest.mark.parametrize(
    "change",
    [
        {"score": float("nan"), "seconds": float("inf")},
        {"settings": {"a": {"b": [float("nan"), HOSTILE, None]}}, "versions": {HOSTILE: [1]}},
        {"picture": {"name": "../../" + HOSTILE, "notes": HOSTILE}},
        {"predictions": [{"label": ["x"], "index": -7, "probability": float("nan")}] * 50},
        {"layer": {"a": 1}, "layer_chosen": "yes", "method": ["m"], "title": None},
        {"receipt": {"checks": [{**CHECK, "value": float("nan"), "bound": float("-inf")}], "approximate": [],
                     "notes": [HOSTILE], "operations": {}}},
    ],
)  # fmt: skip
def test_odd_facts_that_pass_can_be_shown(tmp_path, change):
    one = pel.open(altered(tmp_path, **change))
    assert one.sentence()
    assert repr(one)
    html = one._repr_html_()
    path = pel.Panel([one]).save(tmp_path / "out")[0]
    assert "<img src=x" not in html
    assert path.read_text().count("<script") == 2


@pytest.mark.parametrize(
    ("attribution", "pixels"),
    [
        (torch.zeros(8, 8, dtype=torch.int64), None),
        (torch.zeros(0, 8), None),
        (torch.zeros(1, 1, 8, 8), None),
        (torch.zeros(()), None),
        (None, torch.zeros(60, 90, 4, dtype=torch.uint8)),
        (None, torch.zeros(0, 90, 3, dtype=torch.uint8)),
        (None, torch.zeros(60, 90, 3)),
    ],
)
def test_hostile_tensors_are_refused(tmp_path, attribution, pixels):
    tensors, facts = read_tensors(explanation().save(tmp_path / "good.pel"))
    tensors |= {} if attribution is None else {"attribution": attribution}
    tensors |= {} if pixels is None else {"pixels": pixels}
    with pytest.raises(FileError):
        pel.open(write_tensors(tmp_path / "bad.pel", tensors, facts))


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 1e38, -1e38, 1e-45])
def test_maps_of_no_number_are_drawn_and_told(tmp_path, fill):
    one = pel.open(explanation(np.full((8, 8), fill, np.float32)).save(tmp_path / "a.pel"))
    assert one.sentence()
    assert pel.Panel([one]).save(tmp_path / "out")


# ---- pictures ---------------------------------------------------------------------------------------------------


def png(width, height, body=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def test_bombs_and_a_good_picture(cat, quickly):
    bombs = {
        "giant.png": png(100_000, 100_000),
        "long.png": png(2**31 - 1, 1),
        "hollow.png": png(9_000, 9_000),
        "zlib.png": png(10, 10, b"\0" * 50_000_000),
    }
    for name, content in bombs.items():
        (cat.parent / name).write_bytes(content)
    result = pellucid("explain", *bombs, cat, "--json")
    assert result.exit_code == 1
    assert "cat.png" in [one["picture"] for one in json.loads(result.stdout)]
    assert "Traceback" not in result.stderr
    for name in ("giant.png", "long.png", "hollow.png"):
        assert f'"{name}"' in result.stderr


def test_a_file_without_end_or_content_is_refused(cat, quickly):
    with open("sparse.png", "wb") as file:
        file.truncate(2**40)
    assert "larger than" in refused("explain", "sparse.png")
    if Path("/dev/zero").exists():
        assert "error" in refused("explain", "/dev/zero")
    assert "is empty" in refused("explain", "/dev/null")
