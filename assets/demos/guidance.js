/**
 * Guidance (Chapter 10): the same noise flows to each of two classes, under a scale, an interval of
 * noise levels, and one of three estimates to get away from. Precision and recall stand beside.
 *
 * State: scale, kind ("free": away from no class, "negative": from the other class, "auto": from a
 * worse network), shown ("both", "blue", "orange"), low and high (the interval's ends, powers of ten
 * of sigma / alpha; at -2 and 2 there is no limit), node (how far the particles have come, 0 ... STEPS).
 */

import { Surface } from "./lib/canvas.js";
import { animation, arrows, draggable, pointer, reducedMotion } from "./lib/interact.js";
import { makeGrid } from "./lib/grid.js";
import { MLP } from "./lib/mlp.js";
import { Random } from "./lib/rng.js";
import { schedule } from "./lib/schedule.js";
import { State } from "./lib/state.js";
import { button, choice, controls, note, readout, readouts, slider, stage, stages } from "./lib/ui.js";
import { precisionRecall, region, shareOfClass } from "./guidance/coverage.js";
import { flow, HIGHEST, isOn, LOWEST } from "./guidance/guide.js";

const STEPS = 16, WINDOW = 3, TOP = 10; // steps of DDIM, half the window, the largest scale
const SEED = 3, STARTS = 240, CHUNK = 40, SECONDS = 3; // starts in all and in one go; a run's time
const SCALES = [0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 10]; // where the curves are measured
const KINDS = { free: "no class", negative: "the other class", auto: "a worse network" };
const SHOWN = { both: "both", blue: "blue", orange: "orange" };
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value, places) => Number(value.toFixed(places));

/** The first STARTS points of each class. */
function realPoints({ points, labels }) {
  return [0, 1].map((label) => {
    const rows = labels.flatMap((k, i) => (k === label ? [points[2 * i], points[2 * i + 1]] : []));
    return Float64Array.from(rows.slice(0, 2 * STARTS));
  });
}

