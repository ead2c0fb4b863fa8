"""Hostile labels, preprocessing, weights and networks: refused in our own words, run nothing, cost little."""

import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import pellucid as pel
import user_networks
from cli_runs import environment, refused, snapshot
from pellucid.core.errors import ModelError
from pellucid.models.archive_safety import refuse_inflated
from pellucid.models.checkpoints import read_state
from pellucid.models.model import MAX_TEXT_BYTES, read_json, read_labels
from test_attacks import OWN, RAW, cat, png, quickly

__all__ = ["cat", "quickly"]
LIMIT_BYTES = 2**31

# ---- labels and preprocessing -----------------------------------------------------------------------------------


def test_a_huge_list_of_labels_is_refused(cat, quickly):
    for name in ("labels.txt", "labels.json", "prep2.json"):
        with open(name, "wb") as file:
            file.truncate(2**30)
    for words in (("--labels", "labels.txt"), ("--labels", "labels.json"), ("--preprocess", "prep2.json")):
        assert f"{MAX_TEXT_BYTES:,}" in refused("explain", cat, "-m", "user_networks:plain", *words)
    with pytest.raises(ModelError, match="larger"):
        read_json(Path("/dev/zero"))


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000, "{" * 1000, "\x00", "\ufeff", '{"a":1', '"\\ud800'])
def test_json_that_is_none_is_refused(cat, text, quickly):
    (cat.parent / "bad.json").write_text(text)
    with pytest.raises(ModelError, match=r"bad\.json"):
        read_labels("bad.json")
    assert "bad.json" in refused("explain", cat, "-m", "user_networks:plain", "--preprocess", "bad.json")


@pytest.mark.parametrize(
    "settings",
    [
        {"resize_px": [100_000, 100_000]},
        {"resize_px": 10**18},
        {"crop_px": 10**9},
        {"resize_px": -1},
        {"resize_px": 1e400},
        {"resize_px": [1, 2, 3]},
        {"resize_px": {"h": 1}},
        {"resize_px": True},
        {"mean": [float("nan")] * 3},
        {"mean": [0.5] * 10_000},
        {"mean": [10**400, 0, 0]},
        {"std": [0, 0, 0]},
        {"std": [1e-400, 1, 1]},
        {"channels": 10**9},
        {"crop_fraction": 1e-400},
        {"crop_fraction": [0.5]},
        {"interpolation": "__import__('os')"},
        {"interpolation": ["bilinear"]},
        {"__class__": 1},
        [1],
        "x",
        None,
        7,
    ],
)
def test_a_preprocessing_out_of_bounds_is_refused(cat, settings, quickly):
    (cat.parent / "bad.json").write_text(json.dumps(settings))
    told = refused("explain", cat, "-m", "user_networks:plain", "--preprocess", "bad.json")
    assert "bad.json" in told or "preprocess" in told


# ---- weights and networks ---------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return exec, ("open('owned', 'w').write('x')",)


def test_code_in_weights_is_refused_and_not_run(cat):
    for name, content in {"a.pt": Evil(), "b.pth": {"state_dict": {"head.bias": Evil()}}}.items():
        torch.save(content, name)
    with open("c.pt", "wb") as file:
        pickle.dump(Evil(), file)
    torch.save(user_networks.Plain(), "d.pt")
    for name in ("a.pt", "b.pth", "c.pt", "d.pt"):
        assert name in refused("explain", cat, *OWN, "--weights", name)
        assert name in refused("doctor", "user_networks:plain", "--weights", name, "--input", "3x32x32")
        assert not (cat.parent / "owned").exists()
    for name in ("net.pkl", "w.pt"):
        assert "error" in refused("explain", cat, "--model", name)


def test_a_network_is_only_imported_where_the_user_names_one(cat):
    (cat.parent / "trap.py").write_text("open('owned', 'w').write('x')\n")
    for spec in ("trap", "trap.py", "trap:", ":trap", "trap:a b", "../trap:build", "trap;x:y"):
        refused("explain", cat, "--model", spec)
        assert not (cat.parent / "owned").exists()


