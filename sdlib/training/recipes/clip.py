"""CLIP on scenes: the text encoder of mini Stable Diffusion, and what judges it (Chapter 17)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.datasets import scenes
from sdlib.datasets.scenes.world import FRAME
from sdlib.models import CLIP, CLIPConfig, CLIPImageConfig, CLIPTextConfig, CLIPTextEncoder
from sdlib.text import Tokenizer, read_files
from sdlib.training.recipes.recipe import Recipe

GROUP = 64  # pictures and captions among which retrieval has to choose


@lru_cache(maxsize=8)
def learn_tokenizer(captions: int, size: int, length: int) -> Tokenizer:
    """The tokenizer of the first captions of the training scenes, learned once a process.

    Raises:
        ValueError: for a size that so few words do not fill.
    """
    corpus = (scenes.caption(scenes.scene(i)) for i in range(captions))
    tokenizer = Tokenizer.train(corpus, size, length=length)
    if len(tokenizer) < size:
        raise ValueError(
            f"{captions} captions fill only {len(tokenizer)} of {size} ids; set vocabulary to "
            "that, or take more captions."
        )
    return tokenizer


class CaptionCLIP(nn.Module):
    """A CLIP with the tokenizer of its captions, whose merges are saved with the weights.

    Attributes:
        clip: the two towers.
        tokenizer: from captions to ids; learned when it is first asked for, if it was not loaded.
    """

    def __init__(self, config: CLIPConfig, learn: Callable[[], Tokenizer]):
        super().__init__()
        self.clip, self.learn = CLIP(config), learn

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.learn()

    @property
    def text(self) -> CLIPTextEncoder:
        """The text tower, whose tokens a U-Net looks at."""
        return self.clip.text

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors of captions, `[b, projection]`."""
        ids = self.tokenizer(captions).to(self.clip.logit_scale.device)
        return self.clip.embed_texts(ids)

    def get_extra_state(self) -> Tensor:
        """The table of merges as bytes, which a file of tensors can hold."""
        table = self.tokenizer.files()["merges.txt"]
        return torch.frombuffer(bytearray(table.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        table = bytes(state.tolist()).decode()
        self.tokenizer = read_files({"merges.txt": table}, length=self.text.config.length)


@dataclass(frozen=True)
class CLIPRecipe(Recipe):
    """CLIP of scenes and their captions (Radford et al. 2021), with hard negatives.

    In a batch many scenes stand beside one with exchanged colors, so that a tower cannot do with a
    bag of words; and each caption has false ones, of which one attribute is swapped, that are only
    compared with its own picture (as in Yuksekgonul et al. 2023, section 4, but apart).

    Attributes:
        text_width, text_layers, text_heads: of the text tower.
        image_width, image_layers, image_heads, patch: of the image tower.
        projection: width of the space that they share.
        captions: how many of the training scenes the tokenizer learns from.
        vocabulary, length: ids that it has, and those in a window.
        negatives: false captions a picture.
        negative_weight: of their cross-entropy, beside InfoNCE.
    """

    batch: int = 128
    lr: float = 1e-3
    warmup: int = 500
    text_width: int = 192
    text_layers: int = 4
    text_heads: int = 6
    image_width: int = 192
    image_layers: int = 4
    image_heads: int = 6
    patch: int = 8
    projection: int = 128
    captions: int = 4000
    vocabulary: int = 800
    length: int = 32
    negatives: int = 1
    negative_weight: float = 1.0

    @property
    def config(self) -> CLIPConfig:
        text = CLIPTextConfig(
            width=self.text_width,
            layers=self.text_layers,
            heads=self.text_heads,
            vocabulary=self.vocabulary,
            length=self.length,
            activation="gelu",  # one kernel, where QuickGELU takes three
            projection=self.projection,
            end=self.vocabulary - 1,
        )
        image = CLIPImageConfig(
            size=FRAME,
            patch=self.patch,
            width=self.image_width,
            layers=self.image_layers,
            heads=self.image_heads,
            activation="gelu",
            projection=self.projection,
        )
        return CLIPConfig(text, image)

    @property
    def tokenizer(self) -> Tokenizer:
        return learn_tokenizer(self.captions, self.vocabulary, self.length)

    def build(self) -> CaptionCLIP:
        sizes = (self.captions, self.vocabulary, self.length)
        return CaptionCLIP(self.config, partial(learn_tokenizer, *sizes))

    def batches(self, generator: torch.Generator) -> "Pairs":
        return Pairs(self.batch, self.tokenizer, self.negatives)

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        pixels, ids, false = batch
        clip, b = network.clip, len(ids)
        image = clip.embed_images(pixels)
        texts = clip.embed_texts(torch.cat([ids, false.flatten(0, 1)]))
        own = torch.cat([texts[:b, None], texts[b:].unflatten(0, false.shape[:2])], dim=1)
        logits = clip.logit_scale.exp() * (own @ image[:, :, None]).squeeze(2)  # b (1 + negatives)
        hard = F.cross_entropy(logits, torch.zeros_like(ids[:, 0]))  # the first one is true
        return clip.loss(image, texts[:b]) + self.negative_weight * hard

    # --- how good it is ---

    def validate(self, network: nn.Module) -> dict[str, float]:
        found = self.retrieval(network, 2)
        swaps = self.swaps(network, 64, "validation").values()
        right = sum(s["accuracy"] * s["n"] for s in swaps) / sum(s["n"] for s in swaps)
        return {"image_to_text": found["image_to_text"]["accuracy"],
                "text_to_image": found["text_to_image"]["accuracy"],
                "swaps": round(right, 4)}  # fmt: skip

    def compare(self, shipped: Mapping[str, Any], again: Mapping[str, Any]) -> list:
        """Retrieval may be off by two in a hundred: other processors round otherwise."""
        return [
            (way, old["accuracy"], again["retrieval"][way]["accuracy"], 0.02)
            for way, old in shipped["retrieval"].items()
        ]

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        return {
            "retrieval": self.retrieval(network, 16),
            "swaps": {s: self.swaps(network, 1024, s) for s in ("validation", "held_out")},
        }

    @torch.no_grad()
    def retrieval(self, network: nn.Module, groups: int) -> dict[str, Any]:
        """How often the nearest of 64 is the right one, both ways: top-1 of full captions.

        The scenes of a group are of the validation split, no two with the same caption.
        """
        right, index = {"image_to_text": [], "text_to_image": []}, 0
        for _ in range(groups):
            group = {}
            while len(group) < GROUP:
                one = scenes.scene(index, "validation")
                group.setdefault(scenes.full_caption(one), one)
                index += 1
            cosines = _embed(network, group.values()) @ network.embed_captions([*group]).T
            pairs = torch.arange(GROUP, device=cosines.device)
            right["image_to_text"].append(cosines.argmax(1) == pairs)
            right["text_to_image"].append(cosines.argmax(0) == pairs)
        return {way: _share(torch.cat(found)) for way, found in right.items()}

    @torch.no_grad()
    def swaps(self, network: nn.Module, n: int, split: str) -> dict[str, dict[str, float]]:
        """How often a full caption is nearer to its picture than one with an attribute swapped.

        For each key of `scenes.SWAPS`, over those of the first `n` scenes that have such a swap.
        """
        right = {attribute: [] for attribute in scenes.SWAPS}
        for start in range(0, n, GROUP):
            made = [scenes.scene(i, split) for i in range(start, min(start + GROUP, n))]
            image = _embed(network, made)
            true = (image * network.embed_captions(list(map(scenes.full_caption, made)))).sum(1)
            for attribute, found in right.items():
                swapped = [scenes.swap(one, scenes.claim(one), attribute) for one in made]
                rows = [i for i, said in enumerate(swapped) if said]
                if rows:
                    text = network.embed_captions([scenes.words(swapped[i]) for i in rows])
                    found.append(true[rows] > (image[rows] * text).sum(1))
        return {name: _share(torch.cat(found)) for name, found in right.items() if found}


class Pairs:
    """Endless batches of scenes with true and false captions; its position can be saved.

    Args:
        batch: pictures in one; a scene is followed by itself with exchanged colors, if it has such
            a neighbor and its caption tells the two apart.
        tokenizer: of the captions.
        negatives: false captions a picture.
    """

    def __init__(self, batch: int, tokenizer: Tokenizer, negatives: int):
        self.batch, self.tokenizer, self.negatives = batch, tokenizer, negatives
        self.position = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels `[b, 3, 64, 64]` in [-1, 1], ids `[b, n]`, ids of what is false `[b, k, n]`.

        n is no more than the longest needs: what stands behind the end of a text has no effect.
        """
        while True:
            made = self._scenes()
            texts = [scenes.caption(one) for one in made]
            texts += [
                scenes.false_caption(one, 0, k) for one in made for k in range(self.negatives)
            ]
            ids = self.tokenizer(texts)
            ids = ids[:, : int((ids != self.tokenizer.end).sum(1).max()) + 1]
            false = ids[len(made) :].reshape(len(made), self.negatives, -1)
            yield _pixels(made), ids[: len(made)], false

    def _scenes(self) -> list[scenes.Scene]:
        made = []
        while len(made) < self.batch:
            one = scenes.scene(self.position)
            self.position += 1
            made.append(one)
            other = scenes.exchange_colors(one)
            if other and scenes.caption(other) != scenes.caption(one):
                made.append(other)
        return made[: self.batch]

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def _pixels(made: Sequence[scenes.Scene]) -> Tensor:
    return scenes.render(made).float().mul_(2 / 255).sub_(1)


def _embed(network: CaptionCLIP, made: Sequence[scenes.Scene]) -> Tensor:
    return network.clip.embed_images(_pixels(made).to(network.clip.logit_scale.device))


def _share(right: Tensor) -> dict[str, float]:
    """The share that is right, 1.96 standard errors of it, and of how many."""
    share, n = right.double().mean().item(), len(right)
    interval = 1.96 * (share * (1 - share) / n) ** 0.5
    return {"accuracy": round(share, 4), "interval": round(interval, 4), "n": n}


RECIPES = [CLIPRecipe("mini_clip", steps=10_000)]
