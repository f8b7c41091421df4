/**
 * The network of the plane, as in `sdlib/models/mlp.py`: a residual SiLU network that knows the
 * time. Forward and backward run over blocks of rows with buffers made once, so nothing is
 * allocated while it trains.
 */
import { Workspace } from "./simd.js";

export const BLOCK = 64; // rows at a time: a block's activations stay in the processor's cache

// The logistic function on a grid of 64 points a unit. Between them its Taylor series does, whose
// derivatives are polynomials of the value itself; the error is below 1e-10, at a third of exp's time.
const EDGE = 24;
const LOGISTIC = Float64Array.from({ length: 2 * EDGE * 64 + 1 }, (_, i) => 1 / (1 + Math.exp(EDGE - i / 64)));

function logistic(z) {
  if (!(z > -EDGE && z < EDGE)) return 1 / (1 + Math.exp(-z));
  const i = ((z + EDGE) * 64 + 0.5) | 0, d = z - (i * 0.015625 - EDGE);
  const s = LOGISTIC[i], slope = s * (1 - s);
  return s + d * slope * (1 + d * (0.5 - s + d * (1 / 6 - slope)));
}

/** out[n, m] = a[m, n]^T */
function transpose(a, out, m, n) {
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j * m + i] = a[i * n + j];
}

/** Every row of out[m, n] becomes the bias. */
function fillRows(out, bias, m, n) {
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[i * n + j] = bias[j];
}

/** out[n] += the sum of the rows of a[m, n]. */
function addColumns(a, out, m, n) {
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j] += a[i * n + j];
}

/**
 * @typedef {{dim: number, width: number, depth: number, frequencies: number, t_max: number,
 *   classes: number}} MLPConfig as in Python
 */

export class MLP {
  /** @param {Partial<MLPConfig>} [config] @param {{simd?: boolean}} [options] */
  constructor(config = {}, options = {}) {
    const defaults = { dim: 2, width: 64, depth: 3, frequencies: 8, t_max: 999, classes: 0 };
    this.config = { ...defaults, ...config };
    const { dim, width, depth, frequencies, classes } = this.config;
    this.inputs = dim + 1 + 2 * frequencies;
    const shapes = { "first.weight": [width, this.inputs], "first.bias": [width] };
    for (let i = 0; i < depth - 1; i++) {
      Object.assign(shapes, { [`hidden.${i}.weight`]: [width, width], [`hidden.${i}.bias`]: [width] });
    }
    Object.assign(shapes, { "last.weight": [dim, width], "last.bias": [dim] });
    if (classes) shapes["label.weight"] = [classes + 1, width];
    this.shapes = shapes;
    const sizes = Object.values(shapes).map((shape) => shape.reduce((a, b) => a * b));
    const total = sizes.reduce((a, b) => a + b);
    const block = BLOCK * width, widest = Math.max(width, this.inputs);
    const space = this.space = new Workspace(
      2 * total + BLOCK * (this.inputs + 2 * dim + widest) + (3 * depth + 3) * block + width * width, options);
    /** All weights, and their gradients, in one array each: an optimizer needs no more. */
    this.parameters = space.array(total);
    this.gradients = space.array(total);
    this.weight = this.views(this.parameters);
    this.gradient = this.views(this.gradients);
    const layers = () => Array.from({ length: depth }, () => space.array(block));
    this.buffers = {
      input: space.array(BLOCK * this.inputs), out: space.array(BLOCK * dim), delta: space.array(BLOCK * dim),
      pre: layers(), // what goes into each SiLU, z
      gate: layers(), // logistic(z): SiLU is z times its gate
      hidden: layers(), // the stream after each layer
      dStream: space.array(block), dPre: space.array(block),
      flippedDelta: space.array(block), flippedInput: space.array(BLOCK * widest), flipped: space.array(width * width),
    };
  }

  /** Named windows on a flat array that holds one number a parameter. */
  views(flat) {
    let start = 0;
    return Object.fromEntries(Object.entries(this.shapes).map(([name, shape]) => {
      const size = shape.reduce((a, b) => a * b);
      start += size;
      return [name, flat.subarray(start - size, start)];
    }));
  }

  /**
   * Random weights as torch draws them for nn.Linear: uniform within 1 / sqrt(inputs). With a `gain`
   * the columns that see the point are that much larger: layers then bend within the drawing from
   * the start, and a short run learns far more.
   */
  initialize(random, { gain = 1 } = {}) {
    for (const [name, values] of Object.entries(this.weight)) {
      const fan = name.startsWith("first") ? this.inputs : this.config.width;
      const bound = 1 / Math.sqrt(fan);
      const draw = name.startsWith("label") ? () => random.normal() : () => bound * (2 * random.uniform() - 1);
      for (let k = 0; k < values.length; k++) values[k] = draw();
    }
    const first = this.weight["first.weight"];
    for (let k = 0; k < first.length; k++) if (k % this.inputs < this.config.dim) first[k] *= gain;
    return this;
  }

  /** A network from `{config, weights: {name: numbers}}`, as `sdlib.viz.export` writes it. */
  static fromJSON({ config, weights }, options = {}) {
    const network = new MLP(config, options);
    for (const [name, values] of Object.entries(network.weight)) values.set(weights[name].flat());
    return network;
  }

  toJSON() {
    const weights = Object.entries(this.weight).map(([name, values]) => [name, Array.from(values)]);
    return { config: this.config, weights: Object.fromEntries(weights) };
  }

