"""The one way to make an environment."""

from envs.actions import make_action_set
from envs.atari import NativeCore
from envs.catch import CatchCore
from envs.core import EmulatorCore
from envs.protocols import ProtocolConfig
from envs.roms import CATCH
from envs.single import SingleCore
from envs.tasks import Task
from envs.vector import EpisodeVector


def make_core(
    task: Task,
    protocol: ProtocolConfig,
    num_envs: int,
    num_threads: int = 1,
    single: bool = False,
) -> EmulatorCore:
    """The fastest emulators that can play `task`: native, single for modes, or the toy world.

    `single` asks for `SingleCore` in any game, for its saved states.
    """
    if num_envs < 1 or num_threads < 1:
        raise ValueError(f"num_envs={num_envs} and num_threads={num_threads} must be at least 1")
    if task.rom == CATCH:
        if single:
            raise ValueError("catch has no emulator, so single=True cannot be had")
        return CatchCore(protocol, num_envs)
    if single or task.mode is not None or task.difficulty is not None:
        return SingleCore(task, protocol, num_envs)
    return NativeCore(task.rom, protocol, num_envs, num_threads)


def make_vector_env(
    task: Task,
    protocol: ProtocolConfig,
    num_envs: int,
    seed: int,
    *,
    training: bool = True,
    num_threads: int = 1,
    full_actions: bool | None = None,
    single: bool = False,
) -> EpisodeVector:
    """N environments that play `task` under `protocol`.

    Args:
        task: game, mode and difficulty; its budget plays no part here.
        protocol: rules of play.
        num_envs: N, environments that step together.
        seed: all episodes follow from it.
        training: False leaves out the protocol's life-loss termination.
        num_threads: emulator threads (native emulators only).
        full_actions: 18 outputs (True: a game in a sequence, masked to the minimal set where the
            protocol says so), the game's own minimal outputs (False), or the protocol's choice
            (None).
        single: emulators with saved states (`env.core.emulators[i].clone_state()`), slower.
    """
    actions = make_action_set(task.rom, protocol, full_actions)
    core = make_core(task, protocol, num_envs, num_threads, single)
    return EpisodeVector(core, task.name, protocol, actions, seed, training)
