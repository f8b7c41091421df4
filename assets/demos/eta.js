/**
 * DDIM's family (Chapter 8): one trained network, and a slider for how much of the noise is fresh.
 *
 * Left: 200 particles fall onto the Swiss roll, each path in the color of where it ends; one start
 * can be dragged. Right: the plane of starts, colored by where each of them ends.
 *
 * State: eta, steps, seed (of starts and fresh noise), x and y (the start in hand), fall (how much
 * of the walk is shown, 0 to 1).
 */

import { Surface } from "./lib/canvas.js";
import { animation, draggable, reducedMotion } from "./lib/interact.js";
import { State } from "./lib/state.js";
import { button, controls, note, readout, readouts, slider, stage, stages } from "./lib/ui.js";
import { CROWD, place, Walks } from "./eta/walks.js";

const WINDOW = 2.9, SECONDS = 4; // half the side of both views; how long a fall takes
const SHADES = 12, CELLS = 64; // colors along the roll, the map's grain
const MIDDLE = (CELLS - 1) / 2, FAR = 6 * (CELLS / (2 * WINDOW)) ** 2; // the map fades where starts are rare

const channels = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
const round = (value) => Math.round(1000 * value) / 1000;

/** SHADES colors from the roll's inner to its outer end. */
function ramp({ data, sky, amber, noise }) {
  const stops = [data, sky, amber, noise].map(channels);
  return Array.from({ length: SHADES }, (_, i) => {
    const at = i / (SHADES - 1) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
    return stops[k].map((value, c) => Math.round(value + (at - k) * (stops[k + 1][c] - value)));
  });
}
const shade = (where) => Math.min(Math.floor(where * SHADES), SHADES - 1);
const css = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;

