"""The orders of convergence of the fast solvers, on a mixture whose denoiser is exact."""

import math
from functools import partial

import pytest
import torch

from sdlib.diffusion import ddim, make_grid, schedule
from sdlib.diffusion.samplers import (
    dpm_solver,
    dpmpp_2m,
    dpmpp_2s,
    dpmpp_3m,
    euler,
    heun,
    lms,
    plms,
    unipc,
)
from tests.diffusion.samplers.common import MIXTURE, even_in_lambda, last, start


@pytest.fixture(scope="module")
def exact():
    """Where the ODE of the mixture leads: two solvers of different kinds agree on it."""
    fine = last(unipc(MIXTURE, even_in_lambda(1500), start(), order=3))
    torch.testing.assert_close(
        fine, last(lms(MIXTURE, even_in_lambda(1500), start())), rtol=0, atol=1e-7
    )
    return fine


ORDERS = {
    "euler": (euler, 1),
    "ddim": (ddim, 1),
    "heun": (heun, 2),
    "dpmpp_2s": (dpmpp_2s, 2),
    "dpmpp_2m": (dpmpp_2m, 2),
    "dpmpp_3m": (dpmpp_3m, 2),  # by its published weights; see test_three_m_lacks_half_a_bend
    "dpm_solver-2": (dpm_solver, 2),
    "dpm_solver-3": (partial(dpm_solver, order=3), 3),
    "lms-2": (partial(lms, order=2), 2),
    "lms-3": (partial(lms, order=3), 3),
    "lms-4": (lms, 4),
    "unipc-1": (partial(unipc, order=1), 2),
    "unipc-2": (unipc, 3),
    "unipc-3": (partial(unipc, order=3), 4),
}


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name, exact):
    """Halve the step and the median error falls by 2^order (the mean follows a few points that
    stand where paths part)."""
    sampler, order = ORDERS[name]
    steps = (60, 120) if order < 4 else (48, 96)
    errors = [
        (last(sampler(MIXTURE, even_in_lambda(n), start())) - exact).norm(dim=1).median().item()
        for n in steps
    ]
    slope = math.log2(errors[0] / errors[1])
    assert slope == pytest.approx(order, abs=0.3), errors


def test_plms_is_of_second_order_where_steps_are_even_in_time():
    s = schedule("flow")
    grids = [
        make_grid(s, n, "trailing", "zero")[n // 10 : n - n // 10 + 1] for n in (80, 160, 1600)
    ]
    x = start() * grids[0].sigma[0] / grids[1].sigma[0]
    assert all(g.t[0] == grids[0].t[0] and g.t[-1] == grids[0].t[-1] for g in grids)
    fine = last(heun(MIXTURE, grids[2], x))
    errors = [(last(plms(MIXTURE, g, x)) - fine).norm(dim=1).median().item() for g in grids[:2]]
    assert math.log2(errors[0] / errors[1]) > 1.7


def test_three_m_lacks_half_a_bend(exact, monkeypatch):
    """DPM-Solver++(3M) weighs the second difference by half; with all of it the order is 3."""
    from sdlib.diffusion.samplers import multistep

    whole = multistep.moments
    monkeypatch.setattr(multistep, "moments", lambda z, n: whole(z, n) * [1.0, 2.0])
    errors = [
        (last(dpmpp_3m(MIXTURE, even_in_lambda(n), start())) - exact).norm(dim=1).median().item()
        for n in (60, 120)
    ]
    assert math.log2(errors[0] / errors[1]) > 2.7
