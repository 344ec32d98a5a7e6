"""The script of the paper's ablations: differences are paired by seed, and finished runs are not run again."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    'ablations', Path(__file__).resolve().parents[2] / 'scripts/ablations.py'
)
ablations = importlib.util.module_from_spec(_SPEC)
sys.modules['ablations'] = ablations  # where dataclasses look their module up
_SPEC.loader.exec_module(ablations)


def test_what_a_part_is_worth_is_paired_by_seed():
    """Seeds differ much and rows always by one: the means have wide errors, the difference none."""
    seeds = [
        {'RGB: generated, 1 step': {'psnr': 20 + n, 'ssim': 0.5}, 'no SPC': {'psnr': 19 + n, 'ssim': 0.4 + 0.01 * n}}
        for n in (0, 4, 8)
    ]
    means, differences = ablations.tables(seeds, 'RGB: generated, 1 step')
    assert '| RGB: generated, 1 step | 24.00 ± 2.31 | 0.500 ± 0.000 |' in means
    assert '| no SPC | -1.00 ± 0.00 | -0.060 ± 0.023 |' in differences and 'generated' not in differences


def test_finished_parts_are_kept_and_stage_1_is_shared_where_it_does_not_differ(tmp_path, monkeypatch, capsys):
    table = {
        'summary': {
            'RGB: generated, 1 step': {'psnr': {'mean': 20.0}},
            'copy': {'psnr': {'mean': 9.0}, 'ssim': {'mean': None}},
        }
    }
    for name in ablations.VARIANTS:
        for file in ('stage1/model.safetensors', 'stage2/model.safetensors', 'model/config.json'):
            path = tmp_path / 'seed3' / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('')
    (tmp_path / 'seed3/evaluation').mkdir()
    (tmp_path / 'seed3/evaluation/table.json').write_text(json.dumps(table))
    ablations.main([str(tmp_path), str(tmp_path), str(tmp_path), '--seeds', '3'])
    assert '| copy | 9.00 |' in capsys.readouterr().out and (tmp_path / 'ablations.md').exists()
    ran = []
    monkeypatch.setattr(ablations, 'wristworld', lambda *arguments: ran.append(arguments))
    (tmp_path / 'seed4/whole/stage1').mkdir(parents=True)
    (tmp_path / 'seed4/whole/stage1/model.safetensors').write_text('')
    with pytest.raises(FileNotFoundError):  # nothing was trained, so there is no table
        ablations.main([str(tmp_path), str(tmp_path), str(tmp_path), '--seeds', '4'])
    trained = [(a[1], '--no-spc' in a) for a in ran if a[0] == 'train' and a[1] == 'stage1']
    assert trained == [('stage1', True)]
    assert [a[1] for a in ran if a[0] == 'train'].count('stage2') == 4 and ran[-1][0] == 'evaluate'
