"""Data sets of pictures: where they are found, what they are called, and how they are read."""

import io
import os
import threading
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

import pellucid as pel
from pellucid.core.errors import ImageError, ModelError, SettingError
from pellucid.images.datasets import Pictures, pictures
from pellucid.images.decode import Limits
from pellucid.images.sources import Archive

EIGHT = pel.preprocess(crop_px=8)


def png(colour: int = 0, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 10, 20)).save(file, "PNG")
    return file.getvalue()


def reds(data: Pictures, size: int = 3) -> list[tuple[int, int]]:
    return [
        (n, round(float(x[0, 0, 0]) * 255))
        for numbers, batch in data.batches(size)
        for n, x in zip(numbers, batch, strict=True)
    ]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    for name, colours in (("cat", (1, 2)), ("dog", (3, 4, 5))):
        (root / name).mkdir(parents=True)
        for colour in colours:
            (root / name / f"{colour}.png").write_bytes(png(colour))
    return root


class TestFolders:
    def test_sorted_with_classes(self, folder):
        (folder / "notes.txt").write_text("x")
        (folder / "cat" / ".hidden.png").write_bytes(png())
        (folder / "dog" / "6.PNG").write_bytes(png(6))
        data = pictures(folder, EIGHT)
        assert list(data.names) == ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png", "dog/5.png", "dog/6.PNG"]
        assert list(data.labels) == ["cat"] * 2 + ["dog"] * 4 and "2 classes" in repr(data)
        assert reds(data) == [(n, n + 1) for n in range(6)]

    def test_flat_has_no_classes(self, tmp_path):
        for k in range(3):
            (tmp_path / f"{k}.png").write_bytes(png(k))
        assert pictures(str(tmp_path), EIGHT).labels == [None] * 3

    def test_loops_of_links_end_and_nothing_comes_twice(self, folder):
        try:
            (folder / "cat" / "again").symlink_to(folder, target_is_directory=True)
            (folder / "dog" / "self").symlink_to(folder / "dog", target_is_directory=True)
            (folder / "zebra").symlink_to(folder / "cat", target_is_directory=True)
            elsewhere = folder.parent / "elsewhere"
            elsewhere.mkdir()
            (elsewhere / "7.png").write_bytes(png(7))
            (elsewhere / "back").symlink_to(folder, target_is_directory=True)
            (folder / "bird").symlink_to(elsewhere, target_is_directory=True)
            (folder / "broken.png").symlink_to(folder / "nothing")
        except OSError:
            pytest.skip("no symbolic links here")
        data = pictures(folder, EIGHT)
        names = [name for name in data.names if name != "broken.png"]
        assert names == ["bird/7.png", "cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png", "dog/5.png"]
        assert len(reds(data)) == 6

    def test_missing_and_empty(self, tmp_path):
        for given, words in [
            (tmp_path / "no", "there is no folder"),
            (tmp_path, "no pictures in the folder"),
            ("a\0b", "name of a folder|there is no"),
        ]:
            with pytest.raises(ImageError, match=words):
                pictures(given, EIGHT)

    def test_unreadable_ones_are_passed_over_and_told(self, folder):
        (folder / "cat" / "1.png").write_bytes(b"nothing")
        (folder / "dog" / "4.png").write_bytes(png(4)[:45])
        data = pictures(folder, EIGHT)
        assert reds(data, 2) == [(1, 2), (2, 3), (4, 5)]
        assert sorted(data.failed) == [0, 3] and "1.png" in data.failed[0] and "2 unreadable" in repr(data)

    def test_none_readable(self, folder):
        for path in folder.rglob("*.png"):
            path.write_bytes(b"")
        with pytest.raises(ImageError, match="none of 5 pictures"):
            reds(pictures(folder, EIGHT))

    def test_unknown_preprocessing(self, folder):
        with pytest.raises(ModelError, match="preprocess"):
            pictures(folder, None)

    def test_limit_is_spread(self, folder):
        data = pictures(folder, EIGHT, limit=2)
        assert list(data.names) == ["cat/1.png", "dog/3.png"] and reds(data) == [(0, 1), (1, 3)]
        assert list(pictures(data, None, limit=1).names) == ["cat/1.png"]
        assert pictures(data, None) is data and len(pictures(folder, EIGHT, limit=99)) == 5
        with pytest.raises(SettingError, match="limit is 0"):
            pictures(folder, EIGHT, limit=0)

    def test_one_file(self, folder):
        data = pictures(folder / "dog" / "3.png", EIGHT)
        assert list(data.names) == ["3.png"] and reds(data) == [(0, 3)]


