/**
 * Guidance, as in `sdlib/diffusion/guidance.py`, on batches whose points each have a class.
 */
import { ddim, networkDenoiser } from "../lib/diffusion.js";

/** The ends of the noise axis, powers of ten of sigma / alpha; an end there is no limit at all. */
export const LOWEST = -2, HIGHEST = 2;

/** Whether guidance is on at a noise level: the interval's ends are powers of ten. */
export function isOn({ scale, low, high }, alpha, sigma) {
  const above = low <= LOWEST || sigma >= 10 ** low * alpha;
  return scale !== 1 && above && (high >= HIGHEST || sigma <= 10 ** high * alpha);
}

/** What the other estimate is, for each kind of guidance. */
const OTHERS = {
  free: ({ good }) => networkDenoiser(good, "v", null),
  negative: ({ good }, labels) => networkDenoiser(good, "v", labels.map((label) => 1 - label)),
  auto: ({ bad }, labels) => networkDenoiser(bad, "v", labels),
};

/**
 * @param {{good: import("../lib/mlp.js").MLP, bad: import("../lib/mlp.js").MLP}} networks
 * @param {Uint8Array} labels the class of each point
 * @param {{kind: string, scale: number, low: number, high: number}} settings
 * @returns {import("../lib/diffusion.js").Denoiser}
 */
export function guided(networks, labels, settings) {
  const wanted = networkDenoiser(networks.good, "v", labels);
  const other = OTHERS[settings.kind](networks, labels);
  return (x, t, alpha, sigma) => {
    const x0 = wanted(x, t, alpha, sigma);
    if (!isOn(settings, alpha, sigma)) return x0;
    const away = other(x, t, alpha, sigma);
    return x0.map((value, k) => away[k] + settings.scale * (value - away[k]));
  };
}

/** The states of all points at all nodes: the same starts for class 0, then for class 1. */
export function flow(networks, grid, starts, settings) {
  const n = starts.length / 2, labels = new Uint8Array(2 * n).fill(1, n);
  const x = new Float64Array(4 * n);
  x.set(starts);
  x.set(starts, 2 * n);
  return Array.from(ddim(guided(networks, labels, settings), grid, x), (step) => step.x);
}
