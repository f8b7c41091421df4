"""How a picture is made, as one object for all who ask for it (Chapter 20).

Nothing heavy is imported here, since every command line reads the fields.
"""

import json
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

OWN = "own"  # the key under which a picture tells what it cannot repeat


def read_options(text: str) -> dict[str, Any]:
    """`"eta=0.5,variance=large"` to `{"eta": 0.5, "variance": "large"}`."""
    options = {}
    for item in filter(None, text.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ArgumentTypeError(f"an option is NAME=VALUE; got {item!r}.")
        try:
            options[name.strip()] = json.loads(value)
        except ValueError:
            options[name.strip()] = value.strip()
    return options


def read_pair(text: str) -> list[float]:
    """`"0.3,5"` to `[0.3, 5.0]`."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"two numbers are wanted, LOW,HIGH; got {text!r}.") from None
    return [low, high]


class Kind(NamedTuple):
    """What a setting is: how a command line reads it and calls it, and its types in JSON."""

    read: Callable[[str], Any]
    shown: str
    types: type | tuple[type, ...]


WHOLE = Kind(int, "INT", int)
NUMBER = Kind(float, "NUMBER", (int, float))
TEXT = Kind(str, "TEXT", str)
OPTIONS = Kind(read_options, "NAME=VALUE,...", dict)
PAIR = Kind(read_pair, "LOW,HIGH", list)


def setting(default: Any, kind: Kind, help: str) -> Any:
    """A field of `Settings`: its default, its kind, and what it says to people."""
    return field(default=default, metadata={"kind": kind, "help": help})


@dataclass(frozen=True)
class Settings:
    """How pictures are made, whatever they show: one object, checked when it is made.

    `StableDiffusion.generate` takes its fields by name, the command line has an option for each,
    and a picture carries them: a new setting is a new field, and a line where it is used. Samplers
    and spacings may be functions; one that stands in its table becomes its name, and a
    `functools.partial` of a sampler becomes the sampler and its `sampler_options`.

    Raises:
        ValueError: for what no model can do.
    """

    steps: int = setting(50, WHOLE, "of the sampler, for the whole way from noise")
    sampler: str | Callable | None = setting(
        None, TEXT, "a sampler's name (default: the model's); a name that is none lists all"
    )
    sampler_options: Mapping[str, Any] | None = setting(
        None, OPTIONS, "of the sampler, such as eta=0.5 for ddim"
    )
    spacing: str | Callable | None = setting(
        None, TEXT, "of the steps in time, to a clean end (default: what diffusers' sampler takes)"
    )
    guidance_scale: float = setting(
        7.5, NUMBER, "how strongly the prompt counts; 1 is without guidance"
    )
    interval: tuple[float, float] | None = setting(
        None, PAIR, "the levels sigma / alpha at which to guide (default: all)"
    )
    strength: float = setting(
        0.8, NUMBER, "how far back into noise an image goes, as a share of the steps: 0 keeps it, "
        "1 forgets it"
    )  # fmt: skip
    width: int | None = setting(
        None, WHOLE, "in pixels, a multiple of what a latent is wide, 8 in v1 (default: what the "
        "model was trained on, or the image's)"
    )  # fmt: skip
    height: int | None = setting(None, WHOLE, "in pixels, like width")
    long_prompt: str = setting(
        "cut", TEXT, "what to do with a prompt that is too long: cut it with a warning, or chunk it"
    )

    def __post_init__(self):
        from sdlib.pipeline.validation import checked

        for name, value in checked(self).items():
            object.__setattr__(self, name, value)

    @property
    def walk(self) -> Callable:
        """The sampler as a function, without its options."""
        from sdlib.diffusion import SAMPLERS

        return self.sampler if callable(self.sampler) else SAMPLERS[self.sampler]

    def told(self) -> dict[str, Any]:
        """The settings as plain data, which a picture carries and `Settings(**told)` takes back.

        Of a function of one's own, what is told is `{"own": its name}`.
        """
        return {one.name: tell(getattr(self, one.name)) for one in fields(self)}


def tell(value: Any) -> Any:
    """A value as JSON holds it."""
    if callable(value):
        return own(getattr(value, "__name__", type(value).__name__))
    return list(value) if isinstance(value, tuple) else value


def own(name: str) -> dict[str, str]:
    """What a picture tells of a thing that cannot be repeated from what it carries."""
    return {OWN: name}
