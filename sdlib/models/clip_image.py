"""CLIP's image encoder, and CLIP: texts and pictures in one space (Chapter 17)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.clip import CLIPTextConfig, CLIPTextEncoder, Layer, check_activation

MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class CLIPImageConfig:
    """The size of a `CLIPImageEncoder`. The defaults are ViT-L/14's.

    Attributes:
        size: height and width of a picture, in pixels.
        patch: height and width of a patch; each becomes a token.
        width: of a token's vector.
        layers, heads: of the transformer.
        activation: "quick_gelu" (OpenAI's) or "gelu" (OpenCLIP's).
        projection: width of the space shared with texts.
    """

    size: int = 224
    patch: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    activation: str = "quick_gelu"
    projection: int = 768

    def __post_init__(self):
        check_activation(self.activation)
        if self.size % self.patch:
            raise ValueError(f"size must be a multiple of patch; got {self.size} and {self.patch}.")

    @property
    def tokens(self) -> int:
        """How many there are: one a patch, and the class token."""
        return (self.size // self.patch) ** 2 + 1

    @classmethod
    def vit_l_14(cls) -> "CLIPImageConfig":
        """The image half of CLIP ViT-L/14 (Radford et al. 2021)."""
        return cls()

    @classmethod
    def tiny(cls, **changes) -> "CLIPImageConfig":
        """A few thousand parameters in the same shape, for tests; `changes` are fields."""
        sizes = {"size": 16, "patch": 4, "width": 32, "layers": 2, "heads": 4, "projection": 24}
        return cls(**{**sizes, **changes})


class ImageEmbedding(NamedTuple):
    """`tokens [b, n, width]`, the class token first; `pooled [b, projection]`, the whole picture.

    The tokens are those of the last layer, before the norm, as in transformers.
    """

    tokens: Tensor
    pooled: Tensor


class CLIPImageEncoder(nn.Module):
    """`pixels [b, 3, size, size]` -> `ImageEmbedding`: a vision transformer.

    Patches are tokens (Dosovitskiy et al. 2021, section 3.1), with one more norm before the first
    layer (Radford et al. 2021, section 2.4).
    """

    def __init__(self, config: CLIPImageConfig | None = None):
        super().__init__()
        self.config = config = config or CLIPImageConfig()
        self.class_token = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.positions = nn.Embedding(config.tokens, config.width)
        self.norm_in = nn.LayerNorm(config.width)
        sizes = (config.width, config.heads, config.activation)
        self.layers = nn.ModuleList(Layer(*sizes, causal=False) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, pixels: Tensor) -> ImageEmbedding:
        """The vectors of each patch, and of the picture.

        Args:
            pixels: `[b, 3, size, size]`, scaled as they were in training.

        Raises:
            ValueError: for pixels of another shape.
        """
        size = self.config.size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(
                f"pixels must be [b, 3, {size}, {size}]; got {tuple(pixels.shape)}: resize them."
            )
        x = self.patches(pixels).flatten(2).transpose(1, 2)  # b (h w) width
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1) + self.positions.weight
        x = self.norm_in(x)
        for layer in self.layers:
            x = layer(x)
        return ImageEmbedding(x, self.projection(self.norm_out(x[:, 0])))


@dataclass(frozen=True)
class CLIPConfig:
    """The sizes of both towers of a `CLIP`. The defaults are ViT-L/14's."""

    text: CLIPTextConfig = CLIPTextConfig(projection=768)
    image: CLIPImageConfig = CLIPImageConfig()

    def __post_init__(self):
        if self.text.projection != self.image.projection:
            raise ValueError(
                "both towers need one projection, the width of the space that they share; got "
                f"{self.text.projection} for texts and {self.image.projection} for pictures."
            )

    @classmethod
    def vit_l_14(cls) -> "CLIPConfig":
        """CLIP ViT-L/14 (Radford et al. 2021), whose text half Stable Diffusion v1 uses."""
        return cls()

    @classmethod
    def tiny(cls) -> "CLIPConfig":
        """Small, but for the vocabulary, for tests."""
        return cls(CLIPTextConfig.tiny(projection=24), CLIPImageConfig.tiny())


class CLIP(nn.Module):
    """Two towers that map a picture and its caption to the same direction (Radford et al. 2021).

    Attributes:
        text, image: the towers.
        logit_scale: the logarithm of what cosines are multiplied by, the inverse of a temperature.
            It is learned, from 1/0.07 on, and never exceeds 100 (section 2.5).
    """

    def __init__(self, config: CLIPConfig | None = None):
        super().__init__()
        self.config = config = config or CLIPConfig()
        self.text = CLIPTextEncoder(config.text)
        self.image = CLIPImageEncoder(config.image)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        # training from nothing starts from small embeddings, as in the paper's code
        nn.init.normal_(self.text.tokens.weight, std=0.02)
        nn.init.normal_(self.text.positions.weight, std=0.01)
        nn.init.normal_(self.image.positions.weight, std=config.image.width**-0.5)

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of pictures and of texts, `[b, projection]` each."""
        return self.embed_images(pixels), self.embed_texts(ids)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Unit vectors of pictures, `[b, projection]`."""
        return F.normalize(self.image(pixels).pooled, dim=-1)

    def embed_texts(self, ids: Tensor) -> Tensor:
        """Unit vectors of texts, `[b, projection]`."""
        return F.normalize(self.text(ids).pooled, dim=-1)

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Scaled cosines of each of `image [a, d]` with each of `text [b, d]`, `[a, b]`."""
        return self.logit_scale.exp() * image @ text.T

    def loss(self, image: Tensor, text: Tensor) -> Tensor:
        """Symmetric InfoNCE of pairs: which text belongs to a picture, and which picture to a text.

        The mean of two cross-entropies (Radford et al. 2021, figure 3). Guessing costs log b. A
        `logit_scale` that has grown too large is cut first, in place.

        Args:
            image, text: unit vectors `[b, d]`; row i of both is a pair.
        """
        with torch.no_grad():
            self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        logits = self.logits(image, text)
        pairs = torch.arange(len(image), device=image.device)
        return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
