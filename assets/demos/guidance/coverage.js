/**
 * Precision and recall, as in `sdlib/evaluation/coverage.py`: the share of one set that lies in the
 * balls around the points of the other, each as large as its K-th neighbor is far.
 */
const K = 3;

/** The distance of each point to its K-th nearest neighbor, squared. */
function reach(points) {
  const out = new Float64Array(points.length / 2), nearest = new Float64Array(K + 1);
  for (let i = 0; i < points.length; i += 2) {
    nearest.fill(Infinity);
    for (let j = 0; j < points.length; j += 2) {
      const square = (points[i] - points[j]) ** 2 + (points[i + 1] - points[j + 1]) ** 2;
      if (square >= nearest[K]) continue;
      let place = K; // insert it among the K + 1 smallest (the point itself is one)
      while (place > 0 && nearest[place - 1] > square) nearest[place] = nearest[--place];
      nearest[place] = square;
    }
    out[i / 2] = nearest[K];
  }
  return out;
}

/** A set with its balls, made once. */
export const region = (points) => ({ points, reach: reach(points) });

/** The share of `points` that lies in a region. */
function share(points, { points: centers, reach: squares }) {
  let found = 0;
  for (let i = 0; i < points.length; i += 2) {
    for (let j = 0; j < centers.length; j += 2) {
      if ((points[i] - centers[j]) ** 2 + (points[i + 1] - centers[j + 1]) ** 2 <= squares[j / 2]) {
        found++;
        break;
      }
    }
  }
  return found / (points.length / 2);
}

/** @returns {{precision: number, recall: number}} of samples against a region of real points */
export function precisionRecall(real, made) {
  return { precision: share(made, real), recall: share(real.points, region(made)) };
}

/** The share of points whose nearest point among all is of the class `label`. */
export function shareOfClass(points, sets, label) {
  const nearest = (x, y, set) => {
    let least = Infinity;
    for (let j = 0; j < set.length; j += 2) least = Math.min(least, (x - set[j]) ** 2 + (y - set[j + 1]) ** 2);
    return least;
  };
  let found = 0;
  for (let i = 0; i < points.length; i += 2) {
    const gaps = sets.map((set) => nearest(points[i], points[i + 1], set));
    found += gaps[label] < gaps[1 - label];
  }
  return found / (points.length / 2);
}
