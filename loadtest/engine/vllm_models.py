"""vLLM's model list, and loading and unloading of LoRA adapters."""

import time
from typing import Any
from uuid import uuid4

import msgspec

from loadtest.engine.dialect import Reply, Request, Response
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_errors import VllmError


class LoadLora(msgspec.Struct, frozen=True):
    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False


class UnloadLora(msgspec.Struct, frozen=True):
    lora_name: str = ""
    lora_int_id: int | None = None


class ModelsEndpoint:
    """`/v1/models`, `/v1/load_lora_adapter`, `/v1/unload_lora_adapter`."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def list(self, _: Request) -> Reply:
        options = self._base.options
        now = int(time.time())
        cards = [
            _card(
                name,
                now,
                root=self._base.flags.root or options.model,
                parent=None,
                max_model_len=options.max_model_len,
            )
            for name in options.model_names
        ]
        cards += [
            _card(name, now, root=path, parent=options.model, max_model_len=None)
            for name, path in self._base.loras.items()
        ]
        return Response.of_json({"object": "list", "data": cards})

    async def load_lora(self, request: Request) -> Reply:
        wanted = decode_body(request, LoadLora)
        if not wanted.lora_name or not wanted.lora_path:
            raise VllmError(400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
        if wanted.lora_name in self._base.loras and not wanted.load_inplace:
            message = f"The lora adapter '{wanted.lora_name}' has already been loaded."
            raise VllmError(400, message, "InvalidUserInput")
        self._base.loras[wanted.lora_name] = wanted.lora_path
        return Response.of_text(f"Success: LoRA adapter '{wanted.lora_name}' added successfully.")

    async def unload_lora(self, request: Request) -> Reply:
        wanted = decode_body(request, UnloadLora)
        if not wanted.lora_name:
            raise VllmError(
                400, "'lora_name' needs to be provided to unload a LoRA adapter.", "InvalidUserInput"
            )
        if wanted.lora_name not in self._base.loras:
            raise VllmError(404, f"The lora adapter '{wanted.lora_name}' cannot be found.", "NotFoundError")
        del self._base.loras[wanted.lora_name]
        return Response.of_text(f"Success: LoRA adapter '{wanted.lora_name}' removed successfully.")


def _card(name: str, now: int, *, root: str, parent: str | None, max_model_len: int | None) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{uuid4().hex}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
        "permission": [permission],
    }
