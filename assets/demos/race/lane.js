/**
 * One lane: a sampler's particles over the data, how far each is from the exact solution, and the
 * marked particle's way.
 */

import { Surface } from "../lib/canvas.js";
import { h, readout } from "../lib/ui.js";
import { NAMES } from "./run.js";

export const WINDOW = 2.4, LETTERS = "ABCD", COLORS = ["noise", "amber", "accent", "model"];
const EVERY = 8; // of the particles, those that show their paths

/** A number of three digits, short or long. */
const digits = (value) => {
  if (value === 0) return "0";
  return value >= 1e-5 && value < 1000 ? value.toPrecision(3) : value.toExponential(1);
};

/** The data's shape: Gaussians, two standard deviations wide. */
function shade(surface, { centers, width, masses }, color) {
  const radius = 2 * width * (surface.px(1) - surface.px(0));
  if (masses) {
    surface.path(centers, color, { width: 2 * radius, alpha: 0.13 });
    surface.path(centers, color, { width: radius, alpha: 0.16 });
  } else {
    surface.dots(centers, color, { radius: 1.25 * radius, alpha: 0.13 });
    surface.dots(centers, color, { radius: 0.7 * radius, alpha: 0.16 });
  }
}

/** Lines from a to b, one a particle, in one stroke. */
function lines(surface, a, b, color, { width, alpha, every = 1 }) {
  const { context } = surface;
  context.save();
  Object.assign(context, { strokeStyle: color, lineWidth: width, globalAlpha: alpha });
  context.beginPath();
  for (let k = 0; k < a.length; k += 2 * every) {
    context.moveTo(surface.px(a[k]), surface.py(a[k + 1]));
    context.lineTo(surface.px(b[k]), surface.py(b[k + 1]));
  }
  context.stroke();
  context.restore();
}

export class Lane {
  /**
   * @param {HTMLElement} parent
   * @param {number} i which of the four
   * @param {(sampler: string) => void} choose
   */
  constructor(parent, i, choose) {
    Object.assign(this, { i, view: null });
    const box = h("div", { style: "min-width: 0" });
    const items = Object.entries(NAMES).map(([value, words]) => h("option", { value }, words));
    this.menu = h("select", {
      "aria-label": `Sampler of lane ${LETTERS[i]}`, style: "min-width: 0; flex: 1; padding: 0 0.5rem",
      onchange: () => choose(this.menu.value),
    }, ...items);
    const swatch = h("i", { class: "sd-dot", style: `background: var(--sd-${COLORS[i]}); flex: none` });
    box.append(h("label", { class: "sd-control sd-select", style: "gap: 0.4rem" }, swatch, h("b", {}, LETTERS[i]), this.menu));
    parent.append(box);
    const frame = h("div", { style: "margin-top: 0.375rem" });
    box.append(frame);
    this.surface = new Surface(frame, {
      label: "", interactive: true, x: [-WINDOW, WINDOW], y: [-WINDOW, WINDOW], draw: () => this.view && this.draw(),
    });
    const row = h("div", { class: "sd-readouts", style: "gap: 0 0.875rem; margin-top: 0.375rem; font-size: 0.8125rem" });
    box.append(row);
    this.show = {
      calls: readout(row, { key: `calls${i}`, label: "evaluations", format: String }),
      gap: readout(row, { key: `gap${i}`, label: "gap", format: digits }),
      floors: readout(row, { key: `floors${i}`, label: "floors", format: (value) => (value < 100 ? value.toFixed(2) : value.toFixed(0)) }),
      marked: readout(row, { key: `marked${i}`, label: "marked", format: digits }),
    };
  }

  /**
   * @param {{run: object, exact: object, marked: object, markedExact: object, calls: number,
   *   shape: object, show: string, score: object | null, name: string}} view
   */
  set(view) {
    this.view = view;
    const { run, exact, marked, markedExact, calls, score, name } = view;
    const { k } = run.place(calls), ready = exact.done && run.done, over = ready && k === run.grid.length;
    const gap = ready ? run.gap(exact, k) : null;
    this.menu.value = name;
    this.show.calls.set(run.nodes.length ? run.nodes[k].calls : null);
    this.show.gap.set(gap);
    this.show.floors.set(over && score ? score.floors : null);
    this.show.marked.set(marked.gap(markedExact, marked.place(calls).k));
    this.surface.label = `Lane ${LETTERS[this.i]}, ${NAMES[name]}, ${gap === null ? "being computed" : `median gap ${digits(gap)}`}. `
      + "Arrow keys move where the marked particle starts; Space plays, N and P make one evaluation forward and back.";
    this.surface.redraw();
  }

  draw() {
    const { surface } = this, { colors } = surface, { run, exact, calls, shape, show } = this.view;
    const color = colors[COLORS[this.i]];
    shade(surface, shape, colors.data);
    if (!run.nodes.length) return;
    const x = run.seen(calls), { k } = run.place(calls);
    if (show === "paths") {
      for (let node = 0; node <= k; node++) {
        const next = node === k ? x : run.nodes[node + 1].x;
        lines(surface, run.nodes[node].x, next, color, { width: 0.9, alpha: 0.5, every: EVERY });
      }
    } else if (exact.done) {
      lines(surface, x, run.seenTarget(exact, calls), colors.ink, { width: 0.9, alpha: 0.5 });
    }
    surface.dots(x, color, { radius: Math.max(1.3, surface.width / 150), alpha: 0.8 });
    this.drawMarked();
    let outside = 0;
    for (let i = 0; i < x.length; i += 2) outside += Math.abs(x[i]) > WINDOW || Math.abs(x[i + 1]) > WINDOW;
    if (outside > x.length / 40) this.drawOutside(`${outside} outside`);
  }

  /** How many particles the window does not show, on a ground of its own. */
  drawOutside(words) {
    const { surface } = this, { context, colors, width, height } = surface;
    context.save();
    Object.assign(context, { fillStyle: colors.paper, globalAlpha: 0.85 });
    context.fillRect(width - 84, height - 24, 84, 24);
    context.restore();
    surface.text(words, WINDOW, -WINDOW, { align: "right", dx: -8, dy: -12, size: 12 });
  }

  /** The exact way dashed, the sampler's own on top with its nodes, and the ring to drag. */
  drawMarked() {
    const { surface } = this, { colors } = surface, { marked, markedExact, calls, way } = this.view;
    const color = colors[COLORS[this.i]], { k } = marked.place(calls);
    const here = marked.seen(calls), there = marked.seenTarget(markedExact, calls);
    const own = [...marked.nodes.slice(0, k + 1).flatMap(({ x }) => [...x]), ...here];
    const start = marked.nodes[0].x;
    surface.path(own, colors.paper, { width: 5, alpha: 0.85 });
    surface.path(way, colors.ink, { width: 1.5, alpha: 0.9, dash: [2, 4] });
    surface.path(own, color, { width: 2.2 });
    surface.dots(own, color, { radius: 2.6, alpha: 1 });
    surface.path([...here, ...there], colors.ink, { width: 1.8 });
    surface.handle(start[0], start[1], colors.ink, { radius: 6 });
    surface.dots(there, colors.ink, { radius: 3, alpha: 1 });
    surface.dots(here, colors.paper, { radius: 6, alpha: 1 });
    surface.dots(here, color, { radius: 4.5, alpha: 1 });
  }

  destroy() {
    this.surface.destroy();
  }
}
