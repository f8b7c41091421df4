"""Stable Diffusion v1.5 beside diffusers: import, load, each network, a whole image, memory.

    python benchmarks/sd15.py            # an hour on two cores; writes 4 GB of weights at first
    python benchmarks/sd15.py --quick    # small images, each measured once
    python benchmarks/sd15.py --only unet decode --threads 1

Both open the same folder of random weights. Each figure comes from a fresh process, ours and theirs
in turns; in it, one call warms up and the fastest of the next is taken. Ours is measured as it
comes and packed (`StableDiffusion.pack`), diffusers as it comes (evaluation mode, its fused
attention, which it takes by itself) and in channels-last. "ratio" is our faster time over theirs as
it comes, "to best" over their faster; of memory, ours as it comes is compared. Networks run in
`torch.inference_mode`. "load" counts the import, as whoever waits for it does.

Times are of the clock. With `--threads 1` they are of the processor, which a busy machine disturbs
less. Where there is a CUDA device, float16 is measured on it, plain and compiled.

Prints figures; asserts nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "_build" / "benchmarks" / "sd15"
PROMPT = "a lighthouse in a storm, oil on canvas"
SIDES = ("ours", "ours, packed", "theirs", "theirs, channels last")
PARTS = ("import", "load", "text", "unet", "encode", "decode", "image")
PICTURES = {  # what is made of what, and diffusers' class for it
    "image": "StableDiffusionPipeline",
    "img2img": "StableDiffusionImg2ImgPipeline",
    "inpainting": "StableDiffusionInpaintPipeline",
}
WORK = {"text": 0.027, "unet": 1.61, "encode": 1.12, "decode": 2.52, "image": 20.2}  # TFLOP at 512


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Attributes:
        part: one of `PARTS` or `PICTURES`.
        side: one of `SIDES`.
        device, dtype: where and in which precision; `compiled` by `torch.compile`.
        folder: of the weights.
        size: of images, in pixels a side.
        steps: of a whole image.
        calls: that are timed, after one that is not.
        threads: of the processor.
    """

    part: str
    side: str
    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False
    folder: str = str(FOLDER)
    size: int = 512
    steps: int = 10
    calls: int = 2
    threads: int = 2


# --- what a process does --------------------------------------------------------------------------


def measure(job: Job) -> dict[str, float]:
    """{"seconds", "peak" (GiB of memory, of the device where it is CUDA)} of a job, done here."""
    ours = job.side.startswith("ours")
    if job.part == "import":
        seconds = timed(job, _import_ours if ours else _import_theirs)
    elif job.part == "load":
        seconds = timed(job, lambda: load(job))  # and import: what one waits for
    else:
        run = prepare(job)
        run()
        seconds = min(timed(job, run) for _ in range(job.calls))
    return {"seconds": seconds, "peak": peak(job)}


def timed(job: Job, run: Callable) -> float:
    """Seconds of the clock, or of the processor where one thread does it all."""
    clock = time.process_time if job.threads == 1 and job.device == "cpu" else time.perf_counter
    started = clock()
    run()
    if job.device == "cuda":
        import torch

        torch.cuda.synchronize()
    return clock() - started


def peak(job: Job) -> float:
    """The most memory that this process has had, in GiB."""
    return memory(job.device)[1] / 2**30


def memory(device: str) -> tuple[float, float]:
    """Bytes in use now, and the most since `forget_peak`: of tensors on CUDA, else resident."""
    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan"), float("nan")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    now, most = (int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return now, most


