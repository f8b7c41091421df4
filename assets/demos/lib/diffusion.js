/**
 * Denoisers and samplers, as in `sdlib/diffusion`.
 *
 * A batch of n points is one Float64Array of 2 n numbers: x and y of the first point, then of the
 * second, and so on. A denoiser is a function (x, t, alpha, sigma) -> x0 on such batches.
 *
 * @typedef {(x: Float64Array, t: number, alpha: number, sigma: number) => Float64Array} Denoiser
 * @typedef {{i: number, t: number, x: Float64Array, x0: Float64Array}} Step
 *   what stands at node i: the state there and the estimate of x0 made there (at the last node, the
 *   sample and the last estimate)
 */

/**
 * What a network is asked for, and the way back to x0. All arguments are plain numbers.
 * @type {Object<string, {
 *   target: (x0: number, eps: number, alpha: number, sigma: number) => number,
 *   toX0: (out: number, x: number, alpha: number, sigma: number) => number}>}
 */
export const PARAMETERIZATIONS = {
  eps: {
    target: (x0, eps) => eps,
    toX0: (out, x, alpha, sigma) => (x - sigma * out) / alpha,
  },
  x0: {
    target: (x0) => x0,
    toX0: (out) => out,
  },
  v: {
    target: (x0, eps, alpha, sigma) => alpha * eps - sigma * x0,
    toX0: (out, x, alpha, sigma) => (alpha * x - sigma * out) / (alpha * alpha + sigma * sigma),
  },
  flow: {
    target: (x0, eps) => eps - x0,
    toX0: (out, x, alpha, sigma) => (x - sigma * out) / (alpha + sigma),
  },
};

/** The noise that goes with an estimate of x0. */
export const toEps = (x0, x, alpha, sigma) => (x - alpha * x0) / sigma;

/** The noisy batch alpha x0 + sigma eps. */
export function qSample(x0, eps, alpha, sigma) {
  return x0.map((value, k) => alpha * value + sigma * eps[k]);
}

/**
 * A network and what it predicts, as a denoiser.
 * @param {import("./mlp.js").MLP} network
 * @param {string} predicts a key of PARAMETERIZATIONS
 * @param {number | null} [cond] a class, for networks that know classes
 * @returns {Denoiser}
 */
export function networkDenoiser(network, predicts = "eps", cond = null) {
  const { toX0 } = PARAMETERIZATIONS[predicts];
  return (x, t, alpha, sigma) => {
    const out = network.forward(x, t, cond);
    for (let k = 0; k < out.length; k++) out[k] = toX0(out[k], x[k], alpha, sigma);
    return out;
  };
}

/**
 * The best possible denoiser of finitely many points: their mean, each weighted by how likely it is
 * to have been turned into x.
 * @param {Float64Array} points
 * @param {Float64Array} [masses] how often each point occurs; equal by default
 * @returns {Denoiser}
 */
export function idealDenoiser(points, masses = null) {
  const n = points.length / 2;
  const square = new Float64Array(n);
  return (x, t, alpha, sigma) => {
    const x0 = new Float64Array(x.length);
    const scale = 1 / (2 * Math.max(sigma, 1e-150) ** 2);
    for (let k = 0; k < x.length; k += 2) {
      let nearest = Infinity;
      for (let j = 0; j < n; j++) {
        const dx = x[k] - alpha * points[2 * j], dy = x[k + 1] - alpha * points[2 * j + 1];
        square[j] = dx * dx + dy * dy;
        if (square[j] < nearest) nearest = square[j];
      }
      let total = 0, sumX = 0, sumY = 0;
      for (let j = 0; j < n; j++) {
        const gap = square[j] - nearest;
        if (gap > 0 && gap * scale > 60) continue; // e^-60 adds no digit
        let weight = gap === 0 ? 1 : Math.exp(-gap * scale);
        if (masses) weight *= masses[j];
        total += weight;
        sumX += weight * points[2 * j];
        sumY += weight * points[2 * j + 1];
      }
      x0[k] = sumX / total;
      x0[k + 1] = sumY / total;
    }
    return x0;
  };
}

/** c: the share of the noise at (alpha2, sigma2) that is drawn anew; eta = 1 is DDPM's posterior. */
export function fresh(eta, alpha, sigma, alpha2, sigma2) {
  if (eta === 0) return 0;
  const kept = alpha * sigma2 / (alpha2 * sigma);
  return eta * sigma2 * Math.sqrt(1 - kept * kept);
}

/** The state at (alpha2, sigma2), but for the fresh noise c z that the caller adds. */
export function transfer(x, x0, alpha, sigma, alpha2, sigma2, c = 0) {
  const carried = Math.sqrt(sigma2 * sigma2 - c * c);
  return x.map((value, k) => alpha2 * x0[k] + carried * toEps(x0[k], value, alpha, sigma));
}

/** The grid without a clean first node: at sigma = 0 there is no noise to carry upward. */
export const noisy = (grid) => (grid.sigma[0] === 0 ? grid.slice(1) : grid);

/**
 * Calls the denoiser once at each node and moves to the next: `move(i, x, x0, alpha, sigma, alpha2,
 * sigma2)` gives the state at node i + 1.
 * @returns {Generator<Step>}
 */
export function* walk(denoiser, grid, x, move) {
  grid = noisy(grid);
  let x0;
  for (let i = 0; i < grid.length; i++) {
    const alpha = grid.alpha[i], sigma = grid.sigma[i];
    x0 = denoiser(x, grid.t[i], alpha, sigma);
    yield { i, t: grid.t[i], x, x0 };
    x = move(i, x, x0, alpha, sigma, grid.alpha[i + 1], grid.sigma[i + 1]);
  }
  yield { i: grid.length, t: grid.t[grid.length], x, x0 };
}

function add(x, scale, noise) {
  return x.map((value, k) => value + scale * noise[k]);
}

/** `transfer` with its fresh noise added, as much as `eta` asks for; 0 draws none. */
export function renoise(x, x0, levels, eta, noise) {
  const c = fresh(eta, ...levels);
  const moved = transfer(x, x0, ...levels, c);
  return c > 0 ? add(moved, c, noise(moved)) : moved;
}

/**
 * DDIM: eta = 0 is deterministic, eta = 1 is DDPM with its small variance.
 * @param {Denoiser} denoiser
 * @param {import("./grid.js").Grid} grid
 * @param {Float64Array} x the state at the grid's first node
 * @param {{eta?: number, noise?: (x: Float64Array) => Float64Array}} [options]
 * @returns {Generator<Step>}
 */
export function ddim(denoiser, grid, x, { eta = 0, noise } = {}) {
  return walk(denoiser, grid, x, (i, x, x0, ...levels) => renoise(x, x0, levels, eta, noise));
}

/**
 * DDPM's ancestral sampling.
 * @param {Denoiser} denoiser
 * @param {import("./grid.js").Grid} grid
 * @param {Float64Array} x
 * @param {{variance?: "small" | "large", noise: (x: Float64Array) => Float64Array}} options
 * @returns {Generator<Step>}
 */
export function ddpm(denoiser, grid, x, { variance = "small", noise }) {
  return walk(denoiser, grid, x, (i, x, x0, alpha, sigma, alpha2, sigma2) => {
    const c = fresh(1, alpha, sigma, alpha2, sigma2);
    const beta = sigma * sigma - (alpha * sigma2 / alpha2) ** 2;
    const spread = variance === "small" ? c : Math.sqrt(beta);
    const moved = transfer(x, x0, alpha, sigma, alpha2, sigma2, c);
    return sigma2 > 0 ? add(moved, spread, noise(moved)) : moved;
  });
}
