"""MuJoCo and its OpenGL context, one per process, whatever a shell's variables say.

What the environment asks for is tried first, then EGL, then OSMesa. Each is tried by rendering with it, because a variable
proves nothing: a DISPLAY that is set may have no server. MuJoCo is imported with its own choice of a backend switched off,
because it raises at import where that choice does not work.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from wristworld_ros.errors import UserError, require_package

log = logging.getLogger(__name__)

VARIABLES = ('MUJOCO_GL', 'PYOPENGL_PLATFORM', 'MUJOCO_EGL_DEVICE_ID')
NAMES = {'egl': 'EGL', 'osmesa': 'OSMesa', 'glfw': 'GLFW'}
_WORDS = {'egl': 'egl', 'osmesa': 'osmesa', 'glfw': 'glfw', 'glx': 'glfw', 'x11': 'glfw'}


class OpenGLError(UserError):
    """No way to OpenGL works on this machine."""


@contextmanager
def gl_variables(**values: str) -> Iterator[None]:
    """Only these of the OpenGL variables are set inside the block; afterwards all are as they were."""
    before = {name: os.environ.pop(name, None) for name in VARIABLES}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


require_package('mujoco', 'sim', 'The simulator')
with gl_variables(MUJOCO_GL='disabled'):
    import mujoco as mujoco


@dataclass(frozen=True)
class GLBackend:
    """The OpenGL context of this process. name: of the library. note: what else was tried, and why not; '' for nothing."""

    context: Any
    name: str
    note: str


_backend: GLBackend | None = None  # one per process: a second one, or a freed one, corrupts images without an error
_owner = 0  # process id; a forked child has no context of its own
_users: weakref.WeakSet = weakref.WeakSet()


def process_backend() -> GLBackend:
    """The context of this process, made current at the first call.

    Raises:
        OpenGLError: Nothing works; the sentence names every attempt and the variables in the way.
    """
    global _backend, _owner
    if _backend is None:
        _backend, _owner = _open(), os.getpid()
        if _backend.note:
            log.warning('%s', _backend.note)
        # Registered after MuJoCo's own handler, which closes the display, and hence run before it.
        atexit.register(_free)
    return _backend


def free_at_exit(renderer: Any) -> None:
    """Have a renderer closed before the context goes, when the process ends."""
    _users.add(renderer)


def _free() -> None:
    """Free everything while PyOpenGL and the display are still there; their destructors run too late to do it quietly."""
    global _backend
    if _backend is None or os.getpid() != _owner:
        return
    for renderer in list(_users):
        renderer.close()
    _backend.context.free()
    _backend = None


def _open() -> GLBackend:
    failed: list[str] = []
    for backend, variables in _attempts():
        given = ' '.join(f'{name}={value}' for name, value in variables.items())
        try:
            with gl_variables(**variables):
                context = _new_context(backend)
        except Exception as error:
            failed.append(f'{f"{given}: " if given else ""}{NAMES.get(backend, backend)} ({_first_line(error)})')
            continue
        note = (
            f'OpenGL through {NAMES[backend]} is used, because this did not work: {"; ".join(failed)}.'
            if failed
            else ''
        )
        if note and _in_the_way():
            note += f' Set in the environment: {_in_the_way()}; unset what is not meant.'
        return GLBackend(context, NAMES[backend], note)
    raise OpenGLError(
        f'OpenGL without a screen does not work here: {"; ".join(failed)}',
        _fix(),
    )


def _attempts() -> list[tuple[str, dict[str, str]]]:
    """Backends in order, each with the variables that it sees: the environment's own, then none."""
    variables = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    asked = variables.get('MUJOCO_GL') or variables.get('PYOPENGL_PLATFORM') or ''
    found: list[tuple[str, dict[str, str]]] = []
    if variables:
        found.append((_WORDS.get(asked.lower().strip(), asked) or 'egl', variables))
    found += [('egl', {}), ('osmesa', {})]
    if os.environ.get('DISPLAY'):
        found.append(('glfw', {}))
    return found


def _new_context(backend: str) -> Any:
    """A context that is current and renders off-screen."""
    if backend not in NAMES:
        raise ValueError(f'no such backend; allowed are {", ".join(NAMES)}')
    for name in [n for n in sys.modules if n.split('.')[0] == 'OpenGL' or n in ('mujoco.egl', 'mujoco.osmesa')]:
        del sys.modules[name]  # PyOpenGL chooses its platform at import, once
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # GLFW warns about every failure, which the checks below find too
        try:
            kind = importlib.import_module(f'mujoco.{backend}').GLContext
        except AttributeError:  # what PyOpenGL raises without the library
            raise RuntimeError('its library is not installed') from None
        # MuJoCo's destructor frees too late to do it quietly, and fails on a half-made context: `_free` does its work.
        context = type('GLContext', (kind,), {'_context': None, '__del__': lambda self: None})(64, 64)
        try:
            if not context._context:  # GLFW without a screen; MuJoCo would abort the process
                raise RuntimeError('it gives no context, as without a screen')
            context.make_current()
            _check_rendering()
        except BaseException:
            with suppress(Exception):
                context.free()
            raise
    return context


def _check_rendering() -> None:
    context = mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    off_screen = context.currentBuffer == mujoco.mjtFramebuffer.mjFB_OFFSCREEN
    context.free()
    if not off_screen:
        raise RuntimeError('it has no off-screen frame buffer')


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')


def _in_the_way() -> str:
    return ' '.join(f'{name}={os.environ[name]}' for name in (*VARIABLES, 'DISPLAY') if os.environ.get(name))


def _fix() -> str:
    install = 'install libegl1 and libgl1-mesa-dri, or libosmesa6'
    return f'unset what is not meant among {_in_the_way()}, or {install}' if _in_the_way() else install
