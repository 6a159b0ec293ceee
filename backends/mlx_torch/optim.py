"""torch.optim over MLX: the base class and SGD, Adam, AdamW with torch's formulas.

Hyperparameters stay Python numbers or float32 0-d tensors: cast to bfloat16, 1 - beta2 = 0.05
would be off by a quarter of a percent and 0.999 would be 1.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from backends.mlx_torch._create import zeros_like
from backends.mlx_torch._errors import missing, wrong_framework
from backends.mlx_torch._grad_mode import no_grad
from backends.mlx_torch._tensor import Tensor

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]


class Optimizer:
    """Holds param_groups (dicts with 'params') and per-parameter state; subclasses write step()."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("the optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group; a parameter may be in one group only."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        for p in params:
            if not isinstance(p, Tensor):
                wrong_framework(p, "an nn.Parameter")
        seen = {id(p) for g in self.param_groups for p in g["params"]}
        if any(id(p) in seen for p in params) or len({id(p) for p in params}) < len(params):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append({**self.defaults, **group, "params": params})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop (or zero) the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None if set_to_none or p.grad is None else zeros_like(p.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no step()")

    def state_dict(self) -> dict[str, Any]:
        """State by parameter number, and the groups without their tensors."""
        order = [p for g in self.param_groups for p in g["params"]]
        number = {id(p): i for i, p in enumerate(order)}
        groups = [{**g, "params": [number[id(p)] for p in g["params"]]} for g in self.param_groups]
        return {"state": {number[id(p)]: s for p, s in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what state_dict() gave."""
        order = [p for g in self.param_groups for p in g["params"]]
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in saved.items() if k != "params"})
        self.state = defaultdict(dict, {order[i]: s for i, s in state_dict["state"].items()})

    def _each(self) -> Iterable[tuple[dict[str, Any], Tensor, Tensor, dict[str, Any]]]:
        """(group, parameter, gradient, state) of all that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    yield group, p, -p.grad if group.get("maximize") else p.grad, self.state[p]


class SGD(Optimizer):
    """torch.optim.SGD."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    @no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update."""
        for group, p, grad, state in self._each():
            if group["weight_decay"]:
                grad = grad.add(p, alpha=group["weight_decay"])
            if group["momentum"]:
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = grad.clone()
                else:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(
                        grad, alpha=1 - group["dampening"]
                    )
                buffer = state["momentum_buffer"]
                grad = grad.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
            p.add_(grad, alpha=-group["lr"])


class Adam(Optimizer):
    """torch.optim.Adam; weight decay is added to the gradient."""

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    @no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update."""
        for group, p, grad, state in self._each():
            if not state:
                state.update(step=0, exp_avg=zeros_like(p), exp_avg_sq=zeros_like(p))
                if group["amsgrad"]:
                    state["max_exp_avg_sq"] = zeros_like(p)
            state["step"] += 1
            self._update(p, grad, state, group)

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        if decay and self.decoupled:
            p.mul_(1 - lr * decay)
        elif decay:
            grad = grad.add(p, alpha=decay)
        state["exp_avg"].lerp_(grad, 1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        if group["amsgrad"]:
            second = state["max_exp_avg_sq"].copy_(state["max_exp_avg_sq"].maximum(second))
        correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        denominator = (second.sqrt() / correction2**0.5).add_(group["eps"])
        p.addcdiv_(state["exp_avg"], denominator, value=-(lr / correction1))


class AdamW(Adam):
    """torch.optim.AdamW; weight decay is decoupled, 0.01 unless told."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **kwargs)


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    missing("torch.optim", name, [n for n in vars(sys.modules[__name__]) if n in __all__])
