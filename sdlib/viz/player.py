"""The HTML of an animation: a canvas, a button and a slider, without a library or a network."""

import html
import json

TEMPLATE = """\
<div class="sd-animation" data-animation="{name}" style="max-width:{size}px">
<img alt="{alt}" width="{size}" height="{size}" src="data:image/png;base64,{still}" \
style="display:block;width:100%;height:auto;background:none">
<div class="sd-animation-bar" hidden style="align-items:center;gap:8px;margin-top:4px">
<button type="button" style="width:44px;height:32px;padding:0;cursor:pointer;\
color:inherit;background:none;border:1px solid currentColor;border-radius:6px" \
aria-label="Play">&#9654;&#65038;</button>
<input type="range" min="0" max="{last}" step="1" value="{last}" \
style="flex:1;min-width:0;accent-color:#7b7b7b" \
aria-label="Position in the walk">
<span class="sd-animation-step" style="font:0.8em monospace;min-width:8em"></span>
</div>
<script type="application/json">{values}</script>
</div>
<script>
{script}
</script>
"""

# For any number of players on a page, and for being run again when an output is shown twice.
SCRIPT = """\
document.querySelectorAll('[data-animation="NAME"]:not([data-ready])').forEach((root) => {
  root.dataset.ready = "yes";
  const film = JSON.parse(root.querySelector("script").textContent);
  const [still, bar] = [root.querySelector("img"), root.querySelector(".sd-animation-bar")];
  const [button, slider] = [bar.querySelector("button"), bar.querySelector("input")];
  const readout = bar.querySelector("span");
  const unpack = (text) => new Int16Array(
    Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const [points, reference] = [unpack(film.points), unpack(film.reference)];
  const rgb = film.colors.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", still.alt);
  canvas.style.cssText = "display:block;width:100%;aspect-ratio:1;background:none";
  still.replaceWith(canvas);
  bar.hidden = false;
  bar.style.display = "flex";
  const pen = canvas.getContext("2d");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let [place, playing, visible, before, rest] = [film.last, false, false, 0, 0];

  const stamp = (radius, color) => {  // one dot, to be printed many times
    const dot = document.createElement("canvas");
    dot.width = dot.height = Math.ceil(2 * radius) + 2;
    const ink = dot.getContext("2d");
    ink.fillStyle = color;
    ink.arc(dot.width / 2, dot.width / 2, radius, 0, 2 * Math.PI);
    ink.fill();
    return dot;
  };
  const dots = (at, count, side, color) => {
    const dot = stamp(side / 210, color);
    const middle = (side - dot.width) / 2;
    for (let i = 0; i < count; i++) {
      const [x, y] = [at(2 * i) / 16383.5, at(2 * i + 1) / 16383.5];
      pen.drawImage(dot, middle + side / 2 * x, middle - side / 2 * y);
    }
  };
  const draw = () => {
    const side = Math.round((canvas.clientWidth || film.size) * (devicePixelRatio || 1));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    pen.clearRect(0, 0, side, side);
    dots((k) => reference[k], reference.length / 2, side, "rgba(0, 114, 178, 0.25)");
    let f = film.nodes.findIndex((node) => node > place) - 1;
    if (f < 0) f = Math.max(film.nodes.length - 2, 0);
    const next = Math.min(f + 1, film.nodes.length - 1);
    const share = next > f ? (place - film.nodes[f]) / (film.nodes[next] - film.nodes[f]) : 0;
    const [a, b] = [2 * film.count * f, 2 * film.count * next];
    const done = film.last ? place / film.last : 1;
    const part = done * (rgb.length - 1);
    const [from, to] = [rgb[Math.floor(part)], rgb[Math.ceil(part)]];
    const mixed = from.map((c, i) => Math.round(c + (part % 1) * (to[i] - c)));
    const between = (k) => points[a + k] + share * (points[b + k] - points[a + k]);
    dots(between, film.count, side, `rgba(${mixed}, 0.6)`);
    const near = share < 0.5 ? f : next;
    const said = `step ${film.nodes[near]} of ${film.last}`;
    readout.textContent = said;
    slider.setAttribute("aria-valuetext", `${said}, t = ${film.times[near]}`);
  };
  const tick = (now) => {
    if (!playing || !visible || !root.isConnected) return;
    const passed = Math.min((now - before) / 1000, 0.1);
    before = now;
    if (place < film.last) place = Math.min(film.last, place + passed * film.last / film.seconds);
    else if ((rest += passed) > film.hold) [place, rest] = [0, 0];
    slider.value = place;
    draw();
    requestAnimationFrame(tick);
  };
  const go = () => { before = performance.now(); requestAnimationFrame(tick); };
  const play = (on) => {
    playing = on;
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    button.textContent = on ? "\\u275A\\u275A" : "\\u25B6\\uFE0E";
    if (on) { if (place >= film.last) [place, rest] = [0, 0]; go(); }
  };
  button.addEventListener("click", () => play(!playing));
  slider.addEventListener("input", () => { play(false); place = +slider.value; draw(); });
  new ResizeObserver(draw).observe(canvas);
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    if (visible && playing) go();
  }).observe(canvas);
  draw();
  if (!calm && film.last > 0) play(true);
});
"""


def player(name: str, values: dict, alt: str, still: str) -> str:
    """The player as HTML.

    Args:
        name: marks its element; the same film has the same name in every build.
        values: what the script reads; see `Animation.html`.
        alt: what the film shows.
        still: its last frame, a PNG in base64, shown where scripts do not run.
    """
    return TEMPLATE.format(
        name=name,
        size=values["size"],
        last=values["last"],
        alt=html.escape(alt, quote=True),
        still=still,
        values=json.dumps(values, separators=(",", ":")),
        script=SCRIPT.replace("NAME", name),
    )
