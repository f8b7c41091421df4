"""Cached latents: encoded once, and again whenever the images or the encoder are others."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdlib.datasets import cache as module
from sdlib.datasets.batches import Batches
from sdlib.datasets.cache import cache
from sdlib.datasets.folder import Folder


class Encoder:
    """Halves the sides, and counts the images it has seen."""

    def __init__(self):
        self.weight, self.seen = torch.ones((), requires_grad=True), []

    def __call__(self, x):
        self.seen.append(len(x))
        return self.weight * torch.nn.functional.avg_pool2d(x, 2)


@pytest.fixture
def encode():
    return Encoder()


X = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WANT = torch.nn.functional.avg_pool2d(X, 2)


def test_images_are_encoded_once(tmp_path, encode):
    path = tmp_path / "a.safetensors"
    first = cache(X, encode, path, name="pool", batch=2)
    again = cache(X, encode, path, name="pool", batch=3)
    assert encode.seen == [2, 2, 1]
    assert torch.equal(first, WANT) and torch.equal(again, WANT) and not first.requires_grad
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert torch.equal(load_file(path)["latents"], WANT)


def test_a_stale_cache_is_made_again(tmp_path, encode):
    def seen(images, name="pool"):
        encode.seen.clear()
        found = cache(images, encode, tmp_path / "a.safetensors", name=name)
        assert torch.equal(found, torch.nn.functional.avg_pool2d(torch.as_tensor(images), 2))
        return sum(encode.seen)

    assert seen(X.view(5, 3, 4, 16)) == 5
    assert seen(X) == 5 and seen(X) == 0  # the same numbers in another shape
    other = X.clone()
    other[4, 2, 7, 7] += 1e-3
    for images, name in ((other, "pool"), (X, "pool"), (X[:4], "pool"), (X[:4], "pool 2")):
        assert seen(images, name) == len(images) and seen(images, name) == 0


def test_a_folder_is_cached_and_trained_on(tmp_path, encode):
    for k in range(3):
        Image.new("RGB", (8, 8), (100 * k, 0, 0)).save(tmp_path / f"{k}.png")
        (tmp_path / f"{k}.txt").write_text(str(k))
    folder = Folder(tmp_path, 8)
    latents = cache(folder, encode, tmp_path / "a.safetensors", name="pool")
    (tmp_path / "0.txt").write_text("a new caption encodes nothing anew")
    cache(Folder(tmp_path, 8), encode, tmp_path / "a.safetensors", name="pool")
    assert encode.seen == [3]
    Image.new("RGB", (8, 8), "white").save(tmp_path / "0.png")
    cache(Folder(tmp_path, 8), encode, tmp_path / "a.safetensors", name="pool")
    assert encode.seen == [3, 3]
    pairs = list(zip(latents, folder.captions, strict=True))
    x, texts = next(Batches(pairs, 2, torch.Generator().manual_seed(0)))
    assert x.shape == (2, 3, 4, 4)
    assert all(torch.equal(a, latents[int(text)]) for a, text in zip(x, texts, strict=True))
    with pytest.raises(ValueError, match="random crops"):
        cache(Folder(tmp_path, 8, torch.Generator()), encode, tmp_path / "b", name="pool")


def test_half_precision_stays(tmp_path):
    for dtype in (torch.float16, torch.bfloat16):
        path = tmp_path / f"{dtype}.safetensors"
        for _ in range(2):
            found = cache(X.to(dtype), lambda x: x, path, name="itself")
            assert found.dtype == dtype and torch.equal(found, X.to(dtype))


def test_what_sdlib_did_not_write_is_left_alone(tmp_path, encode):
    path = tmp_path / "weights.safetensors"
    save_file({"latents": X}, path, {"format": "pt"})
    checkpoint = path.read_bytes()
    cache(X, encode, tmp_path / "whole.safetensors", name="pool")
    cut = (tmp_path / "whole.safetensors").read_bytes()[:-1]
    for data in (checkpoint, cut, b"", b"\xff" * 100):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="weights.safetensors' is no cache .*; it was left as"):
            cache(X, encode, path, name="pool")
        assert path.read_bytes() == data
    with pytest.raises(ValueError, match="is no cache that sdlib wrote"):
        cache(X, encode, tmp_path, name="pool")


def test_it_is_written_whole_or_not_at_all(tmp_path, encode, monkeypatch):
    path = tmp_path / "a.safetensors"
    cache(X, encode, path, name="pool")
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        cache(X, encode, path, name="another")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "encode, message",
    [
        (lambda x: x / 0, r"the encoder's output must be finite; \d+ of its 960 entries"),
        (lambda x: x.mean(), r"a row for each of 5 images; got \[\]"),
        (lambda x: x[:2], r"a row for each of 5 images; got \[2, 3, 8, 8\]"),
        (lambda x: (x, x), "a row for each of 5 images; got tuple"),
    ],
)
def test_outputs_that_do_not_fit(tmp_path, encode, message):
    with pytest.raises(ValueError, match=message):
        cache(X, encode, tmp_path / "a.safetensors", name="odd")
    assert not list(tmp_path.iterdir())


def test_arguments_that_do_not_fit(tmp_path, encode):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no folder '.*gone' to keep the cache in"):
        cache(X, encode, tmp_path / "gone" / "a.safetensors", name="pool")
    with pytest.raises(ValueError, match="at least one image to encode; there is none"):
        cache(X[:0], encode, path, name="pool")
    for name in ("", None, 7):
        with pytest.raises(ValueError, match="name must be a text that tells this encoder from ot"):
            cache(X, encode, path, name=name)
    with pytest.raises(ValueError, match="batch must be a whole number"):
        cache(X, encode, path, name="pool", batch=0)
    assert not encode.seen
