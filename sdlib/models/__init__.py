"""Networks, each with a frozen config dataclass that says its size (from Chapter 1 on)."""

from sdlib.models.mlp import MLP, MLPConfig

__all__ = ["MLP", "MLPConfig"]
