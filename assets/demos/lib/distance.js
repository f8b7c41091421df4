/**
 * Distances between two clouds of points, as in `sdlib/evaluation/distances.py`.
 */

/** The points' positions along the direction (c, s), sorted. */
function projected(points, c, s) {
  const out = new Float64Array(points.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = c * points[2 * i] + s * points[2 * i + 1];
  return out.sort();
}

/** The value below which the share `q` of the sorted numbers lies, interpolated as numpy does. */
function quantile(sorted, q) {
  const place = q * (sorted.length - 1), below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

/**
 * The sliced Wasserstein-1 distance: the mean gap between sorted projections, over evenly spread
 * directions. Clouds of different sizes are compared at the quantiles of the smaller.
 * @param {Float64Array} a @param {Float64Array} b
 * @returns {number}
 */
export function slicedWasserstein(a, b, projections = 128) {
  return slicedDistance(b, a.length / 2, projections)(a);
}

/**
 * The same distance to one cloud, `to`, which is sorted once for all: a function of clouds.
 * @param {Float64Array} to
 * @param {number} size how many points those have
 * @returns {(points: Float64Array) => number}
 */
export function slicedDistance(to, size, projections = 128) {
  const n = Math.min(size, to.length / 2), alike = to.length === 2 * size;
  const along = (points, p) => {
    const angle = Math.PI * p / projections, sorted = projected(points, Math.cos(angle), Math.sin(angle));
    return alike ? sorted : Float64Array.from({ length: n }, (_, i) => quantile(sorted, (i + 0.5) / n));
  };
  const there = Array.from({ length: projections }, (_, p) => along(to, p));
  return (points) => {
    let sum = 0;
    for (let p = 0; p < projections; p++) {
      const here = along(points, p);
      for (let i = 0; i < n; i++) sum += Math.abs(here[i] - there[p][i]);
    }
    return sum / (n * projections);
  };
}
