"""The GPT of train.py written the plain way: what `autoresearch bench` measures train.py against.

    python benchmarks/reference/plain.py      # or trained and scored like any other train module

It does what scripts for one platform do: scaled_dot_product_attention with a T x T mask in memory
for a window, all logits at once in fp32, one row batch per step, an optimizer that steps each
parameter by itself. AUTORESEARCH_DTYPE=float32 AUTORESEARCH_COMPILE=0 is "plain eager fp32",
bfloat16 and 1 are "plain bf16 + compile". Constants, parameters and the numbers that come out are
train.py's; so are the names of axes.
"""

import prepare
from backends import F, nn, runtime, torch

DEPTH = 8
ASPECT_RATIO = 64
HEAD_DIM = 128
HEADS_PER_KV_HEAD = 1
WINDOW_PATTERN = "SSSL"
TOTAL_BATCH_SIZE = 524288
DEVICE_BATCH_SIZE = 128
EMBEDDING_LR = 0.6
UNEMBEDDING_LR = 0.004
MATRIX_LR = 0.04
SCALAR_LR = 0.5
WEIGHT_DECAY = 0.2
ADAM_BETAS = (0.8, 0.95)
WARMUP_RATIO = 0.0
WARMDOWN_RATIO = 0.5
FINAL_LR_FRAC = 0.0
SOFTCAP = 15.0
ROPE_BASE = 10000.0
GATE_CHANNELS = 32

wide_dtype = torch.float32 if runtime.compute_dtype == torch.float16 else runtime.compute_dtype


def compiled(function):
    """Compiled as a script does it, without what `runtime.compile` arranges beside it."""
    if runtime.name != "torch":
        return runtime.compile(function)
    return torch.compile(function, dynamic=False) if runtime.policy.compile else function


def gradients(model):
    """`step(x, y, scale) -> loss`, which adds scale * dloss/dp to each p.grad."""
    if runtime.name != "torch" or runtime.policy.loss_scaling:
        return runtime.backward(model)
    forward = compiled(model)

    def step(x_BT, y_BT, scale):
        loss = forward(x_BT, y_BT)
        loss.backward(gradient=torch.full_like(loss, scale))
        return loss.detach()

    return step


# Model


def band_mask(length, window):
    """(T, T) bool: query i sees keys i - window .. i."""
    position = torch.arange(length)
    behind = position.view(-1, 1) - position.view(1, -1)
    return (behind >= 0) & (behind <= window)


def attention(q_BTHD, k_BTKD, v_BTKD, mask_TT):
    """PyTorch's attention, causal where there is no mask."""
    group = q_BTHD.size(2) // k_BTKD.size(2)
    if group > 1:
        k_BTKD, v_BTKD = (t.repeat_interleave(group, dim=2) for t in (k_BTKD, v_BTKD))
    q, k, v = (t.transpose(1, 2) for t in (q_BTHD, k_BTKD, v_BTKD))
    causal = mask_TT is None
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_TT, is_causal=causal)
    return y.transpose(1, 2)


def cross_entropy(x_BTC, weight_VC, targets_BT):
    """Mean loss in nats from all logits, soft-capped in fp32."""
    logits_BTV = F.linear(x_BTC, weight_VC.to(x_BTC.dtype)).float()
    logits_BTV = SOFTCAP * torch.tanh(logits_BTV / SOFTCAP)
    flat = logits_BTV.view(-1, logits_BTV.size(-1))
    return F.cross_entropy(flat, targets_BT.reshape(-1), ignore_index=-1)


