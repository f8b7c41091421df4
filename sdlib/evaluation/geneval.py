"""GenEval on scenes: how often a generated picture shows what its prompt says.

Ghosh et al. 2023 (GenEval) draw four pictures of each prompt and let a detector check objects,
counts, colors and positions; the overall score is the mean over six categories. Here the prompts
are those of `sdlib.datasets.scenes`, and `sdlib.evaluation.judge` reads the pictures.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from sdlib.checks import whole_number
from sdlib.datasets.scenes import CATEGORIES, EXTRAS, Prompt, prompts, satisfies
from sdlib.evaluation.judge import read

HELD_OUT = ("colors", "position", "attribute binding")  # also asked for what training never showed
BATCH = 64  # pictures that are asked for at once
NORMAL_95 = 1.959964  # of a standard normal, 95 % lies within this of 0


def score(
    draw: Callable[[list[str], list[int]], Tensor], n: int = 50, pictures: int = 4, seed: int = 0
) -> dict:
    """The scores of a generator, as plain data for its card.

    Args:
        draw: takes texts and as many seeds, and returns pictures `[b, 3, 64, 64]` in [-1, 1].
        n: prompts of each category.
        pictures: drawn of each prompt.
        seed: of the prompts.

    Returns:
        "overall", the mean over GenEval's six categories, and "categories": for each of these, of
        size, texture and place, and of prompts with held-out combinations, the "score" (the share
        of pictures that satisfy their prompt), its "interval" of 95 %, and how many "prompts" and
        "pictures" it rests on.
    """
    n, pictures = whole_number("n", n), whole_number("pictures", pictures)
    asked = {name: prompts(name, n, seed=seed) for name in (*CATEGORIES, *EXTRAS)}
    for name in HELD_OUT:
        asked[f"held-out {name}"] = prompts(name, n, "held_out", seed)
    found = {name: _score(draw, some, pictures) for name, some in asked.items()}
    overall = sum(found[name]["score"] for name in CATEGORIES) / len(CATEGORIES)
    return {"overall": overall, "categories": found}


def _score(draw: Callable, asked: Sequence[Prompt], pictures: int) -> dict:
    right = list(_judged(draw, [prompt for prompt in asked for _ in range(pictures)]))
    clusters = defaultdict(list)  # prompts that are alike are one
    for i, one in enumerate(right):
        clusters[asked[i // pictures].text].append(one)
    return {
        "score": sum(right) / len(right),
        "interval": interval(list(clusters.values())),
        "prompts": len(clusters),
        "pictures": len(right),
    }


def _judged(draw: Callable, asked: list[Prompt]) -> Iterator[bool]:
    """Whether each of the pictures of these prompts satisfies its claim; its seed is its number."""
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        pixels = draw([prompt.text for prompt in some], list(range(start, start + len(some))))
        if len(pixels) != len(some):
            raise ValueError(
                f"draw must return a picture for each prompt; got {len(pixels)} for {len(some)}."
            )
        for scene, prompt in zip(read(pixels), some, strict=True):
            yield satisfies(scene, prompt.claim)


def interval(clusters: Sequence[Sequence[bool]]) -> list[float]:
    """An interval of 95 % for a share, of observations that come in clusters.

    Pictures of one prompt succeed together, so they tell less than as many of different prompts.
    The interval is Wilson's (1927) at the effective sample size (Kish 1965): p (1 - p) over the
    variance of the share between clusters, at most the number of observations. Where all or none
    succeed, that variance says nothing, and each cluster counts once.
    """
    total, n = sum(map(len, clusters)), len(clusters)
    p = sum(map(sum, clusters)) / total
    size = n
    if 0 < p < 1 and n > 1:
        spread = sum((sum(one) - p * len(one)) ** 2 for one in clusters)
        variance = spread / total**2 * n / (n - 1)
        size = min(total, p * (1 - p) / variance) if variance else total
    return wilson(p, size)


def wilson(p: float, n: float) -> list[float]:
    """Wilson's interval of 95 % for a share `p` among `n` independent observations."""
    z = NORMAL_95
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [max(middle - reach, 0.0), min(middle + reach, 1.0)]
