"""The wheel stands alone: built, installed into a clean environment, and used from another folder.

The environment is new and holds the wheel and nothing of this checkout. What the wheel depends on
is lent to it from the environment that runs the tests, through a .pth file: torch alone would take
minutes to install.
"""

import os
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = (".safetensors", ".js", ".json", ".css", ".gz", "")  # the last is a license's
CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]-*.ipynb"))


def run(command, cwd, **more):
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, **more
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    run(build, ROOT)
    (wheel,) = out.glob("sdlib-*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a clean environment that holds the wheel."""
    home = tmp_path_factory.mktemp("clean") / "env"
    run([sys.executable, "-m", "venv", home, "--without-pip"], ROOT)
    python = home / "bin" / "python"
    site = Path(
        run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home).strip()
    )
    # a .pth file adds this folder after the environment's own, and does not read the .pth files in
    # it, so an editable sdlib there stays unseen
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel], home
    )
    return python


@pytest.fixture
def elsewhere(tmp_path):
    return tmp_path


def test_the_wheel_holds_what_run_time_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("data", "assets/demos"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in SHIPPED:
                assert f"sdlib/_shipped/{file.relative_to(ROOT).as_posix()}" in names
    assert not any(n.startswith(("tests/", "book/", "data/", "assets/")) for n in names)


def test_it_is_the_wheel_that_is_imported(python, elsewhere):
    program = (
        "import sdlib, sdlib.files; print(sdlib.__file__, sdlib.files.data_path('swiss_roll.json'))"
    )
    module, data = run([python, "-c", program], elsewhere).split()
    home = str(python.parent.parent)
    assert module.startswith(home) and data.startswith(home)


def test_the_command_line_runs(python, elsewhere):
    out = elsewhere / "x.gif"
    run([python, "-m", "sdlib", "animate", "swissroll", "--out", out, "--frames", "8"], elsewhere)
    assert out.read_bytes()[:6] in (b"GIF87a", b"GIF89a")
    assert run([python, "-m", "sdlib", "info"], elsewhere).strip()


def test_a_picture_is_made(python, elsewhere):
    """From a checkpoint as small as can be, by the command line, with the vocabulary that ships."""
    program = textwrap.dedent(
        """
        from sdlib.models import AutoencoderKL, CLIPTextEncoder, StableDiffusionConfig, UNet
        from sdlib.pipeline import StableDiffusion
        c = StableDiffusionConfig.tiny()
        parts = CLIPTextEncoder(c.text), UNet(c.unet), AutoencoderKL(c.vae)
        StableDiffusion(c, *parts).save("tiny.safetensors")
        """
    )
    run([python, "-c", program], elsewhere)
    generate = [python, "-m", "sdlib", "generate", "a lighthouse", "--model", "tiny.safetensors"]
    run([*generate, "--width", 64, "--height", 64, "--steps", 2, "--out", "x.png"], elsewhere)
    assert (elsewhere / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "a lighthouse" in run([python, "-m", "sdlib", "info", "x.png"], elsewhere)


def test_a_demo_shows(python, elsewhere):
    program = textwrap.dedent(
        """
        from sdlib import viz
        from sdlib.viz.demos import names
        for name in names():
            bundle = viz.demo(name)._repr_mimebundle_()
            bundle = bundle[0] if isinstance(bundle, tuple) else bundle
            assert f'data-demo="{name}"' in bundle["text/html"]
            assert bundle["text/plain"] == f"demo('{name}')"
            print(name)
        """
    )
    assert run([python, "-c", program], elsewhere).split()


@pytest.mark.skipif(not CHAPTERS, reason="no chapter yet")
def test_a_chapter_runs(python, elsewhere):
    """The first chapter, in a kernel of the clean environment, from a folder that is not the
    checkout.
    """
    program = textwrap.dedent(
        f"""
        import nbformat, sys
        from nbclient import NotebookClient
        nb = nbformat.read({str(CHAPTERS[0])!r}, as_version=4)
        nb.cells.insert(0, nbformat.v4.new_code_cell("import sdlib; print(sdlib.__file__)"))
        NotebookClient(nb, kernel_name="python3", timeout=300,
                       resources={{"metadata": {{"path": "."}}}}).execute()
        print(nb.cells[0].outputs[0].text)
        """
    )
    # python3 is the kernel of whoever starts it: of this interpreter, not of one that the machine
    # may name so
    said = run([python, "-c", program], elsewhere)
    assert said.strip().startswith(str(python.parent.parent))
