/**
 * The fast solvers (Chapter 9), as in `sdlib/diffusion/samplers`: generators called alike,
 * `sampler(denoiser, grid, x, options)`, that yield a Step at every node. Count the denoiser's calls
 * by wrapping it.
 *
 * @typedef {import("./diffusion.js").Denoiser} Denoiser
 * @typedef {import("./grid.js").Grid} Grid
 */
import { ddim, ddpm, noisy, renoise, toEps, transfer, walk } from "./diffusion.js";
import { fit, moments, sum } from "./fit.js";

const FEW = 15; // steps; a walk of fewer into sigma = 0 goes down to it by way of order 2
const lambda = (alpha, sigma) => Math.log(alpha / sigma);

/** The state at (alpha2, sigma2) if x / alpha goes straight along the slope `eps`. */
function along(x, eps, alpha, sigma, alpha2, sigma2) {
  const scale = alpha2 / alpha;
  return x.map((value, k) => scale * (value - sigma * eps[k]) + sigma2 * eps[k]);
}

const noiseOf = (x, x0, alpha, sigma) => x.map((value, k) => toEps(x0[k], value, alpha, sigma));

/** One step of Heun's method; DDIM's out of pure noise and into clean data. */
function heunStep(denoiser, x, x0, t2, alpha, sigma, alpha2, sigma2) {
  const there = transfer(x, x0, alpha, sigma, alpha2, sigma2);
  if (alpha === 0 || sigma2 === 0) return there;
  const eps = noiseOf(x, x0, alpha, sigma);
  const eps2 = noiseOf(there, denoiser(there, t2, alpha2, sigma2), alpha2, sigma2);
  return along(x, sum([0.5, 0.5], [eps, eps2]), alpha, sigma, alpha2, sigma2);
}

/** Heun's method: the mean of the slopes at both ends. Two calls a step. */
export function heun(denoiser, grid, x) {
  grid = noisy(grid);
  return walk(denoiser, grid, x, (i, x, x0, ...levels) => heunStep(denoiser, x, x0, grid.t[i + 1], ...levels));
}

/** DPM-Solver++(2M); eta = 1 is its SDE version. */
export function dpmpp2m(denoiser, grid, x, { eta = 0, noise } = {}) {
  let past = null;
  return walk(denoiser, grid, x, (i, x, x0, ...levels) => {
    const lam = lambda(...levels.slice(0, 2)), lam2 = lambda(...levels.slice(2));
    let guess = x0;
    if (past && Number.isFinite(lam2)) {
      const half = 0.5 * (lam2 - lam) / (lam - past.lam);
      guess = sum([1 + half, -half], [x0, past.x0]);
    }
    if (Number.isFinite(lam)) past = { lam, x0 };
    return renoise(x, guess, levels, eta, noise);
  });
}

/** DPM-Solver++(3M), with the published code's weights. */
export function dpmpp3m(denoiser, grid, x) {
  const short = grid.length < FEW && grid.sigma[grid.length] === 0;
  let past = []; // newest first
  return walk(denoiser, grid, x, (i, x, x0, ...levels) => {
    const lam = lambda(...levels.slice(0, 2)), lam2 = lambda(...levels.slice(2)), h = lam2 - lam;
    let guess = x0;
    if (Number.isFinite(lam) && Number.isFinite(lam2) && past.length) {
      const [near, far] = past.map((before) => (lam - before.lam) / h);
      const slope = sum([1 / near, -1 / near], [x0, past[0].x0]);
      if (past.length === 1 || (short && i === grid.length - 2)) guess = sum([1, 0.5], [x0, slope]);
      else {
        const before = sum([1 / (far - near), -1 / (far - near)], [past[0].x0, past[1].x0]);
        const bend = sum([1 / far, -1 / far], [slope, before]), [m1, m2] = moments(-h, 2);
        guess = sum([1, m1, m1 * near + m2 / 2], [x0, slope, bend]);
      }
    }
    if (Number.isFinite(lam)) past = [{ lam, x0 }, ...past.slice(0, 1)];
    return transfer(x, guess, ...levels);
  });
}

/** UniPC with B2: predict, look, correct the step that led here, and go on. */
export function unipc(denoiser, grid, x, { order = 2 } = {}) {
  const clean = grid.sigma[grid.length] === 0;
  let past = [], last = null; // newest first; the step that led here
  const mean = (used, lam2, arrived = null) => {
    const [here, ...rest] = past.slice(0, used), h = lam2 - here.lam;
    const places = rest.map((before) => (before.lam - here.lam) / h), values = [here, ...rest].map((p) => p.x0);
    if (arrived) {
      if (!rest.length) return sum([0.5, 0.5], [here.x0, arrived]);
      return fit([...values, arrived], [...places, 1], -h);
    }
    if (rest.length !== 1) return fit(values, places, -h);
    return sum([1 - 0.5 / places[0], 0.5 / places[0]], values); // the paper's short form: half the slope
  };
  return walk(denoiser, grid, x, (i, x, x0, ...levels) => {
    const lam = lambda(...levels.slice(0, 2)), lam2 = lambda(...levels.slice(2));
    if (last) x = transfer(last.x, mean(last.used, lam, x0), ...last.levels);
    if (!Number.isFinite(lam)) return transfer(x, x0, ...levels);
    past = [{ lam, x0 }, ...past.slice(0, order - 1)];
    const used = Math.min(order, past.length, clean ? grid.length - i : order);
    last = { x, levels, used };
    return transfer(x, mean(used, lam2), ...levels);
  });
}

