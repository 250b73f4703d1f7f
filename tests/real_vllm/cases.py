"""The exchanges that `record.py` keeps: what is asked of which replica, as data.

Everything goes to a replica with the usual command, but for `opened` and `NO_KEY`.
"""

from typing import Any

from tests.real_vllm.replicas import CONTEXT_TOKENS
from tests.real_vllm.wire import Request, get, post

Cases = tuple[tuple[str, Request], ...]

REQUEST_ID = ("x-request-id", "req-42")
KEY = "a-replica-key"
AUTHORIZED = ("authorization", f"Bearer {KEY}")

USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
QUESTION = [{"role": "user", "content": "def main():"}]
END_TURN = 3  # <|im_end|>, the model's end token

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"metric": {"type": "boolean"}},
            "required": ["metric"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "weather"}}


def chat(*headers: tuple[str, str], **fields: Any) -> Request:
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 5, "temperature": 0, **fields}
    return post("/v1/chat/completions", body, REQUEST_ID, *headers)


def completions(*headers: tuple[str, str], **fields: Any) -> Request:
    body = {"model": "tiny", "prompt": "def main():", "max_tokens": 5, "temperature": 0, **fields}
    return post("/v1/completions", body, REQUEST_ID, *headers)


def other(path: str, *headers: tuple[str, str], **fields: Any) -> Request:
    return post(path, {"model": "tiny", **fields}, REQUEST_ID, *headers)


LONG_PROMPT = [*range(100, 400)]  # two whole blocks of 128 tokens and a part
SAMPLED = {"temperature": 1, "seed": 7, "n": 2}

HEALTH = get("/health", REQUEST_ID)

STREAMS: Cases = (
    ("chat_stream", chat(stream=True)),
    ("chat_stream_usage", chat(**USAGE)),
    (
        "chat_stream_continuous_usage",
        chat(stream=True, stream_options={**USAGE["stream_options"], "continuous_usage_stats": True}),
    ),
    ("chat_stream_n2", chat(**USAGE, **SAMPLED)),
    ("chat_stream_logprobs", chat(**USAGE, logprobs=True, top_logprobs=2)),
    ("chat_stream_token_ids", chat(**USAGE, return_token_ids=True)),
    ("chat_stream_prompt_text", chat(**USAGE, return_prompt_text=True)),
    ("chat_stream_stop_string", chat(**USAGE, stop=["ted"], return_token_ids=True)),
    ("chat_stream_end_token", chat(**USAGE, logit_bias={END_TURN: 100}, return_token_ids=True)),
    (
        "chat_stream_split_character",
        chat(
            **USAGE,
            max_tokens=20,
            return_token_ids=True,
            structured_outputs={"choice": ["A \U0001f682 \u00e9"]},
        ),
    ),
    (
        "chat_stream_continue_final_message",
        chat(
            **USAGE,
            return_token_ids=True,
            add_generation_prompt=False,
            continue_final_message=True,
            messages=[*QUESTION, {"role": "assistant", "content": " parser"}],
        ),
    ),
    ("chat_stream_json_object", chat(**USAGE, max_tokens=8, response_format={"type": "json_object"})),
    ("completions_stream", completions(stream=True)),
    ("completions_stream_usage", completions(**USAGE)),
    ("completions_stream_n2", completions(**USAGE, **SAMPLED)),
    ("completions_stream_two_prompts", completions(**USAGE, prompt=["def main():", "import os"])),
    ("completions_stream_logprobs", completions(**USAGE, logprobs=2)),
    ("completions_stream_token_ids", completions(**USAGE, return_token_ids=True)),
    ("completions_stream_echo", completions(**USAGE, echo=True)),
    ("completions_stream_stop_token", completions(**USAGE, stop_token_ids=[3816], return_token_ids=True)),
    (
        "completions_stream_interval",
        completions(**USAGE, max_tokens=9, stream_interval=4, return_token_ids=True),
    ),
    ("completions_stream_token_prompt", completions(**USAGE, prompt=LONG_PROMPT)),
    ("completions_stream_token_prompt_again", completions(**USAGE, prompt=LONG_PROMPT)),
    (
        "completions_stream_output_cut_to_context",
        completions(**USAGE, prompt=[5] * (CONTEXT_TOKENS - 3), max_tokens=100),
    ),
    ("messages_stream", other("/v1/messages", messages=QUESTION, max_tokens=4, temperature=0, stream=True)),
    (
        "responses_stream",
        other("/v1/responses", input="def main():", max_output_tokens=4, temperature=0, stream=True),
    ),
)

