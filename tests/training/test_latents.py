"""Diffusion on latents: what it stands on, what it is fed, what it draws."""

from dataclasses import replace

import pytest
import torch

from sdlib.datasets import scenes
from sdlib.training import EMA, RECIPES
from sdlib.training.recipes import latents, load_trained, save_trained, train_steps
from sdlib.training.recipes.latents import DiTRecipe, UNetRecipe


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with a small autoencoder and a small CLIP, as training leaves them."""
    folder = tmp_path_factory.mktemp("parts")
    vae = replace(RECIPES["mini_vae"], name="tiny_vae", widths=(8, 8, 16), groups=4)
    sizes = {"text_width": 16, "text_layers": 1, "text_heads": 2, "image_width": 16}
    sizes |= {"image_layers": 1, "image_heads": 2, "projection": 8, "captions": 200}
    clip = replace(RECIPES["mini_clip"], name="tiny_clip", vocabulary=600, **sizes)
    with pytest.MonkeyPatch.context() as patch:
        for recipe in (vae, clip):
            patch.setitem(RECIPES, recipe.name, recipe)
            save_trained(recipe.make_network(), {"name": recipe.name, "scale": 2.0}, folder)
        yield str(folder)
    latents._trained.cache_clear()


def recipe_of(family, parts, **changes):
    sizes = {UNetRecipe: {"widths": (32, 32), "depth": (1, 0), "heads": (2, 2)}}
    sizes = sizes.get(family, {"width": 16, "depth": 2, "heads": 2})
    small = {"batch": 4, "steps": 3, "scenes": 6, "variants": 2, "vae": "tiny_vae"}
    return family("tiny", clip="tiny_clip", parts=parts, **{**small, **sizes, **changes})


FAMILIES = pytest.mark.parametrize("family", [UNetRecipe, DiTRecipe])


@FAMILIES
def test_it_trains_both_networks_and_draws(family, parts):
    recipe = recipe_of(family, parts)
    network = recipe.make_network()
    before = {name: p.clone() for name, p in network.named_parameters()}
    ema = EMA(network, recipe.ema_decay)
    losses = [step.loss for step in train_steps(recipe, network, ema)]
    assert len(losses) == 3 and all(0 < loss < 10 for loss in losses)
    moved = {name.split(".")[0] for name, p in network.named_parameters()
             if not torch.equal(p, before[name])}  # fmt: skip
    assert moved == {"network", "text"}
    pictures = recipe.draw(network, ["a red circle", "two stars"], seeds=[1, 2], steps=2)
    assert pictures.shape == (2, 3, 64, 64) and pictures.abs().max() <= 1
    alone = recipe.draw(network, ["two stars"], seeds=[2], steps=2)
    torch.testing.assert_close(alone, pictures[1:], rtol=0, atol=1e-4)
    assert recipe.validate(network) == recipe.validate(network)


def test_the_text_tower_is_clips_own_and_may_rest(parts):
    recipe = recipe_of(UNetRecipe, parts, tune_text=False)
    network, clip = recipe.make_network(), recipe.trained("tiny_clip")
    for mine, theirs in zip(network["text"].parameters(), clip.text.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine is not theirs and not mine.requires_grad
    list(train_steps(recipe, network, EMA(network, 0.9)))
    for mine, theirs in zip(network["text"].parameters(), clip.text.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_batches_are_latents_of_unit_scale_and_captions_of_the_same_scenes(parts):
    recipe = recipe_of(UNetRecipe, parts, batch=300, unconditional=0.25)
    x, ids = next(recipe.batches(torch.Generator().manual_seed(0)))
    pixels, _, made = scenes.batch(range(recipe.scenes))
    right = recipe.autoencoder.encode(pixels).mean
    assert recipe.autoencoder.config.scale == 2.0  # the card's
    told = {tuple(row.tolist()): None for row in recipe.ids([""])}
    (empty,) = told
    where = torch.stack([(x - one).abs().amax((1, 2, 3)) for one in right]).argmin(0)
    for row, scene in zip(ids.tolist(), where.tolist(), strict=True):
        captions = recipe.ids([scenes.caption(made[scene], k) for k in range(2)]).tolist()
        assert tuple(row) == empty or row in captions
    dropped = sum(tuple(row) == empty for row in ids.tolist()) / len(ids)
    assert dropped == pytest.approx(0.25, abs=0.09)
    assert len(set(where.tolist())) == recipe.scenes


def test_a_model_that_is_not_there_says_how_to_train_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="train it with `sdlib train mini_vae`"):
        load_trained("mini_vae", tmp_path)
    latents._trained.cache_clear()
    with pytest.raises(FileNotFoundError, match="sdlib train mini_clip|does not come with"):
        RECIPES["mini_unet"].make_network()
