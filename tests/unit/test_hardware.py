"""Detection: each fake machine gives its hardware, and a reason for everything passed over."""

import dataclasses

import pytest

from backends.devices import DEFAULT_PROBES, cuda_kernels_fit
from backends.errors import BackendUnavailable, UnknownBackend
from backends.facts import (
    HostFacts,
    MlxFacts,
    TorchFacts,
    parse_cpuinfo,
    this_machine,
    usable_cores,
)
from backends.hardware import BACKENDS, Hardware, Miss, detect
from tests.unit import machines as fake


@pytest.mark.parametrize(
    ("machine", "backend", "architecture", "with_features", "without"),
    [
        (fake.H100, "cuda", "sm_90", {"bf16", "fp16", "triton"}, {"unified_memory"}),
        (fake.B200, "cuda", "sm_100", {"bf16"}, set()),
        (fake.B300, "cuda", "sm_103", {"bf16"}, set()),
        (fake.RTX_5090, "cuda", "sm_120", {"bf16"}, set()),
        (fake.DGX_SPARK, "cuda", "sm_121", {"bf16", "unified_memory"}, set()),
        (fake.RTX_4090, "cuda", "sm_89", {"bf16"}, set()),
        (fake.RTX_3090, "cuda", "sm_86", {"bf16"}, set()),
        (fake.A100, "cuda", "sm_80", {"bf16"}, set()),
        (fake.T4, "cuda", "sm_75", {"fp16"}, {"bf16"}),
        (fake.V100, "cuda", "sm_70", {"fp16"}, {"bf16"}),
        (fake.GTX_1080, "cuda", "sm_61", set(), {"bf16", "fp16"}),
        (fake.WINDOWS_4090, "cuda", "sm_89", {"bf16"}, {"triton"}),
        (fake.MI300X, "rocm", "gfx942", {"cdna", "bf16"}, {"rdna"}),
        (fake.MI250X, "rocm", "gfx90a", {"cdna", "bf16"}, {"rdna"}),
        (fake.MI355X, "rocm", "gfx950", {"cdna", "bf16"}, {"rdna"}),
        (fake.RX_7900XTX, "rocm", "gfx1100", {"rdna", "bf16"}, {"cdna"}),
        (fake.RX_9070XT, "rocm", "gfx1201", {"rdna", "bf16"}, {"cdna"}),
        (fake.RX_6900XT, "rocm", "gfx1030", {"rdna"}, {"bf16", "fp16", "cdna"}),
        (fake.intel(), "xpu", "xe", {"triton"}, {"host"}),
        (fake.mac(), "mlx", "applegpu_g16s", {"metal", "unified_memory"}, {"host"}),
        (fake.mac(mlx=False), "mps", "arm64", {"metal"}, {"host"}),
        (fake.mac(mlx=False, mps=False), "cpu", "arm64", {"host", "arm_bf16"}, {"metal"}),
        (fake.machine(), "cpu", "x86_64", {"host", "cxx_compiler"}, {"avx512_bf16"}),
    ],
)
def test_auto_takes_the_best_and_explains_the_rest(
    machine, backend, architecture, with_features, without
):
    hardware, passed_over = detect("auto", machine)
    assert (hardware.backend, hardware.architecture) == (backend, architecture)
    assert with_features <= set(hardware.features)
    assert not without & set(hardware.features)
    assert [miss.backend for miss in passed_over] == list(BACKENDS[: BACKENDS.index(backend)])
    assert all(miss.reason for miss in passed_over)


def reason(machine, backend: str) -> str:
    """Why a backend is passed over on a machine."""
    found = DEFAULT_PROBES[backend](machine)
    assert isinstance(found, Miss)
    return f"{found.reason} / {found.hint}"


def test_reasons_say_what_is_wrong_and_what_to_do():
    plain = fake.machine()
    assert "2.13.0+cpu was built without CUDA" in reason(plain, "cuda")
    assert "built without ROCm" in reason(plain, "rocm")
    assert "built without XPU" in reason(plain, "xpu")
    assert "this is Linux" in reason(plain, "mps")
    assert "autoresearch[mlx]" in reason(plain, "mlx")
    assert "macOS has no CUDA" in reason(fake.mac(), "cuda")
    assert "not installed" in reason(fake.machine(torch="torch is not installed"), "cpu")


def test_a_driver_too_old_is_reported_in_its_own_words():
    said = "The NVIDIA driver on your system is too old (found version 11040)."
    torch = TorchFacts("2.13.0+cu130", cuda="13.0", gpu_problem=said)
    assert said in reason(fake.machine(torch=torch), "cuda")
    with pytest.raises(BackendUnavailable, match="too old"):
        detect("cuda", fake.machine(torch=torch))


def test_a_wheel_without_this_gpus_kernels_is_passed_over():
    new = fake.nvidia("NVIDIA GeForce RTX 5090", (12, 0), arch_list=("sm_80", "sm_90"))
    assert "no kernels for sm_120 (built for sm_80 sm_90)" in reason(new, "cuda")
    old = fake.nvidia("NVIDIA GeForce GTX 1050 Ti", (6, 1))
    assert "cu126" in reason(old, "cuda")
    assert "HSA_OVERRIDE_GFX_VERSION" in reason(fake.amd("Radeon", "gfx1031"), "rocm")
    assert detect("auto", new)[0].backend == "cpu"


