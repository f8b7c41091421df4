"""The grammar of conditions: joined, cut, moved and repeated, whatever their form."""

import pytest
import torch

from sdlib.diffusion.condition import join, move, repeat, take, tensors


def conditions(b):
    """One of each form, of `b` rows that count up."""
    tokens = torch.arange(b * 6.0).reshape(b, 3, 2)
    label = torch.arange(b)
    return [
        tokens,
        label,
        {"context": tokens, "label": label},
        {"context": tokens, "residuals": (tokens[:, :1], tokens + 1), "guidance_scale": label / 2},
    ]


def leaves(cond):
    if isinstance(cond, torch.Tensor):
        return [cond]
    values = [cond[key] for key in sorted(cond)] if isinstance(cond, dict) else cond
    return [leaf for value in values for leaf in leaves(value)]


FORMS = range(len(conditions(1)))


def same(a, b):
    assert type(a) is type(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_joined_can_be_taken_apart(form):
    first, second = conditions(4)[form], conditions(2)[form]
    both = join(first, second)
    same(take(both, slice(0, 4)), first)
    same(take(both, slice(4, 6)), second)
    same(take(first, torch.tensor([True, False, True, False])), take(first, slice(0, 4, 2)))
    same(take(first, torch.tensor([3, 0])), join(take(first, slice(3, 4)), take(first, slice(1))))


@pytest.mark.parametrize("form", FORMS)
def test_one_row_stands_for_all(form):
    one, many = conditions(1)[form], conditions(3)[form]
    for leaf, row in zip(leaves(repeat(one, 3)), leaves(one), strict=True):
        assert leaf.shape == (3, *row.shape[1:]) and torch.equal(leaf[2], row[0])
    same(repeat(many, 3), many)
    fitted = repeat(one, 3, like=many)
    assert [x.shape for x in leaves(fitted)] == [x.shape for x in leaves(many)]


def test_a_number_is_a_class_for_all():
    assert repeat(2, 3).tolist() == [2, 2, 2]
    assert repeat([0, 1, 2], 3).tolist() == [0, 1, 2]
    assert repeat(torch.tensor(1), 2, like=torch.tensor([4, 5])).tolist() == [1, 1]


def test_none_moves_as_none():
    assert move(None, torch.zeros(1)) is None and take(None, slice(1)) is None


def test_moving_casts_fractions_and_leaves_lone_numbers():
    like = torch.zeros(1, dtype=torch.float16, device="meta")
    cond = {"context": torch.ones(2, 3, 4), "label": torch.ones(2).long(), "residuals": ()}
    cond["guidance_scale"] = torch.tensor([7.5, 981.0])
    moved = move(cond, like)
    assert all(x.device.type == "meta" for x in leaves(moved))
    assert moved["context"].dtype == torch.float16 and moved["label"].dtype == torch.int64
    assert moved["guidance_scale"].dtype == torch.float32


def test_what_does_not_fit_is_said():
    text = torch.zeros(2, 5, 8)
    with pytest.raises(ValueError, match="cond is missing: guidance needs a condition"):
        repeat(None, 2)
    with pytest.raises(ValueError, match="one row, or one for each of 3 samples; got shape .2, 5"):
        repeat(text, 3)
    with pytest.raises(ValueError, match=r"uncond\['a'\] must have one row.*cond's, \(5, 8\)"):
        repeat({"a": text[:, :4]}, 2, {"a": text}, "uncond")
    for other in (text, {"b": text}, {"a": text, "b": text}):
        with pytest.raises(ValueError, match="the same keys of a dict"):
            repeat(other, 2, {"a": text})


def test_all_tensors_of_a_condition():
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    found = list(tensors({"residuals": (a, b), "context": c}))
    assert [len(x) for x in found] == [3, 1, 2] and list(tensors(a)) == [a]
    assert list(tensors(None)) == []


def test_a_key_under_which_nothing_stands_is_left_out():
    text = torch.zeros(1, 5, 8)
    cond = repeat({"context": text, "image": None, "residuals": ()}, 3)
    assert cond.keys() == {"context"} and cond["context"].shape == (3, 5, 8)
    assert repeat({"context": text}, 3, like={**cond, "image": None}).keys() == {"context"}
