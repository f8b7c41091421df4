/**
 * The ideal denoiser (Chapter 4): drag data points and a noisy particle; the best guess of the clean
 * point follows, and the particle can fall along it while the noise drains away. alpha is 1 throughout.
 *
 * State: points (x, y, x, y ...), x, y and sigma (where the particle starts, and in how much noise),
 * field ("guess": arrows from x toward D(x), or "score": the gradient over the smoothed density),
 * fall (how many of the FALL steps of DDIM the particle has made).
 */

import { Surface } from "./lib/canvas.js";
import { idealDenoiser, transfer } from "./lib/diffusion.js";
import { animation, arrows, draggable, pointer, reducedMotion } from "./lib/interact.js";
import { State } from "./lib/state.js";
import { button, choice, controls, note, readout, readouts, select, slider, stage, stages } from "./lib/ui.js";

const WINDOW = 2.4, COUNT = 19, CELL = 2 * WINDOW / COUNT; // half the window; arrows along a side
const FALL = 60, SECONDS = 4, FLOOR = 0.01; // steps of a fall, its time, the last noise level above 0
const LOW = Math.log10(0.03), HIGH = Math.log10(4); // the ends of the sigma slider
const SCALE = { guess: 1, score: 3 }; // the length that an arrow draws at half a cell
const SHADES = 72; // cells along a side of the density
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** n points of a Swiss roll, evenly spaced along its angle. */
function roll(n) {
  const round = (value) => Math.round(1000 * value) / 1000;
  return Array.from({ length: n }, (_, i) => {
    const angle = 1.5 * Math.PI * (1 + 2 * (i + 0.5) / n);
    return [round(angle * Math.cos(angle) / 6.8 - 0.3), round(angle * Math.sin(angle) / 6.8)];
  }).flat();
}
const SETS = { 2: [-1, 0, 1, 0], 12: roll(12), 50: roll(50) };

/** The posterior probability of each point, and the number e^entropy of those that have a say. */
function posterior(points, x, sigma) {
  const squares = Array.from({ length: points.length / 2 }, (_, i) =>
    (x[0] - points[2 * i]) ** 2 + (x[1] - points[2 * i + 1]) ** 2);
  const nearest = Math.min(...squares), scale = 2 * Math.max(sigma, 1e-150) ** 2;
  const raw = squares.map((square) => (square === nearest ? 1 : Math.exp((nearest - square) / scale)));
  const total = raw.reduce((a, b) => a + b);
  const weights = raw.map((w) => w / total);
  const entropy = -weights.reduce((sum, w) => sum + (w > 0 ? w * Math.log(w) : 0), 0);
  return { weights, effective: Math.exp(entropy) };
}

/** DDIM from sigma to 0, by equal factors and one last step: [{x, sigma}], FALL + 1 of them. */
function descend(denoiser, x, sigma) {
  const last = Math.min(FLOOR, sigma / 2), nodes = [{ x, sigma }];
  for (let k = 1; k <= FALL; k++) {
    const next = k === FALL ? 0 : sigma * (last / sigma) ** (k / (FALL - 1));
    const { x: here, sigma: now } = nodes[k - 1];
    nodes.push({ x: transfer(here, denoiser(here, 0, 1, now), 1, now, 1, next), sigma: next });
  }
  return nodes;
}

