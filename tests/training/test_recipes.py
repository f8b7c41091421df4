"""The shipped models: their files, their cards, and that they are as good as the cards say."""

import json
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch

from sdlib.datasets import plane
from sdlib.evaluation import floor, sliced_wasserstein
from sdlib.files import data_path
from sdlib.training import RECIPES, load_trained
from sdlib.training.recipes import card, distance_at, run, save_trained


@pytest.mark.parametrize("name", RECIPES)
def test_cards_belong_to_the_recipes(name):
    shipped = json.loads(data_path(f"{name}.json").read_text())
    assert {k: shipped[k] for k in asdict(RECIPES[name])} == asdict(RECIPES[name])


def test_the_shipped_roll_is_as_good_as_its_card():
    network, recipe = load_trained("swiss_roll")
    shipped = json.loads(data_path("swiss_roll.json").read_text())
    fresh = distance_at(recipe, network, 20, shipped["n"])
    assert fresh == pytest.approx(shipped["sliced_wasserstein"]["20"], rel=0.02)
    assert fresh < 2 * shipped["floor"]
    assert not any(p.requires_grad for p in network.parameters())


def test_twenty_steps_come_close_to_the_floor():
    network, recipe = load_trained("swiss_roll")
    lowest = floor(sliced_wasserstein, recipe.data, 1000, draws=20)
    assert distance_at(recipe, network, 20, 1000, seeds=10) < 1.15 * lowest


def test_a_recipe_repeats_saves_and_loads(tmp_path, monkeypatch):
    recipe = replace(RECIPES["swiss_roll"], name="tiny", width=8, steps=30, batch=32)
    monkeypatch.setattr("sdlib.training.recipes.card", partial(card, n=200))
    network, made = run(recipe)
    again, _ = run(recipe)
    for p, q in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
    save_trained(network, made, tmp_path)
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    monkeypatch.setattr("sdlib.training.recipes.data_path", lambda name: tmp_path / name)
    loaded, _ = load_trained("tiny")
    x = torch.randn(5, 2)
    torch.testing.assert_close(loaded(x, 500), network(x, 500), rtol=0, atol=0)


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
    network, recipe = load_trained("branches")
    shipped = json.loads(data_path("branches.json").read_text())
    fresh = distance_at(recipe, network, 20, 4000, seeds=1)
    assert fresh == pytest.approx(shipped["sliced_wasserstein"]["20"], rel=0.25)
    mixed = distance_at(replace(recipe, classes=0), network, 20, 4000, seeds=1)  # told nothing
    assert mixed < 3 * fresh  # it knows the whole as well
    weak = distance_at(recipe, load_trained("branches_weak")[0], 20, 4000, seeds=1)
    assert weak > 1.8 * fresh


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="swiss_roll, predict_eps"):
        load_trained("sd15")
