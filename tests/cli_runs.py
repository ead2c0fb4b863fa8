"""What the tests of the command line share: runs inside this process and outside, pictures, snapshots of a folder."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from pellucid.cli.main import app

TESTS = Path(__file__).resolve().parent
PROGRAM = (sys.executable, "-m", "pellucid.cli.main")


def pellucid(*words: object) -> Result:
    """One run in this process; an exception that is not ours shows as itself."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*words: object) -> str:
    """The one sentence of a run that must end with code 1."""
    result = pellucid(*words)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: "), result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def printed(command: str, *words: object) -> Any:
    """The JSON of a run that must succeed; strict, so that NaN is no number."""
    result = pellucid(command, "--json", *words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def outside(*words: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """One run in a process of its own."""
    command = [*PROGRAM, *map(str, words)]
    reading = {"text": True, "encoding": "utf-8", "errors": "replace", **options}
    return subprocess.run(
        command, capture_output=True, env=environment(**env or {}), check=False, timeout=120, **reading
    )  # fmt: skip


def drawn(path: Path, height: int = 40, width: int = 60) -> Path:
    """A small picture with a bright square, in the format of the name."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (230, 120, 40)
    pixels[:, -1] = (0, 200, 0)
    Image.fromarray(pixels).save(path)
    return path


def snapshot(folder: Path) -> dict[str, str]:
    """Every file under a folder with a hash of its bytes, every folder by name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
