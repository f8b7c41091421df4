"""The loop: what a step does, what it trains and in which precision, and stopping on NaN."""

import io
import math

import pytest
import torch
from torch import nn

from sdlib.datasets import plane
from sdlib.diffusion import diffusion_loss, schedule
from sdlib.models import MLP, MLPConfig
from sdlib.training import EMA, TrainingDiverged, train
from sdlib.training.loop import learning_rate, mixed_precision

TABLE = schedule("linear")


def setup(seed=0):
    torch.manual_seed(seed)
    net = MLP(MLPConfig(width=8, depth=2))
    return net, EMA(net, 0.9), torch.Generator().manual_seed(seed)


def loss(net, x0, generator):
    return diffusion_loss(net, x0, TABLE, generator=generator)


def go(net, ema, generator, steps=20, **options):
    return train(
        net,
        plane.stream("rings", 16, generator),
        loss,
        steps=steps,
        generator=generator,
        lr=0.01,
        warmup=5,
        ema=ema,
        **options,
    )


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_steps_are_reported():
    steps = list(go(*setup()))
    assert [s.step for s in steps] == list(range(1, 21))
    assert [s.lr for s in steps] == [learning_rate(k, 20, 0.01, 5) for k in range(1, 21)]
    assert all(math.isfinite(s.loss) and s.grad_norm > 0 for s in steps)


def test_learning_rate_rises_then_falls_to_zero_after_the_last_step():
    rates = [learning_rate(k, 99, 1.0, 10) for k in range(1, 101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 == max(rates)
    assert rates[54] == pytest.approx(0.5) and rates[98] > 1e-4 and rates[99] == pytest.approx(0)
    assert learning_rate(1, 1, 1.0, 0) == pytest.approx(0.5)


SCALES = [0.02, 5.0, 0.05, 3.0, 0.01, 4.0]  # of the gradients: every second one is cut


def scaled(net, batch, generator):
    x, scale = batch
    return scale * net(x).square().mean()


def by_hand(net, data, clip=1.0, weight_decay=0.0):
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=weight_decay)
    norms = []
    for step, batch in enumerate(data, 1):
        optimizer.zero_grad()
        scaled(net, batch, None).backward()
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), clip).item())
        optimizer.param_groups[0]["lr"] = learning_rate(step, len(data), 0.01, 2)
        optimizer.step()
    return norms


@pytest.mark.parametrize("options", [{}, {"clip": 0.1}, {"clip": math.inf}, {"weight_decay": 1.0}])
def test_updates_are_adamw_on_the_clipped_gradient(options):
    torch.manual_seed(0)
    net, twin = nn.Linear(2, 3), nn.Linear(2, 3)
    twin.load_state_dict(net.state_dict())
    data = [(torch.randn(16, 2), scale) for scale in SCALES]
    for p in net.parameters():
        p.grad = torch.ones_like(p)  # left over from something else
    g = torch.Generator()
    steps = list(train(net, data, scaled, steps=6, generator=g, lr=0.01, warmup=2, **options))
    norms = by_hand(twin, data, **options)
    assert [s.grad_norm for s in steps] == pytest.approx(norms, rel=1e-4)
    assert min(norms) < options.get("clip", 1.0) and max(norms) > 2
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        assert p.grad is None


def test_accumulated_gradients_are_a_mean():
    torch.manual_seed(0)
    net, twin = nn.Linear(2, 3), nn.Linear(2, 3)
    twin.load_state_dict(net.state_dict())
    x = torch.randn(6, 16, 2)
    whole = [(batch, 1.0) for batch in x]
    parts = [(part, 1.0) for batch in x for part in batch.split(4)]
    g = torch.Generator()
    a = list(train(net, whole, scaled, steps=6, generator=g, warmup=2, clip=0.3))
    b = list(train(twin, parts, scaled, steps=6, generator=g, warmup=2, clip=0.3, accumulate=4))
    assert [s.loss for s in a] == pytest.approx([s.loss for s in b], rel=1e-5)
    assert [s.grad_norm for s in a] == pytest.approx([s.grad_norm for s in b], rel=1e-4)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


