"""Requests for Triton's generate endpoint: one flat object, whose names the model repository decides.

A scalar that a model does not know is ignored, a list is refused; both layouts are NVIDIA's own
(triton_backend/all_models of TensorRT-LLM).
"""

from typing import Any, Literal

from router.api.errors import EndpointNotSupported, RequestError
from router.api.request import Endpoint, InferenceRequest
from router.engines.chat_template import ChatTemplate
from router.engines.members import COMPLETION_MAX_TOKENS, value_of

Layout = Literal["ensemble", "llmapi"]

CHAT_MAX_TOKENS = 1024
"""Triton must be given a number, and does not tell how long a context may be."""
_SEEDS = 1 << 64


def prompt_of(request: InferenceRequest, template: ChatTemplate | None) -> str:
    """The text to complete. Raises `EndpointNotSupported` for what needs a tokenizer or a template."""
    if request.endpoint is Endpoint.CHAT:
        if template is None:
            raise EndpointNotSupported(
                "Triton needs the model's chat template to serve chats: set the replica's chat_template."
            )
        messages = value_of(request, "messages")
        if not isinstance(messages, list):
            raise RequestError("'messages' must be an array", param="messages")
        return template.render(messages)
    prompt = value_of(request, "prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise EndpointNotSupported("Triton takes one text as a prompt.", param="prompt")
    return prompt


def generate_members(request: InferenceRequest, prompt: str, layout: Layout) -> dict[str, Any]:
    """The members of the request's object, for a stream of the answer alone without the prompt."""
    default = CHAT_MAX_TOKENS if request.endpoint is Endpoint.CHAT else COMPLETION_MAX_TOKENS
    sampling = {"max_tokens": request.max_tokens or default, **_sampling(request)}
    stop = _stop(request)
    if layout == "llmapi":
        members: dict[str, Any] = {"text_input": prompt, "streaming": True, "return_finish_reason": True}
        members |= {f"sampling_param_{name}": value for name, value in sampling.items()}
        members["sampling_param_exclude_input_from_output"] = True
        return {**members, "sampling_param_stop": stop} if stop else members
    members = {"text_input": prompt, "stream": True, "exclude_input_in_output": True, **sampling}
    if "seed" in members:
        members["random_seed"] = members["seed"]  # its name in older repositories
    members |= {"return_num_input_tokens": True, "return_num_output_tokens": True}
    return {**members, "stop_words": stop} if stop else members


def _sampling(request: InferenceRequest) -> dict[str, Any]:
    """OpenAI's defaults are said aloud: without them the backend decodes greedily."""
    sampling = {
        name: value
        for name in ("top_k", "frequency_penalty", "presence_penalty", "repetition_penalty")
        if (value := _number(request, name)) is not None
    }
    temperature = _number(request, "temperature")
    if temperature == 0:
        sampling["top_k"] = 1  # some releases refuse a temperature of 0
    else:
        top_p = _number(request, "top_p")
        sampling["temperature"] = 1.0 if temperature is None else temperature
        sampling["top_p"] = 1.0 if top_p is None else top_p
    seed = _number(request, "seed")
    if isinstance(seed, int):
        sampling["seed"] = seed % _SEEDS
    return sampling


def _number(request: InferenceRequest, name: str) -> int | float | None:
    value = value_of(request, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"'{name}' must be a number", param=name)
    return value


def _stop(request: InferenceRequest) -> list[str]:
    stop = value_of(request, "stop")
    words = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RequestError("'stop' must be a string or an array of strings", param="stop")
    return words