  /**
   * @param {Float64Array} x a batch of 2 n numbers
   * @param {number | ArrayLike<number>} t one time for all, or one a point
   * @param {number | ArrayLike<number> | null} [cond] a class, or one a point; null is "no class"
   * @returns {Float64Array} the output, laid out like x
   */
  forward(x, t, cond = null) {
    const { dim } = this.config, { out } = this.buffers;
    const result = new Float64Array(x.length), n = x.length / dim;
    for (let start = 0; start < n; start += BLOCK) {
      const rows = Math.min(BLOCK, n - start);
      this.forwardBlock(x, t, cond, start, rows);
      result.set(rows === BLOCK ? out : out.subarray(0, rows * dim), start * dim);
    }
    return result;
  }

  /** One block of rows, whose activations stay in the buffers for `backwardBlock`. */
  forwardBlock(x, t, cond, start, rows) {
    const { dim, width, depth, classes } = this.config;
    const { input, pre, gate, hidden, out } = this.buffers, weight = this.weight;
    this.fillInput(x, t, start, rows);
    const even = rows + (rows & 1);
    fillRows(pre[0], weight["first.bias"], even, width);
    this.space.product(input, weight["first.weight"], pre[0], even, width, this.inputs);
    if (classes) {
      for (let i = 0; i < rows; i++) {
        const label = weight["label.weight"], from = this.classOf(cond, start + i) * width;
        for (let j = 0; j < width; j++) pre[0][i * width + j] += label[from + j];
      }
    }
    for (let layer = 0; layer < depth; layer++) {
      const stream = layer ? hidden[layer - 1] : null, next = hidden[layer];
      const z = pre[layer], gates = gate[layer];
      if (stream) {
        const name = `hidden.${layer - 1}`;
        fillRows(z, weight[`${name}.bias`], even, width);
        this.space.product(stream, weight[`${name}.weight`], z, even, width, width);
      }
      for (let k = 0; k < even * width; k++) {
        gates[k] = logistic(z[k]);
        next[k] = stream ? stream[k] + z[k] * gates[k] : z[k] * gates[k];
      }
    }
    fillRows(out, weight["last.bias"], even, dim);
    this.space.product(hidden[depth - 1], weight["last.weight"], out, even, dim, width);
  }

  classOf(cond, row) {
    if (cond === null) return this.config.classes;
    return typeof cond === "number" ? cond : cond[row];
  }

  /** The points and the features of their times: u, sin(k pi u), cos(k pi u) with u = t / t_max. */
  fillInput(x, t, start, rows) {
    const { dim, frequencies, t_max } = this.config, { input } = this.buffers, width = this.inputs;
    for (let i = 0; i < rows; i++) {
      const row = i * width;
      for (let d = 0; d < dim; d++) input[row + d] = x[(start + i) * dim + d];
      if (i > 0 && typeof t === "number") {
        input.copyWithin(row + dim, dim, width);
        continue;
      }
      const u = (typeof t === "number" ? t : t[start + i]) / t_max;
      const cos = Math.cos(Math.PI * u), sin = Math.sin(Math.PI * u);
      input[row + dim] = u;
      for (let k = 0, c = cos, s = sin; k < frequencies; k++) {
        input[row + dim + 1 + k] = s;
        input[row + dim + 1 + frequencies + k] = c;
        [c, s] = [c * cos - s * sin, s * cos + c * sin]; // the next multiple of the angle
      }
    }
  }

  /**
   * Adds to `gradients` what `buffers.delta` (the loss's slope in each output) makes of the block
   * that `forwardBlock` ran last. Rows past the last must hold zeros in `delta`.
   */
  backwardBlock(cond, start, rows) {
    const { dim, width, depth, classes } = this.config;
    const { input, pre, gate, hidden, delta, dStream, dPre, flipped } = this.buffers;
    const { weight, gradient } = this;
    this.addOuter("last", delta, hidden[depth - 1], rows, dim, width);
    transpose(weight["last.weight"], flipped, dim, width);
    dStream.fill(0);
    this.space.product(delta, flipped, dStream, BLOCK, width, dim);
    for (let layer = depth - 1; layer >= 0; layer--) {
      for (let k = 0; k < dPre.length; k++) {
        const s = gate[layer][k];
        dPre[k] = dStream[k] * s * (1 + pre[layer][k] * (1 - s));
      }
      if (layer > 0) {
        const name = `hidden.${layer - 1}`;
        this.addOuter(name, dPre, hidden[layer - 1], rows, width, width);
        transpose(weight[`${name}.weight`], flipped, width, width);
        this.space.product(dPre, flipped, dStream, BLOCK, width, width); // on top of the residual's own
      }
    }
    this.addOuter("first", dPre, input, rows, width, this.inputs);
    for (let i = 0; classes && i < rows; i++) {
      const label = gradient["label.weight"], from = this.classOf(cond, start + i) * width;
      for (let j = 0; j < width; j++) label[from + j] += dPre[i * width + j];
    }
  }

  /** A layer's gradients: weight += delta^T input, bias += the sum of delta over rows. */
  addOuter(name, delta, input, rows, outputs, inputs) {
    const { flippedDelta, flippedInput } = this.buffers;
    transpose(delta, flippedDelta, BLOCK, outputs);
    transpose(input, flippedInput, BLOCK, inputs);
    this.space.product(flippedDelta, flippedInput, this.gradient[`${name}.weight`], outputs, inputs, BLOCK);
    addColumns(delta, this.gradient[`${name}.bias`], rows, outputs);
  }
}
