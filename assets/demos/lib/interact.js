/**
 * Pointers, keys and time: what makes a Surface answer.
 */

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);

/**
 * Follows one mouse button, finger or pen from down to up, in plane coordinates.
 * @param {import("./canvas.js").Surface} surface
 * @param {{down: (x: number, y: number) => boolean | void, move: (x: number, y: number) => void,
 *   up?: () => void}} handlers `down` may return false to let the event go
 */
export function pointer(surface, { down, move, up = () => {} }) {
  const { element } = surface;
  let held = null;
  element.addEventListener("pointerdown", (event) => {
    if (held !== null || event.button > 0 || down(...surface.plane(event)) === false) return;
    held = event.pointerId;
    element.setPointerCapture(held);
    element.focus({ preventScroll: true });
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (event.pointerId === held) move(...surface.plane(event));
  });
  for (const type of ["pointerup", "pointercancel"]) {
    element.addEventListener(type, (event) => {
      if (event.pointerId !== held) return;
      held = null;
      up();
    });
  }
}

/**
 * Arrow keys on a focused element: `move(dx, dy)` in units of -1, 0 or 1 (times 5 with Shift).
 * @param {HTMLElement} element
 * @param {(dx: number, dy: number) => void} move
 * @param {Object<string, () => void>} [keys] more keys by name: {" ": drop, n: next}
 */
export function arrows(element, move, keys = {}) {
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key], reach = event.shiftKey ? 5 : 1;
    if (arrow) move(arrow[0] * reach, arrow[1] * reach);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
}

/**
 * Handles to drag: the pointer takes the nearest, arrow keys move the active one, and N and P (or
 * Page Down and Page Up) go to the next and the previous.
 * @param {import("./canvas.js").Surface} surface an interactive one
 * @param {object} options
 * @param {() => Array<[number, number]>} options.handles where they are now
 * @param {(i: number, x: number, y: number) => void} options.move put handle i there (within the axes)
 * @param {(i: number) => void} [options.drop] the pointer let go
 * @param {number} [options.step] how far an arrow key goes, in units of the plane
 * @param {number} [options.reach] how near the pointer must be, in pixels; Infinity takes the nearest
 * @returns {{active: number}} which handle the keys move
 */
export function draggable(surface, { handles, move, drop = () => {}, step = 0.1, reach = 28 }) {
  const drag = { active: 0 };
  const go = (x, y) => move(drag.active, clamp(x, surface.x), clamp(y, surface.y));
  const choose = (by) => () => {
    const count = handles().length;
    drag.active = (drag.active + by + count) % count;
    surface.redraw();
  };
  let offset = [0, 0];
  pointer(surface, {
    down(x, y) {
      const gaps = handles().map(([a, b]) =>
        Math.hypot(surface.px(a) - surface.px(x), surface.py(b) - surface.py(y)));
      const nearest = gaps.indexOf(Math.min(...gaps));
      if (!(gaps[nearest] <= reach)) return false;
      const [a, b] = handles()[nearest];
      offset = reach === Infinity ? [0, 0] : [a - x, b - y];
      drag.active = nearest;
      go(x + offset[0], y + offset[1]);
    },
    move: (x, y) => go(x + offset[0], y + offset[1]),
    up: () => drop(drag.active),
  });
  arrows(surface.element, (dx, dy) => {
    const [x, y] = handles()[drag.active];
    go(x + step * dx, y + step * dy);
  }, { n: choose(1), p: choose(-1), PageDown: choose(1), PageUp: choose(-1) });
  return drag;
}

/** Whether the reader asked for less motion: then nothing starts to move on its own. */
export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * Calls `frame(seconds)` (the time since the last call) once per screen refresh while it plays and
 * the element is on screen; a frame that returns false ends the play.
 * @param {HTMLElement} element
 * @param {(seconds: number) => boolean | void} frame
 * @param {(playing: boolean) => void} [changed] is told when play starts or ends
 */
export function animation(element, frame, changed = () => {}) {
  let playing = false, visible = true, request = 0, last = null;
  const tick = (now) => {
    request = 0;
    const seconds = last === null ? 0 : Math.min((now - last) / 1000, 0.1);
    last = now;
    if (frame(seconds) === false) self.pause();
    else schedule();
  };
  const schedule = () => {
    if (playing && visible) request ||= requestAnimationFrame(tick);
  };
  const observer = new IntersectionObserver((entries) => {
    visible = entries[entries.length - 1].isIntersecting;
    last = null;
    schedule();
  });
  observer.observe(element);
  const set = (value) => {
    if (playing === value) return;
    playing = value;
    last = null;
    cancelAnimationFrame(request);
    request = 0;
    schedule();
    changed(playing);
  };
  const self = {
    get playing() { return playing; },
    play: () => set(true),
    pause: () => set(false),
    toggle: () => set(!playing),
    destroy() {
      set(false);
      observer.disconnect();
    },
  };
  return self;
}
