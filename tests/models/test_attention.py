"""Attention: what it is, written out; two ways to the same; what each token may see."""

import pytest
import torch

from sdlib.models import Attention

B, N, M, WIDTH, HEADS = 2, 6, 5, 16, 4


def x(n=N, width=WIDTH):
    return torch.randn(B, n, width)


def by_hand(layer, x, context, causal=False):
    """Head by head, token by token."""
    q, k, v = layer.q(x), layer.k(context), layer.v(context)
    d = q.shape[2] // layer.heads
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for h in range(layer.heads):
            part = slice(h * d, (h + 1) * d)
            for i in range(x.shape[1]):
                seen = slice(0, i + 1 if causal else None)
                weights = (k[b, seen, part] @ q[b, i, part] / d**0.5).softmax(0)
                out[b, i, part] = weights @ v[b, seen, part]
    return layer.out(out)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_written_out(causal):
    layer, tokens = Attention(WIDTH, HEADS, bias=True, causal=causal), x()
    torch.testing.assert_close(layer(tokens), by_hand(layer, tokens, tokens, causal))


def test_cross_attention_is_written_out():
    layer, tokens, context = Attention(WIDTH, HEADS, context_width=12), x(), x(M, 12)
    assert layer.q.bias is None and layer.k.bias is None and layer.v.bias is None
    torch.testing.assert_close(layer(tokens, context), by_hand(layer, tokens, context))


@pytest.mark.parametrize("causal", [False, True])
def test_watched_attention_gives_the_same_and_shows_its_maps(causal):
    layer, tokens, seen = Attention(WIDTH, HEADS, causal=causal), x(), []
    fused = layer(tokens)
    layer.on_weights = seen.append
    torch.testing.assert_close(layer(tokens), fused)
    (weights,) = seen
    assert weights.shape == (B, HEADS, N, N)
    assert torch.equal(weights, layer.maps(tokens))


def test_maps_sum_to_1():
    layer = Attention(WIDTH, HEADS, context_width=12).half()
    maps = layer.maps(100 * x().half(), 100 * x(M, 12).half())
    assert maps.shape == (B, HEADS, N, M) and maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(-1), torch.ones(B, HEADS, N))
    assert maps.min() >= 0


def test_maps_of_a_causal_layer_look_back_only():
    maps = Attention(WIDTH, HEADS, causal=True).maps(x())
    assert torch.equal(maps, maps.tril())
    torch.testing.assert_close(maps.sum(-1), torch.ones(B, HEADS, N))


@pytest.mark.parametrize("slices", [2, 4, 100])
def test_slices_equal_the_whole(slices):
    for layer, context in (
        (Attention(WIDTH, HEADS), None),
        (Attention(WIDTH, HEADS, context_width=12), x(M, 12)),
        (Attention(WIDTH, HEADS, causal=True), None),
    ):
        tokens = x()
        whole = layer(tokens, context)
        layer.slices = slices
        torch.testing.assert_close(layer(tokens, context), whole)


def test_slices_are_answered_one_after_the_other(monkeypatch):
    asked = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def record(q, k, v, **options):
        asked.append(q.shape[2])
        return fused(q, k, v, **options)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", record)
    layer = Attention(WIDTH, HEADS)
    layer.slices = 3
    layer(x())
    assert asked == [2, 2, 2]


def test_a_later_token_changes_nothing_before_it():
    layer, tokens = Attention(WIDTH, HEADS, causal=True), x()
    changed = tokens.clone()
    changed[:, 3] += 1
    before, after = layer(tokens), layer(changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.isclose(after[:, 3:], before[:, 3:]).any(-1).any()


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of heads; got 10 and 4"):
        Attention(10, 4)
