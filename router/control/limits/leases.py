"""The slots that this process holds in Redis: leases, so that they end with it if it dies."""

from collections.abc import Iterator, Sequence

from policies.limits.ask import Ask
from router.control.limits.scripts import LEASE_US, Scripts, prefix_of

RENEW_S = LEASE_US / 3e6
PER_CALL = 500


class Leases:
    """Who is open, by the key of its slots."""

    def __init__(self) -> None:
        self._open: dict[str, set[str]] = {}

    def add(self, ask: Ask) -> None:
        for slots in ask.slots:
            self._open.setdefault(slots.key, set()).add(ask.id)

    def remove(self, ask: Ask) -> None:
        for slots in ask.slots:
            ids = self._open.get(slots.key, set())
            ids.discard(ask.id)
            if not ids:
                self._open.pop(slots.key, None)

    def held(self, key: str) -> int:
        return len(self._open.get(key, ()))

    def renewals(self, scripts: Scripts) -> Iterator[tuple[str, bytes]]:
        """Commands that renew all, each with the tag it belongs to: one a tag, of many leases more."""
        by_tag: dict[str, list[tuple[str, list[str]]]] = {}
        for key, ids in self._open.items():
            every = sorted(ids)
            for start in range(0, len(every), PER_CALL):
                by_tag.setdefault(prefix_of(key), []).append((key, every[start : start + PER_CALL]))
        for tag, slots in by_tag.items():
            for some in _chunks(slots):
                args: list[str | int] = []
                for _, ids_of_one in some:
                    args += (len(ids_of_one), *ids_of_one)
                yield tag, scripts.renew.call([key for key, _ in some], args, whole=True)


def _chunks(slots: Sequence[tuple[str, list[str]]]) -> Iterator[list[tuple[str, list[str]]]]:
    """Of not many more leases than a call should carry."""
    some: list[tuple[str, list[str]]] = []
    for each in slots:
        some.append(each)
        if sum(len(ids) for _, ids in some) >= PER_CALL:
            yield some
            some = []
    if some:
        yield some
