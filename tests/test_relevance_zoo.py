"""The sweep of scripts/relevance_zoo.py over timm, as tests: nothing fails in silence, plain networks pass."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pellucid.core.record import record

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "relevance_zoo.py"


def load() -> ModuleType:
    found = importlib.util.spec_from_file_location("relevance_zoo", SCRIPT)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


ZOO = load()
CONTEXT = {"gcresnet33ts"}  # convolutional, but weighs places by a softmax
CHANGED = {"bat_resnext26ts"}  # takes one size of picture only, which timm does not name


@pytest.mark.zoo
@pytest.mark.parametrize("name", [n for n in ZOO.TIMM if n not in CHANGED])
def test_a_timm_network_passes_or_says_what_is_approximate(name: str) -> None:
    pytest.importorskip("timm")
    module, x = ZOO.built(f"timm:{name}")
    trace = record(module, x)
    found = {method: ZOO.tried(trace, method) for method in ZOO.TRIED}
    assert not [f for f in found.values() if f.startswith(("FAIL", "refuse"))], found
    if not any(word in name for word in ZOO.HYBRID) and name not in CONTEXT:
        assert found["lrp"].startswith("pass") and found["deep_taylor"].startswith("pass"), found


def test_the_table_in_the_docs_is_of_these_networks_and_methods() -> None:
    text = (SCRIPT.parents[1] / "docs/tables/relevance_zoo.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| network")]
    names = {row.split("|")[1].strip() for row in rows}
    assert {f"timm:{name}" for name in ZOO.TIMM} - {f"timm:{name}" for name in CHANGED} <= names
    assert set(ZOO.zoo.torchvision_names()) <= names
    assert all(f"`{method}`" in text for method in ZOO.TRIED)
    assert "FAIL" not in text
