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
    add_scaled_rows,
    add_to_rows,
    lif_step,
    lif_step_backward,
    list_events,
    list_values,
    load_u64,
    patch_product,
    popcount,
    sum_rows,
)

LANES = 16
FRAME = 84
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
    for y in range(kernel):
        for x in range(kernel):
            patch[y * kernel + x] = np.float32(obs[start + y * FRAME + x])


@njit(cache=True, inline="always")
def _fire(drive, membrane, leak, threshold, out, spikes, spikes_at, trace, trace_at, keep):
    """One LIF step of all `out` channels at a position; returns the number of spikes."""
    count = 0
    for c in range(0, out, LANES):
        if keep:
            s = lif_step(drive, c, membrane, leak, threshold, c, trace, trace_at + c, 1)
        else:
            s = lif_step(drive, c, membrane, leak, threshold, c, trace, 0, 0)
        spikes[spikes_at + c // LANES] = s
        count += popcount(s)
    return count


@njit(cache=True)
def image_forward(
    obs, b, steps, crop, shape, weight, bias, leak, threshold, spikes, trace, trace_base, keep
):
    """First layer on sample b of obs [B, T, 84, 84]; returns its number of spikes.

    weight [K, O]; spikes [B, T, P, O/16] u16; trace [T, P, O] from trace_base on (with keep).
    """
    side, kernel, stride, out = shape[SIDE], shape[KERNEL], shape[STRIDE], shape[OUT]
    positions, words, taps = side * side, out // LANES, kernel * kernel
    patch = np.empty(taps, np.float32)
    drive = np.empty(out, np.float32)
    membrane = np.empty(out, np.float32)
    count = 0
    for p in range(positions):
        corner = (crop + p // side * stride) * FRAME + crop + p % side * stride
        membrane[:] = 0.0
        for t in range(steps):
            start = (b * steps + t) * FRAME * FRAME + corner
            if t == 0 or not _same_patch(obs, start, start - FRAME * FRAME, kernel):
                _read_patch(obs, start, kernel, patch)
                c = 0
                while c + 2 * LANES <= out:
                    patch_product(patch, taps, weight, c, out, bias, drive, c, 2)
                    c += 2 * LANES
                if c < out:
                    patch_product(patch, taps, weight, c, out, bias, drive, c, 1)
            at = t * positions + p
            count += _fire(
                drive, membrane, leak, threshold, out, spikes,
                (b * steps * positions + at) * words, trace, trace_base + at * out, keep,
            )  # fmt: skip
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
    positions, words = side * side, out // LANES
    words_in = side_in * side_in * (shape[IN] // LANES)
    rows = np.empty(shape[KERNEL] * shape[KERNEL] * shape[IN] + SLACK, np.int32)
    drive = np.empty(out, np.float32)
    membrane = np.empty(out, np.float32)
    count = 0
    for p in range(positions):
        membrane[:] = 0.0
        for t in range(steps):
            n = _list_inputs(source, (b * steps + t) * words_in, shape, p, rows)
            c = 0
            while c + 4 * LANES <= out:
                sum_rows(weight, rows, n, c, out, bias, drive, c, 4)
                c += 4 * LANES
            while c < out:
                sum_rows(weight, rows, n, c, out, bias, drive, c, 1)
                c += LANES
            at = t * positions + p
            count += _fire(
                drive, membrane, leak, threshold, out, spikes,
                (b * steps * positions + at) * words, trace, trace_base + at * out, keep,
            )  # fmt: skip
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
    trace, trace_at, upstream, at, every, carry, lif, out, sums, boxcar, rows, values
):
    """One LIF step back at a position; lists the non-zero gradients, returns their number."""
    n = 0
    leak, threshold, slope, span = lif
    for c in range(0, out, LANES):
        if boxcar:
            mask = lif_step_backward(
                trace, trace_at + c, upstream, at + c, every, carry, leak, threshold, slope,
                span, c, sums, out, 1,
            )  # fmt: skip
        else:
            mask = lif_step_backward(
                trace, trace_at + c, upstream, at + c, every, carry, leak, threshold, slope,
                span, c, sums, out, 0,
            )  # fmt: skip
        list_events(mask, c, rows, n)
        list_values(mask, carry, c, values, n)
        n += popcount(mask)
    return n


@njit(cache=True)
def event_backward(
    source, b, steps, shape, transposed, lif, trace, trace_base, upstream, upstream_base,
    upstream_stride, every, boxcar, down, grad, sums,
):  # fmt: skip
    """Gradients of one event layer on sample b.

    upstream [P, O] from upstream_base + t * upstream_stride on, plus `every` on each spike;
    transposed [O, K]; lif = (leak, threshold, slope, span), each [O]; down [T, side_in^2, C] is
    filled with the gradient of the spikes before; grad [K, O] and sums [3, O] are added to.
    """
    side, side_in, kernel, stride = shape[SIDE], shape[SIDE_IN], shape[KERNEL], shape[STRIDE]
    into, out = shape[IN], shape[OUT]
    positions, inputs = side * side, kernel * kernel * into
    words_in = side_in * side_in * (into // LANES)
    events = np.empty(inputs + SLACK, np.int32)
    active = np.empty((steps * positions, out + SLACK), np.int32)
    values = np.empty((steps * positions, out + SLACK), np.float32)
    lengths = np.empty(steps * positions, np.int64)
    carry = np.empty(out, np.float32)
    for p in range(positions):
        carry[:] = 0.0
        for t in range(steps - 1, -1, -1):
            at = t * positions + p
            n = _gradient_of_drive(
                trace, trace_base + at * out, upstream,
                upstream_base + t * upstream_stride + p * out, every, carry, lif, out, sums,
                boxcar, active[at], values[at],
            )  # fmt: skip
            lengths[at] = n
            if n == 0:
                continue
            m = _list_inputs(source, (b * steps + t) * words_in, shape, p, events)
            c = 0
            while c + 4 * LANES <= out:
                add_to_rows(grad, events, m, c, out, carry, c, 4)
                c += 4 * LANES
            while c < out:
                add_to_rows(grad, events, m, c, out, carry, c, 1)
                c += LANES
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
            while column + 8 * LANES <= end:
                add_scaled_rows(
                    transposed, active[at], values[at], n, column, inputs, down, target, 8
                )
                column += 8 * LANES
                target += 8 * LANES
            while column < end:
                add_scaled_rows(
                    transposed, active[at], values[at], n, column, inputs, down, target, 1
                )
                column += LANES
                target += LANES


@njit(cache=True)
def image_backward(
    obs, b, steps, crop, shape, lif, trace, trace_base, upstream, every, boxcar, grad, sums
):
    """Gradients of the first layer on sample b; upstream [T, P, O] of this sample."""
    side, kernel, stride, out = shape[SIDE], shape[KERNEL], shape[STRIDE], shape[OUT]
    positions, taps = side * side, kernel * kernel
    patch = np.empty(taps, np.float32)
    rows = np.empty(out + SLACK, np.int32)
    values = np.empty(out + SLACK, np.float32)
    carry = np.empty(out, np.float32)
    total = np.empty(out, np.float32)
    for p in range(positions):
        corner = (crop + p // side * stride) * FRAME + crop + p % side * stride
        carry[:] = 0.0
        total[:] = 0.0
        found = 0
        for t in range(steps - 1, -1, -1):
            start = (b * steps + t) * FRAME * FRAME + corner
            at = t * positions + p
            found += _gradient_of_drive(
                trace, trace_base + at * out, upstream, at * out, every, carry, lif, out, sums,
                boxcar, rows, values,
            )  # fmt: skip
            for c in range(out):
                total[c] += carry[c]
            if t > 0 and _same_patch(obs, start, start - FRAME * FRAME, kernel):
                continue
            if found == 0:
                continue
            _read_patch(obs, start, kernel, patch)
            c = 0
            while c + 2 * LANES <= out:
                add_outer(patch, taps, total, c, grad, c, out, 2)
                c += 2 * LANES
            if c < out:
                add_outer(patch, taps, total, c, grad, c, out, 1)
            total[:] = 0.0
            found = 0


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
    for i in range(last):
        widest = max(widest, shapes[i, SIDE] ** 2 * shapes[i, OUT])
    above = np.empty(steps * widest, np.float32)
    below = np.empty(steps * widest, np.float32)
    for b in range(batch):
        for i in range(last, 0, -1):
            width = shapes[i, SIDE] ** 2 * shapes[i, OUT]
            width_in = shapes[i, SIDE_IN] ** 2 * shapes[i, IN]
            base = b * steps * width
            if i == last:
                event_backward(
                    spikes[i - 1], b, steps, shapes[i], transposed[i], lifs[i], traces[i], base,
                    upstream, b * width, 0, every[i], boxcar, below[: steps * width_in],
                    grads[i], sums[i],
                )  # fmt: skip
            else:
                event_backward(
                    spikes[i - 1], b, steps, shapes[i], transposed[i], lifs[i], traces[i], base,
                    above, 0, width, every[i], boxcar, below[: steps * width_in], grads[i],
                    sums[i],
                )  # fmt: skip
            above, below = below, above
        image_backward(
            obs, b, steps, crop, shapes[0], lifs[0], traces[0],
            b * steps * shapes[0, SIDE] ** 2 * shapes[0, OUT], above, every[0], boxcar,
            grads[0], sums[0],
        )  # fmt: skip
