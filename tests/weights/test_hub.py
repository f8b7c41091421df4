"""Ids on the hub and paths here; the hub is a server on loopback, asked from other processes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save

from sdlib.weights.folders import FolderPart, write_folder
from sdlib.weights.hub import _complete, fetch, locate, needed
from tests.weights.hub_server import COMMIT, hub

FOLDERS = ("unet", "vae", "text_encoder")
LARGE = save({"big": torch.arange(100_000).float()})


def weights(x):
    return save({"w": torch.tensor([float(x)])})


def config(name):
    return json.dumps({"_class_name": name}).encode()


FOLDER = {
    "README.md": b"hello",
    "model_index.json": json.dumps(
        {"_class_name": "StableDiffusionPipeline", "unet": ["a", "B"], "vae": ["a", "B"],
         "text_encoder": ["a", "B"], "safety_checker": ["a", "B"]}
    ).encode(),
    "scheduler/scheduler_config.json": b'{"_class_name": "PNDMScheduler"}',
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"#version",
    "v1-5-pruned.ckpt": b"large",
    "v1-5-pruned.safetensors": b"large",
    "safety_checker/config.json": b"{}",
    "safety_checker/model.safetensors": b"large",
    "unet/config.json": config("UNet"),
    "unet/diffusion_pytorch_model.bin": b"old",
    "unet/diffusion_pytorch_model.safetensors": LARGE,
    "unet/diffusion_pytorch_model.fp16.safetensors": weights(1),
    "unet/diffusion_pytorch_model.non_ema.safetensors": weights(2),
    "unet/flax_model.msgpack": b"flax",
    "vae/config.json": config("VAE"),
    "vae/diffusion_pytorch_model.safetensors": weights(3),
    "text_encoder/config.json": config("Text"),
    "text_encoder/model.safetensors": weights(4),
    "text_encoder/model.fp16.safetensors": weights(5),
}  # fmt: skip
REPOSITORIES = {
    "some/model": FOLDER,
    "some/vae": {
        "config.json": config("VAE"),
        "diffusion_pytorch_model.safetensors": weights(6),
        "other.ckpt": b"x",
    },
    "some/files": {"one.ckpt": b"x", "two.safetensors": weights(7)},
}
CLIENT = """
import json, sys
from sdlib.weights.hub import locate
from sdlib.weights.folders import read_folder
said = {}
for source, variant in json.loads(sys.argv[1]):
    try:
        path = locate(source, variant)
        said[source] = str(path)
        if source == "some/model":
            said["sums"] = {k: float(p.tensors.popitem()[1].sum())
                            for k, p in read_folder(path, variant).parts.items()}
    except OSError as error:
        said[source] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def ask(address, cache, sources, **env):
    """What another process gets for each (source, variant)."""
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0",
           "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_ETAG_TIMEOUT": "2", **env}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(sources)],
        env=env, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def online(cache):
    sources = ["some/model", "some/vae", "some/files/two.safetensors", "some/files",
               "some/files/three.safetensors", "some/model@old", f"some/vae@{COMMIT}",
               "some/gated", "some/missing", "some/private", "some/login", "some/busy"]  # fmt: skip
    with hub(REPOSITORIES, cut=("unet/diffusion_pytorch_model.safetensors",)) as (address, log):
        said = ask(address, cache, [(source, None) for source in sources])
        said["log"] = list(log)
    said["address"] = address
    return said


@pytest.fixture(scope="module")
def without_network(online, cache):
    sources = ["some/model", "some/files/two.safetensors", "some/vae", "never/seen", "never/seen/x"]
    return ask(online["address"], cache, [(source, None) for source in sources])


def test_a_folder_comes_without_what_nobody_reads(online):
    got = [path.split("/", 5)[5] for method, path, _ in online["log"]
           if method == "GET" and path.startswith("/some/model/resolve")]  # fmt: skip
    assert sorted(set(got)) == sorted(
        ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt",
         "tokenizer/vocab.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
         "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
         "text_encoder/model.safetensors"]
    )  # fmt: skip


def test_a_download_that_breaks_off_is_taken_up_again(online):
    file = "/unet/diffusion_pytorch_model.safetensors"
    assert [m for m, path, _ in online["log"] if path.endswith(file)].count("GET") == 2
    assert online["sums"]["unet"] == torch.arange(100_000).float().sum().item()


