"""The options of models, their versions, and the replicas that serve each version."""

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from router.config import checks
from router.config.expect import ExpectConfig
from router.config.kv_events import KvEventsConfig
from router.config.option import option, section
from router.config.places import origin, template_text, tokenizer_directory
from router.config.secret import Secret
from router.config.shadow import ShadowConfig

EngineName = Literal["vllm", "tgi", "trtllm", "triton"]
SplitBy = Literal["session", "user", "api_key", "request"]

DEFAULT_POLICY = "expected_latency"
"""What a model without `policy` uses: needs nothing learned or tuned, until there is `expected_latency`."""


@section
class ReplicaConfig:
    """One engine process. Two entries with the same URL, in two versions, are the same replica."""

    url: str = option(
        "Scheme, host and port of the engine.",
        checks.replica_url,
        convert=origin,
        example="http://10.0.0.1:8000",
    )
    engine: EngineName = option(
        "The engine that answers there: 'vllm', 'tgi', 'trtllm' or 'triton'.", example="vllm"
    )
    id: str | None = option(
        "Its name in headers, metrics and logs; absent: host:port.",
        checks.label,
        default=None,
        example="gpu-7",
    )
    weight: float = option(
        "Its share against the others of its version; give a replica with twice the GPUs 2.0.",
        checks.above(0),
        default=1.0,
    )
    api_key: Secret | None = option(
        "Sent to the replica as a bearer token, in place of the client's.",
        default=None,
        example="env:REPLICA_KEY",
    )
    max_in_flight: int | None = option(
        "Most requests sent to it at a time; absent: no bound but the engine's own queue.",
        checks.at_least(1),
        default=None,
        example=256,
    )
    max_running: int | None = option(
        "Requests it can run at a time, if the engine does not tell (vLLM's max_num_seqs).",
        checks.at_least(1),
        default=None,
        example=256,
    )
    kv_capacity_tokens: int | None = option(
        "Tokens its KV cache holds, where the engine does not tell (TGI).",
        checks.at_least(1),
        default=None,
        example=400_000,
    )
    metrics_url: str | None = option(
        "Where its metrics are, if not where the engine usually has them (triton: port 8002).",
        checks.http_url,
        default=None,
        example="http://10.0.0.1:8002/metrics",
    )
    model_name: str | None = option(
        "triton: the model of the repository to call, if not the usual one of its layout.",
        checks.not_empty,
        default=None,
        example="ensemble",
    )
    triton_layout: Literal["ensemble", "llmapi", "auto"] = option(
        "triton: layout of the model repository, 'ensemble' or 'llmapi'; set it if 'auto' guesses wrong.",
        default="auto",
    )
    output: Literal["delta", "cumulative", "auto"] = option(
        "triton: an event holds new text ('delta') or all ('cumulative'); set it if 'auto' guesses wrong.",
        default="auto",
    )
    chat_template: str | None = option(
        "triton: the model's Jinja chat template, inline or 'file:PATH'; needed to serve chat.",
        checks.not_empty,
        default=None,
        example="file:chat_template.jinja",
        convert=template_text,
    )
    kv_events: KvEventsConfig | None = option(
        "How the engine tells what its prefix cache holds.", default=None
    )

    @property
    def replica_id(self) -> str:
        """What headers, metrics and logs call it."""
        return self.id or urlsplit(self.url).netloc


@section
class DiscoverConfig:
    """`discover`: replicas found at run time instead of listed."""

    kind: Literal["dns", "kubernetes"] = option(
        "Where replicas are looked up: 'dns' or 'kubernetes'.", example="dns"
    )
    engine: EngineName = option(
        "The engine that every replica found runs: 'vllm', 'tgi', 'trtllm' or 'triton'.", example="vllm"
    )
    port: int = option(
        "The port that every replica found listens on.", checks.between(1, 65535), example=8000
    )
    host: str | None = option(
        "dns: the name whose addresses are the replicas.",
        checks.not_empty,
        default=None,
        example="vllm.ml.svc",
    )
    namespace: str | None = option(
        "kubernetes: where the pods are; absent: the router's own namespace.",
        checks.not_empty,
        default=None,
        example="ml",
    )
    selector: str | None = option(
        "kubernetes: the label selector of the pods.", checks.not_empty, default=None, example="app=vllm"
    )
    interval_s: float = option("Time between two look-ups.", checks.above(0), default=5.0)


