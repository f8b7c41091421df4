"""`generate`: pictures from a prompt, with a checkpoint of Stable Diffusion."""

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from sdlib.commands import named, out_of_memory, tell
from sdlib.files import expand
from sdlib.pipeline.settings import OWN, TEXT, WHOLE, Settings

# Kind and help of all that a picture carries and `--like` takes up: what it shows, and from what
# noise; then how it is made, as `Settings` says that. What has no help is no option.
SETTINGS = {
    "prompt": (TEXT, None),
    "negative_prompt": (TEXT, "what to get away from"),
    "seed": (WHOLE, "of the noise (default: -1, which draws one and tells it)"),
    **{one.name: (one.metadata["kind"], one.metadata["help"]) for one in fields(Settings)},
}
DEFAULTS = {one.name: one.default for one in fields(Settings) if one.default is not None}
SOURCES = ("image", "mask")  # of a picture, which carries their fingerprints only
# What else a picture was made by, which it carries to be compared.
PROVENANCE = {
    "model": "model", "vae": "autoencoder", "text": "text encoder", "dtype": "precision",
}  # fmt: skip


def register(commands) -> None:
    """Add the command to the command line."""
    one = commands.add_parser("generate", help="pictures from a prompt, with Stable Diffusion")
    add = one.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="what to show, best in quotes")
    add("--model", metavar="PATH", default="mini",
        help="a checkpoint: a file, a diffusers folder, or a hub's owner/name (default: the small "
             "model that ships)")  # fmt: skip
    add("--vae", metavar="PATH", help="take the autoencoder from here")
    add("--text", metavar="PATH", help="take the text encoder from here")
    add("--out", metavar="PATH", type=os.path.expanduser, 
        help="a .png, .jpg or .webp, which is replaced, or a folder; by default a new name made "
             "of prompt and seed, here; of several pictures, name-1.png is the first")  # fmt: skip
    add("--like", metavar="PATH", type=expand,
        help="take the settings of a picture made by sdlib; options go first")  # fmt: skip
    add("--image", metavar="PATH", type=expand, help="a picture to start from")
    add("--mask", metavar="PATH", type=expand, help="white where to repaint --image")
    add("--count", metavar="INT", type=int, help="pictures, with seeds upward (default: 1)")
    for name, (kind, words) in SETTINGS.items():
        default = f" (default: {DEFAULTS[name]})" if name in DEFAULTS else ""
        if words:
            add("--" + name.replace("_", "-"), metavar=kind.shown, type=kind.read,
                help=words + default)  # fmt: skip
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the best)")
    add("--dtype", choices=("float32", "float16", "bfloat16"),
        help="precision (default: float16 on cuda, else float32)")  # fmt: skip
    add("--offload", action="store_true", help="keep idle networks on the CPU")
    add("--save-memory", action="store_true", help="less memory, more time")
    one.set_defaults(run=generate)


def generate(args) -> int:
    """Check all that can be checked, open the model, sample, write, and say where."""
    given = vars(args) | {"prompt": " ".join(args.prompt) if args.prompt else None}
    names = (*SETTINGS, *SOURCES, "count")
    settings = {name: given[name] for name in names if given[name] is not None}
    carried = {}
    if args.like:
        carried, taken = settings_of(args.like, settings)
        settings = taken | settings
    if "prompt" not in settings:
        raise ValueError('say what to show: sdlib generate "a lighthouse in a storm".')
    check(args, settings)

    from sdlib.pipeline import StableDiffusion

    other = {part: getattr(args, part) for part in ("vae", "text") if getattr(args, part)}
    bar = sys.stderr.isatty()
    with plain_warnings():
        try:
            sd = StableDiffusion.load(
                args.model, device=args.device, dtype=args.dtype, offload=args.offload,
                progress=bar, **other,
            )  # fmt: skip
            sd = sd.save_memory() if args.save_memory else sd.pack()
            compare(args.like, carried, sd.provenance)
            pictures = sd.generate(**settings, progress=bar)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise ValueError(
                "there is too little memory for this; make --width, --height or --count smaller, "
                "or add --save-memory, --dtype bfloat16 or, on a GPU, --offload."
            ) from None
        saved = [
            keep(picture, args.out, number if len(pictures) > 1 else None)
            for number, picture in enumerate(pictures, start=1)
        ]
    print("\n".join(saved), flush=True)  # only now: where this fails, no picture is lost
    return 0


