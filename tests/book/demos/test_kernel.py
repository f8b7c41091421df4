"""The same demos as a kernel shows them: modules as text, state through anywidget's model."""

import pytest

from sdlib import viz
from sdlib.files import asset_path
from sdlib.viz import demos

RENDER = """async ({esm, traits}) => {
  const url = URL.createObjectURL(new Blob([esm], {type: "text/javascript"}));
  const { default: widget } = await import(url), { Model } = await import("/demos/mount.js");
  const el = document.createElement("div");
  document.querySelector("main").append(el);
  el.model = new Model(traits);
  el.cleanup = await widget.render({ model: el.model, el });
}"""


@pytest.mark.parametrize("name", demos.names())
def test_a_demo_runs_in_a_kernel(show, name):
    widget, shown = viz.demo(name), show(None)
    traits = {key: getattr(widget, key) for key in ("title", "modules", "data", "state")}
    esm = asset_path("demos/kernel.js").read_text()
    shown.page.evaluate(RENDER, {"esm": esm, "traits": traits})
    shown.settle()
    assert shown.element.get_attribute("data-ready") == "true"
    assert shown.element.locator("canvas").count() > 0
    assert shown.element.locator("[data-readout]").count() > 0
    assert set(shown.state) == set(widget.state)
    shown.evaluate("el => el.cleanup()")
