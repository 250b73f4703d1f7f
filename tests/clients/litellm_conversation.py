"""What a program with litellm does: runs inside the environment of `environment.py`, prints one JSON object.

Usage: litellm_conversation.py BASE_URL MODEL
"""

import json
import sys
from typing import Any

import litellm  # type: ignore[import-not-found]

MESSAGES = [{"role": "user", "content": "tell me a story"}]


def main(base_url: str, model: str) -> None:
    wish: dict[str, Any] = {
        "model": f"openai/{model}", "api_base": base_url, "api_key": "any", "max_tokens": 8, "num_retries": 0,
    }  # fmt: skip
    whole = litellm.completion(messages=MESSAGES, **wish)
    chunks = list(
        litellm.completion(messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **wish)
    )
    streamed = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    embedded = litellm.embedding(input=["one"], **{k: v for k, v in wish.items() if k != "max_tokens"})
    try:
        litellm.completion(messages=MESSAGES, **wish | {"model": "openai/nope"})
    except litellm.NotFoundError as error:
        refusal = f"{error.status_code} {error}"
    print(
        json.dumps({
            "text": whole.choices[0].message.content,
            "finish_reason": whole.choices[0].finish_reason,
            "usage": [whole.usage.prompt_tokens, whole.usage.completion_tokens],
            "streamed_text": streamed.choices[0].message.content,
            "streamed_usage": [streamed.usage.prompt_tokens, streamed.usage.completion_tokens],
            "embedding": len(embedded.data[0]["embedding"]),
            "refusal": refusal,
        })
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
