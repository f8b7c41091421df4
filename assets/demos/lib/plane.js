/**
 * Distributions in the plane: points spread evenly along lines, drawn by hand or from `SHAPES`.
 * A stroke is a list of corners x, y, x, y ...; a drawing is a list of strokes, within -1 to 1.
 */

/** Points along a curve `at(u) -> [x, y]`, u from 0 to 1, as a stroke. */
function trace(at, corners = 60) {
  return Array.from({ length: corners + 1 }, (_, i) => at(i / corners)).flat();
}

const arc = (x, y, radiusX, radiusY, from, to) => trace((u) => {
  const angle = Math.PI * (from + u * (to - from));
  return [x + radiusX * Math.cos(angle), y + radiusY * Math.sin(angle)];
});

/** Ready-made drawings. */
export const SHAPES = {
  spiral: [trace((u) => {
    const angle = 1.5 * Math.PI * (1 + 2 * u), radius = 0.056 * angle;
    return [0.06 + radius * Math.cos(angle), -0.1 + radius * Math.sin(angle)];
  }, 90)],
  moons: [arc(-0.25, -0.08, 0.5, 0.62, 1, 0), arc(0.25, 0.08, 0.5, 0.62, 1, 2)],
  heart: [trace((u) => {
    const angle = 2 * Math.PI * u;
    return [0.78 * Math.sin(angle) ** 3, 0.05 + 0.049 * (13 * Math.cos(angle) - 5 * Math.cos(2 * angle)
      - 2 * Math.cos(3 * angle) - Math.cos(4 * angle))];
  })],
  star: [trace((u) => {
    const angle = Math.PI * (0.5 + 0.8 * Math.round(5 * u));
    return [0.85 * Math.cos(angle), 0.85 * Math.sin(angle) - 0.05];
  }, 5)],
  letters: [
    [...arc(-0.45, 0.3, 0.3, 0.3, 0.15, 1.5), ...arc(-0.45, -0.3, 0.3, 0.3, 0.5, -0.85)],
    [0.2, 0.6, 0.2, -0.6],
    [0.2, 0.6, ...arc(0.3, 0, 0.45, 0.6, 0.5, -0.5), 0.2, -0.6],
  ],
};

/** The distribution that a drawing stands for; its samples have mean 0 and variance 1. */
export class Drawing {
  /**
   * @param {number[][]} strokes
   * @param {number} [width] the blur across a line, as a share of the drawing's size
   */
  constructor(strokes, width = 0.015) {
    this.segments = [];
    const extent = { x: [Infinity, -Infinity], y: [Infinity, -Infinity] };
    let total = 0, sumX = 0, sumY = 0;
    for (const stroke of strokes) {
      for (let k = 2; k < stroke.length; k += 2) {
        const [x, y, toX, toY] = stroke.slice(k - 2, k + 2), length = Math.hypot(toX - x, toY - y);
        total += length;
        sumX += length * (x + toX) / 2;
        sumY += length * (y + toY) / 2;
        this.segments.push({ x, y, dx: toX - x, dy: toY - y, length, until: total });
        for (const [range, a, b] of [[extent.x, x, toX], [extent.y, y, toY]]) {
          range[0] = Math.min(range[0], a, b);
          range[1] = Math.max(range[1], a, b);
        }
      }
    }
    this.length = total; // of ink; 0 for an empty drawing
    if (!total) return;
    this.center = [sumX / total, sumY / total];
    this.blur = width * Math.max(extent.x[1] - extent.x[0], extent.y[1] - extent.y[0]);
    let square = 0;
    for (const { x, y, dx, dy, length } of this.segments) {
      const awayX = x + dx / 2 - this.center[0], awayY = y + dy / 2 - this.center[1];
      square += length * (awayX ** 2 + awayY ** 2 + length ** 2 / 12);
    }
    this.scale = Math.sqrt(square / total / 2 + this.blur ** 2);
  }

  /** @returns {Float64Array} `n` points as a batch */
  sample(n, random) {
    const points = new Float64Array(2 * n);
    for (let k = 0; k < points.length; k += 2) {
      const place = random.uniform() * this.length;
      let low = 0, high = this.segments.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.segments[middle].until < place) low = middle + 1;
        else high = middle;
      }
      const { x, y, dx, dy, length, until } = this.segments[low];
      const along = length ? 1 - (until - place) / length : 0;
      points[k] = (x + along * dx + this.blur * random.normal() - this.center[0]) / this.scale;
      points[k + 1] = (y + along * dy + this.blur * random.normal() - this.center[1]) / this.scale;
    }
    return points;
  }

  /** Where a batch of standardized points lies on the drawing. */
  place(points) {
    return points.map((value, k) => value * this.scale + this.center[k & 1]);
  }
}
