"""Speed and recall of the episodic memory on keys of real frames, one thread.

    python benchmarks/episodic.py [--keys KEYS.npz] [--sizes 10000 100000] [--out FILE.json]

Writes benchmarks/results/episodic.json and a figure of the growth curve beside it. All times are
microseconds per query or per entry; reads are in batches of 8. The competitors take turns within
one process, pass by pass, and the best pass counts, so that a busy machine disturbs the ratios
as little as can be; the median pass is recorded as well. The clock is the processor time of the
process: everything runs in one thread, so on an idle machine it is wall time, and on a busy one it
leaves out the waiting for a turn. Saving and loading are timed by the wall.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
import numba
import numpy as np
import torch

from benchmarks.episodic_keys import KeySet, cached, collect
from memory.episodic import EpisodicMemory
from memory.index import HnswIndex

BATCH, NEIGHBOURS, PASSES, QUERIES = 8, 50, 7, 400
WRITE_BATCH = 32
HNSW_UP_TO = 100_000  # building a graph of a million keys takes minutes
HERE = Path(__file__).parent
clock = time.process_time


def once(run, queries: np.ndarray) -> float:
    """Microseconds per query of one pass in batches of 8."""
    start = clock()
    for i in range(0, len(queries), BATCH):
        run(queries[i : i + BATCH])
    return (clock() - start) / len(queries) * 1e6


def take_turns(runs: dict, queries: np.ndarray, passes: int = PASSES) -> dict:
    """Best and median pass of each competitor, interleaved."""
    times = {name: [] for name in runs}
    for _ in range(passes):
        for name, run in runs.items():
            few = queries if name not in ("flat", "knn") else queries[: 8 * BATCH]
            times[name].append(once(run, few))
    return {
        name: {"best_us": min(t), "median_us": float(np.median(t))} for name, t in times.items()
    }


def truth(keys: np.ndarray, actions: np.ndarray, queries: np.ndarray, num_actions: int):
    """Nearest entries of each action by brute force: [Q,A,p], -1 where there are fewer."""
    out = np.full((len(queries), num_actions, NEIGHBOURS), -1, np.int64)
    for action in range(num_actions):
        mine = np.flatnonzero(actions == action)
        k = min(NEIGHBOURS, len(mine))
        if k:
            out[:, action, :k] = mine[faiss.knn(queries, keys[mine], k)[1]]
    return out


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Share of the true neighbours found, [Q,A,p] each."""
    hits = sum(
        len(np.intersect1d(f[t >= 0], t[t >= 0], assume_unique=True))
        for f, t in zip(found.reshape(-1, NEIGHBOURS), true.reshape(-1, NEIGHBOURS))
    )
    return hits / (true >= 0).sum()


def all_found(search, queries: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [np.asarray(search(queries[i : i + BATCH])) for i in range(0, len(queries), BATCH)]
    )


