"""torch.compile, set up for models and optimizers that one process trains.

    fast = compiled(fn, policy, device)      # fn itself where the policy doesn't compile

Its caches and headers on a CPU: `compiled_headers`; what train.py calls: `torch_runtime.compile`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from backends import compiled_headers
from backends.policy import Policy

GRAPHS_PER_FUNCTION = 64


def compiled(fn: Callable[..., Any], policy: Policy, device: torch.device) -> Callable[..., Any]:
    """`fn` as one graph for each set of shapes, compiled when it is called."""
    if not policy.compile:
        return fn
    # An optimizer step meets every shape of the model, with one graph each; torch's limit is 8,
    # and behind it a full graph is an error. (Not torch.compile's argument: 2.9 has none.)
    limits = torch._dynamo.config
    limits.recompile_limit = max(GRAPHS_PER_FUNCTION, limits.recompile_limit)
    # The loss and dense attention are autograd.Functions, for which torch doesn't keep compiled
    # graphs unless told: a warm start then traced and partitioned the whole model anew, 10 s
    # instead of 4. What such a function does is part of the cache's key; a test changes one.
    torch._functorch.config.autograd_cache_allow_custom_autograd_functions = True
    if device.type == "cpu":
        compiled_headers.use()
        _keep_embedding_gradient()
    return torch.compile(fn, dynamic=False, fullgraph=True, mode=policy.compile_mode or None)


def _keep_embedding_gradient() -> None:
    """Have torch's own kernel make the gradients of embeddings in what is compiled for a CPU.

    The compiler would add to them number by number, with a lock each and in the order of chance:
    2% of a step at T 256. Its tables are private: where they have moved it does so still.
    """
    try:  # takes a second and a half
        from torch._inductor.decomposition import decompositions
        from torch._inductor.lowering import make_fallback
    except ImportError:
        return
    gradient = torch.ops.aten.embedding_dense_backward.default
    if decompositions.pop(gradient, None) is not None:
        make_fallback(gradient, warn=False)  # asked for: no error where CI is set
