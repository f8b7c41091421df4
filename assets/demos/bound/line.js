/**
 * The mathematics of the demo: three bells on a line (mean 0, variance 1), a chain of Gaussian
 * reverse steps with their exact denoiser, and what each part of the chain costs, in bits.
 */
import { Grid, makeGrid } from "../lib/grid.js";
import { schedule } from "../lib/schedule.js";

export const BELLS = [
  { mean: -1.1, std: 0.2, weight: 0.4 },
  { mean: 0.33, std: 0.3165, weight: 0.35 },
  { mean: 1.298, std: 0.15, weight: 0.25 },
];
const NODES = Array.from({ length: 121 }, (_, k) => (k - 60) / 10); // of the average over a standard normal
const MASS = NODES.map((u) => 0.1 * Math.exp(-u * u / 2) / Math.sqrt(2 * Math.PI));
const MEANS = Float64Array.from(BELLS, ({ mean }) => mean);
const BIT = Math.log(2), TAU = 2 * Math.PI;

const cosine = schedule("cosine"), grids = new Map();

/** The grid of N evenly spaced steps, ending on clean data. @returns {Grid} */
export function gridOf(steps) {
  if (!grids.has(steps)) grids.set(steps, makeGrid(cosine, steps));
  return grids.get(steps);
}

/** log q(x) at a noise level, and the mean and the variance of x0 given x. */
export function posterior(x, alpha, sigma) {
  let top = -Infinity;
  const parts = BELLS.map(({ mean, std, weight }) => {
    const v = alpha * alpha * std * std + sigma * sigma, away = x - alpha * mean;
    const log = Math.log(weight) - away * away / (2 * v) - Math.log(TAU * v) / 2;
    top = Math.max(top, log);
    return { log, guess: mean + alpha * std * std / v * away, doubt: std * std * sigma * sigma / v };
  });
  let total = 0, first = 0, second = 0;
  for (const part of parts) {
    part.share = Math.exp(part.log - top);
    total += part.share;
    first += part.share * part.guess;
    second += part.share * (part.doubt + part.guess * part.guess);
  }
  for (const part of parts) part.share /= total;
  first /= total;
  return { log: top + Math.log(total), mean: first, variance: second / total - first * first, parts };
}

/** What a step from one level to the next is made of. */
export function stepOf(grid, i) {
  const [alpha, sigma, alpha2, sigma2] = [grid.alpha[i], grid.sigma[i], grid.alpha[i + 1], grid.sigma[i + 1]];
  const large = sigma * sigma - (alpha * sigma2 / alpha2) ** 2;
  return {
    alpha, sigma, large, small: large * (sigma2 / sigma) ** 2,
    gain: alpha2 * large / (sigma * sigma), carry: alpha * sigma2 * sigma2 / (alpha2 * sigma * sigma),
  };
}

/** The reverse variance for v from 0 (small) to 1 (large). */
export const between = ({ small, large }, v) => small ** (1 - v) * large ** v;

const K = BELLS.length, found = new Float64Array(3);
const level = { log: new Float64Array(K), v: new Float64Array(K), pull: new Float64Array(K), doubt: new Float64Array(K) };
const part = new Float64Array(K);

/** Set the noise level that `look` looks at. */
function stand(alpha, sigma) {
  BELLS.forEach(({ mean, std, weight }, j) => {
    const v = alpha * alpha * std * std + sigma * sigma;
    level.v[j] = v;
    level.log[j] = Math.log(weight) - Math.log(TAU * v) / 2;
    level.pull[j] = alpha * std * std / v;
    level.doubt[j] = std * std * sigma * sigma / v;
  });
}

/** `posterior` without its parts, into `found` (log q, mean, variance): called a million times. */
function look(x, alpha) {
  let top = -Infinity, total = 0, first = 0, second = 0;
  for (let j = 0; j < K; j++) {
    const away = x - alpha * MEANS[j];
    part[j] = level.log[j] - away * away / (2 * level.v[j]);
    if (part[j] > top) top = part[j];
  }
  for (let j = 0; j < K; j++) {
    const share = Math.exp(part[j] - top), guess = MEANS[j] + level.pull[j] * (x - alpha * MEANS[j]);
    total += share;
    first += share * guess;
    second += share * (level.doubt[j] + guess * guess);
  }
  first /= total;
  found[0] = top + Math.log(total);
  found[1] = first;
  found[2] = second / total - first * first;
}

