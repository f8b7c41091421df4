/**
 * Chapter 1: draw a distribution, train a network on it in the page, and watch noise turn into it.
 *
 * The state says what was drawn (a ready-made `preset` and `strokes` on top), whether to `train` and
 * for how many `steps`, the two seeds, and where in the walk from noise to samples to look (`node`).
 */
import { Surface } from "./lib/canvas.js";
import { ddim, networkDenoiser } from "./lib/diffusion.js";
import { slicedWasserstein } from "./lib/distance.js";
import { makeGrid } from "./lib/grid.js";
import { animation, arrows, pointer, reducedMotion } from "./lib/interact.js";
import { MLP } from "./lib/mlp.js";
import { Drawing, SHAPES } from "./lib/plane.js";
import { Random } from "./lib/rng.js";
import { schedule } from "./lib/schedule.js";
import { State } from "./lib/state.js";
import { Trainer } from "./lib/training.js";
import { button, controls, note, readout, readouts, select, slider, stage, stages } from "./lib/ui.js";

const BATCH = 256;
const RATE = 0.01;
const GAIN = 8; // of the first weights: see MLP.initialize
const SIZE = new MLP().parameters.length.toLocaleString("en");
const NODES = 30; // sampling steps
const PREVIEW = 500; // particles shown while training
const FLOORS = 4; // pairs of real clouds whose distance is the floor
const SLICE = 11; // milliseconds of work in a frame; the rest is for the page
const PRESETS = { "": "nothing", spiral: "spiral", moons: "moons", heart: "heart", star: "star", letters: "letters" };
const LENGTHS = { 500: "500 steps", 2000: "2,000 steps", 8000: "8,000 steps" };

const levels = schedule("cosine");
const grid = makeGrid(levels, NODES);
const round = (value) => Math.round(value * 1000) / 1000;
const mean = (values) => values.reduce((a, b) => a + b) / values.length;
const whole = (value) => Math.round(value).toLocaleString("en");

