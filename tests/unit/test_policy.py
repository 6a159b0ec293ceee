"""Policies: one per fake machine, each item with its reason; figures and overrides decide."""

import pytest

from backends.errors import UnknownOverride
from backends.hardware import Hardware, detect
from backends.policy import (
    ATTENTION,
    Figure,
    Overrides,
    Question,
    choose_policy,
    probe_shape,
    questions,
)
from tests.unit import machines as fake

ITEMS = (
    "compute_dtype",
    "attention",
    "attention_order",
    "compile",
    "loss_scaling",
    "loss",
    "gram",
)


def hardware(machine, request: str = "auto") -> Hardware:
    return detect(request, machine)[0]


@pytest.mark.parametrize(
    ("machine", "dtype", "compiled", "order"),
    [
        (fake.H100, "bfloat16", True, ("fa3", "flash", "flex", "triton", "block_local", "sdpa")),
        (fake.B200, "bfloat16", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.RTX_5090, "bfloat16", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.DGX_SPARK, "bfloat16", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.RTX_4090, "bfloat16", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.RTX_3090, "bfloat16", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.WINDOWS_4090, "bfloat16", False, ("flash", "block_local", "sdpa")),
        (fake.T4, "float16", True, ("flex", "triton", "block_local", "sdpa")),
        (fake.V100, "float16", True, ("flex", "block_local", "sdpa")),
        (fake.GTX_1080, "float32", False, ("block_local", "sdpa")),
        (fake.MI300X, "bfloat16", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.RX_7900XTX, "bfloat16", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.RX_6900XT, "float32", True, ("flash", "flex", "triton", "block_local", "sdpa")),
        (fake.intel(), "bfloat16", True, ("flex", "block_local", "sdpa")),
        (fake.mac(), "bfloat16", True, ("block_local",)),
        (fake.mac(mlx=False), "bfloat16", False, ("block_local", "sdpa")),
        (fake.machine(), "float32", False, ("dense", "block_local", "sdpa")),
    ],
)
def test_policy_before_anything_is_measured(machine, dtype, compiled, order):
    policy = choose_policy(hardware(machine))
    assert policy.compute_dtype == dtype
    assert policy.compile is compiled
    assert policy.compile_mode == ("default" if compiled else "")
    assert policy.attention_order == order
    assert policy.attention == order[0]
    assert set(order) <= set(ATTENTION)
    assert policy.loss_scaling is (dtype == "float16")
    assert policy.master_dtype == "float32"
    assert all(policy.reasons[item] for item in (*ITEMS, "master_dtype", "environment"))


@pytest.mark.parametrize(
    ("machine", "items"),
    [
        (fake.H100, ["attention", "loss", "gram"]),  # dtype and compile are no question there
        (fake.RTX_5090, ["attention", "loss", "gram"]),
        (fake.MI300X, ["attention", "loss", "gram"]),
        (fake.WINDOWS_4090, ["attention"]),
        (fake.T4, ["dtype", "attention", "loss", "gram"]),
        (fake.V100, ["dtype", "attention"]),
        (fake.GTX_1080, ["attention"]),
        (fake.intel(), ["dtype", "compile", "attention"]),
        (fake.mac(), ["dtype"]),
        (fake.mac(mlx=False), ["dtype", "attention"]),
        (fake.machine(), ["compile", "attention"]),
    ],
)
def test_only_what_depends_on_speed_is_asked(machine, items):
    assert [question.item for question in questions(hardware(machine))] == items


def test_processor_with_bf16_instructions_is_measured_not_believed():
    host = fake.HostFacts("Linux", cpu_flags=frozenset({"avx512_bf16"}))
    cpu = hardware(fake.machine(host))
    assert Question("dtype", ("float32", "bfloat16")) in questions(cpu)
    slow = (Figure("dtype", "float32", 0.01), Figure("dtype", "bfloat16", 4.0))
    assert choose_policy(cpu, slow).compute_dtype == "float32"
    fast = (Figure("dtype", "float32", 0.01), Figure("dtype", "bfloat16", 0.004))
    policy = choose_policy(cpu, fast)
    assert policy.compute_dtype == "bfloat16"
    assert "10 ms" in policy.reasons["compute_dtype"]
    assert "4 ms" in policy.reasons["compute_dtype"]


