"""The loop: what a step does, resuming to the same weights, stopping on NaN, averages."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import diffusion_loss, schedule
from sdlib.models import MLP, MLPConfig
from sdlib.training import EMA, TrainingDiverged, train
from sdlib.training.loop import learning_rate

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


def test_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate(k, 100, 1.0, 10) for k in range(1, 101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 == max(rates) and rates[-1] == pytest.approx(0)
    assert rates[54] == pytest.approx(0.5)


def test_an_update_is_adamw_on_the_clipped_gradient():
    net, _, g = setup()
    twin, _, h = setup()
    step = next(iter(go(net, None, g, clip=0.01)))
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.01 / 5, weight_decay=0.0)
    loss(twin, next(plane.stream("rings", 16, h)), h).backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.01)
    optimizer.step()
    assert step.grad_norm == pytest.approx(norm.item())
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


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


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole, e1, g1 = setup()
    list(go(whole, e1, g1, checkpoint=tmp_path / "a.pt", save_every=6))
    net, e2, g2 = setup()
    for step in go(net, e2, g2, checkpoint=tmp_path / "b.pt", save_every=6):
        if step.step == 15:  # killed between two saves
            break
    net, e3, g3 = setup(seed=7)  # all of it comes from the file
    resumed = list(go(net, e3, g3, checkpoint=tmp_path / "b.pt", save_every=6))
    assert resumed[0].step == 13 and resumed[-1].step == 20
    assert same(whole, net) and same(e1.network, e3.network)
    assert not list(tmp_path.glob("*.part"))
    assert list(go(net, e3, g3, checkpoint=tmp_path / "b.pt")) == []


def test_checkpoints_of_another_run_are_refused(tmp_path):
    list(go(*setup(), checkpoint=tmp_path / "a.pt"))
    before = (tmp_path / "a.pt").read_bytes()
    for other in (
        lambda: go(*setup(), steps=30, checkpoint=tmp_path / "a.pt"),
        lambda: go(setup()[0], None, setup()[2], checkpoint=tmp_path / "a.pt"),
        lambda: go(MLP(MLPConfig(width=9)), *setup()[1:], checkpoint=tmp_path / "a.pt"),
    ):
        with pytest.raises(ValueError, match="not a checkpoint of this run"):
            next(other())
    assert (tmp_path / "a.pt").read_bytes() == before
    (tmp_path / "c.pt").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="remove it"):
        next(go(*setup(), checkpoint=tmp_path / "c.pt"))


def test_hostile_checkpoints_do_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"step": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="not a checkpoint"):
        next(go(*setup(), checkpoint=tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


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


def test_ema_is_an_average():
    net, _, _ = setup()
    ema = EMA(net, decay=0.8)
    values, mean = [], net.last.bias.detach().clone()
    for k in range(30):
        with torch.no_grad():
            net.last.bias.fill_(float(k))
        ema.update(net)
        keep = min(0.8, (2 + k) / (11 + k))
        mean = keep * mean + (1 - keep) * k
        values.append(ema.network.last.bias.clone())
    torch.testing.assert_close(values[-1], mean)
    assert not any(p.requires_grad for p in ema.network.parameters())
    with pytest.raises(ValueError, match="decay"):
        EMA(net, 1.0)


def test_bad_arguments_are_refused():
    net, ema, g = setup()
    with pytest.raises(ValueError, match="steps"):
        next(go(net, ema, g, steps=0))
    for option in ("save_every", "clip"):
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
