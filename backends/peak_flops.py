"""Peak speed of a device by its datasheet: dense bfloat16 products that accumulate in float32.

    peak_flops(hardware)      # PeakFlops(value=165.2e12, source="NVIDIA Ada ..."), or None

None means unknown, and then nothing is guessed: no neighbour's figure, no laptop chip that goes
by a desktop chip's name. Sparse figures are halved. GeForce cards accumulate in float32 at half
the rate that they reach with float16, and only the former is training. Matching is exact, but for
"NVIDIA", "AMD", "(R)" and capitals. Not here for want of a maker's bfloat16 figure: Apple's GPUs,
MI308X, H20, laptop and Max-Q parts; Turing, Volta and Pascal have no bfloat16 units at all.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from backends.hardware import Hardware

TERA = 1e12


@dataclass(frozen=True)
class PeakFlops:
    """FLOP/s and where the figure was published."""

    value: float
    source: str


def peak_flops(hardware: Hardware) -> PeakFlops | None:
    """Dense bf16 peak of one device in FLOP/s, or None where no figure is known."""
    if hardware.has("host"):
        return None  # depends on clocks under vector load, which are not published
    name = normalized(hardware.name)
    sized = f"{name} {round(hardware.memory_gib)}gb"  # some names cover two chips
    return table().get(sized) or table().get(name)


def normalized(name: str) -> str:
    """A device's name without its maker and marks, in lower case."""
    plain = re.sub(r"\((r|tm)\)|\b(nvidia|amd|intel)\b", " ", name.lower())
    return " ".join(plain.split())


@functools.cache
def table() -> Mapping[str, PeakFlops]:
    """Every known device by its normalized name."""
    rows = {name: PeakFlops(tera * TERA, source) for name, (tera, source) in _PUBLISHED.items()}
    rows |= {name: _geforce(*row) for name, row in _GEFORCE.items()}
    rows |= {name: _radeon(*row) for name, row in _RADEON.items()}
    return {normalized(name): peak for name, peak in rows.items()}


_A100 = (312.0, "NVIDIA A100 datasheet: 312 dense")
_H100 = (989.4, "NVIDIA H100 datasheet, SXM: 1,979 sparse, halved")
_H200 = (989.4, "NVIDIA H200 datasheet, SXM: 1,979 sparse, halved")
_GH200 = (989.4, "NVIDIA GH200 datasheet: 1,979 sparse, halved")
_B200 = (2250.0, "NVIDIA Blackwell datasheet, HGX B200: 4.5 PFLOPS sparse, halved")
_GB200 = (2500.0, "NVIDIA GB200 NVL72 page: 5 PFLOPS sparse per GPU, halved")
_PRO_6000 = (503.8, "NVIDIA RTX Blackwell PRO architecture whitepaper: 503.8 dense")

# TFLOPS, and the document that says so. Names as torch.cuda.get_device_name() gives them.
_PUBLISHED: Mapping[str, tuple[float, str]] = {
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA H100 80GB HBM3": _H100,
    "NVIDIA H100 PCIe": (756.5, "NVIDIA H100 datasheet, PCIe: 1,513 sparse, halved"),
    "NVIDIA H100 NVL": (835.5, "NVIDIA H100 datasheet, NVL: 1,671 sparse, halved"),
    "NVIDIA H200": _H200,
    "NVIDIA H200 NVL": (835.5, "NVIDIA H200 datasheet, NVL: 1,671 sparse, halved"),
    "NVIDIA GH200 480GB": _GH200,
    "NVIDIA GH200 144G HBM3e": _GH200,
    "NVIDIA B200": _B200,
    "NVIDIA GB200": _GB200,
    "NVIDIA GB300": (2500.0, "NVIDIA GB300 NVL72 page: 5 PFLOPS sparse per GPU, halved"),
    # 1 PFLOPS of sparse FP4 is 8 times this on SM 12.x, by the ratio in the PRO whitepaper.
    "NVIDIA GB10": (125.0, "NVIDIA DGX Spark page: 1 PFLOPS sparse FP4, by 8"),
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": _PRO_6000,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": _PRO_6000,
    "NVIDIA RTX 6000 Ada Generation": (
        364.3,
        "NVIDIA RTX 6000 Ada datasheet: 1,457 sparse FP8, by 4",
    ),
    "NVIDIA RTX A6000": (154.8, "NVIDIA RTX A6000 datasheet: 309.7 sparse, halved"),
    "NVIDIA RTX A5000": (111.1, "NVIDIA RTX A5000 datasheet: 222.2 sparse, halved"),
    "NVIDIA RTX A4000": (76.7, "NVIDIA RTX A4000 datasheet: 153.4 sparse, halved"),
    "NVIDIA A40": (149.7, "NVIDIA A40 datasheet: 149.7 dense"),
    "NVIDIA A30": (165.0, "NVIDIA A30 datasheet: 165 dense"),
    "NVIDIA A10": (125.0, "NVIDIA A10 datasheet: 125 dense"),
    "NVIDIA A10G": (70.0, "NVIDIA A10G datasheet: 70 dense"),
    "NVIDIA L4": (121.0, "NVIDIA L4 datasheet: 242 sparse, halved"),
    "NVIDIA L40": (181.05, "NVIDIA L40 datasheet: 181.05 dense"),
    "NVIDIA L40S": (362.05, "NVIDIA L40S datasheet: 362.05 dense"),
    "AMD Instinct MI100": (92.3, "AMD Instinct MI100 page: 92.3"),
    "AMD Instinct MI210": (181.0, "AMD Instinct MI210 page: 181"),
    # ROCm shows each of the two dies as a device of its own.
    "AMD Instinct MI250": (181.05, "AMD Instinct MI250 page: 362.1 for two dies, halved"),
    "AMD Instinct MI250X": (191.5, "AMD Instinct MI250X page: 383 for two dies, halved"),
    "AMD Instinct MI300A": (980.6, "AMD Instinct MI300A page: 980.6 dense"),
    "AMD Instinct MI300X": (1307.4, "AMD Instinct MI300X page: 1,307.4 dense"),
    "AMD Instinct MI300X VF": (1307.4, "AMD Instinct MI300X page: 1,307.4 dense"),
    "AMD Instinct MI325X": (1307.4, "AMD Instinct MI325X page: 1,307.4 dense"),
    "AMD Instinct MI350X": (2306.9, "AMD Instinct MI350X page: 2.3069 PFLOPS dense"),
    "AMD Instinct MI355X": (2516.6, "AMD Instinct MI355X page: 2.5166 PFLOPS dense"),
    "AMD Radeon PRO W7900": (122.6, "AMD Radeon PRO W7900 page: 122.6 half precision"),
}


