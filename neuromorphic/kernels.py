"""The event kernels: numba, one thread, integers only, so no order of work changes a result.

How the work stays in proportion to what happens:

- A spike adds one contiguous row of int8 weights per output position it reaches. The rows of one
  position are collected first, so that four of them share a pass over the accumulators.
- Frames enter as differences from the frame before. Integer drive is linear and exact, so
  drive_t = drive_(t-1) + W (x_t - x_(t-1)) has the same bits as W x_t: the chip's event counts are
  taken from x_t itself, only this simulation saves the work. Between decisions the last image
  stays, unless fewer pixels differ from black than from it.
- Graded spikes list what they carry beside their indices; a position multiplies each row by it.
- A position that no event has reached follows the resting trajectory (bias and leak alone), known
  when the program was made; it costs nothing. Once reached it is swept every step, in SIMD.

Slices are taken before inner loops: numba then emits vector code.
"""

import numpy as np
from numba import int32, njit

from .borrow import borrow
from .program import (
    BLOCK,
    CHANNELS,
    DROP,
    IN_CHANNELS,
    MAIL,
    MAY_WRAP,
    NEURONS,
    PAIRS,
    PARAMS,
    PLACES,
    POSITIONS,
    RESTING,
    ROWS,
    SHIFT,
    WEIGHTS,
)
from .quantise import PAYLOAD_MAX

# columns of the statistics
(
    INPUT_EVENTS,  # events that entered: at the first layer those of the frame, one for each core
    # that reads the value; else spikes
    SYNAPTIC_OPS,  # events times the synapses that each drives
    DRIVEN_UPDATES,  # neuron steps with at least one event
    IDLE_UPDATES,  # neuron steps without
    SPIKES,
    WRAPS,  # currents that passed 24 bits
    SATURATIONS,  # membranes that were clipped
) = range(7)
STATISTICS = 7

NARROW_ROWS = 256  # 256 weights of at most 127 stay within 16 bits
_EDGE = 1 << 23
_MASK = (1 << 24) - 1
_V_MAX = (1 << 23) - 1


@njit(cache=True, boundscheck=False)
def add_rows(weights, rows, count, channels, drive, narrow):
    """drive [C] += the weight rows named by rows[:count].

    Summed in `narrow` [C]: int16 for int8 weights, twice as many a vector, for as long as that
    holds them; int32 for weights of two synapses.
    """
    k = 0
    while k < count:
        stop = min(count, k + NARROW_ROWS)
        for j in range(channels):
            narrow[j] = 0
        while k + 4 <= stop:
            i0, i1 = rows[k] * channels, rows[k + 1] * channels
            i2, i3 = rows[k + 2] * channels, rows[k + 3] * channels
            w0, w1 = weights[i0 : i0 + channels], weights[i1 : i1 + channels]
            w2, w3 = weights[i2 : i2 + channels], weights[i3 : i3 + channels]
            for j in range(channels):
                narrow[j] += w0[j] + w1[j] + w2[j] + w3[j]
            k += 4
        while k < stop:
            i0 = rows[k] * channels
            w0 = weights[i0 : i0 + channels]
            for j in range(channels):
                narrow[j] += w0[j]
            k += 1
        for j in range(channels):
            drive[j] += narrow[j]


@njit(cache=True, boundscheck=False)
def add_scaled_rows(weights, rows, values, count, channels, drive):
    """drive [C] += sum_k values[k] * row rows[k]: graded events."""
    k = 0
    while k + 4 <= count:
        i0, i1 = rows[k] * channels, rows[k + 1] * channels
        i2, i3 = rows[k + 2] * channels, rows[k + 3] * channels
        w0, w1 = weights[i0 : i0 + channels], weights[i1 : i1 + channels]
        w2, w3 = weights[i2 : i2 + channels], weights[i3 : i3 + channels]
        x0, x1, x2, x3 = values[k], values[k + 1], values[k + 2], values[k + 3]
        for j in range(channels):
            drive[j] += x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
        k += 4
    while k < count:
        i0 = rows[k] * channels
        w0 = weights[i0 : i0 + channels]
        x0 = values[k]
        for j in range(channels):
            drive[j] += x0 * w0[j]
        k += 1


