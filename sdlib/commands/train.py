"""`train` and `reproduce`: recipes, from the Swiss roll to mini Stable Diffusion."""

import sys
from pathlib import Path

from sdlib.commands import at_least, named
from sdlib.files import expand


def register(commands) -> None:
    """Add the commands of this room to the command line."""
    one = commands.add_parser("train", help="train a recipe; goes on where it was interrupted")
    add = one.add_argument
    add("name", metavar="NAME", help="a recipe, as swiss_roll; an unknown name lists them all")
    add("--out", type=expand, default=Path("runs"),
        help="the folder for weights and card; checkpoint, logs and sheets go into NAME in it "
             "(default: ./runs)")  # fmt: skip
    add("--set", metavar="KEY=VALUE", nargs="+", default=[], dest="settings", action="extend",
        help="other settings than the recipe's: steps=500 lr=1e-3 seed=1")  # fmt: skip
    add("--resume", action="store_true", help="go on from the checkpoint of an interrupted run")
    add("--every", metavar="STEPS", type=int, default=1000,
        help="steps between two checkpoints, validations and sheets (default: 1000)")  # fmt: skip
    add("--device", metavar="NAME", default="cpu",
        help="cpu (default: small networks are fastest there), cuda, mps")  # fmt: skip
    add("--tensorboard", action="store_true", help="log for TensorBoard as well")
    one.set_defaults(run=train)

    one = commands.add_parser("reproduce", help="train what ships again and compare the cards")
    one.add_argument("names", nargs="*", metavar="NAME", help="recipes (default: all)")
    one.add_argument("--out", type=expand, help="keep the new weights and cards in this folder")
    one.set_defaults(run=reproduce)


def train(args) -> int:
    """Train a recipe with a bar; a folder beside the result lets an interrupted run go on."""
    from sdlib.training import RECIPES, TrainingDiverged
    from sdlib.training.recipes import CHECKPOINT, run, save_trained

    at_least(1, "--every", args.every)
    recipe = RECIPES[named("recipe", args.name, RECIPES)].with_settings(settings(args.settings))
    folder = args.out / recipe.name
    folder.mkdir(parents=True, exist_ok=True)  # a folder that cannot be is said at once
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not args.resume:
        raise ValueError(
            f"{str(checkpoint)!r} is there, of a run that was interrupted: add --resume to go on "
            "from it, or remove it to start afresh."
        )
    try:
        network, card = run(
            recipe,
            folder,
            device=args.device,
            every=args.every,
            tensorboard=args.tensorboard,
            progress=True,
        )
    except TrainingDiverged as error:
        raise ValueError(str(error)) from error
    if not is_main_process():
        return 0
    path = save_trained(network, card, args.out)
    checkpoint.unlink(missing_ok=True)
    print(f"{path}: {recipe.steps} steps")
    for name, value in recipe.figures(card):
        print(f"  {name:<40}{value}")
    return 0


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that train together."""
    from accelerate import PartialState

    return PartialState().is_main_process


def settings(pairs: list[str]) -> dict[str, str]:
    """`KEY=VALUE` words by key."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--set takes KEY=VALUE, as steps=500; got {pair!r}.")
    return dict(pair.split("=", 1) for pair in pairs)


def reproduce(args) -> int:
    """Train again, and compare with the cards that ship; 1 if one is off."""
    import json

    from sdlib.files import data_path
    from sdlib.training import RECIPES
    from sdlib.training.recipes import run, save_trained, ships

    names = [named("recipe", name, RECIPES) for name in args.names]
    names = names or [name for name in RECIPES if ships(name)]
    shipped = {
        name: json.loads(data_path(f"{name}.json").read_text(encoding="utf8")) for name in names
    }
    off = []
    print(f"{'model':<24}{'figure':<28}{'shipped':>10}{'again':>10}{'allowed':>10}")
    for name in names:
        network, card = run(RECIPES[name], progress=sys.stderr.isatty())
        if args.out:
            save_trained(network, card, args.out)
        for figure, old, new, allowed in RECIPES[name].compare(shipped[name], card):
            fits = abs(new - old) <= allowed
            off += [] if fits else [name]
            mark = "" if fits else "  off"
            print(
                f"{name:<24}{figure:<28}{old:>10.4f}{new:>10.4f}{allowed:>10.4f}{mark}", flush=True
            )
    if off:
        print(f"not reproduced: {', '.join(dict.fromkeys(off))}", file=sys.stderr)
    return 1 if off else 0
