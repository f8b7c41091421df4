"""`python -m sdlib`, in this process; one call from outside checks that it starts at all."""

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sdlib import __main__ as cli
from sdlib import __version__
from sdlib.commands import named
from sdlib.training import RECIPES, recipes
from sdlib.training.recipes import PlaneRecipe


@pytest.fixture
def small(monkeypatch):
    """Recipes that train in a moment."""
    tiny = replace(RECIPES["swiss_roll"], steps=3, batch=16, width=8)
    monkeypatch.setitem(RECIPES, "swiss_roll", tiny)
    real = PlaneRecipe.evaluate
    monkeypatch.setattr(PlaneRecipe, "evaluate", lambda recipe, net: real(recipe, net, n=50))
    return tiny


def test_help_starts_without_torch():
    code = (
        "import sys, sdlib.__main__ as m; m.parser().format_help(); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_module_runs_and_errors_have_no_traceback(tmp_path):
    out = subprocess.run(
        [sys.executable, "-m", "sdlib", "info", "nothing.json"], capture_output=True, text=True
    )
    assert out.returncode == 2 and out.stdout == ""
    assert out.stderr == "sdlib: there is no file 'nothing.json'.\n"


@pytest.mark.parametrize("name", ["swissroll", "swiss_roll", "Swiss-Roll"])
def test_names_with_and_without_underscores(name):
    assert named("recipe", name, RECIPES) == "swiss_roll"


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "unipc"])
def test_animate_writes_a_film(tmp_path, capsys, monkeypatch, sampler):
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("USERPROFILE", str(tmp_path))
    out = tmp_path / "new" / "roll.gif"
    arguments = ["animate", "swissroll", "--out=~/new/roll.gif", "--frames", "4", "--points", "50"]
    assert cli.main([*arguments, "--sampler", sampler]) == 0
    picture = Image.open(out)
    assert picture.n_frames == 4 and picture.size == (480, 480)
    assert "4 frames" in capsys.readouterr().out


def test_animate_a_data_set_without_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["animate", "rings", "--frames", "3", "--points", "20"]) == 0
    assert (tmp_path / "rings.gif").exists()


def test_a_walk_starts_as_noise_ends_as_data_and_repeats():
    from sdlib.viz.film import walk

    walks = [walk("rings", 200, 5, "ddpm", torch.Generator().manual_seed(1)) for _ in range(2)]
    assert len(walks[0]) == 5 and torch.equal(walks[0][-1].x, walks[1][-1].x)
    radius = walks[0][-1].x.norm(dim=1) / walks[0][-1].x.norm(dim=1).max()
    spread = (radius[:, None] - torch.tensor([1 / 3, 2 / 3, 1.0])).abs().amin(1)
    assert spread.median() < 0.05  # on one of the three rings


def test_train_writes_weights_and_card_and_removes_its_checkpoint(
    small, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("USERPROFILE", str(tmp_path))
    settings = ["--set", "steps=2", "lr=1e-3", "--set", "predicts=eps"]
    assert cli.main(["train", "swissroll", "--out=~/", *settings]) == 0
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "losses.csv",
        "swiss_roll.json",
        "swiss_roll.safetensors",
    ]
    plain = tmp_path / "plain"
    plain.touch()
    for name in ("swiss_roll.json", "swiss_roll.safetensors"):  # for others to read as any file is
        assert (tmp_path / name).stat().st_mode == plain.stat().st_mode
    card = json.loads((tmp_path / "swiss_roll.json").read_text())
    assert (card["steps"], card["lr"], card["predicts"]) == (2, 0.001, "eps")
    assert card["training"]["steps_trained"] == 2 and card["training"]["processor"]
    assert card["sha256"] == sha256((tmp_path / "swiss_roll.safetensors").read_bytes()).hexdigest()
    assert (tmp_path / "swiss_roll" / "losses.csv").read_text().startswith("step,loss,lr,grad_norm")
    assert "x the floor" in capsys.readouterr().out


