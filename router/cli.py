"""The `turnout` command: a table of commands, each imported only when it is called.

What a user can put right is one clear line on standard error and an exit code: 1 failed, 2 bad usage
or configuration. A traceback means a fault of the router.
"""

import ast
from collections.abc import Mapping
from importlib import import_module
from importlib.abc import InspectLoader
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import MappingProxyType

import click

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "serve": "router.commands.serve:serve",
        "check": "router.commands.configuration:check",
        "config": "router.commands.configuration:config",
        "diff": "router.commands.difference:diff",
        "explain": "router.commands.explain:explain",
        "status": "router.commands.status:status",
        "release": "router.commands.release:release",
        "shadow": "router.commands.shadow:shadow",
        "keys": "router.commands.keys:keys",
    }
)
"""Name to `module:function`, in the order of `turnout --help`."""

PLUGINS = "turnout.commands"
"""Entry points of this group are commands too; those of `loadtest` come this way."""


class Commands(click.Group):
    """Finds commands by name. `--help` reads their first lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_targets())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = _targets().get(cmd_name)
        return None if target is None else _load(target)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(_targets()[name])) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has left, which is no error
            raise
        except OSError as error:
            raise click.ClickException(str(error)) from error


def _targets() -> dict[str, str]:
    plugins = {
        entry.name: entry.value for entry in sorted(entry_points(group=PLUGINS), key=lambda entry: entry.name)
    }
    return {**COMMANDS, **{name: target for name, target in plugins.items() if name not in COMMANDS}}


def _load(target: str) -> click.Command:
    module, _, function = target.partition(":")
    try:
        command: click.Command = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise click.ClickException(f"this command cannot be loaded: {error}") from error
    return command


def _summary(target: str) -> str:
    """The first line of a command's docstring, read from its source: importing it could take a second."""
    module, _, function = target.partition(":")
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return ""
    source = spec.loader.get_source(module) if spec and isinstance(spec.loader, InspectLoader) else None
    functions = (node for node in ast.parse(source or "").body if isinstance(node, ast.FunctionDef))
    docstrings = (ast.get_docstring(node) for node in functions if node.name == function)
    return (next(docstrings, None) or "").partition("\n")[0]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="turnout", prog_name="turnout")
def main() -> None:
    """Turnout routes requests to a fleet of LLM engines: vLLM, TGI, trtllm-serve and Triton.

    \b
    Example:
      turnout check turnout.toml
      turnout serve --config turnout.toml
    """
