/**
 * Score, SDE and ODE (Chapter 6): drop a particle in the field of the noisy data and send it down by
 * the probability-flow ODE (one path) and by the reverse SDE (many); beside it, whole clouds.
 *
 * State: data (which mixture), x, y and start (where and when the particle is dropped), t (now; below
 * start the particle has run, above it the ODE is followed back), arrows ("velocity" of the ODE,
 * downward in time, or "score"), noise (of the SDE, as a multiple of the forward one's), seed (of the
 * futures). t and start are hundredths.
 */

import { Clouds, FUTURES, Futures, LEVELS, odePath, spread, STEPS } from "./field/roads.js";
import { MIXTURES } from "./field/mixture.js";
import { Surface } from "./lib/canvas.js";
import { animation, draggable, pointer, reducedMotion } from "./lib/interact.js";
import { State } from "./lib/state.js";
import { button, choice, controls, note, readout, readouts, select, slider, stage, stages } from "./lib/ui.js";

const WINDOW = 2.6, COUNT = 17, CELL = 2 * WINDOW / COUNT; // half the window; arrows along a side
const SHADES = 64, BINS = 32, DRAWN = 10; // cells of the density, bars, SDE paths shown in full
const FIRST = 5, SECONDS = 5; // the least noisy node to drop at; the time of a run from end to end
const SETS = { two: "two hills", three: "three hills", eight: "eight hills" };
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const nodeOf = (t) => clamp(Math.round(STEPS * t), 0, STEPS);

