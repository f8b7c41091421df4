"""The sizes of a model as text, for the header of its file (Chapter 19).

A file in the original layout says neither its sizes nor what its U-Net predicts. Ours do, in one
note, so that a model of another size or with v-prediction opens as it was saved.
"""

import json
from dataclasses import asdict, is_dataclass, replace
from typing import Any

from sdlib.models import StableDiffusionConfig
from sdlib.weights.configs import PREDICTIONS


def to_text(config: StableDiffusionConfig) -> str:
    """All sizes as JSON, for a note in the header of a file in the original layout."""
    return json.dumps(asdict(config))


def from_text(text: str, where: str) -> StableDiffusionConfig:
    """The way back; `where` is what to call the file in an error.

    Raises:
        ValueError: for anything that `to_text` did not write.
    """
    try:
        config = _filled(StableDiffusionConfig(), json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"the sizes in the header of {where} cannot be used ({str(error).rstrip('.')}): give "
            f"them as config=."
        ) from error
    if config.predicts not in PREDICTIONS.values():
        raise ValueError(
            f"the header of {where} says that the U-Net predicts {config.predicts!r}; sdlib knows "
            f"{', '.join(PREDICTIONS.values())}."
        )
    return config


def _filled(default: Any, found: Any) -> Any:
    """`found`, in the types of a default: a dataclass, numbers, a tuple of numbers, or text."""
    if is_dataclass(default):
        if not isinstance(found, dict):
            raise ValueError(f"{type(default).__name__} is {found!r:.80}")
        known = {name: value for name, value in vars(default).items() if name in found}
        if len(known) < len(found):
            raise ValueError(f"unknown are {', '.join(sorted(found.keys() - known.keys()))[:80]}")
        return replace(default, **{name: _filled(known[name], found[name]) for name in known})
    if isinstance(default, float) and type(found) is int:
        return float(found)
    if isinstance(default, tuple) and isinstance(found, list):
        return tuple(_filled(default[0], item) for item in found)
    if type(found) is not type(default):
        raise ValueError(f"{found!r:.80} stands where {default!r} might")
    return found
