"""Which questions each engine is asked."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from router.engines.fingerprint import Question, Subject
from router.engines.tgi_fingerprint import tgi_questions
from router.engines.triton_fingerprint import triton_questions
from router.engines.trtllm_fingerprint import trtllm_questions
from router.engines.vllm_fingerprint import vllm_questions

QUESTIONS: Final[Mapping[str, Callable[[Subject], tuple[Question, ...]]]] = MappingProxyType(
    {
        "vllm": vllm_questions,
        "tgi": tgi_questions,
        "trtllm": trtllm_questions,
        "triton": triton_questions,
    }
)
