/**
 * A canvas with axes: sharp on every screen, in the page's colors, drawn only when something
 * changed. Points come as one array x, y, x, y ... as everywhere in this library.
 */

const VARIABLES = ["data", "noise", "model", "accent", "amber", "sky", "ink", "muted", "paper", "grid"];

/** The colors of demo.css as the element sees them: `colors(el).data`, and so on. */
export function colors(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(VARIABLES.map((name) => [name, style.getPropertyValue(`--sd-${name}`).trim()]));
}

/** Calls `callback` whenever the page turns light or dark; returns a function that stops it. */
export function onTheme(callback) {
  const observer = new MutationObserver(callback);
  const attributes = { attributeFilter: ["data-theme", "data-mode", "theme", "data-jp-theme-light"] };
  observer.observe(document.documentElement, attributes);
  observer.observe(document.body, attributes);
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", callback);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", callback);
  };
}

export class Surface {
  /**
   * @param {HTMLElement} parent
   * @param {object} options
   * @param {string} options.label says what is shown, to those who cannot see it
   * @param {(surface: Surface) => void} options.draw paints a cleared canvas
   * @param {[number, number]} [options.x] the range across; default -3 to 3
   * @param {[number, number]} [options.y] the range upward
   * @param {number} [options.aspect] width over height; default 1
   * @param {boolean} [options.interactive] takes the focus, touches and keys
   * @param {number | [number, number, number, number]} [options.margin] for tick labels, in pixels:
   *   top, right, bottom, left
   */
  constructor(parent, { label, draw, x = [-3, 3], y = [-3, 3], aspect = 1, interactive = false, margin = 0 }) {
    Object.assign(this, { x, y, aspect, draw });
    this.margin = typeof margin === "number" ? [margin, margin, margin, margin] : margin;
    this.element = document.createElement("canvas");
    this.element.className = interactive ? "sd-canvas sd-interactive" : "sd-canvas";
    this.element.style.aspectRatio = String(aspect);
    this.element.setAttribute("role", interactive ? "application" : "img");
    if (interactive) this.element.tabIndex = 0;
    this.label = label;
    parent.append(this.element);
    this.context = this.element.getContext("2d");
    this.frame = 0;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.element);
    this.forgetTheme = onTheme(() => this.restyle());
    this.restyle();
    this.resize();
  }

  set label(text) {
    this.element.setAttribute("aria-label", text);
  }

  restyle() {
    this.colors = colors(this.element);
    this.redraw();
  }

  resize() {
    const ratio = Math.min(devicePixelRatio || 1, 3), width = this.element.clientWidth;
    if (!width || (width === this.width && ratio === this.ratio)) return;
    Object.assign(this, { ratio, width, height: width / this.aspect });
    this.element.width = Math.round(width * ratio);
    this.element.height = Math.round(this.height * ratio);
    if (this.painted) this.paint(); // at once, or it would flicker
    else this.redraw();
  }

  /** Draws once before the next frame is shown, however often it is called. */
  redraw() {
    this.frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.width) return;
    this.painted = true;
    this.context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    this.draw(this);
  }

  /** From the plane to pixels. */
  px(x) {
    const [, right, , left] = this.margin;
    return left + (x - this.x[0]) / (this.x[1] - this.x[0]) * (this.width - left - right);
  }

  py(y) {
    const [top, , bottom] = this.margin;
    return this.height - bottom - (y - this.y[0]) / (this.y[1] - this.y[0]) * (this.height - top - bottom);
  }

  /** Where in the plane a pointer event happened: [x, y]. */
  plane(event) {
    const box = this.element.getBoundingClientRect(), [top, right, bottom, left] = this.margin;
    const u = (event.clientX - box.left - left) / (box.width - left - right);
    const v = (event.clientY - box.top - top) / (box.height - top - bottom);
    return [this.x[0] + u * (this.x[1] - this.x[0]), this.y[1] - v * (this.y[1] - this.y[0])];
  }

  /** A dot at each point; where many lie, they add up. */
  dots(points, color, { radius = 1.6, alpha = 0.7 } = {}) {
    const { context } = this, left = this.px(0), top = this.py(0), x = this.px(1) - left, y = this.py(1) - top;
    context.save();
    Object.assign(context, { fillStyle: color, globalAlpha: alpha });
    for (let k = 0; k < points.length; k += 2) {
      context.beginPath(); // a path of its own: one fill of them all is slower, and would not add up
      context.arc(left + x * points[k], top + y * points[k + 1], radius, 0, 7);
      context.fill();
    }
    context.restore();
  }

  /** A line through points. */
  path(points, color, { width = 2, alpha = 1, dash = [] } = {}) {
    const { context } = this;
    context.save();
    Object.assign(context, { strokeStyle: color, lineWidth: width, globalAlpha: alpha, lineJoin: "round", lineCap: "round" });
    context.setLineDash(dash);
    context.beginPath();
    for (let k = 0; k < points.length; k += 2) context.lineTo(this.px(points[k]), this.py(points[k + 1]));
    context.stroke();
    context.restore();
  }

  /** An arrow from each point along its vector (in units of the plane). */
  arrows(points, vectors, color, { width = 1.2, alpha = 1, head = 4 } = {}) {
    const { context } = this;
    context.save();
    Object.assign(context, { strokeStyle: color, lineWidth: width, globalAlpha: alpha });
    context.beginPath();
    for (let k = 0; k < points.length; k += 2) {
      const x = this.px(points[k]), y = this.py(points[k + 1]);
      const toX = this.px(points[k] + vectors[k]), toY = this.py(points[k + 1] + vectors[k + 1]);
      const angle = Math.atan2(toY - y, toX - x), size = Math.min(head, Math.hypot(toX - x, toY - y) / 2);
      context.moveTo(x, y);
      context.lineTo(toX, toY);
      for (const turn of [2.6, -2.6]) {
        context.moveTo(toX, toY);
        context.lineTo(toX + size * Math.cos(angle + turn), toY + size * Math.sin(angle + turn));
      }
    }
    context.stroke();
    context.restore();
  }

  /** A ring to take hold of; filled when `active`. */
  handle(x, y, color, { radius = 8, active = false } = {}) {
    const { context } = this;
    context.save();
    Object.assign(context, { strokeStyle: color, lineWidth: 2.5, fillStyle: active ? color : this.colors.paper });
    context.beginPath();
    context.arc(this.px(x), this.py(y), radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
    context.restore();
  }

  /** Words at a place in the plane; `dx` and `dy` shift them by pixels. */
  text(words, x, y, { color = this.colors.muted, align = "center", size = 13, dx = 0, dy = 0, weight = 400 } = {}) {
    const { context } = this;
    context.save();
    Object.assign(context, { fillStyle: color, textAlign: align, textBaseline: "middle" });
    context.font = `${weight} ${size}px ${getComputedStyle(this.element).fontFamily}`;
    context.fillText(words, this.px(x) + dx, this.py(y) + dy);
    context.restore();
  }

  /** Faint lines and labels at the ticks: `axes({x: [0, 1], y: [...], xLabel: "t"})`. */
  axes({ x = [], y = [], xLabel = "", yLabel = "", format = String } = {}) {
    const { colors: { grid } } = this, size = 12;
    for (const tick of x) {
      this.path([tick, this.y[0], tick, this.y[1]], grid, { width: 1 });
      if (this.margin[2]) this.text(format(tick), tick, this.y[0], { dy: 12, size });
    }
    for (const tick of y) {
      this.path([this.x[0], tick, this.x[1], tick], grid, { width: 1 });
      if (this.margin[3]) this.text(format(tick), this.x[0], tick, { dx: -6, align: "right", size });
    }
    if (xLabel) this.text(xLabel, this.x[1], this.y[0], { dx: -4, dy: -10, align: "right", size });
    if (yLabel) this.text(yLabel, this.x[0], this.y[1], { dx: 6, dy: 10, align: "left", size });
  }

  destroy() {
    cancelAnimationFrame(this.frame);
    this.observer.disconnect();
    this.forgetTheme();
    this.element.remove();
  }
}
