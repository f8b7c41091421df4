"""Networks, each with a frozen config dataclass that says its size (from Chapter 1 on)."""

from sdlib.models.attention import Attention
from sdlib.models.clip import CLIPTextConfig, CLIPTextEncoder, TextEmbedding
from sdlib.models.clip_image import (
    CLIP,
    CLIPConfig,
    CLIPImageConfig,
    CLIPImageEncoder,
    ImageEmbedding,
)
from sdlib.models.dit import DiT, DiTConfig
from sdlib.models.maps import CrossAttentionMaps
from sdlib.models.mlp import MLP, MLPConfig
from sdlib.models.stable_diffusion import StableDiffusionConfig
from sdlib.models.unet import UNet, UNetConfig
from sdlib.models.vae import AutoencoderKL, DiagonalGaussian, VAEConfig

__all__ = [
    "CLIP",
    "MLP",
    "Attention",
    "AutoencoderKL",
    "CLIPConfig",
    "CLIPImageConfig",
    "CLIPImageEncoder",
    "CLIPTextConfig",
    "CLIPTextEncoder",
    "CrossAttentionMaps",
    "DiT",
    "DiTConfig",
    "DiagonalGaussian",
    "ImageEmbedding",
    "MLPConfig",
    "StableDiffusionConfig",
    "TextEmbedding",
    "UNet",
    "UNetConfig",
    "VAEConfig",
]