ANSWERS: Cases = (
    ("chat", chat()),
    ("chat_n2", chat(**SAMPLED)),
    ("chat_logprobs", chat(logprobs=True, top_logprobs=2)),
    ("chat_token_ids", chat(return_token_ids=True)),
    ("chat_end_token", chat(logit_bias={END_TURN: 100})),
    ("chat_load_header", chat(("endpoint-load-metrics-format", "JSON"))),
    ("chat_tool_choice_none", chat(tools=[WEATHER], tool_choice="none")),
    ("completions", completions()),
    ("completions_n2", completions(**SAMPLED)),
    ("completions_logprobs", completions(logprobs=2)),
    ("completions_token_ids", completions(return_token_ids=True)),
    ("completions_prompt_logprobs", completions(prompt_logprobs=1)),
    ("completions_no_model", completions(model=None)),
    ("completions_unknown_field", completions(no_such_field=1)),
    ("messages", other("/v1/messages", messages=QUESTION, max_tokens=4, temperature=0)),
    ("responses", other("/v1/responses", input="def main():", max_output_tokens=4, temperature=0)),
    ("tokenize", other("/tokenize", prompt="def main():", return_token_strs=True)),
    ("tokenize_chat", other("/tokenize", messages=QUESTION)),
    ("detokenize", other("/detokenize", tokens=[322, 2259, 828])),
    ("models", get("/v1/models", REQUEST_ID)),
    ("version", get("/version", REQUEST_ID)),
    ("health", HEALTH),
    ("ping", get("/ping", REQUEST_ID)),
    ("load", get("/load", REQUEST_ID)),
)

BAD_REQUESTS: Cases = (
    ("unknown model", chat(model="nope")),
    ("unknown model, streaming", chat(model="nope", stream=True)),
    ("unknown model, tokenize", post("/tokenize", {"model": "nope", "prompt": "a"}, REQUEST_ID)),
    ("prompt too long", completions(prompt=" import os" * 4000)),
    ("prompt too long, streaming", completions(prompt=" import os" * 4000, stream=True)),
    ("prompt too long, chat", chat(messages=[{"role": "user", "content": " import os" * 4000}])),
    ("prompt too long, token ids", completions(prompt=[5] * (CONTEXT_TOKENS + 1))),
    ("prompt too long, by its characters", completions(prompt="x" * 300_000)),
    ("prompt fills the context", completions(prompt=[5] * CONTEXT_TOKENS, max_tokens=1)),
    ("max_tokens beyond the context", chat(max_tokens=CONTEXT_TOKENS + 1)),
    (
        "max_completion_tokens beyond the context",
        chat(max_tokens=None, max_completion_tokens=CONTEXT_TOKENS + 1),
    ),
    ("bad JSON", post("/v1/completions", b'{"model":"tiny"', REQUEST_ID)),
    ("body is not UTF-8", post("/v1/completions", b'{"model":"tiny","prompt":"\xff"}', REQUEST_ID)),
    ("body is an array", post("/v1/completions", b"[1]", REQUEST_ID)),
    ("body is empty", post("/v1/completions", b"", REQUEST_ID)),
    ("body is no JSON by its type", chat(("content-type", "text/plain"))),
    ("wrong type", chat(max_tokens="many")),
    ("wrong type, streaming", chat(max_tokens="many", stream=True)),
    ("missing field", post("/v1/chat/completions", {"model": "tiny"}, REQUEST_ID)),
    ("two mistakes", chat(max_tokens="many", temperature="hot")),
    ("no messages", chat(messages=[])),
    ("empty prompt", completions(prompt="")),
    ("empty list of prompts", completions(prompt=[])),
    ("token out of vocabulary", completions(prompt=[999_999])),
    ("temperature below 0", chat(temperature=-1)),
    ("top_p of 0", chat(top_p=0)),
    ("n of 0", chat(n=0)),
    ("max_tokens of 0", chat(max_tokens=0)),
    ("stream_options without stream", chat(stream_options={"include_usage": True})),
    ("empty cache_salt", chat(cache_salt="")),
    (
        "continue_final_message and add_generation_prompt",
        chat(add_generation_prompt=True, continue_final_message=True),
    ),
    ("empty tools", chat(tools=[])),
    ("tool_choice without tools", chat(tool_choice="auto")),
    ("tools without a parser", chat(tools=[WEATHER])),
    ("required tool without a parser", chat(tools=[WEATHER], tool_choice="required")),
    ("named tool without a parser", chat(tools=[WEATHER], tool_choice=NAMED)),
    ("suffix", completions(suffix="x")),
    ("prompt_logprobs, streaming", completions(prompt_logprobs=1, stream=True)),
    ("beam search, streaming", completions(use_beam_search=True, stream=True)),
    ("data-parallel rank out of range", completions(("x-data-parallel-rank", "7"))),
    ("embeddings of a generating model", other("/v1/embeddings", input="a")),
    ("score of a generating model", other("/score", text_1="a", text_2="b")),
    ("render without --enable-scale-out", other("/v1/chat/completions/render", messages=QUESTION)),
    ("unknown path", get("/nope", REQUEST_ID)),
    ("wrong method", get("/v1/chat/completions", REQUEST_ID)),
)


