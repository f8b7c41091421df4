/**
 * The sampler of the demo: deterministic DDIM with the perfect denoiser of a Gaussian mixture, and
 * the exact solution that it is measured against.
 */
import { ddim } from "../lib/diffusion.js";
import { Grid } from "../lib/grid.js";
import { Random } from "../lib/rng.js";

export const COUNT = 200; // particles
const HEUN = 200; // steps of the exact solution

const ring = Array.from({ length: 8 }, (_, k) => {
  const angle = k * Math.PI / 4, radius = Math.sqrt(2 * (1 - 0.01));
  return { x: radius * Math.cos(angle), y: radius * Math.sin(angle), std: 0.1 };
});

/** Mixtures of equally heavy round Gaussians; `ring` is plane.MIXTURE of the package. */
export const MIXTURES = {
  ring,
  off: [{ x: 1, y: 1.2, std: 0.3 }, { x: 1.8, y: -0.8, std: 0.5 }],
};

const meanOf = (parts) => ["x", "y"].map((axis) =>
  parts.reduce((sum, part) => sum + part[axis], 0) / parts.length);

/** The posterior mean of x0, which at alpha = 0 is the mean of the mixture. */
export function denoiser(parts) {
  const log = new Float64Array(parts.length);
  return (x, t, alpha, sigma) => {
    const out = new Float64Array(x.length);
    for (let k = 0; k < x.length; k += 2) {
      let top = -Infinity;
      for (let j = 0; j < parts.length; j++) {
        const { x: mx, y: my, std } = parts[j], v = alpha * alpha * std * std + sigma * sigma;
        const dx = x[k] - alpha * mx, dy = x[k + 1] - alpha * my;
        log[j] = -(dx * dx + dy * dy) / (2 * v) - Math.log(v);
        if (log[j] > top) top = log[j];
      }
      let total = 0, sumX = 0, sumY = 0;
      for (let j = 0; j < parts.length; j++) {
        const { x: mx, y: my, std } = parts[j], v = alpha * alpha * std * std + sigma * sigma;
        const weight = Math.exp(log[j] - top), own = alpha * std * std;
        total += weight;
        sumX += weight * (own * x[k] + sigma * sigma * mx) / v;
        sumY += weight * (own * x[k + 1] + sigma * sigma * my) / v;
      }
      out[k] = sumX / total;
      out[k + 1] = sumY / total;
    }
    return out;
  };
}

/** Standard normal noise, `COUNT` points. */
export const noiseOf = (seed) => new Random(seed).normals(2 * COUNT);

/** Points of the data, to show. */
export function sample(parts, n, seed) {
  const random = new Random(seed), out = new Float64Array(2 * n);
  for (let k = 0; k < n; k++) {
    const { x, y, std } = parts[random.integer(parts.length)];
    out[2 * k] = x + std * random.normal();
    out[2 * k + 1] = y + std * random.normal();
  }
  return out;
}

/** Where each noise sample ends on the exact solution of dy/ds = (y - D) / s, by Heun's method. */
export function exact(parts, noise) {
  const denoise = denoiser(parts), mean = meanOf(parts), size = Math.hypot(1, Math.exp(7));
  let y = noise.map((value, k) => mean[k % 2] + size * value);
  for (let i = 0; i < HEUN; i++) {
    const a = Math.exp(7 - 14 * i / HEUN), b = Math.exp(7 - 14 * (i + 1) / HEUN);
    const guess = denoise(y, 0, 1, a);
    const there = y.map((value, k) => value + (b - a) * (value - guess[k]) / a);
    const next = denoise(there, 0, 1, b);
    y = y.map((value, k) => value + (b - a) * ((value - guess[k]) / a + (there[k] - next[k]) / b) / 2);
  }
  return denoise(y, 0, 1, Math.exp(-7));
}

/** The nodes of N even steps in time on a curve, noisiest first: their lambda. */
export const nodes = (lam, steps) => Float64Array.from({ length: steps }, (_, i) => lam(1 - i / steps));

/** The states at all nodes, the last one clean, on the variance-preserving scale. */
export function walk(parts, noise, lams) {
  const alpha = [...lams].map((l) => 1 / Math.sqrt(1 + Math.exp(-2 * l)));
  const sigma = [...lams].map((l) => 1 / Math.sqrt(1 + Math.exp(2 * l)));
  const t = lams.map((_, i) => 1 - i / lams.length);
  const grid = new Grid(Float64Array.of(...t, 0), Float64Array.of(...alpha, 1), Float64Array.of(...sigma, 0));
  return Array.from(ddim(denoiser(parts), grid, noise), (step) => step.x);
}

/** The median distance between two clouds, point by point. */
export function medianGap(a, b) {
  const gaps = Float64Array.from({ length: a.length / 2 }, (_, k) =>
    Math.hypot(a[2 * k] - b[2 * k], a[2 * k + 1] - b[2 * k + 1])).sort();
  return gaps[Math.floor((gaps.length - 1) / 2)]; // the lower of the two in the middle, as torch has it
}
