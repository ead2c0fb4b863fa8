"""Files are whole or absent, whatever fails."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from pellucid.core.errors import FileError
from pellucid.store import read_tensors, whole_file, whole_folder, write_bytes, write_tensors, write_text


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    place = write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(ZeroDivisionError), whole_file(place) as temporary:
        temporary.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert place.read_bytes() == b"old"
    assert listing(tmp_path) == ["a.bin"]


def test_a_failing_move_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    place = write_bytes(tmp_path / "a.bin", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="No space left"):
        write_bytes(place, b"new")
    assert place.read_bytes() == b"old"
    assert listing(tmp_path) == ["a.bin"]


def test_a_file_is_replaced_only_where_allowed(tmp_path):
    place = tmp_path / "a.txt"
    assert write_text(place, "one") == place
    with pytest.raises(FileError, match="overwrite=True"):
        write_text(place, "two", overwrite=False)
    assert place.read_text() == "one"
    write_text(place, "two")
    assert place.read_text() == "two"


def test_permissions_follow_the_umask_and_links_are_kept(tmp_path):
    place = write_bytes(tmp_path / "a.bin", b"1")
    link = tmp_path / "link.bin"
    link.symlink_to(place)
    write_bytes(link, b"2")
    assert link.is_symlink()
    assert place.read_bytes() == b"2"
    mask = os.umask(0)
    os.umask(mask)
    assert place.stat().st_mode & 0o777 == 0o666 & ~mask


def test_text_that_no_file_can_hold_is_written_all_the_same(tmp_path):
    assert write_text(tmp_path / "a.txt", "bad \udcff name").read_bytes() == b"bad ? name"


@pytest.mark.parametrize(("name", "word"), [("missing/a.txt", "make it first"), (".", "is a folder")])
def test_places_that_can_not_be_written(tmp_path, name, word):
    with pytest.raises(FileError, match=word):
        write_text(tmp_path / name, "x")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out") as temporary:
        (temporary / "a").write_text("1")
        1 / 0  # noqa: B018
    assert listing(tmp_path) == []
    with whole_folder(tmp_path / "deep" / "out") as temporary:
        (temporary / "a").write_text("1")
    assert listing(tmp_path / "deep") == ["out"]
    assert listing(tmp_path / "deep" / "out") == ["a"]


def test_a_folder_that_holds_something_is_refused_or_kept(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("keep")
    (out / "a").write_text("old")
    with pytest.raises(FileError, match="overwrite=True"), whole_folder(out) as temporary:
        (temporary / "a").write_text("new")
    assert (out / "a").read_text() == "old"
    with whole_folder(out, overwrite=True) as temporary:
        (temporary / "a").write_text("new")
    assert ((out / "a").read_text(), (out / "mine").read_text()) == ("new", "keep")
    assert listing(tmp_path) == ["out"]


def test_a_file_is_no_folder(tmp_path):
    write_text(tmp_path / "a", "x")
    with pytest.raises(FileError, match="is a file"), whole_folder(tmp_path / "a"):
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_tensors_and_facts_come_back_bit_for_bit(tmp_path, dtype):
    values = (torch.randn(3, 4, 5) * 50).abs().to(dtype).transpose(0, 2)
    facts = {"text": "ü </script> \u2028", "numbers": [1, 2.5e-300, None, True]}
    place = write_tensors(tmp_path / "a.pel", {"values": values, "none": torch.zeros(0)}, facts)
    tensors, found = read_tensors(place)
    assert found == facts
    assert tensors["values"].dtype == dtype
    assert torch.equal(tensors["values"], values)
    assert tensors["none"].shape == (0,)


def test_missing_values_and_infinities_keep_their_bits(tmp_path):
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    tensors, _ = read_tensors(write_tensors(tmp_path / "a", {"v": values}, {}))
    assert torch.equal(tensors["v"].view(torch.int32), values.view(torch.int32))


def test_facts_must_be_plain(tmp_path):
    with pytest.raises(FileError, match="settings hold numbers"):
        write_tensors(tmp_path / "a", {}, {"model": object()})
    assert listing(tmp_path) == []


def header(data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(data) if length is None else length) + data


ATTACKS = {
    "empty": b"",
    "foreign": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "endless header": header(b"{}", 2**62),
    "not json": header(b"{{{{"),
    "deep json": header(b"[" * 100_000),
    "offset beyond the end": header(
        json.dumps({"a": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}).encode()
    ),
    "shape and bytes differ": header(json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode())
    + bytes(4),
    "facts not json": header(json.dumps({"__metadata__": {"pellucid": "{oops"}}).encode()),
    "facts too deep": header(json.dumps({"__metadata__": {"pellucid": "[" * 100_000}}).encode()),
    "facts no object": header(json.dumps({"__metadata__": {"pellucid": "[1]"}}).encode()),
    "no facts": header(b"{}"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_damaged_and_foreign_files_are_refused_in_words(tmp_path, attack):
    place = tmp_path / "a.pel"
    place.write_bytes(ATTACKS[attack])
    with pytest.raises(FileError, match=r"a\.pel"):
        read_tensors(place)


def test_a_truncated_file_is_refused(tmp_path):
    place = write_tensors(tmp_path / "a.pel", {"v": torch.randn(100)}, {"a": 1})
    place.write_bytes(place.read_bytes()[:-7])
    with pytest.raises(FileError, match="damaged"):
        read_tensors(place)


def test_missing_large_and_other_safetensors(tmp_path):
    with pytest.raises(FileError, match="no file"):
        read_tensors(tmp_path / "none.pel")
    save_file({"v": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(FileError, match="not from pellucid"):
        read_tensors(tmp_path / "other.safetensors")
    place = write_tensors(tmp_path / "a.pel", {"v": torch.randn(1000)}, {})
    with pytest.raises(FileError, match="limit is 1,000"):
        read_tensors(place, max_bytes=1000)
