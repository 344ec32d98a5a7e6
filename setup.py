"""The build for machines without ROS: `pip install .` runs the package's own CMakeLists.txt against the ros-* wheels.

On a ROS machine `colcon build` uses package.xml and CMakeLists.txt and never looks at this file. What is installed is the
same by both routes, so that `ros2 launch`, `ros2 run` and share look-ups find things where they expect them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NAME = 'wristworld_ros'
ROOT = Path(__file__).resolve().parent
MODULES = f'lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages'

# tf2_msgs has no wheel. /tf needs one message of it, whose type name and fields are fixed; see `needs_tf2_msgs`.
TF2_MARK = 'The one message that /tf carries, built by wristworld_ros where tf2_msgs is not installed.'
TF2_MSGS = {
    'msg/TFMessage.msg': 'geometry_msgs/TransformStamped[] transforms\n',
    'package.xml': f"""<?xml version="1.0"?>
<package format="3">
  <name>tf2_msgs</name>
  <version>0.0.0</version>
  <description>{TF2_MARK}</description>
  <maintainer email="wristworld@example.com">wristworld_ros maintainers</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <depend>geometry_msgs</depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
""",
    'CMakeLists.txt': """cmake_minimum_required(VERSION 3.16)
project(tf2_msgs)
find_package(ament_cmake REQUIRED)
find_package(geometry_msgs REQUIRED)
find_package(rosidl_default_generators REQUIRED)
rosidl_generate_interfaces(${PROJECT_NAME} msg/TFMessage.msg DEPENDENCIES geometry_msgs)
ament_package()
""",
}


def needs_tf2_msgs() -> bool:
    """Whether no other tf2_msgs is there: neither from a ROS installation nor from a wheel, an earlier build of ours aside."""
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)), sys.prefix]
    manifests = (Path(prefix) / 'share/tf2_msgs/package.xml' for prefix in prefixes)
    return not any(manifest.exists() and TF2_MARK not in manifest.read_text() for manifest in manifests)


def skip(path: Path) -> bool:
    """Headers and CMake files serve only C++ packages built on this one; a virtual environment has none."""
    return bool({'__pycache__', 'include', 'cmake'} & set(path.parts)) or '.egg-info' in str(path)


class CMakeBuild(build_ext):
    """Configures, builds and installs CMake projects into a staging folder, and hands that to the wheel."""

    def build_extension(self, ext):
        work = Path(self.build_temp).resolve() / 'cmake'
        shutil.rmtree(work, ignore_errors=True)  # paths of an earlier isolated build must not survive in a cache
        stage = work / 'stage'
        work.mkdir(parents=True)
        self.cmake(ROOT, work / NAME, stage)
        if needs_tf2_msgs():
            for path, text in TF2_MSGS.items():
                source = work / 'tf2_msgs_source' / path
                source.parent.mkdir(parents=True, exist_ok=True)
                source.write_text(text)
            self.cmake(work / 'tf2_msgs_source', work / 'tf2_msgs', stage)
        self.pack(stage)

    def cmake(self, source: Path, build: Path, stage: Path) -> None:
        import rosidl_generator_c

        prefix = str(Path(rosidl_generator_c.__file__).resolve().parents[4])
        env = {**os.environ, 'AMENT_PREFIX_PATH': prefix, 'CMAKE_PREFIX_PATH': prefix}
        options = {
            'CMAKE_INSTALL_PREFIX': stage,
            'Python3_EXECUTABLE': sys.executable,
            'PYTHON_INSTALL_DIR': MODULES,
            'WRISTWORLD_PYTHON': '/usr/bin/env python3',
            'BUILD_TESTING': 'OFF',
            'CMAKE_BUILD_TYPE': 'Release',
            'CMAKE_INSTALL_RPATH': '$ORIGIN;$ORIGIN/../../..',
            'CMAKE_PROJECT_INCLUDE': ROOT / 'scripts/wheels.cmake',
        }
        defines = [f'-D{key}={value}' for key, value in options.items()]
        subprocess.run(['cmake', '-G', 'Ninja', '-S', source, '-B', build, *defines], check=True, env=env)
        subprocess.run(['cmake', '--build', build], check=True, env=env)
        subprocess.run(['cmake', '--install', build], check=True, env=env, stdout=subprocess.DEVNULL)

    def pack(self, stage: Path) -> None:
        """Python packages go into the wheel's root, everything else under the environment's prefix."""
        root = Path(self.get_ext_fullpath(f'{NAME}.x')).parent.parent
        data: dict[str, list[str]] = {}
        for path in sorted(p for p in stage.rglob('*') if p.is_file()):
            relative = path.relative_to(stage)
            if skip(relative):
                continue
            if str(relative).startswith(f'{MODULES}/'):
                target = root / relative.relative_to(MODULES)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(path), str(target))
            else:
                data.setdefault(str(relative.parent), []).append(str(path))
        self.distribution.data_files = [*(self.distribution.data_files or []), *data.items()]

    def get_outputs(self):
        return []


setup(
    ext_modules=[Extension(f'{NAME}.{NAME}_s__rosidl_typesupport_c', sources=[])],
    cmdclass={'build_ext': CMakeBuild},
    data_files=[],
)
