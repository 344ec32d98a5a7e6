"""The settings of a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.settings import setting


@dataclass(frozen=True)
class ConvertSettings:
    """What `convert_release` needs to know besides where the files lie."""

    out: str = setting('converted', 'The model directory to write.')
    parts: str = setting(
        'all', 'Convert both stages, or one of them alone.', choices=('all', 'stage1', 'stage2')
    )  # fmt: skip
    name: str = setting('', 'Name of the model; empty takes that of the directory.')
    force: bool = setting(False, 'Replace a model directory that is there already.')
    dtype: str = setting(
        'keep', 'Precision of the weights on disk; keep leaves each as it is.',
        choices=('keep', 'float16', 'bfloat16', 'float32'),
    )  # fmt: skip
    heads: list = setting(
        [], 'Heads of stage 1 to keep, of camera, wrist, depth, points, track; empty keeps all that are there.'
    )
    wrist_width: int = setting(832, 'Width of the wrist image, pixels.', low=16, high=4096)
    wrist_height: int = setting(480, 'Height of the wrist image, pixels.', low=16, high=4096)
    anchor_width: int = setting(518, 'Width that anchor images have in stage 1, pixels.', low=14, high=4096)
    prompt: str = setting('robotic manipulation scene', 'The constant prompt.')
    negative_prompt: str = setting(
        'low quality, distorted, ugly, bad anatomy', 'What guidance leads away from.'
    )  # fmt: skip
    sizes: str = setting(
        '',
        'JSON file with sizes that the weights do not tell, where they are not the published ones; see docs/models.md.',
    )
    stage1: str = setting('', "Stage 1's file, where it has another name than in the release.")
    video: str = setting('', "The video transformer's file, likewise.")
    vae: str = setting('', "The video autoencoder's file, likewise.")
    clip: str = setting('', "The vision tower's file, likewise.")
    text_encoder: str = setting('', "The text encoder's file, likewise.")
    tokenizer: str = setting('', "The folder of the text encoder's tokenizer, likewise.")
