"""The measuring processes of `bench` on small sizes, and what is made of their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoresearch.bench import everything, feed, profile, tokenizer, training
from autoresearch.bench.samples import Report
from autoresearch.bench.variants import OURS, PLAIN, Size, reference_path
from autoresearch.bench.worker import Worker, WorkerFailed
from autoresearch.constants import apply_constants
from autoresearch.workspace_files import seed_path

ROOT = Path(__file__).resolve().parents[2]
SIZE = Size(depth=2, width=32, seq_len=32, vocab=256, step_tokens=256, rows=2, head_dim=16)
LAYER = {"batch": 1, "tokens": 256, "heads": 2, "head_dim": 16}
# Four chunks of the least size on torch; MLX cuts a small batch too.
HEADS = {
    "cpu": {"tokens": 8192, "vocab": 1024, "width": 16},
    "mlx": {"tokens": 2048, "vocab": 512, "width": 16},
}
SETTLED = {"AUTORESEARCH_DTYPE": "float32", "AUTORESEARCH_ATTENTION": "block_local"}


def jobs(folder: Path, backend: str) -> dict[str, dict[str, Any]]:
    """Every kind of process, by a name of its own; the profiler's changes the runtime: last."""
    modules = {}
    for name, source in (("train", seed_path("train.py")), ("plain", reference_path("plain.py"))):
        rows = SIZE.rows if name == "train" else SIZE.step_tokens // SIZE.seq_len
        modules[name] = folder / f"{name}.py"
        modules[name].write_text(apply_constants(source.read_text(), SIZE.constants(rows)))
    passes, peak = {"passes": 2}, {"peak": True}
    found: dict[str, dict[str, Any]] = {
        "peak": {
            "module": "peak",
            "job": {},
            "asks": [{"seconds": 0.05}, {"seconds": 0.05, "memory": True}],
        },
    }
    for name, module in modules.items():
        job, other = SIZE.job(module), name == "plain"
        asks = [{"steps": 1}, {"steps": 2}]
        found[f"training {name}"] = {"module": "training", "job": job, "asks": asks}
        found[f"optimizer {name}"] = {"module": "optimizer", "job": job, "asks": [passes]}
        layer = {"layer": LAYER, "window": 64, "masked": other}
        found[f"attention {name}"] = {"module": "attention", "job": layer, "asks": [passes]}
        head = {"head": HEADS[backend], "plain": other}
        found[f"loss {name}"] = {"module": "loss", "job": head, "asks": [passes, peak]}
    spec = {"vocab_size": SIZE.vocab, "max_seq_len": SIZE.seq_len}
    job = {"module": str(modules["train"]), "spec": spec, "seconds": 0.1}
    found["profile"] = {"module": "profile", "job": job, "asks": []}
    return found


@pytest.fixture(scope="module", params=["cpu", "mlx"])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "mlx":
        pytest.importorskip("mlx.core")
    folder = tmp_path_factory.mktemp(request.param)
    asked, out = jobs(folder, request.param), folder / "answers.json"
    (folder / "jobs.json").write_text(json.dumps({"jobs": list(asked.values()), "out": str(out)}))
    environment = {
        **os.environ,
        **SETTLED,
        "AUTORESEARCH_BACKEND": request.param,
        "AUTORESEARCH_COMPILE": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, Path(__file__).with_name("bench_child.py"), folder / "jobs.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return {"backend": request.param, **dict(zip(asked, json.loads(out.read_text()), strict=True))}


def test_processes_are_ready_and_answer(answers: Any) -> None:
    for name, said in answers.items():
        if name != "backend":
            assert [one["kind"] for one in said] == ["ready", *["done"] * (len(said) - 1)], name
            assert all(one["seconds"] > 0 for one in said[1:] if "seconds" in one), name
    assert answers["peak"][1]["flops"] > 1e8 and answers["peak"][2]["bytes_per_second"] > 1e8


def test_train_and_plain_do_the_same_work(answers: Any) -> None:
    ours, plain = answers["training train"], answers["training plain"]
    assert ours[0]["flops_per_token"] == plain[0]["flops_per_token"] > 0
    for one, other in zip(ours, plain, strict=True):  # after 3, 4 and 6 steps on the same tokens
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-3)
    assert ours[0]["loss"] != ours[2]["loss"]


def test_the_losses_peak_is_seen(answers: Any) -> None:
    head = HEADS[answers["backend"]]
    logits = head["tokens"] * head["vocab"] * 4 / 2**20
    ours, plain = (answers[f"loss {name}"][2]["mb"] for name in ("train", "plain"))
    assert plain > 2 * logits
    assert ours < plain / 2