/** The order of each step of a singlestep solver: 1, 2 ... again and again, and 1 into clean data. */
function strides(steps, order, clean) {
  let whole = Math.floor(steps / order), rest = steps % order;
  if (rest === 0 && clean) [whole, rest] = [whole - 1, order];
  const upTo = (n) => Array.from({ length: n }, (_, k) => k + 1);
  const tail = clean ? [...upTo(rest - 1), 1] : upTo(rest);
  return [...Array.from({ length: whole }, () => upTo(order)).flat(), ...tail];
}

/** The `move` of a singlestep solver that extrapolates `what` under z = sign h and moves with `go`. */
function stride(grid, order, what, sign, go) {
  const orders = strides(grid.length, order, grid.sigma[grid.length] === 0);
  let begun, met; // where the stride began; lambda and value at its nodes so far
  return (i, x, x0, alpha, sigma, alpha2, sigma2) => {
    if (orders[i] === 1 || begun.alpha === 0) [begun, met] = [{ x, alpha, sigma }, []];
    if (alpha === 0) return transfer(x, x0, alpha, sigma, alpha2, sigma2);
    const lam = lambda(alpha, sigma), lam2 = lambda(alpha2, sigma2);
    met.push({ lam, value: what(x, x0, alpha, sigma) });
    const [first] = met, last = met[met.length - 1], h = lam2 - first.lam;
    let mean = first.value;
    if (met.length > 1) {
      const share = (met.length === 2 ? 0.5 : moments(sign * h, 1)[0]) * h / (lam - first.lam);
      mean = sum([1 - share, share], [first.value, last.value]);
    }
    return go(begun.x, mean, begun.alpha, begun.sigma, alpha2, sigma2);
  };
}

/** DPM-Solver++(2S): strides of two nodes, on x0. */
export function dpmpp2s(denoiser, grid, x) {
  grid = noisy(grid);
  return walk(denoiser, grid, x, stride(grid, 2, (x, x0) => x0, -1, transfer));
}

/** DPM-Solver-2 and -3: strides of two or three nodes, on eps. */
export function dpmSolver(denoiser, grid, x, { order = 2 } = {}) {
  grid = noisy(grid);
  return walk(denoiser, grid, x, stride(grid, order, noiseOf, 1, along));
}

/** Linear multistep: a polynomial through the last slopes, against sigma / alpha. */
export function lms(denoiser, grid, x, { order = 4 } = {}) {
  let past = []; // newest first
  return walk(denoiser, grid, x, (i, x, x0, alpha, sigma, alpha2, sigma2) => {
    if (alpha === 0) return transfer(x, x0, alpha, sigma, alpha2, sigma2);
    const here = sigma / alpha, there = sigma2 / alpha2;
    past = [{ at: here, eps: noiseOf(x, x0, alpha, sigma) }, ...past.slice(0, order - 1)];
    const places = past.slice(1).map(({ at }) => (at - here) / (there - here));
    return along(x, fit(past.map(({ eps }) => eps), places, 0), alpha, sigma, alpha2, sigma2);
  });
}

// Adams-Bashforth at even spacing, newest slope first.
const ADAMS_BASHFORTH = {
  2: [3 / 2, -1 / 2],
  3: [23 / 12, -16 / 12, 5 / 12],
  4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
};

/** PLMS: Adams-Bashforth of order four after a first step of Heun; N steps take N + 1 calls. */
export function plms(denoiser, grid, x) {
  grid = noisy(grid);
  let past = []; // newest first
  return walk(denoiser, grid, x, (i, x, x0, ...levels) => {
    if (levels[0] === 0) return transfer(x, x0, ...levels);
    past = [noiseOf(x, x0, ...levels), ...past.slice(0, 3)];
    if (past.length === 1) return heunStep(denoiser, x, x0, grid.t[i + 1], ...levels);
    return along(x, sum(ADAMS_BASHFORTH[past.length], past), ...levels);
  });
}

/** Multistep consistency sampling: each estimate of x0 goes back under wholly fresh noise. */
export function lcm(denoiser, grid, x, { noise }) {
  return walk(denoiser, grid, x, (i, x, x0, alpha, sigma, alpha2, sigma2) => {
    const z = sigma2 > 0 ? noise(x) : null;
    return x0.map((value, k) => alpha2 * value + (z ? sigma2 * z[k] : 0));
  });
}

/** By the names of Python's `SAMPLERS`. */
export const SAMPLERS = {
  ddpm,
  ddim,
  euler: (denoiser, grid, x) => ddim(denoiser, grid, x),
  euler_ancestral: (denoiser, grid, x, { noise }) => ddim(denoiser, grid, x, { eta: 1, noise }),
  heun,
  dpm_solver: dpmSolver,
  dpmpp_2s: dpmpp2s,
  dpmpp_2m: dpmpp2m,
  dpmpp_2m_sde: (denoiser, grid, x, { noise }) => dpmpp2m(denoiser, grid, x, { eta: 1, noise }),
  dpmpp_3m: dpmpp3m,
  unipc,
  plms,
  lms,
  lcm,
};
