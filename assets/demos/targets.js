/**
 * What should the network predict? (Chapter 5): one triangle, four targets, four trained networks.
 *
 * Left, in units of x0 (across) and eps (upward): the noisy sample, the network's answer, and what
 * an error in the answer becomes in the estimates of x0 and eps. Right: how far each trained
 * network's estimate of x0 is from the best possible, measured here on a few hundred points.
 *
 * State: target (eps, x0, v, flow), t (0 ... 999 of the cosine table).
 */

import { Surface } from "./lib/canvas.js";
import { idealDenoiser, networkDenoiser, qSample } from "./lib/diffusion.js";
import { animation, arrows, pointer } from "./lib/interact.js";
import { MLP } from "./lib/mlp.js";
import { Random } from "./lib/rng.js";
import { schedule } from "./lib/schedule.js";
import { State } from "./lib/state.js";
import { choice, controls, note, readout, readouts, slider, stage, stages } from "./lib/ui.js";

const NAMES = { eps: "eps", x0: "x0", v: "v", flow: "flow" };
const ANSWERS = { eps: "ε", x0: "x₀", v: "v", flow: "ε − x₀" };
const LAST = 999, POINTS = 256, SEED = 5;
const ERROR = 0.12; // of the answer in the picture, in its units
const LOW = -6.6, HIGH = 3.4; // powers of ten on the error axis
const TIMES = [
  ...[0, 1, 3, 6, 10, 16, 24, 34, 46, 60, 80], ...Array.from({ length: 34 }, (_, i) => 100 + 25 * i),
  ...[940, 955, 970, 980, 986, 990, 993, 995, 997, 998, 999],
];

const cosine = schedule("cosine");
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The target as a x0 + b eps, and the determinant of its system with x = alpha x0 + sigma eps. */
function system(target, { alpha, sigma }) {
  const [a, b] = { eps: [0, 1], x0: [1, 0], v: [-sigma, alpha], flow: [-1, 1] }[target];
  return { a, b, det: alpha * b - sigma * a };
}

/** The time whose noise level stands at this angle of the circle (0: data, a right angle: noise). */
function timeAt(angle) {
  let low = 0, high = LAST;
  while (high - low > 1) {
    const middle = (low + high) >> 1, { alpha, sigma } = cosine.at(middle);
    if (Math.atan2(sigma, alpha) < angle) low = middle;
    else high = middle;
  }
  const away = (t) => Math.abs(Math.atan2(cosine.at(t).sigma, cosine.at(t).alpha) - angle);
  return away(low) < away(high) ? low : high;
}

/** The exact denoiser of the Swiss roll: a spiral, evenly filled in its angle, with a little blur. */
function bestDenoiser(count = 1600) {
  const spiral = new Float64Array(2 * count), center = [0, 0];
  for (let i = 0; i < count; i++) {
    const angle = 1.5 * Math.PI * (1 + 2 * (i + 0.5) / count);
    spiral.set([angle * Math.cos(angle), angle * Math.sin(angle)], 2 * i);
    for (const k of [0, 1]) center[k] += spiral[2 * i + k] / count;
  }
  spiral.forEach((value, k) => { spiral[k] = value - center[k % 2]; });
  const scale = Math.sqrt(spiral.reduce((sum, value) => sum + value * value, 0) / spiral.length + 0.01);
  const onSpiral = idealDenoiser(spiral.map((value) => value / scale)), blur = (0.1 / scale) ** 2;
  return (x, t, alpha, sigma) => {
    const variance = alpha * alpha * blur + sigma * sigma, share = alpha * blur / variance;
    return onSpiral(x, t, alpha, Math.sqrt(variance)).map((value, k) => value + share * (x[k] - alpha * value));
  };
}

const meanSquare = (a, b) => a.reduce((sum, value, k) => sum + (value - b[k]) ** 2, 0) / a.length;

/** The measured errors at a time, each computed when it is first asked for. */
class Measurements {
  constructor(data) {
    this.x0 = Float64Array.from(data["points/swiss_roll"].slice(0, 2 * POINTS));
    this.eps = new Random(SEED).normals(2 * POINTS);
    this.best = bestDenoiser();
    this.networks = Object.fromEntries(Object.keys(NAMES).map((name) =>
      [name, networkDenoiser(MLP.fromJSON(data[`network/predict_${name}`]), name)]));
    this.known = new Map();
  }

  at(t) {
    if (this.known.has(t)) return this.known.get(t);
    const { alpha, sigma } = cosine.at(t), x = qSample(this.x0, this.eps, alpha, sigma);
    const best = this.best(x, t, alpha, sigma), errors = { best: meanSquare(best, this.x0) };
    for (const [name, denoiser] of Object.entries(this.networks)) {
      errors[name] = meanSquare(denoiser(x, t, alpha, sigma), best);
    }
    this.known.set(t, errors);
    return errors;
  }
}

