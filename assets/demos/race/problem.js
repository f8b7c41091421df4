/**
 * What the samplers race over: a denoiser, the noise that all start from, the exact solution of
 * its ODE, and the grids between the same two noise levels.
 */

import { idealDenoiser, networkDenoiser } from "../lib/diffusion.js";
import { slicedDistance, slicedWasserstein } from "../lib/distance.js";
import { Grid } from "../lib/grid.js";
import { MLP } from "../lib/mlp.js";
import { noiseFrom, Random } from "../lib/rng.js";
import { unipc } from "../lib/samplers.js";
import { linspace, schedule } from "../lib/schedule.js";

export const PARTICLES = 500;
const NOISIEST = 20; // sigma / alpha at the start: the data is 1/400 of the variance there
const EXACT = { steps: 300, order: 5 }; // of the reference: within 1e-6 of one twice as fine
const BEADS = 240, BLUR = 0.15; // the roll: Gaussians along a spiral, and their width in its units
const PROJECTIONS = 32;

const cosine = schedule("cosine"); // the network's own
const ends = [-Math.log(NOISIEST), cosine.lam(0)];

/** Eight Gaussians on a circle, as `sdlib.datasets.plane.MIXTURE`: centers, and one width. */
function circle() {
  const radius = Math.sqrt(2 * (1 - 0.1 ** 2));
  const centers = Array.from({ length: 8 }, (_, i) => [radius * Math.cos(i * Math.PI / 4), radius * Math.sin(i * Math.PI / 4)]);
  return { centers: Float64Array.from(centers.flat()), width: 0.1, masses: null };
}

/** The Swiss roll as Gaussians strung along it, as heavy as the angle they stand for. */
function roll() {
  const from = (1.5 * Math.PI) ** 2 / 2, to = (4.5 * Math.PI) ** 2 / 2; // nearly arc length
  const angles = Array.from({ length: BEADS }, (_, i) => Math.sqrt(2 * (from + (to - from) * (i + 0.5) / BEADS)));
  const masses = angles.map((angle) => 1 / angle), total = masses.reduce((a, b) => a + b);
  const raw = angles.map((angle) => [angle * Math.cos(angle), angle * Math.sin(angle)]);
  const middle = [0, 1].map((axis) => raw.reduce((sum, point, i) => sum + masses[i] * point[axis], 0) / total);
  const centered = raw.map((point) => point.map((value, axis) => value - middle[axis]));
  const square = centered.reduce((sum, [x, y], i) => sum + masses[i] * (x * x + y * y), 0) / total;
  const scale = Math.sqrt(square / 2 + BLUR ** 2);
  return {
    centers: Float64Array.from(centered.flat(), (value) => value / scale),
    width: BLUR / scale, masses: Float64Array.from(masses),
  };
}

/** The exact denoiser of equally wide Gaussians: their centers' own, under the noise of both. */
function exactDenoiser({ centers, width, masses }) {
  const ofCenters = idealDenoiser(centers, masses);
  return (x, t, alpha, sigma) => {
    const variance = (alpha * width) ** 2 + sigma * sigma, share = alpha * width * width / variance;
    const x0 = ofCenters(x, t, alpha, Math.sqrt(variance));
    for (let k = 0; k < x0.length; k++) x0[k] += share * (x[k] - alpha * x0[k]);
    return x0;
  };
}

export const KINDS = { roll: "roll, exact", mixture: "blobs, exact", network: "roll, network" };

/** How the times of a grid are spread, u from 0 (noise) to 1 (data). */
const TIMES = {
  lambda: (u) => cosine.tAt(ends[0] + u * (ends[1] - ends[0])),
  karras: (u, rho = 7) => {
    const [noisy, clean] = ends.map((lam) => Math.exp(-lam / rho));
    return cosine.tAt(-rho * Math.log(noisy + u * (clean - noisy)));
  },
  time: (u) => (1 - u) * cosine.tAt(ends[0]),
};
export const SPACINGS = { lambda: "even in λ", time: "even in time", karras: "Karras" };

/** The grid of a number of steps from the noisiest level to the table's last. */
export function raceGrid(spacing, steps) {
  const t = linspace(0, 1, steps + 1).map((u) => (u === 1 ? 0 : TIMES[spacing](u)));
  const levels = Array.from(t, (time) => cosine.at(time));
  return new Grid(t, Float64Array.from(levels, (l) => l.alpha), Float64Array.from(levels, (l) => l.sigma));
}

/** The ODE's solution from `start`, at every level: found step by step, then interpolated. */
export class Exact {
  constructor(denoiser, start) {
    this.grid = raceGrid("lambda", EXACT.steps);
    this.denoiser = denoiser;
    this.walk = unipc(denoiser, this.grid, start, { order: EXACT.order });
    this.nodes = []; // y = x / alpha and its slope in lambda
    this.done = false;
  }

  /** One step more; false when there was none left. */
  step() {
    if (this.done) return false;
    const { i, t, x, x0: before } = this.walk.next().value, alpha = this.grid.alpha[i], sigma = this.grid.sigma[i];
    this.done = i === this.grid.length;
    const x0 = this.done ? this.denoiser(x, t, alpha, sigma) : before;
    const y = x.map((value) => value / alpha);
    this.nodes.push({ lam: Math.log(alpha / sigma), y, slope: y.map((value, k) => x0[k] - value) });
    return true;
  }

  finish() {
    while (this.step());
    return this;
  }

  /** The states at a level on the way. */
  at(alpha, sigma) {
    const lam = Math.log(alpha / sigma), { nodes } = this, last = nodes.length - 1;
    const u = (lam - nodes[0].lam) / (nodes[last].lam - nodes[0].lam) * last;
    const i = Math.min(Math.max(Math.floor(u), 0), last - 1), a = nodes[i], b = nodes[i + 1];
    const h = b.lam - a.lam, v = (lam - a.lam) / h, w = 1 - v;
    const [p, q, r, s] = [w * w * (1 + 2 * v), h * v * w * w, v * v * (1 + 2 * w), -h * v * v * w];
    return a.y.map((y, k) => alpha * (p * y + q * a.slope[k] + r * b.y[k] + s * b.slope[k]));
  }
}

export class Problem {
  /** @param {string} kind a key of KINDS @param {number} seed of the noise @param {object} data as loaded */
  constructor(kind, seed, data) {
    Object.assign(this, { kind, seed });
    this.shape = kind === "mixture" ? circle() : roll();
    const sent = data["network/swiss_roll"];
    this.denoiser = kind === "network" ? networkDenoiser(MLP.fromJSON(sent), sent.predicts) : exactDenoiser(this.shape);
    this.start = new Random(seed).normals(2 * PARTICLES);
    this.exact = new Exact(this.denoiser, this.start);
    this.runs = new Map();
    const real = Float64Array.from(data[kind === "mixture" ? "points/mixture" : "points/swiss_roll"]);
    this.distance = slicedDistance(real, PARTICLES, PROJECTIONS);
    let sum = 0; // what an honest draw of as many particles is from the rest of the data
    for (let part = 0; part < 4; part++) {
      const own = real.subarray(1000 * part, 1000 * (part + 1));
      const rest = Float64Array.from([...real.subarray(0, 1000 * part), ...real.subarray(1000 * (part + 1))]);
      sum += slicedWasserstein(own, rest, PROJECTIONS);
    }
    this.floor = sum / 4;
  }

  /** Fresh noise for the samplers that draw some: the same for all of them. */
  noise(salt = 0) {
    return noiseFrom(new Random(this.seed + 7919 + salt));
  }
}
