"""Peak memory on Metal through torch, which keeps none."""

from __future__ import annotations

import torch


class MpsPeak:
    """Highest sample of the Metal driver's allocation, in bytes."""

    def __init__(self) -> None:
        self.highest = 0

    def sample(self) -> int:
        self.highest = max(self.highest, torch.mps.driver_allocated_memory())
        return self.highest

    def reset(self) -> None:
        self.highest = 0
