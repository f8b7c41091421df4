import warnings

import pytest
import torch
from torch import nn

from sdlib.pipeline.runner import NetworkRunner, pick_device
from tests.pipeline.common import SIZE, converted, off, tiny


class Times(nn.Module):
    """Multiplies by its one weight; notes where it was moved."""

    def __init__(self, weight=2.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]), requires_grad=False)
        self.moves = []

    def to(self, *args, **kwargs):
        self.moves.append(str(args[0]))
        return super().to(*args, **kwargs)

    def forward(self, x):
        return self.weight * x


def runner(weight=2.0, **options):
    networks = {"text": Times(), "unet": Times(weight), "vae": Times()}
    return NetworkRunner(networks, **{"device": "cpu", **options})


def call(network, x, *_):
    return network(x)


def test_run_in_the_precision_of_the_network():
    seen = {}

    def look(network, x, t, cond):
        seen.update(x=x.dtype, t=t.dtype, context=cond["context"].dtype, ids=cond["ids"].dtype)
        return network(x)

    p = runner()
    p.networks["unet"].bfloat16()
    x, t = torch.ones(2, 3, dtype=torch.float64), torch.tensor([981.0, 1.0], dtype=torch.float64)
    out = p.run("unet", look, x, t, {"context": x, "ids": torch.ones(2, 3, dtype=torch.int64)})
    assert out.dtype == torch.bfloat16
    # times stay as they are: 981 is no bfloat16
    assert seen == {
        "x": torch.bfloat16,
        "t": torch.float64,
        "context": torch.bfloat16,
        "ids": torch.int64,
    }


