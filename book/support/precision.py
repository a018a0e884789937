"""Forward passes in bfloat16, for training that is fast where a processor has it.

A network's weights, its gradients and its evaluation stay in float32.
"""

from types import MethodType

import torch
from torch import Tensor, nn


def bf16_is_fast(device: torch.device) -> bool:
    """Tell whether this is a processor with arithmetic units for bfloat16.

    False where PyTorch cannot tell, and on accelerators, where float32 is fast enough
    for the networks of this book.
    """
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    units = torch.cpu.get_capabilities()
    return any(units.get(unit) for unit in ("amx_bf16", "avx512_bf16", "bf16"))


def train_in_bf16(model: nn.Module) -> None:
    """Let `model` compute in bfloat16 wherever that is safe, while it is trained.

    Changes how the model is called, not what it is: its outputs are float32 as before,
    and in evaluation mode nothing changes.
    """
    model.forward = MethodType(_in_bf16, model)  # a copy of the model has its own


def _in_bf16(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=model.training):
        return type(model).forward(model, x).float()
