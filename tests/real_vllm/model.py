"""A tiny Llama that nobody downloads: its tokenizer is trained here and its weights are seeded noise.

Runs inside the environment of `environment.py`: `.venv-vllm/bin/python tests/real_vllm/model.py --into DIR`.
The weights are saved once, so that replicas loading them agree token for token under greedy decoding.
"""

import argparse
import json
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch  # type: ignore[import-not-found]
from tokenizers import (  # type: ignore[import-not-found]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import LlamaConfig, LlamaForCausalLM  # type: ignore[import-not-found]

SEED = 20260801
VOCABULARY = 4096
CONTEXT_TOKENS = 4096

BEGIN, END, START_TURN, END_TURN = "<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END, BEGIN, START_TURN, END_TURN)

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
    {{- 'Answer a call as <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def texts() -> Iterator[str]:
    """The sources of Python's own standard library: the same few megabytes on every machine of a version."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="replace")


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE: any text survives the way to tokens and back; prompts begin with one BEGIN."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, into: Path) -> None:
    tokenizer.save(str(into / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END_TURN,
        "pad_token": END,
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (into / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def save_weights(tokenizer: Tokenizer, into: Path) -> None:
    """Seeded noise, wide enough that the layers and not the input token decide what comes next."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END_TURN),
        pad_token_id=tokenizer.token_to_id(END),
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(into)


def make(into: Path) -> None:
    """Write the model to a neighbouring folder, then rename: a folder that exists is complete."""
    if (into / "model.safetensors").is_file():
        return
    unfinished = into.with_name(f"{into.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    tokenizer = train_tokenizer()
    save_tokenizer(tokenizer, unfinished)
    save_weights(tokenizer, unfinished)
    unfinished.rename(into)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, required=True, help="the model's folder")
    into = parser.parse_args().into.absolute()
    make(into)
    print(f"the model is ready in {into}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
