"""Keys that are believed: a client simply says who it is."""

from router.control.keys import ANONYMOUS, Caller


class TrustingKeys:
    """`authorization: TENANT`, or `TENANT/PRIORITY`."""

    def caller_of(self, authorization: str | None, api_key: str | None = None) -> Caller:
        if authorization is None:
            return ANONYMOUS
        tenant, _, priority = authorization.partition("/")
        return Caller(tenant, tenant, None, priority or "normal")  # type: ignore[arg-type]
