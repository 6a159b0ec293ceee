"""Datasheet peaks: dense, float32 accumulate, and None rather than a neighbour's figure."""

import pytest

from backends.hardware import GIB, Hardware
from backends.peak_flops import normalized, peak_flops, table


def device(name: str, backend: str = "cuda", *features: str, gib: int = 24) -> Hardware:
    return Hardware(
        backend=backend,
        vendor="",
        name=name,
        architecture="",
        memory_bytes=gib * GIB,
        count=1,
        driver="",
        framework="torch",
        framework_version="2.9.0",
        os="Linux",
        features=features,
    )


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA GeForce RTX 4090", 165.2),  # a fork had 330: float16 accumulate
        ("NVIDIA GeForce RTX 3090", 71.0),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA GeForce RTX 5080", 112.6),
        ("NVIDIA GeForce RTX 5070 Ti", 87.9),
        ("NVIDIA GeForce RTX 5070", 61.7),
        ("NVIDIA GeForce RTX 4080", 97.5),
        ("NVIDIA GeForce RTX 3080", 59.5),
        ("NVIDIA GeForce RTX 3070", 40.6),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA B200", 2250),
        ("AMD Instinct MI300X", 1307.4),
        ("AMD Radeon RX 7900 XTX", 122.8),
        ("Radeon RX 7900 XTX", 122.8),
    ],
)
def test_published_figures(name, tera):
    peak = peak_flops(device(name))
    assert peak is not None
    assert peak.value / 1e12 == pytest.approx(tera, rel=3e-3)


@pytest.mark.parametrize(
    "name",
    [
        "AMD Instinct MI308X",  # a fork took the MI300X's
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 2080 Ti",  # no bfloat16 units
        "Tesla T4",
        "Tesla V100-SXM2-32GB",
        "NVIDIA H20",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 5090 D",
        "Apple M4 Max",
        "Something New 9000",
        "",
    ],
)
def test_unknown_is_none(name):
    assert peak_flops(device(name)) is None


def test_a_near_name_keeps_its_own_figure():
    def value(name):
        peak = peak_flops(device(name))
        assert peak is not None
        return peak.value

    assert value("NVIDIA GeForce RTX 4090 D") < value("NVIDIA GeForce RTX 4090")
    assert value("NVIDIA GeForce RTX 4070") < value("NVIDIA GeForce RTX 4070 Ti")
    assert value("NVIDIA L40") < value("NVIDIA L40S")
    assert value("NVIDIA H100 PCIe") < value("NVIDIA H100 NVL") < value("NVIDIA H100 80GB HBM3")


def test_one_name_for_two_chips_is_told_apart_by_memory():
    small = peak_flops(device("NVIDIA GeForce RTX 3080", gib=10))
    large = peak_flops(device("NVIDIA GeForce RTX 3080", gib=12))
    assert small is not None
    assert large is not None
    assert large.value / small.value == pytest.approx(8960 / 8704)


def test_processors_have_no_figure():
    assert peak_flops(device("AMD EPYC 9654", "cpu", "host")) is None


def test_every_row_has_a_source_and_a_unique_name():
    assert len(table()) > 60
    for name, peak in table().items():
        assert name == normalized(name)
        assert len(peak.source) > 15
        assert 1e13 < peak.value < 1e16


def test_normalized_drops_maker_marks_and_capitals():
    assert normalized("Intel(R) Arc(TM) B580 Graphics") == "arc b580 graphics"
    assert normalized("NVIDIA  GeForce RTX 4090") == normalized("GeForce rtx 4090")
