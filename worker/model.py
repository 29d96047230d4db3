"""What every process that computes with a task does first: choose a device, build the model, move batches there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from psserver.errors import ConfigurationError, TaskError
from worker.task import Task
from worker.usercode import UserCode


def pick_device(name: str, task: Task, local_rank: int = 0) -> torch.device:
    """Return the device to compute on.

    name:       "auto" (a GPU if there is one), "cpu", "cuda" (the one of this local rank) or "cuda:1".
                The task's own `device` decides where the name is "auto".
    local_rank: number of this worker on its host; workers beyond the number of GPUs share them in turn.
    """
    wanted = (task.device or "auto") if name == "auto" else name
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigurationError(f"device: expected auto, cpu, cuda or cuda:0, got {wanted!r}") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigurationError(f"device: {wanted!r} is not supported; choose auto, cpu or cuda")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ConfigurationError(f"device: {wanted!r} was asked for, but torch finds no GPU; use --device cpu")
    index = local_rank % count if device.index is None else device.index
    if index >= count:
        raise ConfigurationError(f"device: {wanted!r} was asked for, but there are only {count} GPUs")
    return torch.device("cuda", index)


def build_model(task: Task, seed: int, device: torch.device) -> nn.Module:
    """Build the task's model on `device` after `torch.manual_seed(seed)`: the same parameters everywhere."""
    if task.autocast is torch.float16:
        raise ConfigurationError(
            "autocast: float16 needs its losses scaled, which is not supported; use torch.bfloat16"
        )
    torch.manual_seed(seed)
    with UserCode("the task's model function"):
        model = task.model()
        if not isinstance(model, nn.Module):
            raise TaskError(f"the task's model function returned a {type(model).__name__}, expected a torch.nn.Module")
        return model.to(device)


def compile_forward(model: nn.Module) -> None:
    """Run the forward pass of `model` through `torch.compile`; the module itself stays the one it is."""
    forward = model.forward

    # `Module.compile` captures nothing, silently, where the outermost module is torch's own (`nn.Sequential`):
    # the compiler skips frames of torch's files. This frame is ours, and it inlines the rest.
    def traced(*inputs: Any, **named: Any) -> Any:
        return forward(*inputs, **named)

    model.forward = torch.compile(traced)


def autocast(task: Task, device: torch.device) -> torch.autocast:
    """Return the mixed-precision context in which the task's forward passes run."""
    return torch.autocast(device.type, dtype=task.autocast, enabled=task.autocast is not None)


def move_batch(batch: Any, device: torch.device, channels_last: bool) -> Any:
    """Return `batch`, any nest of tuples, lists and dicts, with its tensors on `device`.

    channels_last: also give tensors [images, channels, height, width] that memory format.
    """

    def move(tensor: Tensor) -> Tensor:
        if channels_last and tensor.dim() == 4:
            return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(device, non_blocking=True)

    return map_tensors(batch, move)


def map_tensors(nest: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return `nest`, any nest of tuples, lists and dicts, with `function` of each of its tensors in its place."""
    if isinstance(nest, Tensor):
        return function(nest)
    if isinstance(nest, dict):
        return {key: map_tensors(value, function) for key, value in nest.items()}
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(map_tensors(value, function) for value in nest))
    if isinstance(nest, list | tuple):
        return type(nest)(map_tensors(value, function) for value in nest)
    return nest


def count_examples(batch: Any) -> int:
    """Return the length of the first tensor in `batch` that has one; 1 if none has."""
    return _first_length(batch) or 1


def _first_length(batch: Any) -> int | None:
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return next((n for n in map(_first_length, batch) if n is not None), None)
    return None