def test_what_overflows_is_computed_again():
    p = runner(weight=60000.0)
    p.networks["unet"].half()
    with pytest.warns(UserWarning) as caught:
        out = p.run("unet", call, torch.full((1, 2), 3.0))
    assert [str(w.message) for w in caught] == [
        "the U-Net overflowed in float16; from here on it runs in float32."
    ]
    assert out.dtype == torch.float32 and out.tolist() == [[180000.0] * 2]
    assert p.networks["unet"].weight.dtype == torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        p.run("unet", call, torch.full((1, 2), 3.0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.filterwarnings("ignore:the U-Net overflowed")
def test_damaged_weights(bad, dtype):
    p = runner(weight=bad)
    p.networks["unet"].to(dtype)
    with pytest.raises(ValueError, match="the U-Net gave NaN or infinity in float32; its weights"):
        p.run("unet", call, torch.ones(1, 2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_damaged_inputs_are_not_blamed_on_weights(bad, dtype):
    p = runner(weight=1e10 if dtype == torch.float32 else 2.0)
    p.networks["unet"].to(dtype)
    x = torch.tensor([[1.0, bad]], dtype=torch.float64)
    for f, inputs in [
        (call, (x,)),
        (lambda network, x, cond: network(cond["concat"]), (torch.ones(1, 2), {"concat": x})),
    ]:
        with pytest.raises(ValueError, match="the U-Net was given NaN or infinity, or numbers bey"):
            p.run("unet", f, *inputs)
    assert p.networks["unet"].weight.dtype == dtype  # which is not to blame


def test_guidance_without_measure():
    with pytest.raises(ValueError, match="was given NaN .* A guidance_scale nearer to 1 may help"):
        list(tiny().sample("a", guidance_scale=1e38, seed=1, steps=3, **SIZE))


def test_without_offloading_all_are_on_the_device():
    p = runner()
    assert p.device == torch.device("cpu")
    p.run("vae", call, torch.ones(1, 2))
    assert [n.moves for n in p.networks.values()] == [["cpu"], ["cpu"], ["cpu"]]


def test_offloading_keeps_one_on_the_device(monkeypatch):
    """The meta device stands for one that is not the CPU: moves are noted, and not made."""
    monkeypatch.setattr(nn.Module, "to", lambda self, *args, **kwargs: self)
    p = runner(device="meta", offload=True)
    for part in ("text", "unet", "unet", "vae", "unet"):
        p._at_work(part)
        there = {name for name, network in p.networks.items() if network.moves[-1] == "meta"}
        assert there == {part}


def test_offloading_brings_a_network_to_the_device_first():
    """In the order in which memory needs it: others leave before one comes."""
    order = []
    p = runner(offload=True)
    p.device, p.offload = torch.device("meta"), True
    for name, network in p.networks.items():

        def moved(where, name=name, network=network):
            order.append((name, where))
            return network

        network.to = moved
    p._at_work("unet")
    assert order == [("text", "cpu"), ("vae", "cpu"), ("unet", torch.device("meta"))]


def test_offloaded_pictures_are_the_same():
    first, second = (
        [frame.x for frame in tiny(offload=offload).sample("a", steps=2, seed=1, **SIZE)]
        for offload in (False, True)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_pick_device():
    assert pick_device("meta") == torch.device("meta")
    assert pick_device(torch.device("cpu")) == torch.device("cpu")
    assert pick_device(None).type in ("cuda", "mps", "cpu")


# --- in a whole pipeline --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float16, 0.02), (torch.bfloat16, 0.15)], ids=str
)
def test_half_precision_is_near(dtype, tolerance):
    """States stay float64 around networks of half precision."""
    options = {"steps": 4, "seed": 1, "guidance_scale": 2.0, **SIZE}
    *_, right = tiny().sample("a red cube", **options)
    *_, last = converted(tiny(), dtype).sample("a red cube", **options)
    assert last.x.dtype == torch.float64 and 0 < off(last.x, right.x) < tolerance
    assert last.decode()[0].size == (64, 48)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_times_reach_a_half_network_unrounded(dtype):
    sd = converted(tiny(), dtype)
    told = []
    sd.unet.register_forward_pre_hook(lambda unet, args: told.append(args[1].clone()))
    frames = list(sd.sample("a", steps=50, sampler="ddim", seed=1, **SIZE))[:1]
    frames += list(sd.sample("a", steps=7, sampler="euler", seed=1, **SIZE))[:2]
    assert told[0].tolist() == [981.0, 981.0] == [frames[0].t] * 2
    assert told[51].tolist() == [frames[2].t] * 2 and frames[2].t == pytest.approx(832.5)
    # and the waves that they become are of these times, and not of 980 or 984
    unet, x = sd.unet, torch.ones(1, 4, 6, 8, dtype=dtype)
    context = torch.zeros(1, 77, 32, dtype=dtype)
    exact = unet(x, torch.tensor([981.0]), context).float()
    wide = converted(tiny(), torch.float32).unet
    errors = {
        t: off(exact, wide(x.float(), torch.tensor([t]), context.float()))
        for t in (976.0, 980.0, 981.0, 984.0)
    }
    assert min(errors, key=errors.get) == 981.0


def overflowing(layer):
    """A layer whose answer passes through numbers that float16 cannot hold."""
    forward = layer.forward

    def large(x):
        return forward(x) * 1e5 / 1e5

    layer.forward = large


def test_a_picture_in_spite_of_an_overflow():
    sd = converted(tiny(), torch.float16)
    overflowing(sd.unet.stem)
    with pytest.warns(UserWarning, match="the U-Net overflowed in float16") as caught:
        frames = list(sd.sample("a cat", steps=3, seed=1, maps=True, **SIZE))
    assert len([w for w in caught if "overflowed" in str(w.message)]) == 1
    assert frames[-1].x.isfinite().all() and len(frames) == 4
    for frame in frames:
        assert all(image.isfinite().all() for _, image in frame.maps[0])
    assert frames[-1].parameters[0]["dtype"] == "float32"  # which it is by now
    *_, right = tiny().sample("a cat", steps=3, seed=1, **SIZE)
    assert off(frames[-1].x, right.x) < 0.01


def test_a_decoder_that_overflows_gives_no_black_picture():
    sd = converted(tiny(), torch.float16)
    sd.vae.decoder.stem.bias.data.fill_(6e4)
    sd.vae.decoder.stem.weight.data.mul_(200)
    with pytest.warns(UserWarning, match="the autoencoder overflowed in float16"):
        (picture,) = sd.generate("a", steps=2, seed=1, progress=False, **SIZE)
    low, high = picture.convert("L").getextrema()
    assert high > low and sd.vae.decoder.stem.bias.dtype == torch.float32
    assert sd.unet.stem.bias.dtype == torch.float16  # only what overflowed


def test_the_autoencoder_is_channels_last_and_can_be_shared():
    sd = tiny()
    weight = sd.vae.decoder.up[0].blocks[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    NetworkRunner(sd.pack().runner.networks, device="cpu")


def test_packing_is_for_the_cpu():
    sd = tiny()
    sd.runner.device = torch.device("meta")  # stands for one that is not
    assert not sd.pack().unet.stem.weight.is_mkldnn
