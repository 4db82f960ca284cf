"""Whole episodes as moving pictures: the screen, what the agent sees, what it expects.

    python evaluate.py run=runs/x watch=true [game=krull] [episodes=1] [max_steps=1000] [step=24000]

The episodes are the first of the run's own evaluations, seed for seed, played as those are: by
`Agent.eval_policy`, its planner included, with the random actions of `agent.eval_epsilon`, up to
`max_steps` agent steps. One picture a decision, 70 ms each: about as fast as the game is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agents.agent import Agent
from envs.roms import CATCH
from evaluation import lockstep
from evaluation.page import write_whole

MILLISECONDS = 70  # of a picture; an agent step is 67 ms of play
LAST = 1_500  # of the last one
SIDE = 168  # pixels of what the agent sees, two for each of its own
MARGIN, LINE = 12, 17
INK = ((255, 255, 255), (34, 34, 34), (136, 136, 136), (0, 114, 178), (213, 94, 0))
WHITE, BLACK, FAINT, BLUE, RED = range(len(INK))
GREYS = 32  # levels of what the agent sees


@dataclass(frozen=True)
class Film:
    """One episode of L decisions."""

    screens: list[np.ndarray]  # L x uint8 [H, W, 3]
    seen: list[np.ndarray]  # L x uint8 [84, 84], the newest frame
    values: np.ndarray  # [L] of the action taken, as the agent goes by
    actions: list[str]
    rewards: np.ndarray  # [L] raw
    active: np.ndarray  # [L] share of the latent that is not zero; NaN without a latent


def play(agent: Agent, index: int, **settings: Any) -> list[Film]:
    """Episodes of the game with this index.

    settings: of `lockstep.play`, but for the policy. Nothing of the agent changes but `latent`.
    """
    shots: dict[int, list[tuple[np.ndarray, np.ndarray, float]]] = {}  # by core

    def choose(obs: np.ndarray, cores: Sequence[Any]) -> np.ndarray:
        chosen = agent.eval_policy(obs, index)
        agent.latent = None
        values = agent.eval_values(obs, index).float().cpu().numpy()
        for i, core in enumerate(cores):
            active = (
                np.nan if agent.latent is None else float((agent.latent[i] != 0).float().mean())
            )
            shots.setdefault(id(core), []).append((_screen(core, obs[i]), values[i], active))
        return chosen

    single = settings["task"].rom != CATCH
    _, courses = lockstep.play(**settings, choose=choose, saved_states=single, record=True)
    names = lockstep.action_names(settings)
    films = []
    for course, taken in zip(courses, shots.values()):
        outputs = [moment.action for moment in course]
        films.append(
            Film(
                [screen for screen, _, _ in taken],
                [moment.obs[-1] for moment in course],
                np.array([q[a] for (_, q, _), a in zip(taken, outputs)]),
                [names[a] for a in outputs],
                np.array([moment.reward for moment in course]),
                np.array([active for _, _, active in taken]),
            )
        )
    return films


def _screen(core: Any, obs: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: what a player would see."""
    emulators = getattr(core, "emulators", None)
    if emulators:
        return emulators[0].screen()
    return np.repeat(obs[-1][:, :, None], 3, 2).repeat(2, 0).repeat(2, 1)  # Catch has no other


