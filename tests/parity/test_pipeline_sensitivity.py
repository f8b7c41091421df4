"""What a pipeline must know, each thing changed: parity must fail, and by much more than it allows.

Facts about the networks are changed in test_sensitivity.py.
"""

import dataclasses

import pytest
import torch

from sdlib.diffusion import parameterization, schedule
from sdlib.diffusion.grid import leading
from sdlib.models import DiagonalGaussian, StableDiffusionConfig
from sdlib.pipeline import request, stable_diffusion
from sdlib.text import Tokenizer
from tests.parity.networks import TOLERANCE, error
from tests.parity.pipelines import (
    IMAGE,
    INPAINT,
    TEXT,
    mask,
    ours,
    photo,
    switch,
    theirs,
    walk_ours,
    walk_theirs,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


# --- ways to be wrong: each takes our pipeline and pytest's monkeypatch ---------------------------


def pads_with_0(sd, patch):
    def window(self, ids):
        return [self.start, *ids, self.end] + [0] * (self.length - 2 - len(ids))

    patch.setattr(Tokenizer, "_window", window)


def starts_without_a_start(sd, patch):
    patch.setattr(Tokenizer, "_window", lambda self, ids: (ids + [self.end] * self.length)[:77])


def told(change):
    """The U-Net is told another time, or condition."""

    def wrong(sd, patch):
        forward = sd.unet.forward
        patch.setattr(sd.unet, "forward", lambda x, t, cond: forward(x, *change(t, cond)))

    return wrong


def concat(change):
    return told(lambda t, cond: (t, {**cond, "concat": change(cond["concat"])}))


def embeds(change):
    def wrong(sd, patch):
        embed = sd.embed
        patch.setattr(sd, "embed", lambda ids: change(embed(ids)))

    return wrong


def on(spacing, ending):
    def wrong(sd, patch):
        patch.setitem(request.GRIDS, "plms", (spacing, ending))
        patch.setitem(request.GRIDS, "ddim", (spacing, ending))

    return wrong


def vae_scale(sd, patch):
    patch.setattr(sd.vae, "config", dataclasses.replace(sd.vae.config, scale=0.18))


def another_schedule(sd, patch):
    levels = schedule("linear", beta_start=0.00085, beta_end=0.012)
    patch.setattr(sd, "diffusion", dataclasses.replace(sd.diffusion, schedule=levels))


def predicts_v(sd, patch):
    v = dataclasses.replace(sd.diffusion, predicts=parameterization("v"))
    patch.setattr(sd, "diffusion", v)


def keeps_the_mean(sd, patch):
    patch.setattr(DiagonalGaussian, "sample", lambda self, noise: self.mean + 0 * noise(self.mean))


def draws_no_other(sd, patch):
    patch.setattr(DiagonalGaussian, "sample", lambda self, noise: self.mean + self.std)


def noise_in_another_order(sd, patch):
    """The second draw comes first."""
    right = stable_diffusion.seeded

    def swapped(seeds):
        noise, kept = right(seeds), []

        def draw(x):
            if not kept:
                kept.extend([noise(x), noise(x)])
            return kept.pop()

        return draw

    patch.setattr(stable_diffusion, "seeded", swapped)


def repaints_the_rest(sd, patch):
    right = request.images.open_mask
    patch.setattr(request.images, "open_mask", lambda *args: 1 - right(*args))


def starts_a_node_late(sd, patch):
    right = request.make_request

    def late(*args, **kwargs):
        asked = right(*args, **kwargs)
        return dataclasses.replace(asked, grid=asked.grid[1:])

    patch.setattr(stable_diffusion, "make_request", late)


TEXT_FACTS = {
    "pads with 0": pads_with_0,
    "no start token": starts_without_a_start,
    "a time too late": told(lambda t, cond: (t + 1, cond)),
    "no offset of times": on(lambda s, n: leading(s, n) - 1, "first"),
    "trailing times": on("trailing", "first"),
    "ends on clean latents": on("leading", "zero"),
    "another schedule": another_schedule,
    "predicts v": predicts_v,
    "for and against swapped": embeds(lambda x: torch.cat(x.chunk(2)[::-1])),
    "tokens larger by 1 %": embeds(lambda x: 1.01 * x),
    "a token lost": embeds(lambda x: x[:, :-1]),
}
IMAGE_FACTS = {
    "scale of latents": vae_scale,
    "mean of latents": keeps_the_mean,
    "noise of latents not drawn": draws_no_other,
    "noise in another order": noise_in_another_order,
    "a node late": starts_a_node_late,
}
INPAINT_FACTS = {
    "mask inverted": repaints_the_rest,
    "noise in another order": noise_in_another_order,
}
NINE_FACTS = {
    "mask inverted": repaints_the_rest,
    "mask behind the latents": concat(lambda x: x.roll(-1, 1)),
    "gray not hidden": concat(lambda x: torch.cat([x[:, :1], 0 * x[:, 1:]], 1)),
    "noise in another order": noise_in_another_order,
    "scale of latents": vae_scale,
}
PLAIN, NINE = StableDiffusionConfig.tiny(), StableDiffusionConfig.tiny_inpainting()
PICTURE = {"image": photo(), "strength": 0.6}
TASKS = {  # the model, their pipeline and scheduler, our sampler, settings, ways to be wrong
    "text": (PLAIN, TEXT, "PNDM", {}, TEXT_FACTS),
    "image": (PLAIN, IMAGE, "DDIM", PICTURE, IMAGE_FACTS),
    "inpaint": (PLAIN, INPAINT, "DDIM", PICTURE | {"mask": mask()}, INPAINT_FACTS),
    "nine": (NINE, INPAINT, "DDIM", PICTURE | {"mask": mask()}, NINE_FACTS),
}
SAMPLER = {"PNDM": "plms", "DDIM": "ddim"}


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """For each task, our pipeline and the last latents of theirs."""
    found, models = {}, {}
    for name, (config, kind, scheduler, settings, _) in TASKS.items():
        if config not in models:
            sd = ours(config)
            sd.save(folder := tmp_path_factory.mktemp("model") / "saved")
            models[config] = sd, theirs(folder)
        sd, pipe = models[config]
        walked = walk_theirs(switch(pipe, kind, scheduler), num_inference_steps=6, **settings)
        found[name] = sd, walked.last
    return found


def off(task, right) -> float:
    """The error of our last latents."""
    _, _, scheduler, settings, _ = TASKS[task]
    sd, latents = right[task]
    run = walk_ours(sd, sampler=SAMPLER[scheduler], steps=6, check=False, **settings)
    return error(run.last.float(), latents)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_changed(task, right):
    assert off(task, right) < TOLERANCE


@pytest.mark.parametrize(
    "task, fact", [(task, fact) for task, (*_, facts) in TASKS.items() for fact in facts]
)
def test_a_fact_changed(task, fact, right, monkeypatch):
    TASKS[task][-1][fact](right[task][0], monkeypatch)
    assert off(task, right) > 10 * TOLERANCE


def test_scale_of_a_picture(right, monkeypatch):
    """On the way out."""
    sd, latents = right["text"]
    before = sd.vae.decode(latents)
    vae_scale(sd, monkeypatch)
    assert error(sd.vae.decode(latents), before) > 10 * TOLERANCE
