"""The node with a depth-estimation model: loaded when it is configured, and a bad folder is one sentence."""

import json

import torch
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config


def saved(folder):
    """A small random model as transformers saves one."""
    torch.manual_seed(0)
    backbone = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        out_features=['stage1', 'stage2', 'stage3', 'stage4'], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[4, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    processor = {
        'image_processor_type': 'DPTImageProcessor',
        'size': {'height': 56, 'width': 56},
        'ensure_multiple_of': 14,
    }
    (folder / 'preprocessor_config.json').write_text(json.dumps(processor))
    return folder


def test_a_bad_folder_fails_to_configure_with_one_sentence(stage, tmp_path):
    s = stage(geometry_model=str(tmp_path / 'none'))
    assert not s.node.autostart()
    reason = s.node.status().reason
    assert reason.startswith('There is no folder') and 'config.json' in reason and '\n' not in reason
    assert s.warnings('Cannot configure: There is no folder')


def test_what_the_model_lacks_is_listed_as_missing(stage, tmp_path):
    s = stage(geometry_model=str(saved(tmp_path))).camera('left', 'right').activate()
    s.send_until(lambda: s.node.last_frame is not None)
    (sentence,) = s.node.last_frame.missing
    assert sentence.startswith('geometry_model is not used') and 'wrist camera is unknown' in sentence
    assert sentence in s.node.status().missing
