"""What torch.compile keeps on disk: found again by the same program, and by no other."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Products of matrices alone: the C++ compiler, which takes most of a cold start, has nothing to do.
PROGRAM = """
import json, sys
from backends import runtime, torch

FUNCTION = '''
class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.addmm(x, x, x, beta=0, alpha=FORWARD)

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return torch.addmm(x, x, upstream, beta=0, alpha=BACKWARD)
'''
hits = torch._dynamo.utils.counters["aot_autograd"]
for forward, backward in json.loads(sys.argv[1]):
    torch._dynamo.reset()
    before = hits["autograd_cache_hit"]
    names = {"torch": torch}
    exec(FUNCTION.replace("FORWARD", str(forward)).replace("BACKWARD", str(backward)), names)
    x = torch.eye(4, requires_grad=True)
    y = runtime.compile(names["Scaled"].apply)(x)
    y.backward(torch.eye(4))
    print(json.dumps([y[0, 0].item(), x.grad[0, 0].item(), hits["autograd_cache_hit"] - before]))
"""


def outcomes(cache: Path, *scales: tuple[float, float]) -> list[list[float]]:
    """Of a process that compiles each in turn: value, gradient, and graphs found in `cache`."""
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
    command = [sys.executable, "-c", PROGRAM, json.dumps(scales)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_custom_gradient_is_found_again_and_a_changed_one_is_not(tmp_path):
    assert outcomes(tmp_path, (2.0, 1.0)) == [[2.0, 1.0, 0]]
    again, forward, backward = outcomes(tmp_path, (2.0, 1.0), (3.0, 1.0), (2.0, 5.0))
    assert again == [2.0, 1.0, 1]
    assert forward == [3.0, 1.0, 0]
    assert backward == [2.0, 5.0, 0]
