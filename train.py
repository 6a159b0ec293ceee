"""The seed train module: a GPT, its optimizer and the training loop. The file the agent edits.

    python train.py          one experiment: train for the budget, print the summary with val_bpb

Plain PyTorch that runs unmodified on torch (CUDA, ROCm, MPS, XPU, CPU) and on MLX: `torch`, `nn`
and `F` come from `backends`, and `runtime` holds what PyTorch has no common name for. The harness
calls `build_model(spec)` and `train(model, run)`; it owns the data, the clock and the score.

Tensor names end in their axes:
    B batch   T time (tokens)   C model channels   V vocabulary
    H query heads   K key/value heads   D head channels   N stacked matrices   R rows   S columns

Mixed precision is explicit: matrices are fp32, the embeddings bring activations into
`runtime.compute_dtype`, and `Linear` casts its weight to its input's dtype.
"""

import gc
from dataclasses import dataclass
from typing import Any

import prepare
from backends import F, nn, runtime, torch

# Model
DEPTH = 8  # number of blocks
ASPECT_RATIO = 64  # model channels per block: C = DEPTH * ASPECT_RATIO, rounded up to whole heads
HEAD_DIM = 128  # channels of one attention head
HEADS_PER_KV_HEAD = 1  # query heads that share one key/value head (1: plain multi-head attention)
WINDOW_PATTERN = "SSSL"  # spans, repeated over the blocks: S half the context, L all; last: L

# Batch
TOTAL_BATCH_SIZE = 524288  # tokens per optimizer step
DEVICE_BATCH_SIZE = 128  # rows per forward pass; lower it when memory runs out

# Optimizer
EMBEDDING_LR = 0.6  # AdamW, token and value embeddings, at 768 channels
UNEMBEDDING_LR = 0.004  # AdamW, output head, at 768 channels
MATRIX_LR = 0.04  # Muon, the blocks' matrices
SCALAR_LR = 0.5  # AdamW, per-block scalars
WEIGHT_DECAY = 0.2  # Muon, cautious, falls linearly to 0 over the budget
ADAM_BETAS = (0.8, 0.95)  # AdamW momentum and variance
WARMUP_RATIO = 0.0  # share of the budget in which the learning rate rises
WARMDOWN_RATIO = 0.5  # share of the budget in which it falls
FINAL_LR_FRAC = 0.0  # where it ends, as a fraction of its peak

SOFTCAP = 15.0  # logits are SOFTCAP * tanh(logits / SOFTCAP) (Gemma 2, arXiv:2408.00118)
ROPE_BASE = 10000.0  # longest rotary wavelength is about 2 pi ROPE_BASE tokens (arXiv:2104.09864)
GATE_CHANNELS = 32  # the value-embedding gate looks at this many channels
DIVERGED_LOSS = 100.0  # nats; uniform guessing over 65,536 tokens is 11

# fp16 is too narrow to hold embedding updates or an orthogonalisation: those stay in fp32 then.
wide_dtype = torch.float32 if runtime.compute_dtype == torch.float16 else runtime.compute_dtype

# -------------------------------------------------------------------------------------------------
# Model
# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """The sizes of a GPT; `windows` has one attention span per block, None for all of it."""

    vocab_size: int
    max_seq_len: int
    n_layer: int
    n_embd: int
    n_head: int
    n_kv_head: int
    windows: tuple[int | None, ...]

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


def configure(spec: Any) -> Config:
    """Sizes from the constants above and the data's `spec.vocab_size` and `spec.max_seq_len`."""
    n_head = -(-DEPTH * ASPECT_RATIO // HEAD_DIM)
    if n_head % HEADS_PER_KV_HEAD:
        raise ValueError(
            f"{n_head} query heads cannot share key/value heads in groups of {HEADS_PER_KV_HEAD}"
        )
    spans: dict[str, int | None] = {"S": spec.max_seq_len // 2, "L": None}
    if not WINDOW_PATTERN or set(WINDOW_PATTERN) - set(spans):
        raise ValueError(f"WINDOW_PATTERN {WINDOW_PATTERN!r} may hold S and L only")
    windows = [spans[WINDOW_PATTERN[i % len(WINDOW_PATTERN)]] for i in range(DEPTH - 1)] + [None]
    return Config(
        vocab_size=spec.vocab_size,
        max_seq_len=spec.max_seq_len,
        n_layer=DEPTH,
        n_embd=n_head * HEAD_DIM,
        n_head=n_head,
        n_kv_head=n_head // HEADS_PER_KV_HEAD,
        windows=tuple(windows),
    )


class Linear(nn.Linear):
    """A matrix without bias, fp32 in memory and cast to its input's dtype when used."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)

    def forward(self, x):
        return runtime.linear(x, self.weight)


def norm(x):
    """RMS normalisation over the last axis, no learned gain."""
    return F.rms_norm(x, (x.size(-1),))


def rotary_tables(length: int, head_dim: int):
    """Cosine and sine of every position's angles, each (1, T, 1, D/2), in the compute dtype."""
    inverse = ROPE_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), inverse)[None, :, None, :]
    return angles.cos().to(runtime.compute_dtype), angles.sin().to(runtime.compute_dtype)


