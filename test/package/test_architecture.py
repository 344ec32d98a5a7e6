"""docs/architecture.md tells the truth: its picture is what the imports give, and what it names exists."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/architecture.md').read_text()


@pytest.fixture
def drawing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'scripts'))
    spec = importlib.util.spec_from_file_location('draw_architecture', ROOT / 'scripts/draw_architecture.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop('imports', None)


def test_the_picture_is_what_the_imports_give(drawing):
    assert drawing.PICTURE.read_text() == drawing.draw(), 'run: python scripts/draw_architecture.py'


def test_every_file_of_the_page_exists():
    for target in re.findall(r'\]\(([^)#]+)\)', PAGE):
        assert (ROOT / 'docs' / target).exists(), target


def test_every_step_of_the_walk_is_defined_in_its_file():
    rows = [row for row in PAGE.splitlines() if re.match(r'\| \d', row)]
    assert len([row for row in rows if re.match(r'\| \d+ ', row)]) == 7
    assert len(rows) == 7 + 7  # of a set that says more than images, or a model that sweeps
    for row in rows:
        where = row.split('|')[-2]
        files = re.findall(r'\]\(\.\./([^)]+)\)', where)
        source = '\n'.join((ROOT / file).read_text() for file in files)
        for name in re.findall(r'`([\w.]+)`', where):
            *owner, function = name.split('.')
            pattern = rf'(def|class) {function}\b'
            if owner:  # the method stands below its class, before any other class
                pattern = rf'class {owner[0]}\b(?:(?!\nclass ).)*def {function}\b'
            assert re.search(pattern, source, re.S) or 'same file' in where, f'{name} is not in {files}'
