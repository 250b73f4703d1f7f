"""Who is measured: one row a candidate, with its command line, its health check and what it needs."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Launch:
    """What a candidate is given: a folder for its files, a port to serve on, a second one, the replicas."""

    folder: Path
    port: int
    spare_port: int
    replica_urls: tuple[str, ...]
    peers: Path
    """The environment with the peers' packages."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`command` writes the files it needs and returns the command line; None: straight to the replicas."""

    name: str
    command: Callable[[Launch], list[str]] | None
    health_path: str
    package: str | None = None
    """Installed for it from the package index."""
    hint: str = ""
    """What to do when its program is absent."""
    environment: tuple[tuple[str, str], ...] = ()
    default: bool = True


_LIMITS = """
[[limits]]
name = "per-tenant"
per = ["tenant", "model"]
requests_per_minute = 60000000
tokens_per_minute = 1000000000
concurrency = 100000
"""
"""What no load of the benchmark reaches: it is asked and settled for every request."""

_REDIS = """
[redis]
url = "env:TURNOUT_BENCH_REDIS"
"""


def _turnout(policy: str, launch: Launch, more: str = "") -> list[str]:
    replicas = "".join(f'  {{ url = "{url}", engine = "vllm" }},\n' for url in launch.replica_urls)
    path = launch.folder / "turnout.toml"
    path.write_text(
        f'[server]\nhost = "127.0.0.1"\nport = {launch.port}\nsettle_s = 0\ndrain_timeout_s = 1\n'
        f'access_log = "off"\n\n'
        f'[admin]\nhost = "127.0.0.1"\nport = {launch.spare_port}\n\n'
        f'[models.m]\nstable = "v1"\npolicy = "{policy}"\n\n'
        f'[models.m.versions.v1]\nserved_name = "m"\nreplicas = [\n{replicas}]\n{more}'
    )
    return [str(Path(sys.executable).with_name("turnout")), "serve", "--config", str(path)]


def _vllm_router(policy: str, launch: Launch) -> list[str]:
    return [
        *(str(launch.peers / "bin" / "vllm-router"), "--worker-urls", *launch.replica_urls),
        *("--policy", policy, "--port", str(launch.port), "--prometheus-port", str(launch.spare_port)),
        *("--log-level", "error", "--max-concurrent-requests", "4096", "--max-payload-size", "268435456"),
    ]


def _sglang_router(policy: str, launch: Launch) -> list[str]:
    return [
        *(str(launch.peers / "bin" / "python"), "-m", "sglang_router.launch_router"),
        *("--worker-urls", *launch.replica_urls, "--policy", policy, "--port", str(launch.port)),
        *("--prometheus-port", str(launch.spare_port)),
        *("--log-level", "error", "--max-concurrent-requests", "4096"),
    ]


def _litellm(launch: Launch) -> list[str]:
    entries = "".join(
        f"  - model_name: m\n    litellm_params: {{model: openai/m, api_base: {url}/v1, api_key: none}}\n"
        for url in launch.replica_urls
    )
    path = launch.folder / "litellm.yaml"
    path.write_text(f"model_list:\n{entries}general_settings: {{master_key: sk-bench}}\n")
    program = str(launch.peers / "bin" / "litellm")
    return [program, "--config", str(path), "--port", str(launch.port), "--num_workers", "1"]


_NGINX = """daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 256m;
  client_body_buffer_size 512k;
  keepalive_requests 100000000;
  upstream replicas {{
{servers}
    keepalive 512;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def _nginx(launch: Launch) -> list[str]:
    servers = "\n".join(f"    server {url.removeprefix('http://')};" for url in launch.replica_urls)
    path = launch.folder / "nginx.conf"
    path.write_text(_NGINX.format(folder=launch.folder, port=launch.port, servers=servers))
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or "nginx"
    return [program, "-e", "stderr", "-c", str(path)]


CANDIDATES = (
    Candidate("turnout", partial(_turnout, "round_robin"), "/readyz"),
    Candidate("turnout:round_robin", partial(_turnout, "round_robin"), "/readyz", default=False),
    Candidate("turnout:expected_latency", partial(_turnout, "expected_latency"), "/readyz", default=False),
    Candidate("turnout:prefix_affinity", partial(_turnout, "prefix_affinity"), "/readyz", default=False),
    Candidate("turnout:limits", partial(_turnout, "round_robin", more=_LIMITS), "/readyz", default=False),
    Candidate(
        "turnout:redis",
        partial(_turnout, "round_robin", more=_REDIS),
        "/readyz",
        hint="start a Redis and set TURNOUT_BENCH_REDIS to its URL",
        default=False,
    ),
    Candidate(
        "turnout:limits_in_redis",
        partial(_turnout, "round_robin", more=_LIMITS + _REDIS),
        "/readyz",
        hint="start a Redis and set TURNOUT_BENCH_REDIS to its URL",
        default=False,
    ),
    Candidate("vllm-router:round_robin", partial(_vllm_router, "round_robin"), "/health", "vllm-router"),
    Candidate("vllm-router:cache_aware", partial(_vllm_router, "cache_aware"), "/health", "vllm-router"),
    Candidate(
        "sglang-router:cache_aware", partial(_sglang_router, "cache_aware"), "/health", "sglang-router"
    ),
    Candidate("nginx", _nginx, "/health", hint="apt-get install nginx-light"),
    Candidate(
        "litellm",
        _litellm,
        "/health/liveliness",
        "litellm",
        environment=(("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("LITELLM_LOG", "ERROR")),
        default=False,
    ),
    Candidate("direct", None, "/health", default=False),
)


def candidates_named(names: str) -> tuple[Candidate, ...]:
    """The candidates in a comma-separated list; `vllm-router` means every row of it. Raises ValueError."""
    chosen: list[Candidate] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        found = [c for c in CANDIDATES if c.name == name] or [
            c for c in CANDIDATES if c.name.split(":")[0] == name
        ]
        if not found:
            raise ValueError(f"unknown candidate {name!r}; there are {', '.join(c.name for c in CANDIDATES)}")
        chosen += [c for c in found if c not in chosen]
    return tuple(chosen)
