/**
 * Noise schedules, exactly as in `sdlib/diffusion/schedule.py`: t -> (alpha, sigma).
 *
 * A noisy point is x = alpha x0 + sigma eps. Tables count t = 0 ... steps-1 (fractions interpolate
 * in lambda); curves run from 0 to 1.
 */

const TABLE_LIMIT = 30; // interpolation needs finite ends

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const logistic = (value) => 1 / (1 + Math.exp(-value));

/** `n` evenly spaced numbers, rounded as torch rounds them. */
export function linspace(start, end, n) {
  const step = n > 1 ? (end - start) / (n - 1) : 0;
  return Float64Array.from({ length: n }, (_, i) =>
    i < n / 2 ? start + step * i : end - step * (n - 1 - i));
}

export class Schedule {
  /**
   * @param {string} name
   * @param {(t: number) => {alpha: number, sigma: number}} curve
   * @param {{tMin?: number, tMax?: number, table?: Float64Array | null}} [options]
   *   `table` holds alpha_bar at t = 0 ... steps-1, or is null for a curve
   */
  constructor(name, curve, { tMin = 0, tMax = 1, table = null } = {}) {
    Object.assign(this, { name, curve, tMin, tMax, table });
  }

  /** How many entries the table has; null in continuous time. */
  get steps() {
    return this.table ? this.table.length : null;
  }

  /** @returns {{alpha: number, sigma: number}} the noise level at time t */
  at(t) {
    if (!(t >= this.tMin && t <= this.tMax)) {
      throw new RangeError(`t must lie in [${this.tMin}, ${this.tMax}] for ${this.name}; got ${t}.`);
    }
    return this.curve(t);
  }

  /** log(alpha / sigma); infinite where one of them is 0. */
  lam(t) {
    const { alpha, sigma } = this.at(t);
    return Math.log(alpha) - Math.log(sigma);
  }

  logSnr(t) {
    return 2 * this.lam(t);
  }

  snr(t) {
    const { alpha, sigma } = this.at(t);
    return (alpha / sigma) ** 2;
  }

  /** The time at which log(alpha / sigma) is `lam`, by bisection, clipped to the ends of time. */
  tAt(lam) {
    let low = this.tMin, high = this.tMax;
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (this.lam(middle) > lam) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  /** A training time: a whole table entry, or uniform in continuous time. */
  sampleT(random) {
    const u = random.uniform();
    return this.table ? Math.floor(u * this.steps) : this.tMin + u * (this.tMax - this.tMin);
  }
}

/** A variance-preserving schedule from its table of alpha_bar. */
export function fromAlphaBar(name, table) {
  const lam = table.map((kept) =>
    clamp(0.5 * (Math.log(kept) - Math.log1p(-kept)), -TABLE_LIMIT, TABLE_LIMIT));
  const curve = (t) => {
    if (Number.isInteger(t)) return { alpha: Math.sqrt(table[t]), sigma: Math.sqrt(1 - table[t]) };
    const below = Math.min(Math.floor(t), table.length - 2);
    const between = lam[below] + (t - below) * (lam[below + 1] - lam[below]);
    return {
      alpha: Math.sqrt(logistic(2 * between)),
      sigma: Math.sqrt(logistic(-2 * between)),
    };
  };
  return new Schedule(name, curve, { tMax: table.length - 1, table });
}

/** A table from its betas: the product is kept in float32, as in DDPM's and Stable Diffusion's code. */
export function fromBetas(name, betas) {
  let product = 1;
  return fromAlphaBar(name, Float64Array.from(betas, (beta) => {
    product *= Math.fround(1 - Math.fround(beta));
    return Math.fround(product);
  }));
}

/** A variance-preserving curve from alpha_bar(t) on [0, 1]. */
function fromCurve(name, alphaBar) {
  return new Schedule(name, (t) => {
    const kept = clamp(alphaBar(t), 0, 1);
    return { alpha: Math.sqrt(kept), sigma: Math.sqrt(1 - kept) };
  });
}

/** A curve or (with `steps`) the table that follows it, betas capped at `maxBeta`. */
function fromShape(name, alphaBar, steps, maxBeta) {
  if (steps === null) return fromCurve(name, alphaBar);
  const betas = Float64Array.from({ length: steps }, (_, i) =>
    Math.min(1 - alphaBar((i + 1) / steps) / alphaBar(i / steps), maxBeta));
  return fromBetas(name, betas);
}

function linear({ steps = 1000, betaStart = 1e-4, betaEnd = 0.02 } = {}) {
  if (steps !== null) return fromBetas("linear", linspace(betaStart, betaEnd, steps));
  const low = 1000 * betaStart, high = 1000 * betaEnd;
  return fromCurve("linear", (t) => Math.exp(-low * t - (high - low) * t * t / 2));
}

function scaledLinear({ steps = 1000, betaStart = 0.00085, betaEnd = 0.012 } = {}) {
  const roots = linspace(Math.sqrt(betaStart), Math.sqrt(betaEnd), steps);
  return fromBetas("scaled_linear", roots.map((root) => Math.fround(root) ** 2));
}

function cosine({ steps = 1000, s = 0.008, maxBeta = 0.999 } = {}) {
  const f = (t) => Math.cos((t + s) / (1 + s) * Math.PI / 2) ** 2;
  return fromShape("cosine", (t) => f(t) / f(0), steps, maxBeta);
}

function sigmoid({ steps = 1000, start = -3, end = 3, tau = 1 } = {}) {
  const high = logistic(start / tau), low = logistic(end / tau);
  const alphaBar = (t) => (low - logistic((start + t * (end - start)) / tau)) / (low - high);
  return fromShape("sigmoid", alphaBar, steps, 0.999);
}

function flow() {
  return new Schedule("flow", (t) => ({ alpha: 1 - t, sigma: t }));
}

function edm({ sigmaMin = 0.002, sigmaMax = 80, rho = 7 } = {}) {
  const low = sigmaMin ** (1 / rho), high = sigmaMax ** (1 / rho);
  return new Schedule("edm", (t) => ({ alpha: 1, sigma: (low + t * (high - low)) ** rho }));
}

/** The same table, shifted and scaled so that its last entry holds no signal at all. */
export function zeroTerminalSnr(original) {
  const root = original.table.map(Math.sqrt);
  const first = root[0], last = root[root.length - 1];
  const shifted = root.map((value) => ((value - last) * first / (first - last)) ** 2);
  return fromAlphaBar(`${original.name} (zero terminal SNR)`, shifted);
}

export const SCHEDULES = { linear, cosine, scaled_linear: scaledLinear, sigmoid, flow, edm };

/**
 * The schedule called `name`; `{steps: null}` makes the curve in continuous time.
 * @param {string} name one of the keys of SCHEDULES
 * @param {object} [options] camelCase twins of Python's: steps, betaStart, s, sigmaMax ...
 * @returns {Schedule}
 */
export function schedule(name, options = {}) {
  if (!(name in SCHEDULES)) {
    throw new RangeError(`unknown schedule ${name}; choose one of: ${Object.keys(SCHEDULES).join(", ")}.`);
  }
  return SCHEDULES[name](options);
}
