"""The table of names: each column is the reference's own, and the way there and back loses nothing.

No output can show that a key's bias is in its place: it cancels in the softmax. Its name can.
"""

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors import safe_open
from safetensors.torch import save_file

from sdlib.models import (
    AutoencoderKL,
    CLIPImageConfig,
    CLIPImageEncoder,
    CLIPTextConfig,
    CLIPTextEncoder,
    UNet,
    UNetConfig,
    VAEConfig,
)
from sdlib.weights.names import to_layout
from sdlib.weights.parts import PARTS, match_part
from tests.networks import made
from tests.parity.networks import BUILD

NETWORKS = {
    "unet": UNet,
    "vae": AutoencoderKL,
    "text": CLIPTextEncoder,
    "image": CLIPImageEncoder,
}
FULL = {
    "sd15": ("unet", UNetConfig.sd15()),
    "inpainting": ("unet", UNetConfig.sd15_inpainting()),
    "sd2": ("unet", UNetConfig.sd2()),
    "sdxl": ("unet", UNetConfig.sdxl()),
    "vae": ("vae", VAEConfig.sd15()),
    "text": ("text", CLIPTextConfig.sd15()),
    "text of sd2": ("text", CLIPTextConfig.sd2()),
    "text with projection": ("text", CLIPTextConfig.tiny(projection=24)),
}
# Levels of the same width, so that no shape tells whether two of them are exchanged.
SMALL = {
    "unet": ("unet", UNetConfig.tiny(widths=(32,) * 3, blocks=2, depth=(1, 1, 0), heads=(4,) * 3)),
    "unet without a last level of its own": ("unet", UNetConfig.tiny(depth=(0, 1), linear=True)),
    "vae": ("vae", VAEConfig.tiny(widths=(32,) * 4, blocks=2)),
    "text": ("text", CLIPTextConfig.tiny(vocabulary=100, end=99)),
    "text with projection": ("text", CLIPTextConfig.tiny(vocabulary=100, end=99, projection=24)),
}
# What v1.5 does not have.
MORE = {
    "latent consistency": ("unet", UNetConfig.tiny(guidance_width=16)),
    "classes": ("unet", UNetConfig.tiny(classes=5)),
    "image tokens": ("unet", UNetConfig.tiny(image_width=8)),
    "no context": ("unet", UNetConfig.tiny(context_width=0)),
    "no attention": ("unet", UNetConfig.tiny(context_width=0, depth=(0, 0), middle_depth=0)),
    "few groups": ("vae", VAEConfig.tiny(groups=8)),
    "image encoder": ("image", CLIPImageConfig.tiny()),
}
LAYOUTS = ["original", "diffusers"]


def meta(kind, config):
    with torch.device("meta"):
        return NETWORKS[kind](config)


def shapes(tensors):
    return {name: tuple(x.shape) for name, x in tensors.items()}


def rows_of(kind, config):
    return list(PARTS[kind].rows(config))


def converted(kind, config, original):
    """diffusers' own reading of the original names."""
    whole = {PARTS[kind].prefix + name: x for name, x in original.items()}
    if kind == "text":
        return convert_ldm_clip_checkpoint(whole)
    theirs = BUILD[kind](config).config
    if kind == "unet":
        return convert_ldm_unet_checkpoint(whole, theirs)
    return convert_ldm_vae_checkpoint(whole, theirs)


def prefixed(tensors):
    """With the prefix of files, which transformers 5 leaves out inside a model without projection.

    Files on the hub have it; a model that 5 made from nothing is saved without it.
    """
    bare = not any(name.startswith("text_model.") for name in tensors)
    return {"text_model." * bare + name: x for name, x in tensors.items()}


@pytest.mark.parametrize(
    "kind, config",
    [*FULL.values(), *(MORE[name] for name in ("latent consistency", "classes", "image encoder"))],
)
def test_diffusers_column_is_the_references(kind, config):
    ours = to_layout(meta(kind, config).state_dict(), rows_of(kind, config), "diffusers")
    theirs = BUILD[kind](config).state_dict()
    assert shapes(ours) == shapes(prefixed(theirs) if kind == "text" else theirs)


@pytest.mark.parametrize("kind, config", FULL.values(), ids=FULL)
def test_original_column_is_read_by_the_references_converter(kind, config):
    tensors, rows = meta(kind, config).state_dict(), rows_of(kind, config)
    theirs = converted(kind, config, to_layout(tensors, rows, "original"))
    assert shapes(theirs) == shapes(to_layout(tensors, rows, "diffusers"))


