"""Four time steps of sixteen LIF neurons, forward and backward, as numba intrinsics.

See vector.py, whose terms these are. lif.py says what they compute.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from agents.encoders.vector import I16, I64, STEPS, VF, Emit, literal


def _membranes(e: Emit, drive: int, at: int, channel, leaks, thresholds, graded: bool = False):
    """The four steps of 16 LIF neurons: v before the reset and spikes, each a list of vectors.

    A spike leaves v at 0, a graded one at the threshold.
    """
    builder = e.builder
    trace, spikes = [], []
    left = thresholds if graded else e.constant(0.0)
    for t in range(STEPS):
        place = builder.load(builder.gep(e.data(at), [ir.Constant(I64, t)]))
        v = e.load(e.data(drive), builder.add(place, channel))
        if t > 0:  # a product and a sum, as plain torch rounds them: the same spikes, not nearly
            rest = builder.select(spikes[-1], left, trace[-1])
            v = builder.fadd(builder.fmul(leaks, rest), v)
        trace.append(v)
        spikes.append(builder.fcmp_ordered(">", v, thresholds))
    return trace, spikes


def _surrogate(e: Emit, v, theta, height, reach, boxcar):
    """Where |v - threshold| < width threshold, and what the surrogate is there."""
    distance = e.call("llvm.fabs.v16f32", VF, e.builder.fsub(v, theta))
    distance = e.builder.fmul(distance, reach)
    one = e.constant(1.0)
    inside = e.builder.fcmp_ordered("<", distance, one)
    if boxcar.literal_value:
        return inside, height
    return inside, e.builder.fmul(e.builder.fsub(one, distance), height)


@intrinsic
def lif_forward(typingctx, drive, at, leak, threshold, channel, spikes, word, words):
    """Four time steps of 16 neurons; returns their number of spikes.

    v = leak * v + drive[at[t] + channel:]; s = v > threshold; v = 0 where s. Spikes of step t go
    to spikes[word + t * words] as bits. `at` is int64.
    """

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        channel = e.index(4)
        leaks, thresholds = e.load(e.data(2), channel), e.load(e.data(3), channel)
        _, fired = _membranes(e, 0, 1, channel, leaks, thresholds)
        total = ir.Constant(I64, 0)
        for t, spike in enumerate(fired):
            bits = builder.bitcast(spike, I16)
            place = builder.add(e.index(6), builder.mul(e.index(7), ir.Constant(I64, t)))
            e.store(bits, e.data(5), place)
            total = builder.add(total, e.call("llvm.ctpop.i64", I64, builder.zext(bits, I64)))
        return total

    return types.int64(drive, at, leak, threshold, channel, spikes, word, words), codegen


@intrinsic
def lif_forward_graded(
    typingctx, drive, at, leak, threshold, channel, spikes, word, words, gain, sizes, place, step,
):  # fmt: skip
    """As `lif_forward`, but a spike leaves v = threshold and carries what was above it: (v -
    threshold) gain, or 0.0 where there is none, goes to sizes[place + t * step:]."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        channel = e.index(4)
        leaks, thresholds, gains = (e.load(e.data(i), channel) for i in (2, 3, 8))
        trace, fired = _membranes(e, 0, 1, channel, leaks, thresholds, graded=True)
        total = ir.Constant(I64, 0)
        for t, spike in enumerate(fired):
            bits = builder.bitcast(spike, I16)
            row = builder.add(e.index(6), builder.mul(e.index(7), ir.Constant(I64, t)))
            e.store(bits, e.data(5), row)
            total = builder.add(total, e.call("llvm.ctpop.i64", I64, builder.zext(bits, I64)))
            size = builder.fmul(builder.fsub(trace[t], thresholds), gains)
            row = builder.add(e.index(10), builder.mul(e.index(11), ir.Constant(I64, t)))
            e.store(builder.select(spike, size, e.constant(0.0)), e.data(9), row)
        return total

    return (
        types.int64(
            drive, at, leak, threshold, channel, spikes, word, words, gain, sizes, place, step
        ),
        codegen,
    )


