/**
 * The sampler race (Chapter 9): four solvers, the same noise, the same budget of evaluations, and
 * how far each is from the exact solution of the ODE that they all follow.
 *
 * State: lanes (four samplers), budget (of evaluations; one of BUDGETS), at (how many are made; the
 * whole budget if that is less), kind (roll, mixture, network), spacing (lambda, time, karras), seed
 * (of the noise), x and y (where the marked particle starts), show (gaps or paths).
 */

import { animation, arrows, pointer, reducedMotion } from "./lib/interact.js";
import { State } from "./lib/state.js";
import { button, choice, controls, h, note, select, slider } from "./lib/ui.js";
import { Lane, LETTERS, WINDOW } from "./race/lane.js";
import { Plot } from "./race/plot.js";
import { Exact, KINDS, Problem, SPACINGS } from "./race/problem.js";
import { BUDGETS, NAMES, Run } from "./race/run.js";

const SECONDS = 6, SLICE = 9; // of a race from start to end; milliseconds of a frame for computing
const END = BUDGETS[BUDGETS.length - 1]; // an `at` that no budget exceeds
const LEVELS = 80; // of the dashed line, from noise to data
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const nearest = (budget) => BUDGETS.reduce((a, b) => (Math.abs(b - budget) < Math.abs(a - budget) ? b : a));

