"""CLIP's image encoder, and both towers: what they see, what they share, and what is refused."""

import math

import pytest
import torch

from sdlib.models import CLIP, CLIPConfig, CLIPImageConfig, CLIPImageEncoder, CLIPTextConfig


def net(**changes):
    torch.manual_seed(0)
    return CLIPImageEncoder(CLIPImageConfig.tiny(**changes)).eval()


def clip():
    torch.manual_seed(0)
    text = CLIPTextConfig.tiny(vocabulary=100, end=99, projection=24)
    return CLIP(CLIPConfig(text, CLIPImageConfig.tiny())).eval()


def pixels(n=2, size=16):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


IDS = torch.tensor([[98, 5, 6, 99, 99], [98, 8, 99, 99, 99]])


def test_vit_l_14_has_the_parameters_of_the_published_model():
    with torch.device("meta"):
        whole = CLIP(CLIPConfig.vit_l_14())
    count = {n: sum(p.numel() for p in part.parameters()) for n, part in whole.named_children()}
    assert count == {"text": 123_060_480 + 768**2, "image": 303_966_208}


def test_shapes():
    out = net()(pixels())
    assert out.tokens.shape == (2, 17, 32) and out.pooled.shape == (2, 24)
    assert net(patch=8)(pixels()).tokens.shape == (2, 5, 32)


def test_every_patch_sees_every_other():
    encoder, changed = net(), pixels()
    changed[0, :, -1, -1] += 1  # in the last patch
    before, after = encoder(pixels()).tokens, encoder(changed).tokens
    assert not torch.isclose(after[0], before[0]).all(-1).any()
    assert torch.equal(after[1], before[1])


def test_where_a_patch_stands_matters():
    moved = pixels().roll(4, dims=3)
    assert not torch.allclose(net()(moved).pooled, net()(pixels()).pooled)


def test_the_class_token_tells_the_whole_picture():
    encoder = net()
    out = encoder(pixels())
    right = encoder.projection.weight @ encoder.norm_out(out.tokens[0, 0])
    torch.testing.assert_close(out.pooled[0], right)


def test_both_towers_give_unit_vectors():
    image, text = clip()(pixels(), IDS)
    assert image.shape == text.shape == (2, 24)
    for x in (image, text):
        torch.testing.assert_close(x.norm(dim=1), torch.ones(2))


def test_loss_by_hand():
    model, x = clip(), torch.eye(3)
    away = math.exp(-1 / 0.07)  # where a pair is alike, and all others are at a right angle
    assert model.loss(x, x).item() == pytest.approx(math.log1p(2 * away), abs=1e-6)
    right = math.log(1 + 2 * away) + 1 / 0.07  # each is told from its pair, and like another
    assert model.loss(x, x.roll(1, 0)).item() == pytest.approx(right, rel=1e-5)


def test_both_ways_count():
    """Two pictures alike: each has its text, but a text cannot tell its picture."""
    model = clip()
    image, text = torch.tensor([[1.0, 0], [1.0, 0]]), torch.tensor([[1.0, 0], [0, 1.0]])
    logits = model.logits(image, text)
    ways = [torch.nn.functional.cross_entropy(x, torch.arange(2)) for x in (logits, logits.T)]
    assert abs(ways[0] - ways[1]) > 1
    torch.testing.assert_close(model.loss(image, text), sum(ways) / 2)


def test_the_scale_never_exceeds_a_hundred():
    model = clip()
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    model.logit_scale.data.fill_(10.0)
    model.loss(torch.eye(3), torch.eye(3))
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_gradients_reach_every_parameter():
    model = clip()
    model.loss(*model(pixels(), IDS)).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # the bias of a key adds the same to all scores of a query, and so to none
    assert [n for n in silent if not n.endswith(".k.bias")] == []


def test_what_is_refused():
    with pytest.raises(ValueError, match="size must be a multiple of patch; got 16 and 5"):
        net(patch=5)
    with pytest.raises(ValueError, match="unknown activation 'relu'"):
        net(activation="relu")
    with pytest.raises(ValueError, match="got 0 for texts and 24 for pictures"):
        CLIPConfig(CLIPTextConfig.tiny(), CLIPImageConfig.tiny())
    for bad in (pixels(size=20), pixels()[0], pixels()[:, :1]):
        with pytest.raises(ValueError, match=r"pixels must be \[b, 3, 16, 16\]"):
            net()(bad)


def test_it_can_be_exported():
    model = clip().requires_grad_(False)
    exported = torch.export.export(model, (pixels(), IDS)).module()
    for ours, right in zip(exported(pixels(), IDS), model(pixels(), IDS), strict=True):
        torch.testing.assert_close(ours, right)
