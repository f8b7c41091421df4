"""One table of names: ours, the original file's and diffusers', for each tensor (Chapter 19).

A network's config generates its rows, and the rows are the mapping in both directions. The original
names are those inside a network's part of a checkpoint; its prefix stands before them in the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sdlib.models import CLIPImageConfig, CLIPTextConfig, UNetConfig, VAEConfig

Layout = Literal["original", "diffusers"]


@dataclass(frozen=True)
class Row:
    """What one tensor is called, and which layouts keep it as a 1x1 convolution where we do not."""

    ours: str
    original: str
    diffusers: str
    convolution: tuple[Layout, ...] = ()

    def name(self, layout: Layout) -> str:
        return self.original if layout == "original" else self.diffusers

    def shape(self, ours: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
        """The shape in a layout of a tensor that has shape `ours` here."""
        return (*ours, 1, 1) if layout in self.convolution else tuple(ours)


class Place(tuple):
    """Where we are in the three trees: (ours, original, diffusers), each a dotted path."""

    def at(self, ours: str, original: str, diffusers: str | None = None) -> "Place":
        """Further in; diffusers' name is the original's unless it is given."""
        names = (ours, original, original if diffusers is None else diffusers)
        return Place(f"{path}.{name}".strip(".") for path, name in zip(self, names, strict=True))

    def rows(self, *tensors: str, convolution: tuple[Layout, ...] = ()) -> Iterator[Row]:
        """The tensors of the layer here: its weight and bias, unless others are named."""
        for tensor in tensors or ("weight", "bias"):
            only = convolution if tensor == "weight" else ()
            yield Row(*(f"{path}.{tensor}" for path in self), only)


ROOT = Place(("", "", ""))


# --- the U-Net ------------------------------------------------------------------------------------


def unet_rows(config: UNetConfig) -> Iterator[Row]:
    """The rows of a U-Net."""
    yield from _mlp(ROOT.at("time", "time_embed", "time_embedding"))
    if config.added:
        yield from _mlp(ROOT.at("added", "label_emb.0", "add_embedding"))
    if config.classes:
        yield from ROOT.at("label", "label_emb", "class_embedding").rows("weight")
    if config.guidance_width:
        here = ROOT.at("guidance", "time_embed.cond_proj", "time_embedding.cond_proj")
        yield from here.rows("weight")
    yield from ROOT.at("stem", "input_blocks.0.0", "conv_in").rows()

    levels = range(len(config.widths))
    widths, now, aside = config.widths, config.widths[0], [config.widths[0]]
    block = 1  # of the original's list, in which blocks and changes of size are numbered through
    for i in levels:
        for j in range(config.blocks):
            here = ROOT.at(f"down.{i}", f"input_blocks.{block}", f"down_blocks.{i}")
            yield from _res_block(
                here.at(f"blocks.{j}", "0", f"resnets.{j}"), changes=now != widths[i]
            )
            yield from _transformer(
                here.at(f"transformers.{j}", "1", f"attentions.{j}"), config, config.depth[i]
            )
            now, block = widths[i], block + 1
            aside.append(now)
        if i < levels[-1]:
            original = f"input_blocks.{block}.0.op"
            diffusers = f"down_blocks.{i}.downsamplers.0.conv"
            yield from ROOT.at(f"down.{i}.resize.conv", original, diffusers).rows()
            block += 1
            aside.append(now)

    here = ROOT.at("middle", "middle_block", "mid_block")
    yield from _res_block(here.at("blocks.0", "0", "resnets.0"), changes=False)
    middle = here.at("transformers.0", "1", "attentions.0")
    yield from _transformer(middle, config, config.middle_depth)
    yield from _res_block(here.at("blocks.1", "2", "resnets.1"), changes=False)

    block = 0
    for k, i in enumerate(reversed(levels)):
        for j in range(config.blocks + 1):
            here = ROOT.at(f"up.{k}", f"output_blocks.{block}", f"up_blocks.{k}")
            yield from _res_block(
                here.at(f"blocks.{j}", "0", f"resnets.{j}"), changes=now + aside.pop() != widths[i]
            )
            yield from _transformer(
                here.at(f"transformers.{j}", "1", f"attentions.{j}"), config, config.depth[i]
            )
            now, block = widths[i], block + 1
        if i:  # in the original, the last thing in the last block of its level
            place = 2 if config.depth[i] else 1
            original = f"output_blocks.{block - 1}.{place}.conv"
            diffusers = f"up_blocks.{k}.upsamplers.0.conv"
            yield from ROOT.at(f"up.{k}.resize.conv", original, diffusers).rows()
    yield from ROOT.at("norm", "out.0", "conv_norm_out").rows()
    yield from ROOT.at("head", "out.2", "conv_out").rows()


def _mlp(here: Place) -> Iterator[Row]:
    yield from here.at("0", "0", "linear_1").rows()
    yield from here.at("2", "2", "linear_2").rows()


def _res_block(here: Place, changes: bool) -> Iterator[Row]:
    """A residual block of a U-Net; `changes`: whether its number of channels does."""
    yield from here.at("norm1", "in_layers.0", "norm1").rows()
    yield from here.at("conv1", "in_layers.2", "conv1").rows()
    yield from here.at("time", "emb_layers.1", "time_emb_proj").rows()
    yield from here.at("norm2", "out_layers.0", "norm2").rows()
    yield from here.at("conv2", "out_layers.3", "conv2").rows()
    if changes:
        yield from here.at("skip", "skip_connection", "conv_shortcut").rows()


def _transformer(here: Place, config: UNetConfig, depth: int) -> Iterator[Row]:
    if not depth:
        return
    projections = () if config.linear else ("original", "diffusers")
    yield from here.at("norm", "norm").rows()
    yield from here.at("proj_in", "proj_in").rows(convolution=projections)
    for i in range(depth):
        block = here.at(f"blocks.{i}", f"transformer_blocks.{i}")
        attentions = ("self_attention", "cross_attention")[: 2 if config.context_width else 1]
        for n, ours in enumerate(attentions, start=1):
            yield from block.at(f"norm{n}", f"norm{n}").rows()
            attention = block.at(ours, f"attn{n}")
            for letter in "qkv":
                yield from attention.at(letter, f"to_{letter}").rows("weight")
            yield from attention.at("out", "to_out.0").rows()
            if config.image_width and ours == "cross_attention":  # IP-Adapter's names in diffusers
                for letter in "kv":
                    key = attention.at(f"image_{letter}", f"processor.to_{letter}_ip.0")
                    yield from key.rows("weight")
        yield from block.at("norm3", "norm3").rows()
        yield from block.at("feed_forward.up.proj", "ff.net.0.proj").rows()
        yield from block.at("feed_forward.down", "ff.net.2").rows()
    yield from here.at("proj_out", "proj_out").rows(convolution=projections)


# --- the autoencoder ------------------------------------------------------------------------------


def vae_rows(config: VAEConfig) -> Iterator[Row]:
    """The rows of an autoencoder."""
    widths, last = config.widths, len(config.widths) - 1
    for half in ("encoder", "decoder"):
        here = ROOT.at(half, half)
        yield from here.at("stem", "conv_in").rows()
        yield from here.at("norm", "norm_out", "conv_norm_out").rows()
        yield from here.at("head", "conv_out").rows()
        middle = here.at("middle", "mid", "mid_block")
        yield from _vae_block(middle.at("0", "block_1", "resnets.0"), changes=False)
        yield from _vae_attention(middle.at("1", "attn_1", "attentions.0"))
        yield from _vae_block(middle.at("2", "block_2", "resnets.1"), changes=False)
    yield from ROOT.at("to_moments", "quant_conv").rows()
    yield from ROOT.at("from_latents", "post_quant_conv").rows()

    for i, width in enumerate(widths):
        here = ROOT.at(f"encoder.down.{i}", f"encoder.down.{i}", f"encoder.down_blocks.{i}")
        changes = width != widths[max(i - 1, 0)]
        for j in range(config.blocks):
            block = here.at(f"blocks.{j}", f"block.{j}", f"resnets.{j}")
            yield from _vae_block(block, changes and j == 0)
        if i < last:
            yield from here.at("resize.conv", "downsample.conv", "downsamplers.0.conv").rows()

        # the original counts the decoder's levels from the finest, which runs last
        k = last - i
        here = ROOT.at(f"decoder.up.{k}", f"decoder.up.{i}", f"decoder.up_blocks.{k}")
        changes = width != widths[min(i + 1, last)]
        for j in range(config.blocks + 1):
            block = here.at(f"blocks.{j}", f"block.{j}", f"resnets.{j}")
            yield from _vae_block(block, changes and j == 0)
        if i:
            yield from here.at("resize.conv", "upsample.conv", "upsamplers.0.conv").rows()


def _vae_block(here: Place, changes: bool) -> Iterator[Row]:
    for layer in ("norm1", "conv1", "norm2", "conv2"):
        yield from here.at(layer, layer).rows()
    if changes:
        yield from here.at("skip", "nin_shortcut", "conv_shortcut").rows()


def _vae_attention(here: Place) -> Iterator[Row]:
    yield from here.at("norm", "norm", "group_norm").rows()
    for letter in "qkv":
        layer = here.at(f"attention.{letter}", letter, f"to_{letter}")
        yield from layer.rows(convolution=("original",))
    yield from here.at("attention.out", "proj_out", "to_out.0").rows(convolution=("original",))


# --- CLIP's encoders ------------------------------------------------------------------------------


def text_rows(config: CLIPTextConfig) -> Iterator[Row]:
    """The rows of a CLIP text encoder, whose original names are those of transformers."""
    here = ROOT.at("", "text_model")
    yield from here.at("tokens", "embeddings.token_embedding").rows("weight")
    yield from here.at("positions", "embeddings.position_embedding").rows("weight")
    yield from _clip_layers(here, config.layers)
    yield from here.at("norm", "final_layer_norm").rows()
    if config.projection:
        yield from ROOT.at("projection", "text_projection").rows("weight")


def image_rows(config: CLIPImageConfig) -> Iterator[Row]:
    """The rows of a CLIP image encoder, whose original names are those of transformers."""
    here, token = ROOT.at("", "vision_model"), "vision_model.embeddings.class_embedding"
    yield Row("class_token", token, token)
    yield from here.at("patches", "embeddings.patch_embedding").rows("weight")
    yield from here.at("positions", "embeddings.position_embedding").rows("weight")
    yield from here.at("norm_in", "pre_layrnorm").rows()  # so it is spelled there
    yield from _clip_layers(here, config.layers)
    yield from here.at("norm_out", "post_layernorm").rows()
    yield from ROOT.at("projection", "visual_projection").rows("weight")


def _clip_layers(here: Place, layers: int) -> Iterator[Row]:
    for i in range(layers):
        layer = here.at(f"layers.{i}", f"encoder.layers.{i}")
        yield from layer.at("norm1", "layer_norm1").rows()
        for letter in ("q", "k", "v", "out"):
            yield from layer.at(f"attention.{letter}", f"self_attn.{letter}_proj").rows()
        yield from layer.at("norm2", "layer_norm2").rows()
        yield from layer.at("up", "mlp.fc1").rows()
        yield from layer.at("down", "mlp.fc2").rows()


# --- tensors by these names -----------------------------------------------------------------------


def to_layout(tensors: dict[str, Tensor], rows, layout: Layout) -> dict[str, Tensor]:
    """Our tensors by the names, and in the shapes, of a layout. Nothing is copied.

    The way back is `sdlib.weights.parts.match_part`, which does not trust what it is given.
    """
    return {
        row.name(layout): tensors[row.ours].reshape(row.shape(tensors[row.ours].shape, layout))
        for row in rows
    }
