"""The engines' dialects: bytes to values and back. Nothing here opens a socket."""

from collections.abc import Callable, Mapping
from typing import Final

from router.engines.engine import Engine, Target
from router.engines.tgi import Tgi
from router.engines.triton import Triton
from router.engines.trtllm import Trtllm
from router.engines.vllm import Vllm

ENGINES: Final[Mapping[str, Callable[[Target], Engine]]] = {
    "vllm": Vllm,
    "tgi": Tgi,
    "trtllm": Trtllm,
    "triton": Triton,
}
"""Each dialect by the name that configurations use."""
