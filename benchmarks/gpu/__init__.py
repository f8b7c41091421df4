"""One NVIDIA card: is it right there, how fast, in how much memory, beside diffusers.

    make gpu                                             # 8 minutes; data/reports/<card>.json
    python -m benchmarks.gpu --minutes 4                 # what fits, the most useful first
    python -m benchmarks.gpu --device cpu --size tiny    # a rehearsal without a card

Stable Diffusion v1.5 with random weights, which cost what trained ones do, both sides from one
folder. Needs what `sdlib` needs to generate, and diffusers and transformers for the comparison;
without them those rows are missing, and the report says so.

`sections` measures, `report` writes down. A report is written anew after every row, so what was
measured is kept when a section fails, when time is up, and when the process is killed.
"""