class Palette:
    """Colours of a GIF: those of the panel, greys, and those of the screen as they come up."""

    def __init__(self) -> None:
        greys = np.linspace(0, 255, GREYS).astype(int)
        self.colours = [*INK, *((g, g, g) for g in greys)]
        self._known: dict[int, int] = {}  # packed colour -> index

    def of_grey(self, frame: np.ndarray) -> np.ndarray:
        """Indices of uint8 [H, W]."""
        return (len(INK) + frame.astype(np.uint16) * (GREYS - 1) // 255).astype(np.uint8)

    def of_screen(self, screen: np.ndarray) -> np.ndarray:
        """Indices [H, W] of uint8 [H, W, 3]; beyond 256 colours, of the nearest one."""
        packed = screen.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        there, back = np.unique(packed, return_inverse=True)
        return np.array([self._index(int(c)) for c in there], np.uint8)[back.reshape(packed.shape)]

    def _index(self, packed: int) -> int:
        if packed not in self._known:
            colour = (packed >> 16, packed >> 8 & 255, packed & 255)
            if len(self.colours) < 256:
                self.colours.append(colour)
                self._known[packed] = len(self.colours) - 1
            else:
                far = np.abs(np.array(self.colours) - np.array(colour)).sum(1)
                self._known[packed] = int(far.argmin())
        return self._known[packed]

    def flat(self) -> list[int]:
        return [level for colour in self.colours for level in colour]


def gif(film: Film, title: str) -> bytes:
    """An animated GIF of the film."""
    palette = Palette()
    pictures = list(_pictures(film, title, palette))
    for picture in pictures:
        picture.putpalette(palette.flat())
    times = [MILLISECONDS] * (len(pictures) - 1) + [LAST]
    out = io.BytesIO()
    pictures[0].save(
        out, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0,
        optimize=False,
    )  # fmt: skip
    return out.getvalue()


def _pictures(film: Film, title: str, palette: Palette) -> Iterator[Image.Image]:
    height, width = (2 * n for n in film.screens[0].shape[:2])
    font = ImageFont.load_default(13)
    left, right = width + MARGIN, width + MARGIN + SIDE
    graph = (height - 88, height - MARGIN)  # top and bottom
    low, high = float(film.values.min()), float(film.values.max())
    span = high - low if high > low else 1.0
    x = left + np.arange(len(film.values)) * (SIDE / max(len(film.values) - 1, 1))
    y = graph[1] - (film.values - low) / span * (graph[1] - graph[0])
    curve = list(zip(x.tolist(), y.tolist()))
    scores = np.cumsum(film.rewards) - film.rewards  # before the decision
    for k, (screen, seen) in enumerate(zip(film.screens, film.seen)):
        picture = Image.new("P", (right + MARGIN, height), WHITE)
        shown = palette.of_screen(screen).repeat(2, 0).repeat(2, 1)
        picture.paste(Image.fromarray(shown, "P"), (0, 0))
        draw = ImageDraw.Draw(picture)
        lines = [title, f"step {k}", f"return {scores[k]:,.0f}", f"action {film.actions[k]}"]
        lines.append(f"value {film.values[k]:.2f}")
        if not np.isnan(film.active[k]):
            lines.append(f"active {film.active[k]:.1%} of the latent")
        for i, line in enumerate(lines):
            draw.text((left, MARGIN - 4 + LINE * i), line, BLACK if i else BLUE, font)
        top = MARGIN + LINE * 6 + 4
        small = palette.of_grey(seen).repeat(2, 0).repeat(2, 1)
        picture.paste(Image.fromarray(small, "P"), (left, top))
        draw.text((left, graph[0] - LINE), "value over the episode", BLACK, font)
        if len(curve) > 1:
            draw.line(curve, FAINT)
        if k:
            draw.line(curve[: k + 1], BLUE, 2)
        dot = curve[k]
        draw.ellipse((dot[0] - 3, dot[1] - 3, dot[0] + 3, dot[1] + 3), RED)
        yield picture


def main(run: Any, options: dict[str, str]) -> list[Path]:
    """Play, and write report/watch_<game>.gif (_2, _3, ... for further episodes)."""
    agent, games = run.agent, list(run.sequence.games)
    usual = {"episodes": 1, "max_steps": 1_000}
    wanted, _ = lockstep.asked(run, options, "watch", usual)
    if agent.config.noisy:
        agent.acting_network.quiet()
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    written = []
    for game, settings in wanted.items():
        for n, film in enumerate(play(agent, games.index(game), **settings), 1):
            target = folder / (f"watch_{game}.gif" if n == 1 else f"watch_{game}_{n}.gif")
            write_whole(target, gif(film, game))
            steps, score = len(film.screens), film.rewards.sum()
            print(f"{game}: return {score:g} in {steps} agent steps: {target}")
            written.append(target)
    return written
