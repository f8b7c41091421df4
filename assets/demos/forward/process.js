/**
 * Clouds of the forward process at every t, and how far each is from a Gaussian.
 */

import { slicedWasserstein } from "../lib/distance.js";
import { Random } from "../lib/rng.js";
import { schedule } from "../lib/schedule.js";

export const LAST = 999, LEG = 9; // a walk pauses at t = 0, 9, 18 ... 999
const PROJECTIONS = 16, STRIDE = 27; // for the distance; how far apart its curve is computed

export const ddpm = schedule("linear");

/** From one noise level to a noisier one: sqrt(kept) x + sqrt(1 - kept) z. */
function step(x, z, kept) {
  const a = Math.sqrt(kept), s = Math.sqrt(1 - kept);
  return x.map((value, k) => a * value + s * z[k]);
}

/** The sliced Wasserstein distance (lib/distance.js) to one cloud, which is sorted once for all. */
class Distance {
  constructor(to) {
    this.cosines = Float64Array.from({ length: PROJECTIONS }, (_, p) => Math.cos(Math.PI * p / PROJECTIONS));
    this.sines = Float64Array.from({ length: PROJECTIONS }, (_, p) => Math.sin(Math.PI * p / PROJECTIONS));
    this.sorted = Array.from(this.cosines, (_, p) => this.project(to, p));
  }

  project(points, p) {
    const out = new Float64Array(points.length / 2), c = this.cosines[p], s = this.sines[p];
    for (let i = 0; i < out.length; i++) out[i] = c * points[2 * i] + s * points[2 * i + 1];
    return out.sort();
  }

  of(points) {
    let sum = 0;
    for (let p = 0; p < PROJECTIONS; p++) {
      const there = this.sorted[p], here = this.project(points, p);
      for (let i = 0; i < here.length; i++) sum += Math.abs(here[i] - there[i]);
    }
    return sum / (PROJECTIONS * points.length / 2);
  }
}

/** What two Gaussian clouds of `n` points have between them, on average. */
export function floorOf(n) {
  const random = new Random(0);
  let sum = 0;
  for (let pair = 0; pair < 4; pair++) {
    sum += slicedWasserstein(random.normals(2 * n), random.normals(2 * n), PROJECTIONS);
  }
  return sum / 4;
}

/** Clouds at every t, by one jump or by a walk; the same seed makes the same noise. */
export class Process {
  constructor(points, seed) {
    this.x0 = Float64Array.from(points);
    this.some = this.x0.slice(0, this.x0.length / 2); // half of the points show where the data is
    this.random = new Random(seed);
    this.eps = this.random.normals(this.x0.length);
    this.toGaussian = new Distance(this.random.normals(this.x0.length));
    this.curves = { walk: [], jump: [] }; // t, distance, t, distance ...
  }

  /** One leg of the walk after the other, each from the last. */
  prepareWalk() {
    if (this.nodes) return;
    let x = step(this.x0, this.random.normals(this.x0.length), ddpm.table[0]);
    this.nodes = [x];
    this.kicks = [];
    for (let t = LEG; t <= LAST; t += LEG) {
      this.kicks.push(this.random.normals(x.length));
      x = step(x, this.kicks[this.kicks.length - 1], ddpm.table[t] / ddpm.table[t - LEG]);
      this.nodes.push(x);
    }
  }

  /** The cloud in variance preserving units. */
  at(t, path) {
    if (path === "jump") return step(this.x0, this.eps, ddpm.table[t]);
    this.prepareWalk();
    const leg = Math.floor(t / LEG), start = leg * LEG;
    if (t === start) return this.nodes[leg];
    return step(this.nodes[leg], this.kicks[leg], ddpm.table[t] / ddpm.table[start]);
  }

  /** Adds the next point to the curve of distances; false if there was none left to add. */
  extendCurve(path) {
    const curve = this.curves[path], t = curve.length / 2 * STRIDE;
    if (t > LAST) return false;
    curve.push(t, this.toGaussian.of(this.at(t, path)));
    return true;
  }
}
