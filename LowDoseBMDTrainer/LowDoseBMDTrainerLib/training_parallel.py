"""The processes that train one network together: one, or several that torchrun has started, on CPUs or GPUs."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed

PATIENCE = timedelta(hours=3)
"""Processes wait so long for the first one, which prepares hundreds of cases or validates."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. device: as torch names it."""

    device: str
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """The process that writes."""
        return self.rank == 0

    @property
    def kind(self) -> str:
        """cpu or cuda."""
        return torch.device(self.device).type

    def streams(self, count: int) -> tuple[int, ...]:
        """The streams of samples that this process draws. Raises ValueError when they cannot be shared evenly."""
        if count % self.world:
            raise ValueError(f"the run has {count} streams of samples, which {self.world} processes cannot share evenly; "
                             f"start it with a number of processes that divides {count}")
        return tuple(range(self.rank, count, self.world))

    def wrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network whose gradients are averaged over all processes."""
        if self.world == 1:
            return network
        # 1 x 1 x 1 convolutions have strides of both memory formats, of which torch names one and finds the other
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        devices = [torch.device(self.device)] if self.kind == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def any(self, flag: bool) -> bool:
        """True when it is true in some process, so that all do the same."""
        return self._reduced(float(flag), distributed.ReduceOp.MAX) > 0 if self.world > 1 else flag

    def mean(self, value: float) -> float:
        """Mean over the processes."""
        return self._reduced(value, distributed.ReduceOp.SUM) / self.world if self.world > 1 else value

    def _reduced(self, value: float, operation: Any) -> float:
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, operation)
        return float(tensor)

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the ``with`` block before the others begin with it."""
        if self.world > 1 and not self.first:
            distributed.barrier()
        yield
        if self.world > 1 and self.first:
            distributed.barrier()

    def told(self, value: Any) -> Any:
        """What the first process says, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=torch.device(self.device))
        return box[0]


@contextlib.contextmanager
def join(device: str = "auto") -> Iterator[Ranks]:
    """The processes that torchrun has started (environment variables WORLD_SIZE, RANK, LOCAL_RANK), or this one alone.

    device: auto, cpu or cuda. Raises ValueError when there is no such device.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise ValueError("device 'cuda': no CUDA build of torch with a GPU is here; use --device cpu")
    name = "cpu" if device == "cpu" or not cuda else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(name)
        return
    if name != "cpu":
        torch.cuda.set_device(name)
    distributed.init_process_group("gloo" if name == "cpu" else "nccl", timeout=PATIENCE)
    try:
        yield Ranks(name, distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def precision_of(device: str) -> str:
    """bf16 where the device multiplies it in hardware, else fp32: emulated bf16 is slower than fp32."""
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    can = torch.cpu.get_capabilities()
    return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") or can.get("arm_bf16") else "fp32"