class Words(nn.Module):
    """A frozen network with dropout, and words to learn."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(3, 2)
        self.body = nn.Sequential(nn.Linear(2, 300), nn.Dropout(0.5), nn.Linear(300, 1))

    def forward(self, x):
        return self.body(self.words.weight).sum() * x.mean()


def test_an_embedding_is_trained_alone(tmp_path):
    torch.manual_seed(0)
    net = Words()
    before = {name: p.clone() for name, p in net.named_parameters()}
    ema = EMA(net, 0.5, [net.words.weight])
    modes = []

    def call(net, x, generator):
        modes.append((net.words.training, net.body.training, net.body[1].training))
        return net(x).square()

    options = {"weight_decay": 1.0, "checkpoint": tmp_path / "a.pt", "ema": ema}
    options |= {"parameters": [net.words.weight], "generator": torch.Generator()}
    list(train(net, [torch.ones(2)] * 3, call, steps=3, **options))
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name]) == (name != "words.weight")
        assert p.requires_grad and p.grad is None
    assert modes == [(True, False, False)] * 3
    assert ema.network.body[0].weight is net.body[0].weight  # shared, not copied
    assert not torch.equal(ema.network.words.weight, net.words.weight)
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(state["network"]) == list(state["ema"]["network"]) == ["words.weight"]
    assert (tmp_path / "a.pt").stat().st_size < 40_000  # most of it random states


def test_what_requires_no_gradient_is_not_trained():
    net = Words()
    net.body.requires_grad_(False)
    ema = EMA(net)
    before = net.body[0].weight.clone()
    call = lambda net, x, g: net(x).square()  # noqa: E731
    list(train(net, [torch.ones(2)] * 2, call, steps=2, generator=torch.Generator(), ema=ema))
    assert torch.equal(net.body[0].weight, before) and list(ema.averages) == ["words.weight"]


def test_parts_are_trained_together():
    torch.manual_seed(0)
    net = nn.ModuleDict({"text": nn.Embedding(4, 2), "unet": nn.Linear(2, 2)})
    before = [p.clone() for p in net.parameters()]
    ema = EMA(net, 0.5)

    def call(net, batch, generator):
        return (net["unet"](net["text"](batch["ids"])) - batch["x"]).square().mean()

    data = [{"ids": torch.arange(4), "x": torch.ones(4, 2)}] * 3
    list(train(net, data, call, steps=3, generator=torch.Generator(), ema=ema))
    assert not any(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert not same(net, ema.network)


def test_what_cannot_be_trained_is_refused():
    g, data = torch.Generator(), [torch.ones(2)]
    call = lambda net, x, g: net(x).square()  # noqa: E731

    def start(net, loss=call, **options):
        return next(train(net, data, loss, steps=1, generator=g, **options))

    net = Words()
    with pytest.raises(ValueError, match="network's own.*ModuleDict"):
        start(net, parameters=[nn.Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match="does not depend"):
        start(net, loss=lambda net, x, g: x.mean())
    with pytest.raises(ValueError, match="does not depend"):
        start(net, loss=lambda net, x, g: net.body[2].bias.sum(), parameters=[net.words.weight])
    ema = EMA(net, parameters=[net.words.weight])
    with pytest.raises(ValueError, match="ema does not average body.0.weight"):
        start(net, ema=ema)
    net.words.requires_grad_(False)
    with pytest.raises(ValueError, match="words.weight is to be trained"):
        start(net, parameters=net.words.parameters())
    with pytest.raises(ValueError, match="nothing is to train"):
        start(net.requires_grad_(False))


def test_bf16_leaves_nothing_behind(monkeypatch):
    types = []

    def call(net, x0, generator):
        types.append(net.last(torch.ones(1, net.last.in_features)).dtype)
        return loss(net, x0, generator)

    def run(**options):
        net, _, g = setup()
        data = plane.stream("rings", 16, g)
        return net, list(train(net, data, call, steps=5, generator=g, lr=0.01, **options))

    exact, _ = run()
    given, steps = run(precision="bf16")
    monkeypatch.setattr("accelerate.Accelerator.mixed_precision", "bf16")
    told, _ = run()
    assert types == [torch.float32] * 5 + [torch.bfloat16] * 10
    assert same(given, told) and not same(given, exact) and all(s.loss > 0 for s in steps)
    assert "forward" not in vars(given) and given(torch.ones(1, 2), 3).dtype == torch.float32
    assert {p.dtype for p in given.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_fp16_needs_cuda_and_precisions_have_names(monkeypatch):
    net, _, g = setup()
    with pytest.raises(ValueError, match="fp16 needs a CUDA device.*bf16"):
        next(go(net, None, g, precision="fp16"))
    with pytest.raises(ValueError, match="no, bf16, fp16"):
        next(go(net, None, g, precision="fp8"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    autocast, scaler = mixed_precision("fp16", torch.device("cuda"))
    assert autocast.args == ("cuda", torch.float16) and scaler.is_enabled()
    assert not mixed_precision("bf16", torch.device("cuda"))[1].is_enabled()


def test_scaled_losses_leave_out_updates_that_overflow(monkeypatch):
    """What fp16 does on CUDA, with a scaler that starts too high, here without the rounding."""

    def scaled_up(name, device):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, backoff_factor=2.0**-60)
        return mixed_precision("no", device)[0], scaler

    monkeypatch.setattr("sdlib.training.loop.mixed_precision", scaled_up)
    net, ema, g = setup()
    twin = [p.clone() for p in net.parameters()]

    def steep(net, x0, generator):
        return 1000 * loss(net, x0, generator)

    run = train(net, plane.stream("rings", 16, g), steep, steps=4, generator=g, ema=ema, warmup=1)
    assert not math.isfinite(next(run).grad_norm)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin, strict=True))
    assert ema.updates == 0
    assert math.isfinite(next(run).grad_norm) and ema.updates == 1
    assert not any(torch.equal(p, q) for p, q in zip(net.parameters(), twin, strict=True))


def test_training_learns():
    net, ema, g = setup()
    steps = list(go(net, ema, g, steps=400))
    early, late = steps[:50], steps[-50:]
    assert sum(s.loss for s in late) < 0.85 * sum(s.loss for s in early)


def test_a_seed_repeats_a_run():
    (a, ea, ga), (b, eb, gb) = setup(), setup()
    list(go(a, ea, ga))
    list(go(b, eb, gb))
    assert same(a, b) and same(ea.network, eb.network)


def test_nan_in_the_data_stops_and_says_where():
    net, ema, g = setup()
    before = [p.clone() for p in net.parameters()]

    def batches():
        yield plane.sample("rings", 16, g)
        yield torch.full((16, 2), math.nan)

    run = train(net, batches(), loss, steps=5, generator=g, ema=ema)
    next(run)
    after = [p.clone() for p in net.parameters()]
    with pytest.raises(TrainingDiverged, match="step 2.*the batch"):
        next(run)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), after, strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "place, pack",
    [
        (r"batch\[1\]", lambda x: (torch.ones(2), x)),
        (r"batch\[1\]\[0\]", lambda x: [None, (x, "words")]),
        (r"batch\['x'\]", lambda x: {"ids": torch.arange(3), "x": x}),
    ],
)
def test_nan_in_a_nested_batch_is_named(place, pack):
    net, _, g = setup()
    bad = pack(torch.tensor([1.0, math.nan]))
    call = lambda net, batch, g: net.last.bias.sum() * math.nan  # noqa: E731
    with pytest.raises(TrainingDiverged, match=f"step 1.*the first .* is the {place}\\."):
        next(train(net, [bad], call, steps=2, generator=g))


def test_nan_in_a_weight_or_gradient_names_it():
    net, ema, g = setup()
    with torch.no_grad():
        net.last.bias[0] = math.inf
    with pytest.raises(TrainingDiverged, match="parameter last.bias"):
        next(go(net, ema, g))
    net, ema, g = setup()
    net.hidden[0].weight.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(TrainingDiverged, match="gradient of hidden.0.weight"):
        next(go(net, ema, g))


def test_bad_arguments_are_refused():
    net, ema, g = setup()
    with pytest.raises(ValueError, match="steps"):
        next(go(net, ema, g, steps=0))
    for option in ("save_every", "clip", "accumulate"):
        with pytest.raises(ValueError, match=option):
            next(go(net, ema, g, **{option: 0}))


def test_batches_may_be_a_list_and_must_not_run_out():
    net, _, g = setup()
    run = train(net, [torch.randn(4, 2, generator=g)], loss, steps=2, generator=g)
    assert next(run).step == 1
    with pytest.raises(ValueError, match="ran out after 1 of 2"):
        next(run)


def test_a_network_is_trained_where_it_stands(monkeypatch):
    """A GPU beside it changes nothing: the caller's own tensors are on the CPU."""
    monkeypatch.setattr("accelerate.Accelerator.device", torch.device("meta"))
    net, ema, g = setup()
    list(go(net, ema, g, steps=2))
    assert {p.device.type for p in [*net.parameters(), *ema.network.parameters()]} == {"cpu"}


class Closed(io.StringIO):
    """What a terminal is after its reader has gone, or a log on a full disk."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_failed_print_does_not_stop_training(monkeypatch):
    net, ema, g = setup()
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    assert len(list(go(net, ema, g, progress=True))) == 20
    assert "20/20" in shown.getvalue() and "loss=" in shown.getvalue()
    monkeypatch.setattr("sys.stderr", Closed())
    assert len(list(go(net, ema, g, progress=True))) == 20
