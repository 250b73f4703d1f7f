"""A tiny tokenizer with everything that a model's directory holds: one token a word."""

import json
from pathlib import Path

import tokenizers

WORDS = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|tools|>", "hello", "there", "what", "is", "new", "?")
TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}<|tools|> {{ tools[0].function.name }} {% endif %}"
    "{% for message in messages %}<|{{ message.role }}|> {{ message.content }} {% endfor %}"
    "{% if shout %}? {% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def write_tokenizer(directory: Path, template: str | None = TEMPLATE) -> Path:
    """`<s>` goes before every prompt that is no chat; the files' own truncation must not count."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="?")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(WORDS[:5]))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unknown": [1]}
    if template is not None:
        config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
