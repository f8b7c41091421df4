"""How a network reads its condition: by keys, each of which it knows or refuses (Chapter 10).

A condition is None, a tensor, or a dict of tensors, batch first. What travels with it through
samplers and guidance is in `sdlib.diffusion.condition`; here are the keys that networks know.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# All keys, and what stands under them. Each network knows those that its config asks for.
KEYS = {
    "context": "tokens that cross-attention looks at, [b, m, context_width]",
    "image": "image tokens that cross-attention looks at as well, [b, m, image_width]",
    "concat": "channels that are stacked onto x, [b, c, h, w]: mask and masked image (inpainting)",
    "added": "a vector that the time embedding takes in, [b, added]: sizes and pooled text (SDXL)",
    "label": "a class a sample, [b]; the number of classes stands for none",
    "guidance_scale": "what guidance a distilled network imitates, [b]; 1 is none (LCM)",
    "residuals": "what is added to each skip connection, and last to the middle (ControlNet)",
}


def read_condition(cond: Any, known: Iterable[str], network: str) -> Mapping[str, Any]:
    """The parts of a condition by key; those that are None are left out.

    Args:
        cond: None, a dict, or a bare tensor, which stands for the context, or else the label.
        known: the keys that the network knows.
        network: what to call it in an error.

    Raises:
        ValueError: for a condition that the network has no use for; it names what is known.
    """
    known = tuple(known)
    if cond is None:
        return {}
    if not isinstance(cond, Mapping):
        bare = next((key for key in ("context", "label") if key in known), None)
        if bare is None:
            raise ValueError(f"this {network} was built without context and classes; cond is None.")
        return {bare: cond}
    unknown = [key for key in cond if key not in known]
    if unknown:
        knows = f"it knows {', '.join(known)}" if known else "it was built without any"
        raise ValueError(f"this {network} has no use for cond[{unknown[0]!r}]; {knows}.")
    return {key: value for key, value in cond.items() if value is not None}


def read_label(cond: Mapping[str, Any], x: Tensor, classes: int) -> Tensor:
    """The class of each sample of `x`, `[b]`; `classes`, which stands for none, if none is told.

    Raises:
        ValueError: unless there is a whole number for each sample.
    """
    if "label" not in cond:
        return torch.full((len(x),), classes, device=x.device)
    label = torch.as_tensor(cond["label"], device=x.device)
    if label.shape != x.shape[:1] or label.is_floating_point():
        raise ValueError(
            f"a label is a class for each of {len(x)} samples, a whole number from 0 to "
            f"{classes - 1}, or {classes} for none; got {label.dtype} of shape "
            f"{tuple(label.shape)}."
        )
    return label.long()


class Conditioned(nn.Module):
    """A network that is told conditions; its config names those that it knows, `conditions`."""

    def read(self, cond: Any) -> Mapping[str, Any]:
        """The parts of a condition by key; see `read_condition`."""
        return read_condition(cond, self.config.conditions, type(self).__name__)

    def check_condition(self, cond: Any) -> None:
        """Refuse what `forward` cannot look at, since it must not depend on values: wrong classes.

        Raises:
            ValueError: for a class that there is not.
        """
        label, classes = self.read(cond).get("label"), self.config.classes
        if label is None or not (label := torch.as_tensor(label)).numel():
            return
        if not 0 <= int(label.min()) <= int(label.max()) <= classes:
            raise ValueError(
                f"classes lie between 0 and {classes - 1}, or are {classes} for none; "
                f"got {label.unique().tolist()[:8]}."
            )
