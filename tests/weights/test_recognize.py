import pytest
import torch

from sdlib.weights.files import read
from sdlib.weights.recognize import recognize


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
