"""The strict loader: everything or nothing, into the right dtype and order of memory, from several threads."""

import threading

import pytest
import torch
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.models.state_dict import (
    adopt,
    cast_params,
    check_shapes,
    empty_weights,
    load_into,
    load_strict,
    named_tensors,
)

BFLOAT16 = torch.bfloat16


def build():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Conv2d(2, 2, 3)).to(memory_format=torch.channels_last)


def low_biases(name):
    return BFLOAT16 if name.endswith('bias') else torch.float32


def saved(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_holds(module, weights):
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, weights[name].to(tensor.dtype)), name


def test_an_empty_module_is_filled_in_the_wanted_dtype_and_keeps_its_buffers_and_its_order_of_memory():
    weights = {name: tensor.double() for name, tensor in saved(build()).items()}
    with empty_weights():
        module = build()
    assert module[0].weight.is_meta and not module[1].running_mean.is_meta
    load_into(module, named_tensors(module), weights, 'a file', low_biases)
    assert_holds(module, weights)
    assert {p.dtype for name, p in module.named_parameters() if name.endswith('bias')} == {BFLOAT16}
    assert module[0].weight.dtype == torch.float32 and module[0].weight.requires_grad
    assert module[2].weight.stride() == build()[2].weight.stride()


def test_a_shared_tensor_is_listed_once_and_stays_shared():
    module = build()
    module.register_parameter('same', module[0].weight)
    targets = named_tensors(module)
    assert sum(tensor is module.same for tensor in targets.values()) == 1
    load_into(
        module, targets, {name: torch.ones_like(tensor) for name, tensor in targets.items()}, 'a file', low_biases
    )
    assert module.same.data_ptr() == module[0].weight.data_ptr() and torch.equal(module.same, torch.ones(4, 3))


def test_adopted_weights_are_not_copied_and_keep_their_dtype():
    with torch.device('meta'):
        module = build()
    weights = {f'a.{name}': tensor.to(BFLOAT16) for name, tensor in saved(build()).items()}
    adopt(module, named_tensors(module, lambda name: f'a.{name}'), weights, 'a file')
    for name, tensor in module.state_dict().items():
        assert tensor.data_ptr() == weights[f'a.{name}'].data_ptr() and tensor.dtype == BFLOAT16


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            lambda w: {n: t for n, t in w.items() if n != '0.bias'},
            r'key 0\.bias is missing \(wanted shape \[4\]\); give',
        ),
        (lambda w: {}, r'key 0\.weight is missing \(wanted shape \[4, 3\]\), and likewise 8 more; give'),
        (lambda w: w | {'0.weight': torch.zeros(1)}, r'key 0\.weight has shape \[1\], wanted \[4, 3\]; give'),
        (lambda w: w | {'0.more': torch.zeros(2)}, r'key 0\.more \(shape \[2\]\) is not part of this model; remove'),
    ],
)
def test_weights_of_another_model_are_rejected_before_anything_is_changed(change, words):
    module = build()
    before, wrong = saved(module), change({name: tensor + 1 for name, tensor in saved(build()).items()})
    targets = named_tensors(module)
    for load in (
        lambda: check_shapes(targets, wrong, 'a file'),
        lambda: load_strict(targets, wrong, 'a file'),
        lambda: load_into(module, targets, wrong, 'a file'),
        lambda: adopt(module, targets, wrong, 'a file'),
    ):
        with pytest.raises(UserError, match=f'^a file: {words}'):
            load()
    assert_holds(module, before)


def test_strict_loading_copies_into_the_tensors_that_are_there():
    module, weights = build(), saved(build())
    own = module[0].weight
    load_strict(named_tensors(module), {name: tensor.double() for name, tensor in weights.items()}, 'a file')
    assert module[0].weight is own
    assert_holds(module, weights)


def test_a_renaming_must_be_one_to_one():
    with pytest.raises(ValueError, match='one to one'):
        named_tensors(build(), lambda name: 'same')


def test_parameters_are_cast_in_place_and_buffers_are_not():
    module = build()
    weight, weights = module[0].weight, saved(module)
    cast_params(module, low_biases)
    assert module[0].weight is weight and module[0].bias.dtype == BFLOAT16
    assert module[1].running_mean.dtype == torch.float32
    assert_holds(module, weights)


def test_models_are_loaded_in_several_threads_at_once():
    weights = [saved(build()) for _ in range(8)]
    modules, start = {}, threading.Barrier(8)

    def load(i):
        start.wait()
        with empty_weights():
            module = build()
        load_into(module, named_tensors(module), weights[i], 'a file')
        modules[i] = module

    threads = [threading.Thread(target=load, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, module in modules.items():
        assert_holds(module, weights[i])
    assert len(modules) == 8 and not nn.Linear(2, 2).weight.is_meta


def test_an_error_while_building_leaves_the_next_modules_their_memory():
    with pytest.raises(RuntimeError, match='stop'), empty_weights():
        raise RuntimeError('stop')
    assert not nn.Linear(2, 2).weight.is_meta
    with empty_weights():
        assert nn.Linear(2, 2).weight.is_meta