export function render({ model, el }) {
  const data = model.get("data"), state = new State(model, update);
  const networks = { good: MLP.fromJSON(data["network/branches"]), bad: MLP.fromJSON(data["network/branches_weak"]) };
  const real = realPoints(data["labelled/branches"]), regions = real.map(region);
  const grid = makeGrid(schedule("cosine"), STEPS), starts = new Random(SEED).normals(2 * STARTS);
  const levels = Array.from({ length: STEPS }, (_, i) => Math.log10(grid.sigma[i] / grid.alpha[i]));
  const classes = () => ({ both: [0, 1], blue: [0], orange: [1] })[state.now.shown];

  // --- what is sampled: a chunk of starts at a time, so that nothing waits for it ---
  const known = new Map(); // settings -> {chunks, measured}
  let settings, cloud;

  const keyOf = ({ kind, scale, low, high }) => [kind, scale, ...(scale === 1 ? [] : [low, high])].join();
  function cloudOf(settings) {
    const key = keyOf(settings);
    if (!known.has(key)) {
      if (known.size > 200) known.clear();
      known.set(key, { settings, chunks: [], measured: null });
    }
    return known.get(key);
  }

  /** One more chunk of a cloud, or, when all are there, its measures; false if it was complete. */
  function advance(cloud) {
    const { chunks, settings } = cloud;
    if (cloud.measured) return false;
    const from = 2 * CHUNK * chunks.length;
    if (from < starts.length) chunks.push(flow(networks, grid, starts.slice(from, from + 2 * CHUNK), settings));
    else {
      cloud.measured = [0, 1].map((label) => {
        const made = pointsOf(cloud, label, STEPS);
        return { ...precisionRecall(regions[label], made), right: shareOfClass(made, real, label) };
      });
    }
    return true;
  }

  /** Where the particles of a class stand at a node, as one batch. */
  function pointsOf({ chunks }, label, node) {
    const out = new Float64Array(2 * CHUNK * chunks.length);
    chunks.forEach((walk, i) => out.set(walk[node].subarray(2 * CHUNK * label, 2 * CHUNK * (label + 1)), 2 * CHUNK * i));
    return out;
  }

  const measure = ({ measured }, key) => measured && classes().reduce((sum, k) => sum + measured[k][key], 0) / classes().length;
  const pending = () => [cloud, ...SCALES.map((scale) => cloudOf({ ...settings, scale }))].find((one) => !one.measured);
  let rested = false; // a frame that answers the hand does nothing else
  const work = animation(el, () => {
    const next = pending();
    if (!next) return false;
    if (!rested) return (rested = true);
    advance(next);
    if (next === cloud) show();
    plot.redraw();
    return true;
  });

  // --- the plane ---
  const row = stages(el), left = stage(row, "Drag across to change the scale");
  const plane = new Surface(left, {
    label: "", interactive: true, x: [-WINDOW, WINDOW], y: [-WINDOW, WINDOW],
    draw({ colors }) {
      const { node } = state.now, hues = [colors.data, colors.noise];
      for (const points of real) plane.dots(points, colors.muted, { radius: 1.2, alpha: 0.35 });
      for (const label of classes()) {
        for (let i = 0; i < CHUNK; i++) {
          const at = 2 * (CHUNK * label + i);
          const path = cloud.chunks[0].slice(0, node + 1).flatMap((x) => [x[at], x[at + 1]]);
          plane.path(path, hues[label], { width: 1.1, alpha: 0.4 });
        }
      }
      for (const label of classes()) plane.dots(pointsOf(cloud, label, node), hues[label], { radius: 2.2, alpha: 0.85 });
    },
  });
  const setScale = (scale) => state.set({ scale: round(clamp(scale, 0, TOP), 1) });
  let held = null;
  pointer(plane, {
    down(x) { held = [x, state.now.scale]; },
    move(x) { setScale(held[1] + (x - held[0]) * TOP / (2 * WINDOW)); },
  });
  arrows(plane.element, (dx, dy) => setScale(state.now.scale + 0.1 * (dx + dy)));

  // --- precision and recall ---
  const side = stage(row, "Precision and recall against scale");
  const plot = new Surface(side, {
    label: "", interactive: true, aspect: 1.5, x: [0, TOP], y: [0, 1.04], margin: [12, 14, 26, 34],
    draw({ colors }) {
      plot.axes({ x: [0, 2, 4, 6, 8, 10], y: [0, 0.5, 1], xLabel: "scale" });
      const { scale } = state.now;
      plot.path([scale, 0, scale, 1.04], colors.muted, { width: 1.5, dash: [3, 4] });
      for (const [key, color] of [["precision", colors.model], ["recall", colors.accent]]) {
        const all = [...new Set([...SCALES, scale])].sort((a, b) => a - b).map((s) => cloudOf({ ...settings, scale: s }));
        const line = all.filter((one) => one.measured).flatMap((one) => [one.settings.scale, measure(one, key)]);
        plot.path(line, color, { width: 2.5 });
        if (cloud.measured) plot.handle(scale, measure(cloud, key), color, { radius: 7, active: true });
      }
    },
  });
  pointer(plot, { down: setScale, move: setScale });
  arrows(plot.element, (dx, dy) => setScale(state.now.scale + 0.1 * (dx + dy)));
  const numbers = readouts(side);
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const shown = {
    precision: readout(numbers, { key: "precision", label: "precision", color: "model" }),
    recall: readout(numbers, { key: "recall", label: "recall", color: "accent" }),
    right: readout(numbers, { key: "right", label: "in the right coral", format: percent }),
    calls: readout(numbers, { key: "calls", label: "estimates per sample", digits: 0 }),
  };

  // --- the interval ---
  const axis = new Surface(stage(side, "Guide at these noise levels, σ / α"), {
    label: "", interactive: true, aspect: 6, x: [LOWEST, HIGHEST], y: [0, 1], margin: [4, 18, 24, 18],
    draw({ colors }) {
      const { low, high } = state.now;
      axis.axes({ x: [-2, -1, 0, 1, 2], format: (tick) => String(+(10 ** tick).toPrecision(1)) });
      axis.path([LOWEST, 0.5, HIGHEST, 0.5], colors.muted, { width: 2, alpha: 0.5 });
      axis.path([low, 0.5, high, 0.5], colors.amber, { width: 8, alpha: 0.55 });
      levels.forEach((level, i) => {
        const on = isOn({ ...state.now, scale: 0 }, grid.alpha[i], grid.sigma[i]);
        axis.dots([clamp(level, LOWEST, HIGHEST), 0.5], on ? colors.ink : colors.muted, { radius: on ? 3.5 : 2, alpha: 1 });
      });
      axis.handle(low, 0.5, colors.amber, { radius: 9, active: ends.active === 0 });
      axis.handle(high, 0.5, colors.amber, { radius: 9, active: ends.active === 1 });
    },
  });
  const ends = draggable(axis, {
    handles: () => [[state.now.low, 0.5], [state.now.high, 0.5]], step: 0.1, reach: Infinity,
    move(i, x) {
      const { low, high } = state.now;
      if (i === 0) state.set({ low: round(clamp(x, LOWEST, high - 0.1), 2) });
      else state.set({ high: round(clamp(x, low + 0.1, HIGHEST), 2) });
    },
  });

  // --- controls ---
  const first = controls(left, "Scale and time");
  const scaleSlider = slider(first, {
    label: "scale s", min: 0, max: TOP, step: 0.1, value: 0, format: (value) => value.toFixed(1), onInput: setScale,
  });
  const nodeSlider = slider(first, {
    label: "step", min: 0, max: STEPS, step: 1, value: 0, format: (value) => `${value} of ${STEPS}`,
    onInput: (node) => state.set({ node }),
  });
  const play = button(first, {
    label: "Let it flow", primary: true,
    onClick() {
      if (flowing.playing) return flowing.pause();
      if (reducedMotion()) return state.set({ node: state.now.node >= STEPS ? 0 : STEPS });
      if (state.now.node >= STEPS) state.set({ node: 0 });
      progress = state.now.node;
      flowing.play();
    },
  });
  let progress = 0;
  const flowing = animation(el, (seconds) => {
    progress += seconds * STEPS / SECONDS;
    const node = Math.min(STEPS, Math.floor(progress));
    if (node !== state.now.node) state.set({ node });
    return node < STEPS;
  }, (playing) => { play.label = playing ? "Pause" : "Let it flow"; });
  const second = controls(el, "What is guided");
  const kinds = choice(second, { label: "away from", options: KINDS, value: "free", onChange: (kind) => state.set({ kind }) });
  const shownChoice = choice(second, { label: "show", options: SHOWN, value: "both", onChange: (next) => state.set({ shown: next }) });
  const words = note(el);

  function sentence({ scale, kind, low, high }) {
    if (scale === 1) return "Scale 1: no guidance. The network alone smears the thin branches.";
    if (scale < 1) return "Below 1 the class counts for less; at 0 only the other estimate is followed.";
    if (kind === "negative") return "Each coral is told what to avoid, and pushed off beyond its own far side.";
    if (kind === "auto" && scale > 5) return "Too far. (Recall is misled by strays: each has a large ball, and covers points that nothing is near.)";
    if (kind === "auto") return "Away from a worse network: onto the branches, and the root that both corals share stays.";
    if (high < 0) return "Guided late: which branch is settled by then, so the root stays, and only the haze is cleared.";
    if (low > 0) return "Guided early: the root is given up, and the haze comes back after.";
    if (scale > 4) return "Far from everything the network was trained on: the streams end where no data is.";
    return "The streams thin out and part: the root that both corals share is given up first.";
  }

  /** Readouts of the present cloud, as far as it is measured. */
  function show() {
    for (const key of ["precision", "recall", "right"]) shown[key].set(measure(cloud, key));
    plane.redraw();
  }

  function update(now) {
    const { scale, kind, low, high, node } = now;
    settings = { scale, kind, low, high };
    cloud = cloudOf(settings);
    if (!cloud.chunks.length) advance(cloud);
    const on = levels.filter((_, i) => isOn(settings, grid.alpha[i], grid.sigma[i])).length;
    shown.calls.set(STEPS + on);
    scaleSlider.value = scale;
    nodeSlider.value = node;
    kinds.value = kind;
    shownChoice.value = now.shown;
    words.set(sentence(now));
    plane.label = `Particles flow from noise to two corals at scale ${scale}. Arrow keys change the scale.`;
    plot.label = `Precision and recall against the scale, which is ${scale}. Drag or use the arrow keys to set it.`;
    axis.label = `Guidance is on between sigma over alpha ${(10 ** low).toFixed(2)} and ${(10 ** high).toFixed(2)}. Arrow keys move an end; N and P choose the other.`;
    show();
    plot.redraw();
    axis.redraw();
    rested = false;
    work.play();
  }

  el.demo = { get busy() { return Boolean(pending()); }, get cloud() { return cloud; } };
  update(state.now);
  return () => [work, flowing, state, plane, plot, axis].forEach((part) => part.destroy());
}
