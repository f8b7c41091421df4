/**
 * Two roads through the field: the probability-flow ODE and the reverse SDE, on one grid of nodes.
 *
 * Node i stands at t = i / STEPS of the cosine schedule: clean at 0, pure noise at STEPS.
 */

import { slicedWasserstein } from "../lib/distance.js";
import { Random } from "../lib/rng.js";
import { schedule } from "../lib/schedule.js";

export const STEPS = 100, FUTURES = 160, CLOUD = 500;
const PROJECTIONS = 16;
const cosine = schedule("cosine", { steps: null });
export const LEVELS = Array.from({ length: STEPS + 1 }, (_, i) => (i ? cosine.at(i / STEPS) : { alpha: 1, sigma: 0 }));

/** c of the step from `here` to `there`, with x0 held: as sdlib's `frozen`. */
export function frozen(noise, here, there) {
  const kept = (here.alpha * there.sigma / (there.alpha * here.sigma)) ** noise;
  return there.sigma * Math.sqrt(1 - kept * kept);
}

/** One step from node i to node j for a batch. `z` is its fresh noise, if there is any. */
function step(mixture, x, i, j, noise = 0, z = null) {
  const here = LEVELS[i], there = LEVELS[j], c = noise > 0 ? frozen(noise, here, there) : 0;
  const moved = mixture.denoise(x, i / STEPS, here.alpha, here.sigma);
  const kept = Math.sqrt(there.sigma ** 2 - c * c) / here.sigma, stays = there.alpha - kept * here.alpha;
  for (let k = 0; k < x.length; k++) moved[k] = stays * moved[k] + kept * x[k] + (c > 0 ? c * z[k] : 0); // transfer
  return moved;
}

/** The states at nodes start, start - 1 ... 0, put at their node's place in a list. */
function descend(mixture, x, start, noise = 0, kicks = null) {
  const nodes = [];
  nodes[start] = x;
  for (let i = start; i > 0; i--) nodes[i - 1] = step(mixture, nodes[i], i, i - 1, noise, kicks?.[i]);
  return nodes;
}

/** Fresh noise for every step, drawn once: so a dragged particle keeps its futures' luck. */
function kicks(n, random) {
  const all = [];
  for (let i = STEPS; i > 0; i--) all[i] = random.normals(2 * n);
  return all;
}

/** Where the ODE leads from (x, y) at node `start`, and where it came from: a state a node. */
export function odePath(mixture, x, y, start) {
  const nodes = descend(mixture, Float64Array.of(x, y), start);
  for (let i = start; i < STEPS; i++) nodes[i + 1] = step(mixture, nodes[i], i, i + 1);
  return nodes;
}

export class Futures {
  constructor(seed) {
    this.kicks = kicks(FUTURES, new Random(1000 + seed));
  }

  /** FUTURES walks of the SDE from one point, `nodes[i]` at each node from `start` down. */
  from(mixture, x, y, start, noise) {
    const all = Float64Array.from({ length: 2 * FUTURES }, (_, k) => (k % 2 ? y : x));
    return descend(mixture, all, start, noise, this.kicks);
  }
}

/** Mean of a batch, and the root mean square distance from it. */
export function spread(points) {
  const n = points.length / 2, mean = [0, 0];
  points.forEach((value, k) => { mean[k % 2] += value / n; });
  const square = points.reduce((sum, value, k) => sum + (value - mean[k % 2]) ** 2 / n, 0);
  return { mean, spread: Math.sqrt(square) };
}

/** A cloud by each road from the same noise, and an honest one, at every node. */
export class Clouds {
  constructor() {
    const random = new Random(1);
    this.start = random.normals(2 * CLOUD);
    this.kicks = kicks(CLOUD, random);
    this.roads = new Map();
  }

  road(mixture, noise) {
    if (this.mixture !== mixture) {
      this.roads.clear();
      this.mixture = mixture;
      this.honest = [2, 3].map((seed) => {
        const random = new Random(seed);
        return { x0: mixture.sample(CLOUD, random), eps: random.normals(2 * CLOUD) };
      });
    }
    if (this.roads.size > 12) this.roads.clear();
    if (!this.roads.has(noise)) this.roads.set(noise, descend(mixture, this.start, STEPS, noise, this.kicks));
    return this.roads.get(noise);
  }

  /** The clouds of ODE and SDE at a node, and the distance of each from an honest draw. */
  at(mixture, noise, i) {
    const ode = this.road(mixture, 0)[i], sde = this.road(mixture, noise)[i], { alpha, sigma } = LEVELS[i];
    const [real, other] = this.honest.map(({ x0, eps }) => x0.map((value, k) => alpha * value + sigma * eps[k]));
    const to = (cloud) => slicedWasserstein(cloud, real, PROJECTIONS);
    return { ode, sde, distance: { ode: to(ode), sde: to(sde), floor: to(other) } };
  }
}
