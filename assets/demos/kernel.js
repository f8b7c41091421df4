/**
 * Shows a demo in Jupyter and Colab. A kernel has no server to import modules from, so they travel
 * as text in the trait `modules` ([path, source], each after those it imports) and become Blobs.
 */

const IMPORT = /(\bfrom\s*|\bimport\s*\(?\s*)(["'])(\.{1,2}\/[^"']+)\2/g;

/** A module's place from a file and the relative name it is imported by. */
function resolve(from, name) {
  return new URL(name, `https://demo.invalid/${from}`).pathname.slice(1);
}

async function load(modules) {
  const urls = new Map();
  for (const [path, source] of modules) {
    const linked = source.replace(IMPORT, (_, before, quote, name) =>
      before + quote + urls.get(resolve(path, name)) + quote);
    urls.set(path, URL.createObjectURL(new Blob([linked], { type: "text/javascript" })));
  }
  const module = await import(urls.get(modules[modules.length - 1][0]));
  for (const url of urls.values()) URL.revokeObjectURL(url);
  return module;
}

export default {
  async render({ model, el }) {
    el.classList.add("sd-demo", "sd-live");
    el.setAttribute("role", "group");
    el.setAttribute("aria-label", model.get("title"));
    const module = await load(model.get("modules"));
    const cleanup = module.render({ model, el });
    el.dataset.ready = "true";
    return cleanup;
  },
};
