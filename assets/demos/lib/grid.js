/**
 * Grids: the nodes that a sampler walks, noisiest first, as in `sdlib/diffusion/grid.py`.
 */
import { linspace } from "./schedule.js";

const LAMBDA_LIMIT = 7; // SNRs beyond e^14 and below e^-14 are cut off

/** Ties go to the even neighbor, as torch rounds. */
function roundHalfEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** `t`, `alpha` and `sigma` at N + 1 nodes; `grid.length` is the number of steps N. */
export class Grid {
  /** @param {Float64Array} t @param {Float64Array} alpha @param {Float64Array} sigma */
  constructor(t, alpha, sigma) {
    Object.assign(this, { t, alpha, sigma });
  }

  get length() {
    return this.t.length - 1;
  }

  /** The grid from node `start` on (image-to-image); `end` is exclusive, as in Python. */
  slice(start, end) {
    return new Grid(this.t.slice(start, end), this.alpha.slice(start, end), this.sigma.slice(start, end));
  }

  /** The same nodes, walked the other way (inversion). */
  flip() {
    return new Grid(this.t.slice().reverse(), this.alpha.slice().reverse(), this.sigma.slice().reverse());
  }
}

function leading(schedule, steps) {
  if (!schedule.table) throw new RangeError("leading spacing counts table entries.");
  const stride = Math.floor(schedule.steps / steps);
  const t = Float64Array.from({ length: steps }, (_, i) => (steps - 1 - i) * stride);
  const shift = Math.min(1, schedule.tMax - t[0]);
  return t.map((value) => value + shift);
}

function trailing(schedule, steps) {
  return Float64Array.from({ length: steps }, (_, i) => {
    const left = 1 - i / steps;
    if (schedule.table) return roundHalfEven(schedule.steps * left) - 1;
    return schedule.tMin + (schedule.tMax - schedule.tMin) * left;
  });
}

function even(schedule, steps) {
  const clean = schedule.at(schedule.tMin).sigma === 0 ? 1 : 0;
  const t = linspace(schedule.tMax, schedule.tMin, steps + clean).slice(0, steps);
  return schedule.table ? t.map(roundHalfEven) : t;
}

/** The schedule's lambda at its noisy and its clean end, kept finite. */
function lambdaEnds(schedule) {
  return [schedule.tMax, schedule.tMin].map((t) =>
    Math.min(Math.max(schedule.lam(t), -LAMBDA_LIMIT), LAMBDA_LIMIT));
}

function uniformLambda(schedule, steps) {
  const [noisy, clean] = lambdaEnds(schedule);
  return linspace(0, 1, steps).map((u) => schedule.tAt(noisy + u * (clean - noisy)));
}

function karras(schedule, steps, rho = 7) {
  const [noisy, clean] = lambdaEnds(schedule).map((lam) => Math.exp(-lam / rho));
  return linspace(0, 1, steps).map((u) => schedule.tAt(-rho * Math.log(noisy + u * (clean - noisy))));
}

export const SPACINGS = { leading, trailing, linspace: even, karras, uniform_lambda: uniformLambda };

export const ENDINGS = {
  zero: (schedule) => ({ t: schedule.tMin, alpha: 1, sigma: 0 }),
  first: (schedule) => ({ t: schedule.tMin, ...schedule.at(schedule.tMin) }),
};

/**
 * The grid of `steps` steps on a schedule.
 * @param {import("./schedule.js").Schedule} schedule
 * @param {number} steps how often the denoiser will be called
 * @param {string} [spacing] a key of SPACINGS
 * @param {string} [ending] a key of ENDINGS; not doubled if the spacing already ends there
 */
export function makeGrid(schedule, steps, spacing = "trailing", ending = "zero") {
  const last = ENDINGS[ending](schedule);
  let t = Array.from(SPACINGS[spacing](schedule, steps));
  const { alpha, sigma } = schedule.at(t[t.length - 1]);
  // The same level up to rounding, since some spacings find t by bisection.
  if (t.length > 1 && sigma * last.alpha <= (1 + 1e-9) * last.sigma * alpha) t = t.slice(0, -1);
  const nodes = [...t.map((value) => ({ t: value, ...schedule.at(value) })), last];
  const column = (key) => Float64Array.from(nodes, (node) => node[key]);
  return new Grid(column("t"), column("alpha"), column("sigma"));
}
