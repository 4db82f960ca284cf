"""Sixteen-lane vector operations for the event kernels, as numba intrinsics.

LLVM cannot keep accumulators in registers across a loop when two arrays might overlap, and picks
half-width vectors; these few loops are where the encoder's time goes, so they are spelled out.
LLVM splits the lanes on machines with narrower vectors. Sums run in a fixed order: results do
not depend on anything but the inputs.

All arrays are one-dimensional and C-contiguous; an offset counts elements. `n` is a literal: the
number of vectors held in registers, so that a row is 16 n channels. Nothing checks bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
STEPS = 4  # time steps of a decision: the stacked frames
F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
VF, VI = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
VMASK = ir.VectorType(ir.IntType(1), LANES)


class _Emit:
    """The few instructions that the intrinsics below are made of."""

    def __init__(self, context, builder, signature, args) -> None:
        self.context, self.builder = context, builder
        self.types, self.args = signature.args, args

    def data(self, i: int):
        """Data pointer of the i-th argument, an array."""
        return self.context.make_array(self.types[i])(self.context, self.builder, self.args[i]).data

    def index(self, i: int):
        """The i-th argument, an integer, as i64."""
        return self.context.cast(self.builder, self.args[i], self.types[i], types.int64)

    def load(self, pointer, offset, kind=VF):
        at = self.builder.gep(pointer, [offset])
        return self.builder.load(self.builder.bitcast(at, kind.as_pointer()), align=1)

    def store(self, value, pointer, offset) -> None:
        at = self.builder.gep(pointer, [offset])
        self.builder.store(value, self.builder.bitcast(at, value.type.as_pointer()), align=1)

    def splat(self, value, kind=VF):
        zero = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(zero, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, zero, ir.Constant(VI, [0] * LANES))

    def constant(self, value: float):
        return ir.Constant(VF, [ir.Constant(F32, value)] * LANES)

    def fma(self, a, b, c):
        return self.call("llvm.fma.v16f32", VF, a, b, c)

    def call(self, name: str, result, *args):
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(result, [a.type for a in args]), name
        )
        return self.builder.call(function, args)

    def plus(self, offset, elements: int):
        return self.builder.add(offset, ir.Constant(I64, elements))

    def accumulators(self, n: int):
        return [cgutils.alloca_once(self.builder, VF) for _ in range(n)]

    def bits(self, mask):
        """Sixteen booleans as the low bits of a u64."""
        return self.builder.zext(self.builder.bitcast(mask, I16), I64)


def _literal(*values) -> bool:
    return all(isinstance(v, types.IntegerLiteral) for v in values)


@intrinsic
def load_u64(typingctx, array, offset):
    """Eight bytes from a uint8 array at any offset."""

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        return e.load(e.data(0), e.index(1), I64)

    return types.uint64(array, offset), codegen


@intrinsic
def read_row(typingctx, array, offset, out, at):
    """out[at:] = eight bytes of a uint8 array from `offset` on, as floats."""

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        pixels = e.load(e.data(0), e.index(1), ir.VectorType(ir.IntType(8), 8))
        floats = builder.uitofp(pixels, ir.VectorType(F32, 8))
        e.store(floats, e.data(2), e.index(3))
        return context.get_dummy_value()

    return types.void(array, offset, out, at), codegen


@intrinsic
def popcount(typingctx, word):
    """Number of set bits of a u64."""

    def codegen(context, builder, signature, args):
        return _Emit(context, builder, signature, args).call("llvm.ctpop.i64", I64, args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def list_events(typingctx, mask, first, rows, at):
    """rows[at:] = first + positions of the set bits of a u16; 16 entries may be overwritten."""

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        bits = builder.bitcast(builder.trunc(args[0], I16), VMASK)
        lanes = ir.Constant(VI, list(range(LANES)))
        numbers = builder.add(lanes, e.splat(builder.trunc(e.index(1), I32), VI))
        packed = e.call(
            "llvm.experimental.vector.compress.v16i32", VI, numbers, bits, ir.Constant(VI, None)
        )
        e.store(packed, e.data(2), e.index(3))
        return context.get_dummy_value()

    return types.void(types.uint64, first, rows, at), codegen


@intrinsic
def list_values(typingctx, mask, values, offset, packed, at):
    """packed[at:] = the 16 floats at values[offset:] whose bit is set."""

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        bits = builder.bitcast(builder.trunc(args[0], I16), VMASK)
        value = e.load(e.data(1), e.index(2))
        out = e.call(
            "llvm.experimental.vector.compress.v16f32", VF, value, bits, ir.Constant(VF, None)
        )
        e.store(out, e.data(3), e.index(4))
        return context.get_dummy_value()

    return types.void(types.uint64, values, offset, packed, at), codegen


@intrinsic
def patch_product(typingctx, x, count, weight, column, width, start, out, offset, n):
    """out[offset:] = start[column:] + sum over i < count of x[i] * weight[i * width + column:]."""
    if not _literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        xs, w, wide = e.data(0), e.data(2), e.index(4)
        vectors = n.literal_value
        # Two partial sums a vector: the chain of additions, not their number, would set the pace.
        sums = e.accumulators(2 * vectors)
        for j in range(vectors):
            builder.store(e.load(e.data(5), e.plus(e.index(3), 16 * j)), sums[j])
            builder.store(e.constant(0.0), sums[vectors + j])
        two = ir.Constant(I64, 2)
        pairs = builder.udiv(e.index(1), two)

        def add(i, half: int) -> None:
            value = e.splat(builder.load(builder.gep(xs, [i])))
            row = builder.add(builder.mul(i, wide), e.index(3))
            for j in range(vectors):
                slot = sums[half * vectors + j]
                term = e.load(w, e.plus(row, 16 * j))
                builder.store(e.fma(value, term, builder.load(slot)), slot)

        with cgutils.for_range(builder, pairs, intp=I64) as loop:
            first = builder.mul(loop.index, two)
            add(first, 0)
            add(e.plus(first, 1), 1)
        odd = builder.icmp_unsigned("!=", builder.mul(pairs, two), e.index(1))
        with builder.if_then(odd):
            add(builder.mul(pairs, two), 0)
        for j in range(vectors):
            total = builder.fadd(builder.load(sums[j]), builder.load(sums[vectors + j]))
            e.store(total, e.data(6), e.plus(e.index(7), 16 * j))
        return context.get_dummy_value()

    return types.void(x, count, weight, column, width, start, out, offset, n), codegen


@intrinsic
def sum_rows(typingctx, weight, rows, count, column, width, start, out, offset, n):
    """out[offset:] = start[column:] + sum over i < count of weight[rows[i] * width + column:]."""
    if not _literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        w, wide = e.data(0), e.index(4)
        sums = e.accumulators(n.literal_value)
        for j, slot in enumerate(sums):
            builder.store(e.load(e.data(5), e.plus(e.index(3), 16 * j)), slot)
        with cgutils.for_range(builder, e.index(2), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, wide), e.index(3))
            for j, slot in enumerate(sums):
                term = e.load(w, e.plus(row, 16 * j))
                builder.store(builder.fadd(builder.load(slot), term), slot)
        for j, slot in enumerate(sums):
            e.store(builder.load(slot), e.data(6), e.plus(e.index(7), 16 * j))
        return context.get_dummy_value()

    return types.void(weight, rows, count, column, width, start, out, offset, n), codegen


@intrinsic
def add_scaled_rows(typingctx, weight, rows, scales, count, column, width, out, offset, n):
    """out[offset:] += sum over i < count of scales[i] * weight[rows[i] * width + column:]."""
    if not _literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        w, out_data = e.data(0), e.data(6)
        sums = e.accumulators(n.literal_value)
        for j, slot in enumerate(sums):
            builder.store(e.load(out_data, e.plus(e.index(7), 16 * j)), slot)
        with cgutils.for_range(builder, e.index(3), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, e.index(5)), e.index(4))
            scale = e.splat(builder.load(builder.gep(e.data(2), [loop.index])))
            for j, slot in enumerate(sums):
                term = e.load(w, e.plus(row, 16 * j))
                builder.store(e.fma(scale, term, builder.load(slot)), slot)
        for j, slot in enumerate(sums):
            e.store(builder.load(slot), out_data, e.plus(e.index(7), 16 * j))
        return context.get_dummy_value()

    return types.void(weight, rows, scales, count, column, width, out, offset, n), codegen


@intrinsic
def add_outer(typingctx, x, count, value, offset, grad, column, width, n):
    """grad[i * width + column:] += x[i] * value[offset:] for every i < count."""
    if not _literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        g = e.data(4)
        terms = [e.load(e.data(2), e.plus(e.index(3), 16 * j)) for j in range(n.literal_value)]
        with cgutils.for_range(builder, e.index(1), intp=I64) as loop:
            scale = e.splat(builder.load(builder.gep(e.data(0), [loop.index])))
            row = builder.add(builder.mul(loop.index, e.index(6)), e.index(5))
            for j, term in enumerate(terms):
                at = e.plus(row, 16 * j)
                e.store(e.fma(scale, term, e.load(g, at)), g, at)
        return context.get_dummy_value()

    return types.void(x, count, value, offset, grad, column, width, n), codegen


@intrinsic
def list_patterns(typingctx, m0, m1, m2, m3, first, rows, patterns, at):
    """List the channels that spike in any of four steps, with the steps as a number 1 to 15.

    m0..m3: spikes of 16 channels in each step, as bits. rows[at:] = first + channel, patterns[at:]
    = m0 + 2 m1 + 4 m2 + 8 m3 of that channel. Returns how many; 16 entries may be overwritten.
    """

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        zero = ir.Constant(VI, None)
        steps, some = zero, None
        for t in range(STEPS):
            bits = builder.bitcast(builder.trunc(args[t], I16), VMASK)
            value = ir.Constant(VI, [1 << t] * LANES)
            steps = builder.or_(steps, builder.select(bits, value, zero))
            some = bits if some is None else builder.or_(some, bits)
        lanes = ir.Constant(VI, list(range(LANES)))
        numbers = builder.add(lanes, e.splat(builder.trunc(e.index(4), I32), VI))
        for value, i in ((numbers, 5), (steps, 6)):
            packed = e.call("llvm.experimental.vector.compress.v16i32", VI, value, some, zero)
            e.store(packed, e.data(i), e.index(7))
        return e.call("llvm.ctpop.i64", I64, e.bits(some))

    word = types.uint64
    return types.int64(word, word, word, word, first, rows, patterns, at), codegen


@intrinsic
def pattern_table(typingctx, gradient, column, width, table, n):
    """table[m * 16 n:] = sum of gradient[t * width + column:] over the set bits t of m < 16."""
    if not _literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        vectors = n.literal_value
        for j in range(vectors):
            sums = {}
            for m in range(1, 1 << STEPS):
                t = (m & -m).bit_length() - 1
                if m == 1 << t:
                    row = builder.mul(e.index(2), ir.Constant(I64, t))
                    at = e.plus(builder.add(row, e.index(1)), 16 * j)
                    sums[m] = e.load(e.data(0), at)
                else:
                    sums[m] = builder.fadd(sums[m & (m - 1)], sums[1 << t])
                e.store(sums[m], e.data(3), ir.Constant(I64, 16 * (m * vectors + j)))
        return context.get_dummy_value()

    return types.void(gradient, column, width, table, n), codegen


@intrinsic
def add_vector(typingctx, values, target, source):
    """values[target:] += values[source:], 16 floats."""

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        total = builder.fadd(e.load(e.data(0), e.index(1)), e.load(e.data(0), e.index(2)))
        e.store(total, e.data(0), e.index(1))
        return context.get_dummy_value()

    return types.void(values, target, source), codegen


@intrinsic
def add_patterns(typingctx, grad, rows, patterns, count, column, width, table, n):
    """grad[rows[i] * width + column:] += table[patterns[i] * 16 n:] for every i < count."""
    if not _literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        g, vectors = e.data(0), n.literal_value
        with cgutils.for_range(builder, e.index(3), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, e.index(5)), e.index(4))
            entry = builder.zext(builder.load(builder.gep(e.data(2), [loop.index])), I64)
            entry = builder.mul(entry, ir.Constant(I64, 16 * vectors))
            for j in range(vectors):
                at = e.plus(row, 16 * j)
                term = e.load(e.data(6), e.plus(entry, 16 * j))
                e.store(builder.fadd(e.load(g, at), term), g, at)
        return context.get_dummy_value()

    return types.void(grad, rows, patterns, count, column, width, table, n), codegen


def _membranes(e: _Emit, drive: int, at: int, channel, leaks, thresholds, graded: bool = False):
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


@intrinsic
def lif_forward(typingctx, drive, at, leak, threshold, channel, spikes, word, words):
    """Four time steps of 16 neurons; returns their number of spikes.

    v = leak * v + drive[at[t] + channel:]; s = v > threshold; v = 0 where s. Spikes of step t go
    to spikes[word + t * words] as bits. `at` is int64.
    """

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
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
        e = _Emit(context, builder, signature, args)
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
        e = _Emit(context, builder, signature, args)
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
    if not _literal(boxcar):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        channel, sums_data, wide = e.index(10), e.data(11), e.index(12)
        zero, one = e.constant(0.0), e.constant(1.0)
        leaks, theta, height, reach = (e.load(e.data(i), channel) for i in (6, 7, 8, 9))
        trace, spikes = _membranes(e, 0, 1, channel, leaks, theta)
        places = [channel]
        for _ in range(2):
            places.append(builder.add(places[-1], wide))
        bias, leak_sum, threshold_sum = (e.load(sums_data, place) for place in places)
        later = None  # gradient of v one step later
        for t in reversed(range(STEPS)):
            distance = e.call("llvm.fabs.v16f32", VF, builder.fsub(trace[t], theta))
            distance = builder.fmul(distance, reach)
            inside = builder.fcmp_ordered("<", distance, one)
            phi = height
            if not boxcar.literal_value:
                phi = builder.fmul(builder.fsub(one, distance), height)
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
    """As `lif_backward`, for spikes of size (v - threshold) gain, gain = a constant / threshold.

    upstream is the gradient of sizes: times gain where there is a spike, else times phi; `every`
    that of the number of spikes, times phi. What a spike leaves, the threshold, is no constant:
    gradient flows to it.
    """
    if not _literal(boxcar):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        channel, sums_data, wide = e.index(11), e.data(12), e.index(13)
        zero, one = e.constant(0.0), e.constant(1.0)
        leaks, theta, height, reach, gains = (e.load(e.data(i), channel) for i in range(6, 11))
        trace, spikes = _membranes(e, 0, 1, channel, leaks, theta, graded=True)
        places = [channel]
        for _ in range(2):
            places.append(builder.add(places[-1], wide))
        bias, leak_sum, threshold_sum = (e.load(sums_data, place) for place in places)
        every = e.splat(args[5])
        later = None  # gradient of v one step later
        for t in reversed(range(STEPS)):
            distance = e.call("llvm.fabs.v16f32", VF, builder.fsub(trace[t], theta))
            distance = builder.fmul(distance, reach)
            inside = builder.fcmp_ordered("<", distance, one)
            phi = height
            if not boxcar.literal_value:
                phi = builder.fmul(builder.fsub(one, distance), height)
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


@intrinsic
def add_steps(typingctx, grad, rows, sizes, step, count, values, column, width, n):
    """grad[rows[i] * width + column:] += sum over t of sizes[i + t * step] * values[t * width +
    column:] for every i < count."""
    if not _literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        g, wide = e.data(0), e.index(7)
        terms = []
        for t in range(STEPS):
            row = builder.add(builder.mul(wide, ir.Constant(I64, t)), e.index(6))
            terms.append([e.load(e.data(5), e.plus(row, 16 * j)) for j in range(n.literal_value)])
        with cgutils.for_range(builder, e.index(4), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, wide), e.index(6))
            scales = []
            for t in range(STEPS):
                place = builder.add(loop.index, builder.mul(e.index(3), ir.Constant(I64, t)))
                scales.append(e.splat(builder.load(builder.gep(e.data(2), [place]))))
            for j in range(n.literal_value):
                at = e.plus(row, 16 * j)
                total = e.load(g, at)
                for t in range(STEPS):
                    total = e.fma(scales[t], terms[t][j], total)
                e.store(total, g, at)
        return context.get_dummy_value()

    return types.void(grad, rows, sizes, step, count, values, column, width, n), codegen


@intrinsic
def nonzero(typingctx, values, offset):
    """Bits of the 16 floats at values[offset:] that are not zero."""

    def codegen(context, builder, signature, args):
        e = _Emit(context, builder, signature, args)
        value = e.load(e.data(0), e.index(1))
        return e.bits(builder.fcmp_unordered("!=", value, e.constant(0.0)))

    return types.uint64(values, offset), codegen
