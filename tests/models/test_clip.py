"""CLIP's text encoder: what a token sees, what is pooled, and what is refused."""

import pytest
import torch

from sdlib.models import CLIPTextConfig, CLIPTextEncoder

END = 99


def net(**changes):
    return CLIPTextEncoder(CLIPTextConfig.tiny(vocabulary=100, end=END, layers=3, **changes)).eval()


def ids(*texts):
    """Token ids of texts, padded with their end."""
    return torch.tensor([[98, *text, *[END] * (9 - len(text))] for text in texts])


TEXTS = ids([5, 6, 7], [8], [])


@pytest.mark.parametrize("preset, count", [("sd15", 123_060_480), ("sd2", 340_387_840)])
def test_presets_have_the_parameters_of_the_published_models(preset, count):
    with torch.device("meta"):
        encoder = CLIPTextEncoder(getattr(CLIPTextConfig, preset)())
    assert sum(p.numel() for p in encoder.parameters()) == count


def test_shapes():
    out = net()(TEXTS)
    assert out.tokens.shape == (3, 10, 32) and out.pooled.shape == (3, 32)
    assert net(projection=24)(TEXTS).pooled.shape == (3, 24)


def test_a_later_token_changes_nothing_before_it():
    encoder, changed = net(), TEXTS.clone()
    changed[0, 3] = 50
    before, after = encoder(TEXTS).tokens, encoder(changed).tokens
    torch.testing.assert_close(after[0, :3], before[0, :3])
    assert not torch.isclose(after[0, 3:], before[0, 3:]).all(-1).any()


def test_the_whole_text_is_told_by_its_first_end():
    encoder = net()
    out = encoder(TEXTS)
    for i, end in enumerate([4, 2, 1]):
        assert torch.equal(out.pooled[i], out.tokens[i, end])


def test_a_projection_stands_behind_what_is_pooled():
    encoder = net(projection=24)
    out = encoder(TEXTS)
    torch.testing.assert_close(out.pooled[0], encoder.projection.weight @ out.tokens[0, 4])


def test_order_matters():
    encoder = net()
    out = encoder(ids([5, 6], [6, 5])).pooled
    assert not torch.allclose(out[0], out[1])


def test_the_norm_can_be_left_out_and_layers_skipped():
    encoder = net()
    whole = encoder(TEXTS)
    bare = encoder(TEXTS, norm=False)
    torch.testing.assert_close(encoder.norm(bare.tokens), whole.tokens)
    torch.testing.assert_close(bare.pooled, whole.pooled)
    earlier = encoder(TEXTS, skip=1, norm=False).tokens
    torch.testing.assert_close(encoder.layers[-1](earlier), bare.tokens)


def test_activations():
    x = torch.linspace(-4, 4, 9)
    quick, exact = net().layers[0].activation, net(activation="gelu").layers[0].activation
    torch.testing.assert_close(quick(x), x / (1 + torch.exp(-1.702 * x)))
    torch.testing.assert_close(exact(x), x / 2 * (1 + torch.erf(x / 2**0.5)))


@pytest.mark.parametrize("dtype, limit", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@torch.no_grad()
def test_half_precision(dtype, limit):
    encoder = net()
    right = encoder(TEXTS).tokens
    half = encoder.to(dtype)(TEXTS).tokens
    assert half.dtype == dtype
    assert (half.float() - right).norm() < limit * right.norm()


def test_gradients_reach_every_parameter():
    encoder = net(projection=24)
    out = encoder(TEXTS)
    # the bias of a key adds the same to all scores of a query, and so to none
    (out.tokens[:, :, 0].square().sum() + out.pooled[:, 0].square().sum()).backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in silent if not n.endswith(".k.bias")] == []


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.zeros(1, 78, dtype=torch.long), r"n from 1 to 77; got \(1, 78\)"),
        (torch.zeros(1, 0, dtype=torch.long), r"n from 1 to 77; got \(1, 0\)"),
        (torch.zeros(5, dtype=torch.long), r"must be \[b, n\]"),
    ],
)
def test_ids_that_do_not_fit(bad, message):
    with pytest.raises(ValueError, match=message):
        net()(bad)


@pytest.mark.parametrize("bad, range", [([[3, 100]], "3 to 100"), ([[-1, 3]], "-1 to 3")])
def test_ids_beyond_the_vocabulary(bad, range):
    with pytest.raises(ValueError, match=f"between 0 and 99.*got {range}"):
        net().check_ids(torch.tensor(bad))


def test_what_else_is_refused():
    for skip in (-1, 3):
        with pytest.raises(ValueError, match=f"between 0 and 2; got {skip}"):
            net()(TEXTS, skip=skip)
    with pytest.raises(ValueError, match="unknown activation 'relu'; choose one of: gelu, quick"):
        net(activation="relu")


def test_it_can_be_exported():
    text = net().requires_grad_(False)
    exported = torch.export.export(text, (TEXTS,))
    torch.testing.assert_close(exported.module()(TEXTS).tokens, text(TEXTS).tokens)
