/**
 * Brings the demos of a built page to life, with no kernel: each
 *
 *   <div class="sd-demo" data-demo="NAME" data-state='{"seed": 1}'><img src="poster" alt="..."></div>
 *
 * loads NAME.json (title, defaults, files), the data files and NAME.js when it comes near the
 * window, and hands them to NAME.js's `render({model, el})`. Where modules cannot load (a page
 * opened from disk) the poster stays, with its hint.
 */

const BASE = new URL(".", import.meta.url);

/** The part of a widget model that demos use, without the widget. */
export class Model {
  constructor(values) {
    this.values = values;
    this.listeners = new Map();
  }

  get(key) {
    return this.values[key];
  }

  set(key, value) {
    this.values[key] = value;
    for (const listener of [...(this.listeners.get(`change:${key}`) ?? [])]) listener();
  }

  on(event, listener) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  off(event, listener) {
    this.listeners.set(event, (this.listeners.get(event) ?? []).filter((other) => other !== listener));
  }

  save_changes() {}
}

async function json(path) {
  const response = await fetch(new URL(path, BASE));
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** Loads and renders one demo in place of its poster; returns the model. */
export async function mount(el) {
  const poster = [...el.childNodes], name = el.dataset.demo;
  try {
    const [card, module] = await Promise.all([json(`${name}.json`), import(new URL(`${name}.js`, BASE))]);
    const files = card.files ?? [];
    const values = await Promise.all(files.map((file) => json(`data/${file}.json`)));
    const data = Object.fromEntries(files.map((file, i) => [file, values[i]]));
    const state = { ...card.defaults, ...JSON.parse(el.dataset.state || "{}") };
    el.model = new Model({ state, data });
    el.replaceChildren();
    el.setAttribute("role", "group");
    el.setAttribute("aria-label", card.title);
    module.render({ model: el.model, el });
    el.dataset.ready = "true";
  } catch (error) {
    el.replaceChildren(...poster);
    el.classList.remove("sd-live");
    el.dataset.failed = "true";
    console.error(`demo ${name}:`, error);
  }
  return el.model;
}

/** Mounts every demo below `root` as it comes near the window. */
export function mountAll(root = document) {
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      mount(target);
    }
  }, { rootMargin: "600px" });
  for (const el of root.querySelectorAll(".sd-demo[data-demo]:not(.sd-live)")) {
    el.classList.add("sd-live"); // the hint for pages opened from disk is not for here
    near.observe(el);
  }
}

if (!document.querySelector('link[href*="demos/demo.css"]')) {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("demo.css", BASE).href;
  document.head.append(link);
}
mountAll();