def test_what_was_fetched_needs_no_network(online, without_network):
    for source in ("some/model", "some/files/two.safetensors", "some/vae"):
        assert without_network[source] == online[source]
    assert without_network["sums"] == online["sums"]


def test_a_copy_without_all_that_is_needed_is_none(tmp_path):
    """A download that breaks off for good, after most of it."""
    lost = "unet/diffusion_pytorch_model.safetensors"
    with hub({"some/model": FOLDER}, away=(lost,)) as (address, _):
        said = ask(address, tmp_path, [("some/model", None)])["some/model"]
    assert "only a part of some/model is in the cache: try again" in said


def test_a_copy_without_the_scheduler_that_its_index_names_is_none(tmp_path):
    index = {name: ["a", "B"] for name in (*FOLDERS, "scheduler", "tokenizer")}
    parts = {name: FolderPart({"_class_name": "A"}, {"x": torch.ones(1)}) for name in FOLDERS}
    files = {"vocab.json": "{}", "merges.txt": ""}
    folder = write_folder(tmp_path / "x", parts, {"_class_name": "PNDMScheduler"}, files)
    (folder / "model_index.json").write_text(json.dumps(index))
    assert _complete(folder, None) and _complete(folder / "vae", None)
    for name in ("tokenizer/merges.txt", "scheduler/scheduler_config.json"):
        text = (folder / name).read_text()
        (folder / name).unlink()
        assert not _complete(folder, None)
        (folder / name).write_text(text)


def test_parts_files_and_revisions(online):
    for source in ("some/vae", f"some/vae@{COMMIT}"):
        assert online[source].endswith(f"snapshots/{COMMIT}")
    assert online["some/files/two.safetensors"].endswith(f"snapshots/{COMMIT}/two.safetensors")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("some/gated", "some/gated is gated: accept its terms on its page on the hub, then log in"),
        ("some/missing", "there is no model some/missing on the hub, or it is private"),
        ("some/private", "there is no model some/private on the hub, or it is private"),
        ("some/login", "the hub refused some/login (401): log in with `hf auth login`."),
        ("some/busy", "the hub answered 503 when asked for some/busy: try again later."),
        ("some/model@old", "some/model on the hub has no revision 'old'."),
        ("some/files/three.safetensors", "some/files on the hub has no file 'three.safetensors'; "
                                         "it has one.ckpt, two.safetensors: name one as"),
        ("some/files", "some/files on the hub is no diffusers folder; it has one.ckpt, "
                       "two.safetensors: name one as some/files/one.ckpt."),
    ],
)  # fmt: skip
def test_what_the_hub_refuses(online, source, sentence):
    assert sentence in online[source]


def test_no_network_and_no_copy(without_network):
    for source in ("never/seen", "never/seen/x"):
        assert "cannot reach the hub for never/seen, and no copy" in without_network[source]


def test_offline_by_choice():
    with pytest.raises(OSError, match="unset HF_HUB_OFFLINE"):
        fetch("never/seen")


def test_a_path_that_exists_wins_over_an_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "model").mkdir()
    assert str(locate("some/model")) == os.path.join("some", "model")


@pytest.mark.parametrize(
    "source",
    ["./model", "/no/such", "../x/y", "~/no/such/thing", "models/mine.safetensors", "mine.ckpt",
     "here/models/mine.safetensors", "a\\b", "a/../b.ckpt"],
)  # fmt: skip
def test_what_looks_like_a_path_is_never_asked_for(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        locate(source)


def test_names_that_are_neither():
    with pytest.raises(FileNotFoundError, match="an id on the hub is owner/name"):
        locate("sd15")
    with pytest.raises(FileNotFoundError, match="is an address: download the file"):
        locate("https://huggingface.co/some/model")


def test_variants_that_are_needed():
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in needed(FOLDER, "fp16")
    assert "vae/diffusion_pytorch_model.safetensors" in needed(FOLDER, "fp16")
    assert sum("unet" in name for name in needed(FOLDER, "fp16")) == 2
    shards = [f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    other = "unet/diffusion_pytorch_model-00001-of-00001.bin"
    names = {"model_index.json", "unet/config.json", index, *shards, other}
    assert set(needed(names)) == names - {other}
    single = "unet/diffusion_pytorch_model.safetensors"
    names = {"model_index.json", single}
    assert set(needed(names | set(shards))) == names
    assert needed(["README.md", "model.ckpt"]) == []
