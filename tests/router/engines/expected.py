"""What a client gets for every recorded stream, written out: the frames' data, and what the reader tells.

The client calls the model `llama-8b`; its request's id is `req-7`. Each row stands for two: a client that
asked for usage gets the frames marked with `asked`, the other one does not.
"""

from typing import NamedTuple

from router.api.request import Endpoint, Usage


class Expected(NamedTuple):
    """One stream. `frames`: data of each frame; `asked` ones are for clients that asked for usage."""

    fixture: str
    endpoint: Endpoint
    frames: tuple[str, ...] = ()
    asked: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    pieces: int = 0
    failure: tuple[str, str, bool, bool] | None = None
    target: tuple[tuple[str, str], ...] = ()
    ends: str = "data: [DONE]\n\n"


CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS
FEW = Usage(11, 3)

V = '{"id":"chatcmpl-req-42","object":"chat.completion.chunk","created":1787000000,"model":"llama-8b",'
VC = '{"id":"cmpl-req-42","object":"text_completion","created":1787000000,"model":"llama-8b",'
V_ROLE = (
    V + '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    '"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}'
)
V_HELLO = (
    V + '"choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null,'
    '"token_ids":null}]}'
)
V_THERE = V_HELLO.replace("Hello", " there")
V_STOP = (
    V + '"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop",'
    '"stop_reason":null,"token_ids":null}]'
)
V_PRINT = '"system_fingerprint":"vllm-0.27.0-1a2b3c4d"}'
V_USAGE = '"choices":[],"usage":{"prompt_tokens":11,"total_tokens":14,"completion_tokens":3},' + V_PRINT
V_TEXT = (
    VC + '"choices":[{"index":0,"text":"Hello","logprobs":null,"finish_reason":null,"stop_reason":null,'
    '"prompt_token_ids":null,"token_ids":null}]}'
)
V_ERROR = ("upstream_error", "The replica failed: Internal server error", True, False)

T = (
    '{"object":"chat.completion.chunk","id":"chatcmpl-req-7","created":1787000000,"model":"llama-8b",'
    '"system_fingerprint":"3.3.6-dev0-native","choices":['
)
T_HELLO = (
    T + '{"index":0,"delta":{"role":"assistant","content":"Hello"},"logprobs":null,"finish_reason":null}],'
    '"usage":null}'
)
T_THERE = T + '{"index":0,"delta":{"content":" there"},"logprobs":null,"finish_reason":null}],"usage":null}'
T_STOP = T + '{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop"}],"usage":null}'
T_USAGE = T + '],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}'
T_OVERLOADED = ("overloaded", "The replica is overloaded: Model is overloaded", True, True)
T_TEXT = (
    '{"object":"text_completion","id":"cmpl-req-7","created":1787000000,"choices":[{"index":0,"text":"Hello",'
    '"logprobs":null,"finish_reason":null}],"model":"llama-8b","system_fingerprint":"3.3.6-dev0-native"}'
)
T_TEXT_STOP = (
    '{"object":"text_completion","id":"cmpl-req-7","created":1787000000,"model":"llama-8b",'
    '"system_fingerprint":"3.3.6-dev0-native","choices":[{"index":0,"text":"","logprobs":null,'
    '"finish_reason":"stop"}]}'
)
T_TEXT_USAGE = (
    '{"id":"cmpl-req-7","object":"text_completion","created":1787000000,"model":"llama-8b","choices":[],'
    '"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}'
)
T_NATIVE = (
    (
        '{"index":1,"token":{"id":9906,"text":"Hello","logprob":-0.25,"special":false},"generated_text":null,'
        '"details":null}'
    ),
    (
        '{"index":2,"token":{"id":1070,"text":" there","logprob":-0.25,"special":false},"generated_text":null,'
        '"details":null}'
    ),
    (
        '{"index":3,"token":{"id":128009,"text":"<|eot_id|>","logprob":-0.25,"special":true},'
        '"generated_text":"Hello there","details":{"finish_reason":"eos_token","generated_tokens":3,"seed":null,'
        '"input_length":11}}'
    ),
)

