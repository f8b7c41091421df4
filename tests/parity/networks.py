"""What the parity tests share: references of our sizes, and how far ours are from them.

A reference is built on the meta device and given our own tensors, so that it costs no memory.
"""

import diffusers
import torch
import transformers
from torch import Tensor, nn

from sdlib.models import UNet
from sdlib.models.layers import time_embedding
from sdlib.weights.names import to_layout
from sdlib.weights.parts import PARTS
from tests.networks import numbers

TOLERANCE = 1e-4  # relative, in float32

# What SDXL takes in beside a pooled text: the picture's height and width, what was cut off above
# and on the left, and the height and width wanted; each in as many waves.
ADDED_SIZES = torch.tensor([1024, 768, 0, 32, 1024, 1024])
ADDED_TIME = 8


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the size (root of the mean square) of what is right."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    size = theirs.double().square().mean().sqrt()
    return float((ours.double() - theirs.double()).abs().max() / size)


# --- references -----------------------------------------------------------------------------------


def unet_reference(config) -> nn.Module:
    """diffusers' U-Net of our config, on the meta device."""
    depth = [d or config.middle_depth for d in config.depth]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": ADDED_TIME,
        "projection_class_embeddings_input_dim": config.added,
    }
    with torch.device("meta"):
        return diffusers.UNet2DConditionModel(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            block_out_channels=config.widths,
            layers_per_block=config.blocks,
            down_block_types=["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in config.depth],
            up_block_types=["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in config.depth[::-1]],
            transformer_layers_per_block=depth,
            attention_head_dim=config.heads,  # so it is called there
            cross_attention_dim=config.context_width,
            use_linear_projection=config.linear,
            time_cond_proj_dim=config.guidance_width or None,
            num_class_embeds=config.classes + 1 if config.classes else None,
            **(added if config.added else {}),
        )


def vae_reference(config) -> nn.Module:
    """diffusers' autoencoder of our config, on the meta device."""
    levels = len(config.widths)
    with torch.device("meta"):
        return diffusers.AutoencoderKL(
            block_out_channels=config.widths,
            layers_per_block=config.blocks,
            latent_channels=config.latent,
            scaling_factor=config.scale,
            norm_num_groups=config.groups,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
        )


def text_config(config) -> transformers.CLIPTextConfig:
    """transformers' words for our config of a text encoder."""
    return transformers.CLIPTextConfig(
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        vocab_size=config.vocabulary,
        max_position_embeddings=config.length,
        hidden_act=config.activation,
        projection_dim=config.projection or 1,
        bos_token_id=config.end - 1,
        eos_token_id=config.end,
        pad_token_id=config.end,
    )


def text_reference(config) -> nn.Module:
    """transformers' text encoder of our config, with a projection if ours has one, on meta."""
    kind = "CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"
    with torch.device("meta"):
        return getattr(transformers, kind)(text_config(config))


def image_config(config) -> transformers.CLIPVisionConfig:
    """transformers' words for our config of an image encoder."""
    return transformers.CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.size,
        patch_size=config.patch,
        hidden_act=config.activation,
        projection_dim=config.projection,
    )


def image_reference(config) -> nn.Module:
    """transformers' image encoder of our config, on the meta device."""
    with torch.device("meta"):
        return transformers.CLIPVisionModelWithProjection(image_config(config))


def clip_reference(config) -> nn.Module:
    """transformers' CLIP of our config, on the meta device."""
    theirs = transformers.CLIPConfig(
        text_config=text_config(config.text).to_dict(),
        vision_config=image_config(config.image).to_dict(),
        projection_dim=config.text.projection,
    )
    with torch.device("meta"):
        return transformers.CLIPModel(theirs)


def dit_reference(config, size=8) -> nn.Module:
    """diffusers' DiT of our config, for images of a size.

    Its norms and frequencies are set to those of the paper's code.
    """
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=config.channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        sample_size=size,
        patch_size=config.patch,
        num_embeds_ada_norm=config.classes,
        norm_eps=1e-6,
    )
    for block in net.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return net


BUILD = {
    "unet": unet_reference,
    "vae": vae_reference,
    "text": text_reference,
    "image": image_reference,
    "clip": clip_reference,
}


def reference(kind: str, net: nn.Module) -> nn.Module:
    """The reference of `net`, with its very tensors."""
    theirs = BUILD[kind](net.config)
    tensors = clip_tensors(net) if kind == "clip" else named(kind, net)
    if kind == "text" and "embeddings.token_embedding.weight" in theirs.state_dict():
        tensors = {name.removeprefix("text_model."): x for name, x in tensors.items()}
    for layer in theirs.modules():  # transformers' buffers have no numbers on meta
        if hasattr(layer, "position_ids"):
            layer.position_ids = torch.arange(layer.position_ids.shape[1])[None]
    theirs.load_state_dict(tensors, assign=True)
    return theirs.eval().requires_grad_(False)


def named(kind: str, net: nn.Module) -> dict[str, Tensor]:
    """A part's tensors by the names of diffusers and transformers."""
    return to_layout(net.state_dict(), list(PARTS[kind].rows(net.config)), "diffusers")


def clip_tensors(net: nn.Module) -> dict[str, Tensor]:
    """The tensors of our whole CLIP by transformers' names."""
    towers = named("text", net.text) | named("image", net.image)
    return towers | {"logit_scale": net.logit_scale}


