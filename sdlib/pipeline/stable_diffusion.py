"""Text to image, image to image and inpainting (Chapters 20 and 21)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdlib import __version__
from sdlib.diffusion import Condition, Step, classifier_free, seeded
from sdlib.diffusion.guidance import Correction
from sdlib.diffusion.inpainting import blend, inpainting, shrink
from sdlib.diffusion.tensors import state
from sdlib.pipeline.frame import Frame, by_word
from sdlib.pipeline.latent_diffusion import LatentDiffusion
from sdlib.pipeline.request import Request, make_request
from sdlib.pipeline.settings import Settings
from sdlib.pipeline.unet import UNetDenoiser
from sdlib.progress import Bar

if TYPE_CHECKING:
    from os import PathLike

    from PIL.Image import Image

    Picture = str | PathLike | Image


class StableDiffusion(LatentDiffusion):
    """Stable Diffusion: a `LatentDiffusion`, made or loaded as one, and pictures for prompts."""

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] = "",
        image: "Picture | None" = None,
        mask: "Picture | None" = None,
        *,
        progress: bool = True,
        **settings: Any,
    ) -> "list[Image]":
        """Pictures for a prompt. Arguments and errors are those of `sample`.

        Returns:
            PIL images: `count` of them for the first prompt, then for the second, and so on. Each
            carries its parameters in `info["sdlib"]`, which `sdlib.images.save` writes to its file.
        """
        frames = self.sample(prompt, negative_prompt, image, mask, **settings)
        with Bar(desc="sampling", unit="step", disable=not progress, leave=False) as bar:
            for frame in frames:
                bar.total = frame.steps
                bar.update(frame.i - bar.n)
        return replace(frame, steps=frame.i).decode()  # a sampler of one's own may stop early

    def sample(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] = "",
        image: "Picture | None" = None,
        mask: "Picture | None" = None,
        *,
        seed: int | Sequence[int] | None = None,
        count: int = 1,
        maps: bool = False,
        latents: Tensor | None = None,
        embeddings: tuple[Condition, Condition] | None = None,
        corrections: Correction | Sequence[Correction] = (),
        **settings: Any,
    ) -> Iterator[Frame]:
        """Walk from noise to a picture, one `Frame` at each node. No gradients are recorded.

        Args:
            prompt: what to show; several make a batch. It may be empty.
            negative_prompt: what to get away from, one for all prompts or one for each.
            image: a picture to start from (Meng et al. 2022), or to repaint in part.
            mask: white where to repaint the image; it is stretched to the image's size. A latent
                is repainted where any of its pixels (8 x 8 in v1) is white; elsewhere latents are
                kept, which is not to say pixels: those are encoded and decoded.
            seed: of the noise of the first image of each prompt, counted up for the next ones; or
                one for each image of a prompt, or of all. It depends neither on the batch nor on
                the device. None and -1 draw one.
            count: images for each prompt.
            maps: whether frames say where the U-Net looked for each word.
            latents: the noise of the first node, `[b, c, h, w]`, in place of what the seeds draw.
            embeddings: a pair of conditions in place of prompts, as `conditions` gives it.
            corrections: of guidance, one or several in turn (see `sdlib.diffusion.guidance`).
            settings: the fields of `Settings`, by name: steps, sampler, guidance_scale and others.
                Sampler and size are by default the model's own, or the size is the image's (one
                of more than four times the area that the model knows is made about as large as
                the model knows).

        Raises:
            ValueError: for what cannot be, before anything is computed.
            OSError: for a picture that is not there.
        """
        request = make_request(
            self.config,
            self.diffusion.schedule,
            Settings(**settings),
            prompt,
            negative_prompt,
            image,
            mask,
            seed=seed,
            count=count,
            latents=latents,
            embeddings=embeddings,
            corrections=corrections,
        )
        if embeddings is not None:
            if maps:
                raise ValueError("maps are of the words of a prompt; embeddings have none.")
            return self._walk(request, None, maps)
        texts = request.each("prompt") + request.each("negative_prompt")
        ids = self.tokenizer(texts, long_prompt=request.settings.long_prompt)
        return self._walk(request, ids, maps)

    @torch.no_grad()
    def _walk(self, request: Request, ids: Tensor | None, watch: bool) -> Iterator[Frame]:
        """The frames of a request; `ids [2b, n]` are of its prompts, then of the negative ones."""
        settings, grid, noise = request.settings, request.grid, seeded(request.each("seed"))
        batch, config = len(request.jobs), self.config
        h, w = (side // config.vae.factor for side in (settings.height, settings.width))
        mask = None if request.mask is None else shrink(request.mask, (h, w))
        sees_mask = config.unet.in_channels > config.vae.latent
        forgets = mask is not None and settings.strength == 1  # nothing stays under the mask

        # Noise is drawn in the order in which diffusers draws it.
        latents = None
        if request.picture is not None and not (sees_mask and forgets):
            latents = self.encode(request.picture, noise, batch)
        if grid is None:
            yield self._frame(request, Step(0, 0.0, latents, latents), 0, [])
            return
        like = {"dtype": torch.float32, "device": self.runner.device}
        eps = noise(state(torch.zeros(batch, config.vae.latent, h, w, **like)))
        if request.latents is not None:
            eps = request.latents.to(eps)
        x = eps if latents is None else grid.alpha[0] * latents + grid.sigma[0] * eps
        keeps = mask is not None and not sees_mask
        if keeps and forgets:
            x = blend(eps, x, mask)

        cond, uncond = request.conditions if ids is None else self.embed(ids).chunk(2)
        if sees_mask:
            size = (settings.height, settings.width)
            concat = self.inpainting_condition(size, noise, request.picture, request.mask, batch)
            cond, uncond = (
                {"concat": concat, **(told if isinstance(told, Mapping) else {"context": told})}
                for told in (cond, uncond)
            )
        unet = UNetDenoiser(self.runner, self.diffusion.predicts, self.max_batch, watch)
        denoiser = classifier_free(
            unet,
            settings.guidance_scale,
            uncond,
            interval=settings.interval,
            correct=request.corrections,
        )
        if keeps:
            denoiser = inpainting(denoiser, latents, mask)

        last, maps, options = len(grid), [], settings.sampler_options
        for step in settings.walk(denoiser, grid, x, noise=noise, cond=cond, **options):
            if watch and step.i < last:
                maps = by_word(self.tokenizer, request.jobs, unet.maps)
            if keeps and step.i == last:
                step = replace(step, x=blend(step.x, latents, mask))
            yield self._frame(request, step, last, maps)

    def _frame(self, request: Request, step: Step, last: int, maps: list) -> Frame:
        by = {**self.provenance, "sdlib": __version__}  # of now: the U-Net may have overflowed
        told, scale = [job | by for job in request.jobs], self.config.vae.scale
        return Frame(step.i, step.t, step.x, step.x0, last, told, maps, self.decode, scale)