@njit(cache=True, boundscheck=False)
def deliver(
    spikes, count, in_channels, channels, weights, pair_ptr, pair_out, pair_tap,
    drive, touched, mail, received, narrow,
):  # fmt: skip
    """Expand the active inputs spikes[:count] (ascending) into drive [P, C] and touched [P].

    Events are first sorted into mail [P, rows]: the weight rows that each output position must
    add, received [P] of them (all 0 between calls); then every position is summed in one go.
    Returns the synaptic operations: synapses that carried a spike.
    """
    i = 0
    place = 0
    first = 0
    while i < count:
        if spikes[i] >= first + in_channels:  # mostly the next place: then no division
            place += 1
            first += in_channels
            if spikes[i] >= first + in_channels:
                place = spikes[i] // in_channels
                first = place * in_channels
        stop = i + 1
        while stop < count and spikes[stop] < first + in_channels:
            stop += 1
        for pair in range(pair_ptr[place], pair_ptr[place + 1]):
            out = pair_out[pair]
            shift = pair_tap[pair] - first
            box = mail[out]
            n = received[out]
            for k in range(i, stop):
                box[n] = spikes[k] + shift
                n += 1
            received[out] = n
        i = stop
    delivered = 0
    for out in range(len(received)):
        n = received[out]
        if n > 0:
            touched[out] = 1
            line = drive[out * channels : (out + 1) * channels]
            line[:] = 0
            add_rows(weights, mail[out], n, channels, line, narrow)
            delivered += n
            received[out] = 0
        elif touched[out]:
            touched[out] = 0
            drive[out * channels : (out + 1) * channels] = 0
    return delivered * channels


@njit(cache=True, boundscheck=False)
def deliver_graded(
    spikes, sizes, count, in_channels, channels, weights, pair_ptr, pair_out, pair_tap,
    drive, touched, mail, mail_sizes, received,
):  # fmt: skip
    """`deliver` for spikes that carry sizes[:count]; mail_sizes [P, rows] goes with the mail."""
    for i in range(count):
        place = spikes[i] // in_channels
        channel = spikes[i] - place * in_channels
        for pair in range(pair_ptr[place], pair_ptr[place + 1]):
            out = pair_out[pair]
            n = received[out]
            mail[out, n] = pair_tap[pair] + channel
            mail_sizes[out, n] = sizes[i]
            received[out] = n + 1
    delivered = 0
    for out in range(len(received)):
        n = received[out]
        line = drive[out * channels : (out + 1) * channels]
        if n > 0 or touched[out]:
            line[:] = 0
        touched[out] = n > 0
        add_scaled_rows(weights, mail[out], mail_sizes[out], n, channels, line)
        delivered += n
        received[out] = 0
    return delivered * channels


@njit(cache=True, boundscheck=False, inline="always")
def _wrapping(v, drive, keep, bias, drop, shift):
    """A membrane before its spike, and whether the current passed 24 bits and the membrane was
    clipped."""
    exact = int32((drive >> drop) << shift)
    current = int32(int32(int32(exact + int32(_EDGE)) & int32(_MASK)) - int32(_EDGE))
    free = int32(int32(int32(np.float64(v) * keep) + current) + bias)
    held = int32(min(max(free, int32(-_V_MAX)), int32(_V_MAX)))
    return held, int32(current != exact), int32(free != held)


@njit(cache=True, boundscheck=False)
def update_graded(v, drive, keep, bias, threshold, payload_shift, drop, shift, fired):
    """One LIF step of neurons with graded spikes; fired becomes what they carry, 0 for none.
    Returns (wraps, saturations)."""
    wraps = int32(0)
    clips = int32(0)
    for j in range(len(v)):
        held, wrapped, clipped = _wrapping(v[j], drive[j], keep[j], bias[j], drop, shift)
        wraps = int32(wraps + wrapped)
        clips = int32(clips + clipped)
        above = int32(max(int32(held - threshold[j]), int32(0)))
        half = int32(int32(1) << int32(payload_shift[j] - 1))
        fired[j] = min(int32(int32(above + half) >> payload_shift[j]), int32(PAYLOAD_MAX))
        v[j] = int32(held - above)
    return wraps, clips


