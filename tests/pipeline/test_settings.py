"""Settings: one object that the API, the command line and pictures share."""

import json
from dataclasses import FrozenInstanceError, fields
from functools import partial

import numpy as np
import pytest
import torch

from sdlib.diffusion import SAMPLERS, SPACINGS
from sdlib.pipeline import Settings
from sdlib.pipeline.settings import read_options, read_pair


def test_what_is_told_is_taken_back():
    asked = Settings(
        steps=np.int64(7),
        sampler=SAMPLERS["ddim"],
        sampler_options={"eta": np.float32(0.5)},
        spacing=SPACINGS["karras"],
        guidance_scale=np.float32(2.5),
        interval=(np.float64(0.25), 5),
        strength=1,
        width=np.int32(64),
    )
    told = json.loads(json.dumps(asked.told()))
    assert Settings(**told) == asked
    assert told["sampler"] == "ddim" and told["sampler_options"] == {"eta": 0.5}
    assert told["spacing"] == "karras" and told["interval"] == [0.25, 5.0]
    assert set(told) == {one.name for one in fields(Settings)}
    with pytest.raises(FrozenInstanceError):
        asked.steps = 8


def test_a_partial_is_its_sampler_and_its_options():
    ddim = SAMPLERS["ddim"]
    for sampler, options in [
        (partial(ddim, eta=0.5), {}),
        (partial(ddim, eta=0.1), {"eta": 0.5}),  # what is said apart goes first
        (partial(partial(ddim, eta=0.1), eta=0.5), {}),
    ]:
        assert Settings(sampler=sampler, sampler_options=options) == Settings(
            sampler="ddim", sampler_options={"eta": 0.5}
        )
    assert Settings(sampler=partial(ddim)).sampler == "ddim"


def test_what_has_no_name_is_told_as_ones_own():
    def plms(denoiser, grid, x, *, noise, cond, pull=1.0):
        """Another one."""

    odd = partial(SAMPLERS["ddim"], noise=torch.zeros_like)  # no number and no text
    assert Settings(sampler=odd).told()["sampler"] == {"own": "partial"}
    mine = Settings(sampler=partial(plms, pull=2))
    assert mine.told()["sampler"] == {"own": "plms"} and mine.sampler_options == {"pull": 2}
    assert mine.walk is plms and Settings(sampler="plms").walk is SAMPLERS["plms"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"sampler": "ddim", "sampler_options": {"rho": 1}},
            "ddim has no option 'rho'; it has eta",
        ),
        ({"sampler": "euler", "sampler_options": {"eta": 1}}, "has no option 'eta'; it has none"),
        ({"sampler": "ddim", "sampler_options": {"noise": 1}}, "has no option 'noise'"),
        ({"sampler_options": {"eta": torch.ones(2)}}, "sampler_options must be a dict of numbers"),
        ({"sampler_options": ["eta"]}, "sampler_options must be a dict"),
        ({"interval": (5, 1)}, "interval must be .* got \\(5, 1\\)"),
        ({"interval": 3}, "interval must be"),
        ({"interval": (float("nan"), 1)}, "interval must be"),
    ],
)
def test_what_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        Settings(**settings)


def test_from_a_command_line():
    assert read_options("eta=0.5,variance=large") == {"eta": 0.5, "variance": "large"}
    assert read_options("order=3, a=true") == {"order": 3, "a": True}
    assert read_pair("0.3,5") == [0.3, 5.0]