def forget_peak(device: str) -> None:
    """Let `memory` count its most anew, where the system allows it."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _import_ours() -> None:
    from sdlib.pipeline import StableDiffusion  # noqa: F401


def _import_theirs() -> None:
    from diffusers import StableDiffusionPipeline  # noqa: F401


def load(job: Job):
    """The pipeline of a side, as it opens a folder."""
    import torch

    dtype = getattr(torch, job.dtype)
    if job.side.startswith("ours"):
        from sdlib.pipeline import StableDiffusion

        sd = StableDiffusion.load(job.folder, device=job.device, dtype=dtype)
        return sd.pack() if job.side.endswith("packed") else sd
    import diffusers
    import transformers

    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(job.folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe = pipe.to(job.device)
    if job.side.endswith("channels last"):
        for network in (pipe.unet, pipe.vae):
            network.to(memory_format=torch.channels_last)
    return pipe


def prepare(job: Job) -> Callable:
    """What is timed: a call without arguments."""
    pipe = load(job)
    if job.compiled:
        compile_networks(pipe)
    return runner(job, pipe)


def compile_networks(pipe, mode: str = "default") -> None:
    """Compile the U-Net and the decoder at their next call, whatever was compiled before."""
    for network in (pipe.unet, pipe.vae.decoder):
        network.compile(mode=mode)


def runner(job: Job, pipe) -> Callable:
    """A call without arguments that does a job with a pipeline that was loaded for its side."""
    import torch

    ours = job.side.startswith("ours")
    if job.part in PICTURES:
        return painter(job, pipe)

    small, dtype = job.size // 8, getattr(torch, job.dtype)
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        x = torch.randn(shape, generator=generator).to(job.device, dtype)
        last = len(shape) == 4 and job.side.endswith("channels last")
        return x.to(memory_format=torch.channels_last) if last else x

    if job.part == "text":
        network = pipe.text if ours else pipe.text_encoder
        inputs = (torch.randint(0, 49406, (2, 77), generator=generator).to(job.device),)
    elif job.part == "unet":
        network, width = pipe.unet, pipe.config.unet.context_width if ours else None
        width = width or pipe.unet.config.cross_attention_dim
        t = torch.tensor([500, 500], device=job.device)
        inputs = (noise(2, 4, small, small), t, noise(2, 77, width))
    else:
        network = getattr(pipe.vae, job.part)
        x = noise(1, 3, job.size, job.size) if job.part == "encode" else noise(1, 4, small, small)
        if job.part == "decode" and not ours:
            x = x / pipe.vae.config.scaling_factor  # ours divides inside
        inputs = (x,)

    def run():
        with torch.inference_mode():
            return network(*inputs)

    return run


def painter(job: Job, pipe) -> Callable:
    """Makes a picture: from noise, from a picture, or from one that is repainted on the left."""
    import torch
    from PIL import Image

    size = (job.size, job.size)
    start = Image.linear_gradient("L").resize(size).convert("RGB")
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, job.size // 2, job.size))
    if job.side.startswith("ours"):
        given = {"image": {}, "img2img": {"image": start}}
        given = given.get(job.part, {"image": start, "mask": mask})
        settings = {"seed": 0, "steps": job.steps, "sampler": "plms", "progress": False, **given}
        return lambda: pipe.generate(PROMPT, width=job.size, height=job.size, **settings)
    import diffusers

    given = {"image": start, "strength": 0.8}
    if job.part != "img2img":
        given = {"width": job.size, "height": job.size}
    if job.part == "inpainting":
        given |= {"image": start, "mask_image": mask, "strength": 0.8}
    if job.part != "image":
        pipe = getattr(diffusers, PICTURES[job.part])(**pipe.components)
        pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": job.steps, **given}
    generator = torch.Generator().manual_seed(0)
    return lambda: pipe(PROMPT, generator=generator, **settings).images


# --- what the parent does -------------------------------------------------------------------------


def write_weights(folder: Path, tiny: bool = False) -> None:
    """A Stable Diffusion of random weights, in diffusers' layout."""
    import torch
    from torch import nn

    from sdlib.models import AutoencoderKL, CLIPTextEncoder, StableDiffusionConfig, UNet
    from sdlib.pipeline import StableDiffusion

    torch.manual_seed(0)
    config = StableDiffusionConfig.tiny() if tiny else StableDiffusionConfig.sd15()
    networks = [CLIPTextEncoder(config.text), UNet(config.unet), AutoencoderKL(config.vae)]
    for network in networks:
        for layer in network.eval().requires_grad_(False).modules():
            if isinstance(layer, nn.Embedding):
                layer.weight.mul_(0.02)  # of order 1 they would lead to infinity in half precision
    folder.parent.mkdir(parents=True, exist_ok=True)
    StableDiffusion(config, *networks, device="cpu").save(folder)


