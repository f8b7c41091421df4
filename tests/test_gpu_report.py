"""`make gpu`, rehearsed on the CPU at tiny size, its report, and the page that shows it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import sd15
from benchmarks.gpu import bench as shared
from benchmarks.gpu import report as written
from benchmarks.gpu import sections
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.bench import OURS, SIZES, THEIRS, Bench
from benchmarks.gpu.report import Report, Section, measure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import reports  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the weights."""
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def bench(folder):
    return Bench("cpu", SIZES["tiny"], folder)


@pytest.fixture(scope="module")
def rehearsed(folder):
    """The report of a whole run."""
    pytest.importorskip("diffusers")
    arguments = ["--device", "cpu", "--size", "tiny", "--weights", str(folder)]
    path = main(arguments)
    assert path.parent == folder / "reports"  # a rehearsal is none for the book
    return json.loads(path.read_text())


def rows(report, name):
    (found,) = (part for part in report["sections"] if part["name"] == name)
    return {row["what"]: row for row in found["rows"]}


def collect(measured, *arguments, **settings):
    """The rows that a section adds, [what, value, unit, aim], and its note."""
    found = []

    def add(what, value, unit, aim=None, median=None):
        found.append((what, value, unit, aim))

    return found, measured(*arguments, add, **settings)


# --- a whole run ----------------------------------------------------------------------------------


def test_a_run_measures_every_section_and_says_where(rehearsed):
    parts = rehearsed["sections"]
    assert [part["name"] for part in parts] == [section.name for section in sections.SECTIONS]
    assert {(part["state"], part["note"]) for part in parts} == {("measured", None)}
    assert rehearsed["torch"] == torch.__version__ and rehearsed["size"] == "tiny"
    assert rehearsed["card"].endswith("no card") and rehearsed["driver"] is None
    for fact in ("processor", "python", "diffusers", "transformers", "sdlib", "date"):
        assert rehearsed[fact]
    assert rehearsed["source"] == written.source_digest()


def test_every_row_has_a_unit_and_says_whether_its_aim_was_met(rehearsed):
    found = [row for part in rehearsed["sections"] for row in part["rows"]]
    aimed = [row for row in found if "aim" in row]
    assert all(row["met"] == (row["value"] <= row["aim"]) for row in aimed)
    assert len(aimed) >= 25
    units = {"s", "GB", "TFLOP/s", "%", "images/s", "of RMS", "of 255", ""}
    assert {row["unit"] for row in found} == units


def test_networks_are_compared_in_each_precision(rehearsed):
    found = rows(rehearsed, "Networks on the CPU and on the card")
    assert len(found) == 4 * len(sections.TOLERANCES)
    for what, row in found.items():
        assert row["met"]
        exact = what.endswith("float32")  # here both sides are the same device
        assert (row["value"] == 0) == exact
        assert row["value"] <= row["aim"] / 3


def test_pictures_of_both_sides_are_timed_in_each_mode(rehearsed):
    for mode in ("eager", "compiled", "CUDA graphs"):
        found = rows(rehearsed, f"Seconds a picture, {mode}")
        for picture in sections.PICTURES.values():
            ours, theirs = (found[f"{picture}, {side}"] for side in (OURS, THEIRS))
            assert ours["value"] <= ours["median"] and theirs["value"] <= theirs["median"]
            ratio = found[f"{picture}: time relative to diffusers"]
            assert ratio["value"] == pytest.approx(ours["value"] / theirs["value"], rel=1e-4)
            assert ratio["aim"] == (0.8 if mode == "eager" else 1.0)


def test_memory_has_the_aims_of_the_savers(rehearsed):
    found = rows(rehearsed, "Memory")
    aims = {what: row["aim"] for what, row in found.items() if "aim" in row}
    assert aims == {"attention slices, one picture": 4.5, "everything, one picture": 3.0}
    assert {what.split(",")[0] for what in found} == set(sections.SAVERS)


def test_the_best_batch_is_the_fastest(rehearsed):
    found = rows(rehearsed, "Images a second")
    speeds = {what: row["value"] for what, row in found.items() if row["unit"] == "images/s"}
    (best,) = (value for what, value in speeds.items() if what.startswith("the best batch"))
    assert best == max(speeds.values())