@pytest.mark.parametrize(
    ("capability", "arch_list", "fits"),
    [
        ((8, 9), ("sm_86",), True),  # same major, later minor
        ((8, 0), ("sm_86",), False),
        ((12, 1), ("sm_120",), True),
        ((12, 1), ("sm_120a",), False),  # architecture-specific
        ((12, 1), ("sm_120f",), True),  # family-specific
        ((9, 0), ("sm_90a",), True),
        ((12, 0), ("sm_90", "compute_90"), True),  # PTX is compiled on the spot
        ((12, 0), ("sm_90",), False),
        ((7, 5), ("compute_80",), False),
        ((7, 5), (), True),
    ],
)
def test_cuda_compatibility_rules(capability, arch_list, fits):
    assert cuda_kernels_fit(capability, arch_list) is fits


def test_mlx_off_apple_silicon_is_for_those_who_ask():
    both = fake.machine(mlx=MlxFacts("0.32.4", "cpu", "AMD EPYC", "x86_64"))
    hardware, passed_over = detect("auto", both)
    assert hardware.backend == "cpu"
    assert "Apple silicon" in {miss.backend: miss.reason for miss in passed_over}["mlx"]
    asked, _ = detect("mlx", both)
    assert (asked.backend, asked.framework) == ("mlx", "mlx")
    assert asked.has("host")


def test_auto_imports_mlx_on_apple_silicon_only_and_torch_not_before_it_must():
    def forbidden():
        raise AssertionError("asked for nothing")

    linux = dataclasses.replace(fake.machine(), mlx=forbidden)
    assert detect("auto", linux)[0].backend == "cpu"
    mac = dataclasses.replace(fake.mac(), torch=forbidden)
    assert detect("mlx", mac)[0].backend == "mlx"


def test_torch_means_the_best_of_torch():
    assert detect("torch", fake.mac())[0].backend == "mps"
    assert detect("torch", fake.H100)[0].backend == "cuda"


def test_unknown_backend_suggests_and_lists():
    with pytest.raises(UnknownBackend, match=r"did you mean 'cuda'.*known: auto, torch"):
        detect("cudda", fake.machine())


def test_nothing_at_all_names_every_reason():
    with pytest.raises(BackendUnavailable, match=r"cuda: torch is not installed.*cpu: torch is"):
        detect("auto", fake.machine(torch="torch is not installed"))


def test_unavailable_backend_says_what_to_install():
    with pytest.raises(BackendUnavailable) as caught:
        detect("mlx", fake.machine())
    assert "mlx is not installed" in caught.value.message
    assert "autoresearch[mlx]" in caught.value.hint


def test_id_is_the_hardware_class():
    def identity(**changes) -> str:
        return dataclasses.replace(hardware, **changes).id

    hardware = detect("auto", fake.RTX_4090)[0]
    assert hardware.id == identity(driver="999", framework_version="9.9", os="Windows")
    assert hardware.id == identity(memory_bytes=hardware.memory_bytes - 400 * 2**20, count=8)
    assert hardware.id != identity(memory_bytes=48 * fake.GIB)
    assert hardware.id != identity(name="NVIDIA GeForce RTX 4080")
    cpu = detect("cpu", fake.machine())[0]
    assert cpu.id == dataclasses.replace(cpu, memory_bytes=fake.GIB).id
    assert cpu.id != dataclasses.replace(cpu, count=2).id


def test_hardware_survives_json():
    hardware = detect("auto", fake.DGX_SPARK)[0]
    assert Hardware.from_dict(hardware.to_dict()) == hardware
    with pytest.raises(dataclasses.FrozenInstanceError):
        hardware.name = "x"  # type: ignore[misc]


def test_cpuinfo_of_x86_and_arm():
    x86 = "model name\t: AMD EPYC 9654\nflags\t\t: fpu sse avx512f avx512_bf16 amx_bf16\n"
    assert parse_cpuinfo(x86) == ("AMD EPYC 9654", frozenset({"avx512_bf16", "amx_bf16"}))
    arm = "processor : 0\nFeatures\t: fp asimd bf16 i8mm\n"
    assert parse_cpuinfo(arm) == ("", frozenset({"arm_bf16"}))
    assert parse_cpuinfo("flags : sse avx512_bf16_fake\n")[1] == frozenset()


def test_processors_whose_model_is_withheld_are_told_apart_by_family():
    given = "cpu family\t: {}\nmodel\t\t: 17\nmodel name\t: {}\n"
    assert parse_cpuinfo(given.format(25, "AMD EPYC"))[0] == "AMD EPYC (family 25, model 17)"
    assert parse_cpuinfo(given.format(26, "AMD EPYC"))[0] == "AMD EPYC (family 26, model 17)"
    assert parse_cpuinfo(given.format(25, "AMD EPYC 9654"))[0] == "AMD EPYC 9654"


def test_cpu_flags_come_from_torch_where_the_system_tells_nothing():
    torch = TorchFacts("2.13.0+cpu", cpu_flags=frozenset({"avx512_bf16"}))
    hardware, _ = detect("cpu", fake.machine(fake.WINDOWS, torch))
    assert hardware.has("avx512_bf16")
    assert hardware.os == "Windows"


def test_a_containers_quota_limits_the_cores(tmp_path):
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    assert usable_cores(quota) == 1
    quota.write_text("max 100000\n")
    assert usable_cores(quota) == usable_cores(tmp_path / "missing") >= 1


def test_vendor_of_processors():
    def vendor(name: str, machine: str = "x86_64") -> str:
        host = HostFacts("Linux", cpu_name=name, machine=machine)
        return detect("cpu", fake.machine(host))[0].vendor

    assert vendor("AMD EPYC 9654") == "amd"
    assert vendor("Intel(R) Xeon(R) Platinum") == "intel"
    assert vendor("", "aarch64") == "arm"


def test_this_machine_answers():
    pytest.importorskip("torch")
    hardware, _ = detect("cpu", this_machine())
    assert hardware.count >= 1
    assert hardware.memory_bytes > 2**28
    assert hardware.name