def rotate(x_BTHD, cos, sin):
    """Turns channel pair (d, d + D/2) of each head by its position's angle."""
    half = x_BTHD.size(-1) // 2
    left, right = x_BTHD[..., :half], x_BTHD[..., half:]
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)


class Attention(nn.Module):
    """Causal self-attention: RoPE, QK-norm, grouped heads, a window, a gated value embedding."""

    def __init__(self, config: Config, window: int | None, has_value_embed: bool) -> None:
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = (
            config.n_head,
            config.n_kv_head,
            config.head_dim,
        )
        self.window = window
        kv_channels = self.n_kv_head * self.head_dim
        self.c_q = Linear(config.n_embd, config.n_embd)
        self.c_k = Linear(config.n_embd, kv_channels)
        self.c_v = Linear(config.n_embd, kv_channels)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        # Value embeddings (after ResFormer, arXiv:2410.17897): each token adds a vector of its own
        # to its value, weighed per head by a gate in (0, 2) that its input decides.
        self.value_embed = nn.Embedding(config.vocab_size, kv_channels) if has_value_embed else None
        self.value_gate = (
            Linear(min(GATE_CHANNELS, config.n_embd), self.n_kv_head) if has_value_embed else None
        )

    def forward(self, x_BTC, tokens_BT, cos, sin):
        B, T, C = x_BTC.shape
        # One product for all three: wider ones run faster.
        weight_SC = torch.cat([self.c_q.weight, self.c_k.weight, self.c_v.weight])
        qkv_BTSD = runtime.linear(x_BTC, weight_SC).view(B, T, -1, self.head_dim)
        heads = [self.n_head, self.n_kv_head, self.n_kv_head]
        q_BTHD, k_BTKD, v_BTKD = qkv_BTSD.split(heads, dim=2)

        if self.value_embed is not None:
            e_BTKD = self.value_embed(tokens_BT).view(v_BTKD.shape).to(v_BTKD.dtype)
            gate_BTK = 2 * torch.sigmoid(self.value_gate(x_BTC[..., :GATE_CHANNELS]))
            v_BTKD = v_BTKD + gate_BTK.unsqueeze(-1) * e_BTKD

        q_BTHD = norm(rotate(q_BTHD, cos, sin))
        k_BTKD = norm(rotate(k_BTKD, cos, sin))
        y_BTHD = runtime.attention(q_BTHD, k_BTKD, v_BTKD, self.window)
        return self.c_proj(y_BTHD.reshape(B, T, C))


class MLP(nn.Module):
    """Two matrices around a squared ReLU (Primer, arXiv:2109.08668)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x_BTC):
        return self.c_proj(F.relu(self.c_fc(x_BTC)).square())


class Block(nn.Module):
    """Attention, then MLP: each reads the normalised residual stream and adds to it."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        has_value_embed = (
            config.n_layer - 1 - layer
        ) % 2 == 0  # every second block, the last among them
        self.attn = Attention(config, config.windows[layer], has_value_embed)
        self.mlp = MLP(config)

    def forward(self, x_BTC, tokens_BT, cos, sin):
        x_BTC = x_BTC + self.attn(norm(x_BTC), tokens_BT, cos, sin)
        return x_BTC + self.mlp(norm(x_BTC))


