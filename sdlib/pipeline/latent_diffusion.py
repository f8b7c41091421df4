"""A text-to-image latent diffusion model: its networks, opened, saved and asked (Chapter 20)."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib import images
from sdlib.checks import pick, whole_number
from sdlib.diffusion import (
    Condition,
    Denoiser,
    Diffusion,
    classifier_free,
    parameterization,
    schedule,
)
from sdlib.diffusion.guidance import Correction, Interval
from sdlib.diffusion.tensors import state
from sdlib.files import data_path
from sdlib.models import Attention, DiagonalGaussian, StableDiffusionConfig
from sdlib.models.packing import pack
from sdlib.pipeline.runner import DTYPES, NetworkRunner, short, usable
from sdlib.pipeline.unet import UNetDenoiser
from sdlib.text import Tokenizer, read_files
from sdlib.weights import Checkpoint, load, save

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

    from PIL.Image import Image

MINI = "mini"  # what the model that ships is called


class LatentDiffusion:
    """Diffusion in an autoencoder's latents, told by a text encoder (Rombach et al. 2022).

    The networks of a Stable Diffusion and a tokenizer, for walks and losses of one's own;
    `StableDiffusion` makes pictures with them.

    Args:
        config: the sizes of the networks, and how the U-Net was trained.
        text, unet, vae: the networks.
        tokenizer: CLIP's by default. Another one is called as `tokenizer(prompts, long_prompt=...)`
            and gives ids `[b, n]`, n a multiple of the text encoder's length (77). It needs `words`
            as `Tokenizer` has it for maps only, and `files` for saving a folder only.
        device: where they run; by default CUDA, else MPS, else the CPU.
        offload: keep on the device only the network that is at work, the others on the CPU.
        name: what pictures say they were made by.
        replaced_parts: for parts from elsewhere, "vae" or "text", the names of those.
        others: further networks, by their names in `config.others`.

    Attributes:
        runner: runs the networks, one at a time, where they are.
        diffusion: the U-Net, its schedule and what it predicts.
        max_batch: how many samples the U-Net sees in one call; None for all, which is twice the
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
        replaced_parts: Mapping[str, str] | None = None,
        **others: nn.Module,
    ):
        self.config, self.name = config, name
        self.tokenizer = tokenizer or clip_tokenizer(config.text.length)
        self.replaced_parts = dict(replaced_parts or {})
        networks = {"text": text, "unet": unet, "vae": vae, **others}
        self.runner = NetworkRunner(networks, device, offload)
        levels = schedule(config.schedule, **config.schedule_options)
        self.diffusion = Diffusion(unet, levels, parameterization(config.predicts))
        self.max_batch: int | None = None

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
    ) -> "Self":
        """Open a checkpoint: a file, a diffusers folder, or the id of one on a hub.

        Args:
            source: see `sdlib.weights.load`; "mini" is the small model that ships.
            device, offload: as for the class.
            dtype: the precision, float32, float16 or bfloat16, of torch or as a string; by default
                float16 on CUDA and float32 elsewhere.
            progress: show a bar.
            more: `vae`, `text` and `config`, as for `sdlib.weights.load`.

        Raises:
            ValueError, OSError: as there, and for a device or a precision that cannot be used.
        """
        source = shipped_mini() if source == MINI else source
        device = usable(device)
        dtype = dtype or ("float16" if device.type == "cuda" else "float32")
        dtype = pick("dtype", DTYPES, short(dtype))
        opened = load(source, dtype, progress=progress, **more)
        length = opened.config.text.length
        tokenizer = read_files(opened.tokenizer, length=length) if opened.tokenizer else None
        replaced = {part: basename(more[part]) for part in ("vae", "text") if more.get(part)}
        return cls(
            opened.config,
            **opened.networks,
            tokenizer=tokenizer,
            device=device,
            offload=offload,
            name=basename(source),
            replaced_parts=replaced,
        )

    def save(self, path: "str | PathLike", dtype: torch.dtype | None = None) -> None:
        """Write a checkpoint that others open, whole or not at all.

        Args:
            path: a name that ends in .safetensors gives one file in the original layout, any other
                a diffusers folder.
            dtype: of the weights in it; by default as they are.
        """
        opened = Checkpoint(self.config, self.runner.networks)
        files = self.tokenizer.files() if hasattr(self.tokenizer, "files") else None
        save(path, opened, files, dtype)

    def pack(self) -> "Self":
        """On a CPU, take about a seventh less time for a picture, after seconds of preparation.

        That pays from about ten steps on. On other devices nothing changes. See
        `sdlib.models.packing.pack`.
        """
        if self.runner.device.type == "cpu":
            for network in (self.unet, self.vae):
                pack(network)
        return self

    def save_memory(
        self,
        attention_slices: int = 1,
        vae_slices: bool = True,
        vae_tile: int | None = 64,
        max_batch: int | None = 1,
    ) -> "Self":
        """Take less memory and more time.

        Args:
            attention_slices: into how many parts attention cuts its queries.
            vae_slices: whether pictures of a batch are encoded and decoded one after the other.
            vae_tile: latents a side of the tiles in which larger pictures are; None for no tiles.
            max_batch: how many samples the U-Net sees in one call; 1 splits guidance in two.
        """
        whole_number("attention_slices", attention_slices)
        for name, value in {"vae_tile": vae_tile, "max_batch": max_batch}.items():
            if value is not None:
                whole_number(name, value)
        for network in self.runner.networks.values():
            for layer in network.modules():
                if isinstance(layer, Attention):
                    layer.slices = attention_slices
        self.vae.slicing, self.vae.tile, self.max_batch = vae_slices, vae_tile, max_batch
        return self

    @property
    def provenance(self) -> dict[str, str]:
        """What pictures say they were made by: names of files, and the precision of the U-Net."""
        dtype = next(self.unet.parameters()).dtype
        return {"model": self.name, **self.replaced_parts, "dtype": short(dtype)}

    @property
    def text(self) -> nn.Module:
        """The text encoder."""
        return self.runner.networks["text"]

    @property
    def unet(self) -> nn.Module:
        """The U-Net; `sd.unet.compile()` makes it faster on a GPU, after a slow first call."""
        return self.runner.networks["unet"]

    @property
    def vae(self) -> nn.Module:
        """The autoencoder."""
        return self.runner.networks["vae"]

    # --- for walks of one's own -------------------------------------------------------------------

    def denoiser(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] = "",
        guidance_scale: float = 7.5,
        *,
        interval: Interval | None = None,
        corrections: Correction | Sequence[Correction] = (),
        long_prompt: str = "cut",
        embeddings: tuple[Condition, Condition] | None = None,
    ) -> Denoiser:
        """The U-Net with guidance toward a prompt, as samplers and likelihoods ask for it.

            grid = make_grid(sd.diffusion.schedule, 20)
            x = sample(ddim(sd.denoiser("a cat"), grid, torch.randn(1, 4, 64, 64)))
            sd.decode(x)[0]

        Gradients go through it to `x`, to the conditions and to the U-Net's parameters (not once
        it is packed). The prompts are read once, here, and are constants; for gradients to the text
        encoder give `embeddings=sd.conditions(prompt)`.

        Args:
            prompt: one for all samples, or one for each. Without prompt and embeddings, there is no
                guidance, and the condition is what the sampler is told (`cond=`): for guidance of
                one's own, as in `classifier_free(sd.denoiser(), 5.0, uncond)`.
            others: as for `sample` and `Settings`.

        Raises:
            ValueError: for no prompts, or settings that `classifier_free` refuses.
        """
        unet = UNetDenoiser(self.runner, self.diffusion.predicts, self.max_batch)
        if prompt is None and embeddings is None:
            return unet
        if embeddings is None:
            with torch.no_grad():
                embeddings = self.conditions(prompt, negative_prompt, long_prompt)
        wanted, uncond = embeddings
        guided = classifier_free(
            unet, guidance_scale, uncond, interval=interval, correct=corrections
        )

        def denoiser(x, t, alpha, sigma, cond=None):
            return guided(x, t, alpha, sigma, wanted if cond is None else cond)

        return denoiser

    def conditions(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] = "",
        long_prompt: str = "cut",
    ) -> tuple[Tensor, Tensor]:
        """What the U-Net is told with the prompts, and without: `[b, n, width]` each.

        To be handed to `denoiser` and `generate` as `embeddings`, changed or not.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        same = isinstance(negative_prompt, str)
        negatives = [negative_prompt] * len(prompts) if same else list(negative_prompt)
        ids = self.tokenizer(prompts + negatives, long_prompt=long_prompt)
        wanted, uncond = self.embed(ids).split([len(prompts), len(negatives)])
        return wanted, uncond

    def inpainting_condition(
        self,
        size: tuple[int, int],
        noise: Callable[[Tensor], Tensor] = torch.randn_like,
        picture: Tensor | None = None,
        mask: Tensor | None = None,
        batch: int = 1,
    ) -> Tensor:
        """What a U-Net for inpainting sees beside a state, its condition's "concat".

        Args:
            size: (H, W) in pixels.
            noise: draws the latents.
            picture, mask: `[1, 3, H, W]` from -1 to 1, and `[1, 1, H, W]`, 1 where to paint.
                Without a mask, all is to be painted.
            batch: how many images there are.

        Returns:
            `[batch, 1 + c, h, w]`: the mask, and the latents of the picture without what is under
            it.
        """
        if mask is None:
            mask = torch.ones(1, 1, *size)
            picture = mask.expand(-1, 3, -1, -1)
        latents = self.encode(picture * (1 - mask), noise, batch)
        small = F.interpolate(mask, latents.shape[2:]).to(latents).expand(batch, -1, -1, -1)
        return torch.cat([small, latents], dim=1)

    # --- the networks -----------------------------------------------------------------------------

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids `[b, n]`, n whole windows, to the vectors of their tokens `[b, n, width]`."""
        windows = ids.reshape(-1, self.config.text.length)
        self.text.check_ids(windows)
        windows, places = windows.unique(dim=0, return_inverse=True)  # each is read once
        tokens = self.runner.run("text", lambda text, ids: text(ids).tokens, windows)
        return tokens[places].reshape(*ids.shape, -1)

    def encode(self, pixels: Tensor, noise: Callable, batch: int = 1) -> Tensor:
        """A picture `[1, 3, H, W]` in [-1, 1] to latents `[batch, c, h, w]`, drawn with `noise`."""
        moments = state(self.runner.run("vae", lambda vae, x: vae.encode(x).moments, pixels))
        moments = moments.expand(batch, *moments.shape[1:])
        return DiagonalGaussian(moments, self.vae.config.scale).sample(noise)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> "list[Image]":
        """Latents `[b, c, h, w]` to pictures, through which no gradient could go."""
        return images.to_images(self.runner.run("vae", lambda vae, z: vae.decode(z), latents))


def clip_tokenizer(length: int) -> Tokenizer:
    """CLIP's, for a text encoder of this length."""
    clip = Tokenizer.clip()
    return clip if length == clip.length else Tokenizer(clip.merges, length=length)


def shipped_mini() -> "PathLike":
    """The small model that ships.

    Raises:
        FileNotFoundError: where it does not.
    """
    try:
        return data_path(MINI)
    except FileNotFoundError:
        raise FileNotFoundError(
            "the mini model does not come with this copy of sdlib: give another one, a file, a "
            "diffusers folder, or a hub's owner/name."
        ) from None


def basename(path: "str | PathLike") -> str:
    """The last name in a path, or in the id of a model on a hub."""
    return str(path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
