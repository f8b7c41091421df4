"""The HTML of an animation: a canvas, a button and a slider, without a library or a network."""

import html
import json

TEMPLATE = """\
<div class="sd-animation" data-animation="{name}" style="max-width:{size}px">
<img alt="{alt}" width="{size}" height="{size}" src="data:image/png;base64,{still}" \
style="display:block;width:100%;height:auto;background:none">
<div class="sd-animation-bar" hidden style="align-items:center;gap:8px;margin-top:4px">
<button type="button" style="min-width:32px;min-height:32px;cursor:pointer" \
aria-label="Play">&#9654;&#65038;</button>
<input type="range" min="0" max="{last}" step="any" value="{last}" style="flex:1;min-width:0" \
aria-label="Position in the walk">
<span class="sd-animation-step" style="font:0.8em monospace;min-width:8em"></span>
</div>
<script type="application/json">{values}</script>
</div>
<script>
{script}
</script>
"""

# Written for any number of players on a page, and for being run again when an output is shown twice.
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
  const still_please = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let [place, playing, visible, before, rest] = [film.last, false, false, 0, 0];

  const dots = (at, count, side, radius) => {
    pen.beginPath();
    for (let i = 0; i < count; i++) {
      const x = side / 2 * (1 + at(2 * i) / 16383.5);
      const y = side / 2 * (1 - at(2 * i + 1) / 16383.5);
      pen.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    }
    pen.fill();
  };
  const draw = () => {
    const side = Math.round((canvas.clientWidth || film.size) * (devicePixelRatio || 1));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    pen.clearRect(0, 0, side, side);
    const radius = side / 250;
    pen.fillStyle = "rgba(0, 114, 178, 0.25)";
    dots((k) => reference[k], reference.length / 2, side, radius);
    let f = film.nodes.findIndex((node) => node > place) - 1;
    if (f < 0) f = Math.max(film.nodes.length - 2, 0);
    const next = Math.min(f + 1, film.nodes.length - 1);
    const share = next > f ? (place - film.nodes[f]) / (film.nodes[next] - film.nodes[f]) : 0;
    const [a, b] = [2 * film.count * f, 2 * film.count * next];
    const done = film.last ? place / film.last : 1;
    const mixed = rgb[0].map((c, i) => Math.round(c + done * (rgb[1][i] - c)));
    pen.fillStyle = `rgba(${mixed}, 0.6)`;
    dots((k) => points[a + k] + share * (points[b + k] - points[a + k]), film.count, side, radius);
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
  if (!still_please && film.last > 0) play(true);
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