R = '{"id":"chatcmpl-17","object":"chat.completion.chunk","created":1787000000,"model":"llama-8b","choices":['
R_ROLE = R + '{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}'
R_HELLO = R + '{"index":0,"delta":{"content":"Hello","reasoning_content":""},"finish_reason":null}]}'
R_THERE = R_HELLO.replace("Hello", " there")
R_STOP = R + '{"index":0,"delta":{"content":"","reasoning_content":""},"finish_reason":"stop"}]}'
R_USAGE = (
    R + '],"usage":{"prompt_tokens":11,"total_tokens":14,"completion_tokens":3,'
    '"prompt_tokens_details":{"cached_tokens":0}}}'
)
R_TEXT = (
    '{"id":"cmpl-17","object":"text_completion","created":1787000000,"model":"llama-8b","choices":['
    '{"index":0,"text":"Hello","token_ids":null,"logprobs":null,"finish_reason":null,"stop_reason":null,'
    '"disaggregated_params":null,"avg_decoded_tokens_per_iter":null}],"usage":null}'
)
R_CHAT = (R_ROLE, R_HELLO, R_THERE, R_STOP)
CACHED_NONE = Usage(11, 3, 0)

N = (
    '{"id":"chatcmpl-req-7","object":"chat.completion.chunk","created":1787000000,"model":"llama-8b",'
    '"choices":['
)
N_ROLE = N + '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}'
N_HELLO = N + '{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}'
N_THERE = N_HELLO.replace("Hello", " there")
N_EMPTY = N_HELLO.replace("Hello", "")
N_STOP = N + '{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}'
NC_HELLO = (
    '{"id":"cmpl-req-7","object":"text_completion","created":1787000000,"model":"llama-8b","choices":['
    '{"index":0,"text":"Hello","logprobs":null,"finish_reason":null}]}'
)
NC_STOP = NC_HELLO.replace('"Hello"', '""').replace('"finish_reason":null', '"finish_reason":"stop"')
LLMAPI = (("model_name", "tensorrt_llm"),)


def _guess(prompt: int, pieces: int) -> str:
    usage = f'"prompt_tokens":{prompt},"completion_tokens":{pieces},"total_tokens":{prompt + pieces}'
    return N + '],"usage":{' + usage + ',"estimated":true}}'


