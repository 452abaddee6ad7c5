"""Data-parallel training under `torchrun`: every process draws its own batches, gradients are averaged."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from crossdiff_cli.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that train together; one alone without `torchrun`."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Which of the processes of this machine, and so which of its GPUs."""

    @property
    def first(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, alike in all processes, by its mean over them."""
        if self.count == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean; a parameter without one counts as zero."""
        if self.count == 1:
            return
        gradients = []
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            gradients.append(p.grad)
        self.average(gradients)


def world_size() -> int:
    """Return the number of processes that `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(kind: str) -> Iterator[Workers]:
    """Join the processes that `torchrun` started; alone without it.

    Args:
        kind: of the device that they train on: GPUs (`cuda`) talk by NCCL, others by Gloo.

    Raises:
        TrainingError: the processes do not find each other.
    """
    count = world_size()
    if count == 1:
        yield Workers()
        return
    try:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the {count} processes of torchrun do not find each other", found=str(error)) from error
    try:
        yield Workers(dist.get_rank(), count, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