@njit(cache=True, boundscheck=False)
def update_first(v, drive, bias, threshold, drop, shift, fired):
    """`update_bounded` for membranes at zero. Returns saturations."""
    clips = int32(0)
    for j in range(len(v)):
        free = int32(int32((drive[j] >> drop) << shift) + bias[j])
        held = int32(min(max(free, int32(-_V_MAX)), int32(_V_MAX)))
        clips = int32(clips + int32(free != held))
        spike = held > threshold[j]
        fired[j] = spike
        v[j] = int32(0) if spike else held
    return clips


@njit(cache=True, boundscheck=False)
def update_bounded(v, drive, keep, bias, threshold, drop, shift, fired):
    """One LIF step of a run of neurons whose current cannot wrap. Returns saturations.

    The product v * keep is exact in float64 (23 by 12 bits), and the cast rounds toward zero:
    this is dec(v, dv).
    """
    clips = int32(0)
    for j in range(len(v)):
        free = int32(
            int32(int32(np.float64(v[j]) * keep[j]) + int32((drive[j] >> drop) << shift)) + bias[j]
        )
        held = int32(min(max(free, int32(-_V_MAX)), int32(_V_MAX)))
        clips = int32(clips + int32(free != held))
        spike = held > threshold[j]
        fired[j] = spike
        v[j] = int32(0) if spike else held
    return clips


@njit(cache=True, boundscheck=False)
def update_wrapping(v, drive, keep, bias, threshold, drop, shift, fired):
    """The same with the 24-bit wrap of the current. Returns (wraps, saturations)."""
    wraps = int32(0)
    clips = int32(0)
    for j in range(len(v)):
        held, wrapped, clipped = _wrapping(v[j], drive[j], keep[j], bias[j], drop, shift)
        wraps = int32(wraps + wrapped)
        clips = int32(clips + clipped)
        spike = held > threshold[j]
        fired[j] = spike
        v[j] = int32(0) if spike else held
    return wraps, clips


_BIT_PLACES = np.zeros((256, 8), np.int32)  # which bits of a byte are set, lowest first
for _byte in range(256):
    _set = [bit for bit in range(8) if _byte >> bit & 1]
    _BIT_PLACES[_byte, : len(_set)] = _set
_BIT_COUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
# gathers the lowest bits of eight bytes (each 0 or 1) into the top byte, first byte lowest
_GATHER = np.uint64(0x0102040810204080)