export function render({ model, el }) {
  const state = new State(model, update), walks = new Walks(model.get("data"));
  const backdrop = walks.points.subarray(0, 1600);
  let crowd = null, one = null, byShade = [], cells = null;

  const row = stages(el);
  const left = stage(row, "The fall: drag the large dot");
  const plane = new Surface(left, {
    label: "", draw: drawFall, interactive: true, x: [-WINDOW, WINDOW], y: [-WINDOW, WINDOW],
  });
  const right = stage(row, "Starts, colored by where they end");
  const map = new Surface(right, {
    label: "", draw: drawMap, interactive: true, x: [-WINDOW, WINDOW], y: [-WINDOW, WINDOW],
  });
  for (const surface of [plane, map]) {
    draggable(surface, {
      handles: () => [[state.now.x, state.now.y]],
      move: (i, x, y) => state.set({ x: round(x), y: round(y) }),
      reach: Infinity,
    });
  }

  // The crowd's paths are drawn once, on a sheet of their own: a fall only adds to them.
  const sheet = { canvas: document.createElement("canvas"), crowd: null, colors: "", until: 0 };

  /** The crowd's paths up to node `until`, faint at first and stronger later. */
  function streams(colors, until) {
    const { canvas } = sheet, { width, ratio } = plane, tint = colors.join(), whole = Math.floor(until);
    const brush = canvas.getContext("2d");
    if (sheet.crowd !== crowd || sheet.colors !== tint || canvas.width !== plane.element.width || whole < sheet.until) {
      Object.assign(sheet, { crowd, colors: tint, until: 0 });
      canvas.width = canvas.height = plane.element.width; // which also clears it
      brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    for (; sheet.until < whole; sheet.until++) strokes(brush, colors, sheet.until, 1);
    plane.context.drawImage(canvas, 0, 0, width, width);
    if (until > whole) strokes(plane.context, colors, whole, until - whole);
    plane.context.globalAlpha = 1;
  }

  /** A share of the crowd's steps from node n to the next. */
  function strokes(brush, colors, n, share) {
    const { nodes } = crowd, here = nodes[n], next = nodes[n + 1];
    const left = plane.px(0), top = plane.py(0), unit = plane.px(1) - left;
    Object.assign(brush, { lineWidth: 1.1, globalAlpha: 0.06 + 0.34 * n / nodes.length });
    byShade.forEach((members, k) => {
      brush.strokeStyle = css(colors[k]);
      brush.beginPath();
      for (const i of members) {
        const x = here[2 * i], y = here[2 * i + 1];
        brush.moveTo(left + unit * x, top - unit * y);
        brush.lineTo(left + unit * (x + share * (next[2 * i] - x)), top - unit * (y + share * (next[2 * i + 1] - y)));
      }
      brush.stroke();
    });
  }

  /** Where point i of some nodes is at a place between them. */
  function between(nodes, until, i) {
    const k = Math.min(Math.floor(until), nodes.length - 2), share = until - k;
    return [0, 1].map((axis) => nodes[k][2 * i + axis] + share * (nodes[k + 1][2 * i + axis] - nodes[k][2 * i + axis]));
  }

  function drawFall({ colors }) {
    const { steps, fall } = state.now, until = fall * steps, shades = ramp(colors);
    plane.dots(backdrop, colors.muted, { radius: 1.2, alpha: 0.22 });
    streams(shades, until);
    byShade.forEach((members, k) => {
      plane.dots(members.flatMap((i) => between(crowd.nodes, until, i)), css(shades[k]), { radius: 2.6, alpha: 0.95 });
    });
    const path = one.path.slice(0, Math.floor(until) + 1).flatMap((at) => [...at]), at = between(one.path, until, 0);
    path.push(...at);
    plane.path(path, colors.paper, { width: 5.5, alpha: 0.85 });
    plane.path(path, colors.ink, { width: 2.2 });
    if (fall === 1) {
      for (let i = 0; i < one.thrown.length; i += 2) ring(one.thrown[i], one.thrown[i + 1], colors);
    }
    plane.handle(...at, colors.ink, { radius: 4.5, active: true });
    plane.handle(...one.path[0], colors.ink, { radius: 8, active: true });
  }

  function ring(x, y, colors) {
    plane.handle(x, y, colors.paper, { radius: 5.5 });
    plane.handle(x, y, colors.accent, { radius: 4, active: true });
  }

  function drawMap({ colors }) {
    const shades = ramp(colors), small = document.createElement("canvas");
    small.width = small.height = CELLS;
    const brush = small.getContext("2d"), image = brush.createImageData(CELLS, CELLS);
    cells.forEach((i, k) => {
      image.data.set(shades[shade(crowd.places[i])], 4 * k);
      image.data[4 * k + 3] = 165 * Math.exp(-((k % CELLS - MIDDLE) ** 2 + (Math.floor(k / CELLS) - MIDDLE) ** 2) / FAR);
    });
    brush.putImageData(image, 0, 0);
    map.context.drawImage(small, 0, 0, map.width, map.height);
    byShade.forEach((members, k) => {
      map.dots(members.flatMap((i) => [...crowd.nodes[0].subarray(2 * i, 2 * i + 2)]), css(shades[k]), { radius: 4, alpha: 1 });
    });
    const start = one.path[0], end = one.path[one.path.length - 1];
    map.handle(...start, colors.ink, { radius: 8, active: true });
    map.dots(start, css(shades[shade(place(end, 0))]), { radius: 4.5, alpha: 1 });
  }

  /** For each cell of the map, the crowd's nearest start. */
  function nearest(starts) {
    return Array.from({ length: CELLS ** 2 }, (_, k) => {
      const x = ((k % CELLS) + 0.5) * 2 * WINDOW / CELLS - WINDOW;
      const y = WINDOW - (Math.floor(k / CELLS) + 0.5) * 2 * WINDOW / CELLS;
      let best = 0, least = Infinity;
      for (let i = 0; i < CROWD; i++) {
        const square = (starts[2 * i] - x) ** 2 + (starts[2 * i + 1] - y) ** 2;
        if (square < least) [best, least] = [i, square];
      }
      return best;
    });
  }

  // --- controls and readouts ---
  const first = controls(el, "Fresh noise and steps");
  const etas = slider(first, {
    label: "fresh noise η", min: 0, max: 1, step: 0.01, value: 0,
    format: (value) => value.toFixed(2), onInput: (eta) => state.set({ eta }),
  });
  const counts = slider(first, { label: "steps", min: 2, max: 80, step: 1, value: 30, onInput: (steps) => state.set({ steps }) });
  const second = controls(el, "The fall");
  const play = button(second, {
    label: "Let them fall", primary: true,
    onClick() {
      if (falling.playing) return falling.pause();
      if (reducedMotion()) return state.set({ fall: state.now.fall < 1 ? 1 : 0 });
      if (state.now.fall >= 1) state.set({ fall: 0 });
      falling.play();
    },
  });
  button(second, { label: "New noise", onClick: () => state.set({ seed: state.now.seed + 1 }) });
  const shown = slider(second, {
    label: "walked", min: 0, max: 1, step: 0.01, value: 1,
    format: (value) => `${Math.round(100 * value)} %`, onInput: (fall) => { falling.pause(); state.set({ fall }); },
  });
  const falling = animation(el, (seconds) => {
    state.set({ fall: Math.min(1, state.now.fall + seconds / SECONDS) });
    return state.now.fall < 1;
  }, (playing) => { play.label = playing ? "Pause" : "Let them fall"; });

  const numbers = readouts(el);
  const says = {
    distance: readout(numbers, { key: "distance", label: "distance to the data, in floors", digits: 2 }),
    detour: readout(numbers, { key: "detour", label: "path over straight line", digits: 2 }),
    moved: readout(numbers, { key: "moved", label: "start nudged by 0.1: its end moves" }),
    spread: readout(numbers, { key: "spread", label: "same start, other throws: spread", color: "accent" }),
  };
  const words = note(el);

  const same = (keys, changed) => !keys.some((key) => changed.has(key));

  function update(now, changed = new Set(["seed"])) {
    if (!crowd || !same(["eta", "steps", "seed"], changed)) {
      crowd = walks.crowd(now);
      byShade = Array.from({ length: SHADES }, () => []);
      crowd.places.forEach((where, i) => byShade[shade(where)].push(i));
      if (!cells || changed.has("seed")) cells = nearest(crowd.nodes[0]);
    }
    if (!one || !same(["eta", "steps", "seed", "x", "y"], changed)) one = walks.one(now);
    says.distance.set(crowd.distance);
    says.detour.set(crowd.detour);
    says.moved.set(one.moved);
    says.spread.set(one.spread);
    etas.value = now.eta;
    counts.value = now.steps;
    shown.value = now.fall;
    words.set(sentence());
    const end = one.path[one.path.length - 1];
    const told = `The start at ${now.x.toFixed(1)}, ${now.y.toFixed(1)} ends at ${end[0].toFixed(1)}, ${end[1].toFixed(1)}. Arrow keys move it.`;
    plane.label = `Paths of 200 particles from noise to a spiral at eta ${now.eta}. ${told}`;
    map.label = `The plane of starts, colored by how far along the spiral each ends. ${told}`;
    plane.redraw();
    map.redraw();
  }

  function sentence() {
    if (one.spread < 1e-9) return "No fresh noise: the start alone decides the end, neighbors end as neighbors, and the map of starts has regions.";
    if (one.spread < 0.6) return "A little fresh noise: throws of one start (pink) scatter over a stretch of the roll, and the regions fray.";
    if (one.moved < 0.02) return "Much fresh noise: throws of one start (pink) land all over the roll. The fresh noise decides the end and the start is forgotten.";
    return "Fresh noise and start decide together: throws of one start (pink) land far apart.";
  }

  el.demo = { walks, get crowd() { return crowd; }, get one() { return one; } };
  update(state.now);
  return () => [falling, state, plane, map].forEach((part) => part.destroy());
}
