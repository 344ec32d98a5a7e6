"""Images and depth of a MuJoCo scene, without a screen."""

from __future__ import annotations

import functools

import numpy as np

from wristworld_ros.geometry.images import resize_images
from wristworld_ros.sim.opengl import free_at_exit, mujoco, process_backend
from wristworld_ros.sim.scene import SHOWN_GROUP
from wristworld_ros.types import Camera


class Renderer:
    """Renders cameras that need not exist in the model.

    Args:
        model: mujoco.MjModel; its world frame is the frame of `T_camera_world` below.
        width: Of the largest image, pixels.
        height: Of the largest image, pixels.
        supersample: Images are rendered this many times larger and averaged down.
        msaa: Samples of OpenGL's own anti-aliasing.
        shadow_map: Resolution of shadows, texels.

    Raises:
        UserError: This machine has no OpenGL that renders off-screen.
    """

    def __init__(self, model, width: int, height: int, supersample: int = 2, msaa: int = 0, shadow_map: int = 1024):
        process_backend()
        self.model, self.supersample = model, supersample
        model.vis.global_.offwidth, model.vis.global_.offheight = width * supersample, height * supersample
        model.vis.quality.offsamples, model.vis.quality.shadowsize = msaa, shadow_map
        self._scene = mujoco.MjvScene(model, maxgeom=max(400, model.ngeom + 100))
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[SHOWN_GROUP] = 1
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        if self._context.currentBuffer != mujoco.mjtFramebuffer.mjFB_OFFSCREEN:
            raise RuntimeError('The renderer has no off-screen frame buffer.')
        free_at_exit(self)
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

    def upload_mesh(self, mesh: int) -> None:
        """Send a changed mesh of the model to the renderer."""
        mujoco.mjr_uploadMesh(self.model, self._context, mesh)

    def update(self, data) -> None:
        """Take over a state whose kinematics are up to date; later renders show it."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = int(self.shadows)
        mujoco.mjv_updateScene(
            self.model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )

    def render(self, camera: Camera, depth: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """Render one camera.

        Args:
            camera: T_camera_world from MuJoCo's world; principal point at the centre.
            depth: Whether depth is wanted too.

        Returns:
            uint8 [H, W, 3] RGB; float32 [H, W] metres along the optical axis, or None.
        """
        s, height, width = self.supersample, camera.height, camera.width
        H, W = height * s, width * s
        self._draw(camera, W, H)
        color, raw = self._color[: H * W * 3], self._depth[: H * W] if depth else None
        mujoco.mjr_readPixels(color, raw, mujoco.MjrRect(0, 0, W, H), self._context)
        image = np.ascontiguousarray(color.reshape(H, W, 3)[::-1])
        if s > 1:
            image = resize_images(image[None], (height, width))[0]
        if not depth:
            return image, None
        raw = raw.reshape(H, W)[::-1]
        if s > 1:
            raw = _centre_depth(raw, s)
        near, far = float(self.model.vis.map.znear), float(self.model.vis.map.zfar)
        return image, (near * far / (far - raw * (far - near))).astype(np.float32)

    def bodies(self, camera: Camera) -> np.ndarray:
        """MuJoCo's body at each pixel's centre, int32 [H, W]; -1 where there is nothing."""
        height, width = camera.height, camera.width
        flags, shadow = self._scene.flags, mujoco.mjtRndFlag.mjRND_SHADOW
        before = int(flags[shadow])
        marks = mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR
        flags[shadow] = 0
        for mark in marks:
            flags[mark] = 1
        self._draw(camera, width, height)
        for mark in marks:
            flags[mark] = 0
        flags[shadow] = before
        color = self._color[: height * width * 3]
        mujoco.mjr_readPixels(color, None, mujoco.MjrRect(0, 0, width, height), self._context)
        marked = color.reshape(height, width, 3)[::-1].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        body_of = np.full(self._scene.maxgeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                body_of[geom.segid + 1] = self.model.geom_bodyid[geom.objid]
        return body_of[marked]

    def _draw(self, camera: Camera, W: int, H: int) -> None:
        """Render a camera into the lower left W x H pixels of the buffer."""
        height = camera.height
        rotation, translation = camera.T_camera_world[:3, :3], camera.T_camera_world[:3, 3]
        near, far = float(self.model.vis.map.znear), float(self.model.vis.map.zfar)
        top = near * (height / 2) / camera.K[1, 1]
        stretched = camera.K[0, 0] != camera.K[1, 1]
        across = near * (camera.width / 2) / camera.K[0, 0] if stretched else 0.0  # 0: as wide as square pixels make it
        for gl in self._scene.camera:  # one for each eye
            gl.pos = -rotation.T @ translation
            gl.forward, gl.up = rotation[2], -rotation[1]
            gl.frustum_center, gl.frustum_width = 0.0, across
            gl.frustum_bottom, gl.frustum_top, gl.frustum_near, gl.frustum_far = -top, top, near, far
        view = mujoco.MjrRect(0, 0, W, H)
        # Bound each time: with two renderers in a process, images would otherwise be read from the other one's buffer.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(view, self._scene, self._context)

    def close(self) -> None:
        """Free the context; the renderer is unusable afterwards."""
        if self._context is not None:
            self._context.free()
            self._context = None


def _centre_depth(raw: np.ndarray, factor: int) -> np.ndarray:
    """Window depth at pixel centres: the mean of a pixel's samples (exact on planes), the nearest across an edge."""
    samples = [raw[row::factor, column::factor] for row in range(factor) for column in range(factor)]
    nearest, furthest = functools.reduce(np.minimum, samples), functools.reduce(np.maximum, samples)
    edge = (1 - nearest) > 1.02 * (1 - furthest)  # 1 - raw falls as 1 / depth
    return np.where(edge, nearest, functools.reduce(np.add, samples) / np.float32(len(samples)))
