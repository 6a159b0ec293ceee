"""Which tilings of an attention kernel to try on a device: a pure function.

    tilings("forward", device, padded=128, item_bytes=2)

BLOCK is the rows that a program owns, STEP those that it walks over at a time. Few, the likeliest
first, since each is compiled (a second or two) and timed before the first use.

Not yet run on a GPU. Chosen by compiling for sm_75 to sm_120 and gfx90a to gfx1201 and reading what
a kernel takes: shared memory, registers, registers spilled. Shared memory of a program in KiB: 64
on sm_75, 163 on sm_80, 99 on sm_86, sm_89 and sm_120, 227 on sm_90 and sm_100 (CUDA C++ Programming
Guide, technical specifications); 64 on AMD's, 160 on gfx950 (LLVM, AMDGPU target).
"""

from __future__ import annotations

from backends.kernels import Device, Tiling

MOST = 3  # to be tried

# Tiles that a program owns, those that it adds up in, and those of scores: one per matrix product.
TILES = {"forward": (1, 1, 1), "query_gradients": (2, 1, 2), "key_gradients": (2, 2, 2)}

# Of a lane for the tiles that a program adds up in; with more, the compiled kernels spill. NVIDIA's
# have 255 in all, and sm_100 adds up in a memory of its own; CDNA's have 512, RDNA's 256, of which
# tiles of factors take more than elsewhere.
MOST_REGISTERS = {"scalar": 160, "nvidia": 160, "blackwell": 200, "cdna": 256, "rdna": 100}

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
NVIDIA_GRADIENTS = (
    (128, 64, 8, 2),
    (128, 32, 8, 2),
    (64, 64, 4, 2),
    (64, 64, 8, 2),
    (64, 32, 4, 2),
    (32, 32, 4, 1),
)
# sm_100 spills where the keys' gradients are pipelined.
BLACKWELL_GRADIENTS = (
    (128, 64, 8, 2),
    (128, 64, 8, 1),
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
CDNA_GRADIENTS = ((128, 32, 8, 1), (64, 64, 4, 1), (64, 32, 4, 1), (32, 32, 4, 1))
RDNA = ((128, 16, 8, 1), (64, 16, 4, 1), (64, 32, 8, 1), (32, 16, 4, 1))
RDNA_GRADIENTS = ((64, 16, 8, 1), (128, 16, 8, 1), (64, 16, 4, 1), (32, 16, 4, 1))

TABLES: dict[str, tuple[tuple[Shape, ...], tuple[Shape, ...]]] = {
    "scalar": (SCALAR, SCALAR),
    "nvidia": (NVIDIA, NVIDIA_GRADIENTS),
    "blackwell": (NVIDIA, BLACKWELL_GRADIENTS),
    "cdna": (CDNA, CDNA_GRADIENTS),
    "rdna": (RDNA, RDNA_GRADIENTS),
}


def tilings(kernel: str, device: Device, padded: int, item_bytes: int) -> tuple[Tiling, ...]:
    """For "forward", "query_gradients" or "key_gradients".

    `padded` is the width of a tile, a power of two; an item has 2 or 4 bytes. The smallest alone
    where nothing fits.
    """
    kind = _kind(device, item_bytes)
    owned, sums, scores = TILES[kernel]
    lanes = 64 if kind == "cdna" else 32

    def fits(shape: Shape) -> bool:
        block, step, warps, stages = shape
        # On AMD's only a tile on its way from one layout to another is in shared memory.
        rows = owned * block + 2 * stages * step if device.nvidia else block
        registers = block * (sums * padded + scores * step) // (warps * lanes)
        return (
            rows * padded * item_bytes <= device.shared_memory and registers <= MOST_REGISTERS[kind]
        )

    table = TABLES[kind][kernel != "forward"]
    fitting = [shape for shape in table if fits(shape)] or [table[-1]]
    return tuple(
        Tiling((("BLOCK", block), ("STEP", step)), warps, stages)
        for block, step, warps, stages in fitting[:MOST]
    )


def _kind(device: Device, item_bytes: int) -> str:
    """The key of TABLES. CDNA alone has matrix instructions for float32 proper."""
    if device.nvidia:
        if device.capability < 80 or item_bytes > 2:
            return "scalar"
        return "blackwell" if 100 <= device.capability < 120 else "nvidia"
    if not device.rdna:
        return "cdna"
    return "scalar" if item_bytes > 2 or device.architecture.startswith("gfx10") else "rdna"
