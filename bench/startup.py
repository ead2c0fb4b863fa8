"""Start-up times: whole Python processes, interleaved, over the one that only imports torch."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from race import Times

SRC = Path(__file__).resolve().parent.parent / "src"
COMMANDS = {
    "torch": "import torch",
    "pellucid": "import torch; import pellucid; pellucid.explain, pellucid.attribute, pellucid.METHODS",
    "pellucid, nothing used yet": "import torch; import pellucid",
    "captum": "import torch; import captum.attr",
    "grad-cam": "import torch; import pytorch_grad_cam",
    "torchcam": "import torch; import torchcam.methods",
    "zennit": "import torch; import zennit",
    "lime": "import torch; import lime.lime_image",
    "shap": "import torch; import shap",
    "pellucid --help": "import sys; sys.argv = ['pellucid', '--help']; from pellucid.cli.main import app; app()",
}
SHIM = "import nets; nets.define_missing_torchvision_operators(); "  # these import torchvision


def times(repeats: int) -> dict[str, Times]:
    """Milliseconds of every command, processor (children included) and wall; one warm-up each."""
    found = {name: Times() for name in COMMANDS}
    for name in COMMANDS:
        found[name].error = _run(name)[2]
    running = [name for name in COMMANDS if found[name].error is None]
    for turn in range(repeats):
        shift = turn % len(running)
        for name in running[shift:] + running[:shift]:
            cpu, wall, _ = _run(name)
            found[name].cpu.append(cpu)
            found[name].wall.append(wall)
    return found


def _run(name: str) -> tuple[float, float, str | None]:
    folders = [str(SRC), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    before, began = _used(), time.perf_counter()
    code = (SHIM if name in ("grad-cam", "zennit") else "") + COMMANDS[name]
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    wall, cpu = time.perf_counter() - began, _used() - before
    last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
    return 1e3 * cpu, 1e3 * wall, None if done.returncode == 0 else last[0][:160]


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
