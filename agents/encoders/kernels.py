"""Event-driven LIF convolutions on the CPU: work in proportion to spikes and to change.

    B batch, T steps, P positions of a layer (row by row), C channels in, O channels out, K inputs
    of one neuron (kernel^2 * C). Arrays are flat; [..] gives the order of their elements.

First layer: a patch whose pixels are those of the step before has the same drive, so it is not
computed again (nine patches of ten in Atari); a patch that changed reads its change as well, where
the encoder sees changes. Later layers: a spike adds one row of weights.
Backward: the surrogate has compact support, so most gradients are exactly zero and skipped; a
spike adds one gradient row; patches that did not change share one outer product.

Sums run in a fixed order on one thread: the same inputs give the same bits.
"""

from __future__ import annotations

# vector.py bf0c7630df7f (a change there must reach numba's cache of this file; a test checks)
import numpy as np
from numba import njit

from agents.encoders.vector import (
    LANES,
    STEPS,
    add_outer,
    add_patterns,
    add_scaled_rows,
    add_vector,
    lif_backward,
    lif_forward,
    list_events,
    list_patterns,
    list_values,
    load_u64,
    nonzero,
    patch_product,
    pattern_table,
    popcount,
    read_row,
    sum_rows,
)

FRAME = 84
SAMPLES = 4  # samples that go back through a layer together, while its weights are in the cache
SLACK = 16  # entries that a list may overwrite behind its end

# Columns of the table of layer shapes [layers, 6], int64.
SIDE_IN, SIDE, KERNEL, STRIDE, IN, OUT = range(6)


@njit(cache=True, inline="always")
def _same_patch(obs, a, b, kernel):
    """Whether two patches (offsets of their first pixels) hold the same bytes; kernel <= 8."""
    shift = np.uint64(64 - 8 * kernel)
    for y in range(kernel):
        if (load_u64(obs, a + y * FRAME) ^ load_u64(obs, b + y * FRAME)) << shift:
            return False
    return True


@njit(cache=True, inline="always")
def _read_patch(obs, start, kernel, patch):
    """Pixels of a patch as floats, row by row; up to 8 entries behind the last are overwritten."""
    for y in range(kernel):
        read_row(obs, start + y * FRAME, patch, y * kernel)


@njit(cache=True, inline="always")
def _read_change(obs, start, kernel, patch, before):
    """Behind a patch's pixels, how each differs from the step before; returns the inputs in all."""
    _read_patch(obs, start - FRAME * FRAME, kernel, before)
    taps = kernel * kernel
    for i in range(taps):
        patch[taps + i] = patch[i] - before[i]
    return 2 * taps


