/**
 * Noise schedules (Chapter 3): drag the log-SNR curve, and a sampler re-times itself.
 *
 * State: preset (the curve to begin with), bend (how far each of five handles stands from it, in
 * lambda), steps, data ("ring" or "off" center), at (0 ... 1: how much of the walk is shown), seed.
 */
import { Surface } from "./lib/canvas.js";
import { animation, draggable } from "./lib/interact.js";
import { State } from "./lib/state.js";
import { button, choice, controls, note, readout, readouts, select, slider, stage, stages } from "./lib/ui.js";
import { curve, KNOTS, moved } from "./schedule/curve.js";
import { COUNT, exact, medianGap, MIXTURES, nodes, noiseOf, sample, walk } from "./schedule/walk.js";

const PRESETS = {
  linear: "linear", cosine: "cosine", scaled_linear: "scaled linear", sigmoid: "sigmoid", flow: "flow", edm: "EDM",
};
const TOP = 7.6, STRIP = [1.05, 1.3], PEAK = 0.45; // the strip for densities right of t = 1
const PATHS = 70; // particles with a path
const SECONDS = 3.5; // of a play
const STRAIGHT = [0, 0, 0, 0, 0];

const minus = (words) => words.replace("-", "\u2212");
const snrWords = (value) => minus(value >= 0.001 && value < 1e4 ? String(Number(value.toPrecision(3))) : value.toExponential(1));

