"""A virtual wrist camera for robot arms that have none: from anchor cameras, live, over ROS 2."""

from pkgutil import extend_path

# The generated messages (`wristworld_ros.msg`) are installed beside this package; when the package is
# imported from a source tree, this finds them there.
__path__ = extend_path(__path__, __name__)
__version__ = '0.1.0'
