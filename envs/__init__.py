"""Experience: Atari vector environments, protocols, task sequences, a tiny test world."""

from envs.actions import NUM_FULL_ACTIONS, ActionSet, make_action_set
from envs.core import CoreStep, EmulatorCore
from envs.factory import make_core, make_vector_env
from envs.protocols import (
    FRAMES_PER_STEP,
    PROTOCOLS,
    ProtocolConfig,
    atari100k,
    machado2018,
)
from envs.tasks import Task, TaskSequence, parse_task
from envs.vector import EpisodeVector

__all__ = [
    "FRAMES_PER_STEP",
    "NUM_FULL_ACTIONS",
    "PROTOCOLS",
    "ActionSet",
    "CoreStep",
    "EmulatorCore",
    "EpisodeVector",
    "ProtocolConfig",
    "Task",
    "TaskSequence",
    "atari100k",
    "machado2018",
    "make_action_set",
    "make_core",
    "make_vector_env",
    "parse_task",
]