def dit_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Our DiT's tensors by diffusers' names; it keeps embedders in every block."""
    ours, theirs = net.state_dict(), {}

    def copy(name: str, *froms: str):
        for end in ("weight", "bias"):
            theirs[f"{name}.{end}"] = torch.cat([ours[f"{f}.{end}"] for f in froms])

    copy("pos_embed.proj", "stem")
    copy("proj_out_1", "condition")
    copy("proj_out_2", "head")
    for i in range(net.config.depth):
        here, there = f"blocks.{i}", f"transformer_blocks.{i}"
        embedder = f"{there}.norm1.emb"
        copy(f"{embedder}.timestep_embedder.linear_1", "time.0")
        copy(f"{embedder}.timestep_embedder.linear_2", "time.2")
        theirs[f"{embedder}.class_embedder.embedding_table.weight"] = ours["label.weight"]
        copy(f"{there}.norm1.linear", f"{here}.condition")
        for letter in "qkv":
            copy(f"{there}.attn1.to_{letter}", f"{here}.self_attention.{letter}")
        copy(f"{there}.attn1.to_out.0", f"{here}.self_attention.out")
        copy(f"{there}.ff.net.0.proj", f"{here}.up")
        copy(f"{there}.ff.net.2", f"{here}.down")
    return theirs


# --- one run of each, compared --------------------------------------------------------------------


def unet_inputs(config, batch=2, size=(16, 16), tokens=7) -> tuple[Tensor, Tensor, dict]:
    """`(x, t, cond)` for our U-Net."""
    x = numbers("x", batch, 4, *size)
    t = torch.tensor([1, 981, 500, 20])[:batch]
    cond = {"context": numbers("context", batch, tokens, config.context_width)}
    if config.in_channels > 4:
        cond["concat"] = numbers("concat", batch, config.in_channels - 4, *size)
    if config.added:
        sizes = time_embedding(ADDED_SIZES, ADDED_TIME).reshape(1, -1).expand(batch, -1)
        cond["added"] = torch.cat(
            [numbers("added", batch, config.added - sizes.shape[1]), sizes], 1
        )
    if config.classes:
        cond["label"] = torch.tensor([0, config.classes, 1, 2])[:batch]
    if config.guidance_width:
        cond["guidance_scale"] = torch.tensor([1.0, 7.5, 4.0, 2.5])[:batch]
    return x, t, cond


def run_unet_reference(net: nn.Module, x: Tensor, t: Tensor, cond: dict) -> Tensor:
    """diffusers' U-Net on the inputs of ours."""
    stacked = torch.cat([x, cond["concat"]], 1) if "concat" in cond else x
    options = {}
    if "added" in cond:
        options = {
            "text_embeds": cond["added"][:, : -6 * ADDED_TIME],
            "time_ids": ADDED_SIZES.repeat(len(x), 1),
        }
    more = {"class_labels": cond.get("label")}
    if "guidance_scale" in cond:  # as LatentConsistencyModelPipeline embeds it
        embed = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
        width = net.config.time_cond_proj_dim
        more["timestep_cond"] = embed(None, cond["guidance_scale"] - 1, embedding_dim=width)
    if "residuals" in cond:
        *down, middle = cond["residuals"]
        more |= {
            "down_block_additional_residuals": tuple(down),
            "mid_block_additional_residual": middle,
        }
    return net(stacked, t, cond["context"], added_cond_kwargs=options, **more).sample


def unet_error(net: UNet, theirs: nn.Module, **sizes) -> float:
    """How far our U-Net's answer is from diffusers'."""
    inputs = unet_inputs(net.config, **sizes)
    return error(net(*inputs), run_unet_reference(theirs, *inputs))


def encode_error(net, theirs, batch=2, size=(32, 32)) -> float:
    """How far our encoder's mean and standard deviation are from diffusers'."""
    x = numbers("pixels", batch, 3, *size) / 2
    ours, right = net.encode(x), theirs.encode(x).latent_dist
    scale = theirs.config.scaling_factor
    return max(error(ours.mean, scale * right.mean), error(ours.std, scale * right.std))


def decode_error(net, theirs, batch=2, size=(4, 4)) -> float:
    """How far our decoder's picture is from diffusers'."""
    z = numbers("latents", batch, net.config.latent, *size)
    return error(net.decode(z), theirs.decode(z / theirs.config.scaling_factor).sample)


def ids(config, batch=3, length=77) -> Tensor:
    """Token ids as a tokenizer gives them: a start, a text, its end repeated to the end."""
    ids = (numbers("ids", batch, length) * 1e6).long() % (config.end - 1)
    ids[:, 0] = config.end - 1
    for i in range(batch):
        ids[i, length // (i + 1) - 1 :] = config.end
    return ids


def image_error(net, theirs, batch=3) -> float:
    """How far our tokens, and pooled vector, are from transformers'."""
    x = numbers("pixels", batch, 3, net.config.size, net.config.size)
    ours, right = net(x), theirs(x)
    tokens = error(ours.tokens, right.last_hidden_state)
    return max(tokens, error(ours.pooled, right.image_embeds))


def text_error(net, theirs, **sizes) -> float:
    """How far our tokens, and pooled vector, are from transformers'."""
    x = ids(net.config, **sizes)
    ours, right = net(x), theirs(x)
    pooled = right.text_embeds if net.config.projection else right.pooler_output
    return max(error(ours.tokens, right.last_hidden_state), error(ours.pooled, pooled))