export function render({ model, el }) {
  const state = new State(model, update);
  const lattice = new Float64Array(2 * COUNT ** 2);
  for (let k = 0; k < COUNT ** 2; k++) {
    lattice[2 * k] = ((k % COUNT) + 0.5) * CELL - WINDOW;
    lattice[2 * k + 1] = (Math.floor(k / COUNT) + 0.5) * CELL - WINDOW;
  }
  let points, walk, x, sigma, guess, weights, effective, field, curve;

  // --- the plane ---
  const row = stages(el);
  const left = stage(row, "Drag the particle or a data point");
  const plane = new Surface(left, {
    label: "Data points, arrows toward the best guess, and a noisy particle. Arrow keys move the particle; "
      + "N and P choose another point.",
    interactive: true,
    x: [-WINDOW, WINDOW],
    y: [-WINDOW, WINDOW],
    draw({ colors }) {
      const { field: kind, fall } = state.now, n = weights.length;
      if (kind === "score" && sigma > 0) shade(colors.data);
      plane.arrows(lattice, field, colors.muted, { width: 1.1, alpha: kind === "score" ? 0.85 : 0.6 });
      for (let i = 0; i < n; i++) {
        if (weights[i] < 0.002) continue;
        const line = [...x, points[2 * i], points[2 * i + 1]];
        plane.path(line, colors.data, { width: 1.25 + 4 * weights[i], alpha: 0.2 + 0.7 * weights[i] });
      }
      for (let i = 0; i < n; i++) {
        const at = points.slice(2 * i, 2 * i + 2), radius = (n > 20 ? 3 : 4.5) + 4 * Math.sqrt(weights[i]);
        plane.dots(at, colors.data, { radius: Math.round(2 * radius) / 2, alpha: 1 });
        if (drag.active === i + 1) ring(...at, radius + 4, colors.ink);
      }
      if (fall > 0) {
        plane.path(walk.slice(0, fall + 1).flatMap((node) => [...node.x]), colors.noise, { width: 2.5 });
        plane.dots(walk[0].x, colors.noise, { radius: 3, alpha: 1 });
      }
      plane.path([...x, ...guess], colors.model, { width: 2, dash: [2, 5] });
      plane.handle(...x, colors.noise, { radius: 8, active: drag.active === 0 });
      cross(...guess, colors.model);
    },
  });
  const drag = draggable(plane, {
    handles: () => [[x[0], x[1]], ...weights.map((_, i) => [points[2 * i], points[2 * i + 1]])],
    move(i, a, b) {
      if (i === 0) return state.set({ x: a, y: b, fall: 0, ...(state.now.fall > 0 && sigma >= 0.03 ? { sigma } : {}) });
      const moved = [...state.now.points];
      moved.splice(2 * i - 2, 2, a, b);
      state.set({ points: moved });
    },
  });

  function ring(a, b, radius, color) {
    const { context } = plane;
    Object.assign(context, { strokeStyle: color, lineWidth: 1.5 });
    context.beginPath();
    context.arc(plane.px(a), plane.py(b), radius, 0, 2 * Math.PI);
    context.stroke();
  }

  function cross(a, b, color) {
    const { context } = plane, px = plane.px(a), py = plane.py(b);
    for (const [style, width] of [[plane.colors.paper, 6.5], [color, 3.5]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: width, lineCap: "round" });
      context.beginPath();
      for (const turn of [1, -1]) {
        context.moveTo(px - 5, py - 5 * turn);
        context.lineTo(px + 5, py + 5 * turn);
      }
      context.stroke();
    }
  }

  /** The smoothed density, clear at 0 and dark at its peak. */
  function shade(color) {
    const heights = new Float64Array(SHADES ** 2), side = 2 * WINDOW / SHADES, scale = 2 * sigma ** 2;
    for (let k = 0; k < heights.length; k++) {
      const a = ((k % SHADES) + 0.5) * side - WINDOW, b = WINDOW - (Math.floor(k / SHADES) + 0.5) * side;
      for (let i = 0; i < points.length; i += 2) {
        heights[k] += Math.exp(-((a - points[i]) ** 2 + (b - points[i + 1]) ** 2) / scale);
      }
    }
    const peak = Math.max(...heights) || 1, small = document.createElement("canvas");
    small.width = small.height = SHADES;
    const brush = small.getContext("2d", { willReadFrequently: true });
    brush.fillStyle = color;
    brush.fillRect(0, 0, SHADES, SHADES);
    const image = brush.getImageData(0, 0, SHADES, SHADES);
    for (let k = 0; k < heights.length; k++) image.data[4 * k + 3] = 128 * heights[k] / peak;
    brush.putImageData(image, 0, 0);
    plane.context.drawImage(small, 0, 0, plane.width, plane.height);
  }

  // --- how many points have a say ---
  const side = stage(row, "How many points have a say");
  const plot = new Surface(side, {
    label: "The effective number of points against sigma, for the particle where it is. Drag or use the arrow keys to set sigma.",
    interactive: true,
    aspect: 1.25,
    x: [LOW, HIGH],
    margin: [12, 14, 26, 34],
    draw({ colors }) {
      const n = weights.length, at = clamp(Math.log10(sigma), LOW, HIGH);
      const ticks = n > 20 ? [1, 10, 20, 30, 40, 50] : n > 4 ? [1, 3, 6, 9, 12] : [1, 2];
      plot.axes({
        x: [0.03, 0.1, 0.3, 1, 3].map(Math.log10), y: ticks, xLabel: "σ",
        format: (tick) => (ticks.includes(tick) && tick >= 1 ? String(tick) : String(+(10 ** tick).toPrecision(1))),
      });
      plot.path([at, plot.y[0], at, plot.y[1]], colors.noise, { width: 1.5, dash: [3, 4] });
      plot.path(curve, colors.data, { width: 2.5 });
      plot.handle(at, effective, colors.noise, { radius: 7, active: true });
    },
  });
  const setSigma = (log) => state.set({ sigma: Number((10 ** clamp(log, LOW, HIGH)).toPrecision(4)), fall: 0 });
  pointer(plot, { down: setSigma, move: setSigma });
  arrows(plot.element, (dx, dy) => setSigma(Math.log10(Math.max(sigma, 0.03)) + 0.05 * (dx || dy)));
  const numbers = readouts(side);
  const shown = {
    guessX: readout(numbers, { key: "guess-x", label: "best guess, across", color: "model" }),
    guessY: readout(numbers, { key: "guess-y", label: "up", color: "model" }),
    effective: readout(numbers, { key: "effective", label: "effective points", digits: 2, color: "data" }),
    largest: readout(numbers, { key: "largest", label: "largest weight", digits: 3, color: "data" }),
    score: readout(numbers, { key: "score", label: "length of the score", digits: 2, color: "noise" }),
  };

  // --- controls ---
  const first = controls(left, "Noise and fall");
  const noise = slider(first, {
    label: "noise σ", min: LOW, max: HIGH, step: 0.01, value: LOW,
    format: () => (sigma ? sigma.toFixed(sigma < 0.1 ? 3 : 2) : "0"), onInput: setSigma,
  });
  const play = button(first, {
    label: "Let it fall", primary: true,
    onClick() {
      if (falling.playing) falling.pause();
      else if (state.now.fall >= FALL) state.set({ fall: 0 });
      else if (reducedMotion()) state.set({ fall: FALL });
      else falling.play();
    },
  });
  let progress = 0;
  const falling = animation(el, (seconds) => {
    progress = Math.max(progress, state.now.fall) + seconds * FALL / SECONDS;
    const fall = Math.min(FALL, Math.floor(progress));
    if (fall !== state.now.fall) state.set({ fall });
    return fall < FALL;
  }, () => name());
  const name = () => {
    const { fall } = state.now;
    play.label = falling.playing ? "Pause" : fall >= FALL ? "Back to the start" : fall > 0 ? "Fall on" : "Let it fall";
  };

  const second = controls(side, "What is shown");
  const kinds = choice(second, {
    label: "arrows", options: { guess: "to the guess", score: "the score" },
    value: state.now.field, onChange: (kind) => state.set({ field: kind }),
  });
  const sets = select(second, {
    label: "data", options: { 2: "2 points", 12: "12 points", 50: "50 points" },
    value: String(state.now.points.length / 2),
    onChange: (count) => state.set({ points: SETS[count], fall: 0 }),
  });
  const words = note(stages(el));

  function update(now, changed = new Set()) {
    points = Float64Array.from(now.points);
    drag.active = Math.min(drag.active, points.length / 2);
    const denoiser = idealDenoiser(points);
    walk = descend(denoiser, Float64Array.of(now.x, now.y), now.sigma);
    ({ x, sigma } = walk[now.fall]);
    guess = denoiser(x, 0, 1, sigma);
    ({ weights, effective } = posterior(points, x, sigma));

    const toward = denoiser(lattice, 0, 1, sigma), unit = now.field === "score" ? Math.max(sigma, 1e-3) ** 2 : 1;
    field = toward.map((value, k) => (value - lattice[k]) / unit);
    for (let k = 0; k < field.length; k += 2) {
      const size = Math.hypot(field[k], field[k + 1]) || 1, drawn = CELL * size / (size + SCALE[now.field]);
      field[k] *= drawn / size;
      field[k + 1] *= drawn / size;
    }
    curve = Array.from({ length: 81 }, (_, k) => LOW + (HIGH - LOW) * k / 80)
      .flatMap((log) => [log, posterior(points, x, 10 ** log).effective]);
    const n = weights.length;
    plot.y = [1 - 0.06 * (n - 1), n + 0.06 * (n - 1)];

    shown.guessX.set(guess[0]);
    shown.guessY.set(guess[1]);
    shown.effective.set(effective);
    shown.largest.set(Math.max(...weights));
    shown.score.set(sigma > 0 ? Math.hypot(guess[0] - x[0], guess[1] - x[1]) / sigma ** 2 : null);
    noise.value = sigma > 0 ? Math.log10(sigma) : LOW;
    kinds.value = now.field;
    sets.value = String(n);
    words.set(sentence(now));
    if (!now.fall || (changed.has("fall") && now.fall < Math.floor(progress))) progress = now.fall;
    name();
    plane.redraw();
    plot.redraw();
  }

  function sentence({ fall }) {
    if (fall >= FALL) return "No noise is left: the particle stands on a data point, and could have ended nowhere else.";
    if (effective > 0.8 * weights.length) return "With this much noise nearly every point has a say: the guess is close to their mean.";
    if (effective < 1.2) return "With this little noise one point has it all. Cross the border to another and the guess jumps.";
    return "The guess is an average of the points that the particle may have come from.";
  }

  el.demo = { get walk() { return walk; }, FALL };
  update(state.now);
  return () => [falling, state, plane, plot].forEach((part) => part.destroy());
}