def settings_of(like: Path, given: dict) -> tuple[dict, dict]:
    """All that a picture carries, and the settings in it that are not given.

    What it was made from must be given again, and what has no name must be chosen.
    """
    from sdlib.images import fingerprint, parameters

    carried = parameters(like)
    settings = {name: carried[name] for name in SETTINGS if carried.get(name) is not None}
    settings = {name: value for name, value in settings.items() if name not in given}
    if "sampler" in given:  # which has options of its own
        settings.pop("sampler_options", None)
    for name, value in carried.items():
        if isinstance(value, dict) and OWN in value and name not in given:
            option = f"; choose one with --{name}" if SETTINGS.get(name, (None, None))[1] else ""
            raise ValueError(
                f"{str(like)!r} was made with {name} of its maker's own, {value[OWN]!r:.50}, "
                f"which cannot be repeated from here{option}."
            )
    for name, value in settings.items():
        if not isinstance(value, SETTINGS[name][0].types):
            raise ValueError(f"the {name} in {str(like)!r} cannot be {value!r:.50}.")
    for source in SOURCES:
        expected = carried.get(source)
        if expected and source not in given:
            what = "an image" if source == "image" else "a mask"
            raise ValueError(f"{str(like)!r} was made from {what}; give that with --{source}.")
        if source in given and fingerprint(given[source]) != expected:
            note(f"--{source} is not what {str(like)!r} was made from.")
    return carried, settings


def compare(like: Path | None, carried: dict, here: dict) -> None:
    """Note what a picture was made by that is not so here."""
    for key, what in PROVENANCE.items():
        before, now = carried.get(key), here.get(key)
        if "model" in carried and before != now:
            before, now = (repr(x)[:80] if x else "the model's own" for x in (before, now))
            note(f"{str(like)!r} was made with another {what}: {before}, which here is {now}.")


def check(args, settings: dict) -> None:
    """Refuse what can be refused before the model is loaded, which takes long."""
    from sdlib.diffusion import SAMPLERS
    from sdlib.images import check_suffix, open_image, open_mask
    from sdlib.pipeline.latent_diffusion import MINI, shipped_mini
    from sdlib.pipeline.request import check_mask, make_jobs
    from sdlib.pipeline.runner import usable

    if not args.model.strip():
        raise ValueError("--model is empty; give a file, a folder, or a hub's owner/name.")
    if args.model == MINI:
        try:
            shipped_mini()
        except FileNotFoundError:
            raise ValueError(
                "this copy of sdlib comes without a model; add --model PATH: a file, a diffusers "
                "folder, or a hub's owner/name."
            ) from None
    if args.strength is not None and "image" not in settings:
        raise ValueError("--strength says how far to go from an image; give that with --image.")
    if "sampler" in settings:
        settings["sampler"] = named("sampler", settings["sampler"], SAMPLERS)
    how = {name: settings[name] for name in SETTINGS if name in settings}
    make_jobs(*(how.pop(name, default) for name, default in
                {"prompt": None, "negative_prompt": "", "seed": None}.items()),
              settings.get("count", 1))  # fmt: skip
    Settings(**how)
    image, mask = (settings.get(source) for source in SOURCES)
    check_mask(image, mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when it is done
        if image is not None:
            picture = open_image(image)
        if mask is not None:
            open_mask(mask, picture.width, picture.height)
    usable(args.device)
    if args.out:
        if not is_folder(args.out):
            sides = (settings[name] for name in ("width", "height") if name in settings)
            check_suffix(args.out, *sides)
        try:
            folder(args.out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"--out needs the folder {str(folder(args.out))!r}, which cannot be made: "
                f"{error.strerror}."
            ) from None
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


def keep(picture, out: str | None, number: int | None) -> str:
    """Write a picture; if --out fails by now, in a new folder for what is passing.

    Args:
        picture: with its parameters.
        out: --out.
        number: tells several pictures apart; None if it is the only one.

    Returns:
        A line that says where it is.
    """
    from sdlib.images import parameters

    made = parameters(picture)
    try:
        path = write(picture, out, number, made)
    except (OSError, ValueError) as error:
        path = write(picture, f"{tempfile.mkdtemp(prefix='sdlib-')}/", None, made)
        note(f"{error} The picture is in {str(path)!r} instead.")
    return f"{path}: seed {made['seed']}, {picture.width} x {picture.height}"


def write(picture, out: str | None, number: int | None, made: dict) -> Path:
    """Save a picture where --out says; returns its path."""
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
    tell(f"note: {text}")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as sentences, without the lines of code that gave them."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: note(str(message))
        yield
