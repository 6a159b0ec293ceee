"""Speed figures: run once in a process of their own, kept, and never in the way."""

import json
import sys
import textwrap
import warnings
from dataclasses import replace

import pytest

from backends import speed
from backends.hardware import detect
from backends.policy import Figure, Overrides, Question, probe_shape
from backends.probe_process import RESTART, Request, interleaved
from tests.unit import machines as fake

CPU = detect("cpu", fake.machine())[0]
COMPILE = (Question("compile", ("eager", "compiled")),)
ATTENTION = (Question("attention", ("flash", "flex", "sdpa")),)


class Runner:
    """Stands in for the probe process and counts."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request):
        self.requests.append(request)
        for question in request.questions:
            for rank, variant in enumerate(question.variants):
                yield Figure(question.item, variant, 0.1 * (rank + 1))


def test_measured_once_and_then_read(cache):
    runner = Runner()
    first = speed.measure(CPU, COMPILE, run=runner)
    assert [figure.variant for figure in first] == ["eager", "compiled"]
    assert speed.measure(CPU, COMPILE, run=runner) == first
    assert len(runner.requests) == 1
    assert list((cache / "probes").glob("*.json"))


def test_probes_are_announced_when_they_run_and_only_then(cache):
    told = []
    for _ in range(2):
        with speed.announced(lambda: told.append("probing")):
            speed.measure(CPU, COMPILE, run=Runner())
    assert told == ["probing"]
    speed.forget()
    speed.measure(CPU, COMPILE, run=Runner())
    assert told == ["probing"], "nobody listens any more"


def test_only_what_is_missing_is_measured(cache):
    runner = Runner()
    speed.measure(CPU, COMPILE, run=runner)
    both = speed.measure(CPU, (*COMPILE, *ATTENTION), run=runner)
    assert {figure.item for figure in both} == {"compile", "attention"}
    assert [q.item for q in runner.requests[1].questions] == ["attention"]
    only = speed.measure(CPU, COMPILE, run=runner)
    assert {figure.item for figure in only} == {"compile"}
    assert len(runner.requests) == 2


def test_silence_of_a_busy_machine_is_not_remembered(cache):
    def silent(request: Request):
        yield Figure("compile", "eager", 0.1)
        yield Figure("compile", "compiled", None, speed.NO_ANSWER)

    speed.measure(CPU, COMPILE, run=silent)
    runner = Runner()
    assert all(figure.seconds for figure in speed.measure(CPU, COMPILE, run=runner))
    assert len(runner.requests) == 1


def test_forgetting_measures_again(cache):
    runner = Runner()
    speed.measure(CPU, COMPILE, run=runner)
    speed.forget()
    assert speed.measured_figures() == {}
    speed.measure(CPU, COMPILE, run=runner)
    assert len(runner.requests) == 2


def test_another_device_version_or_type_is_measured_anew(cache):
    runner = Runner()
    speed.measure(CPU, COMPILE, run=runner)
    speed.measure(CPU, COMPILE, Overrides(dtype="bfloat16"), run=runner)
    speed.measure(detect("auto", fake.H100)[0], COMPILE, run=runner)
    newer = fake.machine(torch=fake.TorchFacts("2.14.0+cpu"))
    speed.measure(detect("cpu", newer)[0], COMPILE, run=runner)
    assert len(runner.requests) == 4
    assert runner.requests[1].dtype == "bfloat16"


def test_no_question_runs_and_writes_nothing(cache):
    assert speed.measure(CPU, (), run=Runner()) == ()
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"figures": [{"item": 1}]}', "\x00\xff"])
def test_a_corrupt_cache_is_measured_again_with_a_warning(cache, content):
    runner = Runner()
    good = speed.measure(CPU, COMPILE, run=runner)
    path = next((cache / "probes").glob("*.json"))
    path.write_text(content, encoding="latin-1")
    with pytest.warns(UserWarning, match="can't be read"):
        assert speed.measure(CPU, COMPILE, run=runner) == good
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert speed.measure(CPU, COMPILE, run=runner) == good
    assert len(runner.requests) == 2


def test_an_unwritable_cache_is_a_warning(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(blocked))
    with pytest.warns(UserWarning, match="speed figures") as caught:
        figures = speed.measure(CPU, COMPILE, run=Runner())
    assert len(figures) == 2
    assert any("AUTORESEARCH_CACHE" in str(warning.message) for warning in caught)


def test_figures_are_shown_by_backend_and_item(cache):
    def run(request):
        yield Figure("attention", "flash", None, "no kernel image")
        yield Figure("attention", "sdpa", 0.0125)

    assert speed.measured_figures() == {}
    speed.measure(CPU, (Question("attention", ("flash", "sdpa")),), run=run)
    assert speed.measured_figures() == {
        "cpu attention": {"flash": "failed: no kernel image", "sdpa": "12.5 ms"}
    }


def probe_process(tmp_path, body: str) -> tuple[str, ...]:
    """A command that stands in for the probe process: `say` sends a line, `request` was read."""
    script = tmp_path / "probe.py"
    prelude = """
        import json, os, sys
        request = json.loads(sys.stdin.read())
        def say(**message): print(json.dumps(message), flush=True)
        def figure(item, variant, seconds, failure=""):
            say(figure={"item": item, "variant": variant, "seconds": seconds, "failure": failure})
        known = {f["variant"] for f in request["known"]}
        variants = [v for v in request["questions"][0]["variants"] if v not in known]
    """
    script.write_text(textwrap.dedent(prelude) + textwrap.dedent(body))
    return (sys.executable, str(script))


def figures_of(command) -> dict[str, Figure]:
    request = Request(CPU, ATTENTION, probe_shape(CPU))
    return {figure.variant: figure for figure in speed.run_in_process(request, command)}


def test_a_variant_that_kills_its_process_is_blamed_and_the_rest_is_measured(tmp_path):
    body = """
        for variant in variants:
            say(start=["attention", variant])
            if variant == "flash":
                sys.stderr.write("illegal instruction\\n"); sys.stderr.flush()
                os._exit(9)
        for variant in variants:
            figure("attention", variant, 0.5)
    """
    found = figures_of(probe_process(tmp_path, body))
    assert found["flash"].seconds is None
    assert "status 9" in found["flash"].failure
    assert "illegal instruction" in found["flash"].failure
    assert found["flex"].seconds == found["sdpa"].seconds == 0.5


def test_a_broken_device_context_gets_a_new_process(tmp_path):
    body = f"""
        for variant in variants:
            say(start=["attention", variant])
            if variant == "flex":
                figure("attention", "flex", None, "CUDA error: illegal memory access")
                os._exit({RESTART})
        for variant in variants:
            figure("attention", variant, 0.5)
    """
    found = figures_of(probe_process(tmp_path, body))
    assert "illegal memory access" in found["flex"].failure
    assert found["flash"].seconds == found["sdpa"].seconds == 0.5


def test_a_variant_that_hangs_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "LAUNCH_SECONDS", 1.0)
    body = """
        for variant in variants:
            say(start=["attention", variant])
            if variant == "flash":
                import time; time.sleep(60)
        for variant in variants:
            figure("attention", variant, 0.5)
    """
    found = figures_of(probe_process(tmp_path, body))
    assert found["flash"].failure == speed.NO_ANSWER
    assert found["sdpa"].seconds == 0.5


def test_a_process_that_never_starts_fails_every_variant_with_its_reason(tmp_path):
    found = figures_of(probe_process(tmp_path, "raise SystemExit('torch is broken')"))
    assert set(found) == {"flash", "flex", "sdpa"}
    assert all("torch is broken" in figure.failure for figure in found.values())


def test_interleaving_takes_turns_and_stops_in_time():
    now, order = [0.0], []

    def step(name: str, seconds: float):
        def run() -> None:
            order.append(name)
            now[0] += seconds

        return run

    medians = interleaved({"a": step("a", 0.1), "b": step("b", 0.2)}, 2.0, lambda: now[0])
    assert medians == {"a": pytest.approx(0.1), "b": pytest.approx(0.2)}
    assert order[:4] == ["a", "b", "a", "b"]
    assert now[0] < 2.5
    order.clear()
    slow = interleaved({"a": step("a", 0.1), "b": step("b", 40.0)}, 2.0, lambda: now[0])
    assert order == ["a", "b"]  # a variant 400 times slower is run once
    assert slow["b"] == pytest.approx(40.0)
    assert interleaved({}, 2.0, lambda: now[0]) == {}


def test_a_request_survives_json():
    request = Request(CPU, ATTENTION, probe_shape(CPU), "bfloat16", [Figure("dtype", "x", None)])
    assert Request.read(request.dumps()) == request
    assert json.loads(request.dumps())["dtype"] == "bfloat16"


def test_the_real_probe_runs_here(cache):
    pytest.importorskip("torch")
    hardware = detect("cpu")[0]
    asked = (
        Question("dtype", ("float32", "bfloat16")),
        Question("attention", ("block_local", "no_such_thing")),
    )
    found = {(f.item, f.variant): f for f in speed.measure(hardware, asked)}
    assert found["dtype", "float32"].seconds > 0
    assert found["dtype", "bfloat16"].seconds > 0
    assert found["attention", "block_local"].seconds > 0
    assert found["attention", "no_such_thing"].seconds is None
    assert "no such implementation" in found["attention", "no_such_thing"].failure


@pytest.mark.parametrize(
    ("asked", "known", "compiles"),
    [
        (None, (), False),
        (None, (Figure("compile", "eager", 2.0), Figure("compile", "compiled", 1.0)), True),
        (False, (Figure("compile", "eager", 2.0), Figure("compile", "compiled", 1.0)), False),
        (True, (), True),
    ],
)
def test_attention_is_compared_as_training_will_run_it(asked, known, compiles):
    hardware = replace(CPU, features=(*CPU.features, "cxx_compiler"))
    request = Request(hardware, ATTENTION, probe_shape(CPU), None, list(known), asked)
    assert Request.read(request.dumps()).compiles() is compiles
