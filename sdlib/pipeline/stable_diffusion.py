"""Text to image, image to image and inpainting (Chapters 20 and 21)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib import images
from sdlib.checks import count as whole
from sdlib.checks import pick
from sdlib.diffusion import Step, classifier_free, schedule, seeded
from sdlib.diffusion.inpainting import blend, inpainting
from sdlib.diffusion.tensors import state
from sdlib.models import Attention, DiagonalGaussian, StableDiffusionConfig
from sdlib.models.packing import pack
from sdlib.pipeline.frame import Frame, by_word
from sdlib.pipeline.parts import DTYPES, Parts, short, usable
from sdlib.pipeline.request import Request, make_request
from sdlib.pipeline.unet import UNetDenoiser
from sdlib.text import Tokenizer, read_files
from sdlib.weights import Checkpoint, load, save

if TYPE_CHECKING:
    from os import PathLike

    from PIL.Image import Image

    Picture = str | PathLike | Image


class StableDiffusion:
    """The three networks of Stable Diffusion, a tokenizer, and how to ask them.

    Args:
        config: the sizes of the networks.
        text, unet, vae: the networks.
        tokenizer: CLIP's by default. Another one is called as `tokenizer(prompts, long_prompt=...)`
            and gives ids `[b, n]`, n a multiple of 77. It needs `words` as `Tokenizer` has it for
            maps only, and `files` for saving a folder only.
        device: where they run; by default CUDA, else MPS, else the CPU.
        offload: keep on the device only the network that is at work, the others on the CPU.
        name: what pictures say they were made by.
        swapped: for parts from elsewhere, "vae" or "text", the names of those.

    Attributes:
        at_once: how many samples the U-Net sees in one call; None for all, which is twice the
            number of images, since guidance asks with and without the prompt.
    """

    def __init__(
        self,
        config: StableDiffusionConfig,
        text: nn.Module,
        unet: nn.Module,
        vae: nn.Module,
        *,
        tokenizer: Tokenizer | None = None,
        device: str | torch.device | None = None,
        offload: bool = False,
        name: str = "",
        swapped: Mapping[str, str] | None = None,
    ):
        self.config, self.tokenizer, self.name = config, tokenizer or Tokenizer.clip(), name
        self.swapped = dict(swapped or {})
        self.parts = Parts(text, unet, vae, device, offload)
        self.schedule = schedule(config.schedule, **config.schedule_options)
        self.at_once: int | None = None

    @classmethod
    def load(
        cls,
        source: "str | PathLike",
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        offload: bool = False,
        progress: bool = False,
        **more: Any,
    ) -> "StableDiffusion":
        """Open a checkpoint: a file, a diffusers folder, or the id of one on a hub.

        Args:
            source: see `sdlib.weights.load`.
            device, offload: as for the class.
            dtype: the precision, float32, float16 or bfloat16, of torch or as a string; by default
                float16 on CUDA and float32 elsewhere.
            progress: show a bar.
            more: `vae`, `text` and `config`, as for `sdlib.weights.load`.

        Raises:
            ValueError, OSError: as there, and for a device or a precision that cannot be used.
        """
        device = usable(device)
        dtype = dtype or ("float16" if device.type == "cuda" else "float32")
        dtype = pick("dtype", DTYPES, short(dtype))
        opened = load(source, dtype, progress=progress, **more)
        length = opened.config.text.length
        tokenizer = read_files(opened.tokenizer, length=length) if opened.tokenizer else None
        swapped = {part: basename(more[part]) for part in ("vae", "text") if more.get(part)}
        return cls(
            opened.config,
            **opened.networks,
            tokenizer=tokenizer,
            device=device,
            offload=offload,
            name=basename(source),
            swapped=swapped,
        )

    def save(self, path: "str | PathLike", dtype: torch.dtype | None = None) -> None:
        """Write a checkpoint that others open, whole or not at all.

        Args:
            path: a name that ends in .safetensors gives one file in the original layout, any other
                a diffusers folder.
            dtype: of the weights in it; by default as they are.
        """
        opened = Checkpoint(self.config, self.parts.networks)
        files = self.tokenizer.files() if hasattr(self.tokenizer, "files") else None
        save(path, opened, files, dtype)

    def pack(self) -> "StableDiffusion":
        """On a CPU, take about a seventh less time for a picture, after seconds of preparation.

        That pays from about ten steps on. On other devices nothing changes. See
        `sdlib.models.packing.pack`.
        """
        if self.parts.device.type == "cpu":
            for network in (self.unet, self.vae):
                pack(network)
        return self

    def save_memory(
        self,
        attention_slices: int = 1,
        vae_slices: bool = True,
        vae_tile: int | None = 64,
        at_once: int | None = 1,
    ) -> "StableDiffusion":
        """Take less memory and more time.

        Args:
            attention_slices: into how many parts attention cuts its queries.
            vae_slices: whether pictures of a batch are encoded and decoded one after the other.
            vae_tile: latents a side of the tiles in which larger pictures are; None for no tiles.
            at_once: how many samples the U-Net sees in one call; 1 splits guidance in two.
        """
        whole("attention_slices", attention_slices)
        for name, value in {"vae_tile": vae_tile, "at_once": at_once}.items():
            if value is not None:
                whole(name, value)
        for network in self.parts.networks.values():
            for layer in network.modules():
                if isinstance(layer, Attention):
                    layer.slices = attention_slices
        self.vae.slicing, self.vae.tile, self.at_once = vae_slices, vae_tile, at_once
        return self

    @property
    def made_by(self) -> dict[str, str]:
        """What pictures say they were made by: names of files, and the precision of the U-Net."""
        dtype = next(self.unet.parameters()).dtype
        return {"model": self.name, **self.swapped, "dtype": short(dtype)}

    @property
    def text(self) -> nn.Module:
        """The text encoder."""
        return self.parts.networks["text"]

    @property
    def unet(self) -> nn.Module:
        """The U-Net; `sd.unet.compile()` makes it faster on a GPU, after a slow first call."""
        return self.parts.networks["unet"]

    @property
    def vae(self) -> nn.Module:
        """The autoencoder."""
        return self.parts.networks["vae"]

    # --- asking for pictures ----------------------------------------------------------------------

    def generate(
        self,
        prompt: str | Sequence[str],
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
        from tqdm.auto import tqdm

        frames = self.sample(prompt, negative_prompt, image, mask, **settings)
        with tqdm(desc="sampling", unit="step", disable=not progress, leave=False) as bar:
            for frame in frames:
                bar.total = frame.steps
                bar.update(frame.i - bar.n)
        return replace(frame, steps=frame.i).decode()  # a sampler of one's own may stop early

    def sample(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] = "",
        image: "Picture | None" = None,
        mask: "Picture | None" = None,
        *,
        strength: float = 0.8,
        guidance_scale: float = 7.5,
        steps: int = 50,
        sampler: str | Callable = "plms",
        spacing: str | Callable | None = None,
        seed: int | Sequence[int] | None = None,
        width: int | None = None,
        height: int | None = None,
        count: int = 1,
        long_prompt: str = "cut",
        maps: bool = False,
    ) -> Iterator[Frame]:
        """Walk from noise to a picture, one `Frame` at each node.

        Args:
            prompt: what to show; several make a batch. It may be empty.
            negative_prompt: what to get away from, one for all prompts or one for each.
            image: a picture to start from (Meng et al. 2022), or to repaint in part.
            mask: white where to repaint the image; it is stretched to the image's size. Elsewhere
                latents are kept, which is not to say pixels: those are encoded and decoded.
            strength: how far back into noise the image goes: 0 keeps it, 1 forgets it. Only this
                share of the steps is walked.
            guidance_scale: how strongly the prompt counts; 1 is without guidance.
            steps: of the whole way from noise.
            sampler: a name in `SAMPLERS`, or such a function.
            spacing: a name in `SPACINGS`, or such a function, for a walk to clean latents; by
                default the nodes that diffusers takes for this sampler.
            seed: of the noise of the first image of each prompt, counted up for the next ones; or
                one for each. It depends neither on the batch nor on the device. None draws one.
            width, height: in pixels, multiples of 8; by default 512, or the image's own (an image
                of more than a megapixel is made as large as 512 x 512, or a little smaller).
            count: images for each prompt.
            long_prompt: "cut" a prompt that is too long, with a warning, or "chunk" it.
            maps: whether frames say where the U-Net looked for each word.

        Raises:
            ValueError: for what cannot be, before anything is computed.
            OSError: for a picture that is not there.
        """
        request = make_request(
            self.schedule,
            self.made_by,
            prompt,
            negative_prompt,
            image,
            mask,
            strength=strength,
            guidance_scale=guidance_scale,
            steps=steps,
            sampler=sampler,
            spacing=spacing,
            seed=seed,
            width=width,
            height=height,
            count=count,
            long_prompt=long_prompt,
        )
        texts = request.each("prompt") + request.each("negative_prompt")
        ids = self.tokenizer(texts, long_prompt=long_prompt)
        return self._walk(request, ids, maps)

    # --- what happens then ------------------------------------------------------------------------

    def _walk(self, request: Request, ids: Tensor, watch: bool) -> Iterator[Frame]:
        """The frames of a request; `ids [2b, n]` are of its prompts, then of the negative ones."""
        noise, grid = seeded(request.each("seed")), request.grid
        batch, config = len(request.jobs), self.config
        h, w = (request[side] // config.vae.factor for side in ("height", "width"))
        mask = None if request.mask is None else F.interpolate(request.mask, (h, w))
        sees_mask = config.unet.in_channels > config.vae.latent
        forgets = mask is not None and request["strength"] == 1  # nothing stays under the mask

        # Noise is drawn in the order in which diffusers draws it.
        latents = None
        if request.picture is not None and not (sees_mask and forgets):
            latents = self.encode(request.picture, noise, batch)
        if grid is None:
            yield self._frame(request, Step(0, 0.0, latents, latents), 0, [])
            return
        eps = noise(state(torch.zeros(batch, config.vae.latent, h, w, device=self.parts.device)))
        x = eps if latents is None else grid.alpha[0] * latents + grid.sigma[0] * eps
        keeps = mask is not None and not sees_mask
        if keeps and forgets:
            x = blend(eps, x, mask)

        cond, uncond = self.embed(ids).chunk(2)
        if sees_mask:
            beside = self._beside(request, (h, w), noise)
            cond, uncond = ({"context": tokens, "concat": beside} for tokens in (cond, uncond))
        unet = UNetDenoiser(self.parts, config.predicts, self.at_once, watch)
        denoiser = classifier_free(unet, request["guidance_scale"], uncond)
        if keeps:
            denoiser = inpainting(denoiser, latents, mask)

        last, maps = len(grid), []
        for step in request.sampler(denoiser, grid, x, noise=noise, cond=cond):
            if watch and step.i < last:
                maps = by_word(self.tokenizer, request.jobs, unet.maps)
            if keeps and step.i == last:
                step = replace(step, x=blend(step.x, latents, mask))
            yield self._frame(request, step, last, maps)

    def _frame(self, request: Request, step: Step, last: int, maps: list) -> Frame:
        return Frame(step.i, step.t, step.x, step.x0, last, request.jobs, maps, self.decode)

    def _beside(self, request: Request, size: tuple[int, int], noise: Callable) -> Tensor:
        """What a U-Net for inpainting sees beside a state `[b, 5, h, w]`: the mask, and the latents
        of the picture without what is under it. Without a mask, all is to be painted.
        """
        mask, picture = request.mask, request.picture
        if mask is None:
            mask = torch.ones(1, 1, request["height"], request["width"])
            picture = mask.expand(-1, 3, -1, -1)
        latents = self.encode(picture * (1 - mask), noise, len(request.jobs))
        small = F.interpolate(mask, size).to(latents).expand(len(latents), -1, -1, -1)
        return torch.cat([small, latents], dim=1)

    # --- the networks -----------------------------------------------------------------------------

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids `[b, n]`, n a multiple of 77, to the vectors of their tokens `[b, n, 768]`."""
        windows = ids.reshape(-1, self.config.text.length)
        windows, places = windows.unique(dim=0, return_inverse=True)  # each is read once
        tokens = self.parts.ask("text", lambda text, ids: text(ids).tokens, windows)
        return tokens[places].reshape(*ids.shape, -1)

    def encode(self, pixels: Tensor, noise: Callable, batch: int = 1) -> Tensor:
        """A picture `[1, 3, H, W]` in [-1, 1] to latents `[batch, 4, h, w]`, drawn with `noise`."""
        moments = state(self.parts.ask("vae", lambda vae, x: vae.encode(x).moments, pixels))
        moments = moments.expand(batch, *moments.shape[1:])
        return DiagonalGaussian(moments, self.config.vae.scale).sample(noise)

    def decode(self, latents: Tensor) -> "list[Image]":
        """Latents `[b, 4, h, w]` to pictures."""
        return images.to_images(self.parts.ask("vae", lambda vae, z: vae.decode(z), latents))


def basename(path: "str | PathLike") -> str:
    """The last name in a path, or in the id of a model on a hub."""
    return str(path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