@section
class VersionConfig:
    """`[models.M.versions.V]`: one build of a model and the replicas that serve it."""

    served_name: str = option(
        "The engine's own name for the model.", checks.not_empty, example="meta-llama/Llama-3.1-8B-Instruct"
    )
    adapter: str | None = option(
        "The LoRA adapter of the replicas that is this version; absent: the base model.",
        checks.not_empty,
        default=None,
        example="support-lora",
    )
    tokenizer: str | None = option(
        "Directory with the model's tokenizer.json; with it prompts can be matched with kv_events.",
        checks.not_empty,
        default=None,
        example="tokenizers/llama-8b",
        convert=tokenizer_directory,
    )
    kv_block_tokens: int = option(
        "Tokens per block in which caches are compared; must divide the block size of each engine.",
        checks.at_least(1),
        default=16,
    )
    warm_join_prompts: int = option(
        "Hot prompts, of one token's answer, that fill a new replica's cache before clients do; 0 is none.",
        checks.between(0, 64),
        default=0,
    )
    warm_join_tokens: int = option(
        "The most prompt tokens that all of them together may have, per replica that joins.",
        checks.at_least(1),
        default=32_768,
    )
    replicas: tuple[ReplicaConfig, ...] = option("The engines that serve this version.", default=())
    discover: DiscoverConfig | None = option(
        "How its replicas are found; instead of `replicas`.", default=None
    )
    expect: ExpectConfig | None = option(
        "What a replica must report of itself before it gets traffic.", default=None
    )


@section
class SplitRule:
    """One entry of `rules`: requests with this header go to this version."""

    header: str = option("The request header to look at.", checks.header_name, example="x-beta")
    equals: str = option("The value it must have.", example="1")
    version: str = option("The version that serves such requests.", example="v2")


@section
class SplitConfig:
    """`[models.M.split]`: which part of the traffic each version gets. Absent: everything to stable."""

    weights: Mapping[str, float] = option(
        "Shares of the versions, any positive numbers; a version that is not named gets nothing.",
        checks.not_empty,
        each=(checks.above(0),),
        example={"v1": 95.0, "v2": 5.0},
    )
    rules: tuple[SplitRule, ...] = option(
        "Looked at before the weights; the first that matches wins.", default=()
    )


@section
class MarginsConfig:
    """`margins`: how much worse a canary may be before that counts against it."""

    error: float = option("Added share of failed requests.", checks.between(0, 1), default=0.01)
    ttft_ratio: float = option(
        "Time to first token, as a ratio to stable's.", checks.at_least(1), default=1.1
    )
    inter_token_ratio: float = option(
        "Time between tokens, as a ratio to stable's.", checks.at_least(1), default=1.1
    )


@section
class CanaryConfig:
    """`[models.M.canary]`: how `turnout release start` ramps a version up."""

    steps: tuple[float, ...] = option(
        "Shares of the traffic in per cent, rising to 100.",
        checks.canary_steps,
        default=(1.0, 5.0, 25.0, 50.0, 100.0),
    )
    min_requests: int = option(
        "Requests the canary must have served at a step before the next.", checks.at_least(1), default=300
    )
    max_step_s: float = option(
        "Longest time at one step; a canary without enough evidence by then is held.",
        checks.above(0),
        default=3600.0,
    )
    false_rollback: float = option(
        "Accepted chance that a canary as good as stable is rolled back; lower is slower to decide.",
        checks.above(0),
        checks.at_most(0.5),
        default=0.005,
    )
    margins: MarginsConfig = option(
        "How much worse the canary may be before that counts against it.", default_factory=MarginsConfig
    )


@section
class ModelConfig:
    """`[models.M]`: a name that clients ask for."""

    stable: str = option("The version that the plain name means.", example="v1")
    aliases: tuple[str, ...] = option(
        "Other names clients may use for it.", each=(checks.name,), default=(), example=["gpt-4o-mini"]
    )
    policy: str = option(
        "How a replica is chosen: a kind, or the name of a [policies.X] table.", default=DEFAULT_POLICY
    )
    split_by: SplitBy = option(
        "What stays on one version: a 'session', a 'user', an 'api_key', or no more than a 'request'.",
        default="session",
    )
    versions: Mapping[str, VersionConfig] = option(
        "Its builds: at least one [models.MODEL.versions.VERSION] table.", checks.not_empty
    )
    split: SplitConfig | None = option("Which part of the traffic each version gets.", default=None)
    shadow: ShadowConfig | None = option("Copies of requests for a version under test.", default=None)
    canary: CanaryConfig | None = option("How a release ramps up.", default=None)
