"""`info`: how a picture was made, and what is in a checkpoint."""

import io
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdlib import __main__ as cli
from sdlib.commands.info import describe
from sdlib.images import save

MADE = {"prompt": "a cat, 猫", "steps": 7, "model": None}


def picture(path, made=MADE):
    image = Image.new("RGB", (8, 8))
    image.info["sdlib"] = json.dumps(made)
    return save(image, path)


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.webp"])
def test_a_picture_says_how_it_was_made(tmp_path, capsys, name):
    assert cli.main(["info", str(picture(tmp_path / name))]) == 0
    want = ["prompt  a cat, 猫", "steps   7", "model   None"]
    assert capsys.readouterr().out.splitlines() == want


def test_a_picture_cannot_steer_the_terminal(tmp_path, capsys):
    path = picture(tmp_path / "a.png", {"pro\x1b[2Jmpt": "a\nb\x9b31m\u202e"})
    assert cli.main(["info", str(path)]) == 0
    assert capsys.readouterr().out == "pro\\x1b[2Jmpt  a\\nb\\x9b31m\\u202e\n"


def test_a_stream_that_lacks_letters(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
    assert cli.main(["info", str(path)]) == 0
    sys.stdout.seek(0)
    assert sys.stdout.readline() == "prompt  a cat, \\u732b\n"


def test_a_picture_that_says_nothing(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert cli.main(["info", str(tmp_path / "a.png")]) == 2
    assert "a.png' carries no parameters" in capsys.readouterr().err


def told(capsys, *arguments):
    assert cli.main(["info", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


NAMES = {
    "model.diffusion_model.out.2.weight": torch.zeros(100, 320),
    "model.diffusion_model.out.2.bias": torch.zeros(4),
    "first_stage_model.quant_conv.weight": torch.zeros(8, 8).half(),
    "cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.zeros(768).bfloat16(),
}


def test_a_checkpoint_is_a_table_of_its_parts(tmp_path, capsys):
    save_file(NAMES, tmp_path / "a.safetensors", {"made\x1bby": "b" * 99})
    want = [
        "kind                 Stable Diffusion checkpoint, original layout",
        "format               safetensors",
        "metadata made\\x1bby  " + "b" * 80,
        "",
        "part          parameters  tensors       size  precision",
        "U-Net             32,004        2   128.0 kB  float32",
        "autoencoder           64        1  128 bytes  float16",
        "text encoder         768        1     1.5 kB  bfloat16",
    ]
    found = told(capsys, tmp_path / "a.safetensors")
    assert found[:5] == want[:5] and sorted(found) == sorted(want)


def test_surprises_are_notes(tmp_path, capsys):
    bad = NAMES | {"wing": torch.full((2,), torch.nan)}
    torch.save({"state_dict": bad, "epoch": 7}, tmp_path / "a.ckpt")
    notes = [line for line in told(capsys, tmp_path / "a.ckpt") if line.startswith("note: ")]
    assert len(notes) == 2 and "'epoch' is left over from training: 7" in notes[1]
    assert any("NaN" in line for line in told(capsys, tmp_path / "a.ckpt", "--check"))


def test_other_tensors_are_listed(tmp_path, capsys):
    save_file({"b": torch.zeros(2), "long.name": torch.zeros(3, 4)}, tmp_path / "a.safetensors")
    want = ["b          F32  [2]", "long.name  F32  [3, 4]", "2 tensors, 14 parameters"]
    assert told(capsys, tmp_path / "a.safetensors") == want
    save_file({"b": torch.tensor([torch.inf])}, tmp_path / "b.safetensors")
    assert "infinite" in told(capsys, tmp_path / "b.safetensors", "--check")[-1]


def test_other_tensors_of_a_pickle_are_counted(tmp_path, capsys):
    torch.save({"wing": torch.zeros(3)}, tmp_path / "a.pt")
    lines = told(capsys, tmp_path / "a.pt")
    assert lines[0] == "kind    unknown" and "wing" in lines[-1]


def test_a_checkpoint_in_shards(tmp_path, capsys):
    save_file(NAMES, tmp_path / "a-1.safetensors")
    index = tmp_path / "a.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(NAMES, "a-1.safetensors")}))
    lines = told(capsys, index)
    assert lines[1] == "format  shards" and "32,004" in "".join(lines)


def test_what_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "a.ckpt").write_text("<!doctype html>")
    assert cli.main(["info", str(tmp_path / "a.ckpt")]) == 2
    assert "a.ckpt' is a web page, not weights" in capsys.readouterr().err
    assert cli.main(["info", str(tmp_path)]) == 2
    assert "model_index.json" in capsys.readouterr().err


def test_a_reader_who_has_seen_enough():
    """As in `sdlib info | head -0`: no complaint from us, and none from Python at its end."""
    program = "import sys; from sdlib.__main__ import main; sys.exit(main(['info']))"
    run = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run.stdout.close()
    assert run.stderr.read() == b"" and run.wait() == 0
    run.stderr.close()


def test_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.json").write_text('{"steps": 3}')
    assert describe("~/a.json") == ["steps  3"]
