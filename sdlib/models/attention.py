"""Attention, written once: self, cross and causal, in every network that has any (Chapter 11).

Each of n tokens asks a question (query), each of m tokens has a label (key) and something to say
(value). A token takes the mean of what the others say, weighted by how well their labels fit its
question.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """`x [b, n, width]`, `context [b, m, context_width]` -> `[b, n, width]`.

    Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2). Without a context,
    `x` looks at itself. The weights are never written down by torch's fused kernels; whoever wants
    to see them asks for `maps`, or sets `on_weights`.

    Image tokens are a second context with keys and values of its own: the same queries look at it,
    and the two answers are added (decoupled cross-attention; Ye et al. 2023, IP-Adapter, equation
    5).

    Args:
        width: of the tokens, in and out.
        heads: how many questions a token asks at once; each is width // heads wide.
        context_width: of the tokens looked at; by default those of `x`.
        bias: whether queries, keys and values have a bias (CLIP's and the autoencoder's do).
        causal: whether a token sees only itself and those before it.
        image_width: of the image tokens that `x` looks at as well; 0 for none.

    Attributes:
        slices: into how many parts to cut the queries, which are answered one after the other: less
            memory where no fused kernel fits.
        on_weights: called with the weights, `[b, heads, n, m]`, at every forward pass, if it is
            set.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        context_width: int | None = None,
        bias: bool = False,
        causal: bool = False,
        image_width: int = 0,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads; got {width} and {heads}.")
        self.heads, self.causal = heads, causal
        self.q = nn.Linear(width, width, bias=bias)
        self.k = nn.Linear(context_width or width, width, bias=bias)
        self.v = nn.Linear(context_width or width, width, bias=bias)
        self.out = nn.Linear(width, width)
        self.image_k = nn.Linear(image_width, width, bias=False) if image_width else None
        self.image_v = nn.Linear(image_width, width, bias=False) if image_width else None
        self.slices = 1
        self.on_weights: Callable[[Tensor], None] | None = None

    def forward(
        self, x: Tensor, context: Tensor | None = None, image: Tensor | None = None
    ) -> Tensor:
        context = x if context is None else context
        q, k, v = self._split(self.q(x)), self._split(self.k(context)), self._split(self.v(context))
        if self.on_weights is not None:
            weights = self._weights(q, k)
            self.on_weights(weights)
            mixed = weights.to(v.dtype) @ v
        else:
            mixed = self._attend(q, k, v)
        if image is not None:
            k, v = self._split(self.image_k(image)), self._split(self.image_v(image))
            mixed = mixed + self._attend(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`[b, heads, n, d]`: the values, mixed by how well their keys fit the queries."""
        if self.slices > 1 and not self.causal:
            parts = q.chunk(self.slices, dim=2)
            return torch.cat([F.scaled_dot_product_attention(p, k, v) for p in parts], dim=2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)

    def maps(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The weights over the context, `[b, heads, n, m]` in float32; each row sums to 1."""
        return self._weights(
            self._split(self.q(x)), self._split(self.k(x if context is None else context))
        )

    def _split(self, x: Tensor) -> Tensor:
        """`[b, n, heads * d]` -> `[b, heads, n, d]`."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        q, k = q.float(), k.float()  # products of halves overflow
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return scores.softmax(dim=-1)
