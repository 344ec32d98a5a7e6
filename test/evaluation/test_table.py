import csv
import json
import math

import pytest

from wristworld_ros.evaluation.table import EvaluationTable, aligned, markdown


@pytest.fixture
def table():
    table = EvaluationTable(head={'model': 'test'})
    for psnr in (18.0, 20.0):
        table.add('generated', {'psnr': psnr, 'ssim': 0.5, 'change': math.nan})
        table.add('true wrist', {'sharpness': 1.0})
    return table


def test_means_and_deviations_are_over_episodes(table):
    assert table.mean('generated', 'psnr') == 19
    assert table.deviation('generated', 'psnr') == 1
    assert math.isnan(table.mean('true wrist', 'psnr'))


def test_columns_without_any_value_are_left_out_and_missing_cells_are_dashes(table):
    header, rows = table.cells()
    assert header == ['row', 'PSNR dB', 'SSIM', 'sharpness']
    assert rows[1][1:] == ['-', '-', '1.00 ± 0.00']


def test_every_line_of_the_aligned_table_ends_in_its_column(table):
    lines = aligned(*table.cells()).splitlines()
    assert (
        len({line.index('SSIM') + 4 for line in lines[:1]} | {len('  '.join(x)) for x in [lines[1].split('  ')]}) <= 2
    )
    assert lines[2].startswith('generated ') and '19.00 ± 1.00' in lines[2]


def test_all_four_files_are_written_and_hold_the_same_mean(table, tmp_path):
    table.write(tmp_path)
    assert '19.00 ± 1.00' in (tmp_path / 'table.txt').read_text()
    assert '| generated | 19.00 ± 1.00 |' in (tmp_path / 'table.md').read_text()
    record = json.loads((tmp_path / 'table.json').read_text())
    assert record['summary']['generated']['psnr']['mean'] == 19
    with open(tmp_path / 'table.csv') as file:
        assert next(csv.DictReader(file))['psnr_mean'] == '19'


def test_text_columns_of_a_markdown_table_are_to_the_left_and_numbers_to_the_right():
    header, rows = ['name', 'meaning', 'count'], [['a', 'this | that', '1']]
    assert markdown(header, rows, 'llr').splitlines()[1] == '| --- | --- | --: |'
    assert markdown(header, rows).splitlines()[1] == '| --- | --: | --: |'
    assert markdown(header, rows).splitlines()[2] == '| a | this \\| that | 1 |'
    for align in ('ll', 'llc'):
        with pytest.raises(ValueError, match='give l or r for each'):
            markdown(header, rows, align)