def test_our_kernels_are_used_where_they_were_measured_to_be_faster():
    h100 = hardware(fake.H100)
    unmeasured = choose_policy(h100)
    assert (unmeasured.loss, unmeasured.gram) == ("chunked", "matmul")
    figures = (
        Figure("loss", "chunked", 0.009),
        Figure("loss", "triton", 0.006),
        Figure("gram", "matmul", 0.004),
        Figure("gram", "triton", None, "ArithmeticError: results differ by 2"),
    )
    policy = choose_policy(h100, figures)
    assert (policy.loss, policy.gram) == ("triton", "matmul")
    assert "triton 6 ms" in policy.reasons["loss"]
    assert "results differ" in policy.reasons["gram"]
    failed = (Figure("loss", "chunked", None, "no"), Figure("loss", "triton", None, "no"))
    assert choose_policy(h100, failed).loss == "chunked"
    asked = Overrides(loss="triton", gram="triton")
    policy = choose_policy(h100, figures, asked)
    assert (policy.loss, policy.gram) == ("triton", "triton")
    assert policy.reasons["gram"] == "asked for by AUTORESEARCH_GRAM"
    assert [question.item for question in questions(h100, asked)] == ["attention"]
    v100 = choose_policy(hardware(fake.V100), figures)
    assert v100.loss == "chunked"
    assert "sm_75" in v100.reasons["loss"]


def test_a_tie_goes_to_the_first_choice():
    cpu = hardware(fake.machine())
    tie = (Figure("compile", "eager", 1.00), Figure("compile", "compiled", 0.98))
    assert choose_policy(cpu, tie).compile is False


def test_what_fails_its_first_launch_is_passed_over_with_the_reason():
    died = "AcceleratorError: CUDA error: no kernel image is available for execution"
    figures = (
        Figure("attention", "flash", None, died),
        Figure("attention", "flex", 0.002),
        Figure("attention", "block_local", 0.005),
        Figure("attention", "sdpa", 0.02),
    )
    policy = choose_policy(hardware(fake.RTX_5090), figures)
    assert policy.attention == "flex"
    assert policy.attention_order == ("flex", "triton", "block_local", "sdpa")
    assert "no kernel image" in policy.reasons["attention"]
    assert "no kernel image" in policy.reasons["attention_order"]


def test_our_attention_is_taken_where_it_is_right_and_faster_than_the_librarys():
    h100 = hardware(fake.H100)

    def policy(ours: Figure):
        figures = (
            Figure("attention", "fa3", None, "neither is installed"),
            Figure("attention", "flash", None, "flash_attn is not installed"),
            Figure("attention", "flex", 0.00200),
            ours,
            Figure("attention", "block_local", 0.004),
            Figure("attention", "sdpa", 0.008),
        )
        return choose_policy(h100, figures)

    assert policy(Figure("attention", "triton", 0.00150)).attention == "triton"
    assert policy(Figure("attention", "triton", 0.00197)).attention == "flex"
    wrong = policy(Figure("attention", "triton", None, "dk at window 100 differs by 0.3"))
    assert wrong.attention == "flex"
    assert "triton" not in wrong.attention_order
    assert "triton failed: dk at window 100" in wrong.reasons["attention"]


def test_where_everything_fails_the_plainest_is_taken_and_says_so():
    cpu = hardware(fake.machine(fake.HostFacts("Linux", cpu_flags=frozenset({"amx_bf16"}))))
    failed = tuple(
        Figure("dtype", dtype, None, "its process ended") for dtype in ("float32", "bfloat16")
    )
    policy = choose_policy(cpu, failed)
    assert policy.compute_dtype == "float32"
    assert "nothing could be measured" in policy.reasons["compute_dtype"]
    failed = tuple(Figure("attention", name, None, "no") for name in ("block_local", "sdpa"))
    assert choose_policy(cpu, failed).attention == "sdpa"