export function render({ model, el }) {
  const state = new State(model, update), clouds = new Clouds();
  let mixture, start, now, ode, sde, futures, guess, cloud, field, drawn = {};
  const lattice = new Float64Array(2 * COUNT ** 2);
  for (let k = 0; k < COUNT ** 2; k++) {
    lattice[2 * k] = ((k % COUNT) + 0.5) * CELL - WINDOW;
    lattice[2 * k + 1] = (Math.floor(k / COUNT) + 0.5) * CELL - WINDOW;
  }

  // --- the field and one particle ---
  const row = stages(el);
  const left = stage(row, "Drop a particle anywhere");
  const plane = new Surface(left, {
    label: "", interactive: true, x: [-WINDOW, WINDOW], y: [-WINDOW, WINDOW],
    draw({ colors }) {
      shade(plane, colors.data);
      plane.arrows(lattice, field, colors.muted, { width: 1.1, alpha: 0.75 });
      if (sde) {
        for (let p = 0; p < DRAWN; p++) plane.path(trail(sde, p, start, now), colors.noise, { width: 1, alpha: 0.55 });
        plane.dots(sde[now], colors.noise, { radius: 2, alpha: 0.75 });
      }
      const line = trail(ode, 0, start, now), [x, y] = ode[now], { x: a, y: b } = state.now;
      if (now < start) cross(...guess, colors);
      plane.path(line, colors.paper, { width: 6, alpha: 0.8 });
      plane.path(line, colors.model, { width: 3 });
      plane.dots([x, y], colors.paper, { radius: 7.5, alpha: 1 });
      plane.dots([x, y], colors.model, { radius: 6, alpha: 1 });
      plane.handle(a, b, colors.ink, { radius: now === start ? 9 : 6 });
    },
  });
  draggable(plane, {
    handles: () => [[state.now.x, state.now.y]], reach: Infinity, step: 0.05,
    move(_, x, y) {
      player.pause();
      const at = (now === start ? start : Math.max(start, FIRST)) / STEPS;
      state.set({ x, y, start: at, t: at });
    },
  });

  function trail(nodes, p, from, to) {
    const line = [], by = Math.sign(to - from) || 1;
    for (let i = from; i !== to + by; i += by) line.push(nodes[i][2 * p], nodes[i][2 * p + 1]);
    return line;
  }

  function cross(a, b, { paper, accent }) {
    const r = 6 / (plane.px(1) - plane.px(0));
    for (const [color, width] of [[paper, 6.5], [accent, 3.5]]) {
      plane.path([a - r, b - r, a + r, b + r], color, { width });
      plane.path([a - r, b + r, a + r, b - r], color, { width });
    }
  }

  /** The density of the noisy data now, clear at 0 and dark at its peak. */
  function shade(surface, color) {
    const { alpha, sigma } = LEVELS[now], side = 2 * WINDOW / SHADES;
    const heights = mixture.densities(SHADES, (i) => (i + 0.5) * side - WINDOW, alpha, sigma);
    const peak = Math.max(...heights), small = document.createElement("canvas");
    small.width = small.height = SHADES;
    const brush = small.getContext("2d", { willReadFrequently: true });
    brush.fillStyle = color;
    brush.fillRect(0, 0, SHADES, SHADES);
    const image = brush.getImageData(0, 0, SHADES, SHADES);
    for (let k = 0; k < heights.length; k++) image.data[4 * k + 3] = 120 * Math.sqrt(heights[k] / peak);
    brush.putImageData(image, 0, 0);
    surface.context.drawImage(small, 0, 0, surface.width, surface.height);
  }

  // --- two clouds ---
  const right = stage(row, "The same noise by both roads");
  const pair = new Surface(right, {
    label: "", aspect: 2, x: [-2 * WINDOW, 2 * WINDOW], y: [-WINDOW, WINDOW],
    draw({ colors }) {
      const shifted = (points, by) => points.map((value, k) => (k % 2 ? value : value + by));
      const inside = (points) => points.filter((_, k) => Math.abs(points[k - (k % 2)]) < WINDOW);
      pair.dots(shifted(inside(cloud.ode), -WINDOW), colors.model, { radius: 1.5, alpha: 0.65 });
      pair.dots(shifted(inside(cloud.sde), WINDOW), colors.noise, { radius: 1.5, alpha: 0.65 });
      pair.path([0, -WINDOW, 0, WINDOW], colors.grid, { width: 1 });
      pair.text("ODE", -2 * WINDOW, WINDOW, { dx: 8, dy: 13, align: "left", color: colors.model, weight: 600 });
      pair.text("SDE", 0, WINDOW, { dx: 8, dy: 13, align: "left", color: colors.noise, weight: 600 });
    },
  });
  const bars = new Surface(right, {
    label: "", interactive: true, aspect: 2.1, x: [-WINDOW, WINDOW], margin: [6, 8, 22, 8],
    draw({ colors }) {
      bars.axes({ x: [-2, -1, 0, 1, 2], format: (tick) => String(tick).replace("-", "−") });
      const { alpha, sigma } = LEVELS[now];
      const truth = Array.from({ length: 161 }, (_, i) => WINDOW * (i / 80 - 1)).flatMap((x) => [x, mixture.marginal(x, alpha, sigma)]);
      bars.y = [0, 1.45 * Math.max(...truth.filter((_, k) => k % 2))];
      histogram(cloud.ode, colors.model);
      histogram(cloud.sde, colors.noise);
      bars.path(truth, colors.ink, { width: 1.6, dash: [4, 4] });
      bars.text(`t = ${(now / STEPS).toFixed(2)}`, WINDOW, bars.y[1], { dx: -6, dy: 12, align: "right" });
    },
  });
  let from = [0, 0];
  const setTime = (t) => {
    player.pause();
    state.set({ t: clamp(Math.round(STEPS * t), 0, STEPS) / STEPS });
  };
  pointer(bars, {
    down: (x) => { from = [state.now.t, x]; },
    move: (x) => setTime(from[0] + (x - from[1]) / (2 * WINDOW)),
  });
  bars.element.addEventListener("keydown", ({ key }) => {
    const by = { ArrowLeft: -0.01, ArrowDown: -0.01, ArrowRight: 0.01, ArrowUp: 0.01 }[key];
    if (by) setTime(state.now.t + by);
  });

  function histogram(points, color) {
    const counts = new Float64Array(BINS), width = 2 * WINDOW / BINS, line = [];
    for (let k = 0; k < points.length; k += 2) {
      const bin = Math.floor((points[k] + WINDOW) / width);
      if (bin >= 0 && bin < BINS) counts[bin] += 2 / points.length / width;
    }
    counts.forEach((count, bin) => line.push(bin * width - WINDOW, count, (bin + 1) * width - WINDOW, count));
    bars.path(line, color, { width: 1.6, alpha: 0.9 });
  }

  // --- numbers and controls ---
  const one = readouts(left), both = readouts(right);
  const said = Object.fromEntries([
    [one, "ode-x", "ODE, across", "model", 3], [one, "ode-y", "up", "model", 3],
    [one, "spread", "spread of the futures", "noise", 3], [one, "same", "of them in the ODE's hill", "noise", null],
    [one, "mean-x", "mean end, across", "noise", 2], [one, "mean-y", "up", "noise", 2],
    [one, "guess-x", "D(x), across", "accent", 2], [one, "guess-y", "up", "accent", 2],
    [both, "ode-distance", "ODE to the truth", "model", 3], [both, "sde-distance", "SDE to the truth", "noise", 3],
    [both, "floor", "two honest draws", undefined, 3],
  ].map(([where, key, label, color, digits]) => [key, readout(where, {
    key, label, color, ...(digits === null ? { format: (share) => `${Math.round(100 * share)} %` } : { digits }),
  })]));

  const first = controls(el, "Time");
  const play = button(first, {
    label: "Run down", primary: true,
    onClick() {
      if (player.playing) return player.pause();
      if (now === 0) return state.set({ t: start / STEPS });
      if (reducedMotion()) return state.set({ t: 0 });
      player.play();
    },
  });
  const time = slider(first, { label: "time t", min: 0, max: 1, step: 0.01, value: 1, format: (t) => t.toFixed(2), onInput: setTime });
  const again = button(first, { label: "New futures", onClick: () => state.set({ seed: state.now.seed + 1 }) });
  const second = controls(el, "What is shown");
  const amount = slider(second, {
    label: "noise of the SDE", min: 0, max: 3, step: 0.25, value: 1, format: (h) => h.toFixed(2),
    onInput: (noise) => state.set({ noise }),
  });
  const kinds = choice(second, {
    label: "arrows", options: { velocity: "ODE velocity", score: "score" }, value: "velocity",
    onChange: (arrows) => state.set({ arrows }),
  });
  const sets = select(second, { label: "data", options: SETS, value: "three", onChange: (data) => state.set({ data }) });
  const words = note(stages(el));

  let exact = 1; // a run moves by fractions of a node
  const player = animation(el, (seconds) => {
    if (nodeOf(exact) !== now) exact = state.now.t;
    exact = Math.max(exact - seconds / SECONDS, 0);
    if (nodeOf(exact) !== now) state.set({ t: nodeOf(exact) / STEPS });
    return exact > 0;
  }, name);

  function name() {
    play.label = player.playing ? "Pause" : now === 0 ? "Back to the drop" : "Run down";
  }

  /** Arrows on the lattice: downward velocity or score, short ones kept visible. */
  function arrowsOf(kind) {
    const i = Math.max(now, 1), { alpha, sigma } = LEVELS[i], x0 = mixture.denoise(lattice, i / STEPS, alpha, sigma);
    const out = new Float64Array(lattice.length);
    for (let k = 0; k < out.length; k++) {
      // per radian of the circle (alpha, sigma): -v = sigma x0 - alpha eps
      out[k] = kind === "score" ? (alpha * x0[k] - lattice[k]) / sigma ** 2 : (x0[k] - alpha * lattice[k]) / sigma;
    }
    for (let k = 0; k < out.length; k += 2) {
      const size = Math.hypot(out[k], out[k + 1]) || 1, scale = CELL / (size + (kind === "score" ? 3 : 1));
      out[k] *= scale;
      out[k + 1] *= scale;
    }
    return out;
  }

  function update(s) {
    mixture = MIXTURES[s.data];
    [start, now] = [Math.max(nodeOf(s.start), FIRST), nodeOf(s.t)];
    const key = JSON.stringify([s.data, s.x, s.y, start, s.noise, s.seed]);
    if (drawn.key !== key) {
      if (drawn.seed !== s.seed) futures = new Futures(s.seed);
      const { alpha, sigma } = LEVELS[start];
      drawn = { key, seed: s.seed, sde: futures.from(mixture, s.x, s.y, start, s.noise) };
      drawn.ode = odePath(mixture, s.x, s.y, start);
      drawn.guess = mixture.denoise(Float64Array.of(s.x, s.y), s.start, alpha, sigma);
    }
    ({ ode, guess } = drawn);
    sde = now <= start ? drawn.sde : null; // the SDE has no one past
    cloud = clouds.at(mixture, s.noise, now);
    field = arrowsOf(s.arrows);

    const ends = drawn.sde[0], home = mixture.hill(...ode[0]), { mean } = spread(ends);
    let same = 0;
    for (let k = 0; k < ends.length; k += 2) same += mixture.hill(ends[k], ends[k + 1]) === home;
    const values = {
      "ode-x": ode[now][0], "ode-y": ode[now][1], spread: sde ? spread(sde[now]).spread : null, same: same / FUTURES,
      "mean-x": mean[0], "mean-y": mean[1], "guess-x": guess[0], "guess-y": guess[1],
      "ode-distance": cloud.distance.ode, "sde-distance": cloud.distance.sde, floor: cloud.distance.floor,
    };
    for (const [readoutKey, value] of Object.entries(values)) said[readoutKey].set(value);
    time.value = now / STEPS;
    amount.value = s.noise;
    kinds.value = s.arrows;
    sets.value = s.data;
    again.disabled = s.noise === 0;
    words.set(sentence(s, same));
    plane.label = `The density of the noisy data at t = ${(now / STEPS).toFixed(2)} with arrows, one ODE path and ${FUTURES} SDE futures of a particle. Arrow keys move the particle.`;
    pair.label = "A cloud made by the ODE and one made by the SDE from the same noise.";
    bars.label = "Histograms of both clouds across, and the true density. Drag or use the arrow keys to change the time.";
    name();
    for (const surface of [plane, pair, bars]) surface.redraw();
  }

  function sentence({ noise }, same) {
    if (now > start) return "Above the drop only the ODE can be followed: one path, so one past. The SDE forgot where it came from.";
    if (noise === 0) return "Without noise the SDE is the ODE: all futures are one.";
    if (now === start) return "One particle, not yet sent down. Press Run down, or pull the time slider to the left.";
    if (same > 0.97 * FUTURES) return "All futures share the ODE's hill: by now the point has decided where it belongs.";
    return noise === 1
      ? "One point, one ODE path, many SDE futures. Up to chance, the mean of their ends is the best guess D(x), the cross; the ODE's end is not."
      : "Another amount of noise scatters the futures of one point differently, and leaves the clouds as they are.";
  }

  update(state.now);
  el.demo = { get ode() { return ode; } };
  return () => [player, state, plane, pair, bars].forEach((part) => part.destroy());
}