def in_child(job: Job) -> dict[str, float]:
    """`measure`, in a process of its own."""
    threads = {"OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
    environment = {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or both would be compiled at each import
    command = [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(jobs: list[Job], rounds: int, run: Callable = in_child) -> list[dict[str, float]]:
    """The least time and the least peak of each job, which are run in turns."""
    found = [[] for _ in jobs]
    for _ in range(rounds):
        for figures, job in zip(found, jobs, strict=True):
            figures.append(run(job))
    return [{key: min(f[key] for f in figures) for key in figures[0]} for figures in found]


def row(job: Job, figures: dict[str, dict[str, float]], matmul: float) -> list[str]:
    """A line of the table: times of each side and ours over theirs; then peaks, the same."""
    cells = [job.part]
    for what, digits in (("seconds", "{:.3g}"), ("peak", "{:.2f}")):
        found = {side: f[what] for side, f in figures.items()}
        cells += [digits.format(found[side]) if side in found else "-" for side in SIDES]
        ours, theirs = (
            [n for side, n in found.items() if side.startswith(who)] for who in ("ours", "theirs")
        )
        best = min(ours) if what == "seconds" else ours[0]
        cells += [f"{best / theirs[0]:.2f}", f"{best / min(theirs):.2f}"]
        if what == "seconds":
            full = job.part in WORK and job.size == 512 and matmul
            cells.append(f"{WORK[job.part] / best / matmul:.0%}" if full else "-")
    return cells


HEAD = ["", *("ours", "packed", "theirs", "ch.last", "ratio", "to best"), "of peak"]
HEAD += ["GiB", "packed", "theirs", "ch.last", "ratio", "to best"]


def matmul_peak(job: Job, n: int | None = None) -> float:
    """TFLOP/s of a product of n x n matrices (large ones by default) in the precision of a job."""
    import torch

    torch.set_num_threads(job.threads)
    n = n or (3072 if job.device == "cpu" else 8192)
    a, b = (torch.randn(n, n, device=job.device, dtype=getattr(torch, job.dtype)) for _ in "ab")
    return 2 * n**3 / min(timed(job, lambda: a @ b) for _ in range(6)) / 1e12


def text(rows: list[list[str]]) -> str:
    """Rows as a table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]) for r in rows
    )


def settings_here() -> list[dict]:
    """Devices and precisions to measure."""
    import torch

    found = [{"device": "cpu", "dtype": dtype} for dtype in ("float32", "bfloat16")]
    if torch.cuda.is_available():
        gpu = {"device": "cuda", "dtype": "float16"}
        found += [gpu, {**gpu, "compiled": True}]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="128 pixels, each measured once")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some of the figures")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the processor")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # what a child is told
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measure(Job(**json.loads(options.job)))))
        return
    if not FOLDER.exists():
        print(f"writing random weights to {FOLDER.relative_to(ROOT)}", flush=True)
        write_weights(FOLDER)
    size, steps, calls, rounds = (128, 2, 1, 1) if options.quick else (512, 10, 3, 3)
    print(f"{options.threads} threads, images of {size} pixels, {steps} steps with guidance")
    for setting in settings_here():
        base = {"size": size, "steps": steps, "calls": calls, "threads": options.threads}
        matmul = matmul_peak(Job("unet", "ours", **base, **setting))
        title = " ".join(str(v) for k, v in setting.items() if k != "compiled")
        title += ", compiled" if setting.get("compiled") else ""
        print(f"\n{title}: seconds; a matrix product runs at {matmul:.3g} TFLOP/s", flush=True)
        rows = [HEAD]
        for part in options.only or PARTS:
            sides = ("ours", "theirs") if part in ("import", "text") else SIDES
            jobs = [Job(part, side, **base, **setting) for side in sides]
            if part == "image":
                jobs = [Job(**{**asdict(job), "calls": 1}) for job in jobs]
            found = compare(jobs, 1 if part == "image" else rounds)
            rows.append(row(jobs[0], dict(zip(sides, found, strict=True)), matmul))
        print(text(rows), flush=True)


if __name__ == "__main__":
    main()