class TestZips:
    @pytest.fixture
    def archive(self, tmp_path):
        place = tmp_path / "some.zip"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as file:
            for name, colour in (("all/dog/2.png", 2), ("all/cat/1.png", 1), ("all/dog/3.png", 3)):
                file.writestr(name, png(colour))
            file.writestr("__MACOSX/all/dog/._2.png", b"x")
            file.writestr("all/readme.txt", b"x")
            file.writestr("../../evil/4.png", png(4))
            file.writestr("all/dog/broken.png", b"x" * 50)
        return place

    def test_read_in_memory(self, archive, tmp_path):
        before = sorted(p.name for p in tmp_path.rglob("*"))
        data = pictures(archive, EIGHT)
        assert list(data.names) == ["all/cat/1.png", "all/dog/2.png", "all/dog/3.png", "all/dog/broken.png"]
        assert list(data.labels) == ["cat", "dog", "dog", "dog"]
        assert reds(data) == [(0, 1), (1, 2), (2, 3)] and list(data.failed) == [3]
        assert sorted(p.name for p in tmp_path.rglob("*")) == before
        picture, placement = data.picture(1)
        assert picture.pixels[0, 0, 0] == 2 and placement.input_px == (8, 8)

    def test_one_folder_around_everything_is_no_class(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("pics/1.png", png(1)), file.writestr("pics/2.png", png(2))
        assert pictures(tmp_path / "a.zip", EIGHT).labels == [None, None]

    def test_sizes_are_limited(self, tmp_path):
        place = tmp_path / "bomb.zip"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("1.png", b"\0" * 3_000_000)
        archive = Archive(place)
        (entry,) = archive.entries()
        with pytest.raises(ImageError, match="larger than"):
            archive.read(entry, Limits(max_bytes=1000))
        entry.file_size = 10  # a header that lies
        with pytest.raises(ImageError):
            archive.read(entry, Limits(max_bytes=1000))

    def test_what_is_no_zip(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"PK nothing")
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
            file.writestr("a.txt", b"x")
        for name, words in (("a.zip", "can't be opened"), ("b.zip", "no pictures in")):
            with pytest.raises(ImageError, match=words):
                pictures(tmp_path / name, EIGHT)

    def test_a_damaged_entry(self, archive):
        raw = bytearray(archive.read_bytes())
        where = raw.find(b"all/cat/1.png") + len("all/cat/1.png") + 5
        raw[where : where + 20] = bytes(20)
        archive.write_bytes(raw)
        data = pictures(archive, EIGHT)
        assert 0 not in [n for n, _ in reds(data)] and 0 in data.failed

    def test_real_zip(self, data):
        found = pictures(data / "cifar10" / "test.zip", pel.load("builtin:photos").preprocess, limit=40)
        assert len(set(found.labels)) == 10 and sum(len(n) for n, _ in found.batches(16)) == 40


class TestListsAndTensors:
    def test_anything_that_can_be_decoded(self, folder):
        array = np.full((8, 8, 3), 9, np.uint8)
        given = [array, Image.fromarray(array + 1), png(11), folder / "cat" / "1.png", str(folder / "dog" / "3.png")]
        data = pictures(given, EIGHT)
        assert reds(data) == [(0, 9), (1, 10), (2, 11), (3, 1), (4, 3)] and data.names[3] == "1.png"
        assert reds(pictures(array, EIGHT)) == reds(pictures([array], EIGHT)) == [(0, 9)]
        assert [v for _, v in reds(pictures(np.stack([array, array + 1]), EIGHT))] == [9, 10]
        assert len(pictures((a for a in given), EIGHT)) == 5 and len(pictures(png(3), EIGHT)) == 1

    @pytest.mark.parametrize("shape", [(5, 2), (5, 2, 9), (5, 3, 4, 6), (5, 1, 4, 4, 4)])
    def test_tensors_of_any_axes(self, shape):
        x = torch.randn(shape).requires_grad_()
        data = pictures(x, None)
        back = torch.cat([batch for _, batch in data.batches(2)])
        assert torch.equal(back, x) and not back.requires_grad and data.picture(0) == (None, None)

    def test_start_and_sizes(self):
        x = [torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.zeros(3, 5, 4), torch.zeros(3, 4, 4)]
        assert [n for n, _ in pictures(x, None).batches(8)] == [[0, 1], [2], [3]]
        assert [n for n, _ in pictures(x, None).batches(1, start=2)] == [[2], [3]]

    def test_pairs_batches_and_streams(self):
        pairs = [(torch.full((1, 2, 2), float(k)), k % 2) for k in range(5)]
        assert pictures(pairs, None).labels == ["0", "1", "0", "1", "0"]
        batches = [(torch.zeros(4, 1, 2, 2), torch.arange(4)), (torch.zeros(2, 1, 2, 2), torch.arange(2))]
        data = pictures(batches, None)
        assert len(data) == 6 and data.labels[4:] == ["0", "1"] and data.input(5).shape == (1, 2, 2)
        assert len(pictures(iter(pairs), None, limit=3)) == 3
        assert len(pictures([torch.zeros(4, 1, 2, 2)], EIGHT)) == 4  # pictures have three axes: a batch
        assert len(pictures([torch.zeros(1, 4, 2, 2)], None)) == 1  # one volume

    def test_what_is_nothing(self):
        for given, words in [([], "empty"), (torch.zeros(0, 3, 4, 4), "empty"), (7, "can't be made from int"),
                             (torch.zeros(3, 4, 4, dtype=torch.int64), "floating")]:  # fmt: skip
            with pytest.raises(ImageError, match=words):
                pictures(given, EIGHT)


class Images(Dataset):
    classes = ("cat", "dog")

    def __init__(self, count=6, broken=(), noisy=False):
        self.count, self.broken, self.noisy, self.reads = count, broken, noisy, []
        self.threads = set()

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        self.threads.add(threading.get_ident())
        self.reads.append(number)
        if number in self.broken:
            raise OSError("disk on fire")
        return Image.fromarray(np.full((8, 8, 3), number, np.uint8)), number % 2


class TestTorchDataSets:
    def test_images_are_read_when_needed(self):
        dataset = Images(broken=(3,))
        data = pictures(dataset, EIGHT)
        assert set(dataset.reads) <= {0} and data.labels == [None] * 6
        assert reds(data) == [(0, 0), (1, 1), (2, 2), (4, 4), (5, 5)] and "on fire" in data.failed[3]
        assert data.labels == ["cat", "dog", "cat", None, "cat", "dog"]
        assert len(dataset.threads - {threading.get_ident()}) <= 1
        with pytest.raises(ModelError):
            list(pictures(dataset, None).batches(2))

    def test_targets_are_known_at_once(self):
        dataset = Images()
        dataset.targets = [0, 1, 0, 1, 0, 1]
        assert pictures(dataset, EIGHT).labels[:2] == ["cat", "dog"]
        assert pictures(Subset(dataset, [5, 1]), EIGHT).input(0)[0, 0, 0] * 255 == 5

    def test_loaders_keep_the_data_set_s_order(self):
        dataset = TensorDataset(torch.arange(10.0)[:, None, None, None], torch.arange(10))
        for loader in (DataLoader(dataset, 4), DataLoader(dataset, 4, shuffle=True)):
            assert [float(x) for _, batch in pictures(loader, None).batches(3) for x in batch] == list(range(10))
        some = pictures(DataLoader(dataset, 4, sampler=SubsetRandomSampler([7, 2])), None)
        assert some.names == ["item 2", "item 7"] and float(some.input(1)) == 7

    def test_streams(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter([(torch.full((1, 2, 2), float(k)), k) for k in range(7)])

        data = pictures(DataLoader(Stream(), 3), None)
        assert [float(data.input(n)[0, 0, 0]) for n in range(7)] == list(range(7)) and data.labels[6] == "6"
        assert len(pictures(DataLoader(Stream(), 3), None, limit=4)) == 4

    def test_random_augmentation_is_refused(self):
        class Noisy(Dataset):
            def __len__(self):
                return 3

            def __getitem__(self, number):
                return torch.randn(1, 2, 2)

        with pytest.raises(ImageError, match="augmentation"):
            pictures(Noisy(), None)

    def test_dicts(self):
        items = [
            {"pixel_values": torch.zeros(1, 2, 2), "labels": 3},
            {"pixel_values": torch.ones(1, 2, 2), "labels": 4},
        ]
        assert pictures(items, None).labels == ["3", "4"]
        with pytest.raises(ImageError, match="no image"):
            pictures([{"text": 1}], None)


class TestReadingAhead:
    def test_pictures_are_decoded_while_the_network_works(self, folder, monkeypatch):
        threads, data = set(), pictures(folder, EIGHT)
        plain = data.input
        monkeypatch.setattr(data, "input", lambda n: (threads.add(threading.get_ident()), plain(n))[1])
        assert len(reds(data)) == 5 and threading.get_ident() not in threads

    def test_no_more_than_two_batches(self):
        dataset = Images(60)
        batches = pictures(dataset, EIGHT).batches(4)
        next(batches)
        time.sleep(0.05)
        assert max(dataset.reads) <= 4 + 2 * 4 + 1
        batches.close()
        time.sleep(0.05)
        seen = len(dataset.reads)
        time.sleep(0.05)
        assert len(dataset.reads) == seen

    def test_mistakes_of_the_data_set_come_through(self):
        class Wrong(Images):
            def __getitem__(self, number):
                return (Image.new("RGB", (8, 8)), 0) if number == 0 else undefined

        with pytest.raises(NameError):
            reds(pictures(Wrong(), EIGHT))


class TestDigest:
    def test_it_changes_with_the_data(self, folder):
        one = pictures(folder, EIGHT).digest()
        assert one == pictures(folder, EIGHT).digest() != pictures(folder, pel.preprocess(crop_px=7)).digest()
        (folder / "cat" / "1.png").write_bytes(png(1, 9))
        assert pictures(folder, EIGHT).digest() != one
        x = torch.randn(4, 3)
        assert pictures(x, None).digest() == pictures(x.clone(), None).digest() != pictures(x + 1, None).digest()
        assert pictures(x, None).digest() != pictures(x.flip(1), None).digest()


def test_names_of_files_never_leave_the_folder(folder):
    assert not any(os.path.isabs(name) for name in pictures(folder, EIGHT).names)
