"""Weights are checked by their headers: complete, of this model, hashed as the card says."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros.apps.doctor import weights
from wristworld_ros.apps.doctor.finding import exit_status
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.runtime.files import file_sha256


@pytest.fixture
def folder(tmp_path):
    save_model(tiny_random_model(), tmp_path)
    return tmp_path


def write_card(folder, name, hashed, licence):
    (folder / 'README.md').write_text(
        f'# Card\n\n| file | sha256 | licence |\n| --- | --- | --- |\n| `{name}` | `{hashed}` | {licence} |\n\nMore.\n'
    )


def test_a_whole_model_is_ok_with_the_hash_and_licence_of_each_file(folder):
    lines, headers = weights.weight_findings(str(folder))
    assert exit_status(lines) == 0 and len(lines) == 3 and len(headers) == 2
    for line, path in zip(lines[1:], headers):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in line.what and 'licence Apache-2.0' in line.what


def test_a_header_holds_names_types_and_shapes(tmp_path):
    path = tmp_path / 'x.safetensors'
    save_file({'a': torch.zeros(2, 3), 'b': torch.zeros((), dtype=torch.float16)}, path, metadata={'format': 'pt'})
    assert weights.read_header(path) == {'a': weights.Stored('F32', (2, 3)), 'b': weights.Stored('F16', ())}


@pytest.mark.parametrize('change', [lambda b: b[:-1], lambda b: b[:4], lambda b: b'', lambda b: b + b'x', lambda b: b'\xff' * 99,
                                    lambda b: (9).to_bytes(8, 'little') + b'{"a": 12}'])  # fmt: skip
def test_a_file_that_is_truncated_or_of_another_kind_is_an_error_with_the_file(folder, change):
    path = folder / 'stage1.safetensors'
    path.write_bytes(change(path.read_bytes()))
    lines, _ = weights.weight_findings(str(folder))
    assert lines[1].state == 'error' and str(path) in lines[1].what and 'copy it again' in lines[1].fix
    assert lines[2].state == 'ok'


def test_weights_of_another_shape_are_an_error_with_the_key(folder):
    path = folder / 'generator.safetensors'
    tensors = load_file(path)
    key = next(k for k, v in tensors.items() if v.ndim == 2)
    save_file(tensors | {key: tensors[key][:-1].clone()}, path)
    lines, _ = weights.weight_findings(str(folder))
    assert lines[2].state == 'error' and key in lines[2].what


def test_what_is_missing_is_an_error(folder):
    (folder / 'stage1.safetensors').unlink()
    assert 'stage1.safetensors is missing' in weights.weight_findings(str(folder))[0][1].what
    (folder / 'config.json').write_text('{}')
    assert weights.weight_findings(str(folder))[0][0].state == 'error'
    assert 'no/such' in weights.weight_findings('no/such')[0][0].what


def test_a_hash_other_than_the_cards_and_a_licence_that_is_not_stated_are_warnings(folder):
    name = 'stage1.safetensors'
    right = file_sha256(folder / name)
    for hashed, licence, state, words in (
        (right, 'CC-BY-NC-4.0', 'ok', 'licence CC-BY-NC-4.0'),
        ('0' * 64, 'Apache-2.0', 'warning', 'while the model card'),
        (right, 'none stated', 'warning', 'no licence'),
    ):
        write_card(folder, name, hashed, licence)
        line = weights.weight_findings(str(folder))[0][1]
        assert line.state == state and words in line.what


def test_the_table_of_a_card_is_read_and_other_tables_are_not():
    text = '| row | PSNR |\n| --- | --- |\n| a | 1 |\n\n| File | size | SHA256 | license |\n|---|---|---|---|\n| x.bin | 3 | - | MIT |\n'
    rows = weights.card_rows(text)
    assert rows['x.bin'] == weights.CardRow('', 'MIT') and 'a' not in rows
