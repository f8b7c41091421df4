"""What the parity tests of the pipeline share: one model opened twice, and its U-Net's calls.

Nearly all a pipeline does can be read off what its U-Net is asked. Every call of either U-Net is
written down: the state that it saw, the time that it was told, and the estimate of x0 that its
answer amounts to after guidance.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdlib.models import AutoencoderKL, CLIPTextEncoder, StableDiffusionConfig, UNet
from sdlib.pipeline import StableDiffusion
from tests.networks import made, numbers
from tests.parity.networks import error

# Relative: the reference's states are float32, and an estimate of x0 multiplies their rounding by
# up to 1 / alpha = 15 where a walk begins.
TOLERANCE = 2e-4
PROMPT, NEGATIVE = "a red cube, left of a blue ball", "fog"
WIDTH, HEIGHT, SEED = 64, 48, 3
TEXT, IMAGE, INPAINT = (
    diffusers.StableDiffusionPipeline,
    diffusers.StableDiffusionImg2ImgPipeline,
    diffusers.StableDiffusionInpaintPipeline,
)
# diffusers' table, in which both sides' answers are turned into estimates of x0
ALPHA_BAR = diffusers.DDIMScheduler(
    1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
).alphas_cumprod.double()


def ours(config: StableDiffusionConfig | None = None) -> StableDiffusion:
    """Our pipeline, with every parameter drawn."""
    config = config or StableDiffusionConfig.tiny()
    unet, vae = made(UNet, config.unet), made(AutoencoderKL, config.vae)
    return StableDiffusion(config, made(CLIPTextEncoder, config.text), unet, vae, device="cpu")


def theirs(folder: Path):
    """diffusers' pipeline, opened from what ours wrote."""
    pipe = TEXT.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def switch(pipe, kind: type = TEXT, scheduler: str = "PNDM", unit: bool = False, **options):
    """A pipeline of another kind, of the same networks and with a fresh scheduler.

    Args:
        unit: start from noise of variance 1, where the scheduler would start from a little less.
    """
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    of = getattr(diffusers, f"{scheduler}Scheduler")
    parts["scheduler"] = of.from_config(pipe.scheduler.config, **options)
    if unit:
        start = property(lambda self: (self.sigmas.max() ** 2 + 1) ** 0.5)
        parts["scheduler"].__class__ = type(of.__name__, (of,), {"init_noise_sigma": start})
    switched = kind(**parts, requires_safety_checker=False)
    switched.set_progress_bar_config(disable=True)
    return switched


@cache
def photo(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture of blots."""
    blots = torch.nn.functional.interpolate(
        numbers("photo", 1, 3, 6, 8), (height, width), mode="bicubic"
    )[0]
    pixels = (blots * 60 + 128).clamp(0, 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


@cache
def mask(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """White in the middle, with edges between latents: of others, diffusers repaints less."""
    picture = Image.new("L", (width, height))
    left, top = width // 32 * 8, height // 32 * 8
    picture.paste(255, (left, top, width // 4 * 3 // 8 * 8, (height - 5) // 8 * 8))
    return picture


@dataclass
class Run:
    """A walk: for each call of the U-Net its state, time and estimate; and the last latents."""

    x: list[Tensor] = field(default_factory=list)
    t: list[float] = field(default_factory=list)
    x0: list[Tensor] = field(default_factory=list)
    last: Tensor | None = None

    def nodes(self) -> list[int]:
        """Of the calls at one time, which are those of a solver's stages, the last."""
        return [i for i in range(len(self.t)) if i + 1 == len(self.t) or self.t[i] != self.t[i + 1]]

    def error(self, right: "Run", states: bool = True) -> float:
        """The largest relative error of the states, the estimates and the end."""
        assert len(self.t) == len(right.t), f"{len(self.t)} calls, not {len(right.t)}"
        assert np.allclose(self.t, right.t, rtol=0, atol=1e-4), (self.t, right.t)
        pairs = [*zip(self.x0, right.x0, strict=True), (self.last, right.last)]
        if states:
            pairs += zip(self.x, right.x, strict=True)
        return max(error(a.float(), b.float()) for a, b in pairs)


@contextmanager
def listening(unet: torch.nn.Module, scale: float, cond_first: bool) -> Iterator[Run]:
    """Write down what `unet` is asked and answers."""
    run = Run()

    def note(_, args, kwargs, answer):
        x, t = args[0][:, :4].double(), torch.as_tensor(args[1]).double().reshape(-1)[0]
        out = (answer[0] if isinstance(answer, tuple) else answer).double()
        if scale != 1:
            (x, _), (a, b) = x.chunk(2), out.chunk(2)
            cond, uncond = (a, b) if cond_first else (b, a)
            out = uncond + scale * (cond - uncond)
        ratio = np.interp(t, np.arange(1000), ((1 - ALPHA_BAR) / ALPHA_BAR).sqrt())
        alpha = (1 + ratio**2) ** -0.5
        run.x.append(x)
        run.t.append(float(t))
        run.x0.append((x - ratio * alpha * out) / alpha)

    handle = unet.register_forward_hook(note, with_kwargs=True)
    try:
        yield run
    finally:
        handle.remove()


def walk_ours(
    sd: StableDiffusion, prompt=PROMPT, scale: float = 7.5, check: bool = True, **settings
) -> Run:
    """Our walk. What its frames say is held to what its U-Net was asked, unless told not to."""
    settings = {"negative_prompt": NEGATIVE, "seed": SEED, **settings}
    if "image" not in settings:
        settings = {"width": WIDTH, "height": HEIGHT, **settings}
    with listening(sd.unet, scale, cond_first=True) as run:
        frames = list(sd.sample(prompt, guidance_scale=scale, **settings))
    run.last = frames[-1].x
    for frame, i in zip(frames, run.nodes() if check else [], strict=False):
        assert error(frame.x.float(), run.x[i].float()) < 1e-6
        assert frame.t == run.t[i]
    return run


def walk_theirs(pipe, prompt=PROMPT, scale: float = 7.5, seeds=(SEED,), **settings) -> Run:
    """Their walk; a mask goes by our name."""
    if "prompt_embeds" not in settings:
        settings = {"prompt": prompt, "negative_prompt": NEGATIVE, **settings}
    generator = [torch.Generator().manual_seed(seed) for seed in seeds]
    if "mask" in settings:
        settings["mask_image"] = settings.pop("mask")
    if pipe.__class__ is not IMAGE:
        settings = {"width": WIDTH, "height": HEIGHT, **settings}
    if pipe.__class__ is INPAINT:
        (generator,) = generator  # it takes one picture a generator
    with listening(pipe.unet, scale, cond_first=False) as run:
        out = pipe(guidance_scale=scale, generator=generator, output_type="latent", **settings)
    run.last = out.images
    return run
