"""How to train on a piece of hardware, and why: a pure function.

    policy = choose_policy(hardware, measured)
    policy.compute_dtype, policy.reasons["compute_dtype"]
    # "bfloat16", "tensor cores multiply bfloat16 at full rate"

What depends on speed is not guessed: `questions` lists what has to be measured on this hardware,
`backends.speed` measures it, and `choose_policy` reads the figures.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from backends.errors import UnknownOverride
from backends.hardware import Hardware

DTYPES = ("float32", "bfloat16", "float16")
ATTENTION = ("fa3", "flash", "flex", "triton", "block_local", "dense", "sdpa")
LOSS = ("chunked", "triton")
GRAM = ("matmul", "triton")
LINEAR = ("plain", "fp8")
# What AUTORESEARCH_COMPILE may say, and torch.compile's mode for it. CUDA graphs are left out: they
# reuse the memory of losses and gradients, which train.py holds from one pass to the next.
COMPILE = {"0": "", "1": "default", "max-autotune": "max-autotune-no-cudagraphs"}
# What runs anywhere.
PLAINEST = {"dtype": "float32", "compile": "eager", "loss": "chunked", "gram": "matmul"}
WINS_BY = 1.03  # a first choice gives way only to what is 3% faster: less is noise


@dataclass(frozen=True)
class Overrides:
    """What somebody asked for, and through what; None where nobody did."""

    dtype: str | None = None
    compile: str | None = None  # one of COMPILE
    attention: str | None = None
    loss: str | None = None
    gram: str | None = None
    linear: str | None = None
    source: str = "AUTORESEARCH_{}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Overrides:
        """AUTORESEARCH_DTYPE, _COMPILE, _ATTENTION, _LOSS, _GRAM, _LINEAR; empty is unset.

        Raises UnknownOverride.
        """
        environ = os.environ if environ is None else environ
        return cls(
            dtype=_one_of(environ, "AUTORESEARCH_DTYPE", DTYPES),
            compile=_one_of(environ, "AUTORESEARCH_COMPILE", tuple(COMPILE)),
            attention=_one_of(environ, "AUTORESEARCH_ATTENTION", ATTENTION),
            loss=_one_of(environ, "AUTORESEARCH_LOSS", LOSS),
            gram=_one_of(environ, "AUTORESEARCH_GRAM", GRAM),
            linear=_one_of(environ, "AUTORESEARCH_LINEAR", LINEAR),
        )

    @property
    def compiles(self) -> bool | None:
        """Whether compilation was asked for, in whichever mode."""
        return None if self.compile is None else bool(COMPILE[self.compile])

    def why(self, item: str) -> str:
        """The reason of an item that was asked for."""
        return f"asked for by {self.source.format(item.upper())}"


def _one_of(environ: Mapping[str, str], name: str, known: tuple[str, ...]) -> str | None:
    """The value of a variable, which must be known; None if it is unset, empty or auto."""
    value = environ.get(name, "").strip()
    if value in ("", "auto"):
        return None
    if value not in known:
        raise UnknownOverride(name, value, known)
    return value


@dataclass(frozen=True)
class Question:
    """Something that only the hardware can answer: which of these variants is fastest."""

    item: str  # "dtype", "compile", "attention", "loss" or "gram"
    variants: tuple[str, ...]  # the first choice first


@dataclass(frozen=True)
class Figure:
    """What one variant did when it was run, forward and backward."""

    item: str
    variant: str
    seconds: float | None  # of one pass; None if it failed
    failure: str = ""


@dataclass(frozen=True)
class Policy:
    """How to train. `reasons` has one entry per field name that was decided."""

    compute_dtype: str  # one of DTYPES
    attention: str  # the implementation for windows
    attention_order: tuple[str, ...]  # what comes into question, the first choice first
    compile: bool
    compile_mode: str  # one of COMPILE's values: torch.compile's, "" without compilation
    loss_scaling: bool
    master_dtype: str = "float32"
    loss: str = "chunked"  # one of LOSS: the soft-capped cross-entropy
    gram: str = "matmul"  # one of GRAM: a matrix times its own transpose
    linear: str = "plain"  # one of LINEAR: the blocks' matrix products while training
    environment: Mapping[str, str] = field(
        default_factory=dict
    )  # to be set before the framework loads
    reasons: Mapping[str, str] = field(default_factory=dict)
    probe_shape: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for records."""
        return {
            **asdict(self),
            "attention_order": list(self.attention_order),
            "environment": dict(self.environment),
            "reasons": dict(self.reasons),
            "probe_shape": dict(self.probe_shape),
        }


