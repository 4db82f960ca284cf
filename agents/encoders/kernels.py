"""Event-driven LIF convolutions on the CPU: work in proportion to spikes and to change.

    B batch, T steps, P positions of a layer (row by row), C channels in, O channels out, K inputs
    of one neuron (kernel^2 * C). Arrays are flat; [..] gives the order of their elements.

First layer: a patch whose pixels are those of the step before has the same drive, so it is not
computed again (nine patches of ten in Atari). Later layers: a spike adds one row of weights.
Backward: the surrogate has compact support, so most gradients are exactly zero and skipped; a
spike adds one gradient row; patches that did not change share one outer product.

Sums run in a fixed order on one thread: the same inputs give the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from agents.encoders.vector import (
    add_outer,
    add_patterns,
    add_scaled_rows,
    lif_backward,
    lif_forward,
    list_events,
    list_patterns,
    list_values,
    load_u64,
    nonzero,
    patch_product,
    popcount,
    read_row,
    sum_rows,
)

LANES = 16
FRAME = 84
SAMPLES = 8  # samples whose weight gradients are added together, while weights are in the cache
SLACK = 16  # entries that a list may overwrite behind its end

# `steps` is 4 wherever spikes are listed by pattern: one bit a step.
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
def _fire(steps, drive, at, leak, threshold, shape, b, p, spikes, trace, trace_base, keep):
    """All LIF steps of the channels at position p; drive of step t from at[t] on.

    Returns the number of spikes.
    """
    positions, out = shape[SIDE] * shape[SIDE], shape[OUT]
    words, stride = positions * (out // LANES), positions * out
    count = 0
    for c in range(0, out, LANES):
        word = b * steps * words + (p * out + c) // LANES
        if keep:
            count += lif_forward(
                steps, drive, at, leak, threshold, c, spikes, word, words, trace,
                trace_base + p * out + c, stride, 1,
            )  # fmt: skip
        else:
            count += lif_forward(
                steps, drive, at, leak, threshold, c, spikes, word, words, trace, 0, 0, 0
            )
    return count


@njit(cache=True)
def image_forward(
    obs, b, steps, crop, shape, weight, bias, leak, threshold, spikes, trace, trace_base, keep
):
    """First layer on sample b of obs [B, T, 84, 84]; returns its number of spikes.

    weight [K, O]; spikes [B, T, P, O/16] u16; trace [T, P, O] from trace_base on (with keep).
    """
    side, kernel, stride, out = shape[SIDE], shape[KERNEL], shape[STRIDE], shape[OUT]
    taps = kernel * kernel
    patch = np.empty(taps + 8, np.float32)
    drive = np.empty(steps * out, np.float32)
    at = np.zeros(steps, np.int64)
    count = 0
    for p in range(side * side):
        corner = (crop + p // side * stride) * FRAME + crop + p % side * stride
        for t in range(steps):
            start = (b * steps + t) * FRAME * FRAME + corner
            if t > 0 and _same_patch(obs, start, start - FRAME * FRAME, kernel):
                at[t] = at[t - 1]
                continue
            at[t] = t * out
            _read_patch(obs, start, kernel, patch)
            c = 0
            while c + 2 * LANES <= out:
                patch_product(patch, taps, weight, c, out, bias, drive, t * out + c, 2)
                c += 2 * LANES
            if c < out:
                patch_product(patch, taps, weight, c, out, bias, drive, t * out + c, 1)
        count += _fire(
            steps, drive, at, leak, threshold, shape, b, p, spikes, trace, trace_base, keep
        )
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
def event_forward(
    source, b, steps, shape, weight, bias, leak, threshold, spikes, trace, trace_base, keep
):
    """A layer that reads spikes, on sample b; returns its number of spikes.

    source [B, T, side_in^2, C/16] u16; weight [K, O]; the rest as in `image_forward`.
    """
    side, side_in, out = shape[SIDE], shape[SIDE_IN], shape[OUT]
    words_in = side_in * side_in * (shape[IN] // LANES)
    rows = np.empty(shape[KERNEL] * shape[KERNEL] * shape[IN] + SLACK, np.int32)
    drive = np.empty(steps * out, np.float32)
    at = np.arange(steps) * out
    count = 0
    for p in range(side * side):
        for t in range(steps):
            n = _list_inputs(source, (b * steps + t) * words_in, shape, p, rows)
            c = 0
            while c + 4 * LANES <= out:
                sum_rows(weight, rows, n, c, out, bias, drive, t * out + c, 4)
                c += 4 * LANES
            while c < out:
                sum_rows(weight, rows, n, c, out, bias, drive, t * out + c, 1)
                c += LANES
        count += _fire(
            steps, drive, at, leak, threshold, shape, b, p, spikes, trace, trace_base, keep
        )
    return count


@njit(cache=True)
def count_spikes(spikes, b, steps, shape, latent):
    """latent [B, P, O] of sample b: spikes over the steps."""
    width = shape[SIDE] * shape[SIDE] * shape[OUT]
    words = width // LANES
    for j in range(words):
        for lane in range(LANES):
            n = 0
            for t in range(steps):
                n += (spikes[(b * steps + t) * words + j] >> lane) & 1
            latent[b * width + j * LANES + lane] = n


@njit(cache=True)
def forward(
    obs, batch, steps, crop, shapes, weights, biases, leaks, thresholds,
    spikes, traces, counts, latent, keep,
):  # fmt: skip
    """All layers on all samples. Tuples of flat arrays, one a layer; counts [layers] int64."""
    last = len(shapes) - 1
    for b in range(batch):
        for i in range(last + 1):
            base = 0
            if keep:
                base = b * steps * shapes[i, SIDE] ** 2 * shapes[i, OUT]
            if i == 0:
                counts[i] += image_forward(
                    obs, b, steps, crop, shapes[i], weights[i], biases[i], leaks[i],
                    thresholds[i], spikes[i], traces[i], base, keep,
                )  # fmt: skip
            else:
                counts[i] += event_forward(
                    spikes[i - 1], b, steps, shapes[i], weights[i], biases[i], leaks[i],
                    thresholds[i], spikes[i], traces[i], base, keep,
                )  # fmt: skip
        count_spikes(spikes[last], b, steps, shapes[last], latent)


@njit(cache=True, inline="always")
def _gradient_of_drive(
    steps, trace, trace_at, stride, upstream, up_at, up_stride, every, lif, out, sums, boxcar,
    gradient,
):  # fmt: skip
    """All LIF steps of a position backwards: gradient [T, O] of its drive."""
    leak, threshold, slope, span = lif
    for c in range(0, out, LANES):
        if boxcar:
            lif_backward(
                steps, trace, trace_at + c, stride, upstream, up_at + c, up_stride, every, leak,
                threshold, slope, span, c, sums, out, gradient, 1,
            )  # fmt: skip
        else:
            lif_backward(
                steps, trace, trace_at + c, stride, upstream, up_at + c, up_stride, every, leak,
                threshold, slope, span, c, sums, out, gradient, 0,
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


@njit(cache=True, inline="always")
def _sum_patterns(gradient, out, column, width, table):
    """table[m] = sum of gradient[t] over the set bits t of m; columns `column` to + width."""
    for m in range(1, 16):
        low = 0
        while not (m >> low) & 1:
            low += 1
        rest = m & (m - 1)
        for c in range(width):
            value = gradient[low * out + column + c]
            table[m * width + c] = value if rest == 0 else table[rest * width + c] + value


@njit(cache=True)
def event_backward(
    steps, shape, transposed, lif, trace, trace_base, upstream, upstream_base, upstream_stride,
    every, boxcar, down, gradients, sums,
):  # fmt: skip
    """One event layer back on one sample, but for the gradient of its weights.

    upstream [P, O] from upstream_base + t * upstream_stride on, plus `every` on each spike;
    transposed [O, K]; lif = (leak, threshold, slope, span), each [O]; down [T, side_in^2, C] is
    filled with the gradient of the spikes before, gradients [P, T, O] with that of the drive;
    sums [3, O] is added to.
    """
    side, side_in, kernel, stride = shape[SIDE], shape[SIDE_IN], shape[KERNEL], shape[STRIDE]
    into, out = shape[IN], shape[OUT]
    positions, inputs = side * side, kernel * kernel * into
    active = np.empty((steps * positions, out + SLACK), np.int32)
    values = np.empty((steps * positions, out + SLACK), np.float32)
    lengths = np.empty(steps * positions, np.int64)
    for p in range(positions):
        gradient = gradients[p * steps * out : (p + 1) * steps * out]
        _gradient_of_drive(
            steps, trace, trace_base + p * out, positions * out, upstream, upstream_base + p * out,
            upstream_stride, every, lif, out, sums, boxcar, gradient,
        )  # fmt: skip
        for t in range(steps):
            n = 0
            for c in range(0, out, LANES):
                mask = nonzero(gradient, t * out + c)
                list_events(mask, c, active[t * positions + p], n)
                list_values(mask, gradient, t * out + c, values[t * positions + p], n)
                n += popcount(mask)
            lengths[t * positions + p] = n
    down[:] = 0.0
    span = kernel * into  # one row of a receptive field: contiguous in `down` and in the weights
    for y in range(kernel):  # outermost, so that this slice of the weights stays in the cache
        for at in range(steps * positions):
            n = lengths[at]
            if n == 0:
                continue
            t, p = at // positions, at % positions
            corner = (p // side * stride + y) * side_in + p % side * stride
            target = (t * side_in * side_in + corner) * into
            column = y * span
            end = column + span
            while column + 10 * LANES == end:
                add_scaled_rows(
                    transposed, active[at], values[at], n, column, inputs, down, target, 10
                )
                column = end
            while column + 8 * LANES <= end:
                add_scaled_rows(
                    transposed, active[at], values[at], n, column, inputs, down, target, 8
                )
                column += 8 * LANES
                target += 8 * LANES
            while column + 4 * LANES <= end:
                add_scaled_rows(
                    transposed, active[at], values[at], n, column, inputs, down, target, 4
                )
                column += 4 * LANES
                target += 4 * LANES
            while column < end:
                add_scaled_rows(
                    transposed, active[at], values[at], n, column, inputs, down, target, 1
                )
                column += LANES
                target += LANES


@njit(cache=True)
def event_weights_backward(source, first, count, steps, shape, gradients, grad):
    """grad [K, O] += outer products of spikes and gradients of the drive, samples first to + count.

    gradients [count, P, T, O]. One row of the kernel at a time: its rows of `grad` stay in the
    cache while all positions of these samples add to them.
    """
    side, side_in, kernel, stride = shape[SIDE], shape[SIDE_IN], shape[KERNEL], shape[STRIDE]
    out, words = shape[OUT], shape[IN] // LANES
    positions, step = side * side, side_in * side_in * words
    rows = np.empty(kernel * shape[IN] + SLACK, np.int32)
    patterns = np.empty(kernel * shape[IN] + SLACK, np.int32)
    block = 4 * LANES
    table = np.zeros(16 * block, np.float32)
    for y in range(kernel):
        for at in range(count * positions):
            b, p = first + at // positions, at % positions
            corner = (p // side * stride + y) * side_in + p % side * stride
            start = b * steps * step + corner * words
            n = _list_patterns(
                source, start, start + kernel * words, step, y * kernel * shape[IN], rows, patterns
            )
            gradient = gradients[at * steps * out : (at + 1) * steps * out]
            c = 0
            while c + block <= out:
                _sum_patterns(gradient, out, c, block, table)
                add_patterns(grad, rows, patterns, n, c, out, table, 4)
                c += block
            while c < out:
                _sum_patterns(gradient, out, c, LANES, table)
                add_patterns(grad, rows, patterns, n, c, out, table, 1)
                c += LANES


@njit(cache=True)
def image_backward(
    obs, b, steps, crop, shape, lif, trace, trace_base, upstream, every, boxcar, grad, sums
):
    """Gradients of the first layer on sample b; upstream [T, P, O] of this sample."""
    side, kernel, stride, out = shape[SIDE], shape[KERNEL], shape[STRIDE], shape[OUT]
    positions, taps = side * side, kernel * kernel
    patch = np.empty(taps + 8, np.float32)
    gradient = np.empty(steps * out, np.float32)
    for p in range(positions):
        corner = (crop + p // side * stride) * FRAME + crop + p % side * stride
        _gradient_of_drive(
            steps, trace, trace_base + p * out, positions * out, upstream, p * out,
            positions * out, every, lif, out, sums, boxcar, gradient,
        )  # fmt: skip
        for t in range(steps - 1, -1, -1):
            start = (b * steps + t) * FRAME * FRAME + corner
            if t > 0 and _same_patch(obs, start, start - FRAME * FRAME, kernel):
                for c in range(out):
                    gradient[(t - 1) * out + c] += gradient[t * out + c]
                continue
            some = np.uint64(0)
            for c in range(0, out, LANES):
                some |= nonzero(gradient, t * out + c)
            if some == 0:
                continue
            _read_patch(obs, start, kernel, patch)
            c = 0
            while c + 2 * LANES <= out:
                add_outer(patch, taps, gradient, t * out + c, grad, c, out, 2)
                c += 2 * LANES
            if c < out:
                add_outer(patch, taps, gradient, t * out + c, grad, c, out, 1)


@njit(cache=True)
def backward(
    obs, batch, steps, crop, shapes, transposed, lifs, spikes, traces, upstream, every, boxcar,
    grads, sums,
):  # fmt: skip
    """Gradients of all layers: grads[i] [K, O] and sums[i] [3, O] are added to.

    upstream [B, P, O]: gradient of the latent; every [layers] f32: of each single spike.
    """
    last = len(shapes) - 1
    widest = 0
    for i in range(last + 1):
        widest = max(widest, shapes[i, SIDE] ** 2 * shapes[i, OUT])
    above = np.empty(steps * widest, np.float32)
    below = np.empty(steps * widest, np.float32)
    gradients = np.empty((last + 1, SAMPLES * steps * widest), np.float32)
    for b in range(batch):
        for i in range(last, 0, -1):
            width = shapes[i, SIDE] ** 2 * shapes[i, OUT]
            width_in = shapes[i, SIDE_IN] ** 2 * shapes[i, IN]
            slot = b % SAMPLES * steps * width
            source, source_base, source_stride = above, 0, width
            if i == last:
                source, source_base, source_stride = upstream, b * width, 0
            event_backward(
                steps, shapes[i], transposed[i], lifs[i], traces[i], b * steps * width, source,
                source_base, source_stride, every[i], boxcar, below[: steps * width_in],
                gradients[i, slot : slot + steps * width], sums[i],
            )  # fmt: skip
            above, below = below, above
            if b % SAMPLES == SAMPLES - 1 or b == batch - 1:
                count = b % SAMPLES + 1
                event_weights_backward(
                    spikes[i - 1], b + 1 - count, count, steps, shapes[i], gradients[i], grads[i]
                )
        image_backward(
            obs, b, steps, crop, shapes[0], lifs[0], traces[0],
            b * steps * shapes[0, SIDE] ** 2 * shapes[0, OUT], above, every[0], boxcar,
            grads[0], sums[0],
        )  # fmt: skip
