/**
 * Training in the page, as in `sdlib/training`: Adam, clipping, a warm-up and half a cosine, EMA.
 */
import { BLOCK } from "./mlp.js";
import { PARAMETERIZATIONS } from "./diffusion.js";

/** Adam (Kingma & Ba 2015) on a network's `parameters`. */
export class Adam {
  /** @param {import("./mlp.js").MLP} network */
  constructor(network, { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 } = {}) {
    Object.assign(this, { network, beta1, beta2, eps, updates: 0 });
    this.mean = new Float64Array(network.parameters.length);
    this.square = new Float64Array(network.parameters.length);
  }

  /** One update along the network's present `gradients`, each multiplied by `scale`. */
  step(rate, scale = 1) {
    const { network, beta1, beta2, eps, mean, square } = this;
    const { parameters, gradients } = network;
    this.updates++;
    const stride = rate / (1 - beta1 ** this.updates);
    const spread = 1 / Math.sqrt(1 - beta2 ** this.updates);
    for (let k = 0; k < parameters.length; k++) {
      const g = gradients[k] * scale;
      mean[k] += (1 - beta1) * (g - mean[k]);
      square[k] += (1 - beta2) * (g * g - square[k]);
      parameters[k] -= stride * mean[k] / (Math.sqrt(square[k]) * spread + eps);
    }
  }
}

/** The average of a network's weights over the last stretch of training, to sample with. */
export class EMA {
  /** @param {import("./mlp.js").MLP} network is copied into `ema.network` */
  constructor(network, decay = 0.999) {
    Object.assign(this, { decay, updates: 0 });
    this.network = new network.constructor(network.config);
    this.network.parameters.set(network.parameters);
  }

  update(network) {
    this.updates++;
    const move = 1 - Math.min(this.decay, (1 + this.updates) / (10 + this.updates));
    const average = this.network.parameters, { parameters } = network;
    for (let k = 0; k < average.length; k++) average[k] += move * (parameters[k] - average[k]);
  }
}

/** The rate at update `step` of `steps`: a straight rise to `peak`, then half a cosine to 0 after the last. */
export function learningRate(step, steps, peak, warmup) {
  if (step <= warmup) return peak * step / warmup;
  return peak * 0.5 * (1 + Math.cos(Math.PI * (step - warmup) / (steps - warmup + 1)));
}

/**
 * The mean squared error of the network's output on given noise and times. `network.gradients`
 * holds its slope afterwards.
 * @param {import("./mlp.js").MLP} network
 * @param {Float64Array} x0 clean points, 2 n numbers
 * @param {Float64Array} eps noise, 2 n numbers
 * @param {Float64Array} t times, n numbers
 * @param {import("./schedule.js").Schedule} schedule
 * @param {string} predicts a key of PARAMETERIZATIONS
 * @param {ArrayLike<number> | null} [cond] classes, n numbers
 * @returns {number}
 */
export function lossAndGradients(network, x0, eps, t, schedule, predicts, cond = null) {
  const { target } = PARAMETERIZATIONS[predicts], { out, delta } = network.buffers;
  const x = new Float64Array(x0.length), wanted = new Float64Array(x0.length);
  for (let k = 0; k < x0.length; k += 2) {
    const { alpha, sigma } = schedule.at(t[k / 2]);
    for (let d = k; d < k + 2; d++) {
      x[d] = alpha * x0[d] + sigma * eps[d];
      wanted[d] = target(x0[d], eps[d], alpha, sigma);
    }
  }
  let sum = 0;
  network.gradients.fill(0);
  for (let start = 0; start < t.length; start += BLOCK) {
    const rows = Math.min(BLOCK, t.length - start);
    network.forwardBlock(x, t, cond, start, rows);
    delta.fill(0);
    for (let k = 0; k < 2 * rows; k++) {
      const error = out[k] - wanted[2 * start + k];
      sum += error * error;
      delta[k] = 2 * error / x.length;
    }
    network.backwardBlock(cond, start, rows);
  }
  return sum / x.length;
}

/**
 * A training run that takes one step at a time: `trainer.step()` returns the loss.
 *
 * @param {import("./mlp.js").MLP} network
 * @param {{schedule: import("./schedule.js").Schedule, predicts?: string, random: import("./rng.js").Random,
 *   batch: (random: import("./rng.js").Random) => Float64Array, steps: number, lr?: number,
 *   warmup?: number, clip?: number, decay?: number}} options `batch` draws clean points
 */
export class Trainer {
  constructor(network, { schedule, predicts = "v", random, batch, steps, lr = 3e-3, warmup = 100, clip = 1, decay = 0.999 }) {
    Object.assign(this, { network, schedule, predicts, random, batch, steps, lr, clip });
    this.warmup = Math.min(warmup, steps - 1);
    this.optimizer = new Adam(network);
    this.ema = new EMA(network, decay);
    this.done = 0;
  }

  step() {
    const x0 = this.batch(this.random), eps = this.random.normals(x0.length);
    const t = Float64Array.from({ length: x0.length / 2 }, () => this.schedule.sampleT(this.random));
    const loss = lossAndGradients(this.network, x0, eps, t, this.schedule, this.predicts);
    this.update();
    return loss;
  }

  /** Moves the weights and their average along the gradients that stand in the network. */
  update() {
    this.done++;
    let norm = 0;
    for (const g of this.network.gradients) norm += g * g;
    const scale = Math.min(1, this.clip / (Math.sqrt(norm) + 1e-6));
    this.optimizer.step(learningRate(this.done, this.steps, this.lr, this.warmup), scale);
    this.ema.update(this.network);
  }
}
