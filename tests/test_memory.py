"""A recording gives its memory back as soon as it is let go, without waiting for the garbage collector.

The type checks that the suite switches on keep frames alive, so each case runs in a process of its own without them.
"""

import subprocess
import sys
from pathlib import Path

START = """
import gc, sys, weakref
sys.path.insert(0, sys.argv[1])
import torch
import pellucid as pel
gc.collect()
gc.disable()
module = pel.load("builtin:photos", weights="random").module
trace = pel.record(module, torch.randn(1, 3, 32, 32))
"""


def run(code: str) -> str:
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run([sys.executable, "-c", START + code, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_recording_dies_with_its_last_name() -> None:
    code = """
walk = trace.pull(pel.logit(3))
walk.input()
made = [weakref.ref(thing) for n in trace.nodes for thing in (n, n.output)]
alive = sum(m() is not None for m in made)
del trace, walk
print(alive, len(made), sum(m() is not None for m in made))
"""
    assert run(code) == "58 58 0"


def test_a_layer_kept_by_the_user_keeps_only_what_led_there() -> None:
    code = """
value, later, before = trace.at("stem"), weakref.ref(trace.at("stage2").data), trace.at("stem").data.clone()
del trace
print(later() is None, torch.equal(value.data, before))
"""
    assert run(code) == "True True"


def test_a_walk_that_frees_lets_go_of_what_it_passed() -> None:
    code = """
walk = trace.pull(pel.logit(3), free=True)
walk.at("stage2")
print(trace.at("stem").held is not None, trace.at("stage1").held is not None, trace.at("head").held is None)
walk.input()
print(trace.at("stem").held is None)
"""
    assert run(code).split() == ["True", "True", "False", "True"]
