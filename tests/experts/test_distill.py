"""Losses are zero at the teacher, see valid positions only, and work in float32."""

import math

import pytest
import torch
import torch.nn.functional as F

from espnet_lora_experts.experts.distill import (
    STUDENT_INITS,
    cosine_loss_B,
    js_divergence,
    sequence_mean,
    student_factors,
)


@pytest.fixture
def states():
    """Teacher, student (B, T, D) and valid positions of 3 and 5."""
    torch.manual_seed(0)
    valid_BT = torch.arange(5) < torch.tensor([[3], [5]])
    return torch.randn(2, 5, 8), torch.randn(2, 5, 8), valid_BT


@pytest.fixture
def pairs():
    """Three experts' factors of rank 2, and a fresh student's of any rank."""
    torch.manual_seed(0)
    return [(torch.randn(2, 7), torch.randn(6, 2)) for _ in range(3)]


def fresh(r):
    return torch.randn(r, 7, generator=torch.Generator().manual_seed(r)), torch.zeros(
        6, r
    )


def test_student_that_is_the_teacher_has_no_loss(states):
    teacher, _, valid_BT = states
    assert torch.equal(cosine_loss_B(teacher, teacher, valid_BT), torch.zeros(2))
    assert torch.equal(js_divergence(teacher[0], teacher[0]), torch.zeros(5))


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_cosine_is_one_minus_cosine(states, scale):
    teacher, student, valid_BT = states
    loss_B = cosine_loss_B(teacher, scale * student, valid_BT)
    expected_BT = 1 - F.cosine_similarity(teacher, student, dim=-1)
    torch.testing.assert_close(loss_B[0], expected_BT[0, :3].mean())
    torch.testing.assert_close(loss_B[1], expected_BT[1].mean())


def test_js_is_the_mean_of_two_divergences(states):
    teacher_PK, student_PK = states[0][0], states[1][0]
    t, s = teacher_PK.softmax(-1), student_PK.softmax(-1)
    m = (t + s) / 2
    expected = (t * (t / m).log() + s * (s / m).log()).sum(-1) / 2
    torch.testing.assert_close(js_divergence(teacher_PK, student_PK), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_gradient_of_js_is_that_of_the_mean_of_two_divergences(states, scale):
    teacher_PK, student_PK = scale * states[0][0], states[1][0].requires_grad_()
    upstream_P = torch.arange(1.0, 6.0)
    log_t_PK, log_s_PK = (x.log_softmax(-1) for x in (teacher_PK, student_PK))
    log_m_PK = torch.logaddexp(log_t_PK, log_s_PK) - math.log(2)
    terms = [x.exp() * (x - log_m_PK) for x in (log_t_PK, log_s_PK)]
    expected = torch.autograd.grad(sum(terms).sum(-1) @ upstream_P / 2, student_PK)
    got = js_divergence(teacher_PK, student_PK) @ upstream_P
    torch.testing.assert_close(torch.autograd.grad(got, student_PK), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_js_is_symmetric_and_at_most_log_2(states, scale):
    teacher_PK, student_PK = scale * states[0].flatten(0, 1), states[1].flatten(0, 1)
    there, back = (
        js_divergence(teacher_PK, student_PK),
        js_divergence(student_PK, teacher_PK),
    )
    torch.testing.assert_close(there, back)
    assert (there > 0).all()
    assert (there <= math.log(2) + 1e-6).all()


def test_js_of_disjoint_certainties_is_log_2():
    sure = 1e3 * torch.eye(2)
    torch.testing.assert_close(
        js_divergence(sure, sure.flip(0)), torch.full((2,), math.log(2))
    )


@pytest.mark.parametrize("junk", [1e9, float("nan"), float("inf")])
def test_invalid_positions_do_not_count(states, junk):
    teacher, student, valid_BT = states
    expected = cosine_loss_B(teacher, student, valid_BT)
    student = student.masked_fill(~valid_BT[..., None], junk)
    assert torch.equal(cosine_loss_B(teacher, student, valid_BT), expected)


def test_mean_is_each_rows_own(states):
    value_BT, valid_BT = states[0][..., 0], states[2]
    means_B = sequence_mean(value_BT, valid_BT)
    torch.testing.assert_close(means_B[0], value_BT[0, :3].mean())
    torch.testing.assert_close(means_B[1], value_BT[1].mean())


def test_nothing_valid_is_zero(states):
    teacher, student, valid_BT = states
    nothing_BT = torch.zeros_like(valid_BT)
    zeros = torch.zeros(2)
    assert torch.equal(sequence_mean(teacher[..., 0], nothing_BT), zeros)
    assert torch.equal(cosine_loss_B(teacher, student, nothing_BT), zeros)


def test_half_precision_is_computed_in_float32(states):
    teacher, student = states[0].bfloat16(), states[1].bfloat16()
    full = teacher.float(), student.float()
    cosine_B = cosine_loss_B(teacher, student, states[2])
    assert torch.equal(cosine_B, cosine_loss_B(*full, states[2]))
    js_P = js_divergence(teacher[0], student[0])
    assert torch.equal(js_P, js_divergence(full[0][0], full[1][0]))
    assert cosine_B.dtype == js_P.dtype == torch.float32


@pytest.mark.parametrize("r", [6, 8])
def test_delta_svd_starts_at_the_mean_change(pairs, r):
    A_RD, B_OR = student_factors(pairs, fresh(r), "delta_svd")
    mean_OD = sum(B @ A for A, B in pairs) / 3
    assert (A_RD.shape, B_OR.shape) == ((r, 7), (6, r))
    torch.testing.assert_close(B_OR @ A_RD, mean_OD)


def test_factor_mean_fills_the_first_rows(pairs):
    A_fresh, _ = fresh(5)
    A_RD, B_OR = student_factors(pairs, fresh(5), "factor_mean")
    torch.testing.assert_close(A_RD[:2], sum(A for A, _ in pairs) / 3)
    torch.testing.assert_close(B_OR[:, :2], sum(B for _, B in pairs) / 3)
    assert torch.equal(A_RD[2:], A_fresh[2:])
    assert torch.equal(B_OR[:, 2:], torch.zeros(6, 3))


@pytest.mark.parametrize("how", STUDENT_INITS)
def test_student_without_experts_starts_fresh(how):
    A_RD, B_OR = student_factors([], fresh(4), how)
    assert torch.equal(A_RD, fresh(4)[0])
    assert torch.equal(B_OR, torch.zeros(6, 4))


def test_zero_starts_fresh_and_owns_its_factors(pairs):
    own = fresh(4)
    A_RD, B_OR = student_factors(pairs, own, "zero")
    assert torch.equal(A_RD, own[0])
    assert not B_OR.any()
    assert A_RD.data_ptr() != own[0].data_ptr()


@pytest.mark.parametrize(
    ("r", "how", "message"),
    [
        (4, "mean", r"student_init must be one of \('delta_svd'.* got 'mean'"),
        (1, "factor_mean", "student of rank 2 or more, got r=1"),
    ],
)
def test_impossible_starts_are_errors(pairs, r, how, message):
    with pytest.raises(ValueError, match=message):
        student_factors(pairs, fresh(r), how)
