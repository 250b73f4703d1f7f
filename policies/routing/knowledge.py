"""What `expected_latency` has learned, as bytes: a line of JSON, then the mirrors' hashes, 8 bytes each."""

import json
from array import array
from collections.abc import Sequence
from typing import NamedTuple

_FORMAT = "turnout expected_latency 1"


class Mirror(NamedTuple):
    """One replica's cache: tokens it holds, the correction of that, and blocks, least recently used first."""

    replica: str
    tokens: float
    factor: float
    blocks: Sequence[int]


class Knowledge(NamedTuple):
    """Coefficients as in `PrefillModel` and `DecodeModel`."""

    block_tokens: float
    answer_tokens: float
    prefill: Sequence[float]
    decode: Sequence[float]
    mirrors: Sequence[Mirror]


def dumped(known: Knowledge) -> bytes:
    mirrors = [(one.replica, one.tokens, one.factor, len(one.blocks)) for one in known.mirrors]
    head = json.dumps([_FORMAT, *known[:-1], mirrors]).encode()
    hashes = array("Q")
    for mirror in known.mirrors:
        hashes.extend(mirror.blocks)
    return head + b"\n" + hashes.tobytes()


def loaded(state: bytes) -> Knowledge:
    """Raises `ValueError` for what is no such dump, or one of another format."""
    head, _, tail = state.partition(b"\n")
    hashes = array("Q")
    try:
        kind, block_tokens, answer_tokens, prefill, decode, told = json.loads(head)
        hashes.frombytes(tail)
        mirrors = []
        begin = 0
        for replica, tokens, factor, count in told:
            mirrors.append(Mirror(str(replica), float(tokens), float(factor), hashes[begin : begin + count]))
            begin += count
    except (ValueError, TypeError) as error:
        raise ValueError(f"no knowledge of a router: {error}") from None
    if kind != _FORMAT or begin != len(hashes):
        raise ValueError("knowledge of another format, or cut")
    return Knowledge(float(block_tokens), float(answer_tokens), prefill, decode, mirrors)
