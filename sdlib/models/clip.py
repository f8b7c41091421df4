"""CLIP's text encoder: tokens to the vectors that the U-Net looks at (Chapter 17)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.attention import Attention


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU (Hendrycks & Gimpel 2016, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": F.gelu, "quick_gelu": quick_gelu}


def check_activation(name: str) -> None:
    """Refuse an activation that is not in `ACTIVATIONS`.

    Raises:
        ValueError: says which there are.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; choose one of: {', '.join(ACTIVATIONS)}.")


@dataclass(frozen=True)
class CLIPTextConfig:
    """The size of a `CLIPTextEncoder`. The defaults are ViT-L/14's, which Stable Diffusion v1 uses.

    Attributes:
        width: of a token's vector.
        layers, heads: of the transformer.
        vocabulary: how many tokens there are.
        length: the longest text, in tokens.
        activation: "quick_gelu" (OpenAI's) or "gelu" (OpenCLIP's).
        projection: width of the space shared with pictures, where there is a projection; else 0.
        end: the token that ends a text.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    vocabulary: int = 49408
    length: int = 77
    activation: str = "quick_gelu"
    projection: int = 0
    end: int = 49407

    def __post_init__(self):
        check_activation(self.activation)

    @classmethod
    def sd15(cls) -> "CLIPTextConfig":
        """The text half of CLIP ViT-L/14 (Radford et al. 2021)."""
        return cls()

    @classmethod
    def sd2(cls) -> "CLIPTextConfig":
        """Of OpenCLIP ViT-H/14, less its last layer, as Stable Diffusion 2 uses it."""
        return cls(width=1024, layers=23, heads=16, activation="gelu")

    @classmethod
    def tiny(cls, **changes) -> "CLIPTextConfig":
        """Small, but for the vocabulary, for tests; `changes` are fields."""
        return cls(**{"width": 32, "layers": 2, "heads": 4, **changes})


class TextEmbedding(NamedTuple):
    """`tokens [b, n, width]`; `pooled [b, width or projection]`, the whole text in one vector."""

    tokens: Tensor
    pooled: Tensor


class Layer(nn.Module):
    """A pre-norm transformer layer with self-attention: `[b, n, width]`.

    Args:
        width: of a token's vector.
        heads: of the attention.
        activation: a name of `ACTIVATIONS`.
        causal: whether a token sees only itself and those before it.
    """

    def __init__(self, width: int, heads: int, activation: str, causal: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, bias=True, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.activation(self.up(self.norm2(x))))


class CLIPTextEncoder(nn.Module):
    """`ids [b, n]` -> `TextEmbedding` (Radford et al. 2021, section 2.4)."""

    def __init__(self, config: CLIPTextConfig | None = None):
        super().__init__()
        self.config = config = config or CLIPTextConfig()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        sizes = (config.width, config.heads, config.activation)
        self.layers = nn.ModuleList(Layer(*sizes, causal=True) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.projection = (
            nn.Linear(config.width, config.projection, bias=False) if config.projection else None
        )

    def check_ids(self, ids: Tensor) -> None:
        """Refuse ids beyond the vocabulary, which `forward` cannot look at.

        Raises:
            ValueError: says which there are, and which there may be.
        """
        last = self.config.vocabulary - 1
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= last:
            raise ValueError(
                f"ids must lie between 0 and {last}, the vocabulary of this text encoder; "
                f"got {int(ids.min())} to {int(ids.max())}."
            )

    def forward(self, ids: Tensor, skip: int = 0, norm: bool = True) -> TextEmbedding:
        """The vectors of each token, and of the text.

        Args:
            ids: of tokens, `[b, n]` with n of at most `config.length`.
            skip: how many of the last layers the tokens leave out ("clip skip" less 1).
            norm: whether the last norm is applied to the tokens; SDXL leaves it out.

        Raises:
            ValueError: for ids of another shape, or a skip of all layers; `check_ids` looks at
                what the ids are.
        """
        config = self.config
        if ids.ndim != 2 or not 0 < ids.shape[1] <= config.length:
            raise ValueError(
                f"ids must be [b, n] with n from 1 to {config.length}; got {tuple(ids.shape)}."
            )
        if not 0 <= skip < config.layers:
            raise ValueError(f"skip must lie between 0 and {config.layers - 1}; got {skip}.")
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        kept = x
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i == config.layers - 1 - skip:
                kept = x
        whole = self.norm(x)
        first_end = (ids == config.end).int().argmax(dim=1)
        pooled = whole[torch.arange(len(ids), device=ids.device), first_end]
        if self.projection is not None:
            pooled = self.projection(pooled)
        return TextEmbedding(self.norm(kept) if norm else kept, pooled)
