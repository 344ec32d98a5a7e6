"""The safetensors writer: what others read from its files, and how little memory it takes."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros.apps.convert.convert import stored_bytes, write_tensors
from wristworld_ros.apps.convert.sources import read_tensors


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        'b.half': torch.randn(3, 5, generator=generator).half(),
        'a.brain': torch.randn(7, generator=generator).bfloat16(),
        'c.double': torch.randn(2, generator=generator).double(),
        'scalar': torch.tensor(4.0),
        'none': torch.zeros(0, 3),
        'whole': torch.arange(5),
        'byte': torch.tensor([1, 2, 3], dtype=torch.uint8),
        'yes': torch.tensor([True, False, True]),
        'turned': torch.randn(4, 6, generator=generator).T,
    }


def test_the_library_reads_what_is_written_and_it_is_byte_for_byte_the_librarys(tmp_path):
    counted = []
    digest = write_tensors(tmp_path / 'own', tensors(), on_bytes=counted.append)
    read = load_file(tmp_path / 'own')
    assert read.keys() == tensors().keys()
    assert all(torch.equal(read[name], t) and read[name].dtype == t.dtype for name, t in tensors().items())
    assert sum(counted) == stored_bytes(tensors())
    assert digest == hashlib.sha256((tmp_path / 'own').read_bytes()).hexdigest()
    save_file({name: t.contiguous() for name, t in tensors().items()}, tmp_path / 'library', {'format': 'pt'})
    assert (tmp_path / 'own').stat().st_size == (tmp_path / 'library').stat().st_size


def test_only_floating_tensors_change_their_dtype(tmp_path):
    write_tensors(tmp_path / 'own', tensors(), torch.float16)
    read = load_file(tmp_path / 'own')
    assert read['c.double'].dtype == read['scalar'].dtype == read['a.brain'].dtype == torch.float16
    assert read['whole'].dtype == torch.int64 and read['yes'].dtype == torch.bool


def own_memory():
    """This process's memory that is not mapped from files, MiB."""
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('RssAnon')) / 1024


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_copying_a_file_holds_one_tensor_at_a_time(tmp_path, kind):
    big = {f't{i}': torch.full((4 << 20,), float(i)) for i in range(12)}  # 12 x 16 MiB
    source = tmp_path / f'source.{kind}'
    save_file(big, source) if kind == 'safetensors' else torch.save(big, source)
    del big
    before, most = own_memory(), 0.0

    def watch(_):
        nonlocal most
        most = max(most, own_memory())

    write_tensors(tmp_path / 'copy', read_tensors(source), on_bytes=watch)
    assert most - before < 64, 'MiB; the file has 192'
