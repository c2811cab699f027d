"""Commands whose shared options stand once, in groups, and come as one object each.

::

    @dataclass(frozen=True)
    class AwsAccess(OptionGroup):
        region: Annotated[str | None, typer.Option(help="AWS Region.")] = None

    app = Commands(help="…")

    @app.command()
    def create(table: str, *, aws: AwsAccess) -> None:  # takes --region
        aws.client("dynamodb")

A command that has no use for one of a group's options leaves it out:
``aws: Annotated[AwsAccess, Without("use_fips_endpoint")]``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import Parameter
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer


class OptionGroup:
    """A frozen dataclass whose fields are options: annotated as typer wants them, each with a default."""


class Without:
    """Names the fields of a group that a command does not take; they keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True)
class _Injected:
    """A parameter of a command that is made of a group's options."""

    group: type[OptionGroup]
    left_out: frozenset[str]

    def options(self) -> list[Parameter]:
        hints = get_type_hints(self.group, include_extras=True)
        return [
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
            for field in fields(self.group)  # type: ignore[arg-type]
            if field.name not in self.left_out
        ]


class Commands(typer.Typer):
    """A typer application whose commands may take groups of options."""

    def command(self, *arguments: Any, **settings: Any) -> Callable[[Any], Any]:
        """As ``typer.Typer.command``."""
        register = super().command(*arguments, **settings)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(with_options(function))
            return function

        return decorate


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with each parameter that is a group replaced by the group's options."""
    parameters: list[Parameter] = []
    injected: dict[str, _Injected] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        one = _injected(parameter.annotation)
        if one is None:
            parameters.append(parameter)
        else:
            injected[name] = one
            parameters += one.options()

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        for name, one in injected.items():
            given[name] = one.group(**{option.name: given.pop(option.name) for option in one.options()})
        return function(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _injected(annotation: Any) -> _Injected | None:
    group, left_out = annotation, frozenset[str]()
    if get_origin(annotation) is Annotated:
        group, *marks = get_args(annotation)
        left_out = frozenset(name for mark in marks if isinstance(mark, Without) for name in mark.names)
    if not (isinstance(group, type) and issubclass(group, OptionGroup)):
        return None
    return _Injected(group, left_out)
