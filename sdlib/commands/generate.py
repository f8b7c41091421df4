"""`generate`: pictures from a prompt, with a checkpoint of Stable Diffusion."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

NUMBER = (int, float)
# The settings of a picture, which it carries and `--like` takes up: their types, and for those
# with an option, its words of help.
SETTINGS = {
    "prompt": (str, None),
    "negative_prompt": (str, "what to get away from"),
    "steps": (int, "of the sampler (default: 50)"),
    "sampler": (str, "a sampler's name (default: plms); a name that is none lists all"),
    "spacing": (str, "of the steps in time (default: the sampler's)"),
    "guidance_scale": (NUMBER, "how strongly the prompt counts; 1 is off (default: 7.5)"),
    "strength": (NUMBER, "how far to go from --image: 0 keeps it, 1 forgets it (default: 0.8)"),
    "seed": (int, "of the noise (default: drawn, and told)"),
    "width": (int, "in pixels, a multiple of 8 (default: 512, or the image's)"),
    "height": (int, "in pixels, a multiple of 8 (default: 512, or the image's)"),
    "long_prompt": (str, "what to do with more than 75 tokens: cut (default) or chunk"),
}
SOURCES = ("image", "mask")  # of a picture, which carries their fingerprints only


def register(commands) -> None:
    """Add the command to the command line."""
    one = commands.add_parser("generate", help="pictures from a prompt, with Stable Diffusion")
    add = one.add_argument
    add("prompt", nargs="?", metavar="PROMPT", help="what to show, in quotes")
    add("--model", metavar="PATH", required=True,
        help="a checkpoint: a file, a diffusers folder, or a hub's owner/name")  # fmt: skip
    add("--vae", metavar="PATH", help="take the autoencoder from here")
    add("--out", metavar="PATH",
        help="a .png, .jpg or .webp, which is replaced, or a folder; by default a new name made "
             "of prompt and seed, here")  # fmt: skip
    add("--like", metavar="PATH", type=Path,
        help="take the settings of a picture made by sdlib; options go first")  # fmt: skip
    add("--image", metavar="PATH", type=Path, help="a picture to start from")
    add("--mask", metavar="PATH", type=Path, help="white where to repaint --image")
    add("--count", metavar="INT", type=int, help="pictures, with seeds upward (default: 1)")
    for name, (kind, words) in SETTINGS.items():
        if words:
            kind = float if kind is NUMBER else kind
            shown = {int: "INT", float: "NUMBER", str: "TEXT"}[kind]
            add("--" + name.replace("_", "-"), metavar=shown, type=kind, help=words)
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the best)")
    add("--dtype", choices=("float32", "float16", "bfloat16"),
        help="precision (default: float16 on cuda, else float32)")  # fmt: skip
    add("--offload", action="store_true", help="keep idle networks on the CPU")
    add("--save-memory", action="store_true", help="less memory, more time")
    one.set_defaults(run=generate)


def generate(args) -> int:
    """Check all that can be checked, open the model, sample, write, and say where."""
    names = (*SETTINGS, *SOURCES, "count")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.like:
        settings = settings_of(args.like, settings, args.model) | settings
    if "prompt" not in settings:
        raise ValueError('say what to show: sdlib generate "a lighthouse in a storm" --model PATH.')
    check(args, settings)

    import torch

    from sdlib.images import parameters
    from sdlib.pipeline import StableDiffusion

    dtype = args.dtype and getattr(torch, args.dtype)
    other = {"vae": args.vae} if args.vae else {}
    bar = sys.stderr.isatty()
    with plain_warnings():
        try:
            sd = StableDiffusion.load(
                args.model, device=args.device, dtype=dtype, offload=args.offload, progress=bar,
                **other,
            )  # fmt: skip
            if args.save_memory:
                sd.save_memory()
            pictures = sd.generate(**settings, progress=bar)
        except torch.cuda.OutOfMemoryError:
            raise ValueError(
                "the device has too little memory for this; make --width, --height or --count "
                "smaller, or add --offload, --save-memory or --dtype float16."
            ) from None
    for number, picture in enumerate(pictures, start=1):
        made = parameters(picture)
        path = write(picture, args.out, number if len(pictures) > 1 else None, made)
        print(f"{path}: seed {made['seed']}, {picture.width} x {picture.height}")
    return 0


def settings_of(like: Path, given: dict, model: str) -> dict:
    """The settings that a picture carries. What it was made from must be given again."""
    from sdlib.images import fingerprint, parameters

    carried = parameters(like)
    settings = {name: carried[name] for name in SETTINGS if carried.get(name) is not None}
    for name, value in settings.items():
        if not isinstance(value, SETTINGS[name][0]):
            raise ValueError(f"the {name} in {str(like)!r} cannot be {value!r:.50}.")
    for source in SOURCES:
        expected = carried.get(source)
        if expected and source not in given:
            what = "an image" if source == "image" else "a mask"
            raise ValueError(f"{str(like)!r} was made from {what}; give that with --{source}.")
        if source in given and fingerprint(given[source]) != expected:
            note(f"--{source} is not what {str(like)!r} was made from.")
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    if carried.get("model", name) != name:
        note(f"{str(like)!r} was made by {carried['model']!r:.80}, and this is another model.")
    return settings


def check(args, settings: dict) -> None:
    """What would be a pity to hear of only when the model is loaded, or the picture is done."""
    import torch

    from sdlib.diffusion import schedule
    from sdlib.images import WRITES, check_suffix
    from sdlib.pipeline import StableDiffusion
    from sdlib.pipeline.request import make_request

    asked = signature(StableDiffusion.sample).bind(None, **settings)
    asked.apply_defaults()
    known = signature(make_request).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when it is done
        make_request(
            schedule("scaled_linear"),
            args.model,
            **{name: value for name, value in asked.arguments.items() if name in known},
        )
    if args.device:
        try:
            torch.empty(1, device=args.device)
        except (RuntimeError, AssertionError, ImportError) as error:
            why = str(error).strip().split("\n")[0].rstrip(".")
            raise ValueError(f"--device {args.device!r} cannot be used here: {why}.") from None
    if args.out:
        if Path(args.out).suffix.lower() not in WRITES and not is_folder(args.out):
            check_suffix(args.out)
        folder(args.out).mkdir(parents=True, exist_ok=True)
    if not os.access(folder(args.out), os.W_OK):
        raise ValueError(f"nothing can be written to {str(folder(args.out).resolve())!r}.")


def is_folder(out: str) -> bool:
    """Whether --out means a folder: one that is there, or whose name ends in a slash."""
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def folder(out: str | None) -> Path:
    """The folder in which --out puts pictures."""
    if out is None:
        return Path()
    return Path(out) if is_folder(out) else Path(out).parent


def write(picture, out: str | None, number: int | None, made: dict) -> Path:
    """Save a picture where --out says; `number` tells several apart."""
    from sdlib.images import save

    if out is not None and not is_folder(out):
        path = Path(out)
        return save(picture, path.with_stem(f"{path.stem}-{number}") if number else path)
    words = re.sub(r"[\W_]+", "-", made["prompt"].lower())[:40].strip("-") or "image"
    stem, again = f"{words}-{made['seed']}", 1
    path = folder(out) / f"{stem}.png"
    while path.exists():  # only a name that was asked for is replaced
        again += 1
        path = folder(out) / f"{stem}-{again}.png"
    return save(picture, path)


def note(text: str) -> None:
    """A sentence about what may not be meant, for people who go on."""
    print(f"sdlib: note: {text}", file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as sentences, without the lines of code that gave them."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: note(str(message))
        yield