# --- what is measured -----------------------------------------------------------------------------


@pytest.mark.parametrize("part", sections.PICTURES)
def test_both_sides_ask_their_unet_as_often(bench, part):
    pytest.importorskip("diffusers")
    asked = {}
    for side, pipe in bench.sides.items():
        calls = []
        hook = pipe.unet.register_forward_hook(lambda net, x, out, calls=calls: calls.append(1))
        sd15.runner(bench.job(part, side, steps=5), pipe)()
        hook.remove()
        asked[side] = len(calls)
    assert asked[OURS] == asked[THEIRS] == (6 if part == "image" else 5)


def test_without_diffusers_ours_is_measured_alone_and_the_report_says_so(bench, monkeypatch):
    load = sd15.load

    def refuse(job):
        if job.side == "theirs":
            raise ModuleNotFoundError("No module named 'diffusers'")
        return load(job)

    monkeypatch.setattr(sd15, "load", refuse)
    alone = Bench("cpu", bench.size, bench.folder)
    found, note = collect(sections.speed, alone, mode="eager")
    assert not [what for what, *_ in found if THEIRS in what]
    assert "text to image, sdlib" in {what for what, *_ in found}
    assert note.startswith("without diffusers") and "No module named" in note


def test_networks_are_compiled_on_a_card_only(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: compiled.append("reset"))
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: compiled.append((self, mode)))

    def pipe():
        vae = nn.Module()
        vae.decoder = nn.Conv2d(2, 2, 3)
        return SimpleNamespace(unet=nn.Conv2d(2, 2, 3), vae=vae)

    pipes = {OURS: pipe(), THEIRS: pipe()}
    for device in ("cpu", "cuda"):
        bench = SimpleNamespace(device=device, sides=pipes)
        sections.compile_networks(bench, "reduce-overhead")
        if device == "cpu":
            assert not compiled
    networks = [n for p in pipes.values() for n in (p.unet, p.vae.decoder)]
    assert compiled == ["reset", *((network, "reduce-overhead") for network in networks)]
    for side, pipe in pipes.items():
        last = pipe.unet.weight.is_contiguous(memory_format=torch.channels_last)
        assert last == (side == THEIRS)


def test_sides_take_turns_and_the_least_and_the_middle_count(monkeypatch):
    asked, told = [], iter([(3.0, 1.0), (9.0, 1.0), (1.0, 2.0), (8.0, 1.0), (7.0, 1.0), (5.0, 1.0)])

    def timed(bench, run, pipe):
        asked.append(pipe)
        return next(told)

    monkeypatch.setattr(shared, "timed", timed)
    thrice = SimpleNamespace(size=shared.Size(rounds=3))
    runs = dict.fromkeys((OURS, THEIRS))
    found = shared.alternate(thrice, runs, {OURS: OURS, THEIRS: THEIRS})
    assert asked == [OURS, THEIRS] * 3
    assert found[OURS] == shared.Figures(1.0, 3.0, 2.0)
    assert found[THEIRS] == shared.Figures(5.0, 8.0, 1.0)


def test_memory_on_a_card_leaves_out_the_other_pipeline(bench, monkeypatch):
    gb = 10**9
    told = iter([(7 * gb, 7 * gb), (7 * gb, 9 * gb)])  # in use before; then, and at most
    monkeypatch.setattr(sd15, "memory", lambda device: next(told))
    monkeypatch.setattr(sd15, "forget_peak", lambda device: None)
    monkeypatch.setattr(sd15, "timed", lambda job, run: 0.5)
    on_card = SimpleNamespace(nbytes=3 * gb, device=SimpleNamespace(type="cuda"))
    off_card = SimpleNamespace(nbytes=5 * gb, device=SimpleNamespace(type="cpu"))
    monkeypatch.setattr(shared, "parameters", lambda pipe: [on_card, off_card])
    card = Bench("cuda", bench.size, bench.folder)
    assert shared.timed(card, None, None) == (0.5, 5.0)  # 3 of its own, and 2 while it worked