class Linear(nn.Linear):
    def __init__(self, fan_in, fan_out):
        super().__init__(fan_in, fan_out, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def rotate(x_BTHD, cos, sin):
    half = x_BTHD.size(-1) // 2
    left, right = x_BTHD[..., :half], x_BTHD[..., half:]
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, width, vocab_size, n_head, has_value_embed):
        super().__init__()
        self.n_head, self.n_kv_head = n_head, n_head // HEADS_PER_KV_HEAD
        kv_channels = self.n_kv_head * HEAD_DIM
        self.c_q = Linear(width, width)
        self.c_k = Linear(width, kv_channels)
        self.c_v = Linear(width, kv_channels)
        self.c_proj = Linear(width, width)
        gate = min(GATE_CHANNELS, width)
        self.value_embed = nn.Embedding(vocab_size, kv_channels) if has_value_embed else None
        self.value_gate = Linear(gate, self.n_kv_head) if has_value_embed else None

    def forward(self, x_BTC, tokens_BT, cos, sin, mask_TT):
        B, T, C = x_BTC.shape
        q_BTHD = self.c_q(x_BTC).view(B, T, self.n_head, HEAD_DIM)
        k_BTKD = self.c_k(x_BTC).view(B, T, self.n_kv_head, HEAD_DIM)
        v_BTKD = self.c_v(x_BTC).view(B, T, self.n_kv_head, HEAD_DIM)
        if self.value_embed is not None:
            e_BTKD = self.value_embed(tokens_BT).view(v_BTKD.shape).to(v_BTKD.dtype)
            gate_BTK = 2 * torch.sigmoid(self.value_gate(x_BTC[..., :GATE_CHANNELS]))
            v_BTKD = v_BTKD + gate_BTK.unsqueeze(-1) * e_BTKD
        q_BTHD = norm(rotate(q_BTHD, cos, sin))
        k_BTKD = norm(rotate(k_BTKD, cos, sin))
        y_BTHD = attention(q_BTHD, k_BTKD, v_BTKD, mask_TT)
        return self.c_proj(y_BTHD.reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc = Linear(width, 4 * width)
        self.c_proj = Linear(4 * width, width)

    def forward(self, x_BTC):
        return self.c_proj(F.relu(self.c_fc(x_BTC)).square())


class Block(nn.Module):
    def __init__(self, width, vocab_size, n_head, layer):
        super().__init__()
        self.attn = Attention(width, vocab_size, n_head, (DEPTH - 1 - layer) % 2 == 0)
        self.mlp = MLP(width)

    def forward(self, x_BTC, tokens_BT, cos, sin, mask_TT):
        x_BTC = x_BTC + self.attn(norm(x_BTC), tokens_BT, cos, sin, mask_TT)
        return x_BTC + self.mlp(norm(x_BTC))


class GPT(nn.Module):
    """`model(tokens_BT)` -> logits_BTV fp32; `model(tokens_BT, targets_BT)` -> mean loss."""

    def __init__(self, spec):
        super().__init__()
        n_head = -(-DEPTH * ASPECT_RATIO // HEAD_DIM)
        width, self.length = n_head * HEAD_DIM, spec.max_seq_len
        self.long = [WINDOW_PATTERN[i % len(WINDOW_PATTERN)] == "L" for i in range(DEPTH)]
        self.long[-1] = True
        self.wte = nn.Embedding(spec.vocab_size, width)
        self.blocks = nn.ModuleList(
            [Block(width, spec.vocab_size, n_head, layer) for layer in range(DEPTH)]
        )
        self.lm_head = Linear(width, spec.vocab_size)
        self.resid_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), 0.1))
        inverse = ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float32) / HEAD_DIM)
        angles = torch.outer(torch.arange(self.length, dtype=torch.float32), inverse)
        angles = angles[None, :, None, :]
        self.register_buffer("cos", angles.cos().to(runtime.compute_dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(runtime.compute_dtype), persistent=False)
        mask = band_mask(self.length, self.length // 2)
        self.register_buffer("mask", mask, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        bound = (3 / self.wte.weight.size(1)) ** 0.5
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

    def flops_per_token(self):
        """As train.py counts them."""
        matrices = sum(m.weight.numel() for m in self.modules() if isinstance(m, Linear))
        T = self.length
        keys = sum(T if is_long else min(T // 2 + 1, T) for is_long in self.long)
        return 6 * matrices + 12 * self.wte.weight.size(1) * keys

    def forward(self, tokens_BT, targets_BT=None):
        T = tokens_BT.size(1)
        cos, sin, mask_TT = self.cos[:, :T], self.sin[:, :T], self.mask[:T, :T]
        x_BTC = norm(self.wte(tokens_BT).to(runtime.compute_dtype))
        x0_BTC = x_BTC
        for i, block in enumerate(self.blocks):
            x_BTC = self.resid_lambdas[i] * x_BTC + self.x0_lambdas[i] * x0_BTC
            x_BTC = block(x_BTC, tokens_BT, cos, sin, None if self.long[i] else mask_TT)
        x_BTC = norm(x_BTC)
        if targets_BT is not None:
            return cross_entropy(x_BTC, self.lm_head.weight, targets_BT)
        return SOFTCAP * torch.tanh(self.lm_head(x_BTC).float() / SOFTCAP)


def build_model(spec):
    return GPT(spec).to(runtime.device)


# Optimizer: train.py's rules, one parameter after the other.

POLAR_EXPRESS = (  # arXiv:2505.16932
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def muon_step(p_RS, grad_RS, momentum_RS, variance, lr, momentum, beta2, weight_decay):
    momentum_RS.add_((grad_RS - momentum_RS) * (1 - momentum))
    update_RS = grad_RS + (momentum_RS - grad_RS) * momentum
    length = update_RS.square().sum().sqrt()
    x = (update_RS / (length * 1.02 + 1e-6)).to(wide_dtype)
    tall = x.size(0) > x.size(1)
    x = x.mT if tall else x
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    update_RS = (x.mT if tall else x).float()
    across = 1 if update_RS.size(0) >= update_RS.size(1) else 0
    square = update_RS.square().mean(dim=across, keepdim=True)
    variance.add_((square - variance) * (1 - beta2))
    scale = variance.clamp(min=1e-10).rsqrt()
    before, after = square.sum().sqrt(), (square * scale.square()).sum().sqrt()
    update_RS = update_RS * scale * (before / after.clamp(min=1e-10))
    agrees = (update_RS * p_RS >= 0).float()
    p_RS.sub_(lr * (update_RS + weight_decay * agrees * p_RS))


def adamw_step(p, grad, mean, square, lr, beta1, beta2, bias1, bias2, eps):
    grad = grad.float()
    mean.add_((grad - mean) * (1 - beta1))
    square.add_((grad.square() - square) * (1 - beta2))
    p.copy_(p.float() - lr * (mean / bias1) / ((square / bias2).sqrt() + eps))


class Optimizer:
    """One entry per parameter, each with its rule, rate and state."""

    def __init__(self, entries):
        self.entries, self.steps = entries, 0
        self.muon_step, self.adamw_step = compiled(muon_step), compiled(adamw_step)
        for entry in entries:
            p = entry["param"]
            entry["initial_lr"] = entry["lr"]
            entry["mean"] = torch.zeros_like(p, dtype=torch.float32)
            if entry["muon"]:
                rows, columns = p.shape
                shape = (rows, 1) if rows >= columns else (1, columns)
                entry["square"] = torch.zeros(shape, device=p.device)
                entry["scale"] = max(1.0, rows / columns) ** 0.5
            else:
                entry["square"] = torch.zeros_like(p, dtype=torch.float32)

    @torch.no_grad()
    def step(self, multiplier=1.0, momentum=0.95, weight_decay=WEIGHT_DECAY):
        self.steps += 1
        for entry in self.entries:
            if entry["param"].grad is None:
                continue
            state = (entry["param"], entry["param"].grad, entry["mean"], entry["square"])
            lr = entry["initial_lr"] * multiplier
            if entry["muon"]:
                numbers = (lr * entry["scale"], momentum, 0.95, weight_decay)
                self.muon_step(*state, *(torch.tensor(n, dtype=torch.float32) for n in numbers))
            else:
                beta1, beta2 = entry["betas"]
                bias = (1 - beta1**self.steps, 1 - beta2**self.steps)
                numbers = (lr, beta1, beta2, *bias, entry["eps"])
                self.adamw_step(*state, *(torch.tensor(n, dtype=torch.float32) for n in numbers))


def make_optimizer(model):
    """Matrices of the blocks by Muon, all else by AdamW."""
    width_scale = (model.wte.weight.size(1) / 768) ** -0.5
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    entries = []
    for p in model.parameters():
        rule = {"muon": False, "betas": ADAM_BETAS, "eps": 1e-10}
        if p is model.lm_head.weight:
            lr = UNEMBEDDING_LR * width_scale
        elif id(p) in tables:
            lr = EMBEDDING_LR * width_scale
        elif p is model.resid_lambdas:
            lr, rule["eps"] = SCALAR_LR * 0.01, 1e-5
        elif p is model.x0_lambdas:
            lr, rule["eps"], rule["betas"] = SCALAR_LR, 1e-5, (0.96, 0.95)
        else:
            lr, rule["muon"] = MATRIX_LR, True
        entries.append({"param": p, "lr": lr, **rule})
    return Optimizer(entries)


# Training


def lr_multiplier(progress):
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    if progress > 1 - WARMDOWN_RATIO:
        remaining = (1 - progress) / WARMDOWN_RATIO
        return remaining + (1 - remaining) * FINAL_LR_FRAC
    return 1.0


def train(model, run):
    """Trains `model` in place until `run.batches` ends."""
    accumulation = max(1, TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * run.spec.max_seq_len))
    optimizer, backward = make_optimizer(model), gradients(model)
    step, total = 0, 0.0
    for micro, (x_BT, y_BT) in enumerate(run.batches(DEVICE_BATCH_SIZE), 1):
        total = total + backward(x_BT, y_BT, scale=1 / accumulation)
        if micro % accumulation:
            continue
        momentum = 0.85 + 0.10 * min(step / 300, 1.0)
        decay = WEIGHT_DECAY * (1 - run.progress)
        optimizer.step(lr_multiplier(run.progress), momentum, decay)
        model.zero_grad(set_to_none=True)
        run.log(step=step, loss=(total / accumulation).item())
        step, total = step + 1, 0.0


if __name__ == "__main__":
    prepare.experiment(build_model, train)