def _geforce(cores: int, boost_mhz: int) -> PeakFlops:
    """An Ampere, Ada or Blackwell GeForce: 512 FLOP a clock and SM of 128 cores, so 4 per core.

    It gives the whitepapers' 71 for a 3090 (GA102, appendix A), 165.2 for a 4090 (Ada, appendix A)
    and 209.5 for a 5090 (RTX Blackwell, appendix A).
    """
    value = 4.0 * cores * boost_mhz * 1e6
    return PeakFlops(value, f"NVIDIA specifications: {cores} cores x {boost_mhz} MHz x 4 FLOP")


# CUDA cores and boost clock in MHz, from NVIDIA's whitepapers and specification pages.
_GEFORCE: Mapping[str, tuple[int, int]] = {
    "NVIDIA GeForce RTX 3060 Ti": (4864, 1665),
    "NVIDIA GeForce RTX 3060": (3584, 1777),
    "NVIDIA GeForce RTX 3070": (5888, 1725),
    "NVIDIA GeForce RTX 3070 Ti": (6144, 1770),
    "NVIDIA GeForce RTX 3080": (8704, 1710),
    "NVIDIA GeForce RTX 3080 12GB": (8960, 1710),
    "NVIDIA GeForce RTX 3080 Ti": (10240, 1665),
    "NVIDIA GeForce RTX 3090": (10496, 1695),
    "NVIDIA GeForce RTX 3090 Ti": (10752, 1860),
    "NVIDIA GeForce RTX 4060": (3072, 2460),
    "NVIDIA GeForce RTX 4060 Ti": (4352, 2535),
    "NVIDIA GeForce RTX 4070": (5888, 2475),
    "NVIDIA GeForce RTX 4070 SUPER": (7168, 2475),
    "NVIDIA GeForce RTX 4070 Ti": (7680, 2610),
    "NVIDIA GeForce RTX 4070 Ti SUPER": (8448, 2610),
    "NVIDIA GeForce RTX 4080": (9728, 2505),
    "NVIDIA GeForce RTX 4080 SUPER": (10240, 2550),
    "NVIDIA GeForce RTX 4090": (16384, 2520),
    "NVIDIA GeForce RTX 4090 D": (14592, 2520),
    "NVIDIA GeForce RTX 5060": (3840, 2497),
    "NVIDIA GeForce RTX 5060 Ti": (4608, 2572),
    "NVIDIA GeForce RTX 5070": (6144, 2512),
    "NVIDIA GeForce RTX 5070 Ti": (8960, 2452),
    "NVIDIA GeForce RTX 5080": (10752, 2617),
    "NVIDIA GeForce RTX 5090": (21760, 2407),
}


def _radeon(units: int, boost_mhz: int, per_clock: int) -> PeakFlops:
    """An RDNA 3 or 4 card: WMMA does 512 or 1,024 dense FLOP a clock and compute unit."""
    value = 1e6 * units * boost_mhz * per_clock
    source = f"AMD specifications: {units} units x {boost_mhz} MHz x {per_clock} FLOP (WMMA)"
    return PeakFlops(value, source)


# Compute units, boost clock in MHz, FLOP per clock and unit: AMD's product pages, and for the last
# "How to accelerate AI applications on RDNA 3 using WMMA" and the RDNA 4 launch slides.
_RADEON: Mapping[str, tuple[int, int, int]] = {
    "AMD Radeon RX 7900 XTX": (96, 2500, 512),
    "AMD Radeon RX 7900 XT": (84, 2400, 512),
    "AMD Radeon RX 7800 XT": (60, 2430, 512),
    "AMD Radeon RX 9070": (56, 2520, 1024),
    "AMD Radeon RX 9070 XT": (64, 2970, 1024),
}