export function render({ model, el }) {
  const state = new State(model, update);
  let drawing, ink; // what was drawn, and points of it to show
  let run; // the training run: {trainer, losses, measured, trajectory}
  let cloud; // the particles on show, and how far they have come: {points, progress}
  let work = null; // what is still to do, a slice at a time

  // --- the page -------------------------------------------------------------------------------
  const row = stages(el);
  const left = stage(row, "Draw a shape"), right = stage(row, "Let noise become it");
  const paper = new Surface(left, {
    label: "Drawing paper. Draw with the pointer; or move the pen with the arrow keys, put it down or "
      + "lift it with the space bar, and choose shapes with the keys 1 to 5.",
    x: [-1.1, 1.1], y: [-1.1, 1.1], interactive: true, draw: drawPaper,
  });
  const shapes = controls(left, "Drawing");
  const preset = select(shapes, {
    label: "Start from", options: PRESETS, value: state.now.preset,
    onChange: (name) => redraw({ preset: name, strokes: [] }),
  });
  button(shapes, { label: "Clear", onClick: () => redraw({ preset: "", strokes: [] }) });
  const teach = controls(left, "Training");
  const train = button(teach, { label: "Train", primary: true, onClick: () => state.set({ train: !state.now.train, node: 0 }) });
  const length = select(teach, {
    label: "for", options: LENGTHS, value: String(state.now.steps),
    onChange: (steps) => state.set({ steps: Number(steps), train: false, node: 0 }),
  });

  const view = new Surface(right, {
    label: "Particles on their way from noise to samples.", x: [-1.1, 1.1], y: [-1.1, 1.1], draw: drawView,
  });
  const walkRow = controls(right, "Sampling");
  const time = slider(walkRow, {
    label: "noise → data", min: 0, max: NODES, step: 0.05, value: 0,
    format: (node) => `${Math.floor(node)} of ${NODES}`,
    onInput: (node) => { player.pause(); state.set({ node }); },
  });
  const play = button(walkRow, { label: "Play", onClick: () => (player.playing ? player.pause() : replay()) });
  const again = button(walkRow, { label: "New noise", onClick: () => state.set({ noise: state.now.noise + 1 }) });

  const wide = stage(row);
  wide.classList.add("sd-wide");
  const curve = new Surface(wide, {
    label: "The training loss against the step.", aspect: 4.6, margin: [10, 24, 24, 34], draw: drawCurve,
  });
  const numbers = readouts(wide);
  const show = {
    steps: readout(numbers, { key: "steps", label: "steps", format: whole }),
    loss: readout(numbers, { key: "loss", label: "loss" }),
    sigma: readout(numbers, { key: "sigma", label: "noise σ", color: "noise" }),
    distance: readout(numbers, { key: "distance", label: "distance ÷ floor", digits: 2, color: "model" }),
  };
  const words = note(wide, "", { live: true });

  // --- drawing --------------------------------------------------------------------------------
  const pen = { x: 0, y: 0, down: false, stroke: null, keys: false };

  function redraw(partial) {
    state.set({ ...partial, train: false, node: 0 });
  }

  function extend(x, y) {
    const { stroke } = pen, n = stroke.length;
    if (n && Math.hypot(stroke[n - 2] - x, stroke[n - 1] - y) < 0.02) return;
    stroke.push(round(x), round(y));
    paper.redraw();
  }

  function lift() {
    const { stroke } = pen;
    Object.assign(pen, { stroke: null, down: false });
    if (stroke && stroke.length > 2) redraw({ strokes: [...state.now.strokes, stroke] });
    else paper.redraw();
  }

  pointer(paper, {
    down(x, y) {
      lift();
      Object.assign(pen, { stroke: [], keys: false });
      extend(x, y);
    },
    move: (x, y) => extend(Math.min(Math.max(x, -1.05), 1.05), Math.min(Math.max(y, -1.05), 1.05)),
    up: lift,
  });
  const numberKeys = Object.keys(SHAPES).map((name, i) => [i + 1, () => redraw({ preset: name, strokes: [] })]);
  arrows(paper.element, (dx, dy) => {
    pen.keys = true;
    pen.x = Math.min(Math.max(pen.x + 0.05 * dx, -1.05), 1.05);
    pen.y = Math.min(Math.max(pen.y + 0.05 * dy, -1.05), 1.05);
    if (pen.down) extend(pen.x, pen.y);
    paper.redraw();
  }, {
    " "() {
      if (pen.down) return lift();
      Object.assign(pen, { keys: true, down: true, stroke: [] });
      extend(pen.x, pen.y);
    },
    ...Object.fromEntries(numberKeys),
  });
  paper.element.addEventListener("blur", lift);

  function drawPaper({ colors }) {
    if (ink) paper.dots(ink, colors.data, { radius: 1.5, alpha: 0.5 });
    else if (!pen.stroke) paper.text("draw here", 0, 0, { size: 18 });
    if (pen.stroke) paper.path(pen.stroke, colors.data, { width: 4 });
    if (pen.keys) paper.handle(pen.x, pen.y, colors.accent, { active: pen.down });
  }

  // --- training, sampling, measuring: one generator that stops for breath ---------------------
  function* everything() {
    const { seed, steps } = state.now, random = new Random(seed);
    const network = new MLP({ t_max: levels.tMax }).initialize(random, { gain: GAIN });
    const trainer = new Trainer(network, {
      schedule: levels, predicts: "v", random, batch: (r) => drawing.sample(BATCH, r), steps, lr: RATE, decay: 0.995,
    });
    run = { trainer, losses: [], trajectory: null, distance: null };
    let preview = null;
    for (let step = 0; step < steps; step++) {
      run.losses.push(trainer.step());
      if (step % 8 === 0) {
        preview ??= walk(PREVIEW);
        const { value, done } = preview.next();
        if (done) preview = null;
        else if (value.i === NODES || !reducedMotion()) put(value.x, value.i / NODES);
      }
      yield;
    }
    yield* sampling();
  }

  function* sampling() {
    const { particles } = state.now, trajectory = [];
    run.distance = run.trajectory = null;
    for (const step of walk(particles)) {
      trajectory.push(step.x);
      if (!reducedMotion()) put(step.x, step.i / NODES);
      yield;
    }
    run.trajectory = trajectory;
    state.set({ node: NODES });
    const real = new Random(1000), draw = () => drawing.sample(particles, real);
    const distance = slicedWasserstein(trajectory[NODES], draw());
    let floor = 0;
    for (let i = 0; i < FLOORS; i++) {
      yield;
      floor += slicedWasserstein(draw(), draw()) / FLOORS;
    }
    run.distance = distance / floor;
  }

  /** Particles from noise to samples of the averaged network, as it stands now. */
  function walk(particles) {
    const start = new Random(2000 + state.now.noise).normals(2 * particles);
    return ddim(networkDenoiser(run.trainer.ema.network, "v"), grid, start);
  }

  const worker = animation(el, () => {
    const until = performance.now() + SLICE;
    while (work && performance.now() < until) {
      if (work.next().done) work = null;
    }
    report();
    return work !== null;
  });

  function begin(next) {
    work = next;
    if (work) worker.play();
    else worker.pause();
  }

  // --- looking --------------------------------------------------------------------------------
  const player = animation(el, (seconds) => {
    const node = Math.min(state.now.node + seconds * NODES / 3, NODES);
    state.set({ node });
    return node < NODES;
  }, (playing) => { play.label = playing ? "Pause" : "Play"; });

  function replay() {
    if (state.now.node >= NODES) state.set({ node: 0 });
    player.play();
  }

  function put(points, progress) {
    cloud = { points: drawing.length ? drawing.place(points) : points.map((value) => value / 2), progress };
    view.redraw();
  }

  /** The particles at the state's node, between two nodes of the walk if need be. */
  function look() {
    const { node, noise, particles } = state.now, trajectory = run?.trajectory;
    if (!trajectory) return put(new Random(2000 + noise).normals(2 * particles), 0);
    const i = Math.min(Math.floor(node), NODES - 1), u = node - i, next = trajectory[i + 1];
    return put(trajectory[i].map((value, k) => value + u * (next[k] - value)), node / NODES);
  }

  function drawView({ colors }) {
    const { points, progress } = cloud, style = { radius: 1.5 };
    if (progress < 1) view.dots(points, colors.noise, { ...style, alpha: 0.65 * (1 - progress) });
    if (progress > 0) view.dots(points, colors.model, { ...style, alpha: 0.65 * progress });
  }

  function drawCurve({ colors }) {
    const { steps } = state.now, losses = run?.losses ?? [];
    const bin = Math.max(10, Math.ceil(losses.length / 150)), line = [];
    let lowest = 0.9;
    for (let k = 0; k < losses.length; k += bin) {
      const loss = mean(losses.slice(k, k + bin));
      line.push(Math.min(k + bin / 2, steps), Math.min(loss, 1.1));
      lowest = Math.min(lowest, Math.floor(10 * loss) / 10);
    }
    Object.assign(curve, { x: [0, steps], y: [lowest, 1.1] });
    curve.axes({ x: [0, steps / 2, steps], y: [lowest, 1], format: (tick) => tick.toLocaleString("en") });
    curve.text("loss", steps, 1.1, { dx: -8, dy: 8, align: "right", size: 12 });
    if (line.length) curve.path(line, colors.ink, { width: 1.75 });
  }

  function report() {
    const { train: asked, node, steps } = state.now, losses = run?.losses ?? [], recent = losses.slice(-100);
    show.steps.set(losses.length);
    show.loss.set(recent.length ? mean(recent) : null);
    show.sigma.set(grid.sigma[Math.floor(node)]);
    show.distance.set(run?.distance ?? null);
    train.label = asked ? (losses.length < steps ? "Stop" : "Start over") : "Train";
    train.primary = !asked;
    play.primary = Boolean(run?.trajectory);
    train.disabled = !drawing.length;
    for (const control of [time, play, again]) control.disabled = !run?.trajectory;
    if (!drawing.length) words.set("Draw a line on the left, or choose a shape.");
    else if (!asked) words.set(`A network of ${SIZE} numbers, all random. Press Train: it learns on this page, from your drawing alone.`);
    else if (losses.length < steps) words.set("It learns to guess the drawing behind the noise. Each new cloud is sampled from the network as it stands.");
    else if (run.trajectory) words.set("Move the slider: the same network takes every particle from noise to your drawing. A distance of 1 floor is as close as a second sample of the drawing itself.");
    curve.redraw();
  }

  function update({ preset: name, strokes, steps, train: asked, node }, changed) {
    const has = (...keys) => keys.some((key) => changed.has(key));
    if (has("preset", "strokes")) {
      drawing = new Drawing([...(SHAPES[name] ?? []), ...strokes]);
      ink = drawing.length ? drawing.place(drawing.sample(2500, new Random(3000))) : null;
      paper.redraw();
    }
    if (has("preset", "strokes", "seed", "steps", "train")) {
      run = null;
      player.pause();
      begin(asked && drawing.length ? everything() : null);
    } else if (has("noise", "particles") && run?.losses.length === steps) {
      begin(sampling());
    }
    preset.value = name;
    length.value = String(steps);
    time.value = node;
    if (!run || run.trajectory) look();
    report();
  }

  el.demo = { // for tests
    get busy() { return work !== null; },
    get run() { return run; },
    paint(points, progress) { put(points, progress); view.paint(); },
  };
  update(state.now, new Set(Object.keys(state.now)));
  return () => [worker, player, state, paper, view, curve].forEach((part) => part.destroy());
}