def test_a_profile_adds_up(answers: Any) -> None:
    (found,) = answers["profile"]
    assert sum(found["parts"].values()) == pytest.approx(found["seconds"], rel=0.05)
    known = {"cpu": set(profile.PARTS[:-1]), "mlx": {"feed", "model", "optimizer"}}
    assert found["parts"].keys() == known[answers["backend"]]
    assert all(seconds > 0 for seconds in found["parts"].values())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("aten::mm", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("Cijk_Ailk_Bljk_BBS_BH_MT128x128x32", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("void pytorch_flash::flash_fwd_kernel", "attention"),
        ("triton_tem_fused_flex_attention_0", "attention"),
        ("graph_0_cpp_fused_add_logsumexp_tanh_12", "loss"),
        ("triton_red_fused__log_softmax_nll_loss_forward_3", "loss"),
        ("graph_0_cpp_fused_mul_rms_norm_4", "rest"),
        ("aten::copy_", "rest"),
        ("aten::comma", "rest"),
    ],
)
def test_names_tell_parts(name: str, part: str) -> None:
    assert profile.part_of(name) == part


class FakeWorker:
    """A step of train.py takes 1 s, of the plain ones 2 s; one of them doesn't start."""

    started: list[str]

    def __init__(self, module: str, job: Any, environment: dict[str, str]) -> None:
        self.module, self.job, self.environment = module, job, environment

    def __enter__(self) -> FakeWorker:
        ours = self.module == "training" and Path(self.job["module"]).stem == "train"
        if self.environment["AUTORESEARCH_COMPILE"] == "1" and not ours and self.job:
            raise WorkerFailed("no compiler")
        self.step_seconds = 1.0 if ours else 2.0
        flops = {"flops_per_token": 1000, "flops_of_embeddings": 500}
        self.ready = {**flops, "policy": "float32, eager"}
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, **request: Any) -> dict[str, Any]:
        if self.module == "peak":
            return {"flops": 1e7, "bytes_per_second": 1e9}
        return {"seconds": request["steps"] * self.step_seconds}


def test_rates_ratios_and_mfu(monkeypatch: pytest.MonkeyPatch) -> None:
    import backends

    for name, value in {**SETTLED, "AUTORESEARCH_COMPILE": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(training, "Worker", FakeWorker)
    report = training.measure(backends.select("cpu"), Size(), repeats=2)
    figures = {figure.name: figure for figure in report.figures}
    assert figures[OURS].samples == (4096.0, 4096.0) and figures[PLAIN].median == 2048.0
    ratios = {ratio.name: ratio.median for ratio in report.ratios}
    assert ratios[f"{OURS} / {PLAIN}"] == 2.0
    assert ratios[f"MFU of {OURS}"] == pytest.approx(4096 * 1000 / 1e7)
    assert ratios[f"MFU of {OURS}, embeddings counted"] == pytest.approx(4096 * 1500 / 1e7)
    assert report.failures == {"plain fp32 + compile": "no compiler"}
    assert report.subject == "training T256" and report.about["seq_len"] == 256


def test_a_process_that_fails_says_why() -> None:
    with (
        pytest.raises(WorkerFailed, match=r"^UnknownBackend: .*nonsense"),
        Worker("peak", {}, {"AUTORESEARCH_BACKEND": "nonsense"}),
    ):
        pass


def test_feed_and_tokenizer(cache: Path) -> None:
    stream = feed.Stream(rows=4, seq_len=64, vocab=256, corpus_bytes=50_000, batches=3)
    report = feed.measure(stream, repeats=1)
    figures = {figure.name: figure.median for figure in report.figures}
    assert figures["never shown"] == 0.0
    assert figures["fill"] > figures["plain"] > 0 and figures["ring"] > 0

    text = tokenizer.Text(text_bytes=60_000, vocab=512, trained_bytes=20_000)
    report = tokenizer.measure(text, repeats=1)
    speed, memory = report.ratios
    assert speed.median > 0 and memory.better == "lower" and 0.5 < memory.median < 2.0


def test_all_goes_on_behind_a_subject_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import backends

    for name, value in {**SETTLED, "AUTORESEARCH_COMPILE": "0"}.items():
        monkeypatch.setenv(name, value)
    subjects = ("attention", "feed", "loop", "loss", "mfu", "optimizer", "startup", "tokenizer")
    for subject in ("training", *subjects):

        def measure(*arguments: Any, subject: str = subject, **options: Any) -> Report:
            if subject == "loss":
                raise WorkerFailed("no luck")
            return Report(subject, {"repeats": arguments[-2]})

        monkeypatch.setattr(getattr(everything, subject), "measure", measure)
    reports = everything.measure(backends.select("cpu"), repeats=5)
    names = [report.subject for report in reports]
    assert names[:2] == ["training"] * 2 and names[-1] == "loop"
    assert sorted(names[2:]) == list(subjects)
    assert {report.subject: dict(report.failures) for report in reports}["loss"] == {
        "loss": "no luck"
    }
    assert reports[0].about == {"repeats": 5}
