/**
 * Walks of a trained network from noise to the Swiss roll, with a share eta of fresh noise.
 */

import { ddim, networkDenoiser } from "../lib/diffusion.js";
import { slicedWasserstein } from "../lib/distance.js";
import { makeGrid } from "../lib/grid.js";
import { MLP } from "../lib/mlp.js";
import { noiseFrom, Random } from "../lib/rng.js";
import { schedule } from "../lib/schedule.js";

export const CROWD = 200, THROWS = 16, NUDGE = 0.1;
const SETS = 5, PROJECTIONS = 32; // real sets of CROWD points that a distance averages over; directions
const TWINS = [0, 0, NUDGE, 0, -NUDGE, 0, 0, NUDGE, 0, -NUDGE]; // the start itself, and four nudges

const gap = (a, b, i, j = i) => Math.hypot(a[2 * i] - b[2 * j], a[2 * i + 1] - b[2 * j + 1]);

/** The line that the roll is wound along, standardized as its points are. */
function centerLine(count = 300) {
  const line = new Float64Array(2 * count), center = [0, 0];
  for (let i = 0; i < count; i++) {
    const angle = 1.5 * Math.PI * (1 + 2 * (i + 0.5) / count);
    line.set([angle * Math.cos(angle), angle * Math.sin(angle)], 2 * i);
    for (const k of [0, 1]) center[k] += line[2 * i + k] / count;
  }
  const away = line.map((value, k) => value - center[k % 2]);
  const scale = Math.sqrt(away.reduce((sum, value) => sum + value * value, 0) / away.length + 0.01);
  return away.map((value) => value / scale);
}
const LINE = centerLine();

/** How far along the roll a point is: 0 at its inner end, 1 at its outer. */
export function place(points, i) {
  let nearest = 0, least = Infinity;
  for (let j = 0; j < LINE.length / 2; j++) {
    const away = gap(points, LINE, i, j);
    if (away < least) [nearest, least] = [j, away];
  }
  return nearest / (LINE.length / 2 - 1);
}

export class Walks {
  /** @param {object} data the demo's files */
  constructor(data) {
    const file = data["network/swiss_roll"];
    this.denoiser = networkDenoiser(MLP.fromJSON(file), file.predicts);
    this.levels = schedule(file.schedule, file.schedule_options);
    this.points = Float64Array.from(data["points/swiss_roll"]);
    const set = (k) => this.points.slice(2 * k * CROWD, 2 * (k + 1) * CROWD);
    this.real = Array.from({ length: SETS }, (_, k) => set(k));
    this.floor = this.real.reduce((sum, one, k) => sum + slicedWasserstein(one, set(SETS + k), PROJECTIONS), 0) / SETS;
  }

  /** To the real sets, on average, in units of what two real sets have between them. */
  distance(points) {
    const sum = this.real.reduce((total, one) => total + slicedWasserstein(points, one, PROJECTIONS), 0);
    return sum / SETS / this.floor;
  }

  /** The states at all nodes of the grid. */
  walk(x, steps, eta, noise) {
    return Array.from(ddim(this.denoiser, makeGrid(this.levels, steps), x, { eta, noise }), (step) => step.x);
  }

  /** The crowd's walk, and what the readouts say of it. */
  crowd({ eta, steps, seed }) {
    const random = new Random(seed), { sigma } = makeGrid(this.levels, steps);
    const start = random.normals(2 * CROWD).map((value) => sigma[0] * value);
    const nodes = this.walk(start, steps, eta, noiseFrom(random)), ends = nodes[steps];
    let walked = 0, straight = 0;
    for (let i = 0; i < CROWD; i++) {
      for (let k = 0; k < steps; k++) walked += gap(nodes[k + 1], nodes[k], i);
      straight += gap(ends, start, i);
    }
    return {
      nodes,
      places: Array.from({ length: CROWD }, (_, i) => place(ends, i)),
      distance: this.distance(ends),
      detour: walked / straight,
    };
  }

  /**
   * One start five times with the same fresh noise (four of them nudged), then THROWS times with
   * other fresh noise.
   */
  one({ eta, steps, seed, x, y }) {
    const random = new Random(10_000 + seed), twins = TWINS.length / 2, count = twins + THROWS;
    const start = Float64Array.from({ length: 2 * count }, (_, k) => (k % 2 ? y : x) + (TWINS[k] ?? 0));
    const noise = () => {
      const draws = random.normals(2 * (1 + THROWS)), all = new Float64Array(2 * count);
      for (let i = 0; i < twins; i++) all.set(draws.subarray(0, 2), 2 * i);
      all.set(draws.subarray(2), 2 * twins);
      return all;
    };
    const nodes = this.walk(start, steps, eta, noise), ends = nodes[steps];
    let moved = 0;
    for (let i = 1; i < twins; i++) moved += gap(ends, ends, i, 0) / (twins - 1);
    const thrown = Float64Array.of(...ends.subarray(0, 2), ...ends.subarray(2 * twins)), n = thrown.length / 2;
    const mean = [0, 1].map((axis) => thrown.reduce((sum, value, k) => sum + (k % 2 === axis ? value : 0), 0) / n);
    const square = thrown.reduce((sum, value, k) => sum + (value - mean[k % 2]) ** 2, 0) / n;
    return { path: nodes.map((node) => node.subarray(0, 2)), thrown: thrown.subarray(2), moved, spread: Math.sqrt(square) };
  }
}