@pytest.mark.parametrize(
    "word, message",
    [
        ("steps", "KEY=VALUE, as steps=500; got 'steps'"),
        ("stepz=5", "unknown setting 'stepz'; choose one of: steps, batch, lr"),
        ("steps=many", "steps must be of the kind of 3; got 'many'"),
        ("steps=1.5", "steps must be of the kind of 3"),
        ("lr=fast", "lr must be of the kind of 0.003"),
    ],
)
def test_settings_that_cannot_be(small, tmp_path, word, message, capsys):
    assert cli.main(["train", "swiss_roll", "--out", str(tmp_path), "--set", word]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_train_goes_on_where_it_was_interrupted(small, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    arguments = ["train", "swiss_roll", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(PlaneRecipe, "evaluate", stop)
        assert cli.main(arguments) == 2
    assert "with --resume goes on" in capsys.readouterr().err
    checkpoint = tmp_path / "swiss_roll" / "checkpoint.pt"
    assert checkpoint.exists()
    assert cli.main(arguments) == 2  # not asked to go on, and nothing is thrown away unasked
    assert "add --resume to go on" in capsys.readouterr().err and checkpoint.exists()
    assert cli.main([*arguments, "--resume", "--set", "lr=1"]) == 2
    assert "lr 0.003" in capsys.readouterr().err
    # What is left to do is nothing: the saved weights must come back, not fresh ones.
    assert cli.main([*arguments, "--resume"]) == 0
    weights = load_file(tmp_path / "swiss_roll.safetensors")
    fresh = small.make_network().state_dict()
    assert not torch.equal(weights["last.weight"], fresh["last.weight"])
    assert not checkpoint.exists()


def test_a_film_may_be_longer_than_the_table():
    from sdlib.viz.film import walk

    steps = walk("rings", 3, 300, "ddim", torch.Generator().manual_seed(1))
    assert len(steps) == 300 and steps[0].i == 0 and steps[-1].i == 1000


def test_info_takes_a_name_as_the_other_commands_do(capsys):
    assert cli.main(["info", "swissroll"]) == 0
    assert "first.weight" in capsys.readouterr().out


def test_info_names_versions(capsys):
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert __version__ in text and torch.__version__ in text and "models" in text


def test_info_of_a_checkpoint_and_its_card(small, tmp_path, capsys):
    cli.main(["train", "swissroll", "--out", str(tmp_path)])
    capsys.readouterr()
    assert cli.main(["info", str(tmp_path / "swiss_roll.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "first.weight" in text and "[8, 19]" in text
    count = sum(p.numel() for p in small.make_network().parameters())
    assert f"8 tensors, {count:,} parameters" in text
    assert cli.main(["info", str(tmp_path / "swiss_roll.json")]) == 0
    assert "sliced_wasserstein" in capsys.readouterr().out


@pytest.mark.parametrize("shift", [0.0, 10.0])
def test_reproduce_compares_with_what_ships(small, tmp_path, monkeypatch, capsys, shift):
    network, card = recipes.run(small)
    card["sliced_wasserstein"]["20"] += shift
    recipes.save_trained(network, card, tmp_path)
    monkeypatch.setattr("sdlib.files.data_path", lambda name: tmp_path / name)
    assert cli.main(["reproduce", "swissroll"]) == (1 if shift else 0)
    captured = capsys.readouterr()
    assert captured.out.count("swiss_roll") == len(card["sliced_wasserstein"])
    assert ("not reproduced: swiss_roll" in captured.err) == bool(shift)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["animate", "moon"], "unknown model or data set 'moon'; choose one of: swiss_roll"),
        (
            ["animate", "rings", "--sampler", "dpm"],
            "unknown sampler 'dpm'; choose one of: ddim, ddpm",
        ),
        (["animate", "rings", "--out", "a.mp4"], "--out must end in .gif or .webp; got 'a.mp4'"),
        (["animate", "rings", "--frames", "1"], "--frames must be at least 2; got 1"),
        (["animate", "rings", "--seed", "-2"], "seed must be a whole number, at least 0; got -2."),
        (["animate", "rings", "--seed", str(2**70)], "seeds must be below 2^32"),
        (["animate", "rings", "--points", "0"], "--points must be at least 1; got 0"),
        (["train", "moon"], "unknown recipe 'moon'"),
        (["train", "swiss_roll", "--every", "0"], "--every must be at least 1; got 0"),
        (["reproduce", "moon"], "unknown recipe 'moon'"),
        (["info", "model.ckpt"], "there is no file 'model.ckpt'."),
        (["info", "moon"], "there is no file 'moon', and no shipped model: swiss_roll, "),
    ],
)
def test_user_errors_are_one_sentence(arguments, message, capsys):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried 9 GB")])
def test_memory_that_runs_out_is_a_sentence(monkeypatch, capsys, error):
    def run(*_):
        raise error

    monkeypatch.setattr("sdlib.viz.film.walk", run)
    assert cli.main(["animate", "rings", "--out", "a.gif"]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("sdlib: there is too little memory for this")
    assert captured.count("\n") == 1


def test_broken_files_are_told_apart(tmp_path, capsys):
    for name, message in [("a.safetensors", "is JSON text, not weights"), ("a.json", "not a card")]:
        (tmp_path / name).write_text("[1")
        assert cli.main(["info", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


def test_a_wrong_option_exits_with_2():
    with pytest.raises(SystemExit) as stop:
        cli.main(["animate", "rings", "--speed", "magic"])
    assert stop.value.code == 2
