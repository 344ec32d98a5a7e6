# URDF of panda + robotiq from robosuite assets
import sys

sys.path.insert(0, '/work/wt/real')
from wristworld_ros.sim import scene
from wristworld_ros.sim.opengl import mujoco

p = scene.robosuite_parts()

robot = p.Panda(idn=0)
robot.add_gripper(p.gripper_factory('Robotiq85Gripper', idn='0_right'), robot.eef_name['right'])

arena = p.TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0, 0, 0.8))
m = mujoco.MjModel.from_xml_string(p.ManipulationTask(arena, [robot], []).get_xml())
for b in range(m.nbody):
    n = m.body(b).name
    print(
        b,
        n,
        'parent',
        m.body(m.body_parentid[b]).name,
        m.body_pos[b],
        m.body_quat[b],
        [m.joint(j).name for j in range(m.body_jntadr[b], m.body_jntadr[b] + m.body_jntnum[b])],
        [
            (m.geom_group[g], int(m.geom_type[g]))
            for g in range(m.body_geomadr[b], m.body_geomadr[b] + m.body_geomnum[b])
        ],
    )
for j in range(m.njnt):
    print(m.joint(j).name, m.jnt_axis[j], m.jnt_range[j])
for c in range(m.ncam):
    print(m.camera(c).name)
