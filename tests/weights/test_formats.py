import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from sdlib.weights.files import contents, read
from sdlib.weights.formats import recognize


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty, 0 bytes: download it again"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "is a web page, not weights"),
        (b"\n  <html>", "is a web page, not weights"),
        (b'{"error": {"code": 404}}', "is JSON text, not weights"),
        (b'{"data":{"error": "no such model"}}', "is JSON text, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a git-lfs pointer.*pull"),
        (b"\x1f\x8b\x08 gzip", "is a packed archive: unpack it first"),
        (b"GGUF\x03", "is a GGUF file"),
        (b"\x80\x04\x95 a pickle", "is a Python pickle that torch.save did not write, and was not"),
        (b"cposix\nsystem\n", "neither a safetensors file nor a torch .* begins with b'cposix"),
        (b"\x89PNG", r"neither .* begins with b'\\x89PNG'"),
    ],
)
def test_what_people_take_for_weights(tmp_path, content, sentence):
    for name in ("model.ckpt", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}' {sentence}|{name}' is {sentence}"):
            read(tmp_path / name)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file '.*none.ckpt'"):
        read(tmp_path / "none.ckpt")
    with pytest.raises(IsADirectoryError, match="is a folder; give a file in it"):
        read(tmp_path)


def test_formats(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "zip")
    torch.save({"a": torch.ones(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert recognize(tmp_path / "zip") == "zip"
    assert recognize(tmp_path / "old") == "pickle"


# --- pickles --------------------------------------------------------------------------------------

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}


class Command:
    """A pickle of this runs a command when it is read."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def save(found, path, old=False):
    torch.save(found, path, _use_new_zipfile_serialization=not old)
    return path


def repack(source, target, compression=zipfile.ZIP_STORED, leave=(), patch=None):
    """Copy a checkpoint record by record, with some left out or with its pickle changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            if patch and name.endswith("data.pkl"):
                assert patch[0] in content
                content = content.replace(*patch)
            if not name.endswith(leave or "nothing"):
                new.writestr(name, content)
    return target


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", ["x.ckpt", "x.bin", "x.safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_checkpoints(tmp_path, old, name, wrapped):
    weights = OrderedDict(TENSORS, c=torch.nn.Parameter(torch.ones(2)))
    found = {"state_dict": weights, "epoch": 3, "global_step": 840000} if wrapped else weights
    got = read(save(found, tmp_path / name, old))
    assert set(got) == set(weights)
    for key, tensor in weights.items():
        assert torch.equal(got[key], tensor) and not got[key].requires_grad
    extras = {"epoch": 3, "global_step": 840000} if wrapped else {}
    assert contents(tmp_path / name).extras == extras


def lightning():
    """A module and a class of the names that Lightning's checkpoints hold, for pickling."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    return {"pytorch_lightning": types.ModuleType("x"), name.rpartition(".")[0]: module,
            name: module}, module.ModelCheckpoint  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
def test_what_training_left_behind(tmp_path, monkeypatch, old):
    modules, ModelCheckpoint = lightning()
    state = {"exp_avg": torch.ones(3), "step": np.float64(2.0), "history": np.arange(3.0)}
    found = {
        "state_dict": TENSORS,
        "global_step": 470000,
        "callbacks": {ModelCheckpoint: {"best": np.float32(0.1)}, "x": ModelCheckpoint()},
        "optimizer_states": [{"state": {0: state}}],
    }
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        path = save(found, tmp_path / "x.ckpt", old)
    assert "pytorch_lightning" not in sys.modules
    assert set(read(path)) == set(TENSORS)
    extras = contents(path).extras
    assert extras["global_step"] == 470000
    assert torch.equal(extras["optimizer_states"][0]["state"][0]["exp_avg"], torch.ones(3))


@pytest.mark.parametrize("old", [False, True])
def test_a_hostile_pickle_does_not_run(tmp_path, old):
    ran = tmp_path / "ran"
    command = Command(f"touch {ran}")
    path = tmp_path / "x.ckpt"
    for found in (command, {"state_dict": command}, {**TENSORS, "c": command}):
        with pytest.raises(ValueError, match="wants to run posix.system, .* nothing in it ran"):
            read(save(found, path, old))
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"a": command}, protocol))
        with pytest.raises(ValueError, match="did not write, and was not opened|is neither"):
            read(path)
    assert not ran.exists()
    torch.load(save(command, path, old), weights_only=False)  # it would have
    assert ran.exists()


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"a": torch.ones(1), "f": eval}, "eval"),
        ({"a": types.SimpleNamespace()}, "types.SimpleNamespace"),
    ],
)
def test_code_that_weights_do_not_need(tmp_path, found, name):
    with pytest.raises(ValueError, match=f"wants to run {name}, which weights do not need"):
        read(save(found, tmp_path / "x.ckpt"))


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_cut_short(tmp_path, old):
    whole = save(TENSORS, tmp_path / "x.ckpt", old).read_bytes()
    cut = tmp_path / "cut.ckpt"
    for size in (len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="a torch checkpoint, but .*: it was cut short or cha"):
            read(cut)


def test_any_cut_gets_a_sentence(tmp_path):
    whole = save(TENSORS, tmp_path / "x.ckpt", old=True).read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="'.*cut' is .*"):
            read(tmp_path / "cut")


def test_a_compressed_checkpoint_is_read_and_not_mapped(tmp_path):
    path = save(TENSORS, tmp_path / "x.ckpt")
    packed = read(repack(path, tmp_path / "y.ckpt", zipfile.ZIP_DEFLATED))
    assert all(torch.equal(packed[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("lie", [(b"QK\x00Kd", b"QK\x00J\0\0\0\x10"), (b"Kd", b"J\0\0\0\x10")])
def test_a_tensor_larger_than_its_storage_or_the_file(tmp_path, lie):
    path = save({"a": torch.zeros(100)}, tmp_path / "x.ckpt")  # the pickle has 100 as Kd, twice
    with pytest.raises(ValueError, match="a torch checkpoint, but .* cut short or changed"):
        read(repack(path, tmp_path / "lie.ckpt", patch=lie))


def test_a_missing_record(tmp_path):
    path = save(TENSORS, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="a torch checkpoint, but .* data/0.*cut short"):
        read(repack(path, tmp_path / "y.ckpt", leave="data/0"))


def test_a_zip_that_is_no_checkpoint(tmp_path):
    path = save(TENSORS, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="is a zip archive, but no torch checkpoint: unpack it"):
        read(repack(path, tmp_path / "y.ckpt", leave="data.pkl"))


def test_a_program_of_torchscript(tmp_path):
    path = save(TENSORS, tmp_path / "x.ckpt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(ValueError, match="is a TorchScript program, not weights"):
        read(path)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([torch.ones(2)], "holds a list, no named weights"),
        (torch.ones(2), "holds a Tensor, no named weights"),
        ({"model": TENSORS, "epoch": 2}, "more than weights: 'model' is a dict, no plain tensor"),
        ({"state_dict": {**TENSORS, "n": 3}}, "more than weights: 'n' is an int, no plain tensor"),
        ({3: torch.ones(2)}, "more than weights: 3 is a Tensor"),
        ({"a": torch.ones(2).to_sparse()}, "more than weights: 'a' is a Tensor, no plain tensor"),
        ({"a": torch.ones(2, device="meta")}, "more than weights: 'a'"),
    ],
)
def test_more_or_other_than_weights(tmp_path, found, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(save(found, tmp_path / "x.ckpt"))
