"""Which tilings of an attention kernel to try on a device: a pure function.

    tilings("forward", device, padded=128, item_bytes=2)

BLOCK is the rows that a program owns, STEP those that it walks over at a time. Few, the likeliest
first, since each is compiled (a second or two) and timed before the first use.

Not yet run on a GPU. Chosen by compiling with Triton 3.7.1 for sm_75 to sm_120 and gfx90a to
gfx1201 and reading what a kernel takes: shared memory, registers, what it spills. In bfloat16 the
first choices spill under 100 bytes a lane from sm_80 on and nothing on AMD's, except that at width
128 the gradients spill 26 and 134 registers on gfx1100. Shared memory of a program in KiB: 64 on
sm_75, 163 on sm_80, 99 on sm_86, sm_89 and sm_120, 227 on sm_90 and sm_100 (CUDA C++ Programming
Guide, technical specifications); 64 on AMD's, 160 on gfx950 (LLVM, AMDGPU target).
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.kernels import Device, Tiling

MOST = 3  # to be tried

# Tiles that a program owns, those that it adds up in, and those of scores: one per matrix product.
TILES = {"forward": (1, 1, 1), "query_gradients": (2, 1, 2), "key_gradients": (2, 2, 2)}

Shape = tuple[int, int, int, int]  # BLOCK, STEP, warps, stages

# Four warps share a matrix instruction from sm_90 on.
NVIDIA = (
    (128, 64, 8, 3),
    (128, 64, 4, 3),
    (128, 64, 8, 2),
    (64, 64, 4, 3),
    (64, 64, 4, 2),
    (64, 32, 4, 2),
    (32, 32, 4, 1),
)
# With 128 rows of width 128 the keys' gradients spill thousands of bytes on sm_80 and sm_120, and
# none on sm_90, whose matrix instructions read shared memory; on sm_100 they do if pipelined.
NVIDIA_GRADIENTS = (
    (128, 64, 8, 2),
    (64, 64, 8, 2),
    (64, 64, 4, 2),
    (64, 32, 4, 2),
    (128, 32, 8, 2),
    (32, 32, 4, 1),
)
HOPPER_GRADIENTS = (
    (128, 64, 8, 2),
    (128, 32, 8, 2),
    (64, 64, 4, 2),
    (64, 64, 8, 2),
    (64, 32, 4, 2),
    (32, 32, 4, 1),
)
BLACKWELL_GRADIENTS = (
    (128, 64, 8, 1),
    (128, 64, 8, 2),
    (64, 64, 4, 1),
    (64, 32, 4, 2),
    (32, 32, 4, 1),
)
# Where Triton multiplies without matrix instructions: slow, and slow to compile, to be measured all
# the same. Larger tiles took the compiler a minute each.
SCALAR = ((32, 32, 4, 1),)
# AMD's own Triton kernels for attention load in one stage (ROCm/aiter). Each of a program's waves
# holds all of a step's tiles in registers: RDNA spills steps longer than these.
CDNA = ((128, 64, 4, 1), (128, 64, 8, 1), (64, 64, 4, 1), (64, 32, 4, 1))
CDNA_GRADIENTS = ((64, 64, 4, 1), (128, 32, 8, 1), (64, 32, 4, 1), (32, 32, 4, 1))
RDNA = ((128, 16, 8, 1), (64, 16, 4, 1), (64, 32, 8, 1), (32, 16, 4, 1))
RDNA_GRADIENTS = ((64, 16, 8, 1), (128, 16, 8, 1), (64, 16, 4, 1), (32, 16, 4, 1))


@dataclass(frozen=True)
class Kind:
    """Devices that are given the same tilings to choose from."""

    registers: int  # of a lane, for the tiles that a program adds up in: with more it spills
    forward: tuple[Shape, ...]
    gradients: tuple[Shape, ...]


# A lane has 255 registers on NVIDIA's, and sm_100 adds up in a memory of its own; 512 on CDNA; 256
# on RDNA, where tiles of factors take more of them than elsewhere.
KINDS = {
    "scalar": Kind(160, SCALAR, SCALAR),
    "nvidia": Kind(160, NVIDIA, NVIDIA_GRADIENTS),
    "hopper": Kind(160, NVIDIA, HOPPER_GRADIENTS),
    "blackwell": Kind(200, NVIDIA, BLACKWELL_GRADIENTS),
    "cdna": Kind(256, CDNA, CDNA_GRADIENTS),
    "rdna": Kind(100, RDNA, RDNA_GRADIENTS),
}
GENERATIONS = {9: "hopper", 10: "blackwell", 11: "blackwell"}  # by major capability


def tilings(kernel: str, device: Device, padded: int, item_bytes: int) -> tuple[Tiling, ...]:
    """For "forward", "query_gradients" or "key_gradients".

    `padded` is the width of a tile, a power of two; an item has 2 or 4 bytes. The smallest alone
    where nothing fits.
    """
    name = _kind(device, item_bytes)
    kind = KINDS[name]
    owned, sums, scores = TILES[kernel]
    lanes = 64 if name == "cdna" else 32

    def fits(shape: Shape) -> bool:
        block, step, warps, stages = shape
        # On AMD's only a tile on its way from one layout to another is in shared memory.
        rows = owned * block + 2 * stages * step if device.nvidia else block
        registers = block * (sums * padded + scores * step) // (warps * lanes)
        return rows * padded * item_bytes <= device.shared_memory and registers <= kind.registers

    table = kind.forward if kernel == "forward" else kind.gradients
    fitting = [shape for shape in table if fits(shape)] or [table[-1]]
    return tuple(
        Tiling((("BLOCK", block), ("STEP", step)), warps, stages)
        for block, step, warps, stages in fitting[:MOST]
    )


def _kind(device: Device, item_bytes: int) -> str:
    """The key of KINDS. CDNA alone has matrix instructions for float32 proper."""
    if device.nvidia:
        if device.capability < 80 or item_bytes > 2:
            return "scalar"
        return GENERATIONS.get(device.capability // 10, "nvidia")
    if not device.rdna:
        return "cdna"
    return "scalar" if item_bytes > 2 or device.architecture.startswith("gfx10") else "rdna"