@pytest.mark.parametrize(
    "seconds, best, tried",
    [
        ([1.0, 1.5, 2.0, None], 4, 4),  # None: out of memory
        ([1.0, 1.5, 4.0], 2, 3),  # slower
    ],
)
def test_batches_grow_until_memory_or_speed_ends(monkeypatch, seconds, best, tried):
    counts, times = [], dict(zip((1, 2, 4, 8), seconds, strict=False))

    def generate(sd, bench, count, steps):
        counts.append(count)
        if times[count] is None:
            raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(sections, "generate", generate)
    monkeypatch.setattr(sections, "timed", lambda bench, run, pipe: (times[counts[-1]], 1.0))
    bench = SimpleNamespace(ours=None, size=SIZES["sd15"])
    found, _ = collect(sections.best_batch, bench)
    assert len(counts) == tried
    assert found[-1][:2] == (f"the best batch, {best} at once", best / times[best])


def test_work_is_that_of_the_published_network():
    assert shared.flops("sd15", "unet", 512) / 1e12 == pytest.approx(0.80, abs=0.01)
    assert shared.picture_flops("sd15", 512, 10) / 1e12 == pytest.approx(20.2, abs=0.1)


# --- what a report survives -----------------------------------------------------------------------


def bad(bench, add):
    add("before", 1.0, "s")
    raise RuntimeError("CUDA error: an illegal address\nand much more")


def slow(bench, add):
    add("begun", 1.0, "s")
    time.sleep(60)


def quick(bench, add):
    add("done", float("nan"), "s", aim=2.0)
    return "a note"


def test_a_failure_ends_one_section_and_no_other(tmp_path):
    report = Report(tmp_path / "r.json", {})
    measure([Section("bad", 0, bad), Section("quick", 0, quick)], None, report, 1)
    first, second = json.loads(report.path.read_text())["sections"]
    assert first["state"] == "failed" and [row["what"] for row in first["rows"]] == ["before"]
    assert first["note"] == "RuntimeError: CUDA error: an illegal address"
    assert (second["state"], second["note"]) == ("measured", "a note")
    row = {"what": "done", "value": None, "unit": "s", "aim": 2.0, "met": False}
    assert second["rows"] == [row]


def test_what_does_not_fit_is_skipped_or_cut(tmp_path):
    report = Report(tmp_path / "r.json", {})
    parts = [Section("long", 100, quick), Section("slow", 0, slow)]
    measure(parts, None, report, 0.01)
    skipped, cut = json.loads(report.path.read_text())["sections"]
    assert skipped["state"] == "skipped" and "about 100 seconds, and 1 were" in skipped["note"]
    assert cut["state"] == "failed" and "were over" in cut["note"] and len(cut["rows"]) == 1
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


PROGRAM = """
import sys, time
from pathlib import Path
from benchmarks.gpu.report import Report, Section, measure

def done(bench, add):
    add("done", 1.0, "s")

def stuck(bench, add):
    add("begun", 1.0, "s")
    time.sleep(60)

report = Report(Path(sys.argv[1]), {"card": "a card"})
measure([Section("done", 0, done), Section("stuck", 0, stuck)], None, report, 8)
"""


def test_what_was_measured_outlives_a_kill(tmp_path):
    path = tmp_path / "r.json"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if "begun" in line:
            break
    process.kill()
    assert process.wait() == -signal.SIGKILL
    report = json.loads(path.read_text())
    assert report["card"] == "a card"
    states = [(part["state"], len(part["rows"])) for part in report["sections"]]
    assert states == [("measured", 1), ("unfinished", 1)]


def test_the_digest_tells_sources_apart(tmp_path):
    for name in ("sdlib/a.py", "benchmarks/b.py", "book/c.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1")
    before = written.source_digest(tmp_path)
    (tmp_path / "book" / "c.py").write_text("2")
    assert written.source_digest(tmp_path) == before
    (tmp_path / "sdlib" / "a.py").write_text("2")
    assert written.source_digest(tmp_path) != before


def test_a_card_gives_its_report_a_name():
    assert written.slug("NVIDIA GeForce RTX 4090") == "nvidia-geforce-rtx-4090"