export function render({ model, el }) {
  const cache = new Map();
  let shown = null; // what the canvases paint, made anew from the state after each change

  function problem({ data, seed }) {
    const key = `${data} ${seed}`;
    if (!cache.has(key)) {
      const noise = noiseOf(seed), parts = MIXTURES[data];
      cache.set(key, { parts, noise, target: exact(parts, noise), cloud: sample(parts, 700, 7) });
    }
    return cache.get(key);
  }

  function compute(now) {
    const { parts, noise, target, cloud } = problem(now);
    const shape = curve(now), lams = nodes(shape.lam, now.steps), states = walk(parts, noise, lams);
    let longest = null;
    for (let i = 1; i < lams.length; i++) longest = Math.max(longest ?? 0, lams[i] - lams[i - 1]);
    return {
      shape, lams, states, target, cloud, longest,
      error: medianGap(states[states.length - 1], target),
      snr: [shape.lam(0), shape.lam(1)].map((l) => Math.exp(2 * l)),
    };
  }

  // --- the curve ---

  function traced(lam) {
    const line = [];
    for (let i = 0; i <= 240; i++) line.push(i / 240, lam(i / 240));
    return line;
  }

  /** The density of lambda when t is uniform: |dt / dlambda|, drawn sideways. */
  function density(surface, line) {
    const { context, colors: { amber } } = surface, [left, right] = STRIP;
    const outline = [];
    for (let k = 2; k < line.length - 2; k += 2) {
      const p = (line[k + 2] - line[k - 2]) / Math.max(line[k - 1] - line[k + 3], 1e-9);
      outline.push(left + (right - left) * Math.min(p / PEAK, 1), line[k + 1]);
    }
    context.save();
    context.fillStyle = amber;
    context.globalAlpha = 0.35;
    context.beginPath();
    context.moveTo(surface.px(left), surface.py(outline[1]));
    for (let k = 0; k < outline.length; k += 2) context.lineTo(surface.px(outline[k]), surface.py(outline[k + 1]));
    context.lineTo(surface.px(left), surface.py(outline[outline.length - 1]));
    context.fill();
    context.restore();
    surface.path(outline, amber, { width: 1.5 });
  }

  function drawCurve(surface) {
    const { shape, lams } = shown, { ink, muted, noise, grid, data } = surface.colors;
    const ticks = [-6, -4, -2, 0, 2, 4, 6];
    for (const tick of ticks) {
      surface.path([0, tick, STRIP[1], tick], grid, { width: tick ? 1 : 2 });
      surface.text(minus(String(tick)), 0, tick, { dx: -6, align: "right", size: 12 });
    }
    for (const tick of KNOTS) {
      surface.path([tick, -TOP, tick, TOP], grid, { width: 1 });
      if (tick % 0.5 === 0) surface.text(String(tick), tick, -TOP, { dy: 11, size: 12 });
    }
    surface.text("time", 0.75, -TOP, { dy: 11, size: 12 });
    surface.text("training", STRIP[0], -TOP, { dy: 11, size: 12, align: "left" });
    surface.text("\u03bb, half the log-SNR", 0.98, TOP, { dy: 12, align: "right", color: ink });
    surface.text("data", 0.07, TOP, { dy: 12, align: "left", color: data });
    surface.text("noise", 0.93, -TOP, { dy: -12, align: "right", color: noise });
    const line = traced(shape.lam);
    density(surface, line);
    if (shape.bent) surface.path(traced(shape.plain), muted, { width: 1.5, dash: [4, 4], alpha: 0.7 });
    surface.path(line, ink, { width: 2.2 });
    shape.handles.forEach((lam, k) =>
      surface.handle(KNOTS[k], lam, ink, { radius: 8, active: k === drag.active && document.activeElement === surface.element }));
    // at: the walk has come this far; nodes that it has passed are full
    const reached = state.now.at * lams.length;
    lams.forEach((lam, i) => {
      const t = 1 - i / lams.length;
      surface.path([STRIP[0] - 0.035, lam, STRIP[0] - 0.005, lam], noise, { width: 2, alpha: 0.9 });
      surface.dots([t, lam], noise, { radius: i <= reached ? 4 : 2.6, alpha: i <= reached ? 1 : 0.6 });
    });
  }

  // --- the walk ---

  function drawPlane(surface) {
    const { states, target, cloud } = shown, { data, noise, model: green, muted } = surface.colors;
    surface.x = state.now.data === "ring" ? [-2.4, 2.4] : [-2.2, 3.2];
    surface.y = state.now.data === "ring" ? [-2.4, 2.4] : [-2.7, 2.7];
    const place = state.now.at * (states.length - 1), before = Math.min(Math.floor(place), states.length - 2);
    const share = place - before;
    const here = states[before].map((value, k) => value + share * (states[before + 1][k] - value));
    surface.dots(cloud, data, { radius: 1.6, alpha: 0.28 });
    for (let k = 0; k < 2 * PATHS; k += 2) {
      const line = [];
      for (let i = 0; i <= before; i++) line.push(states[i][k], states[i][k + 1]);
      line.push(here[k], here[k + 1]);
      surface.path(line, noise, { width: 1, alpha: 0.3 });
      if (state.now.at === 1) surface.path([here[k], here[k + 1], target[k], target[k + 1]], green, { width: 1.5 });
    }
    const { context } = surface;
    context.save();
    Object.assign(context, { strokeStyle: green, lineWidth: 1.3 });
    for (let k = 0; k < 2 * PATHS; k += 2) {
      context.beginPath();
      context.arc(surface.px(target[k]), surface.py(target[k + 1]), 3.4, 0, 2 * Math.PI);
      context.stroke();
    }
    context.restore();
    surface.dots(here, noise, { radius: 1.9, alpha: 0.9 });
    surface.path([-0.07, 0, 0.07, 0], muted, { width: 1 });
    surface.path([0, -0.07, 0, 0.07], muted, { width: 1 });
  }

  // --- the page ---

  const row = stages(el);
  const boxes = [stage(row, "Schedule: drag a handle"), stage(row, "Sampler: from noise to data")];
  const left = new Surface(boxes[0], {
    label: "", draw: drawCurve, x: [0, STRIP[1]], y: [-TOP, TOP], interactive: true, margin: [6, 4, 22, 30],
  });
  const right = new Surface(boxes[1], { label: "", draw: drawPlane });
  note(boxes[0], "Orange: where the sampler calls the denoiser. At the edge: how training spreads over the levels.");
  note(boxes[1], "Blue: the data. Orange: the particles. Green rings: where they should have landed.");
  const numbers = readouts(el);
  const read = {
    error: readout(numbers, { key: "error", label: "error (median)", color: "model" }),
    longest: readout(numbers, { key: "longest", label: "longest step in \u03bb", digits: 2, color: "noise" }),
    clean: readout(numbers, { key: "snr_clean", label: "SNR at t = 0", format: snrWords }),
    noisy: readout(numbers, { key: "snr_noisy", label: "SNR at t = 1", format: snrWords }),
  };
  const menu = controls(el, "Schedule and sampler");
  const preset = choice(menu, {
    label: "Preset", options: PRESETS, value: "cosine", onChange: (value) => state.set({ preset: value, bend: STRAIGHT }),
  });
  const steps = slider(menu, {
    label: "Steps", min: 2, max: 60, step: 1, value: 8, onInput: (value) => state.set({ steps: value }),
  });
  const data = select(menu, {
    label: "Data", options: { ring: "ring of eight", off: "off center" }, value: "ring", onChange: (value) => state.set({ data: value }),
  });
  const play = button(menu, { label: "Play", primary: true, onClick: () => {
    if (!film.playing && state.now.at >= 1) state.set({ at: 0 });
    film.toggle();
  } });
  const reset = button(menu, { label: "Undo bends", onClick: () => state.set({ bend: STRAIGHT }) });
  const state = new State(model, update);
  const drag = draggable(left, {
    handles: () => shown.shape.handles.map((lam, k) => [KNOTS[k], lam]),
    move: (k, x, y) => state.set({ bend: moved(state.now, k, y) }),
    step: 0.25, reach: 40,
  });
  const film = animation(el, (seconds) => {
    const at = Math.min(state.now.at + seconds / SECONDS, 1);
    state.set({ at });
    return at < 1;
  }, (playing) => { play.label = playing ? "Pause" : "Play"; });
  for (const kind of ["focus", "blur"]) left.element.addEventListener(kind, () => left.redraw());

  function update(now, changed) {
    if (!shown || [...changed].some((key) => key !== "at")) {
      shown = compute(now);
      read.error.set(shown.error);
      read.longest.set(shown.longest);
      read.clean.set(shown.snr[0]);
      read.noisy.set(shown.snr[1]);
      preset.value = now.preset;
      steps.value = now.steps;
      data.value = now.data;
      reset.disabled = !shown.shape.bent;
      const words = shown.shape.handles.map((lam) => minus(lam.toFixed(1))).join(", ");
      left.label = `Log signal-to-noise ratio against time, with handles at ${words}. `
        + "Up and down move a handle, N and P choose another.";
      right.label = `Paths of ${COUNT} particles with ${now.steps} steps; median error ${shown.error.toFixed(3)}.`;
    }
    left.redraw();
    right.redraw();
  }
  update(state.now, new Set());
  return () => {
    film.destroy();
    state.destroy();
    left.destroy();
    right.destroy();
  };
}
