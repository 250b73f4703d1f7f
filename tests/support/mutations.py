"""Small seeded damage to bytes, for tests that want to know what a parser does with what it was not made for."""

from collections.abc import Callable, Sequence
from random import Random

WIRE = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b";", b"0", b"-1", b"+5", b"0x10", b"1_0", b"\xff\xfe",
    b"99999999999999999999", b"content-length: 5\r\n", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: identity\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n", b"expect: 100-continue\r\n",
    b"upgrade: h2c\r\n", b"host: other\r\n", b"HTTP/1.0", b"HTTP/2.0", b"GET ", b"POST ", b"0\r\n\r\n", b"5\r\nhello\r\n",
    b"\x16\x03\x01", b"x" * 70_000,
)  # fmt: skip
JSON = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"-1", b"1e999", b"\\u0000", b"\\ud800", b"\xff", b'""', b"[]",
    b"{}", b"[" * 5000, b'"stream":true,', b'"stream":1,', b'"n":2,', b'"model":"m",', b'"max_tokens":0,', b'"logprobs":true,',
    b'"tools":[{}],', b'"stop":[1],', b'"response_format":{"type":"json_schema"},', b"\xf0\x9f\x8e\x89", b"9" * 400,
)  # fmt: skip
EVENTS = (
    b"data:", b"data: ", b"\n\n", b"\r\n\r\n", b"\r\r", b"event: error\n", b": comment\n\n", b"id: 1\n", b"retry: 1\n", b"[DONE]",
    b"data: [DONE]\n\n", b"data: {}\n\n", b"data: []\n\n", b"data: null\n\n", b'data: {"choices":[]}\n\n',
    b'data: {"choices":null}\n\n', b'data: {"choices":[{}]}\n\n', b'data: {"choices":[{"index":0,"delta":null}]}\n\n',
    b'data: {"choices":[{"index":-1,"delta":{"content":"x"}}]}\n\n', b'data: {"choices":[{"index":0,"delta":{"content":7}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{}]}}]}\n\n', b'data: {"error":"oh"}\n\n', b'data: {"error":{}}\n\n',
    b'data: {"error":{"message":"oh","code":400}}\n\n', b'"finish_reason":"stop"', b'"finish_reason":"abort"',
    b'"finish_reason":7', b'"usage":{"prompt_tokens":-1}', b'"usage":[]', b'"id":7', b'"created":"x"', b"\xef\xbb\xbf", b"\xff",
    b"\x00", b"\xed\xa0\x80", b"data: " + b"x" * 2_000_000,
)  # fmt: skip


def flip(data: bytearray, random: Random) -> None:
    """One bit."""
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def cut(data: bytearray, random: Random) -> None:
    """Some bytes are missing."""
    begin = random.randrange(len(data) + 1)
    del data[begin : begin + random.choice((1, 2, 4, 16, 64))]


def end(data: bytearray, random: Random) -> None:
    """The rest is missing."""
    del data[random.randrange(len(data) + 1) :]


def repeat(data: bytearray, random: Random) -> None:
    """Some bytes come twice."""
    begin = random.randrange(len(data) + 1)
    piece = data[begin : begin + random.choice((1, 4, 30, 200))]
    data[begin:begin] = piece


def swap(data: bytearray, random: Random) -> None:
    """Two pieces change places."""
    size = random.choice((1, 2, 8, 32))
    if len(data) > 2 * size:
        first, second = sorted(random.sample(range(len(data) - size), 2))
        data[first : first + size], data[second : second + size] = (
            data[second : second + size],
            data[first : first + size],
        )


def inserting(words: Sequence[bytes]) -> Callable[[bytearray, Random], None]:
    """One of these words stands where it does not belong."""

    def insert(data: bytearray, random: Random) -> None:
        at = random.randrange(len(data) + 1)
        data[at:at] = random.choice(words)

    return insert


def replacing(words: Sequence[bytes]) -> Callable[[bytearray, Random], None]:
    """One of these words stands in the place of something else."""

    def replace(data: bytearray, random: Random) -> None:
        at = random.randrange(len(data) + 1)
        data[at : at + random.choice((1, 4, 16))] = random.choice(words)

    return replace


def mutated(data: bytes, words: Sequence[bytes], random: Random) -> bytes:
    """`data` with one to four kinds of damage; the same `random` state does the same."""
    result = bytearray(data)
    insert, replace = inserting(words), replacing(words)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        random.choice((flip, cut, end, repeat, swap, insert, insert, replace))(result, random)
    return bytes(result)


def pieces(data: bytes, random: Random) -> list[bytes]:
    """`data` as it might arrive: whole, in a few pieces, or a byte at a time."""
    how = random.random()
    if how < 0.4 or len(data) < 2:
        return [data]
    if how < 0.5 and len(data) < 2000:
        return [bytes([byte]) for byte in data]
    cuts = sorted(random.sample(range(1, len(data)), min(len(data) - 1, random.randrange(1, 6))))
    return [data[begin:stop] for begin, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
