"""The diffusion transformer: what a fresh one does, where its patches stand, what it refuses."""

import math

import pytest
import torch

from sdlib.models import DiT, DiTConfig
from sdlib.models.dit import grid_positions

X, T = (
    torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0, 5, 900]),
)
LABEL = torch.tensor([0, 9, 10])


def net(**changes):
    return DiT(DiTConfig.tiny(**changes)).eval()


def trained(**changes):
    """None of its zeros are left."""
    dit = net(**changes)
    for p in dit.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return dit


def test_xl_2_has_the_parameters_of_the_paper():
    """675,129,632 with the positions, which are counted there and computed here."""
    with torch.device("meta"):
        dit = DiT(DiTConfig.xl_2())
    assert sum(p.numel() for p in dit.parameters()) + 256 * 1152 == 675_129_632


def test_a_fresh_block_is_the_identity_and_a_fresh_network_says_nothing():
    for dit, text in ((net(), None), (net(classes=0, context_width=16), torch.randn(3, 5, 16))):
        tokens, condition = torch.randn(3, 16, 32), torch.randn(3, 32)
        for block in dit.blocks:
            assert torch.equal(block(tokens, condition, text), tokens)
        out = dit(X, T, text)
        assert out.shape == X.shape and not out.any()


def test_a_patch_stands_where_its_row_and_column_say():
    places = grid_positions(8, 3, 5)
    assert places.shape == (15, 8)
    row, column = 2, 3
    by_hand = [f(n / 100**i) for n in (column, row) for f in (math.sin, math.cos) for i in (0, 1)]
    torch.testing.assert_close(places[row * 5 + column], torch.tensor(by_hand))


def test_patches_go_in_and_come_out_in_their_places():
    """With every block off, an output depends on its own patch alone."""
    dit = trained()
    for block in dit.blocks:
        torch.nn.init.zeros_(block.condition.weight)
        torch.nn.init.zeros_(block.condition.bias)
    changed = X.clone()
    changed[:, :, 2:4, 6:8] += 1
    different = (dit(changed, T, LABEL) != dit(X, T, LABEL)).any(0).any(0)
    assert different[2:4, 6:8].all() and different.sum() == 4


def test_every_input_matters():
    dit = trained()
    out = dit(X, T, LABEL)
    assert not torch.allclose(dit(X + 1, T, LABEL), out)
    assert not torch.allclose(dit(X, T + 50, LABEL), out)
    assert not torch.allclose(dit(X, T, (LABEL + 1) % 11), out)
    reader = trained(classes=0, context_width=16)
    text = torch.randn(3, 5, 16)
    assert not torch.allclose(reader(X, T, text), reader(X, T, text + 1))


def test_no_class_is_the_class_behind_the_last():
    dit = trained()
    assert torch.equal(dit(X, T), dit(X, T, torch.full((3,), 10)))


def test_other_sizes_and_no_conditions():
    dit = trained(classes=0, out_channels=8)
    assert dit(torch.randn(3, 4, 6, 10), T).shape == (3, 8, 6, 10)


def test_gradients_reach_every_parameter():
    for dit, cond in (
        (trained(), LABEL),
        (trained(classes=0, context_width=16), torch.randn(3, 5, 16)),
    ):
        dit(X, T, cond).square().mean().backward()
        silent = [n for n, p in dit.named_parameters() if p.grad is None or not p.grad.any()]
        assert [n for n in silent if not n.endswith(".k.bias")] == []


@pytest.mark.parametrize("dtype, limit", [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
@torch.no_grad()
def test_half_precision(dtype, limit):
    dit = trained()
    right = dit(X, T, LABEL)
    half = dit.to(dtype)(X.to(dtype), T, LABEL)
    assert half.dtype == dtype
    assert (half.float() - right).norm() < limit * right.norm()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 30}, "width must be a multiple of 4; got 30"),
        ({"context_width": 16}, "classes or at text, not at both"),
        ({"heads": 5}, "multiple of heads; got 32 and 5"),
    ],
)
def test_configs_that_make_no_network(changes, message):
    with pytest.raises(ValueError, match=message):
        net(**changes)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"multiples of 2; got shape \(3, 4, 7, 8\)"):
        net()(X[:, :, :7], T, LABEL)
    with pytest.raises(ValueError, match=r"takes \[b, 4, h, w\]"):
        net()(X[:, :3], T, LABEL)
    for bad in (LABEL[:2], LABEL.float(), LABEL[:, None]):
        with pytest.raises(ValueError, match="a class for each of 3 samples"):
            net()(X, T, bad)
    for bad in (LABEL + 1, LABEL - 1):
        with pytest.raises(ValueError, match="between 0 and 9, or are 10 for none"):
            net().check_condition(bad)
    with pytest.raises(ValueError, match="without context and classes"):
        net(classes=0)(X, T, LABEL)
    with pytest.raises(ValueError, match=r"cond\['context'\] must be \[b, m, 16\]; got None"):
        net(classes=0, context_width=16)(X, T)


def test_continuous_time_is_as_visible_as_a_table():
    fine, table = trained(time_scale=1000.0), trained()
    table.load_state_dict(fine.state_dict())
    t = torch.tensor([0.25, 0.5, 0.75])
    torch.testing.assert_close(fine(X, t, LABEL), table(X, 1000 * t, LABEL))


def test_it_can_be_exported():
    dit = trained().requires_grad_(False)
    exported = torch.export.export(dit, (X, T, LABEL))
    torch.testing.assert_close(exported.module()(X, T, LABEL), dit(X, T, LABEL))