def choose_policy(
    hardware: Hardware,
    measured: Iterable[Figure] | None = None,
    overrides: Overrides | None = None,
) -> Policy:
    """The policy for this hardware. Without figures, an open question gets its first choice."""
    figures = tuple(measured or ())
    overrides = overrides or Overrides()
    order, order_reason = _runnable(*attention_order(hardware), figures)
    dtype, dtype_reason = _decide(hardware, "dtype", figures, overrides, overrides.dtype)
    compile_, compile_reason = _decide(
        hardware,
        "compile",
        figures,
        overrides,
        {None: None, True: "compiled", False: "eager"}[overrides.compiles],
    )
    attention, attention_reason = _decide(
        hardware, "attention", figures, overrides, overrides.attention
    )
    loss, loss_reason = _decide(hardware, "loss", figures, overrides, overrides.loss)
    gram, gram_reason = _decide(hardware, "gram", figures, overrides, overrides.gram)
    # Never by speed alone: FP8 changes what is computed, so it is somebody's experiment.
    linear_reason = (
        overrides.why("linear")
        if overrides.linear
        else "FP8 rounds to 2 or 3 bits of mantissa: AUTORESEARCH_LINEAR=fp8 asks for it"
    )
    environment, environment_reason = launch_environment(hardware)
    compiled = compile_ == "compiled"
    scaling = dtype == "float16"
    return Policy(
        compute_dtype=dtype,
        attention=attention,
        attention_order=order,
        compile=compiled,
        compile_mode=COMPILE[overrides.compile or ("1" if compiled else "0")],
        loss_scaling=scaling,
        loss=loss,
        gram=gram,
        linear=overrides.linear or "plain",
        environment=environment,
        probe_shape=probe_shape(hardware),
        reasons={
            "compute_dtype": dtype_reason,
            "attention": attention_reason,
            "attention_order": order_reason,
            "compile": compile_reason,
            "loss_scaling": "float16 gradients underflow below 6e-8"
            if scaling
            else f"{dtype} has float32's range of exponents",
            "master_dtype": "updates smaller than bfloat16's 3 digits must not be lost",
            "loss": loss_reason,
            "gram": gram_reason,
            "linear": linear_reason,
            "environment": environment_reason,
        },
    )


def _runnable(
    order: tuple[str, ...], reason: str, figures: tuple[Figure, ...]
) -> tuple[tuple[str, ...], str]:
    """The order without what failed when it was launched, and the reasons of that."""
    failed = {f.variant: f.failure for f in figures if f.item == "attention" and f.seconds is None}
    left = tuple(name for name in order if name not in failed)
    reasons = (reason, *(f"{name} failed: {why}" for name, why in failed.items()))
    return left or order[-1:], "; ".join(reasons)


def questions(hardware: Hardware, overrides: Overrides | None = None) -> tuple[Question, ...]:
    """What has to be measured here: open items that nobody has asked for in particular."""
    overrides = overrides or Overrides()
    asked = {
        "dtype": overrides.dtype,
        "compile": overrides.compile,
        "attention": overrides.attention,
        "loss": overrides.loss,
        "gram": overrides.gram,
    }
    options = ((item, _options(hardware, item)[0]) for item in asked if asked[item] is None)
    return tuple(Question(item, variants) for item, variants in options if len(variants) > 1)


