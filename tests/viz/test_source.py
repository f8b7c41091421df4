import inspect
import re

import pytest

from sdlib import viz
from sdlib.diffusion import IdealDenoiser, ddim, schedule
from sdlib.diffusion.samplers import step


def test_it_shows_the_package_s_own_lines():
    shown = viz.source(ddim)
    assert str(shown).rstrip() == inspect.getsource(ddim).rstrip()
    assert repr(shown) == "source of sdlib.diffusion.samplers.first_order.ddim"
    first = inspect.getsourcelines(ddim)[1]
    assert shown.place.startswith(f"sdlib/diffusion/samplers/first_order.py, lines {first} to ")


def test_methods_lose_their_indent_and_objects_show_their_class():
    assert str(viz.source(IdealDenoiser.weights)).startswith("def weights(")
    assert repr(viz.source(schedule("flow"))) == "source of sdlib.diffusion.schedule.Schedule"
    assert str(viz.source(step)).startswith('"""The one rule')


def test_the_page_holds_the_text_and_is_reachable_by_keyboard():
    bundle = viz.source(ddim)._repr_mimebundle_()
    assert bundle["text/plain"] == repr(viz.source(ddim))
    text = re.sub("<style>.*?</style>|<[^>]*>", "", bundle["text/html"])
    assert "yield from walk(denoiser, grid, x, cond, move)" in text
    assert '<pre tabindex="0"' in bundle["text/html"] and 'class="highlight"' in bundle["text/html"]


def test_what_has_no_source_is_refused():
    with pytest.raises(ValueError, match="obj must have Python source"):
        viz.source(len)
    with pytest.raises(ValueError, match="obj must have Python source"):
        viz.source(3)