/**
 * The mean squared error of the denoiser at each node, and the information that the node holds on
 * x0 (in nats): for one clean point, or over all data (x0 = null).
 */
function measure(grid, x0) {
  const square = new Float64Array(grid.length), told = new Float64Array(grid.length);
  for (let i = 0; i < grid.length; i++) {
    const alpha = grid.alpha[i], sigma = grid.sigma[i];
    told[i] = -Math.log(TAU * Math.E * sigma * sigma) / 2;
    stand(alpha, sigma);
    for (const { mean, std, weight } of x0 === null ? BELLS : [{ mean: x0, std: 0, weight: 1 }]) {
      const spread = Math.sqrt(alpha * alpha * std * std + sigma * sigma);
      for (let k = 0; k < NODES.length; k++) {
        const mass = weight * MASS[k];
        look(alpha * mean + spread * NODES[k], alpha);
        square[i] += mass * (x0 === null ? found[2] : (x0 - found[1]) ** 2);
        told[i] -= mass * found[0];
      }
    }
  }
  return { square, told };
}

/** -log p of one point, or its average over all data, in nats. */
function exactCost(x0) {
  if (x0 !== null) return -posterior(x0, 1, 0).log;
  return BELLS.reduce((sum, { mean, std, weight }) =>
    sum - weight * NODES.reduce((part, u, k) => part + MASS[k] * posterior(mean + std * u, 1, 0).log, 0), 0);
}

const kept = new Map();

/** What is needed of a grid and a point to write any bill. */
export function survey(steps, x0) {
  const key = `${steps} ${x0}`;
  if (!kept.has(key)) {
    if (kept.size > 40) kept.clear();
    kept.set(key, { grid: gridOf(steps), ...measure(gridOf(steps), x0), exact: exactCost(x0), x0 });
  }
  return kept.get(key);
}

/** The price of step i with reverse variance w, in bits. */
function price({ small, gain }, square, w) {
  return (gain * gain * square / w + small / w - 1 - Math.log(small / w)) / 2 / BIT;
}

/**
 * The whole bill in bits: the start, each step, the last jump, their sum, and the exact cost; and of
 * each step (and of the jump, as the last entry) what no chain through the same states could avoid,
 * which means something on average over all data only.
 */
export function bill({ grid, square, told, exact, x0 }, v) {
  const n = grid.length, alpha = grid.alpha[0], variance = grid.sigma[0] ** 2;
  const prior = (alpha * alpha * (x0 === null ? 1 : x0 * x0) + variance - 1 - Math.log(variance)) / 2 / BIT;
  const steps = new Float64Array(n - 1), must = new Float64Array(n);
  for (let i = 0; i < n - 1; i++) {
    const step = stepOf(grid, i);
    steps[i] = price(step, square[i], between(step, v));
    must[i] = (told[i + 1] - told[i]) / BIT;
  }
  must[n - 1] = (exact - told[n - 1]) / BIT;
  const { large } = stepOf(grid, n - 1);
  const decoder = (square[n - 1] / large + Math.log(TAU * large)) / 2 / BIT;
  const sum = steps.reduce((a, b) => a + b, 0);
  return { prior, steps, must, decoder, sum, total: prior + sum + decoder, exact: exact / BIT };
}

/** The v at which step i costs least; 0 is small, 1 is large. The last jump has no small one: null. */
export function bestV({ grid, square }, i) {
  if (i === grid.length - 1) return null;
  const { small, large, gain } = stepOf(grid, i);
  return Math.log(1 + gain * gain * square[i] / small) / Math.log(large / small);
}

/** The true reverse step from x, and the model's (the jump's is large): functions, and moments. */
export function reverse(grid, i, x, v) {
  const step = stepOf(grid, i), { gain, carry, small } = step;
  const { mean, variance, parts } = posterior(x, step.alpha, step.sigma);
  const bell = (y, m, w) => Math.exp(-((y - m) ** 2) / (2 * w)) / Math.sqrt(TAU * w);
  const center = gain * mean + carry * x, w = between(step, i === grid.length - 1 ? 1 : v);
  return {
    ...step, center, w, variance: small + gain * gain * variance, mean,
    hill: (y) => parts.reduce((sum, { share, guess, doubt }) =>
      sum + share * bell(y, gain * guess + carry * x, small + gain * gain * doubt), 0),
    model: (y) => bell(y, center, w),
    told: (y, x0) => bell(y, gain * x0 + carry * x, small),
  };
}