const number = (value) => {
  const size = Math.abs(value);
  return size >= 1000 || (size > 0 && size < 0.01) ? value.toExponential(2) : value.toFixed(3);
};

export function render({ model, el }) {
  const measured = new Measurements(model.get("data"));
  const state = new State(model, update);
  const move = (t) => state.set({ t: clamp(Math.round(t), 0, LAST) });

  const row = controls(el, "Target and noise level");
  const target = choice(row, {
    label: "The network predicts", options: NAMES, value: state.now.target,
    onChange: (next) => state.set({ target: next }),
  });

  const both = stages(el);
  const plane = new Surface(stage(both, "Drag the noisy sample"), {
    label: "", interactive: true, x: [-1.35, 1.65], y: [-0.5, 1.8], aspect: 3 / 2.3, draw: drawPlane,
  });
  pointer(plane, { down: turn, move: turn });
  arrows(plane.element, (dx, dy) => move(state.now.t + 10 * (dy - dx)));
  const said = note(plane.element.parentElement, "", { live: true });

  const plot = new Surface(stage(both, "Four trained networks: error in x₀"), {
    label: "", interactive: true, x: [0, LAST], y: [LOW, HIGH], aspect: 3 / 2.3, margin: [10, 14, 26, 38], draw: drawPlot,
  });
  pointer(plot, { down: move, move });
  arrows(plot.element, (dx, dy) => move(state.now.t + 10 * (dx + dy)));
  note(plot.element.parentElement, "Mean squared distance from the best possible estimate. Dashed: what even that one misses.");

  const level = slider(controls(el, "Noise level"), {
    label: "noise level t", min: 0, max: LAST, step: 1, value: state.now.t, onInput: move,
  });
  const shown = readouts(el);
  const show = {
    alpha: readout(shown, { key: "alpha", label: "α" }),
    sigma: readout(shown, { key: "sigma", label: "σ" }),
    area: readout(shown, { key: "area", label: "twice the triangle's area", color: "accent" }),
    factor: readout(shown, { key: "factor", label: "cost of an output error in x₀", format: number, color: "model" }),
    inNoise: readout(shown, { key: "factor_eps", label: "in ε", format: number, color: "amber" }),
    error: readout(shown, { key: "error", label: "measured error of this network", format: number }),
  };
  note(el, "The disc at the arrow's tip is an error in the network's answer, always of the same size. The discs at x₀ and ε are what becomes of it. Dotted: the way back to x₀, along xₜ and then along the answer.");

  function turn(x, y) {
    move(timeAt(clamp(Math.atan2(y, x), 0, Math.PI / 2)));
  }

  /** A disc with a rim; one that outgrows the picture just fills it. */
  function disc(surface, x, y, radius, color) {
    const { context } = surface, pixels = radius * (surface.px(1) - surface.px(0));
    context.save();
    Object.assign(context, { fillStyle: color, strokeStyle: color, lineWidth: 1.5, globalAlpha: 0.22 });
    context.beginPath();
    context.arc(surface.px(x), surface.py(y), Math.min(pixels, 1e4), 0, 2 * Math.PI);
    context.fill();
    context.globalAlpha = 0.9;
    context.stroke();
    context.restore();
  }

  function drawPlane(surface) {
    const { colors, context } = surface, { target: name, t } = state.now, levels = cosine.at(t);
    const { alpha, sigma } = levels, { a, b, det } = system(name, levels);
    const circle = Array.from({ length: 61 }, (_, i) => [Math.cos(i * Math.PI / 120), Math.sin(i * Math.PI / 120)]).flat();
    surface.path([surface.x[0], 0, surface.x[1], 0], colors.grid, { width: 1 });
    surface.path([0, surface.y[0], 0, surface.y[1]], colors.grid, { width: 1 });
    surface.path(circle, colors.muted, { width: 1.2, alpha: 0.8 });

    context.save();
    Object.assign(context, { fillStyle: colors.accent, globalAlpha: 0.3 });
    context.beginPath();
    for (const [x, y] of [[0, 0], [alpha, sigma], [a, b]]) context.lineTo(surface.px(x), surface.py(y));
    context.fill();
    context.restore();

    if (det !== 0) {
      disc(surface, 0, 1, ERROR * Math.abs(alpha / det), colors.amber);
      disc(surface, 1, 0, ERROR * Math.abs(sigma / det), colors.model);
      const along = b / det; // the way back: along x_t, then against the answer
      surface.path([0, 0, along * alpha, along * sigma], colors.noise, { width: 1.5, dash: [2, 5] });
      surface.path([along * alpha, along * sigma, 1, 0], colors.accent, { width: 1.5, dash: [2, 5] });
    }
    disc(surface, a, b, ERROR, colors.accent);
    surface.dots([1, 0], colors.model, { radius: 5, alpha: 1 });
    surface.dots([0, 1], colors.amber, { radius: 5, alpha: 1 });
    surface.arrows([0, 0], [a, b], colors.accent, { width: 3, head: 11 });
    surface.arrows([0, 0], [alpha, sigma], colors.noise, { width: 3, head: 11 });
    surface.handle(alpha, sigma, colors.noise, { radius: 9, active: true });

    const words = { weight: 600, size: 15 };
    surface.text("x₀", 1, 0, { ...words, color: colors.ink, dy: 20 });
    surface.text("ε", 0, 1, { ...words, color: colors.ink, dx: 16, dy: -14 });
    surface.text("xₜ", alpha, sigma, { ...words, color: colors.ink, dx: 22, dy: -10 });
    if (name === "v" || name === "flow") {
      surface.text(ANSWERS[name], a, b, { ...words, color: colors.ink, dx: -8, dy: -26 });
    }
  }

  function drawPlot(surface) {
    const { colors } = surface, { target: name, t } = state.now;
    surface.axes({ x: [0, 250, 500, 750, 999], xLabel: "more noise →" });
    surface.axes({ y: [-6, -4, -2, 0, 2], format: (tick) => (tick === 0 ? "1" : `1e${tick}`) });
    const times = [...new Set([...TIMES, t])].filter((time) => measured.known.has(time)).sort((p, q) => p - q);
    const line = (key) => times.flatMap((time) => [time, Math.log10(measured.known.get(time)[key])]);
    const { context } = surface, [top, right, bottom, left] = surface.margin;
    context.save();
    context.beginPath();
    context.rect(left, top, surface.width - left - right, surface.height - top - bottom);
    context.clip();
    surface.path(line("best"), colors.muted, { width: 1.5, dash: [5, 5] });
    for (const other of Object.keys(NAMES)) {
      if (other !== name) surface.path(line(other), colors.muted, { width: 1.3, alpha: 0.65 });
    }
    surface.path(line(name), colors.accent, { width: 3 });
    surface.path([t, LOW, t, HIGH], colors.noise, { width: 1.5 });
    context.restore();
    const labels = { unavoidable: [600, 0.35], eps: [925, 1.6], x0: [215, -1.75] };
    for (const [words, [x, y]] of Object.entries(labels)) {
      if (words !== name) surface.text(words, x, y, { size: 12 });
    }
    const height = clamp(Math.log10(measured.at(t)[name]), LOW, HIGH);
    surface.handle(t, height, colors.accent, { radius: 7, active: true });
    surface.text(NAMES[name], t, height, {
      color: colors.ink, weight: 600, dx: t < LAST / 2 ? 14 : -14, dy: -14, align: t < LAST / 2 ? "left" : "right",
    });
  }

  function update({ target: name, t }) {
    const levels = cosine.at(t), { alpha, sigma } = levels, { det } = system(name, levels);
    const errors = measured.at(t), area = Math.abs(det);
    target.value = name;
    level.value = t;
    show.alpha.set(alpha);
    show.sigma.set(sigma);
    show.area.set(area);
    show.factor.set((sigma / det) ** 2);
    show.inNoise.set((alpha / det) ** 2);
    show.error.set(errors[name]);
    said.set(
      area < 0.12 ? "Nearly flat: an error in the answer is blown up."
        : area < 0.5 ? "A thin triangle: an error in the answer grows."
          : name === "v" ? "The same right triangle at every noise level."
            : "A wide triangle: an error in the answer does little harm.",
    );
    plane.label = `The plane of data and noise. Noisy sample at alpha ${alpha.toFixed(2)}, sigma ${sigma.toFixed(2)}; the network predicts ${name}. Arrow keys move the sample.`;
    plot.label = `Errors of four networks against time. The ${name}-network at t = ${t}: ${number(errors[name])}. Arrow keys move the time.`;
    plane.redraw();
    plot.redraw();
  }

  let next = 0; // the curves are measured a time at a time, so that nothing waits for them
  const measure = animation(el, () => {
    measured.at(TIMES[next++]);
    plot.redraw();
    return next < TIMES.length;
  });
  el.demo = { measured, get busy() { return next < TIMES.length; } };

  update(state.now);
  measure.play();
  return () => [measure, state, plane, plot].forEach((part) => part.destroy());
}
