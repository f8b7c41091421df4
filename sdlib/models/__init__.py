"""Networks, each with a frozen config dataclass that says its size (Chapter 1 starts with an MLP)."""

from sdlib.models.mlp import MLP, MLPConfig

__all__ = ["MLP", "MLPConfig"]
