"""A dry run takes no memory and no data, and its sums are those of the real thing."""

import pytest
import torch

from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.vggt.config import MINIATURE
from wristworld_ros.training.config import GenerationConfig
from wristworld_ros.training.config_causal import CausalConfig, CausalImagesConfig
from wristworld_ros.training.config_reading import changed, default_config
from wristworld_ros.training.config_stage1 import ReconstructionConfig
from wristworld_ros.training.dry_run import estimate, report

SMALL = {
    'reconstruction': changed(
        default_config(ReconstructionConfig), model={'network': 'miniature', 'train': ['wrist', 'camera']},
        data={'width': 56}, schedule={'batch': 2, 'precision': 'float32'},
    ),
    'generation': changed(
        default_config(GenerationConfig), model={'network': 'miniature'}, data={'width': 32, 'height': 32, 'frames': 5},
        schedule={'batch': 2, 'precision': 'float32'},
    ),
    'causal': changed(
        default_config(CausalConfig), model={'network': 'miniature'}, data={'width': 32, 'height': 32, 'frames': 6},
        schedule={'batch': 2, 'precision': 'float32'},
    ),
}  # fmt: skip


@pytest.mark.parametrize('stage', SMALL)
def test_more_samples_need_more_activations_and_nothing_else(stage):
    one = estimate(SMALL[stage])
    four = estimate(changed(SMALL[stage], schedule={'batch': 8}))
    assert four.activations > 3 * one.activations > 0
    assert (four.weights, four.optimizer, four.trained) == (one.weights, one.optimizer, one.trained)
    assert one.optimizer == 2 * one.gradients == 8 * one.trained, 'AdamW keeps two numbers of each'


def test_the_published_heads_alone_are_trained():
    found = estimate(SMALL['reconstruction'])
    module = ReconstructionModel.from_config(MINIATURE)
    heads = [p.numel() for head in (module.wrist_head, module.camera_head) for p in head.parameters()]
    assert found.trained == sum(heads) and found.all == sum(p.numel() for p in module.parameters())


def test_low_rank_adapters_need_far_less_than_everything():
    lora, full = estimate(SMALL['generation']), estimate(changed(SMALL['generation'], model={'adapt': 'full'}))
    assert lora.trained < 0.2 * full.trained and lora.gradients < full.gradients


def test_a_student_needs_its_teacher_beside_it_on_every_gpu():
    found = estimate(SMALL['causal'])
    assert found.teacher == 4 * found.all == 4 * found.trained
    assert found.memory(8, True) > 1.15 * (found.teacher + found.activations)
    adapted = estimate(changed(SMALL['causal'], model={'adapt': 'lora'}))
    assert adapted.trained < 0.2 * found.trained and adapted.teacher == found.teacher


def test_a_student_takes_the_time_of_both_of_its_parts():
    config = changed(SMALL['causal'], forcing={'steps': 86_400}, distillation={'minutes': 1440.0})
    assert '| 2.00 |' in report(config, rate=1.0)


def test_a_student_on_images_holds_every_chunk_twice():
    small = changed(default_config(CausalImagesConfig), schedule={'batch': 1, 'precision': 'float32'})
    longer = changed(small, data={'clip_chunks': 4})
    assert 1.7 < estimate(longer).activations / estimate(small).activations < 2.6


def test_gradient_checkpointing_saves_activations():
    plain, saving = (
        estimate(SMALL['generation']),
        estimate(changed(SMALL['generation'], schedule={'gradient_checkpointing': True})),
    )
    assert 0.25 * plain.activations < saving.activations < 0.6 * plain.activations, 'one of four blocks is held whole'


def test_the_report_says_what_is_trained_what_a_gpu_needs_and_how_long_it_takes():
    text = report(SMALL['generation'], rate=2.0)
    assert 'Trained: 0.' in text and '172800' in text and 'sharding full' in text
    assert 'steps a day' not in report(SMALL['generation'])
    whole = report(changed(SMALL['generation'], schedule={'optimizer': 'muon'}))
    assert 'Muon needs whole matrices' in whole and '| - |' in whole and '| - |' not in text


@pytest.mark.parametrize('stage', SMALL)
def test_networks_of_the_process_work_afterwards(stage):
    """What the networks keep for the process (tables, means) is not of the dry run."""
    estimate(SMALL[stage])
    module = ReconstructionModel.from_config(
        {'img_size': 32, 'embed_dim': 32, 'depth': 1, 'num_heads': 2, 'patch_size': 16, 'heads': ['camera']}
    )
    assert torch.isfinite(module(torch.rand(1, 1, 3, 32, 32)).camera_pose_enc).all()
