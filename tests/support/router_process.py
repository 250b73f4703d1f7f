"""`turnout serve` as a process of its own, on free ports, for as long as a test needs it."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
_SERVES = re.compile(r"turnout serves at (\S+)/v1, admin at (\S+)")


@dataclass(frozen=True, slots=True)
class RouterProcess:
    url: str
    admin_url: str
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@contextlib.contextmanager
def router_process(text: str, folder: Path, *, leaves_with: int = 0) -> Iterator[RouterProcess]:
    """`text` is a configuration whose ports should be 0; it and the log are kept in `folder`.

    Raises `RuntimeError` if the process ends early or does not serve in time. It must leave with
    this code on SIGTERM, or have done so.
    """
    config, log = folder / "turnout.toml", folder / "turnout.log"
    config.write_text(text)
    command = [str(Path(sys.executable).with_name("turnout")), "serve", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        url, admin_url = _addresses(process, log)
        yield RouterProcess(url, admin_url, log, process)
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == leaves_with, log.read_text()[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _addresses(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = _SERVES.search(log.read_text())
        if found is not None:
            return found[1], found[2]
        time.sleep(0.05)
    raise RuntimeError(f"turnout does not serve:\n{log.read_text()[-2000:]}")