@njit(cache=True, inline="always")
def _fire(drive, at, leak, threshold, shape, b, p, spikes):
    """All steps of the neurons at position p, drive of step t from at[t] on; returns the spikes."""
    out = shape[OUT]
    words = shape[SIDE] * shape[SIDE] * (out // LANES)
    count = 0
    for c in range(0, out, LANES):
        word = b * STEPS * words + (p * out + c) // LANES
        count += lif_forward(drive, at, leak, threshold, c, spikes, word, words)
    return count


@njit(cache=True)
def image_forward(obs, b, crop, shape, weight, bias, leak, threshold, spikes, drive, base):
    """First layer on sample b of obs [B, T, 84, 84]; returns its number of spikes.

    weight [K, O], K pixels and, with two input channels, as many changes behind them; spikes
    [B, T, P, O/16] u16; drive [patches that changed, O] from `base` on.
    """
    side, kernel, stride, out = shape[SIDE], shape[KERNEL], shape[STRIDE], shape[OUT]
    taps = kernel * kernel
    patch = np.empty(2 * taps + SLACK, np.float32)
    before = np.empty(taps + SLACK, np.float32)
    at = np.empty(STEPS, np.int64)
    changes = shape[IN] == 2
    count = 0
    last = base - out  # where the newest drive begins
    for p in range(side * side):
        corner = (crop + p // side * stride) * FRAME + crop + p % side * stride
        moved = False
        for t in range(STEPS):
            start = (b * STEPS + t) * FRAME * FRAME + corner
            fades = changes and moved  # what changed at the step before does so no more
            moved = t > 0 and not _same_patch(obs, start, start - FRAME * FRAME, kernel)
            if t == 0 or moved or fades:
                last += out
                _read_patch(obs, start, kernel, patch)
                inputs = taps
                if changes and moved:
                    inputs = _read_change(obs, start, kernel, patch, before)
                c = 0
                while c + 2 * LANES <= out:
                    patch_product(patch, inputs, weight, c, out, bias, drive, last + c, 2)
                    c += 2 * LANES
                if c < out:
                    patch_product(patch, inputs, weight, c, out, bias, drive, last + c, 1)
            at[t] = last
        count += _fire(drive, at, leak, threshold, shape, b, p, spikes)
    return count


@njit(cache=True, inline="always")
def _list_inputs(spikes, first, shape, p, rows):
    """Rows of the weight matrix that the spikes before position p select; returns their number.

    spikes [side_in, side_in, C/16] of one step, from `first` on.
    """
    kernel, words = shape[KERNEL], shape[IN] // LANES
    side_in, side, stride = shape[SIDE_IN], shape[SIDE], shape[STRIDE]
    corner = p // side * stride * side_in + p % side * stride
    n = 0
    row = 0
    for y in range(kernel):
        start = first + (corner + y * side_in) * words
        for j in range(start, start + kernel * words):
            mask = np.uint64(spikes[j])
            list_events(mask, row, rows, n)
            n += popcount(mask)
            row += LANES
    return n


@njit(cache=True)
def event_forward(source, b, shape, weight, bias, leak, threshold, spikes, drive, base):
    """A layer that reads spikes, on sample b; returns its number of spikes.

    source [B, T, side_in^2, C/16] u16; weight [K, O]; spikes as above; drive [P, T, O] from `base`.
    """
    side, side_in, out = shape[SIDE], shape[SIDE_IN], shape[OUT]
    words_in = side_in * side_in * (shape[IN] // LANES)
    rows = np.empty(shape[KERNEL] * shape[KERNEL] * shape[IN] + SLACK, np.int32)
    at = np.empty(STEPS, np.int64)
    count = 0
    for p in range(side * side):
        for t in range(STEPS):
            n = _list_inputs(source, (b * STEPS + t) * words_in, shape, p, rows)
            at[t] = base + (p * STEPS + t) * out
            c = 0
            while c + 4 * LANES <= out:
                sum_rows(weight, rows, n, c, out, bias, drive, at[t] + c, 4)
                c += 4 * LANES
            while c < out:
                sum_rows(weight, rows, n, c, out, bias, drive, at[t] + c, 1)
                c += LANES
        count += _fire(drive, at, leak, threshold, shape, b, p, spikes)
    return count


@njit(cache=True)
def count_spikes(spikes, b, shape, latent):
    """latent [B, P, O] of sample b: spikes over the steps."""
    width = shape[SIDE] * shape[SIDE] * shape[OUT]
    words = width // LANES
    for j in range(words):
        first = b * STEPS * words + j
        m0, m1, m2, m3 = (
            spikes[first], spikes[first + words], spikes[first + 2 * words],
            spikes[first + 3 * words],
        )  # fmt: skip
        for lane in range(LANES):
            n = ((m0 >> lane) & 1) + ((m1 >> lane) & 1) + ((m2 >> lane) & 1) + ((m3 >> lane) & 1)
            latent[b * width + j * LANES + lane] = np.float32(n)


@njit(cache=True)
def forward(
    obs, batch, crop, shapes, weights, biases, leaks, thresholds, spikes, drives, counts,
    latent, keep,
):  # fmt: skip
    """All layers on all samples. Tuples of flat arrays, one a layer; counts [layers] int64.

    drives: [B, T, P, O] each when they are kept for `backward`, else room for one sample.
    """
    last = len(shapes) - 1
    for b in range(batch):
        for i in range(last + 1):
            base = 0
            if keep:
                base = b * STEPS * shapes[i, SIDE] ** 2 * shapes[i, OUT]
            if i == 0:
                counts[i] += image_forward(
                    obs, b, crop, shapes[i], weights[i], biases[i], leaks[i], thresholds[i],
                    spikes[i], drives[i], base,
                )  # fmt: skip
            else:
                counts[i] += event_forward(
                    spikes[i - 1], b, shapes[i], weights[i], biases[i], leaks[i], thresholds[i],
                    spikes[i], drives[i], base,
                )  # fmt: skip
        count_spikes(spikes[last], b, shapes[last], latent)


@njit(cache=True, inline="always")
def _gradient_of_drive(
    drive, at, upstream, up_at, up_stride, every, lif, out, sums, boxcar, gradient
):
    """All LIF steps of a position backwards: gradient [T, O] of its drive."""
    leak, threshold, slope, span = lif
    for c in range(0, out, LANES):
        if boxcar:
            lif_backward(
                drive, at, upstream, up_at + c, up_stride, every, leak, threshold, slope, span, c,
                sums, out, gradient, c, out, 1,
            )  # fmt: skip
        else:
            lif_backward(
                drive, at, upstream, up_at + c, up_stride, every, leak, threshold, slope, span, c,
                sums, out, gradient, c, out, 0,
            )  # fmt: skip


@njit(cache=True, inline="always")
def _list_patterns(spikes, start, end, step, row, rows, patterns):
    """Channels that spike in any of four steps (`step` words apart), from row number `row` on.

    spikes[start:end] are one row of a receptive field. Returns their number.
    """
    n = 0
    for j in range(start, end):
        n += list_patterns(
            np.uint64(spikes[j]), np.uint64(spikes[j + step]), np.uint64(spikes[j + 2 * step]),
            np.uint64(spikes[j + 3 * step]), row, rows, patterns, n,
        )  # fmt: skip
        row += LANES
    return n


@njit(cache=True)
def event_backward(
    source, first, count, shape, transposed, lif, drive, upstream, upstream_base, upstream_sample,
    upstream_step, every, boxcar, down, grad, sums,
):  # fmt: skip
    """Gradients of one event layer on `count` samples from `first` on.

    upstream: gradient of the spikes, [P, O] from upstream_base + sample * upstream_sample + t *
    upstream_step on, and `every` on top; transposed [O, K]; lif = (leak, threshold, slope, span),
    each [O]; down [count, T, side_in^2, C] is filled with the gradient of the spikes before;
    grad [K, O] and sums [3, O] are added to.
    """
    side, side_in, kernel, stride = shape[SIDE], shape[SIDE_IN], shape[KERNEL], shape[STRIDE]
    into, out = shape[IN], shape[OUT]
    places, places_in = side * side, side_in * side_in
    span = kernel * into  # inputs of one kernel row: contiguous in `down` and in the weights
    words_in, words = places_in * into // LANES, into // LANES
    active = np.empty((count * places * STEPS, out + SLACK), np.int32)
    values = np.empty((count * places * STEPS, out + SLACK), np.float32)
    lengths = np.empty(count * places * STEPS, np.int64)
    gradients = np.empty((count * places, STEPS * out), np.float32)
    rows = np.empty(span + SLACK, np.int32)
    patterns = np.empty(span + SLACK, np.int32)
    table = np.empty(16 * 4 * LANES, np.float32)
    at = np.empty(STEPS, np.int64)
    for job in range(count * places):
        b, p = job // places, job % places
        gradient = gradients[job]
        for t in range(STEPS):
            at[t] = ((first + b) * places + p) * STEPS * out + t * out
        _gradient_of_drive(
            drive, at, upstream, upstream_base + b * upstream_sample + p * out, upstream_step,
            every, lif, out, sums, boxcar, gradient,
        )  # fmt: skip
        for t in range(STEPS):
            n = 0
            for c in range(0, out, LANES):
                mask = nonzero(gradient, t * out + c)
                list_events(mask, c, active[job * STEPS + t], n)
                list_values(mask, gradient, t * out + c, values[job * STEPS + t], n)
                n += popcount(mask)
            lengths[job * STEPS + t] = n
    down[:] = 0.0
    for y in range(kernel):  # outermost: this row's weights and gradients stay in the cache
        for job in range(count * places):
            b, p = job // places, job % places
            corner = (p // side * stride + y) * side_in + p % side * stride
            for t in range(STEPS):
                i = job * STEPS + t
                _scatter(
                    transposed, active[i], values[i], lengths[i], y * span, span, kernel * span,
                    down, ((b * STEPS + t) * places_in + corner) * into,
                )  # fmt: skip
            start = (first + b) * STEPS * words_in + corner * words
            n = _list_patterns(
                source, start, start + kernel * words, words_in, y * span, rows, patterns
            )
            c = 0
            while c + 4 * LANES <= out:
                pattern_table(gradients[job], c, out, table, 4)
                add_patterns(grad, rows, patterns, n, c, out, table, 4)
                c += 4 * LANES
            while c < out:
                pattern_table(gradients[job], c, out, table, 1)
                add_patterns(grad, rows, patterns, n, c, out, table, 1)
                c += LANES


@njit(cache=True, inline="always")
def _scatter(transposed, active, values, n, column, span, width, down, target):
    """down[target:] += sum over n active channels of value * transposed[channel, column:]."""
    end = column + span
    if span == 10 * LANES:
        add_scaled_rows(transposed, active, values, n, column, width, down, target, 10)
        return
    while column + 8 * LANES <= end:
        add_scaled_rows(transposed, active, values, n, column, width, down, target, 8)
        column += 8 * LANES
        target += 8 * LANES
    while column + 4 * LANES <= end:
        add_scaled_rows(transposed, active, values, n, column, width, down, target, 4)
        column += 4 * LANES
        target += 4 * LANES
    while column < end:
        add_scaled_rows(transposed, active, values, n, column, width, down, target, 1)
        column += LANES
        target += LANES


@njit(cache=True)
def image_backward(
    obs, b, crop, shape, lif, drive, base, upstream, up_base, every, boxcar, grad, sums
):
    """Gradients of the first layer on sample b; upstream [T, P, O] from `up_base` on."""
    side, kernel, stride, out = shape[SIDE], shape[KERNEL], shape[STRIDE], shape[OUT]
    positions, taps = side * side, kernel * kernel
    patch = np.empty(2 * taps + SLACK, np.float32)
    before = np.empty(taps + SLACK, np.float32)
    gradient = np.empty(STEPS * out, np.float32)
    at = np.empty(STEPS, np.int64)
    changes = shape[IN] == 2
    last = base - out
    for p in range(positions):
        corner = (crop + p // side * stride) * FRAME + crop + p % side * stride
        moved = False
        for t in range(STEPS):
            start = (b * STEPS + t) * FRAME * FRAME + corner
            fades = changes and moved
            moved = t > 0 and not _same_patch(obs, start, start - FRAME * FRAME, kernel)
            if t == 0 or moved or fades:
                last += out
            at[t] = last
        _gradient_of_drive(
            drive,
            at,
            upstream,
            up_base + p * out,
            positions * out,
            every,
            lif,
            out,
            sums,
            boxcar,
            gradient,
        )
        for t in range(STEPS - 1, -1, -1):
            if t > 0 and at[t] == at[t - 1]:
                for c in range(0, out, LANES):
                    add_vector(gradient, (t - 1) * out + c, t * out + c)
                continue
            some = np.uint64(0)
            for c in range(0, out, LANES):
                some |= nonzero(gradient, t * out + c)
            if some == 0:
                continue
            start = (b * STEPS + t) * FRAME * FRAME + corner
            _read_patch(obs, start, kernel, patch)
            inputs = taps
            if changes and t > 0 and not _same_patch(obs, start, start - FRAME * FRAME, kernel):
                inputs = _read_change(obs, start, kernel, patch, before)
            c = 0
            while c + 2 * LANES <= out:
                add_outer(patch, inputs, gradient, t * out + c, grad, c, out, 2)
                c += 2 * LANES
            if c < out:
                add_outer(patch, inputs, gradient, t * out + c, grad, c, out, 1)


@njit(cache=True)
def backward(
    obs, batch, crop, shapes, transposed, lifs, spikes, drives, upstream, every, boxcar, grads,
    sums,
):  # fmt: skip
    """Gradients of all layers: grads[i] [K, O] and sums[i] [3, O] are added to.

    upstream [B, P, O]: gradient of the latent; every [layers] f32: of each single spike.
    """
    last = len(shapes) - 1
    widest = 0
    for i in range(last + 1):
        widest = max(widest, shapes[i, SIDE] ** 2 * shapes[i, OUT])
    above = np.empty(SAMPLES * STEPS * widest, np.float32)
    below = np.empty(SAMPLES * STEPS * widest, np.float32)
    for first in range(0, batch, SAMPLES):
        count = min(SAMPLES, batch - first)
        for i in range(last, 0, -1):
            width = shapes[i, SIDE] ** 2 * shapes[i, OUT]
            width_in = shapes[i, SIDE_IN] ** 2 * shapes[i, IN]
            given, base, sample, step = above, 0, STEPS * width, width
            if i == last:  # the latent counts spikes: one gradient for all steps
                given, base, sample, step = upstream, first * width, width, 0
            event_backward(
                spikes[i - 1], first, count, shapes[i], transposed[i], lifs[i], drives[i], given,
                base, sample, step, every[i], boxcar, below[: count * STEPS * width_in], grads[i],
                sums[i],
            )  # fmt: skip
            above, below = below, above
        width = STEPS * shapes[0, SIDE] ** 2 * shapes[0, OUT]
        for j in range(count):
            image_backward(
                obs, first + j, crop, shapes[0], lifs[0], drives[0], (first + j) * width, above,
                j * width, every[0], boxcar, grads[0], sums[0],
            )  # fmt: skip
