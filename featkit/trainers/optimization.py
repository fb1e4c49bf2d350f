"""Optimisers, and the learning rate of each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from featkit.trainers.schedules import half_cosine
from featkit.trainers.settings import Training

MOMENTUM = 0.9


def make_optimizer(
    parameters: Iterable[nn.Parameter], training: Training, momentum: float = MOMENTUM
) -> torch.optim.Optimizer:
    """Return the optimiser of parameters, without those that are frozen.

    Biases and what normalisations scale and shift by (parameters of one axis) have no weight decay,
    and no layer-wise rate with LARS. That of AdamW is decoupled from the gradient. Adam, AdamW and
    SGD run fused on CPUs and NVIDIA GPUs.

    Args:
        parameters: As a module gives them.
        training: Says which optimiser, and how it decays weights.
        momentum: Of SGD and LARS.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101 (AdamW); You, Gitman, Ginsburg 2017,
    arXiv:1708.03888 (LARS); Chen et al. 2020, arXiv:2002.05709, sec. 2.4, for what LARS leaves out.

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 3).parameters(), Training(weight_decay=0.5))
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.5, 0.0]
    """
    parameters = [p for p in parameters if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if (p.ndim > 1) == decays], "decays": decays}
        for decays in (True, False)
    ]
    for group in groups:
        group["weight_decay"] = training.weight_decay if group["decays"] else 0.0
    groups = [group for group in groups if group["params"]]
    is_fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    if training.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, training.lr, fused=is_fused)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, training.lr, momentum, fused=is_fused)
    from timm.optim.lars import Lars

    for group in groups:
        group["always_adapt"] = group["decays"]
    lars: torch.optim.Optimizer = Lars(groups, training.lr, momentum)
    return lars


def learning_rate(step: int, steps_per_epoch: int, training: Training) -> float:
    """Return the learning rate of a step: a line from 0, then half a cosine, or always the same.

    Args:
        step: Number of the step in the whole training, from 0.
        steps_per_epoch: Steps of each epoch.
        training: Says from where to where.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Example:
        >>> training = Training(epochs=4, warmup=2, lr=1.0)
        >>> [round(learning_rate(step, 1, training), 3) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    rising = min(training.warmup, training.epochs) * steps_per_epoch
    if step + 1 <= rising:
        return training.lr * (step + 1) / rising
    if training.schedule == "constant":
        return training.lr
    share = (step - rising) / (training.epochs * steps_per_epoch - rising)
    return half_cosine(max(share, 0.0), training.lr, training.final_lr)


def weight_decay(share: float, training: Training) -> float:
    """Return the weight decay after a share of the training: half a cosine, or always the same.

    Source: Caron et al. 2021, arXiv:2104.14294, appendix.

    Example:
        >>> weight_decay(0.5, Training(weight_decay=0.0, final_weight_decay=0.4))
        0.2
    """
    first, last = training.weight_decay, training.final_weight_decay
    if last is None:
        return first
    return half_cosine(share, first, last)


def clip_gradients(module: nn.Module, most: float) -> None:
    """Shorten the gradient of every tensor whose norm is above ``most``, each by its own."""
    for parameter in module.parameters():
        nn.utils.clip_grad_norm_(parameter, most)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield the state of an optimiser by name, ``NUMBER.KEY`` with the parameter's number."""
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            yield f"{number}.{key}", torch.as_tensor(value)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave.

    What has a parameter's shape gets its order in memory too: fused optimisers walk through both
    side by side.

    Raises:
        ValueError: A tensor is of no parameter, or has another shape.
    """
    content = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        if not 0 <= int(number) < len(parameters) or (
            tensor.numel() != 1 and tensor.shape != parameters[int(number)].shape
        ):
            raise ValueError(f"{name} is of no parameter")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})
    for parameter, own in optimizer.state.items():
        for key, tensor in own.items():
            if tensor.shape == parameter.shape:
                own[key] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
