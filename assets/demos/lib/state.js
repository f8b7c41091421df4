/**
 * A demo's state: one flat object, which alone (with the data) decides what is shown.
 */
export class State {
  /**
   * @param {{get: Function, set: Function, save_changes: Function, on: Function, off: Function}} model
   *   anywidget's in a kernel, mount.js's in the page
   * @param {(state: object, changed: Set<string>) => void} update is called after each change,
   *   whether it came from a control here or from Python, with the keys that differ
   */
  constructor(model, update) {
    this.model = model;
    this.previous = this.now;
    this.listener = () => {
      const { now, previous } = this;
      const differs = (key) => JSON.stringify(now[key]) !== JSON.stringify(previous[key]);
      const changed = new Set(Object.keys(now).filter(differs));
      this.previous = now;
      if (changed.size) update(now, changed);
    };
    model.on("change:state", this.listener);
  }

  /** The present state; treat it as read-only. */
  get now() {
    return this.model.get("state");
  }

  /** `state.set({seed: 1})` changes some keys, and so calls `update`. */
  set(partial) {
    this.model.set("state", { ...this.now, ...partial });
    this.model.save_changes();
  }

  destroy() {
    this.model.off("change:state", this.listener);
  }
}
