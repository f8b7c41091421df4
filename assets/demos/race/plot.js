/**
 * The error against evaluations, both in logarithms, a curve a lane; the line at the budget can be
 * dragged.
 */

import { Surface } from "../lib/canvas.js";
import { COLORS, LETTERS } from "./lane.js";
import { BUDGETS } from "./run.js";

const LOW = -4.2, HIGH = 1; // powers of ten of the error
const X = [Math.log10(3.6), Math.log10(62)];
const clamp = (value) => Math.min(Math.max(value, LOW), HIGH);
const POWERS = { "-4": "10⁻⁴", "-3": "10⁻³", "-2": "0.01", "-1": "0.1", 0: "1", 1: "10" };

export class Plot {
  /** @param {HTMLElement} parent @param {number} aspect */
  constructor(parent, aspect) {
    this.view = null;
    this.surface = new Surface(parent, {
      label: "", interactive: true, x: X, y: [LOW, HIGH], aspect, margin: [16, 4, 28, 36], draw: () => this.view && this.draw(),
    });
  }

  /** @param {{curves: Array<Array<[number, number]>>, budget: number}} view budget and gap of each lane */
  set(view) {
    this.view = view;
    this.surface.label = `The median gap to the exact solution against evaluations, a curve for each lane; the budget is ${view.budget}. Arrow keys change it.`;
    this.surface.redraw();
  }

  /** The budget nearest to a place on the axis. */
  budgetAt(x) {
    return BUDGETS.reduce((a, b) => (Math.abs(Math.log10(b) - x) < Math.abs(Math.log10(a) - x) ? b : a));
  }

  draw() {
    const { surface } = this, { colors, context } = surface, { curves, budget } = this.view, at = Math.log10(budget);
    const ticks = [4, 10, 20, 50].map(Math.log10);
    surface.axes({ x: ticks, format: (tick) => String(Math.round(10 ** tick)) });
    surface.axes({ y: [-4, -3, -2, -1, 0, 1], format: (tick) => POWERS[tick] });
    const [top, right, bottom, left] = surface.margin;
    context.save();
    context.beginPath();
    context.rect(left, top, surface.width - left - right, surface.height - top - bottom);
    context.clip();
    for (const order of [1, 2, 3]) { // how an error of that order falls
      surface.path([X[0], 0.9 + order * 0.1, X[1], 0.9 + order * (0.1 + X[0] - X[1])], colors.muted, { width: 1, dash: [1, 4], alpha: 0.8 });
    }
    surface.path([at, LOW, at, HIGH], colors.ink, { width: 1.5 });
    curves.forEach((curve, i) => {
      const color = colors[COLORS[i]], points = curve.map(([b, gap]) => [Math.log10(b), Math.log10(gap)]);
      surface.path(points.flat(), color, { width: 2.4 });
      surface.dots(points.flat(), color, { radius: 2.4, alpha: 1 });
    });
    context.restore();
    for (const order of [1, 2, 3]) {
      const u = 1.07 + 0.05 * order;
      surface.text(order === 1 ? "order 1" : String(order), u, 0.9 + order * (0.1 + X[0] - u), { size: 11, dx: 4, dy: -6, align: "left" });
    }
    this.letters(curves);
    curves.forEach((curve, i) => {
      const now = curve.find(([b]) => b === budget);
      if (now) surface.handle(at, clamp(Math.log10(now[1])), colors[COLORS[i]], { radius: 5.5, active: true });
    });
    surface.handle(at, HIGH, colors.ink, { radius: 8 });
    surface.text(String(budget), at, HIGH, { dx: at > 1.4 ? -14 : 14, align: at > 1.4 ? "right" : "left", size: 13, weight: 600, color: colors.ink, dy: 2 });
  }

  /** The lanes' letters at the ends of their curves, kept apart. */
  letters(curves) {
    const { surface } = this, { colors } = surface;
    const ends = curves.map((curve, i) => ({ i, end: curve[curve.length - 1] })).filter(({ end }) => end)
      .map(({ i, end }) => ({ i, x: Math.log10(end[0]), y: surface.py(clamp(Math.log10(end[1]))) }))
      .sort((a, b) => a.y - b.y);
    ends.forEach((letter, n) => { if (n) letter.y = Math.max(letter.y, ends[n - 1].y + 13); });
    for (const { i, x, y } of ends) {
      surface.text(LETTERS[i], x, 0, { dx: 11, dy: y - surface.py(0), weight: 600, color: colors.ink, size: 12 });
    }
  }

  destroy() {
    this.surface.destroy();
  }
}