@intrinsic
def lif_forward_dense(typingctx, drive, at, leak, threshold, channel, spikes):
    """As `lif_forward`, with spikes as floats at the places of their drives."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        channel = e.index(4)
        leaks, thresholds = e.load(e.data(2), channel), e.load(e.data(3), channel)
        _, fired = _membranes(e, 0, 1, channel, leaks, thresholds)
        total = ir.Constant(I64, 0)
        for t, spike in enumerate(fired):
            place = builder.load(builder.gep(e.data(1), [ir.Constant(I64, t)]))
            value = builder.select(spike, e.constant(1.0), e.constant(0.0))
            e.store(value, e.data(5), builder.add(place, channel))
            bits = builder.zext(builder.bitcast(spike, I16), I64)
            total = builder.add(total, e.call("llvm.ctpop.i64", I64, bits))
        return total

    return types.int64(drive, at, leak, threshold, channel, spikes), codegen


@intrinsic
def lif_backward(
    typingctx, drive, at, upstream, up_at, up_stride, every, leak, threshold, slope, span,
    channel, sums, channels, gradient, out_at, out_stride, boxcar,
):  # fmt: skip
    """Four time steps of 16 neurons backwards; their membranes are computed again.

    g_s = upstream[up_at + t * up_stride:] + every; phi at v_t;
    g_t = g_s phi + leak g_{t+1} (1 - s_t), written to gradient[out_at + t * out_stride:].
    slope = peak / threshold, span = 1 / (width threshold); sums [3, channels] collects the
    gradients of bias, leak and threshold.
    """
    if not literal(boxcar):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        channel, sums_data, wide = e.index(10), e.data(11), e.index(12)
        zero = e.constant(0.0)
        leaks, theta, height, reach = (e.load(e.data(i), channel) for i in (6, 7, 8, 9))
        trace, spikes = _membranes(e, 0, 1, channel, leaks, theta)
        places = [
            channel,
            builder.add(channel, wide),
            builder.add(channel, builder.add(wide, wide)),
        ]
        bias, leak_sum, threshold_sum = (e.load(sums_data, place) for place in places)
        later = None  # gradient of v one step later
        for t in reversed(range(STEPS)):
            inside, phi = _surrogate(e, trace[t], theta, height, reach, boxcar)
            step = builder.mul(e.index(4), ir.Constant(I64, t))
            g_s = e.load(e.data(2), builder.add(e.index(3), step))
            g_s = builder.fadd(g_s, e.splat(args[5]))
            g_spike = builder.select(inside, builder.fmul(g_s, phi), zero)
            g = g_spike
            if later is not None:
                rest = builder.select(spikes[t], zero, trace[t])
                leak_sum = e.fma(later, rest, leak_sum)
                passed = builder.fmul(builder.select(spikes[t], zero, later), leaks)
                g = builder.fadd(g, passed)
            bias = builder.fadd(bias, g)
            threshold_sum = builder.fsub(threshold_sum, g_spike)
            row = builder.mul(e.index(15), ir.Constant(I64, t))
            e.store(g, e.data(13), builder.add(row, e.index(14)))
            later = g
        for value, place in zip((bias, leak_sum, threshold_sum), places):
            e.store(value, sums_data, place)
        return context.get_dummy_value()

    return (
        types.void(
            drive, at, upstream, up_at, up_stride, types.float32, leak, threshold, slope, span,
            channel, sums, channels, gradient, out_at, out_stride, boxcar,
        ),
        codegen,
    )  # fmt: skip


@intrinsic
def lif_backward_graded(
    typingctx, drive, at, upstream, up_at, up_stride, every, leak, threshold, slope, span, gain,
    channel, sums, channels, gradient, out_at, out_stride, boxcar,
):  # fmt: skip
    """As `lif_backward`, for spikes of size (v - threshold) gain, gain = 1 / threshold.

    upstream is the gradient of sizes: times gain where there is a spike, else times phi; `every`
    that of the number of spikes, times phi. What a spike leaves, the threshold, is no constant:
    gradient flows to it.
    """
    if not literal(boxcar):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        channel, sums_data, wide = e.index(11), e.data(12), e.index(13)
        zero, one = e.constant(0.0), e.constant(1.0)
        leaks, theta, height, reach, gains = (e.load(e.data(i), channel) for i in range(6, 11))
        trace, spikes = _membranes(e, 0, 1, channel, leaks, theta, graded=True)
        places = [
            channel,
            builder.add(channel, wide),
            builder.add(channel, builder.add(wide, wide)),
        ]
        bias, leak_sum, threshold_sum = (e.load(sums_data, place) for place in places)
        every = e.splat(args[5])
        later = None  # gradient of v one step later
        for t in reversed(range(STEPS)):
            inside, phi = _surrogate(e, trace[t], theta, height, reach, boxcar)
            count = builder.select(inside, builder.fmul(every, phi), zero)
            step = builder.mul(e.index(4), ir.Constant(I64, t))
            up = e.load(e.data(2), builder.add(e.index(3), step))
            near = builder.select(inside, builder.fmul(up, phi), zero)
            size = builder.select(spikes[t], builder.fmul(up, gains), near)
            g = builder.fadd(size, count)
            # of (v - threshold) / threshold: -v / threshold^2, where phi stands for it: -phi
            share = builder.select(spikes[t], builder.fdiv(trace[t], theta), one)
            threshold_sum = builder.fsub(threshold_sum, builder.fmul(size, share))
            threshold_sum = builder.fsub(threshold_sum, count)
            if later is not None:
                rest = builder.select(spikes[t], theta, trace[t])
                leak_sum = e.fma(later, rest, leak_sum)
                passed = builder.fmul(later, leaks)
                g = builder.fadd(g, builder.select(spikes[t], zero, passed))
                kept = builder.select(spikes[t], passed, zero)
                threshold_sum = builder.fadd(threshold_sum, kept)
            bias = builder.fadd(bias, g)
            row = builder.mul(e.index(16), ir.Constant(I64, t))
            e.store(g, e.data(14), builder.add(row, e.index(15)))
            later = g
        for value, place in zip((bias, leak_sum, threshold_sum), places):
            e.store(value, sums_data, place)
        return context.get_dummy_value()

    return (
        types.void(
            drive, at, upstream, up_at, up_stride, types.float32, leak, threshold, slope, span,
            gain, channel, sums, channels, gradient, out_at, out_stride, boxcar,
        ),
        codegen,
    )  # fmt: skip