ENDLESS = {"max_tokens": 4000, "ignore_eos": True}
"""Minutes of noise, for what happens in the middle of it."""


def opened(bias: dict[int, float]) -> Cases:
    """For the replica with a key, a tool parser and the scale-out endpoints.

    `bias` bends the noise to the words of a call; the grammar of the tool's schema puts them in order.
    """
    key = AUTHORIZED
    call = {"max_tokens": 60, "tools": [WEATHER], "logit_bias": {**bias, END_TURN: 100}}
    tokens = {
        "request_id": "req-42",
        "token_ids": [1, 322, 2259, 828],
        "sampling_params": {"max_tokens": 4, "temperature": 0},
    }
    return (
        ("chat_tool_required", chat(key, **call, tool_choice="required")),
        ("chat_tool_named", chat(key, **call, tool_choice=NAMED)),
        ("chat_stream_tool_required", chat(key, **call, **USAGE, tool_choice="required")),
        ("chat_stream_tool_named", chat(key, **call, **USAGE, tool_choice=NAMED)),
        ("chat_stream_tool_auto_not_called", chat(key, **USAGE, tools=[WEATHER])),
        ("chat_stream_tool_cut", chat(key, **{**call, "max_tokens": 30}, **USAGE, tool_choice="required")),
        ("render_chat", other("/v1/chat/completions/render", key, messages=QUESTION, max_tokens=4)),
        ("render_completions", other("/v1/completions/render", key, prompt="def main():", max_tokens=4)),
        ("generate", other("/inference/v1/generate", key, **tokens)),
        ("generate_stream", other("/inference/v1/generate", key, **tokens, **USAGE)),
    )


ABORT = post("/abort_requests", {"request_ids": ["chatcmpl-req-42"]}, AUTHORIZED)
PAUSE = post("/pause?mode=abort", {}, AUTHORIZED)
RESUME = post("/resume", {}, AUTHORIZED)

QUEUE_FULL: Cases = (
    ("queue full", chat(AUTHORIZED)),
    ("queue full, streaming", chat(AUTHORIZED, stream=True)),
)

DRAINING: Cases = (
    ("draining", completions(AUTHORIZED)),
    ("draining, streaming", completions(AUTHORIZED, stream=True)),
)
DRAINED = chat(AUTHORIZED, **USAGE, max_tokens=600, ignore_eos=True)
"""Long enough to be under way when SIGTERM comes, short enough to finish in the time to drain."""

NO_KEY: Cases = (
    ("no key", chat()),
    ("wrong key", chat(("authorization", "Bearer wrong"))),
    ("no key, models", get("/v1/models", REQUEST_ID)),
)
