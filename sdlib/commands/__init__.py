"""The commands of `python -m sdlib`. Each room registers its own with `register(commands)`."""

from collections.abc import Iterable


def named(what: str, name: str, names: Iterable[str]) -> str:
    """The one of `names` that `name` means, with or without its underscores."""
    for known in names:
        if known.replace("_", "") == name.lower().replace("_", "").replace("-", ""):
            return known
    raise ValueError(f"unknown {what} {name!r}; choose one of: {', '.join(names)}.")


def at_least(lowest: int, option: str, value: int) -> None:
    """Refuse a value of an option that is too small."""
    if value < lowest:
        raise ValueError(f"{option} must be at least {lowest}; got {value}.")
