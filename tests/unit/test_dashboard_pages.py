"""The dashboard's pages, asked in this process: what they show, refuse and write."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from autoresearch.dashboard import pages
from autoresearch.dashboard.follower import Follower
from autoresearch.dashboard.guard import COOKIE, Keys
from autoresearch.dashboard.machine import Machine, read_nvidia, read_rocm
from autoresearch.dashboard.pages import attachment, make_app
from autoresearch.dashboard.views import Query, page_of
from autoresearch.engine.control import PAUSE, STOP
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.program import EndsNotes, NotesChanged, notes_section, write_notes
from autoresearch.sampling import TEXT_NAME
from autoresearch.study import Study
from autoresearch.taskfile.scaffold import make_task
from tests.unit.synthetic import make_study

HERE = "http://127.0.0.1:8642"
Ask = Callable[..., httpx.Response]


def asking(folder: Path) -> Ask:
    """What the right browser is answered about the study of a folder."""
    follower, keys = Follower(folder), Keys()
    app = make_app(follower, keys)
    headers = {"Cookie": f"{COOKIE}={keys.cookie}", "Origin": HERE}

    async def send(path: str, form: dict[str, str] | None) -> httpx.Response:
        await follower.refresh()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=headers) as client:
            url = f"/{keys.room}/{path}"
            return await (client.get(url) if form is None else client.post(url, data=form))

    return lambda path="", form=None: asyncio.run(send(path, form))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "study"
    make_study(folder, 130, points=30)
    run = folder / ".autoresearch" / "runs" / "synthetic" / "0005"
    (run / "candidate-0").mkdir(parents=True)
    (run / "candidate-0" / "train.log").write_text("step 1 <script>alert(1)</script>\n\x1b[2Jend")
    (run / "change.diff").write_text("--- a\n+++ b\n@@ -1 +1 @@\n-x = '<b>'\n+x = '</pre><i>'\n")
    (run / "secret.txt").write_text("not a log")
    kept = folder / ".autoresearch" / "weights" / "synthetic"
    kept = kept / f"{Study.read(folder).state.champion:04d}"
    kept.mkdir(parents=True)
    (kept / "weights.safetensors").write_bytes(b"w" * 5_000)
    text = {"prompt": "<b>One", "text": " day</pre><script>alert(1)</script>\x1b[2J", "seed": 7}
    (kept / TEXT_NAME).write_text(json.dumps(text))
    return folder


@pytest.fixture(scope="module")
def ask(folder: Path) -> Ask:
    return asking(folder)


@pytest.mark.parametrize("path", ["", "trial/0", "trial/5", "champion", "machine", "notes"])
def test_every_page_is_whole_and_holds_no_markup_of_others(ask: Ask, path: str) -> None:
    answer = ask(path)
    assert answer.status_code == 200, answer.text
    text = answer.text
    assert text.count("<h1") == 1 and "</html>" in text and '<html lang="en"' in text
    assert "<script>" not in text and "<b>bold" not in text and "<i>shapes" not in text
    assert not re.search(r"\son\w+=|style=|javascript:|https?://", text)


def test_a_trial_shows_its_edit_log_curve_and_neighbours(ask: Ask) -> None:
    text = ask("trial/5").text
    assert "<script>" not in text and "step 1 &lt;script&gt;alert(1)" in text and "\x1b" not in text
    assert '<span class="add">+x = &#39;&lt;/pre&gt;&lt;i&gt;&#39;' in text
    assert "/trial/4" in text and "/trial/6" in text and "causality" in text
    chart = ask("trial/5/curve").json()
    assert len(chart["data"]["own"]) == len(chart["data"]["champion"]) == 30
    assert "Training loss as a table" in text


def test_logs_are_read_by_name_alone(ask: Ask) -> None:
    whole = ask("trial/5/log/candidate-0/train.log")
    assert whole.text == "step 1 <script>alert(1)</script>\nend"
    assert whole.headers["content-type"].startswith("text/plain")
    for name in ("secret.txt", "../secret.txt", "candidate-0/../secret.txt", "%2e%2e/secret.txt"):
        assert ask(f"trial/5/log/{name}").status_code == 404


def test_what_is_not_there_is_404(ask: Ask) -> None:
    for path in ("trial/999", "trial/999/curve", "chart/nothing", "champion/../x", "nowhere"):
        assert ask(path).status_code == 404


def test_the_champions_files_are_for_saving(ask: Ask, folder: Path) -> None:
    text = ask("champion").text
    state = Study.read(folder).state
    assert f"/trial/{state.champion}" in text and "Lineage" in text
    # None of the synthetic trials is in git, which the page says.
    assert "aren&#39;t in git" in text or "aren't in git" in text
    assert ask("champion/train.py").status_code == 404


def test_the_champions_text_is_shown_as_text(ask: Ask, folder: Path) -> None:
    text = ask("champion").text
    assert "<mark>&lt;b&gt;One</mark> day&lt;/pre&gt;&lt;script&gt;" in text and "\x1b" not in text
    assert "seed 7" in text and "weights are kept (0.0 MB)" in text
    kept = next(folder.glob(f".autoresearch/weights/*/*/{TEXT_NAME}"))
    before = kept.read_text()
    for wrong in ("not JSON", '{"text": 7}', "[]"):
        kept.write_text(wrong)
        assert "No text yet" in ask("champion").text
    kept.write_text(before)


def test_a_file_is_saved_under_its_name_in_any_script() -> None:
    header = attachment('src/模型 "x"\r\n.py')
    assert header.encode("latin-1").isascii() and header.count('"') == 2 and "\r" not in header
    assert "filename*=UTF-8''%E6%A8%A1%E5%9E%8B%20" in header


def test_a_file_of_the_champion_is_saved_and_never_a_page(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = b"<script>alert(1)</script>"
    monkeypatch.setattr(pages.Pages, "_files", lambda self: {"src/模型.py": program})
    assert "src/%E6%A8%A1%E5%9E%8B.py" in ask("champion").text
    answer = ask("champion/src/模型.py")
    assert answer.status_code == 200 and answer.content == program
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")


def test_charts_come_with_data_and_both_themes(ask: Ask) -> None:
    chart = ask("chart/progress").json()
    assert len(chart["data"]["trials"]) == 131 and chart["spec"]["layer"]
    assert {"background"} <= chart["light"].keys() & chart["dark"].keys()
    assert "seconds" not in chart["data"]["trials"][0]


# -- the table -----------------------------------------------------------------------------------


def ids(answer: httpx.Response) -> list[int]:
    return [int(number) for number in re.findall(r'data-trial="(\d+)"', answer.text)]


def test_pages_of_trials_hold_each_once(ask: Ask) -> None:
    pages = [ids(ask(f"trials?page={page}")) for page in (1, 2, 3)]
    assert [number for page in pages for number in page] == list(range(130, -1, -1))
    assert ids(ask("trials?page=99")) == pages[-1]
    assert ids(ask("trials?page=x&order=y&status=z")) == pages[0]
    assert 'aria-label="Pages of trials"' in ask("trials").text


def test_trials_are_found_by_status_and_words(ask: Ask, folder: Path) -> None:
    trials = Study.read(folder).state.trials.values()
    crashed = [t.id for t in trials if t.status == "crash"]
    assert sorted(ids(ask("trials?status=crash"))) == crashed
    assert set(ids(ask("trials?words=softcap+15"))) == {n for n in range(1, 131) if n % 6 == 3}
    assert "No trial fits" in ask("trials?words=nothing+of+the+kind").text


def test_orders(ask: Ask) -> None:
    rows = [
        {"id": n, "score": score, "gain": gain, "status": "discard", "idea": "", "reason": ""}
        | {"confidence": None, "delta": None, "finished_at": ""}
        for n, (score, gain) in enumerate([(2.0, -1.0), (1.0, 0.0), (None, None), (3.0, -2.0)])
    ]

    def order(name: str, direction: str = "minimize") -> list[int]:
        page = page_of(rows, Query(order=name), direction)
        return [row["id"] for row in page.rows]

    assert order("newest") == [3, 2, 1, 0] and order("oldest") == [0, 1, 2, 3]
    assert order("best") == [1, 0, 3, 2] and order("best", "maximize") == [3, 0, 1, 2]
    assert order("gain") == [1, 0, 3, 2]


# -- writing -------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    make_study(tmp_path / "study", 2, points=2)
    return tmp_path / "study"


def test_a_run_that_is_not_there_is_not_controlled(own: Path) -> None:
    answer = asking(own)("control", {"wish": "stop"})
    assert answer.status_code == 400 and "No run is under way" in answer.text
    assert Study.read(own).control.asked() == ""


def test_a_run_is_paused_resumed_and_stopped(own: Path) -> None:
    (own / ".autoresearch").mkdir(exist_ok=True)
    now = {"at": 1.0, "loop": {"since": 1.0, "limits": {}, "trials_before": 0}}
    (own / ".autoresearch" / "now.json").write_text(json.dumps(now))
    with Ledger(own / "results.jsonl"):  # somebody is writing
        ask = asking(own)
        control = Study.read(own).control
        for wish, asked in (("pause", PAUSE), ("resume", ""), ("stop", STOP)):
            answer = ask("control", {"wish": wish})
            assert answer.status_code == 303 and control.asked() == asked
            assert answer.headers["location"].endswith(f"/notes?said={wish}")
        assert ask("control", {"wish": "explode"}).status_code == 400
        assert ask("control", {}).status_code == 400
    assert control.asked() == STOP


def test_notes_are_added_and_rewritten(own: Path) -> None:
    ask, program = asking(own), own / "program.md"
    assert ask("notes", {"note": "try <b>less</b>"}).status_code == 303
    assert "try <b>less</b>" in program.read_text()
    assert "try &lt;b&gt;less" in ask("notes").text
    assert ask("notes", {"note": " "}).status_code == 400
    before = notes_section(program)
    assert ask("notes", {"notes": "only this", "before": before}).status_code == 303
    assert program.read_text() == "be bold\n\n## Notes\n\nonly this\n"
    late = ask("notes", {"notes": "from an old page", "before": before})
    assert late.status_code == 400 and "changed the notes meanwhile" in late.text
    assert "from an old page" in late.text and "only this" in late.text
    assert program.read_text() == "be bold\n\n## Notes\n\nonly this\n"
    assert ask("notes", {"notes": "x" * 300_000, "before": "only this"}).status_code == 400


def test_notes_that_the_disk_refuses_are_not_lost(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages, "write_notes", refuse)
    answer = asking(own)("notes", {"notes": "an hour of words", "before": ""})
    assert answer.status_code == 400 and "No space left" in answer.text
    assert "an hour of words" in answer.text


def test_a_task_study_has_pages_too(tmp_path: Path) -> None:
    make_task(tmp_path / "task")
    ask = asking(tmp_path / "task")
    for path in ("", "champion", "machine", "notes"):
        answer = ask(path)
        assert answer.status_code == 200 and (path or "No trial" in answer.text)
    assert ask("notes", {"note": "be brief"}).status_code == 303
    assert "be brief" in (tmp_path / "task" / "program.md").read_text()


# -- notes as text -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "notes", "after"),
    [
        ("", "a", "## Notes\n\na\n"),
        ("aim\n", "a\nb", "aim\n\n## Notes\n\na\nb\n"),
        (
            "aim\n\n## Notes\n\nold\n\n## More\n\nx\n",
            "new",
            "aim\n\n## Notes\n\nnew\n\n## More\n\nx\n",
        ),
        ("aim\r\n\r\n## Notes\r\n\r\nold\r\n", "a\nb", "aim\r\n\r\n## Notes\r\n\r\na\r\nb\r\n"),
        ("## Notes\n\nold\n", "", "## Notes\n"),
        (
            "## Notes\n- old",
            "### sub\n\n```\n# code\n```",
            "## Notes\n\n### sub\n\n```\n# code\n```\n",
        ),
    ],
)
def test_notes_are_written_in_their_section(
    tmp_path: Path, text: str, notes: str, after: str
) -> None:
    path = tmp_path / "program.md"
    path.write_bytes(text.encode())
    write_notes(path, notes, notes_section(path), tmp_path)
    assert path.read_bytes().decode() == after
    assert notes_section(path) == notes


def test_notes_that_would_not_stay_notes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.md"
    after = "\n## More\n\n```\ncode\n```\n"
    path.write_text(f"aim\n\n## Notes\n\nold\n{after}")
    for text in ("a\n# Aim", "## More", "## Notes\n\nx", "```\nleft open"):
        with pytest.raises(EndsNotes):
            write_notes(path, text, "old", tmp_path)
    with pytest.raises(NotesChanged):
        write_notes(path, "a", "older", tmp_path)
    assert path.read_text() == f"aim\n\n## Notes\n\nold\n{after}"


# -- the machine ---------------------------------------------------------------------------------


def test_the_machine_is_measured_and_gaps_are_named(tmp_path: Path) -> None:
    look = Machine(tmp_path)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:  # busy itself
        pass
    told = asyncio.run(asyncio.to_thread(look))
    names = [meter["name"] for meter in told["meters"]]
    assert names[:2] == ["Processor", "Memory"] and "Disk" in names
    assert told["meters"][0]["share"] > 0
    assert all(0 <= meter["share"] <= 1 and meter["words"] for meter in told["meters"])


def test_what_gpu_tools_print_is_read() -> None:
    busy, memory = read_nvidia("NVIDIA H200, 93, 1024, 143771, 61, 640.5")
    assert (busy["name"], busy["share"], busy["words"]) == (
        "NVIDIA H200",
        0.93,
        "93%, 61 °C, 640 W",
    )
    assert memory["words"] == "1.1 of 150.8 GB"
    assert read_nvidia("Spark GB10, 7, [N/A], [N/A], 40, [N/A]")[0]["words"] == "7%, 40 °C"
    card = {
        "GPU use (%)": "88",
        "GPU Memory Allocated (VRAM%)": "12",
        "Temperature (Sensor edge) (C)": "51.0",
    }
    assert [m["words"] for m in read_rocm("card0", card)] == ["88%, 51 °C", "12%"]
    assert read_rocm("card0", {}) == []
