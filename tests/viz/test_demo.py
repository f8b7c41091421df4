"""Demos as widgets: what travels to the browser, what the page gets, what is refused."""

import html
import json
import re

import pytest

from sdlib import viz
from sdlib.files import asset_path
from sdlib.viz import demos, export

names = pytest.mark.parametrize("name", demos.names())


def test_state_goes_both_ways():
    d = viz.demo("draw", seed=3)
    assert d.state["seed"] == 3 and d.state["preset"] == "heart"
    d.update(preset="star", noise=2)
    assert (d.state["preset"], d.state["noise"], d.state["seed"]) == ("star", 2, 3)
    assert viz.demo("draw").state["seed"] == 0  # and twice in a row


def test_what_it_shows_is_stable():
    d = viz.demo("draw", seed=3)
    bundle, _ = d._repr_mimebundle_()
    assert bundle["text/plain"] == repr(d) == "demo('draw', seed=3)"
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == d.model_id
    page = bundle["text/html"]
    assert page == viz.demo("draw", seed=3)._repr_mimebundle_()[0]["text/html"]
    assert 'data-demo="draw"' in page and "make serve" in page
    state = re.search(r'data-state="([^"]*)"', page).group(1)
    assert json.loads(html.unescape(state)) == {"seed": 3}


@pytest.mark.parametrize(
    "state", [{"seed": float("nan")}, {"seed": "1"}, {"train": 1}, {"strokes": "o"}, {"seed": True}]
)
def test_values_unlike_the_default_are_refused(state):
    (key,) = state
    with pytest.raises(ValueError, match=f"{key} of the demo 'draw' must be like its default"):
        viz.demo("draw", **state)


def test_unknown_names_and_keys_are_refused():
    with pytest.raises(ValueError, match="unknown demo 'drow'; choose one of: .*draw"):
        viz.demo("drow")
    with pytest.raises(ValueError, match="'draw' has no sead; its state has: preset, .*seed"):
        viz.demo("draw", sead=1)
    with pytest.raises(ValueError, match="has no sead"):
        viz.demo("draw").update(sead=1)
    with pytest.raises(ValueError, match="unknown kind of demo data 'nets'"):
        export.payload("nets/x")


@names
def test_modules_come_after_what_they_import(name):
    modules, seen = demos.modules(name), set()
    assert modules[-1][0] == f"{name}.js"
    for path, source in modules:
        folder = (asset_path("demos") / path).resolve().parent
        for target in demos._IMPORT.findall(source):
            other = (folder / target).resolve().relative_to(asset_path("demos").resolve())
            assert other.as_posix() in seen, f"{path} imports {target}"
        seen.add(path)


@names
def test_a_card_says_what_a_demo_is(name):
    card = demos.card(name)
    assert card["title"] and len(card["alt"]) > 40 and card["defaults"]
    assert all(not isinstance(value, dict) for value in card["defaults"].values())
    for file in card.get("files", []):
        assert len(json.dumps(export.payload(file))) < 300_000
    viz.demo(name)


def test_every_module_is_short():
    for path in asset_path("demos").rglob("*.js"):
        assert len(path.read_text().splitlines()) <= 350, path


def test_written_files_are_what_kernels_get(tmp_path):
    written = export.write(tmp_path)
    assert len(written) == len(export.files())
    for path in written:
        file = path.relative_to(tmp_path).with_suffix("").as_posix()
        assert json.loads(path.read_text()) == export.payload(file)
