/**
 * A mixture of round Gaussians in the plane, under noise: density, denoiser, draws. As
 * `sdlib.datasets.plane.GaussianMixture`.
 */

const LOG_2PI = Math.log(2 * Math.PI);

export class Mixture {
  /** @param {number[][]} means @param {number[]} stds @param {number[]} weights that sum to 1 */
  constructor(means, stds, weights) {
    Object.assign(this, { means, stds, weights, k: means.length });
    this.parts = new Float64Array(this.k);
    this.whole = [0, 1].map((axis) => means.reduce((sum, mean, j) => sum + weights[j] * mean[axis], 0));
  }

  /** What a noise level makes of the parts: [mean x, mean y, 1 / (2 variance), log of the height, gain] each. */
  level(alpha, sigma) {
    const flat = new Float64Array(5 * this.k);
    for (let j = 0; j < this.k; j++) {
      const square = this.stds[j] ** 2, variance = alpha * alpha * square + sigma * sigma;
      const height = Math.log(this.weights[j] / variance) - LOG_2PI;
      flat.set([alpha * this.means[j][0], alpha * this.means[j][1], 0.5 / variance, height, alpha * square / variance], 5 * j);
    }
    return flat;
  }

  /** Fills `parts` with each Gaussian's log-density times weight at (x, y); returns the largest. */
  weigh(x, y, flat) {
    let largest = -Infinity;
    for (let j = 0, m = 0; j < this.k; j++, m += 5) {
      const dx = x - flat[m], dy = y - flat[m + 1], part = flat[m + 3] - (dx * dx + dy * dy) * flat[m + 2];
      this.parts[j] = part;
      if (part > largest) largest = part;
    }
    return largest;
  }

  /** The density of noisy points on a lattice, whose cells' middles `at(i)` gives: row by row from above. */
  densities(count, at, alpha, sigma) {
    const flat = this.level(alpha, sigma), out = new Float64Array(count * count);
    for (let k = 0; k < out.length; k++) {
      this.weigh(at(k % count), -at(Math.floor(k / count)), flat);
      for (let j = 0; j < this.k; j++) out[k] += Math.exp(this.parts[j]);
    }
    return out;
  }

  /** The density of their first coordinate. */
  marginal(x, alpha, sigma) {
    return this.means.reduce((sum, mean, j) => {
      const variance = (alpha * this.stds[j]) ** 2 + sigma * sigma;
      return sum + this.weights[j] * Math.exp(-((x - alpha * mean[0]) ** 2) / (2 * variance)) / Math.sqrt(2 * Math.PI * variance);
    }, 0);
  }

  /** The posterior mean of x0 for a batch: a denoiser. */
  denoise(x, t, alpha, sigma) {
    const x0 = new Float64Array(x.length), flat = this.level(alpha, sigma);
    for (let i = 0; i < x.length; i += 2) {
      if (alpha < 1e-6) {
        x0.set(this.whole, i);
        continue;
      }
      const largest = this.weigh(x[i], x[i + 1], flat);
      let total = 0, sumX = 0, sumY = 0;
      for (let j = 0, m = 0; j < this.k; j++, m += 5) {
        if (this.parts[j] < largest - 40) continue; // e^-40 is nothing beside 1
        const share = Math.exp(this.parts[j] - largest), gain = flat[m + 4];
        total += share;
        sumX += share * (this.means[j][0] + gain * (x[i] - flat[m]));
        sumY += share * (this.means[j][1] + gain * (x[i + 1] - flat[m + 1]));
      }
      x0[i] = sumX / total;
      x0[i + 1] = sumY / total;
    }
    return x0;
  }

  /** Which Gaussian a clean point most probably belongs to. */
  hill(x, y) {
    this.clean ??= this.level(1, 0);
    return this.parts.indexOf(this.weigh(x, y, this.clean));
  }

  /** `n` clean points. */
  sample(n, random) {
    const points = new Float64Array(2 * n);
    for (let i = 0; i < points.length; i += 2) {
      let left = random.uniform(), j = 0;
      while (j < this.k - 1 && left >= this.weights[j]) left -= this.weights[j++];
      points[i] = this.means[j][0] + this.stds[j] * random.normal();
      points[i + 1] = this.means[j][1] + this.stds[j] * random.normal();
    }
    return points;
  }
}

const circle = Array.from({ length: 8 }, (_, j) => {
  const angle = j * Math.PI / 4, radius = Math.sqrt(2 * (1 - 0.1 ** 2));
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
});

export const MIXTURES = {
  two: new Mixture([[-1.1, 0], [1.1, 0]], [0.25, 0.25], [0.5, 0.5]),
  three: new Mixture([[-1.2, 0], [1, 0.8], [0.4, -1.1]], [0.2, 0.4, 0.3], [0.5, 0.3, 0.2]),
  eight: new Mixture(circle, Array(8).fill(0.1), Array(8).fill(1 / 8)),
};