@pytest.mark.parametrize("kind, config", SMALL.values(), ids=SMALL)
def test_each_original_tensor_becomes_the_same_one_as_in_the_reference(kind, config):
    tensors, rows = made(NETWORKS[kind], config).state_dict(), rows_of(kind, config)
    theirs = converted(kind, config, to_layout(tensors, rows, "original"))
    ours = to_layout(tensors, rows, "diffusers")
    assert set(theirs) == set(ours)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind, config", [*SMALL.values(), *MORE.values()], ids=[*SMALL, *MORE])
def test_there_and_back_copies_nothing_and_changes_nothing(kind, config, layout):
    tensors, rows = made(NETWORKS[kind], config).state_dict(), rows_of(kind, config)
    out = to_layout(tensors, rows, layout)
    back = match_part(kind, config, out, "x")[0]
    assert shapes(back) == shapes(tensors)
    for name, x in tensors.items():
        assert torch.equal(back[name], x)
        assert back[name].data_ptr() == x.data_ptr()
    again = to_layout(back, rows, layout)
    assert shapes(again) == shapes(out)


@pytest.mark.parametrize("kind, config", [*FULL.values(), *SMALL.values(), *MORE.values()])
def test_every_tensor_is_named_once(kind, config):
    rows = rows_of(kind, config)
    for names in ([r.ours for r in rows], *([r.name(layout) for r in rows] for layout in LAYOUTS)):
        assert len(set(names)) == len(names)
    assert {row.ours for row in rows} == set(meta(kind, config).state_dict())


def test_the_counts_of_a_v1_5_file():
    """The original file has one tensor more of text: position_ids, which is no weight."""
    counts = [len(rows_of(*FULL[name])) for name in ("sd15", "vae", "text")]
    assert counts == [686, 248, 196]
    unet = meta(*FULL["sd15"])
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964


def test_some_names_by_hand():
    """A few that people know, spelled out: no generator stands between them and this page."""
    unet = {r.original: r for r in rows_of(*FULL["sd15"])}
    assert unet["input_blocks.4.0.skip_connection.weight"].ours == "down.1.blocks.0.skip.weight"
    assert unet["output_blocks.2.1.conv.weight"].ours == "up.0.resize.conv.weight"
    assert unet["output_blocks.5.2.conv.weight"].ours == "up.1.resize.conv.weight"
    assert unet["output_blocks.8.2.conv.bias"].ours == "up.2.resize.conv.bias"
    door = unet["middle_block.1.proj_in.weight"]
    assert door.shape((1280, 1280), "original") == door.shape((1280, 1280), "diffusers")
    assert door.shape((1280, 1280), "original") == (1280, 1280, 1, 1)
    vae = {r.original: r for r in rows_of(*FULL["vae"])}
    assert vae["decoder.up.3.block.0.norm1.weight"].ours == "decoder.up.0.blocks.0.norm1.weight"
    query = vae["encoder.mid.attn_1.q.weight"]
    assert query.diffusers == "encoder.mid_block.attentions.0.to_q.weight"
    assert query.shape((512, 512), "original") == (512, 512, 1, 1)
    assert query.shape((512, 512), "diffusers") == (512, 512)
    text = {r.original: r.ours for r in rows_of(*FULL["text"])}
    for letter in "qkv":
        name = f"text_model.encoder.layers.11.self_attn.{letter}_proj.bias"
        assert text[name] == f"layers.11.attention.{letter}.bias"
    assert text["text_model.embeddings.position_embedding.weight"] == "positions.weight"


@pytest.mark.parametrize("name", ["text", "text with projection"])
def test_transformers_reads_our_names_from_disk(tmp_path, name):
    kind, config = SMALL[name]
    net = made(CLIPTextEncoder, config)
    ours = to_layout(net.state_dict(), rows_of(kind, config), "diffusers")
    theirs = BUILD["text"](config)
    theirs.config.save_pretrained(tmp_path)
    save_file(ours, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    held = prefixed(read.state_dict())
    assert all(torch.equal(held[name], x) for name, x in ours.items())
    read.save_pretrained(tmp_path / "again")
    with safe_open(tmp_path / "again" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(ours)


def test_diffusers_reads_our_names_from_disk(tmp_path):
    """Also the shapes: 1x1 convolutions where it has them."""
    for kind, config in (SMALL["unet"], SMALL["vae"]):
        net, theirs = made(NETWORKS[kind], config), BUILD[kind](config)
        ours = to_layout(net.state_dict(), rows_of(kind, config), "diffusers")
        theirs.save_config(tmp_path / kind)
        save_file(ours, tmp_path / kind / "diffusion_pytorch_model.safetensors")
        read, report = getattr(diffusers, type(theirs).__name__).from_pretrained(
            tmp_path / kind, output_loading_info=True
        )
        assert not any(report.values())
        assert all(torch.equal(read.state_dict()[name], x) for name, x in ours.items())