class GPT(nn.Module):
    """`model(tokens_BT)` -> logits_BTV fp32; `model(tokens_BT, targets_BT)` -> mean loss in nats.

    A target of -1 is not counted.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        # Before each block the stream is scaled, and the normalised token embedding mixed in again.
        self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
        self.x0_lambdas = nn.Parameter(torch.full((config.n_layer,), 0.1))
        cos, sin = rotary_tables(config.max_seq_len, config.head_dim)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Blocks start as the identity: what writes to the residual stream is 0, gates neutral."""
        bound = (3 / self.config.n_embd) ** 0.5  # uniform with standard deviation 1/sqrt(C)
        nn.init.normal_(self.wte.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.001)
        for block in self.blocks:
            for linear in (block.attn.c_q, block.attn.c_k, block.attn.c_v, block.mlp.c_fc):
                nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.zeros_(block.attn.c_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.weight)
            if block.attn.value_embed is not None:
                nn.init.uniform_(block.attn.value_embed.weight, -bound, bound)
                nn.init.zeros_(block.attn.value_gate.weight)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.to(dtype=wide_dtype)

    def flops_per_token(self) -> int:
        """Forward and backward FLOPs as PaLM counts them (arXiv:2204.02311, appendix B).

        A matrix weight costs 6 per token, a key in a block's window 12 per query channel; keys
        that the causal mask hides near the row's start are counted too.
        """
        matrices = sum(m.weight.numel() for m in self.modules() if isinstance(m, Linear))
        T = self.config.max_seq_len
        keys = sum(T if window is None else min(window + 1, T) for window in self.config.windows)
        return 6 * matrices + 12 * self.config.n_embd * keys

    def forward(self, tokens_BT, targets_BT=None):
        T = tokens_BT.size(1)
        cos, sin = self.cos[:, :T], self.sin[:, :T]
        x_BTC = norm(self.wte(tokens_BT).to(runtime.compute_dtype))
        x0_BTC = x_BTC
        for i, block in enumerate(self.blocks):
            x_BTC = self.resid_lambdas[i] * x_BTC + self.x0_lambdas[i] * x0_BTC
            x_BTC = block(x_BTC, tokens_BT, cos, sin)
        x_BTC = norm(x_BTC)

        if targets_BT is not None:  # same logits as below, but never all of them in memory
            return runtime.softcap_cross_entropy(x_BTC, self.lm_head.weight, targets_BT, SOFTCAP)
        logits_BTV = self.lm_head(x_BTC).float()
        return SOFTCAP * torch.tanh(logits_BTV / SOFTCAP)


def build_model(spec: Any) -> GPT:
    """The untrained model on the runtime's device, drawn from the seed the harness has set."""
    return GPT(configure(spec)).to(runtime.device)


# -------------------------------------------------------------------------------------------------
# Optimizer
# -------------------------------------------------------------------------------------------------

