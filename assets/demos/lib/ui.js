/**
 * Controls and readouts: native elements, labelled, 44 pixels tall, styled by demo.css.
 * Each function appends to `parent` and returns a small object to steer it by.
 */

/** An element: `h("p", {class: "note"}, "text", child)`; keys that start with "on" are listeners. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function put(parent, ...args) {
  const element = h(...args);
  parent.append(element);
  return element;
}

/** A row for canvases: side by side where there is room, one below the other where not. */
export const stages = (parent) => put(parent, "div", { class: "sd-stages" });

/** One canvas with a heading: append a Surface to what this returns. */
export function stage(parent, title) {
  const box = put(parent, "div", { class: "sd-stage" });
  if (title) put(box, "p", { class: "sd-title" }, title);
  return box;
}

/** A row for controls that wraps. */
export const controls = (parent, label) => put(parent, "div", { class: "sd-controls", role: "group", "aria-label": label });

/** A row for readouts. */
export const readouts = (parent) => put(parent, "div", { class: "sd-readouts" });

/** A line of words below a canvas or a row; `set(words)` changes it. `live` has it read aloud. */
export function note(parent, words = "", { live = false } = {}) {
  const element = put(parent, "p", { class: "sd-note", "aria-live": live && "polite" }, words);
  return { element, set: (next) => element.textContent !== next && (element.textContent = next) };
}

/**
 * @param {HTMLElement} parent
 * @param {{label: string, min: number, max: number, step: number, value: number,
 *   format?: (value: number) => string, onInput: (value: number) => void}} options
 */
export function slider(parent, { label, min, max, step, value, format = String, onInput }) {
  const output = h("output", { class: "sd-value" });
  const input = h("input", { type: "range", min, max, step, "aria-label": label });
  put(parent, "label", { class: "sd-control sd-slider" }, h("span", { class: "sd-name" }, label), input, output);
  const show = () => {
    output.textContent = format(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => {
    show();
    onInput(Number(input.value));
  });
  const self = {
    element: input,
    get value() { return Number(input.value); },
    set value(next) {
      input.value = String(next);
      show();
    },
    set max(next) { input.max = String(next); },
    set disabled(next) { input.disabled = next; },
  };
  self.value = value;
  return self;
}

/** @param {{label: string, onClick: () => void, primary?: boolean, title?: string}} options */
export function button(parent, { label, onClick, primary = false, title }) {
  const element = put(parent, "button", { type: "button", class: primary ? "sd-button sd-primary" : "sd-button", title, onclick: onClick }, label);
  return {
    element,
    set label(next) { if (element.textContent !== next) element.textContent = next; },
    set disabled(next) { element.disabled = next; },
    set primary(next) { element.classList.toggle("sd-primary", next); },
  };
}

/** @param {{label: string, value: boolean, onChange: (value: boolean) => void}} options */
export function toggle(parent, { label, value, onChange }) {
  const input = h("input", { type: "checkbox", onchange: () => onChange(input.checked) });
  input.checked = value;
  put(parent, "label", { class: "sd-control sd-toggle" }, input, h("span", {}, label));
  return {
    element: input,
    get value() { return input.checked; },
    set value(next) { input.checked = next; },
  };
}

/**
 * A menu. For up to about five options `choice` shows them all at once.
 * @param {{label: string, options: Object<string, string>, value: string,
 *   onChange: (value: string) => void}} settings options as {value: words}
 */
export function select(parent, { label, options, value, onChange }) {
  const items = Object.entries(options).map(([key, words]) => h("option", { value: key }, words));
  const input = h("select", { onchange: () => onChange(input.value) }, ...items);
  input.value = value;
  put(parent, "label", { class: "sd-control sd-select" }, h("span", { class: "sd-name" }, label), input);
  return {
    element: input,
    get value() { return input.value; },
    set value(next) { input.value = next; },
  };
}

let groups = 0;

/** One of a few, all in sight: radio buttons in a row (arrow keys move between them). */
export function choice(parent, { label, options, value, onChange }) {
  const group = `sd-choice-${groups++}`;
  const box = put(parent, "fieldset", { class: "sd-choice" }, h("legend", { class: "sd-name" }, label));
  const inputs = Object.entries(options).map(([key, words]) => {
    const input = h("input", { type: "radio", name: group, value: key, onchange: () => onChange(key) });
    put(box, "label", {}, input, h("span", {}, words));
    return input;
  });
  const self = {
    element: box,
    get value() { return inputs.find((input) => input.checked)?.value; },
    set value(next) { for (const input of inputs) input.checked = input.value === next; },
  };
  self.value = value;
  return self;
}

/**
 * A number that the reader sees, and that a test compares with Python's.
 * @param {{key: string, label: string, digits?: number, format?: (value: any) => string,
 *   color?: string}} options color: a name such as "data", for the dot before the label
 */
export function readout(parent, { key, label, digits = 3, format = (value) => value.toFixed(digits), color }) {
  const value = h("span", { class: "sd-number", "data-readout": key }, "–");
  const dot = color ? [h("i", { class: "sd-dot", style: `background: var(--sd-${color})` })] : [];
  put(parent, "span", { class: "sd-readout" }, ...dot, h("span", { class: "sd-name" }, label), value);
  return {
    /** null shows a dash: there is nothing to say yet. */
    set(next) {
      const words = next === null ? "–" : format(next);
      if (value.textContent !== words) value.textContent = words;
    },
  };
}
