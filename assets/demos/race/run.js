/**
 * One sampler on a budget of evaluations: what it reached, after how many, and how far off.
 */

import { SAMPLERS } from "../lib/samplers.js";
import { raceGrid } from "./problem.js";

export const NAMES = {
  ddim: "DDIM", heun: "Heun", dpm_solver: "DPM-Solver-2", dpmpp_2s: "DPM++ 2S", dpmpp_2m: "DPM++ 2M",
  dpmpp_3m: "DPM++ 3M", unipc: "UniPC", plms: "PLMS", lms: "LMS", ddpm: "DDPM (random)", dpmpp_2m_sde: "DPM++ 2M SDE (random)",
};
export const BUDGETS = [4, 6, 8, 10, 12, 16, 20, 26, 32, 40, 50];

/** The most steps that a sampler can make within a budget of evaluations. */
export function stepsWithin(sampler, budget) {
  if (sampler === "heun") return Math.floor(budget / 2);
  return sampler === "plms" ? budget - 1 : budget;
}

/** The middle of the distances between two clouds (the lower one of two). */
export function medianGap(a, b) {
  const gaps = new Float64Array(a.length / 2);
  for (let i = 0; i < gaps.length; i++) gaps[i] = Math.hypot(a[2 * i] - b[2 * i], a[2 * i + 1] - b[2 * i + 1]);
  return gaps.sort()[(gaps.length - 1) >> 1];
}

export class Run {
  /**
   * @param {import("./problem.js").Problem} problem
   * @param {Float64Array} start the states to begin with
   */
  constructor(problem, sampler, budget, spacing, start = problem.start) {
    if (!NAMES[sampler]) throw new RangeError(`no sampler ${sampler}; choose one of: ${Object.keys(NAMES).join(", ")}.`);
    this.grid = raceGrid(spacing, stepsWithin(sampler, budget));
    this.calls = 0;
    const counted = (...args) => {
      this.calls++;
      return problem.denoiser(...args);
    };
    this.walk = SAMPLERS[sampler](counted, this.grid, start, { noise: problem.noise() });
    this.nodes = []; // the state at each, and the evaluations that it took
    this.targets = []; // where the exact solution is at that node
  }

  get done() {
    return this.nodes.length > this.grid.length;
  }

  /** One node more; false when there was none left. */
  step() {
    if (this.done) return false;
    const { i, x } = this.walk.next().value;
    this.nodes.push({ x, calls: i < this.grid.length ? this.calls - 1 : this.calls }); // it has looked from here already
    return true;
  }

  finish() {
    while (this.step());
    return this;
  }

  target(exact, k) {
    return (this.targets[k] ??= exact.at(this.grid.alpha[k], this.grid.sigma[k]));
  }

  /** The node reached after `calls` evaluations, and how far on the way to the next it is. */
  place(calls) {
    let k = 0;
    while (k + 1 < this.nodes.length && this.nodes[k + 1].calls <= calls) k++;
    const here = this.nodes[k], next = this.nodes[k + 1];
    return { k, on: next ? Math.max(0, (calls - here.calls) / (next.calls - here.calls)) : 0 };
  }

  /** What is seen after `calls` evaluations: between two nodes, straight from one to the other. */
  seen(calls) {
    const { k, on } = this.place(calls);
    return on ? mix(this.nodes[k].x, this.nodes[k + 1].x, on) : this.nodes[k].x;
  }

  seenTarget(exact, calls) {
    const { k, on } = this.place(calls);
    return on ? mix(this.target(exact, k), this.target(exact, k + 1), on) : this.target(exact, k);
  }

  gap(exact, k) {
    return medianGap(this.nodes[k].x, this.target(exact, k));
  }
}

const mix = (a, b, share) => a.map((value, k) => value + share * (b[k] - value));
