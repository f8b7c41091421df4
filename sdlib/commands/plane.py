"""`animate`, `train` and `reproduce`: the models of the plane."""

import sys
from pathlib import Path

from sdlib.commands import at_least, named


def register(commands) -> None:
    """Add the commands of this room to the command line."""
    one = commands.add_parser("animate", help="film points that condense from noise into a shape")
    one.add_argument("name", metavar="NAME", help="a shipped model or a data set, as swissroll")
    one.add_argument("--out", type=Path, help="a .gif or .webp (default: ./NAME.gif)")
    one.add_argument("--frames", type=int, default=60, help="pictures in the film (default: 60)")
    one.add_argument("--points", type=int, default=3000, help="particles (default: 3000)")
    one.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    one.add_argument("--sampler", default="ddpm", metavar="NAME",
                     help="ddpm, along the SDE (default), ddim, along the ODE, or another; "
                          "a name that is none lists all")  # fmt: skip
    one.set_defaults(run=animate)

    one = commands.add_parser("train", help="train a recipe; goes on where it was interrupted")
    one.add_argument("name", metavar="NAME", help="a recipe, as swiss_roll")
    one.add_argument("--out", type=Path, default=Path("trained"),
                     help="the folder for weights and card (default: ./trained)")  # fmt: skip
    one.add_argument("--steps", type=int, help="updates (default: the recipe's)")
    one.set_defaults(run=train)

    one = commands.add_parser("reproduce", help="train what ships again and compare the cards")
    one.add_argument("names", nargs="*", metavar="NAME", help="recipes (default: all)")
    one.add_argument("--out", type=Path, help="keep the new weights and cards in this folder")
    one.set_defaults(run=reproduce)


def animate(args) -> int:
    """Reverse diffusion from Gaussian noise, by a shipped model or else by the ideal denoiser."""
    at_least(2, "--frames", args.frames)
    at_least(1, "--points", args.points)
    import torch

    from sdlib.datasets import plane
    from sdlib.diffusion import SAMPLERS
    from sdlib.training import RECIPES
    from sdlib.viz.film import LOOK, SUFFIXES, film, walk

    name = named("model or data set", args.name, list(dict.fromkeys([*RECIPES, *plane.NAMES])))
    sampler = named("sampler", args.sampler, SAMPLERS)
    out = args.out or Path(f"{args.name}.gif")
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out must end in {' or '.join(SUFFIXES)}; got {str(out)!r}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(args.seed)
    steps = walk(name, args.points, args.frames, sampler, generator)
    film(steps, name.replace("_", " ")).save(out, **LOOK)
    print(f"{out}: {args.frames} frames, {out.stat().st_size / 1e6:.2f} MB")
    return 0


def train(args) -> int:
    """Train a recipe with a bar; a file beside the result lets an interrupted run go on."""
    from dataclasses import replace

    from sdlib.training import RECIPES, TrainingDiverged
    from sdlib.training.recipes import run, save_trained

    recipe = RECIPES[named("recipe", args.name, RECIPES)]
    if args.steps is not None:
        at_least(1, "--steps", args.steps)
        recipe = replace(recipe, steps=args.steps)
    args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be is said at once
    checkpoint = args.out / f"{recipe.name}.checkpoint.pt"
    try:
        network, card = run(recipe, checkpoint=checkpoint, progress=True)
    except TrainingDiverged as error:
        raise ValueError(str(error)) from error
    path = save_trained(network, card, args.out)
    checkpoint.unlink(missing_ok=True)
    print(f"{path}: {recipe.steps} steps")
    print_distances(card)
    return 0


def print_distances(card: dict) -> None:
    lowest = card["floor"]
    print(f"sliced Wasserstein-1 to the data (two real sets: {lowest}):")
    for steps, distance in card["sliced_wasserstein"].items():
        print(f"  {steps:>3} DDIM steps  {distance:.4f}  {distance / lowest:5.2f} x the floor")


def reproduce(args) -> int:
    """Train again, and compare with the cards that ship; 1 if one is off."""
    import json

    from sdlib.files import data_path
    from sdlib.training import RECIPES
    from sdlib.training.recipes import run, save_trained

    names = [named("recipe", name, RECIPES) for name in args.names] or list(RECIPES)
    shipped = {
        name: json.loads(data_path(f"{name}.json").read_text(encoding="utf8")) for name in names
    }
    off = []
    print(f"{'model':<24}{'DDIM steps':>10}{'shipped':>10}{'again':>10}{'allowed':>10}")
    for name in names:
        network, card = run(RECIPES[name], progress=sys.stderr.isatty())
        if args.out:
            save_trained(network, card, args.out)
        for steps, old in shipped[name]["sliced_wasserstein"].items():
            new, allowed = card["sliced_wasserstein"][steps], tolerance(old, card["floor"])
            fits = abs(new - old) <= allowed
            off += [] if fits else [name]
            mark = "" if fits else "  off"
            print(
                f"{name:<24}{steps:>10}{old:>10.4f}{new:>10.4f}{allowed:>10.4f}{mark}", flush=True
            )
    if off:
        print(f"not reproduced: {', '.join(dict.fromkeys(off))}", file=sys.stderr)
    return 1 if off else 0


def tolerance(distance: float, floor: float) -> float:
    """How far a distance may be off: a quarter of it, or half the floor if that is more.

    Other processors round otherwise, and thousands of updates make a slightly other network of it.
    """
    return max(0.25 * distance, 0.5 * floor)
