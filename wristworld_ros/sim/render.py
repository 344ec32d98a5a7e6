"""Pictures and depth of a MuJoCo world, without a screen."""

from __future__ import annotations

import os

import numpy as np

from wristworld_ros.sim.needs import mujoco
from wristworld_ros.sim.scene import SHOWN_GROUP
from wristworld_ros.types import Camera

_gl_context = None  # one a process: a second one, or a freed one, corrupts pictures without an error


def _process_context():
    global _gl_context
    if _gl_context is None:
        _gl_context = _new_context()
        _gl_context.make_current()
    return _gl_context


def _new_context():
    # MuJoCo chooses its backend when it is first imported, perhaps by somebody else; without a screen, choose here.
    if os.environ.get('DISPLAY') or os.environ.get('MUJOCO_GL') not in (None, '', 'egl'):
        return mujoco.GLContext(64, 64)
    try:
        from mujoco.egl import GLContext

        return GLContext(64, 64)
    except Exception as error:
        raise RuntimeError(
            f'No off-screen OpenGL through EGL ({error}); install libegl1, or libosmesa6 and set MUJOCO_GL=osmesa.'
        ) from error


class Renderer:
    """Renders cameras that need not exist in the model.

    Arguments:
        model: mujoco.MjModel; its world frame is the frame of `T_camera_world` below.
        width, height: largest picture, pixels.
        supersample: pictures are rendered this many times larger and averaged down; depth takes one sample a pixel.
        msaa: OpenGL's own smoothing, samples. shadow_map: texels.
    """

    def __init__(self, model, width: int, height: int, supersample: int = 2, msaa: int = 0, shadow_map: int = 1024):
        _process_context()
        self.model, self.supersample = model, supersample
        model.vis.global_.offwidth, model.vis.global_.offheight = width * supersample, height * supersample
        model.vis.quality.offsamples, model.vis.quality.shadowsize = msaa, shadow_map
        self._scene = mujoco.MjvScene(model, maxgeom=400)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[SHOWN_GROUP] = 1
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        if self._context.currentBuffer != mujoco.mjtFramebuffer.mjFB_OFFSCREEN:
            raise RuntimeError('This machine gave no off-screen frame buffer; set MUJOCO_GL to egl or osmesa.')
        self._color = np.zeros((height * width * supersample**2 * 3,), np.uint8)
        self._depth = np.zeros((height * width * supersample**2,), np.float32)
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
        flags[mujoco.mjtRndFlag.mjRND_HAZE] = 0
        self.shadows = True

    def upload_texture(self, texture: int) -> None:
        """Send a changed texture of the model to the renderer."""
        mujoco.mjr_uploadTexture(self.model, self._context, texture)

    def update(self, data) -> None:
        """Take over a state whose kinematics are up to date; later renders show it."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = int(self.shadows)
        mujoco.mjv_updateScene(
            self.model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )

    def render(self, camera: Camera, depth: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """Render one camera.

        Arguments: camera: T_camera_world from MuJoCo's world; principal point at the centre, square pixels.
        Returns: uint8 [H, W, 3] RGB; float32 [H, W] metres along the optical axis, or None.
        """
        s, height, width = self.supersample, camera.height, camera.width
        H, W = height * s, width * s
        rotation, translation = camera.T_camera_world[:3, :3], camera.T_camera_world[:3, 3]
        near, far = float(self.model.vis.map.znear), float(self.model.vis.map.zfar)
        top = near * (height / 2) / camera.K[1, 1]
        for eye in self._scene.camera:
            eye.pos = -rotation.T @ translation
            eye.forward, eye.up = rotation[2], -rotation[1]
            eye.frustum_center, eye.frustum_width = 0.0, 0.0
            eye.frustum_bottom, eye.frustum_top, eye.frustum_near, eye.frustum_far = -top, top, near, far
        view = mujoco.MjrRect(0, 0, W, H)
        # Bound anew each time: with two renderers in a process, pictures would else be read from the other's buffer.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(view, self._scene, self._context)
        color, raw = self._color[: H * W * 3], self._depth[: H * W] if depth else None
        mujoco.mjr_readPixels(color, raw, view, self._context)
        picture = color.reshape(H, W, 3)[::-1]
        if s > 1:
            picture = _shrink(picture, s)
        if not depth:
            return np.ascontiguousarray(picture), None
        raw = raw.reshape(H, W)[::-1]
        if s > 1:
            raw = _centre_depth(raw, s)
        return np.ascontiguousarray(picture), (near * far / (far - raw * (far - near))).astype(np.float32)

    def close(self) -> None:
        """Free the context; the renderer is unusable afterwards."""
        if self._context is not None:
            self._context.free()
            self._context = None


def _shrink(picture: np.ndarray, factor: int) -> np.ndarray:
    """Mean over factor x factor pixels. uint8 [H * f, W * f, 3] to [H, W, 3]."""
    import cv2

    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    return cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA)


def _centre_depth(raw: np.ndarray, factor: int) -> np.ndarray:
    """Window depth at pixel centres: the mean of a pixel's samples (exact on planes), the nearest across an edge."""
    height, width = raw.shape[0] // factor, raw.shape[1] // factor
    samples = raw.reshape(height, factor, width, factor)
    nearest, furthest = samples.min(axis=(1, 3)), samples.max(axis=(1, 3))
    edge = (1 - nearest) > 1.02 * (1 - furthest)  # 1 - raw falls as 1 / depth
    return np.where(edge, nearest, samples.mean(axis=(1, 3)))
