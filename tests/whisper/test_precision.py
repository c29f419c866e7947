"""The type of the matrix products, by option and device."""

import pytest
import torch

from espnet_lora_experts.whisper import precision
from espnet_lora_experts.whisper.precision import autocast_context, autocast_type


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "name, dtype",
    [("none", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_a_named_type_is_taken(name, dtype, device):
    assert autocast_type(name, device) is dtype


@pytest.mark.parametrize(
    "device, has, dtype",
    [
        ("cpu", {"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ("cpu", {"amx_bf16": True}, torch.bfloat16),
        ("cpu", {"avx512_bf16": False, "avx2": True}, None),
        ("cuda", True, torch.bfloat16),
        ("cuda", False, None),
    ],
)
def test_auto_is_bfloat16_where_the_hardware_has_it(
    monkeypatch, request, device, has, dtype
):
    where, name = {
        "cpu": (torch.cpu, "get_capabilities"),
        "cuda": (torch.cuda, "is_bf16_supported"),
    }[device]
    monkeypatch.setattr(where, name, lambda **kwargs: has)
    precision._has_bfloat16.cache_clear()
    request.addfinalizer(precision._has_bfloat16.cache_clear)
    assert autocast_type("auto", device) is dtype


@pytest.mark.parametrize(
    "name, dtype", [("none", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_a_surrounding_type_stays_where_none_is_named(name, dtype):
    matrix = torch.ones(2, 2)
    with torch.autocast("cpu", torch.float16), autocast_context(name, "cpu"):
        assert (matrix @ matrix).dtype is dtype


def test_unknown_types_are_errors():
    with pytest.raises(ValueError, match="autocast must be of .*'auto'.*got 'int8'"):
        autocast_type("int8", "cpu")
    assert "none" in precision.AUTOCAST
