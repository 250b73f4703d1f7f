"""What an answer's blocks were, told from the prompt of the next turn, which repeats it.

The engine has them in its cache when the next turn comes; a router that saw hashes only could not know them.
"""

from collections.abc import Sequence

from loadtest.simulate.workload import Call, Session


def with_answers(sessions: Sequence[Session]) -> list[Session]:
    """Sessions of one call each, in order; each call that is followed up gets the hashes of its answer.

    A later prompt is taken for the next turn if it begins with all full blocks of the earlier one, two at
    least (a first block is often everybody's system prompt), and is at least as long as it and its answer.
    The first such prompt counts, and it follows up the latest call that it can.
    """
    calls = [session.calls[0] for session in sessions]
    latest: dict[int, int] = {}
    for index, call in enumerate(calls):
        earlier = _followed_up(call, calls, latest)
        if earlier is not None:
            before = calls[earlier]
            full = (before.prompt.tokens + before.completion_tokens) // int(before.prompt.block_tokens)
            calls[earlier] = before._replace(answer=call.prompt.blocks[:full], answer_seen=False)
            del latest[before.prompt.blocks[-1]]
        if len(call.prompt.blocks) > 1:
            latest[call.prompt.blocks[-1]] = index
    return [session._replace(calls=(call,)) for session, call in zip(sessions, calls, strict=True)]


def _followed_up(call: Call, calls: Sequence[Call], latest: dict[int, int]) -> int | None:
    for block in reversed(call.prompt.blocks):
        index = latest.get(block)
        if index is not None:
            before = calls[index]
            longer = before.prompt.tokens + before.completion_tokens <= call.prompt.tokens
            return index if longer else None
    return None