def _decide(
    hardware: Hardware,
    item: str,
    figures: tuple[Figure, ...],
    overrides: Overrides,
    asked: str | None,
) -> tuple[str, str]:
    """The variant for one item, and its reason."""
    if asked is not None:
        return asked, overrides.why(item)
    variants, rule = _options(hardware, item)
    if len(variants) == 1:
        return variants[0], rule
    mine = {figure.variant: figure for figure in figures if figure.item == item}
    if not mine:
        return variants[0], f"{rule}; not measured"
    return fastest(item, variants, mine)


def fastest(item: str, variants: tuple[str, ...], figures: Mapping[str, Figure]) -> tuple[str, str]:
    """The quickest variant that runs, an earlier one unless beaten by WINS_BY, and the figures.

    Where all failed, the plainest is taken, and the reason says what happened.
    """
    times = {v: f.seconds for v in variants if (f := figures.get(v)) and f.seconds is not None}
    failed = [f"{v} failed: {f.failure}" for v, f in figures.items() if f.seconds is None]
    if not times:
        return PLAINEST.get(item, variants[-1]), "; ".join(("nothing could be measured", *failed))
    best = next(iter(times))
    for variant, seconds in times.items():
        if times[best] > WINS_BY * seconds:
            best = variant
    shown = ", ".join(f"{variant} {1000 * seconds:.3g} ms" for variant, seconds in times.items())
    return best, "; ".join((f"measured forward and backward: {shown}", *failed))


def _options(hardware: Hardware, item: str) -> tuple[tuple[str, ...], str]:
    """What comes into question for an item, the first choice first, and why."""
    if item == "dtype":
        return dtype_options(hardware)
    if item == "compile":
        return compile_options(hardware)
    if item == "attention":
        return attention_order(hardware)
    return kernel_options(hardware, PLAINEST[item])


def dtype_options(hardware: Hardware) -> tuple[tuple[str, ...], str]:
    """Compute types in question. One means that it doesn't depend on speed."""
    backend, has = hardware.backend, hardware.has
    if backend in ("cuda", "rocm") and has("bf16"):
        return ("bfloat16",), "matrix instructions multiply bfloat16 at full rate"
    if backend in ("cuda", "rocm") and has("fp16"):
        return (
            "float16",
            "float32",
        ), f"{hardware.architecture} multiplies float16 fast, but not bfloat16"
    if backend in ("cuda", "rocm"):
        return ("float32",), f"{hardware.architecture} has no matrix instructions for smaller types"
    if backend in ("xpu", "mps"):
        return ("bfloat16", "float32"), "not every GPU of this kind is faster in bfloat16"
    if backend == "mlx":
        if has("host"):
            return ("float32",), "MLX has no fast bfloat16 products on processors"
        return ("bfloat16", "float32"), "halves the memory traffic"
    fast = [flag for flag in hardware.features if flag.endswith("_bf16")]
    if fast:
        return ("float32", "bfloat16"), f"the processor has {', '.join(fast)}, whose speed differs"
    return ("float32",), "the processor has no bfloat16 instructions"


def compile_options(hardware: Hardware) -> tuple[tuple[str, ...], str]:
    """Whether to compile: "compiled", "eager", or both where it depends on speed."""
    backend, has = hardware.backend, hardware.has
    if backend == "mlx":
        return ("compiled",), "mx.compile fuses elementwise work and needs no compiler"
    if backend == "mps":
        return ("eager",), "torch's compiler for Metal is a prototype"
    if backend == "cpu":
        if not has("cxx_compiler"):
            return (
                "eager",
            ), f"no C++ compiler found ({_INSTALL_COMPILER.get(hardware.os, 'install one')})"
        return ("eager", "compiled"), "depends on what fusion saves on this processor"
    if not has("triton"):
        windows = ": pip install triton-windows" if hardware.os == "Windows" else ""
        return ("eager",), f"Triton is not installed{windows}"
    if backend == "cuda" and int(hardware.architecture.removeprefix("sm_")) < 70:
        return ("eager",), f"Triton needs sm_70 or later, this is {hardware.architecture}"
    if hardware.os == "Linux" and not has("c_compiler"):
        return ("eager",), f"Triton finds no C compiler ({_INSTALL_COMPILER['Linux']})"
    if hardware.os == "Linux" and not has("python_headers"):
        return ("eager",), "Triton finds no Python.h (install python3-dev)"
    if backend == "xpu":
        return ("compiled", "eager"), "Triton is there; what it gains is measured"
    return ("compiled",), "Triton fuses everything between matrix products"


