"""Edits of train.py as an agent would write them: name -> list of (old text, new text).

Each old text stands in the seed exactly once.
"""

LOSS = "return runtime.softcap_cross_entropy(x_BTC, self.lm_head.weight, targets_BT, SOFTCAP)"
LOGITS = """        logits_BTV = self.lm_head(x_BTC).float()
        return SOFTCAP * torch.tanh(logits_BTV / SOFTCAP)
"""
QK = "        q_BTHD = norm(rotate(q_BTHD, cos, sin))\n"
PLAIN_LOSS = (
    "F.cross_entropy(logits.view(-1, logits.size(-1)), targets_BT.view(-1), ignore_index=-1)"
)

EDITS: dict[str, list[tuple[str, str]]] = {
    "gated MLP": [
        (
            "        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)\n",
            "        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)\n"
            "        self.c_gate = Linear(config.n_embd, 4 * config.n_embd)\n",
        ),
        (
            "self.c_proj(F.relu(self.c_fc(x_BTC)).square())",
            "self.c_proj(F.silu(self.c_gate(x_BTC)) * self.c_fc(x_BTC))",
        ),
    ],
    "AdamW for everything": [
        (
            "    optimizer = make_optimizer(model)\n",
            "    optimizer = torch.optim.AdamW(\n"
            "        model.parameters(), lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1\n"
            "    )\n",
        ),
        (
            """            group["lr"] = group["initial_lr"] * multiplier
            if group["kind"] == "muon":
                group["momentum"] = muon_momentum(step)
                group["weight_decay"] = WEIGHT_DECAY * (1 - progress)
""",
            """            group["lr"] = 3e-3 * multiplier
""",
        ),
    ],
    "learnable QK scale": [
        (
            "        kv_channels = self.n_kv_head * self.head_dim\n",
            "        kv_channels = self.n_kv_head * self.head_dim\n"
            "        self.qk_scale = nn.Parameter(torch.ones(self.n_head))\n",
        ),
        (QK, QK + "        q_BTHD = q_BTHD * self.qk_scale.to(q_BTHD.dtype).view(1, 1, -1, 1)\n"),
    ],
    "logit bias": [
        (
            "        self.lm_head = Linear(config.n_embd, config.vocab_size)\n",
            "        self.lm_head = Linear(config.n_embd, config.vocab_size)\n"
            "        self.logit_bias = nn.Parameter(torch.zeros(config.vocab_size))\n",
        ),
        (
            f"        if targets_BT is not None:  # same logits as below, but never all of them in "
            f"memory\n            {LOSS}\n{LOGITS}",
            f"""        logits = self.lm_head(x_BTC).float() + self.logit_bias
        logits = SOFTCAP * torch.tanh(logits / SOFTCAP)
        if targets_BT is not None:
            return {PLAIN_LOSS}
        return logits
""",
        ),
    ],
    "grouped-query attention": [("HEADS_PER_KV_HEAD = 1 ", "HEADS_PER_KV_HEAD = 2 ")],
    "token shift": [
        (
            "        self.mlp = MLP(config)\n",
            "        self.mlp = MLP(config)\n        self.shift = nn.Parameter(torch.zeros(1))\n",
        ),
        (
            "        x_BTC = x_BTC + self.attn(norm(x_BTC), tokens_BT, cos, sin)\n",
            "        previous = torch.cat([torch.zeros_like(x_BTC[:, :1]), x_BTC[:, :-1]], dim=1)\n"
            "        x_BTC = x_BTC + self.shift.to(x_BTC.dtype) * previous\n"
            "        x_BTC = x_BTC + self.attn(norm(x_BTC), tokens_BT, cos, sin)\n",
        ),
    ],
    "z-loss": [
        (
            f"            {LOSS}\n",
            f"""            logits = SOFTCAP * torch.tanh(self.lm_head(x_BTC).float() / SOFTCAP)
            z_loss = torch.logsumexp(logits, dim=-1).square().mean()
            return {PLAIN_LOSS} + 1e-4 * z_loss
""",
        )
    ],
    "gradient clipping": [
        (
            "        optimizer.step()\n",
            "        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
            "        optimizer.step()\n",
        )
    ],
}


def edited(seed: str, name: str) -> str:
    """The seed's text with the edit of that name."""
    for old, new in EDITS[name]:
        assert seed.count(old) == 1, f"{name}: the seed has {seed.count(old)} times:\n{old}"
        seed = seed.replace(old, new)
    return seed
