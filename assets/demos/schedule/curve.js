/**
 * The curve of the demo: a preset's lambda(t), bent by handles.
 *
 * Handles stand at KNOTS. A monotone cubic map takes the preset's value at each knot to where its
 * handle stands, and everything between along with it; with no bend the curve is the preset itself.
 */
import { schedule } from "../lib/schedule.js";

export const KNOTS = [0, 0.25, 0.5, 0.75, 1];
export const LIMIT = 7; // |lambda| is cut off here
export const GAP = 0.1; // handles keep this much apart

const cut = (value) => Math.min(Math.max(value, -LIMIT), LIMIT);

/** lambda of a preset at a time from 0 (data) to 1 (noise). */
function preset(name) {
  const levels = name === "scaled_linear" ? schedule(name) : schedule(name, { steps: null });
  return (t) => cut(levels.lam(levels.tMin + t * (levels.tMax - levels.tMin)));
}

/** Slopes of the monotone cubic through rising places `x` with values `y` (Fritsch & Carlson 1980). */
function slopes(x, y) {
  const n = x.length, h = [], d = [];
  for (let k = 0; k + 1 < n; k++) {
    h.push(x[k + 1] - x[k]);
    d.push((y[k + 1] - y[k]) / h[k]);
  }
  const end = (h0, h1, d0, d1) => {
    const m = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1);
    if (m * d0 <= 0) return 0;
    return d0 * d1 <= 0 && Math.abs(m) > 3 * Math.abs(d0) ? 3 * d0 : m;
  };
  const inner = d.slice(1).map((right, k) => {
    const left = d[k], w = [2 * h[k + 1] + h[k], h[k + 1] + 2 * h[k]];
    return left * right <= 0 ? 0 : (w[0] + w[1]) / (w[0] / left + w[1] / right);
  });
  return [end(h[0], h[1], d[0], d[1]), ...inner, end(h[n - 2], h[n - 3], d[n - 2], d[n - 3])];
}

/** The monotone cubic itself, a function on [x[0], x[n - 1]]. */
function cubic(x, y) {
  const m = slopes(x, y);
  return (at) => {
    let k = 0;
    while (k + 2 < x.length && at > x[k + 1]) k++;
    const h = x[k + 1] - x[k], u = (at - x[k]) / h, v = 1 - u;
    return y[k] * v * v * (1 + 2 * u) + y[k + 1] * u * u * (1 + 2 * v)
      + h * u * v * (m[k] * v - m[k + 1] * u);
  };
}

/** @returns {{lam: (t: number) => number, plain: (t: number) => number, handles: number[]}} */
export function curve({ preset: name, bend }) {
  const plain = preset(name);
  const from = KNOTS.map(plain), handles = from.map((value, k) => value + bend[k]);
  const bent = bend.some((value) => value !== 0);
  const map = cubic([...from].reverse(), [...handles].reverse());
  return { plain, handles, bent, lam: bent ? (t) => map(plain(t)) : plain };
}

/** The bends that put handle `k` at `value`, or as near as its neighbors let it. */
export function moved({ preset: name, bend }, k, value) {
  const { handles } = curve({ preset: name, bend });
  const high = k > 0 ? handles[k - 1] - GAP : LIMIT, low = k + 1 < KNOTS.length ? handles[k + 1] + GAP : -LIMIT;
  const to = Math.min(Math.max(value, low), high);
  return bend.map((old, j) => (j === k ? Math.round(100 * (old + to - handles[k])) / 100 : old));
}
