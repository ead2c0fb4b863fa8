"""Peak extra memory of each contender, in a child process of its own that has done nothing else.

One fresh process per network builds it and imports the libraries; it forks a child for each contender. The child
runs one bare forward, gives freed memory back, resets the kernel's high-water mark, does the work, and reads it.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import nets
import peers
import torch
from race import told
from rows import ROWS

Job = tuple[str, str]  # row (or "ideal") and contender (or pass)
STATUS = Path("/proc/self/status")


def peaks(network: str, jobs: Sequence[Job], threads: int, max_gb: float) -> dict[Job, float | str]:
    """Extra megabytes of every job, or the words of its failure. Linux only; elsewhere nothing is measured."""
    if not STATUS.exists() or not jobs:
        return {}
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs, network, list(jobs), threads, max_gb))
    server.start()
    theirs.close()
    found: dict[Job, float | str] = {}
    try:
        for job in jobs:
            found[job] = mine.recv()
    except EOFError:
        pass
    server.join()
    return found


def _serve(pipe: Any, network: str, jobs: list[Job], threads: int, max_gb: float) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    nets.define_missing_torchvision_operators()
    peers.import_all()
    net = nets.build(network)
    harness.limit_memory(max_gb)
    for job in jobs:
        pipe.send(_in_child(net, job, threads))
    pipe.close()


def _in_child(net: nets.Network, job: Job, threads: int) -> float | str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer = json.dumps(_extra(net, job, threads))
        except BaseException as error:  # whatever happens, the child must end here
            answer = json.dumps(told(error))
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else "the process ended without an answer"


def _extra(net: nets.Network, job: Job, threads: int) -> float:
    torch.set_num_threads(threads)
    kind, name = job
    if kind == "ideal":
        run, calls = harness.PASSES[name], 1
    else:
        run, calls = next(c.run for c in ROWS[kind].contenders if c.name == name), ROWS[kind].calls
    harness.forward(net)
    if name.startswith("folded"):
        harness.PASSES[name](net)
    _give_back()
    reset = _reset_mark()
    before = _status("VmRSS")
    start = before if reset else _status("VmHWM")
    for _ in range(calls):
        run(net)
    return max(_status("VmHWM") - start, 0.0)


def _give_back() -> None:
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _reset_mark() -> bool:
    """Set the high-water mark back to what is resident now; False where the kernel doesn't allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _status("VmHWM") <= _status("VmRSS") + 1


def _status(key: str) -> float:
    """Megabytes of a line of /proc/self/status."""
    line = next(text for text in STATUS.read_text().splitlines() if text.startswith(key))
    return int(line.split()[1]) / 1024
