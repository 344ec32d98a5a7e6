"""Observations of openpi's DROID policies (pi0, pi0-FAST, pi0.5), as its `DroidInputs` takes them; openpi is not imported.

Images are 224x224 in a letterbox, made on the robot's side, where openpi's own DROID client makes them. DROID's control runs at
15 Hz; the policy is asked once for the 8 actions that are then carried out, about twice a second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.policy.fitting import check_image, check_vector, described, letterbox, letterbox_wrist
from wristworld_ros.types import WristImage

WRIST = 'observation/wrist_image_left'
EXTERIOR = 'observation/exterior_image_1_left'
JOINTS = 'observation/joint_position'
GRIPPER = 'observation/gripper_position'
PROMPT = 'prompt'
HW = (224, 224)
CONTROL_HZ = 15.0
ACTIONS_PER_QUERY = 8


def fit_wrist(wrist: WristImage) -> WristImage:
    """The wrist image at the size that the policy takes."""
    return letterbox_wrist(wrist, *HW)


def observation(
    wrist: WristImage,
    exterior: np.ndarray,
    joint_position: np.ndarray,
    gripper_position: np.ndarray | float,
    prompt: str,
) -> dict[str, Any]:
    """What `policy.infer` takes.

    Args:
        wrist: The wrist image, of any size.
        exterior: uint8 [H, W, 3], RGB, the image of the exterior camera, of any size.
        joint_position: float [7], radians.
        gripper_position: float [1] or a number, 0 (open) to 1 (closed).
        prompt: The task, in words.

    Returns:
        Images uint8 [224, 224, 3], joint_position float64 [7], gripper_position float64 [1], prompt str.

    Raises:
        UserError: An argument has another shape or type.
    """
    check_image('The exterior image', exterior)
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f'The prompt is {described(prompt)}', 'give the task in words')
    return {
        EXTERIOR: letterbox(exterior, *HW),
        WRIST: fit_wrist(wrist).image,
        JOINTS: check_vector('joint_position', joint_position, 7),
        GRIPPER: check_vector('gripper_position', gripper_position, 1),
        PROMPT: prompt,
    }


def make_example(seed: int = 0) -> dict[str, Any]:
    """A random observation with the keys, shapes and types of `observation`: for warming a policy up and for tests."""
    rng = np.random.default_rng(seed)
    return {
        EXTERIOR: rng.integers(0, 256, (*HW, 3), np.uint8),
        WRIST: rng.integers(0, 256, (*HW, 3), np.uint8),
        JOINTS: rng.random(7),
        GRIPPER: rng.random(1),
        PROMPT: 'do something',
    }