STREAMS: dict[str, tuple[Expected, ...]] = {
    "vllm": (
        Expected(
            "chat_stream_include_usage.sse", CHAT, (V_ROLE, V_HELLO, V_THERE, V_STOP + "}"), V + V_USAGE,
            "stop", FEW, 2,
        ),
        Expected(
            "chat_stream_no_usage.sse", CHAT, (V_ROLE, V_HELLO, V_THERE, V_STOP + "," + V_PRINT), "",
            "stop", None, 2,
        ),
        Expected(
            "chat_stream_cached_tokens.sse", CHAT, (V_ROLE, V_HELLO, V_THERE, V_STOP + "}"),
            V + '"choices":[],"usage":{"prompt_tokens":2411,"total_tokens":2414,"completion_tokens":3,'
            '"prompt_tokens_details":{"cached_tokens":2400}},' + V_PRINT,
            "stop", Usage(2411, 3, 2400), 2,
        ),
        Expected(
            "chat_stream_return_token_ids.sse", CHAT,
            (
                V_ROLE.replace(
                    '"prompt_token_ids":null',
                    '"prompt_token_ids":[128000,128006,882,128007,271,13347,128009,128006,78191,128007,271]',
                ),
                V_HELLO.replace('"token_ids":null', '"token_ids":[9906]'),
                V_THERE.replace('"token_ids":null', '"token_ids":[1070]'),
                V_STOP.replace('"token_ids":null', '"token_ids":[128009]') + "," + V_PRINT,
            ),
            "", "stop", None, 2,
        ),
        Expected(
            "completions_stream_include_usage.sse", COMPLETIONS,
            (
                V_TEXT,
                V_TEXT.replace("Hello", " there"),
                V_TEXT.replace('"Hello"', '""').replace('"finish_reason":null', '"finish_reason":"stop"'),
            ),
            VC + V_USAGE, "stop", FEW, 2,
        ),
        Expected(
            "chat_stream_abort.sse", CHAT, (V_ROLE, V_HELLO), pieces=1,
            failure=("upstream_error", "The replica gave up on the answer: abort.", True, False),
        ),
        Expected("chat_stream_midstream_error.sse", CHAT, (V_ROLE, V_HELLO), pieces=1, failure=V_ERROR),
        Expected("chat_stream_error_before_first_token.sse", CHAT, failure=V_ERROR),
    ),
    "tgi": (
        Expected(
            "chat_stream_include_usage.sse", CHAT, (T_HELLO, T_THERE, T_STOP), T_USAGE, "stop", FEW, 2
        ),
        Expected("chat_stream_keepalive.sse", CHAT, (T_HELLO, T_THERE, T_STOP), "", "stop", None, 2),
        Expected("chat_stream_pre2.1_no_space.sse", CHAT, (T_HELLO, T_STOP), "", "stop", None, 1),
        Expected(
            "completions_stream.sse", COMPLETIONS,
            (T_TEXT, T_TEXT.replace("Hello", " there"), T_TEXT_STOP), T_TEXT_USAGE, "stop", FEW, 2,
        ),
        Expected(
            "chat_stream_midstream_error.sse", CHAT, (T_HELLO,), pieces=1,
            failure=(
                "upstream_error",
                "The replica failed: Request failed during generation: Server error: CUDA out of memory",
                True, False,
            ),
        ),
        Expected("chat_stream_overloaded_http200.sse", CHAT, failure=T_OVERLOADED),
        Expected(
            "chat_stream_context_too_long_http200.sse", CHAT,
            failure=(
                "context_length_exceeded",
                ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
                "Given: 4000 `inputs` tokens and 512 `max_new_tokens`"),
                False, False,
            ),
        ),
        Expected(
            "generate_stream.sse", Endpoint.GENERATE_STREAM, T_NATIVE, "", "eos_token", FEW, 3, ends=""
        ),
        Expected("generate_stream_overloaded_http200.sse", Endpoint.GENERATE_STREAM, failure=T_OVERLOADED),
    ),
    "trtllm": (
        Expected("chat_stream_include_usage.sse", CHAT, R_CHAT, R_USAGE, "stop", CACHED_NONE, 2),
        Expected("chat_stream_perf_trailer_after_done.sse", CHAT, R_CHAT, R_USAGE, "stop", CACHED_NONE, 2),
        Expected(
            "completions_stream.sse", COMPLETIONS,
            (
                R_TEXT,
                R_TEXT.replace("Hello", " there"),
                R_TEXT.replace('"Hello"', '""').replace('"finish_reason":null', '"finish_reason":"stop"'),
            ),
            "", "stop", None, 2,
        ),
        Expected(
            "chat_stream_truncated_by_error.sse", CHAT, (R_ROLE, R_HELLO), pieces=1,
            failure=("upstream_reset", "The replica ended the answer before it was finished.", True, False),
        ),
        Expected(
            "completions_stream_midstream_error_double_done.sse", COMPLETIONS, (R_TEXT,), pieces=1,
            failure=V_ERROR,
        ),
    ),
    "triton": (
        Expected(
            "generate_stream_ensemble_delta.sse", CHAT, (N_ROLE, N_HELLO, N_THERE, N_EMPTY, N_STOP),
            _guess(9, 3), "stop", None, 3,
        ),
        Expected(
            "generate_stream_ensemble_delta.sse", COMPLETIONS,
            (NC_HELLO, NC_HELLO.replace("Hello", " there"), NC_HELLO.replace("Hello", ""), NC_STOP),
            _guess(9, 3).replace("chatcmpl-", "cmpl-").replace("chat.completion.chunk", "text_completion"),
            "stop", None, 3,
        ),
        Expected(
            "generate_stream_llmapi_cumulative.sse", CHAT, (N_ROLE, N_HELLO, N_THERE, N_STOP), _guess(9, 2),
            "stop", None, 2, target=LLMAPI,
        ),
        Expected(
            "generate_stream_midstream_error.sse", CHAT, (N_ROLE, N_HELLO), pieces=1, target=LLMAPI,
            failure=("upstream_error", "The replica failed: Error generating request: ...", True, False),
        ),
        Expected(
            "generate_stream_midstream_error.sse", CHAT, (N_ROLE, N_HELLO), pieces=1,
            target=(*LLMAPI, ("output", "cumulative")),
            failure=("upstream_error", "The replica failed: Error generating request: ...", True, False),
        ),
    ),
}  # fmt: skip
"""Every stream fixture, by engine."""

OTHER_DIALECTS = {"triton/openai_frontend_chat_stream.sse"}
"""Triton's OpenAI front end is OpenAI's dialect: it is read as vLLM's is."""
