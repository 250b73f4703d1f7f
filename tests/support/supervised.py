"""A supervised family whose members do as they are told: `python -m tests.support.supervised WORKERS MANNERS`.

Every line of its output is `WORD NUMBER PROCESS`. Manners are a JSON object: number to what it does there.
"""

import json
import os
import select
import signal
import sys
import time

from router.serving.children import STOP, Post
from router.serving.supervisor import Supervisor

WORKERS = int(sys.argv[1])
MANNERS = {int(number): word for number, word in json.loads(sys.argv[2]).items()}


def say(word: str, number: int = -1) -> None:
    os.write(1, f"{word} {number} {os.getpid()}\n".encode())


def live(post: Post) -> int:
    """Start as the manners say, be ready, and end at the first signal, or when the supervisor is gone."""
    manner = MANNERS.get(post.number, "")
    signals, told = os.pipe()
    os.set_blocking(told, False)
    signal.signal(STOP, lambda *_: None)
    signal.set_wakeup_fd(told)
    say("born", post.number)
    if manner == "fails":
        post.say("there is no luck")
        return 1
    if manner == "raises":
        raise RuntimeError("a defect")
    if manner == "late":
        time.sleep(0.3)
    post.say_ready()
    while True:
        ready, _, _ = select.select([signals, post.lifeline], [], [])
        if post.lifeline in ready:
            say("orphaned", post.number)
            return 0
        os.read(signals, 100)
        say("told", post.number)
        if manner == "ends badly":
            return 3
        if manner != "stays":
            return 0


if __name__ == "__main__":
    supervisor = Supervisor(live, WORKERS, lambda: say("announced"))
    say("supervisor")
    sys.exit(supervisor.run())
