"""How much memory the seed train.py takes: an upper estimate, by which the device batch is fitted.

    Sizes.from_constants(constants, vocab_size=8192, max_seq_len=2048).total_bytes(batch=128)

With C channels, K key/value channels, L blocks, V tokens of vocabulary and b bytes per value of the
compute dtype:

    weights, gradients, optimizer
        matrices (Muon, fp32: weight, gradient, momentum)            12 bytes each
        output head (AdamW, fp32: weight, gradient, two moments)     16 bytes each
        embeddings (weight and gradient in b, two fp32 moments)  2b + 8 bytes each
    activations of one token, kept for the backward pass
        b (L (21 C + 4 K) + 8 C): per block 5 C + 4 K around attention, 13 C in the MLP
        (4 C + 4 C + 4 C hidden, C normalised), 3 C in the residual stream
    a chunk of the loss
        16,384 rows at most of V fp32 logits, twice

Where several devices train one model each has all of the state and its share of a batch's rows.

The counts are read off train.py in eager mode and have not been checked against a GPU's peak.
Upstream's 45 GB at 128 rows of 2,048 tokens under torch.compile is below this estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOSS_CHUNK = 16_384


@dataclass(frozen=True)
class Sizes:
    """What memory depends on; batches in rows (device) and tokens (total)."""

    depth: int
    channels: int
    kv_channels: int
    vocab_size: int
    max_seq_len: int
    device_batch: int
    total_batch: int
    devices: int = 1

    @classmethod
    def from_constants(
        cls, constants: Mapping[str, Any], vocab_size: int, max_seq_len: int, devices: int = 1
    ) -> Sizes:
        """From train.py's constants, as its `configure` reads them."""
        heads = -(-constants["DEPTH"] * constants["ASPECT_RATIO"] // constants["HEAD_DIM"])
        channels = heads * constants["HEAD_DIM"]
        return cls(
            depth=constants["DEPTH"],
            channels=channels,
            kv_channels=channels // constants["HEADS_PER_KV_HEAD"],
            vocab_size=vocab_size,
            max_seq_len=max_seq_len,
            device_batch=constants["DEVICE_BATCH_SIZE"],
            total_batch=constants["TOTAL_BATCH_SIZE"],
            devices=devices,
        )

    def state_bytes(self, value_bytes: int = 2) -> int:
        """Weights, gradients and optimizer state."""
        C, K, L, V = self.channels, self.kv_channels, self.depth, self.vocab_size
        matrices = L * (2 * C * C + 2 * C * K + 8 * C * C)
        embeddings = V * C + (L + 1) // 2 * V * K
        return 12 * matrices + 16 * V * C + (2 * value_bytes + 8) * embeddings

    def token_bytes(self, value_bytes: int = 2) -> int:
        """Activations of one token."""
        C, K, L = self.channels, self.kv_channels, self.depth
        return value_bytes * (L * (21 * C + 4 * K) + 8 * C)

    def total_bytes(self, batch: int, value_bytes: int = 2) -> int:
        """All of it on each device while `batch` rows are trained on at a time."""
        tokens = -(-batch // self.devices) * self.max_seq_len
        loss = 2 * 4 * min(tokens, LOSS_CHUNK) * self.vocab_size
        return self.state_bytes(value_bytes) + tokens * self.token_bytes(value_bytes) + loss


def largest_batch(sizes: Sizes, free_bytes: int, value_bytes: int = 2) -> int:
    """The device batch, halved until it fits `free_bytes`; one row each even where not."""
    batch = sizes.device_batch
    while batch % (2 * sizes.devices) == 0 and sizes.total_bytes(batch, value_bytes) > free_bytes:
        batch //= 2
    return batch
