"""The page of a calibration: one file that holds its pictures and plots."""

from __future__ import annotations

import time
from pathlib import Path

from wristworld_ros.apps.calibrate.outcome import Outcome
from wristworld_ros.data.images import data_uri
from wristworld_ros.errors import require_package
from wristworld_ros.runtime.files import write_text


def require_report_packages() -> None:
    """Raise MissingPackageError where a library that the page needs is not installed."""
    for module in ('matplotlib', 'jinja2'):
        require_package(module, 'view', 'The report')


def write_page(outcome: Outcome, path: Path) -> None:
    """Write the page.

    Raises:
        UserError: The disk refuses it.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    level, headline = outcome.verdict
    text = environment.get_template('report.html.j2').render(
        outcome=outcome, level=level, headline=headline, made=time.strftime('%Y-%m-%d %H:%M'),
        pictures=[(caption, data_uri(image)) for caption, image in outcome.pictures],
        numbers=' '.join(f'{value:g}' for value in [*outcome.camera.xyz, *outcome.camera.quaternion]),
    )  # fmt: skip
    write_text(path, text)
