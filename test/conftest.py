"""Every test process is alone (a ROS domain of its own, loopback only, few threads), and repeats what it did before.

Property tests draw the same examples in every run. `make fuzz` draws others (`--hypothesis-profile=fuzz`).
"""

import fcntl
import os
import random
import tempfile
from pathlib import Path

from hypothesis import settings

os.environ.update(
    ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
    # Test processes share the cores where pytest runs with `-n 3`: much of what they do is wait for DDS.
    OMP_NUM_THREADS='1' if 'PYTEST_XDIST_WORKER' in os.environ else '2',
    OMP_WAIT_POLICY='PASSIVE',
    PYTHONDONTWRITEBYTECODE='1',
)


def claim_domain():
    """A domain id that no other test process on this machine holds; the lock lives as long as this process."""
    for domain in random.Random(os.getpid()).sample(range(1, 101), 100):
        path = Path(tempfile.gettempdir(), f'wristworld_ros_domain_{domain}.lock')
        lock = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        return lock
    raise RuntimeError('All 100 ROS domains are taken by other test processes.')


DOMAIN_LOCK = claim_domain()

settings.register_profile('repeatable', derandomize=True, deadline=None, database=None)
settings.register_profile('fuzz', max_examples=1000, deadline=None, print_blob=True)
settings.load_profile('repeatable')

from wristworld_ros.ros import environment  # noqa: E402

environment.prepare()

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def torch_threads():
    """Tests that choose a number of threads leave the process's own: other threads would compute with another one."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def depth_model_folder(tmp_path):
    """A folder with a small random depth-estimation model, as transformers saves one."""
    import json

    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        out_features=['stage1', 'stage2', 'stage3', 'stage4'], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[4, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    folder = tmp_path / 'depth_model'
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    processor = {
        'image_processor_type': 'DPTImageProcessor', 'do_resize': True, 'size': {'height': 56, 'width': 56}, 'keep_aspect_ratio': True,
        'ensure_multiple_of': 14, 'resample': 3, 'do_rescale': True, 'rescale_factor': 1 / 255, 'do_normalize': True,
        'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225], 'do_pad': False,
    }  # fmt: skip
    (folder / 'preprocessor_config.json').write_text(json.dumps(processor))
    return folder
