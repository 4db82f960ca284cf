"""Configuration of the value-learning agent: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from errors import require


@dataclass(frozen=True)
class AgentConfig:
    """Values of one agent. The presets are `configs/agent/*.yaml`; sources are named there.

    Schedules count agent steps of the whole run (all tasks) unless the comment says otherwise.
    """

    name: str = "reactive"  # nec and mfec act by their memory; others are named for reports alone

    # -- targets ------------------------------------------------------------------------------
    n_step_start: int = 10  # steps; n-step return at the first update
    n_step_end: int = 3  # steps; after the anneal
    gamma_start: float = 0.97  # 1 / agent step
    # 0.997 fills the support at game scores of RoadRunner and leaves gaps between actions of 0.02;
    # 0.99 reached 8,490 after 20k steps instead of 6,600. [measured, seed 104]
    gamma_end: float = 0.99  # 1 / agent step
    anneal_updates: int = 10_000  # optimiser updates over which n and gamma move (exponentially)
    anneal_restart: bool = True  # anew when a game is met for the first time, as BBF at its resets
    # Whose values the return is bootstrapped with: the target network's, or those of the online one
    # as it is before the update. Then the target has a say in acting and judging alone.
    bootstrap: str = "target"
    double: bool = True  # action of the bootstrap chosen by the online network (van Hasselt 2016)
    reward_transform: str = "clip"  # clip: to [-1, 1]; none: raw rewards

    # -- network ------------------------------------------------------------------------------
    atoms: int = 51  # C51 atoms (Bellemare 2017); 1 = a plain scalar Q-value
    v_min: float = -10.0  # return; lower end of the C51 support
    # Krull's returns go beyond it (half of the probability lies in the last three atoms after 100k
    # steps), but 30 made it no better: 2,779 with 51 atoms and 1,895 with 101 after 50k steps, with
    # 10 2,746. [measured, seed 104]
    v_max: float = 10.0  # return; upper end of the C51 support
    dueling: bool = True  # value + advantage streams (Wang 2016)
    noisy: bool = False  # factorised noisy linear layers instead of epsilon (Fortunato 2018)
    noisy_sigma: float = 0.5  # sigma_0 of the noisy layers
    hidden: int = 256  # units of each stream's hidden layer
    # Layer normalisation of that layer (Ba 2016; for value learning Lyle 2024, 2402.18762). It
    # keeps units alive (RoadRunner, conv: half of them dormant after 5k steps without, one in
    # eleven with it) and leaves that game's first plateau sooner (865 and 1,995 after 20k steps),
    # but neither RoadRunner and Krull at 100k nor quickstart ended higher. [measured, seeds 111, 0,
    # 100]
    normalise: bool = False

    # -- optimisation -------------------------------------------------------------------------
    learning_rate: float = 1e-4  # Adam step size (3e-4 stalls on RoadRunner)
    adam_eps: float = 1.5e-4  # Adam epsilon
    weight_decay: float = 0.0  # AdamW decay (decoupled), per unit of learning rate
    max_grad_norm: float = 10.0  # global norm; 0 = no clipping
    batch_size: int = 32  # transitions an update
    updates_per_step: float = 1.0  # optimiser updates per agent step: the fixed update ratio
    learn_start: int = 1_600  # agent steps before the first update
    target_period: int = 1  # updates between two target updates
    target_tau: float = 0.005  # share of the online weights mixed in at each; 1 = hard copy
    # Once n and gamma are annealed the share falls in inverse proportion to the updates, to this
    # value; 0 = it stays, and so does a hard copy. The target network, which also acts, is then the
    # mean of a fixed part of the game's training (after Shamir 2013, 1212.1824). Krull at 100k
    # 4,457 instead of 4,198, RoadRunner 8,546 instead of 7,122. [measured, spiking, seed 0; chosen
    # on two other runs, whose weights averaged over their last updates did better by a fifth and a
    # third]
    target_tau_end: float = 0.0005
    # The online network's churn explores (Schaul 2022, 2206.00730), the target's mean is steadier.
    # No difference beyond the noise on RoadRunner (12k steps, seeds 111 to 113: 4,130 and 3,430).
    act_with_target: bool = True  # greedy actions from the target network (BBF) or the online one
    # Where the target acts: whether the online network does in training nevertheless, so that the
    # mean of its weights is judged and it meets what its own policy leads to.
    explore_online: bool = False

    # -- exploration --------------------------------------------------------------------------
    epsilon_start: float = 1.0  # probability of a random action when a game is first met
    epsilon_end: float = 0.01  # probability afterwards, in the first emulator
    # How many times more often the last of the emulators explores, the others in between
    # (geometrically, after Horgan 2018, 1803.00933, section 4); 1 = all alike. RoadRunner's seeds
    # differ by more than it changes: 111 and 112 left a plateau sooner, 0 later. [measured]
    epsilon_spread: float = 10.0
    epsilon_hold: int = 0  # agent steps of the game's first visit before it begins to fall
    epsilon_decay: int = 2_500  # agent steps in which it then falls, linearly
    eval_epsilon: float = 0.001  # probability of a random action in evaluations

    # -- data ---------------------------------------------------------------------------------
    num_envs: int = 4  # emulators stepped together
    replay_capacity: int = 100_000  # transitions, all games together, oldest overwritten
    prioritised: bool = False  # proportional prioritised replay (Schaul 2016)
    priority_alpha: float = 0.5  # exponent on priorities
    priority_beta: float = 0.4  # importance exponent at the start; annealed to 1 over the run
    # Shifts by 4 pixels (DrQ, Yarats 2020) cost Boxing and RoadRunner much of their first 40k steps
    # on the DER encoder, whose first layer has kernels and strides of 5. With `fine` Boxing
    # stood at -17 after 60k steps. [measured, seed 104] An update that also teaches a world model
    # shifts a sequence as a whole, any other the two states of a transition each by itself.
    shift: int = 0  # pixels; random-shift augmentation (replicate padding and crop); 0 = off

    # -- spikes -------------------------------------------------------------------------------
    # Weight of the penalty on (rate / target - 1)^2, a sum over layers (agents/losses.py).
    spike_rate_weight: float = 1.0

    def __post_init__(self) -> None:
        at_least_one = (
            "n_step_start n_step_end atoms hidden batch_size target_period num_envs anneal_updates"
        )
        for key in at_least_one.split():
            value = getattr(self, key)
            require(value >= 1, f"agent.{key}={value} must be at least 1")
        for key in [
            "epsilon_start",
            "epsilon_end",
            "eval_epsilon",
            "gamma_start",
            "gamma_end",
            "priority_alpha",
            "priority_beta",
        ]:
            value = getattr(self, key)
            require(0 <= value <= 1, f"agent.{key}={value} must lie between 0 and 1")
        for key in [
            "weight_decay",
            "max_grad_norm",
            "learn_start",
            "epsilon_hold",
            "epsilon_decay",
            "spike_rate_weight",
            "noisy_sigma",
        ]:
            value = getattr(self, key)
            require(value >= 0, f"agent.{key}={value} must not be negative")
        require(self.epsilon_spread >= 1, "agent.epsilon_spread must be at least 1")
        require(
            self.epsilon_end * self.epsilon_spread <= 1,
            f"agent.epsilon_spread={self.epsilon_spread} times agent.epsilon_end is above 1: lower "
            "one of them",
        )
        require(self.learning_rate > 0, "agent.learning_rate must be above 0")
        require(self.adam_eps > 0, "agent.adam_eps must be above 0")
        require(0 < self.target_tau <= 1, "agent.target_tau must lie in (0, 1]")
        require(
            0 <= self.target_tau_end <= self.target_tau,
            f"agent.target_tau_end={self.target_tau_end} must lie between 0 and agent.target_tau="
            f"{self.target_tau}; 0 keeps that",
        )
        require(self.updates_per_step > 0, "agent.updates_per_step must be above 0")
        require(self.v_min < self.v_max, "agent.v_min must be below agent.v_max")
        require(
            self.bootstrap in ("target", "online"),
            f"agent.bootstrap={self.bootstrap}: use target or online",
        )
        require(
            self.act_with_target or not self.explore_online,
            "agent.explore_online=true is for agents that the target network acts for: set "
            "agent.act_with_target=true",
        )
        require(0 <= self.shift <= 20, "agent.shift must lie between 0 and 20 pixels")
        require(
            self.reward_transform in ("clip", "none"),
            f"agent.reward_transform={self.reward_transform} is not one of clip, none",
        )
        require(
            self.learn_start >= self.batch_size,
            "agent.learn_start must be at least agent.batch_size",
        )
        floor = 4 * (self.n_step_max + 8) * self.num_envs
        require(
            self.replay_capacity >= floor,
            f"agent.replay_capacity={self.replay_capacity} is too small for agent.num_envs="
            f"{self.num_envs} streams; set it to at least {floor}",
        )
        waiting = self.num_envs * (self.n_step_max + 8)
        require(
            self.batch_size <= self.replay_capacity - waiting,
            f"agent.batch_size={self.batch_size} is more than agent.replay_capacity="
            f"{self.replay_capacity} can be drawn from ({waiting} wait for their returns): raise "
            "that or lower the batch",
        )
        require(
            not (self.noisy and self.epsilon_end > 0),
            "agent.noisy=true explores by its own noise: set agent.epsilon_end=0",
        )

    @property
    def n_step_max(self) -> int:
        """Longest n-step return the schedule ever asks for."""
        return max(self.n_step_start, self.n_step_end)
