"""Fixtures every tier shares.

Threads are pinned before any framework loads: two spinning pools on a busy box crawl.
"""

import os
import signal
from pathlib import Path

import pytest

# A job in a shell's background starts with Ctrl-C ignored, and would hand that on to every process
# that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# torch.compile's pool of compilers starts slower than it helps.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# Tiers whose files take a minute rather than a second, first.
SLOW = ("smoke", "exploits", "backends", "kernels")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Files go to xdist's workers in the order below, not by how many tests they hold."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a fifth of the time tests wait, for processes and disks."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tiers first: a long file at the end would leave the other workers idle."""
    order = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))


@pytest.fixture
def shared_data() -> Path:
    """Folder of real text beside the checkout; a fresh clone has none and the test skips."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return SHARED


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache root of this test's own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(root))
    return root


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices that leave no speed to be measured: probes take up to a minute.

    In a sandbox each process would measure anew, since it may not write the figures down.
    """
    for name, value in (("DTYPE", "float32"), ("COMPILE", "0"), ("ATTENTION", "sdpa")):
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