export function render({ model, el }) {
  const state = new State(model, update), data = model.get("data"), problems = new Map();
  let problem, marked, runs, budget, calls, work = null;

  // --- what is computed, and kept ---

  function problemOf({ kind, seed }) {
    const key = `${kind} ${seed}`;
    if (!problems.has(key)) {
      if (problems.size > 2) problems.delete(problems.keys().next().value);
      problems.set(key, new Problem(kind, seed, data));
    }
    return problems.get(key);
  }

  function runOf(sampler, size, spacing) {
    const key = `${sampler} ${size} ${spacing}`;
    if (!problem.runs.has(key)) problem.runs.set(key, new Run(problem, sampler, size, spacing));
    return problem.runs.get(key);
  }

  /** What a finished run is worth: its gap, and its distance to the data in floors. */
  function score(run) {
    if (!run.score && run.done && problem.exact.done) {
      const last = run.grid.length, { x } = run.nodes[last];
      run.score = { gap: run.gap(problem.exact, last), floors: problem.distance(x) / problem.floor };
    }
    return run.score ?? null;
  }

  /** The marked particle: its exact way, and what each lane makes of it. */
  function mark({ x, y, kind, lanes, spacing, seed }) {
    const key = `${x} ${y} ${kind}`, start = Float64Array.of(x, y);
    if (marked?.key !== key) {
      const exact = new Exact(problem.denoiser, start).finish(), levels = exact.grid, way = [];
      for (let k = 0; k <= LEVELS; k++) {
        const node = Math.round(k * levels.length / LEVELS);
        way.push(...exact.at(levels.alpha[node], levels.sigma[node]));
      }
      marked = { key, exact, way };
    }
    const runsKey = `${key} ${lanes} ${spacing} ${budget} ${seed}`;
    if (marked.runsKey === runsKey) return;
    marked.runsKey = runsKey;
    marked.runs = lanes.map((name) => new Run(problem, name, budget, spacing, start).finish());
  }

  /** All that is to be computed, most wanted first, a call of a denoiser at a time. */
  function* tasks({ lanes, spacing }) {
    const now = lanes.map((name) => runOf(name, budget, spacing));
    for (const run of now) while (run.step()) yield;
    while (problem.exact.step()) yield;
    for (const size of [budget, ...BUDGETS]) {
      for (const name of lanes) {
        const run = runOf(name, size, spacing);
        while (run.step()) yield;
        if (!run.score) yield score(run);
      }
    }
  }

  const computing = animation(el, () => {
    const before = progress(), until = performance.now() + SLICE;
    while (performance.now() < until) {
      if (!work.next().done) continue;
      work = null;
      break;
    }
    if (progress() !== before) refresh();
    else drawPlot();
    return work !== null;
  });
  const progress = () => runs.reduce((sum, run) => sum + run.nodes.length + Boolean(run.score), Number(problem.exact.done));

  // --- the page ---

  const first = controls(el, "The race");
  const play = button(first, { label: "Race", primary: true, onClick: toggle });
  const one = button(first, { label: "+1", title: "+1 evaluation", onClick: () => step(1) });
  one.element.setAttribute("aria-label", "+1 evaluation");
  const made = slider(first, { label: "evaluations made", min: 0, max: END, step: 1, value: 0, onInput: (value) => scrub(value) });

  const body = h("div", { style: "display: flex; flex-wrap: wrap; gap: 0.75rem 1.25rem" });
  el.append(body);
  const grid = h("div", { style: "flex: 999 1 24rem; min-width: 0; display: grid; grid-template-columns: 1fr 1fr; gap: 0.75rem; align-content: start" });
  const side = h("div", { style: "flex: 1 1 14.5rem; min-width: 0" });
  body.append(grid, side);
  const lanes = [0, 1, 2, 3].map((i) => new Lane(grid, i, (name) => state.set({ lanes: state.now.lanes.map((other, k) => (k === i ? name : other)) })));

  side.append(h("p", { class: "sd-title", style: "line-height: 44px" }, "Gap against evaluations"));
  const plotBox = h("div", { style: "margin-top: 0.375rem" });
  side.append(plotBox);
  const plot = new Plot(plotBox, el.clientWidth < 668 ? 1.2 : 0.74);
  const spend = slider(side, {
    label: "budget", min: 0, max: BUDGETS.length - 1, step: 1, value: 0,
    format: (i) => String(BUDGETS[i]), onInput: (i) => setBudget(BUDGETS[i]),
  });
  const said = note(side, "", { live: true });

  const more = controls(side, "What they solve");
  more.style.marginTop = "0.5rem";
  const kinds = select(more, { label: "denoiser", options: KINDS, value: state.now.kind, onChange: (kind) => state.set({ kind }) });
  const spacings = select(more, { label: "steps", options: SPACINGS, value: state.now.spacing, onChange: (spacing) => state.set({ spacing }) });
  const shows = choice(more, { label: "show", options: { gaps: "gaps", paths: "paths" }, value: state.now.show, onChange: (show) => state.set({ show }) });
  for (const { element } of [kinds, spacings]) { // as wide as their column
    Object.assign(element.parentElement.style, { flex: "1 1 100%", minWidth: "0" });
    Object.assign(element.style, { flex: "1", minWidth: "0", padding: "0 0.5rem" });
  }
  button(more, { label: "New noise", onClick: () => state.set({ seed: state.now.seed + 1 }) });
  note(el, "Thin lines join each particle to where the exact solution of the ODE takes the same noise. Gap: the median length of those lines. "
    + "Floors: the distance to the data, where 1 is what an honest draw of 500 points has. Marked: the gap of the particle whose start, the ring, you can drag.");

  // --- the hand ---

  function setBudget(next) {
    state.set({ budget: next, at: state.now.at >= budget ? END : Math.min(state.now.at, next) });
  }
  function scrub(value) {
    racing.pause();
    state.set({ at: value >= budget ? END : Math.max(value, 0) });
  }
  const step = (by) => scrub((by > 0 ? Math.floor(calls) : Math.ceil(calls)) + by);
  function toggle() {
    if (racing.playing) racing.pause();
    else if (reducedMotion()) scrub(calls >= budget ? 0 : budget);
    else {
      if (calls >= budget) state.set({ at: 0 });
      racing.play();
    }
  }
  const racing = animation(el, (seconds) => {
    const at = calls + seconds * budget / SECONDS;
    state.set({ at: at >= budget ? END : at });
    return at < budget;
  }, name);
  function name() {
    said.set(sentence());
    play.label = racing.playing ? "Pause" : calls >= budget ? "Race again" : calls > 0 ? "Race on" : "Race";
  }

  const keys = { " ": toggle, n: () => step(1), p: () => step(-1), PageDown: () => step(1), PageUp: () => step(-1), Home: () => scrub(0), End: () => scrub(END) };
  const put = (x, y) => state.set({ x: clamp(x, -WINDOW, WINDOW), y: clamp(y, -WINDOW, WINDOW) });
  for (const { surface } of lanes) {
    pointer(surface, { down: put, move: put });
    arrows(surface.element, (dx, dy) => put(state.now.x + 0.05 * dx, state.now.y + 0.05 * dy), keys);
  }
  const toBudget = (x) => setBudget(plot.budgetAt(x));
  pointer(plot.surface, { down: toBudget, move: toBudget });
  arrows(plot.surface.element, (dx, dy) => {
    setBudget(BUDGETS[clamp(BUDGETS.indexOf(budget) + Math.sign(dx + dy), 0, BUDGETS.length - 1)]);
  }, keys);

  // --- from the state to the picture ---

  function update(now) {
    problem = problemOf(now);
    budget = nearest(now.budget);
    calls = clamp(now.at, 0, budget);
    runs = now.lanes.map((sampler) => runOf(sampler, budget, now.spacing));
    mark(now);
    const wanted = `${now.kind} ${now.seed} ${now.lanes} ${now.spacing} ${budget}`;
    if (wanted !== update.wanted) {
      update.wanted = wanted;
      work = tasks(now);
      computing.play();
    }
    made.max = budget;
    made.value = Math.floor(calls);
    spend.value = BUDGETS.indexOf(budget);
    kinds.value = now.kind;
    spacings.value = now.spacing;
    shows.value = now.show;
    name();
    refresh();
  }

  function refresh() {
    const { now } = state;
    lanes.forEach((lane, i) => lane.set({
      run: runs[i], exact: problem.exact, marked: marked.runs[i], markedExact: marked.exact, way: marked.way,
      calls, shape: problem.shape, show: now.show, score: runs[i].score ?? null, name: now.lanes[i],
    }));
    said.set(sentence());
    drawPlot();
  }

  function drawPlot() {
    const { now } = state;
    const curves = now.lanes.map((sampler) => BUDGETS.flatMap((size) => {
      const found = problem.runs.get(`${sampler} ${size} ${now.spacing}`)?.score;
      return found ? [[size, found.gap]] : [];
    }));
    plot.set({ curves, budget });
  }

  function sentence() {
    if (racing.playing) return "They are off.";
    if (calls < budget) return `${Math.floor(calls)} of ${budget} evaluations made.`;
    if (!runs.every((run) => run.score)) return "Computing the exact solution.";
    const order = [0, 1, 2, 3].sort((a, b) => runs[a].score.gap - runs[b].score.gap), [best] = order, worst = order[3];
    const label = (i) => `${LETTERS[i]} (${NAMES[state.now.lanes[i]].replace(" (random)", "")})`;
    const ratio = runs[worst].score.gap / runs[best].score.gap, times = ratio.toFixed(ratio < 10 ? 1 : 0);
    const there = runs.filter((run) => run.score.floors < 1.25).length;
    return `${label(best)} is nearest, ${label(worst)} ${times} times as far. As near to the data as an honest draw: ${there} of 4.`;
  }

  el.demo = {
    get busy() { return work !== null; }, // the curves still grow
    get ready() { return runs.every((run) => run.score); }, // all that the lanes show is known
    get problem() { return problem; },
  };
  update(state.now);
  return () => [computing, racing, state, plot, ...lanes].forEach((part) => part.destroy());
}