def test_without_a_card_one_is_told_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main([])
    assert "--device cpu --size tiny rehearses" in capsys.readouterr().err


# --- make gpu -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status, chosen", [(0, "outside"), (1, "venv")])
def test_make_takes_the_python_that_sees_a_card(tmp_path, status, chosen):
    pythons = {"outside": tmp_path / "python", "venv": tmp_path / "venv" / "bin" / "python"}
    for name, path in pythons.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {status}\necho {name} "$@"\n')
        path.chmod(0o755)
    (tmp_path / "venv" / ".stamp").touch()
    command = ["make", "gpu", f"PYTHON={pythons['outside']}", f"VENV={tmp_path / 'venv'}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert out.stdout == f"{chosen} -m benchmarks.gpu\n", out.stderr


# --- the page -------------------------------------------------------------------------------------


MADE_UP = {
    **{"card": "NVIDIA X_1", "memory": 24.0, "driver": "600.1", "cuda": "13.0"},
    **{"processor": "A processor, 8 cores", "python": "3.12.1", "torch": "2.13.0"},
    **{"diffusers": "0.42.1", "transformers": None, "sdlib": "0.1.0", "source": "abc"},
    **{"date": "2026-03-04T05:06:07+00:00", "size": "sd15"},
    "sections": [
        {
            **{"name": "Seconds a picture, eager", "state": "measured", "note": None},
            "rows": [
                {"what": "text to image", "value": 1.2345, "median": 1.3, "unit": "s"},
                {"what": "ratio", "value": 0.75, "unit": "", "aim": 0.8, "met": True},
                {"what": "lost", "value": None, "unit": "GB", "aim": 3.0, "met": False},
            ],
        },
        {"name": "Graphs", "state": "skipped", "note": "it takes <80> seconds.", "rows": []},
    ],
}


def test_a_report_becomes_tables_of_three_columns(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(MADE_UP))
    lines = reports.markdown(tmp_path)
    assert lines[0] == "### NVIDIA X\\_1"
    assert lines[2].startswith("24 GB; A processor, 8 cores; driver 600.1, CUDA 13.0, ")
    assert "transformers" not in lines[2] and lines[2].endswith("measured on 2026-03-04.")
    assert "**1 of 2 aims met.**" in lines
    assert "| text to image | 1.23\u00a0s (1.3) |  |" in lines
    assert "| ratio | 0.75 | ≤ 0.8, met |" in lines
    assert "| lost | -\u00a0GB | ≤ 3, **missed** |" in lines
    assert "Skipped: it takes \\<80\\> seconds." in lines


def test_without_a_report_the_page_says_that_there_is_none(tmp_path):
    assert reports.markdown(tmp_path / "none") == [reports.NONE, ""]


def test_a_rehearsal_can_be_shown(rehearsed):
    assert sum(line.startswith("| :--") for line in reports.section(rehearsed)) == len(
        sections.SECTIONS
    )


def test_the_page_shows_reports(tmp_path, monkeypatch):
    application = pytest.importorskip("sphinx.application")
    pytest.importorskip("myst_parser")
    page = (ROOT / "book" / "performance.md").read_text(encoding="utf8")
    section = page[page.index("## On a graphics card") :]
    (tmp_path / "index.md").write_text(f"# Performance\n\n{section}")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "x.json").write_text(json.dumps(MADE_UP))
    lines = reports.markdown(tmp_path / "reports")
    monkeypatch.setattr(reports, "markdown", lambda: lines)
    app = application.Sphinx(
        tmp_path,
        None,
        tmp_path / "html",
        tmp_path / "trees",
        "html",
        {"extensions": ["myst_parser", "sdbook"], "html_theme": "basic"},
        status=None,
        warningiserror=True,
    )
    app.build()
    html = (tmp_path / "html" / "index.html").read_text(encoding="utf8")
    assert "<h3>NVIDIA X_1" in html and "<h4>Seconds a picture, eager" in html
    assert "<table" in html and "≤ 0.8, met" in html and "<strong>missed</strong>" in html
    assert "it takes &lt;80&gt; seconds." in html
