/**
 * The forward process (Chapter 2): scrub time and see a cloud dissolve into a Gaussian.
 *
 * State: data (a set of the plane), t (0 ... 999 of DDPM's table), units ("preserving": x, or
 * "exploding": y = x / alpha), fit (in exploding units, whether the window grows with the cloud),
 * path ("walk": step by step, or "jump": at once), origin (color points by where they began), seed.
 */

import { ddpm, floorOf, LAST, LEG, Process } from "./forward/process.js";
import { Surface } from "./lib/canvas.js";
import { animation, arrows, pointer } from "./lib/interact.js";
import { State } from "./lib/state.js";
import { button, choice, controls, note, readout, readouts, select, slider, stage, stages, toggle } from "./lib/ui.js";

const SETS = {
  swiss_roll: "Swiss roll", two_moons: "two moons", checkerboard: "checkerboard",
  pinwheel: "pinwheel", rings: "rings", mixture: "mixture",
};
const WINDOW = 3.2, BINS = 48, PEAK = 0.62; // half the window, bars in it, the density at a strip's edge
const STRIP = 58, MARGIN = [70, STRIP, 26, 38]; // pixels for the histograms, and around the square
const SECONDS = 9; // of a play from end to end
const TRAILS = [7, 311, 1204], REACH = 40; // the points that show their paths, and how many legs of them

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export function render({ model, el }) {
  const cache = new Map(), floor = floorOf(2000);
  let shown = null; // what the canvases paint, made anew from the state after each change

  function processOf({ data, seed }) {
    const key = `${data} ${seed}`;
    if (!cache.has(key) && cache.size > 1) cache.clear();
    if (!cache.has(key)) cache.set(key, new Process(model.get("data")[`points/${data}`], seed));
    return cache.get(key);
  }

  function compute(now) {
    const process = processOf(now), t = Math.round(now.t);
    const { alpha, sigma } = ddpm.at(t), exploding = now.units === "exploding";
    const zoom = exploding ? 1 / alpha : 1;
    const x = process.at(t, now.path);
    const cloud = exploding ? x.map((value) => value * zoom) : x;
    let mean = [0, 0], variance = 0;
    for (let k = 0; k < cloud.length; k++) mean[k % 2] += cloud[k] / (cloud.length / 2);
    for (let k = 0; k < cloud.length; k++) variance += (cloud[k] - mean[k % 2]) ** 2 / cloud.length;
    const window = exploding && now.fit ? WINDOW * zoom : WINDOW;
    const outside = cloud.reduce((n, value, k) =>
      n + (k % 2 === 0 && (Math.abs(value) > window || Math.abs(cloud[k + 1]) > window)), 0);
    return {
      t, process, cloud, window, outside, variance, std: zoom,
      alphaBar: ddpm.table[t], alpha: alpha * zoom, sigma: sigma * zoom, ratio: sigma / alpha,
      distance: process.toGaussian.of(x),
    };
  }

  // --- the cloud and its marginals ---

  function ticks(window) {
    const raw = window / 3, scale = 10 ** Math.floor(Math.log10(raw));
    const size = [1, 2, 5, 10].find((m) => m * scale >= raw * 0.6) * scale;
    const reach = Math.floor(window / size);
    return Array.from({ length: 2 * reach + 1 }, (_, i) => (i - reach) * size);
  }

  function histogram(surface, axis, color) {
    const { cloud, window, std } = shown, { context } = surface;
    const counts = new Float64Array(BINS), width = 2 * window / BINS;
    for (let k = axis; k < cloud.length; k += 2) {
      const bin = Math.floor((cloud[k] + window) / width);
      if (bin >= 0 && bin < BINS) counts[bin]++;
    }
    const unit = surface.px(1) - surface.px(0), edge = axis === 0 ? surface.py(window) - 5 : surface.px(window) + 5;
    // densities per unit of the window, so that a window that follows shows the same picture
    const height = (density) => Math.min(density * (window / WINDOW) / PEAK, 1) * (STRIP - 10);
    context.save();
    context.fillStyle = color;
    context.globalAlpha = 0.5;
    for (let bin = 0; bin < BINS; bin++) {
      const tall = height(counts[bin] / (cloud.length / 2) / width), at = bin * width - window;
      if (axis === 0) context.fillRect(surface.px(at), edge - tall, unit * width + 0.3, tall);
      else context.fillRect(edge, surface.py(at + width), tall, unit * width + 0.3);
    }
    context.globalAlpha = 1;
    Object.assign(context, { strokeStyle: surface.colors.ink, lineWidth: 1.6, lineJoin: "round" });
    context.beginPath();
    for (let i = 0; i <= 120; i++) {
      const at = (2 * i / 120 - 1) * window;
      const tall = height(Math.exp(-((at / std) ** 2) / 2) / (Math.sqrt(2 * Math.PI) * std));
      if (axis === 0) context.lineTo(surface.px(at), edge - tall);
      else context.lineTo(edge + tall, surface.py(at));
    }
    context.stroke();
    context.restore();
  }

  function clip(surface, paint) {
    const { context } = surface, [left, right] = [-shown.window, shown.window];
    context.save();
    context.beginPath();
    context.rect(surface.px(left), surface.py(right), surface.px(right) - surface.px(left), surface.py(left) - surface.py(right));
    context.clip();
    paint();
    context.restore();
  }

  function trails(surface) {
    const { process, t, cloud } = shown, exploding = state.now.units === "exploding";
    const times = Array.from({ length: Math.floor(t / LEG) + 1 }, (_, i) => i * LEG).slice(-REACH);
    for (const i of TRAILS) {
      const line = times[0] === 0 ? [process.x0[2 * i], process.x0[2 * i + 1]] : [];
      for (const s of times) {
        const unit = exploding ? 1 / Math.sqrt(ddpm.table[s]) : 1;
        for (const axis of [0, 1]) {
          const k = 2 * i + axis;
          const place = state.now.path === "walk" ? process.nodes[s / LEG][k]
            : Math.sqrt(ddpm.table[s]) * process.x0[k] + Math.sqrt(1 - ddpm.table[s]) * process.eps[k];
          line.push(place * unit);
        }
      }
      line.push(cloud[2 * i], cloud[2 * i + 1]);
      surface.path(line, surface.colors.paper, { width: 3, alpha: 0.6 });
      surface.path(line, surface.colors.ink, { width: 1.1, alpha: 0.8 });
      surface.handle(cloud[2 * i], cloud[2 * i + 1], surface.colors.ink, { radius: 3.5 });
    }
  }

  function drawCloud(surface) {
    const { window, cloud, process, alpha } = shown, { now } = state;
    surface.x = surface.y = [-window, window];
    const at = ticks(window), { data, noise, amber, muted } = surface.colors;
    const label = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
    surface.axes({ x: at, y: at, format: label });
    clip(surface, () => {
      if (now.origin) {
        const sides = [[], []];
        for (let k = 0; k < cloud.length; k += 2) sides[process.x0[k] < 0 ? 0 : 1].push(cloud[k], cloud[k + 1]);
        surface.dots(sides[0], data, { alpha: 0.75 });
        surface.dots(sides[1], amber, { alpha: 0.75 });
      } else {
        surface.dots(cloud, noise, { alpha: 0.5 });
        surface.dots(process.some.map((value) => alpha * value), data, { radius: 1.2, alpha: 0.85 });
      }
      trails(surface);
    });
    const color = now.origin ? muted : noise;
    histogram(surface, 0, color);
    histogram(surface, 1, color);
  }

  // --- what is left, over time ---

  function drawTime(surface) {
    const { process, t, alphaBar, distance } = shown, { data, noise, model: green, ink, muted } = surface.colors;
    surface.axes({ x: [0, 250, 500, 750, 999], y: [0, 0.5, 1], format: String });
    const line = (value) => Array.from({ length: 201 }, (_, i) => {
      const at = Math.round(i * LAST / 200);
      return [at, value(at)];
    }).flat();
    surface.path(line((s) => ddpm.table[s]), data, { width: 2.2 });
    surface.path(line((s) => 1 - ddpm.table[s]), noise, { width: 2.2 });
    const curve = process.curves[state.now.path], start = curve[1];
    surface.path(curve.map((value, k) => k % 2 ? value / start : value), green, { width: 2.2 });
    surface.path([0, floor / start, LAST, floor / start], muted, { width: 1, dash: [3, 4] });
    surface.text("floor", 0, floor / start, { dx: 6, dy: 10, align: "left", size: 12 });
    surface.path([t, 0, t, 1], ink, { width: 1.2 });
    const marks = [[alphaBar, data], [1 - alphaBar, noise], [Math.min(distance / start, 1.05), green]];
    for (const [value, color] of marks) surface.handle(t, value, color, { radius: 5, active: true });
  }

  // --- the page ---

  const row = stages(el);
  const left = stage(row, "The cloud αx₀ + σε, with αx₀ in blue");
  const surface = new Surface(left, {
    label: "", draw: (s) => shown && drawCloud(s), interactive: true, margin: MARGIN,
  });
  const said = note(left);
  const second = stage(row, "What is left, over time");
  const time = new Surface(second, {
    label: "", draw: (s) => shown && drawTime(s), interactive: true,
    x: [0, LAST], y: [0, 1.05], margin: [8, 14, 24, 32],
  });
  const key = readouts(second);
  const shares = {
    kept: readout(key, { key: "kept", label: "data", color: "data" }),
    noise: readout(key, { key: "noise", label: "noise", color: "noise" }),
    relative: readout(key, { key: "distance", label: "distance to a Gaussian", color: "model" }),
    floor: readout(key, { key: "floor", label: "floor" }),
  };
  const numbers = readouts(el);
  const fixed = (value) => value.toFixed(value >= 100 ? 1 : 3);
  const values = {
    alpha: readout(numbers, { key: "alpha", label: "α" }),
    sigma: readout(numbers, { key: "sigma", label: "σ", format: fixed }),
    ratio: readout(numbers, { key: "ratio", label: "σ/α", format: fixed }),
    alphaBar: readout(numbers, { key: "alpha_bar", label: "ᾱ", digits: 5 }),
    variance: readout(numbers, { key: "variance", label: "variance of the cloud", format: fixed }),
  };

  const setTime = (t) => {
    player.pause();
    state.set({ t: clamp(Math.round(t), 0, LAST) });
  };
  const first = controls(el, "Time");
  const play = button(first, { label: "Play", primary: true, onClick: () => {
    if (!player.playing && state.now.t >= LAST) state.set({ t: 0 });
    player.toggle();
  } });
  const timeSlider = slider(first, {
    label: "time t", min: 0, max: LAST, step: 1, value: state0().t, onInput: setTime,
  });
  const choices = controls(el, "What is shown");
  const data = select(choices, {
    label: "data set", options: SETS, value: state0().data, onChange: (value) => state.set({ data: value }),
  });
  const units = choice(choices, {
    label: "variance", options: { preserving: "preserving", exploding: "exploding" }, value: state0().units,
    onChange: (value) => state.set({ units: value }),
  });
  const fit = toggle(choices, { label: "window follows", value: state0().fit, onChange: (value) => state.set({ fit: value }) });
  const path = choice(choices, {
    label: "get there by", options: { walk: "walk", jump: "jump" }, value: state0().path,
    onChange: (value) => state.set({ path: value }),
  });
  const origin = toggle(choices, {
    label: "color by origin", value: state0().origin, onChange: (value) => state.set({ origin: value }),
  });

  function state0() {
    return model.get("state");
  }

  let exact = 0; // a play moves by fractions of a step
  const player = animation(el, (seconds) => {
    if (Math.round(exact) !== state.now.t) exact = state.now.t;
    exact = Math.min(exact + seconds * LAST / SECONDS, LAST);
    if (Math.round(exact) !== state.now.t) state.set({ t: Math.round(exact) });
    return exact < LAST;
  }, (playing) => play.label = playing ? "Pause" : "Play");

  const place = (s, x) => (s.px(x) - s.margin[3]) / (s.width - s.margin[1] - s.margin[3]);
  let from = [0, 0];
  pointer(surface, {
    down: (x) => { from = [state.now.t, place(surface, x)]; },
    move: (x) => setTime(from[0] + LAST * (place(surface, x) - from[1])),
  });
  pointer(time, { down: setTime, move: setTime });
  for (const { element } of [surface, time]) {
    arrows(element, (dx, dy) => setTime(state.now.t + 10 * (dx + dy)), {
      Home: () => setTime(0), End: () => setTime(LAST), " ": () => play.element.click(),
    });
  }

  let waiting = 0;
  function extend() {
    waiting = 0;
    const { process } = shown;
    if (!process.extendCurve(state.now.path)) return;
    time.redraw();
    waiting = requestAnimationFrame(extend);
  }

  function update(now) {
    shown = compute(now);
    if (!shown.process.curves[now.path].length) shown.process.extendCurve(now.path);
    const { t, alpha, sigma, ratio, alphaBar, variance, distance, outside } = shown;
    timeSlider.value = t;
    data.value = now.data;
    units.value = now.units;
    fit.value = now.fit;
    fit.element.disabled = now.units !== "exploding";
    path.value = now.path;
    origin.value = now.origin;
    for (const [name, value] of Object.entries({ alpha, sigma, ratio, alphaBar, variance })) values[name].set(value);
    shares.kept.set(alphaBar);
    shares.noise.set(1 - alphaBar);
    shares.relative.set(distance);
    shares.floor.set(floor);
    said.set(outside > 20 ? `${outside} of ${shown.cloud.length / 2} points have left the window.`
      : "Drag sideways, or use the arrow keys; Space plays.");
    const words = `t = ${t}, sigma over alpha ${fixed(ratio)}, distance to a Gaussian ${distance.toFixed(3)}`;
    surface.label = `${SETS[now.data]} under noise: ${words}. Arrow keys change the time, Space plays.`;
    time.label = `Shares of data and noise over time, and the distance to a Gaussian: ${words}. Arrow keys change the time.`;
    surface.redraw();
    time.redraw();
    waiting ||= requestAnimationFrame(extend);
  }

  const state = new State(model, update);
  update(state.now);
  el.demo = { get busy() { return waiting !== 0; } }; // the curve of distances still grows

  return () => {
    cancelAnimationFrame(waiting);
    player.destroy();
    state.destroy();
    surface.destroy();
    time.destroy();
  };
}
