"""Event-driven LIF convolutions on the CPU: work in proportion to spikes and to change.

    B batch, T steps, P positions of a layer (row by row), C channels in, O channels out, K inputs
    of one neuron (kernel^2 * C). Arrays are flat; [..] gives the order of their elements.

First layer: a patch whose pixels are those of the step before has the same drive, so it is not
computed again (nine patches of ten in Atari); a patch that changed reads its change as well, where
the encoder sees changes. Later layers: a spike adds one row of weights.
Backward: the surrogate has compact support, so most gradients are exactly zero and skipped; a
spike adds one gradient row; patches that did not change share one outer product.

Graded spikes (`sizes` below; an empty array where they are not) differ in four places: what a spike
leaves, its weight row times its size, its share in a gradient, and the latent, which sums sizes.

Sums run in a fixed order on one thread: the same inputs give the same bits.
"""

from __future__ import annotations

# vector*.py 349beef74739 (a change there must reach numba's cache of this file; a test checks)
import numpy as np
from numba import njit

from agents.encoders.vector import (
    LANES,
    STEPS,
    add_outer,
    add_patterns,
    add_scaled_rows,
    add_steps,
    add_vector,
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
from agents.encoders.vector_lif import (
    lif_backward,
    lif_backward_graded,
    lif_forward,
    lif_forward_graded,
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
def _fire(drive, at, lif, shape, b, p, spikes, sizes, sized):
    """All steps of the neurons at position p, drive of step t from at[t] on; returns the spikes.

    lif = (leak, threshold, gain), each [O]; the sizes of this sample's spikes begin at `sized`.
    """
    leak, threshold, gain = lif
    out = shape[OUT]
    width = shape[SIDE] * shape[SIDE] * out
    words = width // LANES
    count = 0
    for c in range(0, out, LANES):
        word = b * STEPS * words + (p * out + c) // LANES
        if len(sizes):
            count += lif_forward_graded(
                drive, at, leak, threshold, c, spikes, word, words, gain, sizes,
                sized + p * out + c, width,
            )  # fmt: skip
        else:
            count += lif_forward(drive, at, leak, threshold, c, spikes, word, words)
    return count


@njit(cache=True)
def image_forward(obs, b, crop, shape, weight, bias, lif, spikes, sizes, drive, base):
    """First layer on sample b of obs [B, T, 84, 84]; returns its number of spikes.

    weight [K, O], K pixels and, with two input channels, as many changes behind them; spikes
    [B, T, P, O/16] u16; drive [patches that changed, O] and sizes [T, P, O] from `base` on.
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
        count += _fire(drive, at, lif, shape, b, p, spikes, sizes, base)
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


@njit(cache=True, inline="always")
def _list_sizes(spikes, first, sizes, start, shape, p, packed):
    """The sizes of the spikes that `_list_inputs` lists; sizes [side_in, side_in, C] of one step,
    from `start` on."""
    kernel, channels = shape[KERNEL], shape[IN]
    side_in, side, stride = shape[SIDE_IN], shape[SIDE], shape[STRIDE]
    corner = p // side * stride * side_in + p % side * stride
    n = 0
    for y in range(kernel):
        place = (corner + y * side_in) * channels
        for at in range(place, place + kernel * channels, LANES):
            mask = np.uint64(spikes[first + at // LANES])
            list_values(mask, sizes, start + at, packed, n)
            n += popcount(mask)


@njit(cache=True)
def event_forward(
    source, source_sizes, source_base, b, shape, weight, bias, lif, spikes, sizes, drive, base
):  # fmt: skip
    """A layer that reads spikes, on sample b; returns its number of spikes.

    source [B, T, side_in^2, C/16] u16; weight [K, O]; spikes as above; drive [P, T, O] and sizes
    [T, P, O] from `base`, source_sizes [T, side_in^2, C] from `source_base`.
    """
    side, side_in, out = shape[SIDE], shape[SIDE_IN], shape[OUT]
    places_in = side_in * side_in
    words_in = places_in * (shape[IN] // LANES)
    room = shape[KERNEL] * shape[KERNEL] * shape[IN] + SLACK
    rows = np.empty(room, np.int32)
    scales = np.empty(room if len(sizes) else 1, np.float32)
    at = np.empty(STEPS, np.int64)
    count = 0
    for p in range(side * side):
        for t in range(STEPS):
            first = (b * STEPS + t) * words_in
            n = _list_inputs(source, first, shape, p, rows)
            at[t] = base + (p * STEPS + t) * out
            c = 0
            if len(sizes):
                start = source_base + t * places_in * shape[IN]
                _list_sizes(source, first, source_sizes, start, shape, p, scales)
                for c in range(out):
                    drive[at[t] + c] = bias[c]
                _scatter(weight, rows, scales, n, 0, out, out, drive, at[t])
                continue
            while c + 4 * LANES <= out:
                sum_rows(weight, rows, n, c, out, bias, drive, at[t] + c, 4)
                c += 4 * LANES
            while c < out:
                sum_rows(weight, rows, n, c, out, bias, drive, at[t] + c, 1)
                c += LANES
        count += _fire(drive, at, lif, shape, b, p, spikes, sizes, base)
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
def sum_sizes(sizes, base, b, shape, latent):
    """latent [B, P, O] of sample b: sizes [T, P, O], from `base` on, over the steps."""
    width = shape[SIDE] * shape[SIDE] * shape[OUT]
    for j in range(width):
        total = sizes[base + j]
        for t in range(1, STEPS):
            total += sizes[base + t * width + j]
        latent[b * width + j] = total


@njit(cache=True)
def forward(
    obs, batch, crop, shapes, weights, biases, lifs, spikes, sizes, drives, counts, latent, keep
):  # fmt: skip
    """All layers on all samples. Tuples of flat arrays, one a layer; counts [layers] int64.

    lifs: (leak, threshold, gain) each. drives [B, T, P, O] each and sizes, where spikes are graded,
    when they are kept for `backward`, else room for one sample.
    """
    last = len(shapes) - 1
    for b in range(batch):
        below = 0
        for i in range(last + 1):
            base = 0
            if keep:
                base = b * STEPS * shapes[i, SIDE] ** 2 * shapes[i, OUT]
            if i == 0:
                counts[i] += image_forward(
                    obs, b, crop, shapes[i], weights[i], biases[i], lifs[i], spikes[i], sizes[i],
                    drives[i], base,
                )  # fmt: skip
            else:
                counts[i] += event_forward(
                    spikes[i - 1], sizes[i - 1], below, b, shapes[i], weights[i], biases[i],
                    lifs[i], spikes[i], sizes[i], drives[i], base,
                )  # fmt: skip
            below = base
        if len(sizes[last]):
            sum_sizes(sizes[last], below, b, shapes[last], latent)
        else:
            count_spikes(spikes[last], b, shapes[last], latent)


@njit(cache=True, inline="always")
def _gradient_of_drive(
    drive, at, upstream, up_at, up_stride, every, lif, out, sums, boxcar, graded, gradient
):
    """All LIF steps of a position backwards: gradient [T, O] of its drive."""
    leak, threshold, slope, span, gain = lif
    for c in range(0, out, LANES):
        if graded and boxcar:
            lif_backward_graded(
                drive, at, upstream, up_at + c, up_stride, every, leak, threshold, slope, span,
                gain, c, sums, out, gradient, c, out, 1,
            )  # fmt: skip
        elif graded:
            lif_backward_graded(
                drive, at, upstream, up_at + c, up_stride, every, leak, threshold, slope, span,
                gain, c, sums, out, gradient, c, out, 0,
            )  # fmt: skip
        elif boxcar:
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


@njit(cache=True, inline="always")
def _list_steps(spikes, start, end, step, sizes, place, size_step, row, rows, scales, room):
    """As `_list_patterns`, with the four sizes of each channel: scales [T, room].

    The sizes of spikes[start] begin at `place`, those of each step `size_step` later.
    """
    n = 0
    for j in range(start, end):
        mask = np.uint64(spikes[j] | spikes[j + step] | spikes[j + 2 * step] | spikes[j + 3 * step])
        list_events(mask, row, rows, n)
        for t in range(STEPS):
            list_values(mask, sizes, place + t * size_step, scales, t * room + n)
        n += popcount(mask)
        row += LANES
        place += LANES
    return n


@njit(cache=True)
def event_backward(
    source, source_sizes, first, count, shape, transposed, lif, drive, upstream, upstream_base,
    upstream_sample, upstream_step, every, boxcar, down, grad, sums,
):  # fmt: skip
    """Gradients of one event layer on `count` samples from `first` on.

    upstream: gradient of the spikes (graded: of their sizes), [P, O] from upstream_base + sample *
    upstream_sample + t * upstream_step on, and `every` of their number on top; source_sizes [B, T,
    side_in^2, C]; transposed [O, K]; lif = (leak, threshold, slope, span, gain), each [O]; down
    [count, T, side_in^2, C] is filled with the gradient of the spikes before; grad [K, O] and sums
    [3, O] are added to.
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
    graded = len(source_sizes) > 0
    room = span + SLACK
    rows = np.empty(room, np.int32)
    patterns = np.empty(room, np.int32)
    scales = np.empty(STEPS * room if graded else 1, np.float32)
    table = np.empty(16 * 4 * LANES, np.float32)
    at = np.empty(STEPS, np.int64)
    for job in range(count * places):
        b, p = job // places, job % places
        gradient = gradients[job]
        for t in range(STEPS):
            at[t] = ((first + b) * places + p) * STEPS * out + t * out
        _gradient_of_drive(
            drive, at, upstream, upstream_base + b * upstream_sample + p * out, upstream_step,
            every, lif, out, sums, boxcar, graded, gradient,
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
            if graded:
                n = _list_steps(
                    source, start, start + kernel * words, words_in, source_sizes, start * LANES,
                    words_in * LANES, y * span, rows, scales, room,
                )  # fmt: skip
                c = 0
                while c + 4 * LANES <= out:
                    add_steps(grad, rows, scales, room, n, gradients[job], c, out, 4)
                    c += 4 * LANES
                while c < out:
                    add_steps(grad, rows, scales, room, n, gradients[job], c, out, 1)
                    c += LANES
                continue
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


@njit(cache=True)
def image_backward(
    obs, b, crop, shape, lif, drive, base, upstream, up_base, every, boxcar, graded, grad, sums
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
            graded,
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
    obs, batch, crop, shapes, transposed, lifs, spikes, sizes, drives, upstream, every, boxcar,
    grads, sums,
):  # fmt: skip
    """Gradients of all layers: grads[i] [K, O] and sums[i] [3, O] are added to.

    upstream [B, P, O]: gradient of the latent; every [layers] f32: of each single spike.
    """
    last = len(shapes) - 1
    graded = len(sizes[last]) > 0
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
            if i == last:  # the latent is a sum over the steps: one gradient for all
                given, base, sample, step = upstream, first * width, width, 0
            event_backward(
                spikes[i - 1], sizes[i - 1], first, count, shapes[i], transposed[i], lifs[i],
                drives[i], given, base, sample, step, every[i], boxcar,
                below[: count * STEPS * width_in], grads[i], sums[i],
            )  # fmt: skip
            above, below = below, above
        width = STEPS * shapes[0, SIDE] ** 2 * shapes[0, OUT]
        for j in range(count):
            image_backward(
                obs, first + j, crop, shapes[0], lifs[0], drives[0], (first + j) * width, above,
                j * width, every[0], boxcar, graded, grads[0], sums[0],
            )  # fmt: skip
