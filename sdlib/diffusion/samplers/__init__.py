"""Samplers: from noise to a sample, one grid node at a time (Chapters 1 and 6 to 9).

Each is a generator function, called alike: `sampler(denoiser, grid, x, *, noise, cond)`, with
options of its own behind them. It yields a `Step` for each node. To add one, write it in a file of
this folder (or in a notebook) under the decorator `@sampler`: `SAMPLERS` then has it by its name.
"""

from importlib import import_module
from pkgutil import iter_modules

from sdlib.diffusion.samplers.compose import chain, restart
from sdlib.diffusion.samplers.first_order import ddim, ddpm, euler, euler_ancestral, lcm
from sdlib.diffusion.samplers.multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, unipc
from sdlib.diffusion.samplers.registry import SAMPLERS, Sampler, differentiable, sampler
from sdlib.diffusion.samplers.singlestep import dpm_solver, dpmpp_2s
from sdlib.diffusion.samplers.slopes import edm, heun, lms, plms
from sdlib.diffusion.samplers.step import Noise, Step, fresh_std, sample, seeded, transfer

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)  # a new file is found without being named here

__all__ = [
    "SAMPLERS",
    "Noise",
    "Sampler",
    "Step",
    "chain",
    "ddim",
    "ddpm",
    "differentiable",
    "dpm_solver",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "edm",
    "euler",
    "euler_ancestral",
    "fresh_std",
    "heun",
    "lcm",
    "lms",
    "plms",
    "restart",
    "sample",
    "sampler",
    "seeded",
    "transfer",
    "unipc",
]
