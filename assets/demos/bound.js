/**
 * The variational bound (Chapter 7): what each reverse step of DDPM costs, and one step enlarged.
 *
 * State: steps (of the grid), v (the reverse variance, 0 small ... 1 large), step (the one enlarged),
 * bill ("all" data, or "one" point), x0 (that point), z (the noise: the sampler stands at alpha x0 +
 * sigma z).
 */
import { bestV, BELLS, bill, reverse, survey } from "./bound/line.js";
import { Surface } from "./lib/canvas.js";
import { animation, arrows, draggable, pointer, reducedMotion } from "./lib/interact.js";
import { State } from "./lib/state.js";
import { button, choice, controls, note, readout, readouts, slider, stage, stages } from "./lib/ui.js";

const EDGE = 2.6, REACH = 3.4; // of the line, and of the noise
const CORNERS = 241; // of a curve
const SECONDS = 6; // of a walk

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const minus = (words) => words.replace("-", "\u2212");
const bits = (value) => minus(value.toFixed(3));
const root = (value) => Math.sqrt(Math.max(value, 0));

export function render({ model, el }) {
  const state = new State(model, update);
  let shown; // all that is painted, made anew from the state

  function compute(now) {
    const facts = survey(now.steps, now.bill === "one" ? now.x0 : null);
    const step = clamp(now.step, 0, now.steps - 1);
    const x = facts.grid.alpha[step] * now.x0 + facts.grid.sigma[step] * now.z;
    const ends = [0, 1].map((v) => bill(facts, v));
    return {
      facts, step, x, bill: bill(facts, now.v), at: reverse(facts.grid, step, x, now.v), best: bestV(facts, step),
      top: Math.max(0.01, ...ends.flatMap(({ steps }) => [...steps])), // the same for every v
    };
  }

  // --- the bill ---
  const row = stages(el);
  const left = stage(row, "What each step costs, in bits");
  const bars = new Surface(left, {
    label: "", interactive: true, aspect: 1.1, margin: [10, 8, 26, 42],
    draw({ colors }) {
      const { bill: { steps, must }, step, top } = shown, n = steps.length;
      bars.x = [-0.5, n + 0.5]; // the last place is the jump's
      bars.y = [0, root(top) * 1.06];
      const ticks = [0.001, 0.01, 0.03, 0.1, 0.3, 1, 2, 4, 8, 16].filter((tick) =>
        tick <= top * 1.1 && root(tick) > 0.07 * bars.y[1]);
      bars.axes({ y: ticks.map(root), format: (tick) => String(+(tick * tick).toPrecision(1)) });
      bars.text("noise", bars.x[0], 0, { dx: 2, dy: 13, align: "left", color: colors.noise });
      bars.text("data", bars.x[1], 0, { dx: -2, dy: 13, align: "right", color: colors.data });
      const { context } = bars, width = bars.px(1) - bars.px(0);
      context.save();
      context.fillStyle = colors.grid;
      const mark = Math.max(width, 5);
      context.fillRect(bars.px(step) - mark / 2, bars.py(bars.y[1]), mark, bars.py(0) - bars.py(bars.y[1]));
      for (const [heights, color, share] of [[steps, colors.noise, 0.82], [must, colors.data, state.now.bill === "all" ? 0.4 : 0]]) {
        context.fillStyle = color;
        for (let i = 0; i < n; i++) {
          const y = bars.py(root(heights[i])), wide = share && Math.max(width * share, 0.7);
          context.fillRect(bars.px(i) - wide / 2, y, wide, bars.py(0) - y);
        }
      }
      context.restore();
      bars.text("L\u2080", n, 0, { dx: n > 30 ? -9 : 0, dy: -10, color: colors.ink });
      bars.text("\u25bc", step, bars.y[1], { dy: 5, color: colors.ink, size: 11 });
    },
  });
  note(left, "Orange: the price of a step. Blue, on average: what no sampler could save. (Twice as high is four times the bits.) Drag to choose a step.");
  const pick = (at) => {
    walk.pause();
    state.set({ step: clamp(Math.round(at), 0, state.now.steps - 1) });
  };
  pointer(bars, { down: pick, move: pick });
  arrows(bars.element, (dx, dy) => {
    if (dx) pick(shown.step + dx);
    else state.set({ v: clamp(Math.round(100 * state.now.v + 5 * dy) / 100, 0, 1) });
  });

  // --- one step enlarged ---
  const right = stage(row, "One step, enlarged");
  const hill = new Surface(right, {
    label: "", aspect: 1.75, margin: [10, 8, 22, 8],
    draw({ colors }) {
      const { at } = shown, half = 4 * Math.sqrt(Math.max(at.variance, at.large)), { bill: kind, x0 } = state.now;
      hill.x = [at.center - half, at.center + half];
      const places = Array.from({ length: CORNERS }, (_, k) => at.center + half * (2 * k / (CORNERS - 1) - 1));
      const curve = (f) => places.flatMap((y) => [y, f(y)]), lines = [at.hill, at.model].map(curve);
      if (kind === "one") lines.push(curve((y) => at.told(y, x0)));
      hill.y = [0, 1.08 * Math.max(...lines.slice(0, 2).flatMap((line) => line.filter((_, k) => k % 2)))];
      hill.axes({ x: [-2, -1, 0, 1, 2].filter((tick) => Math.abs(tick - at.center) < 0.95 * half), format: (t) => minus(String(t)) });
      fill(hill, lines[0], colors.model, 0.28);
      hill.path(lines[0], colors.model, { width: 2 });
      if (lines[2]) hill.path(lines[2], colors.data, { width: 1.8, dash: [2, 5] });
      hill.path(lines[1], colors.noise, { width: 2.4 });
    },
  });
  const strip = new Surface(right, {
    label: "", interactive: true, aspect: 4.2, x: [-EDGE, EDGE], y: [0, 1], margin: [4, 0, 4, 0],
    draw({ colors }) {
      const { x, at } = shown, places = Array.from({ length: CORNERS }, (_, k) => EDGE * (2 * k / (CORNERS - 1) - 1));
      const density = (y) => BELLS.reduce((sum, { mean, std, weight }) =>
        sum + weight / std * Math.exp(-((y - mean) ** 2) / (2 * std * std)), 0);
      fill(strip, places.flatMap((y) => [y, 0.3 + density(y) / 4.2]), colors.data, 0.25, 0.3);
      strip.path([-EDGE, 0.3, EDGE, 0.3], colors.grid, { width: 1.5 });
      strip.path([hill.x[0], 0.3, hill.x[1], 0.3], colors.model, { width: 4, alpha: 0.5 });
      strip.path([at.mean, 0.2, at.mean, 0.4], colors.model, { width: 3 });
      strip.handle(state.now.x0, 0.3, colors.data, { radius: 8, active: drag.active === 1 });
      strip.handle(x, 0.3, colors.noise, { radius: 8, active: drag.active === 0 });
      strip.text("x\u2080", state.now.x0, 0.3, { dy: 19, color: colors.data });
      strip.text("x\u209c", x, 0.3, { dy: Math.abs(strip.px(x) - strip.px(state.now.x0)) < 20 ? -20 : 19, color: colors.noise });
    },
  });
  note(right, "Green: where the sampler ought to go from x\u209c. Orange: where the model goes. Dotted, with one point: where it would go if it knew x\u2080.");
  const drag = draggable(strip, {
    handles: () => [[shown.x, 0.3], [state.now.x0, 0.3]],
    move(i, x) {
      const { alpha, sigma } = shown.at, { x0 } = state.now, round = (value) => Math.round(1000 * value) / 1000;
      if (i === 0) state.set({ z: round(clamp((x - alpha * x0) / sigma, -REACH, REACH)) });
      else state.set({ x0: round(clamp(x, -2.4, 2.4)) });
    },
    step: 0.05, reach: Infinity,
  });

  function fill(surface, line, color, opacity, floor = 0) {
    const { context } = surface;
    context.save();
    Object.assign(context, { fillStyle: color, globalAlpha: opacity });
    context.beginPath();
    context.moveTo(surface.px(line[0]), surface.py(floor));
    for (let k = 0; k < line.length; k += 2) context.lineTo(surface.px(line[k]), surface.py(line[k + 1]));
    context.lineTo(surface.px(line[line.length - 2]), surface.py(floor));
    context.fill();
    context.restore();
  }

  // --- numbers and controls ---
  const sums = readouts(left);
  const read = {
    prior: readout(sums, { key: "prior", label: "start", format: bits }),
    steps: readout(sums, { key: "steps", label: "+ steps", format: bits, color: "noise" }),
    decoder: readout(sums, { key: "decoder", label: "+ last jump L\u2080", format: bits }),
    total: readout(sums, { key: "total", label: "= bound", format: bits }),
    exact: readout(sums, { key: "exact", label: "exactly", format: bits, color: "data" }),
    lost: readout(sums, { key: "lost", label: "lost", format: bits, color: "accent" }),
  };
  const single = readouts(right);
  const one = {
    price: readout(single, { key: "price", label: "this price", format: bits, color: "noise" }),
    must: readout(single, { key: "must", label: "of it unavoidable", format: bits, color: "data" }),
    spread: readout(single, { key: "spread", label: "its standard deviation", digits: 3 }),
    best: readout(single, { key: "best", label: "its best v", digits: 2, color: "model" }),
  };
  const menu = controls(el, "Variance and steps");
  const variance = slider(menu, {
    label: "variance v", min: 0, max: 1, step: 0.01, value: 0,
    format: (v) => (v === 0 ? "small" : v === 1 ? "large" : v.toFixed(2)), onInput: (v) => state.set({ v }),
  });
  const play = button(menu, {
    label: "Walk", primary: true,
    onClick() {
      const last = state.now.steps - 1;
      if (!walk.playing && shown.step >= last) state.set({ step: 0 });
      else if (!walk.playing && reducedMotion()) state.set({ step: last });
      if (!reducedMotion()) walk.toggle();
    },
  });
  const counts = choice(controls(el, "Steps"), {
    label: "steps", options: { 5: "5", 10: "10", 20: "20", 100: "100", 1000: "1000" }, value: "20",
    onChange(words) {
      const steps = Number(words), share = shown.step / (state.now.steps - 1);
      state.set({ steps, step: Math.round(share * (steps - 1)) });
    },
  });
  const kind = choice(controls(el, "Whose bill"), {
    label: "bill for", options: { all: "all data, on average", one: "the point x\u2080" }, value: "all",
    onChange: (value) => state.set({ bill: value }),
  });
  const words = note(el);
  let progress = 0;
  const walk = animation(el, (seconds) => {
    const last = state.now.steps - 1;
    if (Math.floor(progress) !== shown.step) progress = shown.step;
    progress = Math.min(last, progress + seconds * last / SECONDS);
    if (Math.floor(progress) !== shown.step) state.set({ step: Math.floor(progress) });
    return shown.step < last;
  }, (playing) => { play.label = playing ? "Pause" : "Walk"; });

  function sentence({ v, steps, bill }) {
    const { at, best } = shown;
    const close = Math.abs(Math.log(at.variance / at.w));
    if (shown.step === steps - 1) return "The last jump: with no small variance to choose, the bell has the large one. If the hill has several tops, more steps must come before it.";
    if (bill === "one" && shown.bill.total < shown.bill.exact) return "The sampler is more generous here than the data: it gives this point more density, so its bill is lower than the exact one.";
    if (at.large / at.small < 1.05) return "This step changes the noise so little that small and large are the same to within a few percent.";
    if (v > best + 0.25) return `The sampler knows x\u2080 well enough for v = ${best.toFixed(2)} at this step: the orange bell is too wide.`;
    if (best > 1.25) return "This point surprises the sampler at this step: not even the large variance is wide enough for it.";
    if (v < best - 0.25) return `There is doubt about x\u2080 at this step: it wants v = ${best.toFixed(2)}, and the orange bell is too narrow.`;
    if (close > 0.7) return "The variance is right on average, but not from where the sampler stands now.";
    return steps < 50 ? "The variance suits this step. What is still lost is the shape: a bell is no hill of several tops." : "The variance suits this step.";
  }

  function update(now) {
    shown = compute(now);
    const { bill: { prior, sum, decoder, total, exact, steps, must }, step, at, best, x } = shown;
    read.prior.set(prior);
    read.steps.set(sum);
    read.decoder.set(decoder);
    read.total.set(total);
    read.exact.set(exact);
    read.lost.set(total - exact);
    one.price.set(steps[step] ?? decoder);
    one.must.set(now.bill === "all" ? must[step] : null);
    one.spread.set(Math.sqrt(at.w));
    one.best.set(best);
    variance.value = now.v;
    counts.value = String(now.steps);
    kind.value = now.bill;
    words.set(sentence(now));
    bars.label = `The price of ${steps.length} steps and the last jump; step ${step + 1} is enlarged and costs ${(steps[step] ?? decoder).toFixed(3)} bits. `
      + "Left and right choose a step, up and down change the variance.";
    hill.label = `The true reverse step from ${x.toFixed(2)} and the bell that the model uses, `
      + `with standard deviations ${Math.sqrt(at.variance).toFixed(3)} and ${Math.sqrt(at.w).toFixed(3)}.`;
    strip.label = `The data on a line; the clean point at ${now.x0.toFixed(2)} and the sampler at ${x.toFixed(2)}. `
      + "Arrow keys move one of them, N and P choose which.";
    for (const surface of [bars, hill, strip]) surface.redraw();
  }

  el.demo = { get shown() { return shown; } };
  update(state.now);
  return () => [walk, state, bars, hill, strip].forEach((part) => part.destroy());
}
