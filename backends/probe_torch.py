"""The variants that torch can be asked to compare: types, compilation, attention, loss, gram.

Loaded only in a probe process. A step is one forward and backward pass on the device, waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from backends import attention, gram, softcap
from backends.hardware import Hardware
from backends.policy import compile_options, dtype_options

DEVICES = {"cuda": "cuda", "rocm": "cuda", "xpu": "xpu", "mps": "mps", "cpu": "cpu"}
VOCABULARY = 8192  # of the loss
LOSS_SCALE = 1024.0  # keeps float16 gradients of the small losses here from underflowing


class Probes:
    """Makes steps on one device."""

    def __init__(self, hardware: Hardware, shape: Mapping[str, int]) -> None:
        self.hardware = hardware
        self.shape = shape
        self.device = torch.device(DEVICES[hardware.backend])
        self.dtypes = dtype_options(hardware)[0]

    def step(self, item: str, variant: str, dtype: str, compiled: bool) -> Callable[[], None]:
        """A step for one variant of an item; `dtype` for all items but "dtype".

        compiled: whether training will be, which decides how an attention is launched.
        """
        if item == "attention":
            always = compile_options(self.hardware)[0] == ("compiled",)
            attention.launch_check(variant, self.hardware, dtype, compiled=always)
            return self._attention(variant, getattr(torch, dtype), compiled)
        make = {
            "dtype": self._dtype,
            "compile": self._compile,
            "loss": self._loss,
            "gram": self._gram,
        }[item]
        return make(variant, getattr(torch, variant if item == "dtype" else dtype))

    def alive(self) -> bool:
        """Whether the device still computes: some CUDA errors are for the process' whole life."""
        try:
            return float(torch.ones(2, device=self.device).sum()) == 2.0
        except RuntimeError:
            return False

    def _wait(self) -> None:
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def _pass(self, loss: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
        """Forward, backward and wait, with gradients dropped so that each pass does the same."""

        def step() -> None:
            for leaf in leaves:
                leaf.grad = None
            (loss() * LOSS_SCALE).backward()
            self._wait()

        return step

    def _leaf(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A random leaf that wants a gradient, the same for every variant."""
        generator = torch.Generator().manual_seed(shape[0])
        values = torch.randn(*shape, generator=generator) * shape[0] ** -0.5
        return values.to(self.device, dtype).requires_grad_()

    def _dtype(self, _: str, dtype: torch.dtype) -> Callable[[], None]:
        """A transformer block on fp32 master weights that are cast where they are used.

        One sequence: where bfloat16 is emulated, a pass can take hundreds of times longer.
        """
        tokens = self.shape["tokens"]
        heads, width = self.shape["heads"], self.shape["heads"] * self.shape["head_dim"]
        x = torch.randn(tokens, width, device=self.device).to(dtype)
        qkv, up = self._leaf(width, 3 * width), self._leaf(width, 4 * width)
        down = self._leaf(4 * width, width)

        def loss() -> Tensor:
            h = F.rms_norm(x, (width,)) @ qkv.to(dtype)
            q, k, v = h.view(1, tokens, 3, heads, width // heads).transpose(1, 3).unbind(2)
            h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = x + h.transpose(1, 2).reshape(tokens, width)
            h = F.relu(F.rms_norm(y, (width,)) @ up.to(dtype)).square()
            return (y + h @ down.to(dtype)).float().square().mean()

        return self._pass(loss, [qkv, up, down])

    def _compile(self, variant: str, dtype: torch.dtype) -> Callable[[], None]:
        """What fusion is for, and little else: elementwise work between two products.

        Small, because a real model's first compilation takes half a minute. Compiled gradients
        that differ from eager ones are a failure.
        """
        x = torch.randn(2048, 512, device=self.device).to(dtype)
        gain = self._leaf(512, dtype=dtype)

        def loss() -> Tensor:
            h = F.rms_norm(x * gain, (x.shape[-1],))
            return (x + F.relu(h).square()).float().square().mean()

        eager = self._pass(loss, [gain])
        if variant == "eager":
            return eager
        compiled = self._pass(torch.compile(loss, dynamic=False, fullgraph=True), [gain])
        eager()
        expected = gain.grad
        compiled()
        _agree(gain.grad, expected)
        return compiled

    def _attention(self, name: str, dtype: torch.dtype, compiled: bool) -> Callable[[], None]:
        """One windowed attention layer, whose first launch was checked against the reference."""
        function = attention.load(name, self.hardware)
        if compiled:  # what is made of many operations lives by their fusion
            function = torch.compile(function, dynamic=False, fullgraph=True)
        sizes = [self.shape[axis] for axis in ("batch", "tokens", "heads", "head_dim")]
        q, k, v = (self._leaf(*sizes, dtype=dtype) for _ in range(3))
        window = self.shape["window"]
        return self._pass(lambda: function(q, k, v, window).float().square().mean(), [q, k, v])

    def _loss(self, variant: str, dtype: torch.dtype) -> Callable[[], None]:
        """The soft-capped loss, compiled; other gradients than eager chunks give are a failure."""
        tokens = self.shape["batch"] * self.shape["tokens"]
        width = self.shape["heads"] * self.shape["head_dim"]
        x = torch.randn(tokens, width, device=self.device).to(dtype).requires_grad_()
        # Logits of a few nats, so that the cap bends them.
        weight = torch.randn(VOCABULARY, width, device=self.device) * (4 * width**-0.5)
        leaves = [x, weight.requires_grad_()]
        targets = torch.randint(VOCABULARY, (tokens,), device=self.device)
        targets[::7] = softcap.IGNORE_INDEX
        function = softcap.softcap_cross_entropy
        eager = self._pass(lambda: function(x, weight, targets, 15.0), leaves)
        eager()
        expected = [leaf.grad for leaf in leaves]
        if variant == "triton":
            from backends.kernels import softcap as kernel

            function = kernel.softcap_cross_entropy
        function = torch.compile(function, dynamic=False, fullgraph=True)
        step = self._pass(lambda: function(x, weight, targets, 15.0), leaves)
        step()
        for leaf, truth in zip(leaves, expected, strict=True):
            _agree(leaf.grad, truth)
        return step

    def _gram(self, variant: str, dtype: torch.dtype) -> Callable[[], None]:
        """Two products as in an orthogonalisation, compiled, against the same in fp32."""
        rows = self.shape["heads"] * self.shape["head_dim"]
        x = torch.randn(self.shape["batch"], rows, 4 * rows, device=self.device)
        x = x / x.square().sum(dim=(-2, -1), keepdim=True).sqrt()
        function = gram.gram
        if variant == "triton":
            from backends.kernels import gram as kernel

            function = kernel.gram

        def polynomial(x_NRS: Tensor, product: Callable[..., Tensor] = gram.gram) -> Tensor:
            once = product(x_NRS)
            return product(once, alpha=0.5, add=once, beta=-2.8)

        # train.py orthogonalises in fp32 where it computes in fp16.
        narrow = x.float() if dtype == torch.float16 else x.to(dtype)
        compiled = torch.compile(polynomial, dynamic=False, fullgraph=True)
        _agree(compiled(narrow, function), polynomial(x))

        def step() -> None:
            compiled(narrow, function)
            self._wait()

        return step


def _agree(found: Tensor | None, expected: Tensor | None) -> None:
    """Raise ArithmeticError, naming the largest difference, unless two tensors agree."""
    if found is None or expected is None:
        raise ArithmeticError("no gradient came back")
    difference = float((found.float() - expected.float()).abs().max())
    scale = float(expected.float().abs().max())
    if not difference <= 0.05 * scale:
        raise ArithmeticError(f"results differ by {difference:.3g} where they reach {scale:.3g}")
