"""Loading commands: the module of a command is imported when the command is asked for, and no other."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

import typer

_OURS = ("service.", "handlers.", "projections.")
_LARGE = ("handlers", "sqlalchemy")


def load(name: str, target: str, markup: Any, *, to_run: bool) -> Any:
    """The command that `target` ("module:attribute", a function or a Typer application) defines.

    To be run, it is imported like anything else. To be described (by its help, by a shell's completion) it
    does not need what it imports, which then is executed only when something in it is used. That holds for
    modules that a command imports as modules (`from service import stores`), not for names out of them.
    """
    module, _, attribute = target.partition(":")
    if to_run:
        found = getattr(import_module(module), attribute)
    else:
        with _lazy_imports():
            found = getattr(import_module(module), attribute)
    application = typer.Typer(rich_markup_mode=markup)
    if isinstance(found, typer.Typer):
        application.add_typer(found, name=name)
    else:
        application.command(name)(found)
    return typer.main.get_group(application).commands[name]


class _LazyFinder:
    """Finds our modules, and SQLAlchemy, as Python does, but has each executed when it is first used."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not (name.startswith(_OURS) or name in _LARGE):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


@contextmanager
def _lazy_imports() -> Iterator[None]:
    sys.meta_path.insert(0, _LazyFinder)
    try:
        yield
    finally:
        sys.meta_path.remove(_LazyFinder)
