"""A random Llama for `--load-format dummy`: its settings and a tokenizer of made-up words, as files.

One word is one token, so that a prompt's length in tokens is known before it is sent. Needs no library.
"""

import json
import shutil
from functools import cache
from pathlib import Path
from random import Random

CONTEXT_TOKENS = 4096
HIDDEN = 384
LAYERS = 6
_HEAD_SIZE = 64
_QUERIES_PER_KEY = 2

UNKNOWN, END, START_TURN, END_TURN = "<|unknown|>", "<|end|>", "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant")
_SPECIAL = (UNKNOWN, END, START_TURN, END_TURN)
_VOCABULARY = 4096

_SEED = 20261128
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8)
_LENGTH_WEIGHTS = (1, 8, 20, 22, 14, 8, 4, 3)
"""With the blank about five bytes a token, as in English prose."""

CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|> ' + message.role + ' ' + message.content + ' <|im_end|> ' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|> assistant ' }}{%- endif %}
"""
TOKENS_PER_MESSAGE = 3
"""What the template adds to a message: its two marks and the role."""


@cache
def words() -> tuple[str, ...]:
    """The vocabulary without roles and special tokens, the same on every machine."""
    random = Random(_SEED)
    found: dict[str, None] = {}
    while len(found) < _VOCABULARY - len(_SPECIAL) - len(ROLES):
        (length,) = random.choices(_LENGTHS, _LENGTH_WEIGHTS)
        word = "".join(random.choices(_LETTERS, k=length))
        if word not in ROLES:
            found[word] = None
    return tuple(found)


def make(into: Path) -> None:
    """Write the model to a neighbouring folder, then rename: a folder that exists is complete."""
    if into.is_dir():
        return
    unfinished = into.with_name(f"{into.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    files = {"config": _config(), "tokenizer": _tokenizer(), "tokenizer_config": _tokenizer_config()}
    for name, document in files.items():
        (unfinished / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    unfinished.rename(into)


def _config() -> dict[str, object]:
    heads = HIDDEN // _HEAD_SIZE
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": _VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // _QUERIES_PER_KEY,
        "head_dim": _HEAD_SIZE,
        "max_position_embeddings": CONTEXT_TOKENS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "eos_token_id": _SPECIAL.index(END_TURN),
        "pad_token_id": _SPECIAL.index(END),
        "torch_dtype": "float32",
    }


def _tokenizer() -> dict[str, object]:
    """The file format of Hugging Face's `tokenizers`, with its `WordLevel` model."""
    added = [
        {"id": number, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, token in enumerate(_SPECIAL)
    ]
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *ROLES, *words()))}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN},
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
        "eos_token": END_TURN,
        "pad_token": END,
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
