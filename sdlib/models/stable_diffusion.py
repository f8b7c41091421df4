"""Which networks belong together in a Stable Diffusion, and how it was trained (Chapter 19)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sdlib.models.clip import CLIPTextConfig
from sdlib.models.unet import UNetConfig
from sdlib.models.vae import VAEConfig


@dataclass(frozen=True)
class StableDiffusionConfig:
    """The sizes of the networks of a Stable Diffusion, and how its U-Net was trained.

    Attributes:
        unet, vae, text: configs of the three networks.
        predicts: what the U-Net was trained to give: "eps" or "v".
        schedule: the noise it was trained on, by its name in `sdlib.diffusion.SCHEDULES`.
        schedule_options: where they differ from that schedule's defaults: "steps", "beta_start",
            "beta_end", and "zero_terminal_snr" (Lin et al. 2024).
        sampler: the one to use by default, by its name in `sdlib.diffusion.SAMPLERS`.
        sample_size: height and width, in latents, of the pictures that it was trained on.
        others: configs of further networks, by their names in `sdlib.weights.parts.PARTS`.
    """

    unet: UNetConfig = UNetConfig()
    vae: VAEConfig = VAEConfig()
    text: CLIPTextConfig = CLIPTextConfig()
    predicts: str = "eps"
    schedule: str = "scaled_linear"
    schedule_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sampler: str = "plms"
    sample_size: int = 64
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def parts(self) -> dict[str, Any]:
        """The configs of all networks by their names."""
        return {"unet": self.unet, "vae": self.vae, "text": self.text, **self.others}

    def with_parts(self, parts: Mapping[str, Any]) -> "StableDiffusionConfig":
        """The same with these configs of networks, by name, in place of its own or beside them."""
        own = {name: config for name, config in parts.items() if name in vars(self)}
        others = {name: config for name, config in parts.items() if name not in own}
        return replace(self, **own, others={**self.others, **others})

    @classmethod
    def sd15(cls) -> "StableDiffusionConfig":
        """v1.1 to v1.5, and what was fine-tuned from them."""
        return cls()

    @classmethod
    def sd15_inpainting(cls) -> "StableDiffusionConfig":
        """v1.5 for inpainting."""
        return cls(unet=UNetConfig.sd15_inpainting())

    @classmethod
    def tiny(cls) -> "StableDiffusionConfig":
        """The same shape with few parameters (most of them in the vocabulary), for tests."""
        return cls(UNetConfig.tiny(), VAEConfig.tiny(), CLIPTextConfig.tiny())

    @classmethod
    def tiny_inpainting(cls) -> "StableDiffusionConfig":
        """`tiny` with the nine channels of an inpainting model."""
        return cls(UNetConfig.tiny(in_channels=9), VAEConfig.tiny(), CLIPTextConfig.tiny())


PRESETS = {
    "sd15": StableDiffusionConfig.sd15(),
    "sd15_inpainting": StableDiffusionConfig.sd15_inpainting(),
    "tiny": StableDiffusionConfig.tiny(),
    "tiny_inpainting": StableDiffusionConfig.tiny_inpainting(),
}