def test_overrides_win_over_figures_and_stop_their_questions():
    overrides = Overrides(dtype="float16", compile="1", attention="sdpa")
    cpu = hardware(fake.machine())
    assert questions(cpu, overrides) == ()
    policy = choose_policy(cpu, (Figure("compile", "eager", 0.1),), overrides)
    assert (policy.compute_dtype, policy.compile, policy.attention) == ("float16", True, "sdpa")
    assert policy.loss_scaling
    assert policy.reasons["attention"] == "asked for by AUTORESEARCH_ATTENTION"
    assert policy.reasons["compute_dtype"] == "asked for by AUTORESEARCH_DTYPE"


@pytest.mark.parametrize(
    ("said", "compiles", "mode"),
    [
        ("0", False, ""),
        ("1", True, "default"),
        ("max-autotune", True, "max-autotune-no-cudagraphs"),
    ],
)
def test_a_mode_of_compiling_can_be_asked_for(said, compiles, mode):
    for machine in (fake.H100, fake.machine()):
        chosen = choose_policy(hardware(machine), overrides=Overrides(compile=said))
        assert (chosen.compile, chosen.compile_mode) == (compiles, mode)


def test_fp8_is_never_chosen_unasked():
    h100 = hardware(fake.H100)
    chosen = choose_policy(h100)
    assert chosen.linear == "plain"
    assert "AUTORESEARCH_LINEAR=fp8" in chosen.reasons["linear"]
    asked = choose_policy(h100, overrides=Overrides(linear="fp8"))
    assert (asked.linear, asked.reasons["linear"]) == ("fp8", "asked for by AUTORESEARCH_LINEAR")


def test_overrides_from_the_environment():
    assert Overrides.from_environment({}) == Overrides()
    read = Overrides.from_environment(
        {"AUTORESEARCH_DTYPE": "float32", "AUTORESEARCH_COMPILE": "0", "AUTORESEARCH_ATTENTION": ""}
    )
    assert read == Overrides(dtype="float32", compile="0")
    assert Overrides.from_environment({"AUTORESEARCH_LOSS": "triton"}).loss == "triton"
    assert Overrides.from_environment({"AUTORESEARCH_LINEAR": "fp8"}).linear == "fp8"
    with pytest.raises(UnknownOverride, match=r"AUTORESEARCH_GRAM.*'cublas'\n.*matmul, triton"):
        Overrides.from_environment({"AUTORESEARCH_GRAM": "cublas"})
    with pytest.raises(UnknownOverride, match="did you mean 'block_local'"):
        Overrides.from_environment({"AUTORESEARCH_ATTENTION": "blocklocal"})
    with pytest.raises(UnknownOverride, match="AUTORESEARCH_COMPILE"):
        Overrides.from_environment({"AUTORESEARCH_COMPILE": "yes"})


def test_windows_without_triton_says_what_to_install():
    policy = choose_policy(hardware(fake.WINDOWS_4090))
    assert not policy.compile
    assert "triton-windows" in policy.reasons["compile"]


def test_a_linux_box_without_compiler_or_headers_does_not_compile():
    bare = fake.nvidia("NVIDIA L4", (8, 9), host=fake.HostFacts("Linux"))
    policy = choose_policy(hardware(bare))
    assert not policy.compile
    assert "C compiler" in policy.reasons["compile"]
    assert "flex" not in policy.attention_order
    cpu = choose_policy(hardware(fake.machine(fake.HostFacts("Windows"))))
    assert "Visual Studio" in cpu.reasons["compile"]


def test_environment_of_each_kind():
    def environment(machine, request="auto"):
        return choose_policy(hardware(machine, request)).environment

    assert environment(fake.H100) == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert environment(fake.WINDOWS_4090) == {}  # expandable segments are Linux only
    assert "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL" in environment(fake.MI300X)
    assert environment(fake.machine()) == {"GOMP_SPINCOUNT": "0"}
    assert environment(fake.mac()) == {}


def test_the_policy_is_pure_and_plain_as_json():
    import json

    h100 = hardware(fake.H100)
    assert choose_policy(h100) == choose_policy(h100)
    plain = json.loads(json.dumps(choose_policy(h100).to_dict()))
    assert plain["compute_dtype"] == "bfloat16"
    assert plain["probe_shape"] == probe_shape(h100)
