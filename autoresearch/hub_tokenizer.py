"""Our tokenizer as the `tokenizer.json` of Hugging Face's tokenizers.

    document = hub_tokenizer(tokenizer)

Text gets the same ids, but for one thing: what spells the name of BOS becomes BOS there, and text
here. Ids that nothing encodes to have no entry.
"""

from __future__ import annotations

from typing import Any

from prepare.tokenizer import BYTES, SPLIT_PATTERN, Tokenizer

BOS_NAME = "<|bos|>"


def byte_names() -> list[str]:
    """The printable character that stands for each byte value there, as in GPT-2's vocabulary.

    Printable ones of Latin-1 stand for themselves, the others for 256, 257 ... in their order.
    """
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = (value for value in range(256) if value not in own)
    moved = {value: 256 + place for place, value in enumerate(others)}
    return [chr(moved.get(value, value)) for value in range(256)]


def merges(tokens: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Pairs to be merged, the first one first: a token may come from any of its splits."""
    known: set[bytes] = set(tokens[:BYTES])
    ranks = {token: rank for rank, token in enumerate(tokens)}
    found: list[tuple[bytes, bytes]] = []
    for token in tokens[BYTES:]:
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in splits if pair[0] in known and pair[1] in known]
        found += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        known.add(token)
    return found


def hub_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """The document, as JSON values."""
    tokens = [tokenizer.decode_bytes([i]) for i in range(tokenizer.bos - tokenizer.unused)]
    names = byte_names()

    def name(token: bytes) -> str:
        return "".join(names[value] for value in token)

    pairs = [] if tokenizer.vocab_size == BYTES else merges(tokens)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated"}
    steps: list[dict[str, Any]] = [{**byte_level, "use_regex": False}]
    if pairs:
        steps.insert(0, {**split, "invert": False})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(tokenizer.bos)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": _begin_with_bos(tokenizer.bos),
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a whole piece that is a token is taken, as tiktoken does
            "vocab": {name(token): place for place, token in enumerate(tokens)},
            "merges": [[name(left), name(right)] for left, right in pairs],
        },
    }


def _special(bos: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": bos, "content": BOS_NAME, **flags, "special": True}


def _begin_with_bos(bos: int) -> dict[str, Any]:
    begin = {"SpecialToken": {"id": BOS_NAME, "type_id": 0}}
    one, two = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [begin, one],
        "pair": [begin, one, begin, two],
        "special_tokens": {BOS_NAME: {"id": BOS_NAME, "ids": [bos], "tokens": [BOS_NAME]}},
    }
