"""sdlib: the package that *Stable Diffusion from Scratch* builds, chapter by chapter.

Import what you need from its rooms: `sdlib.diffusion` (the mathematics), `sdlib.models`
(the networks), `sdlib.datasets`, `sdlib.training`, `sdlib.evaluation`, `sdlib.viz`.
"""

__version__ = "0.1.0"
