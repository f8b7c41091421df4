"""The shipped models: their files, their cards, and that they are as good as the cards say."""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256

import pytest
import torch
from torch import nn

from sdlib.datasets import plane
from sdlib.evaluation import floor, sliced_wasserstein
from sdlib.files import data_path
from sdlib.training import RECIPES, Recipe, load_trained
from sdlib.training.recipes import PlaneRecipe, run, save_trained, ships


@pytest.mark.parametrize("name", list(filter(ships, RECIPES)))
def test_cards_belong_to_the_recipes_and_the_weights(name):
    shipped = json.loads(data_path(f"{name}.json").read_text())
    assert {k: shipped[k] for k in asdict(RECIPES[name])} == asdict(RECIPES[name])
    weights = data_path(f"{name}.safetensors").read_bytes()
    assert shipped["sha256"] == sha256(weights).hexdigest()


def test_what_ships():
    assert {"swiss_roll", "branches", "branches_weak", "predict_eps"} <= set(filter(ships, RECIPES))


def test_the_shipped_roll_is_as_good_as_its_card():
    network, recipe = load_trained("swiss_roll").network, RECIPES["swiss_roll"]
    shipped = json.loads(data_path("swiss_roll.json").read_text())
    fresh = recipe.distance_at(network, 20, shipped["n"])
    assert fresh == pytest.approx(shipped["sliced_wasserstein"]["20"], rel=0.02)
    assert fresh < 2 * shipped["floor"]
    assert not any(p.requires_grad for p in network.parameters())


def test_twenty_steps_come_close_to_the_floor():
    network, recipe = load_trained("swiss_roll").network, RECIPES["swiss_roll"]
    lowest = floor(sliced_wasserstein, recipe.data, 1000, draws=20)
    assert recipe.distance_at(network, 20, 1000, seeds=10) < 1.15 * lowest


def test_a_recipe_repeats_saves_and_loads(tmp_path, monkeypatch):
    recipe = replace(RECIPES["swiss_roll"], name="tiny", width=8, steps=30, batch=32)
    few = partial(PlaneRecipe.evaluate, n=200)
    monkeypatch.setattr(PlaneRecipe, "evaluate", lambda recipe, net: few(recipe, net))
    network, made = run(recipe)
    again, _ = run(recipe)
    for p, q in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
    save_trained(network, made, tmp_path)
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    monkeypatch.setattr("sdlib.training.recipes.data_path", lambda name: tmp_path / name)
    loaded = load_trained("tiny")
    x = torch.randn(5, 2)
    torch.testing.assert_close(loaded.network(x, 500), network(x, 500), rtol=0, atol=0)
    assert loaded.settings()["schedule"] == "cosine" and loaded.predicts.name == "v"


def test_classes_are_told_and_for_a_tenth_dropped():
    recipe = RECIPES["branches"]
    x, told = next(replace(recipe, batch=20_000).batches(torch.Generator().manual_seed(0)))
    true = plane.sample_labelled("branches", 20_000, torch.Generator().manual_seed(0))
    assert torch.equal(x, true[0])
    assert (told == 2).double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(told[told < 2], true[1][told < 2])
    x, none = next(RECIPES["swiss_roll"].batches(torch.Generator().manual_seed(0)))
    assert none is None and len(x) == 512


def test_data_of_one_class():
    both, *each = plane.corals()
    x = RECIPES["branches"].data(3000, torch.Generator().manual_seed(0), label=1)
    assert x.shape == (3000, 2)
    assert (each[1].log_prob(x) > each[0].log_prob(x)).double().mean() > 0.95


def test_the_shipped_branches_follow_their_label():
    network, recipe = load_trained("branches").network, RECIPES["branches"]
    shipped = json.loads(data_path("branches.json").read_text())
    fresh = recipe.distance_at(network, 20, 4000, seeds=1)
    assert fresh == pytest.approx(shipped["sliced_wasserstein"]["20"], rel=0.25)
    mixed = replace(recipe, classes=0).distance_at(network, 20, 4000, seeds=1)  # told nothing
    assert mixed < 3 * fresh  # it knows the whole as well
    weak = recipe.distance_at(load_trained("branches_weak").network, 20, 4000, seeds=1)
    assert weak > 1.8 * fresh


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="swiss_roll, predict_eps"):
        load_trained("sd15")


# --- a family of one's own ------------------------------------------------------------------------


@dataclass(frozen=True)
class Line(Recipe):
    """A family with a network, a loss, a number to validate and a sheet of its own."""

    steps: int = 6
    batch: int = 8
    lr: float = 0.1
    width: int = 3
    slopes: tuple[float, ...] = (1.0, 2.0, 3.0)

    def build(self):
        return nn.Linear(self.width, 1)

    def batches(self, generator):
        while True:
            x = torch.randn(self.batch, self.width, generator=generator)
            yield x, x @ torch.tensor(self.slopes)

    def loss(self, network, batch, generator):
        return (network(batch[0])[:, 0] - batch[1]).square().mean()

    def evaluate(self, network):
        return {"error": (network.weight[0] - torch.tensor(self.slopes)).norm().item()}

    def compare(self, shipped, again):
        return [("error", shipped["error"], again["error"], 0.1)]

    def validate(self, network):
        return self.evaluate(network)

    def sheet(self, network):
        return network.weight.detach().reshape(1, 1, 1, 3).expand(4, 3, 8, 3)


def test_a_run_keeps_logs_and_sheets_and_goes_on(tmp_path):
    """Stopped before its last step is saved, it ends as if it had not been."""

    class Stopped(Line):
        def validate(self, network):
            if self.seen == 2:
                raise KeyboardInterrupt
            type(self).seen += 1
            return super().validate(network)

    Stopped.seen = 0
    whole, card = run(Line("line"), tmp_path / "a", every=2)
    with pytest.raises(KeyboardInterrupt):
        run(Stopped("line"), tmp_path / "b", every=2)
    again, resumed = run(Line("line"), tmp_path / "b", every=2)
    assert torch.equal(whole.weight, again.weight)
    assert resumed["training"]["steps_trained"] == 2 and card["training"]["steps_trained"] == 6
    for folder in (tmp_path / "a", tmp_path / "b"):
        rows = (folder / "validation.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["step", "2", "4", "6"]
        assert len((folder / "losses.csv").read_text().splitlines()) == 7
        assert sorted(int(p.stem[6:]) for p in folder.glob("*.png")) == [2, 4, 6]


def test_settings_keep_their_kinds():
    recipe = Line("line").with_settings({"lr": "1", "slopes": "[3, 2, 1]", "steps": "7"})
    assert (recipe.lr, recipe.slopes, recipe.steps) == (1.0, (3, 2, 1), 7)
    with pytest.raises(ValueError, match="unknown setting 'name'"):
        recipe.with_settings({"name": "other"})
