"""The admin listener of a running router, as the commands ask it."""

from collections.abc import Callable
from typing import Self, TypeVar

import click
import httpx
import msgspec

TIMEOUT_S = 5.0

T = TypeVar("T")

ADMIN_URL = "http://127.0.0.1:8081"


Command = TypeVar("Command", bound=Callable[..., object])


def admin_options(command: Command) -> Command:
    """`--admin` and `--token`, as every command has them that asks a running router."""
    admin = click.option(
        "--admin",
        default=ADMIN_URL,
        show_default=True,
        envvar="TURNOUT_ADMIN",
        help="The admin listener; also from TURNOUT_ADMIN.",
    )
    token = click.option(
        "--token",
        envvar="TURNOUT_ADMIN_TOKEN",
        help="Its token, if it has one; also from TURNOUT_ADMIN_TOKEN.",
    )
    return admin(token(command))


class AdminClient:
    """Everything that can go wrong with it is one line and exit code 1."""

    def __init__(self, admin: str, token: str | None) -> None:
        self._admin = admin.rstrip("/")
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> str:
        """The document as it came. Raises `click.ClickException`."""
        return self._ask("GET", path)

    def post(self, path: str, body: bytes) -> str:
        """The answer as it came. Raises `click.ClickException`."""
        return self._ask("POST", path, body)

    def decode(self, document: str, kind: type[T]) -> T:
        """The document as a value. Raises `click.ClickException` for one that is no such thing."""
        try:
            return msgspec.json.decode(document, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise click.ClickException(f"{self._admin} is no Turnout admin listener: {error}") from error

    def _ask(self, method: str, path: str, body: bytes | None = None) -> str:
        try:
            answer = self._client.request(method, f"{self._admin}{path}", content=body)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise click.ClickException(f"no answer from {self._admin}: {error}") from error
        if answer.status_code == 401:
            raise click.ClickException(
                f"{self._admin} asks for its token: --token or TURNOUT_ADMIN_TOKEN, and the right one"
            )
        if answer.status_code != 200:
            raise click.ClickException(f"{self._admin} answered {answer.status_code}{_message(answer)}")
        return answer.text


def _message(answer: httpx.Response) -> str:
    try:
        return f": {answer.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return ""
