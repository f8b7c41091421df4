import matplotlib

matplotlib.use("Agg")
import ipywidgets
import pytest
from matplotlib import pyplot as plt

from sdlib import viz
from sdlib.viz.panel import WIDGET_VIEW


def dots(steps=3, kind="a", loud=False):
    if steps == 9:
        raise ValueError("nine is too many")
    figure, ax = plt.subplots(figsize=(1, 1))
    ax.plot([0, steps])
    return figure


def draws_and_returns_nothing():
    plt.plot([0, 1])


def make():
    return viz.panel(dots, alt="A line.", steps=(1, 10), kind=["a", "b"], loud=False)


def test_text_is_stable_and_the_page_gets_a_picture_with_its_alt_text():
    panel = make()
    bundle = panel._repr_mimebundle_()
    assert repr(panel) == bundle["text/plain"] == "panel('dots')"
    assert (
        'alt="A line."' in bundle["text/html"] and "data:image/png;base64," in bundle["text/html"]
    )
    assert "needs a kernel" in bundle["text/html"] and "http" not in bundle["text/html"]


def test_a_kernel_gets_the_widget():
    view = make()._repr_mimebundle_()[WIDGET_VIEW]
    assert view["version_major"] == 2 and view["model_id"]


def test_controls_start_at_the_function_s_own_defaults():
    panel = make()
    assert panel.values == {"steps": 3, "kind": "a", "loud": False}
    assert isinstance(panel.controls["steps"], ipywidgets.IntSlider)
    assert panel.controls["steps"].description == "steps"


def test_moving_a_control_draws_again_and_errors_are_seen():
    panel = make()
    picture = panel.widget().children[-1]
    before = picture.value
    panel.controls["steps"].value = 8
    assert picture.value != before and "<img" in picture.value
    panel.controls["steps"].value = 9
    assert "ValueError: nine is too many" in picture.value
    panel.controls["steps"].value = 3
    assert picture.value == before


def test_the_widget_is_made_once():
    panel = make()
    assert panel.widget() is panel.widget()


def test_no_figure_stays_open():
    keep = plt.figure()
    panel = make()
    panel._repr_mimebundle_()
    panel.controls["steps"].value = 7
    assert plt.get_fignums() == [keep.number]
    plt.close(keep)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plt.subplots(figsize=(1, 1))[1],
        lambda: plt.subplots(figsize=(1, 1)),
        draws_and_returns_nothing,
        lambda: viz.panels(2, size=1.0),
    ],
)
def test_a_function_may_return_a_figure_axes_or_nothing(draw):
    assert "<img" in viz.panel(draw, alt="A line.").html()
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: viz.panel(3, alt="a"), "function must be a function"),
        (lambda: viz.panel(dots, alt=""), "alt must say"),
        (lambda: viz.panel(dots, alt="a", speed=(1, 2)), "'speed' is no parameter of the function"),
        (lambda: viz.panel(dots, alt="a", kind=object()), "the control 'kind' must be a tuple"),
        (lambda: viz.panel(lambda n: None, alt="a"), "'n' needs a control"),
        (lambda: viz.panel(lambda: None, alt="a"), "drew none"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
