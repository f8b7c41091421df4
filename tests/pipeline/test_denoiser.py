"""The pipeline's denoiser, for walks, gradients and guidance of one's own."""

import copy
import pickle
from threading import Thread

import pytest
import torch

from sdlib.diffusion import (
    classifier_free,
    ddim,
    log_likelihood,
    make_grid,
    rescaled,
    sample,
    seeded,
)
from sdlib.diffusion.samplers import differentiable
from sdlib.pipeline.request import nodes
from tests.pipeline.common import SIZE, converted, off, tiny

NEAR = 1e-4  # of the size of latents: float32 sums in another order
SHAPE = (1, 4, 6, 8)


@pytest.fixture(scope="module")
def sd():
    return tiny()


@pytest.fixture(scope="module")
def exact():
    """A pipeline of float64, for differences."""
    return converted(tiny(), torch.float64)


def start(seed=1):
    return seeded([seed])(torch.zeros(SHAPE, dtype=torch.float64))


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def level(sd, t=400.0):
    return (torch.tensor(t), *sd.diffusion.schedule(t))


def last(sd, *prompts, **settings):
    *_, frame = sd.sample(
        *prompts, **{"steps": 3, "seed": 1, "sampler": "ddim", **SIZE, **settings}
    )
    return frame.x


def test_a_walk_of_ones_own_is_the_pipelines(sd):
    grid = nodes(sd.diffusion.schedule, "ddim", 3)
    options = {"guidance_scale": 3.0, "corrections": rescaled(0.5), "interval": (0.1, 5.0)}
    x = sample(ddim(sd.denoiser("a red cube", "fog", **options), grid, start()))
    assert torch.equal(x, last(sd, "a red cube", "fog", **options))
    assert off(x, last(sd, "a red cube", "fog", guidance_scale=3.0)) > 0.01


def test_one_prompt_for_all_samples_or_one_for_each(sd):
    x, at = torch.cat([start(1), start(2)]), level(sd)
    both = sd.denoiser(["a red cube", "fog"])(x, *at)
    same = sd.denoiser("fog")(x, *at)
    assert off(both[1:], same[1:]) < NEAR and off(both[:1], same[:1]) > 0.01


@pytest.mark.parametrize("max_batch", [None, 1])
def test_gradients_are_slopes(exact, max_batch, monkeypatch):
    """Of a number made of the estimate, along a direction, with guidance."""
    monkeypatch.setattr(exact, "max_batch", max_batch)
    denoiser, at, w = exact.denoiser("a cat", guidance_scale=3.0), level(exact), drawn(*SHAPE)
    x, direction, h = start().requires_grad_(), drawn(2, *SHAPE)[1], 1e-4
    value = (w * denoiser(x, *at)).sum()
    (slope,) = torch.autograd.grad(value, x)
    with torch.no_grad():
        ahead, behind = ((w * denoiser(x + s * h * direction, *at)).sum() for s in (1, -1))
    right = (ahead - behind) / (2 * h)
    assert float(((slope * direction).sum() - right).abs()) < 1e-6 * float(right.abs())


def test_gradients_are_those_of_a_network_denoiser(sd):
    cond, uncond = sd.conditions("a cat", "fog")
    plain = classifier_free(sd.diffusion.denoiser(), 3.0, uncond)
    slopes = []
    for denoiser in (sd.denoiser("a cat", "fog", 3.0), plain):
        x = start().requires_grad_()
        estimate = denoiser(x, *level(sd), cond)
        slopes.append(torch.autograd.grad(estimate.square().sum(), x)[0])
    assert off(slopes[0], slopes[1]) < 1e-6
    alpha = level(sd)[1]
    assert off(slopes[0], 2 * estimate.detach() / alpha) > 0.1  # the U-Net has its share


def test_the_likelihood_is_that_of_a_network_denoiser(sd):
    grid = make_grid(sd.diffusion.schedule, 2, "trailing", "first").flip()
    options = {"divergence": "hutchinson", "noise": seeded([3])}
    ours = log_likelihood(sd.denoiser("a cat", guidance_scale=1.0), grid, start(), **options)
    options["noise"], (cond, _) = seeded([3]), sd.conditions("a cat")
    right = log_likelihood(sd.diffusion.denoiser(), grid, start(), cond=cond, **options)
    assert torch.allclose(ours, right, rtol=1e-6)


def test_gradients_reach_conditions_and_networks(sd):
    """As a textual inversion and a fine-tuned text encoder need them."""
    token = sd.text.tokens.weight.requires_grad_()
    try:
        cond, uncond = sd.conditions("a cat")
        estimate = sd.denoiser(embeddings=(cond, uncond))(start(), *level(sd))
        (slope,) = torch.autograd.grad(estimate.sum(), token)
        cat, dog = (sd.tokenizer.encode(word)[0] for word in ("cat", "dog"))
        assert slope[cat].abs().sum() > 0 and slope[dog].abs().sum() == 0
        assert not sd.denoiser("a cat")(start(), *level(sd)).requires_grad  # read, and constant
        assert not last(sd, "a cat").requires_grad
    finally:
        token.requires_grad_(False)


