"""The sections of a report, the most useful first."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import sd15
from benchmarks.gpu.bench import OURS, THEIRS, Bench, alternate, flops, picture_flops, timed
from benchmarks.gpu.report import Section
from sdlib.pipeline import StableDiffusion

# The largest difference from float32 on the CPU, in units of the result's root mean square
TOLERANCES = {"float32": 5e-4, "float16": 0.15, "bfloat16": 0.4}
PIXELS = {"largest": 5.0, "mean": 0.1}  # of 255, between a picture on the CPU and on the card
RATIOS = {"eager": 0.8, "default": 1.0, "reduce-overhead": 1.0}  # of ours to diffusers' likewise
PICTURES = {"image": "text to image", "img2img": "image to image", "inpainting": "inpainting"}

# What saves memory: `StableDiffusion.save_memory`'s four settings (slices of attention, slices and
# tiles of the autoencoder, samples a call of the U-Net), whether to offload, and the aim in GB
SAVERS: dict[str, tuple[tuple, bool, float | None]] = {
    "plain": ((1, False, None, None), False, None),
    "attention slices": ((4, False, None, None), False, 4.5),
    "VAE slices": ((1, True, None, None), False, None),
    "VAE tiles": ((1, False, 32, None), False, None),
    "offload": ((1, False, None, None), True, None),
    "everything": ((4, True, 32, 1), True, 3.0),
}


def weights(bench: Bench, add: Callable) -> str | None:
    """Random weights are drawn, written and opened, and whether there is diffusers is seen."""
    write = sd15.timed(bench.job(), lambda: [bench.weights(n) for n in bench.size.networks])
    add("draw random weights and write them", write, "s")
    add("open them with sdlib", sd15.timed(bench.job(), lambda: bench.ours), "s")
    opened = sd15.timed(bench.job(), lambda: bench.theirs)
    if bench.theirs is not None:
        add("open them with diffusers, import included", opened, "s")
    return bench.absent


# --- is it right? ---------------------------------------------------------------------------------


def calls(sd: StableDiffusion, pixels: int) -> Iterator[tuple[str, nn.Module, Callable, tuple]]:
    """Each network: its name, itself, how to ask it for a tensor, and what to ask."""
    generator = torch.Generator().manual_seed(0)
    noise = partial(torch.randn, generator=generator)
    small, text = pixels // 8, sd.config.text
    ids = torch.randint(0, 49406, (2, text.length), generator=generator)
    inputs = noise(2, 4, small, small), torch.tensor([1, 999])
    context = noise(2, text.length, sd.config.unet.context_width)
    yield "text encoder", sd.text, lambda net, ids: net(ids).tokens, (ids,)
    yield "U-Net", sd.unet, lambda net, *x: net(*x), (*inputs, context)
    picture = noise(1, 3, pixels, pixels).clamp(-1, 1)
    yield "encoder", sd.vae, lambda net, x: net.encode(x).moments, (picture,)
    yield "decoder", sd.vae, lambda net, z: net.decode(z), (noise(1, 4, small, small),)


@torch.no_grad()
def parity(bench: Bench, add: Callable) -> None:
    """Each network on the device, in each precision, beside float32 on the CPU."""
    for name in bench.size.networks:
        sd = bench.load(name, "cpu", "float32")
        for what, network, ask, inputs in calls(sd, bench.size.checked):
            expected = ask(network, *inputs)
            for dtype, aim in TOLERANCES.items():
                there = copy.deepcopy(network).to(bench.device, getattr(torch, dtype))
                found = ask(there, *(_like(x, there) for x in inputs)).float().cpu()
                error = (found - expected).abs().max() / expected.square().mean().sqrt()
                add(f"{name}: {what}, {dtype}", error.item(), "of RMS", aim)


def _like(x: Tensor, network: nn.Module) -> Tensor:
    """On the device of a network; numbers with fractions in its precision too."""
    first = next(network.parameters())
    return x.to(first.device, first.dtype if x.is_floating_point() else None)


def same_picture(bench: Bench, add: Callable) -> None:
    """The same seed on the CPU and on the device, in float32 and as it is measured."""
    job = bench.job(size=bench.size.checked, steps=4)
    for name in bench.size.networks:

        def picture(device: str, dtype: str, name: str = name) -> np.ndarray:
            return np.asarray(sd15.runner(job, bench.load(name, device, dtype))()[0], float)

        expected = picture("cpu", "float32")
        for dtype in dict.fromkeys(("float32", bench.dtype)):
            away = np.abs(picture(bench.device, dtype) - expected)
            for what, value in {"largest": away.max(), "mean": away.mean()}.items():
                aim = PIXELS[what] if dtype == "float32" else None
                add(f"{name}: {what} difference of pixels, {dtype}", value, "of 255", aim)


# --- how fast? ------------------------------------------------------------------------------------


def peak(bench: Bench, add: Callable) -> None:
    """How fast the device multiplies matrices, and which share of that the U-Net reaches."""
    name = bench.size.networks[-1]
    for dtype in dict.fromkeys((bench.dtype, "float32")):
        job = bench.job("unet", dtype=dtype)
        speed = bench.matmul[dtype] = sd15.matmul_peak(job, bench.size.matmul)
        add(f"matrix product, {dtype}", speed, "TFLOP/s")
        sd = bench.ours if dtype == bench.dtype else bench.load(name, bench.device, dtype)
        run = sd15.runner(job, sd)
        run()
        figures = alternate(bench, {OURS: run}, {OURS: sd})[OURS]
        add(f"U-Net, 2 samples, {dtype}", figures.least, "s", median=figures.median)
        reached = 2 * flops(name, "unet", bench.size.pixels) / figures.least / 1e12
        add(f"U-Net, 2 samples, {dtype}: share of the peak", 100 * reached / speed, "%")


def speed(bench: Bench, add: Callable, mode: str) -> str | None:
    """Seconds a picture, from noise, from a picture and repainted, both sides in turns."""
    pipes = bench.sides
    if mode != "eager":
        compile_networks(bench, mode)
    for part, name in PICTURES.items():
        runs = {who: sd15.runner(bench.job(part, who), pipe) for who, pipe in pipes.items()}
        first = {who: timed(bench, run, pipes[who])[0] for who, run in runs.items()}
        found = alternate(bench, runs, pipes)
        for who, figures in found.items():
            if part == "image" and mode != "eager":
                add(f"{name}, {who}: the first, compilation included", first[who], "s")
            add(f"{name}, {who}", figures.least, "s", median=figures.median)
        aim = RATIOS[mode]
        if THEIRS in found:
            add(
                f"{name}: time relative to diffusers",
                found[OURS].least / found[THEIRS].least,
                "",
                aim,
            )
        if part == "image" and mode != "reduce-overhead":  # whose memory stays taken
            for who, figures in found.items():
                add(f"{name}, {who}: memory", figures.memory, "GB")
            if THEIRS in found:
                ratio = found[OURS].memory / found[THEIRS].memory
                add(f"{name}: memory relative to diffusers", ratio, "", aim)
        if part == "image" and bench.matmul:
            size = bench.size
            work = picture_flops(size.networks[-1], size.pixels, size.steps) / 1e12
            share = work / found[OURS].least / bench.matmul[bench.dtype]
            add(f"{name}: share of the peak", 100 * share, "%")
    return bench.absent


def compile_networks(bench: Bench, mode: str) -> None:
    """Compile the networks of both sides, on CUDA; diffusers' in channels-last, as its own guide
    has it. (Ours are so in half precision.) On a CPU, calls stay plain."""
    if bench.device != "cuda":
        return
    torch.compiler.reset()
    for who, pipe in bench.sides.items():
        if who == THEIRS:
            for network in (pipe.unet, pipe.vae):
                network.to(memory_format=torch.channels_last)
        sd15.compile_networks(pipe, mode)


def best_batch(bench: Bench, add: Callable) -> None:
    """Images a second with more and more at once, until memory or speed has an end."""
    best, best_count = 0.0, 0
    for count in bench.size.batches:
        run = partial(generate, bench.ours, bench, count=count, steps=bench.size.steps)
        try:
            generate(bench.ours, bench, count=count, steps=2)
            seconds, memory = timed(bench, run, bench.ours)
        except torch.OutOfMemoryError:
            add(f"{count} at once, out of memory", float("nan"), "images/s")
            break
        add(f"{count} at once", count / seconds, "images/s")
        add(f"{count} at once: memory", memory, "GB")
        if count / seconds < best:
            break
        best, best_count = count / seconds, count
    add(f"the best batch, {best_count} at once", best, "images/s")


# --- in how much memory? --------------------------------------------------------------------------


def memory(bench: Bench, add: Callable) -> None:
    """The most memory with each saver and with all, for one picture and for four."""
    opened: dict[bool, StableDiffusion] = {}
    for saver, (settings, offload, aim) in SAVERS.items():
        if offload not in opened:
            name = bench.size.networks[-1]
            opened[offload] = bench.load(name, bench.device, bench.dtype, offload=offload)
        sd = opened[offload].save_memory(*settings)
        for count in (1, 4) if saver in ("plain", "VAE slices", "everything") else (1,):
            run = partial(generate, sd, bench, count=count, steps=2)
            run()
            _, most = timed(bench, run, sd)
            what = "one picture" if count == 1 else f"{count} pictures"
            add(f"{saver}, {what}", most, "GB", aim if count == 1 else None)


def generate(sd: StableDiffusion, bench: Bench, **settings: Any) -> list:
    """Pictures with guidance, as `sd15.runner` asks for them."""
    side = bench.size.pixels
    return sd.generate(
        sd15.PROMPT, seed=0, sampler="plms", width=side, height=side, progress=False, **settings
    )


SECTIONS = [
    Section("Weights", 0, weights),
    Section("Networks on the CPU and on the card", 20, parity),
    Section("A picture on the CPU and on the card", 15, same_picture),
    Section("The card's peak", 10, peak),
    Section("Seconds a picture, eager", 30, partial(speed, mode="eager")),
    # What asks for other batches comes before anything is compiled, or it would be again
    Section("Memory", 30, memory),
    Section("Images a second", 30, best_batch),
    Section("Seconds a picture, compiled", 120, partial(speed, mode="default")),
    Section("Seconds a picture, CUDA graphs", 80, partial(speed, mode="reduce-overhead")),
]
