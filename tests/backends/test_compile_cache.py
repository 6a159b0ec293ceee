"""What torch.compile keeps on disk: found again by the same program, and by no other."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json
from backends import runtime, torch


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin() * FORWARD

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * x.cos() * BACKWARD


x = torch.ones(4, requires_grad=True)
y = runtime.compile(lambda x: Scaled.apply(x).sum())(x)
y.backward()
counts = torch._dynamo.utils.counters["aot_autograd"]
print(json.dumps([y.item(), x.grad[0].item(), counts["autograd_cache_hit"]]))
"""


def outcome(cache: Path, forward: float, backward: float) -> tuple[float, float, int]:
    """Loss, gradient and how many graphs were found in `cache`."""
    environment = {
        **os.environ,
        "AUTORESEARCH_BACKEND": "cpu",
        "AUTORESEARCH_DTYPE": "float32",
        "AUTORESEARCH_COMPILE": "1",
        "AUTORESEARCH_ATTENTION": "sdpa",
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    program = PROGRAM.replace("FORWARD", str(forward)).replace("BACKWARD", str(backward))
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    loss, gradient, hits = json.loads(done.stdout.splitlines()[-1])
    return round(loss, 4), round(gradient, 4), hits


def test_a_custom_gradient_is_found_again_and_a_changed_one_is_not(tmp_path):
    sine, cosine = 0.841471, 0.540302
    assert outcome(tmp_path, 2.0, 1.0) == (round(8 * sine, 4), round(cosine, 4), 0)
    assert outcome(tmp_path, 2.0, 1.0) == (round(8 * sine, 4), round(cosine, 4), 1)
    assert outcome(tmp_path, 3.0, 1.0) == (round(12 * sine, 4), round(cosine, 4), 0)
    assert outcome(tmp_path, 2.0, 5.0) == (round(8 * sine, 4), round(5 * cosine, 4), 0)
