"""Every model that ships, by name: what made it, and how to load it.

`python -m sdlib train NAME` trains one, `make reproduce` trains what ships again and compares the
cards. `recipe` says what a recipe is; each family of models has a file beside it.
"""

import os
from pathlib import Path
from typing import Any

from sdlib.checks import pick
from sdlib.files import data_path
from sdlib.training.recipes import clip, latents, plane, vae
from sdlib.training.recipes.plane import PlaneRecipe
from sdlib.training.recipes.recipe import (
    CHECKPOINT,
    Recipe,
    load_weights,
    run,
    save_trained,
    train_steps,
)

__all__ = [
    "CHECKPOINT",
    "RECIPES",
    "PlaneRecipe",
    "Recipe",
    "load_trained",
    "run",
    "save_trained",
    "ships",
    "train_steps",
]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in [*plane.RECIPES, *vae.RECIPES, *clip.RECIPES, *latents.RECIPES]
}


def ships(name: str) -> bool:
    """Whether the trained model of a recipe comes with this copy of sdlib."""
    try:
        return data_path(f"{name}.safetensors").is_file()
    except FileNotFoundError:
        return False


def load_trained(name: str, folder: str | os.PathLike | None = None) -> Any:
    """A trained model, ready to use: for most, a `Diffusion`; see `Recipe.finished`.

    Args:
        name: of its recipe.
        folder: where `sdlib train --out` has put it; by default, what ships with sdlib.

    Raises:
        ValueError: for a name that is no recipe's.
        FileNotFoundError: for a model that is not there.
    """
    recipe, file = pick("trained model", RECIPES, name), f"{name}.safetensors"
    path = data_path(file) if folder is None else Path(folder) / file
    if not path.is_file():
        raise FileNotFoundError(f"there is no {str(path)!r}: train it with `sdlib train {name}`.")
    return load_weights(recipe, path)