_INSTALL_COMPILER = {
    "Linux": "install gcc and g++",
    "Darwin": "xcode-select --install",
    "Windows": "install the Visual Studio Build Tools and start from their prompt",
}


def kernel_options(hardware: Hardware, plain: str) -> tuple[tuple[str, ...], str]:
    """Whether our Triton kernel comes into question beside the `plain` way."""
    backend = hardware.backend
    if backend not in ("cuda", "rocm"):
        return (plain,), f"our Triton kernels are not for {backend}"
    compiling, why = compile_options(hardware)
    if compiling != ("compiled",):
        return (plain,), why
    if backend == "cuda" and int(hardware.architecture.removeprefix("sm_")) < 75:
        return (plain,), f"our Triton kernels need sm_75, this is {hardware.architecture}"
    return (plain, "triton"), "what our Triton kernel gains is measured"


def attention_order(hardware: Hardware) -> tuple[tuple[str, ...], str]:
    """Implementations for sliding windows in question, the likeliest first, and why."""
    backend, architecture = hardware.backend, hardware.architecture
    plain = ("block_local", "sdpa")
    fused = kernel_options(hardware, "flex")[0]  # ours behind the library's until measured
    compiled = (*fused, *plain) if "compiled" in compile_options(hardware)[0] else plain
    if backend == "cuda":
        capability = int(architecture.removeprefix("sm_"))
        if capability == 90:
            return ("fa3", "flash", *compiled), "FA3 is written for sm_90"
        if capability >= 80:
            return (
                "flash",
                *compiled,
            ), f"FA3's kernels are for sm_90; flash-attn 2 covers {architecture}"
        if capability >= 70:
            return compiled, f"flash-attn 2 needs sm_80, this is {architecture}"
        return plain, f"neither flash-attn nor Triton has kernels for {architecture}"
    if backend == "rocm":
        return ("flash", *compiled), "flash-attn 2 has kernels for CDNA and, through Triton, RDNA"
    if backend == "xpu":
        return compiled, "flex_attention has Triton kernels for Intel GPUs"
    if backend == "cpu":
        why = "flex_attention has no backward pass on processors"
        return ("dense", *plain), why
    if backend == "mlx":
        return ("block_local",), "MLX has no kernel for windows: dense products over blocks"
    return plain, f"no fused kernel for windows on {backend}"


def probe_shape(hardware: Hardware) -> dict[str, int]:
    """Shape at which variants are compared: batch, tokens, heads, head size, window."""
    if hardware.has("host"):
        return {"batch": 2, "tokens": 512, "heads": 4, "head_dim": 64, "window": 127}
    return {"batch": 4, "tokens": 2048, "heads": 8, "head_dim": 128, "window": 511}


def launch_environment(hardware: Hardware) -> tuple[dict[str, str], str]:
    """Variables to set before the framework loads, and why."""
    if hardware.backend == "cuda" and hardware.os == "Linux":
        return {
            "PYTORCH_ALLOC_CONF": "expandable_segments:True"
        }, "keeps fragments from using up memory"
    if hardware.backend == "rocm":
        return {
            "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL": "1"
        }, "fused SDPA kernels on more AMD GPUs"
    if hardware.backend == "mps":
        return {
            "PYTORCH_ENABLE_MPS_FALLBACK": "1"
        }, "an operation without Metal kernel runs on the CPU"
    if hardware.has("host") and hardware.os == "Linux":
        return {
            "GOMP_SPINCOUNT": "0"
        }, "threads that wait sleep, so a busy neighbour costs its share only"
    return {}, "the framework's defaults do"
