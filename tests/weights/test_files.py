import json
import os

import pytest
import torch

from sdlib.weights.files import check_finite, contents, read, write

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "b": torch.tensor([1.0, 3.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}


def same(got, want=TENSORS):
    assert set(got) == set(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


def own_memory() -> int:
    """Bytes that belong to this process alone and not to a file."""
    with open("/proc/self/status") as status:
        return next(int(s.split()[1]) << 10 for s in status if s.startswith("RssAnon"))


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x"])
def test_written_and_read(tmp_path, name):
    path = write(TENSORS, tmp_path / name, {"title": "x"})
    same(read(path))
    found = contents(path)
    assert found.format == "safetensors"
    assert found.metadata == {"format": "pt", "title": "x"}


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_reading_maps_the_file(tmp_path, suffix):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("memory is counted through /proc")
    tensors = {"a": torch.ones(16 << 20), "b": torch.ones(16 << 20)}
    path = tmp_path / f"x.{suffix}"
    write(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    del tensors
    before = own_memory()
    got = read(path)
    assert sum(x.sum().item() for x in got.values()) == 32 << 20
    assert own_memory() - before < 16 << 20  # of 128 MB


def test_what_is_done_to_a_tensor_does_not_reach_the_file(tmp_path):
    path = write(TENSORS, tmp_path / "x.safetensors")
    read(path)["a.weight"].fill_(9)
    same(read(path))
    torch.save(TENSORS, tmp_path / "x.ckpt")
    read(tmp_path / "x.ckpt")["a.weight"].fill_(9)
    same(read(tmp_path / "x.ckpt"))


# --- writing --------------------------------------------------------------------------------------


def test_views_and_shared_memory(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    odd = {"t": whole.t(), "row": whole[1], "again": whole[1], "whole": whole,
           "wide": torch.ones(1).expand(5), "grown": torch.nn.Parameter(torch.ones(2))}  # fmt: skip
    same(read(write(odd, tmp_path / "x")), odd)


def test_a_file_can_be_written_over_itself(tmp_path):
    path = write(TENSORS, tmp_path / "x")
    tensors = read(path)
    write({name: tensors[name] for name in reversed(tensors)}, path)
    same(read(path))
    same(tensors)


def test_others_may_read_what_is_written(tmp_path):
    (tmp_path / "plain").touch()
    path = write(TENSORS, tmp_path / "x")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("when", ["save_file", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, when):
    path = write(TENSORS, tmp_path / "x")

    def half(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("no space left")

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "save_file":
            patch.setattr("safetensors.torch.save_file", half)
        else:
            patch.setattr("os.replace", fail)
        with pytest.raises((OSError, KeyboardInterrupt)):
            write({"other": torch.ones(1)}, path)
    assert os.listdir(tmp_path) == ["x"]
    same(read(path))


@pytest.mark.parametrize(
    "value", [3.0, None, torch.ones(2, device="meta"), torch.ones(2).to_sparse()]
)
def test_only_numbers_are_written(tmp_path, value):
    with pytest.raises(ValueError, match="cannot write 'bad', an? .*: only dense tensors"):
        write({"good": torch.ones(2), "bad": value}, tmp_path / "x")
    assert not os.listdir(tmp_path)


def test_tensors_need_names(tmp_path):
    with pytest.raises(ValueError, match="cannot write under 1, an int: tensors need names"):
        write({1: torch.ones(2)}, tmp_path / "x")
    assert not os.listdir(tmp_path)


def test_what_is_dropped_is_memory_no_longer(tmp_path, monkeypatch):
    if not os.path.exists("/proc/self/smaps"):
        pytest.skip("maps are counted through /proc")
    monkeypatch.setattr("sdlib.weights.files.WINDOW", 1 << 20)
    path = write({f"x{i}": torch.ones(1 << 20) for i in range(8)}, tmp_path / "x")  # of 4 MB
    tensors = read(path)
    for name in list(tensors):
        assert tensors.pop(name).sum() == 1 << 20
        assert pages(path) <= 4 << 20


def pages(path):
    """Bytes of a file that are in this process's memory."""
    with open("/proc/self/smaps") as maps:
        mine, size = False, 0
        for line in maps:
            mine = str(path) in line if "-" in line.split()[0] else mine
            size += int(line.split()[1]) << 10 if mine and line.startswith("Rss:") else 0
    return size


def test_places_that_cannot_be_written_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot write .*: there is no folder"):
        write(TENSORS, tmp_path / "no" / "x")
    with pytest.raises(IsADirectoryError, match="cannot write .*: it is a folder"):
        write(TENSORS, tmp_path)


# --- finite ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(dtype, value):
    bad = torch.zeros(3, 4, dtype=dtype)
    bad[1, 2] = value
    with pytest.raises(ValueError, match=r"unet has weights .* in bad \(1 of 12\): it is damaged"):
        check_finite({"good": torch.ones(4), "bad": bad}, "unet")


def test_a_nan_in_eight_bits():
    bad = torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)
    check_finite({"x": bad[:1]}, "x")
    with pytest.raises(ValueError, match=r"in x \(1 of 2\)"):
        check_finite({"x": bad}, "x")


def test_opposite_infinities_and_many_tensors():
    inf = torch.tensor([float("inf"), -float("inf"), 1.0])
    with pytest.raises(ValueError, match=r"k0 \(2 of 3\), k1 .*, k2 \(2 of 3\) and 2 more"):
        check_finite({f"k{i}": inf for i in range(5)}, "x")


def test_large_weights_are_finite():
    check_finite({"half": torch.full((100,), 60000.0).half()}, "x")
    check_finite({"single": torch.full((100,), 3e38)}, "x")
    check_finite({"double": torch.full((100,), 1e300, dtype=torch.float64)}, "x")
    check_finite({"ids": torch.arange(3), "empty": torch.zeros(0)}, "x")


# --- damage to safetensors ------------------------------------------------------------------------


def test_a_safetensors_file_cut_short(tmp_path):
    whole = write(TENSORS, tmp_path / "x").read_bytes()
    cut = tmp_path / "cut.safetensors"
    header = 8 + int.from_bytes(whole[:8], "little")
    for size in (header, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"of {len(whole):,} bytes, but {size:,} are there"):
            read(cut)
    for size in (9, 100, header - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"is damaged: .* the whole file has {size:,}"):
            read(cut)


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"a": {**ONE, "shape": [100], "data_offsets": [0, 400]}}, "bytes, but .* are there"),
        ({"a": {**ONE, "shape": [100]}}, "a safetensors file, but .*offset"),
        ({"a": ONE, "b": ONE}, "a safetensors file, but .*invalid offset"),
        ({"a": {**ONE, "data_offsets": [-4, 0]}}, "a safetensors file, but"),
        ({"a": {**ONE, "dtype": "Q3"}}, "a safetensors file, but .*unknown variant `Q3`"),
        ({"a": 3}, "its header cannot be read"),
        ('{"a": ' + "[" * 200_000, "its header cannot be read"),
        ("{nonsense", "its header cannot be read"),
    ],
)
def test_a_header_that_lies(tmp_path, header, sentence):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(ValueError, match=f"{sentence}.* download it again"):
        read(path)


@pytest.mark.parametrize("length", [1 << 62, 200_000_000, 50])
def test_a_header_longer_than_the_file(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b'{"a": 1}')
    with pytest.raises(ValueError, match=f"header has {length:,} bytes, and the whole file has 16"):
        read(path)


def test_a_header_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((150_000_000).to_bytes(8, "little") + b'{"a": 1}')
    os.truncate(path, 200_000_000)  # without taking room
    with pytest.raises(ValueError, match="is damaged: .* header has 150,000,000 bytes"):
        read(path)


# --- shards ---------------------------------------------------------------------------------------


def shards(folder, **changes):
    """An index over two files of shards, one in each format."""
    write({"a": torch.ones(2)}, folder / "m-1.safetensors")
    torch.save({"b": torch.zeros(3)}, folder / "m-2.bin")
    names = {"a": "m-1.safetensors", "b": "m-2.bin", **changes}
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def test_shards_are_read_as_one(tmp_path):
    same(read(shards(tmp_path)), {"a": torch.ones(2), "b": torch.zeros(3)})


def test_a_missing_shard_is_named(tmp_path):
    index = shards(tmp_path, c="m-3.bin")
    with pytest.raises(FileNotFoundError, match="needs 3 shards, and 1 .* beside it: m-3.bin"):
        read(index)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "c:x", "a\\b"])
def test_a_shard_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="a shard outside its folder, .* refused"):
        read(shards(tmp_path, c=name))


def test_shards_that_do_not_hold_what_the_index_says(tmp_path):
    with pytest.raises(ValueError, match="promises lost, which no shard holds"):
        read(shards(tmp_path, lost="m-1.safetensors"))
    with pytest.raises(ValueError, match="is JSON text, not weights"):  # no index within an index
        read(shards(tmp_path, c="m.safetensors.index.json"))


def test_json_that_is_no_index(tmp_path):
    path = tmp_path / "x.index.json"
    for text in ('{"error": "Repository not found"}', '{"weight_map": 3}', "{", "[1, 2]"):
        path.write_text(text)
        with pytest.raises(ValueError, match="is JSON text, not weights"):
            read(path)
