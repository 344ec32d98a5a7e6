"""The miniature of the published release, which the tests of the conversion make."""

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location('miniature', Path(__file__).parents[1] / 'apps/convert' / 'conftest.py')
_MINIATURE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MINIATURE)
release = _MINIATURE.release