def test_generation_records_nothing_and_leaves_gradients_on(sd):
    weight = sd.unet.stem.weight.requires_grad_()
    try:
        for frame in sd.sample("a", steps=2, sampler=differentiable(ddim), seed=1, **SIZE):
            assert torch.is_grad_enabled()
            assert not frame.x.requires_grad and not frame.x0.requires_grad
        assert sd.denoiser("a")(start(), *level(sd)).requires_grad
    finally:
        weight.requires_grad_(False)


def test_guidance_of_ones_own(sd):
    cond, uncond = sd.conditions("a red cube", "fog")
    guided = classifier_free(sd.denoiser(), 4.0, uncond)
    x = sample(ddim(guided, nodes(sd.diffusion.schedule, "ddim", 3), start(), cond=cond))
    assert torch.equal(x, last(sd, "a red cube", "fog", guidance_scale=4.0))


def test_embeddings_in_place_of_prompts(sd):
    """Two prompts, two images of each; a single row without prompt stands for all."""
    prompts, settings = ["a red cube", "fog"], {"seed": [5, 9], "count": 2}
    right = last(sd, prompts, **settings)
    cond, uncond = sd.conditions(prompts)
    for pair in [(cond, uncond), (cond, uncond[:1]), ({"context": cond}, {"context": uncond})]:
        assert off(last(sd, embeddings=pair, **settings), right) < NEAR
    *_, frame = sd.sample(embeddings=(cond, uncond), steps=2, **SIZE)
    assert frame.parameters[1]["prompt"] == {"own": "embeddings"}


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"embeddings": torch.ones(1, 77, 32)}, "embeddings must be a pair"),
        ({"prompt": "a"}, "embeddings stand for prompts: give either"),
        ({"negative_prompt": "a"}, "embeddings stand for prompts: give either"),
        ({"embeddings": (torch.ones(3, 77, 32), torch.ones(2, 77, 32))}, r"\[3\] and \[2\] rows"),
        ({"maps": True}, "maps are of the words of a prompt; embeddings have none"),
        ({"latents": torch.ones(1, 4, 8, 6)}, r"shape \(1, 4, 6, 8\).* got \(1, 4, 8, 6\)"),
        ({"latents": [1.0]}, "latents must be a tensor of shape .* got list"),
        ({"interval": (900.0, 1000.0)}, "the interval 900 to 1000 lies outside"),
    ],
)
def test_what_is_given_is_checked_first(settings, says, sd, monkeypatch):
    pair = (torch.ones(1, 77, 32), torch.ones(1, 77, 32))
    monkeypatch.setattr(sd.runner, "run", lambda *_: pytest.fail("a network was run"))
    with pytest.raises(ValueError, match=says):
        sd.sample(**{"embeddings": pair, **SIZE, **settings})


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_latents_in_place_of_the_seeds_first_noise(sd, sampler):
    """The noise that comes later is the seed's still."""
    right = last(sd, "a", sampler=sampler)
    assert torch.equal(last(sd, "a", sampler=sampler, latents=start(1)), right)
    other = last(sd, "a", sampler=sampler, latents=start(2))
    assert off(other, right) > 0.1
    assert torch.equal(other, last(sd, "a", sampler=sampler, latents=start(2).float()))
    *_, frame = sd.sample(
        "a", latents=start(), steps=2, corrections=[rescaled(), rescaled()], **SIZE
    )
    assert frame.parameters[0]["latents"] == {"own": "latents"}
    assert frame.parameters[0]["corrections"] == {"own": "rescaled, rescaled"}


# --- threads --------------------------------------------------------------------------------------


def test_two_threads_at_once(sd):
    """Each sees where the U-Net looked for its own words; one does not look at all."""

    def walk(prompt, maps):
        *_, frame = sd.sample(prompt, steps=4, seed=1, maps=maps, sampler="ddim", **SIZE)
        return frame.x, [found for _, found in sum(frame.maps, [])]

    asked = [("a red cube", True), ("fog", True), ("a blue ball", False)]
    alone = [walk(*one) for one in asked]
    found = [[] for _ in asked]
    threads = [
        Thread(target=lambda i=i: found[i].extend(walk(*asked[i]) for _ in range(3)))
        for i in range(len(asked))
    ]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    for (right, maps), walks in zip(alone, found, strict=True):
        assert len(walks) == 3
        for x, seen in walks:
            assert off(x, right) < NEAR and len(seen) == len(maps)
            for one, other in zip(seen, maps, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sd: pickle.loads(pickle.dumps(sd))])
def test_a_pipeline_can_be_copied_and_pickled(sd, copied):
    other = copied(sd)
    assert other.unet is not sd.unet and other.diffusion.network is other.unet
    assert torch.equal(last(other, "a"), last(sd, "a"))
