"""Which networks belong together in a Stable Diffusion (Chapter 19)."""

from dataclasses import dataclass

from sdlib.models.clip import CLIPTextConfig
from sdlib.models.unet import UNetConfig
from sdlib.models.vae import VAEConfig


@dataclass(frozen=True)
class StableDiffusionConfig:
    """The sizes of the three networks of a Stable Diffusion, and what its U-Net predicts.

    Attributes:
        unet, vae, text: of the networks.
        predicts: what the U-Net was trained to give: "eps" or "v".
    """

    unet: UNetConfig = UNetConfig()
    vae: VAEConfig = VAEConfig()
    text: CLIPTextConfig = CLIPTextConfig()
    predicts: str = "eps"

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
