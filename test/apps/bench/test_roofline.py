import mmap

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wristworld_ros.apps.bench.roofline import (
    Rates,
    Work,
    count_flops,
    measure_rates,
    median_ms,
    model_dtypes,
    peak_mib,
    reset_peak,
    weight_bytes,
)

CPU = torch.device('cpu')


@torch.inference_mode()
def test_flops_of_products_convolutions_and_attention_are_all_counted():
    linear = nn.Linear(32, 64)
    assert count_flops(lambda: linear(torch.zeros(10, 32))) == 2 * 10 * 32 * 64
    convolution = nn.Conv3d(4, 8, 3, padding=1)
    assert count_flops(lambda: convolution(torch.zeros(1, 4, 2, 5, 6))) == 2 * (2 * 5 * 6) * 27 * 4 * 8
    for dtype in (torch.float32, torch.bfloat16):
        q, k = torch.zeros(1, 2, 10, 16, dtype=dtype), torch.zeros(1, 2, 30, 16, dtype=dtype)
        assert count_flops(lambda q=q, k=k: F.scaled_dot_product_attention(q, k, k)) == 4 * 2 * 10 * 30 * 16


def test_the_roofline_is_the_larger_of_flops_and_bytes():
    rates = Rates({'float32': 1e9, 'bfloat16': 2e9}, bandwidth=1e8)
    assert Work(4e9, 1e6).roofline_ms(rates) == pytest.approx(2000) and Work(4e9, 1e6).bound(rates) == 'flops'
    assert Work(0, 1e6).roofline_ms(rates) == pytest.approx(10) and Work(0, 1e6).bound(rates) == 'bytes'


def test_a_shared_weight_is_read_once():
    one = nn.Linear(8, 8, bias=False)
    assert weight_bytes((one, nn.Sequential(one, nn.Linear(8, 2, bias=False)))) == 4 * (64 + 16)


def test_small_leftovers_in_another_precision_do_not_count():
    networks = nn.Linear(100, 100).to(torch.bfloat16), nn.LayerNorm(10)
    assert model_dtypes(*networks) == [torch.bfloat16]


def test_both_rates_are_measured():
    rates = measure_rates(CPU, [torch.float32])
    assert rates.flops['float32'] > 1e9 and rates.bandwidth > 1e8


def test_a_median_is_of_at_least_three_calls():
    calls = []
    assert median_ms(lambda: calls.append(1), CPU, seconds=0) >= 0
    assert len(calls) == 3


def test_the_highest_memory_is_of_this_process():
    reset_peak(CPU)
    before = peak_mib(CPU)
    with mmap.mmap(-1, 50 * 2**20) as fresh:  # freed memory that was kept would not raise it
        fresh.write(b'1' * 50 * 2**20)
        assert peak_mib(CPU) > before + 40
