/**
 * The network of the plane, as in `sdlib/models/mlp.py`: a residual SiLU network that knows the
 * time. Forward and backward run over blocks of rows with buffers made once, so nothing is
 * allocated while it trains.
 */

export const BLOCK = 64; // rows at a time: a block's activations stay in the processor's cache

// The logistic function on a grid of 64 points a unit. Between them its Taylor series does, whose
// derivatives are polynomials of the value itself; the error is below 1e-10, at a third of exp's time.
const EDGE = 24;
const LOGISTIC = Float64Array.from({ length: 2 * EDGE * 64 + 1 }, (_, i) => 1 / (1 + Math.exp(EDGE - i / 64)));

function logistic(z) {
  if (!(z > -EDGE && z < EDGE)) return 1 / (1 + Math.exp(-z));
  const i = Math.round((z + EDGE) * 64) | 0, d = z - (i / 64 - EDGE);
  const s = LOGISTIC[i], s1 = s * (1 - s), s2 = s1 * (1 - 2 * s), s3 = s1 * (1 - 6 * s1);
  return s + d * (s1 + d * (s2 / 2 + d * s3 / 6));
}

/**
 * out[m, n] (+)= a[m, k] b[n, k]^T: the one kernel of this file, two rows by four columns at a time.
 * @param {Float64Array} a @param {Float64Array} b @param {Float64Array} out
 * @param {number} m must be even
 * @param {Float64Array | null} bias [n], added to each row; null adds to what `out` holds
 */
function product(a, b, out, m, n, k, bias) {
  for (let i = 0; i < m; i += 2) {
    const a0 = i * k, a1 = a0 + k, o0 = i * n, o1 = o0 + n;
    let j = 0;
    for (; j + 3 < n; j += 4) {
      const b0 = j * k, b1 = b0 + k, b2 = b1 + k, b3 = b2 + k;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let l = 0; l < k; l++) {
        const x = a[a0 + l], y = a[a1 + l];
        const p = b[b0 + l], q = b[b1 + l], r = b[b2 + l], s = b[b3 + l];
        s00 += x * p; s01 += x * q; s02 += x * r; s03 += x * s;
        s10 += y * p; s11 += y * q; s12 += y * r; s13 += y * s;
      }
      if (bias) {
        const p = bias[j], q = bias[j + 1], r = bias[j + 2], s = bias[j + 3];
        out[o0 + j] = s00 + p; out[o0 + j + 1] = s01 + q; out[o0 + j + 2] = s02 + r; out[o0 + j + 3] = s03 + s;
        out[o1 + j] = s10 + p; out[o1 + j + 1] = s11 + q; out[o1 + j + 2] = s12 + r; out[o1 + j + 3] = s13 + s;
      } else {
        out[o0 + j] += s00; out[o0 + j + 1] += s01; out[o0 + j + 2] += s02; out[o0 + j + 3] += s03;
        out[o1 + j] += s10; out[o1 + j + 1] += s11; out[o1 + j + 2] += s12; out[o1 + j + 3] += s13;
      }
    }
    for (; j < n; j++) {
      const b0 = j * k;
      let s0 = 0, s1 = 0;
      for (let l = 0; l < k; l++) {
        s0 += a[a0 + l] * b[b0 + l];
        s1 += a[a1 + l] * b[b0 + l];
      }
      out[o0 + j] = s0 + (bias ? bias[j] : out[o0 + j]);
      out[o1 + j] = s1 + (bias ? bias[j] : out[o1 + j]);
    }
  }
}

/** out[n, m] = a[m, n]^T */
function transpose(a, out, m, n) {
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j * m + i] = a[i * n + j];
}

/** bias gradient += the sum over rows. */
function addColumns(a, out, m, n) {
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j] += a[i * n + j];
}

/**
 * @typedef {{dim: number, width: number, depth: number, frequencies: number, t_max: number,
 *   classes: number}} MLPConfig as in Python
 */

export class MLP {
  /** @param {Partial<MLPConfig>} [config] */
  constructor(config = {}) {
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
    /** All weights, and their gradients, in one array each: an optimizer needs no more. */
    this.parameters = new Float64Array(total);
    this.gradients = new Float64Array(total);
    this.weight = this.views(this.parameters);
    this.gradient = this.views(this.gradients);
    const block = (n) => new Float64Array(BLOCK * n);
    const layers = () => Array.from({ length: depth }, () => block(width));
    this.buffers = {
      input: block(this.inputs), out: block(dim), delta: block(dim),
      pre: layers(), // what goes into each SiLU, z
      gate: layers(), // logistic(z): SiLU is z times its gate
      hidden: layers(), // the stream after each layer
      dStream: block(width), dPre: block(width), rowsA: block(width), rowsB: block(Math.max(width, this.inputs)),
      flipped: new Float64Array(width * width),
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

  /** Random weights as torch draws them for nn.Linear: uniform within 1 / sqrt(inputs). */
  initialize(random) {
    for (const [name, values] of Object.entries(this.weight)) {
      const fan = name.startsWith("first") ? this.inputs : this.config.width;
      const bound = 1 / Math.sqrt(fan);
      const draw = name.startsWith("label") ? () => random.normal() : () => bound * (2 * random.uniform() - 1);
      for (let k = 0; k < values.length; k++) values[k] = draw();
    }
    return this;
  }

  /** A network from `{config, weights: {name: numbers}}`, as `sdlib.viz.export` writes it. */
  static fromJSON({ config, weights }) {
    const network = new MLP(config);
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
    product(input, weight["first.weight"], pre[0], even, width, this.inputs, weight["first.bias"]);
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
        product(stream, weight[`${name}.weight`], z, even, width, width, weight[`${name}.bias`]);
      }
      for (let k = 0; k < even * width; k++) {
        gates[k] = logistic(z[k]);
        next[k] = stream ? stream[k] + z[k] * gates[k] : z[k] * gates[k];
      }
    }
    product(hidden[depth - 1], weight["last.weight"], out, even, dim, width, weight["last.bias"]);
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
    product(delta, flipped, dStream, BLOCK, width, dim, null);
    for (let layer = depth - 1; layer >= 0; layer--) {
      for (let k = 0; k < dPre.length; k++) {
        const s = gate[layer][k];
        dPre[k] = dStream[k] * s * (1 + pre[layer][k] * (1 - s));
      }
      if (layer > 0) {
        const name = `hidden.${layer - 1}`;
        this.addOuter(name, dPre, hidden[layer - 1], rows, width, width);
        transpose(weight[`${name}.weight`], flipped, width, width);
        product(dPre, flipped, dStream, BLOCK, width, width, null); // on top of the residual's own
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
    const { rowsA, rowsB } = this.buffers;
    transpose(delta, rowsA, BLOCK, outputs);
    transpose(input, rowsB, BLOCK, inputs);
    product(rowsA, rowsB, this.gradient[`${name}.weight`], outputs, inputs, BLOCK, null);
    addColumns(delta, this.gradient[`${name}.bias`], rows, outputs);
  }
}
