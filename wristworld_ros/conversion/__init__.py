"""The published release's files in, a model directory out."""

from .convert import convert_release
from .settings import ConvertSettings

__all__ = ['ConvertSettings', 'convert_release']
