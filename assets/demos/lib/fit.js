/**
 * Where the fast solvers get their weights: a polynomial through past estimates, as in
 * `sdlib/diffusion/samplers/fit.py`. Places are counted in steps: 0 where one begins, 1 where it ends.
 */

/** The weighted sum of batches. */
export const sum = (weights, vectors) => vectors[0].map((_, k) => {
  let total = 0;
  for (let j = 0; j < weights.length; j++) total += weights[j] * vectors[j][k];
  return total;
});

/** The means of tau, tau^2 ... tau^n over a step, weighted by exp(z (1 - tau)): k! phi_{k+1}(z) / phi_1(z). */
export function moments(z, n) {
  const phi = [];
  if (Math.abs(z) < 1e-2) { // the quotients cancel; the series has all digits
    for (let k = 0; k <= n; k++) {
      let term = 1, total = 0;
      for (let j = 1; j <= k + 1; j++) term /= j;
      for (let j = 0; j < 10; j++) {
        total += term;
        term *= z / (j + k + 2);
      }
      phi.push(total);
    }
  } else {
    phi.push(Math.expm1(z) / z);
    for (let k = 1, factorial = 1; k <= n; k++) {
      phi.push((phi[k - 1] - 1 / factorial) / z);
      factorial *= k + 1;
    }
  }
  let factorial = 1;
  return phi.slice(1).map((value, k) => {
    factorial *= k + 1;
    return factorial * value / phi[0];
  });
}

/** Solves a w = b for few unknowns, by elimination with the largest pivot; both are overwritten. */
function solve(a, b) {
  const n = b.length;
  for (let c = 0; c < n; c++) {
    let best = c;
    for (let r = c + 1; r < n; r++) if (Math.abs(a[r][c]) > Math.abs(a[best][c])) best = r;
    [a[c], a[best]] = [a[best], a[c]];
    [b[c], b[best]] = [b[best], b[c]];
    for (let r = c + 1; r < n; r++) {
      const factor = a[r][c] / a[c][c];
      for (let k = c; k < n; k++) a[r][k] -= factor * a[c][k];
      b[r] -= factor * b[c];
    }
  }
  for (let c = n - 1; c >= 0; c--) {
    for (let k = c + 1; k < n; k++) b[c] -= a[c][k] * b[k];
    b[c] /= a[c][c];
  }
  return b;
}

/**
 * The mean, over a step, of the polynomial through `values`: the first stands at the step's start,
 * the others at `places` (in steps: below 0 for the past, 1 for the end). `z` is as in `moments`.
 */
export function fit(values, places, z) {
  const n = places.length;
  if (n === 0) return values[0];
  const powers = Array.from({ length: n }, (_, row) => places.map((place) => place ** row));
  const weights = solve(powers, moments(z, n)).map((weight, j) => weight / places[j]);
  return sum([1 - weights.reduce((a, b) => a + b), ...weights], values);
}
