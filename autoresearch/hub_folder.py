"""A folder as model hubs have them, of weights that were kept.

names = write_hub_folder(weights_of(study, 7), Path("my-model"))
model, tokenizer = load_model(Path("my-model"))      # runs the folder's train.py: read it first

model.safetensors      the weights, byte for byte those that were scored
config.json            sizes, and the constants of train.py
train.py               the modelling code: its build_model
tokenizer.json         for Hugging Face's tokenizers; tokenizer_config.json with it
vocabulary.json        the tokenizer as autoresearch reads it
model.json             the whole record
README.md              the model card
LICENSE                of train.py; the weights have none until their maker gives them one
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.console import to_json
from autoresearch.constants import constants_of
from autoresearch.hub_tokenizer import BOS_NAME, hub_tokenizer
from autoresearch.model_card import card
from autoresearch.model_folder import (
    CARD_NAME,
    EXPORTED_NAME,
    FACTS_NAME,
    SCRIPT_NAME,
    VOCABULARY_NAME,
    Weights,
)
from prepare.errors import CorruptFile

if TYPE_CHECKING:
    from prepare.tokenizer import Tokenizer

MOST_HEADER_BYTES = 100_000_000  # as safetensors itself has it
# The snippet is run by a test, in the folder.
USAGE = f"""## How to use it

The model is what `build_model` of [train.py]({SCRIPT_NAME}) makes, a program written in the search
for a better one: read it before you run it. It needs `pip install autoresearch`.

```
autoresearch sample --weights . --prompt "One day"
```

writes a text, and keeps the program in a sandbox meanwhile. From Python, without one:

```python
from pathlib import Path

import numpy as np

from autoresearch.hub_folder import load_model
from backends import runtime, torch

model, tokenizer = load_model(Path("."))
tokens = np.array([[tokenizer.bos, *tokenizer.encode("One day")]])
with torch.no_grad():
    logits = model(runtime.from_numpy(tokens))  # (1, length, vocabulary)
print(tokenizer.decode([int(logits[0, -1].argmax())]))
```

`tokenizer.json` is the same tokenizer for Hugging Face's `tokenizers`; where a text spells
`{BOS_NAME}`, it reads that as the mark of a document's beginning. `transformers` has no class for
this model: `config.json` is for people and programs that list models."""

_NO_LICENCE = """The weights (model.safetensors), with the tokenizer that was learned from the same
text, come with no licence until whoever trained them gives them one, with a look at that of the
text: {corpus}.

train.py descends from autoresearch's, as far as its author left it standing. Its licence:

"""


def write_hub_folder(weights: Weights, place: Path) -> list[str]:
    """Write the folder `place`; the names of its files. Raises CorruptFile, OSError."""
    documents = {
        "config.json": _config(weights),
        "tokenizer.json": hub_tokenizer(weights.tokenizer),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS_NAME,
            "eos_token": BOS_NAME,  # documents follow each other: where one begins, one ended
            "model_max_length": weights.max_seq_len,
            "clean_up_tokenization_spaces": False,
        },
    }
    # By to_json: the constants of a program may be sets, bytes or infinite.
    texts = {name: to_json(item, indent=1) for name, item in documents.items()}
    texts[CARD_NAME] = card(weights.facts, USAGE)
    texts["LICENSE"] = _NO_LICENCE.format(corpus=weights.facts["settings"]["corpus"]) + _licence()
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights.file, place / EXPORTED_NAME)
    for name in (SCRIPT_NAME, VOCABULARY_NAME, FACTS_NAME):
        shutil.copyfile(weights.folder / name, place / name)
    for name, text in texts.items():
        (place / name).write_text(text + "\n", encoding="utf-8", newline="\n")
    return sorted(path.name for path in place.iterdir())


def load_model(folder: Path) -> tuple[Any, Tokenizer]:
    """The model and its tokenizer, in this process and on its usual device.

    Runs the folder's train.py, which nobody vouches for. Raises NoData, CorruptFile, BackendError,
    and what that program raises.
    """
    from backends import runtime
    from prepare.run import Spec

    weights = Weights.open(folder)
    # Registered, since dataclasses look their module up by its name; a caller's `train` stays.
    name = f"train_{weights.facts['sha256'][:16]}"
    found = importlib.util.spec_from_file_location(name, weights.script)
    if found is None or found.loader is None:
        raise ImportError(f"{weights.script} is no Python module")
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    model = module.build_model(Spec(weights.tokenizer.vocab_size, weights.max_seq_len))
    runtime.load_weights(model, weights.file)
    model.eval()
    return model, weights.tokenizer


def _config(weights: Weights) -> dict[str, Any]:
    facts = weights.facts
    source = weights.script.read_text(encoding="utf-8", errors="replace")
    try:
        constants = constants_of(source)
    except SyntaxError:  # of another version of Python
        constants = {}
    return {
        "model_type": "autoresearch",
        "vocab_size": weights.tokenizer.vocab_size,
        "max_position_embeddings": weights.max_seq_len,
        "bos_token_id": weights.tokenizer.bos,
        "eos_token_id": weights.tokenizer.bos,
        "num_parameters": facts["num_params"],
        "dtypes": dtypes(weights.file),
        "train_py_constants": constants,
    }


def dtypes(file: Path) -> list[str]:
    """The number formats in a safetensors file, by its header: `["BF16", "F32"]`.

    Raises CorruptFile: the process of a candidate wrote it.
    """
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(size, MOST_HEADER_BYTES)))
        return sorted({str(v["dtype"]) for name, v in header.items() if name != "__metadata__"})
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CorruptFile(f"{file} is no safetensors file", "train the program again") from error


def _licence() -> str:
    """The text of our own, or its name where the installation lacks it."""
    for path in metadata.files("autoresearch") or ():
        if path.name == "LICENSE":
            return path.read_text(encoding="utf-8").strip()
    return "MIT"