def fill(memory: EpisodicMemory, keys: np.ndarray, actions: np.ndarray, first: int = 0) -> dict:
    """Write keys in batches of 32, as an agent does; microseconds per entry."""
    times, values = [], np.zeros(WRITE_BATCH)
    for i in range(0, len(keys), WRITE_BATCH):
        part = keys[i : i + WRITE_BATCH]
        names = np.arange(first + i, first + i + len(part))
        start = clock()
        memory.write(part, actions[i : i + WRITE_BATCH], values[: len(part)], names, 0)
        times.append((clock() - start) / len(part) * 1e6)
    # over the last tenth, where the memory has its full size
    last = times[-max(len(times) // 10, 20) :]
    return {"mean_us": float(np.mean(last)), "median_us": float(np.median(last))}


def tuned(memory: EpisodicMemory, queries: np.ndarray) -> float:
    """Let the memory find its effort on queries that are not measured later."""
    for i in range(0, 24):
        memory.tune(queries[32 * i : 32 * i + 32])
    return memory.index.effort


def drifted(keys: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keys as a slightly later encoder might write them: 5 % noise, unit length."""
    moved = keys + 0.05 / np.sqrt(keys.shape[1]) * rng.normal(size=keys.shape).astype(np.float32)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def faiss_ivf(keys: np.ndarray, queries: np.ndarray, true: np.ndarray):
    """faiss IVF-Flat with the fewest probes that reach a recall of .95, and its costs."""
    cells = int(4 * np.sqrt(len(keys)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(keys.shape[1]), keys.shape[1], cells)
    index.cp.min_points_per_centroid = 1
    start = clock()
    index.train(keys[:: max(1, len(keys) // (40 * cells))])
    train = clock() - start
    index.add(keys)
    index.make_direct_map()
    for index.nprobe in (4, 8, 16, 32, 64, 128):
        found = all_found(lambda q: index.search(q, NEIGHBOURS)[1], queries)[:, None]
        if (reached := recall(found, true)) >= 0.95:
            break
    costs = {"cells": cells, "nprobe": index.nprobe, "recall": reached, "train_s": train}
    return index, costs


def single(keys: np.ndarray, data: KeySet) -> dict:
    """One group of entries: the kNN read itself, against faiss."""
    queries, n = data.queries[:QUERIES], len(keys)
    rng, zeros = np.random.default_rng(0), np.zeros(len(keys), np.int64)
    true = truth(keys, zeros, queries, 1)
    memory = EpisodicMemory(n, keys.shape[1], 1, NEIGHBOURS, index="ivf")
    exact = EpisodicMemory(n, keys.shape[1], 1, NEIGHBOURS, index="flat")
    out = {"entries": n, "write": fill(memory, keys, zeros)}
    exact.write(keys, zeros, zeros.astype(float), np.arange(n), 0)
    out["effort"] = tuned(memory, data.queries[QUERIES:])
    runs = {
        "cells": memory.read,
        "flat": exact.read,
        "knn": lambda q: faiss.knn(q, keys, NEIGHBOURS),
    }
    ivf, costs = faiss_ivf(keys, queries, true)
    runs["faiss_ivf"] = lambda q: ivf.search(q, NEIGHBOURS)
    if n <= HNSW_UP_TO:
        graph = HnswIndex(keys, 1)
        start = clock()
        graph.put(np.arange(n), zeros)
        build = (clock() - start) / n * 1e6
        runs["hnsw"] = lambda q: graph.search(q, NEIGHBOURS)
    out["read"] = take_turns(runs, queries)
    read = out["read"]
    read["cells"]["recall"] = recall(all_found(lambda q: memory.read(q).indices, queries), true)
    read["flat"]["recall"] = recall(
        all_found(lambda q: exact.read(q).indices, queries[:64]), true[:64]
    )
    read["faiss_ivf"] |= costs
    if n <= HNSW_UP_TO:
        read["hnsw"]["recall"] = recall(
            all_found(lambda q: graph.search(q, NEIGHBOURS)[0], queries), true
        )
        read["hnsw"]["build_us_per_entry"] = build
    out["speedup_over_knn"] = read["knn"]["best_us"] / read["cells"]["best_us"]
    out["speedup_over_knn_median"] = read["knn"]["median_us"] / read["cells"]["median_us"]

    # overwriting: known states with moved keys, then as many new states that push others out
    some = rng.permutation(n)[: min(n, 8192)]
    moved = drifted(keys[some], rng)
    times, times_ivf = [], []
    for i in range(0, len(some), WRITE_BATCH):
        part = some[i : i + WRITE_BATCH]
        start = clock()
        memory.write(moved[i : i + WRITE_BATCH], zeros[: len(part)], zeros[: len(part)], part, 0)
        times.append((clock() - start) / len(part) * 1e6)
        if i < 1024:
            start = clock()
            ivf.update_vectors(part.astype(np.int64), moved[i : i + WRITE_BATCH])
            times_ivf.append((clock() - start) / len(part) * 1e6)
    out["overwrite"] = {"mean_us": float(np.mean(times)), "median_us": float(np.median(times))}
    out["overwrite_faiss_ivf_us"] = float(np.median(times_ivf))
    out["evicting_write"] = fill(memory, moved, zeros, first=10**9)
    start = clock()
    memory.index.maintain(20_000)
    out["upkeep_us_per_entry"] = (clock() - start) / 20_000 * 1e6
    return out


def per_action(keys: np.ndarray, actions: np.ndarray, data: KeySet, num_actions: int) -> dict:
    """A whole read of all actions: [B,A,p], each action's own 50 nearest."""
    queries = data.queries[:QUERIES]
    actions = actions % num_actions
    values = np.zeros(len(keys))
    true = truth(keys, actions, queries, num_actions)
    memories = {
        "cells": {"index": "ivf"},
        "flat": {"index": "flat"},
        "shared": {"index": "ivf", "scope": "shared"},
    }
    for name, options in memories.items():
        memory = EpisodicMemory(len(keys), keys.shape[1], num_actions, NEIGHBOURS, **options)
        memory.write(keys, actions, values, np.arange(len(keys)), 0)
        memories[name] = memory
    effort = tuned(memories["cells"], data.queries[QUERIES:])
    memories["shared"].index.effort = memories["cells"].index.effort
    of = [keys[actions == action] for action in range(num_actions)]

    def knn(q):  # one brute-force search per action, as the public NEC code does
        for part in of:
            faiss.knn(q, part, min(NEIGHBOURS, len(part)))

    runs = {name: memory.read for name, memory in memories.items()} | {"knn": knn}
    out = {
        "entries": len(keys),
        "actions": num_actions,
        "effort": effort,
        "read": take_turns(runs, queries),
    }
    read = out["read"]
    found = all_found(lambda q: memories["cells"].read(q).indices, queries)
    read["cells"]["recall"] = recall(found, true)
    out["speedup_over_knn"] = read["knn"]["best_us"] / read["cells"]["best_us"]
    return out


def change(data: KeySet, n: int) -> dict:
    """Recall when game follows game through a full memory, and when the encoder moves."""
    per_game = n // 4
    memory = EpisodicMemory(n, data.keys.shape[1], 1, NEIGHBOURS, tasks=4, index="ivf")
    rng, out, kept = np.random.default_rng(1), {"entries": n, "after_game": []}, []
    seen = []
    for game in range(4):
        rows = np.flatnonzero(data.games == game)[: per_game * 2]  # twice its share
        for i in range(0, len(rows), WRITE_BATCH):
            part = rows[i : i + WRITE_BATCH]
            memory.write(data.keys[part], 0 * part, 0.0 * part, part, game)
        kept.append(memory.stats()["size/0"])
        seen.append(np.flatnonzero(data.games == game)[per_game * 2 :][:50])  # of the same game
        queries = data.keys[np.concatenate(seen)]
        for i in range(12):  # a sampled audit now and then, as an agent makes it
            memory.tune(queries[i::12])
        out["after_game"].append(memory.audit(queries))
    out["first_game_entries_after_each"] = kept
    turn = np.linalg.qr(rng.normal(size=(data.keys.shape[1],) * 2))[0].astype(np.float32)
    memory.advance_version()
    start, count = clock(), 0
    while len(slots := memory.stale(256)):
        memory.reembed(slots, memory._slots.keys[slots] @ turn)
        count += len(slots)
    out["reembed_us_per_entry"] = (clock() - start) / count * 1e6
    out["after_reembedding"] = memory.audit(queries @ turn)
    return out


def saving(keys: np.ndarray, queries: np.ndarray) -> dict:
    """Write the state to files and read it back; the restored memory answers identically."""
    n, zeros = len(keys), np.zeros(len(keys), np.int64)
    memory = EpisodicMemory(n, keys.shape[1], 1, NEIGHBOURS, index="ivf")
    memory.write(keys, zeros, zeros, np.arange(n), 0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        state = memory.state_dict()
        np.save(f"{folder}/keys.npy", state["keys"].array)
        cells = state["index"]["cells"]
        arrays = {**state["slots"], **{f"index_{k}": v for k, v in cells.items()}}
        np.savez(f"{folder}/rest.npz", **arrays)
        saved = time.perf_counter() - start
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        start = time.perf_counter()
        with np.load(f"{folder}/rest.npz") as rest:
            state["slots"] = {name: rest[name] for name in state["slots"]}
            state["index"]["cells"] = {name: rest[f"index_{name}"] for name in cells}
        state["keys"].array[:] = np.load(f"{folder}/keys.npy")
        other = EpisodicMemory(n, keys.shape[1], 1, NEIGHBOURS, index="ivf")
        other.load_state_dict(state)
        loaded = time.perf_counter() - start
    same = all(
        np.array_equal(a, b) for a, b in zip(memory.read(queries[:64]), other.read(queries[:64]))
    )
    return {"entries": n, "save_s": saved, "load_s": loaded, "bytes": size, "identical": same}


def crossover(data: KeySet) -> dict:
    """Exact scan against cells at small sizes: what `auto` decides by."""
    out = {}
    for n in (500, 1000, 2000, 4000, 8000):
        memories = {}
        for index in ("flat", "ivf"):
            memories[index] = EpisodicMemory(n, data.keys.shape[1], 1, NEIGHBOURS, index=index)
            zeros = np.zeros(n, np.int64)
            memories[index].write(data.keys[:n], zeros, zeros, np.arange(n), 0)
        runs = {f"{index}_": memory.read for index, memory in memories.items()}
        out[n] = {k.rstrip("_"): v["best_us"] for k, v in take_turns(runs, data.queries).items()}
    return out


def figure(results: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    sizes = [row["entries"] for row in results["single"]]
    labels = {
        "knn": "faiss.knn (brute force)",
        "flat": "flat (exact)",
        "faiss_ivf": "faiss IVF",
        "hnsw": "faiss HNSW",
        "cells": "cells (ivf)",
    }
    for name, label in labels.items():
        rows = [(r["entries"], r["read"][name]) for r in results["single"] if name in r["read"]]
        left.loglog(
            [n for n, _ in rows], [r["best_us"] for _, r in rows], "o-", label=label,
            lw=2.5 if name == "cells" else 1.2,
        )  # fmt: skip
    left.plot([1e5, 1e6], [250, 1000], "kv", label="bar")
    left.plot([1e5, 1e6], [50, 100], "k*", label="goal")
    left.set(xlabel="entries", ylabel="µs per query (batch of 8)", title="Read, 50 neighbours")
    left.legend(fontsize=8)
    for name, label in {
        "write": "write",
        "overwrite": "overwrite, moved key",
        "evicting_write": "write that evicts",
    }.items():
        right.loglog(sizes, [r[name]["mean_us"] for r in results["single"]], "o-", label=label)
    right.loglog(
        sizes, [r["overwrite_faiss_ivf_us"] for r in results["single"]], "o-",
        label="overwrite, faiss IVF",
    )  # fmt: skip
    right.axhline(100, color="k", ls=":", label="bar")
    right.axhline(10, color="k", ls="--", label="goal")
    right.set(xlabel="entries", ylabel="µs per entry (batch of 32)", title="Write")
    right.legend(fontsize=8)
    fig.savefig(path, dpi=110)


def trained_keys(run: str, count: int) -> KeySet:
    """Keys of the encoder of a trained run, projected on its strongest axes."""
    from training.loading import load_run

    loaded = load_run(run)
    encoder = loaded.agent.network.encoder.eval()
    kind, games = loaded.config.encoder.kind, ", ".join(loaded.sequence.games)
    return collect(
        count,
        64,
        seed=0,
        encode=lambda obs: encoder(obs).latent,
        source=f"{kind} encoder trained for {loaded.step:,} agent steps on {games}, PCA to D; "
        "random play with held actions",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "engram"
    parser.add_argument("--keys", type=Path, default=cache / "episodic_keys.npz")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000, 1_000_000]
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "episodic.json")
    parser.add_argument("--run", help="a trained run, whose encoder makes the keys")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    data = trained_keys(args.run, max(args.sizes)) if args.run else cached(
        args.keys, max(args.sizes), 64, seed=0)  # fmt: skip
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    cpu = next(
        (x.split(":")[1].strip() for x in cpuinfo.splitlines() if x.startswith("model name")),
        platform.processor(),
    )
    results = {
        "command": f"python benchmarks/episodic.py --sizes {' '.join(map(str, args.sizes))}"
        + (f" --run {args.run}" if args.run else ""),
        "commit": commit,
        "keys": data.source,
        "trained_encoder": bool(args.run),
        "setting": f"{BATCH} queries a read, {NEIGHBOURS} neighbours, 64 dimensions, one thread, "
        f"processor time, best of {PASSES} interleaved passes; queries from episodes not stored",
        "versions": {
            "python": platform.python_version(), "numpy": np.__version__,
            "numba": numba.__version__, "faiss": faiss.__version__,
        },
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "load_at_start": os.getloadavg()},
        "date": time.strftime("%Y-%m-%d"),
        "single": [],
        "per_action": [],
    }  # fmt: skip
    EpisodicMemory(64, 64, 2, NEIGHBOURS, index="ivf")  # compile before the clock runs
    single(data.keys[:2000], data)
    results["crossover_us"] = crossover(data)
    for n in args.sizes:
        row = single(data.keys[:n], data)
        results["single"].append(row)
        print(json.dumps(row), flush=True)
    for n in args.sizes[::2]:
        for count in (9, 18):
            row = per_action(data.keys[:n], data.actions[:n], data, count)
            results["per_action"].append(row)
            print(json.dumps(row), flush=True)
    results["change"] = change(data, min(100_000, max(args.sizes)))
    results["saving"] = saving(data.keys[: max(args.sizes)], data.queries)
    results["machine"]["load_at_end"] = os.getloadavg()
    print(json.dumps({k: results[k] for k in ("crossover_us", "change", "saving")}), flush=True)
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    figure(results, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
