"""What `bench` compares and shows: ratios round by round, files of results, regressions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch.bench import results
from autoresearch.bench.samples import LOWER, Figure, Ratio, Report, interleave
from prepare.errors import CorruptFile
from tests.unit.benchmark_scripts import benchmark

CONDITIONS = {
    "device": "a CPU",
    "backend": "cpu",
    "cpu_count": 2,
    "os": "Linux",
    "versions": {"torch": "2.13"},
    "load_average": [0.1, 0.2],
    "others_cpu_share": 0.01,
    "began": "2026-01-01T00:00:00+00:00",
}


def document(*ratios: Ratio, depth: int = 4) -> dict:
    report = Report("training", {"depth": depth}, (Figure("a", (1.0,), "tokens/s"),), ratios)
    return results.to_document([report], CONDITIONS)


def test_variants_take_turns_and_progress_is_told() -> None:
    order: list[str] = []
    told: list[int] = []

    def variant(name: str, seconds: float):
        def measure() -> float:
            order.append(name)
            return seconds

        return measure

    taken = interleave(
        {"a": variant("a", 1.0), "b": variant("b", 2.0)},
        3,
        lambda name, data: told.append(data["done"]),
    )
    assert order == ["a", "b"] * 3
    assert taken == {"a": (1.0,) * 3, "b": (2.0,) * 3}
    assert told == list(range(6))


def test_a_ratio_is_made_round_by_round() -> None:
    # A machine half as fast in the second round: the speeds differ twofold, the ratio doesn't.
    ratio = Ratio.of("a / b", [4.0, 2.0, 4.4], [2.0, 1.0, 2.0])
    assert ratio.samples == (2.0, 2.0, 2.2)
    assert (ratio.median, ratio.lowest, ratio.highest) == (2.0, 2.0, 2.2)
    with pytest.raises(ValueError):
        Ratio.of("a / b", [1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("now", "better", "regressed"),
    [
        ((1.5, 1.6, 1.7), "higher", True),
        ((1.5, 1.7, 2.1), "higher", False),  # the spread reaches the earlier median
        ((1.9, 1.9, 1.9), "higher", False),  # below, but within the earlier spread
        ((2.5, 2.6, 2.7), "higher", False),
        ((2.5, 2.6, 2.7), LOWER, True),
        ((1.5, 1.6, 1.7), LOWER, False),
    ],
)
def test_a_regression_is_beyond_both_spreads(now: tuple, better: str, regressed: bool) -> None:
    before = document(Ratio("a / b", (1.8, 2.0, 2.2), better))
    (line,) = results.compare(document(Ratio("a / b", now, better)), before)
    assert line.regressed == regressed
    assert (line.change < 0) == (line.now < 2.0 if better == "higher" else line.now > 2.0)


def test_what_is_small_is_no_regression() -> None:
    before = document(Ratio("a / b", (2.0, 2.0, 2.0)))
    (line,) = results.compare(document(Ratio("a / b", (1.92, 1.92, 1.92))), before)
    assert not line.regressed
    (line,) = results.compare(document(Ratio("a / b", (1.88, 1.88, 1.88))), before)
    assert line.regressed


def test_other_sizes_are_not_compared() -> None:
    ratio = Ratio("a / b", (1.0,))
    assert results.compare(document(ratio), document(ratio, depth=8)) == []
    assert results.compare(document(ratio), document(Ratio("a / c", (1.0,)))) == []


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(CorruptFile):
        results.read(path)
    path.write_text("{}")
    with pytest.raises(CorruptFile):
        results.read(path)
    path.write_text(json.dumps(document(Ratio("a / b", (1.0,)))))
    assert results.read(path)["reports"][0]["subject"] == "training"


def test_the_table_says_ratios_figures_and_conditions() -> None:
    text = results.markdown(document(Ratio("a|b", (1.0, 2.0, 4.0))))
    assert "| training | a\\|b | 2 | 1 to 4 | higher |" in text
    assert "| training | a | 1 |  | tokens/s |" in text
    assert "a CPU (cpu), 2 cores" in text and "load average 0.1 to 0.2" in text
    assert "- training: depth 4" in text


def test_the_readme_has_the_tables_of_the_results(tmp_path: Path) -> None:
    with benchmark("tables") as script:
        readme = (script.HERE / "README.md").read_text(encoding="utf-8")
        made = script.tables(script.HERE / "results")
        assert script.with_tables(readme, made) == readme, "run python benchmarks/tables.py"

        (tmp_path / "box.json").write_text(json.dumps(document(Ratio("a / b", (2.0,)))))
        (tmp_path / "other.json").write_text('{"rows": []}')
        made = script.tables(tmp_path)
        assert made.startswith("### box\n") and "| a / b | 2 |" in made and "### other" not in made
        text = f"before {script.BEGIN} old {script.END} after"
        assert script.with_tables(text, made) == (
            f"before {script.BEGIN}\n\n{made}\n{script.END} after"
        )
        with pytest.raises(ValueError):
            script.with_tables("no marks", made)


def test_a_plot_has_a_bar_per_backend() -> None:
    ratios = [Ratio(f"MFU of cpu, {peak}", (0.4, 0.5)) for peak in ("measured peak", "datasheet")]
    report = Report("mfu", {}, (), tuple(ratios))
    with benchmark("plot") as script:
        found = script.bars({"ci-cpu": results.to_document([report], CONDITIONS)})
        assert [(label, ratio["median"]) for label, ratio in found] == [("cpu\nci-cpu", 0.45)]
