"""`animate`: a film of the plane."""

from pathlib import Path

from sdlib.commands import at_least, named
from sdlib.files import expand


def register(commands) -> None:
    """Add the commands of this room to the command line."""
    one = commands.add_parser("animate", help="film points that condense from noise into a shape")
    one.add_argument("name", metavar="NAME", help="a shipped model or a data set, as swissroll")
    one.add_argument("--out", type=expand, help="a .gif or .webp (default: ./NAME.gif)")
    one.add_argument("--frames", type=int, default=60, help="pictures in the film (default: 60)")
    one.add_argument("--points", type=int, default=3000, help="particles (default: 3000)")
    one.add_argument(
        "--seed", type=int, default=0, help="of all randomness; -1 draws one (default: 0)"
    )
    one.add_argument("--sampler", default="ddpm", metavar="NAME",
                     help="ddpm, along the SDE (default), ddim, along the ODE, or another; "
                          "a name that is none lists all")  # fmt: skip
    one.set_defaults(run=animate)


def animate(args) -> int:
    """Reverse diffusion from Gaussian noise, by a shipped model or else by the ideal denoiser."""
    at_least(2, "--frames", args.frames)
    at_least(1, "--points", args.points)
    import torch

    from sdlib.checks import seed
    from sdlib.datasets import plane
    from sdlib.diffusion import SAMPLERS
    from sdlib.training.recipes import plane as recipes
    from sdlib.viz.film import LOOK, SUFFIXES, film, walk

    models = [recipe.name for recipe in recipes.RECIPES]
    name = named("model or data set", args.name, list(dict.fromkeys([*models, *plane.NAMES])))
    sampler = named("sampler", args.sampler, SAMPLERS)
    out = args.out or Path(f"{args.name}.gif")
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out must end in {' or '.join(SUFFIXES)}; got {str(out)!r}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = seed(args.seed)
    generator = torch.Generator().manual_seed(chosen)
    steps = walk(name, args.points, args.frames, sampler, generator)
    film(steps, name.replace("_", " ")).save(out, **LOOK)
    print(f"{out}: seed {chosen}, {args.frames} frames, {out.stat().st_size / 1e6:.2f} MB")
    return 0
