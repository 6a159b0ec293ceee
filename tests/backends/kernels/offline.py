"""Compiles a kernel for a GPU that isn't here: Triton brings its assemblers along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.kernels import Device, Tiling


def shared_memory(
    kernel: Any,
    device: Device,
    tiling: Tiling,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
) -> int:
    """Bytes that a program of the compiled kernel takes.

    `types` are Triton's names ("*bf16", "i32") of the arguments that aren't `constants`; pointers
    are taken for aligned, as torch's are. Raises what the compiler raises.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {**constants, **dict(tiling.sizes)}
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else types[name] for name in names},
        {(place,): constants[name] for place, name in enumerate(names) if name in constants},
        {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if types.get(name, "").startswith("*")
        },
    )
    if device.nvidia:
        target = GPUTarget("cuda", device.capability, 32)
    else:
        target = GPUTarget("hip", device.architecture, 32 if device.rdna else 64)
    options = {"num_warps": tiling.warps, "num_stages": tiling.stages}
    return int(triton.compile(source, target=target, options=options).metadata.shared)
