"""`Settings`, checked and brought into the form that a picture carries (Chapter 20)."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from math import isfinite
from numbers import Integral, Real
from typing import Any

from sdlib.checks import pick, whole_number
from sdlib.diffusion import SAMPLERS, SPACINGS
from sdlib.pipeline.settings import Settings

CALLED_WITH = ("denoiser", "grid", "x", "noise", "cond")  # what a walk itself hands to a sampler
LONG_PROMPTS = {"cut": "with a warning", "chunk": "into several windows"}


def checked(settings: Settings) -> dict[str, Any]:
    """The fields of `settings` in Python's own numbers, with names for functions that have one.

    Raises:
        ValueError: for what no model can do.
    """
    sampler, options = _named_sampler(settings.sampler, settings.sampler_options or {})
    spacing = _named(SPACINGS, settings.spacing)
    for kind, table, choice in ("sampler", SAMPLERS, sampler), ("spacing", SPACINGS, spacing):
        if choice is not None and not callable(choice):
            pick(kind, table, choice)
    pick("long_prompt", LONG_PROMPTS, settings.long_prompt)
    strength, scale = settings.strength, settings.guidance_scale
    if not isinstance(strength, Real) or not 0 <= strength <= 1:
        raise ValueError(
            f"strength must lie between 0 (keep the image) and 1 (forget it); got {strength!r}."
        )
    if not isinstance(scale, Real) or not isfinite(scale):
        raise ValueError(f"guidance_scale must be a number (1 is without guidance); got {scale!r}.")
    options = _plain_options(options)
    if sampler is not None:
        _check_names(sampler, options)
    sides = {name: getattr(settings, name) for name in ("width", "height")}
    return {
        "steps": whole_number("steps", settings.steps),
        "sampler": sampler,
        "sampler_options": options,
        "spacing": spacing,
        "guidance_scale": float(scale),
        "interval": _pair(settings.interval),
        "strength": float(strength),
        **{
            name: None if side is None else whole_number(name, side) for name, side in sides.items()
        },
    }


def _named(table: Mapping[str, Callable], choice: Any) -> Any:
    """The name under which a function stands in a table; any other choice as it is."""
    return next((name for name, function in table.items() if function is choice), choice)


def _named_sampler(sampler: Any, options: Any) -> tuple[Any, Any]:
    """A sampler by its name, if it has one; and its options, among them those of a partial."""
    while (
        isinstance(sampler, partial)
        and not sampler.args
        and all(map(_is_plain, sampler.keywords.values()))
    ):
        sampler, options = sampler.func, {**sampler.keywords, **options}
    return _named(SAMPLERS, sampler), options


def _plain_options(options: Any) -> dict[str, Any]:
    """Options as JSON holds them: numbers and texts by name."""
    named = isinstance(options, Mapping) and all(isinstance(name, str) for name in options)
    if not named or not all(map(_is_plain, options.values())):
        raise ValueError(
            f"sampler_options must be a dict of numbers and texts by name; got {options!r:.80}."
        )
    return {name: _plain(value) for name, value in options.items()}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | Real)


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _check_names(sampler: str | Callable, options: Mapping[str, Any]) -> None:
    """Refuse options that a sampler does not know."""
    if not options:
        return
    known = signature(sampler if callable(sampler) else SAMPLERS[sampler]).parameters
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return
    names = [name for name in known if name not in CALLED_WITH]
    unknown = [name for name in options if name not in names]
    if unknown:
        called = getattr(sampler, "__name__", sampler)
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise ValueError(f"the sampler {called} has no option {unknown[0]!r}; {has}.")


def _pair(interval: Any) -> tuple[float, float] | None:
    """(low, high) as floats."""
    if interval is None:
        return None
    try:
        low, high = map(float, interval)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low < high:
        raise ValueError(
            "interval must be (low, high) in sigma / alpha, two numbers with 0 <= low < high; got "
            f"{interval!r}."
        )
    return low, high
