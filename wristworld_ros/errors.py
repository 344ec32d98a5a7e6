"""What the package raises when somebody has to do something about it."""

from __future__ import annotations

from importlib import util


class UserError(ValueError):
    """An error that its reader can fix: one sentence, what is wrong and what to do.

    It is the root of every such error of the package, and the only one that the command line shows without a traceback.

    Args:
        what: What is wrong, where, what was given and what is allowed; without a full stop.
        fix: What to do about it; without a full stop.
    """

    def __init__(self, what: str, fix: str):
        super().__init__(f'{what}; {fix}.')
        self.what, self.fix = what, fix

    def __reduce__(self):
        # Errors of worker processes are pickled, and an exception is rebuilt from the arguments of its constructor.
        return _rebuild, (type(self), self.what, self.fix, self.__dict__)


class MissingPackageError(UserError, ImportError):
    """A package that an optional part needs is not installed; the sentence holds the install command."""


def require_package(module: str, extra: str, purpose: str) -> None:
    """Raise MissingPackageError where an optional package cannot be found.

    Args:
        module: Name to import, as in 'matplotlib'.
        extra: Extra of this package that brings it, as in 'view'.
        purpose: What needs it, as the subject of a sentence: 'The report'.
    """
    if util.find_spec(module) is None:
        raise MissingPackageError(
            f'{purpose} needs the Python package {module}, which is not installed',
            f"install it with: pip install 'wristworld-ros[{extra}]'",
        )


def _rebuild(kind: type[UserError], what: str, fix: str, state: dict) -> UserError:
    error = kind.__new__(kind)
    UserError.__init__(error, what, fix)
    error.__dict__.update(state)
    return error