@njit(cache=True, boundscheck=False)
def _collect(fired, words, start, stop, spikes, count):
    """Append the indices of fired[start:stop] to spikes; returns the new count.

    words: the same flags, eight a word. Writes up to eight entries past the last spike.
    """
    if start % 8 or stop % 8:
        for i in range(start, stop):
            spikes[count] = i
            count += fired[i]
        return count
    for word in range(start // 8, stop // 8):
        if words[word]:
            byte = np.int64((words[word] * _GATHER) >> np.uint64(56))
            places = _BIT_PLACES[byte]
            out = spikes[count : count + 8]
            base = int32(8 * word)
            for bit in range(8):
                out[bit] = base + places[bit]
            count += _BIT_COUNT[byte]
    return count


@njit(cache=True, boundscheck=False)
def _collect_graded(fired, start, stop, spikes, sizes, count, counts, sums):
    """`_collect`, with what spikes carry to `sizes`; counts and sums [P * C] are kept as well."""
    for i in range(start, stop):
        if fired[i]:
            spikes[count] = i
            sizes[count] = fired[i]
            count += 1
            counts[i] += 1
            sums[i] += fired[i]
    return count


@njit(cache=True, boundscheck=False)
def sweep(
    t, row, v, drive, fired, words, touched, live, keep, bias, threshold, payload_shift,
    rest_v, rest_spikes, rest_count, rest_clips, spikes, sizes, counts, sums, stats,
):  # fmt: skip
    """Step t of one layer; arrays are the layer's own. Returns the number of spikes.

    touched [P]: positions that got an event in this step. live [P]: ever in this decision.
    counts uint8 [P * C]: spikes of each neuron in this decision. Of graded spikes, sizes: what each
    carries, sums [P * C]: what each neuron's carried in this decision.
    """
    graded = len(payload_shift) > 0
    positions, channels, block = row[POSITIONS], row[CHANNELS], row[BLOCK]
    drop, shift = row[DROP], row[SHIFT]
    count = 0
    driven = 0
    resting = 0
    p = 0
    while p < positions:
        if not (touched[p] or live[p]):
            resting += 1
            if rest_count[t] > 0:
                for c in range(channels):
                    if rest_spikes[t * channels + c]:
                        if graded:
                            sizes[count] = rest_spikes[t * channels + c]
                            sums[p * channels + c] += rest_spikes[t * channels + c]
                        spikes[count] = p * channels + c
                        counts[p * channels + c] += 1
                        count += 1
            p += 1
            continue
        first = p
        while p < positions and p - first < block and (touched[p] or live[p]):
            driven += touched[p]
            if not live[p]:
                live[p] = 1
                line = v[p * channels : (p + 1) * channels]
                if t == 0:
                    line[:] = 0
                else:
                    line[:] = rest_v[(t - 1) * channels : t * channels]
            p += 1
        a, b = first * channels, p * channels
        if graded:
            wraps, clips = update_graded(
                v[a:b], drive[a:b], keep, bias, threshold, payload_shift, drop, shift, fired[a:b]
            )
            stats[WRAPS] += wraps
            stats[SATURATIONS] += clips
            count = _collect_graded(fired, a, b, spikes, sizes, count, counts, sums)
            continue
        if row[MAY_WRAP]:
            wraps, clips = update_wrapping(
                v[a:b], drive[a:b], keep, bias, threshold, drop, shift, fired[a:b]
            )
            stats[WRAPS] += wraps
        elif t == 0:
            clips = update_first(v[a:b], drive[a:b], bias, threshold, drop, shift, fired[a:b])
        else:
            clips = update_bounded(
                v[a:b], drive[a:b], keep, bias, threshold, drop, shift, fired[a:b]
            )
        stats[SATURATIONS] += clips
        count = _collect(fired, words, a, b, spikes, count)
        run_fired, run_counts = fired[a:b], counts[a:b]
        for j in range(b - a):
            run_counts[j] += run_fired[j]
    stats[SATURATIONS] += resting * rest_clips[t]
    stats[DRIVEN_UPDATES] += driven * channels
    stats[IDLE_UPDATES] += (positions - driven) * channels
    stats[SPIKES] += count
    return count


@njit(cache=True, boundscheck=False)
def _count_different(words, other):
    """How many of two arrays of eight-byte words differ."""
    different = 0
    for i in range(len(words)):
        different += words[i] != other[i]
    return different


@njit(cache=True, boundscheck=False)
def _count_lit(words):
    """How many eight-byte words are not zero."""
    lit = 0
    for i in range(len(words)):
        lit += words[i] != 0
    return lit


@njit(cache=True, boundscheck=False)
def present(
    frame, frame_words, last, last_words, weights, channels, window_ptr, window_input, window_row,
    reach_ptr, reach_out, event_units, input_cores, drive, events, entered, dirty, rows, values,
    stats,
):  # fmt: skip
    """Move the first layer's drive [P, C] from frame `last` to `frame`, and `last` with it.

    events [P]: how many events of `frame` each output position receives; entered [1]: how many
    are sent to cores, a value once to each that reads it. Both are kept up to date.
    """
    positions = len(events)
    different = _count_different(frame_words, last_words)
    if different:
        everything = different * 4 > len(frame_words)
        if everything:
            dirty[:] = 1
            count = 0
            if event_units[255] == 1:  # one event a value: counted in vector code
                for i in range(len(input_cores)):
                    count += input_cores[i] * (frame[i] != 0)
            else:
                for i in range(len(input_cores)):
                    count += input_cores[i] * event_units[frame[i]]
            entered[0] = count
        else:
            dirty[:] = 0
            for word in range(len(frame_words)):
                if frame_words[word] != last_words[word]:
                    for i in range(8 * word, min(8 * word + 8, len(input_cores))):
                        if frame[i] != last[i]:
                            units = event_units[frame[i]] - event_units[last[i]]
                            entered[0] += input_cores[i] * units
                            for k in range(reach_ptr[i], reach_ptr[i + 1]):
                                dirty[reach_out[k]] = 1
        for p in range(positions):
            if not dirty[p]:
                continue
            changed = 0
            units = 0
            for k in range(window_ptr[p], window_ptr[p + 1]):
                i = window_input[k]
                x = frame[i]
                delta = int32(x) - int32(last[i])
                rows[changed] = window_row[k]
                values[changed] = delta
                changed += delta != 0
                units += event_units[x]
            events[p] = units
            line = drive[p * channels : (p + 1) * channels]
            add_scaled_rows(weights, rows, values, changed, channels, line)
        last_words[:] = frame_words
    stats[INPUT_EVENTS] += entered[0]
    total = 0
    for p in range(positions):
        total += events[p]
        dirty[p] = events[p] > 0
    stats[SYNAPTIC_OPS] += total * channels


@njit(cache=True, boundscheck=False)
def _part(packed, bounds, i):
    """Array i of those packed into one (see `core.pack`)."""
    return packed[bounds[i] : bounds[i + 1]]


@njit(cache=True, boundscheck=False)
def run_program(
    frames, frame_words, shape, weights, keep, rest_spikes, static64, bounds64, static32, bounds32,
    state64, state_bounds64, state32, state_bounds32, narrow, state8, state_words,
    state_bounds8,
    latent, layer_spikes, neuron_spikes, stats, raster,
):  # fmt: skip
    """All decisions of a batch. frames uint8 [B, T, padded inputs], frame_words the same by eight.

    Arrays come packed by type, since each argument costs as much as a hundred synapses; the order
    is that of `EventCore`. shape = (layers, layout columns). Outputs: latent int32 [B, L],
    layer_spikes int64 [B, layers], neuron_spikes int32 [neurons], stats int64 [layers,
    STATISTICS], raster uint8 [B, T, neurons] or of length 0.
    """
    frames, frame_words = borrow(frames), borrow(frame_words)
    weights, keep, rest_spikes = borrow(weights), borrow(keep), borrow(rest_spikes)
    static64, static32, state64 = borrow(static64), borrow(static32), borrow(state64)
    state32, state8, state_words = borrow(state32), borrow(state8), borrow(state_words)
    narrow = borrow(narrow)
    latent, layer_spikes, raster = borrow(latent), borrow(layer_spikes), borrow(raster)
    neuron_spikes, stats = borrow(neuron_spikes), borrow(stats)
    layers, steps = shape[0], frames.shape[1]
    layout = _part(static64, bounds64, 0).reshape((layers, shape[1]))
    pair_ptr = _part(static64, bounds64, 1)
    window_ptr = _part(static64, bounds64, 2)
    reach_ptr = _part(static64, bounds64, 3)
    rest_count = _part(static64, bounds64, 4).reshape((layers, steps))
    rest_clips = _part(static64, bounds64, 5).reshape((layers, steps))
    event_units = _part(static64, bounds64, 6)
    pair_out = _part(static32, bounds32, 0)
    pair_tap = _part(static32, bounds32, 1)
    window_input = _part(static32, bounds32, 2)
    window_row = _part(static32, bounds32, 3)
    reach_out = _part(static32, bounds32, 4)
    bias = _part(static32, bounds32, 5)
    threshold = _part(static32, bounds32, 6)
    rest_v = _part(static32, bounds32, 7)
    latent_index = _part(static32, bounds32, 8)
    input_cores = _part(static32, bounds32, 9)
    payload_shift = _part(static32, bounds32, 10)
    graded = len(payload_shift) > 0
    events = _part(state64, state_bounds64, 0)
    entered = _part(state64, state_bounds64, 1)
    rows = _part(state64, state_bounds64, 2)
    received = _part(state64, state_bounds64, 3)
    v = _part(state32, state_bounds32, 0)
    drive = _part(state32, state_bounds32, 1)
    spikes_a = _part(state32, state_bounds32, 2)
    spikes_b = _part(state32, state_bounds32, 3)
    values = _part(state32, state_bounds32, 4)
    mail = _part(state32, state_bounds32, 5)
    mail_sizes = _part(state32, state_bounds32, 6)
    sizes_a = _part(state32, state_bounds32, 7)
    sizes_b = _part(state32, state_bounds32, 8)
    sums = _part(state32, state_bounds32, 9)
    last = _part(state8, state_bounds8, 0)
    last_words = state_words[: state_bounds8[1] // 8]
    fired = _part(state8, state_bounds8, 1)
    fired_words = state_words[state_bounds8[1] // 8 : state_bounds8[2] // 8]
    touched = _part(state8, state_bounds8, 2)
    live = _part(state8, state_bounds8, 3)
    counts = _part(state8, state_bounds8, 4)

    channels = layout[0, CHANNELS]
    first_places = layout[0, POSITIONS]
    first_drive = drive[: first_places * channels]
    for decision in range(len(frames)):
        # start from the last image or from black, whichever is nearer: same bits, less work
        if _count_lit(frame_words[decision, 0]) < _count_different(
            frame_words[decision, 0], last_words
        ):
            last_words[:] = 0
            first_drive[:] = 0
            events[:] = 0
            entered[0] = 0
        live[:] = 0
        counts[:] = 0
        sums[:] = 0
        for t in range(steps):
            present(
                frames[decision, t], frame_words[decision, t], last, last_words, weights, channels,
                window_ptr, window_input, window_row, reach_ptr, reach_out, event_units,
                input_cores, first_drive, events, entered, touched[:first_places], rows, values,
                stats[0],
            )  # fmt: skip
            source, target = spikes_a, spikes_b
            source_sizes, target_sizes = sizes_a, sizes_b
            count = 0
            for number in range(layers):
                row = layout[number]
                positions, c_out = row[POSITIONS], row[CHANNELS]
                n0, n1 = row[NEURONS], row[NEURONS] + positions * c_out
                p0, p1 = row[PLACES], row[PLACES] + positions
                own_drive, own_touched = drive[n0:n1], touched[p0:p1]
                if number > 0:
                    stats[number, INPUT_EVENTS] += count
                    w0 = row[WEIGHTS]
                    m0, m1 = row[MAIL], row[MAIL] + positions * row[ROWS]
                    boxes = mail[m0:m1].reshape((positions, row[ROWS]))
                    if graded:
                        stats[number, SYNAPTIC_OPS] += deliver_graded(
                            source, source_sizes, count, row[IN_CHANNELS], c_out, weights[w0:],
                            pair_ptr[row[PAIRS] :], pair_out, pair_tap, own_drive, own_touched,
                            boxes, mail_sizes[m0:m1].reshape((positions, row[ROWS])),
                            received[p0:p1],
                        )  # fmt: skip
                    else:
                        stats[number, SYNAPTIC_OPS] += deliver(
                            source, count, row[IN_CHANNELS], c_out, weights[w0:],
                            pair_ptr[row[PAIRS] :], pair_out, pair_tap, own_drive, own_touched,
                            boxes, received[p0:p1], narrow,
                        )  # fmt: skip
                q0 = row[PARAMS]
                r0 = row[RESTING]
                count = sweep(
                    t, row, v[n0:n1], own_drive, fired[n0:n1], fired_words[n0 // 8 :], own_touched,
                    live[p0:p1], keep[q0:], bias[q0:], threshold[q0:], payload_shift[q0:],
                    rest_v[r0:], rest_spikes[r0:], rest_count[number], rest_clips[number], target,
                    target_sizes, counts[n0:n1], sums[n0:n1], stats[number],
                )  # fmt: skip
                layer_spikes[decision, number] += count
                if len(raster):
                    for i in range(count):
                        raster[decision, t, n0 + target[i]] = target_sizes[i] if graded else 1
                source, target = target, source
                source_sizes, target_sizes = target_sizes, source_sizes
        for i in range(len(neuron_spikes)):
            neuron_spikes[i] += counts[i]
        own_latent = latent[decision]
        for i in range(len(own_latent)):
            at = latent_index[i]
            own_latent[i] = sums[at] if graded else counts[at]