# Five quintic steps to the nearest orthogonal matrix (Polar Express, arXiv:2505.16932).
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(g_NRS):
    """Nearly U V^T for each matrix U S V^T: all singular values end close to 1. fp32 in and out."""
    # The norm is summed in fp32: in bf16 it has given NaN on MLX.
    norm_N11 = g_NRS.square().sum(dim=(-2, -1), keepdim=True).sqrt()
    x = (g_NRS / (norm_N11 * 1.02 + 1e-6)).to(wide_dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:  # the squares below are then the small ones
        x = x.mT
    R, S = x.shape[-2:]
    # A step is x <- (a + p) x with p = b G + c G^2 and G = x x^T. As p and G commute, two of them
    # are (a2 + p2) (a + p) x, where G <- (a + p) G (a + p) between them: cheaper where x is long.
    # Not more than two and not the first, which is the largest: bf16 would lose the small singular
    # values in G. A baddbmm(y, u, v, beta=a) is a y + u v in one pass.
    together = 2 if S >= 2 * R else 1
    rest = POLAR_EXPRESS[1:]
    pairs = [rest[i : i + together] for i in range(0, len(rest), together)]
    for (a, b, c), *second in [POLAR_EXPRESS[:1], *pairs]:
        gram_NRR = runtime.gram(x)
        p_NRR = runtime.gram(gram_NRR, alpha=c, add=gram_NRR, beta=b)
        for a2, b2, c2 in second:
            half_NRR = torch.baddbmm(gram_NRR, p_NRR, gram_NRR, beta=a)
            gram_NRR = torch.baddbmm(half_NRR, half_NRR, p_NRR, beta=a)
            p2_NRR = runtime.gram(gram_NRR, alpha=c2, add=gram_NRR, beta=b2)
            p_NRR = torch.baddbmm(a * p2_NRR + a2 * p_NRR, p2_NRR, p_NRR)
            a = a * a2
        x = torch.baddbmm(x, p_NRR, x, beta=a)
    return (x.mT if tall else x).float()


# Numbers that change from step to step enter as 0-d fp32 tensors: a float would be compiled in.


@runtime.compile
def muon_step(params, grads, momentum_NRS, variance, lr, momentum, beta2, weight_decay):
    """One Muon step in place for N matrices of one shape: momentum, orthogonalise, scale, decay."""
    grads_NRS = torch.stack(grads)
    momentum_NRS.add_((grads_NRS - momentum_NRS) * (1 - momentum))
    update_NRS = orthogonalize(grads_NRS + (momentum_NRS - grads_NRS) * momentum)  # Nesterov

    # NorMuon (arXiv:2510.05491): divide each neuron by its running RMS, keep the matrix' norm.
    across = -1 if update_NRS.size(-2) >= update_NRS.size(-1) else -2
    square = update_NRS.square().mean(dim=across, keepdim=True)
    variance.add_((square - variance) * (1 - beta2))
    scale = variance.clamp(min=1e-10).rsqrt()
    before = square.sum(dim=(-2, -1), keepdim=True).sqrt()
    after = (square * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    update_NRS = update_NRS * scale * (before / after.clamp(min=1e-10))

    # Cautious weight decay (arXiv:2510.12402): only where it pulls the same way as the update.
    for p_RS, update_RS in zip(params, update_NRS.unbind(0), strict=True):
        agrees = (update_RS * p_RS >= 0).float()
        p_RS.sub_(lr * (update_RS + weight_decay * agrees * p_RS))


@runtime.compile
def adamw_step(param, grad, mean, square, lr, mix1, mix2, bias1, bias2, eps, shrink):
    """One AdamW step in place for a tensor of any dtype; moments and arithmetic are fp32."""
    grad = grad.float()
    mean.add_((grad - mean) * mix1)
    square.add_((grad.square() - square) * mix2)
    update = (mean / bias1) / ((square / bias2).sqrt() + eps)
    param.copy_(param.float() * shrink - lr * update)


def scalars(*values: float) -> list[Any]:
    """Each number as a 0-d fp32 tensor."""
    return [torch.tensor(value, dtype=torch.float32) for value in values]


class MuonAdamW:
    """Muon for groups of kind "muon", AdamW for the others; schedules write to `param_groups`."""

    def __init__(self, param_groups: list[dict[str, Any]]) -> None:
        self.param_groups = param_groups
        self.steps = 0
        for group in param_groups:
            group["initial_lr"] = group["lr"]
            (self.init_muon if group["kind"] == "muon" else self.init_adamw)(group)

    def init_adamw(self, group: dict[str, Any]) -> None:
        group["mean"] = [torch.zeros_like(p, dtype=torch.float32) for p in group["params"]]
        group["square"] = [torch.zeros_like(p, dtype=torch.float32) for p in group["params"]]

    def init_muon(self, group: dict[str, Any]) -> None:
        N, (R, S) = len(group["params"]), group["params"][0].shape
        device = group["params"][0].device
        group["momentum_buffer"] = torch.zeros((N, R, S), device=device)
        group["variance"] = torch.zeros((N, R, 1) if R >= S else (N, 1, S), device=device)

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter from its gradient."""
        self.steps += 1
        for group in self.param_groups:
            (self.step_muon if group["kind"] == "muon" else self.step_adamw)(group)

    def step_adamw(self, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        numbers = scalars(
            group["lr"],
            1 - beta1,
            1 - beta2,
            1 - beta1**self.steps,
            1 - beta2**self.steps,
            group["eps"],
            1 - group["lr"] * group["weight_decay"],
        )
        for p, mean, square in zip(group["params"], group["mean"], group["square"], strict=True):
            if p.grad is not None:
                adamw_step(p, p.grad, mean, square, *numbers)

    def step_muon(self, group: dict[str, Any]) -> None:
        params = group["params"]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        lr = group["lr"] * max(1.0, params[0].size(0) / params[0].size(1)) ** 0.5
        numbers = scalars(lr, group["momentum"], group["beta2"], group["weight_decay"])
        muon_step(params, grads, group["momentum_buffer"], group["variance"], *numbers)


def make_optimizer(model: GPT) -> MuonAdamW:
    """Matrices of the blocks go to Muon, one group per shape; all other parameters to AdamW."""
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    head, resid, x0 = model.lm_head.weight, model.resid_lambdas, model.x0_lambdas
    taken = {id(p) for p in (*embeddings, head, resid, x0)}
    matrices, others = [], []
    for p in model.parameters():
        if id(p) not in taken:
            (matrices if p.ndim == 2 else others).append(p)

    def adamw(params: list[Any], lr: float, betas: Any = ADAM_BETAS, eps: float = 1e-10) -> dict:
        fixed = {"betas": betas, "eps": eps, "weight_decay": 0.0}
        return {"kind": "adamw", "params": params, "lr": lr, **fixed}

    def muon(params: list[Any]) -> dict[str, Any]:
        fixed = {"momentum": 0.95, "beta2": 0.95, "weight_decay": WEIGHT_DECAY}
        return {"kind": "muon", "params": params, "lr": MATRIX_LR, **fixed}

    width_scale = (model.config.n_embd / 768) ** -0.5  # AdamW rates were tuned at 768 channels
    groups = [
        adamw([head], UNEMBEDDING_LR * width_scale),
        adamw(embeddings, EMBEDDING_LR * width_scale),
        # Blocks start as the identity and `norm` forgets scale, so at first these have no gradient
        # but rounding: an eps below that would make full steps of it, their sign left to chance.
        adamw([resid, *others], SCALAR_LR * 0.01, eps=1e-5),  # multiplies the stream: slowly
        adamw([x0], SCALAR_LR, betas=(0.96, 0.95), eps=1e-5),
    ]
    for shape in sorted({tuple(p.shape) for p in matrices}):
        groups.append(muon([p for p in matrices if tuple(p.shape) == shape]))
    return MuonAdamW(groups)


# -------------------------------------------------------------------------------------------------
# Training
# -------------------------------------------------------------------------------------------------


def lr_multiplier(progress: float) -> float:
    """Trapezoid over the budget: up, level, down to FINAL_LR_FRAC."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    if progress > 1 - WARMDOWN_RATIO:
        remaining = (1 - progress) / WARMDOWN_RATIO
        return remaining + (1 - remaining) * FINAL_LR_FRAC
    return 1.0


def muon_momentum(step: int) -> float:
    """0.85 at first, when gradients change fast, and 0.95 from step 300 on."""
    return 0.85 + 0.10 * min(step / 300, 1.0)


def train(model: GPT, run: Any) -> None:
    """Trains `model` in place until the harness' budget is spent and `run.batches` ends."""
    device_tokens = DEVICE_BATCH_SIZE * run.spec.max_seq_len
    if TOTAL_BATCH_SIZE % device_tokens:
        raise ValueError(
            f"TOTAL_BATCH_SIZE ({TOTAL_BATCH_SIZE}) must be a multiple of DEVICE_BATCH_SIZE * "
            f"max_seq_len ({DEVICE_BATCH_SIZE} * {run.spec.max_seq_len} = {device_tokens})"
        )
    accumulation = TOTAL_BATCH_SIZE // device_tokens
    optimizer = make_optimizer(model)
    backward = runtime.backward(model)
    step, losses = 0, []

    for micro, (x_BT, y_BT) in enumerate(run.batches(DEVICE_BATCH_SIZE), 1):
        losses.append(backward(x_BT, y_BT, scale=1 / accumulation))
        if micro % accumulation:
            continue

        progress = run.progress
        multiplier = lr_multiplier(progress)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
            if group["kind"] == "muon":
                group["momentum"] = muon_momentum(step)
                group["weight_decay"] = WEIGHT_DECAY * (1 - progress)
        optimizer.step()
        model.zero_grad(set_to_none=True)

        loss = torch.stack(losses).mean().item()
        losses.clear()
        if not loss < DIVERGED_LOSS:  # true for NaN too
            raise FloatingPointError(f"the loss is {loss:.4g} at step {step}: training diverged")
        run.log(step=step, loss=loss, lr_multiplier=multiplier)

        if step == 0:  # collections would stall the device; what lives now lives to the end
            gc.collect()
            gc.freeze()
            gc.disable()
        elif step % 1000 == 0:
            gc.collect()
        step += 1
    gc.enable()


if __name__ == "__main__":
    prepare.experiment(build_model, train)