GARBAGE = {
    "empty": b"",
    "stop": b"\x80\x02.",
    "append to nothing": b"\x80\x02a.",
    "a number": b"\x80\x02K\x01.",
    "marks": b"\x80\x02" + b"(" * 100_000 + b".",
    "empty archive": b"PK\x05\x06" + b"\0" * 18,
    "broken archive": b"PK\x03\x04" + b"\xff" * 200 + b"PK\x05\x06" + b"\1" * 18,
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("ending", [".pt", ".pt2"])
def test_garbage_is_refused(tmp_path, name, ending, quickly):
    path = tmp_path / f"w{ending}"
    path.write_bytes(GARBAGE[name])
    with pytest.raises(ModelError, match=r"w\.pt"):
        read_state(path) if ending == ".pt" else pel.load(str(path))


def repacked(source, path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for part in old.infolist():
            name, content = change(part.filename, old.read(part))
            new.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A small checkpoint and a small exported network."""
    folder = tmp_path_factory.mktemp("archives")
    net = nn.Conv2d(3, 2, 3).eval()
    torch.save({"weight": torch.zeros(200)}, folder / "a.pt")
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), folder / "a.pt2")
    return folder


def test_an_archive_that_inflates_is_refused_unopened(archives, tmp_path, quickly):
    def inflate(name, content):
        return name, b"\0" * 300_000_000 if re.search(r"data/0|weight_0", name) else content

    for name, load in (("a.pt", read_state), ("a.pt2", lambda path: pel.load(str(path)))):
        bomb = repacked(archives / name, tmp_path / name, inflate, zipfile.ZIP_DEFLATED)
        assert bomb.stat().st_size < 10_000_000
        with pytest.raises(ModelError, match="refused unopened"):
            load(bomb)
        refuse_inflated(archives / name)


def test_an_archive_can_not_reach_outside(archives, tmp_path):
    for place in ("../../slipped", "/tmp/slipped", "weights/../../../../slipped"):
        path = repacked(
            archives / "a.pt2",
            tmp_path / "s.pt2",
            lambda name, content, to=place: (name.replace("weight_0", to), content),
        )
        before = snapshot(tmp_path)
        with pytest.raises(ModelError, match=r"s\.pt2"):
            pel.load(str(path))
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("depth", [100, 900, 5_000, 50_000])
def test_a_deep_graph_is_refused(archives, tmp_path, depth, quickly):
    def deep(name, content):
        return name, b"[" * depth + b"]" * depth if name.endswith("models/model.json") else content

    with pytest.raises(ModelError, match=r"d\.pt2"):
        pel.load(str(repacked(archives / "a.pt2", tmp_path / "d.pt2", deep)))


def test_absurd_shapes_of_weights_are_told(tmp_path, cat, quickly):
    state = user_networks.Plain().state_dict()
    save_file({**state, "head.bias": torch.zeros(0, 2**30)}, "zero.safetensors")
    wide = {**state, "head.bias": torch.zeros(1).expand(2**20, 2**20)}
    torch.save(wide, "wide.pt")
    for name in ("zero.safetensors", "wide.pt"):
        assert "of another shape" in refused("explain", cat, *OWN, "--weights", name)


# ---- time and memory --------------------------------------------------------------------------------------------

ATTACKS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
import pellucid as pel
from pathlib import Path
from pellucid.core.errors import PellucidError
from pellucid.models.checkpoints import read_state
from pellucid.images.decode import decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    load = {{".pel": pel.open, ".png": decode, ".pt2": lambda p: pel.load(str(p))}}.get(path.suffix, read_state)
    try:
        load(path)
    except PellucidError:
        print(path.name)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert after - before < 250_000, (before, after)
"""


def test_hostile_files_cost_little_memory(archives, tmp_path, quickly):
    def inflate(name, content):
        return name, b"\0" * 400_000_000 if re.search(r"data/0|weight_0", name) else content

    class Allocates:
        def __reduce__(self):
            return bytearray, (1_500_000_000,)

    (tmp_path / "a.png").write_bytes(png(9_999, 9_999))
    (tmp_path / "b.png").write_bytes(png(2**31 - 1, 2**31 - 1))
    (tmp_path / "c.pel").write_bytes(RAW["huge header"])
    (tmp_path / "d.pt").write_bytes(pickle.dumps({"a": Allocates()}))
    with open(tmp_path / "e.pel", "wb") as file:
        file.truncate(2**33)
    for name in ("a.pt", "a.pt2"):
        repacked(archives / name, tmp_path / f"z{name}", inflate, zipfile.ZIP_DEFLATED)
    command = [sys.executable, "-W", "ignore", "-c", ATTACKS.format(limit=6 * LIMIT_BYTES), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split() == sorted(path.name for path in tmp_path.iterdir())
