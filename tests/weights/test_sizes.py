"""The sizes of a model as text."""

import json

import pytest

from sdlib.models import CLIPTextConfig, StableDiffusionConfig, UNetConfig, VAEConfig
from sdlib.weights.sizes import from_text, to_text

CONFIGS = [
    StableDiffusionConfig.sd15(),
    StableDiffusionConfig.tiny_inpainting(),
    StableDiffusionConfig(UNetConfig.sd2(), VAEConfig(scale=1), CLIPTextConfig.sd2(), "v"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_there_and_back(config):
    assert from_text(to_text(config), "x") == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
        ("[1]", r"StableDiffusionConfig is \[1\]"),
        ('{"unet": 3}', "UNetConfig is 3"),
        ('{"unet": {"width": 3}}', "unknown are width"),
        ('{"unet": {"widths": [32, "64"]}}', "'64' stands where 320 might"),
        ('{"unet": {"widths": [32, 64]}}', "one number a level; got 2, 4 and 4"),
        ('{"unet": {"linear": 1}}', "1 stands where False might"),
        ('{"text": {"activation": "relu"}}', "unknown activation 'relu'"),
        (json.dumps({"predicts": "x0"}), "the U-Net predicts 'x0'; sdlib knows eps, v"),
    ],
)
def test_what_is_not_ours_is_refused(text, words):
    with pytest.raises(ValueError, match=words) as error:
        from_text(text, "x.safetensors")
    assert "header of x.safetensors" in str(error.value)
